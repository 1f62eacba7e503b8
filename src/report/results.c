/* results.c - the table of the page: a row per run, the teacher's first. */
#include "base/log.h"
#include "report/page.h"

#include <math.h>
#include <string.h>

enum { NUMBER_BYTES = 48 };

enum format { FORMAT_REAL, FORMAT_PERCENT, FORMAT_ACCURACY, FORMAT_WHOLE, FORMAT_TOKENS, FORMAT_SECONDS, FORMAT_BYTES };

struct column {
    const char *title;
    double (*value)(const cab_report_run *run);
    cab_page_kind kind; /* of the runs that it is about */
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
    {"Perplexity", perplexity, CAB_PAGE_TEXT, FORMAT_REAL, -1},
    {"Top-1", top1, CAB_PAGE_IMAGES, FORMAT_ACCURACY, 1},
    {"Top-5", top5, CAB_PAGE_IMAGES, FORMAT_ACCURACY, 1},
    {"KL, nats", kl, CAB_PAGE_BOTH, FORMAT_REAL, -1},
    {"Agreement", agreement, CAB_PAGE_BOTH, FORMAT_PERCENT, 1},
    {"Tokens", tokens, CAB_PAGE_TEXT, FORMAT_TOKENS, 0},
    {"Images", images, CAB_PAGE_IMAGES, FORMAT_TOKENS, 0},
    {"Data", fraction, CAB_PAGE_BOTH, FORMAT_PERCENT, 0},
    {"Tokens/s", speed, CAB_PAGE_TEXT, FORMAT_WHOLE, 0},
    {"Images/s", image_speed, CAB_PAGE_IMAGES, FORMAT_WHOLE, 0},
    {"Time", seconds, CAB_PAGE_BOTH, FORMAT_SECONDS, 0},
    {"Peak memory", memory, CAB_PAGE_BOTH, FORMAT_BYTES, 0},
    {"Parameters", parameters, CAB_PAGE_BOTH, FORMAT_TOKENS, 0},
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
        snprintf(out, NUMBER_BYTES, fabs(value) < 10 ? "%.3f" : fabs(value) < 1e6 ? "%.2f" : "%.4g", value);
        break;
    case FORMAT_PERCENT:
        snprintf(out, NUMBER_BYTES, "%.3g\xe2\x80\xaf%%", 100 * value);
        break;
    case FORMAT_ACCURACY:
        snprintf(out, NUMBER_BYTES, "%.2f\xe2\x80\xaf%%", 100 * value);
        break;
    case FORMAT_WHOLE:
        snprintf(out, NUMBER_BYTES, fabs(value) < 1e9 ? "%.0f" : "%.4g", value);
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

static void put_cells(FILE *out, const cab_report_runs *runs, const cab_report_run *run, bool compared)
{
    char number[NUMBER_BYTES];
    for (size_t c = 0; c < COLUMNS; c++) {
        const double value = columns[c].value(run);
        if (!(columns[c].kind & cab_page_kinds(runs)))
            continue;
        format_value(columns[c].format, value, number);
        fprintf(out, "<td%s>%s</td>", compared && is_best(runs, &columns[c], value) ? " class=\"best\"" : "", number);
    }
    fputs("</tr>\n", out);
}

static void put_row(FILE *out, const cab_report_runs *runs, size_t index)
{
    const cab_report_run *run = &runs->items[index];
    fputs("<tr><th scope=\"row\">", out);
    cab_page_put_key(out, runs, index);
    cab_page_put(out, run->name);
    if (run->method[0] && strcmp(run->method, run->name) != 0) {
        fputs("<span class=\"tag\">", out);
        cab_page_put(out, run->method);
        fputs("</span>", out);
    }
    fputs(run->finished ? "</th>" : "<span class=\"tag\">unfinished</span></th>", out);
    put_cells(out, runs, run, true);
}

/* The teacher agrees with itself. */
static void put_teacher(FILE *out, const cab_report_runs *runs)
{
    cab_report_run teacher = cab_report_teacher_of(runs);
    if (!teacher.finished)
        return;
    teacher.kl = 0;
    teacher.agreement = 1;
    fputs("<tr class=\"teacher\"><th scope=\"row\">", out);
    cab_page_put_teacher_key(out);
    fputs("teacher</th>", out);
    put_cells(out, runs, &teacher, false);
}

void cab_page_results(FILE *out, const cab_report_runs *runs)
{
    fputs("<h2>Results on the validation data</h2>\n<div class=\"card scroll\" tabindex=\"0\"><table><thead><tr>"
          "<th scope=\"col\">Run</th>",
          out);
    for (size_t c = 0; c < COLUMNS; c++)
        if (columns[c].kind & cab_page_kinds(runs))
            fprintf(out, "<th scope=\"col\">%s</th>", columns[c].title);
    fputs("</tr></thead><tbody>\n", out);
    put_teacher(out, runs);
    for (size_t i = 0; i < runs->count; i++)
        put_row(out, runs, i);
    fputs("</tbody></table></div>\n", out);
}
