/* block_gemm.cu - products with a matrix in blocks of few bits: block_gemm.h.
 *
 * Layout, expansion: a thread takes 8 neighbouring elements, from 4 to 8 bytes of the block, to one store of 16 bytes of bf16. A tile is of
 * at most EXPANDED_BYTES, so that an expanded matrix never has to fit anywhere, and is mostly in the second-level cache when it is multiplied.
 *
 * Layout, one row of A, or a few of fp32: a warp per row of B. A lane takes every 32nd packet of 8 elements of it, and the same of each row of
 * A, which the first-level cache has; the lanes' sums are added at the end.
 *
 * Layout, a few rows of bf16: tensor cores. A block takes 16 rows of B, its warps take turns at 32 columns of them. Lane 4 g + q has the
 * columns 8 q to 8 q + 7 of these, of rows g and g + 8 of B and row g of A: two steps of mma, whose columns then stand in another order, the
 * same on both sides. The warps' sums are added at the end, in order.
 *
 * Arithmetic: expanded elements are rounded to A's dtype, also for tensor cores; a warp per row has them in fp32. Sums are fp32. */
#include "ops/cuda/block_gemm.h"

#include "ops/cuda/blocks.cuh"
#include "ops/cuda/cublaslt.h"
#include "ops/cuda/mma.cuh"

enum { THREADS = 256, WARPS = 4, ROW_STEP = 128, FEW = 8, FEW_LOW = 32, MMA_ROWS = 16, MMA_WARPS = 8, MMA_COLUMNS = 32 };
constexpr int64_t EXPANDED_BYTES = INT64_C(32) << 20, MOST_BLOCKS = INT64_C(1) << 20;

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

/* 8 TILES rows of A at most. */
template <cab_dtype Q, int TILES>
static __global__ void __launch_bounds__(32 * MMA_WARPS)
    multiply_tiles(const uint8_t *b, rows_of<const bf16> a, results c, parameter_of bias, int m, int64_t n, int64_t k)
{
    __shared__ float sums[MMA_WARPS][MMA_ROWS][FEW * TILES + 1];
    const int64_t first = blockIdx.x * (int64_t)MMA_ROWS, row_bytes = k / block_of<Q>::ELEMENTS * block_of<Q>::BYTES;
    const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    const uint8_t *from[2]; /* beyond the last row: the last */
#pragma unroll
    for (int r = 0; r < 2; r++)
        from[r] = b + (first + group + 8 * r < n ? first + group + 8 * r : n - 1) * row_bytes;
    float d[TILES][4] = {};
    for (int64_t column = warp * MMA_COLUMNS + quad * BLOCK_PACKET; column < k; column += MMA_WARPS * MMA_COLUMNS) {
        uint32_t w[2][4];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float x[BLOCK_PACKET];
            load_packet<Q>(from[r], column, x);
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[r][i] = pack(x[2 * i], x[2 * i + 1]);
        }
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            uint4 x = make_uint4(0, 0, 0, 0);
            if (t * FEW + group < m)
                x = *reinterpret_cast<const uint4 *>(a.at(t * FEW + group, column));
            const uint32_t left[2][4] = {{w[0][0], w[1][0], w[0][1], w[1][1]}, {w[0][2], w[1][2], w[0][3], w[1][3]}};
            mma(d[t], left[0], x.x, x.y);
            mma(d[t], left[1], x.z, x.w);
        }
    }
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[warp][group + i / 2 * 8][t * FEW + 2 * quad + i % 2] = d[t][i];
    __syncthreads();
    for (int i = threadIdx.x; i < MMA_ROWS * FEW * TILES; i += 32 * MMA_WARPS) {
        const int row = i % MMA_ROWS, of = i / MMA_ROWS;
        float total[1] = {0.0f};
        if (of >= m || first + row >= n)
            continue;
        if (bias.data != NULL)
            bias.load(first + row, total);
        for (int s = 0; s < MMA_WARPS; s++)
            total[0] += sums[s][row][of];
        c.put(of, first + row, total[0]);
    }
}

static results results_of(const cab_gemm_shape *s, void *c, int64_t row)
{
    const bool low = s->c.dtype == CAB_BF16;
    const results r = {(char *)c + row * s->c.row * (int64_t)cab_dtype_size(s->c.dtype), s->c.row, low};
    return r;
}

template <cab_dtype Q>
static void by_tensor_cores(cab_backend *backend, const cab_gemm_shape *s, rows_of<const bf16> a, const uint8_t *b, void *c,
                            parameter_of bias)
{
    const unsigned blocks = (unsigned)ceil_div(s->n, MMA_ROWS);
    const results to = results_of(s, c, 0);
    const int m = (int)s->m, threads = 32 * MMA_WARPS;
    if (m <= FEW)
        multiply_tiles<Q, 1><<<blocks, threads, 0, stream_of(backend)>>>(b, a, to, bias, m, s->n, s->k);
    else if (m <= 2 * FEW)
        multiply_tiles<Q, 2><<<blocks, threads, 0, stream_of(backend)>>>(b, a, to, bias, m, s->n, s->k);
    else
        multiply_tiles<Q, FEW_LOW / FEW><<<blocks, threads, 0, stream_of(backend)>>>(b, a, to, bias, m, s->n, s->k);
}

/* 8 rows of A at a time. */
template <cab_dtype Q, typename T>
static void by_warps(cab_backend *backend, const cab_gemm_shape *s, rows_of<const T> a, const uint8_t *b, void *c,
                     parameter_of bias)
{
    const bool packed = fits_vec<T, BLOCK_PACKET>(a.data, a.ld, s->k);
    const unsigned blocks = (unsigned)ceil_div(s->n, WARPS);
    for (int64_t row = 0; row < s->m; row += FEW) {
        const int m = (int)(s->m - row < FEW ? s->m - row : FEW);
        const rows_of<const T> part = {a.data + row * a.ld, a.ld};
        const results to = results_of(s, c, row);
        if (m == 1)
            multiply_few<Q, T, 1><<<blocks, 32 * WARPS, 0, stream_of(backend)>>>(b, part, to, bias, m, s->n, s->k, packed);
        else
            multiply_few<Q, T, FEW><<<blocks, 32 * WARPS, 0, stream_of(backend)>>>(b, part, to, bias, m, s->n, s->k,
                                                                                  packed);
    }
}

template <cab_dtype Q>
static cab_status few(cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                      const void *bias)
{
    const parameter_of add = {s->bias ? bias : NULL, s->bias_dtype == CAB_BF16};
    const rows_of<const bf16> low = {(const bf16 *)a, s->a.row};
    const rows_of<const float> wide = {(const float *)a, s->a.row};
    if (s->a.dtype == CAB_F32)
        by_warps<Q, float>(backend, s, wide, (const uint8_t *)b, c, add);
    else if (s->m > 1 && fits_vec<bf16, BLOCK_PACKET>(low.data, low.ld, s->k))
        by_tensor_cores<Q>(backend, s, low, (const uint8_t *)b, c, add);
    else
        by_warps<Q, bf16>(backend, s, low, (const uint8_t *)b, c, add);
    return cab_cuda_launched("product of a few rows with blocks");
}

extern "C" bool cab_block_gemm_few_cuda(const cab_gemm_shape *s)
{
    return s->m <= (s->a.dtype == CAB_F32 ? FEW : FEW_LOW);
}

static bool in_blocks(const cab_gemm_shape *s)
{
    return cab_dtype_is_blocks(s->b.dtype);
}

/* About as many rows in each tile. */
extern "C" int64_t cab_block_gemm_tile_cuda(const cab_gemm_shape *s)
{
    const int64_t fits = EXPANDED_BYTES / (s->k * (int64_t)cab_dtype_size(s->a.dtype)) / ROW_STEP * ROW_STEP;
    const int64_t most = fits > ROW_STEP ? fits : ROW_STEP, tiles = ceil_div(s->n, most);
    return tiles <= 1 ? s->n : ceil_div(ceil_div(s->n, tiles), ROW_STEP) * ROW_STEP;
}

extern "C" size_t cab_block_gemm_scratch_cuda(const cab_gemm_shape *s)
{
    if (!in_blocks(s) || cab_block_gemm_few_cuda(s))
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
    if (!cab_block_gemm_few_cuda(s))
        return by_tiles(backend, s, a, b, c, bias, scratch);
    cab_status status = CAB_OK;
    BY_BLOCKS(s->b.dtype, (status = few<Q>(backend, s, a, b, c, bias)));
    return status;
}
