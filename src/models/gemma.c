/* gemma.c - Gemma 2 and 3 (Gemma Team 2024, 2025), Hugging Face layout.
 *
 *   x = embedding[ids] sqrt(D)
 *   per layer:  x = x + post_attention_layernorm(attention(input_layernorm(x)))
 *               x = x + post_feedforward_layernorm(mlp(pre_feedforward_layernorm(x)))
 *
 * All norms are RMS norms times 1 + w; the MLP's gate goes through a GELU. Some layers see all tokens, the others sliding_window of
 * them.
 *
 *   Gemma 2   every second layer sees all tokens; soft caps of the logits of attention and of the head
 *   Gemma 3   every sixth, with a rotary embedding of its own; queries and keys are normed head by head before the rotation */
#include "models/architectures.h"
#include "models/decoder.h"

#include <math.h>

#define COMMON_SETTINGS                                                                                                \
    {"attention_bias", NULL}, {"cache_implementation", NULL}, {"hidden_activation", NULL}, {"layer_types", NULL},      \
        {"query_pre_attn_scalar", NULL}, {"rms_norm_eps", NULL}, {"sliding_window", NULL},                             \
    {                                                                                                                  \
        "use_bidirectional_attention", "false"                                                                         \
    }

static const cab_setting settings_2[] = {
    COMMON_SETTINGS, {"attn_logit_softcapping", NULL}, {"final_logit_softcapping", NULL}, {NULL, NULL}};
static const cab_setting settings_3[] = {COMMON_SETTINGS,
                                         {"_sliding_window_pattern", NULL},
                                         {"attn_logit_softcapping", "null"},
                                         {"final_logit_softcapping", "null"},
                                         {"mlp_bias", "false"},
                                         {"rope_local_base_freq", NULL},
                                         {"sliding_window_pattern", NULL},
                                         {NULL, NULL}};
static const cab_setting *const tables_2[] = {settings_2, cab_settings_decoder, cab_settings_transformers, NULL};
static const cab_setting *const tables_3[] = {settings_3, cab_settings_decoder, cab_settings_transformers, NULL};

/* sliding_window, and layer_types or every how many layers one sees all tokens. */
static cab_status configure_windows(const cab_json *json, int64_t pattern, cab_config *c)
{
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
    return CAB_OK;
}

/* Absent: what transformers takes. null: no cap. */
static cab_status parse_cap(const cab_json *json, const char *key, double fallback, double *cap)
{
    json_object *value = NULL;
    *cap = 0;
    if (json_object_object_get_ex(json->root, key, &value) && value == NULL)
        return CAB_OK;
    return cab_positive_parse(json, NULL, key, fallback, cap);
}

static cab_status configure_2(const cab_json *json, cab_config *c)
{
    CAB_TRY(configure(json, c));
    CAB_TRY(parse_cap(json, "attn_logit_softcapping", 50, &c->attention_cap));
    CAB_TRY(parse_cap(json, "final_logit_softcapping", 30, &c->logit_cap));
    CAB_TRY(configure_windows(json, 2, c));
    return cab_rope_parse(json, 10000, 1, c);
}

static cab_status configure_3(const cab_json *json, cab_config *c)
{
    int64_t pattern;
    CAB_TRY(configure(json, c));
    CAB_TRY(cab_json_int_or(json, NULL, "_sliding_window_pattern", 1, CAB_LAYERS_MAX, 6, &pattern));
    CAB_TRY(cab_json_int_or(json, NULL, "sliding_window_pattern", 1, CAB_LAYERS_MAX, pattern, &pattern));
    CAB_TRY(configure_windows(json, pattern, c));
    return cab_rope_layers_parse(json, 1000000, 10000, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    const int64_t D = c->d_model;
    const double eps = c->norm_eps;
    cab_attention_mixer *a = &y->attention;
    CAB_TRY(cab_builder_norm(b, &y->norm, D, eps, false, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, c->attention_bias, c->attention_bias, "self_attn.o_proj", a));
    a->shape.scale = (float)c->attention_scale;
    a->shape.cap = (float)c->attention_cap;
    CAB_TRY(cab_builder_norm(b, &y->mixed_norm, D, eps, false, "post_attention_layernorm"));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, D, eps, false, "pre_feedforward_layernorm"));
    CAB_TRY(cab_builder_norm(b, &y->fed_norm, D, eps, false, "post_feedforward_layernorm"));
    return cab_decoder_gated_mlp(b, c, false, &y->mlp);
}

static cab_status build_block_3(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    CAB_TRY(build_block(b, c, l, y));
    CAB_TRY(cab_builder_norm(b, &y->attention.q_norm, c->head_dim, c->norm_eps, false, "self_attn.q_norm"));
    return cab_builder_norm(b, &y->attention.k_norm, c->head_dim, c->norm_eps, false, "self_attn.k_norm");
}

static cab_status build_of(cab_builder *b, const cab_config *c, cab_decoder_block *block, cab_network *n)
{
    const float scale = (float)sqrt(c->d_model);
    n->embedding_scale = b->dtype == CAB_BF16 ? cab_bf16_to_f32(cab_bf16_from_f32(scale)) : scale; /* in its dtype */
    n->logit_cap = (float)c->logit_cap;
    b->norm_offset = 1;
    return cab_decoder_build(b, c, n, block, "model.norm", false, false);
}

static cab_status build_2(cab_builder *b, const cab_config *c, cab_network *n)
{
    return build_of(b, c, build_block, n);
}

static cab_status build_3(cab_builder *b, const cab_config *c, cab_network *n)
{
    return build_of(b, c, build_block_3, n);
}

const cab_arch cab_arch_gemma2 = {.name = "gemma2",
                                  .teacher = true,
                                  .settings = tables_2,
                                  .unread = cab_decoder_unread,
                                  .configure = configure_2,
                                  .build = build_2};
const cab_arch cab_arch_gemma3_text = {.name = "gemma3_text",
                                       .teacher = true,
                                       .settings = tables_3,
                                       .unread = cab_decoder_unread,
                                       .configure = configure_3,
                                       .build = build_3};
