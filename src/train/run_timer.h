/* run_timer.h - how fast a run goes from end to end, beside its steps alone. */
#ifndef CAB_TRAIN_RUN_TIMER_H
#define CAB_TRAIN_RUN_TIMER_H

#include "distill/recipe.h"

#include <stdio.h>

/* Opens what the run opens, and times `steps` steps of its last stage twice: as the run takes them, with their data and log lines;
 * and alone, with one batch that is sent again each time. Prints units per second of both, and where the time went. CAB_EARG: the
 * stage is shorter than that. Leaves the caches that a run leaves, and no directory of a run. */
cab_status cab_run_time(const cab_recipe *recipe, int steps, FILE *out);

#endif
