/* attention_step.cu - one decoding step of attention on the GPU: one new token per sequence, keys and values in
 * caches.
 *
 * Layout: positions 0 .. position of a sequence are cut into chunks of CHUNK. A block takes one head of one sequence
 * and one chunk, because whole heads are too few to fill a GPU. Eight lanes share a position, each with packets of 8
 * features; the scores of the chunk stand in shared memory. The block of the new token's chunk whose head is the first
 * of its group writes the token's key and value to the caches. A second kernel, one block per head, joins the chunks.
 * Only the GPU knows `position`, so the grid is that of a full cache, and blocks behind `position` return at once.
 *
 * Arithmetic, in fp32, per head; j runs over the positions that the token sees:
 *
 *   chunk      s[j] = scale <q, k[j]>, soft-capped     m = max s     sum = sum_j e^(s[j] - m)     part = sum_j e^(s[j] - m) v[j]
 *   together   M = max over chunks of m     y = sum_chunks e^(m - M) part / sum_chunks e^(m - M) sum
 *
 * A step reads B G (position + 1) P elements of each cache. A group of heads reads them once from memory; its other
 * heads find them in the second-level cache. Memory is the limit. */
#include "ops/cuda/soft_cap.cuh"

extern "C" {
#include "ops/attention.h"
}

/* Positions of a block's chunk; lanes that share one position, each with packets of 8 features. */
enum { CHUNK = 256, THREADS = 128, LANES = 8, PACKET = 8, TEAMS = THREADS / LANES, HEAD_MAX = 256 };

template <typename T, typename C> struct step_arguments {
    rows_of<const T> q, k, v;
    rows_of<T> y;
    C *k_cache, *v_cache; /* (B, capacity, G * P) */
    const int32_t *position;
    float *largest, *sum, *parts; /* (B, H, chunks), the same, (B, H, chunks, P) */
    cab_cuda_fault *fault;
    int64_t capacity, window, chunks, ld; /* ld: of the caches */
    int n_head, group, width;
    float scale, cap; /* cap 0: none */
    bool wide;

    /* Positions first .. end of the cache that the token sees; false when its position is outside. */
    __device__ __forceinline__ bool range(int64_t *first, int64_t *end) const
    {
        const int64_t at = *position;
        *first = window > 0 && at >= window ? at - window + 1 : 0;
        *end = at + 1;
        return at >= 0 && at < capacity;
    }
};

/* Eight features from `c` of a head's row; zero past its width. */
template <typename T>
static __device__ __forceinline__ void load_part(float (&x)[PACKET], const T *row, int c, int width, bool wide)
{
    if (wide && c < width) {
        constexpr int N = WIDE<T>;
#pragma unroll
        for (int k = 0; k < PACKET; k += N) {
            float part[N];
            load_floats<T, N>(row + c + k, part);
#pragma unroll
            for (int i = 0; i < N; i++)
                x[k + i] = part[i];
        }
        return;
    }
#pragma unroll
    for (int k = 0; k < PACKET; k++)
        x[k] = c + k < width ? to_float(row[c + k]) : 0.0f;
}

/* The token's own row goes to the cache, by the first head of the group. */
template <typename T, typename C>
static __device__ void store_token(const step_arguments<T, C> &a, int64_t b, int64_t column, int64_t position)
{
    for (int c = threadIdx.x; c < a.width; c += THREADS) {
        const int64_t to = (b * a.capacity + position) * a.ld + column + c;
        a.k_cache[to] = from_float<C>(to_float(*a.k.at(b, column + c)));
        a.v_cache[to] = from_float<C>(to_float(*a.v.at(b, column + c)));
    }
}

/* Row j of a cache; the token's own row may not have arrived there, and is read from where it came from. */
template <int W, typename T, typename C>
static __device__ __forceinline__ void load_row(float (&x)[W / (LANES * PACKET)][PACKET], const C *cache,
                                                rows_of<const T> token, const step_arguments<T, C> &a, int64_t b,
                                                int64_t j, int64_t column, int64_t position)
{
    const int lane = threadIdx.x % LANES;
#pragma unroll
    for (int i = 0; i < W / (LANES * PACKET); i++) {
        const int c = (i * LANES + lane) * PACKET;
        if (j != position) {
            load_part(x[i], cache + (b * a.capacity + j) * a.ld + column, c, a.width, a.wide);
            continue;
        }
        load_part(x[i], token.at(b, column), c, a.width, a.wide);
#pragma unroll
        for (int k = 0; k < PACKET; k++)
            x[i][k] = to_float(from_float<C>(x[i][k]));
    }
}

/* Scores of positions first .. end into `scores`; returns the largest over the block. */
template <int W, typename T, typename C>
static __device__ float score_chunk(const step_arguments<T, C> &a, int64_t b, int64_t head, int64_t first, int64_t end,
                                    int64_t position, float *scores, float *shared)
{
    constexpr int N = W / (LANES * PACKET);
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int64_t column = head / a.group * a.width;
    float q[N][PACKET], k[N][PACKET], largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < N; i++)
        load_part(q[i], a.q.at(b, head * a.width), (i * LANES + lane) * PACKET, a.width, a.wide);
    for (int64_t base = first; base < end; base += TEAMS) {
        const int64_t j = base + team;
        float s = 0.0f;
        if (j < end) {
            load_row<W>(k, a.k_cache, a.k, a, b, j, column, position);
#pragma unroll
            for (int i = 0; i < N; i++)
#pragma unroll
                for (int c = 0; c < PACKET; c++)
                    s += q[i][c] * k[i][c];
        }
#pragma unroll
        for (int lanes = LANES / 2; lanes > 0; lanes /= 2)
            s += __shfl_xor_sync(0xffffffffu, s, lanes);
        s = a.cap > 0.0f ? soft_cap(s * a.scale, a.cap) : s * a.scale;
        if (j < end) {
            largest = fmaxf(largest, s);
            if (lane == 0)
                scores[j - first] = s;
        }
    }
    largest = warp_max(largest);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = largest;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < THREADS / 32; i++)
        largest = fmaxf(largest, shared[i]);
    return largest;
}

/* One head's part over one chunk of positions: its largest score, sum of exponentials and weighted values. */
template <int W, typename T, typename C>
static __global__ void __launch_bounds__(THREADS) step_chunk(const step_arguments<T, C> a)
{
    constexpr int N = W / (LANES * PACKET);
    __shared__ float scores[CHUNK], shared[THREADS / 32], sums[TEAMS], values[TEAMS][W + 4];
    const int64_t chunk = blockIdx.x % a.chunks, index = blockIdx.x / a.chunks;
    const int64_t head = index % a.n_head, b = index / a.n_head, column = head / a.group * a.width;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    int64_t first, end;
    if (!a.range(&first, &end)) {
        if (threadIdx.x == 0)
            raise_fault(a.fault, CAB_CUDA_FAULT_POSITION, end - 1, a.capacity);
        return;
    }
    const int64_t position = end - 1;
    if (position / CHUNK == chunk && head % a.group == 0)
        store_token(a, b, column, position);
    first = first > chunk * CHUNK ? first : chunk * CHUNK;
    end = end < (chunk + 1) * CHUNK ? end : (chunk + 1) * CHUNK;
    if (first >= end)
        return;
    const float largest = score_chunk<W>(a, b, head, first, end, position, scores, shared);
    const float base = largest == -INFINITY ? 0.0f : largest;
    float sum = 0.0f, y[N][PACKET] = {}, v[N][PACKET];
    for (int64_t j = first + team; j < end; j += TEAMS) {
        const float p = expf(scores[j - first] - base);
        load_row<W>(v, a.v_cache, a.v, a, b, j, column, position);
        sum += p;
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int c = 0; c < PACKET; c++)
                y[i][c] += p * v[i][c];
    }
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int c = 0; c < PACKET; c++)
            values[team][(i * LANES + lane) * PACKET + c] = y[i][c];
    if (lane == 0)
        sums[team] = sum;
    __syncthreads();
    const int64_t to = index * a.chunks + chunk;
    for (int c = threadIdx.x; c < a.width; c += THREADS) {
        float part = 0.0f;
        for (int i = 0; i < TEAMS; i++)
            part += values[i][c];
        a.parts[to * a.width + c] = part;
    }
    if (threadIdx.x == 0) {
        sum = 0.0f;
        for (int i = 0; i < TEAMS; i++)
            sum += sums[i];
        a.sum[to] = sum;
        a.largest[to] = base;
    }
}

/* y = sum over chunks of exp(largest - the largest of all) times parts, over the same of sums. */
template <typename T, typename C>
static __global__ void __launch_bounds__(THREADS) step_combine(const step_arguments<T, C> a)
{
    const int64_t index = blockIdx.x, head = index % a.n_head, b = index / a.n_head;
    int64_t first, end;
    if (!a.range(&first, &end))
        return;
    const int64_t from = index * a.chunks + first / CHUNK, n = (end - 1) / CHUNK - first / CHUNK + 1;
    float largest = -INFINITY, sum = 0.0f;
    for (int64_t i = 0; i < n; i++)
        largest = fmaxf(largest, a.largest[from + i]);
    for (int64_t i = 0; i < n; i++)
        sum += expf(a.largest[from + i] - largest) * a.sum[from + i];
    for (int c = threadIdx.x; c < a.width; c += THREADS) {
        float y = 0.0f;
        for (int64_t i = 0; i < n; i++)
            y += expf(a.largest[from + i] - largest) * a.parts[(from + i) * a.width + c];
        *a.y.at(b, head * a.width + c) = from_float<T>(y / sum);
    }
}

static int64_t step_chunks(const cab_node *node)
{
    return ceil_div(node->in[3]->shape[1], CHUNK);
}

/* Heads of all sequences. */
static int64_t step_heads(const cab_node *node)
{
    return node->in[0]->shape[0] * ((const cab_attention_shape *)node->attributes)->n_head;
}

extern "C" size_t cab_attention_step_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const size_t width = (size_t)((const cab_attention_shape *)node->attributes)->head_dim;
    return (size_t)(step_heads(node) * step_chunks(node)) * (width + 2) * sizeof(float);
}

template <typename T, typename C> static step_arguments<T, C> step_of(const cab_node *node, cab_backend *backend)
{
    const cab_attention_shape *s = (const cab_attention_shape *)node->attributes;
    const int64_t n = step_heads(node) * step_chunks(node);
    step_arguments<T, C> a;
    a.q = rows<const T>(node->in[0]);
    a.k = rows<const T>(node->in[1]);
    a.v = rows<const T>(node->in[2]);
    a.y = rows<T>(node->out[0]);
    a.k_cache = (C *)node->in[3]->data;
    a.v_cache = (C *)node->in[4]->data;
    a.ld = node->in[3]->ld;
    a.position = (const int32_t *)node->in[5]->data;
    a.largest = (float *)node->scratch;
    a.sum = a.largest + n;
    a.parts = a.sum + n;
    a.fault = cab_cuda_of(backend)->fault;
    a.capacity = node->in[3]->shape[1];
    a.window = s->window;
    a.chunks = step_chunks(node);
    a.n_head = s->n_head;
    a.group = s->n_head / s->n_kv_head;
    a.width = s->head_dim;
    a.scale = s->scale;
    a.cap = s->cap;
    a.wide = s->head_dim % PACKET == 0;
    for (int i = 0; i < 5; i++)
        a.wide = a.wide && fits_packets(node->in[i], 16 / (int64_t)cab_dtype_size(node->in[i]->dtype));
    return a;
}

template <int W, typename T, typename C> static cab_status run_step(const cab_node *node, cab_backend *backend)
{
    const step_arguments<T, C> a = step_of<T, C>(node, backend);
    const int64_t heads = step_heads(node);
    step_chunk<W><<<(unsigned)(heads * a.chunks), THREADS, 0, stream_of(backend)>>>(a);
    CAB_TRY(cab_cuda_launched("attention_step"));
    step_combine<<<(unsigned)heads, THREADS, 0, stream_of(backend)>>>(a);
    return cab_cuda_launched("attention_step: chunks");
}

template <typename T, typename C> static cab_status by_width(const cab_node *node, cab_backend *backend)
{
    const int width = ((const cab_attention_shape *)node->attributes)->head_dim;
    if (width > HEAD_MAX)
        return cab_fail(CAB_EUNSUPPORTED, "attention_step: heads of %d on a GPU, at most %d are supported", width,
                        (int)HEAD_MAX);
    if (width <= 64)
        return run_step<64, T, C>(node, backend);
    return width <= 128 ? run_step<128, T, C>(node, backend) : run_step<256, T, C>(node, backend);
}

template <typename T> static cab_status by_cache(const cab_node *node, cab_backend *backend)
{
    return node->in[3]->dtype == CAB_BF16 ? by_width<T, bf16>(node, backend) : by_width<T, float>(node, backend);
}

extern "C" cab_status cab_attention_step_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = by_cache<T>(node, backend));
    return status;
}
