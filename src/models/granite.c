/* granite.c - Granite 3 (IBM 2024), Hugging Face layout: Llama with four multipliers, of the embedding, of attention's logits, of
 * what mixer and MLP add, and 1 / logits_scaling of what the head gives. */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {
    {"attention_bias", NULL}, {"attention_multiplier", NULL}, {"embedding_multiplier", NULL}, {"logits_scaling", NULL},
    {"mlp_bias", NULL},       {"residual_multiplier", NULL},  {"rms_norm_eps", NULL},         {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_positive_parse(json, NULL, "rms_norm_eps", 1e-6, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "attention_bias", false, &c->attention_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "mlp_bias", false, &c->mlp_bias));
    CAB_TRY(cab_positive_parse(json, NULL, "embedding_multiplier", 1, &c->embedding_scale));
    CAB_TRY(cab_positive_parse(json, NULL, "attention_multiplier", 1, &c->attention_scale));
    CAB_TRY(cab_positive_parse(json, NULL, "residual_multiplier", 1, &c->branch_scale));
    CAB_TRY(cab_positive_parse(json, NULL, "logits_scaling", 1, &c->head_scale));
    c->head_scale = 1 / c->head_scale;
    return cab_rope_parse(json, 10000, 1, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    y->branch_scale = (float)c->branch_scale;
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, false, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, c->attention_bias, c->attention_bias, "self_attn.o_proj", &y->attention));
    y->attention.shape.scale = (float)c->attention_scale;
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, false, "post_attention_layernorm"));
    return cab_decoder_gated_mlp(b, c, c->mlp_bias, &y->mlp);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    n->embedding_scale = (float)c->embedding_scale;
    n->head_scale = (float)c->head_scale;
    return cab_decoder_build(b, c, n, build_block, "model.norm", false, false);
}

const cab_arch cab_arch_granite = {.name = "granite",
                                   .teacher = true,
                                   .settings = setting_tables,
                                   .unread = cab_decoder_unread,
                                   .configure = configure,
                                   .build = build};
