/* tile.h - products of small fp32 matrices that lie in the cache: what a recurrence in chunks is made of.
 *
 *   C[i, j] (+)= sum_k A[i, k] B[k, j]        A at any strides (so transposed too), B and C with dense rows
 *
 * A tile of TILE_M rows and two vectors of columns is held in registers; an element of A is spread over a vector, a row of B
 * read as it lies. Columns are computed in whole vectors: n is a multiple of CAB_TILE_LANES, rows of B and C are padded to
 * it (with zeros, for B) and 64-byte aligned. Rows and the inner dimension are free. Triangles save half the work. */
#ifndef CAB_OPS_CPU_TILE_H
#define CAB_OPS_CPU_TILE_H

#include <stddef.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

enum { CAB_TILE_LANES = 16 }; /* floats in the widest vector: padding is the same at every instruction set */

static inline int cab_tile_pad(int n)
{
    return (n + CAB_TILE_LANES - 1) / CAB_TILE_LANES * CAB_TILE_LANES;
}

#if defined(__AVX512F__)
enum { TILE_VECTOR = 16, TILE_M = 8 };
#elif defined(__AVX2__)
enum { TILE_VECTOR = 8, TILE_M = 6 };
#else
enum { TILE_VECTOR = 4, TILE_M = 4 };
#endif
typedef float cab_tile_vector __attribute__((vector_size(TILE_VECTOR * sizeof(float)), may_alias));

typedef enum cab_tile_shape {
    CAB_TILE_FULL,
    CAB_TILE_A_LOWER, /* A[i, k] is zero for k > i */
    CAB_TILE_A_UPPER, /* A[i, k] is zero for k < i */
    CAB_TILE_C_LOWER  /* C[i, j] is not needed for j > i */
} cab_tile_shape;

typedef struct cab_tile_a {
    const float *data;
    ptrdiff_t row, column; /* strides */
} cab_tile_a;

/* `rows` rows of C from row i, columns from j: one or two vectors. Called with constant rows and vectors only. */
static inline __attribute__((always_inline)) void cab_tile_micro(int rows, int vectors, int k, cab_tile_a a,
                                                                 const float *b, int ldb, float *c, int ldc, int add)
{
    cab_tile_vector sum[TILE_M][2];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            sum[i][v] = add ? *(const cab_tile_vector *)(c + i * ldc + v * TILE_VECTOR) : (cab_tile_vector){0};
    for (int l = 0; l < k; l++) {
        cab_tile_vector row[2];
        for (int v = 0; v < vectors; v++)
            row[v] = *(const cab_tile_vector *)(b + (ptrdiff_t)l * ldb + v * TILE_VECTOR);
        for (int i = 0; i < rows; i++) {
            float element = a.data[i * a.row + l * a.column];
            for (int v = 0; v < vectors; v++)
                sum[i][v] += element * row[v];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            *(cab_tile_vector *)(c + i * ldc + v * TILE_VECTOR) = sum[i][v];
}

static inline __attribute__((always_inline)) void cab_tile_strip(int rows, int n, int k, cab_tile_a a, const float *b,
                                                                 int ldb, float *c, int ldc, int add)
{
    int j = 0;
    for (; j + 2 * TILE_VECTOR <= n; j += 2 * TILE_VECTOR)
        cab_tile_micro(rows, 2, k, a, b + j, ldb, c + j, ldc, add);
    for (; j < n; j += TILE_VECTOR)
        cab_tile_micro(rows, 1, k, a, b + j, ldb, c + j, ldc, add);
}

/* C (m, n) = A (m, k) B (k, n), plus C if `add`. */
static inline void cab_tile_multiply(cab_tile_shape shape, int m, int n, int k, cab_tile_a a, const float *b, int ldb,
                                     float *c, int ldc, int add)
{
    for (int i = 0; i < m;) {
        int rows = m - i >= TILE_M ? TILE_M : m - i >= 4 ? 4 : m - i >= 2 ? 2 : 1;
        int first = shape == CAB_TILE_A_UPPER ? i : 0;
        int last = shape == CAB_TILE_A_LOWER && i + rows < k ? i + rows : k;
        int width = shape == CAB_TILE_C_LOWER && cab_tile_pad(i + rows) < n ? cab_tile_pad(i + rows) : n;
        cab_tile_a strip = {a.data + i * a.row + first * a.column, a.row, a.column};
        const float *from = b + (ptrdiff_t)first * ldb;
        float *to = c + (ptrdiff_t)i * ldc;
        switch (rows) {
        case TILE_M:
            cab_tile_strip(TILE_M, width, last - first, strip, from, ldb, to, ldc, add);
            break;
#if defined(__AVX2__)
        case 4:
            cab_tile_strip(4, width, last - first, strip, from, ldb, to, ldc, add);
            break;
#endif
        case 2:
            cab_tile_strip(2, width, last - first, strip, from, ldb, to, ldc, add);
            break;
        default:
            cab_tile_strip(1, width, last - first, strip, from, ldb, to, ldc, add);
        }
        i += rows;
    }
}

/* Asks for a cache line ahead of its use. */
static inline void cab_tile_prefetch(const void *at)
{
#if defined(__SSE__)
    _mm_prefetch(at, _MM_HINT_T0);
#else
    (void)at;
#endif
}

/* to (n, m) = from (m, n), transposed, in squares of four: m and n are rounded up to multiples of 4, for which both
 * matrices must have room. */
static inline void cab_tile_transpose(int m, int n, const float *restrict from, int ldf, float *restrict to, int ldt)
{
    for (int i = 0; i < m; i += 4)
        for (int j = 0; j < n; j += 4) {
            const float *in = from + i * ldf + j;
            float *out = to + j * ldt + i;
#if defined(__SSE__)
            __m128 a = _mm_loadu_ps(in), b = _mm_loadu_ps(in + ldf);
            __m128 c = _mm_loadu_ps(in + 2 * ldf), d = _mm_loadu_ps(in + 3 * ldf);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            _mm_storeu_ps(out, a);
            _mm_storeu_ps(out + ldt, b);
            _mm_storeu_ps(out + 2 * ldt, c);
            _mm_storeu_ps(out + 3 * ldt, d);
#else
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < 4; c++)
                    out[c * ldt + r] = in[r * ldf + c];
#endif
        }
}

#endif
