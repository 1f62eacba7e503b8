/* decode.h - recurrent decoding of a batch: constant work and memory per token for a student, a cache for a teacher.
 *
 * A step feeds one token to every sequence and finds the next, all of it on the model's device: a GPU replays one captured
 * graph, and the host need not look before it asks for the next step. */
#ifndef CAB_TRAIN_DECODE_H
#define CAB_TRAIN_DECODE_H

#include "models/model.h"

typedef struct cab_decode cab_decode;

/* One sequence: its prompt, one token or more, and its number among those of the same prompt. */
typedef struct cab_decode_row {
    const int32_t *prompt;
    size_t length;
    int32_t sample;
} cab_decode_row;

/* Sequences of different lengths start together; the shorter go on while the longer are still fed their prompts. Equal rows
 * get the same tokens in whatever batch, as far as the device's products of other sizes round alike. CAB_EUNSUPPORTED for a
 * model of images. */
cab_status cab_decode_new(const cab_model *model, const cab_decode_row *rows, int64_t batch,
                          const cab_sampling *sampling, cab_decode **decode);
void cab_decode_free(cab_decode *decode);

/* One token further. On a GPU it has not happened yet on return. CAB_ESHAPE when a teacher's context is full. */
cab_status cab_decode_step(cab_decode *decode);
/* tokens[batch]: what the next step will be fed, of the prompts or drawn. Waits for the steps asked for. */
cab_status cab_decode_tokens(cab_decode *decode, int32_t *tokens);
/* Feeds tokens[batch] to the next step in place of what it would be fed. */
cab_status cab_decode_put(cab_decode *decode, const int32_t *tokens);
/* logits[batch * vocab_size] of the last step. Likewise. */
cab_status cab_decode_logits(cab_decode *decode, float *logits);
/* Tokens fed so far, to each sequence. */
int32_t cab_decode_position(const cab_decode *decode);
/* Whether a teacher's context is full. */
bool cab_decode_full(const cab_decode *decode);

/* For benchmarks: goes on from another position. What a cache has not been given there is zero. */
cab_status cab_decode_seek(cab_decode *decode, int32_t position);

typedef struct cab_decode_traffic {
    double weights; /* bytes that a step reads of them; of an embedding the rows that it takes */
    double state;   /* bytes kept for the sequences now: recurrent states, or what is filled of the caches */
    double moved;   /* bytes of those that the next step reads and writes */
} cab_decode_traffic;

cab_decode_traffic cab_decode_traffic_of(const cab_decode *decode);

#endif
