/* report.h - several runs side by side: a table of text, and one HTML file with charts. */
#ifndef CAB_REPORT_REPORT_H
#define CAB_REPORT_REPORT_H

#include "report/runs.h"

#include <stdio.h>

/* A row per run: name; perplexity, or top-1 and top-5 in percent, on the validation data; KL, top-1 agreement, tokens or images
 * per second, seconds, peak MiB. A first row "teacher" where it is known. "-" where a number is not. Columns are separated by
 * spaces, so that other programs can read them. Nothing where there is no run. */
cab_status cab_report_table(const cab_report_runs *runs, FILE *out);

typedef struct cab_report_page {
    const char *title;
    int refresh; /* seconds after which a browser loads the page again, for runs that go on; 0: never */
} cab_report_page;

/* What draws the charts of this build: "dygraphs" or "drawings". */
const char *cab_report_charts(void);

/* One self-contained page: the table, charts, how alike teacher and students mix tokens and what they look at, predictions,
 * samples, recipes: what there is of it. Charts are drawings; where the build found the chart library, a browser with scripts turns
 * those of the training into charts with values under the pointer, zoom, and switches.
 * Everything that comes from files is escaped. Written atomically. */
cab_status cab_report_html(const cab_report_runs *runs, const cab_report_page *page, const char *path);

#endif
