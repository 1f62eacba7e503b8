/* loops.h - training sequences in which a few tokens come again and again.
 *
 * A model that writes on and on falls into loops sooner or later. A Transformer finds its way out, since the weights of its attention sum to 1
 * however often a token is there. The state of a recurrence is a sum, which grows with every repetition, and text has no repetitions
 * to learn from. Shown some, the student learns from the teacher's distribution what to do there. */
#ifndef CAB_DATA_LOOPS_H
#define CAB_DATA_LOOPS_H

#include <stdbool.h>
#include <stdint.h>

/* Tokens [first, first + length) of a sequence become the `span` tokens before them, again and again. */
typedef struct cab_loop {
    int64_t first, length, span;
} cab_loop;

/* The loop of training sequence `index` of `tokens` tokens: one in a `share` of them, a function of seed and index. False: it has none. */
bool cab_loop_draw(uint64_t seed, double share, uint64_t index, int64_t tokens, cab_loop *loop);
/* Writes the loop into a sequence, unless it would reach over a row without a label or, where starts is not NULL, into another document:
 * then it returns false, and nothing has changed. labels are -1 where the next token is the loop's, or the first behind it. */
bool cab_loop_apply(const cab_loop *loop, const int32_t *starts, int32_t *ids, int32_t *labels);

#endif
