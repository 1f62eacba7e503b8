/* conv1d.cu - the short causal convolution on the GPU; src/ops/conv1d.c has the formula.
 *
 * Layout: a thread takes V = 4 neighbouring channels through a stretch of tokens. The filters and the last K - 1
 * tokens stay in registers; the next batch of tokens is being loaded while one is worked on. A block is a warp across
 * channels (256 bytes of bf16) times DOWN stretches. The length of a stretch is chosen so that the blocks fill the GPU
 * a whole number of times. A stretch also reads the K - 1 tokens before it, and backward the K - 1 tokens behind it;
 * the caches have them.
 *
 * Arithmetic, in fp32; u is the sum before SiLU, p[t] = dL/du[t]:
 *
 *   u[t] = bias + sum_k w[k] x[t - (K - 1) + k]
 *   dx[t] = sum_k w[k] p[t + (K - 1) - k]     dw[k] = sum_t p[t] x[t - (K - 1) + k]     dbias = sum_t p[t]
 *
 * Backward is one pass over x and dy. The gradients of the filters are summed over a thread's tokens, then over the
 * stretches of a block, then by a second kernel over the blocks, in a fixed order. Of a node of two directions a
 * thread takes its stretch in one direction, then in the other; the second adds to dx.
 *
 * With documents (DOCS), the window forgets what stands before the document of the token that comes in; backward, p of a
 * token reaches dx of those tokens only that it saw.
 *
 * Bytes per element in bf16: forward 4 (x, y); backward 6 (x, dy, dx), 8 where dx is added to. Memory is the limit.
 *
 * Vectors of channels with K = 4 have kernels of their own. Everything else runs channel by channel with filters of
 * 4 or 16 taps, of which the first ones are zero if K is smaller. */
#include "ops/cuda/partials.cuh"

extern "C" {
#include "ops/conv1d.h"
}

enum {
    VECTOR = 4, /* channels of a thread, where alignment allows */
    ACROSS = 32,
    DOWN = 4, /* stretches of a block */
    THREADS = ACROSS * DOWN,
    AHEAD = 4, /* tokens of a batch of loads, backward */
    ENTRY = 8  /* tokens' worth of time that a stretch takes to begin */
};
template <typename T> constexpr int FORWARD_AHEAD = 16 / (int)sizeof(T);

/* Blocks that the registers of a multiprocessor have room for. */
constexpr int forward_blocks(int directions)
{
    return directions == 1 ? 6 : 5;
}
constexpr int backward_blocks(size_t element, bool add)
{
    return element > sizeof(bf16) ? 2 : add ? 3 : 4;
}

template <typename T> struct conv_pass {
    rows_of<const T> x, dy;
    rows_of<T> y, dx;
    const float *w, *bias;
    const int32_t *starts; /* (sequences, L), of documents */
    float *partials; /* backward: (groups of DOWN stretches, taps + 1, E) */
    int64_t sequences, E;
    int L, stretch, stretches; /* tokens of a sequence, of a stretch; stretches of a sequence */
    int taps;
    bool silu, reverse;
    bool add; /* backward: to what stands in dx */
};

/* All directions of a node that anything flows through. */
template <typename T, int DIRECTIONS> struct conv_passes {
    conv_pass<T> of[DIRECTIONS];
};

__device__ __forceinline__ float sigmoid_fast(float x)
{
    float e, r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(-1.44269504f * x));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1.0f + e));
    return r;
}

/* V elements as they stand in memory: while they are on their way nothing may look into them. */
template <int BYTES> struct raw_bytes;
template <> struct raw_bytes<2> {
    typedef uint16_t type;
};
template <> struct raw_bytes<4> {
    typedef uint32_t type;
};
template <> struct raw_bytes<8> {
    typedef uint2 type;
};
template <> struct raw_bytes<16> {
    typedef uint4 type;
};
template <typename T, int V> using raw = typename raw_bytes<sizeof(T) * V>::type;

template <typename T, int V> __device__ __forceinline__ void unpack(raw<T, V> r, float (&to)[V])
{
    const vec<T, V> v = *reinterpret_cast<const vec<T, V> *>(&r);
#pragma unroll
    for (int i = 0; i < V; i++)
        to[i] = to_float(v.at[i]);
}

/* V channels of a sequence, token by token in the convolution's direction. */
template <typename T, int V> struct cursor {
    T *at;
    int64_t step;

    __device__ __forceinline__ cursor(const rows_of<T> &r, int64_t b, int64_t e, int L, int t, bool reverse)
        : at(r.at(b * L + (reverse ? L - 1 - t : t), e)), step(reverse ? -r.ld : r.ld)
    {
    }

    /* Zeros if there is no such token. */
    __device__ __forceinline__ raw<T, V> take(bool there)
    {
        raw<T, V> r = {};
        if (there)
            r = *reinterpret_cast<const raw<T, V> *>(at);
        at += step;
        return r;
    }

    __device__ __forceinline__ void put(const float (&x)[V])
    {
        store_floats(at, x);
        at += step;
    }
};

/* Stretch i of a sequence, the same tokens in either direction: from the first to past the last, counted in the pass's. */
template <typename T> __device__ __forceinline__ int begin_of(const conv_pass<T> &p, int i)
{
    return p.reverse ? max(p.L - (i + 1) * p.stretch, 0) : i * p.stretch;
}
template <typename T> __device__ __forceinline__ int end_of(const conv_pass<T> &p, int i)
{
    return p.reverse ? p.L - i * p.stretch : min((i + 1) * p.stretch, p.L);
}

/* A stretch of tokens of V channels. The filter's last taps are the K kept here; `first` of them are not there. */
template <typename T, int K, int V, bool DOCS> struct conv_thread {
    const conv_pass<T> &k;
    const int first;
    int64_t b, e;
    int begin, end;
    cursor<const T, V> from;
    float w[K][V], bias[V], x[K][V]; /* x[K - 1] is the token at hand */

    __device__ __forceinline__ conv_thread(const conv_pass<T> &pass, int64_t stretch, int64_t channel)
        : k(pass), first(V == 1 ? K - pass.taps : 0), b(stretch / pass.stretches), e(channel),
          begin(begin_of(pass, (int)(stretch - b * pass.stretches))),
          end(end_of(pass, (int)(stretch - b * pass.stretches))),
          from(pass.x, b, e, pass.L, begin - (K - 1), pass.reverse)
    {
#pragma unroll
        for (int i = 1; i < K; i++)
            unpack<T, V>(from.take(begin - K + i >= 0), x[i]);
#pragma unroll
        for (int v = 0; v < V; v++)
            load_filter(v);
    }

    __device__ __forceinline__ void load_filter(int v)
    {
        bias[v] = k.bias != NULL ? k.bias[e + v] : 0.0f;
        if constexpr (V > 1) {
            float taps[K];
            load_floats(k.w + (e + v) * K, taps);
#pragma unroll
            for (int i = 0; i < K; i++)
                w[i][v] = taps[i];
        } else {
#pragma unroll
            for (int i = 0; i < K; i++)
                w[i][v] = i >= first ? k.w[e * (K - first) + i - first] : 0.0f;
        }
    }

    /* The first token that token t sees. */
    __device__ __forceinline__ int start_of(int t) const
    {
        return DOCS && t < k.L ? k.starts[b * k.L + t] : 0;
    }

    /* Token t, which sees no token before `start`, comes into the window; u of it. */
    __device__ __forceinline__ void advance(raw<T, V> token, int t, int start, float (&u)[V])
    {
#pragma unroll
        for (int i = 0; i + 1 < K; i++)
#pragma unroll
            for (int v = 0; v < V; v++)
                x[i][v] = x[i + 1][v];
        unpack<T, V>(token, x[K - 1]);
        if (DOCS && start > t - (K - 1))
#pragma unroll
            for (int i = 0; i + 1 < K; i++)
                if (t - (K - 1) + i < start)
#pragma unroll
                    for (int v = 0; v < V; v++)
                        x[i][v] = 0.0f;
#pragma unroll
        for (int v = 0; v < V; v++) {
            u[v] = bias[v];
#pragma unroll
            for (int i = 0; i < K; i++)
                if (V > 1 || i >= first)
                    u[v] += w[i][v] * x[i][v];
        }
    }
};

/* What a thread of a block is given; blocks of one group of stretches stand side by side. */
struct conv_place {
    int64_t group, stretch, channel;
    bool inside;
};

template <int V, typename T> __device__ __forceinline__ conv_place place_of(const conv_pass<T> &pass)
{
    const unsigned tiles = (unsigned)ceil_div(pass.E, ACROSS * V), group = blockIdx.x / tiles;
    conv_place at;
    at.group = group;
    at.stretch = group * (int64_t)DOWN + threadIdx.x / ACROSS;
    at.channel = ((blockIdx.x - group * tiles) * (int64_t)ACROSS + threadIdx.x % ACROSS) * V;
    at.inside = at.channel < pass.E && at.stretch < pass.sequences * pass.stretches;
    return at;
}

/* ---- forward ------------------------------------------------------------------------------------------------------- */

template <typename T, int K, int V, bool DOCS>
__device__ __forceinline__ void forward_stretch(conv_thread<T, K, V, DOCS> &c, cursor<T, V> to)
{
    constexpr int N = FORWARD_AHEAD<T>;
    raw<T, V> next[N], now[N];
    int next_start[N], start[N];
#pragma unroll
    for (int j = 0; j < N; j++) {
        next[j] = c.from.take(c.begin + j < c.end);
        next_start[j] = c.start_of(c.begin + j);
    }
    for (int t = c.begin;; t += N) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            now[j] = next[j];
            start[j] = next_start[j];
            next[j] = c.from.take(t + N + j < c.end);
            next_start[j] = c.start_of(t + N + j);
        }
#pragma unroll
        for (int j = 0; j < N; j++) {
            if (t + j >= c.end)
                return;
            float u[V];
            c.advance(now[j], t + j, start[j], u);
#pragma unroll
            for (int v = 0; v < V; v++)
                u[v] *= c.k.silu ? sigmoid_fast(u[v]) : 1.0f;
            to.put(u);
        }
    }
}

template <typename T, int K, int V, int DIRECTIONS, bool DOCS>
static __global__ void __launch_bounds__(THREADS, K == 4 ? forward_blocks(DIRECTIONS) : 2)
    conv1d_forward(const __grid_constant__ conv_passes<T, DIRECTIONS> passes)
{
    const conv_place at = place_of<V>(passes.of[0]);
    if (!at.inside)
        return;
#pragma unroll /* so that what a pass says are operands */
    for (int d = 0; d < DIRECTIONS; d++) {
        const conv_pass<T> &pass = passes.of[d];
        conv_thread<T, K, V, DOCS> c(pass, at.stretch, at.channel);
        forward_stretch(c, cursor<T, V>(pass.y, c.b, c.e, pass.L, c.begin, pass.reverse));
    }
}

/* ---- backward ------------------------------------------------------------------------------------------------------ */

/* ADD: perhaps to what stands in dx. */
template <typename T, int K, int V, bool ADD, bool DOCS> struct conv_backward_thread : conv_thread<T, K, V, DOCS> {
    typedef conv_thread<T, K, V, DOCS> base;
    using base::begin;
    using base::end;
    using base::from;
    using base::k;
    using base::x;

    cursor<const T, V> dy, before; /* before: what stands in dx */
    cursor<T, V> dx;
    int behind, seeds;           /* past the last token whose p reaches the stretch; the same of dy, 0 without one */
    float p[K][V], dw[K + 1][V]; /* p[i] is that of i tokens ago; dw[K] is dbias */

    /* A token, and what stands in dx of the one that it completes. */
    struct arrival {
        raw<T, V> x, dy, dx;
        int start; /* of the token's document */
    };

    __device__ __forceinline__ conv_backward_thread(const conv_pass<T> &pass, int64_t stretch, int64_t channel)
        : base(pass, stretch, channel), dy(pass.dy, this->b, channel, pass.L, begin, pass.reverse),
          before({pass.dx.data, pass.dx.ld}, this->b, channel, pass.L, begin - (K - 1), pass.reverse),
          dx(pass.dx, this->b, channel, pass.L, begin, pass.reverse),
          behind(end + K - 1 < pass.L ? end + K - 1 : pass.L), seeds(pass.dy.data != NULL ? behind : 0), p(), dw()
    {
    }

    __device__ __forceinline__ void request(arrival &a, int t)
    {
        a.x = from.take(t < behind);
        a.dy = dy.take(t < seeds);
        a.start = this->start_of(t);
        if (ADD)
            a.dx = before.take(k.add & (t - (K - 1) >= begin) & (t - (K - 1) < end)); /* no branches */
    }

    /* Bit i: token t - i sees nothing of token t - (K - 1). */
    __device__ __forceinline__ unsigned hidden_from(int t, int start) const
    {
        unsigned hidden = 0;
        if (DOCS && (start > t - (K - 1) || t >= k.L))
#pragma unroll
            for (int i = 0; i < K; i++)
                hidden |= (unsigned)(t >= i && this->start_of(t - i) > t - (K - 1)) << i;
        return hidden;
    }

    /* Token t, which may be one of the K - 1 past the stretch: those are the next stretch's to sum. Past the sequence dy
     * is zero and so is p. dx of the token K - 1 before it is complete then. INSIDE: that, too, is of the stretch. */
    template <bool INSIDE> __device__ __forceinline__ void token(int t, const arrival &now)
    {
        float u[V], sum[V] = {};
        this->advance(now.x, t, now.start, u);
        const unsigned hidden = hidden_from(t, now.start);
#pragma unroll
        for (int i = K - 1; i > 0; i--)
#pragma unroll
            for (int v = 0; v < V; v++)
                p[i][v] = p[i - 1][v];
        unpack<T, V>(now.dy, p[0]);
        if (ADD)
            unpack<T, V>(now.dx, sum);
#pragma unroll
        for (int v = 0; v < V; v++) {
            const float s = sigmoid_fast(u[v]), slope = s * (1.0f + u[v] * (1.0f - s));
            p[0][v] *= k.silu ? slope : 1.0f;
            const float own = INSIDE || t < end ? p[0][v] : 0.0f;
#pragma unroll
            for (int i = 0; i < K; i++)
                if (V > 1 || i >= this->first) {
                    dw[i][v] += own * x[i][v];
                    sum[v] += DOCS && hidden >> i & 1 ? 0.0f : this->w[i][v] * p[i][v];
                }
            dw[K][v] += own;
        }
        if ((INSIDE || t - (K - 1) >= begin) && k.dx.data != NULL)
            dx.put(sum);
    }

    __device__ __forceinline__ void stretch()
    {
        arrival next[AHEAD], now[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            request(next[j], begin + j);
        for (int t = begin;; t += AHEAD) {
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                now[j] = next[j];
                request(next[j], t + AHEAD + j);
            }
            if (t - (K - 1) >= begin && t + AHEAD <= end) {
#pragma unroll
                for (int j = 0; j < AHEAD; j++)
                    token<true>(t + j, now[j]);
                continue;
            }
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                if (t + j >= end + K - 1)
                    return;
                token<false>(t + j, now[j]);
            }
        }
    }
};

/* Adds the block's stretches up, tap by tap; the last is the bias. */
template <int K, int V>
__device__ __forceinline__ void store_partials(const float (&dw)[K + 1][V], const conv_place &at, float *partials,
                                               int64_t E, int taps)
{
    constexpr int WIDTH = ACROSS * V;
    __shared__ float sums[DOWN][K + 1][WIDTH];
    const int lane = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
    const int64_t first_channel = at.channel - lane * V;
#pragma unroll
    for (int i = 0; i <= K; i++)
#pragma unroll
        for (int v = 0; v < V; v++)
            sums[down][i][lane * V + v] = dw[i][v];
    __syncthreads();
    for (int i = threadIdx.x; i < (taps + 1) * WIDTH; i += THREADS) {
        const int tap = i / WIDTH, across = i % WIDTH;
        if (first_channel + across >= E)
            continue;
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < DOWN; j++)
            sum += sums[j][K - taps + tap][across];
        partials[(at.group * (taps + 1) + tap) * E + first_channel + across] = sum;
    }
}

template <typename T, int K, int V, bool ADD, int DIRECTIONS, bool DOCS>
static __global__ void __launch_bounds__(THREADS, K == 4 ? backward_blocks(sizeof(T), ADD) : 2)
    conv1d_backward(const __grid_constant__ conv_passes<T, DIRECTIONS> passes)
{
#pragma unroll /* so that what a pass says are operands */
    for (int d = 0; d < DIRECTIONS; d++) {
        const conv_pass<T> &pass = passes.of[d];
        float dw[K + 1][V] = {};
        const conv_place at = place_of<V>(pass);
        if (at.inside) {
            conv_backward_thread<T, K, V, ADD, DOCS> c(pass, at.stretch, at.channel);
            c.stretch();
#pragma unroll
            for (int i = 0; i <= K; i++)
#pragma unroll
                for (int v = 0; v < V; v++)
                    dw[i][v] = c.dw[i][v];
        }
        if (d > 0)
            __syncthreads(); /* the sums before have been read */
        store_partials<K, V>(dw, place_of<V>(pass), pass.partials, pass.E, pass.taps);
    }
}

/* ---- launches ------------------------------------------------------------------------------------------------------ */

/* Tokens of a stretch: of all lengths, the one at which the waves of blocks go through the fewest tokens, halos and the
 * way into the loop counted. Depends on the sizes and the GPU alone: it sets the order of sums. */
static int stretch_of(const cab_node *node, const cab_backend *backend, int blocks_each)
{
    const cab_tensor *x = node->in[0];
    const int64_t at_once = (int64_t)cab_cuda_of(backend)->multiprocessors * blocks_each;
    const int64_t tiles = ceil_div(cab_columns(x), ACROSS * VECTOR), L = x->shape[1];
    int64_t best = 1, fewest = INT64_MAX;
    for (int64_t length = 1; length <= L; length++) {
        const int64_t blocks = ceil_div(x->shape[0] * ceil_div(L, length), DOWN) * tiles;
        const int64_t cost = ceil_div(blocks, at_once) * (length + cab_columns(node->in[1]) - 1 + ENTRY);
        if (cost < fewest) {
            fewest = cost;
            best = length;
        }
    }
    return (int)best;
}

/* Whether the kernel that can add to dx is needed: for a second direction, too. */
static bool may_add(const cab_node *node)
{
    return (node->accumulate & 1) != 0 || cab_conv1d_attributes_of(node)->directions == 2;
}

static int backward_stretch(const cab_node *node, const cab_backend *backend)
{
    return stretch_of(node, backend, backward_blocks(cab_dtype_size(node->in[0]->dtype), may_add(node)));
}

/* Blocks of stretches one above the other; each leaves a row of partial sums. */
static int64_t groups_of(const cab_node *node, int stretch)
{
    return ceil_div(node->in[0]->shape[0] * ceil_div(node->in[0]->shape[1], stretch), DOWN);
}

/* Floats of partial sums of a direction. */
static int64_t partial_size(const cab_node *node, int64_t groups)
{
    return groups * node->in[1]->shape[0] * (cab_columns(node->in[1]) + 1);
}

extern "C" size_t cab_conv1d_backward_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    const int64_t size = partial_size(node, groups_of(node, backward_stretch(node, backend)));
    return (size_t)(size * cab_conv1d_attributes_of(node)->directions) * sizeof(float);
}

/* Direction d of a node. */
template <typename T> static conv_pass<T> conv_pass_of(const cab_node *node, int d, int stretch)
{
    const cab_node one = cab_conv1d_direction(node, d);
    const cab_tensor *x = one.in[0];
    conv_pass<T> p = {};
    p.x = rows<const T>(x);
    p.w = (const float *)one.in[1]->data;
    p.bias = rows<const float>(one.in[2]).data;
    p.starts = rows<const int32_t>(one.in[CAB_CONV1D_STARTS]).data;
    p.sequences = x->shape[0];
    p.L = (int)x->shape[1];
    p.E = cab_columns(x);
    p.stretch = stretch;
    p.stretches = (int)ceil_div(p.L, stretch);
    p.taps = (int)cab_columns(one.in[1]);
    p.silu = cab_conv1d_attributes_of(node)->silu;
    p.reverse = d == 1;
    if (node->backward) {
        p.dy = rows<const T>(one.gout[0]);
        p.dx = rows<T>(one.gin[0]);
        p.add = p.dx.data != NULL && (one.accumulate & 1) != 0;
    } else {
        p.y = rows<T>(one.out[0]);
    }
    return p;
}

/* Whether all directions' channels can be moved VECTOR at a time. */
static bool fits_vectors(const cab_node *node)
{
    bool fits = true;
    for (int d = 0; d < cab_conv1d_attributes_of(node)->directions; d++) {
        const cab_node one = cab_conv1d_direction(node, d);
        const cab_tensor *const moved[] = {one.in[0], node->backward ? one.gout[0] : one.out[0], one.gin[0]};
        fits &= cab_columns(one.in[1]) == 4 && fits_packets(one.in[1], 4);
        for (const cab_tensor *t : moved)
            fits &= fits_packets(t, VECTOR);
    }
    return fits;
}

template <typename T, int K, int V, int DIRECTIONS>
static void launch_forward(const conv_passes<T, DIRECTIONS> &p, int64_t groups, cab_backend *backend)
{
    const int64_t blocks = groups * ceil_div(p.of[0].E, ACROSS * V);
    if constexpr (DIRECTIONS == 1)
        if (p.of[0].starts) {
            conv1d_forward<T, K, V, 1, true><<<(unsigned)blocks, THREADS, 0, stream_of(backend)>>>(p);
            return;
        }
    conv1d_forward<T, K, V, DIRECTIONS, false><<<(unsigned)blocks, THREADS, 0, stream_of(backend)>>>(p);
}

template <typename T, int DIRECTIONS> static cab_status forward(const cab_node *node, cab_backend *backend)
{
    const int stretch = stretch_of(node, backend, forward_blocks(DIRECTIONS));
    const int64_t groups = groups_of(node, stretch);
    conv_passes<T, DIRECTIONS> p = {};
    for (int d = 0; d < DIRECTIONS; d++)
        p.of[d] = conv_pass_of<T>(node, d, stretch);
    if (fits_vectors(node))
        launch_forward<T, 4, VECTOR>(p, groups, backend);
    else if (p.of[0].taps <= 4)
        launch_forward<T, 4, 1>(p, groups, backend);
    else
        launch_forward<T, CAB_CONV1D_MAX_WIDTH, 1>(p, groups, backend);
    return cab_cuda_launched("conv1d");
}

template <typename T, int K, int V, int DIRECTIONS>
static void launch_backward(const conv_passes<T, DIRECTIONS> &p, int64_t groups, bool add, cab_backend *backend)
{
    const unsigned blocks = (unsigned)(groups * ceil_div(p.of[0].E, ACROSS * V));
    const conv_passes<T, 1> one = {{p.of[0]}};
    if (DIRECTIONS == 2)
        conv1d_backward<T, K, V, true, DIRECTIONS, false><<<blocks, THREADS, 0, stream_of(backend)>>>(p);
    else if (one.of[0].starts)
        conv1d_backward<T, K, V, true, 1, true><<<blocks, THREADS, 0, stream_of(backend)>>>(one);
    else if (add)
        conv1d_backward<T, K, V, true, 1, false><<<blocks, THREADS, 0, stream_of(backend)>>>(one);
    else
        conv1d_backward<T, K, V, false, 1, false><<<blocks, THREADS, 0, stream_of(backend)>>>(one);
}

/* Filters' and biases' gradients from the partial sums of direction d. */
template <typename T>
static cab_status sum_filters(const cab_node *node, int d, const conv_pass<T> &p, int64_t groups, cab_backend *backend)
{
    const cab_node one = cab_conv1d_direction(node, d);
    const filter_targets targets = {rows<float>(one.gin[1]).data, rows<float>(one.gin[2]).data, p.E, p.taps, true};
    if (targets.w == NULL && targets.bias == NULL)
        return CAB_OK;
    return launch_partials(targets, p.partials, groups, p.E * (p.taps + 1), backend);
}

/* Of directions `first` on. */
template <typename T, int DIRECTIONS> static cab_status backward(const cab_node *node, int first, cab_backend *backend)
{
    const int stretch = backward_stretch(node, backend);
    const int64_t groups = groups_of(node, stretch);
    conv_passes<T, DIRECTIONS> p = {};
    for (int i = 0; i < DIRECTIONS; i++) {
        p.of[i] = conv_pass_of<T>(node, first + i, stretch);
        p.of[i].partials = (float *)node->scratch + i * partial_size(node, groups);
    }
    if (fits_vectors(node))
        launch_backward<T, 4, VECTOR>(p, groups, may_add(node), backend);
    else if (p.of[0].taps <= 4)
        launch_backward<T, 4, 1>(p, groups, may_add(node), backend);
    else
        launch_backward<T, CAB_CONV1D_MAX_WIDTH, 1>(p, groups, may_add(node), backend);
    CAB_TRY(cab_cuda_launched("conv1d"));
    for (int i = 0; i < DIRECTIONS; i++)
        CAB_TRY(sum_filters(node, first + i, p.of[i], groups, backend));
    return CAB_OK;
}

extern "C" cab_status cab_conv1d_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const bool both = cab_conv1d_attributes_of(node)->directions == 2;
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, (status = both ? forward<T, 2>(node, backend) : forward<T, 1>(node, backend)));
    return status;
}

extern "C" cab_status cab_conv1d_backward_cuda(const cab_node *node, cab_backend *backend)
{
    const bool first = cab_conv1d_flows(node, 0);
    const bool both = first && cab_conv1d_attributes_of(node)->directions == 2 && cab_conv1d_flows(node, 1);
    cab_status status;
    BY_DTYPE(node->in[0]->dtype,
             (status = both ? backward<T, 2>(node, 0, backend) : backward<T, 1>(node, first ? 0 : 1, backend)));
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
    const bool silu = cab_conv1d_attributes_of(node)->silu;
    const float *w = (const float *)node->in[1]->data, *bias = rows<const float>(node->in[2]).data;
    float *state = (float *)node->in[3]->data;
    BY_DTYPE(x->dtype, (conv1d_step<T><<<(unsigned)ceil_div(n * E, THREADS), THREADS, 0, stream_of(backend)>>>(
                           rows<const T>(x), rows<T>(node->out[0]), w, bias, state, n, E, taps, silu)));
    return cab_cuda_launched("conv1d_step");
}
