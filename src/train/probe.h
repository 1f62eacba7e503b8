/* probe.h - a model recorded so that the token-mixing matrix of every layer can be looked at, for one sequence at a time.
 *
 * The matrix of a layer is one for the whole layer: attention and Mamba-2 averaged over heads, Mamba-1 over channels, the two
 * directions of a bidirectional layer added up. Tokens of image models stand in one order whatever the model's own is: the
 * class token, then the patches by rows; DeiT's distillation token, which no student has, is left out. So matrices of a teacher
 * and of its student can be compared entry by entry. */
#ifndef CAB_TRAIN_PROBE_H
#define CAB_TRAIN_PROBE_H

#include "models/model.h"

typedef struct cab_probe cab_probe;

/* `length`: tokens of the sequences; ignored for image models. The model must outlive the probe. */
cab_status cab_probe_new(const cab_model *model, int64_t length, cab_probe **probe);
void cab_probe_free(cab_probe *probe);

/* T: rows and columns of the matrices. */
int64_t cab_probe_tokens(const cab_probe *probe);
/* Runs the model: ids (length) I32, or pixels (3, image_size, image_size) F32. */
cab_status cab_probe_run(cab_probe *probe, const void *input);
/* The matrix of a layer in the last run, (T, T). */
cab_status cab_probe_matrix(cab_probe *probe, int layer, float *matrix);

#endif
