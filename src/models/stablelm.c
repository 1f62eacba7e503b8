/* stablelm.c - StableLM 2 (Bellagente et al. 2024), Hugging Face layout: layer norms, partial rotary embedding, a gated MLP; mixer
 * and MLP one after the other, or side by side on the same norm (use_parallel_residual). */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {{"hidden_dropout", NULL},  {"layer_norm_eps", NULL},
                                       {"qk_layernorm", "false"}, {"use_parallel_residual", NULL},
                                       {"use_qkv_bias", NULL},    {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_eps", 1e-5, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "use_qkv_bias", false, &c->attention_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "use_parallel_residual", false, &c->parallel));
    return cab_rope_parse(json, 10000, 0.25, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    y->parallel = c->parallel;
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, true, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, c->attention_bias, false, "self_attn.o_proj", &y->attention));
    if (!c->parallel)
        CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, true, "post_attention_layernorm"));
    return cab_decoder_gated_mlp(b, c, false, &y->mlp);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_decoder_build(b, c, n, build_block, "model.norm", true, false);
}

const cab_arch cab_arch_stablelm = {.name = "stablelm",
                                    .teacher = true,
                                    .settings = setting_tables,
                                    .unread = cab_decoder_unread,
                                    .configure = configure,
                                    .build = build};
