/* scan.c - the selective scan of Mamba-1 (Gu & Dao 2023, eq. 2a-2b; zero-order hold on A, Euler on B), per channel e and
 * state n, h[-1] = 0:
 *
 *   delta[t] = softplus(dt[t] + dt_bias)     A = -exp(A_log)
 *   h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]      y[t] = (<C[t], h[t]> + D u[t]) * silu(z[t])
 *
 * u, dt, z, y: (B, L, E)    A_log: (E, N) fp32    B, C: (B, L, N)    D, dt_bias: (E) fp32    z, dt_bias: or NULL
 *
 * h is fp32 whatever the activations are. `reverse` runs t from the last token to the first; nothing is copied. One node
 * may hold both directions of a layer, with one z; its y is the mean of theirs. Backward,
 * with p = dy silu(z), a = exp(delta A) and dh[t] = a[t+1] dh[t+1] + p[t] C[t] (gradients of B and C included: the bridge
 * needs them):
 *
 *   dC[t] = sum_e p[t] h[t]      dB[t] = sum_e dh[t] delta[t] u[t]       dD = sum_t p u      dz = dy (y / silu(z)) silu'(z)
 *   du[t] = delta[t] <dh[t], B[t]> + D p[t]                              da[t] = dh[t] h[t-1] a[t]
 *   ddelta[t] = u[t] <dh[t], B[t]> + <da[t], A>     dA = sum_t delta[t] da[t]
 *   ddt = ddelta sigmoid(dt + dt_bias)     dt_bias: its sum     dA_log = A dA
 *
 * The states are computed again: keeping them would take N times the memory of u. A backend may
 * keep some of them. */
#include "ops/scan.h"

#include "ops/record.h"

const cab_op cab_op_scan = {
    .name = "scan", /* in: u dt A_log B C D dt_bias z, of a second direction all but z   out: y, or the mean of both */
    .saves = CAB_SAVE_IN(CAB_SCAN_BOTH) - 1,
};

const cab_op cab_op_scan_step = {
    .name = "scan_step", /* in: u dt A_log B C D dt_bias z state   out: y */
};

static bool tokens_fit(cab_graph *g, const char *what, const cab_tensor *t, const cab_tensor *u, int64_t columns)
{
    char a[96], b[96];
    if (t->n_dim == 3 && t->dtype == u->dtype && t->shape[0] == u->shape[0] && t->shape[1] == u->shape[1] &&
        cab_columns(t) == columns)
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "scan: %s is %s, expected %" PRId64 " columns for u %s", what, cab_shape_text(t, a),
                   columns, cab_shape_text(u, b));
    return false;
}

static bool parameter_fits(cab_graph *g, const char *what, const cab_tensor *t, int64_t E, int64_t N)
{
    char a[96];
    if (t->dtype == CAB_F32 && t->ld == cab_columns(t) &&
        (N > 0 ? t->n_dim == 2 && t->shape[0] == E && t->shape[1] == N : t->n_dim == 1 && t->shape[0] == E))
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "scan: %s is %s, expected %" PRId64 " channels, F32", what, cab_shape_text(t, a), E);
    return false;
}

static bool scan_fits(cab_graph *g, const cab_scan_inputs *in)
{
    const cab_tensor *u = in->u;
    char a[96], b[96];
    if (u->n_dim != 3 || !cab_expect_dtype(g, "scan", u, CAB_DTYPES)) {
        cab_graph_fail(g, CAB_ESHAPE, "scan: u is %s, expected (B, L, E)", cab_shape_text(u, a));
        return false;
    }
    const int64_t E = cab_columns(u), N = cab_columns(in->B);
    if (N > CAB_SCAN_MAX_STATE || cab_columns(in->C) != N) {
        cab_graph_fail(g, CAB_ESHAPE, "scan: B is %s and C %s, expected (B, L, N) both with N <= %d",
                       cab_shape_text(in->B, a), cab_shape_text(in->C, b), CAB_SCAN_MAX_STATE);
        return false;
    }
    return tokens_fit(g, "dt", in->dt, u, E) && tokens_fit(g, "B", in->B, u, N) && tokens_fit(g, "C", in->C, u, N) &&
           (in->z == NULL || tokens_fit(g, "z", in->z, u, E)) && parameter_fits(g, "A_log", in->A_log, E, N) &&
           parameter_fits(g, "D", in->D, E, 0) &&
           (in->dt_bias == NULL || parameter_fits(g, "dt_bias", in->dt_bias, E, 0));
}

static bool complete(const cab_scan_inputs *in)
{
    return in->u != NULL && in->dt != NULL && in->A_log != NULL && in->B != NULL && in->C != NULL && in->D != NULL;
}

static void list_inputs(const cab_scan_inputs *in, cab_tensor **to)
{
    to[CAB_SCAN_U] = in->u;
    to[CAB_SCAN_DT] = in->dt;
    to[CAB_SCAN_A_LOG] = in->A_log;
    to[CAB_SCAN_B] = in->B;
    to[CAB_SCAN_C] = in->C;
    to[CAB_SCAN_D] = in->D;
    to[CAB_SCAN_DT_BIAS] = in->dt_bias;
}

cab_tensor *cab_scan(cab_graph *g, const cab_scan_inputs *in, bool reverse)
{
    if (cab_graph_failed(g) || !complete(in) || !scan_fits(g, in))
        return NULL;
    cab_tensor *y = cab_graph_activation(g, "scan", in->u->dtype, in->u->n_dim, in->u->shape);
    cab_tensor *inputs[CAB_SCAN_INPUTS] = {[CAB_SCAN_Z] = in->z};
    const cab_scan_attributes attributes = {.directions = 1, .reverse = {reverse}};
    list_inputs(in, inputs);
    cab_graph_append(g, &cab_op_scan, CAB_SCAN_INPUTS, inputs, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

static bool directions_fit(cab_graph *g, const cab_scan_inputs *forward, const cab_scan_inputs *backward)
{
    const cab_tensor *u = forward->u;
    if (backward->z != forward->z) {
        cab_graph_fail(g, CAB_ESHAPE, "scan: the two directions have different z");
        return false;
    }
    return tokens_fit(g, "backward u", backward->u, u, cab_columns(u)) &&
           tokens_fit(g, "backward B", backward->B, u, cab_columns(forward->B));
}

cab_tensor *cab_scan_both(cab_graph *g, const cab_scan_inputs *forward, const cab_scan_inputs *backward)
{
    if (cab_graph_failed(g) || !complete(forward) || !complete(backward) || !scan_fits(g, forward) ||
        !scan_fits(g, backward) || !directions_fit(g, forward, backward))
        return NULL;
    const cab_tensor *u = forward->u;
    cab_tensor *y = cab_graph_activation(g, "scan", u->dtype, u->n_dim, u->shape);
    cab_tensor *inputs[CAB_SCAN_BOTH] = {[CAB_SCAN_Z] = forward->z};
    const cab_scan_attributes attributes = {.directions = 2, .reverse = {false, true}};
    list_inputs(forward, inputs);
    list_inputs(backward, inputs + CAB_SCAN_INPUTS);
    cab_graph_append(g, &cab_op_scan, CAB_SCAN_BOTH, inputs, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_scan_step(cab_graph *g, const cab_scan_inputs *in, cab_tensor *state)
{
    char a[96];
    if (cab_graph_failed(g) || !complete(in) || state == NULL || !scan_fits(g, in))
        return NULL;
    const cab_tensor *u = in->u;
    const int64_t E = cab_columns(u), N = cab_columns(in->B);
    if (u->shape[1] != 1)
        return cab_graph_fail(g, CAB_ESHAPE, "scan_step: u is %s, expected one token", cab_shape_text(u, a));
    if (state->dtype != CAB_F32 || state->n_dim != 3 || state->shape[0] != u->shape[0] || state->shape[1] != E ||
        state->shape[2] != N)
        return cab_graph_fail(g, CAB_ESHAPE,
                              "scan_step: state is %s, expected (%" PRId64 ", %" PRId64 ", %" PRId64 ") F32",
                              cab_shape_text(state, a), u->shape[0], E, N);
    cab_tensor *y = cab_graph_activation(g, "scan_step", u->dtype, u->n_dim, u->shape);
    cab_tensor *inputs[CAB_SCAN_INPUTS + 1] = {[CAB_SCAN_Z] = in->z, [CAB_SCAN_STATE] = state};
    list_inputs(in, inputs);
    cab_graph_append(g, &cab_op_scan_step, CAB_SCAN_INPUTS + 1, inputs, 1, &y, NULL, 0);
    return cab_graph_failed(g) ? NULL : y;
}
