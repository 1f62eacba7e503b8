/* mixer_matrix.c - the matrix of a state-space mixer against that of attention (MOHAWK's matrix orientation, Bick et al. 2024).
 *
 * Attention maps values to outputs by A, the mixer x to y by M, head by head. Of head h, with group g(h) of C and B:
 *
 *   M[i, j] = s <C_i, B_j> exp(log a[j + 1] + ... + log a[i]) delta_j       j <= i; j = i: plus s D
 *   M[i, j] = s <C_i, B_j> exp(log a'[i] + ... + log a'[j - 1]) delta'_j    j > i, by the second direction, where there is one
 *   A[i, j] = softmax over the j that i sees of scale <q_i, k_j>
 *
 *   loss = mean over sequences and pairs of heads of  ||M - A||^2 / ||A||^2         (Frobenius)
 *
 * With E = M - A, G = seed 2 E / (||A||^2 B pairs) and F = M / (<C, B> delta):
 *
 *   dC_i = sum_j G F delta B_j      dB_j = sum_i G F delta C_i      ddelta_j = sum_i G F <C_i, B_j>      dD = s sum_i G[i, i]
 *   dlog a[t] = sum over i >= t > j of G M, and for j > i over i <= t < j: running sums of  sum_j G M - sum_i G M
 *
 * Neither matrix is ever in memory: tiles of 64 x 64 are made, compared and dropped. Two ops come before: mixer_decay gives log a and
 * delta, attention_rows what of each row of A a tile does not know, the logarithm of its sum, and 1 / ||A||^2.
 *
 * C, B: (B, L, G N)    log a, delta: (B, L, H) fp32    q: (B, L, H' P)    k: (B, L, G' P) */
#include "ops/mixer_matrix.h"

#include "ops/record.h"

/* ---- decays ------------------------------------------------------------------------------------------------------------ */

const cab_op cab_op_mixer_decay = {
    .name = "mixer_decay", /* in: dt dt_bias A_log   out: log a, delta (NULL: 1) */
    .saves = CAB_SAVE_IN(CAB_DECAY_DT) | CAB_SAVE_IN(CAB_DECAY_BIAS) | CAB_SAVE_IN(CAB_DECAY_A_LOG),
};

cab_mixer_decays cab_mixer_decay(cab_graph *g, cab_tensor *dt, cab_tensor *dt_bias, cab_tensor *A_log)
{
    char a[96], b[96];
    cab_mixer_decays decays = {0};
    if (cab_graph_failed(g) || dt == NULL || !cab_expect_dtype(g, "mixer_decay", dt, CAB_DTYPES))
        return decays;
    const int64_t H = cab_columns(dt);
    if (dt->n_dim != 3 || (A_log != NULL && (A_log->dtype != CAB_F32 || A_log->shape[0] != H || A_log->n_dim > 2 ||
                                             (A_log->n_dim == 2 && A_log->shape[1] > 1 && !A_log->tied)))) {
        cab_graph_fail(g, CAB_ESHAPE,
                       "mixer_decay: dt is %s and A_log %s, expected (B, L, H), and (H) or, if it is tied, (H, N)",
                       cab_shape_text(dt, a), A_log != NULL ? cab_shape_text(A_log, b) : "not given");
        return decays;
    }
    if (dt_bias != NULL &&
        (!cab_expect_dtype(g, "mixer_decay", dt_bias, CAB_F32) || !cab_expect_vector(g, "mixer_decay", dt_bias, H)))
        return decays;
    cab_tensor *out[2] = {cab_graph_activation(g, "log a", CAB_F32, 3, dt->shape), NULL};
    if (A_log != NULL)
        out[1] = cab_graph_activation(g, "delta", CAB_F32, 3, dt->shape);
    cab_graph_append(g, &cab_op_mixer_decay, CAB_DECAY_INPUTS, (cab_tensor *[]){dt, dt_bias, A_log}, 2, out, NULL, 0);
    if (!cab_graph_failed(g))
        decays = (cab_mixer_decays){.log_a = out[0], .step = out[1]};
    return decays;
}

/* ---- rows of attention --------------------------------------------------------------------------------------------------- */

/* One product. */
static double rows_flops(const cab_node *node)
{
    const cab_attention_rows_attributes *a = node->attributes;
    const double L = (double)node->in[CAB_ROWS_Q]->shape[1], B = (double)node->in[CAB_ROWS_Q]->shape[0];
    return (a->shape.causal ? 1.0 : 2.0) * B * L * L * a->shape.n_head * a->shape.head_dim;
}

const cab_op cab_op_attention_rows = {
    .name = "attention_rows", /* in: q k starts   out: log-sum-exp (B, H', L), 1 / ||A||^2 (B, H') */
    .flops = rows_flops,
};

static bool attention_fits(cab_graph *g, const cab_tensor *q, const cab_tensor *k, const cab_tensor *starts,
                           const cab_attention_rows_attributes *a)
{
    const cab_attention_shape *s = &a->shape;
    const int64_t skip = a->align.mapped ? a->align.rows.skip : 0;
    char text[2][96];
    if (!cab_expect_dtype(g, "attention_rows", q, CAB_DTYPES) || !cab_expect_dtype(g, "attention_rows", k, q->dtype) ||
        !cab_expect_starts(g, "attention_rows", starts, q))
        return false;
    if (s->n_kv_head < 1 || s->head_dim < 1 || s->n_head < 1 || s->n_head % s->n_kv_head != 0 || q->n_dim != 3 ||
        k->n_dim != 3 || q->shape[0] != k->shape[0] || q->shape[1] != k->shape[1] ||
        cab_columns(q) != (int64_t)s->n_head * s->head_dim || cab_columns(k) != (int64_t)s->n_kv_head * s->head_dim) {
        cab_graph_fail(g, CAB_ESHAPE, "attention_rows: q is %s, k %s; they do not fit %d and %d heads of %d",
                       cab_shape_text(q, text[0]), cab_shape_text(k, text[1]), s->n_head, s->n_kv_head, s->head_dim);
        return false;
    }
    if (a->align.mapped ? s->causal || s->window > 0 || skip < 0 || skip + 1 >= q->shape[1] : starts && !s->causal) {
        cab_graph_fail(g, CAB_EARG, "attention_rows: rows in another order, or documents, with such attention");
        return false;
    }
    return true;
}

static bool same_rows(const cab_attention_rows_attributes *a, const cab_attention_rows_attributes *b)
{
    const cab_attention_shape *s = &a->shape, *t = &b->shape;
    return s->n_head == t->n_head && s->n_kv_head == t->n_kv_head && s->head_dim == t->head_dim &&
           s->scale == t->scale && s->causal == t->causal && s->window == t->window && s->cap == t->cap &&
           a->align.mapped == b->align.mapped && a->align.rows.class_at == b->align.rows.class_at &&
           a->align.rows.skip == b->align.rows.skip;
}

/* Once for all layers that learn from the same attention. */
static bool take_rows(cab_graph *g, cab_tensor *q, cab_tensor *k, cab_tensor *starts,
                      const cab_attention_rows_attributes *a, cab_tensor *out[2])
{
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        if (node->op == &cab_op_attention_rows && node->in[CAB_ROWS_Q] == q && node->in[CAB_ROWS_K] == k &&
            same_rows(node->attributes, a)) {
            out[0] = node->out[0];
            out[1] = node->out[1];
            return true;
        }
    }
    if (!attention_fits(g, q, k, starts, a))
        return false;
    const int64_t shape[3] = {q->shape[0], a->shape.n_head, cab_align_length(&a->align, q)};
    out[0] = cab_graph_activation(g, "log-sum-exp", CAB_F32, 3, shape);
    out[1] = cab_graph_activation(g, "inverse square", CAB_F32, 2, shape);
    cab_graph_append(g, &cab_op_attention_rows, CAB_ROWS_INPUTS, (cab_tensor *[]){q, k, starts}, 2, out, a, sizeof *a);
    return !cab_graph_failed(g);
}

/* ---- the loss -------------------------------------------------------------------------------------------------------------- */

/* <C, B> of each group and direction, the scores of each head of attention; backward dC and dB besides. */
static double loss_flops(const cab_node *node)
{
    const cab_mixer_matrix_attributes *a = node->attributes;
    const cab_mixer_matrix_sizes s = cab_mixer_matrix_sizes_of(node);
    const double pairs = (double)s.B * (double)s.L * (double)s.L * (a->both ? 1.0 : 0.5);
    return 2 * pairs * ((node->backward ? 3.0 : 1.0) * s.G * s.N + (double)a->rows.shape.n_head * s.P);
}

const cab_op cab_op_mixer_matrix_loss = {
    .name = "mixer_matrix_loss", /* in: C B log_a step D, of a second direction, q k lse weight starts   out: loss */
    .saves = CAB_SAVE_IN(CAB_MIXER_INPUTS) - 1,
    .backward_computes_outputs = true,
    .flops = loss_flops,
};

static bool tokens_fit(cab_graph *g, const char *what, const cab_tensor *t, const cab_tensor *C, int64_t columns,
                       cab_dtype dtype)
{
    char a[96], b[96];
    if (t->n_dim == 3 && t->dtype == dtype && t->shape[0] == C->shape[0] && t->shape[1] == C->shape[1] &&
        cab_columns(t) == columns)
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "mixer_matrix_loss: %s is %s, expected %" PRId64 " columns for C %s", what,
                   cab_shape_text(t, a), columns, cab_shape_text(C, b));
    return false;
}

static bool direction_fits(cab_graph *g, const cab_mixer_direction *d, const cab_tensor *C, int64_t columns, int n_head)
{
    if (d->C == NULL)
        return true;
    if (d->D != NULL && (!cab_expect_dtype(g, "mixer_matrix_loss", d->D, CAB_F32) ||
                         !cab_expect_vector(g, "mixer_matrix_loss", d->D, n_head)))
        return false;
    return tokens_fit(g, "C", d->C, C, cab_columns(C), C->dtype) &&
           tokens_fit(g, "B", d->B, C, cab_columns(C), C->dtype) &&
           tokens_fit(g, "log a", d->decays.log_a, C, columns, CAB_F32) &&
           (d->decays.step == NULL || tokens_fit(g, "delta", d->decays.step, C, columns, CAB_F32));
}

static bool complete(const cab_mixer_direction *d)
{
    return d->C != NULL && d->B != NULL && d->decays.log_a != NULL;
}

static bool mixer_fits(cab_graph *g, const cab_mixer_matrix *m, const cab_mixer_matrix_attributes *a)
{
    const cab_tensor *C = m->directions[0].C;
    const int64_t columns = cab_columns(m->directions[0].decays.log_a);
    char text[96];
    if (C->n_dim != 3 || !cab_expect_dtype(g, "mixer_matrix_loss", C, CAB_DTYPES))
        return false;
    if (a->n_head < 1 || a->n_group < 1 || a->n_head % a->n_group != 0 || a->share < 1 || a->width < 1 || a->of < 1 ||
        cab_columns(C) % a->n_group != 0 || cab_columns(C) / a->n_group > CAB_MIXER_STATE_MOST) {
        cab_graph_fail(g, CAB_ESHAPE, "mixer_matrix_loss: C is %s, expected (B, L, G * N) of %d groups, N at most %d",
                       cab_shape_text(C, text), a->n_group, CAB_MIXER_STATE_MOST);
        return false;
    }
    if (columns != a->n_head && !(a->both && !a->own && columns == 2 * (int64_t)a->n_head)) {
        cab_graph_fail(g, CAB_ESHAPE, "mixer_matrix_loss: log a is %s of %d heads",
                       cab_shape_text(m->directions[0].decays.log_a, text), a->n_head);
        return false;
    }
    return direction_fits(g, &m->directions[0], C, columns, a->n_head) &&
           direction_fits(g, &m->directions[1], C, columns, a->n_head);
}

static int count_pairs(const cab_mixer_matrix_attributes *a)
{
    int pairs = 0;
    for (int h = 0; h < a->n_head; h++) {
        int first, end;
        cab_mixer_heads(a, h, &first, &end);
        pairs += end - first;
    }
    return pairs;
}

static void list_direction(const cab_mixer_direction *d, cab_tensor **in)
{
    in[CAB_MIXER_C] = d->C;
    in[CAB_MIXER_B] = d->B;
    in[CAB_MIXER_LOG_A] = d->decays.log_a;
    in[CAB_MIXER_STEP] = d->decays.step;
    in[CAB_MIXER_D] = d->D;
}

static bool attend_alike(cab_graph *g, const cab_mixer_matrix *m, const cab_mixer_matrix_attributes *a)
{
    const cab_tensor *C = m->directions[0].C, *q = m->q;
    char text[2][96];
    if (q->dtype != C->dtype || q->shape[0] != C->shape[0] || cab_align_length(&a->rows.align, q) != C->shape[1]) {
        cab_graph_fail(g, CAB_ESHAPE, "mixer_matrix_loss: q is %s, C %s; their tokens differ",
                       cab_shape_text(q, text[0]), cab_shape_text(C, text[1]));
        return false;
    }
    if (a->rows.shape.causal == a->both) {
        cab_graph_fail(g, CAB_EARG, "mixer_matrix_loss: one of mixer and attention is causal, the other is not");
        return false;
    }
    return true;
}

cab_tensor *cab_mixer_matrix_loss(cab_graph *g, const cab_mixer_matrix *m)
{
    if (cab_graph_failed(g) || !complete(&m->directions[0]) || m->q == NULL || m->k == NULL)
        return NULL;
    const int64_t columns = cab_columns(m->directions[0].decays.log_a);
    cab_mixer_matrix_attributes a = {
        .n_head = m->n_head,
        .n_group = m->n_group,
        .share = m->share,
        .width = m->width,
        .of = m->of,
        .second = columns == m->n_head ? 0 : m->n_head,
        .both = m->both,
        .own = complete(&m->directions[1]),
        .scale = m->scale,
        .rows = {.shape = m->attention,
                 .align = {.mapped = m->rows != NULL, .rows = m->rows != NULL ? *m->rows : (cab_row_map){0}}}};
    cab_tensor *in[CAB_MIXER_INPUTS] = {[CAB_MIXER_Q] = m->q, [CAB_MIXER_K] = m->k, [CAB_MIXER_STARTS] = m->starts};
    if (!mixer_fits(g, m, &a) || !take_rows(g, m->q, m->k, m->starts, &a.rows, in + CAB_MIXER_LSE) ||
        !attend_alike(g, m, &a))
        return NULL;
    a.n_pair = count_pairs(&a);
    if (a.n_pair == 0)
        return cab_graph_fail(g, CAB_ESHAPE, "mixer_matrix_loss: no head of the mixer stands for a head of attention");
    list_direction(&m->directions[0], in);
    list_direction(&m->directions[1], in + CAB_MIXER_DIRECTION);
    cab_tensor *loss = cab_graph_activation(g, "mixer_matrix_loss", CAB_F32, 1, (int64_t[]){1});
    cab_graph_append(g, &cab_op_mixer_matrix_loss, CAB_MIXER_INPUTS, in, 1, &loss, &a, sizeof a);
    return cab_graph_failed(g) ? NULL : loss;
}
