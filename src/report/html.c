/* html.c - the report as one page: header, table, charts, samples, recipes. Text from files passes through put(). */
#include "base/file.h"
#include "report/page.h"
#include "report/report.h"

#include <string.h>

enum { SAMPLE_BYTES = 2000 };

void cab_page_put_some(FILE *out, const char *text, size_t limit)
{
    for (size_t i = 0; text[i]; i++) {
        unsigned char c = (unsigned char)text[i];
        if (i >= limit && ((c & 0xc0) != 0x80 || i >= limit + 3)) {
            fputs(" \xe2\x80\xa6", out);
            return;
        }
        switch (c) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fputc(c < 0x20 && c != '\n' && c != '\t' ? ' ' : c, out);
        }
    }
}

void cab_page_put(FILE *out, const char *text)
{
    cab_page_put_some(out, text, SIZE_MAX);
}

void cab_page_put_json(FILE *out, const char *text)
{
    fputc('"', out);
    for (size_t i = 0; text[i]; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || strchr("\"\\<>&'", c))
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

cab_page_kind cab_page_kinds(const cab_report_runs *runs)
{
    unsigned kinds = 0;
    for (size_t i = 0; i < runs->count; i++)
        kinds |= runs->items[i].images ? CAB_PAGE_IMAGES : CAB_PAGE_TEXT;
    return (cab_page_kind)kinds;
}

/* ---- samples, recipes ------------------------------------------------------------------------------------------- */

static void put_samples(FILE *out, const cab_report_runs *runs)
{
    bool any = false;
    for (size_t i = 0; i < runs->count; i++) {
        const cab_report_run *run = &runs->items[i];
        if (!run->sample[0])
            continue;
        fputs(any ? "" : "<h2>What the students write</h2>\n<div class=\"samples\">\n", out);
        fputs("<div class=\"card sample\"><h3>", out);
        cab_page_put_key(out, runs, i);
        cab_page_put(out, run->name);
        fputs("</h3><p>", out);
        cab_page_put_some(out, run->sample, SAMPLE_BYTES);
        fputs("</p></div>\n", out);
        any = true;
    }
    fputs(any ? "</div>\n" : "", out);
}

static void put_recipes(FILE *out, const cab_report_runs *runs)
{
    fputs("<h2>Recipes</h2>\n", out);
    for (size_t i = 0; i < runs->count; i++) {
        const cab_report_run *run = &runs->items[i];
        fputs("<details><summary>", out);
        cab_page_put(out, run->name);
        fputs("</summary><pre>", out);
        cab_page_put(out, run->recipe[0] ? run->recipe : "not saved with the run");
        fputs("</pre></details>\n", out);
    }
}

const char *cab_report_charts(void)
{
    return cab_page_library[0] ? "dygraphs" : "drawings";
}

/* ---- page ------------------------------------------------------------------------------------------------------- */

/* Nothing is loaded: whatever a file smuggled into the page could not call home. */
static void put_head(FILE *out, const cab_report_runs *runs, const cab_report_page *page)
{
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n",
          out);
    if (page->refresh > 0)
        fprintf(out, "<meta http-equiv=\"refresh\" content=\"%d\">\n", page->refresh);
    fputs("<title>", out);
    cab_page_put(out, page->title);
    fprintf(out, "</title>\n<style>\n%s%s</style></head>\n<body><main>\n<h1>", cab_page_library_style, cab_page_style);
    cab_page_put(out, page->title);
    const size_t count = runs->count ? runs->count : runs->n_comparison;
    fprintf(out, "</h1>\n<p class=\"lead\">%zu %s%s", count, runs->count ? "run" : "comparison", count == 1 ? "" : "s");
    const char *teacher = runs->count          ? runs->items[0].teacher
                          : runs->n_comparison ? runs->comparisons[0].comparison.teacher
                                               : "";
    if (teacher[0]) {
        fputs(", teacher ", out);
        cab_page_put(out, teacher);
    }
    fputs(page->refresh > 0 ? "; still going on</p>\n" : "</p>\n", out);
}

static void put_warnings(FILE *out, const cab_report_runs *runs)
{
    for (size_t i = 0; i < runs->count; i++) {
        if (!runs->items[i].unreadable)
            continue;
        fputs("<p class=\"note\">", out);
        cab_page_put(out, runs->items[i].name);
        fprintf(out, ": %zu line%s of the log could not be read.</p>\n", runs->items[i].unreadable,
                runs->items[i].unreadable == 1 ? "" : "s");
    }
}

static cab_status put_body(FILE *out, const cab_report_runs *runs)
{
    if (runs->count) {
        cab_page_results(out, runs);
        put_warnings(out, runs);
        CAB_TRY(cab_page_curves(out, runs));
        CAB_TRY(cab_page_rankings(out, runs));
    }
    CAB_TRY(cab_page_similarity(out, runs));
    cab_page_predictions(out, runs);
    if (runs->count) {
        put_samples(out, runs);
        put_recipes(out, runs);
    }
    return CAB_OK;
}

/* The library comes last: drawings are seen before it is read. */
static void put_foot(FILE *out, const cab_report_runs *runs)
{
    const bool live = runs->count > 0 && cab_page_library[0];
    fprintf(out, "<footer>Written by cab %s.", CAB_VERSION);
    if (live) {
        fputs(" Charts by dygraphs, under the MIT licence.<details><summary>Licence of dygraphs</summary><pre>", out);
        cab_page_put(out, cab_page_library_licence);
        fputs("</pre></details>", out);
    }
    fputs("</footer>\n</main>", out);
    if (live)
        fprintf(out, "<script>%s</script><script>%s</script>", cab_page_library, cab_page_live);
    fputs("</body></html>\n", out);
}

cab_status cab_report_html(const cab_report_runs *runs, const cab_report_page *page, const char *path)
{
    cab_writer writer;
    CAB_TRY(cab_writer_open(&writer, path));
    put_head(writer.stream, runs, page);
    cab_status status = put_body(writer.stream, runs);
    if (status != CAB_OK) {
        cab_writer_abort(&writer);
        return status;
    }
    put_foot(writer.stream, runs);
    return cab_writer_commit(&writer);
}
