/* gpt2.c - GPT-2 and DistilGPT2 (Radford et al. 2019), Hugging Face layout.
 *
 *   x = wte[ids] + wpe[position]
 *   per layer:  x = x + c_proj(attention(c_attn(ln_1(x))))     x = x + mlp.c_proj(gelu(mlp.c_fc(ln_2(x))))
 *   logits = ln_f(x) wte^T
 *
 * c_attn, c_proj and c_fc are Conv1D: stored (in, out) and used as stored. */
#include "models/architectures.h"

#include <math.h>
#include <stdio.h>

typedef struct layer {
    cab_norm ln_1, ln_2;
    cab_dense c_attn, c_proj;
    cab_mlp mlp;
} layer;

typedef struct gpt2 {
    cab_tensor *wte, *wpe, *head;
    cab_norm ln_f;
    layer layers[];
} gpt2;

static const cab_setting settings[] = {{"activation_function", NULL},
                                       {"attn_pdrop", NULL},
                                       {"embd_pdrop", NULL},
                                       {"layer_norm_epsilon", NULL},
                                       {"n_ctx", NULL}, /* what n_positions was called before */
                                       {"n_embd", NULL},
                                       {"n_head", NULL},
                                       {"n_inner", NULL},
                                       {"n_layer", NULL},
                                       {"n_positions", NULL},
                                       {"predict_special_tokens", NULL},
                                       {"reorder_and_upcast_attn", NULL}, /* the same numbers in another order */
                                       {"resid_pdrop", NULL},
                                       {"scale_attn_by_inverse_layer_idx", NULL},
                                       {"scale_attn_weights", NULL},
                                       {"summary_activation", NULL}, /* of a head for other tasks */
                                       {"summary_first_dropout", NULL},
                                       {"summary_proj_to_labels", NULL},
                                       {"summary_type", NULL},
                                       {"summary_use_proj", NULL},
                                       {"vocab_size", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_transformers, NULL};
/* Causal masks that older files keep. */
static const char *const unread[] = {"*h.*.attn.bias", "*h.*.attn.masked_bias", NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    int64_t vocab, width, n_layer, n_head, positions, inner;
    CAB_TRY(cab_json_int(json, NULL, "vocab_size", 1, 1 << 24, &vocab));
    CAB_TRY(cab_json_int(json, NULL, "n_embd", 1, 1 << 16, &width));
    CAB_TRY(cab_json_int(json, NULL, "n_layer", 1, 1024, &n_layer));
    CAB_TRY(cab_json_int(json, NULL, "n_head", 1, 1024, &n_head));
    CAB_TRY(cab_json_int(json, NULL, "n_positions", 1, 1 << 24, &positions));
    CAB_TRY(cab_json_int_or(json, NULL, "n_inner", 1, 1 << 18, 4 * width, &inner));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_epsilon", 1e-5, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "tie_word_embeddings", true, &c->tied));
    CAB_TRY(cab_json_bool_or(json, NULL, "scale_attn_weights", true, &c->scale_attention));
    CAB_TRY(cab_json_bool_or(json, NULL, "scale_attn_by_inverse_layer_idx", false, &c->scale_by_layer));
    CAB_TRY(cab_activation_parse(json, "activation_function", "gelu_new", &c->activation));
    if (width % n_head != 0)
        return cab_fail(CAB_ESHAPE, "%s: n_embd %lld is not a multiple of n_head %lld", json->name, (long long)width,
                        (long long)n_head);
    c->vocab_size = (int)vocab;
    c->d_model = (int)width;
    c->n_layer = (int)n_layer;
    c->n_head = c->n_kv_head = (int)n_head;
    c->head_dim = (int)(width / n_head);
    c->d_mlp = (int)inner;
    c->max_length = (int)positions;
    c->bos_token = cab_token_parse(json, "bos_token_id", vocab);
    c->eos_token = cab_token_parse(json, "eos_token_id", vocab);
    return CAB_OK;
}

static cab_status build_norm(cab_builder *b, const cab_config *c, cab_norm *norm, const char *name)
{
    norm->eps = (float)c->norm_eps;
    CAB_TRY(cab_builder_vector(b, &norm->w, c->d_model, "%s.weight", name));
    return cab_builder_vector(b, &norm->b, c->d_model, "%s.bias", name);
}

static cab_status build_dense(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, int l, const char *name)
{
    dense->layout = CAB_IN_OUT;
    CAB_TRY(cab_builder_matrix(b, &dense->w, n_in, n_out, "h.%d.%s.weight", l, name));
    return cab_builder_vector(b, &dense->b, n_out, "h.%d.%s.bias", l, name);
}

static cab_status build(cab_builder *b, cab_model *model)
{
    static const char *const prefixes[] = {"transformer.", "", NULL};
    static const char *const head_prefixes[] = {"", NULL};
    const cab_config *c = &model->config;
    gpt2 *m = model->layers;
    char name[CAB_NAME_MAX];
    cab_builder_prefixes(b, prefixes);
    if (c->tied)
        CAB_TRY(cab_builder_tied(b, &m->wte, c->vocab_size, c->d_model, "wte.weight", "lm_head.weight"));
    else
        CAB_TRY(cab_builder_matrix(b, &m->wte, c->vocab_size, c->d_model, "wte.weight"));
    CAB_TRY(cab_builder_matrix(b, &m->wpe, c->max_length, c->d_model, "wpe.weight"));
    for (int l = 0; l < c->n_layer; l++) {
        layer *y = &m->layers[l];
        snprintf(name, sizeof name, "h.%d.ln_1", l);
        CAB_TRY(build_norm(b, c, &y->ln_1, name));
        CAB_TRY(build_dense(b, &y->c_attn, c->d_model, 3 * (int64_t)c->d_model, l, "attn.c_attn"));
        CAB_TRY(build_dense(b, &y->c_proj, c->d_model, c->d_model, l, "attn.c_proj"));
        snprintf(name, sizeof name, "h.%d.ln_2", l);
        CAB_TRY(build_norm(b, c, &y->ln_2, name));
        CAB_TRY(build_dense(b, &y->mlp.fc1, c->d_model, c->d_mlp, l, "mlp.c_fc"));
        CAB_TRY(build_dense(b, &y->mlp.fc2, c->d_mlp, c->d_model, l, "mlp.c_proj"));
        y->mlp.act = c->activation;
    }
    CAB_TRY(build_norm(b, c, &m->ln_f, "ln_f"));
    m->head = m->wte;
    if (c->tied)
        return CAB_OK;
    cab_builder_prefixes(b, head_prefixes);
    return cab_builder_matrix(b, &m->head, c->vocab_size, c->d_model, "lm_head.weight");
}

static cab_attention_shape attention_shape(const cab_config *c, int l)
{
    double scale = c->scale_attention ? 1.0 / sqrt(c->head_dim) : 1.0;
    if (c->scale_by_layer)
        scale /= l + 1;
    return (cab_attention_shape){
        .n_head = c->n_head, .n_kv_head = c->n_head, .head_dim = c->head_dim, .scale = (float)scale, .causal = true};
}

static void project(cab_graph *g, const cab_config *c, const layer *y, cab_tensor *x, cab_tensor *qkv[3])
{
    const int64_t sizes[3] = {c->d_model, c->d_model, c->d_model};
    cab_split(g, cab_dense_record(g, &y->c_attn, cab_norm_record(g, &y->ln_1, x)), 3, sizes, qkv);
}

static cab_tensor *finish_layer(cab_graph *g, const layer *y, cab_tensor *x, cab_tensor *mixed)
{
    x = cab_add(g, 2, (cab_tensor *[]){x, cab_dense_record(g, &y->c_proj, mixed)});
    return cab_add(g, 2, (cab_tensor *[]){x, cab_mlp_record(g, &y->mlp, cab_norm_record(g, &y->ln_2, x))});
}

static cab_tensor *record(cab_graph *g, const cab_model *model, cab_tensor *ids, int recompute, const cab_taps *taps)
{
    const cab_config *c = &model->config;
    const gpt2 *m = model->layers;
    cab_tensor *x = cab_embedding(g, ids, m->wte, m->wpe, NULL, cab_model_dtype(model));
    for (int l = 0; l < c->n_layer; l++) {
        cab_tensor *qkv[3];
        cab_attention_shape shape = attention_shape(c, l);
        if (l < recompute)
            cab_graph_segment_begin(g);
        cab_taps_set(taps, l, CAB_TAP_HIDDEN, x);
        project(g, c, &m->layers[l], x, qkv);
        for (int i = 0; i < 3; i++)
            cab_taps_set(taps, l, (cab_tap)i, qkv[i]);
        x = finish_layer(g, &m->layers[l], x, cab_attention(g, qkv[0], qkv[1], qkv[2], &shape));
        if (l < recompute)
            cab_graph_segment_end(g);
    }
    return cab_norm_record(g, &m->ln_f, x);
}

static cab_tensor *record_step(cab_graph *g, const cab_model *model, cab_tensor *ids, cab_tensor *position)
{
    const cab_config *c = &model->config;
    const gpt2 *m = model->layers;
    cab_tensor *x = cab_embedding(g, ids, m->wte, m->wpe, position, cab_model_dtype(model));
    for (int l = 0; l < c->n_layer; l++) {
        cab_tensor *qkv[3];
        cab_attention_shape shape = attention_shape(c, l);
        project(g, c, &m->layers[l], x, qkv);
        x = finish_layer(g, &m->layers[l], x, cab_cached_attention(g, model, qkv, position, &shape));
    }
    return cab_norm_record(g, &m->ln_f, x);
}

static cab_head_side head(const cab_model *model)
{
    const gpt2 *m = model->layers;
    return (cab_head_side){.w = m->head};
}

static cab_status part(const cab_model *model, cab_part which, int l, cab_part_values *out)
{
    const gpt2 *m = model->layers;
    const layer *y = &m->layers[l];
    const int64_t width = model->config.d_model, inner = model->config.d_mlp, vocab = model->config.vocab_size;
    const cab_part_place parts[] = {
        [CAB_PART_EMBEDDING] = {m->wte, CAB_OUT_IN, 0, vocab},
        [CAB_PART_POSITIONS] = {m->wpe, CAB_OUT_IN, 0, model->config.max_length},
        [CAB_PART_HEAD_W] = {m->head, CAB_OUT_IN, 0, vocab},
        [CAB_PART_HEAD_B] = {NULL, CAB_OUT_IN, 0, 0},
        [CAB_PART_FINAL_NORM_W] = {m->ln_f.w, CAB_OUT_IN, 0, width},
        [CAB_PART_FINAL_NORM_B] = {m->ln_f.b, CAB_OUT_IN, 0, width},
        [CAB_PART_NORM_W] = {y->ln_1.w, CAB_OUT_IN, 0, width},
        [CAB_PART_NORM_B] = {y->ln_1.b, CAB_OUT_IN, 0, width},
        [CAB_PART_MLP_NORM_W] = {y->ln_2.w, CAB_OUT_IN, 0, width},
        [CAB_PART_MLP_NORM_B] = {y->ln_2.b, CAB_OUT_IN, 0, width},
        [CAB_PART_Q_W] = {y->c_attn.w, CAB_IN_OUT, 0, width},
        [CAB_PART_Q_B] = {y->c_attn.b, CAB_OUT_IN, 0, width},
        [CAB_PART_K_W] = {y->c_attn.w, CAB_IN_OUT, width, width},
        [CAB_PART_K_B] = {y->c_attn.b, CAB_OUT_IN, width, width},
        [CAB_PART_V_W] = {y->c_attn.w, CAB_IN_OUT, 2 * width, width},
        [CAB_PART_V_B] = {y->c_attn.b, CAB_OUT_IN, 2 * width, width},
        [CAB_PART_OUT_W] = {y->c_proj.w, CAB_IN_OUT, 0, width},
        [CAB_PART_OUT_B] = {y->c_proj.b, CAB_OUT_IN, 0, width},
        [CAB_PART_FC1_W] = {y->mlp.fc1.w, CAB_IN_OUT, 0, inner},
        [CAB_PART_FC1_B] = {y->mlp.fc1.b, CAB_OUT_IN, 0, inner},
        [CAB_PART_FC2_W] = {y->mlp.fc2.w, CAB_IN_OUT, 0, width},
        [CAB_PART_FC2_B] = {y->mlp.fc2.b, CAB_OUT_IN, 0, width},
    };
    return cab_part_copy(model->params, &parts[which], out);
}

const cab_arch cab_arch_gpt2 = {
    .name = "gpt2",
    .teacher = true,
    .layers_size = sizeof(gpt2),
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
