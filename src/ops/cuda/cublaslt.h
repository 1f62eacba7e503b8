/* cublaslt.h - matrix products on the GPU: cuBLASLt, and our own kernel for the few that it has no algorithm for.
 *
 * A product is described as on the CPU (ops/product.h). The first run of a shape asks cuBLASLt's heuristics, which depend
 * on nothing but the shape and the GPU; the answer is kept with the backend, so later runs, also those recorded in a CUDA
 * graph, only look it up. The workspace is the backend's as well: products run one after another in its stream. */
#ifndef CAB_OPS_CUDA_CUBLASLT_H
#define CAB_OPS_CUDA_CUBLASLT_H

#ifdef __cplusplus
extern "C" {
#endif

#include "ops/product.h"
#include "tensor/backend.h"

/* C = A B [+ bias] [+ C] in the backend's stream, all of them device addresses; F32 in true fp32, BF16 with sums in fp32, in
 * parts (ops/product_parts.h) where sizes are no multiples of 8.
 * One product (shape->batch is not read). bias may be NULL when the shape has none; fast if it has the dtype of C.
 * CAB_EBACKEND with what cuBLASLt says. */
cab_status cab_cublaslt_run(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b, void *c,
                            const void *bias);

/* C = gelu(A B [+ bias]), by the formula with tanh, and where `before` is not NULL A B [+ bias] there, `before_ld` elements from row to
 * row. *has false: cuBLASLt has no algorithm for it, and nothing was done. */
cab_status cab_cublaslt_gelu_run(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b,
                                 void *c, const void *bias, void *before, int64_t before_ld, bool *has);

/* C = a_scale b_scale A B [+ bias] of e4m3 (dtype U8 in the shape), C and bias bf16, sums in fp32; the scales stand on the device.
 * A's rows and B's columns are dense. fp8_has: whether cuBLASLt has an algorithm for the shape, where everything is well aligned. */
cab_status cab_cublaslt_fp8_has(const cab_backend *backend, const cab_gemm_shape *shape, bool *has);
cab_status cab_cublaslt_fp8_run(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const float *a_scale,
                                const void *b, const float *b_scale, void *c, const void *bias);

/* cab_cublaslt_run() by our own kernel (own_gemm.cu): any strides, any alignment. */
cab_status cab_own_gemm_cuda(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b, void *c,
                             const void *bias);

#ifdef __cplusplus
}
#endif
#endif
