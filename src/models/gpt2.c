/* gpt2.c - GPT-2 and DistilGPT2 (Radford et al. 2019), Hugging Face layout.
 *
 *   x = wte[ids] + wpe[position]
 *   per layer:  x = x + c_proj(attention(c_attn(ln_1(x))))     x = x + mlp.c_proj(gelu(mlp.c_fc(ln_2(x))))
 *   logits = ln_f(x) wte^T
 *
 * c_attn, c_proj and c_fc are Conv1D: stored (in, out) and used as stored. */
#include "models/architectures.h"
#include "models/builder.h"
#include "models/sizes.h"

#include <math.h>

static const cab_size sizes[] = {CAB_SIZE("vocab_size", vocab_size, 1 << 24, CAB_REQUIRED),
                                 CAB_SIZE("n_embd", d_model, 1 << 16, CAB_REQUIRED),
                                 CAB_SIZE("n_layer", n_layer, 1024, CAB_REQUIRED),
                                 CAB_SIZE("n_head", n_head, 1024, CAB_REQUIRED),
                                 CAB_SIZE("n_positions", max_length, 1 << 24, CAB_REQUIRED),
                                 CAB_SIZE("n_inner", d_mlp, 1 << 18, 0),
                                 {0}};

static const cab_setting settings[] = {{"activation_function", NULL},
                                       {"attn_pdrop", NULL},
                                       {"embd_pdrop", NULL},
                                       {"layer_norm_epsilon", NULL},
                                       {"n_ctx", NULL}, /* what n_positions was called before */
                                       {"n_embd", NULL},
                                       {"n_head", NULL},
                                       {"n_inner", NULL},
                                       {"n_layer", NULL},
                                       {"n_positions", NULL},
                                       {"predict_special_tokens", NULL},
                                       {"reorder_and_upcast_attn", NULL}, /* the same numbers in another order */
                                       {"resid_pdrop", NULL},
                                       {"scale_attn_by_inverse_layer_idx", NULL},
                                       {"scale_attn_weights", NULL},
                                       {"summary_activation", NULL}, /* of a head for other tasks */
                                       {"summary_first_dropout", NULL},
                                       {"summary_proj_to_labels", NULL},
                                       {"summary_type", NULL},
                                       {"summary_use_proj", NULL},
                                       {"vocab_size", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_transformers, NULL};
/* Causal masks that older files keep. */
static const char *const unread[] = {"*h.*.attn.bias", "*h.*.attn.masked_bias", NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_sizes_parse(json, sizes, c));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_epsilon", 1e-5, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "tie_word_embeddings", true, &c->tied));
    CAB_TRY(cab_json_bool_or(json, NULL, "scale_attn_weights", true, &c->scale_attention));
    CAB_TRY(cab_json_bool_or(json, NULL, "scale_attn_by_inverse_layer_idx", false, &c->scale_by_layer));
    CAB_TRY(cab_activation_parse(json, "activation_function", "gelu_new", &c->activation));
    if (c->d_model % c->n_head != 0)
        return cab_fail(CAB_ESHAPE, "%s: n_embd %d is not a multiple of n_head %d", json->name, c->d_model, c->n_head);
    c->n_kv_head = c->n_head;
    c->head_dim = c->d_model / c->n_head;
    c->d_mlp = c->d_mlp > 0 ? c->d_mlp : 4 * c->d_model;
    cab_tokens_parse(json, c);
    return CAB_OK;
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    const int64_t D = c->d_model;
    const double scale = c->scale_attention ? 1.0 / sqrt(c->head_dim) : 1.0;
    cab_attention_mixer *a = &y->attention;
    a->shape = cab_config_attention(c, c->scale_by_layer ? scale / (l + 1) : scale);
    a->qkv.layout = a->out.layout = y->mlp.up.layout = y->mlp.down.layout = CAB_IN_OUT;
    y->mlp.act = c->activation;
    CAB_TRY(cab_builder_norm(b, &y->norm, D, c->norm_eps, true, "ln_1"));
    CAB_TRY(cab_builder_dense(b, &a->qkv, D, 3 * D, true, "attn.c_attn"));
    CAB_TRY(cab_builder_dense(b, &a->out, D, D, true, "attn.c_proj"));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, D, c->norm_eps, true, "ln_2"));
    CAB_TRY(cab_builder_dense(b, &y->mlp.up, D, c->d_mlp, true, "mlp.c_fc"));
    return cab_builder_dense(b, &y->mlp.down, c->d_mlp, D, true, "mlp.c_proj");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    static const char *const prefixes[] = {"transformer.", "", NULL};
    cab_builder_prefixes(b, prefixes);
    CAB_TRY(cab_builder_embedding(b, n, c, "wte.weight", "lm_head.weight"));
    CAB_TRY(cab_builder_matrix(b, &n->positions, c->max_length, c->d_model, "wpe.weight"));
    for (int l = 0; l < c->n_layer; l++) {
        cab_builder_layer(b, "h.%d.", l);
        CAB_TRY(build_block(b, c, l, &n->blocks[l]));
    }
    cab_builder_no_layer(b);
    CAB_TRY(cab_builder_norm(b, &n->final_norm, c->d_model, c->norm_eps, true, "ln_f"));
    cab_builder_prefixes(b, NULL);
    return cab_builder_head(b, n, c, false, "lm_head");
}

const cab_arch cab_arch_gpt2 = {.name = "gpt2",
                                .teacher = true,
                                .settings = setting_tables,
                                .unread = unread,
                                .configure = configure,
                                .build = build};
