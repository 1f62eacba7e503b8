/* phi.c - Phi-1, Phi-1.5 and Phi-2 (Li et al. 2023), Hugging Face layout.
 *
 *   x = embed_tokens[ids]
 *   per layer:  u = input_layernorm(x)     x = dense(attention(rotary(q), rotary(k), v)) + fc2(gelu(fc1(u))) + x
 *   logits = lm_head(final_layernorm(x))
 *
 * Attention and MLP are parallel, on the same u. The first partial_rotary_factor of every head is rotated. */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {{"layer_norm_eps", NULL}, {"qk_layernorm", "false"}, {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_decoder_parse(json, "gelu_new", c));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_eps", 1e-5, &c->norm_eps));
    return cab_rope_parse(json, 10000, 0.5, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    y->parallel = y->x_last = true;
    y->mlp.act = c->activation;
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, true, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, true, true, "self_attn.dense", &y->attention));
    CAB_TRY(cab_builder_dense(b, &y->mlp.up, c->d_model, c->d_mlp, true, "mlp.fc1"));
    return cab_builder_dense(b, &y->mlp.down, c->d_mlp, c->d_model, true, "mlp.fc2");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_decoder_build(b, c, n, build_block, "model.final_layernorm", true, true);
}

const cab_arch cab_arch_phi = {.name = "phi",
                               .teacher = true,
                               .settings = setting_tables,
                               .unread = cab_decoder_unread,
                               .configure = configure,
                               .build = build};
