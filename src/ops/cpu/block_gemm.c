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

cab_status CAB_ISA(cab_block_gemm)(const cab_backend *backend, const cab_gemm_shape *shape, const void *a,
                                   const void *b, void *c, const void *bias, void *scratch)
{
    if (shape->m > CAB_BLOCK_FEW)
        return by_tiles(backend, shape, a, b, c, bias, scratch);
    CAB_ISA(cab_block_few)(backend, shape, a, b, c, bias, scratch);
    return CAB_OK;
}
