/* progress.h - one line that says how far, how fast and how long.
 *
 * On a terminal the line is redrawn in place at most ten times a second, without the last of its fields where it is too narrow; elsewhere a plain line is printed at most every
 * few seconds, so that log files stay short. Nothing is printed for work that ends within two seconds, except by a
 * caller's own summary. */
#ifndef CAB_BASE_PROGRESS_H
#define CAB_BASE_PROGRESS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cab_progress {
    char label[64];
    char unit[24]; /* "steps", "tokens", "bytes" */
    uint64_t total;
    uint64_t first; /* where a resumed run began: the rate counts from here */
    double started;
    double drawn;
    bool terminal;
    bool shown;
} cab_progress;

void cab_progress_begin(cab_progress *progress, const char *label, const char *unit, uint64_t first, uint64_t total);
/* `detail` (may be empty) is shown after the count: loss terms, rate ... Two spaces end a field, the dearest come first. */
void cab_progress_update(cab_progress *progress, uint64_t done, const char *detail);
/* Columns of the terminal that a file descriptor is, 80 where it is none or does not say. */
size_t cab_terminal_columns(int descriptor);

/* The line itself, of whole fields, in at most `columns` and `size` bytes. For cab_progress_update(), and tests. */
void cab_progress_line(const cab_progress *progress, uint64_t done, double elapsed, const char *detail, size_t columns,
                       char *line, size_t size);
/* Clears or completes the line. */
void cab_progress_end(cab_progress *progress);

#endif
