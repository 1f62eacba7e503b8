/* scorer.h - how likely a model finds given continuations: many of them, of any length, in few large batches.
 *
 * Requests are rows of one batch, padded on the right, which a causal model does not see. Rows of like length stand together. A request
 * whose tokens begin another one's is scored in that one's row: choices of a token each cost their context once. */
#ifndef CAB_TRAIN_SCORER_H
#define CAB_TRAIN_SCORER_H

#include "models/model.h"

/* Tokens from `context` on are scored, each given all before it; 0 < context < count. */
typedef struct cab_request {
    const int32_t *ids;
    size_t count, context;
} cab_request;

typedef struct cab_score {
    double logp;   /* of the scored tokens together, nats */
    uint32_t hits; /* of these, how many are the model's likeliest */
} cab_score;

/* Scores requests[n]. One that is longer than the model's context loses tokens of its own context from the left; *cut, which may be
 * NULL, becomes the number of those. CAB_ESHAPE where the scored tokens alone are longer. `title` is that of the progress line. */
cab_status cab_score_requests(const cab_model *model, const cab_request *requests, size_t n, const char *title,
                              cab_score *scores, size_t *cut);

#endif
