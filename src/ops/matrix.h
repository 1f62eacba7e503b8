/* matrix.h - the products of a linear layer, as its scratch functions and its CPU kernel both see them. */
#ifndef CAB_OPS_MATRIX_H
#define CAB_OPS_MATRIX_H

#include "ops/cpu/onednn.h"
#include "ops/ops.h"

typedef struct cab_linear_attributes {
    cab_layout layout;
} cab_linear_attributes;

/* Of the forward node: y = x W^T + b. Of the backward node: dx = dy W, and dW += dy^T x in W's layout. */
cab_gemm_shape cab_linear_y(const cab_node *node);
cab_gemm_shape cab_linear_dx(const cab_node *node);
cab_gemm_shape cab_linear_dw(const cab_node *node);

#endif
