/* starcoder2.c - StarCoder 2 (Lozhkov et al. 2024), Hugging Face layout: layer norms, a plain MLP, biases all or none, and a
 * sliding window. */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {{"embedding_dropout", NULL}, {"norm_epsilon", NULL}, {"residual_dropout", NULL},
                                       {"sliding_window", NULL},    {"use_bias", NULL},     {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_decoder_parse(json, "gelu_pytorch_tanh", c));
    CAB_TRY(cab_positive_parse(json, NULL, "norm_epsilon", 1e-5, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "use_bias", true, &c->attention_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "tie_word_embeddings", true, &c->tied));
    CAB_TRY(cab_window_parse(json, 0, c));
    return cab_rope_parse(json, 10000, 1, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    const bool biased = c->attention_bias;
    y->mlp.act = c->activation;
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, true, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, biased, biased, "self_attn.o_proj", &y->attention));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, true, "post_attention_layernorm"));
    CAB_TRY(cab_builder_dense(b, &y->mlp.up, c->d_model, c->d_mlp, biased, "mlp.c_fc"));
    return cab_builder_dense(b, &y->mlp.down, c->d_mlp, c->d_model, biased, "mlp.c_proj");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_decoder_build(b, c, n, build_block, "model.norm", true, false);
}

const cab_arch cab_arch_starcoder2 = {.name = "starcoder2",
                                      .teacher = true,
                                      .settings = setting_tables,
                                      .unread = cab_decoder_unread,
                                      .configure = configure,
                                      .build = build};
