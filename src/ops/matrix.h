/* matrix.h - what the recorder of a linear layer tells its kernels, and the products that it is. */
#ifndef CAB_OPS_MATRIX_H
#define CAB_OPS_MATRIX_H

#include "ops/ops.h"
#include "ops/product.h"

extern const cab_op cab_op_linear;

typedef struct cab_linear_attributes {
    cab_layout layout;
} cab_linear_attributes;

static inline cab_layout cab_linear_layout(const cab_node *node)
{
    return ((const cab_linear_attributes *)node->attributes)->layout;
}

/* Of the forward node: y = x W^T + b. Of the backward node: dx = dy W, and dW += dy^T x over `rows` rows, in W's layout. */
cab_gemm_shape cab_linear_y(const cab_node *node);
cab_gemm_shape cab_linear_dx(const cab_node *node);
cab_gemm_shape cab_linear_dw(const cab_node *node, int64_t rows);

/* CAB_EUNSUPPORTED, with the name of w, of a backward node: w is in blocks and dx is wanted, or y is not in x's dtype. */
cab_status cab_linear_check_backward(const cab_node *node);

#endif
