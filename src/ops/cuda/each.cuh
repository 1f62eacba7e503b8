/* each.cuh - kernels that treat every element of a (rows, columns) tensor by itself: a functor over packets of
 * neighbouring columns.
 *
 * Layout: a thread takes one packet of N columns of one row. N is 8 where every tensor allows it (16 bytes of bf16, 32
 * of fp32); 4 where rows are not as well aligned, as those of a projection of 3084 columns are; else 1. over_batch()
 * sums over the batch: lane k of a block visits the same packet of sequences k, k + 8, ..., and shared memory joins
 * the lanes in order.
 *
 * Arithmetic: the functor's  template <int N> __device__ void at(int64_t row, int64_t column) const,  which treats
 * the N columns from `column` on. */
#ifndef CAB_OPS_CUDA_EACH_CUH
#define CAB_OPS_CUDA_EACH_CUH

#include "ops/cuda/cuda.cuh"

#include <initializer_list>

enum { EACH_PACKET = 8, EACH_HALF = 4, EACH_THREADS = 256 };

struct extent {
    int64_t rows, columns;
    int packet; /* EACH_PACKET, EACH_HALF or 1 */
};

static inline int packet_of(int64_t columns)
{
    return columns % EACH_PACKET == 0 ? EACH_PACKET : columns % EACH_HALF == 0 ? EACH_HALF : 1;
}

/* What to go over, given every tensor that is accessed (NULLs are fine). */
static inline extent extent_of(const cab_tensor *shape, std::initializer_list<const cab_tensor *> tensors)
{
    extent e = {cab_rows(shape), cab_columns(shape), packet_of(cab_columns(shape))};
    for (const cab_tensor *t : tensors)
        while (e.packet > 1 && !fits_packets(t, e.packet))
            e.packet = e.packet == EACH_PACKET ? EACH_HALF : 1;
    return e;
}

/* The same where only the position in memory matters: dense tensors become one row, which spares the division and makes
 * packets of odd widths. */
static inline extent flat_extent_of(const cab_tensor *shape, std::initializer_list<const cab_tensor *> tensors)
{
    extent e = extent_of(shape, tensors);
    for (const cab_tensor *t : tensors)
        if (t && (t->ld != e.columns || cab_columns(t) != e.columns))
            return e;
    e.columns *= e.rows;
    e.rows = 1;
    e.packet = packet_of(e.columns);
    for (const cab_tensor *t : tensors)
        while (e.packet > 1 && t && (uintptr_t)t->data % ((size_t)e.packet * cab_dtype_size(t->dtype)) != 0)
            e.packet = e.packet == EACH_PACKET ? EACH_HALF : 1;
    return e;
}

/* Packet i of a matrix with `per_row` packets a row. 64-bit division costs as much as the packet's arithmetic. */
__device__ __forceinline__ void split_index(int64_t i, int64_t per_row, int64_t count, int64_t *row, int64_t *packet)
{
    if (count <= INT32_MAX) {
        *row = (uint32_t)i / (uint32_t)per_row;
        *packet = (uint32_t)i - (uint32_t)*row * (uint32_t)per_row;
    } else {
        *row = i / per_row;
        *packet = i - *row * per_row;
    }
}

template <int N, typename F>
static __global__ void __launch_bounds__(EACH_THREADS) each_packet(const F f, int64_t per_row, int64_t count)
{
    for (int64_t i = blockIdx.x * (int64_t)EACH_THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * EACH_THREADS) {
        int64_t row = 0, packet = i;
        if (per_row < count)
            split_index(i, per_row, count, &row, &packet);
        f.template at<N>(row, packet * N);
    }
}

template <typename F> static cab_status each(const F &f, const extent &e, cab_backend *backend, const char *name)
{
    const int64_t per_row = e.columns / e.packet, count = e.rows * per_row;
    const int64_t blocks = ceil_div(count, EACH_THREADS), most = INT64_C(1) << 20;
    if (count == 0)
        return CAB_OK;
    const unsigned grid = (unsigned)(blocks < most ? blocks : most);
    if (e.packet == EACH_PACKET)
        each_packet<EACH_PACKET><<<grid, EACH_THREADS, 0, stream_of(backend)>>>(f, per_row, count);
    else if (e.packet == EACH_HALF)
        each_packet<EACH_HALF><<<grid, EACH_THREADS, 0, stream_of(backend)>>>(f, per_row, count);
    else
        each_packet<1><<<grid, EACH_THREADS, 0, stream_of(backend)>>>(f, per_row, count);
    return cab_cuda_launched(name);
}

/* ---- sums over the batch -------------------------------------------------------------------------------------------- */

enum { BATCH_LANES = 8 };

/* For every token l and packet of columns: f.visit(b, l, column, sum) for every sequence b, which may add to sum, then
 * f.finish(l, column, sum). Lane k of a block visits b = k, k + 8, ...; their sums are added in order. */
template <int N, typename F>
static __global__ void __launch_bounds__(32 * BATCH_LANES) batch_packet(const F f, int64_t batch, int64_t columns)
{
    __shared__ float shared[BATCH_LANES][32 * N];
    const int64_t l = blockIdx.x, column = (blockIdx.y * INT64_C(32) + threadIdx.x) * N;
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
    if (column < columns)
#pragma unroll 4
        for (int64_t b = threadIdx.y; b < batch; b += BATCH_LANES)
            f.template visit<N>(b, l, column, sum);
#pragma unroll
    for (int i = 0; i < N; i++)
        shared[threadIdx.y][i * 32 + threadIdx.x] = sum[i];
    __syncthreads();
    if (threadIdx.y > 0 || column >= columns)
        return;
    for (int lane = 1; lane < BATCH_LANES; lane++)
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] += shared[lane][i * 32 + threadIdx.x];
    f.template finish<N>(l, column, sum);
}

template <typename F>
static cab_status over_batch(const F &f, int64_t batch, int64_t length, int64_t columns, bool packed,
                             cab_backend *backend, const char *name)
{
    const int64_t width = packed ? EACH_PACKET : 1;
    const dim3 grid((unsigned)length, (unsigned)ceil_div(columns, 32 * width)), threads(32, BATCH_LANES);
    if (packed)
        batch_packet<EACH_PACKET><<<grid, threads, 0, stream_of(backend)>>>(f, batch, columns);
    else
        batch_packet<1><<<grid, threads, 0, stream_of(backend)>>>(f, batch, columns);
    return cab_cuda_launched(name);
}

#endif
