/* norm.c - layer and root-mean-square normalisation over the last dimension.
 *
 *   layer:  x^ = (x - mean) r,  r = 1 / sqrt(mean((x - mean)^2) + eps),  y = x^ w + b
 *   RMS:    x^ = x r,           r = 1 / sqrt(mean(x^2) + eps),           y = x^ w
 *
 *   sum and RMS:  s = residual + x,  y as RMS of s;  both x and residual receive ds, which holds dx of the norm as well
 *
 *   g = dy w      dx = r (g - mean(g) - x^ mean(g x^))   (without mean(g) for RMS)
 *   dw += sum over rows of dy x^      db += sum over rows of dy
 *
 * x, y: (..., D)   w, b: (D). RMS norm may be of groups of columns: its means are over each of them. The statistics are computed again in the backward pass: a row is in the first-level cache
 * by then, and nothing but x has to be kept. */
#include "ops/norm.h"

#include "ops/cpu/vec.h"
#include "ops/record.h"

const cab_op cab_op_layer_norm = {
    .name = "layer_norm", /* in: x w b   out: y */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1),
};

const cab_op cab_op_rms_norm = {
    .name = "rms_norm", /* in: x w   out: y */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1),
};

const cab_op cab_op_add_rms_norm = {
    .name = "add_rms_norm", /* in: x residual w   out: y sum */
    .saves = CAB_SAVE_IN(2) | CAB_SAVE_OUT(1),
};

static cab_tensor *record(cab_graph *g, const cab_op *op, cab_tensor *x, cab_tensor *w, cab_tensor *b,
                          cab_norm_attributes attributes)
{
    if (!cab_expect_dtype(g, op->name, x, CAB_DTYPES) || !cab_expect_vector(g, op->name, w, cab_columns(x)) ||
        (b && !cab_expect_vector(g, op->name, b, cab_columns(x))))
        return NULL;
    cab_tensor *y = cab_graph_activation(g, w->name, x->dtype, x->n_dim, x->shape);
    if (y)
        cab_graph_append(g, op, b ? 3 : 2, (cab_tensor *[]){x, w, b}, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_layer_norm(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, float eps)
{
    return cab_graph_failed(g) || !x || !w || !b
               ? NULL
               : record(g, &cab_op_layer_norm, x, w, b, (cab_norm_attributes){.eps = eps, .n_group = 1});
}

cab_tensor *cab_rms_norm(cab_graph *g, cab_tensor *x, cab_tensor *w, int n_group, float eps)
{
    if (cab_graph_failed(g) || !x || !w)
        return NULL;
    if (n_group < 1 || cab_columns(x) % n_group != 0)
        return cab_graph_fail(g, CAB_ESHAPE,
                              "rms_norm: \"%s\" has %" PRId64 " columns in %d groups, expected a divisor", x->name,
                              cab_columns(x), n_group);
    return record(g, &cab_op_rms_norm, x, w, NULL, (cab_norm_attributes){.eps = eps, .n_group = n_group});
}

cab_tensor *cab_add_rms_norm(cab_graph *g, cab_tensor *x, cab_tensor *residual, cab_tensor *w, float eps,
                             cab_tensor **sum)
{
    *sum = NULL;
    if (cab_graph_failed(g) || !x || !w || !cab_expect_dtype(g, "add_rms_norm", x, CAB_DTYPES) ||
        !cab_expect_vector(g, "add_rms_norm", w, cab_columns(x)))
        return NULL;
    char a[96], b[96];
    if (residual && (residual->dtype != CAB_F32 || residual->n_dim != x->n_dim ||
                     memcmp(residual->shape, x->shape, (size_t)x->n_dim * sizeof *x->shape) != 0))
        return cab_graph_fail(g, CAB_ESHAPE, "add_rms_norm: \"%s\" is %s, expected F32 of the shape of \"%s\" %s",
                              residual->name, cab_shape_text(residual, a), x->name, cab_shape_text(x, b));
    cab_tensor *out[2] = {cab_graph_activation(g, w->name, x->dtype, x->n_dim, x->shape),
                          cab_graph_activation(g, "residual", CAB_F32, x->n_dim, x->shape)};
    cab_norm_attributes attributes = {.eps = eps, .n_group = 1};
    if (out[0] && out[1])
        cab_graph_append(g, &cab_op_add_rms_norm, 3, (cab_tensor *[]){x, residual, w}, 2, out, &attributes,
                         sizeof attributes);
    if (cab_graph_failed(g))
        return NULL;
    *sum = out[1];
    return out[0];
}
