/* head_loss.c - vocabulary losses: head, cross-entropy and KL in one op over chunks of rows.
 *
 *   s = hidden W^T + b, or cap tanh of it / cap      t likewise for the teacher      log p = log softmax(s)
 *   ce = mean over rows with a label of -log p[label], or of -sum_v y_v log p_v where targets y are given
 *   kl = mean over valid rows of T^2 sum_v q_T (log q_T - log p_T)      p_T = softmax(s / T), q_T = softmax(t / T)
 *   ds = seed_ce / n_ce (sum(y) p - y) + seed_kl T / n_kl (p_T - q_T)
 *   with a cap ds is multiplied by 1 - (s / cap)^2
 *   dhidden = ds W      dW = ds^T hidden      db = sum over rows of ds
 *
 * with y = onehot(label) where there are no targets. Of a teacher that is its k likeliest words, q_v for v among them, r = 1 - sum of q:
 *
 *   t_v = log q_v among the words      t_v = log p_v + log(r / P) elsewhere, P the sum of p there
 *
 * so that elsewhere the teacher is what the student is, but for the sum of it: the KL is that of k + 1 events, and its gradient
 * p_v - q_v among the words, p_v (1 - r / P) elsewhere.
 *
 * hidden: (B, L, D)    W: (V, D)    b: (V)    labels, valid: (B, L) I32    targets: (B, L, V) F32
 * The gradient comes with the values, chunk by chunk (backward_computes_outputs), so that no logits outlive their chunk. */
#include "ops/head_loss.h"

#include "ops/head_loss_workspace.h"
#include "ops/ops.h"

#include <inttypes.h>
#include <math.h>

static double head_flops(const cab_node *node)
{
    double flops = 0.0;
    for (int i = CAB_HEAD_HIDDEN; i <= CAB_HEAD_TEACHER_HIDDEN; i += CAB_HEAD_TEACHER_HIDDEN - CAB_HEAD_HIDDEN)
        if (node->in[i] != NULL)
            flops += 2.0 * (double)cab_elements(node->in[i]) * (double)node->in[i + 1]->shape[0];
    return flops;
}

const cab_op cab_op_head_loss = {
    .name = "head_loss", /* in: hidden w b, teacher's hidden w b, labels valid targets   out: ce count [kl agreement] */
    .saves = (CAB_SAVE_IN(CAB_HEAD_INPUTS) - 1),
    .backward_computes_outputs = true,
    .flops = head_flops,
};

static bool side_fits(cab_graph *g, const char *who, const cab_head_side *side, int64_t rows, cab_dtype dtype)
{
    char a[96], b[96];
    const cab_tensor *hidden = side->hidden, *w = side->w, *bias = side->b;
    if ((dtype != CAB_F32 && dtype != CAB_BF16) || hidden->dtype != dtype || cab_rows(hidden) != rows) {
        cab_graph_fail(g, CAB_ESHAPE,
                       "head_loss: %s's hidden is %s, expected %" PRId64 " rows, F32 or BF16 as the student's", who,
                       cab_shape_text(hidden, a), rows);
        return false;
    }
    if (!(side->cap >= 0.0f) || !isfinite(side->cap)) {
        cab_graph_fail(g, CAB_EARG, "head_loss: %s's cap is %g, expected a number from 0", who, (double)side->cap);
        return false;
    }
    if (w->n_dim != 2 || w->shape[1] != cab_columns(hidden)) {
        cab_graph_fail(g, CAB_ESHAPE, "head_loss: %s's w is %s, expected (V, D) for hidden %s", who,
                       cab_shape_text(w, a), cab_shape_text(hidden, b));
        return false;
    }
    if (bias != NULL && (bias->n_dim != 1 || bias->shape[0] != w->shape[0])) {
        cab_graph_fail(g, CAB_ESHAPE, "head_loss: %s's bias is %s, expected (%" PRId64 ")", who,
                       cab_shape_text(bias, a), w->shape[0]);
        return false;
    }
    return true;
}

static bool rows_fit(cab_graph *g, const char *what, const cab_tensor *t, int64_t rows)
{
    char a[96];
    if (t->dtype == CAB_I32 && cab_elements(t) == rows && t->ld == cab_columns(t))
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "head_loss: %s is %s, expected I32, one for each of %" PRId64 " rows", what,
                   cab_shape_text(t, a), rows);
    return false;
}

static bool head_fits(cab_graph *g, const cab_head_side *student, const cab_head_side *teacher,
                      const cab_tensor *labels, const cab_tensor *valid, float temperature)
{
    const int64_t rows = cab_rows(student->hidden);
    const cab_dtype dtype = student->hidden->dtype;
    if (!side_fits(g, "the student", student, rows, dtype) || !rows_fit(g, "labels", labels, rows) ||
        (valid != NULL && !rows_fit(g, "valid", valid, rows)))
        return false;
    if (!(temperature > 0.0f) || !isfinite(temperature)) {
        cab_graph_fail(g, CAB_EARG, "head_loss: temperature is %g, expected a positive number", (double)temperature);
        return false;
    }
    if (teacher == NULL)
        return true;
    if (!side_fits(g, "the teacher", teacher, rows, dtype))
        return false;
    if (teacher->w->shape[0] != student->w->shape[0]) {
        cab_graph_fail(g, CAB_ESHAPE, "head_loss: the student has %" PRId64 " words and the teacher %" PRId64,
                       student->w->shape[0], teacher->w->shape[0]);
        return false;
    }
    return true;
}

static bool targets_fit(cab_graph *g, const cab_tensor *targets, int64_t rows, int64_t V)
{
    char a[96];
    if (targets->dtype == CAB_F32 && cab_rows(targets) == rows && cab_columns(targets) == V && targets->ld == V)
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "head_loss: targets are %s, expected F32, %" PRId64 " for each of %" PRId64 " rows",
                   cab_shape_text(targets, a), V, rows);
    return false;
}

static bool complete(const cab_head_side *side)
{
    return side->hidden != NULL && side->w != NULL;
}

static bool words_fit(cab_graph *g, const cab_head_words *words, int64_t rows, int64_t V)
{
    char a[96], b[96];
    const cab_tensor *ids = words->ids, *top = words->top;
    if (ids->dtype == CAB_I32 && top->dtype == CAB_F32 && cab_rows(ids) == rows && cab_rows(top) == rows &&
        cab_columns(ids) == cab_columns(top) && cab_columns(ids) <= V && ids->ld == cab_columns(ids) &&
        top->ld == cab_columns(top))
        return true;
    cab_graph_fail(g, CAB_ESHAPE,
                   "head_loss: the teacher's words are %s and %s, expected I32 and F32 of %" PRId64
                   " rows, of at most %" PRId64 " words",
                   cab_shape_text(ids, a), cab_shape_text(top, b), rows, V);
    return false;
}

cab_head_losses cab_head_loss(cab_graph *g, const cab_head_side *student, const cab_head_side *teacher,
                              cab_tensor *labels, cab_tensor *valid, float temperature)
{
    return cab_head_loss_targets(g, student, teacher, labels, NULL, valid, temperature);
}

/* words: in the teacher's place; both NULL: no teacher. */
static cab_head_losses record(cab_graph *g, const cab_head_side *student, const cab_head_side *teacher,
                              const cab_head_words *words, cab_tensor *labels, cab_tensor *targets, cab_tensor *valid,
                              float temperature)
{
    const cab_head_losses none = {0};
    const bool taught = teacher != NULL || words != NULL;
    if (cab_graph_failed(g) || !complete(student) || (teacher != NULL && !complete(teacher)) || labels == NULL ||
        (words != NULL && (words->ids == NULL || words->top == NULL)) ||
        !head_fits(g, student, teacher, labels, valid, temperature) ||
        (words != NULL && !words_fit(g, words, cab_rows(student->hidden), student->w->shape[0])) ||
        (targets != NULL && !targets_fit(g, targets, cab_rows(student->hidden), student->w->shape[0])))
        return none;
    const cab_dtype dtype = student->hidden->dtype;
    cab_tensor *in[CAB_HEAD_INPUTS] = {[CAB_HEAD_HIDDEN] = student->hidden,
                                       [CAB_HEAD_W] = cab_graph_weight(g, student->w, dtype),
                                       [CAB_HEAD_B] = student->b,
                                       [CAB_HEAD_LABELS] = labels,
                                       [CAB_HEAD_VALID] = valid,
                                       [CAB_HEAD_TARGETS] = targets,
                                       [CAB_HEAD_IDS] = words != NULL ? words->ids : NULL,
                                       [CAB_HEAD_TOP] = words != NULL ? words->top : NULL};
    if (teacher != NULL) {
        in[CAB_HEAD_TEACHER_HIDDEN] = teacher->hidden;
        in[CAB_HEAD_TEACHER_W] = cab_graph_weight(g, teacher->w, dtype);
        in[CAB_HEAD_TEACHER_B] = teacher->b;
    }
    if (cab_graph_failed(g))
        return none;
    const cab_head_losses losses = {
        .ce = cab_graph_activation(g, "ce", CAB_F32, 1, (int64_t[]){1}),
        .count = cab_graph_activation(g, "count", CAB_F32, 1, (int64_t[]){2}),
        .kl = taught ? cab_graph_activation(g, "kl", CAB_F32, 1, (int64_t[]){1}) : NULL,
        .agreement = taught ? cab_graph_activation(g, "agreement", CAB_F32, 1, (int64_t[]){1}) : NULL};
    cab_tensor *out[CAB_HEAD_OUTPUTS] = {losses.ce, losses.count, losses.kl, losses.agreement};
    const cab_head_attributes attributes = {.temperature = temperature,
                                            .cap = {student->cap, teacher != NULL ? teacher->cap : 0.0f}};
    cab_graph_append(g, &cab_op_head_loss, CAB_HEAD_INPUTS, in, taught ? CAB_HEAD_OUTPUTS : CAB_HEAD_KL, out,
                     &attributes, sizeof attributes);
    return cab_graph_failed(g) ? none : losses;
}

cab_head_losses cab_head_loss_targets(cab_graph *g, const cab_head_side *student, const cab_head_side *teacher,
                                      cab_tensor *labels, cab_tensor *targets, cab_tensor *valid, float temperature)
{
    return record(g, student, teacher, NULL, labels, targets, valid, temperature);
}

cab_head_losses cab_head_loss_words(cab_graph *g, const cab_head_side *student, const cab_head_words *teacher,
                                    cab_tensor *labels, cab_tensor *valid, float temperature)
{
    return record(g, student, NULL, teacher, labels, NULL, valid, temperature);
}
