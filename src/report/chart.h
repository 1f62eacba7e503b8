/* chart.h - line charts and box plots as SVG. Internal to this folder.
 *
 * No text in a drawing comes from outside: series are known by their colours and dashes. Colours of text and grid are those of
 * the page's style sheet (style.c). */
#ifndef CAB_REPORT_CHART_H
#define CAB_REPORT_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct cab_chart_series {
    double *x, *y;
    size_t count;
    const char *colour; /* "#rrggbb" */
    const char *dash;   /* lengths of dashes and gaps, "8 3"; "": a solid line */
} cab_chart_series;

typedef struct cab_chart {
    const char *title;
    const char *x_label, *y_label;
    const cab_chart_series *series; /* every point passes cab_chart_shows() */
    size_t count;
    bool logarithmic; /* the y axis */
    bool marks;       /* mark each point, for sparse series */
    double reference; /* dashed horizontal line; NAN: none */
} cab_chart;

/* Whether an axis can hold the value. Magnitudes above 1e30 would leave nothing to see of the others, and a logarithmic axis has
 * no place for what is not above 0 (or is below 1e-30). */
bool cab_chart_shows(double value, bool logarithmic);

/* Writes one <svg> element. */
void cab_chart_draw(FILE *out, const cab_chart *chart);

/* Quartiles as a box, the ends as whiskers. */
typedef struct cab_chart_box {
    double x, min, q1, median, q3, max;
} cab_chart_box;

typedef struct cab_box_series {
    cab_chart_box *boxes;
    size_t count;
    const char *colour;
} cab_box_series;

/* Series side by side over whole numbers x from 0, y between -1 and 1. */
typedef struct cab_box_chart {
    const char *title;
    const char *x_label, *y_label;
    const cab_box_series *series;
    size_t count;
} cab_box_chart;

/* Writes one <svg> element. Every box says its numbers under the pointer. */
void cab_boxes_draw(FILE *out, const cab_box_chart *chart);

#endif
