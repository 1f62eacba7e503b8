/* inputs.h - what a run was given, by content: a resumed one must be given the same.
 *
 * As text, a line per file, "<key> <bytes> <16 hex digits> <path>": the key is that of the recipe, with the file's name for directories and
 * its number for lists. Only contents are compared, so files may be moved. */
#ifndef CAB_TRAIN_INPUTS_H
#define CAB_TRAIN_INPUTS_H

#include "base/fingerprint.h"
#include "train/run.h"

typedef struct cab_input_list cab_input_list;

/* The lines of an opened run: teacher with tokenizer, student.path, data and classes. Owned by the caller. */
cab_status cab_inputs_describe(const cab_run *run, char **text);
/* For domains: one more line. */
cab_status cab_input_add(cab_input_list *list, const char *key, const char *path, const cab_fingerprint *content);
/* CAB_EARG, naming the first input that is not as it was; CAB_EFORMAT where `then` is no such text. `file` begins the sentence. */
cab_status cab_inputs_compare(const char *file, const char *then, const char *now);

/* A hash of what a model is read from, wherever it lies. */
cab_status cab_inputs_model_hash(const char *model, uint64_t *hash);

#endif
