/* matrix.c - the linear layer on the GPU.
 *
 * Arithmetic: y = x W^T + b, dx = dy W, dW += dy^T x, db += sum over rows of dy; operands in the activations' dtype,
 * sums in fp32.
 *
 * Layout: the three products are calls of cuBLASLt (cublaslt.c), or of the narrow kernels (matrix_narrow.cu) where
 * the layer has few inputs or outputs, or of block_gemm.cu where W stays in blocks of few bits. db is a sum over columns (column_sums.cu). Each product reads its two
 * operands once and writes its result once, or reads and writes it where it adds; db reads dy once more. */
#include "ops/matrix.h"

#include "ops/cuda/block_gemm.h"
#include "ops/cuda/column_sums.h"
#include "ops/cuda/cublaslt.h"
#include "ops/cuda/elementwise.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/matrix_narrow.h"
#include "ops/cuda/optimise.h"
#include "ops/elementwise.h"
#include "ops/product_parts.h"

size_t cab_linear_backward_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_tensor *dy = node->gout[0];
    const size_t narrow = cab_narrow_scratch(node);
    const size_t sums = node->gin[2] != NULL && dy != NULL ? cab_column_sums_scratch(cab_rows(dy), cab_columns(dy)) : 0;
    return narrow > sums ? narrow : sums;
}

size_t cab_linear_forward_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_gemm_shape shape = cab_linear_y(node);
    return cab_block_gemm_scratch_cuda(&shape);
}

/* Widths of multiples of 8, which need no cut, that are not for the narrow kernels. */
static bool plain(int64_t width)
{
    return width > CAB_NARROW_MAX && width % CAB_PRODUCT_STEP == 0;
}

bool cab_linear_gelu_fits_cuda(const cab_node *node, const cab_node *next, const cab_backend *backend)
{
    (void)backend;
    return ((const cab_activate_attributes *)next->attributes)->kind == CAB_GELU_TANH &&
           node->out[0]->dtype == CAB_BF16 && plain(cab_columns(node->in[0])) && plain(cab_columns(node->out[0]));
}

/* A layer whose W, of at most a tile, was in blocks: from here on it is any other, and computes the same bits. */
typedef struct expanded_layer {
    cab_node node;
    cab_tensor w;
} expanded_layer;

static bool expands_whole(const cab_node *node, const cab_gemm_shape *shape)
{
    return cab_dtype_is_blocks(node->in[1]->dtype) && !cab_block_gemm_few_cuda(shape) &&
           cab_block_gemm_tile_cuda(shape) >= shape->n;
}

static cab_status expand_whole(const cab_node *node, cab_backend *backend, const cab_gemm_shape *shape,
                               expanded_layer *to)
{
    cab_gemm_shape part;
    *to = (expanded_layer){.node = *node, .w = *node->in[1]};
    to->node.in[1] = &to->w;
    to->w.dtype = node->in[0]->dtype;
    to->w.data = node->scratch;
    return cab_block_gemm_part_cuda(backend, shape, node->in[1]->data, 0, node->scratch, &part);
}

/* y = gelu(x W^T + b) and, if wanted, what GELU is of. */
cab_status cab_linear_gelu_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *b = node->in[2], *y = node->out[0], *before = node->out[1];
    const cab_tensor *to = before ? before : y;
    const void *bias = b ? b->data : NULL;
    const cab_gemm_shape shape = cab_linear_y(node);
    bool has = false;
    if (expands_whole(node, &shape)) {
        expanded_layer expanded;
        CAB_TRY(expand_whole(node, backend, &shape, &expanded));
        return cab_linear_gelu_forward_cuda(&expanded.node, backend);
    }
    if (!cab_dtype_is_blocks(w->dtype))
        CAB_TRY(cab_cublaslt_gelu_run(backend, &shape, x->data, w->data, y->data, bias, before ? before->data : NULL,
                                      before ? before->ld : 0, &has));
    if (has)
        return CAB_OK;
    CAB_TRY(cab_gemm_cuda(backend, &shape, x->data, w->data, to->data, bias, node->scratch));
    return cab_activate_cuda(backend, CAB_GELU_TANH, to, y);
}

cab_status cab_linear_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *b = node->in[2], *y = node->out[0];
    const cab_gemm_shape shape = cab_linear_y(node);
    if (expands_whole(node, &shape)) {
        expanded_layer expanded;
        CAB_TRY(expand_whole(node, backend, &shape, &expanded));
        return cab_linear_forward_cuda(&expanded.node, backend);
    }
    if (cab_narrow_fits(node))
        return cab_narrow_forward(node, backend);
    return cab_gemm_cuda(backend, &shape, x->data, w->data, y->data, b ? b->data : NULL, node->scratch);
}

static cab_status products(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *dy = node->gout[0];
    const cab_tensor *dx = node->gin[0], *dw = node->gin[1];
    if (dx) {
        const cab_gemm_shape shape = cab_linear_dx(node);
        CAB_TRY(cab_cublaslt_run(backend, &shape, dy->data, w->data, dx->data, NULL));
    }
    if (dw) {
        const bool out_in = cab_linear_layout(node) == CAB_OUT_IN;
        const cab_gemm_shape shape = cab_linear_dw(node, cab_rows(x));
        CAB_TRY(cab_cublaslt_run(backend, &shape, out_in ? dy->data : x->data, out_in ? x->data : dy->data, dw->data,
                                 NULL));
    }
    return CAB_OK;
}

cab_status cab_linear_backward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *dy = node->gout[0], *db = node->gin[2];
    bool summed = false; /* db is done */
    CAB_TRY(cab_linear_check_backward(node));
    if (cab_narrow_fits(node))
        CAB_TRY(cab_narrow_backward(node, backend, &summed));
    else
        CAB_TRY(products(node, backend));
    if (db && !summed)
        CAB_TRY(cab_column_sums_cuda(backend, dy->dtype, dy->data, dy->ld, cab_rows(dy), cab_columns(dy), db->data,
                                     true, node->scratch));
    return CAB_OK;
}
