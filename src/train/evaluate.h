/* evaluate.h - how well a model predicts text, and how close it is to a teacher. */
#ifndef CAB_TRAIN_EVALUATE_H
#define CAB_TRAIN_EVALUATE_H

#include "base/error.h"
#include "data/expand.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cab_evaluate_options {
    const char *model;   /* directory, teacher or student */
    const char *teacher; /* directory to compare with, or NULL */
    const char *const *files;
    unsigned files_count;
    const char *separator, *text_field; /* NULL: "<|endoftext|>", "text" */
    cab_expand_limits limits;           /* of packed files */
    bool all_tokens;                    /* of conversations, not the answers' alone */
    bool bin_uint32;                    /* .bin files hold uint32 */
    const char *cache;                  /* directory of the token cache */
    int64_t seq_len;                    /* window; 0: the model's length */
    int64_t batch;                      /* windows at once; 0: about 4096 tokens' worth */
    bool per_document;                  /* every document from its own start, never past its end */
    uint64_t max_tokens;                /* 0: all */
    cab_precision precision;
    const char *device;
} cab_evaluate_options;

typedef struct cab_evaluation {
    uint64_t tokens;    /* predicted */
    uint64_t documents; /* in the files */
    double loss, perplexity;
    double bits_per_byte; /* NaN when not everything was evaluated or the bytes are unknown */
    double kl, agreement; /* NaN without a teacher */
    double seconds, tokens_per_second;
} cab_evaluation;

/* Windowed: documents joined with the end-of-text token, cut into windows that do not overlap. Progress goes to stderr. */
cab_status cab_evaluate(const cab_evaluate_options *options, cab_evaluation *evaluation);

#endif
