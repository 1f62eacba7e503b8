/* identity.h - which recipes are the same run. Keys that do not change the student (where it is written, how often it is looked at, where
 * caches lie, threads, memory) are not part of it; paths count by what they lead to. */
#ifndef CAB_TRAIN_IDENTITY_H
#define CAB_TRAIN_IDENTITY_H

#include "distill/recipe.h"

/* CAB_EARG, "<file>: <key> was <value> there and is <value> now", with the first key that makes them different runs. `paths`: those of teacher,
 * student and data count too; without, their contents must be compared by other means (inputs.h). */
cab_status cab_identity_compare(const char *file, const cab_recipe *then, const cab_recipe *now, bool paths);
/* Writes the recipe with its paths made absolute, so that the run can be gone on with from any directory. */
cab_status cab_identity_save(const cab_recipe *recipe, const char *path);

#endif
