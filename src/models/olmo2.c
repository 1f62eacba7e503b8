/* olmo2.c - OLMo 2 (OLMo Team 2024), Hugging Face layout.
 *
 *   per layer:  x = x + post_attention_layernorm(attention(x))     x = x + post_feedforward_layernorm(mlp(x))
 *
 * Nothing is normed before; queries and keys are, all heads together, before the rotation. Otherwise Llama. */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {{"attention_bias", NULL}, {"rms_norm_eps", NULL}, {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_positive_parse(json, NULL, "rms_norm_eps", 1e-5, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "attention_bias", false, &c->attention_bias));
    return cab_rope_parse(json, 10000, 1, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    cab_attention_mixer *a = &y->attention;
    const int64_t Q = (int64_t)c->n_head * c->head_dim, K = (int64_t)c->n_kv_head * c->head_dim;
    CAB_TRY(cab_decoder_attention(b, c, l, c->attention_bias, c->attention_bias, "self_attn.o_proj", a));
    CAB_TRY(cab_builder_norm(b, &a->q_norm, Q, c->norm_eps, false, "self_attn.q_norm"));
    CAB_TRY(cab_builder_norm(b, &a->k_norm, K, c->norm_eps, false, "self_attn.k_norm"));
    CAB_TRY(cab_builder_norm(b, &y->mixed_norm, c->d_model, c->norm_eps, false, "post_attention_layernorm"));
    CAB_TRY(cab_builder_norm(b, &y->fed_norm, c->d_model, c->norm_eps, false, "post_feedforward_layernorm"));
    return cab_decoder_gated_mlp(b, c, false, &y->mlp);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_decoder_build(b, c, n, build_block, "model.norm", false, false);
}

const cab_arch cab_arch_olmo2 = {.name = "olmo2",
                                 .teacher = true,
                                 .settings = setting_tables,
                                 .unread = cab_decoder_unread,
                                 .configure = configure,
                                 .build = build};
