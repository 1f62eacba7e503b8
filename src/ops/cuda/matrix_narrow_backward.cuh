/* matrix_narrow_backward.cuh - dx and dW of narrow layers (matrix_narrow.cu) from one read of the wide side.
 *
 * Arithmetic: dW = N^T W and dx = dy w, in bf16 with fp32 sums; N is the narrow side, W the wide one.
 *
 * Layout: rows of both sides are copied to shared memory, several tiles ahead, with the 16-byte pieces of a row
 * permuted as in mma.cuh. dW = N^T W reads both sides transposed (ldmatrix.trans). A warp has some of the columns of
 * dW, its sums in registers. Two kernels:
 *
 *   narrow_columns  for few outputs. A block has 64 columns of the wide side and a part of the rows; dx = dy w needs no
 *                   other columns. Where dx is added to, the old dx of the next tile is loaded while this tile's part
 *                   of dW is summed. Blocks share the columns, so the parts of dW are few: 66 at 384 columns.
 *   narrow_rows     for few inputs. A block has all columns, up to 768, because dx = dy w sums over them. 12 warps
 *                   share the columns; their sums meet in shared memory and are added in order one tile later, so
 *                   that a tile has one barrier.
 *
 * Memory is the limit; shared memory and the instructions take about half as long each. */
#ifndef CAB_OPS_CUDA_MATRIX_NARROW_BACKWARD_CUH
#define CAB_OPS_CUDA_MATRIX_NARROW_BACKWARD_CUH

#include "ops/cuda/matrix_narrow.cuh"

struct backward_work {
    rows_of<const bf16> narrow, wide; /* x and dy, or dy and x */
    rows_of<bf16> dx;                 /* NULL: not wanted */
    const bf16 *w;
    bool along_wide, add_dx, sum_columns;
    float *partials;
    int64_t part_rows;
    sizes s;
};

__host__ __device__ __forceinline__ int64_t partial_columns(const backward_work &b)
{
    return (int64_t)b.s.n_narrow * b.s.n_wide + (b.sum_columns ? b.s.n_wide : 0);
}

/* ---- tiles in shared memory -------------------------------------------------------------------------------------- */

/* Bytes from row to row of the narrow side: eight rows lie in different banks. */
template <int BLOCKS> constexpr int NARROW_PITCH = BLOCKS * 32 + 16;

/* Rows of the wide side, `pieces` of 16 bytes each, a multiple of 8; those of the narrow side behind them. */
template <int BLOCKS, int ROWS> struct tile_of {
    uint32_t wide, narrow;

    static __host__ __device__ __forceinline__ int bytes(int pieces)
    {
        return ROWS * (pieces * 16 + NARROW_PITCH<BLOCKS>);
    }
    __device__ __forceinline__ tile_of(uint32_t ring, int stage, int pieces)
        : wide(ring + (uint32_t)(stage * bytes(pieces))), narrow(wide + (uint32_t)(ROWS * pieces * 16))
    {
    }
};

/* Copies tiles one after the other, from row `first` on: zeros from row s.n_row on and beyond the columns. What a
 * thread copies, at most COPIES pieces of the wide side and some of 8 bytes of one column of the narrow one, is the
 * same in every tile but for the rows. */
template <int BLOCKS, int ROWS, int THREADS> struct copier {
    static constexpr int COPIES = 4, ACROSS = BLOCKS == 3 ? 16 : 4 * BLOCKS, LINES = THREADS / ACROSS;
    const bf16 *from[COPIES], *narrow;
    uint32_t to[COPIES];
    int left[COPIES], narrow_left; /* rows from the piece's to the last */
    const int pieces;
    const int64_t stride, narrow_ld;

    __device__ __forceinline__ copier(const rows_of<const bf16> &narrow_, const rows_of<const bf16> &wide,
                                      int64_t first, int pieces_, const sizes &s)
        : pieces(pieces_), stride(ROWS * wide.ld), narrow_ld(narrow_.ld)
    {
        const int rows = (int)(s.n_row - first), line = threadIdx.x / ACROSS, column = threadIdx.x % ACROSS * 4;
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            const int at = threadIdx.x + i * THREADS, r = at / pieces, c = at % pieces;
            from[i] = wide.at(first + r, c * 8);
            to[i] = (uint32_t)(r * pieces + (c ^ (r & 7))) * 16;
            left[i] = c * 8 < s.n_wide ? rows - r : 0;
        }
        narrow = narrow_.at(first + line, column);
        narrow_left = column < s.n_narrow ? rows - line : 0;
    }

    __device__ __forceinline__ void next(const tile_of<BLOCKS, ROWS> &tile)
    {
        const int line = threadIdx.x / ACROSS, column = threadIdx.x % ACROSS * 4;
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            if (threadIdx.x + i * THREADS < ROWS * pieces)
                copy_16(tile.wide + to[i], from[i], left[i] > 0);
            from[i] += stride;
            left[i] -= ROWS;
        }
#pragma unroll
        for (int r = 0; r < ROWS; r += LINES)
            if (line + r < ROWS && column < 16 * BLOCKS)
                copy_8(tile.narrow + (line + r) * NARROW_PITCH<BLOCKS> + column * 2, narrow + r * narrow_ld,
                       narrow_left > r);
        narrow += ROWS * narrow_ld;
        narrow_left -= ROWS;
        copies_commit();
    }
};

/* Where a lane reads four 8 x 8 matrices: rows first .. + 15, pieces `piece` (even) and the next. */
__device__ __forceinline__ uint32_t wide_matrices(uint32_t wide, int first, int piece, int pieces)
{
    const int lane = threadIdx.x % 32;
    return wide + ((first + lane % 16) * pieces + ((piece + lane / 16) ^ (lane & 7))) * 16;
}

/* ---- dW = N^T W -------------------------------------------------------------------------------------------------- */

/* A warp's sums: of PAIRS times 16 columns, and of the wide side's columns 8 j + g, this lane's rows. */
template <int BLOCKS, int PAIRS> struct outer_sums {
    float w[PAIRS][2][BLOCKS][4];
    float columns[PAIRS][2];
};

/* `piece`: where the warp's columns begin. */
template <int BLOCKS, int PAIRS, int ROWS>
__device__ __forceinline__ void outer(outer_sums<BLOCKS, PAIRS> &sums, const tile_of<BLOCKS, ROWS> &tile, int piece,
                                      int pieces, bool sum_columns)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int row = 0; row < ROWS; row += STEP) {
        uint32_t a[BLOCKS][4];
#pragma unroll
        for (int k = 0; k < BLOCKS; k++)
            load_matrices_transposed(a[k], tile.narrow + (row + lane / 16 * 8 + lane % 8) * NARROW_PITCH<BLOCKS> +
                                               k * 32 + lane / 8 % 2 * 16);
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            uint32_t b[4];
            load_matrices_transposed(b, wide_matrices(tile.wide, row, piece + 2 * p, pieces));
#pragma unroll
            for (int k = 0; k < BLOCKS; k++) {
                mma(sums.w[p][0][k], a[k], b[0], b[1]);
                mma(sums.w[p][1][k], a[k], b[2], b[3]);
            }
            if (sum_columns)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sums.columns[p][i / 2] += low_half(b[i]) + high_half(b[i]);
        }
    }
}

/* To the part's row of the partial sums; the warp's columns begin at `first`. */
template <int BLOCKS, int PAIRS>
__device__ __forceinline__ void store_sums(const backward_work &b, const outer_sums<BLOCKS, PAIRS> &sums, int64_t part,
                                           int first)
{
    const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    float *to = b.partials + part * partial_columns(b);
#pragma unroll
    for (int p = 0; p < PAIRS; p++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int column = first + 16 * p + 8 * half;
            if (column >= b.s.n_wide)
                continue;
#pragma unroll
            for (int k = 0; k < BLOCKS; k++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int n = 16 * k + 8 * i + g;
                    if (n < b.s.n_narrow)
                        __stwb((float2 *)(to + (int64_t)n * b.s.n_wide + column + 2 * q),
                               make_float2(sums.w[p][half][k][2 * i], sums.w[p][half][k][2 * i + 1]));
                }
            if (b.sum_columns) {
                const float sum = quad_sum(sums.columns[p][half]);
                if (q == 0)
                    to[(int64_t)b.s.n_narrow * b.s.n_wide + column + g] = sum;
            }
        }
}

/* ---- 64 columns -------------------------------------------------------------------------------------------------- */

constexpr int COLUMN_WARPS = 4, COLUMN_STAGES = 3, COLUMN_ROWS = STEP * COLUMN_WARPS, COLUMN_WIDTH = 64;
constexpr int COLUMN_PIECES = COLUMN_WIDTH / 8;

template <int BLOCKS>
constexpr size_t COLUMN_BYTES = (size_t)(BLOCKS * 32 * COLUMN_WIDTH +
                                         COLUMN_STAGES * COLUMN_ROWS * (COLUMN_PIECES * 16 + NARROW_PITCH<BLOCKS>));

/* What stands in dx, of this lane's two rows and twice 8 columns. */
struct old_rows {
    uint4 at[2][2];
};

__device__ __forceinline__ void load_old(old_rows &old, const rows_of<bf16> &dx, bool add, int64_t upper,
                                         const sizes &s)
{
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int column = 32 * t + threadIdx.x % 4 * 8;
            old.at[t][i] = load_16(dx.at(upper + 8 * i, column), add && column < s.n_wide && upper + 8 * i < s.n_row);
        }
}

/* dx = old + N w, 16 rows of 64 columns, this lane's at `upper` and 8 on; N in shared memory. */
template <int BLOCKS>
__device__ __forceinline__ void expand_tile(const rows_of<bf16> &dx, const old_rows &old, const char *narrow,
                                            const uint4 *w, int64_t upper, const sizes &s)
{
    const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    uint32_t a[BLOCKS][4];
#pragma unroll
    for (int k = 0; k < BLOCKS; k++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint2 v = *(const uint2 *)(narrow + (g + 8 * i) * NARROW_PITCH<BLOCKS> + k * 32 + q * 8);
            a[k][i] = v.x, a[k][2 + i] = v.y;
        }
#pragma unroll
    for (int t = 0; t < 2; t++) {
        const int column = 32 * t + 8 * q;
        float sums[4][4];
        begin_with(sums, old.at[t][0], old.at[t][1]);
        expand_group<BLOCKS>(sums, a, w + t * BLOCKS * 2 * 32);
        store_rows(dx.at(upper, column), dx.at(upper + 8, column), sums, column < s.n_wide && upper < s.n_row,
                   column < s.n_wide && upper + 8 < s.n_row);
    }
}

/* blockIdx: which 64 columns, which part. dx only of few outputs. */
template <int BLOCKS>
static __global__ void __launch_bounds__(COLUMN_WARPS * 32, 3) narrow_columns(const backward_work b)
{
    extern __shared__ uint4 shared[];
    const int warp = threadIdx.x / 32, first = blockIdx.x * COLUMN_WIDTH;
    const int64_t begin = blockIdx.y * b.part_rows, end = begin + b.part_rows;
    const sizes s = {end < b.s.n_row ? end : b.s.n_row, b.s.n_narrow,
                     b.s.n_wide - first < COLUMN_WIDTH ? b.s.n_wide - first : COLUMN_WIDTH};
    const rows_of<const bf16> wide = {b.wide.data + first, b.wide.ld};
    const bool expands = b.dx.data != NULL;
    const rows_of<bf16> dx = {b.dx.data + (expands ? first : 0), b.dx.ld};
    const uint32_t ring = shared_address(shared + BLOCKS * 2 * COLUMN_WIDTH);
    typedef tile_of<BLOCKS, COLUMN_ROWS> tile;
    copier<BLOCKS, COLUMN_ROWS, COLUMN_WARPS * 32> copies(b.narrow, wide, begin, COLUMN_PIECES, s);
    outer_sums<BLOCKS, 1> sums = {};
    old_rows old;
    int64_t upper = begin + warp * STEP + threadIdx.x % 32 / 4;
    load_old(old, dx, expands && b.add_dx, upper, s);
    copies.next(tile(ring, 0, COLUMN_PIECES));
    copies.next(tile(ring, 1, COLUMN_PIECES));
    if (expands)
        begin_weight<BLOCKS, true>((bf16 *)shared, b.w, b.along_wide, first, b.along_wide ? b.s.n_wide : b.s.n_narrow,
                                   s);
    copies_wait(); /* also for the weight, which is in no group */
    int stage = 0;
    for (int64_t row = begin; row < s.n_row; row += COLUMN_ROWS, upper += COLUMN_ROWS) {
        const tile now(ring, stage, COLUMN_PIECES);
        copies_wait_but<COLUMN_STAGES - 2>();
        __syncthreads();
        copies.next(tile(ring, (stage + 2) % COLUMN_STAGES, COLUMN_PIECES));
        stage = (stage + 1) % COLUMN_STAGES;
        if (expands)
            expand_tile<BLOCKS>(dx, old,
                                (const char *)shared + (now.narrow - shared_address(shared)) +
                                    warp * STEP * NARROW_PITCH<BLOCKS>,
                                shared, upper, s);
        /* Not before: a scoreboard counts loads, and who waits for these would wait for the next ones. */
        load_old(old, dx, expands && b.add_dx, upper + COLUMN_ROWS, s);
        outer(sums, now, 2 * warp, COLUMN_PIECES, b.sum_columns);
    }
    store_sums(b, sums, blockIdx.y, first + 16 * warp);
}

/* ---- whole rows, few inputs -------------------------------------------------------------------------------------- */

constexpr int ROW_WARPS = 12;

/* WIDE: 384s of columns. Warps share dx's terms and columns: a warp has 16 rows, 16 columns, and STEPS times 16
 * terms. */
template <int BLOCKS, int WIDE> struct whole_rows {
    static constexpr int STAGES = 4, ROWS = 32 / WIDE, HEIGHT = ROWS / STEP;
    static constexpr int PAIRS = 2 * WIDE; /* 16s of columns of dW per warp */
    static constexpr int SPLIT = ROW_WARPS / HEIGHT / BLOCKS, STEPS = WIDE * 24 / SPLIT;
    static constexpr int QUADS = ROWS * BLOCKS * 4; /* four sums of dx */
    typedef tile_of<BLOCKS, ROWS> tile;

    static __host__ __device__ __forceinline__ int pieces(int n_wide)
    {
        return (n_wide + 63) / 64 * 8;
    }
    static size_t bytes(int n_wide)
    {
        return 2 * SPLIT * QUADS * sizeof(float4) + (size_t)(STAGES * tile::bytes(pieces(n_wide)));
    }

    /* The warp's 16 rows, 16s of columns, and terms of dx. */
    int row, block, split;
    uint32_t w[STEPS][2][2];

    /* Column g of the first half of 16 is 4 (g / 2) + g % 2, of the second two on: sums of a lane are four
     * neighbours. */
    __device__ __forceinline__ whole_rows(const backward_work &b)
    {
        const int unit = ROW_WARPS - 1 - threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
        row = unit % HEIGHT * STEP, block = unit / HEIGHT % BLOCKS, split = unit / HEIGHT / BLOCKS;
#pragma unroll
        for (int i = 0; i < STEPS; i++)
#pragma unroll
            for (int half = 0; half < 4; half++) { /* of columns, of terms */
                const int n = 16 * block + g / 2 * 4 + half / 2 * 2 + g % 2;
                const int c = 16 * (split * STEPS + i) + half % 2 * 8 + 2 * q;
                const uint16_t *at = (const uint16_t *)b.w + (b.along_wide ? n * b.s.n_wide + c : c * b.s.n_narrow + n);
                const bool inside = n < b.s.n_narrow && c < b.s.n_wide;
                const uint32_t low = inside ? at[0] : 0, high = inside ? at[b.along_wide ? 1 : b.s.n_narrow] : 0;
                w[i][half / 2][half % 2] = low | high << 16;
            }
    }

    __device__ __forceinline__ void contract(float4 *to, const tile &from, int n_wide) const
    {
        const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4, first = split * STEPS * STEP;
        float sums[2][4] = {};
        if (first >= n_wide)
            return;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            uint32_t a[4];
            if (first + i * STEP >= n_wide)
                break;
            load_matrices(a, wide_matrices(from.wide, row, (first + i * STEP) / 8, pieces(n_wide)));
            mma(sums[0], a, w[i][0][0], w[i][0][1]);
            mma(sums[1], a, w[i][1][0], w[i][1][1]);
        }
        to += split * QUADS + (row + g) * BLOCKS * 4 + block * 4 + q;
        to[0] = make_float4(sums[0][0], sums[0][1], sums[1][0], sums[1][1]);
        to[8 * BLOCKS * 4] = make_float4(sums[0][2], sums[0][3], sums[1][2], sums[1][3]);
    }

    static __device__ __forceinline__ void finish(const float4 *from, const rows_of<bf16> &dx, bool add, int64_t first,
                                                  const sizes &s)
    {
        const int at = threadIdx.x, n = at % (BLOCKS * 4) * 4;
        const int64_t to = first + at / (BLOCKS * 4);
        if (at >= QUADS || to >= s.n_row || n >= s.n_narrow)
            return;
        float sums[4] = {};
#pragma unroll
        for (int i = 0; i < SPLIT; i++)
            if (i * STEPS * STEP < s.n_wide) {
                const float4 v = from[i * QUADS + at];
                sums[0] += v.x, sums[1] += v.y, sums[2] += v.z, sums[3] += v.w;
            }
        put_floats(dx.at(to, n), add, sums);
    }
};

template <int BLOCKS, int WIDE>
static __global__ void __launch_bounds__(ROW_WARPS * 32) narrow_rows(const backward_work b)
{
    typedef whole_rows<BLOCKS, WIDE> whole;
    typedef typename whole::tile tile;
    constexpr int ROWS = whole::ROWS, STAGES = whole::STAGES, SUMS = whole::SPLIT * whole::QUADS;
    extern __shared__ uint4 shared[];
    float4 *of_splits = (float4 *)shared;
    const int pieces = whole::pieces(b.s.n_wide), piece = threadIdx.x / 32 * whole::PAIRS * 2;
    const int64_t begin = blockIdx.x * b.part_rows, end = begin + b.part_rows;
    const sizes s = {end < b.s.n_row ? end : b.s.n_row, b.s.n_narrow, b.s.n_wide};
    const uint32_t ring = shared_address(of_splits + 2 * SUMS);
    copier<BLOCKS, ROWS, ROW_WARPS * 32> copies(b.narrow, b.wide, begin, pieces, s);
    outer_sums<BLOCKS, whole::PAIRS> sums = {};
#pragma unroll 1
    for (int i = 0; i < STAGES - 1; i++)
        copies.next(tile(ring, i, pieces));
    const whole dx(b);
    int count = 0;
    for (int64_t row = begin; row < s.n_row; row += ROWS, count++) {
        const tile now(ring, count % STAGES, pieces);
        copies_wait_but<STAGES - 2>();
        __syncthreads();
        copies.next(tile(ring, (count + STAGES - 1) % STAGES, pieces));
        dx.contract(of_splits + count % 2 * SUMS, now, s.n_wide);
        if (piece * 8 < s.n_wide)
            outer(sums, now, piece, pieces, b.sum_columns);
        if (count > 0)
            whole::finish(of_splits + (count + 1) % 2 * SUMS, b.dx, b.add_dx, row - ROWS, s);
    }
    __syncthreads();
    if (count > 0)
        whole::finish(of_splits + (count + 1) % 2 * SUMS, b.dx, b.add_dx, begin + (count - 1) * ROWS, s);
    store_sums(b, sums, blockIdx.x, piece * 8);
}

#endif
