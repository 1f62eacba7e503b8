/* chart.h - line charts as SVG, drawn by gnuplot. Internal to this folder. */
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

/* x: tokens. Points must be finite, and positive on a logarithmic axis. */
typedef struct cab_chart {
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

#endif
