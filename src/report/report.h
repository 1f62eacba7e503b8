/* report.h - several runs side by side: a table of text, and one HTML file with charts. */
#ifndef CAB_REPORT_REPORT_H
#define CAB_REPORT_REPORT_H

#include "report/runs.h"

#include <stdio.h>

/* A row per run: name; perplexity, or top-1 and top-5 in percent, on the validation data; KL, top-1 agreement, tokens or images
 * per second, seconds, peak MiB. A first row "teacher" where it is known. "-" where a number is not. Columns are separated by
 * spaces, so that other programs can read them. Nothing where there is no run. */
cab_status cab_report_table(const cab_report_runs *runs, FILE *out);

/* One self-contained page: the table, charts (SVG by gnuplot; without gnuplot a note says so), how alike teacher and students
 * mix tokens and what they look at, predictions, samples, recipes: what there is of it.
 * Everything that comes from files is escaped. Written atomically. */
cab_status cab_report_html(const cab_report_runs *runs, const char *title, const char *path);

#endif
