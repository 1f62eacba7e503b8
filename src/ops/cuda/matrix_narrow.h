/* matrix_narrow.h - linear layers with few inputs or few outputs, by kernels of our own (matrix_narrow.cu). */
#ifndef CAB_OPS_CUDA_MATRIX_NARROW_H
#define CAB_OPS_CUDA_MATRIX_NARROW_H

#ifdef __cplusplus
extern "C" {
#endif

#include "tensor/graph.h"

enum { CAB_NARROW_MAX = 64 /* inputs or outputs */ };

/* Whether the node, forward or backward, is one for these kernels: bf16, CAB_NARROW_MAX inputs or outputs at most, a multiple of 4, the
 * other side a multiple of 8, rows that begin at multiples of 8 and 16 bytes. Tensors need their addresses. */
bool cab_narrow_fits(const cab_node *node);
/* Scratch of a backward node, before tensors have addresses; 0 if the kernels are not for it. */
size_t cab_narrow_scratch(const cab_node *node);

cab_status cab_narrow_forward(const cab_node *node, cab_backend *backend);
/* dx and dW, and where *sums comes back true also db. */
cab_status cab_narrow_backward(const cab_node *node, cab_backend *backend, bool *sums);

#ifdef __cplusplus
}
#endif
#endif
