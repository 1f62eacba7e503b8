/* page.h - the parts of the page that have a file of their own. Internal to this folder. */
#ifndef CAB_REPORT_PAGE_H
#define CAB_REPORT_PAGE_H

#include "report/runs.h"

#include <stdio.h>

/* CSS for light and dark, screen and paper. */
extern const char cab_page_style[];

/* Text from files: what HTML gives a meaning is escaped. */
void cab_page_put(FILE *out, const char *text);
/* The same, at most `limit` bytes of it, and no character cut in two. */
void cab_page_put_some(FILE *out, const char *text, size_t limit);
/* "#rrggbb" of a run. */
const char *cab_page_colour(size_t index);

/* similarity.c: the box plot of every comparison, and their heat maps. Nothing where there is none. */
cab_status cab_page_similarity(FILE *out, const cab_report_runs *runs);
/* predictions.c: pictures with what the students made of them. */
void cab_page_predictions(FILE *out, const cab_report_runs *runs);

#endif
