/* fp8.c - linear layers in 8-bit floats: fp8.h.
 *
 *   s = max |x| / 448     x8 = round(x / s)                  once for all layers that read x
 *   y = s s_w x8 W8^T + b
 *
 * x8 (..., in) and W8 (out, in) in e4m3, kept as bytes: the sum runs along the rows of both, as tensor cores want it. */
#include "ops/fp8.h"

#include "ops/record.h"
#include "tensor/kernel.h"

bool cab_fp8_fits(const cab_tensor *w)
{
    return w->dtype == CAB_BF16 && w->n_dim == 2 && w->shape[0] % 16 == 0 && w->shape[1] % 16 == 0;
}

const cab_op cab_op_quantise = {
    .name = "quantise", /* in: x   out: x8 scale */
};

static double linear_flops(const cab_node *node)
{
    return 2.0 * (double)cab_elements(node->in[CAB_FP8_X]) * (double)cab_columns(node->out[0]);
}

const cab_op cab_op_linear_fp8 = {
    .name = "linear_fp8", /* in: x8 scale W8 scale b   out: y */
    .flops = linear_flops,
};

cab_status cab_fp8_check(cab_backend *backend)
{
    if (cab_kernel_for(backend, &(cab_node){.op = &cab_op_quantise}) != NULL)
        return CAB_OK;
    return cab_fail(CAB_EUNSUPPORTED, "fp8 needs a GPU that multiplies 8-bit floats, found %s", backend->name);
}

/* Whether the backend multiplies x with such a weight; both as they would be quantised. */
static bool supported(const cab_graph *g, const cab_tensor *x, cab_tensor *b, int64_t out)
{
    cab_tensor x8 = *x, w8 = {.dtype = CAB_U8, .n_dim = 2, .shape = {out, cab_columns(x)}, .ld = cab_columns(x)};
    x8.dtype = CAB_U8;
    x8.ld = cab_columns(x);
    x8.base = NULL;
    const cab_node node = {.op = &cab_op_linear_fp8,
                           .n_in = CAB_FP8_INPUTS,
                           .in = {[CAB_FP8_X] = &x8, [CAB_FP8_W] = &w8, [CAB_FP8_B] = b}};
    return cab_graph_supports(g, &node);
}

/* The weight's copy, made once, in the layout (out, in) whatever that of the weight. */
static cab_status quantise_weight(cab_backend *backend, cab_tensor *w, cab_layout layout, cab_quantised *to)
{
    const bool transposed = layout == CAB_IN_OUT;
    const cab_quantise_attributes attributes = {.transposed = transposed};
    bool fresh;
    CAB_TRY(cab_params_quantised(w->owner, w, w->shape[transposed], w->shape[!transposed], to, &fresh));
    cab_node node = {.op = &cab_op_quantise,
                     .n_in = 1,
                     .n_out = 2,
                     .in = {w},
                     .out = {to->values, to->scale},
                     .attributes = &attributes,
                     .attributes_size = sizeof attributes};
    return fresh ? cab_node_run_alone(&node, backend) : CAB_OK;
}

/* The copy of x that a layer recorded before has asked for, or a new one. */
static cab_quantised quantise_activation(cab_graph *g, cab_tensor *x)
{
    for (int i = cab_graph_nodes(g) - 1; i >= 0; i--) {
        const cab_node *node = cab_graph_node(g, i);
        if (node->op == &cab_op_quantise && node->in[0] == x)
            return (cab_quantised){node->out[0], node->out[1]};
    }
    const cab_quantise_attributes attributes = {.transposed = false};
    cab_tensor *out[] = {cab_graph_activation(g, x->name, CAB_U8, x->n_dim, x->shape),
                         cab_graph_activation(g, "scale", CAB_F32, 1, (int64_t[]){1})};
    cab_graph_append(g, &cab_op_quantise, 1, &x, 2, out, &attributes, sizeof attributes);
    return (cab_quantised){out[0], out[1]};
}

cab_tensor *cab_fp8_linear(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout)
{
    const int64_t out = w->shape[layout == CAB_IN_OUT];
    int64_t size[CAB_MAX_DIMS];
    cab_quantised w8;
    if (x->dtype != CAB_BF16 || !supported(g, x, b, out))
        return NULL;
    if (b != NULL && b->kind == CAB_PARAMETER)
        b = cab_graph_weight(g, b, CAB_BF16);
    if (cab_graph_failed(g) || (b != NULL && b->dtype != CAB_BF16))
        return NULL;
    const cab_status status = quantise_weight(cab_graph_backend(g), w, layout, &w8);
    if (status != CAB_OK)
        return cab_graph_fail(g, status, "%s", cab_error_text());
    const cab_quantised x8 = quantise_activation(g, x);
    memcpy(size, x->shape, sizeof size);
    size[x->n_dim - 1] = out;
    cab_tensor *y = cab_graph_activation(g, w->name, CAB_BF16, x->n_dim, size);
    cab_graph_append(g, &cab_op_linear_fp8, CAB_FP8_INPUTS,
                     (cab_tensor *[]){x8.values, x8.scale, w8.values, w8.scale, b}, 1, &y, NULL, 0);
    return cab_graph_failed(g) ? NULL : y;
}
