/* html.c - the report as one page: header, table, charts, samples, recipes. Text from files passes through put(). */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "distill/term.h"
#include "report/chart.h"
#include "report/page.h"
#include "report/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE_BYTES = 2000, POINTS_MAX = 300, COLOURS = 8, NUMBER_BYTES = 48 };

const char *cab_page_colour(size_t index)
{
    static const char *const colours[COLOURS] = {"#3b7dd8", "#e0852b", "#2a9d6f", "#c9477f",
                                                 "#8365cf", "#c0503a", "#1f9fb5", "#8c8a2e"};
    return colours[index % COLOURS];
}

void cab_page_put_some(FILE *out, const char *text, size_t limit)
{
    for (size_t i = 0; text[i]; i++) {
        unsigned char c = (unsigned char)text[i];
        if (i >= limit && (c & 0xc0) != 0x80) {
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

/* ---- kinds of runs ---------------------------------------------------------------------------------------------- */

enum kind { TEXT = 1, IMAGES = 2, BOTH = TEXT | IMAGES };

/* Of what the runs read; a report of comparisons alone has neither. */
static enum kind kinds(const cab_report_runs *runs)
{
    unsigned kinds = 0;
    for (size_t i = 0; i < runs->count; i++)
        kinds |= runs->items[i].images ? IMAGES : TEXT;
    return (enum kind)kinds;
}

/* What the runs count by. */
static const char *unit(const cab_report_runs *runs)
{
    switch (kinds(runs)) {
    case IMAGES:
        return "image";
    case BOTH:
        return "token or image";
    default:
        return "token";
    }
}

/* ---- table ------------------------------------------------------------------------------------------------------ */

enum format { FORMAT_REAL, FORMAT_PERCENT, FORMAT_ACCURACY, FORMAT_WHOLE, FORMAT_TOKENS, FORMAT_SECONDS, FORMAT_BYTES };

struct column {
    const char *title;
    double (*value)(const cab_report_run *run);
    enum kind kind; /* of the runs that it is about */
    enum format format;
    int best; /* -1: the least is best; +1: the most; 0: neither */
};

#define VALUE(name, expression)                                                                                        \
    static double name(const cab_report_run *run)                                                                      \
    {                                                                                                                  \
        return expression;                                                                                             \
    }
VALUE(perplexity, run->perplexity)
VALUE(top1, run->top1)
VALUE(top5, run->top5)
VALUE(kl, run->kl)
VALUE(agreement, run->agreement)
VALUE(tokens, run->images ? NAN : run->tokens)
VALUE(images, run->images ? run->tokens : NAN)
VALUE(fraction, run->fraction)
VALUE(speed, run->images ? NAN : run->tokens_per_second)
VALUE(image_speed, run->images_per_second)
VALUE(seconds, run->seconds)
VALUE(memory, run->peak_memory)
VALUE(parameters, run->parameters)
#undef VALUE

static const struct column columns[] = {
    {"Perplexity", perplexity, TEXT, FORMAT_REAL, -1},  {"Top-1", top1, IMAGES, FORMAT_ACCURACY, 1},
    {"Top-5", top5, IMAGES, FORMAT_ACCURACY, 1},        {"KL, nats", kl, BOTH, FORMAT_REAL, -1},
    {"Agreement", agreement, BOTH, FORMAT_PERCENT, 1},  {"Tokens", tokens, TEXT, FORMAT_TOKENS, 0},
    {"Images", images, IMAGES, FORMAT_TOKENS, 0},       {"Data", fraction, BOTH, FORMAT_PERCENT, 0},
    {"Tokens/s", speed, TEXT, FORMAT_WHOLE, 0},         {"Images/s", image_speed, IMAGES, FORMAT_WHOLE, 0},
    {"Time", seconds, BOTH, FORMAT_SECONDS, 0},         {"Peak memory", memory, BOTH, FORMAT_BYTES, 0},
    {"Parameters", parameters, BOTH, FORMAT_TOKENS, 0},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void format_count(double value, char *out)
{
    static const struct {
        double scale;
        const char *unit;
    } units[] = {{1e9, "\xe2\x80\xaf"
                       "B"},
                 {1e6, "\xe2\x80\xaf"
                       "M"},
                 {1e3, "\xe2\x80\xaf"
                       "k"}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (value >= units[i].scale) {
            snprintf(out, NUMBER_BYTES, "%.3g%s", value / units[i].scale, units[i].unit);
            return;
        }
    }
    snprintf(out, NUMBER_BYTES, "%.0f", value);
}

static void format_value(enum format format, double value, char *out)
{
    if (!isfinite(value)) {
        snprintf(out, NUMBER_BYTES, "\xe2\x80\x93");
        return;
    }
    switch (format) {
    case FORMAT_REAL:
        snprintf(out, NUMBER_BYTES, fabs(value) < 10 ? "%.3f" : "%.2f", value);
        break;
    case FORMAT_PERCENT:
        snprintf(out, NUMBER_BYTES, "%.3g\xe2\x80\xaf%%", 100 * value);
        break;
    case FORMAT_ACCURACY:
        snprintf(out, NUMBER_BYTES, "%.2f\xe2\x80\xaf%%", 100 * value);
        break;
    case FORMAT_WHOLE:
        snprintf(out, NUMBER_BYTES, "%.0f", value);
        break;
    case FORMAT_TOKENS:
        format_count(value, out);
        break;
    case FORMAT_SECONDS:
        cab_format_seconds(value, out);
        break;
    case FORMAT_BYTES:
        cab_format_bytes(value, out);
        break;
    }
}

/* Among several runs, whether this one has the best value of the column. */
static bool is_best(const cab_report_runs *runs, const struct column *column, double value)
{
    if (column->best == 0 || !isfinite(value) || runs->count < 2)
        return false;
    for (size_t i = 0; i < runs->count; i++) {
        if ((column->value(&runs->items[i]) - value) * column->best > 0)
            return false;
    }
    return true;
}

/* What the teacher reaches, by the first run that knows it; NAN where none does, or where the column has no such number. */
static double teacher_value(const cab_report_runs *runs, double (*value)(const cab_report_run *run))
{
    for (size_t i = 0; i < runs->count; i++) {
        const cab_report_run *run = &runs->items[i];
        const double known = value == perplexity ? run->teacher_perplexity : value == top1 ? run->teacher_top1 : NAN;
        if (isfinite(known))
            return known;
    }
    return NAN;
}

static bool has_teacher(const cab_report_runs *runs)
{
    return isfinite(teacher_value(runs, perplexity)) || isfinite(teacher_value(runs, top1));
}

static void put_row(FILE *out, const cab_report_runs *runs, size_t index)
{
    const cab_report_run *run = &runs->items[index];
    char number[NUMBER_BYTES];
    fprintf(out, "<tr><td><span class=\"dot\" style=\"background:%s\"></span>", cab_page_colour(index));
    cab_page_put(out, run->name);
    if (run->method[0] && strcmp(run->method, run->name) != 0) {
        fputs("<span class=\"tag\">", out);
        cab_page_put(out, run->method);
        fputs("</span>", out);
    }
    fputs(run->finished ? "</td>" : "<span class=\"tag\">unfinished</span></td>", out);
    for (size_t c = 0; c < COLUMNS; c++) {
        double value = columns[c].value(run);
        if (!(columns[c].kind & kinds(runs)))
            continue;
        format_value(columns[c].format, value, number);
        fprintf(out, "<td%s>%s</td>", is_best(runs, &columns[c], value) ? " class=\"best\"" : "", number);
    }
    fputs("</tr>\n", out);
}

static void put_teacher(FILE *out, const cab_report_runs *runs)
{
    char number[NUMBER_BYTES];
    fputs("<tr class=\"teacher\"><td><span class=\"dash\"></span>teacher</td>", out);
    for (size_t c = 0; c < COLUMNS; c++) {
        const double value = teacher_value(runs, columns[c].value);
        if (!(columns[c].kind & kinds(runs)))
            continue;
        format_value(columns[c].format, value, number);
        fprintf(out, "<td>%s</td>", isfinite(value) ? number : "");
    }
    fputs("</tr>\n", out);
}

static void put_table(FILE *out, const cab_report_runs *runs)
{
    fputs("<h2>Results on the validation data</h2>\n<div class=\"card scroll\"><table><thead><tr><th>Run</th>", out);
    for (size_t c = 0; c < COLUMNS; c++)
        if (columns[c].kind & kinds(runs))
            fprintf(out, "<th>%s</th>", columns[c].title);
    fputs("</tr></thead><tbody>\n", out);
    if (has_teacher(runs))
        put_teacher(out, runs);
    for (size_t i = 0; i < runs->count; i++)
        put_row(out, runs, i);
    fputs("</tbody></table></div>\n", out);
}

/* ---- charts ----------------------------------------------------------------------------------------------------- */

struct plot {
    const char *title, *note; /* %s in the note: what the runs count by */
    size_t offset;            /* of the number in cab_report_point */
    bool evaluation;          /* from the evaluations; else from the training steps, averaged */
    bool logarithmic;
    double (*reference)(const cab_report_run *run); /* the teacher's value of it, a dashed line; NULL: none */
};

#define POINT(field) offsetof(cab_report_point, field)
static const struct plot evaluation_plots[] = {
    {"Validation perplexity", "lower is better", POINT(perplexity), true, true, perplexity},
    {"Validation top-1", "share of images; higher is better", POINT(top1), true, false, top1},
    {"KL from the teacher, validation", "nats per %s; lower is better", POINT(kl), true, true, NULL},
    {"Top-1 agreement, validation", "share of %ss; higher is better", POINT(agreement), true, false, NULL},
};
static const struct plot rate_plot = {"Learning rate", "of the optimizer", POINT(lr), false, false, NULL};

static struct plot term_plot(cab_term_id term)
{
    const cab_term *t = cab_term_at(term);
    return (struct plot){.title = t->chart.title,
                         .note = t->chart.note,
                         .offset = POINT(terms) + (size_t)term * sizeof(double),
                         .logarithmic = t->chart.logarithmic};
}
#undef POINT

static void put_note(FILE *out, const char *note, const char *unit_of)
{
    const char *slot = strstr(note, "%s");
    if (slot)
        fprintf(out, "<p class=\"note\">%.*s%s%s</p>", (int)(slot - note), note, unit_of, slot + 2);
    else
        fprintf(out, "<p class=\"note\">%s</p>", note);
}

static double number_at(const cab_report_point *point, size_t offset)
{
    double value;
    memcpy(&value, (const char *)point + offset, sizeof value);
    return value;
}

/* The usable points of one run, averaged in equal groups where there are more than a chart can show. */
static cab_status make_series(const cab_report_run *run, const struct plot *plot, cab_chart_series *series)
{
    const cab_report_points *points = plot->evaluation ? &run->evaluations : &run->training;
    size_t group = plot->evaluation ? 1 : (points->count + POINTS_MAX - 1) / POINTS_MAX;
    CAB_TRY(CAB_NEW(&series->x, points->count, "a chart's points"));
    CAB_TRY(CAB_NEW(&series->y, points->count, "a chart's points"));
    for (size_t i = 0; i < points->count; i += group) {
        double x = 0, y = 0, used = 0;
        for (size_t j = i; j < i + group && j < points->count; j++) {
            double value = number_at(&points->items[j], plot->offset);
            if (!isfinite(value) || (plot->logarithmic && value <= 0))
                continue;
            x += points->items[j].tokens;
            y += value;
            used++;
        }
        if (used > 0) {
            series->x[series->count] = x / used;
            series->y[series->count++] = y / used;
        }
    }
    return CAB_OK;
}

enum charts { CHARTS_NONE_YET, CHARTS_SOME, CHARTS_IMPOSSIBLE };

static cab_status put_chart(FILE *out, const cab_report_runs *runs, const struct plot *plot, enum charts *charts)
{
    cab_chart_series *series = NULL;
    char *svg = NULL;
    cab_status status;
    cab_chart chart = {.unit = kinds(runs) == IMAGES ? "images"
                               : kinds(runs) == BOTH ? "tokens or images"
                                                     : "tokens",
                       .logarithmic = plot->logarithmic,
                       .marks = plot->evaluation,
                       .definitions = *charts == CHARTS_NONE_YET,
                       .reference = plot->reference ? teacher_value(runs, plot->reference) : NAN};
    CAB_GOTO(CAB_NEW(&series, runs->count, "a chart's series"));
    for (size_t i = 0; i < runs->count; i++) {
        cab_chart_series *one = &series[chart.count];
        one->colour = cab_page_colour(i);
        CAB_GOTO(make_series(&runs->items[i], plot, one));
        if (one->count == 0) {
            cab_free(one->x);
            cab_free(one->y);
            *one = (cab_chart_series){0};
        } else {
            chart.count++;
        }
    }
    chart.series = series;
    if (chart.count == 0 || *charts == CHARTS_IMPOSSIBLE)
        goto done;
    CAB_GOTO(cab_chart_draw(&chart, &svg));
    *charts = svg ? CHARTS_SOME : CHARTS_IMPOSSIBLE;
    if (svg) {
        fprintf(out, "<figure class=\"card chart\"><h3>%s</h3>", plot->title);
        put_note(out, plot->note, unit(runs));
        fprintf(out, "%s</figure>\n", svg);
    }
done:
    for (size_t i = 0; series && i < runs->count; i++) {
        cab_free(series[i].x);
        cab_free(series[i].y);
    }
    cab_free(series);
    cab_free(svg);
    return status;
}

static void put_legend(FILE *out, const cab_report_runs *runs)
{
    fputs("<div class=\"legend\">", out);
    for (size_t i = 0; i < runs->count; i++) {
        fprintf(out, "<span><span class=\"dot\" style=\"background:%s\"></span>", cab_page_colour(i));
        cab_page_put(out, runs->items[i].name);
        fputs("</span>", out);
    }
    if (has_teacher(runs))
        fputs("<span><span class=\"dash\"></span>teacher</span>", out);
    fputs("</div>\n", out);
}

/* What evaluations found, the loss terms, the learning rate. */
static cab_status put_plots(FILE *out, const cab_report_runs *runs, enum charts *charts)
{
    for (size_t i = 0; i < sizeof evaluation_plots / sizeof *evaluation_plots; i++)
        CAB_TRY(put_chart(out, runs, &evaluation_plots[i], charts));
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        const struct plot plot = term_plot((cab_term_id)t);
        CAB_TRY(put_chart(out, runs, &plot, charts));
    }
    return put_chart(out, runs, &rate_plot, charts);
}

static cab_status put_charts(FILE *out, const cab_report_runs *runs)
{
    enum charts charts = CHARTS_NONE_YET;
    fputs("<h2>Training</h2>\n", out);
    put_legend(out, runs);
    fputs("<div class=\"charts\">\n", out);
    CAB_TRY(put_plots(out, runs, &charts));
    fputs("</div>\n", out);
    if (charts == CHARTS_IMPOSSIBLE)
        fputs("<p class=\"note\">No charts: gnuplot could not be run. Install it and write the report again.</p>\n",
              out);
    return CAB_OK;
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
        fprintf(out, "<div class=\"card sample\"><h3><span class=\"dot\" style=\"background:%s\"></span>",
                cab_page_colour(i));
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

/* ---- page ------------------------------------------------------------------------------------------------------- */

static void put_head(FILE *out, const cab_report_runs *runs, const char *title)
{
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
          out);
    cab_page_put(out, title);
    fprintf(out, "</title>\n<style>\n%s</style></head>\n<body><main>\n<h1>", cab_page_style);
    cab_page_put(out, title);
    const size_t count = runs->count ? runs->count : runs->n_comparison;
    fprintf(out, "</h1>\n<p class=\"lead\">%zu %s%s", count, runs->count ? "run" : "comparison", count == 1 ? "" : "s");
    const char *teacher = runs->count          ? runs->items[0].teacher
                          : runs->n_comparison ? runs->comparisons[0].comparison.teacher
                                               : "";
    if (teacher[0]) {
        fputs(", teacher ", out);
        cab_page_put(out, teacher);
    }
    fputs("</p>\n", out);
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
        put_table(out, runs);
        put_warnings(out, runs);
        CAB_TRY(put_charts(out, runs));
    }
    CAB_TRY(cab_page_similarity(out, runs));
    cab_page_predictions(out, runs);
    if (runs->count) {
        put_samples(out, runs);
        put_recipes(out, runs);
    }
    return CAB_OK;
}

cab_status cab_report_html(const cab_report_runs *runs, const char *title, const char *path)
{
    cab_writer writer;
    CAB_TRY(cab_writer_open(&writer, path));
    put_head(writer.stream, runs, title);
    cab_status status = put_body(writer.stream, runs);
    if (status != CAB_OK) {
        cab_writer_abort(&writer);
        return status;
    }
    fprintf(writer.stream, "<footer>Written by cab %s.</footer>\n</main></body></html>\n", CAB_VERSION);
    return cab_writer_commit(&writer);
}
