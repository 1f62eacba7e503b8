/* teach.h - asking the teacher once, about every training window, and keeping what it says (teacher_cache.h). */
#ifndef CAB_TRAIN_TEACH_H
#define CAB_TRAIN_TEACH_H

#include "train/domain_text.h"

/* Opens the recipe's teacher.cache, and asks the teacher about those of the first `sequences` training sequences that it does not
 * hold. Then the cache is ready to be read. CAB_EARG where no stage could read it: all of them look into the teacher. */
cab_status cab_teach(cab_text_data *data, uint64_t sequences);

/* XXH64 of a window's tokens and of the documents that they are of. starts NULL: one document. */
uint64_t cab_teach_hash(const int32_t *ids, const int32_t *starts, int64_t length);

typedef struct cab_teach_result {
    uint64_t windows, tokens, bytes; /* of the file */
    double seconds;
} cab_teach_result;

/* The same of a recipe alone, without a student: all of its training data. */
cab_status cab_teach_recipe(const cab_recipe *recipe, cab_teach_result *result);

#endif
