/* ssd_groups.cu - the Mamba-2 recurrence where several heads share B and C, or where ssd_tiles.cu has no room for P or N, on
 * tensor cores: bf16, N up to 256.
 *
 * P is cut into pieces of 64 columns, the last padded with zeros, which are like heads with the same decays: y and dx are
 * theirs alone, all else is their sum. N is NT tiles of 64. Forward NT goes up to 4. Backward it goes up to 2, and a larger
 * N takes two calls, one for either half: all but dB and dC is their sum (`more` adds to what the first call left).
 *
 * Idea: what heads share is computed once. Chunks no longer follow one another, because their states are in memory:
 *
 *   1. walk_states       h at the start of every chunk, backward also dh at the end, in bf16: a block per head, sequence
 *                        and direction
 *   2. group_outputs,    a block per chunk and group (or a slice of the group's heads) goes through the heads
 *      group_gradients
 *
 * Arithmetic, per chunk: that of src/ops/cpu/ssd.c. With G = C B^T, which the heads share, and dG of each head (dG^T in
 * (j, i), decays and delta in it):
 *
 *   dB = (sum of dG over heads)^T C + sum over heads of delta W (x dh)
 *   dC = (sum of dG over heads)   B + sum over heads of E (dy h)
 *
 * in fp32, the sum of dG rounded once. The products of a head are forward 1 + 2 NT, where ssd_tiles.cu has 1 + 3 NT, and
 * backward 2 + 5 NT, where it has 3 + 7 NT. Of the sums that dlog a comes from,
 *
 *   C . dC = row sums of dG * G, and E <dy h, C>       B . dB = column sums of dG * G, and delta W <x dh, B>
 *
 * row and column sums hold the same fp32 numbers, so that their differences cancel; and <h_end, dh> is exp(S) <h, dh> plus
 * the sum of the last term.
 *
 * Layout of group_outputs: four warps with 16 tokens each, G in registers. Of group_gradients: eight warps, 16 tokens
 * each, twice. Warps 0 to 3 have tokens as j: G^T and the sum of dG^T in registers; dx. Warps 4 to 7 have dB and dC in
 * registers. The next piece's x, dy, h, dh are copied to shared memory meanwhile. Hopper has both backward kernels of its own,
 * ssd_groups_wgmma.cu.
 *
 * Bytes per piece and chunk, in tiles of 8 KiB: forward 1 + NT for the walk and 2 + NT for the outputs; backward 2 + 2 NT
 * and 3 + 2 NT. They are not the limit: instructions that wait for one another are, with two warps to a scheduler
 * (dev/log.md). */
#include "ops/cuda/ssd_groups.cuh"

enum { MAKER = 3, FINISHER = 7 }; /* warps with the least else to do, which share a scheduler: of steps, of ddt */

/* ---- states ------------------------------------------------------------------------------------------------------------ */

template <int NT> struct state_tiles {
    struct stage {
        char left[TILE_BYTES], right[NT * TILE_BYTES];
    } stages[2];
    ssd_decays decays[2];
};

/* A walk of a piece of a head: h from x and B, from the first chunk on, or dh from dy and C, from the last. */
struct state_walk {
    head_of h;
    int piece;
    bool back;
    int chunks;
    uint4 *to; /* the piece's states */

    __device__ __forceinline__ int chunk(int step) const
    {
        return back ? chunks - 1 - step : step;
    }
};

template <int NT>
__device__ __forceinline__ void load_walk(state_tiles<NT> &shared, const ssd_call<bf16> &c, const state_walk &w, int step)
{
    const int chunk = w.chunk(step), n_row = rows_in(c, chunk);
    const int64_t row = w.h.first + (int64_t)chunk * Q;
    auto &stage = shared.stages[step & 1];
    const int column = w.piece * TILE_SIDE;
    load_tile<THREADS>(stage.left, w.back ? c.dy : c.x, row, n_row, (int64_t)w.h.head * c.P + column, c.P - column,
                       c.aligned);
    load_states<NT, THREADS>(stage.right, w.back ? c.C : c.B, row, n_row, c, w.h);
    copies_commit();
}

/* states, then dstates: (B, H pieces, chunks, NT) tiles each. What is zero, h of the first chunk and dh of the last, is not written. */
template <int NT>
static __global__ void __launch_bounds__(THREADS, NT <= 2 ? 4 : 2) walk_states(ssd_call<bf16> c, uint4 *states, uint4 *dstates)
{
    extern __shared__ __align__(128) char memory[];
    enum { PIECES = NT * TILE_BYTES / 16 };
    state_tiles<NT> &shared = *(state_tiles<NT> *)memory;
    const place p = here();
    const int64_t walks = c.sequences * c.H * c.pieces, index = blockIdx.x % walks;
    const bool back = blockIdx.x >= walks;
    const state_walk w = {head_at(c, index / c.pieces), (int)(index % c.pieces), back, c.chunks,
                          (back ? dstates : states) + index * c.chunks * PIECES};
    const float rate = ssd_rate(c, w.h.head);
    tile_sums state[NT];
    ssd_raw<bf16> raw = {};
#pragma unroll
    for (int t = 0; t < NT; t++)
        clear(state[t]);
    load_walk(shared, c, w, 0);
    if (p.warp == 0)
        ssd_make_decays(&shared.decays[0], read_decays(c, w.h, w.chunk(0), p.lane), rate, !c.A_log, p.lane);
    for (int step = 0;; step++) {
        const bool more = step + 2 < c.chunks; /* the last chunk's rows are not needed */
        const int writer = (step + 1) % WARPS;
        copies_wait();
        __syncthreads();
        if (more)
            load_walk(shared, c, w, step + 1);
        if (more && p.warp == writer)
            raw = read_decays(c, w.h, w.chunk(step + 1), p.lane);
        if (step > 0)
#pragma unroll
            for (int t = 0; t < NT; t++)
                save_tile(w.to + (int64_t)w.chunk(step) * PIECES + t * (TILE_BYTES / 16), state[t], p);
        if (step + 1 == c.chunks)
            break;
        const ssd_decays &d = shared.decays[step & 1];
        advance(state, shared_address(shared.stages[step & 1].left), shared_address(shared.stages[step & 1].right),
                back ? d.from_start : d.into, d.from_start[Q - 1], p);
        if (more && p.warp == writer)
            ssd_make_decays(&shared.decays[(step + 1) & 1], raw, rate, !c.A_log, p.lane);
    }
}

/* ---- outputs ----------------------------------------------------------------------------------------------------------- */

template <int NT> struct output_tiles {
    char B[NT * TILE_BYTES], C[NT * TILE_BYTES];
    struct stage {
        char x[TILE_BYTES], state[NT * TILE_BYTES];
    } stages[2];
    ssd_decays decays[2];
};

template <int NT>
__device__ __forceinline__ void load_piece(output_tiles<NT> &shared, const ssd_call<bf16> &c, const chunk_of &k,
                                          const uint4 *states, const piece_of &v)
{
    enum { PIECES = NT * TILE_BYTES / 16 };
    auto &stage = shared.stages[v.turn & 1];
    const uint4 *from = states + state_at(c, k, v) * PIECES;
    load_tile<THREADS>(stage.x, c.x, k.row, k.n_row, column_of(c, v), c.P - v.first, c.aligned);
    if (!k.first)
#pragma unroll
        for (int i = threadIdx.x; i < PIECES; i += THREADS)
            copy_16(shared_address(stage.state) + i * 16, from + i, true);
    copies_commit();
}

/* y of the warp's rows of a piece; C and G = C B^T of the rows. */
template <int NT>
__device__ __forceinline__ void output_rows(const output_tiles<NT> &shared, const ssd_call<bf16> &c, const chunk_of &k,
                                            const piece_of &v, const tile_rows (&C)[NT], const tile_sums &G,
                                            const place &p)
{
    const auto &stage = shared.stages[v.turn & 1];
    const ssd_decays &d = shared.decays[v.turn & 1];
    const int m = 16 * p.warp;
    const int64_t column = column_of(c, v);
    tile_sums y, product;
    tile_rows mixed;
    clear(y);
    if (!k.first) {
#pragma unroll
        for (int t = 0; t < NT; t++)
            multiply_transposed(y, C[t], shared_address(stage.state) + t * TILE_BYTES, p.lanes, 0, 4);
        scale_rows(y, d.from_start[m + p.g], d.from_start[m + p.g + 8]);
    }
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            product[n][e] = G[n][e];
    mix(mixed, product, d, c.own, p.warp, p);
    multiply(y, mixed, shared_address(stage.x), p.lanes, 0, p.warp + 1);
    add_rows(y, stage.x, c.D[v.head], m, p);
    if (c.aligned)
        store_rows(c.y, k.row, k.n_row, column, c.P - v.first, y, m, p);
    else
        store_elements(c.y, k.row, k.n_row, column, c.P - v.first, y, m, false, p);
}

template <int NT>
static __global__ void __launch_bounds__(THREADS, NT <= 2 ? 2 : 1) group_outputs(ssd_call<bf16> c, const uint4 *states, int slices)
{
    extern __shared__ __align__(128) char memory[];
    output_tiles<NT> &shared = *(output_tiles<NT> *)memory;
    const place p = here();
    const chunk_of k = chunk_here(c, slices);
    const piece_of first = piece_at(c, k, k.begin);
    const head_of h = head_in(c, k, first.head);
    tile_rows C[NT];
    tile_sums G;
    clear(G);
    load_states<NT, THREADS>(shared.B, c.B, k.row, k.n_row, c, h);
    load_states<NT, THREADS>(shared.C, c.C, k.row, k.n_row, c, h);
    load_piece(shared, c, k, states, first);
    if (p.warp == 0)
        make_steps(&shared.decays[0], c, first, read_steps(c, k, first, p.lane), p.lane);
    for (int at = k.begin; at < k.end; at++) {
        const piece_of now = piece_at(c, k, at), next = piece_at(c, k, at + 1);
        const bool more = at + 1 < k.end, writer = p.warp == at % WARPS;
        ssd_raw<bf16> raw = {};
        copies_wait();
        __syncthreads();
        if (more)
            load_piece(shared, c, k, states, next);
        if (more && writer)
            raw = read_steps(c, k, next, p.lane);
        if (at == k.begin)
#pragma unroll
            for (int t = 0; t < NT; t++) {
                load_rows(C[t], shared_address(shared.C) + t * TILE_BYTES, p.lanes, p.warp);
                multiply_transposed(G, C[t], shared_address(shared.B) + t * TILE_BYTES, p.lanes, 0, p.warp + 1);
            }
        output_rows(shared, c, k, now, C, G, p);
        if (more && writer)
            make_steps(&shared.decays[next.turn & 1], c, next, raw, p.lane);
    }
}

/* Tokens as j, by warps 0 to 3: dx of rows 16 r .. of a piece, and what it adds to the sum of dG. */
template <int NT>
__device__ __forceinline__ void x_gradient(group_tiles<NT, 2> &shared, const ssd_call<bf16> &c, const chunk_of &k,
                                           const piece_of &v, shared_products &keep, bool steps, const place &p)
{
    const int m = 16 * p.warp, width = c.P - v.first;
    const ssd_decays &d = shared.decays[v.turn % 3];
    auto &stage = shared.stages[v.turn & 1];
    auto &of_head = shared.sums[sums_of(c, v)];
    const int64_t column = column_of(c, v);
    const row_pieces before = fetch_rows(c.dx, k.row, k.n_row, column, width, m, c.dx.data && c.add_x && c.aligned, p);
    tile_rows x, mixed;
    tile_sums sums;
    load_rows(x, shared_address(stage.x), p.lanes, p.warp);
    clear(sums);
    multiply_transposed(sums, x, shared_address(stage.dy), p.lanes, p.warp, 4);
    leave_diagonal(of_head.D, sums, v.first > 0, p);
    const float2 columns = mix_piece(of_head, v.first > 0, d, mixed, sums, keep, c, steps, p);
    if (steps)
        leave_rows(of_head.of_columns, d.delta[m + p.g] * columns.x, d.delta[m + p.g + 8] * columns.y, m, v.first > 0, p);
    clear(sums);
    if (!k.last) {
#pragma unroll
        for (int t = 0; t < NT; t++) {
            tile_rows B;
            load_rows(B, shared_address(shared.B) + t * TILE_BYTES, p.lanes, p.warp);
            multiply_transposed(sums, B, shared_address(stage.dstate) + t * TILE_BYTES, p.lanes, 0, 4);
        }
        scale_rows(sums, d.to_end[m + p.g], d.to_end[m + p.g + 8]);
    }
    multiply(sums, mixed, shared_address(stage.dy), p.lanes, p.warp, 4);
    if (c.A_log) {
        float up, low;
        row_products(sums, x, up, low);
        leave_rows(of_head.through_u, up, low, m, v.first > 0, p);
        scale_rows(sums, d.delta[m + p.g], d.delta[m + p.g + 8]);
    }
    if (!c.dx.data)
        return;
    if (!c.more)
        add_rows(sums, stage.dy, c.D[v.head], m, p);
    put_rows(c.dx, k.row, k.n_row, column, width, sums, before, m, c.add_x, c.aligned, p);
}

/* sum += scale (left state), rows m .. of tile t; returns this lane's part of its products with the rows of `with`. */
__device__ __forceinline__ float2 through_state(tile_sums &sum, const tile_rows &left, uint32_t state, const float *scale,
                                                uint32_t with, int m, const place &p)
{
    const float upper = scale[m + p.g], lower = scale[m + p.g + 8];
    tile_sums one;
    tile_rows rows;
    float2 products;
    clear(one);
    multiply(one, left, state, p.lanes, 0, 4);
    load_rows(rows, with, p.lanes, m / 16);
    row_products(one, rows, products.x, products.y);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sum[n][e] += (e < 2 ? upper : lower) * one[n][e];
    return make_float2(upper * products.x, lower * products.y);
}

/* By warps 4 to 7: what a piece adds to dB and dC of rows 16 r .. through its states. */
template <int NT>
__device__ __forceinline__ void state_gradients(group_tiles<NT, 2> &shared, const ssd_call<bf16> &c,
                                                 const chunk_of &k, const piece_of &v, tile_sums (&dB)[NT],
                                                 tile_sums (&dC)[NT], const place &p)
{
    const int m = 16 * p.warp;
    const bool add = v.first > 0;
    const ssd_decays &d = shared.decays[v.turn % 3];
    auto &stage = shared.stages[v.turn & 1];
    auto &sums = shared.sums[sums_of(c, v)];
    float2 from_B = make_float2(0.0f, 0.0f), from_C = make_float2(0.0f, 0.0f);
    tile_rows x, dy;
    load_rows(x, shared_address(stage.x), p.lanes, p.warp);
    load_rows(dy, shared_address(stage.dy), p.lanes, p.warp);
#pragma unroll
    for (int t = 0; t < NT; t++) {
        if (!k.last) {
            const float2 part = through_state(dB[t], x, shared_address(stage.dstate) + t * TILE_BYTES, d.into,
                                              shared_address(shared.B) + t * TILE_BYTES, m, p);
            from_B = make_float2(from_B.x + part.x, from_B.y + part.y);
        }
        if (!k.first) {
            const float2 part = through_state(dC[t], dy, shared_address(stage.state) + t * TILE_BYTES, d.from_start,
                                              shared_address(shared.C) + t * TILE_BYTES, m, p);
            from_C = make_float2(from_C.x + part.x, from_C.y + part.y);
        }
    }
    leave_rows(sums.from_B, from_B.x, from_B.y, m, add, p);
    leave_rows(sums.from_C, from_C.x, from_C.y, m, add, p);
}

/* By warps 4 to 7: the products of the heads' sum of dG, (j, i) in a tile, then dB and dC leave. */
template <int NT>
__device__ __forceinline__ void finish_group(const group_tiles<NT, 2> &shared, const char *dG, const ssd_call<bf16> &c,
                                             const chunk_of &k, int slices, tile_sums (&dB)[NT], tile_sums (&dC)[NT],
                                             const place &p)
{
    uint32_t a[4];
#pragma unroll
    for (int step = 0; step < 4; step++) {
        if (step >= p.warp) {
            load_left(a, shared_address(dG), p.lanes, p.warp, step);
#pragma unroll
            for (int t = 0; t < NT; t++)
                multiply_step<false>(dB[t], a, shared_address(shared.C) + t * TILE_BYTES, p.lanes, step, 0, 4);
        }
        if (step <= p.warp) {
            load_left_transposed(a, shared_address(dG), p.lanes, p.warp, step);
#pragma unroll
            for (int t = 0; t < NT; t++)
                multiply_step<false>(dC[t], a, shared_address(shared.B) + t * TILE_BYTES, p.lanes, step, 0, 4);
        }
    }
#pragma unroll
    for (int t = 0; t < NT; t++) {
        store_group(c.dB, c.dB_parts, c, k, slices, dB[t], t, c.add_B, p);
        store_group(c.dC, c.dC_parts, c, k, slices, dC[t], t, c.add_C, p);
    }
}

/* Between pieces: waits for the rows of one, asks for the next's, and finishes the head before. Returns what the decays of
 * the next come from. */
template <int NT>
__device__ __forceinline__ ssd_raw<bf16> enter_piece(group_tiles<NT, 2> &shared, const ssd_call<bf16> &c, const chunk_of &k,
                                               const uint4 *states, const uint4 *dstates, const piece_of &v, bool steps,
                                               int warp, int lane)
{
    ssd_raw<bf16> raw = {};
    copies_wait();
    __syncthreads();
    if (v.at + 1 < k.end) {
        load_piece<GROUP_THREADS>(shared, c, k, states, dstates, piece_at(c, k, v.at + 1));
        copies_commit();
        if (warp == MAKER)
            raw = read_steps(c, k, piece_at(c, k, v.at + 1), lane);
    }
    if (v.turn > 0 && v.first == 0 && warp == FINISHER)
        finish_head<GROUP_WARPS>(shared, c, k, piece_at(c, k, v.at - 1), steps, lane);
    return raw;
}

/* After a piece: its part of <h_end, dh> from the warp, and the decays of the next. */
template <int NT>
__device__ __forceinline__ void leave_piece(group_tiles<NT, 2> &shared, const ssd_call<bf16> &c, const chunk_of &k,
                                            const piece_of &v, const ssd_raw<bf16> &next, bool steps, int warp,
                                            const place &p)
{
    if (steps) {
        const auto &stage = shared.stages[v.turn & 1];
        const float product =
            state_product<NT, 2>(shared_address(stage.state), shared_address(stage.dstate), warp / WARPS, p);
        const float end = shared.decays[v.turn % 3].from_start[Q - 1] * warp_sum(product);
        if (p.lane == 0)
            leave(shared.sums[sums_of(c, v)].end[warp], end, v.first > 0);
    }
    if (v.at + 1 < k.end && warp == MAKER)
        make_steps(&shared.decays[(v.turn + 1) % 3], c, piece_at(c, k, v.at + 1), next, p.lane);
}

/* Warps 0 to 3; leave the sum of dG in `tile`. */
template <int NT>
__device__ __forceinline__ void walk_as_j(group_tiles<NT, 2> &shared, char *tile, const ssd_call<bf16> &c, const chunk_of &k,
                                          const uint4 *states, const uint4 *dstates, bool steps, const place &p)
{
    shared_products keep;
    clear(keep.G);
    clear(keep.dG);
    for (int at = k.begin; at < k.end; at++) {
        const piece_of v = piece_at(c, k, at);
        const ssd_raw<bf16> next = enter_piece(shared, c, k, states, dstates, v, steps, p.warp, p.lane);
        if (at == k.begin)
#pragma unroll
            for (int t = 0; t < NT; t++) {
                tile_rows B;
                load_rows(B, shared_address(shared.B) + t * TILE_BYTES, p.lanes, p.warp);
                multiply_transposed(keep.G, B, shared_address(shared.C) + t * TILE_BYTES, p.lanes, p.warp, 4);
            }
        x_gradient(shared, c, k, v, keep, steps, p);
        leave_piece(shared, c, k, v, next, steps, p.warp, p);
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            *(uint32_t *)(tile + tile_at(16 * p.warp + p.g + 8 * half, n, p.q)) =
                pack(keep.dG[n][2 * half], keep.dG[n][2 * half + 1]);
    __syncthreads();
    if (p.warp == 0)
        finish_head<GROUP_WARPS>(shared, c, k, piece_at(c, k, k.end - 1), steps, p.lane);
}

/* Warps 4 to 7. */
template <int NT>
__device__ __forceinline__ void walk_through_states(group_tiles<NT, 2> &shared, const char *tile, const ssd_call<bf16> &c,
                                                    const chunk_of &k, const uint4 *states, const uint4 *dstates,
                                                    bool steps, int slices, const place &p)
{
    tile_sums dB[NT], dC[NT];
#pragma unroll
    for (int t = 0; t < NT; t++) {
        clear(dB[t]);
        clear(dC[t]);
    }
    for (int at = k.begin; at < k.end; at++) {
        const int warp = WARPS + p.warp;
        const piece_of v = piece_at(c, k, at);
        const ssd_raw<bf16> next = enter_piece(shared, c, k, states, dstates, v, steps, warp, p.lane);
        state_gradients(shared, c, k, v, dB, dC, p);
        leave_piece(shared, c, k, v, next, steps, warp, p);
    }
    __syncthreads();
    __syncthreads();
    finish_group(shared, tile, c, k, slices, dB, dC, p);
}

template <int NT>
static __global__ void __launch_bounds__(GROUP_THREADS, 1)
    group_gradients(ssd_call<bf16> c, const uint4 *states, const uint4 *dstates, int slices)
{
    extern __shared__ __align__(128) char memory[];
    group_tiles<NT, 2> &shared = *(group_tiles<NT, 2> *)memory;
    char *const tile = shared.stages[0].x; /* free when the last piece is done */
    place p = here();
    const bool as_j = p.warp < WARPS, steps = ssd_wants_steps(c);
    const chunk_of k = chunk_here(c, slices);
    const piece_of first = piece_at(c, k, k.begin);
    const head_of h = head_in(c, k, first.head);
    if (p.warp == 0)
        make_steps(&shared.decays[0], c, first, read_steps(c, k, first, p.lane), p.lane);
    p.warp %= WARPS; /* which rows it has */
    load_states<NT, GROUP_THREADS>(shared.B, c.B, k.row, k.n_row, c, h);
    load_states<NT, GROUP_THREADS>(shared.C, c.C, k.row, k.n_row, c, h);
    load_piece<GROUP_THREADS>(shared, c, k, states, dstates, first);
    copies_commit();
    if (as_j)
        walk_as_j(shared, tile, c, k, states, dstates, steps, p);
    else
        walk_through_states(shared, tile, c, k, states, dstates, steps, slices, p);
}

/* ---- launches ---------------------------------------------------------------------------------------------------------- */

/* The states of chunks, at their starts and, where dstates is not NULL, their ends. */
template <int NT>
static cab_status launch_walk(const ssd_call<bf16> &c, uint4 *states, uint4 *dstates, cab_backend *backend)
{
    const size_t bytes = sizeof(state_tiles<NT>);
    const int64_t walks = c.sequences * c.H * c.pieces;
    if (c.chunks == 1)
        return CAB_OK;
    CAB_TRY(cab_cuda_shared((const void *)walk_states<NT>, bytes, "ssd states"));
    walk_states<NT><<<(unsigned)(dstates ? 2 * walks : walks), THREADS, bytes, stream_of(backend)>>>(c, states, dstates);
    return cab_cuda_launched("ssd states");
}

static unsigned blocks_of(const ssd_call<bf16> &c, const ssd_group_scratch &w)
{
    return (unsigned)(c.sequences * c.chunks * (c.H / c.heads) * w.slices);
}

template <int NT>
static cab_status forward(const ssd_call<bf16> &c, const ssd_group_scratch &w, cab_backend *backend)
{
    const size_t bytes = sizeof(output_tiles<NT>);
    uint4 *states = (uint4 *)w.states;
    CAB_TRY(launch_walk<NT>(c, states, NULL, backend));
    CAB_TRY(cab_cuda_shared((const void *)group_outputs<NT>, bytes, "ssd"));
    group_outputs<NT><<<blocks_of(c, w), THREADS, bytes, stream_of(backend)>>>(c, states, w.slices);
    return cab_cuda_launched("ssd");
}

template <int NT>
static cab_status backward(const ssd_call<bf16> &c, const ssd_group_scratch &w, cab_backend *backend)
{
    const size_t bytes = sizeof(group_tiles<NT, 2>);
    uint4 *states = (uint4 *)w.states, *dstates = (uint4 *)w.dstates;
    if (c.aligned && has_wgmma(backend, ssd_groups_wgmma_bytes()))
        return ssd_groups_wgmma_backward(c, w, backend);
    CAB_TRY(launch_walk<NT>(c, states, dstates, backend));
    CAB_TRY(cab_cuda_shared((const void *)group_gradients<NT>, bytes, "ssd backward"));
    group_gradients<NT><<<blocks_of(c, w), GROUP_THREADS, bytes, stream_of(backend)>>>(c, states, dstates, w.slices);
    return cab_cuda_launched("ssd backward");
}

/* As few as fill the GPU: what heads share is computed once a slice, and each has its own part of dB and dC. */
int ssd_group_slices(int64_t chunks, int heads, int multiprocessors)
{
    const int64_t wanted = ceil_div(multiprocessors, chunks);
    return wanted < heads ? (int)wanted : heads;
}

int ssd_group_tiles(int N, bool backward)
{
    return N <= TILE_SIDE ? 1 : N <= 2 * TILE_SIDE || backward ? 2 : 4;
}

cab_status ssd_groups_forward(const ssd_call<bf16> &c, const ssd_group_scratch &w, cab_backend *backend)
{
    switch (ssd_group_tiles(c.N, false)) {
    case 1:
        return forward<1>(c, w, backend);
    case 2:
        return forward<2>(c, w, backend);
    default:
        return forward<4>(c, w, backend);
    }
}

cab_status ssd_groups_backward(const ssd_call<bf16> &c, const ssd_group_scratch &w, cab_backend *backend)
{
    if (ssd_group_tiles(c.N, true) == 1)
        return backward<1>(c, w, backend);
    for (ssd_call<bf16> part = c; part.n_first < c.N; part.n_first += 2 * TILE_SIDE) {
        CAB_TRY(backward<2>(part, w, backend));
        part.more = part.add_x = part.add_dt = true;
    }
    return CAB_OK;
}
