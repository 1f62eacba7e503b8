/* cuda.cuh - what every kernel file shares: a tensor as kernels see it, element access, reductions within warp and block.
 *
 * A kernel file src/ops/cuda/<family>.cu defines  extern "C" cab_status cab_X_forward_cuda(const cab_node *, cab_backend *)
 * for the rows of kernels.h. It launches on the backend's stream, allocates nothing and waits for nothing: it is
 * called while a CUDA graph is captured. Reductions have a fixed order; atomics on floating-point numbers are not used. */
#ifndef CAB_OPS_CUDA_CUDA_CUH
#define CAB_OPS_CUDA_CUDA_CUH

extern "C" {
#include "ops/cuda/device.h"
#include "ops/cuda/kernels.h"
#include "ops/ops.h"
}

#include <cuda_bf16.h>
#include <cuda_runtime.h>

typedef __nv_bfloat16 bf16;

/* Rows of `columns` elements, ld elements apart. */
template <typename T> struct rows_of {
    T *data;
    int64_t ld;

    __device__ __forceinline__ T *at(int64_t row, int64_t column) const
    {
        return data + row * ld + column;
    }
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

/* N neighbouring elements, moved in one access: 16 bytes where N is WIDE<T>. */
template <typename T, int N> struct __align__(sizeof(T) * N) vec
{
    T at[N];
};
template <typename T> constexpr int WIDE = 16 / (int)sizeof(T);

template <typename T, int N> __device__ __forceinline__ vec<T, N> load_vec(const T *from)
{
    return *reinterpret_cast<const vec<T, N> *>(from);
}
/* The same in fp32. */
template <typename T, int N> __device__ __forceinline__ void load_floats(const T *from, float (&to)[N])
{
    const vec<T, N> v = load_vec<T, N>(from);
#pragma unroll
    for (int i = 0; i < N; i++)
        to[i] = to_float(v.at[i]);
}
template <typename T, int N> __device__ __forceinline__ void store_floats(T *to, const float (&from)[N])
{
    vec<T, N> v;
#pragma unroll
    for (int i = 0; i < N; i++)
        v.at[i] = from_float<T>(from[i]);
    *reinterpret_cast<vec<T, N> *>(to) = v;
}

/* Whether rows of `columns` elements can be moved N at a time. NULL can. */
template <typename T, int N> static inline bool fits_vec(const T *data, int64_t ld, int64_t columns)
{
    return (uintptr_t)data % (sizeof(T) * N) == 0 && ld % N == 0 && columns % N == 0;
}

/* to = x, or to += x: a gradient by its accumulate bit. */
template <typename T, int N> __device__ __forceinline__ void put_floats(T *to, bool accumulate, const float (&x)[N])
{
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
    if (accumulate)
        load_floats(to, sum);
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] += x[i];
    store_floats(to, sum);
}

/* A parameter that may be F32 or frozen BF16. */
struct parameter_of {
    const void *data;
    bool low;

    template <int N> __device__ __forceinline__ void load(int64_t first, float (&to)[N]) const
    {
        if (low)
            load_floats((const bf16 *)data + first, to);
        else
            load_floats((const float *)data + first, to);
    }
};
static inline parameter_of parameter(const cab_tensor *t)
{
    parameter_of p = {t ? t->data : NULL, t && t->dtype == CAB_BF16};
    return p;
}

/* Reports hostile input: found when results are next downloaded. The first report stays. */
__device__ __forceinline__ void raise_fault(cab_cuda_fault *fault, cab_cuda_fault_kind kind, int64_t value,
                                            int64_t limit)
{
    if (atomicCAS(&fault->raised, 0, 1) == 0) {
        fault->which = kind;
        fault->value = value;
        fault->limit = limit;
    }
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

/* True in the block of the grid that comes here last; its threads see, through __ldcg(), what thread 0 of every other
 * block wrote before. `ticket` is cab_cuda.ticket, zero again when the kernel ends; `last` is in shared memory. */
__device__ __forceinline__ bool arrives_last(unsigned *ticket, bool &last)
{
    if (threadIdx.x == 0) {
        const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
        __threadfence();
        last = atomicInc(ticket, blocks - 1) == blocks - 1;
        __threadfence();
    }
    __syncthreads();
    return last;
}
__device__ __forceinline__ bool arrives_last(unsigned *ticket)
{
    __shared__ bool last;
    return arrives_last(ticket, last);
}

__host__ __device__ __forceinline__ int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline cudaStream_t stream_of(cab_backend *backend)
{
    return cab_cuda_of(backend)->stream;
}

/* Whether kernels for Hopper alone (wgmma.cuh) are in this build and run here, with so much shared memory. */
static inline bool has_wgmma(const cab_backend *backend, size_t bytes)
{
#ifdef CAB_WGMMA
    const cab_cuda *cuda = cab_cuda_of(backend);
    return cuda->major == 9 && cuda->minor == 0 && bytes <= cuda->shared_limit;
#else
    (void)backend;
    (void)bytes;
    return false;
#endif
}

/* Whether all rows of t can be moved n elements at a time. NULL can. */
static inline bool fits_packets(const cab_tensor *t, int64_t n)
{
    return !t || ((uintptr_t)t->data % (cab_dtype_size(t->dtype) * (size_t)n) == 0 && t->ld % n == 0 &&
                  cab_columns(t) % n == 0);
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
