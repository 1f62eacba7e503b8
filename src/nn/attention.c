#include "nn/attention.h"

static void project(cab_graph *g, const cab_attention_mixer *m, cab_tensor *u, cab_tensor *qkv[3])
{
    const int64_t P = m->shape.head_dim;
    const int64_t sizes[3] = {m->shape.n_head * P, m->shape.n_kv_head * P, m->shape.n_kv_head * P};
    if (m->qkv.w != NULL) {
        cab_split(g, cab_dense_record(g, &m->qkv, u), 3, sizes, qkv);
        return;
    }
    qkv[0] = cab_dense_record(g, &m->q, u);
    qkv[1] = cab_dense_record(g, &m->k, u);
    qkv[2] = cab_dense_record(g, &m->v, u);
}

static cab_tensor *norm_heads(cab_graph *g, const cab_norm *norm, cab_tensor *x, int64_t head_dim)
{
    if (norm->w == NULL || x == NULL)
        return x;
    const int64_t B = x->shape[0], L = x->shape[1], width = cab_columns(x);
    if (cab_elements(norm->w) == width)
        return cab_norm_record(g, norm, x);
    x = cab_norm_record(g, norm, cab_reshape(g, x, 4, (int64_t[]){B, L, width / head_dim, head_dim}));
    return cab_reshape(g, x, 3, (int64_t[]){B, L, width});
}

/* One token against a cache of max_length positions. */
static cab_tensor *attend_step(cab_graph *g, const cab_context *context, const cab_attention_shape *shape,
                               cab_tensor *const qkv[3])
{
    if (qkv[0] == NULL || qkv[1] == NULL || qkv[2] == NULL)
        return NULL;
    const int64_t cache[3] = {qkv[0]->shape[0], context->max_length, (int64_t)shape->n_kv_head * shape->head_dim};
    cab_tensor *keys = cab_graph_state(g, "key cache", qkv[1]->dtype, 3, cache);
    cab_tensor *values = cab_graph_state(g, "value cache", qkv[2]->dtype, 3, cache);
    return cab_attention_step(g, qkv[0], qkv[1], qkv[2], keys, values, context->position, shape);
}

cab_tensor *cab_attention_mixer_record(cab_graph *g, cab_context *context, const cab_attention_mixer *m, cab_tensor *u)
{
    cab_tensor *qkv[3];
    project(g, m, u, qkv);
    qkv[0] = norm_heads(g, &m->q_norm, qkv[0], m->shape.head_dim);
    qkv[1] = norm_heads(g, &m->k_norm, qkv[1], m->shape.head_dim);
    qkv[0] = cab_context_rotate(g, context, qkv[0], &m->rope, m->shape.n_head);
    qkv[1] = cab_context_rotate(g, context, qkv[1], &m->rope, m->shape.n_kv_head);
    if (m->query_scale > 0)
        qkv[0] = cab_scale(g, qkv[0], m->query_scale);
    cab_context_tap(context, CAB_TAP_QUERY, qkv[0]);
    cab_context_tap(context, CAB_TAP_KEY, qkv[1]);
    cab_context_tap(context, CAB_TAP_VALUE, qkv[2]);
    cab_tensor *mixed = context->position != NULL
                            ? attend_step(g, context, &m->shape, qkv)
                            : cab_attention(g, qkv[0], qkv[1], qkv[2], context->starts, &m->shape);
    return cab_dense_record(g, &m->out, mixed);
}
