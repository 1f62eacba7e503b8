/* phi3.c - Phi 3 and 3.5 mini, Phi 4 (Abdin et al. 2024), Hugging Face layout: Llama whose q, k, v are one matrix, and gate and up
 * another. The models of long contexts have rotary embeddings of kind longrope. */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {
    {"embd_pdrop", NULL}, {"rms_norm_eps", NULL}, {"sliding_window", NULL}, {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_positive_parse(json, NULL, "rms_norm_eps", 1e-5, &c->norm_eps));
    CAB_TRY(cab_window_parse(json, 0, c));
    return cab_rope_parse(json, 10000, 1, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    cab_attention_mixer *a = &y->attention;
    const int64_t D = c->d_model, Q = (int64_t)c->n_head * c->head_dim, K = (int64_t)c->n_kv_head * c->head_dim;
    cab_decoder_heads(c, l, a);
    y->mlp.act = c->activation;
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, false, "input_layernorm"));
    CAB_TRY(cab_builder_dense(b, &a->qkv, D, Q + 2 * K, false, "self_attn.qkv_proj"));
    CAB_TRY(cab_builder_dense(b, &a->out, Q, D, false, "self_attn.o_proj"));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, false, "post_attention_layernorm"));
    CAB_TRY(cab_builder_dense(b, &y->mlp.gate_up, D, 2 * (int64_t)c->d_mlp, false, "mlp.gate_up_proj"));
    return cab_builder_dense(b, &y->mlp.down, c->d_mlp, D, false, "mlp.down_proj");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_decoder_build(b, c, n, build_block, "model.norm", false, false);
}

const cab_arch cab_arch_phi3 = {.name = "phi3",
                                .teacher = true,
                                .settings = setting_tables,
                                .unread = cab_decoder_unread,
                                .configure = configure,
                                .build = build};
