/* matrix.c - the linear layer.
 *
 *   y = x W^T + b        dx = dy W        dW += dy^T x        db += column sums of dy
 *
 * x: (..., in)   y: (..., out)   W: (out, in) or (in, out), in x's dtype   b: (out) or NULL
 * Sums are fp32; gradients of parameters go to the fp32 masters. */
#include "ops/matrix.h"

#include "ops/fp8.h"
#include "ops/product_parts.h"
#include "ops/record.h"

static bool out_in(const cab_node *node)
{
    return cab_linear_layout(node) == CAB_OUT_IN;
}

cab_gemm_shape cab_linear_y(const cab_node *node)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *b = node->in[2], *y = node->out[0];
    return (cab_gemm_shape){.m = cab_rows(x),
                            .n = cab_columns(y),
                            .k = cab_columns(x),
                            .a = cab_side_of(x, false),
                            .b = cab_side_of(w, out_in(node)),
                            .c = cab_side_of(y, false),
                            .bias = b != NULL,
                            .bias_dtype = b ? b->dtype : CAB_F32};
}

cab_gemm_shape cab_linear_dx(const cab_node *node)
{
    const cab_tensor *w = node->in[1], *dy = node->gout[0], *dx = node->gin[0];
    return (cab_gemm_shape){.m = cab_rows(dx),
                            .n = cab_columns(dx),
                            .k = cab_columns(dy),
                            .a = cab_side_of(dy, false),
                            .b = cab_side_of(w, !out_in(node)),
                            .c = cab_side_of(dx, false),
                            .accumulate = node->accumulate & 1u};
}

cab_gemm_shape cab_linear_dw(const cab_node *node, int64_t rows)
{
    const cab_tensor *x = node->in[0], *dy = node->gout[0], *dw = node->gin[1];
    const cab_tensor *left = out_in(node) ? dy : x, *right = out_in(node) ? x : dy;
    return (cab_gemm_shape){.m = cab_columns(left),
                            .n = cab_columns(right),
                            .k = rows,
                            .a = cab_side_of(left, true),
                            .b = cab_side_of(right, false),
                            .c = cab_side_of(dw, false),
                            .accumulate = true};
}

cab_status cab_linear_check_backward(const cab_node *node)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *dy = node->gout[0];
    if (node->gin[0] != NULL && cab_dtype_is_blocks(w->dtype))
        return cab_fail(CAB_EUNSUPPORTED, "\"%s\" stays in %s: no gradient flows back through it", w->name,
                        cab_dtype_name(w->dtype));
    if (x != NULL && dy != NULL && dy->dtype != x->dtype)
        return cab_fail(CAB_EUNSUPPORTED, "\"%s\" gives logits: no gradient flows back through it", w->name);
    return CAB_OK;
}

static double linear_flops(const cab_node *node)
{
    const cab_tensor *y = node->backward ? node->gout[0] : node->out[0];
    double product = 2.0 * (double)cab_elements(node->in[0]) * (double)cab_columns(y);
    return node->backward ? product * ((node->gin[0] != NULL) + (node->gin[1] != NULL)) : product;
}

const cab_op cab_op_linear = {
    .name = "linear", /* in: x W b   out: y */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1),
    .flops = linear_flops,
};

/* The rows of y begin at multiples of so many elements. */
/* dtype: of y. */
static cab_tensor *record(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout, cab_dtype dtype,
                          int64_t multiple)
{
    if (cab_graph_failed(g) || !x || !w || !cab_expect_dtype(g, "linear", x, CAB_DTYPES))
        return NULL;
    int64_t out = w->shape[layout == CAB_OUT_IN ? 0 : 1];
    if (w->n_dim != 2 || w->shape[layout == CAB_OUT_IN ? 1 : 0] != cab_columns(x)) {
        char text[2][96];
        return cab_graph_fail(g, CAB_ESHAPE, "linear: \"%s\" is %s and \"%s\" %s: they do not fit", x->name,
                              cab_shape_text(x, text[0]), w->name, cab_shape_text(w, text[1]));
    }
    if (b && !cab_expect_vector(g, "linear", b, out))
        return NULL;
    cab_tensor *weight = cab_graph_weight(g, w, x->dtype);
    cab_tensor *product = w->fp8 && weight == w && dtype == x->dtype ? cab_fp8_linear(g, x, w, b, layout) : NULL;
    if (product || cab_graph_failed(g))
        return product;
    int64_t shape[CAB_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->n_dim - 1] = out;
    cab_tensor *y = cab_graph_padded(g, w->name, dtype, x->n_dim, shape, multiple);
    if (!weight || !y)
        return NULL;
    cab_linear_attributes attributes = {.layout = layout};
    cab_graph_append(g, &cab_op_linear, 3, (cab_tensor *[]){x, weight, b}, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_linear(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout)
{
    return record(g, x, w, b, layout, x != NULL ? x->dtype : CAB_F32, 1);
}

cab_tensor *cab_linear_padded(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout)
{
    return record(g, x, w, b, layout, x != NULL ? x->dtype : CAB_F32, CAB_PRODUCT_STEP);
}

cab_tensor *cab_linear_logits(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout)
{
    return record(g, x, w, b, layout, CAB_F32, CAB_PRODUCT_STEP);
}
