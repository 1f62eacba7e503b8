/* chart.c - a chart is a frame (pixels and the values at its edges), ticks, and what is drawn in it. */
#include "report/chart.h"

#include <math.h>

enum { LEFT = 80, RIGHT = 14, TOP = 12, BOTTOM = 48, UNITS = 4, TICKS_MAX = 32 };
static const double largest = 1e30;

struct frame {
    double width, height;  /* of the drawing, in pixels */
    double x0, x1, y0, y1; /* values at the edges of the plot; y as log10 where the axis is logarithmic */
    bool logarithmic;
};

bool cab_chart_shows(double value, bool logarithmic)
{
    return isfinite(value) && fabs(value) <= largest && (!logarithmic || value >= 1 / largest);
}

static double place_x(const struct frame *f, double x)
{
    return LEFT + (x - f->x0) / (f->x1 - f->x0) * (f->width - LEFT - RIGHT);
}

static double place_y(const struct frame *f, double y)
{
    const double value = f->logarithmic ? log10(y) : y;
    return f->height - BOTTOM - (value - f->y0) / (f->y1 - f->y0) * (f->height - TOP - BOTTOM);
}

/* ---- axes ------------------------------------------------------------------------------------------------------------- */

/* About five ticks a round distance apart: 1, 2 or 5 times a power of ten. */
static size_t linear_ticks(double low, double high, double ticks[TICKS_MAX])
{
    const double rough = (high - low) / 5, scale = pow(10, floor(log10(rough))), share = rough / scale;
    const double step = scale * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10), first = ceil(low / step);
    size_t n = 0;
    for (; n < TICKS_MAX && (first + (double)n) * step <= high; n++)
        ticks[n] = (first + (double)n) * step;
    return n;
}

/* 1, 2 and 5 of every decade of a short axis; of a long one powers of ten, eleven at most. low, high: log10. */
static size_t log_ticks(double low, double high, double ticks[TICKS_MAX])
{
    static const double steps[] = {1, 2, 5};
    const int first = (int)floor(low), last = (int)ceil(high);
    const size_t each = last - first > 4 ? 1 : sizeof steps / sizeof *steps;
    size_t n = 0;
    for (int decade = first; decade <= last; decade += 1 + (last - first) / 10) {
        for (size_t i = 0; i < each && n < TICKS_MAX; i++) {
            const double tick = steps[i] * pow(10, decade);
            if (log10(tick) >= low && log10(tick) <= high)
                ticks[n++] = tick;
        }
    }
    return n;
}

static void put_y_axis(FILE *out, const struct frame *f, const char *label)
{
    double ticks[TICKS_MAX];
    const size_t n = f->logarithmic ? log_ticks(f->y0, f->y1, ticks) : linear_ticks(f->y0, f->y1, ticks);
    for (size_t i = 0; i < n; i++) {
        const double y = place_y(f, ticks[i]);
        fprintf(out,
                "<path class=\"grid\" d=\"M%d %.1fH%.0f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>",
                LEFT, y, f->width - RIGHT, LEFT - 6, y + 4, ticks[i]);
    }
    fprintf(out, "<text transform=\"translate(13 %.1f) rotate(-90)\" text-anchor=\"middle\">%s%s</text>",
            (f->height - BOTTOM + TOP) / 2, label, f->logarithmic ? ", log scale" : "");
}

static void put_x_axis(FILE *out, const struct frame *f, const double *ticks, size_t n, const char *unit,
                       const char *label)
{
    const double bottom = f->height - BOTTOM;
    for (size_t i = 0; i < n; i++)
        fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.4g</text>", place_x(f, ticks[i]),
                bottom + 17, ticks[i]);
    fprintf(out,
            "<path class=\"axis\" d=\"M%d %.1fH%.0f\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s%s</text>",
            LEFT, bottom, f->width - RIGHT, (f->width + LEFT - RIGHT) / 2, f->height - 8, unit, label);
}

static void begin(FILE *out, const struct frame *f, const char *title)
{
    fprintf(out, "<svg class=\"still\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">", f->width, f->height,
            title);
}

/* ---- lines ------------------------------------------------------------------------------------------------------------ */

struct extent {
    double x_max, y_min, y_max;
};

static struct extent measure(const cab_chart *chart)
{
    struct extent extent = {0, INFINITY, -INFINITY};
    for (size_t s = 0; s < chart->count; s++) {
        for (size_t i = 0; i < chart->series[s].count; i++) {
            extent.x_max = fmax(extent.x_max, chart->series[s].x[i]);
            extent.y_min = fmin(extent.y_min, chart->series[s].y[i]);
            extent.y_max = fmax(extent.y_max, chart->series[s].y[i]);
        }
    }
    if (cab_chart_shows(chart->reference, chart->logarithmic)) {
        extent.y_min = fmin(extent.y_min, chart->reference);
        extent.y_max = fmax(extent.y_max, chart->reference);
    }
    return extent;
}

/* A margin of a twentieth around the values, but not below 0 when no value is. */
static void fit_y(struct frame *f, const struct extent *extent)
{
    const double from = f->logarithmic ? log10(extent->y_min) : extent->y_min;
    const double to = f->logarithmic ? log10(extent->y_max) : extent->y_max;
    const double least = fmax(1e-6 * fmax(fabs(from), fabs(to)), f->logarithmic ? 0.1 : 1e-30);
    const double span = fmax(to - from, least);
    f->y0 = from - span / 20;
    f->y1 = from + span * 1.05;
    if (!f->logarithmic && f->y0 < 0 && from >= 0)
        f->y0 = 0;
}

static void put_line(FILE *out, const struct frame *f, const cab_chart_series *s, double scale, bool marks)
{
    fprintf(out, "<path class=\"line\" stroke=\"%s\" stroke-dasharray=\"%s\" d=\"", s->colour, s->dash);
    for (size_t i = 0; i < s->count; i++)
        fprintf(out, "%c%.1f %.1f", i ? 'L' : 'M', place_x(f, s->x[i] / scale), place_y(f, s->y[i]));
    fputs("\"/>", out);
    for (size_t i = 0; marks && i < s->count; i++)
        fprintf(out, "<circle r=\"2.4\" fill=\"%s\" cx=\"%.1f\" cy=\"%.1f\"/>", s->colour, place_x(f, s->x[i] / scale),
                place_y(f, s->y[i]));
}

void cab_chart_draw(FILE *out, const cab_chart *chart)
{
    static const struct {
        double scale;
        const char *name;
    } units[UNITS] = {{1, ""}, {1e3, "thousand "}, {1e6, "million "}, {1e9, "billion "}};
    const struct extent extent = measure(chart);
    struct frame f = {.width = 520, .height = 300, .logarithmic = chart->logarithmic};
    double ticks[TICKS_MAX];
    int unit = UNITS - 1;
    while (unit > 0 && extent.x_max < 2 * units[unit].scale)
        unit--;
    f.x1 = extent.x_max > 0 ? extent.x_max / units[unit].scale : 1;
    fit_y(&f, &extent);
    begin(out, &f, chart->title);
    put_y_axis(out, &f, chart->y_label);
    put_x_axis(out, &f, ticks, linear_ticks(f.x0, f.x1, ticks), units[unit].name, chart->x_label);
    if (cab_chart_shows(chart->reference, chart->logarithmic))
        fprintf(out, "<path class=\"reference\" d=\"M%d %.1fH%.0f\"/>", LEFT, place_y(&f, chart->reference),
                f.width - RIGHT);
    for (size_t s = 0; s < chart->count; s++)
        put_line(out, &f, &chart->series[s], units[unit].scale, chart->marks);
    fputs("</svg>", out);
}

/* ---- box plots -------------------------------------------------------------------------------------------------------- */

static void measure_boxes(const cab_box_chart *chart, struct frame *f)
{
    double low = 0, high = 0, last = 0;
    for (size_t s = 0; s < chart->count; s++) {
        for (size_t i = 0; i < chart->series[s].count; i++) {
            const cab_chart_box *b = &chart->series[s].boxes[i];
            low = fmin(low, b->min);
            high = fmax(high, b->max);
            last = fmax(last, b->x);
        }
    }
    f->x0 = -0.6;
    f->x1 = last + 0.6;
    f->y0 = low < 0 ? fmax(low - 0.05, -1) : 0;
    f->y1 = fmax(fmin(high + 0.05, 1), f->y0 + 0.1);
}

static void put_box(FILE *out, const struct frame *f, const cab_chart_box *b, double shift, double width,
                    const char *colour)
{
    const double x = place_x(f, b->x + shift), half = width / 2, q1 = place_y(f, b->q1), q3 = place_y(f, b->q3);
    fprintf(out,
            "<g stroke=\"%s\" fill=\"%s\"><title>layer %.0f: median %.3f, quartiles %.3f and %.3f, extremes %.3f and "
            "%.3f</title>",
            colour, colour, b->x, b->median, b->q1, b->q3, b->min, b->max);
    fprintf(out, "<path d=\"M%.1f %.1fV%.1fM%.1f %.1fV%.1f\"/>", x, place_y(f, b->min), q1, x, q3, place_y(f, b->max));
    fprintf(out, "<rect fill-opacity=\"0.3\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", x - half,
            fmin(q1, q3), width, fabs(q1 - q3));
    fprintf(out, "<path stroke-width=\"2.4\" d=\"M%.1f %.1fh%.1f\"/></g>", x - half, place_y(f, b->median), width);
}

void cab_boxes_draw(FILE *out, const cab_box_chart *chart)
{
    static const double together = 0.72, widest = 40; /* of the distance between two x; pixels, each */
    struct frame f = {.width = 1120, .height = 340};
    double ticks[TICKS_MAX];
    size_t n = 0;
    measure_boxes(chart, &f);
    const double apart = place_x(&f, 1) - place_x(&f, 0);
    const double width = fmin(together * apart / (double)chart->count, widest);
    const double each = ceil((f.x1 - f.x0) / TICKS_MAX);
    for (double x = 0; n < TICKS_MAX && x < f.x1; x += each)
        ticks[n++] = x;
    begin(out, &f, chart->title);
    put_y_axis(out, &f, chart->y_label);
    put_x_axis(out, &f, ticks, n, "", chart->x_label);
    fprintf(out, "<path class=\"axis\" d=\"M%d %.1fH%.0f\"/>", LEFT, place_y(&f, 0), f.width - RIGHT);
    for (size_t s = 0; s < chart->count; s++) {
        const double shift = ((double)s - (double)(chart->count - 1) / 2) * width / apart;
        for (size_t i = 0; i < chart->series[s].count; i++)
            put_box(out, &f, &chart->series[s].boxes[i], shift, 0.8 * width, chart->series[s].colour);
    }
    fputs("</svg>", out);
}
