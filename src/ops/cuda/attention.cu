/* attention.cu - attention on the GPU, forward and backward, for every node that the faster kernels refuse.
 *
 * cuDNN computes bf16 attention (cudnn_attention.c) where it takes the node: heads of a multiple of 8, views on
 * 16-byte boundaries, gradients that are written and not added to. Otherwise flash.cu and flash_backward.cu do. The
 * kernels here take the rest: F32, and heads above 128. They compute in fp32 without tensor cores.
 *
 * Layout: a block has 16 x 16 threads. Thread (tx, ty) holds rows ty + 16 i and columns tx + 16 j of a tile of scores;
 * the 16 threads of a row sit in one half of a warp. Tiles of Q, K, V and dy stand in shared memory.
 *
 *   forward   a block holds ROWS queries of one head and walks over tiles of as many keys
 *   dq        the same walk; the probabilities are computed again from the saved lse
 *   dk, dv    a block holds ROWS keys and walks over the queries that see them, of every head of the group
 *
 * Every sum has one writer and a fixed order.
 *
 * Arithmetic, for query i and the keys j that it sees:
 *
 *   s[i, j] = scale <q[i], k[j]>     lse[i] = log sum_j e^s[i, j]     p = e^(s - lse)     y[i] = sum_j p[i, j] v[j]
 *   ds = scale p (<dy[i], v[j]> - <dy[i], y[i]>), times the slope of a soft cap (soft_cap.cuh)     dq = ds k     dk = ds^T q     dv = p^T dy
 *
 * The forward walk keeps the largest score so far and scales its sums down when that score grows (online softmax). A
 * pair of query and key costs 2 P multiply-adds forward, 3 P for dq, 4 P for dk and dv. A tile reads 2 ROWS P
 * elements for ROWS^2 pairs, so arithmetic is the limit from P = 32 on. */
#include "ops/cuda/soft_cap.cuh"

extern "C" {
#include "ops/attention.h"
#include "ops/cuda/cudnn_attention.h"
#include "ops/cuda/flash.h"
}

enum { SIDE = 16, THREADS = SIDE * SIDE, HEAD_MAX = 256 };

/* Shared-memory tiles of ROWS rows of W features, the width of a head rounded up; LD keeps four-element packets of
 * neighbouring rows in different banks. */
template <int W> struct tile {
    static constexpr int ROWS = W <= 64 ? 64 : 4096 / W;
    static constexpr int LD = W + 4;
    static constexpr int M = ROWS / SIDE; /* rows, and columns of scores, of a thread */
    static constexpr int C = W / SIDE;    /* features of a thread */
    static constexpr int S = ROWS + 4;    /* from row to row of a tile of scores */
    static constexpr int SIZE = ROWS * LD;
};

/* What every kernel here asks of the op. */
struct problem {
    int64_t length, tiles, window; /* tiles: of ROWS tokens a sequence */
    int n_head, group, width;      /* group: heads that share keys */
    float scale, cap; /* cap 0: none */
    bool causal, wide; /* wide: 16-byte accesses fit everywhere */
    const int32_t *starts; /* (B, L), in a kernel of its sequence; NULL: none */

    /* A product of query and key as the softmax sees it. */
    __device__ __forceinline__ float score(float s) const
    {
        return cap > 0.0f ? soft_cap(s * scale, cap) : s * scale;
    }
    /* Its slope, but for the scale. */
    __device__ __forceinline__ float slope(float score) const
    {
        return cap > 0.0f ? soft_cap_slope(score, cap) : 1.0f;
    }
    __device__ __forceinline__ bool seen(int64_t i, int64_t j) const
    {
        return i < length && j < length && (!causal || j <= i) && (window <= 0 || j > i - window) &&
               (starts == NULL || j >= starts[i]);
    }
    /* Keys begin .. end seen by any of queries first .. first + rows, begin on a tile's boundary; and the reverse. */
    __device__ __forceinline__ void keys_of(int64_t first, int rows, int64_t *begin, int64_t *end) const
    {
        *begin = window > 0 && first >= window ? (first - window + 1) / rows * rows : 0;
        *end = causal && first + rows < length ? first + rows : length;
    }
    __device__ __forceinline__ void queries_of(int64_t first, int rows, int64_t *begin, int64_t *end) const
    {
        *begin = causal ? first : 0;
        *end = window > 0 && first + rows - 1 + window < length ? first + rows - 1 + window : length;
    }
};

/* A block's tile, head and sequence, tiles fastest. */
struct place {
    int64_t first, head, b;
};
__device__ __forceinline__ place place_of(const problem &p, int rows, int heads)
{
    const int64_t i = blockIdx.x, sequence = i / p.tiles;
    const place at = {(i - sequence * p.tiles) * rows, sequence % heads, sequence / heads};
    return at;
}

/* ---- tiles --------------------------------------------------------------------------------------------------------- */

/* Rows first .. of sequence b, from feature `column`; zero past the sequence and the head. */
template <typename T, int W>
static __device__ void load_tile(float *to, rows_of<const T> from, const problem &p, int64_t b, int64_t first,
                                 int64_t column)
{
    constexpr int N = WIDE<T>;
    const T *origin = from.at(b * p.length + first, column);
    if (p.wide) {
        for (int i = threadIdx.x; i < tile<W>::ROWS * (W / N); i += THREADS) {
            const int row = i / (W / N), c = i % (W / N) * N;
            float x[N] = {};
            if (first + row < p.length && c < p.width)
                load_floats<T, N>(origin + row * from.ld + c, x);
#pragma unroll
            for (int k = 0; k < N; k++)
                to[row * tile<W>::LD + c + k] = x[k];
        }
        return;
    }
    for (int i = threadIdx.x; i < tile<W>::ROWS * W; i += THREADS) {
        const int row = i / W, c = i % W;
        const bool inside = first + row < p.length && c < p.width;
        to[row * tile<W>::LD + c] = inside ? to_float(origin[row * from.ld + c]) : 0.0f;
    }
}

/* s[i][j] = <row ty + 16 i of a, row tx + 16 j of b> */
template <int W>
static __device__ __forceinline__ void dot_rows(float (&s)[tile<W>::M][tile<W>::M], const float *a, const float *b)
{
    constexpr int M = tile<W>::M, LD = tile<W>::LD;
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < M; j++)
            s[i][j] = 0.0f;
#pragma unroll 4
    for (int c = 0; c < W; c += 4) {
        float4 x[M], y[M];
#pragma unroll
        for (int i = 0; i < M; i++) {
            x[i] = *(const float4 *)(a + (ty + SIDE * i) * LD + c);
            y[i] = *(const float4 *)(b + (tx + SIDE * i) * LD + c);
        }
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < M; j++)
                s[i][j] += x[i].x * y[j].x + x[i].y * y[j].y + x[i].z * y[j].z + x[i].w * y[j].w;
    }
}

/* Scores to shared memory; only the same half of a warp reads these rows. */
template <int W>
static __device__ __forceinline__ void put_scores(float *shared, const float (&s)[tile<W>::M][tile<W>::M])
{
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < tile<W>::M; i++)
#pragma unroll
        for (int j = 0; j < tile<W>::M; j++)
            shared[(ty + SIDE * i) * tile<W>::S + tx + SIDE * j] = s[i][j];
    __syncwarp();
}

/* sum[i][c] += sum_j shared[row ty + 16 i][j] x[j][tx + 16 c] */
template <int W>
static __device__ __forceinline__ void add_product(float (&sum)[tile<W>::M][tile<W>::C], const float *shared,
                                                   const float *x)
{
    constexpr int M = tile<W>::M, C = tile<W>::C;
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
#pragma unroll 4
    for (int j = 0; j < tile<W>::ROWS; j++) {
        float s[M], v[C];
#pragma unroll
        for (int i = 0; i < M; i++)
            s[i] = shared[(ty + SIDE * i) * tile<W>::S + j];
#pragma unroll
        for (int c = 0; c < C; c++)
            v[c] = x[j * tile<W>::LD + tx + SIDE * c];
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int c = 0; c < C; c++)
                sum[i][c] += s[i] * v[c];
    }
}

/* Rows first .. of sequence b get factor[i] * sum[i], added or written. */
template <typename T, int W>
static __device__ void store_rows(rows_of<T> to, const problem &p, int64_t b, int64_t first, int64_t column,
                                  const float (&sum)[tile<W>::M][tile<W>::C], const float (&factor)[tile<W>::M],
                                  bool accumulate)
{
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
#pragma unroll
    for (int i = 0; i < tile<W>::M; i++) {
        const int64_t row = first + ty + SIDE * i;
        if (row >= p.length)
            continue;
        T *out = to.at(b * p.length + row, column);
#pragma unroll
        for (int c = 0; c < tile<W>::C; c++) {
            const int at = tx + SIDE * c;
            if (at < p.width)
                out[at] = from_float<T>((accumulate ? to_float(out[at]) : 0.0f) + factor[i] * sum[i][c]);
        }
    }
}

/* Over the 16 threads of a row. */
__device__ __forceinline__ float row_max(float x)
{
#pragma unroll
    for (int lanes = SIDE / 2; lanes > 0; lanes /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    return x;
}
__device__ __forceinline__ float row_sum(float x)
{
#pragma unroll
    for (int lanes = SIDE / 2; lanes > 0; lanes /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}

/* ---- forward ------------------------------------------------------------------------------------------------------- */

template <typename T> struct forward_arguments {
    problem p;
    rows_of<const T> q, k, v;
    rows_of<T> y;
    float *lse;
};

/* Scores of keys key .. to probabilities relative to the rows' largest so far; sums and outputs follow it. A row that has
 * seen nothing yet has largest = -inf; a NaN is no maximum, but makes its row's sum NaN. */
template <int W>
static __device__ __forceinline__ void online_softmax(const problem &p, int64_t query, int64_t key,
                                                      float (&s)[tile<W>::M][tile<W>::M], float (&largest)[tile<W>::M],
                                                      float (&sum)[tile<W>::M], float (&y)[tile<W>::M][tile<W>::C])
{
    constexpr int M = tile<W>::M;
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
#pragma unroll
    for (int i = 0; i < M; i++) {
        float most = largest[i], part = 0.0f;
        bool seen[M];
#pragma unroll
        for (int j = 0; j < M; j++) {
            seen[j] = p.seen(query + ty + SIDE * i, key + tx + SIDE * j);
            s[i][j] = p.score(s[i][j]);
            most = seen[j] ? fmaxf(most, s[i][j]) : most;
        }
        most = row_max(most);
        const float base = most == -INFINITY ? 0.0f : most, shrink = expf(largest[i] - base);
#pragma unroll
        for (int j = 0; j < M; j++) {
            s[i][j] = seen[j] ? expf(s[i][j] - base) : 0.0f;
            part += s[i][j];
        }
        sum[i] = sum[i] * shrink + row_sum(part);
        largest[i] = most;
#pragma unroll
        for (int c = 0; c < tile<W>::C; c++)
            y[i][c] *= shrink;
    }
}

template <typename T, int W>
static __global__ void __launch_bounds__(THREADS) attention_forward(const forward_arguments<T> a)
{
    constexpr int M = tile<W>::M, ROWS = tile<W>::ROWS;
    extern __shared__ float4 dynamic[];
    float *q = (float *)dynamic, *k = q + tile<W>::SIZE, *v = k + tile<W>::SIZE, *shared = v + tile<W>::SIZE;
    problem p = a.p;
    const place at = place_of(p, ROWS, p.n_head);
    p.starts = p.starts ? p.starts + at.b * p.length : NULL;
    const int64_t column = at.head * p.width, from = at.head / p.group * p.width;
    float largest[M], sum[M], y[M][tile<W>::C] = {};
    int64_t begin, end;
#pragma unroll
    for (int i = 0; i < M; i++) {
        largest[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    load_tile<T, W>(q, a.q, p, at.b, at.first, column);
    p.keys_of(at.first, ROWS, &begin, &end);
    for (int64_t key = begin; key < end; key += ROWS) {
        float s[M][M];
        load_tile<T, W>(k, a.k, p, at.b, key, from);
        load_tile<T, W>(v, a.v, p, at.b, key, from);
        __syncthreads();
        dot_rows<W>(s, q, k);
        online_softmax<W>(p, at.first, key, s, largest, sum, y);
        put_scores<W>(shared, s);
        add_product<W>(y, shared, v);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < M; i++) {
        const int64_t row = at.first + threadIdx.x / SIDE + SIDE * i;
        if (threadIdx.x % SIDE == 0 && row < p.length)
            a.lse[(at.b * p.n_head + at.head) * p.length + row] = largest[i] + logf(sum[i]);
        sum[i] = 1.0f / sum[i];
    }
    store_rows<T, W>(a.y, p, at.b, at.first, column, y, sum, false);
}

/* ---- backward ------------------------------------------------------------------------------------------------------ */

template <typename T> struct backward_arguments {
    problem p;
    rows_of<const T> q, k, v, y, dy;
    rows_of<T> dq, dk, dv;
    const float *lse;
    float *mean; /* (B, H, L): sum_j p dp = <dy, y> */
    bool add_q, add_k, add_v;
};

/* A warp per row and head. */
template <typename T>
static __global__ void __launch_bounds__(THREADS) row_means(const backward_arguments<T> a, int64_t n)
{
    const problem p = a.p;
    const int64_t i = blockIdx.x * (int64_t)(THREADS / 32) + threadIdx.x / 32;
    if (i >= n)
        return;
    const int64_t head = i / p.length % p.n_head, row = i / p.length / p.n_head * p.length + i % p.length;
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < p.width; c += 32)
        sum += to_float(*a.dy.at(row, head * p.width + c)) * to_float(*a.y.at(row, head * p.width + c));
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        a.mean[i] = sum;
}

template <typename T, int W>
static __global__ void __launch_bounds__(THREADS) attention_dq(const backward_arguments<T> a)
{
    constexpr int M = tile<W>::M, ROWS = tile<W>::ROWS;
    extern __shared__ float4 dynamic[];
    float *q = (float *)dynamic, *dy = q + tile<W>::SIZE, *k = dy + tile<W>::SIZE, *v = k + tile<W>::SIZE;
    float *shared = v + tile<W>::SIZE, sum[M][tile<W>::C] = {}, lse[M], mean[M], factor[M];
    problem p = a.p;
    const place at = place_of(p, ROWS, p.n_head);
    p.starts = p.starts ? p.starts + at.b * p.length : NULL;
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    const int64_t column = at.head * p.width, from = at.head / p.group * p.width;
    int64_t begin, end;
#pragma unroll
    for (int i = 0; i < M; i++) {
        const int64_t row = at.first + ty + SIDE * i, index = (at.b * p.n_head + at.head) * p.length + row;
        lse[i] = row < p.length ? a.lse[index] : 0.0f;
        mean[i] = row < p.length ? a.mean[index] : 0.0f;
        factor[i] = p.scale;
    }
    load_tile<T, W>(q, a.q, p, at.b, at.first, column);
    load_tile<T, W>(dy, a.dy, p, at.b, at.first, column);
    p.keys_of(at.first, ROWS, &begin, &end);
    for (int64_t key = begin; key < end; key += ROWS) {
        float s[M][M], dp[M][M];
        load_tile<T, W>(k, a.k, p, at.b, key, from);
        load_tile<T, W>(v, a.v, p, at.b, key, from);
        __syncthreads();
        dot_rows<W>(s, q, k);
        dot_rows<W>(dp, dy, v);
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < M; j++)
            {
                const float x = p.score(s[i][j]);
                s[i][j] = p.seen(at.first + ty + SIDE * i, key + tx + SIDE * j)
                              ? expf(x - lse[i]) * (dp[i][j] - mean[i]) * p.slope(x)
                              : 0.0f;
            }
        put_scores<W>(shared, s);
        add_product<W>(sum, shared, k);
        __syncthreads();
    }
    store_rows<T, W>(a.dq, p, at.b, at.first, column, sum, factor, a.add_q);
}

/* p and ds of queries query .. against the block's keys, key by row: p^T in s, ds^T (less the scale) in dp. */
template <int W>
static __device__ __forceinline__ void
transposed_gradients(const problem &p, const float *lse, const float *mean, int64_t key, int64_t query,
                     float (&s)[tile<W>::M][tile<W>::M], float (&dp)[tile<W>::M][tile<W>::M])
{
    constexpr int M = tile<W>::M;
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
#pragma unroll
    for (int j = 0; j < M; j++) {
        const int64_t row = query + tx + SIDE * j;
        const float l = row < p.length ? lse[row] : 0.0f, d = row < p.length ? mean[row] : 0.0f;
#pragma unroll
        for (int i = 0; i < M; i++) {
            const bool seen = p.seen(row, key + ty + SIDE * i);
            const float x = p.score(s[i][j]);
            s[i][j] = seen ? expf(x - l) : 0.0f;
            dp[i][j] = seen ? s[i][j] * (dp[i][j] - d) * p.slope(x) : 0.0f;
        }
    }
}

template <typename T, int W>
static __global__ void __launch_bounds__(THREADS) attention_dk_dv(const backward_arguments<T> a)
{
    constexpr int M = tile<W>::M, ROWS = tile<W>::ROWS;
    extern __shared__ float4 dynamic[];
    float *q = (float *)dynamic, *dy = q + tile<W>::SIZE, *k = dy + tile<W>::SIZE, *v = k + tile<W>::SIZE;
    float *shared = v + tile<W>::SIZE, dk[M][tile<W>::C] = {}, dv[M][tile<W>::C] = {}, scale[M], one[M];
    problem p = a.p;
    const place at = place_of(p, ROWS, p.n_head / p.group);
    p.starts = p.starts ? p.starts + at.b * p.length : NULL;
    const int64_t column = at.head * p.width;
    int64_t begin, end;
#pragma unroll
    for (int i = 0; i < M; i++) {
        scale[i] = p.scale;
        one[i] = 1.0f;
    }
    load_tile<T, W>(k, a.k, p, at.b, at.first, column);
    load_tile<T, W>(v, a.v, p, at.b, at.first, column);
    p.queries_of(at.first, ROWS, &begin, &end);
    for (int64_t head = at.head * p.group; head < (at.head + 1) * p.group; head++) {
        const int64_t rows = (at.b * p.n_head + head) * p.length;
        for (int64_t query = begin; query < end; query += ROWS) {
            float s[M][M], dp[M][M];
            load_tile<T, W>(q, a.q, p, at.b, query, head * p.width);
            load_tile<T, W>(dy, a.dy, p, at.b, query, head * p.width);
            __syncthreads();
            dot_rows<W>(s, k, q);
            dot_rows<W>(dp, v, dy);
            transposed_gradients<W>(p, a.lse + rows, a.mean + rows, at.first, query, s, dp);
            put_scores<W>(shared, s);
            add_product<W>(dv, shared, dy);
            put_scores<W>(shared, dp);
            add_product<W>(dk, shared, q);
            __syncthreads();
        }
    }
    if (a.dk.data)
        store_rows<T, W>(a.dk, p, at.b, at.first, column, dk, scale, a.add_k);
    if (a.dv.data)
        store_rows<T, W>(a.dv, p, at.b, at.first, column, dv, one, a.add_v);
}

/* ---- launches ------------------------------------------------------------------------------------------------------ */

/* Runs `call` with W the tile width of heads of `width_`. */
#define BY_WIDTH(width_, call)                                                                                         \
    do {                                                                                                               \
        if ((width_) <= 32) {                                                                                          \
            constexpr int W = 32;                                                                                      \
            call;                                                                                                      \
        } else if ((width_) <= 64) {                                                                                   \
            constexpr int W = 64;                                                                                      \
            call;                                                                                                      \
        } else if ((width_) <= 128) {                                                                                  \
            constexpr int W = 128;                                                                                     \
            call;                                                                                                      \
        } else {                                                                                                       \
            constexpr int W = 256;                                                                                     \
            call;                                                                                                      \
        }                                                                                                              \
    } while (0)

static problem problem_of(const cab_node *node, int rows)
{
    const cab_attention_shape *s = (const cab_attention_shape *)node->attributes;
    problem p;
    p.length = node->in[0]->shape[1];
    p.tiles = ceil_div(p.length, rows);
    p.window = s->window;
    p.n_head = s->n_head;
    p.group = s->n_head / s->n_kv_head;
    p.width = s->head_dim;
    p.scale = s->scale;
    p.cap = s->cap;
    p.causal = s->causal;
    p.starts = node->in[CAB_ATTENTION_STARTS] ? (const int32_t *)node->in[CAB_ATTENTION_STARTS]->data : NULL;
    const int packet = 16 / (int)cab_dtype_size(node->in[0]->dtype);
    p.wide = s->head_dim % packet == 0 && fits_packets(node->gout[0], packet);
    for (int i = 0; i < 3; i++)
        p.wide = p.wide && fits_packets(node->in[i], packet);
    return p;
}

static cab_status check_width(const cab_node *node)
{
    const int width = ((const cab_attention_shape *)node->attributes)->head_dim;
    return width <= HEAD_MAX ? CAB_OK
                             : cab_fail(CAB_EUNSUPPORTED, "attention: heads of %d on a GPU, at most %d are supported",
                                        width, (int)HEAD_MAX);
}

template <typename T, int W> static cab_status run_forward(const cab_node *node, cab_backend *backend)
{
    const size_t bytes = (size_t)(3 * tile<W>::SIZE + tile<W>::ROWS * tile<W>::S) * sizeof(float);
    forward_arguments<T> a;
    a.p = problem_of(node, tile<W>::ROWS);
    a.q = rows<const T>(node->in[0]);
    a.k = rows<const T>(node->in[1]);
    a.v = rows<const T>(node->in[2]);
    a.y = rows<T>(node->out[0]);
    a.lse = (float *)node->out[1]->data;
    const unsigned blocks = (unsigned)(a.p.tiles * node->in[0]->shape[0] * a.p.n_head);
    CAB_TRY(cab_cuda_shared((const void *)attention_forward<T, W>, bytes, "attention"));
    attention_forward<T, W><<<blocks, THREADS, bytes, stream_of(backend)>>>(a);
    return cab_cuda_launched("attention");
}

template <typename T> static backward_arguments<T> backward_arguments_of(const cab_node *node, int tile_rows)
{
    backward_arguments<T> a;
    a.p = problem_of(node, tile_rows);
    a.q = rows<const T>(node->in[0]);
    a.k = rows<const T>(node->in[1]);
    a.v = rows<const T>(node->in[2]);
    a.y = rows<const T>(node->out[0]);
    a.dy = rows<const T>(node->gout[0]);
    a.dq = rows<T>(node->gin[0]);
    a.dk = rows<T>(node->gin[1]);
    a.dv = rows<T>(node->gin[2]);
    a.lse = (const float *)node->out[1]->data;
    a.mean = (float *)node->scratch;
    a.add_q = node->accumulate & 1u;
    a.add_k = node->accumulate >> 1 & 1u;
    a.add_v = node->accumulate >> 2 & 1u;
    return a;
}

template <typename T>
static cab_status launch_means(const cab_node *node, const backward_arguments<T> &a, cab_backend *backend)
{
    const int64_t n = node->in[0]->shape[0] * node->in[0]->shape[1] * a.p.n_head;
    row_means<T><<<(unsigned)ceil_div(n, THREADS / 32), THREADS, 0, stream_of(backend)>>>(a, n);
    return cab_cuda_launched("attention: <dy, y>");
}

template <typename T, int W> static cab_status run_backward(const cab_node *node, cab_backend *backend)
{
    const size_t bytes = (size_t)(4 * tile<W>::SIZE + tile<W>::ROWS * tile<W>::S) * sizeof(float);
    const backward_arguments<T> a = backward_arguments_of<T>(node, tile<W>::ROWS);
    const int64_t sequences = a.p.tiles * node->in[0]->shape[0];
    CAB_TRY(launch_means(node, a, backend));
    if (a.dq.data) {
        CAB_TRY(cab_cuda_shared((const void *)attention_dq<T, W>, bytes, "attention: dq"));
        attention_dq<T, W><<<(unsigned)(sequences * a.p.n_head), THREADS, bytes, stream_of(backend)>>>(a);
        CAB_TRY(cab_cuda_launched("attention: dq"));
    }
    if (!a.dk.data && !a.dv.data)
        return CAB_OK;
    CAB_TRY(cab_cuda_shared((const void *)attention_dk_dv<T, W>, bytes, "attention: dk, dv"));
    attention_dk_dv<T, W><<<(unsigned)(sequences * (a.p.n_head / a.p.group)), THREADS, bytes, stream_of(backend)>>>(a);
    return cab_cuda_launched("attention: dk, dv");
}

/* <dy, y> of every query and head. */
extern "C" size_t cab_attention_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return node->backward ? (size_t)cab_elements(node->out[1]) * sizeof(float) : 0;
}

extern "C" cab_status cab_attention_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const int width = ((const cab_attention_shape *)node->attributes)->head_dim;
    cab_status status = CAB_OK;
    CAB_TRY(check_width(node));
    BY_DTYPE(node->in[0]->dtype, BY_WIDTH(width, status = (run_forward<T, W>(node, backend))));
    return status;
}

extern "C" cab_status cab_attention_backward_cuda(const cab_node *node, cab_backend *backend)
{
    const int width = ((const cab_attention_shape *)node->attributes)->head_dim;
    cab_status status = CAB_OK;
    CAB_TRY(check_width(node));
    BY_DTYPE(node->in[0]->dtype, BY_WIDTH(width, status = (run_backward<T, W>(node, backend))));
    return status;
}

extern "C" cab_status cab_flash_attention_backward(const cab_node *node, cab_backend *backend)
{
    const backward_arguments<bf16> a = backward_arguments_of<bf16>(node, 1);
    CAB_TRY(launch_means(node, a, backend));
    return cab_flash_backward(node, backend, a.mean);
}
