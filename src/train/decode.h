/* decode.h - recurrent decoding: constant work and memory per token for a student, a cache for a teacher. */
#ifndef CAB_TRAIN_DECODE_H
#define CAB_TRAIN_DECODE_H

#include "models/model.h"

typedef struct cab_decode cab_decode;

cab_status cab_decode_new(const cab_model *model, cab_decode **decode);
void cab_decode_free(cab_decode *decode);
/* Feeds one token; logits[vocab_size] of the next one, valid until the next step. CAB_ESHAPE when a teacher's context is full. */
cab_status cab_decode_step(cab_decode *decode, int32_t token, const float **logits);

/* Draws a token: temperature, then top-k, then top-p. A function of (options->seed, position). scratch has
 * cab_sample_scratch(n) bytes. */
int32_t cab_sample(const float *logits, size_t n, const cab_generate_options *options, uint64_t position,
                   void *scratch);
size_t cab_sample_scratch(size_t n);

#endif
