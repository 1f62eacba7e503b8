/* gemma3.c - Gemma 3 (Gemma Team 2025), Hugging Face layout.
 *
 *   x = embedding[ids] sqrt(D)
 *   per layer:  x = x + post_attention_layernorm(attention(input_layernorm(x)))
 *               x = x + post_feedforward_layernorm(mlp(pre_feedforward_layernorm(x)))
 *
 * All norms are RMS norms times 1 + w; queries and keys are normed head by head before the rotation; the MLP's gate goes through
 * a GELU. Every sixth layer sees all tokens, the others sliding_window of them, with a rotary embedding of their own. */
#include "models/architectures.h"
#include "models/decoder.h"

#include <math.h>

static const cab_setting settings[] = {{"_sliding_window_pattern", NULL},
                                       {"attention_bias", NULL},
                                       {"attn_logit_softcapping", "null"},
                                       {"cache_implementation", NULL},
                                       {"final_logit_softcapping", "null"},
                                       {"hidden_activation", NULL},
                                       {"layer_types", NULL},
                                       {"mlp_bias", "false"},
                                       {"query_pre_attn_scalar", NULL},
                                       {"rms_norm_eps", NULL},
                                       {"rope_local_base_freq", NULL},
                                       {"sliding_window", NULL},
                                       {"sliding_window_pattern", NULL},
                                       {"use_bidirectional_attention", "false"},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

/* sliding_window, and layer_types or every how many layers one sees all tokens. */
static cab_status configure_windows(const cab_json *json, cab_config *c)
{
    int64_t pattern;
    CAB_TRY(cab_json_int_or(json, NULL, "_sliding_window_pattern", 1, CAB_LAYERS_MAX, 6, &pattern));
    CAB_TRY(cab_json_int_or(json, NULL, "sliding_window_pattern", 1, CAB_LAYERS_MAX, pattern, &pattern));
    CAB_TRY(cab_window_parse(json, c->n_layer, c));
    c->window = c->window > 0 ? c->window : 4096;
    for (int l = 0; l < c->n_layer && !json_object_object_get_ex(json->root, "layer_types", NULL); l++)
        c->layer_kinds[l] |= (l + 1) % pattern != 0 ? CAB_LAYER_SLIDING : 0;
    return CAB_OK;
}

static cab_status configure(const cab_json *json, cab_config *c)
{
    double query_scalar;
    CAB_TRY(cab_decoder_parse(json, "gelu_pytorch_tanh", c));
    CAB_TRY(cab_activation_parse(json, "hidden_activation", "gelu_pytorch_tanh", &c->activation));
    CAB_TRY(cab_json_bool_or(json, NULL, "tie_word_embeddings", true, &c->tied));
    CAB_TRY(cab_json_bool_or(json, NULL, "attention_bias", false, &c->attention_bias));
    CAB_TRY(cab_positive_parse(json, NULL, "rms_norm_eps", 1e-6, &c->norm_eps));
    CAB_TRY(cab_positive_parse(json, NULL, "query_pre_attn_scalar", 256, &query_scalar));
    c->attention_scale = 1 / sqrt(query_scalar);
    CAB_TRY(configure_windows(json, c));
    return cab_rope_layers_parse(json, 1000000, 10000, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    const int64_t D = c->d_model, P = c->head_dim;
    const double eps = c->norm_eps;
    cab_attention_mixer *a = &y->attention;
    CAB_TRY(cab_builder_norm(b, &y->norm, D, eps, false, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, c->attention_bias, c->attention_bias, "self_attn.o_proj", a));
    a->shape.scale = (float)c->attention_scale;
    CAB_TRY(cab_builder_norm(b, &a->q_norm, P, eps, false, "self_attn.q_norm"));
    CAB_TRY(cab_builder_norm(b, &a->k_norm, P, eps, false, "self_attn.k_norm"));
    CAB_TRY(cab_builder_norm(b, &y->mixed_norm, D, eps, false, "post_attention_layernorm"));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, D, eps, false, "pre_feedforward_layernorm"));
    CAB_TRY(cab_builder_norm(b, &y->fed_norm, D, eps, false, "post_feedforward_layernorm"));
    return cab_decoder_gated_mlp(b, c, false, &y->mlp);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    const float scale = (float)sqrt(c->d_model);
    n->embedding_scale = b->dtype == CAB_BF16 ? cab_bf16_to_f32(cab_bf16_from_f32(scale)) : scale; /* in its dtype */
    b->norm_offset = 1;
    return cab_decoder_build(b, c, n, build_block, "model.norm", false, false);
}

const cab_arch cab_arch_gemma3_text = {.name = "gemma3_text",
                                       .teacher = true,
                                       .settings = setting_tables,
                                       .unread = cab_decoder_unread,
                                       .configure = configure,
                                       .build = build};
