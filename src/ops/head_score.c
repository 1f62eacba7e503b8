/* head_score.c - what a head says of single rows: the probability of a label, and the likeliest words.
 *
 *   s = hidden W^T + b, or cap tanh of it / cap      log p = log softmax(s)
 *   label[r] = log p[r, labels[r]], 0 where the label is -1
 *   ids[r, 0 .. k)   the words of the k largest s, the largest first, of equals the smaller id      top[r, i] = log p[r, ids[r, i]]
 *
 * hidden: (B, L, D)    W: (V, D)    b: (V)    labels: (B, L) I32    R = B L. Chunk by chunk, as head_loss; no backward. */
#include "ops/head_score.h"

#include "ops/record.h"

#include <math.h>

static double score_flops(const cab_node *node)
{
    return 2.0 * (double)cab_elements(node->in[CAB_HEAD_HIDDEN]) * (double)node->in[CAB_HEAD_W]->shape[0];
}

const cab_op cab_op_head_score = {
    .name = "head_score", /* in: hidden w b labels   out: label ids top */
    .flops = score_flops,
};

static bool score_fits(cab_graph *g, const cab_head_side *side, const cab_tensor *labels, int64_t k)
{
    char a[96], b[96];
    const int64_t rows = cab_rows(side->hidden), V = side->w->shape[0];
    if (!cab_expect_dtype(g, "head_score", side->hidden, CAB_DTYPES))
        return false;
    if (side->w->n_dim != 2 || side->w->shape[1] != cab_columns(side->hidden)) {
        cab_graph_fail(g, CAB_ESHAPE, "head_score: w is %s, expected (V, D) for hidden %s", cab_shape_text(side->w, a),
                       cab_shape_text(side->hidden, b));
        return false;
    }
    if (side->b != NULL && !cab_expect_vector(g, "head_score", side->b, V))
        return false;
    if (labels->dtype != CAB_I32 || cab_elements(labels) != rows || labels->ld != cab_columns(labels)) {
        cab_graph_fail(g, CAB_ESHAPE, "head_score: labels are %s, expected I32, one for each of %" PRId64 " rows",
                       cab_shape_text(labels, a), rows);
        return false;
    }
    if (k >= 1 && k <= V && k <= CAB_SCORE_MOST && side->cap >= 0.0f && isfinite(side->cap))
        return true;
    cab_graph_fail(g, CAB_EARG, "head_score: the %" PRId64 " likeliest of %" PRId64 " words, expected 1 to %d of them",
                   k, V, CAB_SCORE_MOST);
    return false;
}

cab_head_scores cab_head_score(cab_graph *g, const cab_head_side *side, cab_tensor *labels, int64_t k)
{
    const cab_head_scores none = {0};
    if (cab_graph_failed(g) || side->hidden == NULL || side->w == NULL || labels == NULL ||
        !score_fits(g, side, labels, k))
        return none;
    const int64_t rows = cab_rows(side->hidden);
    cab_tensor *in[CAB_SCORE_INPUTS] = {[CAB_HEAD_HIDDEN] = side->hidden,
                                        [CAB_HEAD_W] = cab_graph_weight(g, side->w, side->hidden->dtype),
                                        [CAB_HEAD_B] = side->b,
                                        [CAB_SCORE_LABELS] = labels};
    const cab_head_scores scores = {.label = cab_graph_activation(g, "label", CAB_F32, 1, (int64_t[]){rows}),
                                    .ids = cab_graph_activation(g, "ids", CAB_I32, 2, (int64_t[]){rows, k}),
                                    .top = cab_graph_activation(g, "top", CAB_F32, 2, (int64_t[]){rows, k})};
    cab_tensor *out[CAB_SCORE_OUTPUTS] = {scores.label, scores.ids, scores.top};
    const cab_score_attributes attributes = {.cap = side->cap};
    if (!cab_graph_failed(g))
        cab_graph_append(g, &cab_op_head_score, CAB_SCORE_INPUTS, in, CAB_SCORE_OUTPUTS, out, &attributes,
                         sizeof attributes);
    return cab_graph_failed(g) ? none : scores;
}
