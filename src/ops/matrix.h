/* matrix.h - the products of a linear layer, as its scratch functions and its CPU kernel both see them. */
#ifndef CAB_OPS_MATRIX_H
#define CAB_OPS_MATRIX_H

#include "ops/cpu/gemm.h"
#include "ops/ops.h"

typedef struct cab_linear_attributes {
    cab_layout layout;
} cab_linear_attributes;

static inline cab_layout cab_linear_layout(const cab_node *node)
{
    return ((const cab_linear_attributes *)node->attributes)->layout;
}

/* Rows whose part of dW is added at a time: x and dy of so many stay in the second-level cache while a product of narrow
 * matrices goes over them again and again. */
enum { CAB_LINEAR_CHUNK = 2048 };

/* Of the forward node: y = x W^T + b. Of the backward node: dx = dy W, and dW += dy^T x over `rows` rows, in W's layout. */
cab_gemm_shape cab_linear_y(const cab_node *node);
cab_gemm_shape cab_linear_dx(const cab_node *node);
cab_gemm_shape cab_linear_dw(const cab_node *node, int64_t rows);

#ifdef CAB_WITH_CUDA
/* Whether the linear layer `node` applies the activation `next` itself on a GPU: GELU (tanh) in bf16, where cuBLASLt does. */
bool cab_linear_absorbs_cuda(const cab_node *node, const cab_node *next, cab_backend *backend);
/* Scratch of the backward node on a GPU. */
size_t cab_linear_scratch_cuda(const cab_node *node, const cab_backend *backend);
#endif

#endif
