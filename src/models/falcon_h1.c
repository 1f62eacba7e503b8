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

static const cab_number numbers[] = {CAB_FIELD("rms_norm_eps", norm_eps, 1e-5),
                                     CAB_FIELD("embedding_multiplier", embedding_scale, 1),
                                     CAB_FIELD("lm_head_multiplier", head_scale, 1),
                                     {0}};
/* Those that become part of the weights; and ssm_multipliers and mlp_multipliers. */
static const cab_number multipliers[] = {CAB_FIELD("attention_in_multiplier", multipliers.attention_in, 1),
                                         CAB_FIELD("attention_out_multiplier", multipliers.attention_out, 1),
                                         CAB_FIELD("key_multiplier", multipliers.key, 1),
                                         CAB_FIELD("ssm_in_multiplier", multipliers.state_in, 1),
                                         CAB_FIELD("ssm_out_multiplier", multipliers.state_out, 1),
                                         {0}};
enum { STATE_PARTS = 5, MLP_PARTS = 2 };
static const cab_switch switches[] = {
    CAB_FIELD("attention_bias", attention_bias, false),    CAB_FIELD("mlp_bias", mlp_bias, false),
    CAB_FIELD("projectors_bias", out_bias, false),         CAB_FIELD("mamba_rms_norm", gated_norm, false),
    CAB_FIELD("mamba_norm_before_gate", norm_first, true), {0}};

static const cab_setting settings[] = {{"attention_bias", NULL},
                                       {"attention_in_multiplier", NULL},
                                       {"attention_out_multiplier", NULL},
                                       {"embedding_multiplier", NULL},
                                       {"key_multiplier", NULL},
                                       {"lm_head_multiplier", NULL},
                                       {"mamba_d_ssm", NULL},
                                       {"mamba_norm_before_gate", NULL},
                                       {"mamba_rms_norm", NULL},
                                       {"mamba_use_mlp", "true"},
                                       {"mlp_bias", NULL},
                                       {"mlp_expansion_factor", NULL},
                                       {"mlp_multipliers", NULL},
                                       {"num_logits_to_keep", NULL},
                                       {"projectors_bias", NULL},
                                       {"rms_norm_eps", NULL},
                                       {"sliding_window", "null"},
                                       {"ssm_in_multiplier", NULL},
                                       {"ssm_multipliers", NULL},
                                       {"ssm_out_multiplier", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_mamba2, cab_settings_decoder,
                                                    cab_settings_transformers, NULL};

static cab_status parse_multipliers(const cab_json *json, cab_config *c)
{
    double mlp[MLP_PARTS];
    CAB_TRY(cab_numbers_parse(json, multipliers, c));
    CAB_TRY(cab_positives_parse(json, "ssm_multipliers", STATE_PARTS, c->multipliers.state_parts));
    CAB_TRY(cab_positives_parse(json, "mlp_multipliers", MLP_PARTS, mlp));
    c->multipliers.gate = mlp[0];
    c->multipliers.down = mlp[1];
    return CAB_OK;
}

static cab_status configure(const cab_json *json, cab_config *c)
{
    /* mamba_d_ssm has a default; null leaves the inner width to mamba_expand. */
    const int fallback = json_object_object_get_ex(json->root, "mamba_d_ssm", NULL) ? 0 : 1024;
    int64_t inner;
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_numbers_parse(json, numbers, c));
    CAB_TRY(cab_switches_parse(json, switches, c));
    CAB_TRY(parse_multipliers(json, c));
    CAB_TRY(cab_json_int_or(json, NULL, "mamba_d_ssm", 1, 1 << 18, fallback, &inner));
    CAB_TRY(cab_mamba2_parse(json, inner, c));
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
    const cab_config none = {0};
    cab_model_describe("falcon_h1", "FalconH1ForCausalLM", c, json);
    cab_decoder_describe(c, json);
    cab_mamba2_describe(c, json);
    cab_numbers_describe(numbers, c, json);
    cab_switches_describe(switches, c, json);
    cab_numbers_describe(multipliers, &none, json);
    json_object_object_add(json, "ssm_multipliers", ones(STATE_PARTS));
    json_object_object_add(json, "mlp_multipliers", ones(MLP_PARTS));
    json_object_object_add(json, "mamba_d_ssm", json_object_new_int(c->d_inner));
    return CAB_OK;
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    const int64_t D = c->d_model, F = c->d_mlp;
    const cab_multipliers *m = &c->multipliers;
    y->mlp.act = c->activation;
    CAB_TRY(cab_builder_norm(b, &y->norm, D, c->norm_eps, false, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, c->attention_bias, c->attention_bias, "self_attn.o_proj", &y->attention));
    CAB_TRY(cab_mamba2_build(b, c, "mamba", &y->mamba2));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, D, c->norm_eps, false, "pre_ff_layernorm"));
    CAB_TRY(cab_builder_dense_times(b, &y->mlp.gate, D, F, c->mlp_bias, 1, m->gate, "feed_forward.gate_proj"));
    CAB_TRY(cab_builder_dense(b, &y->mlp.up, D, F, c->mlp_bias, "feed_forward.up_proj"));
    return cab_builder_dense_times(b, &y->mlp.down, F, D, c->mlp_bias, 1, m->down, "feed_forward.down_proj");
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
