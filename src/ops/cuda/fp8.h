/* fp8.h - what ops/fp8.c needs of the GPU. */
#ifndef CAB_OPS_CUDA_FP8_H
#define CAB_OPS_CUDA_FP8_H

#include "ops/cuda/cublaslt.h"
#include "tensor/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

bool cab_fp8_multiplies_cuda(const cab_backend *backend);
/* The product y (rows, out) = x8 (rows, in) W8^T. */
cab_gemm_shape cab_fp8_shape(int64_t rows, int64_t out, int64_t in, bool bias);
/* Fills w->quantised with w, or its transpose, and w->scale. */
cab_status cab_quantise_weight_cuda(cab_backend *backend, const cab_tensor *w, bool transposed);

size_t cab_quantise_scratch_cuda(const cab_node *node, const cab_backend *backend);
cab_status cab_quantise_forward_cuda(const cab_node *node, cab_backend *backend);
cab_status cab_linear_fp8_forward_cuda(const cab_node *node, cab_backend *backend);

#ifdef __cplusplus
}
#endif
#endif
