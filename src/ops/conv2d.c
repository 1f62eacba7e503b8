/* conv2d.c - a convolution over the grid of an image's patches, one filter per channel, and SiLU:
 *
 *   u[b, r, c, e] = bias[e] + sum_ij w[e, i, j] x[b, r + i - h, c + j - h, e]     h = (K - 1) / 2, x is zero outside the grid
 *   y = silu(u)
 *
 * Row r, column c of the grid is token first + r * width + c. The `first` tokens before the grid are no patches: u = x there.
 *
 * x, y: (B, L, E)    w: (E, 1, K, K) fp32, K 3, 5 or 7    bias: (E) fp32
 * The backward pass computes u again from x: what it reads for the gradient of w is what u needs. */
#include "ops/conv2d.h"

#include "ops/record.h"

static double conv2d_flops(const cab_node *node)
{
    const cab_conv2d_shape s = cab_conv2d_shape_of(node);
    return 2.0 * (double)(s.images * s.height * s.width * s.E) * s.side * s.side;
}

const cab_op cab_op_conv2d = {
    .name = "conv2d", /* in: x w bias   out: y */
    .saves = CAB_SAVE_IN(CAB_CONV2D_INPUTS) - 1,
    .flops = conv2d_flops,
};

static bool conv2d_fits(cab_graph *g, const cab_tensor *x, const cab_tensor *w, const cab_tensor *bias)
{
    char a[96], b[96];
    if (x->n_dim != 3 || (x->dtype != CAB_F32 && x->dtype != CAB_BF16)) {
        cab_graph_fail(g, CAB_ESHAPE, "conv2d: x is %s, expected (B, L, E) F32 or BF16", cab_shape_text(x, a));
        return false;
    }
    if (w->n_dim != 4 || w->dtype != CAB_F32 || w->shape[0] != cab_columns(x) || w->shape[1] != 1 ||
        w->shape[2] != w->shape[3] || w->shape[2] % 2 == 0 || w->shape[2] < 3 || w->shape[2] > CAB_CONV2D_MAX_SIDE) {
        cab_graph_fail(g, CAB_ESHAPE, "conv2d: w is %s for x %s, expected (%" PRId64 ", 1, K, K) F32 with K 3, 5 or %d",
                       cab_shape_text(w, a), cab_shape_text(x, b), cab_columns(x), CAB_CONV2D_MAX_SIDE);
        return false;
    }
    if (bias != NULL && (bias->n_dim != 1 || bias->dtype != CAB_F32 || bias->shape[0] != cab_columns(x))) {
        cab_graph_fail(g, CAB_ESHAPE, "conv2d: bias is %s, expected (%" PRId64 ") F32", cab_shape_text(bias, a),
                       cab_columns(x));
        return false;
    }
    return true;
}

cab_tensor *cab_conv2d(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *bias, int64_t first, int64_t width)
{
    if (cab_graph_failed(g) || x == NULL || w == NULL || !conv2d_fits(g, x, w, bias))
        return NULL;
    const int64_t L = x->shape[1];
    if (first < 0 || width < 1 || first >= L || (L - first) % width != 0)
        return cab_graph_fail(g, CAB_ESHAPE,
                              "conv2d: %" PRId64 " tokens are not rows of %" PRId64 " behind %" PRId64 " others", L,
                              width, first);
    cab_tensor *y = cab_graph_activation(g, "conv2d", x->dtype, x->n_dim, x->shape);
    const cab_conv2d_attributes attributes = {.first = first, .width = width};
    cab_tensor *in[CAB_CONV2D_INPUTS] = {x, w, bias};
    cab_graph_append(g, &cab_op_conv2d, CAB_CONV2D_INPUTS, in, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}
