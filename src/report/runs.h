/* runs.h - what finished and unfinished runs left in their directories (docs/formats.md has the layout), read back.
 *
 * The files may be cut short, damaged or made by hand: lines that cannot be read are counted and skipped, numbers that
 * are missing are NAN, texts that are missing are "". */
#ifndef CAB_REPORT_RUNS_H
#define CAB_REPORT_RUNS_H

#include "distill/keep.h"
#include "distill/terms.h"
#include "train/compare.h"
#include "train/predictions.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One line of log.jsonl. Of an evaluation: loss, kl, agreement, perplexity, or top1 and top5; of a step the others. */
typedef struct cab_report_point {
    double step, tokens, loss, kl, lr, perplexity, agreement, top1, top5;
    double terms[CAB_TERM_COUNT]; /* the loss terms of a step */
    double tokens_per_s, images_per_s, seconds;
} cab_report_point;

typedef struct cab_report_points {
    cab_report_point *items;
    size_t count, capacity;
} cab_report_points;

typedef struct cab_report_run {
    char *directory, *name; /* name: last part of the path, or the whole path where two runs share the last part */
    char *method, *teacher, *student, *sample;
    char *recipe;  /* text of recipe.yaml */
    bool finished; /* has a result.json; else the last evaluation stands in for it */
    double loss, perplexity, kl, agreement, tokens_per_second, seconds, peak_memory, tokens, steps;
    double parameters, fraction, seed;
    double top1, top5, images_per_second;
    double teacher_perplexity, teacher_top1, teacher_top5, teacher_parameters;
    bool images; /* of a run on images: tokens are images */
    cab_report_points training, evaluations;
    size_t unreadable; /* lines of the log */
    cab_predictions predictions;
    cab_kept kept; /* what of the teacher stayed attention, with its cost; cost NULL: none was ranked */
} cab_report_run;

/* A comparison of a student with its teacher: a run's compare.json, or a file that was given. */
typedef struct cab_report_comparison {
    char *name;
    size_t look; /* index of its run; from the number of runs on where it has none */
    cab_comparison comparison;
} cab_report_comparison;

typedef struct cab_report_runs {
    cab_report_run *items;
    size_t count, capacity;
    cab_report_comparison *comparisons;
    size_t n_comparison, comparisons_capacity;
} cab_report_runs;

/* Reads the runs in directories; one that is no run itself stands for the runs it contains, sorted by name. A path that ends
 * in .json is a comparison as `cab compare` writes it. CAB_EIO where there is none. *runs must be zeroed; free it even after a
 * failure. */
cab_status cab_report_runs_read(const char *const *paths, size_t count, cab_report_runs *runs);
/* Adds a comparison that is already in memory, and leaves `comparison` empty. */
cab_status cab_report_runs_add(cab_report_runs *runs, const char *name, cab_comparison *comparison);
void cab_report_runs_free(cab_report_runs *runs);

/* What the runs know of their teacher, as a run of the name "teacher", `finished` where anything is known: its numbers are those of
 * the first run that has them, NAN where none does. Owns nothing. */
cab_report_run cab_report_teacher_of(const cab_report_runs *runs);

/* Whether a run was begun in this directory, and whether it has ended. */
bool cab_report_is_run(const char *directory);
bool cab_report_is_finished(const char *directory);

#endif
