/* block_gemm.cu - products with a matrix in blocks of few bits: block_gemm.h.
 *
 * Layout, expansion: a thread takes 8 neighbouring elements, from 4 to 8 bytes of the block, to one store of 16 bytes of bf16. A tile is of
 * at most TILE_BYTES, so that an expanded matrix never has to fit anywhere, and is mostly in the second-level cache when it is multiplied.
 *
 * Layout, a few rows of A: a warp per row of B. A lane takes every 32nd packet of 8 elements of it, and the same of each row of A, which
 * the first-level cache has; the lanes' sums are added at the end.
 *
 * Arithmetic: expanded elements are rounded to A's dtype; straight from blocks they are fp32. Sums are fp32. */
#include "ops/cuda/block_gemm.h"

#include "ops/cuda/blocks.cuh"
#include "ops/cuda/cublaslt.h"

enum { THREADS = 256, WARPS = 4, ROW_STEP = 128 };
constexpr int64_t TILE_BYTES = INT64_C(32) << 20, MOST_BLOCKS = INT64_C(1) << 20;

template <cab_dtype Q, typename T>
static __global__ void __launch_bounds__(THREADS) expand(const uint8_t *from, T *to, int64_t packets)
{
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < packets; i += gridDim.x * (int64_t)THREADS) {
        float x[BLOCK_PACKET];
        load_packet<Q>(from, i * BLOCK_PACKET, x);
        store_floats(to + i * BLOCK_PACKET, x);
    }
}

template <cab_dtype Q, typename T>
static cab_status expand_into(cab_backend *backend, const void *from, void *to, int64_t n)
{
    const int64_t packets = n / BLOCK_PACKET, blocks = ceil_div(packets, THREADS);
    const unsigned grid = (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
    expand<Q, T><<<grid, THREADS, 0, stream_of(backend)>>>((const uint8_t *)from, (T *)to, packets);
    return cab_cuda_launched("expansion of blocks");
}

/* C as its dtype says. */
struct results {
    void *data;
    int64_t ld;
    bool low;

    __device__ __forceinline__ void put(int64_t row, int64_t column, float x) const
    {
        if (low)
            ((bf16 *)data)[row * ld + column] = from_float<bf16>(x);
        else
            ((float *)data)[row * ld + column] = x;
    }
};

/* 8 elements of a row of A; packed: they begin at a multiple of their size. */
template <typename T> __device__ __forceinline__ void load_left(const T *from, bool packed, float (&to)[BLOCK_PACKET])
{
    if (packed) {
        load_floats(from, to);
        return;
    }
#pragma unroll
    for (int i = 0; i < BLOCK_PACKET; i++)
        to[i] = to_float(from[i]);
}

/* m rows of A, at most M. */
template <cab_dtype Q, typename T, int M>
static __global__ void __launch_bounds__(32 * WARPS)
    multiply_few(const uint8_t *b, rows_of<const T> a, results c, parameter_of bias, int m, int64_t n, int64_t k, bool packed)
{
    const int64_t at = blockIdx.x * (int64_t)WARPS + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (at >= n)
        return;
    const uint8_t *row = b + at * (k / block_of<Q>::ELEMENTS) * block_of<Q>::BYTES;
    float sum[M] = {};
    for (int64_t column = lane * BLOCK_PACKET; column < k; column += 32 * BLOCK_PACKET) {
        float w[BLOCK_PACKET], x[BLOCK_PACKET];
        load_packet<Q>(row, column, w);
#pragma unroll
        for (int r = 0; r < M; r++) {
            if (r >= m)
                break;
            load_left(a.at(r, column), packed, x);
#pragma unroll
            for (int i = 0; i < BLOCK_PACKET; i++)
                sum[r] += w[i] * x[i];
        }
    }
    float add[1] = {0.0f};
    if (bias.data != NULL)
        bias.load(at, add);
#pragma unroll
    for (int r = 0; r < M; r++) {
        const float total = warp_sum(sum[r]);
        if (r < m && lane == r)
            c.put(r, at, total + add[0]);
    }
}

template <cab_dtype Q, typename T>
static cab_status few(cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                      const void *bias)
{
    const rows_of<const T> left = {(const T *)a, s->a.row};
    const results to = {c, s->c.row, s->c.dtype == CAB_BF16};
    const parameter_of add = {s->bias ? bias : NULL, s->bias_dtype == CAB_BF16};
    const bool packed = fits_vec<T, BLOCK_PACKET>(left.data, left.ld, s->k);
    const unsigned blocks = (unsigned)ceil_div(s->n, WARPS);
    const int m = (int)s->m;
    if (m == 1)
        multiply_few<Q, T, 1><<<blocks, 32 * WARPS, 0, stream_of(backend)>>>((const uint8_t *)b, left, to, add, m, s->n,
                                                                            s->k, packed);
    else
        multiply_few<Q, T, CAB_BLOCK_FEW_CUDA><<<blocks, 32 * WARPS, 0, stream_of(backend)>>>(
            (const uint8_t *)b, left, to, add, m, s->n, s->k, packed);
    return cab_cuda_launched("product of a few rows with blocks");
}

static bool in_blocks(const cab_gemm_shape *s)
{
    return cab_dtype_is_blocks(s->b.dtype);
}

/* About as many rows in each tile. */
extern "C" int64_t cab_block_gemm_tile_cuda(const cab_gemm_shape *s)
{
    const int64_t fits = TILE_BYTES / (s->k * (int64_t)cab_dtype_size(s->a.dtype)) / ROW_STEP * ROW_STEP;
    const int64_t most = fits > ROW_STEP ? fits : ROW_STEP, tiles = ceil_div(s->n, most);
    return tiles <= 1 ? s->n : ceil_div(ceil_div(s->n, tiles), ROW_STEP) * ROW_STEP;
}

extern "C" size_t cab_block_gemm_scratch_cuda(const cab_gemm_shape *s)
{
    if (!in_blocks(s) || s->m <= CAB_BLOCK_FEW_CUDA)
        return 0;
    return (size_t)(cab_block_gemm_tile_cuda(s) * s->k) * cab_dtype_size(s->a.dtype);
}

extern "C" cab_status cab_block_gemm_part_cuda(cab_backend *backend, const cab_gemm_shape *s, const void *b, int64_t first,
                                               void *scratch, cab_gemm_shape *part)
{
    const int64_t tile = cab_block_gemm_tile_cuda(s);
    const uint8_t *from = (const uint8_t *)b + cab_dtype_bytes(s->b.dtype, first * s->k);
    *part = *s;
    part->n = s->n - first < tile ? s->n - first : tile;
    part->b = cab_side_dense(s->a.dtype, s->k, true);
    cab_status status = CAB_OK;
    BY_DTYPE(s->a.dtype, BY_BLOCKS(s->b.dtype, (status = expand_into<Q, T>(backend, from, scratch, part->n * s->k))));
    return status;
}

static cab_status by_tiles(cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                           const void *bias, void *scratch)
{
    const int64_t tile = cab_block_gemm_tile_cuda(s);
    const int64_t c_size = (int64_t)cab_dtype_size(s->c.dtype), bias_size = (int64_t)cab_dtype_size(s->bias_dtype);
    for (int64_t first = 0; first < s->n; first += tile) {
        cab_gemm_shape part;
        CAB_TRY(cab_block_gemm_part_cuda(backend, s, b, first, scratch, &part));
        CAB_TRY(cab_cublaslt_run(backend, &part, a, scratch, (char *)c + first * c_size,
                                 bias != NULL ? (const char *)bias + first * bias_size : NULL));
    }
    return CAB_OK;
}

extern "C" cab_status cab_gemm_cuda(cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                                    const void *bias, void *scratch)
{
    if (!in_blocks(s))
        return cab_cublaslt_run(backend, s, a, b, c, bias);
    CAB_TRY(cab_product_check_blocks(s));
    if (s->m > CAB_BLOCK_FEW_CUDA)
        return by_tiles(backend, s, a, b, c, bias, scratch);
    cab_status status = CAB_OK;
    BY_DTYPE(s->a.dtype, BY_BLOCKS(s->b.dtype, (status = few<Q, T>(backend, s, a, b, c, bias))));
    return status;
}
