/* ssd_walk_wgmma.cu - the forward pass of ssd_tiles.cu for Hopper, where heads share B and C: P up to 64, N up to 128.
 *
 * Layout: a block is two heads of a group and walks over their chunks. Four teams of four warps: 0 and 1 compute a head's
 * outputs, 16 tokens to a warp; 2 and 3 carry its state (P, N) from chunk to chunk, in registers in fp32, and leave it
 * in bf16 in shared memory, where the outputs of the next chunk read it. So the outputs of a chunk and the state behind it are
 * computed at the same time. Of an odd number of heads, the last block's second is the first once more, and is not stored.
 *
 * Arithmetic per head and chunk, bf16 operands, fp32 sums, in products of 64 x 64 x 64:
 *
 *   outputs   C B^T                                        NT      M
 *             y = E (C h^T) + M x + D x                    NT + 1
 *   state     h = exp(S[end]) h + (delta W x)^T B          NT
 *
 * Limits per block and chunk, NT = 2: 14 products, 1,800 cycles; 32 KB at the copy rate, 1,800 cycles of a multiprocessor,
 * and 32 KB of B and C from the second-level cache. */
#include "ops/cuda/ssd_wgmma.cuh"

namespace ssd_walk_wgmma
{
enum { HEADS = 2, STAGES = 3, WALK_THREADS = 2 * HEADS * WARPGROUP };

/* Shared memory of a block. The two copies of the states are of this chunk's start and the next one's. */
template <int NT> struct walk_tiles {
    struct stage {
        char B[NT * TILE_BYTES], C[NT * TILE_BYTES], x[HEADS][TILE_BYTES];
    } stages[STAGES];
    char state[2][HEADS][NT * TILE_BYTES];
    ssd_decays decays[2][HEADS];
};

/* The block's heads: `first`, and `count` - 1 further. */
struct heads_of {
    int64_t row; /* of the sequence's first token */
    int first, count, group;

    /* The head of a team's. */
    __device__ __forceinline__ head_of at(int team) const
    {
        const int i = team % HEADS < count ? team % HEADS : 0;
        return {row, first + i, group};
    }
};

__device__ __forceinline__ heads_of heads_here(const ssd_call<bf16> &c)
{
    const int pairs = (c.heads + HEADS - 1) / HEADS, groups = c.H / c.heads;
    const int pair = (int)(blockIdx.x % (unsigned)pairs), group = (int)(blockIdx.x / (unsigned)pairs % (unsigned)groups);
    const int left = c.heads - pair * HEADS;
    return {(int64_t)(blockIdx.x / (unsigned)(pairs * groups)) * c.L, group * c.heads + pair * HEADS,
            left < HEADS ? left : HEADS, group};
}

template <int NT>
__device__ __forceinline__ void load_chunk(walk_tiles<NT> &shared, const ssd_call<bf16> &c, const heads_of &h, int chunk)
{
    if (chunk < c.chunks) {
        const int64_t row = h.row + (int64_t)chunk * Q;
        const int n_row = rows_in(c, chunk);
        auto &stage = shared.stages[chunk % STAGES];
        load_states<NT, WALK_THREADS>(stage.B, c.B, row, n_row, c, h.at(0));
        load_states<NT, WALK_THREADS>(stage.C, c.C, row, n_row, c, h.at(0));
#pragma unroll
        for (int i = 0; i < HEADS; i++)
            load_tile<WALK_THREADS>(stage.x[i], c.x, row, n_row, (int64_t)h.at(i).head * c.P, c.P, c.aligned);
    }
    copies_commit();
}

/* M of rows 16 r ..: what sums holds of C B^T times decay and delta, packed. */
__device__ __forceinline__ void mix_rows(tile_rows &mixed, tile_sums &sums, const ssd_decays &d, bool documents, int own,
                                         const place &p)
{
    const int i = 16 * p.warp + p.g;
    const float upper = d.s[i], lower = d.s[i + 8];
#pragma unroll
    for (int n = 0; n < 8; n++) {
        if (n > 2 * p.warp + 1) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                sums[n][e] = 0.0f;
            continue;
        }
        const int j = 8 * n + 2 * p.q;
        const float2 at = *(const float2 *)(d.s + j), delta = *(const float2 *)(d.delta + j);
        float decay[4] = {upper - at.x, upper - at.y, lower - at.x, lower - at.y};
        if (documents || n >= 2 * p.warp)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int token = j + e % 2, by = i + e / 2 * 8;
                decay[e] = token < by + own && token >= d.first[by] ? decay[e] : -INFINITY;
            }
#pragma unroll
        for (int e = 0; e < 4; e++)
            sums[n][e] *= exp2_fast(decay[e]) * (e % 2 ? delta.y : delta.x);
    }
    pack_rows(mixed, sums);
}

/* y of a head's chunk, by a team. */
template <int NT>
__device__ __forceinline__ void outputs(walk_tiles<NT> &shared, const ssd_call<bf16> &c, const head_of &h, bool stored,
                                        int team, int chunk, float D, const place &p)
{
    const auto &stage = shared.stages[chunk % STAGES];
    const ssd_decays &d = shared.decays[chunk & 1][team];
    const int m = 16 * p.warp, n_row = rows_in(c, chunk);
    const int64_t row = h.first + (int64_t)chunk * Q, column = (int64_t)h.head * c.P;
    tile_sums product, y;
    tile_rows rows;
    begin_rows<NT>(product, stage.C, stage.B);
    begin_rows<NT>(y, stage.C, shared.state[chunk & 1][team]);
    wgmma_wait<1>();
    keep(product);
    mix_rows(rows, product, d, c.starts != NULL, c.own, p);
    wgmma_wait<0>();
    keep(y);
    scale_rows(y, d.from_start[m + p.g], d.from_start[m + p.g + 8]);
    begin_through(y, rows, stage.x[team], true);
    tile_rows x;
    load_rows(x, shared_address(stage.x[team]), p.lanes, p.warp);
    wgmma_wait<0>();
    keep(y);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t pair = x[n / 2][n % 2 * 2 + e / 2];
            y[n][e] += D * (e % 2 ? high_half(pair) : low_half(pair));
        }
    if (!stored)
        return;
    if (c.aligned)
        store_rows(c.y, row, n_row, column, c.P, y, m, p);
    else
        store_elements(c.y, row, n_row, column, c.P, y, m, false, p);
}

/* The warp's 16 rows of a state in bf16, for products to read. */
template <int NT> __device__ __forceinline__ void write_state(char *tiles, const wide_sums<NT> &state, const place &p)
{
#pragma unroll
    for (int n = 0; n < 8 * NT; n++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            *(uint32_t *)(tiles + n / 8 * TILE_BYTES + tile_at(16 * p.warp + p.g + 8 * half, n % 8, p.q)) =
                pack(state[n][2 * half], state[n][2 * half + 1]);
}

/* Until a chunk and the states before it are there; asks for a later one. */
template <int NT>
__device__ __forceinline__ void enter_chunk(walk_tiles<NT> &shared, const ssd_call<bf16> &c, const heads_of &h, int chunk)
{
    copies_wait_but<STAGES - 2>();
    publish();
    __syncthreads();
    load_chunk(shared, c, h, chunk + STAGES - 1);
}

/* A team with a head's state; its last warp makes the decays. */
template <int NT>
__device__ __forceinline__ void walk_state(walk_tiles<NT> &shared, const ssd_call<bf16> &c, const heads_of &all,
                                           const head_of &h, int team, float rate, const place &p)
{
    wide_sums<NT> state;
    clear_sums(state);
    write_state<NT>(shared.state[0][team], state, p);
    for (int chunk = 0; chunk < c.chunks; chunk++) {
        const bool maker = p.warp == WARPS - 1 && chunk + 1 < c.chunks;
        ssd_raw<bf16> raw = {};
        enter_chunk(shared, c, all, chunk);
        if (maker)
            raw = read_decays(c, h, chunk + 1, p.lane);
        const auto &stage = shared.stages[chunk % STAGES];
        const ssd_decays &d = shared.decays[chunk & 1][team];
        advance_state<NT>(state, stage.x[team], stage.B, d.into, d.from_start[Q - 1], p);
        write_state<NT>(shared.state[(chunk + 1) & 1][team], state, p);
        if (maker)
            ssd_make_decays(&shared.decays[(chunk + 1) & 1][team], raw, rate, !c.A_log, p.lane);
    }
}

template <int NT> static __global__ void __launch_bounds__(WALK_THREADS, 1) walk(ssd_call<bf16> c)
{
#if CAB_CUDA_WGMMA
    extern __shared__ __align__(1024) char memory[];
    walk_tiles<NT> &shared = *(walk_tiles<NT> *)memory;
    place p = here();
    c.aligned = true; /* others are not launched, and code for both does not fit the instruction cache */
    const int team = p.warp / WARPS % HEADS;
    const bool has_state = p.warp >= HEADS * WARPS;
    const heads_of all = heads_here(c);
    const head_of h = all.at(team);
    const float rate = ssd_rate(c, h.head), D = c.D[h.head];
    p.warp %= WARPS;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++)
        load_chunk(shared, c, all, i);
    if (!has_state) {
        if (p.warp == 0)
            ssd_make_decays(&shared.decays[0][team], read_decays(c, h, 0, p.lane), rate, !c.A_log, p.lane);
        for (int chunk = 0; chunk < c.chunks; chunk++) {
            enter_chunk(shared, c, all, chunk);
            outputs(shared, c, h, team < all.count, team, chunk, D, p);
        }
    } else {
        walk_state(shared, c, all, h, team, rate, p);
    }
#endif
}

template <int NT> static cab_status forward(const ssd_call<bf16> &c, cab_backend *backend)
{
    const int64_t pairs = ceil_div(c.heads, HEADS), blocks = c.sequences * (c.H / c.heads) * pairs;
    CAB_TRY(cab_cuda_shared((const void *)walk<NT>, sizeof(walk_tiles<NT>), "ssd"));
    walk<NT><<<(unsigned)blocks, WALK_THREADS, sizeof(walk_tiles<NT>), stream_of(backend)>>>(c);
    return cab_cuda_launched("ssd");
}
} // namespace ssd_walk_wgmma

size_t ssd_walk_wgmma_bytes(void)
{
    return sizeof(ssd_walk_wgmma::walk_tiles<2>);
}

cab_status ssd_walk_wgmma_forward(const ssd_call<bf16> &c, cab_backend *backend)
{
    return c.N <= TILE_SIDE ? ssd_walk_wgmma::forward<1>(c, backend) : ssd_walk_wgmma::forward<2>(c, backend);
}
