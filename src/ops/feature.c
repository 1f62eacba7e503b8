/* feature.c - the alignment loss between a bridge's output and a teacher's Q or K under a feature map psi:
 *
 *   loss = 1 / (B L D) sum (pred - psi(target))^2     dpred = seed * 2 / (B L D) (pred - psi(target))
 *
 * times a scalar `scale`, where there is one. The relative error is the loss with scale = 1 / var(target).
 *
 *   psi: identity;  exp(t[d]) / sum_d exp(t[d]) per token;  exp(t[l]) / sum_l exp(t[l]) per sequence and column;
 *        max(t, 0);  exp(t)
 *
 * pred, target: (B, L, D); the row of the target may be another than pred's (cab_row_map). psi(target) is never stored: the softmax over tokens needs a maximum and a sum per column. */
#include "ops/feature.h"

#include "ops/record.h"

#include <inttypes.h>

const cab_op cab_op_align_loss = {
    .name = "align_loss", /* in: pred target scale (NULL: 1)   out: loss */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1) | CAB_SAVE_IN(2),
    .backward_computes_outputs = true,
};

const cab_op cab_op_align_stats = {
    .name = "align_stats", /* in: target   out: stats, of its softmax */
};

const cab_op cab_op_inverse_variance = {
    .name = "inverse_variance", /* in: x   out: 1 / var(x) */
};

/* scale: of the loss, an F32 scalar; NULL: 1. */
static cab_tensor *align_loss(cab_graph *g, cab_tensor *pred, cab_tensor *target, cab_tensor *scale,
                              const cab_align_attributes *attributes)
{
    if (cab_graph_failed(g) || pred == NULL || target == NULL)
        return NULL;
    char a[96], b[96];
    const int64_t skip = attributes->mapped ? attributes->rows.skip : 0;
    bool same = pred->n_dim == 3 && target->n_dim == 3 && pred->dtype == target->dtype;
    for (int i = 0; same && i < 3; i++)
        same = pred->shape[i] + (i == 1 ? skip : 0) == target->shape[i];
    if (!same || (pred->dtype != CAB_F32 && pred->dtype != CAB_BF16))
        return cab_graph_fail(g, CAB_ESHAPE,
                              "align_loss: pred is %s and target %s, expected (B, L, D) F32 or BF16 both, %" PRId64
                              " more rows in the target",
                              cab_shape_text(pred, a), cab_shape_text(target, b), skip);
    if (attributes->mapped &&
        (skip < 0 || attributes->rows.class_at < 0 || attributes->rows.class_at >= pred->shape[1]))
        return cab_graph_fail(g, CAB_EARG,
                              "align_loss: the class token stands at %" PRId64 " of %s, %" PRId64 " rows are skipped",
                              attributes->rows.class_at, cab_shape_text(pred, a), skip);
    cab_tensor *loss = cab_graph_activation(g, "align_loss", CAB_F32, 1, (int64_t[]){1});
    cab_graph_append(g, &cab_op_align_loss, 3, (cab_tensor *[]){pred, target, scale}, 1, &loss, attributes,
                     sizeof *attributes);
    return cab_graph_failed(g) ? NULL : loss;
}

cab_tensor *cab_align_loss(cab_graph *g, cab_tensor *pred, cab_tensor *target, cab_feature_map map)
{
    const cab_align_attributes attributes = {.map = map};
    return align_loss(g, pred, target, NULL, &attributes);
}

cab_tensor *cab_align_loss_mapped(cab_graph *g, cab_tensor *pred, cab_tensor *target, cab_feature_map map,
                                  const cab_row_map *rows)
{
    const cab_align_attributes attributes = {.map = map, .mapped = true, .rows = *rows};
    return align_loss(g, pred, target, NULL, &attributes);
}

cab_tensor *cab_inverse_variance(cab_graph *g, cab_tensor *x)
{
    if (cab_graph_failed(g) || x == NULL || !cab_expect_dtype(g, "inverse_variance", x, CAB_DTYPES))
        return NULL;
    cab_tensor *y = cab_graph_activation(g, "inverse_variance", CAB_F32, 1, (int64_t[]){1});
    cab_graph_append(g, &cab_op_inverse_variance, 1, &x, 1, &y, NULL, 0);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_relative_error(cab_graph *g, cab_tensor *pred, cab_tensor *target)
{
    const cab_align_attributes attributes = {.map = CAB_MAP_NONE};
    cab_tensor *scale = cab_inverse_variance(g, target);
    return scale == NULL ? NULL : align_loss(g, pred, target, scale, &attributes);
}
