/* conv1d.c - short causal convolution on the CPU; src/ops/conv1d.c has the formula.
 *
 * Work is cut into (sequence, block of channels). A block walks down its sequence with the last K - 1 inputs in fp32
 * beside it, so that every input is read and converted once. Blocks are computed at full width whatever E is: the columns
 * past its end hold zeros and are not stored.
 *
 * Backward: with p[t] = dL/du[t],
 *   dx[t] = sum_k w[k] p[t + (K - 1) - k]     dw[k] = sum_t p[t] x[t - (K - 1) + k]     dbias = sum_t p[t]
 * dw and dbias are summed over t per sequence and then over sequences, both in order. */
#include "ops/conv1d.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

enum {
    BLOCK = 128, /* channels */
    TILE = 16,   /* tokens between two moves of the history */
    MAX_TAPS = CAB_CONV1D_MAX_WIDTH - 1
};

typedef float row[BLOCK];

/* Filters (K, E), then bias (E), from the scratch of the node. */
typedef struct filter {
    float *w, *bias;
    int64_t E;
    int K;
} filter;

static filter filter_load(const cab_node *node)
{
    const cab_tensor *w = node->in[1], *bias = node->in[2];
    filter f = {.w = node->scratch, .E = w->shape[0], .K = (int)w->shape[2]};
    f.bias = f.w + f.E * f.K;
    const float *from = w->data;
    for (int64_t e = 0; e < f.E; e++)
        for (int k = 0; k < f.K; k++)
            f.w[k * f.E + e] = from[e * f.K + k];
    if (bias != NULL)
        memcpy(f.bias, bias->data, (size_t)f.E * sizeof(float));
    else
        memset(f.bias, 0, (size_t)f.E * sizeof(float));
    return f;
}

/* The block's part of the filter, zero past E. */
static void filter_block(const filter *f, int64_t first, int64_t n, row *w, float *bias)
{
    memset(w, 0, (size_t)f->K * sizeof *w);
    memset(bias, 0, sizeof(row));
    for (int k = 0; k < f->K; k++)
        memcpy(w[k], f->w + k * f->E + first, (size_t)n * sizeof(float));
    memcpy(bias, f->bias + first, (size_t)n * sizeof(float));
}

static inline void load(const cab_tensor *t, int64_t at, int64_t first, int64_t n, float *to)
{
    if (t->dtype != CAB_F32)
        cab_widen(to, cab_at(t, at, first), n);
    else
        memcpy(to, cab_at(t, at, first), (size_t)n * sizeof(float));
}

/* out = bias + sum_k w[k] x[k]; with K a constant the loop over taps disappears. */
static inline __attribute__((always_inline)) void taps(float *restrict out, row *restrict w, const float *restrict bias,
                                                       row *restrict x, int K)
{
#pragma omp simd
    for (int e = 0; e < BLOCK; e++) {
        float sum = bias[e];
        for (int k = 0; k < K; k++)
            sum += w[k][e] * x[k][e];
        out[e] = sum;
    }
}

static void convolve(float *restrict out, row *restrict w, const float *restrict bias, row *restrict x, int K)
{
    if (K == 4)
        taps(out, w, bias, x, 4);
    else
        taps(out, w, bias, x, K);
}

static void forward_block(const cab_node *node, const filter *f, bool silu, int64_t b, int64_t first, int64_t n)
{
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const int64_t L = x->shape[1];
    const int history = f->K - 1;
    row w[CAB_CONV1D_MAX_WIDTH], bias, xs[MAX_TAPS + TILE] = {0}, out;
    filter_block(f, first, n, w, bias);
    for (int64_t t = 0; t < L; t++) {
        int at = history + (int)(t % TILE);
        if (t > 0 && t % TILE == 0)
            memcpy(xs, xs + TILE, (size_t)history * sizeof(row));
        load(x, b * L + t, first, n, xs[at]);
        convolve(out, w, bias, xs + (at - history), f->K);
        if (silu) {
#pragma omp simd
            for (int e = 0; e < BLOCK; e++)
                out[e] = cab_silu(out[e]);
        }
        if (y->dtype == CAB_F32)
            memcpy(cab_at(y, b * L + t, first), out, (size_t)n * sizeof(float));
        else
            cab_row_done(y, b * L + t, first, n, out);
    }
}

cab_status CAB_ISA(cab_conv1d_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_conv1d_attributes *attributes = node->attributes;
    const int64_t E = cab_columns(node->in[0]), B = node->in[0]->shape[0], blocks = (E + BLOCK - 1) / BLOCK;
    const filter f = filter_load(node);
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t task = 0; task < B * blocks; task++) {
        int64_t first = task % blocks * BLOCK;
        forward_block(node, &f, attributes->silu, task / blocks, first, E - first < BLOCK ? E - first : BLOCK);
    }
    return CAB_OK;
}

/* One block of channels of one sequence, walking down: p of a tile is computed from u, then dx of the tokens K - 1
 * earlier, whose every use is known by then. The rows of p past the end are zero. */
typedef struct walk {
    row w[CAB_CONV1D_MAX_WIDTH], reversed[CAB_CONV1D_MAX_WIDTH], bias;
    row xs[MAX_TAPS + TILE], ps[MAX_TAPS + TILE];
    row dw[CAB_CONV1D_MAX_WIDTH], dbias;
} walk;

static void gradient_token(const cab_node *node, walk *s, int K, bool silu, int64_t token, int at, int64_t first,
                           int64_t n)
{
    load(node->in[0], token, first, n, s->xs[at]);
    load(node->gout[0], token, first, n, s->ps[at]);
    row *x = s->xs + (at - (K - 1));
    float *p = s->ps[at];
    if (silu) {
        row u;
        convolve(u, s->w, s->bias, x, K);
#pragma omp simd
        for (int e = 0; e < BLOCK; e++)
            p[e] *= cab_silu_gradient(u[e]);
    }
    for (int k = 0; k < K; k++) {
#pragma omp simd
        for (int e = 0; e < BLOCK; e++)
            s->dw[k][e] += p[e] * x[k][e];
    }
#pragma omp simd
    for (int e = 0; e < BLOCK; e++)
        s->dbias[e] += p[e];
}

static void store_dx(const cab_node *node, walk *s, int K, int64_t token, int at, int64_t first, int64_t n)
{
    const cab_tensor *dx = node->gin[0];
    row out, zero = {0};
    convolve(out, s->reversed, zero, s->ps + (at - (K - 1)), K);
    row buffer;
    float *to = cab_row_sum(dx, token, first, n, node->accumulate & 1, buffer);
    cab_axpy(to, 1.0f, out, n);
    cab_row_done(dx, token, first, n, to);
}

static void backward_block(const cab_node *node, const filter *f, bool silu, int64_t b, int64_t first, int64_t n,
                           float *partial)
{
    const int64_t L = node->in[0]->shape[1];
    const int K = f->K, history = K - 1;
    walk s = {0};
    filter_block(f, first, n, s.w, s.bias);
    for (int k = 0; k < K; k++)
        memcpy(s.reversed[k], s.w[K - 1 - k], sizeof(row));
    for (int64_t t = 0; t < L + history; t++) {
        int at = history + (int)(t % TILE);
        if (t > 0 && t % TILE == 0) {
            memcpy(s.xs, s.xs + TILE, (size_t)history * sizeof(row));
            memcpy(s.ps, s.ps + TILE, (size_t)history * sizeof(row));
        }
        if (t < L)
            gradient_token(node, &s, K, silu, b * L + t, at, first, n);
        else
            memset(s.ps[at], 0, sizeof(row));
        if (t >= history && node->gin[0] != NULL)
            store_dx(node, &s, K, b * L + t - history, at, first, n);
    }
    for (int k = 0; k < K; k++)
        memcpy(partial + k * f->E + first, s.dw[k], (size_t)n * sizeof(float));
    memcpy(partial + K * f->E + first, s.dbias, (size_t)n * sizeof(float));
}

/* Adds the partial gradients of the sequences, in order, to the parameters'. */
static void sum_partials(const cab_node *node, const filter *f, const float *partials, int64_t B, int threads)
{
    float *dw = node->gin[1] != NULL ? node->gin[1]->data : NULL;
    float *dbias = node->gin[2] != NULL ? node->gin[2]->data : NULL;
    const int64_t E = f->E, K = f->K, size = E * (K + 1);
    const bool add_w = node->accumulate & 2, add_bias = node->accumulate & 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t e = 0; e < E; e++) {
        for (int64_t k = 0; k <= K; k++) {
            float sum = 0.0f;
            for (int64_t b = 0; b < B; b++)
                sum += partials[b * size + k * E + e];
            if (k < K && dw != NULL)
                dw[e * K + k] = add_w ? dw[e * K + k] + sum : sum;
            if (k == K && dbias != NULL)
                dbias[e] = add_bias ? dbias[e] + sum : sum;
        }
    }
}

cab_status CAB_ISA(cab_conv1d_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_conv1d_attributes *attributes = node->attributes;
    const int64_t E = cab_columns(node->in[0]), B = node->in[0]->shape[0], blocks = (E + BLOCK - 1) / BLOCK;
    const filter f = filter_load(node);
    float *partials = f.bias + E;
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t task = 0; task < B * blocks; task++) {
        int64_t first = task % blocks * BLOCK, b = task / blocks;
        backward_block(node, &f, attributes->silu, b, first, E - first < BLOCK ? E - first : BLOCK,
                       partials + b * E * (f.K + 1));
    }
    sum_partials(node, &f, partials, B, backend->threads);
    return CAB_OK;
}

/* One token per sequence: a few rows, not worth threads or vectors of its own. */
cab_status CAB_ISA(cab_conv1d_step_forward)(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    const cab_conv1d_attributes *attributes = node->attributes;
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const float *w = node->in[1]->data, *bias = node->in[2] != NULL ? node->in[2]->data : NULL;
    float *state = node->in[3]->data;
    const int64_t E = cab_columns(x), K = cab_columns(node->in[1]);
    for (int64_t b = 0; b < x->shape[0]; b++, state += (K - 1) * E) {
        for (int64_t first = 0; first < E; first += BLOCK) {
            int64_t n = E - first < BLOCK ? E - first : BLOCK;
            row now, out;
            load(x, b, first, n, now);
            for (int64_t e = 0; e < n; e++) {
                float sum = bias != NULL ? bias[first + e] : 0.0f;
                for (int64_t k = 0; k + 1 < K; k++)
                    sum += w[(first + e) * K + k] * state[k * E + first + e];
                sum += w[(first + e) * K + K - 1] * now[e];
                out[e] = attributes->silu ? cab_silu(sum) : sum;
            }
            for (int64_t k = 0; k + 2 < K; k++)
                memcpy(state + k * E + first, state + (k + 1) * E + first, (size_t)n * sizeof(float));
            memcpy(state + (K - 2) * E + first, now, (size_t)n * sizeof(float));
            if (y->dtype == CAB_F32)
                memcpy(cab_at(y, b, first), out, (size_t)n * sizeof(float));
            else
                cab_row_done(y, b, first, n, out);
        }
    }
    return CAB_OK;
}
