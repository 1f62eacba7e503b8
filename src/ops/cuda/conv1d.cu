/* conv1d.cu - the short causal convolution on the GPU; src/ops/conv1d.c has the formula.
 *
 * A thread takes V neighbouring channels through a stretch of tokens: filters and the last K - 1 tokens stay in registers,
 * so that x is read once but for K - 1 tokens per stretch. Limited by memory: forward reads x and writes y, 4 bytes per
 * element in bf16; backward reads x and dy and writes dx, 6 bytes. With p[t] = dL/du[t], backward computes
 *
 *   dx[t] = sum_k w[k] p[t + (K - 1) - k]     dw[k] = sum_t p[t] x[t - (K - 1) + k]     dbias = sum_t p[t]
 *
 * and so p of K - 1 tokens more than a stretch has. Gradients of filters are summed over a thread's tokens, then over the
 * stretches of a block, then over blocks, in a fixed order.
 *
 * Vectors of channels and K = 4 are one set of kernels; anything else runs channel by channel with filters of 4 or 16 taps,
 * of which the first ones are left out. */
#include "ops/cuda/partials.cuh"

extern "C" {
#include "ops/conv1d.h"
}

enum {
    STRETCH = 32,
    AHEAD = 4, /* tokens loaded before they are needed */
    ACROSS = 32,
    DOWN = 8, /* stretches of a backward block */
    THREADS = ACROSS * DOWN
};

template <typename T> struct conv_pass {
    rows_of<const T> x, dy;
    rows_of<T> y, dx;
    const float *w, *bias;
    float *partials; /* backward: (blocks of stretches, E taps + E) */
    int64_t sequences, L, E, stretches;
    int taps;
    bool silu, reverse, add_x;
};

__device__ __forceinline__ float sigmoid_fast(float x)
{
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

/* V channels of the tokens of one sequence, in the convolution's direction. */
template <typename T> struct tokens_of {
    T *first;
    int64_t step;

    __device__ __forceinline__ T *at(int t) const
    {
        return first + t * step;
    }
};

template <typename T>
__device__ __forceinline__ tokens_of<T> tokens(const rows_of<T> &r, int64_t b, int64_t e, int64_t L, bool reverse)
{
    tokens_of<T> s = {r.data != NULL ? r.at(b * L + (reverse ? L - 1 : 0), e) : NULL, reverse ? -r.ld : r.ld};
    return s;
}

/* A stretch of tokens of V channels. The filter's last taps are the K kept here; `first` of them are not there. */
template <typename T, int K, int V> struct conv_thread {
    const conv_pass<T> &k;
    const int first, L;
    int begin, end;
    int64_t b, e;
    tokens_of<const T> from;
    float w[K][V], bias[V], x[K][V]; /* x[K - 1] is the token at hand */

    __device__ __forceinline__ conv_thread(const conv_pass<T> &pass, int64_t stretch, int64_t channel)
        : k(pass), first(V == 1 ? K - pass.taps : 0), L((int)pass.L), b(stretch / pass.stretches), e(channel)
    {
        begin = (int)(stretch - b * k.stretches) * STRETCH;
        end = L - begin < STRETCH ? L : begin + STRETCH;
        from = tokens(k.x, b, e, k.L, k.reverse);
#pragma unroll
        for (int v = 0; v < V; v++) {
            bias[v] = k.bias != NULL ? k.bias[e + v] : 0.0f;
#pragma unroll
            for (int i = 0; i < K; i++)
                w[i][v] = i >= first ? k.w[(e + v) * (K - first) + i - first] : 0.0f;
        }
#pragma unroll
        for (int i = 1; i < K; i++) {
            const vec<T, V> before = fetch(from, begin - K + i);
#pragma unroll
            for (int v = 0; v < V; v++)
                x[i][v] = to_float(before.at[v]);
        }
    }

    /* A token of the sequence; zeros outside it, and of a gradient that is zero. */
    __device__ __forceinline__ vec<T, V> fetch(const tokens_of<const T> &tensor, int t) const
    {
        vec<T, V> v;
#pragma unroll
        for (int i = 0; i < V; i++)
            v.at[i] = from_float<T>(0.0f);
        return t >= 0 && t < L && tensor.first != NULL ? load_vec<T, V>(tensor.at(t)) : v;
    }

    /* The next token comes into the window; u of it. */
    __device__ __forceinline__ void advance(const vec<T, V> &token, float (&u)[V])
    {
#pragma unroll
        for (int v = 0; v < V; v++) {
#pragma unroll
            for (int i = 0; i + 1 < K; i++)
                x[i][v] = x[i + 1][v];
            x[K - 1][v] = to_float(token.at[v]);
            u[v] = bias[v];
#pragma unroll
            for (int i = 0; i < K; i++)
                if (V > 1 || i >= first)
                    u[v] += w[i][v] * x[i][v];
        }
    }
};

/* ---- forward ------------------------------------------------------------------------------------------------------- */

template <typename T, int K, int V>
static __global__ void __launch_bounds__(THREADS, 2) conv1d_forward(const __grid_constant__ conv_pass<T> pass)
{
    const int64_t across = pass.E / V, i = blockIdx.x * (int64_t)THREADS + threadIdx.x, stretch = i / across;
    if (stretch >= pass.sequences * pass.stretches)
        return;
    conv_thread<T, K, V> c(pass, stretch, (i - stretch * across) * V);
    const tokens_of<T> to = tokens(pass.y, c.b, c.e, pass.L, pass.reverse);
    vec<T, V> next[AHEAD];
#pragma unroll
    for (int j = 0; j < AHEAD; j++)
        next[j] = c.fetch(c.from, c.begin + j);
    for (int t = c.begin; t < c.end; t += AHEAD)
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const vec<T, V> now = next[j];
            float u[V];
            next[j] = c.fetch(c.from, t + AHEAD + j);
            c.advance(now, u);
#pragma unroll
            for (int v = 0; v < V; v++)
                u[v] *= pass.silu ? sigmoid_fast(u[v]) : 1.0f;
            if (t + j < c.end)
                store_floats(to.at(t + j), u);
        }
}

/* ---- backward ------------------------------------------------------------------------------------------------------ */

template <typename T, int K, int V> struct conv_backward_thread : conv_thread<T, K, V> {
    typedef conv_thread<T, K, V> base;
    using base::begin;
    using base::end;
    using base::k;
    using base::x;

    tokens_of<const T> dy;
    tokens_of<T> dx;
    float p[K][V], dw[K + 1][V]; /* p[i] is that of i tokens ago; dw[K] is dbias */

    __device__ __forceinline__ conv_backward_thread(const conv_pass<T> &pass, int64_t stretch, int64_t channel)
        : base(pass, stretch, channel), dy(tokens(pass.dy, this->b, channel, pass.L, pass.reverse)),
          dx(tokens(pass.dx, this->b, channel, pass.L, pass.reverse))
    {
#pragma unroll
        for (int v = 0; v < V; v++) {
#pragma unroll
            for (int i = 0; i < K; i++)
                p[i][v] = 0.0f;
#pragma unroll
            for (int i = 0; i <= K; i++)
                dw[i][v] = 0.0f;
        }
    }

    /* Token t, which may be one of the K - 1 past the stretch: those are the next stretch's to sum. dx of the token
     * K - 1 before it is complete then. */
    __device__ __forceinline__ void token(int t, const vec<T, V> &now, const vec<T, V> &seed)
    {
        float u[V], sum[V];
        this->advance(now, u);
#pragma unroll
        for (int v = 0; v < V; v++) {
#pragma unroll
            for (int i = K - 1; i > 0; i--)
                p[i][v] = p[i - 1][v];
            const float s = sigmoid_fast(u[v]);
            p[0][v] = to_float(seed.at[v]) * (k.silu ? s + u[v] * s * (1.0f - s) : 1.0f);
            p[0][v] = t < this->L ? p[0][v] : 0.0f;
            const float own = t < end ? p[0][v] : 0.0f;
#pragma unroll
            for (int i = 0; i < K; i++)
                if (V > 1 || i >= this->first)
                    dw[i][v] += own * x[i][v];
            dw[K][v] += own;
            sum[v] = 0.0f;
#pragma unroll
            for (int i = 0; i < K; i++)
                if (V > 1 || i >= this->first)
                    sum[v] += this->w[i][v] * p[i][v];
        }
        const int done = t - (K - 1);
        if (done >= begin && done < end && dx.first != NULL)
            put_floats(dx.at(done), k.add_x, sum);
    }

    __device__ __forceinline__ void stretch()
    {
        vec<T, V> next_x[AHEAD], next_dy[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            next_x[j] = this->fetch(this->from, begin + j);
            next_dy[j] = this->fetch(dy, begin + j);
        }
        for (int t = begin; t < end + K - 1; t += AHEAD)
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const vec<T, V> now = next_x[j], seed = next_dy[j];
                next_x[j] = this->fetch(this->from, t + AHEAD + j);
                next_dy[j] = this->fetch(dy, t + AHEAD + j);
                token(t + j, now, seed);
            }
    }
};

/* Adds the block's stretches up, tap by tap; the last is the bias. */
template <int K, int V>
__device__ __forceinline__ void store_partials(const float (&dw)[K + 1][V], float (&sums)[DOWN][ACROSS * V],
                                               float *partials, int64_t first_channel, int64_t E, int taps)
{
    const int first = K - taps, at = threadIdx.x % ACROSS * V, down = threadIdx.x / ACROSS;
    for (int i = first; i <= K; i++) {
        __syncthreads();
#pragma unroll
        for (int v = 0; v < V; v++) {
            float value = dw[K][v];
#pragma unroll
            for (int j = 0; j < K; j++)
                value = i == j ? dw[j][v] : value;
            sums[down][at + v] = value;
        }
        __syncthreads();
        const int64_t channel = first_channel + threadIdx.x;
        if (threadIdx.x >= ACROSS * V || channel >= E)
            continue;
        float sum = 0.0f;
        for (int j = 0; j < DOWN; j++)
            sum += sums[j][threadIdx.x];
        partials[i < K ? channel * taps + i - first : E * taps + channel] = sum;
    }
}

template <typename T, int K, int V>
static __global__ void __launch_bounds__(THREADS, 2) conv1d_backward(const __grid_constant__ conv_pass<T> pass)
{
    __shared__ float sums[DOWN][ACROSS * V];
    static_assert(ACROSS * V <= THREADS, "one thread adds up one channel");
    const int64_t first_channel = blockIdx.y * (int64_t)(ACROSS * V),
                  channel = first_channel + threadIdx.x % ACROSS * V;
    const int64_t stretch = blockIdx.x * (int64_t)DOWN + threadIdx.x / ACROSS;
    float dw[K + 1][V] = {};
    if (channel < pass.E && stretch < pass.sequences * pass.stretches) {
        conv_backward_thread<T, K, V> c(pass, stretch, channel);
        c.stretch();
#pragma unroll
        for (int i = 0; i <= K; i++)
#pragma unroll
            for (int v = 0; v < V; v++)
                dw[i][v] = c.dw[i][v];
    }
    float *partials = pass.partials + blockIdx.x * (pass.E * (pass.taps + 1));
    store_partials<K, V>(dw, sums, partials, first_channel, pass.E, pass.taps);
}

/* Columns of the partial sums: dw as it is stored, then dbias. */
struct filter_targets {
    float *w, *bias;
    int64_t n_weight;
    bool add;

    __device__ float *target(int64_t column) const
    {
        if (column < n_weight)
            return w != NULL ? w + column : NULL;
        return bias != NULL ? bias + column - n_weight : NULL;
    }
};

/* ---- launches ------------------------------------------------------------------------------------------------------ */

static int64_t stretches_of(const cab_node *node)
{
    return ceil_div(node->in[0]->shape[1], STRETCH);
}

static int64_t partials_of(const cab_node *node)
{
    return ceil_div(node->in[0]->shape[0] * stretches_of(node), DOWN);
}

extern "C" size_t cab_conv1d_backward_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_tensor *w = node->in[1];
    return (size_t)(partials_of(node) * w->shape[0] * (cab_columns(w) + 1)) * sizeof(float);
}

template <typename T> static conv_pass<T> conv_pass_of(const cab_node *node)
{
    const cab_tensor *x = node->in[0];
    const cab_conv1d_attributes *attributes = (const cab_conv1d_attributes *)node->attributes;
    conv_pass<T> p = {};
    p.x = rows<const T>(x);
    p.w = (const float *)node->in[1]->data;
    p.bias = rows<const float>(node->in[2]).data;
    p.sequences = x->shape[0];
    p.L = x->shape[1];
    p.E = cab_columns(x);
    p.stretches = stretches_of(node);
    p.taps = (int)cab_columns(node->in[1]);
    p.silu = attributes->silu;
    p.reverse = attributes->reverse;
    return p;
}

template <typename T, int K, int V> static void launch_forward(const conv_pass<T> &p, cab_backend *backend)
{
    const int64_t threads = p.sequences * p.stretches * (p.E / V);
    conv1d_forward<T, K, V><<<(unsigned)ceil_div(threads, THREADS), THREADS, 0, stream_of(backend)>>>(p);
}

template <typename T> static cab_status forward(const cab_node *node, cab_backend *backend)
{
    conv_pass<T> p = conv_pass_of<T>(node);
    p.y = rows<T>(node->out[0]);
    if (p.taps == 4 && fits_packets(node->in[0], WIDE<T>) && fits_packets(node->out[0], WIDE<T>))
        launch_forward<T, 4, WIDE<T>>(p, backend);
    else if (p.taps <= 4)
        launch_forward<T, 4, 1>(p, backend);
    else
        launch_forward<T, CAB_CONV1D_MAX_WIDTH, 1>(p, backend);
    return cab_cuda_launched("conv1d");
}

template <typename T, int K, int V> static void launch_backward(const conv_pass<T> &p, int64_t n, cab_backend *backend)
{
    const dim3 grid((unsigned)n, (unsigned)ceil_div(p.E, ACROSS * V));
    conv1d_backward<T, K, V><<<grid, THREADS, 0, stream_of(backend)>>>(p);
}

template <typename T> static cab_status backward(const cab_node *node, cab_backend *backend)
{
    enum { V = 4 };
    const int64_t n = partials_of(node);
    conv_pass<T> p = conv_pass_of<T>(node);
    p.dy = rows<const T>(node->gout[0]);
    p.dx = rows<T>(node->gin[0]);
    p.add_x = node->accumulate & 1;
    p.partials = (float *)node->scratch;
    if (p.taps == 4 && fits_packets(node->in[0], V) && fits_packets(node->gout[0], V) && fits_packets(node->gin[0], V))
        launch_backward<T, 4, V>(p, n, backend);
    else if (p.taps <= 4)
        launch_backward<T, 4, 1>(p, n, backend);
    else
        launch_backward<T, CAB_CONV1D_MAX_WIDTH, 1>(p, n, backend);
    CAB_TRY(cab_cuda_launched("conv1d"));
    const filter_targets targets = {rows<float>(node->gin[1]).data, rows<float>(node->gin[2]).data, p.E * p.taps, true};
    if (targets.w == NULL && targets.bias == NULL)
        return CAB_OK;
    return launch_partials(targets, p.partials, n, p.E * (p.taps + 1), backend);
}

extern "C" cab_status cab_conv1d_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = forward<T>(node, backend));
    return status;
}

extern "C" cab_status cab_conv1d_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = backward<T>(node, backend));
    return status;
}

/* ---- one token ----------------------------------------------------------------------------------------------------- */

/* One thread per sequence and channel; state (B, K - 1, E). */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    conv1d_step(rows_of<const T> x, rows_of<T> y, const float *w, const float *bias, float *state, int64_t n_sequence,
                int64_t E, int taps, bool silu)
{
    const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x, b = i / E, e = i - b * E;
    if (b >= n_sequence)
        return;
    const float now = to_float(*x.at(b, e));
    float *past = state + b * (taps - 1) * E + e;
    float u = bias != NULL ? bias[e] : 0.0f;
    w += e * taps;
    for (int k = 0; k + 1 < taps; k++) {
        const float before = past[k * E];
        u += w[k] * before;
        if (k > 0)
            past[(k - 1) * E] = before;
    }
    past[(taps - 2) * E] = now;
    u += w[taps - 1] * now;
    *y.at(b, e) = from_float<T>(silu ? u * sigmoid_fast(u) : u);
}

extern "C" cab_status cab_conv1d_step_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0];
    const int64_t n = x->shape[0], E = cab_columns(x);
    const int taps = (int)cab_columns(node->in[1]);
    const bool silu = ((const cab_conv1d_attributes *)node->attributes)->silu;
    const float *w = (const float *)node->in[1]->data, *bias = rows<const float>(node->in[2]).data;
    float *state = (float *)node->in[3]->data;
    BY_DTYPE(x->dtype, (conv1d_step<T><<<(unsigned)ceil_div(n * E, THREADS), THREADS, 0, stream_of(backend)>>>(
                           rows<const T>(x), rows<T>(node->out[0]), w, bias, state, n, E, taps, silu)));
    return cab_cuda_launched("conv1d_step");
}
