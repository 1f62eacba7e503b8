/* norm.c - the norms on the CPU, a row at a time and a group of its columns at a time (layer norm has one group); `centred` tells layer norm from RMS norm at compile time. */
#include "ops/norm.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

#include <omp.h>

typedef struct statistics {
    float mean, r;
} statistics;

static inline statistics measure(const float *x, int64_t n, float eps, bool centred)
{
    float mean = centred ? cab_sum(x, n) / (float)n : 0.0f;
    float square = 0.0f;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < n; i++)
        square += (x[i] - mean) * (x[i] - mean);
    return (statistics){mean, 1.0f / sqrtf(square / (float)n + eps)};
}

static inline int groups_of(const cab_node *node)
{
    return ((const cab_norm_attributes *)node->attributes)->n_group;
}

/* This thread's rows of scratch. */
static inline float *thread_rows(const cab_node *node, int64_t columns)
{
    return (float *)node->scratch + (int64_t)omp_get_thread_num() * CAB_NORM_ROWS * columns;
}

static inline void forward_row(float *restrict y, const float *restrict x, const float *restrict w,
                               const float *restrict b, int64_t n, statistics s)
{
    if (b) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - s.mean) * s.r * w[i] + b[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - s.mean) * s.r * w[i];
    }
}

static inline cab_status forward(const cab_node *node, cab_backend *backend, bool centred)
{
    const cab_tensor *x = node->in[0], *y = node->out[0];
    float eps = ((const cab_norm_attributes *)node->attributes)->eps;
    int64_t rows = cab_rows(x), n = cab_columns(x), group = n / groups_of(node);
#pragma omp parallel num_threads(cab_threads_for(backend, rows *n))
    {
        float *scratch = thread_rows(node, n);
        const float *w = cab_row_in(node->in[1], 0, 0, n, scratch);
        const float *b = centred ? cab_row_in(node->in[2], 0, 0, n, scratch + n) : NULL;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const float *in = cab_row_in(x, row, 0, n, scratch + 2 * n);
            float *out = cab_row_out(y, row, 0, scratch + 3 * n);
            for (int64_t g = 0; g < n; g += group)
                forward_row(out + g, in + g, w + g, b, group, measure(in + g, group, eps, centred));
            cab_row_done(y, row, 0, n, out);
        }
    }
    return CAB_OK;
}

/* dx += r (g - mean(g) - x^ mean(g x^)), g = dy w */
static inline void backward_row(float *restrict dx, const float *restrict x, const float *restrict dy,
                                const float *restrict w, int64_t n, statistics s, bool centred)
{
    float sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
    for (int64_t i = 0; i < n; i++) {
        float g = dy[i] * w[i];
        sum += g;
        product += g * (x[i] - s.mean) * s.r;
    }
    sum = centred ? sum / (float)n : 0.0f;
    product /= (float)n;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        dx[i] += s.r * (dy[i] * w[i] - sum - (x[i] - s.mean) * s.r * product);
}

static inline void add_parameter_gradients(float *restrict dw, float *restrict db, const float *restrict x,
                                           const float *restrict dy, int64_t n, statistics s)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        dw[i] += dy[i] * (x[i] - s.mean) * s.r;
        db[i] += dy[i];
    }
}

static inline cab_status backward(const cab_node *node, cab_backend *backend, bool centred)
{
    const cab_tensor *x = node->in[0], *dy = node->gout[0], *dx = node->gin[0], *dw = node->gin[1];
    const cab_tensor *db = centred ? node->gin[2] : NULL;
    float eps = ((const cab_norm_attributes *)node->attributes)->eps;
    int64_t rows = cab_rows(x), n = cab_columns(x), group = n / groups_of(node);
    float *partials = (float *)node->scratch + (int64_t)backend->threads * CAB_NORM_ROWS * n;
#pragma omp parallel num_threads(cab_threads_for(backend, rows *n))
    {
        float *scratch = thread_rows(node, n);
        const float *w = cab_row_in(node->in[1], 0, 0, n, scratch);
#pragma omp for schedule(static)
        for (int block = 0; block < CAB_BLOCKS; block++) {
            float *sums = partials + block * 2 * n;
            memset(sums, 0, 2 * (size_t)n * sizeof *sums);
            for (int64_t row = cab_block_first(rows, block); row < cab_block_first(rows, block + 1); row++) {
                const float *in = cab_row_in(x, row, 0, n, scratch + n);
                const float *gradient = cab_row_in(dy, row, 0, n, scratch + 2 * n);
                float *out = dx ? cab_row_sum(dx, row, 0, n, node->accumulate & 1u, scratch + 3 * n) : NULL;
                for (int64_t g = 0; g < n; g += group) {
                    statistics s = measure(in + g, group, eps, centred);
                    if (dw || db)
                        add_parameter_gradients(sums + g, sums + n + g, in + g, gradient + g, group, s);
                    if (dx)
                        backward_row(out + g, in + g, gradient + g, w + g, group, s, centred);
                }
                if (dx)
                    cab_row_done(dx, row, 0, n, out);
            }
        }
    }
    if (dw)
        cab_block_sums(dw->data, partials, 2 * n, n);
    if (db)
        cab_block_sums(db->data, partials + n, 2 * n, n);
    return CAB_OK;
}

cab_status CAB_ISA(cab_layer_norm_forward)(const cab_node *node, cab_backend *backend)
{
    return forward(node, backend, true);
}

cab_status CAB_ISA(cab_layer_norm_backward)(const cab_node *node, cab_backend *backend)
{
    return backward(node, backend, true);
}

cab_status CAB_ISA(cab_rms_norm_forward)(const cab_node *node, cab_backend *backend)
{
    return forward(node, backend, false);
}

cab_status CAB_ISA(cab_rms_norm_backward)(const cab_node *node, cab_backend *backend)
{
    return backward(node, backend, false);
}

/* ---- sum and RMS norm ---------------------------------------------------------------------------------------------- */

cab_status CAB_ISA(cab_add_rms_norm_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *residual = node->in[1], *y = node->out[0], *total = node->out[1];
    const float eps = ((const cab_norm_attributes *)node->attributes)->eps;
    const int64_t rows = cab_rows(x), n = cab_columns(x);
#pragma omp parallel num_threads(cab_threads_for(backend, rows *n))
    {
        float *scratch = thread_rows(node, n);
        const float *w = cab_row_in(node->in[2], 0, 0, n, scratch);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            float *sum = cab_at(total, row, 0), *out = cab_row_out(y, row, 0, scratch + n);
            memcpy(sum, cab_row_in(x, row, 0, n, scratch + 2 * n), (size_t)n * sizeof *sum);
            if (residual)
                cab_axpy(sum, 1.0f, cab_at(residual, row, 0), n);
            forward_row(out, sum, w, NULL, n, measure(sum, n, eps, false));
            cab_row_done(y, row, 0, n, out);
        }
    }
    return CAB_OK;
}

/* One row; dw receives its part of the weight's gradient. */
static inline void add_backward_row(const cab_node *node, int64_t row, const float *w, float *dw, float *scratch)
{
    const cab_tensor *dy = node->gout[0], *dsum = node->gout[1];
    const int64_t n = cab_columns(node->out[1]);
    const float *sum = cab_at(node->out[1], row, 0);
    float *ds = scratch;
    if (dsum)
        memcpy(ds, cab_at(dsum, row, 0), (size_t)n * sizeof *ds);
    else
        memset(ds, 0, (size_t)n * sizeof *ds);
    if (dy) {
        const float eps = ((const cab_norm_attributes *)node->attributes)->eps;
        const float *g = cab_row_in(dy, row, 0, n, scratch + n);
        const statistics s = measure(sum, n, eps, false);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dw[i] += g[i] * sum[i] * s.r;
        backward_row(ds, sum, g, w, n, s, false);
    }
    for (int i = 0; i < 2; i++) {
        if (!node->gin[i])
            continue;
        float *out = cab_row_sum(node->gin[i], row, 0, n, node->accumulate >> i & 1u, scratch + n);
        cab_axpy(out, 1.0f, ds, n);
        cab_row_done(node->gin[i], row, 0, n, out);
    }
}

cab_status CAB_ISA(cab_add_rms_norm_backward)(const cab_node *node, cab_backend *backend)
{
    const int64_t rows = cab_rows(node->out[1]), n = cab_columns(node->out[1]);
    float *partials = (float *)node->scratch + (int64_t)backend->threads * CAB_NORM_ROWS * n;
#pragma omp parallel num_threads(cab_threads_for(backend, rows *n))
    {
        float *scratch = thread_rows(node, n);
        const float *w = cab_row_in(node->in[2], 0, 0, n, scratch);
#pragma omp for schedule(static)
        for (int block = 0; block < CAB_BLOCKS; block++) {
            float *dw = partials + block * n;
            memset(dw, 0, (size_t)n * sizeof *dw);
            for (int64_t row = cab_block_first(rows, block); row < cab_block_first(rows, block + 1); row++)
                add_backward_row(node, row, w, dw, scratch + n);
        }
    }
    if (node->gin[2])
        cab_block_sums(node->gin[2]->data, partials, n, n);
    return CAB_OK;
}
