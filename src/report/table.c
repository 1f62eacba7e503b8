/* table.c - the comparison as text, for a terminal and for other programs. */
#include "report/report.h"

#include <math.h>
#include <string.h>

enum { CELL_BYTES = 32 };

static void cell(FILE *out, const char *format, double value, int width)
{
    char text[CELL_BYTES] = "-";
    if (isfinite(value))
        snprintf(text, sizeof text, format, value);
    fprintf(out, "  %*s", width, text);
}

/* Names come from directories: anything that would break the columns or the terminal is replaced. */
static void name_cell(FILE *out, const char *name, int width)
{
    int used = 0;
    for (; name[used]; used++)
        fputc((unsigned char)name[used] <= ' ' || name[used] == 0x7f ? '_' : name[used], out);
    fprintf(out, "%*s", width > used ? width - used : 0, "");
}

static void image_cells(FILE *out, const cab_report_run *run)
{
    cell(out, "%.2f", 100 * run->top1, 6);
    cell(out, "%.2f", 100 * run->top5, 6);
}

/* Runs on text, on images, or one after the other: the columns of each kind are there if it is. */
typedef struct layout {
    bool text, images;
    int width; /* of the names */
} layout;

static void row(FILE *out, const cab_report_run *run, const layout *kinds)
{
    name_cell(out, run->name, kinds->width);
    if (kinds->text)
        cell(out, "%.2f", run->perplexity, 10);
    if (kinds->images)
        image_cells(out, run);
    cell(out, "%.4f", run->kl, 8);
    cell(out, "%.4f", run->agreement, 9);
    if (kinds->text)
        cell(out, "%.0f", run->images ? NAN : run->tokens_per_second, 8);
    if (kinds->images)
        cell(out, "%.0f", run->images_per_second, 8);
    cell(out, "%.1f", run->seconds, 8);
    cell(out, "%.0f", run->peak_memory / (1024 * 1024), 8);
    fprintf(out, "%s\n", run->finished ? "" : "  unfinished");
}

static void heading(FILE *out, const layout *kinds)
{
    fprintf(out, "%-*s%s%s  %s  agreement%s%s   seconds  peak_MiB\n", kinds->width, "run",
            kinds->text ? "  perplexity" : "", kinds->images ? "   top-1   top-5" : "",
            !kinds->images ? "KL/token"
            : !kinds->text ? "KL/image"
                           : "      KL",
            kinds->text ? "  tokens/s" : "", kinds->images ? "  images/s" : "");
}

cab_status cab_report_table(const cab_report_runs *runs, FILE *out)
{
    layout kinds = {.width = (int)strlen("teacher")};
    const cab_report_run teacher = cab_report_teacher_of(runs);
    for (size_t i = 0; i < runs->count; i++) {
        const cab_report_run *run = &runs->items[i];
        int length = (int)strlen(run->name);
        kinds.width = length > kinds.width && length <= 60 ? length : kinds.width;
        kinds.text = kinds.text || !run->images;
        kinds.images = kinds.images || run->images;
    }
    if (runs->count > 0)
        heading(out, &kinds);
    if (isfinite(teacher.perplexity) || isfinite(teacher.top1))
        row(out, &teacher, &kinds);
    for (size_t i = 0; i < runs->count; i++)
        row(out, &runs->items[i], &kinds);
    return ferror(out) ? cab_fail(CAB_EIO, "the table cannot be written") : CAB_OK;
}
