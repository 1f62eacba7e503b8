/* report.h - several runs side by side: a table of text, and one HTML file with charts. */
#ifndef CAB_REPORT_REPORT_H
#define CAB_REPORT_REPORT_H

#include "report/runs.h"

#include <stdio.h>

/* A row per run: name, validation perplexity, KL per token, top-1 agreement, tokens per second, seconds, peak MiB. A
 * first row "teacher" where its perplexity is known. "-" where a number is not. Columns are separated by spaces, so
 * that other programs can read them. */
cab_status cab_report_table(const cab_report_runs *runs, FILE *out);

/* One self-contained page: the table, charts (SVG by gnuplot; without gnuplot a note says so), samples, recipes.
 * Everything that comes from files is escaped. Written atomically. */
cab_status cab_report_html(const cab_report_runs *runs, const char *title, const char *path);

#endif
