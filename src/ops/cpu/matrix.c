/* matrix.c - the linear layer on the CPU: oneDNN's products, and the bias's gradient. */
#include "ops/matrix.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/matrix.h"
#include "ops/cpu/vec.h"

static cab_status product(const cab_node *node, const cab_backend *backend, const cab_gemm_shape *shape, const void *a,
                          const void *b, void *c, const void *bias)
{
    const cab_gemm *gemm;
    CAB_TRY(cab_gemm_get(backend, shape, &gemm));
    return cab_gemm_run(gemm, a, b, c, bias, node->scratch);
}

cab_status CAB_ISA(cab_linear_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *b = node->in[2], *y = node->out[0];
    cab_gemm_shape shape = cab_linear_y(node);
    return product(node, backend, &shape, x->data, w->data, y->data, b ? b->data : NULL);
}

static cab_status add_dw(const cab_node *node, const cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *dy = node->gout[0];
    bool out_in = cab_linear_layout(node) == CAB_OUT_IN;
    const cab_tensor *left = out_in ? dy : x, *right = out_in ? x : dy;
    for (int64_t row = 0, rows = cab_rows(x); row < rows; row += CAB_LINEAR_CHUNK) {
        int64_t n = rows - row < CAB_LINEAR_CHUNK ? rows - row : CAB_LINEAR_CHUNK;
        cab_gemm_shape shape = cab_linear_dw(node, n);
        CAB_TRY(product(node, backend, &shape, cab_at(left, row, 0), cab_at(right, row, 0), node->gin[1]->data, NULL));
    }
    return CAB_OK;
}

cab_status CAB_ISA(cab_linear_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *w = node->in[1], *dy = node->gout[0], *dx = node->gin[0];
    CAB_TRY(cab_linear_check_backward(node));
    if (dx) {
        cab_gemm_shape shape = cab_linear_dx(node);
        CAB_TRY(product(node, backend, &shape, dy->data, w->data, dx->data, NULL));
    }
    if (node->gin[1])
        CAB_TRY(add_dw(node, backend));
    if (node->gin[2])
        cab_column_sums(backend, dy, node->gin[2]->data);
    return CAB_OK;
}
