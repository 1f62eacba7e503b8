/* bf16_few.c - products of a few rows with a bf16 matrix, as a decoding step has them: B is read once, as it lies, and widened on the way.
 *
 *   B^T stored, (n, k)   row by row of it, each a sum over k
 *   B stored, (k, n)     pieces of its columns, to which the rows of B add up
 *
 * Reading B is what takes the time, and memory is at its fastest when each thread reads on from where it is: four rows of B^T side by side,
 * which would read x once for them, come to 15 GB/s where one row after the other comes to 34 (EPYC, two cores). Sums are fp32, in an order
 * that depends on the instruction set, not on the threads. */
#include "ops/cpu/bf16_few.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

/* Columns of B stored as it is that a thread sums up at a time, at least and at most: lines of memory that follow one another. */
enum { COLUMNS_MIN = 64, COLUMNS_MAX = 512 };

static inline float widened(cab_bf16 x)
{
    return cab_bits_float((uint32_t)x << 16);
}

static void put(const cab_gemm_shape *s, void *c, const void *bias, int64_t row, int64_t column, float sum)
{
    if (bias != NULL)
        sum += s->bias_dtype == CAB_F32 ? ((const float *)bias)[column] : widened(((const cab_bf16 *)bias)[column]);
    if (s->c.dtype == CAB_F32)
        ((float *)c)[row * s->c.row + column] = sum;
    else
        ((cab_bf16 *)c)[row * s->c.row + column] = cab_bf16_from_f32(sum);
}

/* ---- B^T stored ---------------------------------------------------------------------------------------------------- */

static inline float multiply_row(const cab_bf16 *restrict b, const float *restrict x, int64_t k)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < k; i++)
        sum += widened(b[i]) * x[i];
    return sum;
}

static void by_rows(const cab_backend *backend, const cab_gemm_shape *s, const float *x, const cab_bf16 *b, void *c,
                    const void *bias)
{
#pragma omp parallel for num_threads(cab_threads_for(backend, s->n * s->k)) schedule(static)
    for (int64_t column = 0; column < s->n; column++)
        for (int64_t i = 0; i < s->m; i++)
            put(s, c, bias, i, column, multiply_row(b + column * s->b.column, x + i * s->k, s->k));
}

/* ---- B stored ------------------------------------------------------------------------------------------------------ */

static inline void add_row(float *restrict sums, float x, const cab_bf16 *restrict b, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        sums[i] += x * widened(b[i]);
}

/* An equal part for every thread. */
static int64_t piece_of(const cab_backend *backend, int64_t n)
{
    const int64_t part = (n + backend->threads - 1) / backend->threads,
                  width = (part + COLUMNS_MIN - 1) / COLUMNS_MIN * COLUMNS_MIN;
    return width < COLUMNS_MAX ? width : COLUMNS_MAX;
}

static void by_columns(const cab_backend *backend, const cab_gemm_shape *s, const float *x, const cab_bf16 *b, void *c,
                       const void *bias)
{
    const int64_t width = piece_of(backend, s->n), pieces = (s->n + width - 1) / width;
#pragma omp parallel for num_threads(cab_threads_for(backend, s->n * s->k)) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t first = piece * width, n = s->n - first < width ? s->n - first : width;
        float sums[CAB_BF16_FEW][COLUMNS_MAX] = {{0}};
        for (int64_t k = 0; k < s->k; k++)
            for (int64_t i = 0; i < s->m; i++)
                add_row(sums[i], x[i * s->k + k], b + k * s->b.row + first, n);
        for (int64_t i = 0; i < s->m; i++)
            for (int64_t j = 0; j < n; j++)
                put(s, c, bias, i, first + j, sums[i][j]);
    }
}

void CAB_ISA(cab_bf16_few)(const cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                           const void *bias, void *scratch)
{
    float *x = scratch;
    for (int64_t i = 0; i < s->m; i++)
        cab_widen(x + i * s->k, (const cab_bf16 *)a + i * s->a.row, s->k);
    if (s->b.row == 1)
        by_rows(backend, s, x, b, c, bias);
    else
        by_columns(backend, s, x, b, c, bias);
}
