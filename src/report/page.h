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
/* The same as a string of JSON inside a <script> element, with its quotes. */
void cab_page_put_json(FILE *out, const char *text);

/* ---- looks (look.c) ------------------------------------------------------------------------------------------------- */

typedef struct cab_page_look {
    const char *colour; /* "#rrggbb", of a contrast of 3 and more with light and with dark paper */
    const char *dash;   /* lengths of dashes and gaps; "": a solid line */
} cab_page_look;

/* Of run `index`; from runs->count on, of a comparison that belongs to no run. A method looks the same on every page; a second run
 * of one method gets another colour and another dash. */
cab_page_look cab_page_look_of(const cab_report_runs *runs, size_t index);
/* A short stretch of its line, for keys and legends. */
void cab_page_put_key(FILE *out, const cab_report_runs *runs, size_t index);
/* The same of the teacher. */
void cab_page_put_teacher_key(FILE *out);

/* ---- kinds of runs -------------------------------------------------------------------------------------------------- */

typedef enum cab_page_kind {
    CAB_PAGE_TEXT = 1,
    CAB_PAGE_IMAGES = 2,
    CAB_PAGE_BOTH = CAB_PAGE_TEXT | CAB_PAGE_IMAGES
} cab_page_kind;

/* Of what the runs read; 0 of comparisons alone. */
cab_page_kind cab_page_kinds(const cab_report_runs *runs);

/* ---- parts ---------------------------------------------------------------------------------------------------------- */

/* results.c: the table. */
void cab_page_results(FILE *out, const cab_report_runs *runs);
/* curves.c: the charts of what was logged. */
cab_status cab_page_curves(FILE *out, const cab_report_runs *runs);
/* similarity.c: the box plot of every comparison, and their heat maps. Nothing where there is none. */
cab_status cab_page_similarity(FILE *out, const cab_report_runs *runs);
/* ranking.c: which heads or layers stayed attention, and what each costs. Nothing where none was ranked. */
cab_status cab_page_rankings(FILE *out, const cab_report_runs *runs);
/* predictions.c: pictures with what the students made of them. */
void cab_page_predictions(FILE *out, const cab_report_runs *runs);

/* ---- files that are part of the page, packed at build time (cmake/assets.cmake) ------------------------------------------ */

/* The chart library, its style sheet and its licence; "" where it was not found at build time: charts are drawings then. */
extern const char cab_page_library[], cab_page_library_style[], cab_page_library_licence[];
/* live.js: turns drawings into charts of the library. */
extern const char cab_page_live[];

#endif
