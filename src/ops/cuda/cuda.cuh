/* cuda.cuh - what every kernel file shares: a tensor as kernels see it, element access, reductions within warp and block.
 *
 * A kernel file src/ops/cuda/<family>.cu defines  extern "C" cab_status cab_X_forward_cuda(const cab_node *, cab_backend *)
 * for the names of ops/kernels.h. It launches on the backend's stream, allocates nothing and waits for nothing: it is
 * called while a CUDA graph is captured. Reductions have a fixed order; atomics on floating-point numbers are not used. */
#ifndef CAB_OPS_CUDA_CUDA_CUH
#define CAB_OPS_CUDA_CUDA_CUH

extern "C" {
#include "device/cuda.h"
#include "ops/kernels.h"
#include "ops/ops.h"
}

#include <cuda_bf16.h>
#include <cuda_runtime.h>

typedef __nv_bfloat16 bf16;

/* Rows of `columns` elements, ld elements apart. */
template <typename T> struct rows_of {
    T *data;
    int64_t ld;
};

template <typename T> static inline rows_of<T> rows(const cab_tensor *t)
{
    rows_of<T> r = {t ? (T *)t->data : NULL, t ? t->ld : 0};
    return r;
}

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(bf16 x)
{
    return __bfloat162float(x);
}
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* Sums and maxima over the 32 lanes of a warp; every lane gets the result. */
__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}
__device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    return x;
}

/* Over a block of THREADS threads, a multiple of 32; every thread gets the result. `shared` has room for THREADS / 32
 * floats and may be used again after the next __syncthreads(). */
template <int THREADS> __device__ __forceinline__ float block_sum(float x, float *shared)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < THREADS / 32 ? shared[threadIdx.x % 32] : 0.0f;
    return warp_sum(x);
}

__host__ __device__ __forceinline__ int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline cudaStream_t stream_of(cab_backend *backend)
{
    return cab_cuda_of(backend)->stream;
}

/* Runs `call` with T the element type of `dtype`: BY_DTYPE(x->dtype, status = launch<T>(...)). */
#define BY_DTYPE(dtype_, call)                                                                                         \
    do {                                                                                                               \
        if ((dtype_) == CAB_BF16) {                                                                                    \
            typedef bf16 T;                                                                                            \
            call;                                                                                                      \
        } else {                                                                                                       \
            typedef float T;                                                                                           \
            call;                                                                                                      \
        }                                                                                                              \
    } while (0)

#endif
