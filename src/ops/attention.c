/* attention.c - scaled dot-product attention and rotary positions.
 *
 *   s[i, j] = scale <q_i, k_j>, or cap tanh of it / cap      p = softmax over the j that i sees      y_i = sum_j p[i, j] v_j
 *
 *   dp[i, j] = <dy_i, v_j>      ds = scale p (dp - sum_j p dp), times 1 - (s / cap)^2
 *   dq_i = sum_j ds[i, j] k_j      dk_j = sum_i ds[i, j] q_i      dv_j = sum_i p[i, j] dy_i
 *
 * q, y: (B, L, H*P)    k, v: (B, L, G*P), head h reads head h / (H / G) of k and v    second output: log-sum-exp of each
 * row of scores, (B, H, L) fp32, from which the backward pass makes p again. sum_j p dp is <dy_i, y_i> too, which is what
 * the GPU takes it from; y is kept for the product that follows anyway.
 */
#include "ops/attention.h"

#include "ops/record.h"

static const cab_attention_shape *shape_of(const cab_node *node)
{
    return node->attributes;
}

int64_t cab_attention_first(const cab_node *node, int64_t b, int64_t row, int64_t first)
{
    const cab_tensor *starts = node->in[CAB_ATTENTION_STARTS];
    const int64_t start = starts ? ((const int32_t *)starts->data)[b * starts->ld + row] : 0;
    return start > first ? start : first;
}

void cab_attention_range(const cab_attention_shape *shape, int64_t length, int64_t row, int64_t *first, int64_t *end)
{
    *first = shape->window > 0 && row >= shape->window ? row - shape->window + 1 : 0;
    *end = shape->causal ? row + 1 : length;
}

/* Pairs of query and key, 2 P operations for each product: two forward, five backward. */
static double attention_flops(const cab_node *node)
{
    const cab_attention_shape *s = shape_of(node);
    int64_t length = node->in[0]->shape[1], first, end;
    double pairs = 0;
    for (int64_t row = 0; row < length; row++) {
        cab_attention_range(s, length, row, &first, &end);
        pairs += (double)(end - first);
    }
    double product = 2.0 * pairs * (double)node->in[0]->shape[0] * s->n_head * s->head_dim;
    return product *
           (node->backward ? 2 + (node->gin[0] != NULL) + (node->gin[1] != NULL) + (node->gin[2] != NULL) : 2);
}

const cab_op cab_op_attention = {
    .name = "attention", /* in: q k v starts   out: y, log-sum-exp */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1) | CAB_SAVE_IN(2) | CAB_SAVE_IN(CAB_ATTENTION_STARTS) | CAB_SAVE_OUT(0) |
             CAB_SAVE_OUT(1),
    .flops = attention_flops,
};

static bool fits(cab_graph *g, const char *op, const cab_tensor *q, const cab_tensor *k, const cab_tensor *v,
                 const cab_attention_shape *s)
{
    char text[2][96];
    if (!cab_expect_dtype(g, op, q, CAB_DTYPES) || !cab_expect_dtype(g, op, k, q->dtype) ||
        !cab_expect_same(g, op, k, v))
        return false;
    if (s->cap >= 0 && s->n_kv_head > 0 && s->head_dim > 0 && s->n_head % s->n_kv_head == 0 && q->n_dim == 3 &&
        k->n_dim == 3 && q->shape[0] == k->shape[0] && q->shape[1] == k->shape[1] &&
        q->shape[2] == (int64_t)s->n_head * s->head_dim && k->shape[2] == (int64_t)s->n_kv_head * s->head_dim)
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "%s: q is %s, k %s; they do not fit %d and %d heads of %d", op,
                   cab_shape_text(q, text[0]), cab_shape_text(k, text[1]), s->n_head, s->n_kv_head, s->head_dim);
    return false;
}

cab_tensor *cab_attention(cab_graph *g, cab_tensor *q, cab_tensor *k, cab_tensor *v, cab_tensor *starts,
                          const cab_attention_shape *shape)
{
    if (cab_graph_failed(g) || !q || !k || !v || !fits(g, "attention", q, k, v, shape) ||
        !cab_expect_starts(g, "attention", starts, q))
        return NULL;
    if (starts && !shape->causal)
        return cab_graph_fail(g, CAB_EARG, "attention: starts of documents where tokens see those behind them");
    int64_t rows[] = {q->shape[0], shape->n_head, q->shape[1]};
    cab_tensor *y = cab_graph_activation(g, "attention", q->dtype, 3, q->shape);
    cab_tensor *lse = cab_graph_activation(g, "log-sum-exp", CAB_F32, 3, rows);
    if (y && lse)
        cab_graph_append(g, &cab_op_attention, 4, (cab_tensor *[]){q, k, v, starts}, 2, (cab_tensor *[]){y, lse}, shape,
                         sizeof *shape);
    return cab_graph_failed(g) ? NULL : y;
}

/* ---- one decoding step ------------------------------------------------------------------------------------------------- */

const cab_op cab_op_attention_step = {
    .name = "attention_step", /* in: q k v k_cache v_cache position   out: y */
};

cab_tensor *cab_attention_step(cab_graph *g, cab_tensor *q, cab_tensor *k, cab_tensor *v, cab_tensor *k_cache,
                               cab_tensor *v_cache, cab_tensor *position, const cab_attention_shape *shape)
{
    static const char op[] = "attention_step";
    if (cab_graph_failed(g) || !q || !k || !v || !k_cache || !v_cache || !position || !fits(g, op, q, k, v, shape) ||
        !cab_expect_index(g, op, position) || !cab_expect_dtype(g, op, k_cache, CAB_DTYPES) ||
        !cab_expect_same(g, op, k_cache, v_cache))
        return NULL;
    if (q->shape[1] != 1 || k_cache->n_dim != 3 || k_cache->shape[0] != k->shape[0] ||
        k_cache->shape[2] != k->shape[2]) {
        char text[2][96];
        return cab_graph_fail(g, CAB_ESHAPE, "%s: k is %s and its cache %s, expected one token and as many columns", op,
                              cab_shape_text(k, text[0]), cab_shape_text(k_cache, text[1]));
    }
    cab_tensor *in[] = {q, k, v, k_cache, v_cache, position};
    cab_tensor *y = cab_graph_activation(g, op, q->dtype, 3, q->shape);
    if (y)
        cab_graph_append(g, &cab_op_attention_step, 6, in, 1, &y, shape, sizeof *shape);
    return cab_graph_failed(g) ? NULL : y;
}

/* ---- rotary positions ---------------------------------------------------------------------------------------------------- */

const cab_op cab_op_rotary = {
    .name = "rotary", /* in: x inv_freq first   out: y */
    .saves = CAB_SAVE_IN(1) | CAB_SAVE_IN(2),
};

cab_tensor *cab_rotary(cab_graph *g, cab_tensor *x, cab_tensor *inv_freq, cab_tensor *first, int n_head, float scale)
{
    if (cab_graph_failed(g) || !x || !inv_freq || !cab_expect_dtype(g, "rotary", x, CAB_DTYPES) ||
        !cab_expect_dtype(g, "rotary", inv_freq, CAB_F32) || !cab_expect_index(g, "rotary", first))
        return NULL;
    if (x->n_dim != 3 || n_head < 1 || cab_columns(x) % n_head != 0 || cab_columns(x) / n_head > CAB_ROTARY_MAX ||
        2 * cab_elements(inv_freq) > cab_columns(x) / n_head) {
        char text[96];
        return cab_graph_fail(g, CAB_ESHAPE, "rotary: \"%s\" is %s, expected (B, L, %d heads of %" PRId64 " to %d)",
                              x->name, cab_shape_text(x, text), n_head, 2 * cab_elements(inv_freq), CAB_ROTARY_MAX);
    }
    cab_tensor *y = cab_graph_activation(g, "rotary", x->dtype, 3, x->shape);
    cab_rotary_attributes attributes = {.n_head = n_head, .scale = scale};
    if (y)
        cab_graph_append(g, &cab_op_rotary, 3, (cab_tensor *[]){x, inv_freq, first}, 1, &y, &attributes,
                         sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}
