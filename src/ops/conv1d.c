/* conv1d.c - the short causal convolution before a state-space recurrence, one filter per channel:
 *
 *   u[b, l, e] = bias[e] + sum_k w[e, k] x[b, l - (K - 1) + k, e]     (x is zero before the sequence, or document)
 *   y = u, or silu(u)
 *
 * A node may have a second direction with a filter of its own, whose tokens run from the last to the first: l + (K - 1) - k in the place of
 * l - (K - 1) + k. Both read the same x, once where the caches hold it, and their gradients of x are one sum.
 *
 * x, y: (B, L, E)    w: (E, 1, K) fp32    bias: (E) fp32    starts: (B, L) int32
 * The backward pass computes u again from x: K multiply-adds are cheaper than keeping it. */
#include "ops/conv1d.h"

#include "ops/record.h"

static double conv1d_flops(const cab_node *node)
{
    const int directions = cab_conv1d_attributes_of(node)->directions;
    return 2.0 * (double)cab_elements(node->in[0]) * (double)cab_columns(node->in[1]) * directions;
}

const cab_op cab_op_conv1d = {
    .name = "conv1d", /* in: x w bias, of a second direction w bias, starts   out: y, the second's y */
    .saves = CAB_SAVE_IN(CAB_CONV1D_INPUTS) - 1,
    .flops = conv1d_flops,
};

const cab_op cab_op_conv1d_step = {
    .name = "conv1d_step", /* in: x w bias state   out: y */
    .flops = conv1d_flops,
};

static bool conv1d_fits(cab_graph *g, const char *op, const cab_tensor *x, const cab_tensor *w, const cab_tensor *bias)
{
    char a[96], b[96];
    if (x->n_dim != 3 || (x->dtype != CAB_F32 && x->dtype != CAB_BF16)) {
        cab_graph_fail(g, CAB_ESHAPE, "%s: x is %s, expected (B, L, E) F32 or BF16", op, cab_shape_text(x, a));
        return false;
    }
    if (w->n_dim != 3 || w->dtype != CAB_F32 || w->shape[0] != cab_columns(x) || w->shape[1] != 1 ||
        w->shape[2] > CAB_CONV1D_MAX_WIDTH) {
        cab_graph_fail(g, CAB_ESHAPE, "%s: w is %s for x %s, expected (%" PRId64 ", 1, K) F32 with K <= %d", op,
                       cab_shape_text(w, a), cab_shape_text(x, b), cab_columns(x), CAB_CONV1D_MAX_WIDTH);
        return false;
    }
    if (bias != NULL && (bias->n_dim != 1 || bias->dtype != CAB_F32 || bias->shape[0] != cab_columns(x))) {
        cab_graph_fail(g, CAB_ESHAPE, "%s: bias is %s, expected (%" PRId64 ") F32", op, cab_shape_text(bias, a),
                       cab_columns(x));
        return false;
    }
    return true;
}

cab_tensor *cab_conv1d(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *bias, cab_tensor *starts, bool silu)
{
    if (cab_graph_failed(g) || x == NULL || w == NULL || !conv1d_fits(g, cab_op_conv1d.name, x, w, bias) ||
        !cab_expect_starts(g, cab_op_conv1d.name, starts, x))
        return NULL;
    cab_tensor *y = cab_graph_activation(g, "conv1d", x->dtype, x->n_dim, x->shape);
    cab_conv1d_attributes attributes = {.silu = silu, .directions = 1};
    cab_tensor *in[CAB_CONV1D_INPUTS] = {x, w, bias, [CAB_CONV1D_STARTS] = starts};
    cab_graph_append(g, &cab_op_conv1d, CAB_CONV1D_INPUTS, in, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

void cab_conv1d_both(cab_graph *g, cab_tensor *x, const cab_conv1d_filter filters[2], bool silu, cab_tensor *y[2])
{
    cab_tensor *in[CAB_CONV1D_INPUTS] = {x}, *out[2];
    y[0] = y[1] = NULL;
    if (cab_graph_failed(g) || x == NULL)
        return;
    for (int d = 0; d < 2; d++) {
        in[1 + 2 * d] = filters[d].w;
        in[2 + 2 * d] = filters[d].bias;
        if (filters[d].w == NULL || !conv1d_fits(g, cab_op_conv1d.name, x, filters[d].w, filters[d].bias))
            return;
    }
    if (cab_columns(filters[0].w) != cab_columns(filters[1].w)) {
        cab_graph_fail(g, CAB_ESHAPE, "conv1d: the filters of both directions have %" PRId64 " and %" PRId64 " taps",
                       cab_columns(filters[0].w), cab_columns(filters[1].w));
        return;
    }
    for (int d = 0; d < 2; d++)
        out[d] = cab_graph_activation(g, d ? "conv1d_backward" : "conv1d", x->dtype, x->n_dim, x->shape);
    const cab_conv1d_attributes attributes = {.silu = silu, .directions = 2};
    cab_graph_append(g, &cab_op_conv1d, CAB_CONV1D_INPUTS, in, 2, out, &attributes, sizeof attributes);
    if (!cab_graph_failed(g))
        memcpy(y, out, sizeof out);
}

cab_tensor *cab_conv1d_step(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *bias, cab_tensor *state, bool silu)
{
    if (cab_graph_failed(g) || x == NULL || w == NULL || state == NULL ||
        !conv1d_fits(g, cab_op_conv1d_step.name, x, w, bias))
        return NULL;
    int64_t taps = cab_columns(w) - 1;
    char a[96];
    if (x->shape[1] != 1)
        return cab_graph_fail(g, CAB_ESHAPE, "conv1d_step: x is %s, expected one token", cab_shape_text(x, a));
    if (taps < 1 || state->dtype != CAB_F32 || state->n_dim != 3 || state->shape[0] != x->shape[0] ||
        state->shape[1] != taps || state->shape[2] != cab_columns(x))
        return cab_graph_fail(g, CAB_ESHAPE,
                              "conv1d_step: state is %s, expected (%" PRId64 ", %" PRId64 ", %" PRId64 ") F32",
                              cab_shape_text(state, a), x->shape[0], taps, cab_columns(x));
    cab_tensor *y = cab_graph_activation(g, "conv1d_step", x->dtype, x->n_dim, x->shape);
    cab_conv1d_attributes attributes = {.silu = silu, .directions = 1};
    cab_graph_append(g, &cab_op_conv1d_step, 4, (cab_tensor *[]){x, w, bias, state}, 1, &y, &attributes,
                     sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}
