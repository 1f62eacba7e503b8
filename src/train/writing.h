/* writing.h - what a model writes by itself: how likely its teacher finds it, how varied it is, whether it goes round in circles.
 *
 * A model writes some texts from the token that starts one, and goes on past ends of texts. What it wrote is measured in blocks of
 * CAB_WRITING_BLOCK tokens of every text: the first 10,000 of each together, the next 10,000 ..., so that a drift shows. */
#ifndef CAB_TRAIN_WRITING_H
#define CAB_TRAIN_WRITING_H

#include "models/model.h"

enum { CAB_WRITING_BLOCK = 10000, CAB_WRITING_GRAMS = 4, CAB_WRITING_NEAR = 256 };

typedef struct cab_writing_options {
    uint64_t texts, tokens; /* so many texts of so many tokens; a model of less context writes more of its length */
    float temperature, top_p;
    uint64_t seed;
    int32_t start; /* the token that starts a text */
} cab_writing_options;

typedef struct cab_writing_block {
    uint64_t first;         /* token of every text that it begins with */
    uint64_t texts, tokens; /* in it */
    double
        perplexity; /* of it, by the judge; every token given at least half of the judge's context, as far as there is text */
    double distinct[CAB_WRITING_GRAMS]; /* different sequences of 1, 2, 3, 4 tokens as a share of all in the block */
    double repetition; /* share of tokens that end 4 tokens which stood within the 256 before already */
} cab_writing_block;

/* *blocks is the caller's to free. judge NULL: perplexity NaN. CAB_EARG: no tokens, or no token that starts a text. */
cab_status cab_writing_measure(const cab_model *writer, const cab_model *judge, const cab_writing_options *options,
                               cab_writing_block **blocks, size_t *count);

#endif
