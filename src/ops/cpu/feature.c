/* feature.c - the alignment loss on the CPU, value and gradient in one pass; src/ops/feature.c has the formulas.
 *
 * Squares are summed in fp32 within a piece of a row, then in fp64: rows of a block, blocks, always in order. */
#include "ops/feature.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

typedef struct loss {
    const cab_tensor *pred, *target, *gradient; /* gradient NULL: the value only */
    int64_t B, L, D;                            /* what is compared */
    bool add;
    const cab_align_attributes *attributes;
    cab_feature_map map;
    float factor;             /* of pred - psi(target) in the gradient */
    const float *scale;       /* of every sequence; NULL: 1 */
    double *partial;          /* per block of rows */
    float *maximum, *inverse; /* softmax over tokens: per sequence and column */
} loss;

/* Scratch: `partials` numbers, then what a softmax over tokens needs. */
static loss loss_of_target(const cab_node *node, const cab_tensor *target, int64_t partials)
{
    const cab_align_attributes *attributes = node->attributes;
    loss l = {.target = target,
              .B = target->shape[0],
              .L = cab_align_length(attributes, target),
              .D = cab_columns(target),
              .attributes = attributes,
              .map = attributes->map,
              .partial = node->scratch};
    l.maximum = (float *)(l.partial + partials);
    l.inverse = l.maximum + l.B * l.D;
    return l;
}

static loss loss_of(const cab_node *node)
{
    loss l = loss_of_target(node, node->in[1], cab_align_blocks(cab_rows(node->in[0])));
    l.pred = node->in[0];
    l.scale = node->in[2] != NULL ? node->in[2]->data : NULL;
    return l;
}

/* The target's row for pred's token t of sequence b. */
static int64_t target_row(const loss *l, int64_t b, int64_t t)
{
    return b * l->target->shape[1] + cab_align_token(l->attributes, t);
}

/* Maximum and inverse of the sum of exponentials over the tokens of one sequence, for a piece of the columns. */
static void token_softmax(const loss *l, int64_t b, int64_t column, int64_t n)
{
    const int64_t L = l->L, at = b * l->D + column;
    float *restrict maximum = l->maximum + at, *restrict sum = l->inverse + at, buffer[CAB_PIECE];
    for (int64_t i = 0; i < n; i++) {
        maximum[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    for (int64_t t = 0; t < L; t++) {
        const float *row = cab_row_in(l->target, target_row(l, b, t), column, n, buffer);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            maximum[i] = row[i] > maximum[i] ? row[i] : maximum[i];
    }
    for (int64_t t = 0; t < L; t++) {
        const float *row = cab_row_in(l->target, target_row(l, b, t), column, n, buffer);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            sum[i] += cab_exp(row[i] - maximum[i]);
    }
    for (int64_t i = 0; i < n; i++)
        sum[i] = 1.0f / sum[i];
}

/* The same over the columns of one token. */
static void feature_softmax(const loss *l, int64_t row, float *maximum, float *inverse)
{
    const int64_t D = cab_columns(l->target);
    float buffer[CAB_PIECE], sum = 0.0f;
    *maximum = -INFINITY;
    for (int64_t at = 0; at < D; at += CAB_PIECE) {
        int64_t n = D - at < CAB_PIECE ? D - at : CAB_PIECE;
        float piece = cab_max(cab_row_in(l->target, row, at, n, buffer), n);
        *maximum = piece > *maximum || isnan(piece) ? piece : *maximum;
    }
    for (int64_t at = 0; at < D; at += CAB_PIECE) {
        int64_t n = D - at < CAB_PIECE ? D - at : CAB_PIECE;
        const float *target = cab_row_in(l->target, row, at, n, buffer);
        const float m = *maximum;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += cab_exp(target[i] - m);
    }
    *inverse = 1.0f / sum;
}

/* psi of a piece of a token's columns; `row` counts in the target. */
static void map_piece(const loss *l, int64_t row, int64_t column, int64_t n, float maximum, float inverse,
                      float *restrict psi)
{
    const int64_t at = row / l->target->shape[1] * l->D + column;
    float buffer[CAB_PIECE];
    const float *target = cab_row_in(l->target, row, column, n, buffer);
    switch (l->map) {
    case CAB_MAP_NONE:
        memcpy(psi, target, (size_t)n * sizeof *psi);
        break;
    case CAB_MAP_SOFTMAX_FEATURES:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            psi[i] = cab_exp(target[i] - maximum) * inverse;
        break;
    case CAB_MAP_SOFTMAX_TOKENS:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            psi[i] = cab_exp(target[i] - l->maximum[at + i]) * l->inverse[at + i];
        break;
    case CAB_MAP_RELU:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            psi[i] = target[i] < 0.0f ? 0.0f : target[i];
        break;
    case CAB_MAP_EXP:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            psi[i] = cab_exp(target[i]);
        break;
    }
}

/* Sum of squares of one token; writes its gradient if there is one. */
static double token_loss(const loss *l, int64_t row)
{
    const int64_t D = l->D, target = target_row(l, row / l->L, row % l->L);
    const float scale = l->scale != NULL ? l->scale[row / l->L] : 1.0f;
    float maximum = 0.0f, inverse = 0.0f;
    double sum = 0.0;
    if (l->map == CAB_MAP_SOFTMAX_FEATURES)
        feature_softmax(l, target, &maximum, &inverse);
    for (int64_t at = 0; at < D; at += CAB_PIECE) {
        float pred_buffer[CAB_PIECE], gradient_buffer[CAB_PIECE], psi[CAB_PIECE];
        int64_t n = D - at < CAB_PIECE ? D - at : CAB_PIECE;
        map_piece(l, target, at, n, maximum, inverse, psi);
        const float *pred = cab_row_in(l->pred, row, at, n, pred_buffer);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            psi[i] = pred[i] - psi[i];
        sum += (double)cab_dot(psi, psi, n);
        if (l->gradient == NULL)
            continue;
        float *gradient = cab_row_sum(l->gradient, row, at, n, l->add, gradient_buffer);
        cab_axpy(gradient, l->factor * scale, psi, n);
        cab_row_done(l->gradient, row, at, n, gradient);
    }
    return (double)scale * sum;
}

static void token_softmaxes(const loss *l, int threads)
{
    const int64_t pieces = (l->D + CAB_PIECE - 1) / CAB_PIECE;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t task = 0; task < l->B * pieces; task++) {
        const int64_t column = task % pieces * CAB_PIECE;
        token_softmax(l, task / pieces, column, l->D - column < CAB_PIECE ? l->D - column : CAB_PIECE);
    }
}

static void compute(const loss *l, float *out, int threads)
{
    const int64_t rows = l->B * l->L, blocks = cab_align_blocks(rows);
    if (l->map == CAB_MAP_SOFTMAX_TOKENS)
        token_softmaxes(l, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t end = (block + 1) * CAB_ALIGN_ROWS;
        double sum = 0.0;
        for (int64_t row = block * CAB_ALIGN_ROWS; row < end && row < rows; row++)
            sum += token_loss(l, row);
        l->partial[block] = sum;
    }
    double total = 0.0;
    for (int64_t block = 0; block < blocks; block++)
        total += l->partial[block];
    *out = (float)(total / ((double)rows * (double)l->D));
}

cab_status CAB_ISA(cab_align_loss_forward)(const cab_node *node, cab_backend *backend)
{
    const loss l = loss_of(node);
    compute(&l, node->out[0]->data, backend->threads);
    return CAB_OK;
}

cab_status CAB_ISA(cab_align_loss_backward)(const cab_node *node, cab_backend *backend)
{
    loss l = loss_of(node);
    const float seed = node->gout[0] != NULL ? *(const float *)node->gout[0]->data : 0.0f;
    l.gradient = node->gin[0];
    l.add = node->accumulate & 1;
    l.factor = (float)(2.0 * (double)seed / ((double)(l.B * l.L) * (double)l.D));
    compute(&l, node->out[0]->data, backend->threads);
    return CAB_OK;
}

/* Sum and sum of squares of psi - center over a token. */
static void token_moments(const loss *l, int64_t row, double center, double moments[2])
{
    const int64_t target = target_row(l, row / l->L, row % l->L);
    float maximum = 0.0f, inverse = 0.0f;
    if (l->map == CAB_MAP_SOFTMAX_FEATURES)
        feature_softmax(l, target, &maximum, &inverse);
    for (int64_t at = 0; at < l->D; at += CAB_PIECE) {
        const int64_t n = l->D - at < CAB_PIECE ? l->D - at : CAB_PIECE;
        float psi[CAB_PIECE];
        double sum = 0.0, squares = 0.0;
        map_piece(l, target, at, n, maximum, inverse, psi);
#pragma omp simd reduction(+ : sum, squares)
        for (int64_t i = 0; i < n; i++) {
            const double value = (double)psi[i] - center;
            sum += value;
            squares += value * value;
        }
        moments[0] += sum;
        moments[1] += squares;
    }
}

/* Sums of a block of a sequence's tokens. */
static void block_moments(const loss *l, int64_t b, int64_t block, double center, double moments[2])
{
    const int64_t end = (block + 1) * CAB_ALIGN_ROWS;
    moments[0] = moments[1] = 0.0;
    for (int64_t t = block * CAB_ALIGN_ROWS; t < end && t < l->L; t++)
        token_moments(l, b * l->L + t, center, moments);
}

cab_status CAB_ISA(cab_inverse_variance_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_align_attributes *attributes = node->attributes;
    const int64_t B = node->in[0]->shape[0], blocks = cab_align_blocks(cab_align_length(attributes, node->in[0]));
    const loss l = loss_of_target(node, node->in[0], 2 * B * blocks);
    const double n = (double)l.L * (double)l.D, center = cab_align_center(attributes, l.target);
    double(*moments)[2] = node->scratch;
    float *out = node->out[0]->data;
    if (l.map == CAB_MAP_SOFTMAX_TOKENS)
        token_softmaxes(&l, backend->threads);
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t i = 0; i < B * blocks; i++)
        block_moments(&l, i / blocks, i % blocks, center, moments[i]);
    for (int64_t b = 0; b < B; b++) {
        double sum = 0.0, squares = 0.0;
        for (int64_t i = b * blocks; i < (b + 1) * blocks; i++) {
            sum += moments[i][0];
            squares += moments[i][1];
        }
        const double variance = squares / n - sum / n * (sum / n), least = squares / n + center * center;
        out[b] = variance > CAB_VARIANCE_ROUNDING * least ? (float)(1.0 / variance) : 0.0f;
    }
    return CAB_OK;
}
