/* ssd.c - the discrete Mamba-2 recurrence ("Transformers are SSMs", Dao & Gu 2024, section 6, with a scalar decay per head
 * and no step size). Per head, with h of (P, N) fp32 and h[-1] = 0:
 *
 *   h[t] = a[t] h[t-1] + x[t] B[t]^T      y[t] = h[t] C[t] + D x[t]      a[t] = exp(-softplus(a_log[t]))
 *
 * x, y: (B, L, H*P)    Bm, Cm: (B, L, G*N), head h reads group h / (H / G)    a_log: (B, L, H)    D: (H) fp32
 *
 * In chunks of Q tokens, S[i] = sum of log a from the chunk's start to i, it is matrix products:
 *
 *   M[i, j] = (C[i] . B[j]) exp(S[i] - S[j]) for j <= i, else 0
 *   y[i]    = sum_j M[i, j] x[j] + exp(S[i]) h_start C[i] + D x[i]
 *   h_end   = exp(S[Q]) h_start + sum_j exp(S[Q] - S[j]) x[j] B[j]^T
 *
 * S never increases, so no exponential is ever above 1. The backward pass computes the states again: keeping one per
 * chunk and head would take P N / Q floats per token and head, more than x itself. */
#include "ops/ssd.h"

#include "ops/cpu/ssd_workspace.h"
#include "ops/ops.h"

#include <inttypes.h>
#include <limits.h>

/* Per token and head: two half products within the chunk, one out of the state, one into it; each has two gradients. */
static double ssd_flops(const cab_node *node)
{
    cab_ssd_shape s = cab_ssd_shape_of(node);
    double chunk = s.L < CAB_SSD_CHUNK ? (double)s.L : CAB_SSD_CHUNK;
    double forward = (double)s.B * (double)s.L * s.H * (chunk * (s.P + s.N) + 4.0 * s.P * s.N);
    return node->backward ? 2 * forward : forward;
}

static double ssd_step_flops(const cab_node *node)
{
    cab_ssd_shape s = cab_ssd_shape_of(node);
    return 4.0 * (double)s.B * s.H * s.P * s.N;
}

const cab_op cab_op_ssd = {
    .name = "ssd", /* in: x Bm Cm a_log D   out: y */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1) | CAB_SAVE_IN(2) | CAB_SAVE_IN(3) | CAB_SAVE_IN(4),
    .flops = ssd_flops,
};

const cab_op cab_op_ssd_step = {
    .name = "ssd_step", /* in: x Bm Cm a_log D state   out: y */
    .flops = ssd_step_flops,
};

static bool same_tokens(const cab_tensor *t, const cab_tensor *x)
{
    return t->n_dim == 3 && t->dtype == x->dtype && t->shape[0] == x->shape[0] && t->shape[1] == x->shape[1];
}

static bool ssd_fits(cab_graph *g, const char *op, cab_tensor *const in[5], int n_head, int n_group)
{
    const cab_tensor *x = in[0], *Bm = in[1], *Cm = in[2], *a_log = in[3], *D = in[4];
    char a[96], b[96];
    if (x->n_dim != 3 || (x->dtype != CAB_F32 && x->dtype != CAB_BF16) || n_head < 1 || cab_columns(x) % n_head != 0 ||
        cab_columns(x) > INT_MAX) {
        cab_graph_fail(g, CAB_ESHAPE, "%s: x is %s, expected (B, L, H * P) F32 or BF16 with H = %d heads", op,
                       cab_shape_text(x, a), n_head);
        return false;
    }
    if (n_group < 1 || n_head % n_group != 0) {
        cab_graph_fail(g, CAB_ESHAPE, "%s: %d heads in %d groups, expected a divisor", op, n_head, n_group);
        return false;
    }
    if (!same_tokens(Bm, x) || !same_tokens(Cm, x) || cab_columns(Bm) != cab_columns(Cm) ||
        cab_columns(Bm) % n_group != 0 || cab_columns(Bm) > INT_MAX) {
        cab_graph_fail(g, CAB_ESHAPE, "%s: B is %s and C %s, expected (%" PRId64 ", %" PRId64 ", G * N) both, G = %d",
                       op, cab_shape_text(Bm, a), cab_shape_text(Cm, b), x->shape[0], x->shape[1], n_group);
        return false;
    }
    if (!same_tokens(a_log, x) || cab_columns(a_log) != n_head || D->dtype != CAB_F32 || D->n_dim != 1 ||
        D->shape[0] != n_head) {
        cab_graph_fail(g, CAB_ESHAPE, "%s: a_log is %s and D %s, expected (%" PRId64 ", %" PRId64 ", %d) and (%d) F32",
                       op, cab_shape_text(a_log, a), cab_shape_text(D, b), x->shape[0], x->shape[1], n_head, n_head);
        return false;
    }
    return true;
}

cab_tensor *cab_ssd(cab_graph *g, cab_tensor *x, cab_tensor *Bm, cab_tensor *Cm, cab_tensor *a_log, cab_tensor *D,
                    int n_head, int n_group)
{
    cab_tensor *in[5] = {x, Bm, Cm, a_log, D};
    for (int i = 0; i < 5; i++)
        if (in[i] == NULL)
            return NULL;
    if (cab_graph_failed(g) || !ssd_fits(g, cab_op_ssd.name, in, n_head, n_group))
        return NULL;
    cab_tensor *y = cab_graph_activation(g, "ssd", x->dtype, x->n_dim, x->shape);
    cab_ssd_attributes attributes = {.n_head = n_head, .n_group = n_group};
    cab_graph_append(g, &cab_op_ssd, 5, in, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_ssd_step(cab_graph *g, cab_tensor *x, cab_tensor *Bm, cab_tensor *Cm, cab_tensor *a_log, cab_tensor *D,
                         cab_tensor *state, int n_head, int n_group)
{
    cab_tensor *in[6] = {x, Bm, Cm, a_log, D, state};
    for (int i = 0; i < 6; i++)
        if (in[i] == NULL)
            return NULL;
    if (cab_graph_failed(g) || !ssd_fits(g, cab_op_ssd_step.name, in, n_head, n_group))
        return NULL;
    char a[96];
    if (x->shape[1] != 1)
        return cab_graph_fail(g, CAB_ESHAPE, "ssd_step: x is %s, expected one token", cab_shape_text(x, a));
    int64_t size = cab_columns(x) / n_head * (cab_columns(Bm) / n_group);
    if (state->dtype != CAB_F32 || state->n_dim != 3 || state->shape[0] != x->shape[0] || state->shape[1] != n_head ||
        state->shape[2] != size)
        return cab_graph_fail(g, CAB_ESHAPE, "ssd_step: state is %s, expected (%" PRId64 ", %d, %" PRId64 ") F32",
                              cab_shape_text(state, a), x->shape[0], n_head, size);
    cab_tensor *y = cab_graph_activation(g, "ssd_step", x->dtype, x->n_dim, x->shape);
    cab_ssd_attributes attributes = {.n_head = n_head, .n_group = n_group};
    cab_graph_append(g, &cab_op_ssd_step, 6, in, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}
