/* phi_mamba.c - the discrete Mamba-2 student of the paper (Phi-Mamba, Bick et al. 2024), under its public names.
 *
 *   x = embedding[ids]
 *   per layer:  u = input_layernorm(x)     x = x + mixer(u) + fc2(gelu(fc1(u)))
 *   logits = lm_head(final_layernorm(x))
 *
 * The block is Phi's, with the mixer of nn/mamba2.h in the place of attention. */
#include "models/phi_mamba.h"

#include "models/architectures.h"

#include <stdio.h>

static const cab_setting settings[] = {{"activation", "\"identity\""}, /* after the convolution */
                                       {"bias", "false"},
                                       {"chunk_size", NULL},
                                       {"conv_bias", "true"},
                                       {"d_conv", NULL},
                                       {"d_model", NULL},
                                       {"d_state", NULL},
                                       {"expand", NULL},
                                       {"hidden_act", NULL},
                                       {"intermediate_size", NULL},
                                       {"layer_norm_eps", NULL},
                                       {"n_layer", NULL},
                                       {"n_qk_heads", NULL},
                                       {"n_v_heads", NULL},
                                       {"seq_len", NULL},
                                       {"tie_word_embeddings", "false"},
                                       {"vocab_size", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    int64_t vocab, width, n_layer, n_head, n_group, state, conv, inner, length, expand;
    CAB_TRY(cab_json_int(json, NULL, "vocab_size", 1, 1 << 24, &vocab));
    CAB_TRY(cab_json_int(json, NULL, "d_model", 1, 1 << 16, &width));
    CAB_TRY(cab_json_int(json, NULL, "n_layer", 1, 1024, &n_layer));
    CAB_TRY(cab_json_int(json, NULL, "n_v_heads", 1, 1024, &n_head));
    CAB_TRY(cab_json_int_or(json, NULL, "n_qk_heads", 1, 1024, n_head, &n_group));
    CAB_TRY(cab_json_int(json, NULL, "d_state", 1, 1024, &state));
    CAB_TRY(cab_json_int_or(json, NULL, "d_conv", 1, 16, 4, &conv));
    CAB_TRY(cab_json_int_or(json, NULL, "expand", 1, 1, 1, &expand));
    CAB_TRY(cab_json_int_or(json, NULL, "intermediate_size", 1, 1 << 18, 4 * width, &inner));
    CAB_TRY(cab_json_int_or(json, NULL, "seq_len", 1, 1 << 24, 2048, &length));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_eps", 1e-5, &c->norm_eps));
    CAB_TRY(cab_activation_parse(json, "hidden_act", "gelu_new", &c->activation));
    if (width % n_head != 0 || n_head % n_group != 0)
        return cab_fail(CAB_ESHAPE, "%s: d_model %lld, n_v_heads %lld and n_qk_heads %lld do not divide", json->name,
                        (long long)width, (long long)n_head, (long long)n_group);
    c->vocab_size = (int)vocab;
    c->d_model = (int)width;
    c->n_layer = (int)n_layer;
    c->n_head = (int)n_head;
    c->n_kv_head = c->n_group = (int)n_group;
    c->head_dim = (int)(width / n_head);
    c->d_state = (int)state;
    c->d_conv = (int)conv;
    c->d_mlp = (int)inner;
    c->max_length = (int)length;
    c->bos_token = cab_token_parse(json, "bos_token_id", vocab);
    c->eos_token = cab_token_parse(json, "eos_token_id", vocab);
    return CAB_OK;
}

static const char *activation_name(cab_activation_kind kind)
{
    static const char *const names[] = {[CAB_GELU_TANH] = "gelu_new",
                                        [CAB_GELU_ERF] = "gelu",
                                        [CAB_SILU] = "silu",
                                        [CAB_RELU] = "relu",
                                        [CAB_TANH] = "tanh"};
    return names[kind];
}

static cab_status describe(const cab_config *c, json_object *json)
{
    const struct {
        const char *key;
        int64_t value;
    } numbers[] = {{"vocab_size", c->vocab_size},   {"d_model", c->d_model},
                   {"n_layer", c->n_layer},         {"n_v_heads", c->n_head},
                   {"n_qk_heads", c->n_group},      {"d_state", c->d_state},
                   {"d_conv", c->d_conv},           {"expand", 1},
                   {"intermediate_size", c->d_mlp}, {"seq_len", c->max_length},
                   {"bos_token_id", c->bos_token},  {"eos_token_id", c->eos_token}};
    json_object *architectures = json_object_new_array();
    json_object_array_add(architectures, json_object_new_string("PhiMambaForCausalLM"));
    json_object_object_add(json, "architectures", architectures);
    json_object_object_add(json, "model_type", json_object_new_string("phi-mamba"));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_object_add(json, numbers[i].key,
                               numbers[i].value < 0 ? NULL : json_object_new_int64(numbers[i].value));
    json_object_object_add(json, "layer_norm_eps", json_object_new_double(c->norm_eps));
    json_object_object_add(json, "hidden_act", json_object_new_string(activation_name(c->activation)));
    json_object_object_add(json, "tie_word_embeddings", json_object_new_boolean(false));
    return CAB_OK;
}

static cab_status build_norm(cab_builder *b, const cab_config *c, cab_norm *norm, const char *name)
{
    norm->eps = (float)c->norm_eps;
    CAB_TRY(cab_builder_vector(b, &norm->w, c->d_model, "%s.weight", name));
    return cab_builder_vector(b, &norm->b, c->d_model, "%s.bias", name);
}

static cab_status build_mixer(cab_builder *b, const cab_config *c, cab_mamba2 *m, int l)
{
    const int64_t width = c->d_model, channels = width + 2 * (int64_t)c->n_group * c->d_state;
    m->d_inner = c->d_model;
    m->n_head = c->n_head;
    m->n_group = c->n_group;
    m->d_state = c->d_state;
    m->d_conv = c->d_conv;
    CAB_TRY(cab_builder_matrix(b, &m->in_proj.w, channels + width + c->n_head, width,
                               "backbone.layers.%d.mixer.in_proj.weight", l));
    CAB_TRY(cab_builder_shaped(b, &m->conv_w, CAB_NO_DECAY, 3, (int64_t[]){channels, 1, c->d_conv},
                               "backbone.layers.%d.mixer.conv1d.weight", l));
    CAB_TRY(cab_builder_vector(b, &m->conv_b, channels, "backbone.layers.%d.mixer.conv1d.bias", l));
    CAB_TRY(cab_builder_vector(b, &m->D, c->n_head, "backbone.layers.%d.mixer.D", l));
    CAB_TRY(cab_builder_vector(b, &m->z_bias, width, "backbone.layers.%d.mixer.z_bias", l));
    return cab_builder_matrix(b, &m->out_proj.w, width, width, "backbone.layers.%d.mixer.out_proj.weight", l);
}

static cab_status build_mlp(cab_builder *b, const cab_config *c, cab_mlp *mlp, int l)
{
    mlp->act = c->activation;
    CAB_TRY(cab_builder_matrix(b, &mlp->fc1.w, c->d_mlp, c->d_model, "backbone.layers.%d.mlp.fc1.weight", l));
    CAB_TRY(cab_builder_vector(b, &mlp->fc1.b, c->d_mlp, "backbone.layers.%d.mlp.fc1.bias", l));
    CAB_TRY(cab_builder_matrix(b, &mlp->fc2.w, c->d_model, c->d_mlp, "backbone.layers.%d.mlp.fc2.weight", l));
    return cab_builder_vector(b, &mlp->fc2.b, c->d_model, "backbone.layers.%d.mlp.fc2.bias", l);
}

static cab_status build(cab_builder *b, cab_model *model)
{
    const cab_config *c = &model->config;
    cab_phi_mamba *m = model->layers;
    char name[CAB_NAME_MAX];
    CAB_TRY(cab_builder_matrix(b, &m->embedding, c->vocab_size, c->d_model, "backbone.embedding.weight"));
    for (int l = 0; l < c->n_layer; l++) {
        snprintf(name, sizeof name, "backbone.layers.%d.input_layernorm", l);
        CAB_TRY(build_norm(b, c, &m->layers[l].norm, name));
        CAB_TRY(build_mixer(b, c, &m->layers[l].mixer, l));
        CAB_TRY(build_mlp(b, c, &m->layers[l].mlp, l));
    }
    CAB_TRY(build_norm(b, c, &m->final_norm, "backbone.final_layernorm"));
    CAB_TRY(cab_builder_matrix(b, &m->head.w, c->vocab_size, c->d_model, "lm_head.weight"));
    return cab_builder_vector(b, &m->head.b, c->vocab_size, "lm_head.bias");
}

static cab_tensor *finish_layer(cab_graph *g, const cab_phi_mamba_layer *y, cab_tensor *x, cab_tensor *u,
                                cab_tensor *mixed)
{
    return cab_add(g, 3, (cab_tensor *[]){x, mixed, cab_mlp_record(g, &y->mlp, u)});
}

static cab_tensor *record(cab_graph *g, const cab_model *model, cab_tensor *ids, int recompute, const cab_taps *taps)
{
    const cab_phi_mamba *m = model->layers;
    cab_tensor *x = cab_embedding(g, ids, m->embedding, NULL, NULL, cab_model_dtype(model));
    for (int l = 0; l < model->config.n_layer; l++) {
        const cab_phi_mamba_layer *y = &m->layers[l];
        cab_mamba2_taps mixer_taps;
        if (l < recompute)
            cab_graph_segment_begin(g);
        cab_taps_set(taps, l, CAB_TAP_HIDDEN, x);
        cab_tensor *u = cab_norm_record(g, &y->norm, x);
        x = finish_layer(g, y, x, u, cab_mamba2_record(g, &y->mixer, u, &mixer_taps));
        cab_taps_set(taps, l, CAB_TAP_QUERY, mixer_taps.C);
        cab_taps_set(taps, l, CAB_TAP_KEY, mixer_taps.B);
        cab_taps_set(taps, l, CAB_TAP_VALUE, mixer_taps.x);
        cab_taps_set(taps, l, CAB_TAP_DECAY, mixer_taps.a_log);
        if (l < recompute)
            cab_graph_segment_end(g);
    }
    return cab_norm_record(g, &m->final_norm, x);
}

static cab_tensor *record_step(cab_graph *g, const cab_model *model, cab_tensor *ids, cab_tensor *position)
{
    (void)position; /* the state is all the student knows of the past */
    const cab_phi_mamba *m = model->layers;
    cab_tensor *x = cab_embedding(g, ids, m->embedding, NULL, NULL, cab_model_dtype(model));
    for (int l = 0; l < model->config.n_layer; l++) {
        const cab_phi_mamba_layer *y = &m->layers[l];
        cab_tensor *u = cab_norm_record(g, &y->norm, x);
        x = finish_layer(g, y, x, u, cab_mamba2_record_step(g, &y->mixer, u));
    }
    return cab_norm_record(g, &m->final_norm, x);
}

static cab_head_side head(const cab_model *model)
{
    const cab_phi_mamba *m = model->layers;
    return (cab_head_side){.w = m->head.w, .b = m->head.b};
}

const cab_arch cab_arch_phi_mamba = {
    .name = "phi-mamba",
    .student = true,
    .layers_size = sizeof(cab_phi_mamba),
    .per_layer = sizeof(cab_phi_mamba_layer),
    .settings = setting_tables,
    .strict = true,
    .configure = configure,
    .describe = describe,
    .build = build,
    .record = record,
    .record_step = record_step,
    .head = head,
};
