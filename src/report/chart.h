/* chart.h - line charts and box plots as SVG, drawn by gnuplot. Internal to this folder. */
#ifndef CAB_REPORT_CHART_H
#define CAB_REPORT_CHART_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct cab_chart_series {
    double *x, *y;
    size_t count;
    const char *colour; /* "#rrggbb" */
} cab_chart_series;

/* Points must be finite, and positive on a logarithmic axis. */
typedef struct cab_chart {
    const char *unit; /* of x: "tokens" */
    const cab_chart_series *series;
    size_t count;
    bool logarithmic;
    bool marks;       /* mark each point, for sparse series */
    bool definitions; /* keep the definitions of the marks: one chart of a page has them, all use them */
    double reference; /* dashed horizontal line; NAN: none */
} cab_chart;

/* *svg: an <svg> element, owned by the caller; NULL where gnuplot cannot be run. No text in it comes from outside:
 * series are known by their colours. */
cab_status cab_chart_draw(const cab_chart *chart, char **svg);

/* Quartiles as a box, the ends as whiskers. */
typedef struct cab_chart_box {
    double x, min, q1, median, q3, max;
} cab_chart_box;

typedef struct cab_box_series {
    cab_chart_box *boxes;
    size_t count;
    const char *colour;
} cab_box_series;

/* Series side by side over whole numbers x from 0, y of the magnitude of 1. */
typedef struct cab_box_chart {
    const cab_box_series *series;
    size_t count;
    const char *label; /* of x */
} cab_box_chart;

/* As cab_chart_draw(). */
cab_status cab_boxes_draw(const cab_box_chart *chart, char **svg);

#endif
