/* own_gemm.c - matrix products without a library: bf16 where the processor has no bf16 products, and everything in builds
 * without oneDNN.
 *
 * C is cut into blocks of CAB_OWN_M x CAB_OWN_N, which threads take; a block goes over the inner dimension in steps of
 * CAB_OWN_K, for which it packs a piece of A and of B as fp32:
 *
 *   A piece   as stored, row by row or (A transposed) column by column: the tile product takes any strides
 *   B piece   (CAB_OWN_K, CAB_OWN_N), rows dense; transposed on the way if stored the other way round
 *
 * and adds their product, in fp32 registers, to a block of fp32 in scratch. The order of sums does not depend on the
 * number of threads. */
#include "ops/cpu/own_gemm.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/tile.h"
#include "ops/cpu/vec.h"

#include <omp.h>

typedef struct workspace {
    float *a, *b, *c, *lines;
} workspace;

/* `lines` lines of `length` elements, `step` elements apart, as fp32 lines `to_step` apart. */
static void widen_lines(float *to, int64_t to_step, const void *from, cab_dtype dtype, int64_t step, int64_t lines,
                        int64_t length)
{
    for (int64_t i = 0; i < lines; i++) {
        if (dtype == CAB_F32)
            memcpy(to + i * to_step, (const float *)from + i * step, (size_t)length * sizeof *to);
        else
            cab_widen(to + i * to_step, (const cab_bf16 *)from + i * step, length);
    }
}

static size_t size_of(cab_dtype dtype)
{
    return dtype == CAB_F32 ? sizeof(float) : sizeof(cab_bf16);
}

/* Bytes from an operand's beginning to an element. */
static size_t offset_of(const cab_side *side, int64_t row, int64_t column)
{
    return (size_t)(row * side->row + column * side->column) * size_of(side->dtype);
}

static const void *element(const cab_side *side, const void *data, int64_t row, int64_t column)
{
    return (const char *)data + offset_of(side, row, column);
}

static cab_tile_a pack_a(const cab_side *side, const void *from, float *to, int64_t rows, int64_t columns)
{
    if (side->column == 1) {
        widen_lines(to, CAB_OWN_K, from, side->dtype, side->row, rows, columns);
        return (cab_tile_a){to, CAB_OWN_K, 1};
    }
    widen_lines(to, CAB_OWN_M, from, side->dtype, side->column, columns, rows);
    return (cab_tile_a){to, 1, CAB_OWN_M};
}

static void pack_b(const cab_side *side, const void *from, float *to, float *lines, int64_t rows, int64_t columns)
{
    if (side->column == 1) {
        widen_lines(to, CAB_OWN_N, from, side->dtype, side->row, rows, columns);
        for (int64_t i = 0; i < rows; i++)
            memset(to + i * CAB_OWN_N + columns, 0, (size_t)(cab_tile_pad((int)columns) - columns) * sizeof *to);
        return;
    }
    for (int64_t j = 0; j < columns; j += CAB_TILE_LANES) {
        int64_t n = columns - j < CAB_TILE_LANES ? columns - j : CAB_TILE_LANES;
        if (n < CAB_TILE_LANES)
            memset(lines, 0, CAB_TILE_LANES * CAB_OWN_K * sizeof *lines);
        widen_lines(lines, CAB_OWN_K, element(side, from, 0, j), side->dtype, side->column, n, rows);
        cab_tile_transpose(CAB_TILE_LANES, (int)rows, lines, CAB_OWN_K, to + j, CAB_OWN_N);
    }
}

/* A finished block to C: plus bias, plus what is there. */
static void write_block(const cab_gemm_shape *s, const float *block, void *c, const void *bias, int64_t rows,
                        int64_t columns)
{
    cab_tensor to = {.data = c, .dtype = s->c.dtype, .ld = s->c.row};
    cab_tensor shift = {.data = (void *)(uintptr_t)bias, .dtype = s->bias_dtype};
    float buffer[CAB_OWN_N], offset[CAB_OWN_N];
    const float *added = bias != NULL ? cab_row_in(&shift, 0, 0, columns, offset) : NULL;
    for (int64_t i = 0; i < rows; i++) {
        float *out = cab_row_sum(&to, i, 0, columns, s->accumulate, buffer);
        cab_axpy(out, 1.0f, block + i * CAB_OWN_N, columns);
        if (added != NULL)
            cab_axpy(out, 1.0f, added, columns);
        cab_row_done(&to, i, 0, columns, out);
    }
}

static int64_t at_most(int64_t n, int64_t limit)
{
    return n < limit ? n : limit;
}

/* The block of C that begins at (row, column), of one batch. */
static void run_block(const cab_gemm_shape *s, const workspace *w, int64_t row, int64_t column, const void *a,
                      const void *b, void *c, const void *bias)
{
    int64_t rows = at_most(s->m - row, CAB_OWN_M), columns = at_most(s->n - column, CAB_OWN_N);
    for (int64_t k = 0; k < s->k; k += CAB_OWN_K) {
        int64_t depth = at_most(s->k - k, CAB_OWN_K);
        cab_tile_a piece = pack_a(&s->a, element(&s->a, a, row, k), w->a, rows, depth);
        pack_b(&s->b, element(&s->b, b, k, column), w->b, w->lines, depth, columns);
        cab_tile_multiply(CAB_TILE_FULL, (int)rows, cab_tile_pad((int)columns), (int)depth, piece, w->b, CAB_OWN_N,
                          w->c, CAB_OWN_N, k > 0);
    }
    const char *shift = bias != NULL ? (const char *)bias + (size_t)column * size_of(s->bias_dtype) : NULL;
    write_block(s, w->c, (char *)c + offset_of(&s->c, row, column), shift, rows, columns);
}

static workspace workspace_at(void *scratch, int64_t thread)
{
    float *a = (float *)(void *)((char *)scratch + (size_t)thread * cab_own_gemm_scratch(1));
    float *b = a + CAB_OWN_M * CAB_OWN_K, *c = b + CAB_OWN_K * CAB_OWN_N;
    return (workspace){a, b, c, c + CAB_OWN_M * CAB_OWN_N};
}

void CAB_ISA(cab_own_gemm)(const cab_gemm_shape *s, int threads, const void *a, const void *b, void *c,
                           const void *bias, void *scratch)
{
    int64_t down = (s->m + CAB_OWN_M - 1) / CAB_OWN_M, across = (s->n + CAB_OWN_N - 1) / CAB_OWN_N;
    int64_t blocks = down * across, count = s->batch[0] * s->batch[1] * blocks;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        workspace w = workspace_at(scratch, threads > 1 ? omp_get_thread_num() : 0);
        int64_t batch = i / blocks, outer = batch / s->batch[1], inner = batch % s->batch[1], block = i % blocks;
        const cab_side *sides[] = {&s->a, &s->b, &s->c};
        size_t offset[3];
        for (int k = 0; k < 3; k++)
            offset[k] = (size_t)(outer * sides[k]->batch[0] + inner * sides[k]->batch[1]) * size_of(sides[k]->dtype);
        run_block(s, &w, block / across * CAB_OWN_M, block % across * CAB_OWN_N, (const char *)a + offset[0],
                  (const char *)b + offset[1], (char *)c + offset[2], bias);
    }
}
