/* tokens.c - patches, inserted and selected tokens on the CPU: rows that move. */
#include "ops/tokens.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

/* A patch's row: `channels` squares of p by p. */
static void gather_patch(const cab_tensor *image, const cab_tensor *y, int64_t b, int64_t token, int p)
{
    const int64_t C = image->shape[1], H = image->shape[2], width = image->shape[3];
    const int64_t i = token / (width / p), j = token % (width / p), row = b * y->shape[1] + token;
    const float *from = (const float *)image->data + (b * C * H + i * p) * width + j * p;
    for (int64_t c = 0; c < C; c++)
        for (int r = 0; r < p; r++) {
            const float *line = from + (c * H + r) * width;
            const int64_t column = (c * p + r) * p;
            if (y->dtype == CAB_F32)
                memcpy(cab_at(y, row, column), line, (size_t)p * sizeof *line);
            else
                cab_narrow(cab_at(y, row, column), line, p);
        }
}

cab_status CAB_ISA(cab_patches_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *y = node->out[0];
    const int patch = ((const cab_patches_attributes *)node->attributes)->patch;
    const int64_t T = y->shape[1], rows = cab_rows(y);
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        gather_patch(node->in[0], y, row / T, row % T, patch);
    return CAB_OK;
}

cab_status CAB_ISA(cab_insert_tokens_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_insert_attributes *a = node->attributes;
    const cab_tensor *x = node->in[CAB_INSERT_X], *positions = node->in[CAB_INSERT_POSITIONS], *y = node->out[0];
    const int64_t L = y->shape[1], D = cab_columns(y), rows = cab_rows(y);
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        int64_t from = 0;
        const int token = cab_insert_source(a, row % L, &from);
        for (int64_t c = 0; c < D; c += CAB_PIECE) {
            const int64_t n = D - c < CAB_PIECE ? D - c : CAB_PIECE;
            float in[CAB_PIECE], sum[CAB_PIECE];
            float *out = cab_row_out(y, row, c, sum);
            const float *value = token >= 0 ? (const float *)node->in[CAB_INSERT_TOKENS + token]->data + c
                                            : cab_row_in(x, row / L * x->shape[1] + from, c, n, in);
            memcpy(out, value, (size_t)n * sizeof *out);
            if (positions)
                cab_axpy(out, 1.0f, (const float *)positions->data + row % L * D + c, n);
            cab_row_done(y, row, c, n, out);
        }
    }
    return CAB_OK;
}

/* gradient (of n floats) += sum over b of dy[b, l], columns from c */
static void add_over_batch(const cab_tensor *dy, int64_t l, int64_t c, int64_t n, float *gradient)
{
    float sum[CAB_PIECE] = {0}, buffer[CAB_PIECE];
    for (int64_t b = 0; b < dy->shape[0]; b++)
        cab_axpy(sum, 1.0f, cab_row_in(dy, b * dy->shape[1] + l, c, n, buffer), n);
    cab_axpy(gradient, 1.0f, sum, n);
}

static void copy_over_batch(const cab_node *node, int64_t l, int64_t from, int64_t c, int64_t n)
{
    const cab_tensor *dy = node->gout[0], *dx = node->gin[CAB_INSERT_X];
    float in[CAB_PIECE], sum[CAB_PIECE];
    for (int64_t b = 0; b < dy->shape[0]; b++) {
        const int64_t row = b * dx->shape[1] + from;
        float *out = cab_row_sum(dx, row, c, n, node->accumulate >> CAB_INSERT_X & 1u, sum);
        cab_axpy(out, 1.0f, cab_row_in(dy, b * dy->shape[1] + l, c, n, in), n);
        cab_row_done(dx, row, c, n, out);
    }
}

/* Each thread has positions of its own, and with them the rows of every sequence. */
cab_status CAB_ISA(cab_insert_tokens_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_insert_attributes *a = node->attributes;
    const cab_tensor *dy = node->gout[0], *dpositions = node->gin[CAB_INSERT_POSITIONS];
    const int64_t L = dy->shape[1], D = cab_columns(dy);
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t l = 0; l < L; l++) {
        int64_t from = 0;
        const int token = cab_insert_source(a, l, &from);
        const cab_tensor *dtoken = token >= 0 ? node->gin[CAB_INSERT_TOKENS + token] : NULL;
        for (int64_t c = 0; c < D; c += CAB_PIECE) {
            const int64_t n = D - c < CAB_PIECE ? D - c : CAB_PIECE;
            if (dpositions)
                add_over_batch(dy, l, c, n, (float *)dpositions->data + l * D + c);
            if (dtoken)
                add_over_batch(dy, l, c, n, (float *)dtoken->data + c);
            if (token < 0 && node->gin[CAB_INSERT_X])
                copy_over_batch(node, l, from, c, n);
        }
    }
    return CAB_OK;
}

/* Bytes of a dense row of columns. */
static size_t row_bytes(const cab_tensor *t)
{
    return (size_t)cab_columns(t) * cab_dtype_size(t->dtype);
}

cab_status CAB_ISA(cab_select_tokens_forward)(const cab_node *node, cab_backend *backend)
{
    (void)backend; /* a few rows */
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const int64_t first = ((const cab_select_attributes *)node->attributes)->first, n = y->shape[1];
    for (int64_t row = 0; row < cab_rows(y); row++)
        memcpy(cab_at(y, row, 0), cab_at(x, row / n * x->shape[1] + first + row % n, 0), row_bytes(y));
    return CAB_OK;
}

cab_status CAB_ISA(cab_order_tokens_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const int64_t L = y->shape[1], rows = cab_rows(y);
#pragma omp parallel for num_threads(cab_threads_for(backend, cab_elements(y))) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        memcpy(cab_at(y, row, 0), cab_at(x, row / L * x->shape[1] + cab_order_source(node->attributes, row % L), 0),
               row_bytes(y));
    return CAB_OK;
}

cab_status CAB_ISA(cab_select_tokens_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *dy = node->gout[0], *dx = node->gin[0];
    const int64_t first = ((const cab_select_attributes *)node->attributes)->first, n = dy->shape[1], L = dx->shape[1];
    const int64_t D = cab_columns(dx), rows = cab_rows(dx);
    const bool add = node->accumulate & 1u;
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t selected = row % L - first;
        if (selected < 0 || selected >= n) {
            if (!add)
                memset(cab_at(dx, row, 0), 0, row_bytes(dx));
            continue;
        }
        for (int64_t c = 0; c < D; c += CAB_PIECE) {
            const int64_t columns = D - c < CAB_PIECE ? D - c : CAB_PIECE;
            float in[CAB_PIECE], sum[CAB_PIECE];
            float *out = cab_row_sum(dx, row, c, columns, add, sum);
            cab_axpy(out, 1.0f, cab_row_in(dy, row / L * n + selected, c, columns, in), columns);
            cab_row_done(dx, row, c, columns, out);
        }
    }
    return CAB_OK;
}

cab_status CAB_ISA(cab_pool_tokens_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const int64_t first = ((const cab_pool_attributes *)node->attributes)->first, L = x->shape[1], D = cab_columns(x);
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t row = 0; row < cab_rows(y); row++) {
        const int64_t from = row % 2 == 0 ? 0 : first, to = row % 2 == 0 ? 1 : L;
        for (int64_t c = 0; c < D; c += CAB_PIECE) {
            const int64_t n = D - c < CAB_PIECE ? D - c : CAB_PIECE;
            float in[CAB_PIECE], sum[CAB_PIECE] = {0}, mean[CAB_PIECE];
            for (int64_t l = from; l < to; l++)
                cab_axpy(sum, 1.0f, cab_row_in(x, row / 2 * L + l, c, n, in), n);
            float *out = cab_row_out(y, row, c, mean);
            for (int64_t i = 0; i < n; i++)
                out[i] = sum[i] / (float)(to - from);
            cab_row_done(y, row, c, n, out);
        }
    }
    return CAB_OK;
}

cab_status CAB_ISA(cab_pool_tokens_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *dy = node->gout[0], *dx = node->gin[0];
    const int64_t first = ((const cab_pool_attributes *)node->attributes)->first, L = dx->shape[1], D = cab_columns(dx);
    const float share = 1.0f / (float)(L - first);
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t row = 0; row < cab_rows(dx); row++) {
        const int64_t l = row % L, pooled = row / L * 2;
        for (int64_t c = 0; c < D; c += CAB_PIECE) {
            const int64_t n = D - c < CAB_PIECE ? D - c : CAB_PIECE;
            float in[CAB_PIECE], sum[CAB_PIECE];
            float *out = cab_row_sum(dx, row, c, n, node->accumulate & 1u, sum);
            if (l == 0)
                cab_axpy(out, 1.0f, cab_row_in(dy, pooled, c, n, in), n);
            else if (l >= first)
                cab_axpy(out, share, cab_row_in(dy, pooled + 1, c, n, in), n);
            cab_row_done(dx, row, c, n, out);
        }
    }
    return CAB_OK;
}
