/* ssd_groups.cuh - what the kernels of the Mamba-2 recurrence by groups share: ssd_groups.cu, for every GPU with tensor cores, and
 * ssd_groups_wgmma.cu, for Hopper. A block's chunk and its pieces of heads; shared memory of the gradients, and the sums that ddt
 * comes from. ssd_groups.cu has the idea and the formulas. */
#ifndef CAB_OPS_CUDA_SSD_GROUPS_CUH
#define CAB_OPS_CUDA_SSD_GROUPS_CUH

#include "ops/cuda/ssd_tiles.cuh"

enum { GROUP_WARPS = 8, GROUP_THREADS = 32 * GROUP_WARPS };

/* ---- a chunk and its heads --------------------------------------------------------------------------------------------- */

/* The block's chunk and pieces of heads, counted over all heads. */
struct chunk_of {
    int64_t row, sequence; /* of its first token */
    int chunk, n_row, group, begin, end;
    int64_t part;                       /* which partial dB, dC of the group the block gives */
    bool first, last;
};

__device__ __forceinline__ chunk_of chunk_here(const ssd_call<bf16> &c, int slices)
{
    chunk_of k;
    const int groups = c.H / c.heads, slice = (int)(blockIdx.x % (unsigned)slices);
    const int64_t index = blockIdx.x / (unsigned)slices;
    k.group = (int)(index % groups);
    k.chunk = (int)(index / groups % c.chunks);
    k.sequence = index / groups / c.chunks;
    k.row = k.sequence * c.L + (int64_t)k.chunk * Q;
    k.n_row = rows_in(c, k.chunk);
    k.begin = (k.group * c.heads + c.heads * slice / slices) * c.pieces;
    k.end = (k.group * c.heads + c.heads * (slice + 1) / slices) * c.pieces;
    k.part = (int64_t)k.group * slices + slice;
    k.first = k.chunk == 0;
    k.last = k.chunk == c.chunks - 1;
    return k;
}

/* Heads are of one piece as a rule, and divisions dear. */
__device__ __forceinline__ int head_of_piece(const ssd_call<bf16> &c, int piece)
{
    return c.pieces == 1 ? piece : piece / c.pieces;
}

/* A piece on its turn: `at` counts those of all heads. */
struct piece_of {
    int at, turn, head, first; /* turn: of the block's; first: column of P */
};

__device__ __forceinline__ piece_of piece_at(const ssd_call<bf16> &c, const chunk_of &k, int at)
{
    const int head = head_of_piece(c, at);
    return {at, at - k.begin, head, (at - head * c.pieces) * TILE_SIDE};
}

__device__ __forceinline__ int64_t column_of(const ssd_call<bf16> &c, const piece_of &v)
{
    return (int64_t)v.head * c.P + v.first;
}

/* Which of two buffers has the sums of the piece's head. */
__device__ __forceinline__ int sums_of(const ssd_call<bf16> &c, const piece_of &v)
{
    return head_of_piece(c, v.turn) & 1;
}

__device__ __forceinline__ head_of head_in(const ssd_call<bf16> &c, const chunk_of &k, int head)
{
    return {k.sequence * c.L, head, k.group};
}

__device__ __forceinline__ ssd_raw<bf16> read_steps(const ssd_call<bf16> &c, const chunk_of &k, const piece_of &v, int lane)
{
    return read_decays(c, head_in(c, k, v.head), k.chunk, lane);
}

__device__ __forceinline__ void make_steps(ssd_decays *d, const ssd_call<bf16> &c, const piece_of &v, const ssd_raw<bf16> &raw,
                                           int lane)
{
    ssd_make_decays(d, raw, ssd_rate(c, v.head), !c.A_log, lane);
}

/* Where the state of a piece begins among all of a call's. */
__device__ __forceinline__ int64_t state_at(const ssd_call<bf16> &c, const chunk_of &k, const piece_of &v)
{
    return (k.sequence * c.H * c.pieces + v.at) * c.chunks + k.chunk;
}

/* The warp's 16 rows of a tile of a state to memory, in bf16, as tiles stand in shared memory. */
__device__ __forceinline__ void save_tile(uint4 *to, const float (*state)[4], const place &p)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = 16 * p.warp + p.g + 8 * half;
#pragma unroll
        for (int n = 0; n < 8; n += 4) {
            uint32_t v[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = pack(state[n + i][2 * half], state[n + i][2 * half + 1]);
            quad_transpose(v, p.q);
            to[tile_at(row, n + p.q, 0) / 16] = make_uint4(v[0], v[1], v[2], v[3]);
        }
    }
}

/* ---- gradients --------------------------------------------------------------------------------------------------------- */

/* What ddt of a head comes from. */
struct alignas(16) head_sums {
    float of_rows[WARPS][Q], of_columns[Q]; /* of dG * G, per i, in parts, and per j */
    float from_C[Q], from_B[Q];             /* E <dy h, C>, delta W <x dh, B> per token */
    float through_u[Q], D[Q];               /* <du, x>, <x, dy> per token */
    float end[GROUP_WARPS];                 /* exp(S[end]) <h, dh>, in parts */
};

/* Shared memory of a block. Of pieces STAGES by turns and of the sums of heads two; three of the decays, which are read longest. */
template <int NT, int STAGES> struct group_tiles {
    char B[NT * TILE_BYTES], C[NT * TILE_BYTES];
    struct stage {
        char x[TILE_BYTES], dy[TILE_BYTES], state[NT * TILE_BYTES], dstate[NT * TILE_BYTES];
    } stages[STAGES];
    ssd_decays decays[3];
    head_sums sums[2];
};

/* Of the first chunk's state and the last one's dstate, which are zero and not in memory, zeros. */
template <int N_THREADS, int NT, int STAGES>
__device__ __forceinline__ void load_piece(group_tiles<NT, STAGES> &shared, const ssd_call<bf16> &c, const chunk_of &k,
                                           const uint4 *states, const uint4 *dstates, const piece_of &v)
{
    enum { PIECES = NT * TILE_BYTES / 16 };
    auto &stage = shared.stages[v.turn % STAGES];
    const int64_t at = state_at(c, k, v) * PIECES;
    load_tile<N_THREADS>(stage.x, c.x, k.row, k.n_row, column_of(c, v), c.P - v.first, c.aligned);
    load_tile<N_THREADS>(stage.dy, c.dy, k.row, k.n_row, column_of(c, v), c.P - v.first, c.aligned);
#pragma unroll
    for (int i = threadIdx.x % N_THREADS; i < PIECES; i += N_THREADS) {
        copy_16(shared_address(stage.state) + i * 16, states + at + i, !k.first);
        copy_16(shared_address(stage.dstate) + i * 16, dstates + at + i, !k.last);
    }
}

/* to = value, or with `add` to += value: the pieces of a head add up. */
__device__ __forceinline__ void leave(float &to, float value, bool add)
{
    to = add ? to + value : value;
}

/* The sums over the quad of two values, to rows m + g and m + g + 8 of `to`. */
__device__ __forceinline__ void leave_rows(float *to, float upper, float lower, int m, bool add, const place &p)
{
    upper = quad_sum(upper);
    lower = quad_sum(lower);
    if (p.q == 0) {
        leave(to[m + p.g], upper, add);
        leave(to[m + p.g + 8], lower, add);
    }
}

/* What warps 0 to 3 keep: G^T, and the sum of dG^T. */
struct shared_products {
    tile_sums G, dG;
};

/* Sums over the eight lanes g of v[n][e]; lane g gets those of n = g. */
__device__ __forceinline__ float2 sum_columns(float (&v)[8][2], const place &p)
{
#pragma unroll
    for (int half = 4; half > 0; half /= 2)
#pragma unroll
        for (int n = 0; n < half; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const bool upper = p.g & half;
                const float got = __shfl_xor_sync(0xffffffffu, upper ? v[n][e] : v[n + half][e], 4 * half);
                v[n][e] = (upper ? v[n + half][e] : v[n][e]) + got;
            }
    return make_float2(v[0][0], v[0][1]);
}

/* This lane's part of the trace of 16 x 16 sums. */
__device__ __forceinline__ float trace(const float (&left)[4], const float (&right)[4], const place &p)
{
    return (p.g == 2 * p.q ? left[0] + right[2] : 0.0f) + (p.g == 2 * p.q + 1 ? left[1] + right[3] : 0.0f);
}

/* <x, dy> of the warp's tokens, the diagonal of x dy^T. */
__device__ __forceinline__ void leave_diagonal(float *to, const tile_sums &product, bool add, const place &p)
{
#pragma unroll
    for (int w = 0; w < WARPS; w++)
        if (w == p.warp && p.g / 2 == p.q) {
            const float *upper = product[2 * w], *lower = product[2 * w + 1];
            leave(to[16 * w + p.g], p.g % 2 ? upper[1] : upper[0], add);
            leave(to[16 * w + p.g + 8], p.g % 2 ? lower[3] : lower[2], add);
        }
}

/* M^T of rows j = 16 r .., without delta; dG^T, from x dy^T, to the sum; the row sums of dG * G, per i. Returns this lane's
 * part of the column sums without delta, of rows g and g + 8: <M^T dy, x>. */
__device__ __forceinline__ float2 mix_piece(head_sums &sums, bool add, const ssd_decays &d, tile_rows &mixed,
                                            const tile_sums &dproduct, shared_products &keep, const ssd_call<bf16> &c,
                                            bool steps, const place &p)
{
    const int j = 16 * p.warp + p.g;
    const float upper = d.s[j], lower = d.s[j + 8], delta = d.delta[j], delta_lower = d.delta[j + 8];
    float of_rows[8][2] = {}, up = 0.0f, low = 0.0f;
    tile_sums product;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        if (n < 2 * p.warp) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                product[n][e] = 0.0f;
            continue;
        }
        const int i = 8 * n + 2 * p.q;
        const float2 at = *(const float2 *)(d.s + i);
        float decay[4] = {at.x - upper, at.y - upper, at.x - lower, at.y - lower}, z[4];
        if (c.starts || n < 2 * p.warp + 2) {
            const int2 first = *(const int2 *)(d.first + i);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int token = i + e % 2, of = e % 2 ? first.y : first.x, by = j + e / 2 * 8;
                decay[e] = token + c.own > by && of <= by ? decay[e] : -INFINITY;
            }
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            decay[e] = exp2_fast(decay[e]);
            product[n][e] = keep.G[n][e] * decay[e];
            z[e] = product[n][e] * dproduct[n][e];
            keep.dG[n][e] += (e < 2 ? delta : delta_lower) * (dproduct[n][e] * decay[e]);
        }
        up += z[0] + z[1];
        low += z[2] + z[3];
        of_rows[n][0] = delta * z[0] + delta_lower * z[2];
        of_rows[n][1] = delta * z[1] + delta_lower * z[3];
    }
    pack_rows(mixed, product);
    if (steps) {
        const float2 of_row = sum_columns(of_rows, p);
        leave(sums.of_rows[p.warp][8 * p.g + 2 * p.q], of_row.x, add);
        leave(sums.of_rows[p.warp][8 * p.g + 2 * p.q + 1], of_row.y, add);
    }
    return make_float2(up, low);
}

/* This lane's part of <h, dh>: the trace of h dh^T, of which a warp has 16 rows and PARTS warps share the depth. */
template <int NT, int PARTS>
__device__ __forceinline__ float state_product(uint32_t h, uint32_t dh, int part, const place &p)
{
    float left[4] = {}, right[4] = {};
#pragma unroll
    for (int i = 0; i < 4 * NT / PARTS; i++) {
        const int step = part * (4 * NT / PARTS) + i;
        uint32_t a[4], b[4];
        load_left(a, h + step / 4 * TILE_BYTES, p.lanes, p.warp, step % 4);
        load_matrices(b, dh + step / 4 * TILE_BYTES + p.warp * 16 * TILE_ROW_BYTES + p.lanes.columns_first +
                             ((uint32_t)(step % 4 * 32) ^ p.lanes.columns_piece));
        mma(left, a, b[0], b[1]);
        mma(right, a, b[2], b[3]);
    }
    return trace(left, right, p);
}

/* ddt of a head whose parts all warps have left in shared memory, <h, dh> in PARTS, and its sums over the chunk, by one warp;
 * v: the head's last piece. */
template <int PARTS, int NT, int STAGES>
__device__ __forceinline__ void finish_head(const group_tiles<NT, STAGES> &shared, const ssd_call<bf16> &c, const chunk_of &k,
                                            const piece_of &v, bool steps, int lane)
{
    const head_sums &sums = shared.sums[sums_of(c, v)];
    const int64_t at = (k.sequence * c.chunks + k.chunk) * c.H + v.head;
    const float dD = warp_sum(sums.D[2 * lane] + sums.D[2 * lane + 1]);
    if (lane == 0 && !c.more)
        c.dD[at] = dD;
    if (!steps)
        return;
    float difference[2], end = warp_sum(sums.from_B[2 * lane] + sums.from_B[2 * lane + 1]); /* <h_end, dh> */
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int t = 2 * lane + i;
        difference[i] = sums.from_C[t] - sums.from_B[t] - sums.of_columns[t];
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            difference[i] += sums.of_rows[w][t];
    }
#pragma unroll
    for (int w = 0; w < PARTS; w++)
        end += sums.end[w];
    const ssd_step_sums of_steps =
        ssd_write_decays(c, k.row, k.n_row, v.head, make_float2(difference[0], difference[1]),
                         ((const float2 *)sums.through_u)[lane], end, &shared.decays[v.turn % 3], lane);
    if (lane == 0 && c.dA_log)
        leave(c.dA_log[at], of_steps.dA_log, c.more);
    if (lane == 0 && c.ddt_bias)
        leave(c.ddt_bias[at], of_steps.ddt_bias, c.more);
}

/* Rows 16 r .. of dB or dC, tile t: to the gradient, or as the block's part of it. */
__device__ __forceinline__ void store_group(rows_of<bf16> to, float *parts, const ssd_call<bf16> &c, const chunk_of &k,
                                            int slices, tile_sums &sums, int t, bool add, const place &p)
{
    const int m = 16 * p.warp, column = c.n_first + t * TILE_SIDE, width = c.N - column;
    const int64_t parts_ld = (int64_t)(c.H / c.heads) * slices * c.N;
    if (!to.data)
        return;
    if (parts) {
        store_sums(parts + k.row * parts_ld + k.part * c.N + column, parts_ld, k.n_row, width, c.N % 2 == 0, sums, m, p);
        return;
    }
    const int64_t at = (int64_t)k.group * c.N + column;
    const row_pieces before = fetch_rows(to, k.row, k.n_row, at, width, m, add && c.aligned, p);
    put_rows(to, k.row, k.n_row, at, width, sums, before, m, add, c.aligned, p);
}

/* ssd_groups_wgmma.cu: the gradients of a call whose states are in memory, of one tile or two. */
size_t ssd_groups_wgmma_bytes(void); /* of shared memory */
cab_status ssd_groups_wgmma_backward(const ssd_call<bf16> &c, const ssd_group_scratch &w, cab_backend *backend);

#endif
