/* phi.c - Phi-1, Phi-1.5 and Phi-2 (Li et al. 2023), Hugging Face layout.
 *
 *   x = embed_tokens[ids]
 *   per layer:  u = input_layernorm(x)     x = x + dense(attention(rotary(q), rotary(k), v)) + fc2(gelu(fc1(u)))
 *   logits = lm_head(final_layernorm(x))
 *
 * Attention and MLP are parallel, on the same u. The first partial_rotary_factor of every head is rotated. */
#include "models/architectures.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct layer {
    cab_norm norm;
    cab_dense q, k, v, dense;
    cab_mlp mlp;
} layer;

typedef struct phi {
    cab_tensor *embedding;
    cab_dense head;
    cab_norm final_norm;
    layer layers[];
} phi;

static const cab_setting settings[] = {{"attention_dropout", NULL},
                                       {"embd_pdrop", NULL},
                                       {"head_dim", NULL},
                                       {"hidden_act", NULL},
                                       {"hidden_size", NULL},
                                       {"intermediate_size", NULL},
                                       {"layer_norm_eps", NULL},
                                       {"max_position_embeddings", NULL},
                                       {"num_attention_heads", NULL},
                                       {"num_hidden_layers", NULL},
                                       {"num_key_value_heads", NULL},
                                       {"partial_rotary_factor", NULL},
                                       {"qk_layernorm", "false"},
                                       {"resid_pdrop", NULL},
                                       {"rope_parameters", NULL},
                                       {"rope_scaling", "null"},
                                       {"rope_theta", NULL},
                                       {"vocab_size", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_transformers, NULL};
/* Functions of rope_theta that older files keep. */
static const char *const unread[] = {"*.rotary_emb.inv_freq", NULL};

/* rope_theta and partial_rotary_factor stand at the top level, or in rope_parameters since transformers 5. */
static cab_status configure_rotary(const cab_json *json, cab_config *c)
{
    double factor = 0.5;
    const char *type = NULL;
    json_object *rope = NULL;
    CAB_TRY(cab_positive_parse(json, NULL, "partial_rotary_factor", 0.5, &factor));
    CAB_TRY(cab_positive_parse(json, NULL, "rope_theta", 10000.0, &c->rope_theta));
    if (json_object_object_get_ex(json->root, "rope_parameters", &rope) && rope != NULL) {
        CAB_TRY(cab_json_object(json, NULL, "rope_parameters", &rope));
        CAB_TRY(cab_positive_parse(json, rope, "partial_rotary_factor", factor, &factor));
        CAB_TRY(cab_positive_parse(json, rope, "rope_theta", c->rope_theta, &c->rope_theta));
        CAB_TRY(cab_json_string_or(json, rope, "rope_type", "default", &type));
        if (strcmp(type, "default") != 0)
            return cab_fail(CAB_EUNSUPPORTED, "%s: rope_type is \"%s\"; supported for phi is default", json->name,
                            type);
    }
    c->rotary_dim = factor <= 1 ? (int)(factor * c->head_dim) / 2 * 2 : 0;
    if (c->rotary_dim < 2)
        return cab_fail(CAB_ESHAPE,
                        "%s: partial_rotary_factor %g of head width %d leaves nothing to rotate or too much",
                        json->name, factor, c->head_dim);
    return CAB_OK;
}

static cab_status configure(const cab_json *json, cab_config *c)
{
    int64_t vocab, width, n_layer, n_head, n_kv_head, head_dim, positions, inner;
    CAB_TRY(cab_json_int(json, NULL, "vocab_size", 1, 1 << 24, &vocab));
    CAB_TRY(cab_json_int(json, NULL, "hidden_size", 1, 1 << 16, &width));
    CAB_TRY(cab_json_int(json, NULL, "num_hidden_layers", 1, 1024, &n_layer));
    CAB_TRY(cab_json_int(json, NULL, "num_attention_heads", 1, 1024, &n_head));
    CAB_TRY(cab_json_int_or(json, NULL, "num_key_value_heads", 1, 1024, n_head, &n_kv_head));
    CAB_TRY(cab_json_int_or(json, NULL, "max_position_embeddings", 1, 1 << 24, 2048, &positions));
    CAB_TRY(cab_json_int_or(json, NULL, "intermediate_size", 1, 1 << 18, 4 * width, &inner));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_eps", 1e-5, &c->norm_eps));
    CAB_TRY(cab_json_int_or(json, NULL, "head_dim", 1, 1 << 16, width / n_head, &head_dim));
    CAB_TRY(cab_json_bool_or(json, NULL, "tie_word_embeddings", false, &c->tied));
    CAB_TRY(cab_activation_parse(json, "hidden_act", "gelu_new", &c->activation));
    if (head_dim * n_head != width || n_head % n_kv_head != 0)
        return cab_fail(
            CAB_ESHAPE,
            "%s: hidden_size %lld, head_dim %lld, num_attention_heads %lld and num_key_value_heads %lld do not divide",
            json->name, (long long)width, (long long)head_dim, (long long)n_head, (long long)n_kv_head);
    c->vocab_size = (int)vocab;
    c->d_model = (int)width;
    c->n_layer = (int)n_layer;
    c->n_head = (int)n_head;
    c->n_kv_head = (int)n_kv_head;
    c->head_dim = (int)head_dim;
    c->d_mlp = (int)inner;
    c->max_length = (int)positions;
    c->bos_token = cab_token_parse(json, "bos_token_id", vocab);
    c->eos_token = cab_token_parse(json, "eos_token_id", vocab);
    return configure_rotary(json, c);
}

static cab_status build_norm(cab_builder *b, const cab_config *c, cab_norm *norm, const char *name)
{
    norm->eps = (float)c->norm_eps;
    CAB_TRY(cab_builder_vector(b, &norm->w, c->d_model, "%s.weight", name));
    return cab_builder_vector(b, &norm->b, c->d_model, "%s.bias", name);
}

static cab_status build_dense(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, int l, const char *name)
{
    dense->layout = CAB_OUT_IN;
    CAB_TRY(cab_builder_matrix(b, &dense->w, n_out, n_in, "model.layers.%d.%s.weight", l, name));
    return cab_builder_vector(b, &dense->b, n_out, "model.layers.%d.%s.bias", l, name);
}

static cab_status build(cab_builder *b, cab_model *model)
{
    const cab_config *c = &model->config;
    phi *m = model->layers;
    const int64_t kv_width = (int64_t)c->n_kv_head * c->head_dim;
    char name[CAB_NAME_MAX];
    if (c->tied)
        CAB_TRY(cab_builder_tied(b, &m->embedding, c->vocab_size, c->d_model, "model.embed_tokens.weight",
                                 "lm_head.weight"));
    else
        CAB_TRY(cab_builder_matrix(b, &m->embedding, c->vocab_size, c->d_model, "model.embed_tokens.weight"));
    for (int l = 0; l < c->n_layer; l++) {
        layer *y = &m->layers[l];
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm", l);
        CAB_TRY(build_norm(b, c, &y->norm, name));
        CAB_TRY(build_dense(b, &y->q, c->d_model, c->d_model, l, "self_attn.q_proj"));
        CAB_TRY(build_dense(b, &y->k, c->d_model, kv_width, l, "self_attn.k_proj"));
        CAB_TRY(build_dense(b, &y->v, c->d_model, kv_width, l, "self_attn.v_proj"));
        CAB_TRY(build_dense(b, &y->dense, c->d_model, c->d_model, l, "self_attn.dense"));
        CAB_TRY(build_dense(b, &y->mlp.fc1, c->d_model, c->d_mlp, l, "mlp.fc1"));
        CAB_TRY(build_dense(b, &y->mlp.fc2, c->d_mlp, c->d_model, l, "mlp.fc2"));
        y->mlp.act = c->activation;
    }
    CAB_TRY(build_norm(b, c, &m->final_norm, "model.final_layernorm"));
    m->head.w = m->embedding;
    if (!c->tied)
        CAB_TRY(cab_builder_matrix(b, &m->head.w, c->vocab_size, c->d_model, "lm_head.weight"));
    return cab_builder_vector(b, &m->head.b, c->vocab_size, "lm_head.bias");
}

static cab_attention_shape attention_shape(const cab_config *c, int l)
{
    (void)l; /* all alike */
    return (cab_attention_shape){.n_head = c->n_head,
                                 .n_kv_head = c->n_kv_head,
                                 .head_dim = c->head_dim,
                                 .scale = (float)(1.0 / sqrt(c->head_dim)),
                                 .causal = true};
}

static void project(cab_graph *g, const cab_config *c, const layer *y, cab_tensor *u, cab_tensor *inv_freq,
                    cab_tensor *position, cab_tensor *qkv[3])
{
    qkv[0] = cab_rotary(g, cab_dense_record(g, &y->q, u), inv_freq, position, c->n_head);
    qkv[1] = cab_rotary(g, cab_dense_record(g, &y->k, u), inv_freq, position, c->n_kv_head);
    qkv[2] = cab_dense_record(g, &y->v, u);
}

static cab_tensor *finish_layer(cab_graph *g, const layer *y, cab_tensor *x, cab_tensor *u, cab_tensor *mixed)
{
    return cab_add(g, 3, (cab_tensor *[]){cab_dense_record(g, &y->dense, mixed), cab_mlp_record(g, &y->mlp, u), x});
}

static cab_tensor *record(cab_graph *g, const cab_model *model, cab_tensor *ids, int recompute, const cab_taps *taps)
{
    const cab_config *c = &model->config;
    const phi *m = model->layers;
    const cab_attention_shape shape = attention_shape(c, 0);
    cab_tensor *inv_freq = cab_rotary_frequencies(g, c->rope_theta, c->rotary_dim);
    cab_tensor *x = cab_embedding(g, ids, m->embedding, NULL, NULL, cab_model_dtype(model));
    for (int l = 0; l < c->n_layer; l++) {
        cab_tensor *qkv[3];
        if (l < recompute)
            cab_graph_segment_begin(g);
        cab_taps_set(taps, l, CAB_TAP_HIDDEN, x);
        cab_tensor *u = cab_norm_record(g, &m->layers[l].norm, x);
        project(g, c, &m->layers[l], u, inv_freq, NULL, qkv);
        for (int i = 0; i < 3; i++)
            cab_taps_set(taps, l, (cab_tap)i, qkv[i]);
        x = finish_layer(g, &m->layers[l], x, u, cab_attention(g, qkv[0], qkv[1], qkv[2], &shape));
        if (l < recompute)
            cab_graph_segment_end(g);
    }
    return cab_norm_record(g, &m->final_norm, x);
}

static cab_tensor *record_step(cab_graph *g, const cab_model *model, cab_tensor *ids, cab_tensor *position)
{
    const cab_config *c = &model->config;
    const phi *m = model->layers;
    const cab_attention_shape shape = attention_shape(c, 0);
    cab_tensor *inv_freq = cab_rotary_frequencies(g, c->rope_theta, c->rotary_dim);
    cab_tensor *x = cab_embedding(g, ids, m->embedding, NULL, NULL, cab_model_dtype(model));
    for (int l = 0; l < c->n_layer; l++) {
        cab_tensor *qkv[3];
        cab_tensor *u = cab_norm_record(g, &m->layers[l].norm, x);
        project(g, c, &m->layers[l], u, inv_freq, position, qkv);
        x = finish_layer(g, &m->layers[l], x, u, cab_cached_attention(g, model, qkv, position, &shape));
    }
    return cab_norm_record(g, &m->final_norm, x);
}

static cab_head_side head(const cab_model *model)
{
    const phi *m = model->layers;
    return (cab_head_side){.w = m->head.w, .b = m->head.b};
}

static cab_status part(const cab_model *model, cab_part which, int l, cab_part_values *out)
{
    const phi *m = model->layers;
    const layer *y = &m->layers[l];
    const cab_config *c = &model->config;
    const int64_t width = c->d_model, inner = c->d_mlp, vocab = c->vocab_size, kv = (int64_t)c->n_kv_head * c->head_dim;
    const cab_part_place parts[] = {
        [CAB_PART_EMBEDDING] = {m->embedding, CAB_OUT_IN, 0, vocab},
        [CAB_PART_POSITIONS] = {NULL, CAB_OUT_IN, 0, 0},
        [CAB_PART_HEAD_W] = {m->head.w, CAB_OUT_IN, 0, vocab},
        [CAB_PART_HEAD_B] = {m->head.b, CAB_OUT_IN, 0, vocab},
        [CAB_PART_FINAL_NORM_W] = {m->final_norm.w, CAB_OUT_IN, 0, width},
        [CAB_PART_FINAL_NORM_B] = {m->final_norm.b, CAB_OUT_IN, 0, width},
        [CAB_PART_NORM_W] = {y->norm.w, CAB_OUT_IN, 0, width},
        [CAB_PART_NORM_B] = {y->norm.b, CAB_OUT_IN, 0, width},
        [CAB_PART_MLP_NORM_W] = {NULL, CAB_OUT_IN, 0, 0}, /* the same norm */
        [CAB_PART_MLP_NORM_B] = {NULL, CAB_OUT_IN, 0, 0},
        [CAB_PART_Q_W] = {y->q.w, CAB_OUT_IN, 0, width},
        [CAB_PART_Q_B] = {y->q.b, CAB_OUT_IN, 0, width},
        [CAB_PART_K_W] = {y->k.w, CAB_OUT_IN, 0, kv},
        [CAB_PART_K_B] = {y->k.b, CAB_OUT_IN, 0, kv},
        [CAB_PART_V_W] = {y->v.w, CAB_OUT_IN, 0, kv},
        [CAB_PART_V_B] = {y->v.b, CAB_OUT_IN, 0, kv},
        [CAB_PART_OUT_W] = {y->dense.w, CAB_OUT_IN, 0, width},
        [CAB_PART_OUT_B] = {y->dense.b, CAB_OUT_IN, 0, width},
        [CAB_PART_FC1_W] = {y->mlp.fc1.w, CAB_OUT_IN, 0, inner},
        [CAB_PART_FC1_B] = {y->mlp.fc1.b, CAB_OUT_IN, 0, inner},
        [CAB_PART_FC2_W] = {y->mlp.fc2.w, CAB_OUT_IN, 0, width},
        [CAB_PART_FC2_B] = {y->mlp.fc2.b, CAB_OUT_IN, 0, width},
    };
    return cab_part_copy(model->params, &parts[which], out);
}

const cab_arch cab_arch_phi = {
    .name = "phi",
    .teacher = true,
    .layers_size = sizeof(phi),
    .per_layer = sizeof(layer),
    .settings = setting_tables,
    .unread = unread,
    .configure = configure,
    .build = build,
    .record = record,
    .record_step = record_step,
    .attention = attention_shape,
    .head = head,
    .part = part,
};
