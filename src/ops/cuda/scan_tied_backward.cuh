/* scan_tied_backward.cuh - the way back of scan_tied.cuh, which has the formulas. A block goes forward through its chunks once for the
 * states before them, f H as an operand in scratch, then backward. dB and dC of a chunk, sums over channels, are left in shared memory
 * by each warp and added up by the block behind the next chunk's barrier. */
#ifndef CAB_OPS_CUDA_SCAN_TIED_BACKWARD_CUH
#define CAB_OPS_CUDA_SCAN_TIED_BACKWARD_CUH

#include "ops/cuda/scan_tied.cuh"

namespace scan_tied
{

enum { RESIDENT = 2 }; /* blocks of a multiprocessor */

struct backward_memory {
    stage<SCAN_TENSORS> stages[2];
    float4 sums[2][BLOCK_WARPS][4][32]; /* of a warp's channels: dB, then dC, of both blocks of states */
};

typedef walker<SCAN_TENSORS> back_walker;

/* What a warp carries from chunk to chunk, and sums over tokens of the lane's channels. */
struct carried {
    sums_of G;
    float end[2]; /* g of the token behind the chunk */
    float dA[2], dD[2], dbias[2];
};

/* A chunk on its way back. */
struct back_chunk {
    numbers u, delta, p, gate_slope;
    fragment X, P;
    decays d;
    sums_of before; /* f H */
    sums_of Y, dX;
};

/* f H of a chunk in scratch: a block of 8 states behind the other. */
__device__ __forceinline__ float4 *state_at(const back_walker &w, int chunk)
{
    return reinterpret_cast<float4 *>(w.k.states) + ((int64_t)blockIdx.x * w.chunks + chunk) * 2 * BLOCK_THREADS +
           threadIdx.x;
}

__device__ __forceinline__ void load_inputs(back_walker &w, int chunk, int side)
{
    w.copy_rows(w.k.u, SCAN_U, chunk, side);
    w.copy_rows(w.k.dt, SCAN_DT, chunk, side);
    w.copy_states(chunk, side);
}

__device__ __forceinline__ void load_all(back_walker &w, int chunk, int side)
{
    w.copy_rows(w.k.z, SCAN_Z, chunk, side);
    w.copy_rows(w.k.dy, SCAN_DY, chunk, side);
    load_inputs(w, chunk, side);
}

__device__ __forceinline__ void sweep(back_walker &w)
{
    sums_of H = {};
    load_inputs(w, 0, w.turn);
    for (int chunk = 0; chunk < w.chunks; chunk++, w.turn ^= 1) {
        numbers u, delta;
        fragment X;
        decays d;
        wait_copies();
        __syncthreads();
        if (chunk + 1 < w.chunks)
            load_inputs(w, chunk + 1, w.turn ^ 1);
        read_inputs(w, u, delta, d, X);
        scale_channels(H, d.through);
#pragma unroll
        for (int i = 0; i < 2; i++)
            state_at(w, chunk)[i * BLOCK_THREADS] = make_float4(H[i][0], H[i][1], H[i][2], H[i][3]);
        advance(w, d, X, H);
    }
}

/* Everything per token and channel that is known before the products. */
__device__ __forceinline__ void read_chunk(const back_walker &w, int chunk, back_chunk &c)
{
    numbers z, dy, down;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float4 state = state_at(w, chunk)[i * BLOCK_THREADS];
        c.before[i][0] = state.x;
        c.before[i][1] = state.y;
        c.before[i][2] = state.z;
        c.before[i][3] = state.w;
    }
    read_inputs(w, c.u, c.delta, c.d, c.X);
    w.read(SCAN_Z, z);
    w.read(SCAN_DY, dy);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float s = sigmoid_fast(z[i][j]), silu = z[i][j] * s;
            c.p[i][j] = w.k.gated ? dy[i][j] * silu : dy[i][j];
            c.gate_slope[i][j] = dy[i][j] * (s + silu * (1.0f - s));
            down[i][j] = c.p[i][j] * c.d.down[i][j];
        }
    narrow(down, c.P);
}

/* What narrow_sums() loses of s. */
__device__ __forceinline__ void narrow_rest(const sums_of &s, const fragment &r, fragment &rest)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        rest[i] = pack(s[i / 2][i % 2 * 2] - low_half(r[i]), s[i / 2][i % 2 * 2 + 1] - high_half(r[i]));
}

/* Y and dX, which `up` and `down` still have to be applied to. */
__device__ __forceinline__ void mix_tokens(const back_walker &w, back_chunk &c, const sums_of &G)
{
    const stage<SCAN_TENSORS> &at = w.stages[w.turn];
    fragment B, C, left, rest;
    sums_of S = {}, Y = {}, dX = {};
    w.read_rows(at.B, B);
    w.read_rows(at.C, C);
    add_product_nt(S, C, B);
    keep_causal<false>(S, w.g, w.q);
    narrow_sums(S, left);
    add_product_nt(Y, c.X, left);
    narrow_sums(c.before, left);
    add_product_nt(Y, left, C);
    narrow_sums(G, left);
    narrow_rest(G, left, rest);
    add_product_nt(dX, left, B);
    add_product_nt(dX, rest, B);
    sums_of T = {};
    add_product_nt(T, B, C);
    keep_causal<true>(T, w.g, w.q);
    narrow_sums(T, left);
    add_product_nt(dX, c.P, left);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        c.Y[i / 4][i % 4] = Y[i / 4][i % 4];
        c.dX[i / 4][i % 4] = dX[i / 4][i % 4];
    }
}

/* g of a row's tokens. The operands as they were rounded, so that what X and P exchange within the chunk cancels. */
__device__ __forceinline__ void decay_gradients(const back_walker &w, const back_chunk &c, const carried &s, numbers &g)
{
    numbers x, p;
    widen(c.X, x);
    widen(c.P, p);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float before[4], all;
#pragma unroll
        for (int j = 0; j < 4; j++)
            g[i][j] = p[i][j] * number_of(c.Y, i, j) - x[i][j] * number_of(c.dX, i, j);
        token_scan(g[i], w.q, before, all);
#pragma unroll
        for (int j = 0; j < 4; j++)
            g[i][j] = w.rate[i] * c.delta[i][j] < MOST ? s.end[i] + (all - before[j]) : 0.0f;
    }
}

/* Gradients of u, dt, z, and the lane's part of those of the parameters. */
__device__ __forceinline__ void finish(back_walker &w, const back_chunk &c, int chunk, carried &s)
{
    numbers g, du, ddt, dz;
    decay_gradients(w, c, s, g);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float through = c.d.up[i][j] * number_of(c.dX, i, j), u = c.u[i][j], delta = c.delta[i][j];
            const float slope = delta < 1e-3f ? delta : 1.0f - exp2_fast(-LOG2_E * delta); /* sigmoid of softplus^-1 */
            du[i][j] = delta * through + w.D[i] * c.p[i][j];
            ddt[i][j] = (u * through - LN_2 * w.rate[i] * g[i][j]) * slope;
            dz[i][j] = c.gate_slope[i][j] * (c.d.down[i][j] * number_of(c.Y, i, j) + w.D[i] * u);
            s.dA[i] += delta * g[i][j];
            s.dD[i] += c.p[i][j] * u;
            s.dbias[i] += ddt[i][j];
        }
    w.write(w.k.du, SCAN_U, chunk, du, w.k.add_u);
    w.write(w.k.ddt, SCAN_DT, chunk, ddt, w.k.add_dt);
    w.write(w.k.dz, SCAN_Z, chunk, dz, w.k.add_z);
}

/* dB and dC of the warp's channels. G: f G */
__device__ __forceinline__ void mix_channels(const back_walker &w, const back_chunk &c, const sums_of &G,
                                             float4 (&to)[4][32])
{
    const stage<SCAN_TENSORS> &at = w.stages[w.turn];
    fragment X, P, across, left, columns;
    sums_of W = {}, dB = {}, dC = {};
    transpose(c.X, X);
    transpose(c.P, P);
    narrow_sums(c.before, left);
    transpose(left, across);
    add_product_nt(dC, P, across);
    add_product_nt(W, P, X);
    keep_causal<false>(W, w.g, w.q);
    narrow_sums(W, left);
    w.read_columns(at.B, columns);
    add_product_nn(dC, left, columns);
    narrow_sums(G, left);
    transpose(left, across);
    add_product_nt(dB, X, across);
    sums_of V = {};
    add_product_nt(V, X, P);
    keep_causal<true>(V, w.g, w.q);
    narrow_sums(V, left);
    w.read_columns(at.C, columns);
    add_product_nn(dB, left, columns);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        to[i][w.lane] = make_float4(dB[i][0], dB[i][1], dB[i][2], dB[i][3]);
        to[2 + i][w.lane] = make_float4(dC[i][0], dC[i][1], dC[i][2], dC[i][3]);
    }
}

/* G and g before the chunk. */
__device__ __forceinline__ void retreat(const back_walker &w, const back_chunk &c, carried &s)
{
    fragment C;
    w.read_columns(w.stages[w.turn].C, C);
    add_product_nn(s.G, c.P, C);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < 4; n++)
            sum += number_of(s.G, i, n) * number_of(c.before, i, n);
        s.end[i] = quad_sum(sum);
    }
    scale_channels(s.G, c.d.through);
}

/* dB and dC of a chunk from what the warps left: threads 0 .. 127, two states of two tokens each. */
__device__ __forceinline__ void store_sums(const back_walker &w, int chunk, const float4 (&sums)[BLOCK_WARPS][4][32])
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
__device__ __forceinline__ void store_parameters(const back_walker &w, const carried &s)
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

__device__ __forceinline__ void back(back_walker &w, float4 (&sums)[2][BLOCK_WARPS][4][32])
{
    carried s = {};
    load_all(w, w.chunks - 1, w.turn);
    for (int chunk = w.chunks - 1; chunk >= 0; chunk--, w.turn ^= 1) {
        back_chunk c;
        wait_copies();
        __syncthreads();
        if (chunk > 0)
            load_all(w, chunk - 1, w.turn ^ 1);
        if (chunk + 1 < w.chunks)
            store_sums(w, chunk + 1, sums[w.turn ^ 1]);
        read_chunk(w, chunk, c);
        scale_channels(s.G, c.d.through);
        mix_tokens(w, c, s.G);
        mix_channels(w, c, s.G, sums[w.turn][w.warp]);
        finish(w, c, chunk, s);
        retreat(w, c, s);
    }
    __syncthreads();
    store_sums(w, 0, sums[w.turn ^ 1]);
    store_parameters(w, s);
}

static __global__ void __launch_bounds__(BLOCK_THREADS, RESIDENT)
    scan_backward(const __grid_constant__ scan_passes<bf16> passes)
{
    extern __shared__ float4 memory[];
    backward_memory &shared = *reinterpret_cast<backward_memory *>(memory);
    for (int task = blockIdx.x; task < passes.tasks(); task += gridDim.x) {
        back_walker w(passes.of[task % passes.directions], shared.stages);
        w.begin(task / passes.directions);
        __syncthreads(); /* the last task's rows and sums have been read */
        sweep(w);
        __syncthreads();
        back(w, shared.sums);
    }
}

} // namespace scan_tied

#endif
