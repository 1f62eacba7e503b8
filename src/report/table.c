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

static void row(FILE *out, const cab_report_run *run, int width)
{
    name_cell(out, run->name, width);
    cell(out, "%.2f", run->perplexity, 10);
    cell(out, "%.4f", run->kl, 8);
    cell(out, "%.4f", run->agreement, 9);
    cell(out, "%.0f", run->tokens_per_second, 8);
    cell(out, "%.1f", run->seconds, 8);
    cell(out, "%.0f", run->peak_memory / (1024 * 1024), 8);
    fprintf(out, "%s\n", run->finished ? "" : "  unfinished");
}

cab_status cab_report_table(const cab_report_runs *runs, FILE *out)
{
    int width = (int)strlen("teacher");
    double teacher = NAN;
    for (size_t i = 0; i < runs->count; i++) {
        int length = (int)strlen(runs->items[i].name);
        width = length > width && length <= 60 ? length : width;
        teacher = isfinite(teacher) ? teacher : runs->items[i].teacher_perplexity;
    }
    fprintf(out, "%-*s  perplexity  KL/token  agreement  tokens/s   seconds  peak_MiB\n", width, "run");
    if (isfinite(teacher)) {
        const cab_report_run reference = {.name = (char[]){"teacher"},
                                          .finished = true,
                                          .perplexity = teacher,
                                          .kl = NAN,
                                          .agreement = NAN,
                                          .tokens_per_second = NAN,
                                          .seconds = NAN,
                                          .peak_memory = NAN};
        row(out, &reference, width);
    }
    for (size_t i = 0; i < runs->count; i++)
        row(out, &runs->items[i], width);
    return ferror(out) ? cab_fail(CAB_EIO, "the table cannot be written") : CAB_OK;
}
