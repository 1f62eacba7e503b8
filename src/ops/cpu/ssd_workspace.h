/* ssd_workspace.h - the scratch of the chunked recurrence: per thread, a set of small fp32 matrices that stay in the cache.
 *
 * Q tokens of a chunk, rows padded to whole vectors: P' = pad(P), N' = pad(N). Offsets count floats from the thread's part
 * and are multiples of 16, so that with a 64-byte aligned scratch every row is aligned. The backward pass keeps the state at
 * the start of every chunk of one sequence and one group's heads (computed again, so that the graph need not hold it).
 *
 *   scratch = [ dD, dA_log, ddt_bias of every sequence and head (backward) ] [ thread 0 ] [ thread 1 ] ... */
#ifndef CAB_OPS_CPU_SSD_WORKSPACE_H
#define CAB_OPS_CPU_SSD_WORKSPACE_H

#include "ops/cpu/tile.h"
#include "ops/ssd.h"

/* Gradients that are summed over tokens and sequences: (sum, B, H). */
enum { CAB_SSD_SUM_D, CAB_SSD_SUM_A_LOG, CAB_SSD_SUM_DT_BIAS, CAB_SSD_SUMS };

typedef struct cab_ssd_workspace {
    int ldp, ldn;                    /* P', N' */
    size_t state;                    /* floats of one state, (N, P') */
    size_t x, y, scaled_x;           /* (Q, P'); backward: y is the gradient of u */
    size_t u;                        /* (Q, P'), delta x; x itself where the recurrence is discrete */
    size_t B, C, scaled;             /* (Q, N') */
    size_t Bt;                       /* (N, Q) */
    size_t product, decay, mixed;    /* (Q, Q): C B^T; the decays; M, their product */
    size_t s, from_start, to_end;    /* (Q): cumulated log a; exp of it; exp of the rest of the chunk */
    size_t delta, raw;               /* (Q): delta, and what it is the softplus of */
    size_t states;                   /* forward: one per head of the group; backward: chunks of those */
    size_t dy, scaled_dy, dstates;   /* backward: (Q, P'), (Q, P'), one state per head of the group */
    size_t ut, statet;               /* (P, Q), (P, N') */
    size_t dproduct;                 /* (Q, Q) */
    size_t dB, dC, dB_head, dC_head; /* (Q, N') */
    size_t total;                    /* floats per thread */
    size_t sums;                     /* floats before the first thread's part */
} cab_ssd_workspace;

static inline size_t cab_ssd_take(size_t *total, size_t floats)
{
    size_t at = *total;
    *total += (floats + CAB_TILE_LANES - 1) / CAB_TILE_LANES * CAB_TILE_LANES;
    return at;
}

static inline cab_ssd_workspace cab_ssd_workspace_of(const cab_ssd_shape *s, bool backward, bool discrete)
{
    const size_t Q = CAB_SSD_CHUNK, heads = (size_t)(s->H / s->G);
    cab_ssd_workspace w = {.ldp = cab_tile_pad(s->P), .ldn = cab_tile_pad(s->N)};
    const size_t qp = Q * (size_t)w.ldp, qn = Q * (size_t)w.ldn;
    w.state = (size_t)(s->N + 3) / 4 * 4 * (size_t)w.ldp;
    size_t *const per_head[] = {&w.x, &w.y, &w.scaled_x}, *const per_group[] = {&w.B, &w.C, &w.scaled};
    for (size_t i = 0; i < 3; i++) {
        *per_head[i] = cab_ssd_take(&w.total, qp);
        *per_group[i] = cab_ssd_take(&w.total, qn);
    }
    w.u = discrete ? w.x : cab_ssd_take(&w.total, qp);
    w.Bt = cab_ssd_take(&w.total, (size_t)w.ldn * Q);
    w.product = cab_ssd_take(&w.total, Q * Q);
    w.mixed = cab_ssd_take(&w.total, Q * Q);
    w.decay = cab_ssd_take(&w.total, Q * Q);
    w.s = cab_ssd_take(&w.total, Q);
    w.from_start = cab_ssd_take(&w.total, Q);
    w.to_end = cab_ssd_take(&w.total, Q);
    w.delta = cab_ssd_take(&w.total, Q);
    w.raw = cab_ssd_take(&w.total, Q);
    w.states = cab_ssd_take(&w.total, heads * w.state * (backward ? (size_t)s->chunks : 1));
    if (!backward)
        return w;
    w.dy = cab_ssd_take(&w.total, qp);
    w.scaled_dy = cab_ssd_take(&w.total, qp);
    w.dstates = cab_ssd_take(&w.total, heads * w.state);
    w.ut = cab_ssd_take(&w.total, (size_t)w.ldp * Q);
    w.statet = cab_ssd_take(&w.total, (size_t)w.ldp * (size_t)w.ldn);
    w.dproduct = cab_ssd_take(&w.total, Q * Q);
    size_t *const gradients[] = {&w.dB, &w.dC, &w.dB_head, &w.dC_head};
    for (size_t i = 0; i < 4; i++)
        *gradients[i] = cab_ssd_take(&w.total, qn);
    cab_ssd_take(&w.sums, CAB_SSD_SUMS * (size_t)(s->B * s->H));
    return w;
}

static inline size_t cab_ssd_workspace_bytes(const cab_node *node, bool backward, int threads)
{
    const cab_ssd_shape s = cab_ssd_shape_of(node);
    const cab_ssd_workspace w = cab_ssd_workspace_of(&s, backward, node->in[CAB_SSD_A_LOG] == NULL);
    return (w.sums + w.total * (size_t)threads) * sizeof(float);
}

#endif
