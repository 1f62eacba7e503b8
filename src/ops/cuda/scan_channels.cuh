/* scan_channels.cuh - the backward pass of the selective scan for many channels and at most 16 states, one thread per
 * channel. src/ops/scan.c has the formulas.
 *
 * Layout:
 *
 *   lane = channel     a warp: 32 neighbouring channels of one sequence; a block: 128     states: two at a time
 *
 * What there is once per token and channel (softplus, gates, sums over states) needs neither exchange nor copies
 * between lanes. A block walks forward once and leaves the states at the start of each chunk of Q tokens in scratch.
 * Then it goes backward chunk by chunk. For each pair of states it walks forward again through the chunk, with states
 * and decays in registers, and then back; shared memory keeps dh and dA from chunk to chunk. Rows of channels are
 * copied to shared memory one chunk ahead, 16 bytes a lane. Behind the end of the sequence they are zeros: with u = dy
 * = 0 a token adds nothing to any gradient.
 *
 * Arithmetic: dB[t] and dC[t] are sums over channels (scan_backward.cu). Per token the tensor cores add four lanes of
 * the products of both states, v0 and v1 of dB, v2 and v3 of dC. They do so by an m16n8k8 product with a matrix of
 * zeros and ones on the right:
 *
 *   left, row = lane / 4 (+ 8): v0 (v1) in columns 0 .. 3, v2 (v3) in 4 .. 7
 *   right: column 2 t of ones in rows 0 .. 3, column 2 t + 1 of ones in rows 4 .. 7, t = token % 4
 *
 * TF32 keeps 11 bits of a product; with fp32 activations a second product takes the rest. The 8 rows and the 4 warps
 * are added up from shared memory after the chunk.
 *
 * Per token, channel and state: 2.4 exponentials and reciprocals, and 28 instructions, of which 6 on the way
 * forward, 15 on the way back and 7 that a channel's 16 states share. Instructions are the limit. Bytes per token
 * and channel in bf16: 34 (u and dt twice, z and dy once, du, ddt, dz, and 8 of states written and read). */
#ifndef CAB_OPS_CUDA_SCAN_CHANNELS_CUH
#define CAB_OPS_CUDA_SCAN_CHANNELS_CUH

#include "ops/cuda/scan.cuh"

namespace scan_channels
{

enum { LANES = 32, CHANNELS = LANES * WARPS, STATES = 16, S = 2, GROUPS = STATES / S };

/* Blocks that have room on a multiprocessor of sm_90. */
template <typename T> constexpr int RESIDENT = sizeof(T) == 2 ? 3 : 2;

template <typename T> struct shared_memory {
    float4 sums[WARPS][GROUPS][2][LANES]; /* dB, dC of both states; of tokens lane % 4 and + 4, of four channels */
    float4 carry[GROUPS][THREADS];        /* dh of both states, dA */
    float2 A[GROUPS][THREADS];
    float tile[2][Q][2 * STATES];             /* B and C */
    T rows[2][SCAN_TENSORS][WARPS][Q][LANES]; /* read; then what is to be written */
};

/* sums += left right, fp32 accumulators over TF32 factors. */
__device__ __forceinline__ void add_tf32(float (&sums)[4], const float (&left)[4], const float (&right)[2])
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(__float_as_uint(left[0])), "r"(__float_as_uint(left[1])), "r"(__float_as_uint(left[2])),
          "r"(__float_as_uint(left[3])), "r"(__float_as_uint(right[0])), "r"(__float_as_uint(right[1])));
}

template <typename T>
__device__ __forceinline__ void add_products(float (&sums)[4], const float (&products)[4], const float (&one)[2])
{
    add_tf32(sums, products, one);
    if (sizeof(T) == sizeof(float)) {
        const float rest[4] = {tf32_rest(products[0]), tf32_rest(products[1]), tf32_rest(products[2]),
                               tf32_rest(products[3])};
        add_tf32(sums, rest, one);
    }
}

template <typename T, bool VECTOR> struct thread {
    const scan_pass<T> &k;
    shared_memory<T> &shared;
    const int warp, lane, chunks, pairs; /* pairs: groups of states that there are */
    int b, group, first_channel,
        e;                     /* sequence, block of channels, first channel of the warp, the thread's (0 if none) */
    int first_row, step, turn; /* row of token 0; +1 or -1; which of the two buffers holds the chunk */
    bool here;
    float bias, D, dD, dbias;
    float one[Q / 2][2]; /* the right matrix of token t is one[t % 4] */
    T tile[2];           /* of B and C of the next chunk: column lane of tokens warp and warp + 4 */

    __device__ thread(const scan_pass<T> &pass, shared_memory<T> &memory)
        : k(pass), shared(memory), warp(threadIdx.x / 32), lane(threadIdx.x % 32), chunks((pass.L + Q - 1) / Q),
          pairs((pass.N + S - 1) / S), turn(0)
    {
#pragma unroll
        for (int i = 0; i < Q; i++)
            one[i / 2][i % 2] = lane / 4 == i ? 1.0f : 0.0f;
    }

    __device__ __forceinline__ unsigned row(int t) const
    {
        return (unsigned)(first_row + step * min(t, k.L - 1));
    }

    __device__ __forceinline__ void begin(int task)
    {
        b = task / k.groups;
        group = task - b * k.groups;
        first_channel = group * CHANNELS + warp * LANES;
        here = first_channel + lane < k.E;
        e = here ? first_channel + lane : 0;
        step = k.reverse ? -1 : 1;
        first_row = b * k.L + (k.reverse ? k.L - 1 : 0);
        D = here ? k.D[e] : 0.0f;
        bias = here && k.bias != NULL ? k.bias[e] : 0.0f;
        dD = dbias = 0.0f;
    }

    /* ---- moving rows --------------------------------------------------------------------------------------------- */

    /* Begins to copy a tensor's chunk at t0 into buffer `side`. */
    __device__ __forceinline__ void copy_rows(const channels_of<const T> &from, int tensor, int t0, int side)
    {
        T(*const to)[LANES] = shared.rows[side][tensor][warp];
        if (VECTOR) {
#pragma unroll
            for (int i = 0; i < Q * LANES / WIDE<T> / 32; i++) {
                const int at = i * 32 + lane, t = at / (LANES / WIDE<T>), column = at % (LANES / WIDE<T>)*WIDE<T>;
                const bool there = t0 + t < k.L && first_channel + column < k.E;
                copy_or_zero<16>(&to[t][column], from.at(row(t0 + t), there ? first_channel + column : 0), there);
            }
        } else {
#pragma unroll
            for (int t = 0; t < Q; t++)
                to[t][lane] = t0 + t < k.L && here ? *from.at(row(t0 + t), e) : from_float<T>(0.0f);
        }
    }

    __device__ __forceinline__ static void write_wide(T *to, const T *from, bool add)
    {
        if (add) {
            float x[WIDE<T>];
            load_floats(from, x);
            put_floats(to, true, x);
        } else {
            *reinterpret_cast<vec<T, WIDE<T>> *>(to) = load_vec<T, WIDE<T>>(from);
        }
    }

    /* Writes, or adds, the chunk at t0 that the warp left in place of `tensor`. */
    __device__ __forceinline__ void write_rows(const channels_of<T> &to, int tensor, int t0, bool add) const
    {
        const T(*const from)[LANES] = shared.rows[turn][tensor][warp];
        if (to.data == NULL)
            return;
        if (VECTOR) {
#pragma unroll
            for (int i = 0; i < Q * LANES / WIDE<T> / 32; i++) {
                const int at = i * 32 + lane, t = at / (LANES / WIDE<T>), column = at % (LANES / WIDE<T>)*WIDE<T>;
                if (t0 + t < k.L && first_channel + column < k.E)
                    write_wide(to.at(row(t0 + t), first_channel + column), &from[t][column], add);
            }
        } else {
            for (int t = 0; t < Q && t0 + t < k.L && here; t++) {
                T *const at = to.at(row(t0 + t), e);
                *at = add ? from_float<T>(to_float(*at) + to_float(from[t][lane])) : from[t][lane];
            }
        }
    }

    /* The thread's share of B and C of the chunk at t0; zeros past the end and past N. */
    __device__ __forceinline__ void load_tile(int t0)
    {
        const unsigned state = lane % STATES;
        const channels_of<const T> &from = lane < STATES ? k.B : k.C;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int t = t0 + warp + i * WARPS;
            tile[i] = from_float<T>(0.0f);
            if (t < k.L && state < (unsigned)k.N)
                tile[i] = *from.at(row(t), state);
        }
    }

    /* Into column `column` of the buffer's rows. */
    __device__ __forceinline__ void put_tile(int column)
    {
#pragma unroll
        for (int i = 0; i < 2; i++)
            shared.tile[turn][warp + i * WARPS][column] = to_float(tile[i]);
    }

    __device__ __forceinline__ float read(int tensor, int t) const
    {
        return to_float(shared.rows[turn][tensor][warp][t][lane]);
    }

    /* States at the start of a chunk, of two states per group. */
    __device__ __forceinline__ float2 *state_at(int chunk) const
    {
        return reinterpret_cast<float2 *>(k.states) + ((int64_t)blockIdx.x * chunks + chunk) * GROUPS * THREADS +
               threadIdx.x;
    }

    /* ---- forward ------------------------------------------------------------------------------------------------- */

    /* A, also left in shared memory; states past N have A = B = C = 0. */
    __device__ __forceinline__ void load_rates(float (&A)[STATES])
    {
#pragma unroll
        for (int s = 0; s < STATES; s++)
            A[s] = here && s < k.N ? -LOG2_E * expf(k.A_log[(int64_t)e * k.N + s]) : 0.0f;
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            shared.A[g][threadIdx.x] = make_float2(A[S * g], A[S * g + 1]);
            shared.carry[g][threadIdx.x] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
    }

    __device__ __forceinline__ void load_inputs(int chunk, int side)
    {
        copy_rows(k.u, SCAN_U, chunk * Q, side);
        copy_rows(k.dt, SCAN_DT, chunk * Q, side);
        load_tile(chunk * Q);
    }

    __device__ __forceinline__ void sweep_token(int t, const float (&A)[STATES], float (&h)[STATES]) const
    {
        const float delta = softplus_fast(read(SCAN_DT, t) + bias), x = delta * read(SCAN_U, t);
        float B[STATES];
        read_states<STATES>(shared.tile[turn][t], B);
#pragma unroll
        for (int s = 0; s < STATES; s++)
            h[s] = exp2_fast(delta * A[s]) * h[s] + x * B[s];
    }

    /* Through all chunks but the last for the states between them. */
    __device__ __forceinline__ void sweep()
    {
        float A[STATES], h[STATES] = {};
        load_rates(A);
        load_inputs(0, turn);
        for (int chunk = 0; chunk < chunks; chunk++, turn ^= 1) {
            float2 *const to = state_at(chunk);
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
                to[g * THREADS] = make_float2(h[S * g], h[S * g + 1]);
            if (chunk + 1 == chunks)
                break;
            wait_copies();
            put_tile(lane);
            __syncthreads();
            load_inputs(chunk + 1, turn ^ 1);
#pragma unroll
            for (int t = 0; t < Q; t++)
                sweep_token(t, A, h);
        }
        wait_copies();
    }

    /* ---- backward ------------------------------------------------------------------------------------------------ */

    /* Of the chunk's tokens: what the states need, what the gradients of dt and z are multiplied with, and sums over
     * states: <C, h>, <dh, B> and <da, A>. */
    struct tokens {
        float delta[Q], x[Q], p[Q], slope[Q], gate_slope[Q];
        float y[Q], through_x[Q], through_a[Q];
    };

    __device__ __forceinline__ void load_all(int chunk, int side)
    {
        copy_rows(k.z, SCAN_Z, chunk * Q, side);
        copy_rows(k.dy, SCAN_DY, chunk * Q, side);
        load_inputs(chunk, side);
    }

    __device__ __forceinline__ void stage(tokens &c) const
    {
#pragma unroll
        for (int t = 0; t < Q; t++) {
            const scan_staged s = scan_stage(read(SCAN_U, t), read(SCAN_DT, t) + bias, read(SCAN_Z, t),
                                             k.share * read(SCAN_DY, t), k.gated);
            c.delta[t] = s.delta;
            c.x[t] = s.x;
            c.p[t] = s.p;
            c.slope[t] = s.slope;
            c.gate_slope[t] = s.gate_slope;
            c.y[t] = c.through_x[t] = c.through_a[t] = 0.0f;
        }
    }

    /* B and C of both states of a group. */
    __device__ __forceinline__ float4 states_of(int t, int g) const
    {
        return *reinterpret_cast<const float4 *>(&shared.tile[turn][t][2 * S * g]);
    }

    /* Two states through the chunk and back; h: at its start. */
    __device__ __forceinline__ void pass_group(int g, float2 start, tokens &c)
    {
        const float2 rate = shared.A[g][threadIdx.x];
        const float4 carry = shared.carry[g][threadIdx.x];
        const float A[S] = {rate.x, rate.y};
        float a[Q][S], h[Q + 1][S] = {{start.x, start.y}};
        float dh[S] = {carry.x, carry.y}, dA[S] = {carry.z, carry.w}, sums[2][4] = {};
#pragma unroll
        for (int t = 0; t < Q; t++) {
            const float4 v = states_of(t, g);
            const float B[S] = {v.x, v.y}, C[S] = {v.z, v.w};
#pragma unroll
            for (int s = 0; s < S; s++) {
                a[t][s] = exp2_fast(c.delta[t] * A[s]);
                h[t + 1][s] = a[t][s] * h[t][s] + c.x[t] * B[s];
                c.y[t] += C[s] * h[t + 1][s];
            }
        }
#pragma unroll
        for (int t = Q - 1; t >= 0; t--) {
            const float4 v = states_of(t, g);
            const float B[S] = {v.x, v.y}, C[S] = {v.z, v.w};
            float products[2 * S];
#pragma unroll
            for (int s = 0; s < S; s++) {
                const float now = dh[s] + c.p[t] * C[s];
                dh[s] = now * a[t][s];
                const float da = dh[s] * h[t][s];
                products[s] = c.x[t] * now;
                products[S + s] = c.p[t] * h[t + 1][s];
                c.through_x[t] += now * B[s];
                c.through_a[t] += da * A[s];
                dA[s] += da * c.delta[t];
            }
            add_products<T>(sums[t / 4], products, one[t % 4]);
        }
        shared.carry[g][threadIdx.x] = make_float4(dh[0], dh[1], dA[0], dA[1]);
#pragma unroll
        for (int i = 0; i < 2; i++)
            shared.sums[warp][g][i][lane] = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
    }

    /* dB and dC of the block's channels for a chunk whose sums the warps left: a thread adds the even or odd rows. */
    __device__ __forceinline__ void store_sums(int chunk) const
    {
        const int q = threadIdx.x % 4, odd = threadIdx.x / 4 % 2, half = threadIdx.x / 8 % 2, g = threadIdx.x / 16;
        const int t = chunk * Q + half * 4 + q;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (int w = 0; w < WARPS; w++)
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const float4 v = shared.sums[w][g][half][(2 * r + odd) * 4 + q];
                sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
            }
        const float give[S] = {odd ? sum.x : sum.y, odd ? sum.z : sum.w};
        const float keep[S] = {odd ? sum.y : sum.x, odd ? sum.w : sum.z};
        const channels_of<float> &to = odd ? k.dC : k.dB;
        const unsigned at = (unsigned)group * k.sequences * k.L + row(t);
#pragma unroll
        for (int s = 0; s < S; s++) {
            const float total = keep[s] + __shfl_xor_sync(0xffffffffu, give[s], 4);
            if (t < k.L && g * S + s < k.N)
                *to.at(at, g * S + s) = total;
        }
    }

    /* The chunk's gradients, left in place of u, dt and z. */
    __device__ __forceinline__ void finish(const tokens &c)
    {
        T(*const rows)[WARPS][Q][LANES] = shared.rows[turn];
#pragma unroll
        for (int t = 0; t < Q; t++) {
            const float u = read(SCAN_U, t);
            const float ddt = (u * c.through_x[t] + LN_2 * c.through_a[t]) * c.slope[t];
            dD += c.p[t] * u;
            dbias += ddt;
            rows[SCAN_U][warp][t][lane] = from_float<T>(c.delta[t] * c.through_x[t] + D * c.p[t]);
            rows[SCAN_DT][warp][t][lane] = from_float<T>(ddt);
            rows[SCAN_Z][warp][t][lane] = from_float<T>(c.gate_slope[t] * (c.y[t] + D * u));
        }
    }

    __device__ __forceinline__ void chunk_backward(int chunk)
    {
        const float2 *const from = state_at(chunk);
        float2 next = from[0];
        tokens c;
        stage(c);
#pragma unroll 2 /* the next two states' loads fill the end of these */
        for (int g = 0; g < pairs; g++) {
            const float2 start = next;
            next = from[min(g + 1, GROUPS - 1) * THREADS];
            pass_group(g, start, c);
        }
        finish(c);
        __syncwarp();
        write_rows(k.du, SCAN_U, chunk * Q, k.add_u);
        write_rows(k.ddt, SCAN_DT, chunk * Q, k.add_dt);
        write_rows(k.dz, SCAN_Z, chunk * Q, k.add_z);
    }

    /* Back through all chunks; sums over the block are stored one chunk late. */
    __device__ __forceinline__ void back()
    {
        const int column = lane % STATES / S * 2 * S + lane / STATES * S + lane % S;
        load_all(chunks - 1, turn);
        for (int chunk = chunks - 1; chunk >= 0; chunk--, turn ^= 1) {
            wait_copies();
            put_tile(column);
            __syncthreads();
            if (chunk + 1 < chunks)
                store_sums(chunk + 1);
            if (chunk > 0)
                load_all(chunk - 1, turn ^ 1);
            __syncthreads(); /* before sums are written anew */
            chunk_backward(chunk);
        }
        __syncthreads();
        store_sums(0);
    }

    __device__ __forceinline__ void store_parameters() const
    {
        float *const to = k.partial_parameters + b * k.partial_pitch + (int64_t)e * (k.N + 2);
        if (!here)
            return;
        for (int s = 0; s < k.N; s++) {
            const float2 A = shared.A[s / S][threadIdx.x];
            const float4 carry = shared.carry[s / S][threadIdx.x];
            to[s] = LN_2 * (s % S == 0 ? A.x * carry.z : A.y * carry.w);
        }
        to[k.N] = dD;
        to[k.N + 1] = dbias;
    }
};

template <typename T, bool VECTOR>
static __global__ void __launch_bounds__(THREADS, RESIDENT<T>)
    scan_backward(const __grid_constant__ scan_passes<T> passes)
{
    extern __shared__ float4 memory[];
    shared_memory<T> &shared = *reinterpret_cast<shared_memory<T> *>(memory);
    for (int task = blockIdx.x; task < passes.tasks(); task += gridDim.x) {
        thread<T, VECTOR> worker(passes.of[task % passes.directions], shared);
        worker.begin(task / passes.directions);
        worker.sweep();
        worker.back();
        worker.store_parameters();
    }
}

} // namespace scan_channels

#endif
