/* ssd.c - the recurrence of Mamba-2 ("Transformers are SSMs", Dao & Gu 2024, section 6) and its discrete form without a step
 * size (Phi-Mamba). Per head, with h of (P, N) fp32 and h[-1] = 0:
 *
 *   delta[t] = softplus(dt[t] + dt_bias)
 *   log a[t] = -delta[t] exp(A_log)    u[t] = delta[t] x[t]        discrete (A_log NULL):  log a = -delta    u = x
 *   h[t] = a[t] h[t-1] + u[t] B[t]^T   y[t] = h[t] C[t] + D x[t]
 *
 * x, y: (B, L, H*P)    B, C: (B, L, G*N), head h reads group h / (H / G)    dt: (B, L, H)    dt_bias, A_log, D: (H) fp32
 *
 * In chunks of Q tokens, S[i] = sum of log a from the chunk's start to i, it is matrix products:
 *
 *   M[i, j] = (C[i] . B[j]) exp(S[i] - S[j]) for j <= i, else 0
 *   y[i]    = sum_j M[i, j] u[j] + exp(S[i]) h_start C[i] + D x[i]
 *   h_end   = exp(S[Q]) h_start + sum_j exp(S[Q] - S[j]) u[j] B[j]^T
 *
 * S never increases, so no exponential is ever above 1. Where documents begin (starts), the factors between tokens of
 * different documents are zero: M[i, j] for j < starts[i], exp(S[i]) once a document began in the chunk, exp(S[Q] - S[j])
 * for all but the chunk's last document. S itself goes on across documents, so that it stays small and exact. The backward
 * pass computes the states again: keeping one per chunk and head would take P N / Q floats per token and head, more than x
 * itself.
 *
 * Two directions (cab_ssd_both) are that, and M[i, j] for j > i by the decays of the second direction. They share B, C and x; the
 * lower and the upper half of C B^T together are one product. */
#include "ops/ssd.h"

#include "ops/cpu/ssd_workspace.h"
#include "ops/record.h"

#include <limits.h>

/* Per token and head: two half products within the chunk, one out of the state, one into it; each has two gradients. */
static double ssd_flops(const cab_node *node)
{
    cab_ssd_shape s = cab_ssd_shape_of(node);
    double chunk = s.L < CAB_SSD_CHUNK ? (double)s.L : CAB_SSD_CHUNK;
    const double directions = cab_ssd_attributes_of(node)->both ? 2 : 1;
    double forward = directions * (double)s.B * (double)s.L * s.H * (chunk * (s.P + s.N) + 4.0 * s.P * s.N);
    return node->backward ? 2 * forward : forward;
}

static double ssd_step_flops(const cab_node *node)
{
    cab_ssd_shape s = cab_ssd_shape_of(node);
    return 4.0 * (double)s.B * s.H * s.P * s.N;
}

const cab_op cab_op_ssd = {
    .name = "ssd", /* in: x B C dt D dt_bias A_log starts   out: y */
    .saves = CAB_SAVE_IN(CAB_SSD_INPUTS) - 1,
    .flops = ssd_flops,
};

const cab_op cab_op_ssd_step = {
    .name = "ssd_step", /* in: x B C dt D dt_bias A_log - state   out: y */
    .flops = ssd_step_flops,
};

static bool same_tokens(const cab_tensor *t, const cab_tensor *x)
{
    return t->n_dim == 3 && t->dtype == x->dtype && t->shape[0] == x->shape[0] && t->shape[1] == x->shape[1];
}

/* n_step: heads of dt, dt_bias and A_log. */
static bool tokens_fit(cab_graph *g, const char *op, const cab_ssd_inputs *in, int n_head, int n_step, int n_group)
{
    const cab_tensor *x = in->x, *Bm = in->B, *Cm = in->C, *dt = in->dt;
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
    if (!same_tokens(dt, x) || cab_columns(dt) != n_step) {
        cab_graph_fail(g, CAB_ESHAPE, "%s: dt is %s, expected (%" PRId64 ", %" PRId64 ", %d)", op,
                       cab_shape_text(dt, a), x->shape[0], x->shape[1], n_step);
        return false;
    }
    return cab_expect_starts(g, op, in->starts, x);
}

static bool parameter_fits(cab_graph *g, const char *op, const char *what, const cab_tensor *t, int n_head)
{
    char a[96];
    if (t == NULL || (t->dtype == CAB_F32 && t->n_dim == 1 && t->shape[0] == n_head))
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "%s: %s is %s, expected (%d) F32", op, what, cab_shape_text(t, a), n_head);
    return false;
}

/* Checks the inputs of a node and lists them. */
static bool take_inputs(cab_graph *g, const char *op, const cab_ssd_inputs *in, const cab_ssd_attributes *a,
                        cab_tensor *list[CAB_SSD_INPUTS])
{
    const int n_step = a->both && !a->shared ? 2 * a->n_head : a->n_head;
    if (cab_graph_failed(g) || !in->x || !in->B || !in->C || !in->dt || !in->D ||
        !tokens_fit(g, op, in, a->n_head, n_step, a->n_group) || !parameter_fits(g, op, "D", in->D, a->n_head) ||
        !parameter_fits(g, op, "dt_bias", in->dt_bias, n_step) || !parameter_fits(g, op, "A_log", in->A_log, n_step))
        return false;
    list[CAB_SSD_X] = in->x;
    list[CAB_SSD_B] = in->B;
    list[CAB_SSD_C] = in->C;
    list[CAB_SSD_DT] = in->dt;
    list[CAB_SSD_D] = in->D;
    list[CAB_SSD_DT_BIAS] = in->dt_bias;
    list[CAB_SSD_A_LOG] = in->A_log;
    list[CAB_SSD_STARTS] = in->starts;
    return true;
}

static cab_tensor *record(cab_graph *g, const char *name, const cab_ssd_inputs *in,
                          const cab_ssd_attributes *attributes)
{
    cab_tensor *list[CAB_SSD_INPUTS];
    if (!take_inputs(g, name, in, attributes, list))
        return NULL;
    cab_tensor *y = cab_graph_activation(g, name, in->x->dtype, in->x->n_dim, in->x->shape);
    cab_graph_append(g, &cab_op_ssd, CAB_SSD_INPUTS, list, 1, &y, attributes, sizeof *attributes);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_ssd(cab_graph *g, const cab_ssd_inputs *in, int n_head, int n_group)
{
    return record(g, "ssd", in, &(cab_ssd_attributes){.n_head = n_head, .n_group = n_group});
}

cab_tensor *cab_ssd_both(cab_graph *g, const cab_ssd_inputs *in, int n_head, int n_group)
{
    if (in->starts != NULL)
        return cab_graph_fail(g, CAB_EARG, "ssd_both: starts are given; sequences of two directions are one document");
    const bool shared = in->dt != NULL && cab_columns(in->dt) == n_head;
    return record(g, "ssd_both", in,
                  &(cab_ssd_attributes){.n_head = n_head, .n_group = n_group, .both = true, .shared = shared});
}

static void reverse_rows(const cab_tensor *t, int64_t first_column, cab_tensor *reversed)
{
    *reversed = *t;
    reversed->data = (char *)t->data + ((cab_rows(t) - 1) * t->ld + first_column) * (int64_t)cab_dtype_size(t->dtype);
    reversed->ld = -t->ld;
}

/* An input, or its gradient. `second`: heads of dt and the parameters before the second direction's. */
static cab_tensor *reverse_input(int input, const cab_tensor *t, int second, cab_tensor *reversed)
{
    if (t == NULL)
        return NULL;
    if (input <= CAB_SSD_DT) {
        reverse_rows(t, input == CAB_SSD_DT ? second : 0, reversed);
        return reversed;
    }
    *reversed = *t; /* a parameter, the second half of it, or the same */
    reversed->data = (float *)t->data + second;
    return reversed;
}

void cab_ssd_reverse_of(const cab_node *node, cab_ssd_reverse *r)
{
    cab_node *n = &r->node;
    *n = *node;
    r->attributes = *cab_ssd_attributes_of(node);
    r->attributes.reverse = true;
    n->attributes = &r->attributes;
    const int second = r->attributes.shared ? 0 : r->attributes.n_head;
    for (int i = 0; i < CAB_SSD_INPUTS; i++) {
        n->in[i] = reverse_input(i, node->in[i], second, &r->in[i]);
        n->gin[i] = reverse_input(i, node->gin[i], second, &r->gin[i]);
    }
    n->in[CAB_SSD_D] = n->gin[CAB_SSD_D] = NULL; /* the first direction has added D x */
    n->accumulate |= CAB_SAVE_IN(CAB_SSD_X) | CAB_SAVE_IN(CAB_SSD_B) | CAB_SAVE_IN(CAB_SSD_C);
    if (r->attributes.shared)
        n->accumulate |= CAB_SAVE_IN(CAB_SSD_DT) | CAB_SAVE_IN(CAB_SSD_DT_BIAS) | CAB_SAVE_IN(CAB_SSD_A_LOG);
    if (node->out[0] != NULL) {
        reverse_rows(node->out[0], 0, &r->out);
        n->out[0] = &r->out;
    }
    if (node->gout[0] != NULL) {
        reverse_rows(node->gout[0], 0, &r->gout);
        n->gout[0] = &r->gout;
    }
}

cab_tensor *cab_ssd_step(cab_graph *g, const cab_ssd_inputs *in, cab_tensor *state, int n_head, int n_group)
{
    cab_tensor *list[CAB_SSD_INPUTS + 1];
    char a[96];
    const cab_ssd_attributes attributes = {.n_head = n_head, .n_group = n_group};
    if (state == NULL || !take_inputs(g, "ssd_step", in, &attributes, list))
        return NULL;
    const cab_tensor *x = in->x;
    if (x->shape[1] != 1 || in->starts != NULL)
        return cab_graph_fail(g, CAB_ESHAPE, "ssd_step: x is %s%s, expected one token and no starts",
                              cab_shape_text(x, a), in->starts ? " with starts" : "");
    const int64_t size = cab_columns(x) / n_head * (cab_columns(in->B) / n_group);
    if (state->dtype != CAB_F32 || state->n_dim != 3 || state->shape[0] != x->shape[0] || state->shape[1] != n_head ||
        state->shape[2] != size)
        return cab_graph_fail(g, CAB_ESHAPE, "ssd_step: state is %s, expected (%" PRId64 ", %d, %" PRId64 ") F32",
                              cab_shape_text(state, a), x->shape[0], n_head, size);
    list[CAB_SSD_STATE] = state;
    cab_tensor *y = cab_graph_activation(g, "ssd_step", x->dtype, x->n_dim, x->shape);
    cab_graph_append(g, &cab_op_ssd_step, CAB_SSD_STATE + 1, list, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}
