/* mixer_matrix_workspace.h - the scratch of a mixer's matrix loss: per thread the tiles of one sequence and one group's heads, and sums over
 * its tokens. Offsets count floats from the thread's part and are multiples of 16.
 *
 *   scratch = [ loss of every sequence and group, fp64 ] [ dD of every sequence and head ] [ thread 0 ] [ thread 1 ] ...
 *
 * A set is C and B of a direction: two where the second direction has its own. */
#ifndef CAB_OPS_CPU_MIXER_MATRIX_WORKSPACE_H
#define CAB_OPS_CPU_MIXER_MATRIX_WORKSPACE_H

#include "ops/cpu/tile.h"
#include "ops/mixer_matrix.h"

typedef struct cab_mixer_workspace {
    int ldn, ldp;               /* N and P, padded */
    size_t length;              /* tokens, whole tiles */
    size_t C[2], B[2], Bt[2];   /* by set: (T, N') twice, (N', T) */
    size_t q, kt;               /* (T, P'), (P', T) */
    size_t product[2], w[2];    /* by set, (T, T): <C, B>; what multiplies C and B in the gradient */
    size_t A;                   /* (T, T) */
    size_t dC[2], dB[2];        /* by set, (length, N') */
    size_t local[2];            /* by direction, (heads, length): running sum of log a within the tile */
    size_t before[2];           /* (heads, tiles + 1) fp64: sums over the tiles before */
    size_t rows[2], columns[2]; /* (heads, length): sum over j of G M; over i of G M / delta; the diagonal left out */
    size_t diagonal[2];         /* (heads, length): G M / delta of it */
    size_t dD;                  /* (heads, length): s G of it */
    size_t total;               /* floats per thread */
    size_t losses, sums;        /* bytes, floats before the first thread's part */
} cab_mixer_workspace;

static inline size_t cab_mixer_take(size_t *total, size_t floats)
{
    size_t at = *total;
    *total += (floats + CAB_TILE_LANES - 1) / CAB_TILE_LANES * CAB_TILE_LANES;
    return at;
}

static inline cab_mixer_workspace cab_mixer_workspace_of(const cab_node *node)
{
    const cab_mixer_matrix_attributes *a = (const cab_mixer_matrix_attributes *)node->attributes;
    const cab_mixer_matrix_sizes s = cab_mixer_matrix_sizes_of(node);
    const size_t T = CAB_MIXER_TILE, length = (size_t)s.tiles * T, heads = (size_t)s.heads;
    cab_mixer_workspace w = {.ldn = cab_tile_pad(s.N), .ldp = cab_tile_pad(s.P), .length = length};
    const size_t tn = T * (size_t)w.ldn;
    w.q = cab_mixer_take(&w.total, T * (size_t)w.ldp);
    w.kt = cab_mixer_take(&w.total, T * (size_t)w.ldp);
    w.A = cab_mixer_take(&w.total, T * T);
    w.dD = cab_mixer_take(&w.total, heads * length);
    for (int d = 0; d < cab_mixer_directions(a); d++) {
        size_t *const sums[] = {&w.local[d], &w.rows[d], &w.columns[d], &w.diagonal[d]};
        for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
            *sums[i] = cab_mixer_take(&w.total, heads * length);
        w.before[d] = cab_mixer_take(&w.total, 2 * heads * (size_t)(s.tiles + 1));
        if (d == 1 && !a->own)
            break;
        size_t *const tiles[] = {&w.C[d], &w.B[d], &w.Bt[d]};
        for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++)
            *tiles[i] = cab_mixer_take(&w.total, tn);
        w.product[d] = cab_mixer_take(&w.total, T * T);
        w.w[d] = cab_mixer_take(&w.total, T * T);
        w.dC[d] = cab_mixer_take(&w.total, length * (size_t)w.ldn);
        w.dB[d] = cab_mixer_take(&w.total, length * (size_t)w.ldn);
    }
    w.losses = ((size_t)(s.B * s.G) * sizeof(double) + 63) / 64 * 64;
    cab_mixer_take(&w.sums, (size_t)(s.B * s.H));
    return w;
}

static inline size_t cab_mixer_workspace_bytes(const cab_node *node, int threads)
{
    const cab_mixer_workspace w = cab_mixer_workspace_of(node);
    return w.losses + (w.sums + w.total * (size_t)threads) * sizeof(float);
}

/* Attention's rows: per thread Q, K transposed and a strip of scores; the squares of every row. */
typedef struct cab_rows_workspace {
    int ldp;
    int64_t length; /* tokens of the attention, whole tiles */
    size_t squares; /* bytes before the first thread's part */
    size_t q, k, kt, scores, total;
} cab_rows_workspace;

static inline cab_rows_workspace cab_rows_workspace_of(const cab_node *node)
{
    const cab_attention_rows_attributes *a = (const cab_attention_rows_attributes *)node->attributes;
    const size_t T = CAB_MIXER_TILE, L = (size_t)node->in[CAB_ROWS_Q]->shape[1];
    cab_rows_workspace w = {.ldp = cab_tile_pad(a->shape.head_dim), .length = (int64_t)((L + T - 1) / T * T)};
    w.squares = ((size_t)cab_elements(node->out[0]) * sizeof(float) + 63) / 64 * 64;
    w.q = cab_mixer_take(&w.total, T * (size_t)w.ldp);
    w.k = cab_mixer_take(&w.total, T * (size_t)w.ldp);
    w.kt = cab_mixer_take(&w.total, T * (size_t)w.ldp);
    w.scores = cab_mixer_take(&w.total, T * (size_t)w.length);
    return w;
}

static inline size_t cab_rows_workspace_bytes(const cab_node *node, int threads)
{
    const cab_rows_workspace w = cab_rows_workspace_of(node);
    return w.squares + w.total * (size_t)threads * sizeof(float);
}

#endif
