/* qwen3.c - Qwen 3 (2025), Hugging Face layout: Qwen 2 whose queries and keys are normed head by head before the rotation, and
 * whose biases are all or none. */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {{"attention_bias", NULL},
                                       {"layer_types", NULL},
                                       {"max_window_layers", NULL},
                                       {"rms_norm_eps", NULL},
                                       {"sliding_window", NULL},
                                       {"use_sliding_window", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    bool sliding;
    int64_t first;
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_positive_parse(json, NULL, "rms_norm_eps", 1e-6, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "attention_bias", false, &c->attention_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "use_sliding_window", false, &sliding));
    CAB_TRY(cab_json_int_or(json, NULL, "max_window_layers", 0, CAB_LAYERS_MAX, 28, &first));
    if (sliding)
        CAB_TRY(cab_window_parse(json, (int)first, c));
    return cab_rope_parse(json, 10000, 1, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    cab_attention_mixer *a = &y->attention;
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, false, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, c->attention_bias, c->attention_bias, "self_attn.o_proj", a));
    CAB_TRY(cab_builder_norm(b, &a->q_norm, c->head_dim, c->norm_eps, false, "self_attn.q_norm"));
    CAB_TRY(cab_builder_norm(b, &a->k_norm, c->head_dim, c->norm_eps, false, "self_attn.k_norm"));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, false, "post_attention_layernorm"));
    return cab_decoder_gated_mlp(b, c, false, &y->mlp);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_decoder_build(b, c, n, build_block, "model.norm", false, false);
}

const cab_arch cab_arch_qwen3 = {.name = "qwen3",
                                 .teacher = true,
                                 .settings = setting_tables,
                                 .unread = cab_decoder_unread,
                                 .configure = configure,
                                 .build = build};
