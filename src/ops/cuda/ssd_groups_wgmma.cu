/* ssd_groups_wgmma.cu - the backward pass of ssd_groups.cu for Hopper, whose tensor cores multiply 64 rows at a time out of
 * shared memory.
 *
 * walk_pairs: a block is two pieces of a group's heads, a team of four warps each, and one of the directions. The two share B,
 * or C.
 *
 * group_gradients: a block is a chunk and a group of heads, or a slice of them, as there. Two teams of four warps, 16 tokens to a
 * warp. Team 0 has tokens as j: G^T and the sum of dG^T in registers; dx. Team 1 has dB and dC in registers, makes the decays
 * and finishes heads. Pieces of heads pass through STAGES places in shared memory, to which team 1 copies them STAGES - 1
 * pieces ahead.
 *
 * Arithmetic per piece, bf16 operands, fp32 sums, in products of 64 x 64 x 64:
 *
 *   team 0    x dy^T                      1        dG^T, M^T
 *             B dh^T                      NT       du = W (B dh^T) + M^T dy
 *             M^T dy                      1
 *   team 1    C h^T                       NT       for <dy, C h^T>, which is <dy h, C>
 *             dB += (delta W x) dh        NT
 *             dC += (E dy) h              NT
 *
 * Left operands that decays scale are in registers, rounded to bf16. Of the sums that dlog a comes from, <x dh, B> is
 * <x, B dh^T>, and <M^T dy, x> the column sums of M^T * x dy^T, so that <du, x> costs no product of its own.
 *
 * Limits per piece and chunk, NT = 2: 48 KB for the walks. For the gradients 56 KB at the copy rate, 3,100 cycles of a
 * multiprocessor; 10 products, 1,280 cycles. */
#include "ops/cuda/ssd_groups.cuh"
#include "ops/cuda/ssd_wgmma.cuh"

namespace ssd_wgmma
{
enum { STAGES = 3 };
enum { MAKER = 2, FINISHER = 3 }; /* warps of team 1: of the next piece's steps, of ddt */
template <int NT> using tiles = group_tiles<NT, STAGES>;

/* Until the oldest rows that this thread asked for are there, for all to see behind a barrier. */
__device__ __forceinline__ void rows_there(void)
{
    copies_wait_but<STAGES - 2>();
    publish();
}

/* ---- states ------------------------------------------------------------------------------------------------------------ */

enum { PAIR = 2, PAIR_THREADS = PAIR * WARPGROUP };

/* Shared memory of two walks: of a chunk's turn its rows of x and B, or of dy and C. */
template <int NT> struct pair_tiles {
    struct stage {
        char right[NT * TILE_BYTES], left[PAIR][TILE_BYTES];
    } stages[STAGES];
    ssd_decays decays[2][PAIR];
};

/* Two pieces of a group's heads that walk together, a team each: h from x and B, from the first chunk on, or dh from dy and C,
 * from the last. Of an odd number of pieces, the last one walks twice and is stored once. */
struct pair_walk {
    int64_t sequence;
    int group, first, count; /* pieces, counted over all heads */
    bool back;

    __device__ __forceinline__ int piece(int team) const
    {
        return first + (team < count ? team : 0);
    }
    __device__ __forceinline__ int chunk(const ssd_call<bf16> &c, int step) const
    {
        return back ? c.chunks - 1 - step : step;
    }
    __device__ __forceinline__ head_of head(const ssd_call<bf16> &c, int team) const
    {
        return {sequence * c.L, head_of_piece(c, piece(team)), group};
    }
};

__device__ __forceinline__ pair_walk pair_here(const ssd_call<bf16> &c)
{
    const unsigned pieces = (unsigned)(c.heads * c.pieces), pairs = (pieces + 1) / PAIR, groups = (unsigned)(c.H / c.heads);
    const unsigned walks = (unsigned)c.sequences * groups * pairs, index = blockIdx.x % walks;
    const unsigned pair = index % pairs, group = index / pairs % groups;
    const unsigned left = pieces - pair * PAIR;
    return {index / pairs / groups, (int)group, (int)(group * pieces + pair * PAIR), left < PAIR ? (int)left : (int)PAIR,
            blockIdx.x >= walks};
}

template <int NT>
__device__ __forceinline__ void load_step(pair_tiles<NT> &shared, const ssd_call<bf16> &c, const pair_walk &w, int step)
{
    if (step + 1 < c.chunks) { /* the last chunk's rows are not needed */
        const int chunk = w.chunk(c, step), n_row = rows_in(c, chunk);
        const int64_t row = w.sequence * c.L + (int64_t)chunk * Q;
        auto &stage = shared.stages[step % STAGES];
        load_states<NT, PAIR_THREADS>(stage.right, w.back ? c.C : c.B, row, n_row, c, w.head(c, 0));
#pragma unroll
        for (int i = 0; i < PAIR; i++) {
            const int head = w.head(c, i).head, column = (w.piece(i) - head * c.pieces) * TILE_SIDE;
            load_tile<PAIR_THREADS>(stage.left[i], w.back ? c.dy : c.x, row, n_row, (int64_t)head * c.P + column,
                                    c.P - column, c.aligned);
        }
    }
    copies_commit();
}

/* states, then dstates, as walk_states() of ssd_groups.cu leaves them. */
template <int NT>
static __global__ void __launch_bounds__(PAIR_THREADS, 2) walk_pairs(ssd_call<bf16> c, uint4 *states, uint4 *dstates)
{
#if CAB_CUDA_WGMMA
    extern __shared__ __align__(1024) char memory[];
    enum { PIECES = NT * TILE_BYTES / 16 };
    pair_tiles<NT> &shared = *(pair_tiles<NT> *)memory;
    place p = here();
    c.aligned = true; /* as below */
    const int team = p.warp / WARPS;
    p.warp %= WARPS;
    const pair_walk w = pair_here(c);
    const head_of h = w.head(c, team);
    const float rate = ssd_rate(c, h.head);
    uint4 *const to = (w.back ? dstates : states) +
                      (w.sequence * c.H * c.pieces + w.piece(team)) * (int64_t)c.chunks * PIECES;
    wide_sums<NT> state;
    clear_sums(state);
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++)
        load_step(shared, c, w, i);
    if (p.warp == 0)
        ssd_make_decays(&shared.decays[0][team], read_decays(c, h, w.chunk(c, 0), p.lane), rate, !c.A_log, p.lane);
    for (int step = 0;; step++) {
        const bool maker = p.warp == step % WARPS && step + 2 < c.chunks;
        ssd_raw<bf16> raw = {};
        rows_there();
        __syncthreads();
        load_step(shared, c, w, step + STAGES - 1);
        if (maker)
            raw = read_decays(c, h, w.chunk(c, step + 1), p.lane);
        if (step > 0 && team < w.count)
#pragma unroll
            for (int t = 0; t < NT; t++)
                save_tile(to + (int64_t)w.chunk(c, step) * PIECES + t * (TILE_BYTES / 16), state + 8 * t, p);
        if (step + 1 == c.chunks)
            break;
        const auto &stage = shared.stages[step % STAGES];
        const ssd_decays &d = shared.decays[step & 1][team];
        advance_state<NT>(state, stage.left[team], stage.right, w.back ? d.from_start : d.into, d.from_start[Q - 1], p);
        if (maker)
            ssd_make_decays(&shared.decays[(step + 1) & 1][team], raw, rate, !c.A_log, p.lane);
    }
#endif
}

/* ---- gradients --------------------------------------------------------------------------------------------------------- */

/* What is not yet there is asked for, by team 1; the stage that the piece before left is free. */
template <int NT>
__device__ __forceinline__ void load_ahead(tiles<NT> &shared, const ssd_call<bf16> &c, const chunk_of &k, const uint4 *states,
                                           const uint4 *dstates, int at)
{
    if (at < k.end)
        load_piece<WARPGROUP>(shared, c, k, states, dstates, piece_at(c, k, at));
    copies_commit();
}

/* Rows times scale, rounded again. */
__device__ __forceinline__ void scale_left(tile_rows &a, float upper, float lower)
{
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const float by = i % 2 == 0 ? upper : lower;
        const uint32_t pair = a[i / 4][i % 4];
        a[i / 4][i % 4] = pack(by * low_half(pair), by * high_half(pair));
    }
}

/* dx of a piece, by team 0. */
template <int NT>
__device__ __forceinline__ void x_gradient(tiles<NT> &shared, const ssd_call<bf16> &c, const chunk_of &k, const piece_of &v,
                                            shared_products &kept, bool steps, const place &p)
{
    const int m = 16 * p.warp, upper = m + p.g, lower = upper + 8, width = c.P - v.first;
    const ssd_decays &d = shared.decays[v.turn % 3];
    const auto &stage = shared.stages[v.turn % STAGES];
    head_sums &of_head = shared.sums[sums_of(c, v)];
    const int64_t column = column_of(c, v);
    const bool add = v.first > 0;
    tile_sums product, through;
    tile_rows mixed, rows;
    begin_rows<1>(product, stage.x, stage.dy);
    begin_rows<NT>(through, shared.B, stage.dstate);
    const row_pieces before = fetch_rows(c.dx, k.row, k.n_row, column, width, m, c.dx.data && c.add_x && c.aligned, p);
    wgmma_wait<1>();
    keep(product);
    leave_diagonal(of_head.D, product, add, p);
    float2 of_columns = mix_piece(of_head, add, d, mixed, product, kept, c, steps, p), of_states;
    begin_through(product, mixed, stage.dy, false);
    load_rows(rows, shared_address(stage.x), p.lanes, p.warp);
    const float delta = d.delta[upper], delta_lower = d.delta[lower];
    wgmma_wait<1>();
    keep(through);
    scale_rows(through, d.to_end[upper], d.to_end[lower]);
    row_products(through, rows, of_states.x, of_states.y);
    load_rows(rows, shared_address(stage.dy), p.lanes, p.warp);
    if (steps) {
        of_columns = make_float2(quad_sum(of_columns.x), quad_sum(of_columns.y));
        of_states = make_float2(quad_sum(of_states.x), quad_sum(of_states.y));
        if (p.q == 0) {
            leave(of_head.of_columns[upper], delta * of_columns.x, add);
            leave(of_head.of_columns[lower], delta_lower * of_columns.y, add);
            leave(of_head.from_B[upper], delta * of_states.x, add);
            leave(of_head.from_B[lower], delta_lower * of_states.y, add);
            leave(of_head.through_u[upper], of_columns.x + of_states.x, add);
            leave(of_head.through_u[lower], of_columns.y + of_states.y, add);
        }
    }
    const float D = c.more ? 0.0f : c.D[v.head];
    wgmma_wait<0>();
    keep(product);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t pair = rows[n / 2][n % 2 * 2 + e / 2];
            product[n][e] = (e < 2 ? delta : delta_lower) * (product[n][e] + through[n][e]) +
                            D * (e % 2 ? high_half(pair) : low_half(pair));
        }
    if (c.dx.data)
        put_rows(c.dx, k.row, k.n_row, column, width, product, before, m, c.add_x, c.aligned, p);
}

/* What a piece adds to dB and dC through its states, by team 1. y: C h^T, begun. */
template <int NT>
__device__ __forceinline__ void state_gradients(tiles<NT> &shared, const ssd_call<bf16> &c, const chunk_of &k,
                                                const piece_of &v, tile_sums &y, wide_sums<NT> &dB, wide_sums<NT> &dC,
                                                bool steps, const place &p)
{
    const int m = 16 * p.warp, upper = m + p.g, lower = upper + 8;
    const ssd_decays &d = shared.decays[v.turn % 3];
    const auto &stage = shared.stages[v.turn % STAGES];
    tile_rows x, dy;
    load_rows(x, shared_address(stage.x), p.lanes, p.warp);
    scale_left(x, d.into[upper], d.into[lower]);
    begin_through(dB, x, stage.dstate, true);
    load_rows(dy, shared_address(stage.dy), p.lanes, p.warp);
    wgmma_wait<1>();
    keep(y);
    const float scale = d.from_start[upper], scale_lower = d.from_start[lower];
    if (steps) {
        float up, low;
        row_products(y, dy, up, low);
        leave_rows(shared.sums[sums_of(c, v)].from_C, scale * up, scale_lower * low, m, v.first > 0, p);
    }
    scale_left(dy, scale, scale_lower);
    begin_through(dC, dy, stage.state, true);
    if (steps) {
        const float product = state_product<NT, 1>(shared_address(stage.state), shared_address(stage.dstate), 0, p);
        const float end = d.from_start[Q - 1] * warp_sum(product);
        if (p.lane == 0)
            leave(shared.sums[sums_of(c, v)].end[p.warp], end, v.first > 0);
    }
}

/* Team 0; leaves the sum of dG in `tile`. */
template <int NT>
__device__ __forceinline__ void walk_as_j(tiles<NT> &shared, char *tile, const ssd_call<bf16> &c, const chunk_of &k,
                                          bool steps, const place &p)
{
    shared_products kept;
    clear(kept.dG);
    begin_rows<NT>(kept.G, shared.B, shared.C);
    wgmma_wait<0>();
    keep(kept.G);
    for (int at = k.begin; at < k.end; at++) {
        __syncthreads();
        x_gradient(shared, c, k, piece_at(c, k, at), kept, steps, p);
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            *(uint32_t *)(tile + tile_at(16 * p.warp + p.g + 8 * half, n, p.q)) =
                pack(kept.dG[n][2 * half], kept.dG[n][2 * half + 1]);
    publish();
    __syncthreads();
    if (p.warp == 0)
        finish_head<WARPS>(shared, c, k, piece_at(c, k, k.end - 1), steps, p.lane);
}

template <int NT>
__device__ __forceinline__ void store_tiles(rows_of<bf16> to, float *parts, const ssd_call<bf16> &c, const chunk_of &k,
                                            int slices, const wide_sums<NT> &sums, bool add, const place &p)
{
#pragma unroll
    for (int t = 0; t < NT; t++) {
        tile_sums one;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                one[n][e] = sums[8 * t + n][e];
        store_group(to, parts, c, k, slices, one, t, add, p);
    }
}

/* The products of the heads' sum of dG, (j, i) in a tile, then dB and dC leave; by team 1. */
template <int NT>
__device__ __forceinline__ void finish_group(const tiles<NT> &shared, const char *dG, const ssd_call<bf16> &c,
                                             const chunk_of &k, int slices, wide_sums<NT> &dB, wide_sums<NT> &dC,
                                             const place &p)
{
    const uint64_t left = operand_at(shared_address(dG)), B = operand_at(shared_address(shared.B), TILE_BYTES),
                   C = operand_at(shared_address(shared.C), TILE_BYTES);
    keep(dB);
    keep(dC);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < 4; step++) {
        wgmma<false, true>(dB, further(left, step * COLUMNS_16), further(C, step * ROWS_16), true);
        wgmma<true, true>(dC, further(left, step * ROWS_16), further(B, step * ROWS_16), true);
    }
    wgmma_commit();
    wgmma_wait<0>();
    keep(dB);
    keep(dC);
    store_tiles<NT>(c.dB, c.dB_parts, c, k, slices, dB, c.add_B, p);
    store_tiles<NT>(c.dC, c.dC_parts, c, k, slices, dC, c.add_C, p);
}

/* Team 1. */
template <int NT>
__device__ __forceinline__ void walk_through_states(tiles<NT> &shared, const char *tile, const ssd_call<bf16> &c,
                                                    const chunk_of &k, const uint4 *states, const uint4 *dstates,
                                                    bool steps, int slices, const place &p)
{
    wide_sums<NT> dB, dC;
    clear_sums(dB);
    clear_sums(dC);
    for (int at = k.begin; at < k.end; at++) {
        const piece_of v = piece_at(c, k, at), next = piece_at(c, k, at + 1);
        const bool maker = p.warp == MAKER && at + 1 < k.end;
        ssd_raw<bf16> raw = {};
        tile_sums y;
        rows_there();
        __syncthreads();
        begin_rows<NT>(y, shared.C, shared.stages[v.turn % STAGES].state);
        load_ahead(shared, c, k, states, dstates, at + STAGES - 1);
        if (maker)
            raw = read_steps(c, k, next, p.lane);
        state_gradients<NT>(shared, c, k, v, y, dB, dC, steps, p);
        if (maker)
            make_steps(&shared.decays[next.turn % 3], c, next, raw, p.lane);
        if (p.warp == FINISHER && v.turn > 0 && v.first == 0)
            finish_head<WARPS>(shared, c, k, piece_at(c, k, at - 1), steps, p.lane);
        wgmma_wait<0>();
        keep(dB);
        keep(dC);
    }
    __syncthreads();
    __syncthreads();
    finish_group<NT>(shared, tile, c, k, slices, dB, dC, p);
}

template <int NT>
static __global__ void __launch_bounds__(GROUP_THREADS, 1)
    group_gradients(ssd_call<bf16> c, const uint4 *states, const uint4 *dstates, int slices)
{
#if CAB_CUDA_WGMMA
    extern __shared__ __align__(1024) char memory[];
    tiles<NT> &shared = *(tiles<NT> *)memory;
    place p = here();
    c.aligned = true; /* others are not launched, and code for both does not fit the instruction cache */
    const bool as_j = p.warp < WARPS, steps = ssd_wants_steps(c);
    const chunk_of k = chunk_here(c, slices);
    const piece_of first = piece_at(c, k, k.begin);
    const head_of h = head_in(c, k, first.head);
    if (p.warp == 0)
        make_steps(&shared.decays[0], c, first, read_steps(c, k, first, p.lane), p.lane);
    p.warp %= WARPS; /* which rows it has */
    load_states<NT, GROUP_THREADS>(shared.B, c.B, k.row, k.n_row, c, h);
    load_states<NT, GROUP_THREADS>(shared.C, c.C, k.row, k.n_row, c, h);
    copies_commit();
    if (!as_j)
#pragma unroll
        for (int i = 0; i < STAGES - 1; i++)
            load_ahead(shared, c, k, states, dstates, k.begin + i);
    if (as_j)
        copies_wait();
    else
        copies_wait_but<STAGES - 1>();
    publish();
    __syncthreads();
    if (as_j)
        walk_as_j(shared, shared.stages[0].x, c, k, steps, p);
    else
        walk_through_states(shared, shared.stages[0].x, c, k, states, dstates, steps, slices, p);
#endif
}

template <int NT>
static cab_status launch_walks(const ssd_call<bf16> &c, const ssd_group_scratch &w, cab_backend *backend)
{
    const int64_t walks = c.sequences * (c.H / c.heads) * ceil_div(c.heads * c.pieces, PAIR);
    if (c.chunks == 1)
        return CAB_OK;
    CAB_TRY(cab_cuda_shared((const void *)walk_pairs<NT>, sizeof(pair_tiles<NT>), "ssd states"));
    walk_pairs<NT><<<(unsigned)(2 * walks), PAIR_THREADS, sizeof(pair_tiles<NT>), stream_of(backend)>>>(
        c, (uint4 *)w.states, (uint4 *)w.dstates);
    return cab_cuda_launched("ssd states");
}

template <int NT>
static cab_status backward(const ssd_call<bf16> &c, const ssd_group_scratch &w, cab_backend *backend)
{
    const unsigned blocks = (unsigned)(c.sequences * c.chunks * (c.H / c.heads) * w.slices);
    CAB_TRY(launch_walks<NT>(c, w, backend));
    CAB_TRY(cab_cuda_shared((const void *)group_gradients<NT>, sizeof(tiles<NT>), "ssd backward"));
    group_gradients<NT><<<blocks, GROUP_THREADS, sizeof(tiles<NT>), stream_of(backend)>>>(
        c, (const uint4 *)w.states, (const uint4 *)w.dstates, w.slices);
    return cab_cuda_launched("ssd backward");
}
} // namespace ssd_wgmma

size_t ssd_groups_wgmma_bytes(void)
{
    return sizeof(ssd_wgmma::tiles<2>);
}

cab_status ssd_groups_wgmma_backward(const ssd_call<bf16> &c, const ssd_group_scratch &w, cab_backend *backend)
{
    return ssd_group_tiles(c.N, true) == 1 ? ssd_wgmma::backward<1>(c, w, backend) : ssd_wgmma::backward<2>(c, w, backend);
}
