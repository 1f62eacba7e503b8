/* matrix_narrow.cu - linear layers of at most 64 inputs or outputs: 384 -> 44, 12 -> 384, 16 -> 128.
 *
 * With N the narrow side, n_narrow columns, and W a wide one of n_wide, all three products of such a layer are one of
 *
 *   expand     W = N w                forward of few inputs, dx of few outputs
 *   contract   N = W w^T              forward of few outputs, dx of few inputs
 *   outer      dw = N^T W             dW of both; w is (n_narrow, n_wide) here, whatever the layout of the parameter
 *
 * They do about 16 FLOPs per byte, so all that counts is to read and write the wide side once, in whole sectors. Every warp
 * works for itself on 16 rows: operands of mma.m16n8k16 come straight from memory to registers, 8 or 16 bytes per lane. That
 * works because rows, columns and terms of a product may be numbered at will: lane (g, q) = 4 g + q takes as its terms
 * and columns those which lie side by side.
 *
 *   contract  terms: lane q of a row has 8 neighbours of each 32, two steps of mma; results: 4 neighbours of 16
 *   expand    terms: 4 neighbours of each 16; results: 8 neighbours of 32, 16 bytes
 *   outer     terms are rows: 2 q, 2 q + 1, 2 q + 8, 2 q + 9, those of N in shared memory; columns: 4 or 8 neighbours
 *
 * w stands in shared memory in the order in which lanes read it, 16 bytes each. In the backward pass a block has a part of
 * the rows: its warps make dx, then the products of the part's rows and, of few inputs, the sums of dy; they share the columns
 * among them and, where those are few, the rows too. A second kernel adds the parts in order (partials.cuh).
 *
 * Bytes at 25216 rows: 384 -> 44 forward 22 MB, 7 us; backward with dx += 62 MB, 18 us. 12 -> 384: 20 MB, 7 us; backward 22
 * MB, 11 us, of which the parts' sums are 4. 16 -> 128: 7 MB, 4 us; backward 9 MB, 8 us. */
#include "ops/cuda/matrix_narrow.h"
#include "ops/cuda/mma.cuh"
#include "ops/cuda/partials.cuh"

extern "C" {
#include "ops/matrix.h"
}

/* A block of the forward pass has 4 or 8 warps. MAX_PARTS: one for each multiprocessor of an H100 or H200, and as many
 * elsewhere, so that the sums do not depend on it. */
enum { STEP = 16, WARPS = 12, MOST_SLICES = 6 };
constexpr int64_t PART_ROWS = STEP * WARPS, MAX_PARTS = 132;
constexpr size_t MOST_SHARED = 96 << 10;
enum { STAGE_ROWS = PART_ROWS }; /* of the narrow side in shared memory */

struct sizes {
    int64_t n_row;
    int n_narrow, n_wide;
};

/* Columns per lane of `outer`: narrower where there are many rows of sums. */
template <int BLOCKS> constexpr int LANE_COLUMNS = BLOCKS <= 2 ? 8 : 4;

__device__ __forceinline__ uint2 load_8(const bf16 *from, bool valid)
{
    return valid ? *(const uint2 *)from : make_uint2(0, 0);
}
__device__ __forceinline__ uint4 load_16(const bf16 *from, bool valid)
{
    return valid ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
}

/* The same half of two neighbouring rows, side by side. */
__device__ __forceinline__ uint32_t low_halves(uint32_t row, uint32_t next)
{
    return __byte_perm(row, next, 0x5410);
}
__device__ __forceinline__ uint32_t high_halves(uint32_t row, uint32_t next)
{
    return __byte_perm(row, next, 0x7632);
}

/* ---- the weight in shared memory ------------------------------------------------------------------------------------- */

/* Where element (n, c) of w stands. BLOCKS: 16s of n_narrow. expand: [32 columns][block][pair][lane][2][4]. contract:
 * [32 columns][8 rows][lane][8]. */
template <int BLOCKS, bool EXPAND> __device__ __forceinline__ int place(int n, int c)
{
    if (EXPAND) {
        const int g = c % 32 / 8 * 2 + c % 2, part = c % 8 / 2, q = n % 16 / 4;
        return ((((c / 32 * BLOCKS + n / 16) * 2 + part / 2) * 32 + g * 4 + q) * 2 + part % 2) * 4 + n % 4;
    }
    const int g = n % 16 / 4 * 2 + n % 2, q = c % 32 / 8;
    return ((c / 32 * 2 * BLOCKS + n / 16 * 2 + n % 4 / 2) * 32 + g * 4 + q) * 8 + c % 8;
}

__host__ __device__ __forceinline__ int padded(int n_wide)
{
    return (n_wide + 31) / 32 * 32;
}

/* Zeros beyond the sides. From a parameter (n_wide, n_narrow) for expand, (n_narrow, n_wide) for contract: what lies side by side there
 * does so here, and is copied behind the program's back. */
template <int BLOCKS, bool EXPAND> __device__ __forceinline__ void copy_weight(bf16 *to, const bf16 *w, const sizes &s)
{
    const int wide = padded(s.n_wide);
    if (EXPAND)
        for (int i = threadIdx.x; i < wide * 4 * BLOCKS; i += blockDim.x) {
            const int c = i / (4 * BLOCKS), n = i % (4 * BLOCKS) * 4;
            const bool inside = n < s.n_narrow && c < s.n_wide;
            copy_8(shared_address(to + place<BLOCKS, true>(n, c)), inside ? w + c * s.n_narrow + n : w, inside);
        }
    else
        for (int n = threadIdx.x / 32; n < 16 * BLOCKS; n += blockDim.x / 32)
            for (int c = threadIdx.x % 32 * 8; c < wide; c += 32 * 8) {
                const bool inside = n < s.n_narrow && c < s.n_wide;
                copy_16(shared_address(to + place<BLOCKS, false>(n, c)), inside ? w + n * s.n_wide + c : w, inside);
            }
    copies_commit();
}

/* From a parameter that lies the other way, by pieces of 4 x 4. */
template <int BLOCKS, bool EXPAND>
__device__ __forceinline__ void transpose_weight(bf16 *to, const bf16 *w, const sizes &s)
{
    const int lines = EXPAND ? s.n_narrow : s.n_wide, ld = EXPAND ? s.n_wide : s.n_narrow;
#pragma unroll 3
    for (int i = threadIdx.x; i < padded(s.n_wide) * BLOCKS; i += blockDim.x) {
        const int n = i % (4 * BLOCKS) * 4, c = i / (4 * BLOCKS) * 4, line = EXPAND ? n : c, first = EXPAND ? c : n;
        uint2 in[4], out[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            in[j] = load_8(w + (line + j) * ld + first, line + j < lines && first < ld);
        out[0] = make_uint2(low_halves(in[0].x, in[1].x), low_halves(in[2].x, in[3].x));
        out[1] = make_uint2(high_halves(in[0].x, in[1].x), high_halves(in[2].x, in[3].x));
        out[2] = make_uint2(low_halves(in[0].y, in[1].y), low_halves(in[2].y, in[3].y));
        out[3] = make_uint2(high_halves(in[0].y, in[1].y), high_halves(in[2].y, in[3].y));
#pragma unroll
        for (int j = 0; j < 4; j++)
            *(uint2 *)(to + (EXPAND ? place<BLOCKS, true>(n, c + j) : place<BLOCKS, false>(n + j, c))) = out[j];
    }
}

/* along_wide: the parameter is (n_narrow, n_wide), else (n_wide, n_narrow). Complete after weight_wait(). */
template <int BLOCKS, bool EXPAND>
__device__ __forceinline__ void begin_weight(bf16 *to, const bf16 *w, bool along_wide, const sizes &s)
{
    if (EXPAND != along_wide)
        copy_weight<BLOCKS, EXPAND>(to, w, s);
    else
        transpose_weight<BLOCKS, EXPAND>(to, w, s);
}

__device__ __forceinline__ void weight_wait()
{
    copies_wait();
    __syncthreads();
}

/* ---- the products of 16 rows by a warp ------------------------------------------------------------------------------- */

/* Two neighbours in row g and two in row g + 8, of four 8-column blocks: what stands there, or the bias. */
__device__ __forceinline__ void begin_with(float (&sums)[4][4], const uint4 &upper, const uint4 &lower)
{
    const uint32_t u[4] = {upper.x, upper.y, upper.z, upper.w}, l[4] = {lower.x, lower.y, lower.z, lower.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sums[i][0] = low_half(u[i]);
        sums[i][1] = high_half(u[i]);
        sums[i][2] = low_half(l[i]);
        sums[i][3] = high_half(l[i]);
    }
}

__device__ __forceinline__ void store_rows(bf16 *upper, bf16 *lower, const float (&s)[4][4], bool has_upper,
                                           bool has_lower)
{
    if (has_upper)
        *(uint4 *)upper =
            make_uint4(pack(s[0][0], s[0][1]), pack(s[1][0], s[1][1]), pack(s[2][0], s[2][1]), pack(s[3][0], s[3][1]));
    if (has_lower)
        *(uint4 *)lower =
            make_uint4(pack(s[0][2], s[0][3]), pack(s[1][2], s[1][3]), pack(s[2][2], s[2][3]), pack(s[3][2], s[3][3]));
}

/* to (wide) = from (narrow) w [+ bias] [+ to], rows first .. first + 15. `fresh`: the weight is on its way, which the whole block waits
 * for when it has begun to load. */
template <int BLOCKS>
__device__ __forceinline__ void expand(rows_of<const bf16> from, rows_of<bf16> to, const uint4 *w, const bf16 *bias,
                                       bool add, bool fresh, int64_t first, const sizes &s)
{
    enum { BATCH = 4 };
    const int lane = threadIdx.x % 32, q = lane % 4, groups = padded(s.n_wide) / 32;
    const int64_t upper = first + lane / 4, lower = upper + 8;
    const bool has_upper = upper < s.n_row, has_lower = lower < s.n_row;
    uint32_t a[BLOCKS][4];
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
        const int column = 16 * k + 4 * q;
        const uint2 u = load_8(from.at(upper, column), has_upper && column < s.n_narrow);
        const uint2 l = load_8(from.at(lower, column), has_lower && column < s.n_narrow);
        a[k][0] = u.x, a[k][1] = l.x, a[k][2] = u.y, a[k][3] = l.y;
    }
    if (fresh)
        weight_wait();
    for (int batch = 0; batch < groups; batch += BATCH) {
        uint4 old[BATCH][2];
#pragma unroll
        for (int t = 0; t < BATCH; t++) {
            const int column = 32 * (batch + t) + 8 * q;
            const bool inside = column < s.n_wide;
            old[t][0] = bias != NULL ? load_16(bias + column, inside)
                                     : load_16(to.at(upper, column), add && inside && has_upper);
            old[t][1] = bias != NULL ? old[t][0] : load_16(to.at(lower, column), add && inside && has_lower);
        }
#pragma unroll
        for (int t = 0; t < BATCH; t++) {
            const int column = 32 * (batch + t) + 8 * q;
            float sums[4][4];
            if (batch + t >= groups)
                break;
            begin_with(sums, old[t][0], old[t][1]);
#pragma unroll
            for (int k = 0; k < BLOCKS; k++)
#pragma unroll
                for (int pair = 0; pair < 2; pair++) {
                    const uint4 b = w[(((batch + t) * BLOCKS + k) * 2 + pair) * 32 + lane];
                    mma(sums[2 * pair], a[k], b.x, b.y);
                    mma(sums[2 * pair + 1], a[k], b.z, b.w);
                }
            store_rows(to.at(upper, column), to.at(lower, column), sums, has_upper && column < s.n_wide,
                       has_lower && column < s.n_wide);
        }
    }
}

/* Four neighbours of a row: + bias + what stands there. */
__device__ __forceinline__ void finish_four(bf16 *to, const bf16 *bias, bool add, const float (&even)[4],
                                            const float (&odd)[4], int at)
{
    float four[4] = {even[at], even[at + 1], odd[at], odd[at + 1]}, start[4];
    if (bias != NULL) {
        load_floats(bias, start);
#pragma unroll
        for (int i = 0; i < 4; i++)
            four[i] += start[i];
    }
    put_floats(to, add, four);
}

/* to (narrow) = from (wide) w^T [+ bias] [+ to], rows first .. first + 15; `fresh` as of expand(). */
template <int BLOCKS>
__device__ __forceinline__ void contract(rows_of<const bf16> from, rows_of<bf16> to, const uint4 *w, const bf16 *bias,
                                         bool add, bool fresh, int64_t first, const sizes &s)
{
    enum { BATCH = 4 };
    const int lane = threadIdx.x % 32, q = lane % 4, groups = padded(s.n_wide) / 32;
    const int64_t upper = first + lane / 4, lower = upper + 8;
    const bool has_upper = upper < s.n_row, has_lower = lower < s.n_row;
    float sums[2 * BLOCKS][4] = {};
    for (int batch = 0; batch < groups; batch += BATCH) {
        uint4 u[BATCH], l[BATCH];
#pragma unroll
        for (int t = 0; t < BATCH; t++) {
            const int column = 32 * (batch + t) + 8 * q;
            u[t] = load_16(from.at(upper, column), has_upper && column < s.n_wide);
            l[t] = load_16(from.at(lower, column), has_lower && column < s.n_wide);
        }
        if (fresh && batch == 0)
            weight_wait();
#pragma unroll
        for (int t = 0; t < BATCH; t++) {
            if (batch + t >= groups)
                break;
            const uint32_t near[4] = {u[t].x, l[t].x, u[t].y, l[t].y}, far[4] = {u[t].z, l[t].z, u[t].w, l[t].w};
#pragma unroll
            for (int j = 0; j < 2 * BLOCKS; j++) {
                const uint4 b = w[((batch + t) * 2 * BLOCKS + j) * 32 + lane];
                mma(sums[j], near, b.x, b.y);
                mma(sums[j], far, b.z, b.w);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
        const int column = 16 * k + 4 * q;
        const bf16 *start = bias != NULL ? bias + column : NULL;
        if (column < s.n_narrow && has_upper)
            finish_four(to.at(upper, column), start, add, sums[2 * k], sums[2 * k + 1], 0);
        if (column < s.n_narrow && has_lower)
            finish_four(to.at(lower, column), start, add, sums[2 * k], sums[2 * k + 1], 2);
    }
}

/* A lane's part of dw, and of the sums of the wide side's columns. */
template <int BLOCKS> struct outer_sums {
    static constexpr int COLUMNS = LANE_COLUMNS<BLOCKS>, FLOATS = BLOCKS * COLUMNS * 4 + COLUMNS;
    float w[BLOCKS][COLUMNS][4];
    float columns[COLUMNS];
};

/* Bytes from row to row of the narrow side in shared memory: eight rows lie in different banks. */
template <int BLOCKS> constexpr int STAGE_PITCH = BLOCKS * 32 + 16;

/* Begins to copy rows first .. of the narrow side; zeros from row `end` on and beyond the columns. */
template <int BLOCKS>
__device__ __forceinline__ void begin_stage(char *to, rows_of<const bf16> narrow, int64_t first, int64_t end,
                                            const sizes &s)
{
    for (int i = threadIdx.x; i < STAGE_ROWS * 4 * BLOCKS; i += blockDim.x) {
        const int row = i / (4 * BLOCKS), column = i % (4 * BLOCKS) * 4;
        const bool inside = first + row < end && column < s.n_narrow;
        copy_8(shared_address(to + row * STAGE_PITCH<BLOCKS> + column * 2),
               inside ? narrow.at(first + row, column) : narrow.data, inside);
    }
    copies_commit();
}

/* 16 rows: those at `narrow` in shared memory, and this lane's columns of its four rows, in words of two. */
template <int BLOCKS, int WORDS>
__device__ __forceinline__ void outer_step(outer_sums<BLOCKS> &sums, uint32_t narrow, const uint32_t (&wide)[4][WORDS],
                                           bool sum_columns)
{
    const int lane = threadIdx.x % 32;
    uint32_t a[BLOCKS][4];
#pragma unroll
    for (int k = 0; k < BLOCKS; k++)
        load_matrices_transposed(a[k], narrow + (lane / 16 * 8 + lane % 8) * STAGE_PITCH<BLOCKS> + k * 32 +
                                           lane / 8 % 2 * 16);
#pragma unroll
    for (int j = 0; j < WORDS; j++) {
        const uint32_t low[2] = {low_halves(wide[0][j], wide[1][j]), low_halves(wide[2][j], wide[3][j])};
        const uint32_t high[2] = {high_halves(wide[0][j], wide[1][j]), high_halves(wide[2][j], wide[3][j])};
#pragma unroll
        for (int k = 0; k < BLOCKS; k++) {
            mma(sums.w[k][2 * j], a[k], low[0], low[1]);
            mma(sums.w[k][2 * j + 1], a[k], high[0], high[1]);
        }
    }
    if (sum_columns)
#pragma unroll
        for (int j = 0; j < WORDS; j++)
#pragma unroll
            for (int r = 0; r < 4; r++) {
                sums.columns[2 * j] += low_half(wide[r][j]);
                sums.columns[2 * j + 1] += high_half(wide[r][j]);
            }
}

/* This lane's columns of its rows of STEPS times 16, from `first` on; zeros from row `end` on. */
template <int STEPS, int WORDS>
__device__ __forceinline__ void load_wide(uint32_t (&w)[STEPS][4][WORDS], rows_of<const bf16> wide, int64_t first,
                                          int64_t end, int column, int n_wide)
{
    const int q = threadIdx.x % 4;
#pragma unroll
    for (int t = 0; t < STEPS; t++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int64_t at = first + t * STEP + 2 * q + r % 2 + r / 2 * 8;
            const bool inside = at < end && column < n_wide;
            if constexpr (WORDS == 4) {
                const uint4 v = load_16(wide.at(at, column), inside);
                w[t][r][0] = v.x, w[t][r][1] = v.y, w[t][r][2] = v.z, w[t][r][3] = v.w;
            } else {
                const uint2 v = load_8(wide.at(at, column), inside);
                w[t][r][0] = v.x, w[t][r][1] = v.y;
            }
        }
}

/* Rows begin .. end - 1, the first of them at `narrow` in shared memory; columns from `first` on, 8 lanes' worth. The next rows are on
 * their way while some are multiplied. */
template <int BLOCKS>
__device__ __forceinline__ void outer(outer_sums<BLOCKS> &sums, uint32_t narrow, rows_of<const bf16> wide, int first,
                                      int64_t begin, int64_t end, bool sum_columns, const sizes &s)
{
    /* As many as registers are left for. */
    constexpr int WORDS = LANE_COLUMNS<BLOCKS> / 2, STEPS = (BLOCKS % 2 ? 8 : 4) / WORDS;
    const int column = first + 2 * WORDS * (threadIdx.x % 32 / 4);
    uint32_t now[STEPS][4][WORDS], next[STEPS][4][WORDS];
    load_wide(now, wide, begin, end, column, s.n_wide);
#pragma unroll 2
    for (int64_t row = begin; row < end; row += STEPS * STEP) {
        load_wide(next, wide, row + STEPS * STEP, end, column, s.n_wide);
#pragma unroll
        for (int t = 0; t < STEPS; t++) {
            if (row + t * STEP < end)
                outer_step<BLOCKS, WORDS>(sums, narrow, now[t], sum_columns);
            narrow += STEP * STAGE_PITCH<BLOCKS>;
#pragma unroll
            for (int i = 0; i < 4 * WORDS; i++)
                now[t][i / WORDS][i % WORDS] = next[t][i / WORDS][i % WORDS];
        }
    }
}

/* ---- kernels --------------------------------------------------------------------------------------------------------- */

struct forward_work {
    rows_of<const bf16> x;
    rows_of<bf16> y;
    const bf16 *w, *bias;
    bool along_wide;
    sizes s;
};

template <int BLOCKS, bool EXPAND> static __global__ void __launch_bounds__(256) narrow_forward(const forward_work f)
{
    extern __shared__ uint4 shared[];
    const int64_t warps = blockDim.x / 32, step = gridDim.x * warps * STEP;
    int64_t row = (blockIdx.x * warps + threadIdx.x / 32) * STEP;
    begin_weight<BLOCKS, EXPAND>((bf16 *)shared, f.w, f.along_wide, f.s);
    for (bool fresh = true; fresh || row < f.s.n_row; fresh = false, row += step)
        if (EXPAND)
            expand<BLOCKS>(f.x, f.y, shared, f.bias, false, fresh, row, f.s);
        else
            contract<BLOCKS>(f.x, f.y, shared, f.bias, false, fresh, row, f.s);
}

struct backward_work {
    rows_of<const bf16> narrow, wide; /* x and dy, or dy and x */
    rows_of<bf16> dx;                 /* NULL: not wanted */
    const bf16 *w;
    bool along_wide, add_dx, sum_columns;
    float *partials; /* NULL: no dW wanted */
    int64_t part_rows;
    sizes s;
    size_t stage; /* where the rows of the narrow side stand in shared memory */
};

__host__ __device__ __forceinline__ int64_t partial_columns(const backward_work &b)
{
    return (int64_t)b.s.n_narrow * b.s.n_wide + (b.sum_columns ? b.s.n_wide : 0);
}

/* Adds the slices 1 .. n - 1 of the rows to slice 0, in order. */
template <int BLOCKS>
__device__ __forceinline__ void gather_slices(outer_sums<BLOCKS> &sums, float *shared, int chunk, int chunks, int slice,
                                              int slices)
{
    constexpr int FLOATS = outer_sums<BLOCKS>::FLOATS;
    const int lane = threadIdx.x % 32;
    float *flat = (float *)&sums;
    __syncthreads(); /* the weight has been read */
    if (slice > 0 && slice < slices)
#pragma unroll
        for (int i = 0; i < FLOATS; i++)
            shared[(((slice - 1) * chunks + chunk) * FLOATS + i) * 32 + lane] = flat[i];
    __syncthreads();
    if (slice == 0)
        for (int other = 0; other < slices - 1; other++)
#pragma unroll
            for (int i = 0; i < FLOATS; i++)
                flat[i] += shared[((other * chunks + chunk) * FLOATS + i) * 32 + lane];
}

template <int BLOCKS>
__device__ __forceinline__ void store_sums(const backward_work &b, const outer_sums<BLOCKS> &sums, int first)
{
    constexpr int COLUMNS = LANE_COLUMNS<BLOCKS>;
    const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4, column = first + 2 * COLUMNS * q;
    float *to = b.partials + blockIdx.x * partial_columns(b);
#pragma unroll
    for (int k = 0; k < BLOCKS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) { /* row g or g + 8, columns from COLUMNS (i % 2) on */
            const int n = 16 * k + g + i / 2 * 8, c = column + i % 2 * COLUMNS;
#pragma unroll
            for (int j = 0; j < COLUMNS; j += 4)
                if (n < b.s.n_narrow && c + j < b.s.n_wide)
                    *(float4 *)(to + (int64_t)n * b.s.n_wide + c + j) =
                        make_float4(sums.w[k][j][i], sums.w[k][j + 1][i], sums.w[k][j + 2][i], sums.w[k][j + 3][i]);
        }
    if (!b.sum_columns)
        return;
    to += (int64_t)b.s.n_narrow * b.s.n_wide + first + COLUMNS * g;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        const float sum = quad_sum(sums.columns[j]);
        if (q == 0 && first + COLUMNS * g < b.s.n_wide)
            to[j] = sum;
    }
}

/* Chunks of columns, 8 lanes' worth each; slices of a part's rows, where warps outnumber chunks. */
template <int BLOCKS> __host__ __device__ __forceinline__ int chunks_of(int n_wide)
{
    return (n_wide + 8 * LANE_COLUMNS<BLOCKS> - 1) / (8 * LANE_COLUMNS<BLOCKS>);
}
__host__ __device__ __forceinline__ int slices_of(int chunks)
{
    const int slices = chunks < WARPS ? WARPS / chunks : 1;
    return slices < MOST_SLICES ? slices : MOST_SLICES;
}

/* `stage` has the part's first rows of the narrow side, or they are on their way there. */
template <int BLOCKS>
__device__ __forceinline__ void outer_part(const backward_work &b, int64_t begin, int64_t end, float *shared,
                                           char *stage)
{
    const int chunks = chunks_of<BLOCKS>(b.s.n_wide), slices = slices_of(chunks), warp = threadIdx.x / 32;
    const int slice_rows = STAGE_ROWS / slices;
    int64_t staged = begin;
    for (int round = 0; round < chunks; round += WARPS) { /* one only, where there are slices */
        const int unit = round + warp, chunk = slices > 1 ? unit % chunks : unit,
                  slice = slices > 1 ? unit / chunks : 0;
        const int first = chunk * 8 * LANE_COLUMNS<BLOCKS>;
        const bool busy = chunk < chunks && slice < slices;
        outer_sums<BLOCKS> sums = {};
        for (int64_t base = begin; base < end; base += STAGE_ROWS) {
            __syncthreads();
            if (base != staged)
                begin_stage<BLOCKS>(stage, b.narrow, base, end, b.s);
            staged = base;
            copies_wait();
            __syncthreads();
            const int64_t from = base + slice * slice_rows, to = from + slice_rows < end ? from + slice_rows : end;
            if (busy)
                outer<BLOCKS>(sums, shared_address(stage) + slice * slice_rows * STAGE_PITCH<BLOCKS>, b.wide, first,
                              from, to, b.sum_columns, b.s);
        }
        if (slices > 1)
            gather_slices<BLOCKS>(sums, shared, chunk, chunks, slice, slices);
        if (busy && slice == 0)
            store_sums<BLOCKS>(b, sums, first);
    }
}

template <int BLOCKS, bool FEW_INPUTS>
static __global__ void __launch_bounds__(WARPS * 32) narrow_backward(const backward_work b)
{
    extern __shared__ uint4 shared[];
    char *stage = (char *)shared + b.stage;
    const int64_t begin = blockIdx.x * b.part_rows;
    const int64_t end = begin + b.part_rows < b.s.n_row ? begin + b.part_rows : b.s.n_row;
    if (b.partials != NULL)
        begin_stage<BLOCKS>(stage, b.narrow, begin, end, b.s);
    if (b.dx.data != NULL) {
        int64_t row = begin + threadIdx.x / 32 * STEP;
        row = row < end ? row : b.s.n_row; /* beyond are another part's */
        begin_weight<BLOCKS, !FEW_INPUTS>((bf16 *)shared, b.w, b.along_wide, b.s);
        for (bool fresh = true; fresh || row < end; fresh = false, row += WARPS * STEP)
            if (FEW_INPUTS)
                contract<BLOCKS>(b.wide, b.dx, shared, NULL, b.add_dx, fresh, row, b.s);
            else
                expand<BLOCKS>(b.narrow, b.dx, shared, NULL, b.add_dx, fresh, row, b.s);
    }
    if (b.partials != NULL)
        outer_part<BLOCKS>(b, begin, end, (float *)shared, stage);
}

/* ---- launching ------------------------------------------------------------------------------------------------------- */

/* Where the parts' sums go: (n_narrow, n_wide), then the wide side's columns. */
struct gradients {
    float *dw, *db;
    int n_narrow, n_wide;
    bool along_wide, add;

    __device__ float *target(int64_t at) const
    {
        const int n = (int)(at / n_wide), c = (int)(at % n_wide);
        if (n == n_narrow)
            return db + c;
        return dw + (along_wide ? at : (int64_t)c * n_narrow + n);
    }
};

/* What is narrow about a layer, and whether it is. */
struct narrow_layer {
    bool few_inputs, along_wide;
    int n_narrow, n_wide, blocks;
};

static bool narrow_enough(int64_t n_narrow, int64_t n_wide)
{
    return n_narrow <= CAB_NARROW_MAX && n_narrow % 4 == 0 && n_wide % 8 == 0 && n_wide <= INT32_MAX / CAB_NARROW_MAX &&
           (size_t)ceil_div(n_narrow, 16) * (size_t)padded((int)n_wide) * 32 <= MOST_SHARED;
}

static bool layer_of(const cab_node *node, narrow_layer *layer)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *y = node->backward ? node->gout[0] : node->out[0];
    if (y == NULL || x->dtype != CAB_BF16 || w->dtype != CAB_BF16)
        return false;
    const bool out_in = ((const cab_linear_attributes *)node->attributes)->layout == CAB_OUT_IN;
    const int64_t in = cab_columns(x), out = cab_columns(y);
    layer->few_inputs = narrow_enough(in, out);
    if (!layer->few_inputs && !narrow_enough(out, in))
        return false;
    layer->along_wide = out_in != layer->few_inputs;
    layer->n_narrow = (int)(layer->few_inputs ? in : out);
    layer->n_wide = (int)(layer->few_inputs ? out : in);
    layer->blocks = (layer->n_narrow + 15) / 16;
    return true;
}

static bool aligned(const cab_tensor *t, int64_t elements)
{
    return t == NULL || ((uintptr_t)t->data % (sizeof(bf16) * (size_t)elements) == 0 && t->ld % elements == 0);
}

extern "C" bool cab_narrow_fits(const cab_node *node)
{
    narrow_layer layer;
    const cab_tensor *b = node->backward ? NULL : node->in[2], *y = node->backward ? node->gout[0] : node->out[0];
    if (!layer_of(node, &layer) || (b != NULL && (b->dtype != CAB_BF16 || (uintptr_t)b->data % 16 != 0)))
        return false;
    const int64_t in = layer.few_inputs ? 4 : 8, out = layer.few_inputs ? 8 : 4;
    return aligned(node->in[0], in) && aligned(node->gin[0], in) && aligned(y, out) &&
           (uintptr_t)node->in[1]->data % 16 == 0;
}

static int64_t parts_of(int64_t n_row)
{
    const int64_t parts = ceil_div(n_row, PART_ROWS);
    return parts < MAX_PARTS ? parts : MAX_PARTS;
}

extern "C" size_t cab_narrow_scratch(const cab_node *node)
{
    narrow_layer layer;
    if (!layer_of(node, &layer) || node->gin[1] == NULL)
        return 0;
    return (size_t)parts_of(cab_rows(node->in[0])) * (size_t)(layer.n_narrow + 1) * (size_t)layer.n_wide *
           sizeof(float);
}

static size_t packed_bytes(const narrow_layer &layer)
{
    return (size_t)layer.blocks * (size_t)padded(layer.n_wide) * 32;
}

template <int BLOCKS, bool EXPAND>
static cab_status launch_forward(const forward_work &f, const narrow_layer &layer, cab_backend *backend)
{
    const size_t bytes = packed_bytes(layer);
    const bool roomy = bytes <= 48 << 10; /* several blocks on a multiprocessor */
    const int threads = roomy ? 128 : 256;
    const int64_t tiles = ceil_div(f.s.n_row, threads / 32 * STEP), slots = (roomy ? 4 : 2) * MAX_PARTS;
    CAB_TRY(cab_cuda_shared((const void *)narrow_forward<BLOCKS, EXPAND>, bytes, "linear"));
    narrow_forward<BLOCKS, EXPAND>
        <<<(unsigned)ceil_div(tiles, ceil_div(tiles, slots)), threads, bytes, stream_of(backend)>>>(f);
    return cab_cuda_launched("linear");
}

template <int BLOCKS, bool FEW_INPUTS>
static cab_status launch_backward(backward_work b, const narrow_layer &layer, int64_t parts, cab_backend *backend)
{
    const int chunks = chunks_of<BLOCKS>(b.s.n_wide);
    const size_t packed = packed_bytes(layer);
    const size_t gathered =
        (size_t)(slices_of(chunks) - 1) * (size_t)chunks * outer_sums<BLOCKS>::FLOATS * 32 * sizeof(float);
    b.stage = packed > gathered ? packed : gathered;
    const size_t bytes = b.stage + STAGE_ROWS * STAGE_PITCH<BLOCKS>;
    CAB_TRY(cab_cuda_shared((const void *)narrow_backward<BLOCKS, FEW_INPUTS>, bytes, "linear, backward"));
    narrow_backward<BLOCKS, FEW_INPUTS><<<(unsigned)parts, WARPS * 32, bytes, stream_of(backend)>>>(b);
    return cab_cuda_launched("linear, backward");
}

template <int BLOCKS>
static cab_status forward_of(const forward_work &f, const narrow_layer &layer, cab_backend *backend)
{
    return layer.few_inputs ? launch_forward<BLOCKS, true>(f, layer, backend)
                            : launch_forward<BLOCKS, false>(f, layer, backend);
}

template <int BLOCKS>
static cab_status backward_of(const backward_work &b, const narrow_layer &layer, int64_t parts, cab_backend *backend)
{
    return layer.few_inputs ? launch_backward<BLOCKS, true>(b, layer, parts, backend)
                            : launch_backward<BLOCKS, false>(b, layer, parts, backend);
}

extern "C" cab_status cab_narrow_forward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *b = node->in[2], *y = node->out[0];
    narrow_layer layer;
    if (!layer_of(node, &layer) || cab_rows(x) == 0)
        return CAB_OK;
    const forward_work f = {rows<const bf16>(x),   rows<bf16>(y),
                            (const bf16 *)w->data, b ? (const bf16 *)b->data : NULL,
                            layer.along_wide,      {cab_rows(x), layer.n_narrow, layer.n_wide}};
    switch (layer.blocks) {
    case 1:
        return forward_of<1>(f, layer, backend);
    case 2:
        return forward_of<2>(f, layer, backend);
    case 3:
        return forward_of<3>(f, layer, backend);
    default:
        return forward_of<4>(f, layer, backend);
    }
}

extern "C" cab_status cab_narrow_backward(const cab_node *node, cab_backend *backend, bool *sums)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *dy = node->gout[0];
    const cab_tensor *dx = node->gin[0], *dw = node->gin[1], *db = node->gin[2];
    narrow_layer layer;
    *sums = false;
    if (!layer_of(node, &layer) || cab_rows(x) == 0 || (dx == NULL && dw == NULL))
        return CAB_OK;
    const int64_t n_row = cab_rows(x), parts = parts_of(n_row);
    *sums = layer.few_inputs && dw != NULL && db != NULL;
    const backward_work b = {rows<const bf16>(layer.few_inputs ? x : dy),
                             rows<const bf16>(layer.few_inputs ? dy : x),
                             rows<bf16>(dx),
                             (const bf16 *)w->data,
                             layer.along_wide,
                             (node->accumulate & 1u) != 0,
                             *sums,
                             dw ? (float *)node->scratch : NULL,
                             ceil_div(ceil_div(n_row, parts), STEP) * STEP,
                             {n_row, layer.n_narrow, layer.n_wide},
                             0};
    switch (layer.blocks) {
    case 1:
        CAB_TRY(backward_of<1>(b, layer, parts, backend));
        break;
    case 2:
        CAB_TRY(backward_of<2>(b, layer, parts, backend));
        break;
    case 3:
        CAB_TRY(backward_of<3>(b, layer, parts, backend));
        break;
    default:
        CAB_TRY(backward_of<4>(b, layer, parts, backend));
    }
    if (dw == NULL)
        return CAB_OK;
    const gradients to = {
        (float *)dw->data, *sums ? (float *)db->data : NULL, layer.n_narrow, layer.n_wide, layer.along_wide, true};
    return launch_partials(to, b.partials, parts, partial_columns(b), backend);
}
