/* saver.h - a file of tensors written by a thread of its own. Internal to this folder. */
#ifndef CAB_TRAIN_SAVER_H
#define CAB_TRAIN_SAVER_H

#include "io/safetensors.h"

typedef struct cab_saver cab_saver;

/* Writes `path` beside whatever the caller does. The writer holds its tensors, and is taken, whatever comes of it. */
cab_status cab_saver_start(cab_safetensors_writer *writer, const char *path, uint64_t step, cab_saver **out);
/* Whether the file is written or has failed; false of NULL. */
bool cab_saver_is_done(const cab_saver *saver);
/* Waits, frees *saver and sets it to NULL. Gives what became of the file: *step is that of cab_saver_start() where it stands.
 * CAB_OK where *saver is NULL. */
cab_status cab_saver_end(cab_saver **saver, uint64_t *step);

#endif
