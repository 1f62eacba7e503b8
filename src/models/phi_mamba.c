/* phi_mamba.c - the discrete Mamba-2 student of the paper (Phi-Mamba, Bick et al. 2024), under its public names.
 *
 *   x = embedding[ids]
 *   per layer:  u = input_layernorm(x)     x = x + mixer(u) + fc2(gelu(fc1(u)))
 *   logits = lm_head(final_layernorm(x))
 *
 * The block is Phi's, with the mixer of nn/discrete_mamba2.h in the place of attention. */
#include "models/architectures.h"
#include "models/builder.h"
#include "models/sizes.h"

#include <math.h>

static const cab_size sizes[] = {CAB_SIZE("vocab_size", vocab_size, 1 << 24, CAB_REQUIRED),
                                 CAB_SIZE("d_model", d_model, 1 << 16, CAB_REQUIRED),
                                 CAB_SIZE("n_layer", n_layer, 1024, CAB_REQUIRED),
                                 CAB_SIZE("n_v_heads", n_head, 1024, CAB_REQUIRED),
                                 CAB_SIZE("n_qk_heads", n_group, 1024, 0),
                                 CAB_SIZE("d_state", d_state, 1024, CAB_REQUIRED),
                                 CAB_SIZE("d_conv", d_conv, 16, 4),
                                 CAB_SIZE("intermediate_size", d_mlp, 1 << 18, 0),
                                 CAB_SIZE("seq_len", max_length, 1 << 24, 2048),
                                 {0}};

static const cab_setting settings[] = {{"activation", "\"identity\""}, /* after the convolution */
                                       {"bias", "false"},
                                       {"chunk_size", NULL},
                                       {"conv_bias", "true"},
                                       {"d_conv", NULL},
                                       {"d_model", NULL},
                                       {"d_state", NULL},
                                       {"expand", NULL},
                                       {"final_logit_softcapping", NULL},
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
    int64_t expand;
    CAB_TRY(cab_sizes_parse(json, sizes, c));
    CAB_TRY(cab_json_int_or(json, NULL, "expand", 1, 1, 1, &expand));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_eps", 1e-5, &c->norm_eps));
    CAB_TRY(cab_activation_parse(json, "hidden_act", "gelu_new", &c->activation));
    CAB_TRY(cab_json_number_or(json, NULL, "final_logit_softcapping", 0, &c->logit_cap));
    if (!(c->logit_cap >= 0) || !isfinite(c->logit_cap))
        return cab_fail(CAB_EFORMAT, "%s: \"final_logit_softcapping\" is %g, expected a number from 0", json->name,
                        c->logit_cap);
    c->n_group = c->n_group > 0 ? c->n_group : c->n_head;
    c->d_mlp = c->d_mlp > 0 ? c->d_mlp : 4 * c->d_model;
    if (c->d_model % c->n_head != 0 || c->n_head % c->n_group != 0)
        return cab_fail(CAB_ESHAPE, "%s: d_model %d, n_v_heads %d and n_qk_heads %d do not divide", json->name,
                        c->d_model, c->n_head, c->n_group);
    c->n_kv_head = c->n_group;
    c->head_dim = c->d_model / c->n_head;
    cab_tokens_parse(json, c);
    return CAB_OK;
}

static cab_status describe(const cab_config *c, json_object *json)
{
    cab_model_describe("phi-mamba", "PhiMambaForCausalLM", c, json);
    cab_sizes_describe(sizes, c, json);
    json_object_object_add(json, "expand", json_object_new_int(1));
    json_object_object_add(json, "layer_norm_eps", json_object_new_double(c->norm_eps));
    json_object_object_add(json, "hidden_act", json_object_new_string(cab_activation_name(c->activation)));
    if (c->logit_cap > 0)
        json_object_object_add(json, "final_logit_softcapping", json_object_new_double(c->logit_cap));
    json_object_object_add(json, "tie_word_embeddings", json_object_new_boolean(false));
    return CAB_OK;
}

static cab_status build_mixer(cab_builder *b, const cab_config *c, cab_discrete_mamba2 *m)
{
    const int64_t width = c->d_model, channels = width + 2 * (int64_t)c->n_group * c->d_state;
    m->d_inner = c->d_model;
    m->n_head = c->n_head;
    m->n_group = c->n_group;
    m->d_state = c->d_state;
    m->d_conv = c->d_conv;
    CAB_TRY(cab_builder_dense(b, &m->in_proj, width, channels + width + c->n_head, false, "mixer.in_proj"));
    CAB_TRY(
        cab_builder_shaped(b, &m->conv_w, CAB_NO_DECAY, 3, (int64_t[]){channels, 1, c->d_conv}, "mixer.conv1d.weight"));
    CAB_TRY(cab_builder_vector(b, &m->conv_b, channels, "mixer.conv1d.bias"));
    CAB_TRY(cab_builder_vector(b, &m->D, c->n_head, "mixer.D"));
    CAB_TRY(cab_builder_vector(b, &m->z_bias, width, "mixer.z_bias"));
    return cab_builder_dense(b, &m->out_proj, width, width, false, "mixer.out_proj");
}

static cab_status build_block(cab_builder *b, const cab_config *c, cab_block *y)
{
    y->parallel = true;
    y->mlp.act = c->activation;
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, true, "input_layernorm"));
    CAB_TRY(build_mixer(b, c, &y->discrete));
    CAB_TRY(cab_builder_dense(b, &y->mlp.up, c->d_model, c->d_mlp, true, "mlp.fc1"));
    return cab_builder_dense(b, &y->mlp.down, c->d_mlp, c->d_model, true, "mlp.fc2");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    CAB_TRY(cab_builder_matrix(b, &n->embedding, c->vocab_size, c->d_model, "backbone.embedding.weight"));
    for (int l = 0; l < c->n_layer; l++) {
        cab_builder_layer(b, "backbone.layers.%d.", l);
        CAB_TRY(build_block(b, c, &n->blocks[l]));
    }
    cab_builder_no_layer(b);
    CAB_TRY(cab_builder_norm(b, &n->final_norm, c->d_model, c->norm_eps, true, "backbone.final_layernorm"));
    n->logit_cap = (float)c->logit_cap;
    return cab_builder_dense(b, &n->head, c->d_model, c->vocab_size, true, "lm_head");
}

const cab_arch cab_arch_phi_mamba = {
    .name = "phi-mamba",
    .student = true,
    .settings = setting_tables,
    .strict = true,
    .configure = configure,
    .describe = describe,
    .build = build,
};
