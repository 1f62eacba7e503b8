/* snapshot.h - everything a run needs to go on with the same bits: <out>/checkpoint.safetensors.
 *
 * Tensors "student.<name>", "bridge.<...>", "average.<name>", "m.<name>", "v.<name>", all F32 as they are in memory.
 * Metadata: version, step, seconds, train_seconds, recipe (hash of recipe.yaml). The data position and every random number
 * are functions of the step and the seed. The file is written beside, fsynced and renamed: a kill at any moment leaves the
 * last good one. */
#ifndef CAB_TRAIN_SNAPSHOT_H
#define CAB_TRAIN_SNAPSHOT_H

#include "train/run.h"

/* The run must stand between two steps. */
cab_status cab_snapshot_save(const cab_run *run);
/* Loads parameters, averages and position; *found false when there is none. Moments are loaded by cab_snapshot_moments() once the stage's optimizer exists. */
cab_status cab_snapshot_load(cab_run *run, bool *found);
cab_status cab_snapshot_moments(cab_run *run);
cab_status cab_snapshot_remove(const cab_run *run);

#endif
