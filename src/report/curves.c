/* curves.c - what was logged, as charts: a drawing of each, and the same points as JSON for the chart library (live.js). */
#include "base/memory.h"
#include "distill/term.h"
#include "report/chart.h"
#include "report/page.h"

#include <math.h>
#include <string.h>

enum { POINTS_MAX = 400, LABEL_BYTES = 64 };
static const double log_ratio = 12; /* a logarithmic axis that spans less than this is drawn as a linear one */

struct plot {
    const char *title, *note; /* %s in note and label: what the runs count by */
    const char *label;        /* of the y axis */
    size_t offset;            /* of the number in cab_report_point */
    bool evaluation;          /* from the evaluations; else from the training steps, averaged */
    bool logarithmic;
    double (*reference)(const cab_report_run *teacher); /* the teacher's value of it, a dashed line; NULL: none */
};

static double perplexity(const cab_report_run *teacher)
{
    return teacher->perplexity;
}

static double top1(const cab_report_run *teacher)
{
    return teacher->top1;
}

#define POINT(field) offsetof(cab_report_point, field)
static const struct plot evaluation_plots[] = {
    {"Validation perplexity", "lower is better", "perplexity", POINT(perplexity), true, true, perplexity},
    {"Validation top-1", "share of images; higher is better", "top-1", POINT(top1), true, false, top1},
    {"KL from the teacher, validation", "lower is better", "nats per %s", POINT(kl), true, true, NULL},
    {"Top-1 agreement, validation", "higher is better", "share of %ss", POINT(agreement), true, false, NULL},
};
static const struct plot rate_plot = {
    "Learning rate", "of the optimizer", "learning rate", POINT(lr), false, false, NULL};

static struct plot term_plot(cab_term_id term)
{
    const cab_term *t = cab_term_at(term);
    return (struct plot){.title = t->chart.title,
                         .note = t->chart.note,
                         .label = t->chart.unit ? t->chart.unit : "",
                         .offset = POINT(terms) + (size_t)term * sizeof(double),
                         .logarithmic = t->chart.logarithmic};
}
#undef POINT

/* What the runs count by. */
static const char *unit(const cab_report_runs *runs)
{
    switch (cab_page_kinds(runs)) {
    case CAB_PAGE_IMAGES:
        return "image";
    case CAB_PAGE_BOTH:
        return "token or image";
    default:
        return "token";
    }
}

/* Fills the %s of a plot's text. */
static void fill(char out[LABEL_BYTES], const char *text, const char *unit_of)
{
    const char *slot = strstr(text, "%s");
    if (slot)
        snprintf(out, LABEL_BYTES, "%.*s%s%s", (int)(slot - text), text, unit_of, slot + 2);
    else
        snprintf(out, LABEL_BYTES, "%s", text);
}

/* ---- points --------------------------------------------------------------------------------------------------------- */

/* A chart on its way to the page. */
struct curves {
    cab_chart chart;
    cab_chart_series *series; /* one per run, some of them empty */
    size_t left_out;          /* numbers that no axis can hold */
};

static double number_at(const cab_report_point *point, size_t offset)
{
    double value;
    memcpy(&value, (const char *)point + offset, sizeof value);
    return value;
}

static bool usable(const cab_report_point *point, double value, bool logarithmic)
{
    return cab_chart_shows(point->tokens, false) && point->tokens >= 0 && cab_chart_shows(value, logarithmic);
}

static const cab_report_points *points_of(const cab_report_run *run, const struct plot *plot)
{
    return plot->evaluation ? &run->evaluations : &run->training;
}

/* Whether the values span enough for a logarithmic axis. */
static bool wants_log(const cab_report_runs *runs, const struct plot *plot)
{
    double least = INFINITY, most = 0;
    for (size_t r = 0; plot->logarithmic && r < runs->count; r++) {
        const cab_report_points *points = points_of(&runs->items[r], plot);
        for (size_t i = 0; i < points->count; i++) {
            const double value = number_at(&points->items[i], plot->offset);
            if (usable(&points->items[i], value, true)) {
                least = fmin(least, value);
                most = fmax(most, value);
            }
        }
    }
    return most > log_ratio * least;
}

/* The usable points of one run, averaged in equal groups where there are more than a chart can show. */
static cab_status make_series(struct curves *curves, const cab_report_run *run, const struct plot *plot,
                              cab_chart_series *series)
{
    const cab_report_points *points = points_of(run, plot);
    const size_t group = plot->evaluation ? 1 : (points->count + POINTS_MAX - 1) / POINTS_MAX;
    CAB_TRY(CAB_NEW(&series->x, points->count, "a chart's points"));
    CAB_TRY(CAB_NEW(&series->y, points->count, "a chart's points"));
    for (size_t i = 0; i < points->count; i += group) {
        double x = 0, y = 0, used = 0;
        for (size_t j = i; j < i + group && j < points->count; j++) {
            const double value = number_at(&points->items[j], plot->offset);
            if (!usable(&points->items[j], value, curves->chart.logarithmic)) {
                curves->left_out += !isnan(value); /* NAN: the line has no such number */
                continue;
            }
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

/* ---- the page ------------------------------------------------------------------------------------------------------- */

static void put_numbers(FILE *out, const char *key, const double *values, size_t n)
{
    fprintf(out, ",\"%s\":[", key);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%s%.6g", i ? "," : "", values[i]);
    fputc(']', out);
}

/* What live.js reads. */
static void put_data(FILE *out, const cab_report_runs *runs, const struct curves *curves)
{
    const cab_chart *c = &curves->chart;
    bool first = true;
    fprintf(out, "<script type=\"application/json\">{\"x\":\"%s\",\"y\":\"%s\",\"log\":%s,\"marks\":%s,\"series\":[",
            c->x_label, c->y_label, c->logarithmic ? "true" : "false", c->marks ? "true" : "false");
    for (size_t i = 0; i < runs->count; i++) {
        const cab_chart_series *s = &curves->series[i];
        if (s->count == 0)
            continue;
        fprintf(out, "%s{\"colour\":\"%s\",\"dash\":\"%s\",\"name\":", first ? "" : ",", s->colour, s->dash);
        cab_page_put_json(out, runs->items[i].name);
        put_numbers(out, "x", s->x, s->count);
        put_numbers(out, "y", s->y, s->count);
        fputc('}', out);
        first = false;
    }
    if (cab_chart_shows(c->reference, false))
        fprintf(out, "],\"teacher\":%.6g}</script>", c->reference);
    else
        fputs("]}</script>", out);
}

static void put_figure(FILE *out, const cab_report_runs *runs, const struct plot *plot, const struct curves *curves)
{
    fprintf(out, "<figure class=\"card chart\"><h3>%s</h3><p class=\"note\">%s", plot->title, plot->note);
    if (curves->left_out > 0)
        fprintf(out, "; %zu number%s not shown: no axis can hold %s", curves->left_out,
                curves->left_out == 1 ? " is" : "s are", curves->left_out == 1 ? "it" : "them");
    fputs("</p>", out);
    cab_chart_draw(out, &curves->chart);
    if (cab_page_library[0])
        put_data(out, runs, curves);
    fputs("</figure>\n", out);
}

static cab_status put_chart(FILE *out, const cab_report_runs *runs, const struct plot *plot)
{
    struct curves curves = {0};
    char label[LABEL_BYTES], counted[LABEL_BYTES];
    const cab_report_run teacher = cab_report_teacher_of(runs);
    bool any = false;
    cab_status status;
    fill(label, plot->label, unit(runs));
    fill(counted, cab_page_kinds(runs) == CAB_PAGE_BOTH ? "tokens or images" : "%ss", unit(runs));
    CAB_GOTO(CAB_NEW(&curves.series, runs->count, "a chart's series"));
    curves.chart = (cab_chart){.title = plot->title,
                               .x_label = counted,
                               .y_label = label,
                               .series = curves.series,
                               .count = runs->count,
                               .logarithmic = wants_log(runs, plot),
                               .marks = plot->evaluation,
                               .reference = plot->reference ? plot->reference(&teacher) : NAN};
    for (size_t i = 0; i < runs->count; i++) {
        const cab_page_look look = cab_page_look_of(runs, i);
        curves.series[i].colour = look.colour;
        curves.series[i].dash = look.dash;
        CAB_GOTO(make_series(&curves, &runs->items[i], plot, &curves.series[i]));
        any = any || curves.series[i].count > 0;
    }
    if (any)
        put_figure(out, runs, plot, &curves);
done:
    for (size_t i = 0; curves.series && i < runs->count; i++) {
        cab_free(curves.series[i].x);
        cab_free(curves.series[i].y);
    }
    cab_free(curves.series);
    return status;
}

static void put_legend(FILE *out, const cab_report_runs *runs)
{
    fputs("<div class=\"legend\">", out);
    for (size_t i = 0; i < runs->count; i++) {
        fputs("<span>", out);
        cab_page_put_key(out, runs, i);
        cab_page_put(out, runs->items[i].name);
        fputs("</span>", out);
    }
    if (cab_report_teacher_of(runs).finished) {
        fputs("<span>", out);
        cab_page_put_teacher_key(out);
        fputs("teacher</span>", out);
    }
    fputs("</div>\n", out);
}

/* What evaluations found, the loss terms, the learning rate. */
static cab_status put_charts(FILE *out, const cab_report_runs *runs)
{
    for (size_t i = 0; i < sizeof evaluation_plots / sizeof *evaluation_plots; i++)
        CAB_TRY(put_chart(out, runs, &evaluation_plots[i]));
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        const struct plot plot = term_plot((cab_term_id)t);
        CAB_TRY(put_chart(out, runs, &plot));
    }
    return put_chart(out, runs, &rate_plot);
}

cab_status cab_page_curves(FILE *out, const cab_report_runs *runs)
{
    fputs("<h2>Training</h2>\n", out);
    put_legend(out, runs);
    fputs("<div class=\"charts\">\n", out);
    CAB_TRY(put_charts(out, runs));
    fputs("</div>\n", out);
    return CAB_OK;
}
