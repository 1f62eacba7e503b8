/* ssd_tiles.cu - the discrete Mamba-2 recurrence on tensor cores: bf16, P and N up to 64 (padded with zeros to 64).
 *
 * A block of four warps is one head of one sequence and walks its chunks of 64 tokens, the next chunk's rows on their way
 * into shared memory meanwhile. The state (P, N) stays in registers in fp32, 16 rows per warp, with a bf16 copy in shared
 * memory for the products that read it. Within a chunk a warp owns 16 tokens, another 16 every chunk, since the causal
 * half of the work is uneven.
 *
 *   forward    y, with the state carried along
 *   backward   1. the states at the starts of chunks, bf16, to scratch
 *              2. from the last chunk to the first with dh carried along: dx, dB, dC, da, dD (src/ops/cpu/ssd.c has the
 *                 formulas). Of a chunk, <h_end, dh> = sum over tokens of B . dB through the state + exp(S) <h_start, dh>:
 *                 taken so, the sums that da is the difference of hold the same rounded products, and cancel.
 *
 * Per head and chunk: bytes forward 4 x 8 KiB; backward 2 x 8 + 8 KiB and 5 x 8 + 3 x 8 KiB. Products of 64^3 forward 4 of
 * which 2 are half empty, backward 1 + 9 of which 5 are. At B 8, L 2048, H 32 that is 0.27 GB and 0.70 GB (0.23 ms at
 * 4.2 TB/s), 58 GFLOP. */
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

/* The block's head. */
struct head_of {
    int64_t first; /* row of the sequence's first token */
    int head, group;
};

template <typename T> __device__ __forceinline__ head_of head_here(const ssd_call<T> &c)
{
    const int head = (int)(blockIdx.x % (unsigned)c.H);
    return {(int64_t)(blockIdx.x / (unsigned)c.H) * c.L, head, head / c.heads};
}

__device__ __forceinline__ int rows_in(const ssd_call<bf16> &c, int chunk)
{
    const int64_t left = c.L - (int64_t)chunk * Q;
    return left < Q ? (int)left : Q;
}

/* Rows of a chunk into a tile; zeros past them and past `width` columns. */
__device__ __forceinline__ void load_tile(char *tile, rows_of<const bf16> from, int64_t row, int n_row, int64_t column,
                                          int width, bool aligned)
{
#pragma unroll
    for (int i = 0; i < Q * 8 / THREADS; i++) {
        const int r = (threadIdx.x + i * THREADS) / 8, piece = threadIdx.x % 8;
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

/* The warp's 16 rows, from row m of the chunk on, to `to`; the quad swaps its pairs so that each lane writes 16 bytes. */
__device__ __forceinline__ void store_rows(rows_of<bf16> to, int64_t row, int n_row, int64_t column, int width,
                                           tile_sums &sums, int m, bool add, bool aligned, const place &p)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int r = m + p.g + 8 * half;
        bf16 *at = to.data + (row + r) * to.ld + column;
        if (add || !aligned)
#pragma unroll
            for (int i = 0; i < 16; i++) {
                const int at_column = i / 2 * 8 + 2 * p.q + i % 2;
                float &value = sums[i / 2][2 * half + i % 2];
                if (r >= n_row || at_column >= width)
                    continue;
                if (add)
                    value += to_float(at[at_column]);
                if (!aligned)
                    at[at_column] = from_float<bf16>(value);
            }
        if (!aligned)
            continue;
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

/* The same to fp32 rows. */
__device__ __forceinline__ void store_sums(float *to, int64_t ld, int n_row, int width, const tile_sums &sums, int m,
                                           const place &p)
{
#pragma unroll
    for (int i = 0; i < 32; i++) {
        const int r = m + p.g + i / 2 % 2 * 8, column = i / 4 * 8 + 2 * p.q + i % 2;
        if (r < n_row && column < width)
            to[r * ld + column] = sums[i / 4][i % 4];
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

/* The bf16 copy of the warp's 16 rows of a state. */
__device__ __forceinline__ void write_state(char *tile, const tile_sums &state, const place &p)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            *(uint32_t *)(tile + tile_at(16 * p.warp + p.g + 8 * half, n, p.q)) =
                pack(state[n][2 * half], state[n][2 * half + 1]);
}

/* state = whole state + left^T (scale right): h with x, exp(S[end] - S), B; dh with dy, exp(S), C. */
__device__ __forceinline__ void advance(tile_sums &state, uint32_t left, uint32_t right, const float *scale,
                                        float whole, const place &p)
{
    scale_rows(state, whole, whole);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        uint32_t a[4];
        load_left_transposed(a, left, p.lanes, p.warp, k);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 s = *(const float2 *)(scale + 16 * k + 8 * (i / 2) + 2 * p.q);
            a[i] = pack(s.x * low_half(a[i]), s.y * high_half(a[i]));
        }
        multiply_step<false>(state, a, right, p.lanes, k, 0, 4);
    }
}

/* ---- forward, and the states for the backward pass -------------------------------------------------------------------- */

/* Shared memory of the forward walk. */
template <bool OUTPUT> struct forward_tiles {
    struct stage {
        char x[TILE_BYTES], B[TILE_BYTES], C[OUTPUT ? TILE_BYTES : 128];
    } stages[2];
    char state[2][TILE_BYTES];
    ssd_decays decays[2];
};

template <bool OUTPUT>
__device__ __forceinline__ void load_chunk(forward_tiles<OUTPUT> &shared, const ssd_call<bf16> &c, const head_of &h,
                                           int chunk)
{
    const int64_t row = h.first + (int64_t)chunk * Q;
    const int n_row = rows_in(c, chunk);
    auto &stage = shared.stages[chunk & 1];
    load_tile(stage.x, c.x, row, n_row, (int64_t)h.head * c.P, c.P, c.aligned);
    load_tile(stage.B, c.B, row, n_row, (int64_t)h.group * c.N, c.N, c.aligned);
    if (OUTPUT)
        load_tile(stage.C, c.C, row, n_row, (int64_t)h.group * c.N, c.N, c.aligned);
    copies_commit();
}

/* M of rows 16 r ..: what sums holds of C B^T times the decay, packed. Columns past 16 (r + 1) stay as they are. */
__device__ __forceinline__ void mix(tile_rows &mixed, tile_sums &sums, const float *s, int r, const place &p)
{
    const int i = 16 * r + p.g;
    const float upper = s[i], lower = s[i + 8];
#pragma unroll
    for (int n = 0; n < 8; n++) {
        if (n > 2 * r + 1)
            continue;
        const int j = 8 * n + 2 * p.q;
        const float2 at = *(const float2 *)(s + j);
        sums[n][0] = j <= i ? sums[n][0] * exp2_fast(upper - at.x) : 0.0f;
        sums[n][1] = j + 1 <= i ? sums[n][1] * exp2_fast(upper - at.y) : 0.0f;
        sums[n][2] = j <= i + 8 ? sums[n][2] * exp2_fast(lower - at.x) : 0.0f;
        sums[n][3] = j + 1 <= i + 8 ? sums[n][3] * exp2_fast(lower - at.y) : 0.0f;
    }
    pack_rows(mixed, sums);
}

/* y of rows 16 r .. of a chunk. */
__device__ __forceinline__ void output_rows(forward_tiles<true> &shared, const ssd_call<bf16> &c, const head_of &h,
                                            int chunk, int r, float D, const place &p)
{
    const auto &stage = shared.stages[chunk & 1];
    const ssd_decays &d = shared.decays[chunk & 1];
    tile_rows a;
    tile_sums y, product;
    clear(y);
    clear(product);
    load_rows(a, shared_address(stage.C), p.lanes, r);
    if (chunk > 0) {
        multiply_transposed(y, a, shared_address(shared.state[chunk & 1]), p.lanes, 0, 4);
        scale_rows(y, d.from_start[16 * r + p.g], d.from_start[16 * r + p.g + 8]);
    }
    multiply_transposed(product, a, shared_address(stage.B), p.lanes, 0, r + 1);
    mix(a, product, d.s, r, p);
    multiply(y, a, shared_address(stage.x), p.lanes, 0, r + 1);
    add_rows(y, stage.x, D, 16 * r, p);
    store_rows(c.y, h.first + (int64_t)chunk * Q, rows_in(c, chunk), (int64_t)h.head * c.P, c.P, y, 16 * r, false,
               c.aligned, p);
}

/* OUTPUT: y. Else the bf16 states at the start of every chunk but the first, as tiles stand in shared memory. */
template <bool OUTPUT>
static __global__ void __launch_bounds__(THREADS, OUTPUT ? 3 : 4) walk_forward(ssd_call<bf16> c, uint4 *states)
{
    extern __shared__ __align__(128) char memory[];
    forward_tiles<OUTPUT> &shared = *(forward_tiles<OUTPUT> *)memory;
    const place p = here();
    const head_of h = head_here(c);
    const float D = c.D[h.head];
    const int last = c.chunks - 1;
    tile_sums state;
    float2 a_log = make_float2(0.0f, 0.0f);
    clear(state);
    load_chunk(shared, c, h, 0);
    if (p.warp == 0)
        ssd_make_decays(&shared.decays[0], ssd_read_decays(c.a_log, h.first, rows_in(c, 0), h.head, p.lane), p.lane);
    for (int chunk = 0; chunk <= last; chunk++) {
        const int r = (p.warp + chunk) % WARPS, now = chunk & 1, next = now ^ 1;
        copies_wait();
        __syncthreads();
        if (chunk < last) {
            load_chunk(shared, c, h, chunk + 1);
            if (r == 0)
                a_log =
                    ssd_read_decays(c.a_log, h.first + (int64_t)(chunk + 1) * Q, rows_in(c, chunk + 1), h.head, p.lane);
        }
        if constexpr (OUTPUT)
            output_rows(shared, c, h, chunk, r, D, p);
        else if (chunk > 0)
#pragma unroll
            for (int i = threadIdx.x; i < TILE_BYTES / 16; i += THREADS)
                states[((int64_t)blockIdx.x * c.chunks + chunk) * (TILE_BYTES / 16) + i] =
                    ((const uint4 *)shared.state[now])[i];
        if (chunk == last)
            break;
        const ssd_decays &d = shared.decays[now];
        advance(state, shared_address(shared.stages[now].x), shared_address(shared.stages[now].B), d.to_end,
                d.from_start[Q - 1], p);
        write_state(shared.state[next], state, p);
        if (r == 0)
            ssd_make_decays(&shared.decays[next], a_log, p.lane);
    }
}

/* ---- backward ---------------------------------------------------------------------------------------------------------- */

/* Shared memory of the backward walk. dG stands as (j, i). */
template <int STAGES> struct backward_tiles {
    struct stage {
        char x[TILE_BYTES], B[TILE_BYTES], C[TILE_BYTES], dy[TILE_BYTES], state[TILE_BYTES];
    } stages[STAGES];
    char dstate[TILE_BYTES], dG[TILE_BYTES];
    ssd_decays decays[2];
    float from_C[2][Q], from_B[2][Q]; /* C . dC, B . dB per token */
    float ends[2][WARPS];             /* <h_end, dh>, in parts */
};

/* One chunk of a head. */
template <int STAGES> struct chunk_of {
    backward_tiles<STAGES> &shared;
    typename backward_tiles<STAGES>::stage &stage;
    const ssd_decays &d;
    int64_t row;
    int chunk, n_row, r;
    bool first, last;
};

template <int STAGES>
__device__ __forceinline__ void load_chunk(backward_tiles<STAGES> &shared, const ssd_call<bf16> &c, const uint4 *states,
                                           const head_of &h, int chunk)
{
    const int64_t row = h.first + (int64_t)chunk * Q;
    const int n_row = rows_in(c, chunk);
    auto &stage = shared.stages[STAGES == 2 ? chunk & 1 : 0];
    load_tile(stage.x, c.x, row, n_row, (int64_t)h.head * c.P, c.P, c.aligned);
    load_tile(stage.B, c.B, row, n_row, (int64_t)h.group * c.N, c.N, c.aligned);
    load_tile(stage.C, c.C, row, n_row, (int64_t)h.group * c.N, c.N, c.aligned);
    load_tile(stage.dy, c.dy, row, n_row, (int64_t)h.head * c.P, c.P, c.aligned);
    if (chunk > 0)
#pragma unroll
        for (int i = threadIdx.x; i < TILE_BYTES / 16; i += THREADS)
            copy_16(shared_address(stage.state) + i * 16,
                    states + ((int64_t)blockIdx.x * c.chunks + chunk) * (TILE_BYTES / 16) + i, true);
    copies_commit();
}

/* M^T and dG^T of rows j = 16 r .., from B C^T and x dy^T; columns before 16 r stay as they are. dG also to its tile. */
template <int STAGES>
__device__ __forceinline__ void mix_transposed(const chunk_of<STAGES> &k, tile_rows &mixed, tile_rows &dG,
                                               tile_sums &product, tile_sums &dproduct, const place &p)
{
    const float *s = k.d.s;
    const int j = 16 * k.r + p.g;
    const float upper = s[j], lower = s[j + 8];
#pragma unroll
    for (int n = 0; n < 8; n++) {
        if (n < 2 * k.r)
            continue;
        const int i = 8 * n + 2 * p.q;
        const float2 at = *(const float2 *)(s + i);
        const float decay[4] = {i >= j ? exp2_fast(at.x - upper) : 0.0f, i + 1 >= j ? exp2_fast(at.y - upper) : 0.0f,
                                i >= j + 8 ? exp2_fast(at.x - lower) : 0.0f,
                                i + 1 >= j + 8 ? exp2_fast(at.y - lower) : 0.0f};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            product[n][e] *= decay[e];
            dproduct[n][e] *= decay[e];
        }
    }
    pack_rows(mixed, product);
    pack_rows(dG, dproduct);
#pragma unroll
    for (int n = 0; n < 8; n++)
        if (n >= 2 * k.r)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *(uint32_t *)(k.shared.dG + tile_at(j + 8 * half, n, p.q)) = dG[n / 2][n % 2 * 2 + half];
}

/* dB or dC of the warp's rows, where they are wanted; the group's sum over heads comes later. */
__device__ __forceinline__ void store_group(rows_of<bf16> to, float *heads, const ssd_call<bf16> &c, const head_of &h,
                                            int64_t row, int n_row, tile_sums &sums, int m, bool add, const place &p)
{
    if (heads)
        store_sums(heads + row * c.H * c.N + (int64_t)h.head * c.N, (int64_t)c.H * c.N, n_row, c.N, sums, m, p);
    else if (to.data)
        store_rows(to, row, n_row, (int64_t)h.group * c.N, c.N, sums, m, add, c.aligned, p);
}

/* Tokens as j: dx and dB of rows 16 r .., dG to its tile. Returns this lane's part of the sum of B . dB through the
 * state. */
template <int STAGES>
__device__ __forceinline__ float column_gradients(const chunk_of<STAGES> &k, const ssd_call<bf16> &c, const head_of &h,
                                                  float D, const place &p)
{
    const int m = 16 * k.r, j = m + p.g;
    const float upper = k.d.to_end[j], lower = k.d.to_end[j + 8];
    const uint32_t dstate = shared_address(k.shared.dstate);
    tile_rows B, x, mixed, dG;
    tile_sums sums, product;
    load_rows(B, shared_address(k.stage.B), p.lanes, k.r);
    load_rows(x, shared_address(k.stage.x), p.lanes, k.r);
    clear(sums);
    clear(product);
    multiply_transposed(product, B, shared_address(k.stage.C), p.lanes, k.r, 4);
    multiply_transposed(sums, x, shared_address(k.stage.dy), p.lanes, k.r, 4);
    mix_transposed(k, mixed, dG, product, sums, p);
    if (c.dx.data) {
        clear(sums);
        if (!k.last) {
            multiply_transposed(sums, B, dstate, p.lanes, 0, 4);
            scale_rows(sums, upper, lower);
        }
        multiply(sums, mixed, shared_address(k.stage.dy), p.lanes, k.r, 4);
        add_rows(sums, k.stage.dy, D, m, p);
        store_rows(c.dx, k.row, k.n_row, (int64_t)h.head * c.P, c.P, sums, m, c.add_x, c.aligned, p);
    }
    float up = 0.0f, low = 0.0f;
    clear(sums);
    if (!k.last) {
        multiply(sums, x, dstate, p.lanes, 0, 4);
        scale_rows(sums, upper, lower);
        row_products(sums, B, up, low);
    }
    const float through = up + low;
    multiply(sums, dG, shared_address(k.stage.C), p.lanes, k.r, 4);
    row_products(sums, B, up, low);
    up = quad_sum(up);
    low = quad_sum(low);
    if (p.q == 0) {
        k.shared.from_B[k.chunk & 1][j] = up;
        k.shared.from_B[k.chunk & 1][j + 8] = low;
    }
    store_group(c.dB, c.dB_heads, c, h, k.row, k.n_row, sums, m, c.add_B, p);
    return through;
}

/* Tokens as i: dC of rows 16 r ... Returns this lane's part of <x, dy>. */
template <int STAGES>
__device__ __forceinline__ float row_gradients(const chunk_of<STAGES> &k, const ssd_call<bf16> &c, const head_of &h,
                                               const place &p)
{
    const int m = 16 * k.r, i = m + p.g;
    tile_rows a, dy;
    tile_sums sums;
    clear(sums);
    load_rows(dy, shared_address(k.stage.dy), p.lanes, k.r);
    if (!k.first) {
        multiply(sums, dy, shared_address(k.stage.state), p.lanes, 0, 4);
        scale_rows(sums, k.d.from_start[i], k.d.from_start[i + 8]);
    }
#pragma unroll
    for (int step = 0; step < 4; step++)
        if (step <= k.r) {
            load_left_transposed(a[step], shared_address(k.shared.dG), p.lanes, k.r, step);
            multiply_step<false>(sums, a[step], shared_address(k.stage.B), p.lanes, step, 0, 4);
        }
    load_rows(a, shared_address(k.stage.C), p.lanes, k.r);
    float up, low;
    row_products(sums, a, up, low);
    up = quad_sum(up);
    low = quad_sum(low);
    if (p.q == 0) {
        k.shared.from_C[k.chunk & 1][i] = up;
        k.shared.from_C[k.chunk & 1][i + 8] = low;
    }
    store_group(c.dC, c.dC_heads, c, h, k.row, k.n_row, sums, m, c.add_C, p);
    load_rows(a, shared_address(k.stage.x), p.lanes, k.r);
    float product = 0.0f;
#pragma unroll
    for (int e = 0; e < 16; e++)
        product += low_half(a[e / 4][e % 4]) * low_half(dy[e / 4][e % 4]) +
                   high_half(a[e / 4][e % 4]) * high_half(dy[e / 4][e % 4]);
    return product;
}

/* This lane's part of <tile, state>. */
__device__ __forceinline__ float inner_product(const char *tile, const tile_sums &state, const place &p)
{
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t pair = *(const uint32_t *)(tile + tile_at(16 * p.warp + p.g + 8 * half, n, p.q));
            sum += state[n][2 * half] * low_half(pair) + state[n][2 * half + 1] * high_half(pair);
        }
    return sum;
}

/* da_log of a chunk whose parts all warps have left in shared memory, by one warp. */
template <int STAGES>
__device__ __forceinline__ void finish_decays(const backward_tiles<STAGES> &shared, const ssd_call<bf16> &c,
                                              const head_of &h, int chunk, const place &p)
{
    const int now = chunk & 1;
    const float2 from_C = ((const float2 *)shared.from_C[now])[p.lane];
    const float2 from_B = ((const float2 *)shared.from_B[now])[p.lane];
    float end = 0.0f;
    for (int w = 0; w < WARPS; w++)
        end += shared.ends[now][w];
    ssd_write_decays(c.da, h.first + (int64_t)chunk * Q, rows_in(c, chunk), h.head, c.add_a,
                     make_float2(from_C.x - from_B.x, from_C.y - from_B.y), end, &shared.decays[now], p.lane);
}

/* Everything of one chunk; dh moves to the chunk before. Returns this lane's part of <x, dy>. */
template <int STAGES>
__device__ __forceinline__ float chunk_gradients(const chunk_of<STAGES> &k, const ssd_call<bf16> &c, const head_of &h,
                                                 float D, tile_sums &dstate, const place &p)
{
    float end = column_gradients(k, c, h, D, p);
    __syncthreads();
    const float product = row_gradients(k, c, h, p);
    const float whole = k.d.from_start[Q - 1];
    if (!k.first) {
        if (!k.last)
            end += whole * inner_product(k.stage.state, dstate, p);
        advance(dstate, shared_address(k.stage.dy), shared_address(k.stage.C), k.d.from_start, whole, p);
        write_state(k.shared.dstate, dstate, p);
    }
    end = warp_sum(end);
    if (p.lane == 0)
        k.shared.ends[k.chunk & 1][p.warp] = end;
    return product;
}

template <int STAGES>
static __global__ void __launch_bounds__(THREADS, STAGES == 1 ? 3 : 2)
    walk_backward(ssd_call<bf16> c, const uint4 *states)
{
    extern __shared__ __align__(128) char memory[];
    backward_tiles<STAGES> &shared = *(backward_tiles<STAGES> *)memory;
    const place p = here();
    const head_of h = head_here(c);
    const float D = c.D[h.head];
    const int last = c.chunks - 1;
    tile_sums dstate;
    float dD = 0.0f;
    clear(dstate);
    load_chunk(shared, c, states, h, last);
    if (p.warp == 0)
        ssd_make_decays(&shared.decays[last & 1],
                        ssd_read_decays(c.a_log, h.first + (int64_t)last * Q, rows_in(c, last), h.head, p.lane),
                        p.lane);
    for (int chunk = last; chunk >= 0; chunk--) {
        copies_wait();
        __syncthreads();
        if (p.warp == 1 && chunk < last && c.da.data)
            finish_decays(shared, c, h, chunk + 1, p);
        float2 a_log = make_float2(0.0f, 0.0f);
        if (STAGES == 2 && chunk > 0)
            load_chunk(shared, c, states, h, chunk - 1);
        if (p.warp == 0 && chunk > 0)
            a_log = ssd_read_decays(c.a_log, h.first + (int64_t)(chunk - 1) * Q, Q, h.head, p.lane);
        const chunk_of<STAGES> k = {shared,
                                    shared.stages[STAGES == 2 ? chunk & 1 : 0],
                                    shared.decays[chunk & 1],
                                    h.first + (int64_t)chunk * Q,
                                    chunk,
                                    rows_in(c, chunk),
                                    (p.warp + chunk) % WARPS,
                                    chunk == 0,
                                    chunk == last};
        dD += chunk_gradients(k, c, h, D, dstate, p);
        if (p.warp == 0 && chunk > 0)
            ssd_make_decays(&shared.decays[(chunk - 1) & 1], a_log, p.lane);
        if (STAGES == 1 && chunk > 0) {
            __syncthreads();
            load_chunk(shared, c, states, h, chunk - 1);
        }
    }
    __syncthreads();
    if (p.warp == 1 && c.da.data)
        finish_decays(shared, c, h, 0, p);
    dD = block_sum<THREADS>(dD, &shared.ends[1][0]);
    if (threadIdx.x == 0)
        c.dD[blockIdx.x] = dD;
}

/* ---- launches ---------------------------------------------------------------------------------------------------------- */

template <bool OUTPUT> static cab_status launch_forward(const ssd_call<bf16> &c, void *states, cab_backend *backend)
{
    const size_t bytes = sizeof(forward_tiles<OUTPUT>);
    CAB_TRY(cab_cuda_shared((const void *)walk_forward<OUTPUT>, bytes, "ssd"));
    walk_forward<OUTPUT><<<(unsigned)(c.sequences * c.H), THREADS, bytes, stream_of(backend)>>>(c, (uint4 *)states);
    return cab_cuda_launched("ssd");
}

template <int STAGES> static cab_status launch_backward(const ssd_call<bf16> &c, void *states, cab_backend *backend)
{
    const size_t bytes = sizeof(backward_tiles<STAGES>);
    CAB_TRY(cab_cuda_shared((const void *)walk_backward<STAGES>, bytes, "ssd backward"));
    walk_backward<STAGES>
        <<<(unsigned)(c.sequences * c.H), THREADS, bytes, stream_of(backend)>>>(c, (const uint4 *)states);
    return cab_cuda_launched("ssd backward");
}

cab_status ssd_tiles_forward(const ssd_call<bf16> &c, cab_backend *backend)
{
    return launch_forward<true>(c, NULL, backend);
}

/* Two stages hide the loads of one chunk behind the work on another, and leave room for two blocks; one leaves room for
 * three, which pays where that many blocks wait. */
cab_status ssd_tiles_backward(const ssd_call<bf16> &c, void *states, cab_backend *backend)
{
    const cab_cuda *cuda = cab_cuda_of(backend);
    const bool crowded = c.sequences * c.H > 2 * (int64_t)cuda->multiprocessors;
    if (c.chunks > 1)
        CAB_TRY(launch_forward<false>(c, states, backend));
    if (crowded || sizeof(backward_tiles<2>) > cuda->shared_limit)
        return launch_backward<1>(c, states, backend);
    return launch_backward<2>(c, states, backend);
}
