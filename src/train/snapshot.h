/* snapshot.h - everything a run needs to go on with the same bits: <out>/checkpoint.safetensors.
 *
 * Tensors "student.<name>", "bridge.<...>", "average.<name>", "m.<name>", "v.<name>", all F32 as they are in memory. Metadata: version, step,
 * seconds, train_seconds, recipe (the text of recipe.yaml), inputs (inputs.h), threads, precision, and the checksum of the whole file. The
 * data position and every random number are functions of the step and the seed. The file is written beside, fsynced and renamed: a kill at
 * any moment leaves the last good one. */
#ifndef CAB_TRAIN_SNAPSHOT_H
#define CAB_TRAIN_SNAPSHOT_H

#include "io/safetensors.h"
#include "train/run.h"

/* Writes it now, after one that is being written. The run must stand between two steps. */
cab_status cab_snapshot_save(cab_run *run);
/* Copies the state and writes it beside training, after the one before; at once where memory is too short for a copy. Its failure is
 * told by whichever of the calls here comes next. */
cab_status cab_snapshot_begin(cab_run *run);
/* Waits for what is being written, and sets run->saved_step. check does so only if it is done. */
cab_status cab_snapshot_wait(cab_run *run);
cab_status cab_snapshot_check(cab_run *run);
/* Loads parameters, averages and position; *found false when there is none. CAB_EFORMAT: damaged, or of an earlier version. CAB_EARG: of another
 * run, naming the key of the recipe or the input in which it differs. Another number of threads or precision is told. Moments are loaded by cab_snapshot_moments() once the stage's optimizer exists. */
cab_status cab_snapshot_load(cab_run *run, bool *found);
cab_status cab_snapshot_moments(cab_run *run);
cab_status cab_snapshot_remove(cab_run *run);

/* The metadata of a checkpoint, checked by themselves; the texts belong to the file. */
typedef struct cab_snapshot_facts {
    uint64_t step;
    double seconds, train_seconds;
    const char *recipe, *inputs, *precision;
    uint64_t threads, ranks;
} cab_snapshot_facts;
cab_status cab_snapshot_facts_read(const cab_safetensors *st, const char *path, cab_snapshot_facts *out);

#endif
