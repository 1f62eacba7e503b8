/* mistral.c - Mistral (Jiang et al. 2023), Hugging Face layout: Llama without biases, whose layers see sliding_window tokens back. */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {{"rms_norm_eps", NULL}, {"sliding_window", NULL}, {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_positive_parse(json, NULL, "rms_norm_eps", 1e-6, &c->norm_eps));
    CAB_TRY(cab_window_parse(json, 0, c));
    return cab_rope_parse(json, 10000, 1, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, false, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, false, false, "self_attn.o_proj", &y->attention));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, false, "post_attention_layernorm"));
    return cab_decoder_gated_mlp(b, c, false, &y->mlp);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_decoder_build(b, c, n, build_block, "model.norm", false, false);
}

const cab_arch cab_arch_mistral = {.name = "mistral",
                                   .teacher = true,
                                   .settings = setting_tables,
                                   .unread = cab_decoder_unread,
                                   .configure = configure,
                                   .build = build};
