/* scan_backward.cu - the selective scan on the GPU, backward: for more than 16 states, and for channels too few to
 * fill the GPU with one thread per channel. scan_channels.cuh is for the other cases. src/ops/scan.c has the formulas.
 *
 * Layout: warps share channels and states as scan.cuh says. A block takes the channels of 4 warps of one sequence
 * through all tokens: forward, leaving the state at the start of each chunk in scratch, then backward chunk by chunk.
 * For each chunk it computes the states and decays again, into registers. The scratch belongs to the block, and there
 * are as many blocks as the GPU holds at a time, so that the scratch stays in the second-level cache as far as it
 * fits.
 *
 * Arithmetic: with p = dy silu(z), a = exp(delta A) and dh[t] = a[t+1] dh[t+1] + p[t] C[t], dB[t] = sum over channels
 * of dh[t] delta[t] u[t], and dC[t] = sum over channels of p[t] h[t].
 *
 * The tensor cores sum over channels. v[k][m] are the products of channel lane k and row m of lanes. An m16n8k8
 * product with a matrix of zeros and ones on the left adds the four channel lanes of v, and puts the sum of token t
 * into row t (dB) or 8 + t (dC):
 *
 *   k = 0 .. 3: dB's products of the 4 lanes     k = 4 .. 7: dC's     row t of the left matrix: 1 1 1 1 0 0 0 0
 *   column = lane / 4                                                 row 8 + t:               0 0 0 0 1 1 1 1
 *
 * TF32 keeps 11 bits of a product; with fp32 activations a second product takes the rest. Shared memory joins the
 * warps of a block, a second kernel the blocks of channels. dA_log, dD and dt_bias are summed over tokens in
 * registers, and over sequences by a third kernel. Of two directions the second writes its gradient of z to scratch,
 * and a fourth kernel adds it.
 *
 * Bytes per token and channel in bf16: 18 (u and dt twice, z and dy once, du, ddt and dz), besides the states. About
 * 35 N instructions per token and channel. */
#include "ops/cuda/partials.cuh"
#include "ops/cuda/scan.cuh"
#include "ops/cuda/scan_channels.cuh"
#include "ops/cuda/scan_tied_backward.cuh"

enum { BLOCKS_PER_MULTIPROCESSOR = 2 };

/* Twice: for the chunk at hand and for the next (sums: for the last, which is stored late). */
template <typename T, int S, int LANES> struct backward_shared {
    float4 states[2][CH * S / 4][THREADS];                /* at the start of the chunk */
    vec<T, 2> pairs[2][SCAN_TENSORS][Q / LANES][THREADS]; /* of the tokens a thread owns */
    float tile[2][Q][2 * S * LANES];                      /* B and C */
    float sums[2][WARPS][Q][2 * S * LANES];               /* dB and dC of a warp's channels */
    float4 step[WARPS][Q][32 / LANES];                    /* delta, delta u of both channels */
    float4 slopes[WARPS][Q][32 / LANES];                  /* of delta by dt, of y by z but for the sum over states */
    float2 p[WARPS][Q][32 / LANES];                       /* dy silu(z) */
};

/* d += left right, fp32 accumulators over TF32 factors. Left: `one` where token t's rows and columns meet, see above. */
__device__ __forceinline__ void add_products(float (&d)[4], float one, float b, float c)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(__float_as_uint(one)), "r"(0u), "r"(0u), "r"(__float_as_uint(one)), "r"(__float_as_uint(b)),
                   "r"(__float_as_uint(c)));
}

/* What a chunk keeps between its way forward and its way back. */
template <int S> struct chunk_states {
    float a[Q][CH][S], h[Q + 1][CH][S]; /* h[t + 1] is the state after token t */
};

template <typename T, int S, int LANES, bool PAIRS> struct backward_thread : scan_thread<T, S, LANES, PAIRS> {
    typedef scan_thread<T, S, LANES, PAIRS> base;
    using base::A;
    using base::b;
    using base::e;
    using base::first;
    using base::k;
    using base::n;
    using base::sg;
    using base::slot;
    using base::warp;
    static constexpr int OWN = base::OWN, STATES = base::STATES;

    backward_shared<T, S, LANES> &shared;
    const int chunks;
    int turn; /* which of the two tiles and sums is written next */
    float dh[CH][S], dA[CH][S], dD[CH], dbias[CH];

    __device__ backward_thread(const scan_pass<T> &pass, backward_shared<T, S, LANES> &memory)
        : base(pass), shared(memory), chunks((pass.L + Q - 1) / Q), turn(0)
    {
    }

    /* The thread's part of the state at the start of a chunk, 32 lanes apart. */
    __device__ __forceinline__ float4 *state_at(int chunk) const
    {
        const int64_t part = ((int64_t)blockIdx.x * chunks + chunk) * WARPS + warp;
        return reinterpret_cast<float4 *>(k.states) + part * (CH * S / 4) * 32 + threadIdx.x % 32;
    }

    __device__ __forceinline__ void store_state(int chunk, const float (&h)[CH][S]) const
    {
        float4 *to = state_at(chunk);
#pragma unroll
        for (int i = 0; i < CH * S; i += 4)
            to[i / 4 * 32] =
                make_float4(h[i / S][i % S], h[i / S][i % S + 1], h[i / S][i % S + 2], h[i / S][i % S + 3]);
    }

    /* The states at the start of a chunk, once they are copied. */
    __device__ __forceinline__ void read_state(float (&h)[CH][S]) const
    {
#pragma unroll
        for (int i = 0; i < CH * S; i += 4) {
            const float4 v = shared.states[turn][i / 4][threadIdx.x];
            h[i / S][i % S] = v.x;
            h[i / S][i % S + 1] = v.y;
            h[i / S][i % S + 2] = v.z;
            h[i / S][i % S + 3] = v.w;
        }
    }

    /* Begins to copy a tensor's pairs of the chunk at t0 into buffer `side`. */
    __device__ __forceinline__ void copy_pairs(const channels_of<const T> &from, int tensor, int t0, int side)
    {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            vec<T, 2> *to = &shared.pairs[side][tensor][i][threadIdx.x];
            const int t = t0 + i * LANES + sg;
            const T *at = from.at(this->row(t), e);
            if (PAIRS)
                copy_later<2 * sizeof(T)>(to, at);
            else
                *to = load_pair<PAIRS>(at, n);
        }
    }

    /* Begins to load what the way forward reads of a chunk. */
    __device__ __forceinline__ void load_inputs(int chunk, int side)
    {
        copy_pairs(k.u, SCAN_U, chunk * Q, side);
        copy_pairs(k.dt, SCAN_DT, chunk * Q, side);
        this->load_tile(chunk * Q);
    }

    /* ... and the way back. */
    __device__ __forceinline__ void load_all(int chunk, int side)
    {
        const float4 *from = state_at(chunk);
#pragma unroll
        for (int i = 0; i < CH * S / 4; i++)
            copy_later<16>(&shared.states[side][i][threadIdx.x], from + i * 32);
        copy_pairs(k.z, SCAN_Z, chunk * Q, side);
        copy_pairs(k.dy, SCAN_DY, chunk * Q, side);
        load_inputs(chunk, side);
    }

    /* Forward through all chunks but the last for the states between them. */
    __device__ __forceinline__ void sweep()
    {
        float h[CH][S] = {};
        load_inputs(0, turn);
        for (int chunk = 0; chunk + 1 < chunks; chunk++, turn ^= 1) {
            store_state(chunk, h);
            wait_copies();
            __syncwarp();
#pragma unroll
            for (int i = 0; i < OWN; i++)
                shared.step[warp][i * LANES + sg][slot] =
                    this->step_of(chunk * Q + i * LANES + sg, shared.pairs[turn][SCAN_U][i][threadIdx.x],
                                  shared.pairs[turn][SCAN_DT][i][threadIdx.x]);
            this->put_tile(shared.tile[turn]);
            __syncthreads();
            load_inputs(chunk + 1, turn ^ 1);
#pragma unroll
            for (int t = 0; t < Q; t++) {
                float B[S];
                const float4 step = shared.step[warp][t][slot];
                const float delta[CH] = {step.x, step.y}, x[CH] = {step.z, step.w};
                read_states<S>(shared.tile[turn][t] + sg * S, B);
#pragma unroll
                for (int i = 0; i < CH * S; i++)
                    h[i / S][i % S] = exp2_fast(delta[i / S] * A[i / S][i % S]) * h[i / S][i % S] + x[i / S] * B[i % S];
            }
        }
        store_state(chunks - 1, h);
        wait_copies();
    }

    /* One channel of an owned token. */
    __device__ __forceinline__ scan_staged stage_one(float u, float dt, float z, float dy, bool there) const
    {
        scan_staged r = scan_stage(u, dt, z, k.share * dy, k.gated);
        r.x = there ? r.x : 0.0f;
        r.delta = there ? r.delta : 0.0f;
        r.p = there ? r.p : 0.0f;
        return r;
    }

    /* The owned tokens of the chunk at t0. */
    __device__ __forceinline__ void stage(int t0)
    {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const int t = i * LANES + sg;
            const bool here = t0 + t < k.L && n > 0;
            const float2 u = widen(shared.pairs[turn][SCAN_U][i][threadIdx.x]);
            const float2 dt = widen(shared.pairs[turn][SCAN_DT][i][threadIdx.x]);
            const float2 z = widen(shared.pairs[turn][SCAN_Z][i][threadIdx.x]);
            const float2 dy = widen(shared.pairs[turn][SCAN_DY][i][threadIdx.x]);
            const scan_staged a = stage_one(u.x, dt.x + this->bias.x, z.x, dy.x, here);
            const scan_staged b = stage_one(u.y, dt.y + this->bias.y, z.y, dy.y, here);
            shared.step[warp][t][slot] = make_float4(a.delta, b.delta, a.x, b.x);
            shared.slopes[warp][t][slot] = make_float4(a.slope, b.slope, a.gate_slope, b.gate_slope);
            shared.p[warp][t][slot] = make_float2(a.p, b.p);
        }
    }

    /* Forward again through the chunk from its first state; y: <C, h> of the owned tokens. */
    __device__ __forceinline__ void advance(chunk_states<S> &c, float (&y)[OWN][CH]) const
    {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            float sums[CH][LANES] = {};
#pragma unroll
            for (int j = 0; j < LANES; j++) {
                const int t = i * LANES + j;
                float B[S], C[S];
                const float4 step = shared.step[warp][t][slot];
                const float delta[CH] = {step.x, step.y}, x[CH] = {step.z, step.w};
                read_states<S>(shared.tile[turn][t] + sg * S, B);
                read_states<S>(shared.tile[turn][t] + STATES + sg * S, C);
#pragma unroll
                for (int ch = 0; ch < CH; ch++)
#pragma unroll
                    for (int s = 0; s < S; s++) {
                        c.a[t][ch][s] = exp2_fast(delta[ch] * A[ch][s]);
                        c.h[t + 1][ch][s] = c.a[t][ch][s] * c.h[t][ch][s] + x[ch] * B[s];
                        sums[ch][j] += C[s] * c.h[t + 1][ch][s];
                    }
            }
#pragma unroll
            for (int ch = 0; ch < CH; ch++)
                y[i][ch] = sum_lanes<LANES>(sums[ch], sg);
        }
    }

    /* Back through token t: through_x and through_a receive <dh, B> and <da, A>, products the sums for dB and dC. */
    __device__ __forceinline__ void retreat(const chunk_states<S> &c, int t, float (&through_x)[CH],
                                            float (&through_a)[CH], float (&products)[S][4])
    {
        float B[S], C[S];
        const float4 step = shared.step[warp][t][slot];
        const float2 gradient = shared.p[warp][t][slot];
        const float delta[CH] = {step.x, step.y}, x[CH] = {step.z, step.w}, p[CH] = {gradient.x, gradient.y};
        const float one = threadIdx.x % 32 / 4 == t ? 1.0f : 0.0f;
        read_states<S>(shared.tile[turn][t] + sg * S, B);
        read_states<S>(shared.tile[turn][t] + STATES + sg * S, C);
#pragma unroll
        for (int ch = 0; ch < CH; ch++)
            through_x[ch] = through_a[ch] = 0.0f;
#pragma unroll
        for (int s = 0; s < S; s++) {
            float for_b = 0.0f, for_c = 0.0f;
#pragma unroll
            for (int ch = 0; ch < CH; ch++) {
                const float now = dh[ch][s] + p[ch] * C[s];
                dh[ch][s] = now * c.a[t][ch][s];
                const float da = dh[ch][s] * c.h[t][ch][s];
                for_b += x[ch] * now;
                for_c += p[ch] * c.h[t + 1][ch][s];
                through_x[ch] += now * B[s];
                through_a[ch] += da * A[ch][s];
                dA[ch][s] += da * delta[ch];
            }
            add_products(products[s], one, for_b, for_c);
            if (sizeof(T) == sizeof(float))
                add_products(products[s], one, tf32_rest(for_b), tf32_rest(for_c));
        }
    }

    /* Owned token i of the chunk, once its sums over states are there. */
    __device__ __forceinline__ void finish(int t0, int i, float2 y, float2 through_x, float2 through_a)
    {
        const int t = t0 + i * LANES + sg;
        const unsigned row = this->row(t);
        const bool any_left = first + STATES < k.N;
        if (t >= k.L || n == 0)
            return;
        if (STATES < k.N) {
            const int64_t plane = (int64_t)k.sequences * k.L * k.E;
            float *sums = k.sums + (int64_t)row * k.E + e;
            y = add_walks(sums, y, n, first > 0, any_left);
            through_x = add_walks(sums + plane, through_x, n, first > 0, any_left);
            through_a = add_walks(sums + 2 * plane, through_a, n, first > 0, any_left);
            if (any_left)
                return;
        }
        const float4 step = shared.step[warp][i * LANES + sg][slot], slopes = shared.slopes[warp][i * LANES + sg][slot];
        const float2 p = shared.p[warp][i * LANES + sg][slot], D = this->D;
        const float2 u = widen(shared.pairs[turn][SCAN_U][i][threadIdx.x]);
        const float2 ddt = make_float2((u.x * through_x.x + LN_2 * through_a.x) * slopes.x,
                                       (u.y * through_x.y + LN_2 * through_a.y) * slopes.y);
        const float2 du = make_float2(step.x * through_x.x + D.x * p.x, step.y * through_x.y + D.y * p.y);
        dD[0] += p.x * u.x;
        dD[1] += p.y * u.y;
        dbias[0] += ddt.x;
        dbias[1] += ddt.y;
        if (k.du.data != NULL)
            store_pair<PAIRS>(k.du.at(row, e), du, n, k.add_u);
        if (k.ddt.data != NULL)
            store_pair<PAIRS>(k.ddt.at(row, e), ddt, n, k.add_dt);
        if (k.dz.data != NULL)
            store_pair<PAIRS>(k.dz.at(row, e), make_float2(slopes.z * (y.x + D.x * u.x), slopes.w * (y.y + D.y * u.y)),
                              n, k.add_z);
    }

    /* Where the product put them: lane (token, q) holds columns 2 q and 2 q + 1, and a column is sg and a part of slot. */
    __device__ __forceinline__ void put_sums(const float (&products)[S][4])
    {
        const int q = threadIdx.x % 4;
        float *to = shared.sums[turn][warp][threadIdx.x % 32 / 4];
#pragma unroll
        for (int s = 0; s < S; s++)
#pragma unroll
            for (int side = 0; side < 2; side++) {
                const float left = products[s][2 * side], right = products[s][2 * side + 1];
                if (LANES == 8) {
                    to[side * STATES + 2 * q * S + s] = left;
                    to[side * STATES + (2 * q + 1) * S + s] = right;
                } else if (LANES == 4) {
                    to[side * STATES + q * S + s] = left + right;
                } else {
                    const float sum = left + right + __shfl_xor_sync(0xffffffffu, left + right, 1);
                    if (q % 2 == 0)
                        to[side * STATES + q / 2 * S + s] = sum;
                }
            }
    }

    /* dB and dC of the block's channels, for the chunk whose sums the warps left in `sums`. */
    __device__ __forceinline__ void store_sums(int chunk, const float (&sums)[WARPS][Q][2 * STATES]) const
    {
        const unsigned column = threadIdx.x % (2 * STATES), state = first + column % STATES;
        const unsigned first_row = (unsigned)this->group * k.sequences * k.L;
        const channels_of<float> &to = column < STATES ? k.dB : k.dC;
#pragma unroll
        for (int i = 0; i < base::LOADS; i++) {
            const int in_chunk = threadIdx.x / (2 * STATES) + i * base::TILE_STEP, t = chunk * Q + in_chunk;
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++)
                sum += sums[w][in_chunk][column];
            if (t < k.L && state < (unsigned)k.N)
                *to.at(first_row + this->row(t), state) = sum;
        }
    }

    __device__ __forceinline__ void chunk_backward(int t0)
    {
        chunk_states<S> c;
        float y[OWN][CH], products[S][4] = {};
        read_state(c.h[0]);
        advance(c, y);
#pragma unroll
        for (int i = OWN - 1; i >= 0; i--) {
            float through_x[CH][LANES], through_a[CH][LANES];
#pragma unroll
            for (int j = LANES - 1; j >= 0; j--) {
                float for_x[CH], for_a[CH];
                retreat(c, i * LANES + j, for_x, for_a, products);
#pragma unroll
                for (int ch = 0; ch < CH; ch++) {
                    through_x[ch][j] = for_x[ch];
                    through_a[ch][j] = for_a[ch];
                }
            }
            const float2 x = make_float2(sum_lanes<LANES>(through_x[0], sg), sum_lanes<LANES>(through_x[1], sg));
            const float2 a = make_float2(sum_lanes<LANES>(through_a[0], sg), sum_lanes<LANES>(through_a[1], sg));
            finish(t0, i, make_float2(y[i][0], y[i][1]), x, a);
        }
        put_sums(products);
    }

    /* Back through all chunks. Sums over the block are stored one chunk late, behind the next chunk's barrier. */
    __device__ __forceinline__ void back()
    {
        load_all(chunks - 1, turn);
        for (int chunk = chunks - 1; chunk >= 0; chunk--, turn ^= 1) {
            wait_copies();
            stage(chunk * Q);
            this->put_tile(shared.tile[turn]);
            __syncthreads();
            if (chunk + 1 < chunks)
                store_sums(chunk + 1, shared.sums[turn ^ 1]);
            if (chunk > 0)
                load_all(chunk - 1, turn ^ 1);
            chunk_backward(chunk * Q);
        }
        __syncthreads();
        store_sums(0, shared.sums[turn ^ 1]);
    }

    __device__ __forceinline__ void store_parameters() const
    {
        float *to = k.partial_parameters + b * k.partial_pitch + (int64_t)e * (k.N + 2);
#pragma unroll
        for (int i = 0; i < CH * S; i++) {
            const int state = first + sg * S + i % S;
            if (i / S < n && state < k.N)
                to[i / S * (k.N + 2) + state] = LN_2 * A[i / S][i % S] * dA[i / S][i % S];
        }
        if (first + STATES < k.N)
            return;
#pragma unroll
        for (int c = 0; c < CH; c++) {
            float skip = dD[c], bias = dbias[c];
#pragma unroll
            for (int lanes = base::SLOTS; lanes < 32; lanes *= 2) {
                skip += __shfl_xor_sync(0xffffffffu, skip, lanes);
                bias += __shfl_xor_sync(0xffffffffu, bias, lanes);
            }
            if (sg == 0 && c < n) {
                to[c * (k.N + 2) + k.N] = skip;
                to[c * (k.N + 2) + k.N + 1] = bias;
            }
        }
    }

    __device__ __forceinline__ void walk(int state)
    {
        this->begin_states(state);
#pragma unroll
        for (int i = 0; i < CH * S; i++)
            dh[i / S][i % S] = dA[i / S][i % S] = 0.0f;
#pragma unroll
        for (int c = 0; c < CH; c++)
            dD[c] = dbias[c] = 0.0f;
        sweep();
        back();
        store_parameters();
    }
};

template <typename T, int S, int LANES, bool PAIRS>
static __global__ void __launch_bounds__(THREADS, BLOCKS_PER_MULTIPROCESSOR)
    scan_backward(const __grid_constant__ scan_passes<T> passes)
{
    extern __shared__ float4 memory[];
    backward_shared<T, S, LANES> &shared = *reinterpret_cast<backward_shared<T, S, LANES> *>(memory);
    for (int task = blockIdx.x; task < passes.tasks(); task += gridDim.x) {
        const scan_pass<T> &pass = passes.of[task % passes.directions];
        backward_thread<T, S, LANES, PAIRS> thread(pass, shared);
        thread.begin(task / passes.directions);
        for (int state = 0; state < pass.N; state += S * LANES)
            thread.walk(state);
    }
}

/* ---- sums over blocks of channels and over sequences --------------------------------------------------------------- */

/* dB and dC of each direction. */
template <typename T> struct group_sums {
    const float *partials[4]; /* (groups, rows, N) */
    rows_of<T> to[4];
    bool add[4];
    int64_t n_row;
    int N, groups;
};

/* PACKET states a thread. */
template <typename T, int PACKET>
static __global__ void __launch_bounds__(SUM_THREADS) sum_groups(const __grid_constant__ group_sums<T> s)
{
    const int side = blockIdx.y;
    const int64_t i = (blockIdx.x * (int64_t)SUM_THREADS + threadIdx.x) * PACKET, count = s.n_row * s.N;
    if (i >= count || s.to[side].data == NULL)
        return;
    float sum[PACKET] = {}, more[PACKET];
#pragma unroll 4
    for (int group = 0; group < s.groups; group++) {
        load_floats(s.partials[side] + group * count + i, more);
#pragma unroll
        for (int j = 0; j < PACKET; j++)
            sum[j] += more[j];
    }
    put_floats(s.to[side].at(i / s.N, i % s.N), s.add[side], sum);
}

/* Of each direction, column e (N + 2) + i of the partial sums: dA_log[e, i], then dD[e] and dt_bias[e]. */
struct parameter_targets {
    float *A_log[2], *D[2], *bias[2];
    int64_t N, E;
    bool add;

    __device__ float *target(int64_t column) const
    {
        const int64_t channel = column / (N + 2), i = column % (N + 2);
        const bool second = channel >= E;
        float *const to = i < N    ? (second ? A_log[1] : A_log[0])
                          : i == N ? (second ? D[1] : D[0])
                                   : (second ? bias[1] : bias[0]);
        const int64_t e = second ? channel - E : channel;
        return to == NULL ? NULL : i < N ? to + e * N + i : to + e;
    }
};

/* Of a tied A_log: every element gets the Nth part of what its row's one number is due. */
static __global__ void __launch_bounds__(SUM_THREADS) tie_rows(float *gradient, int E, int N)
{
    const int e = blockIdx.x * SUM_THREADS + threadIdx.x;
    float *const row = gradient + (int64_t)e * N;
    float sum = 0.0f;
    if (e >= E)
        return;
    for (int n = 0; n < N; n++)
        sum += row[n];
    for (int n = 0; n < N; n++)
        row[n] = sum / N;
}

/* ---- launches ------------------------------------------------------------------------------------------------------ */

/* Which kernel: that of scan_tied_backward.cuh, that of scan_channels.cuh, moving rows in packets of 16 bytes or not, or this file's with
 * some lanes per channel, of 4 states each. */
struct backward_kind {
    bool tied, channels, packets, pairs;
    bool together; /* directions: half as many tasks, of which there have to be enough */
    int lanes;
};

/* Whether channels of all that is read and written of them can be moved `packet` at a time. */
static bool all_fit(const cab_node *node, int packet)
{
    bool fit = true;
    for (int d = 0; d < cab_scan_attributes_of(node)->directions; d++) {
        const cab_node one = cab_scan_direction(node, d);
        const cab_tensor *const dt = scan_factor(node, d) == NULL ? one.in[CAB_SCAN_DT] : NULL;
        const cab_tensor *const moved[] = {one.in[CAB_SCAN_U],  dt,                   one.in[CAB_SCAN_Z],
                                           one.gin[CAB_SCAN_U], one.gin[CAB_SCAN_DT], one.gin[CAB_SCAN_Z],
                                           node->gout[0]};
        fit &= scan_fits(moved, sizeof moved / sizeof *moved, packet);
    }
    return fit;
}

/* One thread per channel has less to exchange, but takes two blocks on each multiprocessor to be faster. */
static backward_kind kind_of(const cab_node *node, const cab_backend *backend)
{
    const cab_scan_shape s = cab_scan_shape_of(node);
    const int64_t blocks = cab_scan_attributes_of(node)->directions * s.B * ceil_div(s.E, scan_channels::CHANNELS);
    backward_kind kind = {};
    kind.packets = all_fit(node, 16 / (int)cab_dtype_size(node->in[CAB_SCAN_U]->dtype));
    kind.tied = kind.packets && scan_tied::fits(node) && scan_saved(node) != NULL &&
                sizeof(scan_tied::backward_memory<scan_tied::MOST_DEPTH>) <= cab_cuda_of(backend)->shared_limit;
    const int64_t places = s.B * ceil_div(s.E, scan_tied::CHANNELS);
    kind.together = kind.tied && places >= 4 * scan_tied::RESIDENT * (int64_t)cab_cuda_of(backend)->multiprocessors;
    kind.channels =
        !kind.tied && s.N <= scan_channels::STATES && blocks >= 2 * (int64_t)cab_cuda_of(backend)->multiprocessors;
    kind.pairs = all_fit(node, CH);
    kind.lanes = !kind.pairs ? 8 : s.N <= 8 ? 2 : s.N <= 16 ? 4 : 8;
    return kind;
}

/* Offsets in floats of the parts of the scratch; those of each direction follow each other, `..._size` apart. */
struct backward_scratch {
    int64_t blocks, partials, partial_size, parameters, sums, sums_size;
    int64_t gates; /* of the activations' type: the second direction's gradient of z */
    int64_t total;
};

static backward_scratch scratch_of(const cab_node *node, const cab_backend *backend)
{
    const cab_scan_shape s = cab_scan_shape_of(node);
    const backward_kind kind = kind_of(node, backend);
    const int directions = cab_scan_attributes_of(node)->directions;
    int channels = 32 / kind.lanes * CH * WARPS, resident = BLOCKS_PER_MULTIPROCESSOR;
    int64_t states = ceil_div(s.L, Q) * THREADS * CH * 4; /* floats of a block */
    if (kind.tied) {
        channels = scan_tied::CHANNELS;
        resident = scan_tied::RESIDENT;
        states = 0;
    } else if (kind.channels) {
        channels = scan_channels::CHANNELS;
        BY_DTYPE(node->in[CAB_SCAN_U]->dtype, resident = scan_channels::RESIDENT<T>);
        states = ceil_div(s.L, Q) * THREADS * scan_channels::STATES;
    }
    const int64_t groups = ceil_div(s.E, channels), tasks = (kind.together ? 1 : directions) * s.B * groups;
    const int64_t most = resident * (int64_t)cab_cuda_of(backend)->multiprocessors;
    const int64_t tokens = ceil_div(s.B * s.L * s.E * (int64_t)cab_dtype_size(node->in[CAB_SCAN_U]->dtype), 16) * 4;
    backward_scratch w;
    w.blocks = tasks < most ? tasks : most;
    w.partials = w.blocks * states;
    w.partial_size = groups * s.B * s.L * s.N;
    w.parameters = w.partials + 2 * directions * w.partial_size;
    w.sums = w.parameters + directions * s.B * s.E * (s.N + 2);
    w.sums_size = !kind.tied && !kind.channels && s.N > 4 * kind.lanes ? 3 * s.B * s.L * s.E : 0;
    w.gates = ceil_div(w.sums + directions * w.sums_size, 4) * 4;
    w.total = w.gates + (!kind.together && directions == 2 && node->gin[CAB_SCAN_Z] != NULL ? tokens : 0);
    return w;
}

extern "C" size_t cab_scan_backward_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    return (size_t)scratch_of(node, backend).total * sizeof(float);
}

/* dB, dC and the parameters' gradients from their partial sums. */
template <typename T> static cab_status launch_sums(const cab_node *node, const scan_passes<T> &p, cab_backend *backend)
{
    const scan_pass<T> &any = p.of[0];
    group_sums<T> s = {};
    parameter_targets targets = {};
    bool wanted = false, packets = true;
    s.n_row = (int64_t)any.sequences * any.L;
    s.N = any.N;
    s.groups = any.groups;
    targets.N = any.N;
    targets.E = any.E;
    targets.add = true;
    for (int d = 0; d < p.directions; d++) {
        const cab_node one = cab_scan_direction(node, d);
        s.partials[2 * d] = p.of[d].dB.data;
        s.partials[2 * d + 1] = p.of[d].dC.data;
        const cab_tensor *const states[] = {one.gin[CAB_SCAN_B], one.gin[CAB_SCAN_C]};
        packets &= any.N % 4 == 0 && scan_fits(states, 2, 4);
        s.to[2 * d] = rows<T>(one.gin[CAB_SCAN_B]);
        s.to[2 * d + 1] = rows<T>(one.gin[CAB_SCAN_C]);
        s.add[2 * d] = one.accumulate >> CAB_SCAN_B & 1;
        s.add[2 * d + 1] = one.accumulate >> CAB_SCAN_C & 1;
        targets.A_log[d] = rows<float>(one.gin[CAB_SCAN_A_LOG]).data;
        targets.D[d] = rows<float>(one.gin[CAB_SCAN_D]).data;
        targets.bias[d] = rows<float>(one.gin[CAB_SCAN_DT_BIAS]).data;
        wanted |= targets.A_log[d] != NULL || targets.D[d] != NULL || targets.bias[d] != NULL;
    }
    const int packet = packets ? 4 : 1;
    const dim3 grid((unsigned)ceil_div(s.n_row * s.N, SUM_THREADS * packet), (unsigned)(2 * p.directions));
    auto *const kernel = packets ? sum_groups<T, 4> : sum_groups<T, 1>;
    kernel<<<grid, SUM_THREADS, 0, stream_of(backend)>>>(s);
    CAB_TRY(cab_cuda_launched("scan"));
    return wanted ? launch_partials(targets, any.partial_parameters, any.sequences, any.partial_pitch, backend)
                  : CAB_OK;
}

static cab_status launch_ties(const cab_node *node, int E, int N, cab_backend *backend)
{
    for (int d = 0; d < cab_scan_attributes_of(node)->directions; d++) {
        const cab_node one = cab_scan_direction(node, d);
        if (!one.in[CAB_SCAN_A_LOG]->tied || one.gin[CAB_SCAN_A_LOG] == NULL)
            continue;
        tie_rows<<<(unsigned)ceil_div(E, SUM_THREADS), SUM_THREADS, 0, stream_of(backend)>>>(
            (float *)one.gin[CAB_SCAN_A_LOG]->data, E, N);
        CAB_TRY(cab_cuda_launched("scan"));
    }
    return CAB_OK;
}

/* Where a direction reads and writes gradients. With scratch for it the two write those of z apart, since they come to a token at any
 * time; else the second comes after the first, and adds. */
template <typename T> static void set_gradients(scan_pass<T> &p, const cab_node *node, int d, const backward_scratch &w)
{
    const bool apart = w.total > w.gates;
    const cab_node one = cab_scan_direction(node, d);
    float *const scratch = (float *)node->scratch;
    const int64_t channels = (int64_t)p.E * (p.N + 2);
    p.dy = channels_in<const T>(one.gout[0]);
    p.du = channels_in<T>(one.gin[CAB_SCAN_U]);
    p.ddt = channels_in<T>(one.gin[CAB_SCAN_DT]);
    p.dz = channels_in<T>(one.gin[CAB_SCAN_Z]);
    if (d == 1 && apart)
        p.dz = {(T *)(scratch + w.gates), (unsigned)(p.E * sizeof(T))};
    p.add_u = one.accumulate >> CAB_SCAN_U & 1;
    p.add_dt = one.accumulate >> CAB_SCAN_DT & 1;
    p.add_z = d == 0 ? node->accumulate >> CAB_SCAN_Z & 1 : !apart;
    p.states = scratch;
    p.dB = {scratch + w.partials + 2 * d * w.partial_size, (unsigned)(p.N * sizeof(float))};
    p.dC = {p.dB.data + w.partial_size, p.dB.pitch};
    p.partial_parameters = scratch + w.parameters + d * channels;
    p.partial_pitch = cab_scan_attributes_of(node)->directions * channels;
    p.sums = scratch + w.sums + d * w.sums_size;
}

/* Launches `kernel`, whose blocks have `channels` channels, `threads` threads and `shared` bytes of shared memory. */
template <typename T>
static cab_status launch(void (*kernel)(scan_passes<T>), int channels, int threads, size_t shared, const cab_node *node,
                         cab_backend *backend)
{
    const backward_scratch w = scratch_of(node, backend);
    scan_passes<T> p = scan_passes_of<T>(node, channels);
    p.together = kind_of(node, backend).together;
    for (int d = 0; d < p.directions; d++)
        set_gradients(p.of[d], node, d, w);
    CAB_TRY(cab_cuda_shared((const void *)kernel, shared, "scan"));
    kernel<<<(unsigned)w.blocks, threads, shared, stream_of(backend)>>>(p);
    CAB_TRY(cab_cuda_launched("scan"));
    if (w.total > w.gates)
        CAB_TRY(launch_second(node->gin[CAB_SCAN_Z], p.of[1].dz.data, 1.0f, kind_of(node, backend).packets, backend));
    CAB_TRY(launch_sums(node, p, backend));
    return kind_of(node, backend).tied ? CAB_OK : launch_ties(node, p.of[0].E, p.of[0].N, backend);
}

template <typename T, int LANES, bool PAIRS> static cab_status launch_lanes(const cab_node *node, cab_backend *backend)
{
    return launch<T>(scan_backward<T, 4, LANES, PAIRS>, scan_thread<T, 4, LANES, PAIRS>::CHANNELS, THREADS,
                     sizeof(backward_shared<T, 4, LANES>), node, backend);
}

template <int DEPTH> static cab_status launch_tied(const cab_node *node, cab_backend *backend)
{
    return launch<bf16>(scan_tied::scan_backward<DEPTH>, scan_tied::CHANNELS, scan_tied::BLOCK_THREADS,
                        sizeof(scan_tied::backward_memory<DEPTH>), node, backend);
}

template <typename T> static cab_status backward(const cab_node *node, cab_backend *backend)
{
    const backward_kind kind = kind_of(node, backend);
    if (kind.tied) {
        const int depth = scan_tied::depth_of(scan_passes_of<bf16>(node, scan_tied::CHANNELS));
        return depth == 0   ? launch_tied<0>(node, backend)
               : depth == 1 ? launch_tied<1>(node, backend)
                            : launch_tied<2>(node, backend);
    }
    if (kind.channels)
        return launch<T>(kind.packets ? scan_channels::scan_backward<T, true> : scan_channels::scan_backward<T, false>,
                         scan_channels::CHANNELS, THREADS, sizeof(scan_channels::shared_memory<T>), node, backend);
    if (!kind.pairs)
        return launch_lanes<T, 8, false>(node, backend);
    if (kind.lanes == 2)
        return launch_lanes<T, 2, true>(node, backend);
    return kind.lanes == 4 ? launch_lanes<T, 4, true>(node, backend) : launch_lanes<T, 8, true>(node, backend);
}

/* Forward and backward alike: dt is multiplied by all that read it or by none. */
extern "C" bool cab_scan_multiplies_cuda(const cab_node *node, int i, const cab_node *product, const cab_backend *backend)
{
    const bool tied = node->backward ? kind_of(node, backend).tied : scan_tied::fits(node) && all_fit(node, WIDE<bf16>);
    return tied && i % CAB_SCAN_INPUTS == CAB_SCAN_DT && scan_tied::multiplies(product);
}

extern "C" cab_status cab_scan_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[CAB_SCAN_U]->dtype, status = backward<T>(node, backend));
    return status;
}
