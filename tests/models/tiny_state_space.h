/* tiny_state_space.h - tiny.h for models with state-space mixers: width 16, 2 layers, vocabulary 23. */
#ifndef TINY_STATE_SPACE_H
#define TINY_STATE_SPACE_H

#include "tiny.h"

/* A Mamba-2 mixer of inner width E, H heads, G groups and 5 states, a convolution of 3, without biases of its projections. */
static inline void tiny_mamba2_mixer(tiny *t, int64_t E, int64_t H, int64_t G, bool normed, const char *prefix, int l)
{
    const int64_t channels = E + 2 * G * 5;
    char name[CAB_NAME_MAX];
    snprintf(name, sizeof name, prefix, l);
    TINY_MATRIX(t, E + channels + H, 16, "%s.in_proj.weight", name);
    tiny_add(t, 0, 3, (int64_t[]){channels, 1, 3}, "%s.conv1d.weight", name);
    TINY_VECTOR(t, 0, channels, "%s.conv1d.bias", name);
    TINY_VECTOR(t, -1, H, "%s.dt_bias", name);
    TINY_VECTOR(t, 0, H, "%s.A_log", name);
    TINY_VECTOR(t, 1, H, "%s.D", name);
    if (normed)
        TINY_VECTOR(t, 1, E, "%s.norm.weight", name);
    TINY_MATRIX(t, 16, E, "%s.out_proj.weight", name);
}

/* Inner width 32, 5 states, a convolution of 3, steps of rank 2. */
static inline tiny tiny_mamba(cab_dtype dtype)
{
    tiny t = {.dtype = dtype,
              .config =
                  "{\"model_type\": \"mamba\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 2, "
                  "\"state_size\": 5, \"conv_kernel\": 3, \"expand\": 2, \"time_step_rank\": 2, \"eos_token_id\": 0}"};
    TINY_MATRIX(&t, 23, 16, "backbone.embeddings.weight");
    for (int l = 0; l < 2; l++) {
        TINY_VECTOR(&t, 1, 16, "backbone.layers.%d.norm.weight", l);
        TINY_MATRIX(&t, 64, 16, "backbone.layers.%d.mixer.in_proj.weight", l);
        TINY_MATRIX(&t, 32, 5, "backbone.layers.%d.mixer.A_log", l);
        TINY_VECTOR(&t, 1, 32, "backbone.layers.%d.mixer.D", l);
        tiny_add(&t, 0, 3, (int64_t[]){32, 1, 3}, "backbone.layers.%d.mixer.conv1d.weight", l);
        TINY_VECTOR(&t, 0, 32, "backbone.layers.%d.mixer.conv1d.bias", l);
        TINY_MATRIX(&t, 12, 32, "backbone.layers.%d.mixer.x_proj.weight", l);
        TINY_MATRIX(&t, 32, 2, "backbone.layers.%d.mixer.dt_proj.weight", l);
        TINY_VECTOR(&t, -1, 32, "backbone.layers.%d.mixer.dt_proj.bias", l);
        TINY_MATRIX(&t, 16, 32, "backbone.layers.%d.mixer.out_proj.weight", l);
    }
    TINY_VECTOR(&t, 1, 16, "backbone.norm_f.weight");
    return t;
}

/* Inner width 32, 4 heads in `groups` groups, 2 as the configuration says. */
static inline tiny tiny_mamba2_grouped(cab_dtype dtype, int64_t groups)
{
    tiny t = {.dtype = dtype,
              .config =
                  "{\"model_type\": \"mamba2\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 2, "
                  "\"state_size\": 5, \"conv_kernel\": 3, \"expand\": 2, \"num_heads\": 4, \"head_dim\": 8, "
                  "\"n_groups\": 2, \"time_step_limit\": [0.0, Infinity], \"eos_token_id\": 0}"};
    TINY_MATRIX(&t, 23, 16, "backbone.embeddings.weight");
    for (int l = 0; l < 2; l++) {
        TINY_VECTOR(&t, 1, 16, "backbone.layers.%d.norm.weight", l);
        tiny_mamba2_mixer(&t, 32, 4, groups, true, "backbone.layers.%d.mixer", l);
    }
    TINY_VECTOR(&t, 1, 16, "backbone.norm_f.weight");
    TINY_MATRIX(&t, 23, 16, "lm_head.weight");
    return t;
}

static inline tiny tiny_mamba2(cab_dtype dtype)
{
    return tiny_mamba2_grouped(dtype, 2);
}

/* q, k, v and o of 2 heads of width P, of 1 of keys and values. */
static inline void tiny_heads(tiny *t, int64_t P, int l)
{
    const struct {
        const char *name;
        int64_t in, out;
    } dense[] = {{"q_proj", 16, 2 * P}, {"k_proj", 16, P}, {"v_proj", 16, P}, {"o_proj", 2 * P, 16}};
    for (int i = 0; i < 4; i++)
        TINY_MATRIX(t, dense[i].out, dense[i].in, "model.layers.%d.self_attn.%s.weight", l, dense[i].name);
}

/* Beside heads of 6 a mixer of inner width 24, 3 heads, 1 group; MLP of 20. */
static inline tiny tiny_falcon_h1(cab_dtype dtype)
{
    tiny t = {
        .dtype = dtype,
        .config =
            "{\"model_type\": \"falcon_h1\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 2, "
            "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 6, \"intermediate_size\": 20, "
            "\"max_position_embeddings\": 16, \"mamba_d_ssm\": 24, \"mamba_n_heads\": 3, \"mamba_d_head\": \"auto\", "
            "\"mamba_n_groups\": 1, \"mamba_d_state\": 5, \"mamba_d_conv\": 3, \"mamba_rms_norm\": false, "
            "\"tie_word_embeddings\": true, \"eos_token_id\": 0}"};
    TINY_MATRIX(&t, 23, 16, "model.embed_tokens.weight");
    for (int l = 0; l < 2; l++) {
        TINY_VECTOR(&t, 1, 16, "model.layers.%d.input_layernorm.weight", l);
        tiny_heads(&t, 6, l);
        tiny_mamba2_mixer(&t, 24, 3, 1, false, "model.layers.%d.mamba", l);
        TINY_VECTOR(&t, 1, 16, "model.layers.%d.pre_ff_layernorm.weight", l);
        TINY_MATRIX(&t, 20, 16, "model.layers.%d.feed_forward.gate_proj.weight", l);
        TINY_MATRIX(&t, 20, 16, "model.layers.%d.feed_forward.up_proj.weight", l);
        TINY_MATRIX(&t, 16, 20, "model.layers.%d.feed_forward.down_proj.weight", l);
    }
    TINY_VECTOR(&t, 1, 16, "model.final_layernorm.weight");
    return t;
}

/* Layer 0 is a mixer of inner width 32, 4 heads, 1 group, layer 1 has heads of 8; MLP of 20. */
static inline tiny tiny_granite_hybrid(cab_dtype dtype)
{
    tiny t = {
        .dtype = dtype,
        .config =
            "{\"model_type\": \"granitemoehybrid\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": "
            "2, \"layer_types\": [\"mamba\", \"attention\"], \"num_local_experts\": 0, \"num_attention_heads\": 2, "
            "\"num_key_value_heads\": 1, \"shared_intermediate_size\": 20, "
            "\"max_position_embeddings\": 16, \"mamba_n_heads\": 4, \"mamba_d_state\": 5, \"mamba_d_conv\": 3, "
            "\"position_embedding_type\": \"rope\", \"attention_multiplier\": 0.4, \"residual_multiplier\": 0.5, "
            "\"embedding_multiplier\": 2.0, \"logits_scaling\": 3.0, \"eos_token_id\": 0}"};
    TINY_MATRIX(&t, 23, 16, "model.embed_tokens.weight");
    for (int l = 0; l < 2; l++) {
        TINY_VECTOR(&t, 1, 16, "model.layers.%d.input_layernorm.weight", l);
        if (l == 0)
            tiny_mamba2_mixer(&t, 32, 4, 1, true, "model.layers.%d.mamba", l);
        else
            tiny_heads(&t, 8, l);
        TINY_VECTOR(&t, 1, 16, "model.layers.%d.post_attention_layernorm.weight", l);
        TINY_MATRIX(&t, 40, 16, "model.layers.%d.shared_mlp.input_linear.weight", l);
        TINY_MATRIX(&t, 16, 20, "model.layers.%d.shared_mlp.output_linear.weight", l);
    }
    TINY_VECTOR(&t, 1, 16, "model.norm.weight");
    TINY_MATRIX(&t, 23, 16, "lm_head.weight");
    return t;
}

#endif
