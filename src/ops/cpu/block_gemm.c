#include "ops/cpu/block_gemm.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/expand.h"

/* Elements that are expanded at a time where they are multiplied: a multiple of every block, in the first-level cache. */
enum { PIECE = 512 };

static size_t size_of(cab_dtype dtype)
{
    return dtype == CAB_F32 ? sizeof(float) : sizeof(cab_bf16);
}

static const uint8_t *row_of(const cab_gemm_shape *s, const void *b, int64_t row)
{
    return (const uint8_t *)b + cab_dtype_bytes(s->b.dtype, row * s->b.column);
}

/* ---- many rows ---------------------------------------------------------------------------------------------------- */

/* A row of B in A's dtype. */
static void expand_row(const cab_gemm_shape *s, const uint8_t *from, char *to)
{
    float buffer[PIECE];
    for (int64_t k = 0; k < s->k; k += PIECE) {
        const int64_t n = s->k - k < PIECE ? s->k - k : PIECE;
        const uint8_t *piece = from + cab_dtype_bytes(s->b.dtype, k);
        if (s->a.dtype == CAB_F32) {
            cab_expand(s->b.dtype, piece, (float *)(void *)to + k, n);
        } else {
            cab_expand(s->b.dtype, piece, buffer, n);
            cab_narrow((cab_bf16 *)(void *)to + k, buffer, n);
        }
    }
}

static cab_status by_tiles(const cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                           const void *bias, void *scratch)
{
    const int64_t tile = cab_block_gemm_tile(s);
    const size_t row_bytes = (size_t)s->k * size_of(s->a.dtype);
    char *expanded = scratch, *rest = expanded + ((size_t)tile * row_bytes + 63) / 64 * 64;
    for (int64_t first = 0; first < s->n; first += tile) {
        const int64_t n = s->n - first < tile ? s->n - first : tile;
        const cab_gemm_shape part = cab_block_gemm_part(s, n);
        const cab_gemm *gemm;
#pragma omp parallel for num_threads(backend->threads) schedule(static)
        for (int64_t i = 0; i < n; i++)
            expand_row(s, row_of(s, b, first + i), expanded + (size_t)i * row_bytes);
        CAB_TRY(cab_gemm_get(backend, &part, &gemm));
        CAB_TRY(cab_gemm_run(gemm, a, expanded, (char *)c + (size_t)first * size_of(s->c.dtype),
                             bias != NULL ? (const char *)bias + (size_t)first * size_of(s->bias_dtype) : NULL, rest));
    }
    return CAB_OK;
}

/* ---- a few rows ---------------------------------------------------------------------------------------------------- */

/* sums[i] = the products of a row of B with each of m rows of A. */
static void multiply_row(const cab_gemm_shape *s, const uint8_t *row, const float *a, float *sums)
{
    float buffer[PIECE];
    for (int64_t i = 0; i < s->m; i++)
        sums[i] = 0;
    for (int64_t k = 0; k < s->k; k += PIECE) {
        const int64_t n = s->k - k < PIECE ? s->k - k : PIECE;
        cab_expand(s->b.dtype, row + cab_dtype_bytes(s->b.dtype, k), buffer, n);
        for (int64_t i = 0; i < s->m; i++)
            sums[i] += cab_dot(buffer, a + i * s->k + k, n);
    }
}

static void put(const cab_gemm_shape *s, void *c, const void *bias, int64_t column, const float *sums)
{
    float shift = 0;
    if (bias != NULL)
        shift = s->bias_dtype == CAB_F32 ? ((const float *)bias)[column]
                                         : cab_bf16_to_f32(((const cab_bf16 *)bias)[column]);
    for (int64_t i = 0; i < s->m; i++) {
        float *single = (float *)c + i * s->c.row + column;
        cab_bf16 *low = (cab_bf16 *)c + i * s->c.row + column;
        if (s->c.dtype == CAB_F32)
            *single = sums[i] + shift + (s->accumulate ? *single : 0);
        else
            *low = cab_bf16_from_f32(sums[i] + shift + (s->accumulate ? cab_bf16_to_f32(*low) : 0));
    }
}

static void by_rows(const cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                    const void *bias, float *wide)
{
    for (int64_t i = 0; i < s->m; i++) {
        if (s->a.dtype == CAB_F32)
            memcpy(wide + i * s->k, (const float *)a + i * s->a.row, (size_t)s->k * sizeof *wide);
        else
            cab_widen(wide + i * s->k, (const cab_bf16 *)a + i * s->a.row, s->k);
    }
#pragma omp parallel for num_threads(cab_threads_for(backend, s->n * s->k)) schedule(static)
    for (int64_t column = 0; column < s->n; column++) {
        float sums[CAB_BLOCK_FEW];
        multiply_row(s, row_of(s, b, column), wide, sums);
        put(s, c, bias, column, sums);
    }
}

cab_status CAB_ISA(cab_block_gemm)(const cab_backend *backend, const cab_gemm_shape *shape, const void *a,
                                   const void *b, void *c, const void *bias, void *scratch)
{
    if (shape->m > CAB_BLOCK_FEW)
        return by_tiles(backend, shape, a, b, c, bias, scratch);
    by_rows(backend, shape, a, b, c, bias, scratch);
    return CAB_OK;
}
