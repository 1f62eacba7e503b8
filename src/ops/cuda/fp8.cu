/* fp8.cu - tensors in 8-bit floats (e4m3) with one scale each, and their products (ops/fp8.h).
 *
 * Arithmetic: scale = max |x| / 448, and q = round(x / scale); 448 is the largest e4m3. A tensor of zeros has scale 1.
 * A product is y = (scale_x scale_w) q_x q_w^T + b, by cuBLASLt, with y and b in bf16.
 *
 * Layout: the first kernel writes the largest magnitude of each block's elements to scratch. In the second kernel
 * every block takes the largest of those numbers, so that all blocks have the same scale, and converts its elements.
 * A thread treats packets of 8 neighbouring bf16; of a transposed weight, one element at a time. Bytes per element:
 * 2 read twice, the second time mostly from the cache, and 1 written. */
#include "ops/cuda/cuda.cuh"
#include "ops/cuda/fp8.h"

extern "C" {
#include "ops/fp8.h"
}

#include <cuda_fp8.h>

enum { THREADS = 256, PACKET = 8 };
constexpr int64_t MOST_BLOCKS = 528, BLOCK_PACKETS = 4 * THREADS;
constexpr float LARGEST = 448.0f; /* of e4m3 */

/* (rows, columns) as it is read; column_stride is not 1 for a transposed weight, whose PACKET is 1. */
struct matrix {
    const bf16 *data;
    int64_t rows, columns, row_stride, column_stride;
};

template <int N> __device__ __forceinline__ vec<bf16, N> packet_at(const matrix &m, int64_t i)
{
    const int64_t across = m.columns / N, row = i / across, column = (i - row * across) * N;
    return load_vec<bf16, N>(m.data + row * m.row_stride + column * m.column_stride);
}

__device__ __forceinline__ float block_max(float x)
{
    __shared__ float shared[THREADS / 32];
    x = warp_max(x);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_max(threadIdx.x % 32 < THREADS / 32 ? shared[threadIdx.x % 32] : 0.0f);
}

template <int N> static __global__ void __launch_bounds__(THREADS) find_largest(const matrix m, float *largest)
{
    const int64_t packets = m.rows * (m.columns / N);
    float most = 0.0f;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < packets; i += gridDim.x * (int64_t)THREADS) {
        const vec<bf16, N> v = packet_at<N>(m, i);
#pragma unroll
        for (int j = 0; j < N; j++)
            most = fmaxf(most, fabsf(to_float(v.at[j])));
    }
    most = block_max(most);
    if (threadIdx.x == 0)
        largest[blockIdx.x] = most;
}

__device__ __forceinline__ uint8_t to_e4m3(float x)
{
    return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

template <int N>
static __global__ void __launch_bounds__(THREADS)
    convert(const matrix m, const float *largest, int n_largest, uint8_t *to, float *scale)
{
    const int64_t packets = m.rows * (m.columns / N);
    float most = 0.0f;
    for (int i = threadIdx.x; i < n_largest; i += THREADS)
        most = fmaxf(most, largest[i]);
    most = block_max(most);
    const float inverse = most > 0.0f ? LARGEST / most : 1.0f;
    if (blockIdx.x == 0 && threadIdx.x == 0)
        *scale = most > 0.0f ? most / LARGEST : 1.0f;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < packets; i += gridDim.x * (int64_t)THREADS) {
        const vec<bf16, N> v = packet_at<N>(m, i);
        vec<uint8_t, N> q;
#pragma unroll
        for (int j = 0; j < N; j++)
            q.at[j] = to_e4m3(to_float(v.at[j]) * inverse);
        *(vec<uint8_t, N> *)(to + i * N) = q;
    }
}

static int64_t blocks_of(int64_t elements, int packet)
{
    const int64_t blocks = ceil_div(elements / packet, BLOCK_PACKETS);
    return blocks < 1 ? 1 : blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS;
}

template <int N>
static cab_status quantise(const matrix &m, const cab_tensor *to, const cab_tensor *scale, float *largest,
                           cab_backend *backend)
{
    const int64_t blocks = blocks_of(m.rows * m.columns, N);
    find_largest<N><<<(unsigned)blocks, THREADS, 0, stream_of(backend)>>>(m, largest);
    convert<N><<<(unsigned)blocks, THREADS, 0, stream_of(backend)>>>(m, largest, (int)blocks, (uint8_t *)to->data,
                                                                     (float *)scale->data);
    return cab_cuda_launched("quantise");
}

extern "C" bool cab_multiplies_fp8_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)node;
    const cab_cuda *cuda = cab_cuda_of(backend);
    return cuda->major > 8 || (cuda->major == 8 && cuda->minor >= 9);
}

extern "C" size_t cab_quantise_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)node;
    (void)backend;
    return MOST_BLOCKS * sizeof(float);
}

extern "C" cab_status cab_quantise_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0];
    float *largest = (float *)node->scratch;
    if (((const cab_quantise_attributes *)node->attributes)->transposed) {
        const matrix t = {(const bf16 *)x->data, cab_columns(x), cab_rows(x), 1, x->ld};
        return quantise<1>(t, node->out[0], node->out[1], largest, backend);
    }
    const matrix m = {(const bf16 *)x->data, cab_rows(x), cab_columns(x), x->ld, 1};
    return fits_packets(x, PACKET) ? quantise<PACKET>(m, node->out[0], node->out[1], largest, backend)
                                   : quantise<1>(m, node->out[0], node->out[1], largest, backend);
}

extern "C" cab_gemm_shape cab_fp8_shape(int64_t rows, int64_t out, int64_t in, bool bias)
{
    cab_gemm_shape s = {};
    s.m = rows;
    s.n = out;
    s.k = in;
    s.a = cab_side_dense(CAB_U8, in, false);
    s.b = cab_side_dense(CAB_U8, in, true);
    s.c = cab_side_dense(CAB_BF16, out, false);
    s.bias = bias;
    s.bias_dtype = CAB_BF16;
    return s;
}

extern "C" bool cab_linear_fp8_fits_cuda(const cab_node *node, const cab_backend *backend)
{
    const cab_tensor *x = node->in[CAB_FP8_X], *w = node->in[CAB_FP8_W];
    const cab_gemm_shape shape = cab_fp8_shape(cab_rows(x), w->shape[0], cab_columns(x), node->in[CAB_FP8_B] != NULL);
    bool has = false;
    return cab_multiplies_fp8_cuda(node, backend) && cab_cublaslt_fp8_has(backend, &shape, &has) == CAB_OK && has;
}

extern "C" cab_status cab_linear_fp8_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *x_scale = node->in[1], *w = node->in[2], *w_scale = node->in[3];
    const cab_tensor *b = node->in[4], *y = node->out[0];
    const cab_gemm_shape shape = cab_fp8_shape(cab_rows(x), cab_columns(y), cab_columns(x), b != NULL);
    return cab_cublaslt_fp8_run(backend, &shape, x->data, (const float *)x_scale->data, w->data,
                                (const float *)w_scale->data, y->data, b ? b->data : NULL);
}
