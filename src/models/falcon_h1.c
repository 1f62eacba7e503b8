/* falcon_h1.c - Falcon-H1 (TII 2025), Hugging Face layout: in every layer attention and Mamba-2 side by side.
 *
 *   x = embed_tokens[ids] * embedding_multiplier
 *   per layer:  x = x + self_attn(u) + mamba(u) of u = input_layernorm(x)
 *               x = x + down_proj(silu(gate_proj(u)) * up_proj(u)) of u = pre_ff_layernorm(x)
 *   logits = lm_head(final_layernorm(x)) * lm_head_multiplier
 *
 * Norms are RMS norms. Attention is Llama's, the state-space mixer that of nn/mamba2.h. The multipliers within a layer become part of
 * the weights when these are read: a model that is saved has none. */
#include "models/architectures.h"
#include "models/decoder.h"
#include "models/state_space.h"

#include <float.h>
#include <stddef.h>

static const cab_setting settings[] = {
    {"attn_layer_indices", "null"},     {"attention_bias", NULL},       {"attention_in_multiplier", NULL},
    {"attention_out_multiplier", NULL}, {"embedding_multiplier", NULL}, {"key_multiplier", NULL},
    {"lm_head_multiplier", NULL},       {"mamba_d_ssm", NULL},          {"mamba_norm_before_gate", NULL},
    {"mamba_rms_norm", NULL},           {"mamba_use_mlp", "true"},      {"mlp_bias", NULL},
    {"mlp_expansion_factor", NULL},     {"mlp_multipliers", NULL},      {"num_logits_to_keep", NULL},
    {"projectors_bias", NULL},          {"rms_norm_eps", NULL},         {"ssm_in_multiplier", NULL},
    {"ssm_multipliers", NULL},          {"ssm_out_multiplier", NULL},   {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_mamba2, cab_settings_decoder,
                                                    cab_settings_transformers, NULL};

/* Single multipliers, and the fields that they give. */
static const struct {
    const char *key;
    size_t offset; /* of a double in cab_config */
} multipliers[] = {{"attention_in_multiplier", offsetof(cab_config, multipliers.attention_in)},
                   {"attention_out_multiplier", offsetof(cab_config, multipliers.attention_out)},
                   {"embedding_multiplier", offsetof(cab_config, embedding_scale)},
                   {"key_multiplier", offsetof(cab_config, multipliers.key)},
                   {"lm_head_multiplier", offsetof(cab_config, head_scale)},
                   {"ssm_in_multiplier", offsetof(cab_config, multipliers.state_in)},
                   {"ssm_out_multiplier", offsetof(cab_config, multipliers.state_out)}};
enum { MULTIPLIERS = sizeof multipliers / sizeof *multipliers, STATE_PARTS = 5 };

/* A list of n positive numbers, all 1 where it is absent. */
static cab_status parse_list(const cab_json *json, const char *key, size_t n, double *out)
{
    json_object *list = NULL;
    for (size_t i = 0; i < n; i++)
        out[i] = 1;
    if (!json_object_object_get_ex(json->root, key, &list) || list == NULL)
        return CAB_OK;
    CAB_TRY(cab_json_array(json, NULL, key, &list));
    bool good = json_object_array_length(list) == n;
    for (size_t i = 0; good && i < n; i++) {
        json_object *item = json_object_array_get_idx(list, i);
        out[i] = json_object_get_double(item);
        good = (json_object_is_type(item, json_type_double) || json_object_is_type(item, json_type_int)) &&
               out[i] > 0 && out[i] <= DBL_MAX;
    }
    return good ? CAB_OK
                : cab_fail(CAB_EFORMAT, "%s: \"%s\" is %.80s, expected %zu positive numbers", json->name, key,
                           json_object_to_json_string_ext(list, JSON_C_TO_STRING_PLAIN), n);
}

static cab_status parse_multipliers(const cab_json *json, cab_config *c)
{
    double mlp[2];
    for (int i = 0; i < MULTIPLIERS; i++)
        CAB_TRY(cab_positive_parse(json, NULL, multipliers[i].key, 1,
                                   (double *)(void *)((char *)c + multipliers[i].offset)));
    CAB_TRY(parse_list(json, "ssm_multipliers", STATE_PARTS, c->multipliers.state_parts));
    CAB_TRY(parse_list(json, "mlp_multipliers", 2, mlp));
    c->multipliers.gate = mlp[0];
    c->multipliers.down = mlp[1];
    return CAB_OK;
}

/* mamba_d_ssm has a default; null leaves the inner width to mamba_expand. */
static cab_status parse_mixer(const cab_json *json, cab_config *c)
{
    const int fallback = json_object_object_get_ex(json->root, "mamba_d_ssm", NULL) ? 0 : 1024;
    int64_t inner;
    CAB_TRY(cab_json_int_or(json, NULL, "mamba_d_ssm", 1, 1 << 18, fallback, &inner));
    CAB_TRY(cab_json_bool_or(json, NULL, "projectors_bias", false, &c->out_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "mamba_rms_norm", false, &c->gated_norm));
    CAB_TRY(cab_json_bool_or(json, NULL, "mamba_norm_before_gate", true, &c->norm_first));
    return cab_mamba2_parse(json, inner, c);
}

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_positive_parse(json, NULL, "rms_norm_eps", 1e-5, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "attention_bias", false, &c->attention_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "mlp_bias", false, &c->mlp_bias));
    CAB_TRY(parse_mixer(json, c));
    CAB_TRY(parse_multipliers(json, c));
    return cab_rope_whole_parse(json, 10000, c);
}

static json_object *ones(int n)
{
    json_object *list = json_object_new_array();
    for (int i = 0; i < n; i++)
        json_object_array_add(list, json_object_new_double(1));
    return list;
}

static cab_status describe(const cab_config *c, json_object *json)
{
    const struct {
        const char *key;
        bool value;
    } switches[] = {{"attention_bias", c->attention_bias},
                    {"mlp_bias", c->mlp_bias},
                    {"projectors_bias", c->out_bias},
                    {"mamba_rms_norm", c->gated_norm},
                    {"mamba_norm_before_gate", c->gated_norm && c->norm_first}};
    cab_model_describe("falcon_h1", "FalconH1ForCausalLM", c, json);
    cab_decoder_describe(c, json);
    cab_mamba2_describe(c, json);
    json_object_object_add(json, "mamba_d_ssm", json_object_new_int(c->d_inner));
    json_object_object_add(json, "rms_norm_eps", json_object_new_double(c->norm_eps));
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        json_object_object_add(json, switches[i].key, json_object_new_boolean(switches[i].value));
    for (int i = 0; i < MULTIPLIERS; i++)
        json_object_object_add(json, multipliers[i].key, json_object_new_double(1));
    json_object_object_add(json, "embedding_multiplier",
                           json_object_new_double(c->embedding_scale > 0 ? c->embedding_scale : 1));
    json_object_object_add(json, "lm_head_multiplier", json_object_new_double(c->head_scale > 0 ? c->head_scale : 1));
    json_object_object_add(json, "ssm_multipliers", ones(STATE_PARTS));
    json_object_object_add(json, "mlp_multipliers", ones(2));
    return CAB_OK;
}

/* A dense whose stored outputs are multiplied by `out`, and whose input by `in`; 0: 1. */
static cab_status dense(cab_builder *b, cab_dense *d, int64_t n_in, int64_t n_out, bool biased, double in, double out,
                        const char *name)
{
    const cab_multiplied_rows rows = {n_out, out > 0 ? out : 1};
    return cab_builder_multiplied_dense(b, d, n_in, biased, name, in > 0 ? in : 1, 1, &rows);
}

static cab_status build_attention(cab_builder *b, const cab_config *c, int l, cab_attention_mixer *a)
{
    const int64_t D = c->d_model, Q = (int64_t)c->n_head * c->head_dim, K = (int64_t)c->n_kv_head * c->head_dim;
    const cab_multipliers *m = &c->multipliers;
    const bool biased = c->attention_bias;
    cab_decoder_heads(c, l, a);
    CAB_TRY(dense(b, &a->q, D, Q, biased, m->attention_in, 1, "self_attn.q_proj"));
    CAB_TRY(dense(b, &a->k, D, K, biased, m->attention_in, m->key, "self_attn.k_proj"));
    CAB_TRY(dense(b, &a->v, D, K, biased, m->attention_in, 1, "self_attn.v_proj"));
    return dense(b, &a->out, Q, D, biased, 1, m->attention_out, "self_attn.o_proj");
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, false, "input_layernorm"));
    CAB_TRY(build_attention(b, c, l, &y->attention));
    CAB_TRY(cab_mamba2_build(b, c, "mamba", &y->mamba2));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, false, "pre_ff_layernorm"));
    y->mlp.act = c->activation;
    CAB_TRY(
        dense(b, &y->mlp.gate, c->d_model, c->d_mlp, c->mlp_bias, 1, c->multipliers.gate, "feed_forward.gate_proj"));
    CAB_TRY(cab_builder_dense(b, &y->mlp.up, c->d_model, c->d_mlp, c->mlp_bias, "feed_forward.up_proj"));
    return dense(b, &y->mlp.down, c->d_mlp, c->d_model, c->mlp_bias, 1, c->multipliers.down, "feed_forward.down_proj");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    n->embedding_scale = (float)c->embedding_scale;
    n->head_scale = (float)c->head_scale;
    return cab_decoder_build(b, c, n, build_block, "model.final_layernorm", false, false);
}

const cab_arch cab_arch_falcon_h1 = {
    .name = "falcon_h1",
    .student = true,
    .settings = setting_tables,
    .unread = cab_decoder_unread,
    .configure = configure,
    .describe = describe,
    .build = build,
};
