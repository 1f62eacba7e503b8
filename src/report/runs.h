/* runs.h - what finished and unfinished runs left in their directories (train/log.h has the layout), read back.
 *
 * The files may be cut short, damaged or made by hand: lines that cannot be read are counted and skipped, numbers that
 * are missing are NAN, texts that are missing are "". */
#ifndef CAB_REPORT_RUNS_H
#define CAB_REPORT_RUNS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One line of log.jsonl. Of an evaluation: loss, kl, agreement, perplexity; of a step the others. */
typedef struct cab_report_point {
    double step, tokens, loss, ce, kl, align, lr, perplexity, agreement, tokens_per_s, seconds;
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
    double parameters, fraction, seed, teacher_perplexity;
    cab_report_points training, evaluations;
    size_t unreadable; /* lines of the log */
} cab_report_run;

typedef struct cab_report_runs {
    cab_report_run *items;
    size_t count, capacity;
} cab_report_runs;

/* Reads the runs in `directories`; one that is no run itself stands for the runs it contains, sorted by name.
 * CAB_EIO where there is none. *runs must be zeroed; free it even after a failure. */
cab_status cab_report_runs_read(const char *const *directories, size_t count, cab_report_runs *runs);
void cab_report_runs_free(cab_report_runs *runs);

/* Whether a run was begun in this directory, and whether it has ended. */
bool cab_report_is_run(const char *directory);
bool cab_report_is_finished(const char *directory);

#endif
