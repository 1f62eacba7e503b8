/* norm.h - what the norms' recorders tell their kernels, and the layout of their scratch. */
#ifndef CAB_OPS_NORM_H
#define CAB_OPS_NORM_H

#include "tensor/graph.h"

#include <stdbool.h>

typedef struct cab_norm_attributes {
    float eps;
} cab_norm_attributes;

/* Rows of D floats each thread works in: forward: w, b, x, y; backward: w, x, dy, dx. */
enum { CAB_NORM_ROWS = 4 };

/* Backward scratch of the GPU: sums of dw and db per block, (blocks, 2, D). */
size_t cab_norm_cuda_scratch(const cab_node *node, const cab_backend *backend);

/* On the GPU: whether next is a layer norm that can be computed with node, the sum that it is of, and the two of them. */
bool cab_norm_of_sum_fits_cuda(const cab_node *node, const cab_node *next);
cab_status cab_norm_of_sum_cuda(const cab_node *node, cab_backend *backend);

#endif
