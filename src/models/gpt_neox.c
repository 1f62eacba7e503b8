/* gpt_neox.c - GPT-NeoX (Black et al. 2022) and Pythia, Hugging Face layout.
 *
 *   parallel:  x = attention(input_layernorm(x)) + mlp(post_attention_layernorm(x)) + x      or one after the other
 *
 * query_key_value holds q, k and v head by head; here its rows stand as those of all q, then all k, then all v. A part of every
 * head is rotated. */
#include "base/memory.h"
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {
    {"attention_bias", NULL},  {"classifier_dropout", NULL}, {"hidden_dropout", NULL},        {"layer_norm_eps", NULL},
    {"rotary_emb_base", NULL}, {"rotary_pct", NULL},         {"use_parallel_residual", NULL}, {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};
/* Causal masks and frequencies that older files keep. */
static const char *const unread[] = {"*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq", NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    double base, share;
    CAB_TRY(cab_decoder_parse(json, "gelu", c));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_eps", 1e-5, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "attention_bias", true, &c->attention_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "use_parallel_residual", true, &c->parallel));
    if (c->n_kv_head != c->n_head)
        return cab_fail(CAB_ESHAPE, "%s: num_key_value_heads %d is not num_attention_heads %d", json->name,
                        c->n_kv_head, c->n_head);
    CAB_TRY(cab_positive_parse(json, NULL, "rotary_emb_base", 10000, &base)); /* names of before transformers 5 */
    CAB_TRY(cab_positive_parse(json, NULL, "rotary_pct", 0.25, &share));
    return cab_rope_parse(json, base, share, c);
}

static cab_status build_qkv(cab_builder *b, const cab_config *c, cab_dense *qkv)
{
    const int64_t D = c->d_model, P = c->head_dim, rows = 3 * c->n_head * P;
    int64_t *order = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&order, (size_t)rows, "the order of heads"));
    for (int64_t r = 0; r < rows; r++) {
        const int64_t which = r / (c->n_head * P), head = r / P % c->n_head;
        order[r] = (head * 3 + which) * P + r % P;
    }
    CAB_GOTO(cab_builder_picked(b, &qkv->w, rows, D, rows, order, "attention.query_key_value.weight"));
    if (c->attention_bias)
        CAB_GOTO(cab_builder_picked(b, &qkv->b, rows, 0, rows, order, "attention.query_key_value.bias"));
done:
    cab_free(order);
    return status;
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    const int64_t D = c->d_model, Q = (int64_t)c->n_head * c->head_dim;
    cab_attention_mixer *a = &y->attention;
    cab_decoder_heads(c, l, a);
    y->parallel = y->x_last = c->parallel;
    y->mlp.act = c->activation;
    CAB_TRY(cab_builder_norm(b, &y->norm, D, c->norm_eps, true, "input_layernorm"));
    CAB_TRY(build_qkv(b, c, &a->qkv));
    CAB_TRY(cab_builder_dense(b, &a->out, Q, D, c->attention_bias, "attention.dense"));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, D, c->norm_eps, true, "post_attention_layernorm"));
    CAB_TRY(cab_builder_dense(b, &y->mlp.up, D, c->d_mlp, true, "mlp.dense_h_to_4h"));
    return cab_builder_dense(b, &y->mlp.down, c->d_mlp, D, true, "mlp.dense_4h_to_h");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    CAB_TRY(cab_builder_embedding(b, n, c, "gpt_neox.embed_in.weight", "embed_out.weight"));
    for (int l = 0; l < c->n_layer; l++) {
        cab_builder_layer(b, "gpt_neox.layers.%d.", l);
        CAB_TRY(build_block(b, c, l, &n->blocks[l]));
    }
    cab_builder_no_layer(b);
    CAB_TRY(cab_builder_norm(b, &n->final_norm, c->d_model, c->norm_eps, true, "gpt_neox.final_layer_norm"));
    return cab_builder_head(b, n, c, false, "embed_out");
}

const cab_arch cab_arch_gpt_neox = {.name = "gpt_neox",
                                    .teacher = true,
                                    .settings = setting_tables,
                                    .unread = unread,
                                    .configure = configure,
                                    .build = build};
