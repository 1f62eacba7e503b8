/* scan.cuh - what the forward and the backward pass of the selective scan share on the GPU; src/ops/scan.c has the
 * formulas.
 *
 * Layout: a warp works on 32 / LANES * 2 neighbouring channels of one sequence and on S * LANES states. A thread has
 * two channels, so that it reads and writes bf16 in pairs, and S states of each, in registers:
 *
 *   lane = sg * SLOTS + slot     SLOTS = 32 / LANES
 *   channel = first + 2 slot, + 1     state = first + sg * S + 0 .. S - 1
 *
 * Tokens go by chunks of Q. One lane, the token's owner (sg = t % LANES), does what there is once per token and
 * channel: softplus, gates, loads and stores. It leaves delta and delta u for the other lanes in shared memory. B and
 * C of a chunk stand in shared memory for all warps of the block, which work on the same sequence. Tokens of the next
 * chunk are loaded before the chunk at hand is computed.
 *
 * Arithmetic, in fp32: h[t] = exp(delta A) h[t-1] + delta u B[t], y = <C[t], h[t]> + D u. A sum over states is made
 * by exchanges among the lanes of a channel, each of which halves what is left; the last one ends at the owner. More
 * than S * LANES states take several walks over the sequence, whose sums over states are added in fp32 scratch. */
#ifndef CAB_OPS_CUDA_SCAN_CUH
#define CAB_OPS_CUDA_SCAN_CUH

#include "ops/cuda/cuda.cuh"

extern "C" {
#include "ops/cuda/optimise.h"
#include "ops/scan.h"
}

enum { CH = 2, Q = 8, WARPS = 4, THREADS = 32 * WARPS, SUM_THREADS = 256 };

/* What the backward pass reads of each token and channel. */
enum { SCAN_U, SCAN_DT, SCAN_Z, SCAN_DY, SCAN_TENSORS };

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

/* Rows of channels; unsigned 32-bit factors, so that an address is one multiply-add. */
template <typename T> struct channels_of {
    T *data;
    unsigned pitch; /* bytes from row to row */

    __device__ __forceinline__ T *at(unsigned row, unsigned column) const
    {
        return (T *)((char *)(data + column) + (uint64_t)row * pitch);
    }
};

template <typename T> static inline channels_of<T> channels_in(const cab_tensor *t)
{
    channels_of<T> c = {t ? (T *)t->data : NULL, t ? (unsigned)(t->ld * (int64_t)sizeof(T)) : 0};
    return c;
}

/* A pass in one direction. bias and gradients may be NULL. */
template <typename T> struct scan_pass {
    channels_of<const T> u, dt, z, dy, B, C; /* z: u where nothing is gated */
    channels_of<const T> dt_left, dt_right; /* (tokens, rank), (E, rank): factors of a dt that is in no memory */
    channels_of<T> y, du, ddt, dz;
    const float *A_log, *D, *bias;
    float *sums;               /* N > S * LANES: forward (B L, E), backward three of them: y, <dh, B>, <da, A> */
    float *states;             /* backward, per block: (chunks, WARPS, CH S / 4, 32) float4 */
    uint4 *saved;              /* by forward for backward: scan_tied.cuh; or NULL */
    channels_of<float> dB, dC; /* backward: partial sums (groups, B L, N) */
    float *partial_parameters; /* backward, per sequence: (E, N + 2): dA_log, dD, dbias */
    int64_t partial_pitch;     /* floats from sequence to sequence */
    int sequences, L, E, N, groups;
    int rank; /* 0: dt is in memory */
    float share; /* of this direction in y */
    bool reverse, gated, add_u, add_dt, add_z;
};

/* All of a node. Task i of a kernel is task i / directions of direction i % directions: both read the same z. */
template <typename T> struct scan_passes {
    scan_pass<T> of[2];
    int directions;
    bool together; /* a block goes in one direction after the other, and the second adds to what the first wrote */

    __host__ __device__ int places() const
    {
        return of[0].sequences * of[0].groups;
    }
    __host__ __device__ int tasks() const
    {
        return directions * places();
    }
};

/* 2^x; 0 below 2^-126. */
__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float sigmoid_fast(float x)
{
    return __fdividef(1.0f, 1.0f + exp2_fast(-LOG2_E * x));
}

/* log(1 + exp(x)) from v = exp(-|x|). log(1 + v) by its series where 1 + v would round most of v away. */
__device__ __forceinline__ float softplus_fast(float x, float v)
{
    const float series = v * (1.0f + v * (-0.5f + v * (0.333333333f + v * (-0.25f + v * 0.2f))));
    return fmaxf(x, 0.0f) + (v < 0.03f ? series : __logf(1.0f + v));
}

__device__ __forceinline__ float softplus_fast(float x)
{
    return softplus_fast(x, exp2_fast(-LOG2_E * fabsf(x)));
}

/* Of one token and channel, for the way back: p = dy silu(z), d delta / d dt, and dz but for the sum over states. */
struct scan_staged {
    float delta, x, p, slope, gate_slope;
};

/* dt with its bias. */
__device__ __forceinline__ scan_staged scan_stage(float u, float dt, float z, float dy, bool gated)
{
    const float v = exp2_fast(-LOG2_E * fabsf(dt)), s = sigmoid_fast(z);
    scan_staged r;
    r.delta = softplus_fast(dt, v);
    r.x = r.delta * u;
    r.slope = __fdividef(dt >= 0.0f ? 1.0f : v, 1.0f + v);
    r.p = gated ? dy * (z * s) : dy;
    r.gate_slope = dy * (s + z * s * (1.0f - s));
    return r;
}

/* Copies to shared memory that the thread itself waits for with wait_copies(); BYTES 4, 8 or 16. */
template <int BYTES> __device__ __forceinline__ void copy_later(void *to, const void *from)
{
    const unsigned shared = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared), "l"(from), "n"(BYTES) : "memory");
}

/* The same, or zeros. */
template <int BYTES> __device__ __forceinline__ void copy_or_zero(void *to, const void *from, bool copy)
{
    const unsigned shared = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from), "n"(BYTES),
                 "r"(copy ? BYTES : 0)
                 : "memory");
}

__device__ __forceinline__ void wait_copies()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* What TF32 drops of x. */
__device__ __forceinline__ float tf32_rest(float x)
{
    return x - __uint_as_float(__float_as_uint(x) & 0xffffe000u);
}

template <typename T> __device__ __forceinline__ float2 widen(const vec<T, 2> &v)
{
    return make_float2(to_float(v.at[0]), to_float(v.at[1]));
}

/* The first n of two channels at `from`, zeros past them; both with PAIRS. */
template <bool PAIRS, typename T> __device__ __forceinline__ vec<T, 2> load_pair(const T *from, int n)
{
    vec<T, 2> v;
    v.at[0] = v.at[1] = from_float<T>(0.0f);
    if (PAIRS)
        return load_vec<T, 2>(from);
    if (n > 0)
        v.at[0] = from[0];
    if (n > 1)
        v.at[1] = from[1];
    return v;
}

/* n > 0. */
template <bool PAIRS, typename T> __device__ __forceinline__ void store_pair(T *to, float2 x, int n, bool add)
{
    if (add) {
        const float2 old = widen(load_pair<PAIRS>(to, n));
        x.x += old.x;
        x.y += old.y;
    }
    if (PAIRS) {
        store_floats<T, 2>(to, {x.x, x.y});
    } else {
        to[0] = from_float<T>(x.x);
        if (n > 1)
            to[1] = from_float<T>(x.y);
    }
}

/* v[t] summed over the LANES lanes of a channel; the result is of token t = sg. */
template <int LANES> __device__ __forceinline__ float sum_lanes(float (&v)[LANES], int sg)
{
#pragma unroll
    for (int n = LANES / 2; n > 0; n /= 2) {
        const bool upper = sg & n;
#pragma unroll
        for (int i = 0; i < n; i++) {
            const float give = upper ? v[i] : v[i + n], keep = upper ? v[i + n] : v[i];
            v[i] = keep + __shfl_xor_sync(0xffffffffu, give, n * (32 / LANES));
        }
    }
    return v[0];
}

/* S neighbouring floats of shared memory. */
template <int S> __device__ __forceinline__ void read_states(const float *from, float (&to)[S])
{
    static_assert(S % 4 == 0, "states are read four at a time");
#pragma unroll
    for (int s = 0; s < S; s += 4) {
        const float4 v = *reinterpret_cast<const float4 *>(from + s);
        to[s] = v.x;
        to[s + 1] = v.y;
        to[s + 2] = v.z;
        to[s + 3] = v.w;
    }
}

/* A thread on its way through a sequence. */
template <typename T, int S, int LANES, bool PAIRS> struct scan_thread {
    static constexpr int SLOTS = 32 / LANES, STATES = S * LANES, OWN = Q / LANES, CHANNELS = SLOTS * CH * WARPS;
    static constexpr int LOADS = Q * 2 * STATES / THREADS, TILE_STEP = THREADS / (2 * STATES);

    const scan_pass<T> &k;
    const int warp, sg, slot;
    int b, group, e, n;  /* sequence, block of channels, first channel (0 if there is none), channels that exist */
    int first_row, step; /* row of token 0; +1 or -1 */
    int first;           /* state of the walk */
    float2 bias, D;
    float A[CH][S]; /* times log2(e) */
    T tile[LOADS];  /* of B and C of the next chunk: column threadIdx.x % (2 STATES) of every TILE_STEP-th token */

    __device__ scan_thread(const scan_pass<T> &pass)
        : k(pass), warp(threadIdx.x / 32), sg(threadIdx.x % 32 / SLOTS), slot(threadIdx.x % SLOTS)
    {
    }

    /* Past the end, the last token: what is read there is not used. */
    __device__ __forceinline__ unsigned row(int t) const
    {
        return (unsigned)(first_row + step * min(t, k.L - 1));
    }

    __device__ __forceinline__ void begin(int task)
    {
        b = task / k.groups;
        group = task - b * k.groups;
        e = group * CHANNELS + (warp * SLOTS + slot) * CH;
        n = e >= k.E ? 0 : k.E - e < CH ? 1 : CH;
        e = n > 0 ? e : 0;
        step = k.reverse ? -1 : 1;
        first_row = b * k.L + (k.reverse ? k.L - 1 : 0);
        D = load_parameter(k.D);
        bias = load_parameter(k.bias);
    }

    __device__ __forceinline__ float2 load_parameter(const float *from) const
    {
        return make_float2(from != NULL && n > 0 ? from[e] : 0.0f, from != NULL && n > 1 ? from[e + 1] : 0.0f);
    }

    /* States past N have A = B = C = 0. */
    __device__ __forceinline__ void begin_states(int state)
    {
        first = state;
#pragma unroll
        for (int c = 0; c < CH; c++)
#pragma unroll
            for (int s = 0; s < S; s++) {
                const int at = first + sg * S + s;
                A[c][s] = c < n && at < k.N ? -LOG2_E * expf(k.A_log[(int64_t)(e + c) * k.N + at]) : 0.0f;
            }
    }

    /* The thread's share of B and C of the chunk at t0. */
    __device__ __forceinline__ void load_tile(int t0)
    {
        const unsigned column = threadIdx.x % (2 * STATES), state = first + column % STATES;
        const channels_of<const T> &from = column < STATES ? k.B : k.C;
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const int t = t0 + (int)threadIdx.x / (2 * STATES) + i * TILE_STEP;
            tile[i] = from_float<T>(0.0f);
            if (t < k.L && state < (unsigned)k.N)
                tile[i] = *from.at(row(t), state);
        }
    }

    __device__ __forceinline__ void put_tile(float (&to)[Q][2 * STATES]) const
    {
#pragma unroll
        for (int i = 0; i < LOADS; i++)
            to[threadIdx.x / (2 * STATES) + i * TILE_STEP][threadIdx.x % (2 * STATES)] = to_float(tile[i]);
    }

    /* Pairs of the tokens the thread owns. */
    __device__ __forceinline__ void load_own(const channels_of<const T> &from, int t0, vec<T, 2> (&to)[OWN]) const
    {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const int t = t0 + i * LANES + sg;
            to[i] = load_pair<PAIRS>(from.at(row(t), e), n);
        }
    }

    /* (delta, delta u) of both channels of a token it owns; zeros past the end, where states then stay as they are. */
    __device__ __forceinline__ float4 step_of(int t, const vec<T, 2> &u, const vec<T, 2> &dt) const
    {
        const float2 x = widen(u), f = widen(dt);
        const float d0 = softplus_fast(f.x + bias.x), d1 = softplus_fast(f.y + bias.y);
        return t < k.L && n > 0 ? make_float4(d0, d1, d0 * x.x, d1 * x.y) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
};

/* One more walk's sums over states: with those of the walks before; what is left for the walks to come. */
__device__ __forceinline__ float2 add_walks(float *sums, float2 x, int n, bool any_before, bool any_left)
{
    if (any_before && n > 0)
        x.x += sums[0];
    if (any_before && n > 1)
        x.y += sums[1];
    if (any_left && n > 0)
        sums[0] = x.x;
    if (any_left && n > 1)
        sums[1] = x.y;
    return x;
}

/* Whether channels of all of them, some NULL, can be moved `packet` at a time. Known before they have memory, since that of no view is
 * aligned to less than its offset says. */
static inline bool scan_fits(const cab_tensor *const *tensors, int count, int packet)
{
    for (int i = 0; i < count; i++)
        for (const cab_tensor *t = tensors[i]; t != NULL; t = t->base)
            if (cab_columns(t) % packet != 0 || t->ld % packet != 0 || t->offset % packet != 0)
                return false;
    return true;
}

/* to = factor (to + from), PACKET channels a thread; from: what the second direction has for the same tokens, dense. */
template <typename T, int PACKET>
static __global__ void __launch_bounds__(SUM_THREADS)
    add_second(rows_of<T> to, const T *from, float factor, int64_t n_row, int64_t columns)
{
    const int64_t i = (blockIdx.x * (int64_t)SUM_THREADS + threadIdx.x) * PACKET;
    float x[PACKET], sum[PACKET];
    if (i >= n_row * columns)
        return;
    T *const at = to.at(i / columns, i % columns);
    load_floats(from + i, x);
    load_floats(at, sum);
#pragma unroll
    for (int j = 0; j < PACKET; j++)
        sum[j] = factor * (sum[j] + x[j]);
    store_floats(at, sum);
}

/* packets: rows can be moved 16 bytes at a time. */
template <typename T>
static cab_status launch_second(const cab_tensor *to, const T *from, float factor, bool packets, cab_backend *backend)
{
    const int64_t n_row = cab_rows(to), columns = cab_columns(to);
    const unsigned blocks = (unsigned)ceil_div(n_row * columns, SUM_THREADS * (packets ? WIDE<T> : 1));
    auto *const kernel = packets ? add_second<T, WIDE<T>> : add_second<T, 1>;
    kernel<<<blocks, SUM_THREADS, 0, stream_of(backend)>>>(rows<T>(to), from, factor, n_row, columns);
    return cab_cuda_launched("scan");
}

/* W of a dt = x W^T that is in no memory: x stands for dt among the inputs. NULL: dt is in memory. */
static inline const cab_tensor *scan_factor(const cab_node *node, int d)
{
    return node->op == &cab_op_scan_of_product ? node->in[CAB_SCAN_BOTH + d] : NULL;
}

/* What the forward kernel saves for the backward kernel, or NULL. */
static inline const cab_tensor *scan_saved(const cab_node *node)
{
    return node->n_out > 1 ? node->out[1] : NULL;
}

/* What forward and backward pass read of a node. `channels` are those of a block. */
template <typename T> static scan_passes<T> scan_passes_of(const cab_node *node, int channels)
{
    const cab_scan_attributes *attributes = cab_scan_attributes_of(node);
    const cab_scan_shape s = cab_scan_shape_of(node);
    scan_passes<T> passes = {};
    passes.directions = attributes->directions;
    for (int d = 0; d < passes.directions; d++) {
        const cab_node one = cab_scan_direction(node, d);
        scan_pass<T> &p = passes.of[d];
        p.u = channels_in<const T>(one.in[CAB_SCAN_U]);
        p.dt = channels_in<const T>(one.in[CAB_SCAN_DT]);
        if (const cab_tensor *w = scan_factor(node, d)) {
            p.dt_left = p.dt;
            p.dt_right = channels_in<const T>(w);
            p.rank = (int)cab_columns(one.in[CAB_SCAN_DT]);
        }
        p.gated = one.in[CAB_SCAN_Z] != NULL;
        p.z = channels_in<const T>(one.in[p.gated ? CAB_SCAN_Z : CAB_SCAN_U]);
        p.B = channels_in<const T>(one.in[CAB_SCAN_B]);
        p.C = channels_in<const T>(one.in[CAB_SCAN_C]);
        p.A_log = (const float *)one.in[CAB_SCAN_A_LOG]->data;
        p.D = (const float *)one.in[CAB_SCAN_D]->data;
        p.bias = rows<const float>(one.in[CAB_SCAN_DT_BIAS]).data;
        p.sequences = (int)s.B;
        p.L = (int)s.L;
        p.E = (int)s.E;
        p.N = s.N;
        p.groups = (int)ceil_div(s.E, channels);
        if (const cab_tensor *saved = scan_saved(node))
            p.saved = (uint4 *)saved->data + d * (cab_elements(saved) / 4 / passes.directions);
        p.share = cab_scan_share(node);
        p.reverse = attributes->reverse[d];
    }
    return passes;
}

#endif
