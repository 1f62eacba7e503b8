/* ssd_tiles.cu - the Mamba-2 recurrence on tensor cores: bf16, P up to 64 and N up to 128. P is padded with
 * zeros to 64, and N to NT tiles of 64.
 *
 * Layout: a block of four warps is one head of one sequence and walks over its chunks of 64 tokens. The rows of the
 * next chunk are copied to shared memory meanwhile. The state (P, N) stays in registers in fp32, 16 rows per warp,
 * with a bf16 copy in shared memory for the products that read it. Within a chunk a warp owns 16 tokens. It owns
 * another 16 in every chunk, because the causal half of the work is uneven.
 *
 * Arithmetic: that of ssd.cu, with products in bf16 and sums in fp32.
 *
 *   forward    y, with the state carried from chunk to chunk
 *   backward   (where no heads share B and C: ssd_groups.cu has the others)
 *              1. the states at the starts of chunks go to scratch, in bf16
 *              2. from the last chunk to the first, with dh carried along: dx, dB, dC, ddt, dD (src/ops/cpu/ssd.c)
 *
 * ddt needs <h_end, dh> of a chunk. It is computed as the sum over tokens of <B, dB through the state>, plus exp(S)
 * <h_start, dh>. So the sums, whose difference dlog a is, hold the same rounded products, and their rounding cancels.
 *
 * Cost per head and chunk. Bytes, in tiles of 8 KiB: forward 2 + 2 NT; backward 1 + 2 NT for the first walk and 3 +
 * 5 NT for the second (2 NT more where dB and dC are added to). Products of 64 x 64 x 64: forward 1 + 3 NT, of which
 * 1 + NT are half empty; backward NT and 3 + 6 NT, of which 2 + 3 NT are half empty. The latency of the chunks is
 * the limit, more than bytes or products. */
#include "ops/cuda/ssd_tiles.cuh"

/* The bf16 copy of the warp's 16 rows of a state. */
template <int NT> __device__ __forceinline__ void write_state(char *tiles, const tile_sums (&state)[NT], const place &p)
{
#pragma unroll
    for (int t = 0; t < NT; t++)
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *(uint32_t *)(tiles + t * TILE_BYTES + tile_at(16 * p.warp + p.g + 8 * half, n, p.q)) =
                    pack(state[t][n][2 * half], state[t][n][2 * half + 1]);
}

/* ---- forward, and the states for the backward pass -------------------------------------------------------------------- */

/* Shared memory of the forward walk. Two copies of the state spare a barrier; of NT = 2 there is room for one, if two
 * blocks are to fit. */
template <bool OUTPUT, int NT> struct forward_tiles {
    enum { COPIES = NT == 1 ? 2 : 1 };
    struct stage {
        char x[TILE_BYTES], B[NT * TILE_BYTES], C[OUTPUT ? NT * TILE_BYTES : 128];
    } stages[2];
    char state[COPIES][NT * TILE_BYTES];
    ssd_decays decays[2];
};

template <bool OUTPUT, int NT>
__device__ __forceinline__ void load_chunk(forward_tiles<OUTPUT, NT> &shared, const ssd_call<bf16> &c, const head_of &h,
                                           int chunk)
{
    const int64_t row = h.first + (int64_t)chunk * Q;
    const int n_row = rows_in(c, chunk);
    auto &stage = shared.stages[chunk & 1];
    load_tile<THREADS>(stage.x, c.x, row, n_row, (int64_t)h.head * c.P, c.P, c.aligned);
    load_states<NT, THREADS>(stage.B, c.B, row, n_row, c, h);
    if (OUTPUT)
        load_states<NT, THREADS>(stage.C, c.C, row, n_row, c, h);
    copies_commit();
}

/* y of rows 16 r .. of a chunk. */
template <int NT>
__device__ __forceinline__ void output_rows(forward_tiles<true, NT> &shared, const ssd_call<bf16> &c, const head_of &h,
                                            int chunk, int r, float D, const place &p)
{
    const auto &stage = shared.stages[chunk & 1];
    const ssd_decays &d = shared.decays[chunk & 1];
    const uint32_t state = shared_address(shared.state[chunk % forward_tiles<true, NT>::COPIES]);
    const uint32_t B = shared_address(stage.B), C = shared_address(stage.C);
    tile_rows a;
    tile_sums y, product;
    clear(y);
    clear(product);
#pragma unroll
    for (int t = 0; t < NT; t++) {
        load_rows(a, C + t * TILE_BYTES, p.lanes, r);
        if (chunk > 0)
            multiply_transposed(y, a, state + t * TILE_BYTES, p.lanes, 0, 4);
        multiply_transposed(product, a, B + t * TILE_BYTES, p.lanes, 0, r + 1);
    }
    if (chunk > 0)
        scale_rows(y, d.from_start[16 * r + p.g], d.from_start[16 * r + p.g + 8]);
    mix(a, product, d, c.own, r, p);
    multiply(y, a, shared_address(stage.x), p.lanes, 0, r + 1);
    add_rows(y, stage.x, D, 16 * r, p);
    const int64_t row = h.first + (int64_t)chunk * Q, column = (int64_t)h.head * c.P;
    if (c.aligned)
        store_rows(c.y, row, rows_in(c, chunk), column, c.P, y, 16 * r, p);
    else
        store_elements(c.y, row, rows_in(c, chunk), column, c.P, y, 16 * r, false, p);
}

/* OUTPUT: y. Else the bf16 states at the start of every chunk but the first, as tiles stand in shared memory. */
template <bool OUTPUT, int NT>
static __global__ void __launch_bounds__(THREADS, NT == 2  ? 2
                                                  : OUTPUT ? 3
                                                           : 4) walk_forward(ssd_call<bf16> c, uint4 *states)
{
    extern __shared__ __align__(128) char memory[];
    enum { PIECES = NT * TILE_BYTES / 16, COPIES = forward_tiles<OUTPUT, NT>::COPIES };
    forward_tiles<OUTPUT, NT> &shared = *(forward_tiles<OUTPUT, NT> *)memory;
    const place p = here();
    const head_of h = head_at(c, blockIdx.x);
    const float D = c.D[h.head], rate = ssd_rate(c, h.head);
    const int last = c.chunks - 1;
    tile_sums state[NT];
    ssd_raw<bf16> raw = {};
#pragma unroll
    for (int t = 0; t < NT; t++)
        clear(state[t]);
    load_chunk(shared, c, h, 0);
    if (p.warp == 0)
        ssd_make_decays(&shared.decays[0], read_decays(c, h, 0, p.lane), rate, !c.A_log, p.lane);
    for (int chunk = 0; chunk <= last; chunk++) {
        const int r = (p.warp + chunk) % WARPS, now = chunk & 1, next = now ^ 1;
        copies_wait();
        __syncthreads();
        if (chunk < last) {
            load_chunk(shared, c, h, chunk + 1);
            if (r == 0)
                raw = read_decays(c, h, chunk + 1, p.lane);
        }
        if constexpr (OUTPUT)
            output_rows(shared, c, h, chunk, r, D, p);
        else if (chunk > 0)
#pragma unroll
            for (int i = threadIdx.x; i < PIECES; i += THREADS)
                states[((int64_t)blockIdx.x * c.chunks + chunk) * PIECES + i] =
                    ((const uint4 *)shared.state[chunk % COPIES])[i];
        if (chunk == last)
            break;
        const ssd_decays &d = shared.decays[now];
        advance(state, shared_address(shared.stages[now].x), shared_address(shared.stages[now].B), d.into,
                d.from_start[Q - 1], p);
        if (COPIES == 1)
            __syncthreads();
        write_state(shared.state[(chunk + 1) % COPIES], state, p);
        if (r == 0)
            ssd_make_decays(&shared.decays[next], raw, rate, !c.A_log, p.lane);
    }
}

/* ---- backward ---------------------------------------------------------------------------------------------------------- */

/* Shared memory of the backward walk. dG stands as (j, i). */
template <int STAGES, int NT> struct backward_tiles {
    struct stage {
        char x[TILE_BYTES], B[NT * TILE_BYTES], C[NT * TILE_BYTES], dy[TILE_BYTES], state[NT * TILE_BYTES];
    } stages[STAGES];
    char dstate[NT * TILE_BYTES], dG[TILE_BYTES];
    ssd_decays decays[2];
    float from_C[2][Q], from_B[2][Q]; /* C . dC, B . dB per token */
    float through_u[2][Q];            /* <du, x> per token */
    float ends[2][WARPS];             /* <h_end, dh>, in parts */
};

/* One chunk of a head. */
template <int STAGES, int NT> struct chunk_of {
    backward_tiles<STAGES, NT> &shared;
    typename backward_tiles<STAGES, NT>::stage &stage;
    const ssd_decays &d;
    int64_t row;
    int chunk, n_row, r;
    bool first, last;
};

template <int STAGES, int NT>
__device__ __forceinline__ void load_chunk(backward_tiles<STAGES, NT> &shared, const ssd_call<bf16> &c,
                                           const uint4 *states, const head_of &h, int chunk)
{
    enum { PIECES = NT * TILE_BYTES / 16 };
    const int64_t row = h.first + (int64_t)chunk * Q;
    const int n_row = rows_in(c, chunk);
    auto &stage = shared.stages[STAGES == 2 ? chunk & 1 : 0];
    load_tile<THREADS>(stage.x, c.x, row, n_row, (int64_t)h.head * c.P, c.P, c.aligned);
    load_states<NT, THREADS>(stage.B, c.B, row, n_row, c, h);
    load_states<NT, THREADS>(stage.C, c.C, row, n_row, c, h);
    load_tile<THREADS>(stage.dy, c.dy, row, n_row, (int64_t)h.head * c.P, c.P, c.aligned);
    if (chunk > 0)
#pragma unroll
        for (int i = threadIdx.x; i < PIECES; i += THREADS)
            copy_16(shared_address(stage.state) + i * 16,
                    states + ((int64_t)blockIdx.x * c.chunks + chunk) * PIECES + i, true);
    copies_commit();
}

/* M^T, without delta, and dG^T of rows j = 16 r .., from B C^T and x dy^T; columns before 16 r stay as they are. dG also to its tile. */
template <int STAGES, int NT>
__device__ __forceinline__ void mix_transposed(const chunk_of<STAGES, NT> &k, int own, tile_rows &mixed, tile_rows &dG,
                                               tile_sums &product, tile_sums &dproduct, const place &p)
{
    const float *s = k.d.s;
    const int j = 16 * k.r + p.g;
    const float upper = s[j], lower = s[j + 8], delta = k.d.delta[j], delta_lower = k.d.delta[j + 8];
#pragma unroll
    for (int n = 0; n < 8; n++) {
        if (n < 2 * k.r)
            continue;
        const int i = 8 * n + 2 * p.q;
        const float2 at = *(const float2 *)(s + i);
        const int2 first = *(const int2 *)(k.d.first + i);
        const float decay[4] = {i + own > j && first.x <= j ? exp2_fast(at.x - upper) : 0.0f,
                                i + 1 + own > j && first.y <= j ? exp2_fast(at.y - upper) : 0.0f,
                                i + own > j + 8 && first.x <= j + 8 ? exp2_fast(at.x - lower) : 0.0f,
                                i + 1 + own > j + 8 && first.y <= j + 8 ? exp2_fast(at.y - lower) : 0.0f};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            product[n][e] *= decay[e];
            dproduct[n][e] *= decay[e] * (e < 2 ? delta : delta_lower);
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

/* What stands in the warp's rows of dB or dC, columns of tile t, where it is to be added to. */
__device__ __forceinline__ row_pieces fetch_group(rows_of<bf16> from, const ssd_call<bf16> &c, const head_of &h,
                                                  int64_t row, int n_row, int t, int m, bool add, const place &p)
{
    return fetch_rows(from, row, n_row, (int64_t)h.group * c.N + t * TILE_SIDE, c.N - t * TILE_SIDE, m,
                      add && c.aligned && from.data != NULL, p);
}

/* dB or dC of the warp's rows, where they are wanted. */
__device__ __forceinline__ void store_group(rows_of<bf16> to, const ssd_call<bf16> &c, const head_of &h, int64_t row,
                                            int n_row, tile_sums &sums, const row_pieces &before, int t, int m, bool add,
                                            const place &p)
{
    const int column = t * TILE_SIDE, width = c.N - column;
    if (to.data)
        put_rows(to, row, n_row, (int64_t)h.group * c.N + column, width, sums, before, m, add, c.aligned, p);
}

/* dx of rows 16 r .., and <du, x> of each. */
template <int STAGES, int NT>
__device__ __forceinline__ void x_gradient(const chunk_of<STAGES, NT> &k, const ssd_call<bf16> &c, const head_of &h,
                                           const tile_rows (&B)[NT], const tile_rows &x, const tile_rows &mixed, float D,
                                           const place &p)
{
    const int m = 16 * k.r;
    const int64_t column = (int64_t)h.head * c.P;
    tile_sums sums;
    clear(sums);
    if (!k.last) {
#pragma unroll
        for (int t = 0; t < NT; t++)
            multiply_transposed(sums, B[t], shared_address(k.shared.dstate) + t * TILE_BYTES, p.lanes, 0, 4);
        scale_rows(sums, k.d.to_end[m + p.g], k.d.to_end[m + p.g + 8]);
    }
    multiply(sums, mixed, shared_address(k.stage.dy), p.lanes, k.r, 4);
    if (c.A_log) {
        float up, low;
        row_products(sums, x, up, low);
        up = quad_sum(up);
        low = quad_sum(low);
        if (p.q == 0) {
            k.shared.through_u[k.chunk & 1][m + p.g] = up;
            k.shared.through_u[k.chunk & 1][m + p.g + 8] = low;
        }
        scale_rows(sums, k.d.delta[m + p.g], k.d.delta[m + p.g + 8]);
    }
    if (!c.dx.data)
        return;
    add_rows(sums, k.stage.dy, D, m, p);
    const row_pieces before = fetch_rows(c.dx, k.row, k.n_row, column, c.P, m, c.add_x && c.aligned, p);
    put_rows(c.dx, k.row, k.n_row, column, c.P, sums, before, m, c.add_x, c.aligned, p);
}

/* dB of rows 16 r .., columns of tile t; B . dB through the state, and all of it, per row, are added to the totals. */
template <int STAGES, int NT>
__device__ __forceinline__ void B_gradient(const chunk_of<STAGES, NT> &k, const ssd_call<bf16> &c, const head_of &h,
                                           const tile_rows &B, const tile_rows &x, const tile_rows &dG, int t,
                                           float &through, float2 &all, const place &p)
{
    const int m = 16 * k.r;
    const row_pieces before = fetch_group(c.dB, c, h, k.row, k.n_row, t, m, c.add_B, p);
    tile_sums sums;
    float up, low;
    clear(sums);
    if (!k.last) {
        multiply(sums, x, shared_address(k.shared.dstate) + t * TILE_BYTES, p.lanes, 0, 4);
        scale_rows(sums, k.d.into[m + p.g], k.d.into[m + p.g + 8]);
        row_products(sums, B, up, low);
        through += up + low;
    }
    multiply(sums, dG, shared_address(k.stage.C) + t * TILE_BYTES, p.lanes, k.r, 4);
    row_products(sums, B, up, low);
    all.x += up;
    all.y += low;
    store_group(c.dB, c, h, k.row, k.n_row, sums, before, t, m, c.add_B, p);
}

/* Tokens as j: dx and dB of rows 16 r .., dG to its tile. Returns this lane's part of the sum of B . dB through the
 * state. */
template <int STAGES, int NT>
__device__ __forceinline__ float column_gradients(const chunk_of<STAGES, NT> &k, const ssd_call<bf16> &c,
                                                  const head_of &h, float D, const place &p)
{
    const int j = 16 * k.r + p.g;
    tile_rows B[NT], x, mixed, dG;
    {
        tile_sums product, dproduct;
        load_rows(x, shared_address(k.stage.x), p.lanes, k.r);
        clear(product);
        clear(dproduct);
#pragma unroll
        for (int t = 0; t < NT; t++) {
            load_rows(B[t], shared_address(k.stage.B) + t * TILE_BYTES, p.lanes, k.r);
            multiply_transposed(product, B[t], shared_address(k.stage.C) + t * TILE_BYTES, p.lanes, k.r, 4);
        }
        multiply_transposed(dproduct, x, shared_address(k.stage.dy), p.lanes, k.r, 4);
        mix_transposed(k, c.own, mixed, dG, product, dproduct, p);
    }
    if (c.dx.data || c.A_log)
        x_gradient(k, c, h, B, x, mixed, D, p);
    float through = 0.0f;
    float2 all = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int t = 0; t < NT; t++)
        B_gradient(k, c, h, B[t], x, dG, t, through, all, p);
    all.x = quad_sum(all.x);
    all.y = quad_sum(all.y);
    if (p.q == 0) {
        k.shared.from_B[k.chunk & 1][j] = all.x;
        k.shared.from_B[k.chunk & 1][j + 8] = all.y;
    }
    return through;
}

/* dC of rows 16 r .., columns of tile t; C . dC per row is added to the total. */
template <int STAGES, int NT>
__device__ __forceinline__ void C_gradient(const chunk_of<STAGES, NT> &k, const ssd_call<bf16> &c, const head_of &h,
                                           const tile_rows &dy, int t, float2 &all, const place &p)
{
    const int m = 16 * k.r;
    const row_pieces before = fetch_group(c.dC, c, h, k.row, k.n_row, t, m, c.add_C, p);
    tile_rows a;
    tile_sums sums;
    clear(sums);
    if (!k.first) {
        multiply(sums, dy, shared_address(k.stage.state) + t * TILE_BYTES, p.lanes, 0, 4);
        scale_rows(sums, k.d.from_start[m + p.g], k.d.from_start[m + p.g + 8]);
    }
#pragma unroll
    for (int step = 0; step < 4; step++)
        if (step <= k.r) {
            load_left_transposed(a[step], shared_address(k.shared.dG), p.lanes, k.r, step);
            multiply_step<false>(sums, a[step], shared_address(k.stage.B) + t * TILE_BYTES, p.lanes, step, 0, 4);
        }
    load_rows(a, shared_address(k.stage.C) + t * TILE_BYTES, p.lanes, k.r);
    float up, low;
    row_products(sums, a, up, low);
    all.x += up;
    all.y += low;
    store_group(c.dC, c, h, k.row, k.n_row, sums, before, t, m, c.add_C, p);
}

/* Tokens as i: dC of rows 16 r ... Returns this lane's part of <x, dy>. */
template <int STAGES, int NT>
__device__ __forceinline__ float row_gradients(const chunk_of<STAGES, NT> &k, const ssd_call<bf16> &c, const head_of &h,
                                               const place &p)
{
    const int i = 16 * k.r + p.g;
    tile_rows x, dy;
    float2 all = make_float2(0.0f, 0.0f);
    load_rows(dy, shared_address(k.stage.dy), p.lanes, k.r);
#pragma unroll
    for (int t = 0; t < NT; t++)
        C_gradient(k, c, h, dy, t, all, p);
    all.x = quad_sum(all.x);
    all.y = quad_sum(all.y);
    if (p.q == 0) {
        k.shared.from_C[k.chunk & 1][i] = all.x;
        k.shared.from_C[k.chunk & 1][i + 8] = all.y;
    }
    load_rows(x, shared_address(k.stage.x), p.lanes, k.r);
    float product = 0.0f;
#pragma unroll
    for (int e = 0; e < 16; e++)
        product += low_half(x[e / 4][e % 4]) * low_half(dy[e / 4][e % 4]) +
                   high_half(x[e / 4][e % 4]) * high_half(dy[e / 4][e % 4]);
    return product;
}

/* This lane's part of <tiles, state>. */
template <int NT>
__device__ __forceinline__ float inner_product(const char *tiles, const tile_sums (&state)[NT], const place &p)
{
    float sum = 0.0f;
#pragma unroll
    for (int t = 0; t < NT; t++)
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const char *at = tiles + t * TILE_BYTES + tile_at(16 * p.warp + p.g + 8 * half, n, p.q);
                const uint32_t pair = *(const uint32_t *)at;
                sum += state[t][n][2 * half] * low_half(pair) + state[t][n][2 * half + 1] * high_half(pair);
            }
    return sum;
}

/* ddt of a chunk whose parts all warps have left in shared memory, by one warp; adds to the head's sums. */
template <int STAGES, int NT>
__device__ __forceinline__ void finish_decays(ssd_step_sums &sums, const backward_tiles<STAGES, NT> &shared, const ssd_call<bf16> &c,
                                              const head_of &h, int chunk, const place &p)
{
    const int now = chunk & 1;
    const float2 from_C = ((const float2 *)shared.from_C[now])[p.lane];
    const float2 from_B = ((const float2 *)shared.from_B[now])[p.lane];
    float end = 0.0f;
    for (int w = 0; w < WARPS; w++)
        end += shared.ends[now][w];
    const ssd_step_sums one =
        ssd_write_decays(c, h.first + (int64_t)chunk * Q, rows_in(c, chunk), h.head,
                         make_float2(from_C.x - from_B.x, from_C.y - from_B.y),
                         ((const float2 *)shared.through_u[now])[p.lane], end, &shared.decays[now], p.lane);
    sums.dA_log += one.dA_log;
    sums.ddt_bias += one.ddt_bias;
}

/* Everything of one chunk; dh moves to the chunk before. Returns this lane's part of <x, dy>. */
template <int STAGES, int NT>
__device__ __forceinline__ float chunk_gradients(const chunk_of<STAGES, NT> &k, const ssd_call<bf16> &c,
                                                 const head_of &h, float D, tile_sums (&dstate)[NT], const place &p)
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

template <int STAGES, int NT>
static __global__ void __launch_bounds__(THREADS, STAGES + NT == 2   ? 3
                                                  : STAGES + NT == 3 ? 2
                                                                     : 1)
    walk_backward(ssd_call<bf16> c, const uint4 *states)
{
    extern __shared__ __align__(128) char memory[];
    backward_tiles<STAGES, NT> &shared = *(backward_tiles<STAGES, NT> *)memory;
    const place p = here();
    const head_of h = head_at(c, blockIdx.x);
    const float D = c.D[h.head], rate = ssd_rate(c, h.head);
    const bool steps = ssd_wants_steps(c);
    const int last = c.chunks - 1;
    tile_sums dstate[NT];
    ssd_step_sums sums = {};
    float dD = 0.0f;
#pragma unroll
    for (int t = 0; t < NT; t++)
        clear(dstate[t]);
    load_chunk(shared, c, states, h, last);
    if (p.warp == 0)
        ssd_make_decays(&shared.decays[last & 1], read_decays(c, h, last, p.lane), rate, !c.A_log, p.lane);
    for (int chunk = last; chunk >= 0; chunk--) {
        copies_wait();
        __syncthreads();
        if (p.warp == 1 && chunk < last && steps)
            finish_decays(sums, shared, c, h, chunk + 1, p);
        ssd_raw<bf16> raw = {};
        if (STAGES == 2 && chunk > 0)
            load_chunk(shared, c, states, h, chunk - 1);
        if (p.warp == 0 && chunk > 0)
            raw = read_decays(c, h, chunk - 1, p.lane);
        const chunk_of<STAGES, NT> k = {shared,
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
            ssd_make_decays(&shared.decays[(chunk - 1) & 1], raw, rate, !c.A_log, p.lane);
        if (STAGES == 1 && chunk > 0) {
            __syncthreads();
            load_chunk(shared, c, states, h, chunk - 1);
        }
    }
    __syncthreads();
    if (p.warp == 1 && steps)
        finish_decays(sums, shared, c, h, 0, p);
    dD = block_sum<THREADS>(dD, &shared.ends[1][0]);
    if (threadIdx.x == 0)
        c.dD[blockIdx.x] = dD;
    if (threadIdx.x == 32 && c.dA_log)
        c.dA_log[blockIdx.x] = sums.dA_log;
    if (threadIdx.x == 32 && c.ddt_bias)
        c.ddt_bias[blockIdx.x] = sums.ddt_bias;
}

/* ---- launches ---------------------------------------------------------------------------------------------------------- */

template <bool OUTPUT, int NT>
static cab_status launch_forward(const ssd_call<bf16> &c, void *states, cab_backend *backend)
{
    const size_t bytes = sizeof(forward_tiles<OUTPUT, NT>);
    CAB_TRY(cab_cuda_shared((const void *)walk_forward<OUTPUT, NT>, bytes, "ssd"));
    walk_forward<OUTPUT, NT><<<(unsigned)(c.sequences * c.H), THREADS, bytes, stream_of(backend)>>>(c, (uint4 *)states);
    return cab_cuda_launched("ssd");
}

template <int STAGES, int NT>
static cab_status launch_backward(const ssd_call<bf16> &c, void *states, cab_backend *backend)
{
    const size_t bytes = sizeof(backward_tiles<STAGES, NT>);
    CAB_TRY(cab_cuda_shared((const void *)walk_backward<STAGES, NT>, bytes, "ssd backward"));
    walk_backward<STAGES, NT>
        <<<(unsigned)(c.sequences * c.H), THREADS, bytes, stream_of(backend)>>>(c, (const uint4 *)states);
    return cab_cuda_launched("ssd backward");
}

cab_status ssd_tiles_forward(const ssd_call<bf16> &c, cab_backend *backend)
{
    return c.N <= TILE_SIDE ? launch_forward<true, 1>(c, NULL, backend) : launch_forward<true, 2>(c, NULL, backend);
}

/* Two stages hide the loads of one chunk behind the work on another, and leave room for two blocks, or one of NT = 2; one
 * stage leaves room for one block more, which pays where that many blocks wait. */
template <int NT> static cab_status backward(const ssd_call<bf16> &c, void *states, cab_backend *backend)
{
    const cab_cuda *cuda = cab_cuda_of(backend);
    const bool crowded = c.sequences * c.H > (3 - NT) * (int64_t)cuda->multiprocessors;
    if (c.chunks > 1)
        CAB_TRY((launch_forward<false, NT>(c, states, backend)));
    if (crowded || sizeof(backward_tiles<2, NT>) > cuda->shared_limit)
        return launch_backward<1, NT>(c, states, backend);
    return launch_backward<2, NT>(c, states, backend);
}

cab_status ssd_tiles_backward(const ssd_call<bf16> &c, void *states, cab_backend *backend)
{
    return c.N <= TILE_SIDE ? backward<1>(c, states, backend) : backward<2>(c, states, backend);
}
