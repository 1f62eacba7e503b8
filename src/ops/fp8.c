/* fp8.c - linear layers in 8-bit floats: fp8.h.
 *
 *   s = max |x| / 448     x8 = round(x / s)                  once for all layers that read x
 *   y = s s_w x8 W8^T + b
 *
 * x8 (..., in) and W8 (out, in) in e4m3, kept as bytes: the sum runs along the rows of both, as Hopper wants it. */
#include "ops/fp8.h"

#include "ops/record.h"

#ifdef CAB_WITH_CUDA
#include "ops/cuda/fp8.h"
#endif

bool cab_fp8_fits(const cab_tensor *w)
{
    return w->dtype == CAB_BF16 && w->n_dim == 2 && w->shape[0] % 16 == 0 && w->shape[1] % 16 == 0;
}

#ifndef CAB_WITH_CUDA

cab_status cab_fp8_check(cab_backend *backend)
{
    return cab_fail(CAB_EUNSUPPORTED, "fp8 needs a GPU that multiplies 8-bit floats, found %s", backend->name);
}

#else

cab_status cab_fp8_check(cab_backend *backend)
{
    if (backend->id == CAB_CUDA && cab_fp8_multiplies_cuda(backend))
        return CAB_OK;
    return cab_fail(CAB_EUNSUPPORTED, "fp8 needs a GPU that multiplies 8-bit floats, found %s", backend->name);
}

static const cab_op cab_op_quantise = {
    .name = "quantise", /* in: x   out: x8 scale */
    .forward = {[CAB_CUDA] = cab_quantise_forward_cuda},
    .forward_scratch = {[CAB_CUDA] = cab_quantise_scratch_cuda},
};

static double linear_flops(const cab_node *node)
{
    return 2.0 * (double)cab_elements(node->in[0]) * (double)cab_columns(node->out[0]);
}

static const cab_op cab_op_linear_fp8 = {
    .name = "linear_fp8", /* in: x8 scale W8 scale b   out: y */
    .forward = {[CAB_CUDA] = cab_linear_fp8_forward_cuda},
    .flops = linear_flops,
};

/* The weight's copy, in the layout (out, in) whatever that of the weight. */
static cab_status quantise_weight(cab_backend *backend, cab_tensor *w, cab_layout layout)
{
    const bool transposed = layout == CAB_IN_OUT;
    bool fresh;
    CAB_TRY(cab_params_quantised(w->owner, w, w->shape[transposed], w->shape[!transposed], &fresh));
    return fresh ? cab_quantise_weight_cuda(backend, w, transposed) : CAB_OK;
}

static cab_status quantise_activation(cab_graph *g, cab_tensor *x)
{
    if (x->quantised != NULL)
        return CAB_OK;
    cab_tensor *out[] = {cab_graph_activation(g, x->name, CAB_U8, x->n_dim, x->shape),
                         cab_graph_activation(g, "scale", CAB_F32, 1, (int64_t[]){1})};
    cab_graph_append(g, &cab_op_quantise, 1, &x, 2, out, NULL, 0);
    if (cab_graph_failed(g))
        return CAB_EBACKEND;
    x->quantised = out[0];
    x->scale = out[1];
    return CAB_OK;
}

cab_tensor *cab_fp8_linear(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout)
{
    cab_backend *backend = cab_graph_backend(g);
    const int64_t out = w->shape[layout == CAB_IN_OUT];
    const cab_gemm_shape shape = cab_fp8_shape(cab_rows(x), out, cab_columns(x), b != NULL);
    bool has = false;
    int64_t size[CAB_MAX_DIMS];
    if (b != NULL && b->dtype != CAB_BF16)
        return NULL;
    cab_status status = cab_cublaslt_fp8_has(backend, &shape, &has);
    if (status == CAB_OK && has)
        status = quantise_weight(backend, w, layout);
    if (status != CAB_OK)
        return cab_graph_fail(g, status, "%s", cab_error_text());
    if (!has || quantise_activation(g, x) != CAB_OK)
        return NULL;
    memcpy(size, x->shape, sizeof size);
    size[x->n_dim - 1] = out;
    cab_tensor *y = cab_graph_activation(g, w->name, CAB_BF16, x->n_dim, size);
    cab_graph_append(g, &cab_op_linear_fp8, 5, (cab_tensor *[]){x->quantised, x->scale, w->quantised, w->scale, b}, 1,
                     &y, NULL, 0);
    return cab_graph_failed(g) ? NULL : y;
}

#endif
