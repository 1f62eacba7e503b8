/* scan_workspace.h - the scratch of the selective scan on the CPU.
 *
 * A task is one group of CAB_SCAN_GROUP channels of one sequence; it walks its tokens in chunks. Everything it touches is
 * fp32 in the thread's part of the scratch, channels dense and padded with zeros to the whole group, so that arrays are
 * (tokens or N, CAB_SCAN_GROUP). The backward pass walks forward once for the state at the start of each chunk, then
 * backward. What is summed over channels (dB, dC) or over sequences (dA, dD, dbias) goes to partial sums, one per group or
 * per sequence, which are added up in order at the end.
 *
 *   scratch = [ dB partials: groups x (B L, N) ] [ dC: the same ] [ dA: B x (E', N) ] [ dD: B x E' ] [ dbias: B x E' ]
 *             [ thread 0 ] [ thread 1 ] ...                                            E' = groups x CAB_SCAN_GROUP */
#ifndef CAB_OPS_CPU_SCAN_WORKSPACE_H
#define CAB_OPS_CPU_SCAN_WORKSPACE_H

#include "ops/scan.h"

/* Offsets in floats: of the partial sums from the start of the scratch, of the rest from the thread's part. */
typedef struct cab_scan_workspace {
    size_t partial_b, partial_c, partial_a, partial_d, partial_bias;
    size_t threads;                       /* where the first thread's part begins */
    size_t A, h;                          /* (N, group): A log2(e), the state */
    size_t B, C;                          /* (N, chunk) */
    size_t u, dt, delta, x, y, z, D;      /* (chunk, group): x = delta u; D is one row */
    size_t states;                        /* backward: chunks x (N, group) */
    size_t hs, decays;                    /* backward: (chunk + 1, group) of one state n */
    size_t sum_b, sum_c;                  /* backward: (N, chunk, lanes), over the group's vectors */
    size_t dh, dA;                        /* backward: (N, group) */
    size_t dy, du, ddelta, dz, dD, dbias; /* backward: (chunk, group); the last two one row each */
    size_t total;                         /* floats per thread */
} cab_scan_workspace;

static inline size_t cab_scan_take(size_t *total, size_t floats)
{
    const size_t at = *total;
    *total += (floats + CAB_SCAN_LANES - 1) / CAB_SCAN_LANES * CAB_SCAN_LANES;
    return at;
}

static inline cab_scan_workspace cab_scan_workspace_of(const cab_scan_shape *s, bool backward)
{
    const size_t N = (size_t)s->N, state = N * CAB_SCAN_GROUP, rows = (size_t)CAB_SCAN_CHUNK * CAB_SCAN_GROUP;
    const size_t per_sequence = (size_t)s->B * (size_t)s->groups * CAB_SCAN_GROUP;
    cab_scan_workspace w;
    memset(&w, 0, sizeof w);
    w.A = cab_scan_take(&w.total, state);
    w.h = cab_scan_take(&w.total, state);
    w.B = cab_scan_take(&w.total, CAB_SCAN_CHUNK * N);
    w.C = cab_scan_take(&w.total, CAB_SCAN_CHUNK * N);
    w.D = cab_scan_take(&w.total, CAB_SCAN_GROUP);
    size_t *const forward_rows[] = {&w.u, &w.dt, &w.delta, &w.x, &w.y, &w.z};
    for (size_t i = 0; i < sizeof forward_rows / sizeof *forward_rows; i++)
        *forward_rows[i] = cab_scan_take(&w.total, rows);
    if (!backward)
        return w;
    const size_t partial = (size_t)s->groups * (size_t)(s->B * s->L) * N, lanes = CAB_SCAN_CHUNK * N * CAB_SCAN_LANES;
    w.partial_b = cab_scan_take(&w.threads, partial);
    w.partial_c = cab_scan_take(&w.threads, partial);
    w.partial_a = cab_scan_take(&w.threads, per_sequence * N);
    w.partial_d = cab_scan_take(&w.threads, per_sequence);
    w.partial_bias = cab_scan_take(&w.threads, per_sequence);
    w.states = cab_scan_take(&w.total, (size_t)s->chunks * state);
    w.hs = cab_scan_take(&w.total, rows + CAB_SCAN_GROUP);
    w.decays = cab_scan_take(&w.total, rows);
    w.sum_b = cab_scan_take(&w.total, lanes);
    w.sum_c = cab_scan_take(&w.total, lanes);
    w.dh = cab_scan_take(&w.total, state);
    w.dA = cab_scan_take(&w.total, state);
    size_t *const backward_rows[] = {&w.dy, &w.du, &w.ddelta, &w.dz};
    for (size_t i = 0; i < sizeof backward_rows / sizeof *backward_rows; i++)
        *backward_rows[i] = cab_scan_take(&w.total, rows);
    w.dD = cab_scan_take(&w.total, CAB_SCAN_GROUP);
    w.dbias = cab_scan_take(&w.total, CAB_SCAN_GROUP);
    return w;
}

static inline size_t cab_scan_workspace_bytes(const cab_scan_shape *s, bool backward, int threads)
{
    const cab_scan_workspace w = cab_scan_workspace_of(s, backward);
    return (w.threads + w.total * (size_t)threads) * sizeof(float);
}

#endif
