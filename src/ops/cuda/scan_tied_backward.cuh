/* scan_tied_backward.cuh - the backward pass of scan_tied.cuh, which has formulas and fragments.
 *
 * Layout: a block walks over the chunks of one sequence from the last to the first. A warp carries G of its 16
 * channels in registers, and the sums over tokens of dA_log, dD and dt_bias. dB and dC of a chunk are sums over all
 * channels: each warp leaves its sums in shared memory, and the block adds them behind the next chunk's barrier.
 *
 * Arithmetic, per chunk: X and P from u, dt, z and dy; f H as the forward pass saved it; then <dh, B>, dC, dB, g,
 * and out of these du, ddt and dz. */
#ifndef CAB_OPS_CUDA_SCAN_TIED_BACKWARD_CUH
#define CAB_OPS_CUDA_SCAN_TIED_BACKWARD_CUH

#include "ops/cuda/scan_tied.cuh"

namespace scan_tied
{

enum { RESIDENT = 2 }; /* blocks of a multiprocessor */

/* What stands in dz is the last. */
enum { BACK_DZ = SCAN_TENSORS, BACK_TENSORS };

template <int DEPTH> struct backward_memory {
    stage<BACK_TENSORS, DEPTH> stages[2];
    dt_factor<DEPTH> factor;
    uint4 before[2][BLOCK_THREADS];     /* f H of the chunk */
    float4 sums[2][BLOCK_WARPS][4][32]; /* of a warp's channels: dB, then dC, of both blocks of states */
};

template <int DEPTH> using back_walker = walker<BACK_TENSORS, DEPTH>;

/* What a warp carries from chunk to chunk, and sums over tokens of the lane's channels. */
struct carried {
    sums_of G;
    float dA[2], dD[2], dbias[2];
};

/* A chunk on its way back. */
struct back_chunk {
    numbers u, delta, du, g; /* delta: divided by ln 2; du: without what comes through x; g: of each token alone */
    fragment X, P;
    decays d;
    fragment G, rest; /* f G, and what rounding took of it */
};

template <int DEPTH>
__device__ __forceinline__ void load_all(back_walker<DEPTH> &w, int place, int chunk, int side,
                                         uint4 (&before)[BLOCK_THREADS])
{
    const piece p = w.piece_of(chunk);
    copy_16(shared_address(&before[threadIdx.x]), saved_at(w, place, chunk), true);
    if (w.k.add_z)
        w.copy_rows(read_only(w.k.dz), BACK_DZ, p, side);
    w.copy_rows(w.k.z, SCAN_Z, p, side);
    w.copy_rows(w.k.dy, SCAN_DY, p, side);
    w.copy_rows(w.k.u, SCAN_U, p, side);
    w.copy_dt(SCAN_DT, p, side);
    w.copy_tiles(chunk, side);
}

/* What chunk_back() left in a stage. */
template <int DEPTH> __device__ __forceinline__ void write_all(const back_walker<DEPTH> &w, int chunk, int side)
{
    const piece p = w.piece_of(chunk);
    w.write_rows(w.k.dz, SCAN_Z, p, side, false);
    w.write_rows(w.k.du, SCAN_U, p, side, w.k.add_u);
    w.write_rows(w.k.ddt, SCAN_DT, p, side, w.k.add_dt);
}

/* P, and of what is known without the state: du's share of D, dD, and what dz is Y's multiple of. */
template <int DEPTH>
__device__ __forceinline__ void read_gradients(const back_walker<DEPTH> &w, back_chunk &c, carried &s,
                                               numbers &gate_slope)
{
    numbers z, dy, down;
    w.read(SCAN_Z, z);
    w.read(SCAN_DY, dy);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float sigmoid = sigmoid_of(z[i][j]), silu = z[i][j] * sigmoid;
            const float share = w.k.share * dy[i][j], p = share * silu;
            gate_slope[i][j] = share * (sigmoid + silu * (1.0f - sigmoid));
            down[i][j] = p * c.d.down[i][j];
            c.du[i][j] = w.D[i] * p;
            s.dD[i] += p * c.u[i][j];
        }
    narrow(down, c.P);
}

/* Y and dz. */
template <int DEPTH>
__device__ __forceinline__ void mix_forward(back_walker<DEPTH> &w, back_chunk &c, const fragment &before,
                                            const numbers &gate_slope)
{
    fragment left, B, C;
    sums_of S = {}, Y = {};
    numbers dz, p;
    w.read_rows(TILE_B, B);
    w.read_rows(TILE_C, C);
    add_product_nt(S, C, B);
    narrow_causal<false>(S, w.g, w.q, left);
    add_product_nt(Y, before, C);
    add_product_nt(Y, c.X, left);
    widen(c.P, p);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float y = number_of(Y, i, j);
            dz[i][j] = gate_slope[i][j] * (c.d.down[i][j] * y + w.D[i] * c.u[i][j]);
            c.g[i][j] = p[i][j] * y;
        }
    if (w.k.add_z) {
        w.read(BACK_DZ, p);
        add_numbers(dz, p);
    }
    w.put(SCAN_Z, dz);
}

/* G before the chunk; c.G and c.rest: f G. end: g of the token behind the chunk, <G, H>. */
template <int DEPTH>
__device__ __forceinline__ void retreat(const back_walker<DEPTH> &w, back_chunk &c, const fragment &before, sums_of &G,
                                        float (&end)[2])
{
    fragment C;
    sums_of H;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        H[i / 2][i % 2 * 2] = low_half(before[i]);
        H[i / 2][i % 2 * 2 + 1] = high_half(before[i]);
    }
    advance(w, c.d, c.X, H);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < 4; n++)
            sum += number_of(G, i, n) * number_of(H, i, n);
        end[i] = quad_sum(sum);
    }
    scale_channels(G, c.d.through);
    narrow_sums(G, c.G);
#pragma unroll
    for (int i = 0; i < 4; i++)
        c.rest[i] = pack(G[i / 2][i % 2 * 2] - low_half(c.G[i]), G[i / 2][i % 2 * 2 + 1] - high_half(c.G[i]));
    w.read_columns(TILE_C, C);
    add_product_nn(G, c.P, C);
    scale_channels(G, c.d.through);
}

/* Of a row's tokens g, from what each of them adds to it. */
template <int DEPTH>
__device__ __forceinline__ void add_up(const back_walker<DEPTH> &w, const back_chunk &c, int i, float end,
                                       float (&g)[4])
{
    float before[2], all;
    w.place.scan(g, before, all);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float sum = end + all - before[j / 2];
        before[j / 2] += g[j];
        g[j] = w.rate[i] * c.delta[i][j] < MOST ? sum : 0.0f;
    }
}

/* Gradients of u and dt, and the lane's part of those of A and of dt's bias. */
template <int DEPTH>
__device__ __forceinline__ void mix_back(back_walker<DEPTH> &w, back_chunk &c, const float (&end)[2], carried &s)
{
    fragment left, B, C;
    sums_of S = {}, dX = {};
    numbers x, ddt;
    w.read_rows(TILE_B, B); /* once more: registers are what this kernel is short of */
    w.read_rows(TILE_C, C);
    add_product_nt(S, B, C);
    narrow_causal<true>(S, w.g, w.q, left);
    add_product_nt(dX, c.rest, B);
    add_product_nt(dX, c.G, B);
    add_product_nt(dX, c.P, left);
    widen(c.X, x);
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++)
            c.g[i][j] -= x[i][j] * number_of(dX, i, j);
        add_up(w, c, i, end[i], c.g[i]);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float through = c.d.up[i][j] * number_of(dX, i, j), delta = c.delta[i][j]; /* through: times ln 2 */
            /* The sigmoid of softplus^-1(delta ln 2), divided by ln 2. */
            const float slope = delta < 1e-3f ? delta : LOG2_E - LOG2_E * exp2_fast(-delta);
            c.du[i][j] += delta * through;
            ddt[i][j] = (c.u[i][j] * through - LN_2 * w.rate[i] * c.g[i][j]) * slope;
            s.dA[i] += delta * c.g[i][j];
            s.dbias[i] += ddt[i][j];
        }
    }
    w.put(SCAN_U, c.du);
    w.put(SCAN_DT, ddt);
}

/* to = left right_state^T + W right, W = left other^T of tokens not behind, or not before, the row: dC, or dB, of the warp's channels. */
template <bool AFTER, int DEPTH>
__device__ __forceinline__ void mix_channels(const back_walker<DEPTH> &w, const fragment &left, const fragment &other,
                                             const fragment &state, int right, float4 (*to)[32])
{
    fragment across, W, columns;
    sums_of products = {}, sums = {};
    transpose(state, across);
    add_product_nt(sums, left, across);
    add_product_nt(products, left, other);
    narrow_causal<AFTER>(products, w.g, w.q, W);
    w.read_columns(right, columns);
    add_product_nn(sums, W, columns);
#pragma unroll
    for (int i = 0; i < 2; i++)
        to[i][w.lane] = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
}

__device__ __forceinline__ void read_saved(const uint4 &from, fragment &before)
{
    const uint4 left = from;
    before[0] = left.x;
    before[1] = left.y;
    before[2] = left.z;
    before[3] = left.w;
}

/* A chunk: tokens first, which end what most registers hold, then sums over channels. */
template <int DEPTH>
__device__ __forceinline__ void chunk_back(back_walker<DEPTH> &w, carried &s, const uint4 &saved, float4 (&sums)[4][32])
{
    back_chunk c;
    fragment X, P, before;
    float end[2];
    read_inputs(w, SCAN_U, c.u, c.delta, c.d, c.X);
    {
        numbers gate_slope;
        read_gradients(w, c, s, gate_slope);
        read_saved(saved, before);
        mix_forward(w, c, before, gate_slope);
    }
    retreat(w, c, before, s.G, end);
    mix_back(w, c, end, s);
    read_saved(saved, before); /* once more, too */
    transpose(c.X, X);
    transpose(c.P, P);
    mix_channels<true>(w, X, P, c.G, TILE_C, sums);
    mix_channels<false>(w, P, X, before, TILE_B, sums + 2);
}

/* dB and dC of a chunk from what the warps left: threads 0 .. 127, two states of two tokens each. */
template <int DEPTH>
__device__ __forceinline__ void store_sums(const back_walker<DEPTH> &w, int chunk,
                                           const float4 (&sums)[BLOCK_WARPS][4][32])
{
    if (threadIdx.x >= 128)
        return;
    float4 sum = sums[0][w.warp][w.lane];
#pragma unroll
    for (int i = 1; i < BLOCK_WARPS; i++) {
        const float4 v = sums[i][w.warp][w.lane];
        sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    const channels_of<float> &to = w.warp < 2 ? w.k.dB : w.k.dC;
    const unsigned first_row = (unsigned)w.group * w.k.sequences * w.k.L;
    const int n = w.warp % 2 * 8 + 2 * w.q, t = chunk * TOKENS + w.g;
    if (n >= w.k.N)
        return;
    if (t < w.k.L)
        *reinterpret_cast<float2 *>(to.at(first_row + w.row(t), n)) = make_float2(sum.x, sum.y);
    if (t + 8 < w.k.L)
        *reinterpret_cast<float2 *>(to.at(first_row + w.row(t + 8), n)) = make_float2(sum.z, sum.w);
}

/* Sums over the quads' tokens; dA_log a state's part in each. */
template <int DEPTH> __device__ __forceinline__ void store_parameters(const back_walker<DEPTH> &w, const carried &s)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float dA = quad_sum(s.dA[i]), dD = quad_sum(s.dD[i]), dbias = quad_sum(s.dbias[i]);
        const int e = w.channel(i), N = w.k.N;
        float *const to = w.k.partial_parameters + w.b * w.k.partial_pitch + (int64_t)e * (N + 2);
        if (e >= w.k.E)
            continue;
        for (int n = w.q; n < N; n += 4)
            to[n] = -LN_2 * w.rate[i] * dA / N;
        if (w.q == 0) {
            to[N] = dD;
            to[N + 1] = dbias;
        }
    }
}

/* A thread writes its pieces of the chunk behind before it copies there those of the chunk ahead. */
template <int DEPTH>
__device__ __forceinline__ void back(back_walker<DEPTH> &w, int place, backward_memory<DEPTH> &shared)
{
    float4(&sums)[2][BLOCK_WARPS][4][32] = shared.sums;
    carried s = {};
    load_all(w, place, w.chunks - 1, w.turn, shared.before[w.turn]);
    for (int chunk = w.chunks - 1; chunk >= 0; chunk--, w.turn ^= 1) {
        wait_copies();
        __syncthreads();
        if (chunk + 1 < w.chunks) {
            write_all(w, chunk + 1, w.turn ^ 1);
            store_sums(w, chunk + 1, sums[w.turn ^ 1]);
        }
        if (chunk > 0)
            load_all(w, place, chunk - 1, w.turn ^ 1, shared.before[w.turn ^ 1]);
        chunk_back(w, s, shared.before[w.turn][threadIdx.x], sums[w.turn][w.warp]);
    }
    __syncthreads();
    write_all(w, 0, w.turn ^ 1);
    store_sums(w, 0, sums[w.turn ^ 1]);
    store_parameters(w, s);
}

/* Direction D, a constant so that what the pass says are operands, of the block of channels `place`. */
template <int DEPTH, int D>
__device__ __forceinline__ void go_back(const scan_passes<bf16> &passes, int place, backward_memory<DEPTH> &shared)
{
    back_walker<DEPTH> w(passes.of[D], shared.stages, shared.factor);
    w.begin(place);
    __syncthreads(); /* what was before has been read, and of dz written */
    w.copy_factor();
    back(w, place, shared);
}

/* A task is a block of channels in one direction, or with `together` in each after the other. */
template <int DEPTH>
static __global__ void __launch_bounds__(BLOCK_THREADS, RESIDENT)
    scan_backward(const __grid_constant__ scan_passes<bf16> passes)
{
    extern __shared__ float4 memory[];
    backward_memory<DEPTH> &shared = *reinterpret_cast<backward_memory<DEPTH> *>(memory);
    const int apart = passes.together ? 1 : passes.directions;
    for (int task = blockIdx.x; task < apart * passes.places(); task += gridDim.x) {
        const bool second = task % apart > 0;
        if (!second)
            go_back<DEPTH, 0>(passes, task / apart, shared);
        if (second || passes.directions > apart)
            go_back<DEPTH, 1>(passes, task / apart, shared);
    }
}

} // namespace scan_tied

#endif
