/* ssd_tiles.cuh - what the kernels of the Mamba-2 recurrence on tensor cores share: a chunk's rows in tiles of 64 x 64 bf16,
 * in and out; the state's step to the next chunk.
 *
 * Layout: four warps, or eight, with 16 tokens of a chunk each. P is padded with zeros to 64, N to NT tiles of 64. A state
 * (P, N) is in registers in fp32, 16 rows per warp. mma.cuh has the layout of tiles and products. */
#ifndef CAB_OPS_CUDA_SSD_TILES_CUH
#define CAB_OPS_CUDA_SSD_TILES_CUH

#include "ops/cuda/mma.cuh"
#include "ops/cuda/ssd.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS };

/* A warp's place: lane = 4 g + q. */
struct place {
    int warp, lane, g, q;
    tile_lanes lanes;
};

__device__ __forceinline__ place here(void)
{
    const int lane = threadIdx.x % 32;
    return {(int)threadIdx.x / 32, lane, lane / 4, lane % 4, tile_lanes_of(lane)};
}

/* A head of a sequence. */
struct head_of {
    int64_t first; /* row of the sequence's first token */
    int head, group;
};

/* Head `index` of all sequences'. */
template <typename T> __device__ __forceinline__ head_of head_at(const ssd_call<T> &c, int64_t index)
{
    const int head = (int)(index % c.H);
    return {index / c.H * c.L, head, head / c.heads};
}

__device__ __forceinline__ int rows_in(const ssd_call<bf16> &c, int chunk)
{
    const int64_t left = c.L - (int64_t)chunk * Q;
    return left < Q ? (int)left : Q;
}

__device__ __forceinline__ ssd_raw<bf16> read_decays(const ssd_call<bf16> &c, const head_of &h, int chunk, int lane)
{
    return ssd_read_decays(c, h.first + (int64_t)chunk * Q, chunk * Q, rows_in(c, chunk), h.head, lane);
}

/* Rows of a chunk into a tile, by N_THREADS threads; zeros past them and past `width` columns. */
template <int N_THREADS>
__device__ __forceinline__ void load_tile(char *tile, rows_of<const bf16> from, int64_t row, int n_row, int64_t column,
                                          int width, bool aligned)
{
    const int thread = threadIdx.x % N_THREADS;
#pragma unroll
    for (int i = 0; i < Q * 8 / N_THREADS; i++) {
        const int r = (thread + i * N_THREADS) / 8, piece = thread % 8;
        char *to = tile + tile_at(r, piece, 0);
        const bf16 *at = from.data + (row + r) * from.ld + column + piece * 8;
        if (aligned) {
            const bool valid = r < n_row && piece * 8 < width;
            copy_16(shared_address(to), valid ? at : from.data, valid);
            continue;
        }
        uint32_t pairs[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int at_column = piece * 8 + 2 * k;
            const float a = r < n_row && at_column < width ? to_float(at[2 * k]) : 0.0f;
            const float b = r < n_row && at_column + 1 < width ? to_float(at[2 * k + 1]) : 0.0f;
            pairs[k] = pack(a, b);
        }
        *(uint4 *)to = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

/* What stands in the warp's 16 rows of a gradient, in pieces of 16 bytes; asked for early, as memory is far. */
struct row_pieces {
    uint4 half[2][2]; /* rows g and g + 8: pieces q and q + 4 */
};

__device__ __forceinline__ row_pieces fetch_rows(rows_of<bf16> from, int64_t row, int n_row, int64_t column, int width,
                                                 int m, bool wanted, const place &p)
{
    row_pieces pieces = {};
    if (wanted)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int r = m + p.g + 8 * half, piece = p.q + 4 * i;
                if (r < n_row && piece * 8 < width)
                    pieces.half[half][i] = *(const uint4 *)(from.data + (row + r) * from.ld + column + piece * 8);
            }
    return pieces;
}

/* sums += the pieces; the quad swaps them so that each lane gets the pairs that it sums. */
__device__ __forceinline__ void add_pieces(tile_sums &sums, const row_pieces &pieces, const place &p)
{
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 piece = pieces.half[half][i];
            uint32_t v[4] = {piece.x, piece.y, piece.z, piece.w};
            quad_transpose(v, p.q);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                sums[4 * i + n][2 * half] += low_half(v[n]);
                sums[4 * i + n][2 * half + 1] += high_half(v[n]);
            }
        }
}

/* The warp's 16 rows, from row m of the chunk on, to `to`; the quad swaps its pairs so that each lane writes 16 bytes. */
__device__ __forceinline__ void store_rows(rows_of<bf16> to, int64_t row, int n_row, int64_t column, int width,
                                           const tile_sums &sums, int m, const place &p)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int r = m + p.g + 8 * half;
        bf16 *at = to.data + (row + r) * to.ld + column;
#pragma unroll
        for (int n = 0; n < 8; n += 4) {
            uint32_t v[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = pack(sums[n + i][2 * half], sums[n + i][2 * half + 1]);
            quad_transpose(v, p.q);
            if (r < n_row && (n + p.q) * 8 < width)
                *(uint4 *)(at + (n + p.q) * 8) = make_uint4(v[0], v[1], v[2], v[3]);
        }
    }
}

/* The same element by element, where rows are not aligned. */
__device__ __forceinline__ void store_elements(rows_of<bf16> to, int64_t row, int n_row, int64_t column, int width,
                                               const tile_sums &sums, int m, bool add, const place &p)
{
#pragma unroll
    for (int i = 0; i < 32; i++) {
        const int r = m + p.g + i / 2 % 2 * 8, at_column = i / 4 * 8 + 2 * p.q + i % 2;
        if (r >= n_row || at_column >= width)
            continue;
        bf16 *at = to.data + (row + r) * to.ld + column + at_column;
        *at = from_float<bf16>(sums[i / 4][i % 4] + (add ? to_float(*at) : 0.0f));
    }
}

/* A gradient's rows; `before` is what fetch_rows() gave. */
__device__ __forceinline__ void put_rows(rows_of<bf16> to, int64_t row, int n_row, int64_t column, int width,
                                         tile_sums &sums, const row_pieces &before, int m, bool add, bool aligned,
                                         const place &p)
{
    if (!aligned) {
        store_elements(to, row, n_row, column, width, sums, m, add, p);
        return;
    }
    if (add)
        add_pieces(sums, before, p);
    store_rows(to, row, n_row, column, width, sums, m, p);
}

/* The same to fp32 rows; pairs where all of them begin at 8 bytes. */
__device__ __forceinline__ void store_sums(float *to, int64_t ld, int n_row, int width, bool pairs,
                                           const tile_sums &sums, int m, const place &p)
{
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int r = m + p.g + i % 2 * 8, column = i / 2 * 8 + 2 * p.q;
        const float left = sums[i / 2][i % 2 * 2], right = sums[i / 2][i % 2 * 2 + 1];
        float *at = to + r * ld + column;
        if (r >= n_row || column >= width)
            continue;
        if (pairs) {
            *(float2 *)at = make_float2(left, right);
            continue;
        }
        at[0] = left;
        if (column + 1 < width)
            at[1] = right;
    }
}

/* sums += scale times the tile's rows m + g, m + g + 8. */
__device__ __forceinline__ void add_rows(tile_sums &sums, const char *tile, float scale, int m, const place &p)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t pair = *(const uint32_t *)(tile + tile_at(m + p.g + 8 * half, n, p.q));
            sums[n][2 * half] += scale * low_half(pair);
            sums[n][2 * half + 1] += scale * high_half(pair);
        }
}

/* state = whole state + left^T (scale right): h with x, delta exp(S[end] - S), B; dh with dy, exp(S), C. */
template <int NT>
__device__ __forceinline__ void advance(tile_sums (&state)[NT], uint32_t left, uint32_t right, const float *scale,
                                        float whole, const place &p)
{
#pragma unroll
    for (int t = 0; t < NT; t++)
        scale_rows(state[t], whole, whole);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        uint32_t a[4];
        load_left_transposed(a, left, p.lanes, p.warp, k);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 s = *(const float2 *)(scale + 16 * k + 8 * (i / 2) + 2 * p.q);
            a[i] = pack(s.x * low_half(a[i]), s.y * high_half(a[i]));
        }
#pragma unroll
        for (int t = 0; t < NT; t++)
            multiply_step<false>(state[t], a, right + t * TILE_BYTES, p.lanes, k, 0, 4);
    }
}

/* The N columns of B or C into NT tiles. */
template <int NT, int N_THREADS>
__device__ __forceinline__ void load_states(char *tiles, rows_of<const bf16> from, int64_t row, int n_row,
                                            const ssd_call<bf16> &c, const head_of &h)
{
#pragma unroll
    for (int t = 0; t < NT; t++)
        load_tile<N_THREADS>(tiles + t * TILE_BYTES, from, row, n_row, (int64_t)h.group * c.N + c.n_first + t * TILE_SIDE,
                             c.N - c.n_first - t * TILE_SIDE,
                  c.aligned);
}

/* M of rows 16 r ..: what sums holds of C B^T times decay and delta, packed. Columns past 16 (r + 1) stay as they are. */
__device__ __forceinline__ void mix(tile_rows &mixed, tile_sums &sums, const ssd_decays &d, int own, int r, const place &p)
{
    const int i = 16 * r + p.g, first = d.first[i], first_lower = d.first[i + 8];
    const float upper = d.s[i], lower = d.s[i + 8];
#pragma unroll
    for (int n = 0; n < 8; n++) {
        if (n > 2 * r + 1)
            continue;
        const int j = 8 * n + 2 * p.q;
        const float2 at = *(const float2 *)(d.s + j), delta = *(const float2 *)(d.delta + j);
        const bool sees[4] = {j < i + own && j >= first, j + 1 < i + own && j + 1 >= first,
                              j < i + 8 + own && j >= first_lower, j + 1 < i + 8 + own && j + 1 >= first_lower};
        sums[n][0] = sees[0] ? sums[n][0] * exp2_fast(upper - at.x) * delta.x : 0.0f;
        sums[n][1] = sees[1] ? sums[n][1] * exp2_fast(upper - at.y) * delta.y : 0.0f;
        sums[n][2] = sees[2] ? sums[n][2] * exp2_fast(lower - at.x) * delta.x : 0.0f;
        sums[n][3] = sees[3] ? sums[n][3] * exp2_fast(lower - at.y) * delta.y : 0.0f;
    }
    pack_rows(mixed, sums);
}

#endif
