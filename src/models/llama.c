/* llama.c - Llama 1 to 3 (Touvron et al. 2023) and what copies it, such as SmolLM2 and TinyLlama, Hugging Face layout.
 *
 *   x = embed_tokens[ids]
 *   per layer:  x = x + o_proj(attention(rotary(q), rotary(k), v)) of u = input_layernorm(x)
 *               x = x + down_proj(silu(gate_proj(u)) * up_proj(u)) of u = post_attention_layernorm(x)
 *   logits = lm_head(norm(x))
 *
 * Norms are RMS norms. Keys and values may have fewer heads than queries; a head may be wider than hidden_size / heads. */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {{"attention_bias", NULL}, {"mlp_bias", NULL},         {"pretraining_tp", NULL},
                                       {"rms_norm_eps", NULL},   {"sliding_window", "null"}, {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_positive_parse(json, NULL, "rms_norm_eps", 1e-6, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "attention_bias", false, &c->attention_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "mlp_bias", false, &c->mlp_bias));
    return cab_rope_parse(json, 10000, 1, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, false, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, c->attention_bias, c->attention_bias, "self_attn.o_proj", &y->attention));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, false, "post_attention_layernorm"));
    return cab_decoder_gated_mlp(b, c, c->mlp_bias, &y->mlp);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_decoder_build(b, c, n, build_block, "model.norm", false, false);
}

const cab_arch cab_arch_llama = {.name = "llama",
                                 .teacher = true,
                                 .settings = setting_tables,
                                 .unread = cab_decoder_unread,
                                 .configure = configure,
                                 .build = build};
