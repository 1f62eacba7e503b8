/* ranks.h - what the ranks of a run tell each other. Internal to this folder.
 *
 * Every rank has its rows of each micro-batch, and all of the model. What a step does is then the same as of one process
 * with the whole micro-batch, up to rounding: terms are summed with the counts of all ranks. Everything here does nothing
 * where the run has one process. */
#ifndef CAB_TRAIN_RANKS_H
#define CAB_TRAIN_RANKS_H

#include "train/run.h"

/* Whether this process writes the run's files and says what happens. */
bool cab_run_writes(const cab_run *run);
/* Threads of this rank where the recipe leaves them open: its part of the machine's processors, however many it may run on. */
int cab_run_threads(const cab_run *run);
/* Returns when rank 0 has come here. */
cab_status cab_run_after_first(const cab_run *run);
/* Refuses ranks that were given other files or another checkpoint than rank 0; from here on nobody waits for another
 * longer than train.timeout. */
cab_status cab_run_meet(const cab_run *run);

/* The largest of the ranks' numbers. */
cab_status cab_run_most(const cab_run *run, int *number);
/* Refuses ranks whose lists add up their gradients in another order than rank 0's. */
cab_status cab_run_compare_lists(const cab_run *run);

/* Which part of a micro-batch's labels, valid rows and rows is here. batch NULL: this rank could not load it; *known is
 * then false on all ranks. */
cab_status cab_run_portion(const cab_run *run, const cab_batch *batch, cab_portion *portion, bool *known);
/* Adds up the values of all ranks. */
cab_status cab_run_sum_values(const cab_run *run, cab_term_values *values);

/* What comes after a step. True on all ranks where it is on one. */
typedef struct cab_due {
    bool stop, evaluation, checkpoint;
} cab_due;
cab_status cab_run_agree(const cab_run *run, cab_due *due);

#endif
