/* scan.cu - the selective scan on the GPU, forward, for decays that differ between states; scan_tied_forward.cuh has
 * the one for tied decays.
 *
 * Layout: scan.cuh says how warps share channels and states.
 *
 * Arithmetic: src/ops/scan.c has the formula. h is fp32, N states per channel:
 *
 *   h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]     y[t] = (<C[t], h[t]> + D u[t]) silu(z[t])
 *
 * u, dt, z are read once and y is written once: 8 bytes per token and channel in bf16. N exponentials per token and
 * channel are the limit from N = 8 on. */
#include "ops/cuda/scan_tied_forward.cuh"

template <int S, int LANES> struct forward_shared {
    float4 step[WARPS][Q][32 / LANES]; /* delta, delta u of both channels */
    float tile[2][Q][2 * S * LANES];   /* B and C: of this chunk, of the next */
};

template <typename T, int S, int LANES, bool PAIRS> struct forward_thread : scan_thread<T, S, LANES, PAIRS> {
    typedef scan_thread<T, S, LANES, PAIRS> base;
    using base::A;
    using base::e;
    using base::first;
    using base::k;
    using base::n;
    using base::sg;
    using base::slot;
    using base::warp;
    static constexpr int OWN = base::OWN, STATES = base::STATES;

    float h[CH][S];

    __device__ forward_thread(const scan_pass<T> &pass) : base(pass)
    {
    }

    /* Token t of the chunk; <C, h> of both channels is added to y. */
    __device__ __forceinline__ void advance(const float4 &step, const float *tile, float (&y)[CH])
    {
        float B[S], C[S];
        read_states<S>(tile + sg * S, B);
        read_states<S>(tile + STATES + sg * S, C);
        const float delta[CH] = {step.x, step.y}, x[CH] = {step.z, step.w};
#pragma unroll
        for (int c = 0; c < CH; c++)
#pragma unroll
            for (int s = 0; s < S; s++) {
                h[c][s] = exp2_fast(delta[c] * A[c][s]) * h[c][s] + x[c] * B[s];
                y[c] += C[s] * h[c][s];
            }
    }

    /* y of a token the thread owns, from its sums over states. */
    __device__ __forceinline__ void finish(int t, float2 y, const vec<T, 2> &u, const vec<T, 2> &z) const
    {
        if (t >= k.L || n == 0)
            return;
        const unsigned row = this->row(t);
        const bool any_left = first + STATES < k.N;
        if (STATES < k.N)
            y = add_walks(k.sums + (int64_t)row * k.E + e, y, n, first > 0, any_left);
        if (any_left)
            return;
        const float2 x = widen(u), gate = widen(z);
        y.x += this->D.x * x.x;
        y.y += this->D.y * x.y;
        if (k.gated) {
            y.x *= gate.x * sigmoid_fast(gate.x);
            y.y *= gate.y * sigmoid_fast(gate.y);
        }
        store_pair<PAIRS>(k.y.at(row, e), y, n, false);
    }

    __device__ __forceinline__ void chunk(int t0, const float4 (&step)[Q][32 / LANES],
                                          const float (&tile)[Q][2 * STATES], const vec<T, 2> (&u)[OWN],
                                          const vec<T, 2> (&z)[OWN])
    {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            float y[CH][LANES];
#pragma unroll
            for (int j = 0; j < LANES; j++) {
                float sum[CH] = {0.0f, 0.0f};
                advance(step[i * LANES + j][slot], tile[i * LANES + j], sum);
                y[0][j] = sum[0];
                y[1][j] = sum[1];
            }
            const float2 own = make_float2(sum_lanes<LANES>(y[0], sg), sum_lanes<LANES>(y[1], sg));
            finish(t0 + i * LANES + sg, own, u[i], z[i]);
        }
    }

    /* All tokens with the states from `state` on. */
    __device__ __forceinline__ void walk(int state, forward_shared<S, LANES> &shared)
    {
        vec<T, 2> u[OWN], dt[OWN], z[OWN], next_u[OWN], next_dt[OWN], next_z[OWN];
        this->begin_states(state);
#pragma unroll
        for (int i = 0; i < CH * S; i++)
            h[i / S][i % S] = 0.0f;
        this->load_own(k.u, 0, next_u);
        this->load_own(k.dt, 0, next_dt);
        this->load_own(k.z, 0, next_z);
        this->load_tile(0);
        int turn = 0;
        for (int t0 = 0; t0 < k.L; t0 += Q, turn ^= 1) {
            __syncwarp();
#pragma unroll
            for (int i = 0; i < OWN; i++) {
                u[i] = next_u[i];
                dt[i] = next_dt[i];
                z[i] = next_z[i];
                shared.step[warp][i * LANES + sg][slot] = this->step_of(t0 + i * LANES + sg, u[i], dt[i]);
            }
            this->put_tile(shared.tile[turn]);
            __syncthreads();
            this->load_own(k.u, t0 + Q, next_u);
            this->load_own(k.dt, t0 + Q, next_dt);
            this->load_own(k.z, t0 + Q, next_z);
            this->load_tile(t0 + Q);
            chunk(t0, shared.step[warp], shared.tile[turn], u, z);
        }
        __syncthreads(); /* before the next walk puts its first tile */
    }
};

template <typename T, int S, int LANES, bool PAIRS>
static __global__ void __launch_bounds__(THREADS) scan_forward(const __grid_constant__ scan_passes<T> passes)
{
    __shared__ forward_shared<S, LANES> shared;
    const scan_pass<T> &pass = passes.of[blockIdx.x % passes.directions];
    forward_thread<T, S, LANES, PAIRS> thread(pass);
    thread.begin(blockIdx.x / passes.directions);
    for (int state = 0; state < pass.N; state += S * LANES)
        thread.walk(state, shared);
}

/* Whether all channels that are moved can be `packet` at a time. */
static bool all_fit(const cab_node *node, int packet)
{
    bool fit = true;
    for (int d = 0; d < cab_scan_attributes_of(node)->directions; d++) {
        const cab_node one = cab_scan_direction(node, d);
        const cab_tensor *const dt = scan_factor(node, d) == NULL ? one.in[CAB_SCAN_DT] : NULL;
        const cab_tensor *const moved[] = {one.in[CAB_SCAN_U], dt, one.in[CAB_SCAN_Z], one.out[0]};
        fit &= scan_fits(moved, sizeof moved / sizeof *moved, packet);
    }
    return fit;
}

/* The kernels of scan_tied.cuh take the directions one after the other; these both at once, the second's y in scratch. */
static bool is_tied(const cab_node *node)
{
    return scan_tied::fits(node) && all_fit(node, WIDE<bf16>);
}

/* Floats of scratch: the second direction's y, then sums over states of each where they are more than one walk. */
struct forward_scratch {
    int64_t second, sums;
};

static forward_scratch scratch_of(const cab_node *node)
{
    const int64_t tokens = cab_elements(node->out[0]), directions = cab_scan_attributes_of(node)->directions;
    return {directions == 2 && !is_tied(node) ? tokens : 0,
            cab_columns(node->in[CAB_SCAN_B]) > 64 ? directions * tokens : 0};
}

/* Blocks of `channels` channels. */
template <typename T> static scan_passes<T> forward_passes_of(const cab_node *node, int channels)
{
    scan_passes<T> p = scan_passes_of<T>(node, channels);
    const forward_scratch w = scratch_of(node);
    float *const scratch = (float *)node->scratch;
    for (int d = 0; d < p.directions; d++) {
        p.of[d].y = channels_in<T>(node->out[0]);
        if (d == 1 && w.second > 0)
            p.of[d].y = {(T *)scratch, (unsigned)(p.of[d].E * sizeof(T))};
        p.of[d].sums = scratch + w.second + d * cab_elements(node->out[0]);
    }
    return p;
}

template <typename T, int S, int LANES, bool PAIRS> static cab_status launch(const cab_node *node, cab_backend *backend)
{
    const scan_passes<T> p = forward_passes_of<T>(node, scan_thread<T, S, LANES, PAIRS>::CHANNELS);
    scan_forward<T, S, LANES, PAIRS><<<(unsigned)p.tasks(), THREADS, 0, stream_of(backend)>>>(p);
    CAB_TRY(cab_cuda_launched("scan"));
    return p.directions == 1
               ? CAB_OK
               : launch_second(node->out[0], (const T *)p.of[1].y.data, p.of[1].share, all_fit(node, WIDE<T>), backend);
}

template <int DEPTH> static cab_status launch_tied(const scan_passes<bf16> &p, cab_backend *backend)
{
    const size_t shared = sizeof(scan_tied::forward_memory<DEPTH>);
    CAB_TRY(cab_cuda_shared((const void *)scan_tied::scan_forward<DEPTH>, shared, "scan"));
    scan_tied::scan_forward<DEPTH><<<(unsigned)p.places(), scan_tied::BLOCK_THREADS, shared, stream_of(backend)>>>(p);
    return cab_cuda_launched("scan");
}

static cab_status forward_tied(const cab_node *node, cab_backend *backend)
{
    const scan_passes<bf16> p = forward_passes_of<bf16>(node, scan_tied::CHANNELS);
    const int depth = scan_tied::depth_of(p);
    return depth == 0   ? launch_tied<0>(p, backend)
           : depth == 1 ? launch_tied<1>(p, backend)
                        : launch_tied<2>(p, backend);
}

/* As few lanes per channel as still make 8 warps on each multiprocessor: exchanges among lanes are the overhead. */
template <typename T> static cab_status forward(const cab_node *node, cab_backend *backend)
{
    const cab_scan_shape s = cab_scan_shape_of(node);
    const int directions = cab_scan_attributes_of(node)->directions;
    const bool wide = directions * s.B * s.E / 32 >= 8 * (int64_t)cab_cuda_of(backend)->multiprocessors;
    if (is_tied(node))
        return forward_tied(node, backend);
    if (!all_fit(node, CH))
        return launch<T, 8, 8, false>(node, backend);
    if (s.N <= 8)
        return launch<T, 4, 2, true>(node, backend);
    if (s.N <= 16)
        return wide ? launch<T, 8, 2, true>(node, backend) : launch<T, 4, 4, true>(node, backend);
    return s.N <= 32 ? launch<T, 4, 8, true>(node, backend) : launch<T, 8, 8, true>(node, backend);
}

extern "C" size_t cab_scan_saved_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_scan_shape s = cab_scan_shape_of(node);
    const int64_t places = s.B * ceil_div(s.E, scan_tied::CHANNELS), chunks = ceil_div(s.L, scan_tied::TOKENS);
    return is_tied(node) ? (size_t)(cab_scan_attributes_of(node)->directions * places * chunks) *
                               scan_tied::BLOCK_THREADS * sizeof(uint4)
                         : 0;
}

extern "C" size_t cab_scan_forward_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const forward_scratch w = scratch_of(node);
    return (size_t)(w.second + w.sums) * sizeof(float);
}

extern "C" cab_status cab_scan_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[CAB_SCAN_U]->dtype, status = forward<T>(node, backend));
    return status;
}
