/* rehearse.h - what a run will need, found by opening all that it opens and taking a few of its steps. */
#ifndef CAB_TRAIN_REHEARSE_H
#define CAB_TRAIN_REHEARSE_H

#include "distill/recipe.h"

typedef struct cab_rehearsal {
    double memory;            /* bytes: parameters, optimizer and activations of the stage that needs most */
    double training;          /* seconds to expect of all steps */
    double evaluation;        /* and of the evaluations, estimated from the time of a step */
    uint64_t steps, measured; /* steps of the run, and those that were timed */
} cab_rehearsal;

/* Opens teacher and data, makes the student, plans every stage and times up to three of its steps, on the device of the recipe.
 * Fails where the run would, with what it would say. Leaves the caches that a run leaves, and no directory of a run. */
cab_status cab_rehearse(const cab_recipe *recipe, cab_rehearsal *out);

struct cab_run;
/* For a rehearsal of another kind: opens a run, lets `act` do with it what it likes, and closes it. */
cab_status cab_rehearse_with(const cab_recipe *recipe, cab_status (*act)(struct cab_run *run, void *user), void *user);

#endif
