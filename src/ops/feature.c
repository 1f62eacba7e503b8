/* feature.c - the alignment loss between a bridge's output and a teacher's Q or K under a feature map psi:
 *
 *   loss = 1 / (B L D) sum (pred - psi(target))^2     dpred = seed * 2 / (B L D) (pred - psi(target))
 *
 * each square times the `scale` of its sequence, where there is one. A relative error is the loss with
 * scale[b] = 1 / var(psi(target[b])): sequence by sequence, so that it does not depend on how a batch is cut.
 *
 *   psi: identity;  exp(t[d]) / sum_d exp(t[d]) per token;  exp(t[l]) / sum_l exp(t[l]) per sequence and column;
 *        max(t, 0);  exp(t)
 *
 * pred, target: (B, L, D); the row of the target may be another than pred's (cab_row_map). psi(target) is never stored: the softmax over tokens needs a maximum and a sum per column. */
#include "ops/feature.h"

#include "ops/record.h"

#include <inttypes.h>

const cab_op cab_op_align_loss = {
    .name = "align_loss", /* in: pred target scale (B) (NULL: 1)   out: loss */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1) | CAB_SAVE_IN(2),
    .backward_computes_outputs = true,
};

const cab_op cab_op_align_stats = {
    .name = "align_stats", /* in: target   out: stats, of its softmax */
};

const cab_op cab_op_inverse_variance = {
    .name = "inverse_variance", /* in: target   out: 1 / var(psi(target)) (B) */
};

static cab_align_attributes attributes_of(const cab_alignment *how)
{
    return (cab_align_attributes){
        .map = how->map, .mapped = how->rows != NULL, .rows = how->rows != NULL ? *how->rows : (cab_row_map){0}};
}

static bool same_target(const cab_align_attributes *a, const cab_align_attributes *b)
{
    return a->map == b->map && a->mapped == b->mapped && a->rows.class_at == b->rows.class_at &&
           a->rows.skip == b->rows.skip;
}

cab_tensor *cab_align_recorded(const cab_graph *g, const cab_op *op, const cab_tensor *target,
                               const cab_align_attributes *attributes)
{
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        if (node->op == op && node->in[0] == target && same_target(node->attributes, attributes))
            return node->out[0];
    }
    return NULL;
}

cab_tensor *cab_align_loss(cab_graph *g, cab_tensor *pred, cab_tensor *target, const cab_alignment *how)
{
    if (cab_graph_failed(g) || pred == NULL || target == NULL)
        return NULL;
    char a[96], b[96];
    const cab_align_attributes attributes = attributes_of(how);
    const int64_t skip = attributes.rows.skip;
    bool same = pred->n_dim == 3 && target->n_dim == 3 && pred->dtype == target->dtype;
    for (int i = 0; same && i < 3; i++)
        same = pred->shape[i] + (i == 1 ? skip : 0) == target->shape[i];
    if (!same || (pred->dtype != CAB_F32 && pred->dtype != CAB_BF16))
        return cab_graph_fail(g, CAB_ESHAPE,
                              "align_loss: pred is %s and target %s, expected (B, L, D) F32 or BF16 both, %" PRId64
                              " more rows in the target",
                              cab_shape_text(pred, a), cab_shape_text(target, b), skip);
    if (attributes.mapped && (skip < 0 || attributes.rows.class_at < 0 || attributes.rows.class_at >= pred->shape[1]))
        return cab_graph_fail(g, CAB_EARG,
                              "align_loss: the class token stands at %" PRId64 " of %s, %" PRId64 " rows are skipped",
                              attributes.rows.class_at, cab_shape_text(pred, a), skip);
    cab_tensor *scale = how->relative ? cab_inverse_variance(g, target, how) : NULL;
    cab_tensor *loss = cab_graph_activation(g, "align_loss", CAB_F32, 1, (int64_t[]){1});
    cab_graph_append(g, &cab_op_align_loss, 3, (cab_tensor *[]){pred, target, scale}, 1, &loss, &attributes,
                     sizeof attributes);
    return cab_graph_failed(g) ? NULL : loss;
}

cab_tensor *cab_inverse_variance(cab_graph *g, cab_tensor *target, const cab_alignment *how)
{
    if (cab_graph_failed(g) || target == NULL || !cab_expect_dtype(g, "inverse_variance", target, CAB_DTYPES))
        return NULL;
    if (target->n_dim != 3)
        return cab_graph_fail(g, CAB_ESHAPE, "inverse_variance: the target has %d dimensions, expected (B, L, D)",
                              target->n_dim);
    const cab_align_attributes attributes = attributes_of(how);
    cab_tensor *y = cab_align_recorded(g, &cab_op_inverse_variance, target, &attributes);
    if (y != NULL)
        return y;
    y = cab_graph_activation(g, "inverse_variance", CAB_F32, 1, (int64_t[]){target->shape[0]});
    cab_graph_append(g, &cab_op_inverse_variance, 1, &target, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}
