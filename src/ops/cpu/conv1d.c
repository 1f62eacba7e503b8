/* conv1d.c - short causal convolution on the CPU; src/ops/conv1d.c has the formula.
 *
 * A task is a stretch of tokens of one sequence and a block of channels, wide enough that rows are read as streams and
 * narrow enough that filters, their gradients and K rows of p stay in the first cache. With p[t] = dL/du[t],
 *
 *   dx[t] = sum_k w[k] p[t + (K - 1) - k]     dw[k] = sum_t p[t] x[t - (K - 1) + k]     dbias = sum_t p[t]
 *
 * so that a task computes p of K - 1 tokens more than its own. Tokens are counted in the convolution's direction. dw and dbias are summed over the tokens of a task, then
 * over tasks, both in order. */
#include "ops/conv1d.h"

#include "ops/cpu/convolution.h"
#include "ops/cpu/cpu.h"

enum { BLOCK = 512 }; /* channels */

/* Filters (K, E) and bias (E) in the node's scratch. */
typedef struct filter {
    float *w, *bias;
    int64_t E;
    int K;
} filter;

/* What a task works on: tokens begin .. end of sequence b, channels first .. first + n. */
typedef struct task {
    const cab_node *node;
    const filter *f;
    const float *w, *bias; /* of the block; rows of w are E apart */
    bool silu, reverse;
    int64_t b, begin, end, first, n;
} task;

static filter filter_load(const cab_node *node)
{
    const cab_tensor *w = node->in[1], *bias = node->in[2];
    filter f = {.w = node->scratch, .E = w->shape[0], .K = (int)w->shape[2]};
    f.bias = cab_filters_by_taps(w, bias, f.E, f.K, f.w);
    return f;
}

/* What stands before a sequence. */
static const union zero {
    float f32[BLOCK];
    cab_bf16 bf16[BLOCK];
} zero;

/* The row of token t. */
INLINE int64_t row_of(const task *s, int64_t t)
{
    const int64_t L = s->node->in[0]->shape[1];
    return s->b * L + (s->reverse ? L - 1 - t : t);
}

/* The first token that token t sees. */
INLINE int64_t first_of(const task *s, int64_t t)
{
    const cab_tensor *starts = s->node->in[CAB_CONV1D_STARTS];
    return starts != NULL ? ((const int32_t *)starts->data)[row_of(s, t)] : 0;
}

/* The K rows of x that token t sees. */
static void window(const task *s, int64_t t, const void **x)
{
    const int K = s->f->K;
    const int64_t first = first_of(s, t);
    for (int k = 0; k < K; k++) {
        const int64_t from = t - (K - 1) + k;
        x[k] = from < 0 || from < first ? (const void *)&zero : cab_at(s->node->in[0], row_of(s, from), s->first);
    }
}

INLINE void forward_token(const task *s, const void *const *x, void *y, int K, bool silu, bool low)
{
    const float *w = s->w, *bias = s->bias;
    const int64_t E = s->f->E, n = s->n;
#pragma omp simd
    for (int64_t e = 0; e < n; e++) {
        float u = bias[e];
        for (int k = 0; k < K; k++)
            u += w[k * E + e] * get(x[k], e, low);
        put(y, e, silu ? cab_silu(u) : u, low);
    }
}

INLINE void forward_tokens(const task *s, int K, bool silu, bool low)
{
    const void *x[CAB_CONV1D_MAX_WIDTH];
    for (int64_t t = s->begin; t < s->end; t++) {
        window(s, t, x);
        forward_token(s, x, cab_at(s->node->out[0], row_of(s, t), s->first), K, silu, low);
    }
}

static void forward_task(const task *s)
{
    const bool low = s->node->in[0]->dtype != CAB_F32, four = s->f->K == 4;
    if (low && four && s->silu)
        forward_tokens(s, 4, true, true);
    else if (low && four)
        forward_tokens(s, 4, false, true);
    else if (low)
        forward_tokens(s, s->f->K, s->silu, true);
    else if (four && s->silu)
        forward_tokens(s, 4, true, false);
    else if (four)
        forward_tokens(s, 4, false, false);
    else
        forward_tokens(s, s->f->K, s->silu, false);
}

/* p of token t and, unless the token belongs to the next task, what it adds to dw (K, BLOCK) and dbias. */
INLINE void gradient_token(const task *s, const void *const *x, const void *dy, float *restrict p, float *restrict dw,
                           float *restrict dbias, bool sum, int K, bool silu, bool low)
{
    const float *w = s->w, *bias = s->bias;
    const int64_t E = s->f->E, n = s->n;
#pragma omp simd
    for (int64_t e = 0; e < n; e++) {
        float u = bias[e], gradient = get(dy, e, low);
        if (silu) {
            for (int k = 0; k < K; k++)
                u += w[k * E + e] * get(x[k], e, low);
            gradient *= cab_silu_gradient(u);
        }
        p[e] = gradient;
        if (sum) {
            for (int k = 0; k < K; k++)
                dw[k * BLOCK + e] += gradient * get(x[k], e, low);
            dbias[e] += gradient;
        }
    }
}

/* dx of a token from the K rows of p from it on: p[K - 1] is its own. */
INLINE void store_dx(const task *s, const float *const *p, void *dx, bool add, int K, bool low)
{
    const float *w = s->w;
    const int64_t E = s->f->E, n = s->n;
#pragma omp simd
    for (int64_t e = 0; e < n; e++) {
        float sum = add ? get(dx, e, low) : 0.0f;
        for (int k = 0; k < K; k++)
            sum += w[k * E + e] * p[k][e];
        put(dx, e, sum, low);
    }
}

INLINE void backward_tokens(const task *s, float *partial, int K, bool silu, bool low)
{
    const cab_node *node = s->node;
    const int64_t L = node->in[0]->shape[1];
    float ring[CAB_CONV1D_MAX_WIDTH][BLOCK], dw[CAB_CONV1D_MAX_WIDTH * BLOCK], dbias[BLOCK] = {0};
    const void *x[CAB_CONV1D_MAX_WIDTH];
    const float *p[CAB_CONV1D_MAX_WIDTH]; /* p[k] is that of token t - k */
    memset(dw, 0, (size_t)K * BLOCK * sizeof *dw);
    for (int64_t t = s->begin; t < s->end + K - 1; t++) {
        float *now = ring[t % K];
        for (int k = 0; k < K; k++) {
            const bool sees = t - k < s->begin || t - k >= L || first_of(s, t - k) <= t - (K - 1);
            p[k] = sees ? ring[(t - k + K) % K] : zero.f32;
        }
        if (t < L) {
            const void *dy = cab_at(node->gout[0], row_of(s, t), s->first);
            window(s, t, x);
            if (t < s->end)
                gradient_token(s, x, dy, now, dw, dbias, true, K, silu, low);
            else
                gradient_token(s, x, dy, now, dw, dbias, false, K, silu, low);
        } else {
            memset(now, 0, sizeof ring[0]);
        }
        if (t - (K - 1) >= s->begin && node->gin[0] != NULL)
            store_dx(s, p, cab_at(node->gin[0], row_of(s, t - (K - 1)), s->first), node->accumulate & 1, K, low);
    }
    for (int k = 0; k < K; k++)
        memcpy(partial + k * s->f->E + s->first, dw + k * BLOCK, (size_t)s->n * sizeof *dw);
    memcpy(partial + K * s->f->E + s->first, dbias, (size_t)s->n * sizeof *dbias);
}

static void backward_task(const task *s, float *partial)
{
    const bool low = s->node->in[0]->dtype != CAB_F32, four = s->f->K == 4;
    if (low && four && s->silu)
        backward_tokens(s, partial, 4, true, true);
    else if (low && four)
        backward_tokens(s, partial, 4, false, true);
    else if (low)
        backward_tokens(s, partial, s->f->K, s->silu, true);
    else if (four && s->silu)
        backward_tokens(s, partial, 4, true, false);
    else if (four)
        backward_tokens(s, partial, 4, false, false);
    else
        backward_tokens(s, partial, s->f->K, s->silu, false);
}

/* Task `index` of stretches x blocks; *stretch counts over all sequences. */
static task task_at(const cab_node *node, const filter *f, bool reverse, int64_t index, int64_t *stretch)
{
    const int64_t L = node->in[0]->shape[1], blocks = (f->E + BLOCK - 1) / BLOCK;
    const int64_t stretches = (L + CAB_CONV1D_TOKENS - 1) / CAB_CONV1D_TOKENS;
    *stretch = index / blocks;
    task s = {.node = node,
              .f = f,
              .silu = cab_conv1d_attributes_of(node)->silu,
              .reverse = reverse,
              .b = *stretch / stretches};
    s.first = index % blocks * BLOCK;
    s.n = f->E - s.first < BLOCK ? f->E - s.first : BLOCK;
    s.begin = *stretch % stretches * CAB_CONV1D_TOKENS;
    s.end = L - s.begin < CAB_CONV1D_TOKENS ? L : s.begin + CAB_CONV1D_TOKENS;
    s.w = f->w + s.first;
    s.bias = f->bias + s.first;
    return s;
}

static int64_t stretch_count(const cab_node *node)
{
    return node->in[0]->shape[0] * ((node->in[0]->shape[1] + CAB_CONV1D_TOKENS - 1) / CAB_CONV1D_TOKENS);
}

static void forward_direction(const cab_node *node, bool reverse, int threads)
{
    const filter f = filter_load(node);
    const int64_t tasks = stretch_count(node) * ((f.E + BLOCK - 1) / BLOCK);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < tasks; i++) {
        int64_t stretch;
        const task s = task_at(node, &f, reverse, i, &stretch);
        forward_task(&s);
    }
}

cab_status CAB_ISA(cab_conv1d_forward)(const cab_node *node, cab_backend *backend)
{
    for (int d = 0; d < cab_conv1d_attributes_of(node)->directions; d++) {
        const cab_node one = cab_conv1d_direction(node, d);
        forward_direction(&one, d > 0, backend->threads);
    }
    return CAB_OK;
}

/* Adds the partial gradients, in order, to the parameters'. */
static void sum_partials(const cab_node *node, const filter *f, const float *partials, int64_t n, int threads)
{
    float *dw = node->gin[1] != NULL ? node->gin[1]->data : NULL;
    float *dbias = node->gin[2] != NULL ? node->gin[2]->data : NULL;
    const int64_t E = f->E, K = f->K, size = E * (K + 1);
    const bool add_w = node->accumulate & 2, add_bias = node->accumulate & 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t e = 0; e < E; e++) {
        for (int64_t k = 0; k <= K; k++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < n; i++)
                sum += partials[i * size + k * E + e];
            if (k < K && dw != NULL)
                dw[e * K + k] = add_w ? dw[e * K + k] + sum : sum;
            if (k == K && dbias != NULL)
                dbias[e] = add_bias ? dbias[e] + sum : sum;
        }
    }
}

static void backward_direction(const cab_node *node, bool reverse, int threads)
{
    const filter f = filter_load(node);
    const int64_t stretches = stretch_count(node), tasks = stretches * ((f.E + BLOCK - 1) / BLOCK);
    float *partials = f.bias + f.E;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < tasks; i++) {
        int64_t stretch;
        const task s = task_at(node, &f, reverse, i, &stretch);
        backward_task(&s, partials + stretch * f.E * (f.K + 1));
    }
    sum_partials(node, &f, partials, stretches, threads);
}

cab_status CAB_ISA(cab_conv1d_backward)(const cab_node *node, cab_backend *backend)
{
    for (int d = 0; d < cab_conv1d_attributes_of(node)->directions; d++) {
        const cab_node one = cab_conv1d_direction(node, d);
        if (cab_conv1d_flows(node, d))
            backward_direction(&one, d > 0, backend->threads);
    }
    return CAB_OK;
}

/* One token per sequence: a few rows, not worth threads or vectors of its own. */
cab_status CAB_ISA(cab_conv1d_step_forward)(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    const cab_conv1d_attributes *attributes = node->attributes;
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const float *w = node->in[1]->data, *bias = node->in[2] != NULL ? node->in[2]->data : NULL;
    const bool low = x->dtype != CAB_F32;
    const int64_t E = cab_columns(x), K = cab_columns(node->in[1]);
    float *state = node->in[3]->data;
    for (int64_t b = 0; b < x->shape[0]; b++, state += (K - 1) * E) {
        const void *from = cab_at(x, b, 0);
        void *to = cab_at(y, b, 0);
        for (int64_t e = 0; e < E; e++) {
            const float now = get(from, e, low);
            float u = bias != NULL ? bias[e] : 0.0f;
            for (int64_t k = 0; k + 1 < K; k++)
                u += w[e * K + k] * state[k * E + e];
            u += w[e * K + K - 1] * now;
            for (int64_t k = 0; k + 2 < K; k++)
                state[k * E + e] = state[(k + 1) * E + e];
            state[(K - 2) * E + e] = now;
            put(to, e, attributes->silu ? cab_silu(u) : u, low);
        }
    }
    return CAB_OK;
}
