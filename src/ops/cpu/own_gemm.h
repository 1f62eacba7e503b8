/* own_gemm.h - our own matrix products, compiled once per instruction set like every kernel. */
#ifndef CAB_OPS_CPU_OWN_GEMM_H
#define CAB_OPS_CPU_OWN_GEMM_H

#include "ops/cpu/gemm.h"

/* shape's batches are at least 1; `threads` is 1 for serial products. scratch: cab_own_gemm_scratch(threads) bytes. */
typedef void cab_own_gemm(const cab_gemm_shape *shape, int threads, const void *a, const void *b, void *c,
                          const void *bias, void *scratch);
cab_own_gemm cab_own_gemm_v1, cab_own_gemm_v3, cab_own_gemm_v4;

/* Sizes of a block of C and of the inner dimension: packed pieces of A and B stay in the second-level cache. */
enum { CAB_OWN_M = 96, CAB_OWN_N = 128, CAB_OWN_K = 256 };

static inline size_t cab_own_gemm_scratch(int threads)
{
    size_t floats = CAB_OWN_M * CAB_OWN_K + CAB_OWN_K * CAB_OWN_N + CAB_OWN_M * CAB_OWN_N + 16 * CAB_OWN_K;
    return floats * sizeof(float) * (size_t)threads;
}

#endif
