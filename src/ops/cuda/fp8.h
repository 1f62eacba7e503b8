/* fp8.h - what ops/fp8.c needs of the GPU. */
#ifndef CAB_OPS_CUDA_FP8_H
#define CAB_OPS_CUDA_FP8_H

#include "ops/cuda/cublaslt.h"
#include "tensor/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The product y (rows, out) = x8 (rows, in) W8^T. */
cab_gemm_shape cab_fp8_shape(int64_t rows, int64_t out, int64_t in, bool bias);

#ifdef __cplusplus
}
#endif
#endif
