/* conv2d.cu - the convolution over a grid of patches on the GPU; src/ops/conv2d.c has the formula.
 *
 * Layout: a thread takes V neighbouring channels along one row of a grid, column by column; filters stay in registers. A block is
 * a warp across channels times DOWN rows, one above the other, which read the rows of one another: the caches have them. Filters of
 * side 3 on aligned channels have vectors, all else one channel a thread.
 *
 * Arithmetic, in fp32, with p = dL/du and flip(w)[i, j] = w[K - 1 - i, K - 1 - j]:
 *
 *   y = silu(bias + conv(x, w))     dx = conv(p, flip(w))     dw[i, j] = sum_rc p[r, c] x[r + i - h, c + j - h]     dbias = sum_rc p[r, c]
 *
 * conv goes along a row with K sums under way: a column of x that comes in is added to those of the K patches that see it. Backward, one
 * pass over x and dy computes u again, writes p to scratch and sums dw and dbias, which needs a window of K x K of x; a second makes
 * dx of p. The sums of a thread's rows are added up within its block, then by another kernel over the blocks, in a fixed order.
 *
 * Bytes per element in bf16: forward 4 (x, y); backward 10 (x, dy, p; p, dx), where the caches hold neighbouring rows. */
#include "ops/cuda/activation.cuh"
#include "ops/cuda/partials.cuh"

extern "C" {
#include "ops/conv2d.h"
}

enum {
    ACROSS = 32,
    DOWN = 8,         /* rows of a block of conv, */
    GRADIENT_DOWN = 4, /* and of the other, whose threads take ROUNDS rows each */
    ROUNDS = 4
};

template <typename T> struct grid_pass {
    rows_of<const T> x, dy;
    rows_of<T> to; /* y, p or dx */
    const float *w, *bias;
    float *partials; /* (blocks of rows, taps + 1, E) */
    int64_t E, rows; /* of all grids */
    int first, height, width;
    bool add; /* to what stands in dx */
};

/* A row of a grid: its image's first token, and which it is. */
struct grid_row {
    int64_t image;
    int r;
};

template <typename T> __device__ __forceinline__ grid_row row_at(const grid_pass<T> &k, int64_t i)
{
    const uint32_t image = (uint32_t)i / (uint32_t)k.height;
    return {(int64_t)image * (k.first + (int64_t)k.height * k.width), (int)((uint32_t)i - image * k.height)};
}

/* Taps of V filters, tap by tap. */
template <int K, int V, bool FLIP>
__device__ __forceinline__ void load_filters(const float *w, int64_t e, float (&to)[K * K][V])
{
#pragma unroll
    for (int v = 0; v < V; v++)
#pragma unroll
        for (int i = 0; i < K * K; i++)
            to[i][v] = w[(e + v) * K * K + (FLIP ? K * K - 1 - i : i)];
}

/* Column c of the K rows around row r; zeros outside the grid. */
template <typename T, int K, int V>
__device__ __forceinline__ void load_column(const grid_pass<T> &k, const grid_row &at, int c, int64_t e,
                                            float (&to)[K][V])
{
#pragma unroll
    for (int i = 0; i < K; i++) {
        const int r = at.r + i - K / 2;
#pragma unroll
        for (int v = 0; v < V; v++)
            to[i][v] = 0.0f;
        if (r >= 0 && r < k.height && c < k.width)
            load_floats(k.x.at(at.image + k.first + (int64_t)r * k.width + c, e), to[i]);
    }
}

template <int N> __device__ __forceinline__ void apply_silu(float (&u)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        u[i] *= sigmoid(u[i]);
}

/* p = dy silu'(u) */
template <int N> __device__ __forceinline__ void gradient_of(const float (&u)[N], float (&p)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float s = sigmoid(u[i]);
        p[i] *= s + u[i] * s * (1.0f - s);
    }
}

/* ---- y, and dx --------------------------------------------------------------------------------------------------------- */

/* Of the tokens before a grid. */
template <typename T, int V, bool BACK>
__device__ __forceinline__ void convolve_first(const grid_pass<T> &k, int64_t image, int64_t e)
{
    for (int t = 0; t < k.first; t++) {
        float u[V];
        load_floats(k.x.at(image + t, e), u);
        if (!BACK)
            apply_silu(u);
        put_floats(k.to.at(image + t, e), BACK && k.add, u);
    }
}

/* Forward x -> y, or BACK p -> dx. sums[s] is that of the patch of column c - h + s while column c comes in. */
template <typename T, int K, int V, bool BACK>
static __global__ void __launch_bounds__(ACROSS *DOWN) convolve(const __grid_constant__ grid_pass<T> k)
{
    constexpr int H = K / 2;
    const unsigned tiles = (unsigned)ceil_div(k.E, ACROSS * V), group = blockIdx.x / tiles;
    const int64_t e = ((blockIdx.x - group * tiles) * (int64_t)ACROSS + threadIdx.x % ACROSS) * V;
    const int64_t row = group * (int64_t)DOWN + threadIdx.x / ACROSS;
    if (e >= k.E || row >= k.rows)
        return;
    const grid_row at = row_at(k, row);
    float w[K * K][V], bias[V], sums[K][V], column[K][V], next[K][V];
    load_filters<K, V, BACK>(k.w, e, w);
#pragma unroll
    for (int v = 0; v < V; v++)
        bias[v] = !BACK && k.bias != NULL ? k.bias[e + v] : 0.0f;
#pragma unroll
    for (int s = 0; s < K; s++)
#pragma unroll
        for (int v = 0; v < V; v++)
            sums[s][v] = bias[v];
    if (at.r == 0)
        convolve_first<T, V, BACK>(k, at.image, e);
    load_column<T, K, V>(k, at, 0, e, next);
    for (int c = 0; c < k.width + H; c++) {
#pragma unroll
        for (int i = 0; i < K; i++)
#pragma unroll
            for (int v = 0; v < V; v++)
                column[i][v] = next[i][v];
        load_column<T, K, V>(k, at, c + 1, e, next);
#pragma unroll
        for (int s = 0; s < K; s++)
#pragma unroll
            for (int i = 0; i < K; i++)
#pragma unroll
                for (int v = 0; v < V; v++)
                    sums[s][v] += w[i * K + K - 1 - s][v] * column[i][v];
        if (c >= H) {
            if (!BACK)
                apply_silu(sums[0]);
            put_floats(k.to.at(at.image + k.first + (int64_t)at.r * k.width + c - H, e), BACK && k.add, sums[0]);
        }
#pragma unroll
        for (int s = 0; s < K; s++)
#pragma unroll
            for (int v = 0; v < V; v++)
                sums[s][v] = s + 1 < K ? sums[s + 1][v] : bias[v];
    }
}

/* ---- p, dw and dbias --------------------------------------------------------------------------------------------------- */

/* K x K of x around a patch, row by row, and the sums of the patches so far. */
template <typename T, int K, int V> struct gradient_thread {
    const grid_pass<T> &k;
    const int64_t e;
    float w[K * K][V], bias[V], x[K][K][V], dw[K * K + 1][V]; /* the last is dbias */

    __device__ __forceinline__ gradient_thread(const grid_pass<T> &pass, int64_t channel) : k(pass), e(channel), dw()
    {
        load_filters<K, V, false>(k.w, e, w);
#pragma unroll
        for (int v = 0; v < V; v++)
            bias[v] = k.bias != NULL ? k.bias[e + v] : 0.0f;
    }

    /* The window goes one column on; column c comes in. */
    __device__ __forceinline__ void advance(const grid_row &at, int c)
    {
        float column[K][V];
        load_column<T, K, V>(k, at, c, e, column);
#pragma unroll
        for (int i = 0; i < K; i++)
#pragma unroll
            for (int j = 0; j < K; j++)
#pragma unroll
                for (int v = 0; v < V; v++)
                    x[i][j][v] = j + 1 < K ? x[i][j + 1][v] : column[i][v];
    }

    __device__ __forceinline__ void patch(int64_t token)
    {
        float u[V], p[V];
#pragma unroll
        for (int v = 0; v < V; v++)
            u[v] = bias[v];
#pragma unroll
        for (int i = 0; i < K * K; i++)
#pragma unroll
            for (int v = 0; v < V; v++)
                u[v] += w[i][v] * x[i / K][i % K][v];
        load_floats(k.dy.at(token, e), p);
        gradient_of(u, p);
        store_floats(k.to.at(token, e), p);
#pragma unroll
        for (int i = 0; i < K * K; i++)
#pragma unroll
            for (int v = 0; v < V; v++)
                dw[i][v] += p[v] * x[i / K][i % K][v];
#pragma unroll
        for (int v = 0; v < V; v++)
            dw[K * K][v] += p[v];
    }

    __device__ __forceinline__ void row(const grid_row &at)
    {
        for (int t = 0; at.r == 0 && t < k.first; t++) {
            float u[V], p[V];
            load_floats(k.x.at(at.image + t, e), u);
            load_floats(k.dy.at(at.image + t, e), p);
            gradient_of(u, p);
            store_floats(k.to.at(at.image + t, e), p);
        }
#pragma unroll
        for (int i = 0; i < K * K; i++)
#pragma unroll
            for (int v = 0; v < V; v++)
                x[i / K][i % K][v] = 0.0f;
#pragma unroll
        for (int c = 0; c < K / 2; c++)
            advance(at, c);
        for (int c = 0; c < k.width; c++) {
            advance(at, c + K / 2);
            patch(at.image + k.first + (int64_t)at.r * k.width + c);
        }
    }
};

template <typename T, int K, int V>
static __global__ void __launch_bounds__(ACROSS *GRADIENT_DOWN) gradients(const __grid_constant__ grid_pass<T> k)
{
    constexpr int COLUMNS = ACROSS * V, SUMS = K * K + 1;
    __shared__ float sums[GRADIENT_DOWN][SUMS][COLUMNS];
    const unsigned tiles = (unsigned)ceil_div(k.E, COLUMNS), group = blockIdx.x / tiles;
    const int lane = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
    const int64_t begin = (blockIdx.x - group * tiles) * (int64_t)COLUMNS, e = begin + lane * V;
    const int64_t row = group * (int64_t)(GRADIENT_DOWN * ROUNDS) + down;
    if (e < k.E) {
        gradient_thread<T, K, V> thread(k, e);
        for (int i = 0; i < ROUNDS && row + i * GRADIENT_DOWN < k.rows; i++)
            thread.row(row_at(k, row + i * GRADIENT_DOWN));
#pragma unroll
        for (int i = 0; i < SUMS; i++)
#pragma unroll
            for (int v = 0; v < V; v++)
                sums[down][i][lane * V + v] = thread.dw[i][v];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < SUMS * COLUMNS; i += ACROSS * GRADIENT_DOWN) {
        const int tap = i / COLUMNS, across = i % COLUMNS;
        if (begin + across >= k.E)
            continue;
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < GRADIENT_DOWN; j++)
            sum += sums[j][tap][across];
        k.partials[(group * (int64_t)SUMS + tap) * k.E + begin + across] = sum;
    }
}

/* ---- launches ---------------------------------------------------------------------------------------------------------- */

/* Blocks of rows that leave a row of partial sums each. */
static int64_t groups_of(const cab_conv2d_shape &s)
{
    return ceil_div(s.images * s.height, GRADIENT_DOWN * ROUNDS);
}

/* p, (B, L, E) in x's dtype; the partial sums are before it. */
static int64_t partial_count(const cab_conv2d_shape &s)
{
    return ceil_div(groups_of(s) * s.E * (s.side * s.side + 1), 64) * 64; /* p begins where vectors may */
}

extern "C" size_t cab_conv2d_backward_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_tensor *x = node->in[CAB_CONV2D_X];
    return (size_t)partial_count(cab_conv2d_shape_of(node)) * sizeof(float) +
           (size_t)cab_elements(x) * cab_dtype_size(x->dtype);
}

template <typename T> static grid_pass<T> pass_of(const cab_node *node)
{
    const cab_conv2d_shape s = cab_conv2d_shape_of(node);
    grid_pass<T> k = {};
    k.x = rows<const T>(node->in[CAB_CONV2D_X]);
    k.w = (const float *)node->in[CAB_CONV2D_W]->data;
    k.bias = rows<const float>(node->in[CAB_CONV2D_BIAS]).data;
    k.E = s.E;
    k.rows = s.images * s.height;
    k.first = (int)s.first;
    k.height = (int)s.height;
    k.width = (int)s.width;
    return k;
}

template <typename T, int K, int V, bool BACK>
static cab_status launch_convolve(const grid_pass<T> &k, cab_backend *backend)
{
    const int64_t blocks = ceil_div(k.rows, DOWN) * ceil_div(k.E, ACROSS * V);
    convolve<T, K, V, BACK><<<(unsigned)blocks, ACROSS * DOWN, 0, stream_of(backend)>>>(k);
    return cab_cuda_launched("conv2d");
}

template <typename T, bool BACK>
static cab_status convolve_any(const grid_pass<T> &k, int side, bool vectors, cab_backend *backend)
{
    if (side == 7)
        return launch_convolve<T, 7, 1, BACK>(k, backend);
    if (side == 5)
        return launch_convolve<T, 5, 1, BACK>(k, backend);
    return vectors ? launch_convolve<T, 3, 4, BACK>(k, backend) : launch_convolve<T, 3, 1, BACK>(k, backend);
}

template <typename T, int K, int V> static cab_status launch_gradients(const grid_pass<T> &k, cab_backend *backend)
{
    const int64_t blocks = ceil_div(k.rows, GRADIENT_DOWN * ROUNDS) * ceil_div(k.E, ACROSS * V);
    gradients<T, K, V><<<(unsigned)blocks, ACROSS * GRADIENT_DOWN, 0, stream_of(backend)>>>(k);
    return cab_cuda_launched("conv2d");
}

template <typename T>
static cab_status gradients_any(const grid_pass<T> &k, int side, bool vectors, cab_backend *backend)
{
    if (side == 7)
        return launch_gradients<T, 7, 1>(k, backend);
    if (side == 5)
        return launch_gradients<T, 5, 1>(k, backend);
    return vectors ? launch_gradients<T, 3, 2>(k, backend) : launch_gradients<T, 3, 1>(k, backend);
}

template <typename T> static cab_status backward(const cab_node *node, cab_backend *backend)
{
    const cab_conv2d_shape s = cab_conv2d_shape_of(node);
    const cab_tensor *x = node->in[CAB_CONV2D_X], *dy = node->gout[0], *dx = node->gin[CAB_CONV2D_X];
    const int taps = s.side * s.side;
    const rows_of<T> p = {(T *)((float *)node->scratch + partial_count(s)), s.E};
    const filter_targets targets = {rows<float>(node->gin[CAB_CONV2D_W]).data,
                                    rows<float>(node->gin[CAB_CONV2D_BIAS]).data, s.E, taps, true};
    grid_pass<T> k = pass_of<T>(node);
    k.dy = rows<const T>(dy);
    k.to = p;
    k.partials = (float *)node->scratch;
    CAB_TRY(gradients_any(k, s.side, fits_packets(x, 2) && fits_packets(dy, 2), backend));
    if (targets.w != NULL || targets.bias != NULL)
        CAB_TRY(launch_partials(targets, k.partials, groups_of(s), s.E * (taps + 1), backend));
    if (dx == NULL)
        return CAB_OK;
    k.x = {p.data, p.ld};
    k.to = rows<T>(dx);
    k.add = (node->accumulate >> CAB_CONV2D_X & 1u) != 0;
    return convolve_any<T, true>(k, s.side, fits_packets(dx, 4), backend);
}

template <typename T> static cab_status forward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[CAB_CONV2D_X], *y = node->out[0];
    grid_pass<T> k = pass_of<T>(node);
    k.to = rows<T>(y);
    return convolve_any<T, false>(k, (int)cab_columns(node->in[CAB_CONV2D_W]),
                                  fits_packets(x, 4) && fits_packets(y, 4), backend);
}

extern "C" cab_status cab_conv2d_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->out[0]->dtype, status = forward<T>(node, backend));
    return status;
}

extern "C" cab_status cab_conv2d_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->gout[0]->dtype, status = backward<T>(node, backend));
    return status;
}
