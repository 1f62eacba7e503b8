/* attention.c - attention on the CPU. Each thread takes blocks of queries of one head: a product for the scores, the
 * softmax in place, a product with the values. The products are oneDNN's, run by the thread itself. */
#include "ops/attention.h"

#include "ops/cpu/attention_blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>

/* ---- a worker: what one thread needs ------------------------------------------------------------------------------------ */

typedef struct worker {
    const cab_node *node;
    const cab_attention_shape *shape;
    const cab_attention_block *blocks;
    int64_t length;
    float *scores, *dp, *dk, *dv, *slope;
    void *p, *ds, *gemm;
    bool low; /* p and ds are bf16 copies of scores and dp */
} worker;

/* Fills the block table at the scratch's beginning. */
static cab_status make_table(const cab_node *node, const cab_backend *backend, cab_attention_memory *memory)
{
    cab_attention_block *blocks = node->scratch;
    int64_t count = cab_attention_blocks(node);
    size_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        cab_attention_block block;
        CAB_TRY(cab_attention_block_get(node, backend, i, &block));
        most = block.scratch > most ? block.scratch : most;
        blocks[i] = block;
    }
    *memory = cab_attention_memory_of(node, most);
    return CAB_OK;
}

static worker make_worker(const cab_node *node, const cab_attention_memory *m)
{
    char *own = (char *)node->scratch + m->table + m->size * (size_t)omp_get_thread_num();
    return (worker){.node = node,
                    .shape = node->attributes,
                    .blocks = node->scratch,
                    .length = cab_attention_length(node),
                    .scores = (float *)(void *)(own + m->scores),
                    .dp = (float *)(void *)(own + m->dp),
                    .dk = (float *)(void *)(own + m->dk),
                    .dv = (float *)(void *)(own + m->dv),
                    .slope = (float *)(void *)(own + m->slope),
                    .p = own + m->p,
                    .ds = own + m->ds,
                    .gemm = own + m->gemm,
                    .low = node->in[0]->dtype == CAB_BF16};
}

/* Token `row` of sequence b, from the first feature of a head. */
static void *head_at(const worker *w, const cab_tensor *t, int64_t b, int64_t row, int64_t head)
{
    return cab_at(t, b * w->length + row, head * w->shape->head_dim);
}

/* The rows of p or ds that products read: a bf16 copy of fp32 rows, or those themselves. */
static void lower(const worker *w, void *to, const float *from, int64_t offset, int64_t n)
{
    if (w->low)
        cab_narrow((cab_bf16 *)to + offset, from, n);
}

/* A worker's failure, carried to the thread that called. */
typedef struct worker_failure {
    cab_status status;
    char text[256];
} worker_failure;

static void hand_over(cab_status own, worker_failure *failure)
{
    if (own == CAB_OK)
        return;
#pragma omp critical(cab_attention_failure)
    {
        failure->status = own;
        snprintf(failure->text, sizeof failure->text, "%s", cab_error_text());
    }
}

static cab_status report(const worker_failure *failure)
{
    return failure->status == CAB_OK ? CAB_OK : cab_fail(failure->status, "%s", failure->text);
}

/* ---- forward ------------------------------------------------------------------------------------------------------------ */

/* A row's visible keys first <= j < end, widened to whole vectors: begin <= j < stop <= n. Loops over them have no scalar
 * rest, which would cost more than the vectors of a short row. */
typedef struct span {
    int64_t begin, stop;
} span;

enum { LANES = 16 };

/* Widens the span; what it adds gets `value`. */
static span widen(float *row, int64_t first, int64_t end, int64_t n, float value)
{
    span s = {first / LANES * LANES, (end + LANES - 1) / LANES * LANES};
    s.stop = s.stop < n ? s.stop : n;
    for (int64_t j = s.begin; j < first; j++)
        row[j] = value;
    for (int64_t j = end; j < s.stop; j++)
        row[j] = value;
    return s;
}

static void clear_outside(float *row, span s, int64_t n)
{
    memset(row, 0, (size_t)s.begin * sizeof *row);
    memset(row + s.stop, 0, (size_t)(n - s.stop) * sizeof *row);
}

/* Scores first <= j < end, scaled and capped; their slopes too, if they are wanted. */
static void cap_row(float *restrict s, int64_t first, int64_t end, const cab_attention_shape *shape,
                    float *restrict slope)
{
    const float cap = shape->cap, inner = shape->scale / cap;
    if (slope == NULL) {
#pragma omp simd
        for (int64_t j = first; j < end; j++)
            s[j] = cap * cab_tanh(inner * s[j]);
        return;
    }
#pragma omp simd
    for (int64_t j = first; j < end; j++) {
        const float t = cab_tanh(inner * s[j]);
        s[j] = cap * t;
        slope[j] = 1.0f - t * t;
    }
}

/* Scores to probabilities in place, for keys first <= j < end of n; the rest becomes 0. Returns the log-sum-exp. */
static float softmax_row(float *restrict s, int64_t first, int64_t end, int64_t n, const cab_attention_shape *shape)
{
    const float scale = shape->cap > 0 ? 1.0f : shape->scale;
    if (shape->cap > 0)
        cap_row(s, first, end, shape, NULL);
    span seen = widen(s, first, end, n, -INFINITY);
    float largest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t j = seen.begin; j < seen.stop; j++)
        largest = s[j] > largest ? s[j] : largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = seen.begin; j < seen.stop; j++) {
        s[j] = cab_exp(scale * (s[j] - largest));
        sum += s[j];
    }
    float inverse = 1.0f / sum;
#pragma omp simd
    for (int64_t j = seen.begin; j < seen.stop; j++)
        s[j] *= inverse;
    clear_outside(s, seen, n);
    return scale * largest + logf(sum);
}

static cab_status forward_block(const worker *w, int64_t b, int64_t head, const cab_attention_block *block)
{
    const cab_node *node = w->node;
    int64_t kv = head / (w->shape->n_head / w->shape->n_kv_head);
    float *lse = (float *)node->out[1]->data + (b * w->shape->n_head + head) * w->length;
    CAB_TRY(cab_gemm_run(block->scores, head_at(w, node->in[0], b, block->first, head),
                         head_at(w, node->in[1], b, block->first_key, kv), w->scores, NULL, w->gemm));
    for (int64_t i = 0; i < block->rows; i++) {
        int64_t first, end, row = block->first + i;
        float *s = w->scores + i * block->keys;
        cab_attention_range(w->shape, w->length, row, &first, &end);
        first = cab_attention_first(node, b, row, first);
        lse[row] = softmax_row(s, first - block->first_key, end - block->first_key, block->keys, w->shape);
        lower(w, w->p, s, i * block->keys, block->keys);
    }
    return cab_gemm_run(block->values, w->p, head_at(w, node->in[2], b, block->first_key, kv),
                        head_at(w, node->out[0], b, block->first, head), NULL, w->gemm);
}

cab_status CAB_ISA(cab_attention_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_attention_shape *shape = node->attributes;
    int64_t blocks = cab_attention_blocks(node), count = node->in[0]->shape[0] * shape->n_head * blocks;
    cab_attention_memory memory;
    worker_failure failure = {0};
    CAB_TRY(make_table(node, backend, &memory));
#pragma omp parallel num_threads(cab_threads_for(backend, cab_elements(node->in[0]) * cab_attention_length(node)))
    {
        worker w = make_worker(node, &memory);
        cab_status own = CAB_OK;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < count; i++)
            if (own == CAB_OK)
                own = forward_block(&w, i / blocks / shape->n_head, i / blocks % shape->n_head, &w.blocks[i % blocks]);
        hand_over(own, &failure);
    }
    return report(&failure);
}

/* ---- backward ------------------------------------------------------------------------------------------------------------- */

/* s: scores to probabilities; dp to ds = scale p (dp - <p, dp>), times the slopes of capped scores. */
static void backward_row(const worker *w, float *restrict s, float *restrict dp, float lse, int64_t first, int64_t end,
                         int64_t n)
{
    const bool capped = w->shape->cap > 0;
    const float scale = w->shape->scale, inner = capped ? 1.0f : scale, *restrict slope = w->slope;
    if (capped)
        cap_row(s, first, end, w->shape, w->slope);
    span seen = widen(s, first, end, n, -INFINITY);
    widen(dp, first, end, n, 0.0f);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = seen.begin; j < seen.stop; j++) {
        s[j] = cab_exp(inner * s[j] - lse);
        sum += s[j] * dp[j];
    }
#pragma omp simd
    for (int64_t j = seen.begin; j < seen.stop; j++)
        dp[j] = scale * s[j] * (dp[j] - sum);
    for (int64_t j = first; capped && j < end; j++)
        dp[j] *= slope[j];
    clear_outside(s, seen, n);
    clear_outside(dp, seen, n);
}

static cab_status backward_block(const worker *w, int64_t b, int64_t head, int64_t kv, const cab_attention_block *block)
{
    const cab_node *node = w->node;
    const cab_tensor *q = node->in[0], *k = node->in[1], *v = node->in[2], *dy = node->gout[0];
    const float *lse = (const float *)node->out[1]->data + (b * w->shape->n_head + head) * w->length;
    const void *q_rows = head_at(w, q, b, block->first, head), *dy_rows = head_at(w, dy, b, block->first, head);
    const void *k_rows = head_at(w, k, b, block->first_key, kv), *v_rows = head_at(w, v, b, block->first_key, kv);
    int64_t sums = block->first_key * w->shape->head_dim;
    CAB_TRY(cab_gemm_run(block->scores, q_rows, k_rows, w->scores, NULL, w->gemm));
    CAB_TRY(cab_gemm_run(block->dp, dy_rows, v_rows, w->dp, NULL, w->gemm));
    for (int64_t i = 0; i < block->rows; i++) {
        int64_t first, end, row = block->first + i;
        float *s = w->scores + i * block->keys, *dp = w->dp + i * block->keys;
        cab_attention_range(w->shape, w->length, row, &first, &end);
        first = cab_attention_first(node, b, row, first);
        backward_row(w, s, dp, lse[row], first - block->first_key, end - block->first_key, block->keys);
        lower(w, w->p, s, i * block->keys, block->keys);
        lower(w, w->ds, dp, i * block->keys, block->keys);
    }
    if (node->gin[0])
        CAB_TRY(cab_gemm_run(block->dq, w->ds, k_rows, head_at(w, node->gin[0], b, block->first, head), NULL, w->gemm));
    if (node->gin[1])
        CAB_TRY(cab_gemm_run(block->dk, w->ds, q_rows, w->dk + sums, NULL, w->gemm));
    return node->gin[2] ? cab_gemm_run(block->dv, w->p, dy_rows, w->dv + sums, NULL, w->gemm) : CAB_OK;
}

/* The sums over a group's heads go to gin[i]. */
static void write_sums(const worker *w, int i, int64_t b, int64_t kv, const float *sums)
{
    const cab_tensor *to = w->node->gin[i];
    int64_t width = w->shape->head_dim;
    bool accumulate = w->node->accumulate >> i & 1u;
    for (int64_t row = 0; to && row < w->length; row++)
        for (int64_t c = 0; c < width; c += CAB_PIECE) {
            float buffer[CAB_PIECE];
            int64_t n = width - c < CAB_PIECE ? width - c : CAB_PIECE, column = kv * width + c;
            float *out = cab_row_sum(to, b * w->length + row, column, n, accumulate, buffer);
            cab_axpy(out, 1.0f, sums + row * width + c, n);
            cab_row_done(to, b * w->length + row, column, n, out);
        }
}

static cab_status backward_group(const worker *w, int64_t b, int64_t kv)
{
    int64_t group = w->shape->n_head / w->shape->n_kv_head, blocks = cab_attention_blocks(w->node);
    size_t bytes = (size_t)(w->length * w->shape->head_dim) * sizeof(float);
    memset(w->dk, 0, bytes);
    memset(w->dv, 0, bytes);
    for (int64_t head = kv * group; head < (kv + 1) * group; head++)
        for (int64_t i = 0; i < blocks; i++)
            CAB_TRY(backward_block(w, b, head, kv, &w->blocks[i]));
    write_sums(w, 1, b, kv, w->dk);
    write_sums(w, 2, b, kv, w->dv);
    return CAB_OK;
}

cab_status CAB_ISA(cab_attention_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_attention_shape *shape = node->attributes;
    int64_t count = node->in[0]->shape[0] * shape->n_kv_head;
    cab_attention_memory memory;
    worker_failure failure = {0};
    CAB_TRY(make_table(node, backend, &memory));
#pragma omp parallel num_threads(cab_threads_for(backend, cab_elements(node->in[0]) * cab_attention_length(node)))
    {
        worker w = make_worker(node, &memory);
        cab_status own = CAB_OK;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < count; i++)
            if (own == CAB_OK)
                own = backward_group(&w, i / shape->n_kv_head, i % shape->n_kv_head);
        hand_over(own, &failure);
    }
    return report(&failure);
}

/* ---- one decoding step ---------------------------------------------------------------------------------------------------- */

static void store(const cab_tensor *cache, int64_t position, const cab_tensor *t)
{
    int64_t columns = cab_columns(t), capacity = cache->shape[1];
    for (int64_t b = 0; b < t->shape[0]; b++)
        for (int64_t c = 0; c < columns; c += CAB_PIECE) {
            float in[CAB_PIECE], out[CAB_PIECE];
            int64_t n = columns - c < CAB_PIECE ? columns - c : CAB_PIECE;
            float *to = cab_row_out(cache, b * capacity + position, c, out);
            memcpy(to, cab_row_in(t, b, c, n, in), (size_t)n * sizeof *to);
            cab_row_done(cache, b * capacity + position, c, n, to);
        }
}

/* One head of one sequence; scores holds the cache's length, row and sum one head each. */
static void step_head(const cab_node *node, int64_t b, int64_t head, int64_t position, float *scores, float *row,
                      float *sum)
{
    const cab_attention_shape *shape = node->attributes;
    const cab_tensor *k_cache = node->in[3], *v_cache = node->in[4], *y = node->out[0];
    int64_t width = shape->head_dim, column = head / (shape->n_head / shape->n_kv_head) * width;
    int64_t capacity = k_cache->shape[1], first, end;
    cab_attention_range(shape, capacity, position, &first, &end);
    end = position + 1;
    const float *q = cab_row_in(node->in[0], b, head * width, width, sum);
    for (int64_t j = first; j < end; j++)
        scores[j] = cab_dot(q, cab_row_in(k_cache, b * capacity + j, column, width, row), width);
    softmax_row(scores, first, end, end, shape);
    memset(sum, 0, (size_t)width * sizeof *sum);
    for (int64_t j = first; j < end; j++)
        cab_axpy(sum, scores[j], cab_row_in(v_cache, b * capacity + j, column, width, row), width);
    float *out = cab_row_out(y, b, head * width, sum);
    if (out != sum)
        memcpy(out, sum, (size_t)width * sizeof *out);
    cab_row_done(y, b, head * width, width, out);
}

cab_status CAB_ISA(cab_attention_step_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_attention_shape *shape = node->attributes;
    int64_t position = *(const int32_t *)node->in[5]->data, capacity = node->in[3]->shape[1];
    int64_t count = node->in[0]->shape[0] * shape->n_head, width = shape->head_dim;
    if (position < 0 || position >= capacity)
        return cab_fail(CAB_EARG, "attention: position %" PRId64 ", the cache holds 0 to %" PRId64, position,
                        capacity - 1);
    store(node->in[3], position, node->in[1]);
    store(node->in[4], position, node->in[2]);
#pragma omp parallel for num_threads(cab_threads_for(backend, count *width *position)) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float *scores = (float *)node->scratch + (int64_t)omp_get_thread_num() * (capacity + 2 * width);
        step_head(node, i / shape->n_head, i % shape->n_head, position, scores, scores + capacity,
                  scores + capacity + width);
    }
    return CAB_OK;
}

/* ---- rotary positions ------------------------------------------------------------------------------------------------------- */

/* Into scratch: for each of `length` positions, `half` cosines, then `half` sines (negated: the inverse rotation), all times
 * the scale. */
static const float *angles(const cab_node *node, const cab_backend *backend, int64_t length, bool inverse)
{
    const cab_tensor *inv_freq = node->in[1], *first = node->in[2];
    const float *frequency = inv_freq->data;
    int64_t half = cab_elements(inv_freq), start = first ? *(const int32_t *)first->data : 0;
    const float scale = ((const cab_rotary_attributes *)node->attributes)->scale;
    float *table = node->scratch;
#pragma omp parallel for num_threads(cab_threads_for(backend, length *half)) schedule(static)
    for (int64_t l = 0; l < length; l++)
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)(start + l) * frequency[i];
            table[2 * half * l + i] = scale * cosf(angle);
            table[2 * half * l + half + i] = scale * (inverse ? -sinf(angle) : sinf(angle));
        }
    return table;
}

/* y += x rotated, over one head's first 2 * half features. */
static inline void rotate(float *restrict y, const float *restrict x, const float *restrict cosine, int64_t half)
{
    const float *restrict sine = cosine + half;
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        y[i] += x[i] * cosine[i] - x[half + i] * sine[i];
        y[half + i] += x[half + i] * cosine[i] + x[i] * sine[i];
    }
}

static cab_status rotary(const cab_node *node, const cab_backend *backend, const cab_tensor *x, const cab_tensor *y,
                         bool accumulate, bool inverse)
{
    int64_t n_head = ((const cab_rotary_attributes *)node->attributes)->n_head, width = cab_columns(x) / n_head;
    int64_t length = x->shape[1], half = cab_elements(node->in[1]), count = cab_rows(x) * n_head;
    const float *table = angles(node, backend, length, inverse);
    if (width > CAB_PIECE)
        return cab_fail(CAB_EUNSUPPORTED, "rotary: heads of %" PRId64 ", at most %d are supported", width,
                        (int)CAB_PIECE);
#pragma omp parallel for num_threads(cab_threads_for(backend, count *width)) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float a[CAB_ROTARY_MAX], b[CAB_ROTARY_MAX];
        int64_t row = i / n_head, column = i % n_head * width;
        const float *in = cab_row_in(x, row, column, width, a);
        float *out = cab_row_sum(y, row, column, width, accumulate, b);
        rotate(out, in, table + row % length * 2 * half, half);
        cab_axpy(out + 2 * half, 1.0f, in + 2 * half, width - 2 * half);
        cab_row_done(y, row, column, width, out);
    }
    return CAB_OK;
}

cab_status CAB_ISA(cab_rotary_forward)(const cab_node *node, cab_backend *backend)
{
    return rotary(node, backend, node->in[0], node->out[0], false, false);
}

cab_status CAB_ISA(cab_rotary_backward)(const cab_node *node, cab_backend *backend)
{
    return rotary(node, backend, node->gout[0], node->gin[0], node->accumulate & 1u, true);
}
