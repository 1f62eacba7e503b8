/* attention.c - scaled dot-product attention and rotary positions.
 *
 *   s[i, j] = scale <q_i, k_j>      p = softmax over the j that i sees      y_i = sum_j p[i, j] v_j
 *
 *   dp[i, j] = <dy_i, v_j>      ds = scale p (dp - sum_j p dp)
 *   dq_i = sum_j ds[i, j] k_j      dk_j = sum_i ds[i, j] q_i      dv_j = sum_i p[i, j] dy_i
 *
 * q, y: (B, L, H*P)    k, v: (B, L, G*P), head h reads head h / (H / G) of k and v    second output: log-sum-exp of each
 * row of scores, (B, H, L) fp32, from which the backward pass makes p again. sum_j p dp is <dy_i, y_i> too, which is what
 * the GPU takes it from; y is kept for the product that follows anyway.
 *
 * Scores are made for CAB_ATTENTION_ROWS queries of one head at a time against the keys they can see. */
#include "ops/attention.h"

#include "ops/kernels.h"
#include "ops/record.h"

static const cab_attention_shape *shape_of(const cab_node *node)
{
    return node->attributes;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t cab_attention_length(const cab_node *node)
{
    return node->in[0]->shape[1];
}

int64_t cab_attention_blocks(const cab_node *node)
{
    return (cab_attention_length(node) + CAB_ATTENTION_ROWS - 1) / CAB_ATTENTION_ROWS;
}

void cab_attention_range(const cab_attention_shape *shape, int64_t length, int64_t row, int64_t *first, int64_t *end)
{
    *first = shape->window > 0 && row >= shape->window ? row - shape->window + 1 : 0;
    *end = shape->causal ? row + 1 : length;
}

static cab_status get(const cab_backend *backend, cab_attention_block *block, cab_gemm_shape shape,
                      const cab_gemm **gemm)
{
    shape.serial = true;
    CAB_TRY(cab_gemm_get(backend, &shape, gemm));
    size_t scratch = cab_gemm_scratch(*gemm);
    block->scratch = scratch > block->scratch ? scratch : block->scratch;
    return CAB_OK;
}

static cab_status get_forward(const cab_node *node, const cab_backend *backend, cab_attention_block *b)
{
    const cab_tensor *q = node->in[0], *k = node->in[1], *v = node->in[2];
    int64_t width = shape_of(node)->head_dim;
    CAB_TRY(get(backend, b,
                (cab_gemm_shape){.m = b->rows,
                                 .n = b->keys,
                                 .k = width,
                                 .a = cab_side_of(q, false),
                                 .b = cab_side_of(k, true),
                                 .c = cab_side_dense(CAB_F32, b->keys, false)},
                &b->scores));
    return node->backward ? CAB_OK
                          : get(backend, b,
                                (cab_gemm_shape){.m = b->rows,
                                                 .n = width,
                                                 .k = b->keys,
                                                 .a = cab_side_dense(q->dtype, b->keys, false),
                                                 .b = cab_side_of(v, false),
                                                 .c = cab_side_of(node->out[0], false)},
                                &b->values);
}

static cab_status get_backward(const cab_node *node, const cab_backend *backend, cab_attention_block *b)
{
    const cab_tensor *q = node->in[0], *k = node->in[1], *v = node->in[2], *dy = node->gout[0];
    int64_t width = shape_of(node)->head_dim;
    cab_side p = cab_side_dense(q->dtype, b->keys, false), transposed = cab_side_dense(q->dtype, b->keys, true);
    cab_side sum = cab_side_dense(CAB_F32, width, false), dp = cab_side_dense(CAB_F32, b->keys, false);
    cab_gemm_shape to_keys = {
        .m = b->rows, .n = b->keys, .k = width, .a = cab_side_of(dy, false), .b = cab_side_of(v, true), .c = dp};
    cab_gemm_shape from_keys = {.m = b->keys, .n = width, .k = b->rows, .a = transposed, .c = sum, .accumulate = true};
    CAB_TRY(get(backend, b, to_keys, &b->dp));
    if (node->gin[0])
        CAB_TRY(get(backend, b,
                    (cab_gemm_shape){.m = b->rows,
                                     .n = width,
                                     .k = b->keys,
                                     .a = p,
                                     .b = cab_side_of(k, false),
                                     .c = cab_side_of(node->gin[0], false),
                                     .accumulate = node->accumulate & 1u},
                    &b->dq));
    from_keys.b = cab_side_of(q, false);
    CAB_TRY(get(backend, b, from_keys, &b->dk));
    from_keys.b = cab_side_of(dy, false);
    return get(backend, b, from_keys, &b->dv);
}

cab_status cab_attention_block_get(const cab_node *node, const cab_backend *backend, int64_t index,
                                   cab_attention_block *block)
{
    const cab_attention_shape *s = shape_of(node);
    int64_t length = cab_attention_length(node), first = index * CAB_ATTENTION_ROWS, unused, begin, end;
    int64_t rows = min64(CAB_ATTENTION_ROWS, length - first);
    cab_attention_range(s, length, first, &begin, &unused);
    cab_attention_range(s, length, first + rows - 1, &unused, &end);
    begin -= begin % CAB_ATTENTION_ROWS; /* so that few different sizes occur */
    *block = (cab_attention_block){.first = first, .rows = rows, .first_key = begin, .keys = end - begin};
    CAB_TRY(get_forward(node, backend, block));
    return node->backward ? get_backward(node, backend, block) : CAB_OK;
}

static size_t place(size_t *end, size_t bytes)
{
    size_t offset = *end;
    *end += (bytes + 63) / 64 * 64;
    return offset;
}

cab_attention_memory cab_attention_memory_of(const cab_node *node, size_t gemm_scratch)
{
    size_t length = (size_t)cab_attention_length(node), width = (size_t)shape_of(node)->head_dim;
    size_t block = (size_t)min64(CAB_ATTENTION_ROWS, (int64_t)length) * length;
    bool low = node->in[0]->dtype == CAB_BF16;
    cab_attention_memory m = {0};
    m.scores = place(&m.size, block * sizeof(float));
    m.p = low ? place(&m.size, block * sizeof(cab_bf16)) : m.scores;
    if (node->backward) {
        m.dp = place(&m.size, block * sizeof(float));
        m.ds = low ? place(&m.size, block * sizeof(cab_bf16)) : m.dp;
        m.dk = place(&m.size, length * width * sizeof(float));
        m.dv = place(&m.size, length * width * sizeof(float));
    }
    m.gemm = place(&m.size, gemm_scratch);
    place(&m.table, (size_t)cab_attention_blocks(node) * sizeof(cab_attention_block));
    return m;
}

static size_t scratch(const cab_node *node, const cab_backend *backend)
{
    size_t most = 0;
    for (int64_t i = 0; i < cab_attention_blocks(node); i++) {
        cab_attention_block block;
        if (cab_attention_block_get(node, backend, i, &block) != CAB_OK)
            return 0;
        most = block.scratch > most ? block.scratch : most;
    }
    cab_attention_memory m = cab_attention_memory_of(node, most);
    return m.table + m.size * (size_t)backend->threads;
}

/* Pairs of query and key, 2 P operations for each product: two forward, five backward. */
static double attention_flops(const cab_node *node)
{
    const cab_attention_shape *s = shape_of(node);
    int64_t length = cab_attention_length(node), first, end;
    double pairs = 0;
    for (int64_t row = 0; row < length; row++) {
        cab_attention_range(s, length, row, &first, &end);
        pairs += (double)(end - first);
    }
    double product = 2.0 * pairs * (double)node->in[0]->shape[0] * s->n_head * s->head_dim;
    return product *
           (node->backward ? 2 + (node->gin[0] != NULL) + (node->gin[1] != NULL) + (node->gin[2] != NULL) : 2);
}

static const cab_op cab_op_attention = {
    .name = "attention", /* in: q k v   out: y, log-sum-exp */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1) | CAB_SAVE_IN(2) | CAB_SAVE_OUT(0) | CAB_SAVE_OUT(1),
    .forward = CAB_KERNELS(cab_attention_forward),
    .backward = CAB_KERNELS(cab_attention_backward),
    .forward_scratch = {[CAB_CPU] = scratch CAB_ON_CUDA(cab_attention_scratch_cuda)},
    .backward_scratch = {[CAB_CPU] = scratch CAB_ON_CUDA(cab_attention_scratch_cuda)},
    .flops = attention_flops,
};

static bool fits(cab_graph *g, const char *op, const cab_tensor *q, const cab_tensor *k, const cab_tensor *v,
                 const cab_attention_shape *s)
{
    char text[2][96];
    if (!cab_expect_dtype(g, op, q, CAB_DTYPES) || !cab_expect_dtype(g, op, k, q->dtype) ||
        !cab_expect_same(g, op, k, v))
        return false;
    if (s->n_kv_head > 0 && s->head_dim > 0 && s->n_head % s->n_kv_head == 0 && q->n_dim == 3 && k->n_dim == 3 &&
        q->shape[0] == k->shape[0] && q->shape[1] == k->shape[1] && q->shape[2] == (int64_t)s->n_head * s->head_dim &&
        k->shape[2] == (int64_t)s->n_kv_head * s->head_dim)
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "%s: q is %s, k %s; they do not fit %d and %d heads of %d", op,
                   cab_shape_text(q, text[0]), cab_shape_text(k, text[1]), s->n_head, s->n_kv_head, s->head_dim);
    return false;
}

cab_tensor *cab_attention(cab_graph *g, cab_tensor *q, cab_tensor *k, cab_tensor *v, const cab_attention_shape *shape)
{
    if (cab_graph_failed(g) || !q || !k || !v || !fits(g, "attention", q, k, v, shape))
        return NULL;
    int64_t rows[] = {q->shape[0], shape->n_head, q->shape[1]};
    cab_tensor *y = cab_graph_activation(g, "attention", q->dtype, 3, q->shape);
    cab_tensor *lse = cab_graph_activation(g, "log-sum-exp", CAB_F32, 3, rows);
    if (y && lse)
        cab_graph_append(g, &cab_op_attention, 3, (cab_tensor *[]){q, k, v}, 2, (cab_tensor *[]){y, lse}, shape,
                         sizeof *shape);
    return cab_graph_failed(g) ? NULL : y;
}

/* ---- one decoding step ------------------------------------------------------------------------------------------------- */

/* Per thread: the scores of all positions, and one row of q, k or v. */
static size_t step_scratch(const cab_node *node, const cab_backend *backend)
{
    size_t row = (size_t)node->in[3]->shape[1] + 2 * (size_t)shape_of(node)->head_dim;
    return row * sizeof(float) * (size_t)backend->threads;
}

static const cab_op cab_op_attention_step = {
    .name = "attention_step", /* in: q k v k_cache v_cache position   out: y */
    .forward = CAB_KERNELS(cab_attention_step_forward),
    .forward_scratch = {[CAB_CPU] = step_scratch CAB_ON_CUDA(cab_attention_step_scratch_cuda)},
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

/* cos and sin of every position and frequency. */
static size_t rotary_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_tensor *x = node->backward ? node->gout[0] : node->in[0];
    return (size_t)x->shape[1] * (size_t)cab_elements(node->in[1]) * 2 * sizeof(float);
}

static const cab_op cab_op_rotary = {
    .name = "rotary", /* in: x inv_freq first   out: y */
    .saves = CAB_SAVE_IN(1) | CAB_SAVE_IN(2),
    .forward = CAB_KERNELS(cab_rotary_forward),
    .backward = CAB_KERNELS(cab_rotary_backward),
    .forward_scratch = {[CAB_CPU] = rotary_scratch},
    .backward_scratch = {[CAB_CPU] = rotary_scratch},
};

cab_tensor *cab_rotary(cab_graph *g, cab_tensor *x, cab_tensor *inv_freq, cab_tensor *first, int n_head)
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
    cab_rotary_attributes attributes = {.n_head = n_head};
    if (y)
        cab_graph_append(g, &cab_op_rotary, 3, (cab_tensor *[]){x, inv_freq, first}, 1, &y, &attributes,
                         sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}
