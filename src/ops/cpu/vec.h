/* vec.h - functions of one float that the compiler vectorises at every instruction set, and rows in and out of fp32.
 *
 * The functions are branch-free, use no library calls and no table, so that a loop over them becomes vector code
 * whether the vectors hold 4, 8 or 16 floats. NaN goes in, NaN comes out. Errors are in units in the last place (ulp)
 * of the exact result, the worst of all results from 2^-126 up, as tests/ops/test_vec.c finds them:
 *
 *   cab_exp 1.0   cab_sigmoid 2.5   cab_tanh 1.3   cab_erf 5.5   cab_softplus 2.6
 *
 * Rows: kernels compute on fp32. A row (or a piece of at most CAB_PIECE columns) of a tensor is read with cab_row_in(),
 * which returns the tensor's own memory if it is fp32 already and else converts into the caller's buffer; it is written
 * with cab_row_out() / cab_row_done() likewise. */
#ifndef CAB_OPS_CPU_VEC_H
#define CAB_OPS_CPU_VEC_H

#include "tensor/backend.h"
#include "tensor/tensor.h"

#include <math.h>
#include <string.h>

/* Where a compiler sees that a loop is too short for vectors, or at -O1, it says so; that is no fault. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

/* Columns handled at a time by kernels with buffers on the stack. */
enum { CAB_PIECE = 512 };

static inline uint32_t cab_float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float cab_bits_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2. 2^n is applied as two factors, so that results below the
 * smallest normal and the step to infinity come out right. */
static inline float cab_exp(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    x = x < -104.0f ? -104.0f : x;   /* the comparisons are false for NaN, which passes */
    x = x > 89.0f ? 89.0f : x;
    float shifted = x * 1.44269504f + round;
    float n = shifted - round;
    float r = x - n * 0.693145752f; /* ln 2 in two parts: n times the first is exact */
    r = r - n * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    uint32_t e = cab_float_bits(shifted) - cab_float_bits(round) + 512u; /* n + 512 > 0 */
    uint32_t half = e >> 1;                                              /* n / 2 + 256 */
    float low = cab_bits_float((half - 256u + 127u) << 23);
    float high = cab_bits_float((e - half - 256u + 127u) << 23);
    return p * low * high;
}

static inline float cab_sigmoid(float x)
{
    return 1.0f / (1.0f + cab_exp(-x));
}

static inline float cab_silu(float x)
{
    return x * cab_sigmoid(x);
}

/* d silu / dx = s + x s (1 - s), s = sigmoid(x) */
static inline float cab_silu_gradient(float x)
{
    float s = cab_sigmoid(x);
    return s + x * s * (1.0f - s);
}

/* Odd polynomial near 0, where 1 - 2 / (exp(2|x|) + 1) would cancel. */
static inline float cab_tanh(float x)
{
    float a = fabsf(x), q = x * x;
    float large = 1.0f - 2.0f / (cab_exp(2.0f * a) + 1.0f);
    float p = -5.70498872e-3f;
    p = p * q + 2.06390887e-2f;
    p = p * q - 5.37397155e-2f;
    p = p * q + 1.33314422e-1f;
    p = p * q - 3.33332819e-1f;
    float small = x + x * q * p;
    return a < 0.625f ? small : copysignf(large, x);
}

/* Rational, odd over even, on |x| <= 4, beyond which the result is 1 to the last bit. */
static inline float cab_erf(float x)
{
    float c = x < -4.0f ? -4.0f : x;
    c = c > 4.0f ? 4.0f : c;
    float q = c * c;
    float p = -2.72614225801306e-10f;
    p = p * q + 2.77068142495902e-08f;
    p = p * q - 2.10102402082508e-06f;
    p = p * q - 5.69250639462346e-05f;
    p = p * q - 7.34990630326855e-04f;
    p = p * q - 2.95459980854025e-03f;
    p = p * q - 1.60960333262415e-02f;
    float d = -1.45660718464996e-05f;
    d = d * q - 2.13374055278905e-04f;
    d = d * q - 1.68282697438203e-03f;
    d = d * q - 7.37332916720468e-03f;
    d = d * q - 1.42647390514189e-02f;
    return c * (p / d);
}

/* log(1 + u) for 0 <= u <= 1:  2 atanh(u / (2 + u)) */
static inline float cab_log1p_unit(float u)
{
    float s = u / (2.0f + u), q = s * s;
    float p = 1.0f / 15.0f;
    p = p * q + 1.0f / 13.0f;
    p = p * q + 1.0f / 11.0f;
    p = p * q + 1.0f / 9.0f;
    p = p * q + 1.0f / 7.0f;
    p = p * q + 1.0f / 5.0f;
    p = p * q + 1.0f / 3.0f;
    return 2.0f * s + 2.0f * s * q * p;
}

/* log(1 + exp(x)) */
static inline float cab_softplus(float x)
{
    return (x < 0.0f ? 0.0f : x) + cab_log1p_unit(cab_exp(-fabsf(x)));
}

/* Threads worth waking for so many elements: a decoding step has few. */
static inline int cab_threads_for(const cab_backend *backend, int64_t elements)
{
    return elements < 8192 ? 1 : backend->threads;
}

/* ---- reductions: fixed order for a given count, since the compiler's split into lanes is fixed ------------------- */

static inline float cab_dot(const float *a, const float *b, int64_t n)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static inline float cab_sum(const float *a, int64_t n)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += a[i];
    return sum;
}

/* The largest element, -inf for none; NaN if there is one. */
static inline float cab_max(const float *a, int64_t n)
{
    float largest = -INFINITY, nan = 0.0f;
#pragma omp simd reduction(max : largest) reduction(+ : nan)
    for (int64_t i = 0; i < n; i++) {
        largest = a[i] > largest ? a[i] : largest;
        nan += a[i] != a[i] ? 1.0f : 0.0f;
    }
    return nan > 0.0f ? NAN : largest;
}

/* y += scale * x */
static inline void cab_axpy(float *y, float scale, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] += scale * x[i];
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static inline void cab_widen(float *restrict to, const cab_bf16 *restrict from, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        to[i] = cab_bits_float((uint32_t)from[i] << 16);
}

static inline void cab_narrow(cab_bf16 *restrict to, const float *restrict from, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        to[i] = cab_bf16_from_f32(from[i]);
}

/* Where element (row, column) of an F32 or BF16 tensor stands. */
static inline void *cab_at(const cab_tensor *t, int64_t row, int64_t column)
{
    size_t element = (size_t)(row * t->ld + column);
    return (char *)t->data + element * (t->dtype == CAB_F32 ? sizeof(float) : sizeof(cab_bf16));
}

/* n columns of a row from `column`, to be read: the tensor's own memory, or `buffer` filled from it. */
static inline const float *cab_row_in(const cab_tensor *t, int64_t row, int64_t column, int64_t n, float *buffer)
{
    const void *from = cab_at(t, row, column);
    if (t->dtype == CAB_F32)
        return from;
    cab_widen(buffer, from, n);
    return buffer;
}

/* n columns of a row, to be written: the tensor's own memory, or `buffer`. Ends with cab_row_done(). */
static inline float *cab_row_out(const cab_tensor *t, int64_t row, int64_t column, float *buffer)
{
    return t->dtype == CAB_F32 ? cab_at(t, row, column) : buffer;
}

/* As cab_row_out(), but holding what the tensor holds now if `accumulate`, else zeros: for gin[i] += . */
static inline float *cab_row_sum(const cab_tensor *t, int64_t row, int64_t column, int64_t n, bool accumulate,
                                 float *buffer)
{
    float *out = cab_row_out(t, row, column, buffer);
    if (!accumulate)
        memset(out, 0, (size_t)n * sizeof *out);
    else if (out == buffer)
        cab_widen(buffer, cab_at(t, row, column), n);
    return out;
}

static inline void cab_row_done(const cab_tensor *t, int64_t row, int64_t column, int64_t n, const float *out)
{
    if (t->dtype != CAB_F32)
        cab_narrow(cab_at(t, row, column), out, n);
}

/* Adds rows first <= row < last of n columns to out. */
static inline void cab_add_rows(const cab_tensor *t, int64_t first, int64_t last, int64_t column, int64_t n, float *out)
{
    float sum[CAB_PIECE] = {0}, buffer[CAB_PIECE];
    for (int64_t row = first; row < last; row++)
        cab_axpy(sum, 1.0f, cab_row_in(t, row, column, n, buffer), n);
    cab_axpy(out, 1.0f, sum, n);
}

/* out[c] += sum over rows of t(row, c), in an order that does not depend on the number of threads: threads share out the
 * columns, and rows are summed in groups, which keeps the rounding small and the memory pages few. */
static inline void cab_column_sums(const cab_backend *backend, const cab_tensor *t, float *out)
{
    enum { GROUP = 64 };
    int threads = cab_threads_for(backend, cab_elements(t));
    int64_t rows = cab_rows(t), columns = cab_columns(t), width = (columns + threads - 1) / threads;
    width = (width + 15) / 16 * 16;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t begin = 0; begin < columns; begin += width) {
        int64_t end = begin + width < columns ? begin + width : columns;
        for (int64_t row = 0; row < rows; row += GROUP)
            for (int64_t c = begin; c < end; c += CAB_PIECE)
                cab_add_rows(t, row, row + GROUP < rows ? row + GROUP : rows, c,
                             end - c < CAB_PIECE ? end - c : CAB_PIECE, out + c);
    }
}

/* Rows shared out in CAB_BLOCKS blocks whatever the number of threads: a gradient that sums over rows keeps one partial sum
 * per block, and cab_block_sums() adds them up in order, so that the bits do not depend on the threads either. */
enum { CAB_BLOCKS = 32 };

static inline int64_t cab_block_first(int64_t rows, int block)
{
    return rows * block / CAB_BLOCKS;
}

/* out[i] += sum over blocks of partials[block * stride + i] */
static inline void cab_block_sums(float *out, const float *partials, int64_t stride, int64_t n)
{
    for (int64_t c = 0; c < n; c += CAB_PIECE) {
        int64_t width = n - c < CAB_PIECE ? n - c : CAB_PIECE;
        float sum[CAB_PIECE] = {0};
        for (int block = 0; block < CAB_BLOCKS; block++)
            cab_axpy(sum, 1.0f, partials + block * stride + c, width);
        cab_axpy(out + c, 1.0f, sum, width);
    }
}

#endif
