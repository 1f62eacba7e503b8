/* opt.c - OPT (Zhang et al. 2022), Hugging Face layout.
 *
 *   x = embed_tokens[ids] + embed_positions[position + 2]
 *   per layer:  x = x + attention(self_attn_layer_norm(x))     x = x + fc2(relu(fc1(final_layer_norm(x))))
 *   logits = final_layer_norm(x) embed_tokens^T
 *
 * Of the table of positions the first two rows are never read. OPT-350m, whose norms follow, is refused. */
#include "base/memory.h"
#include "models/architectures.h"
#include "models/decoder.h"

enum { OFFSET = 2 };

static const cab_size sizes[] = {CAB_SIZE("vocab_size", vocab_size, 1 << 24, CAB_REQUIRED),
                                 CAB_SIZE("hidden_size", d_model, 1 << 16, CAB_REQUIRED),
                                 CAB_SIZE("num_hidden_layers", n_layer, CAB_LAYERS_MAX, CAB_REQUIRED),
                                 CAB_SIZE("num_attention_heads", n_head, 1024, CAB_REQUIRED),
                                 CAB_SIZE("max_position_embeddings", max_length, 1 << 24, CAB_REQUIRED),
                                 CAB_SIZE("ffn_dim", d_mlp, 1 << 18, CAB_REQUIRED),
                                 {0}};
static const cab_setting settings[] = {{"_remove_final_layer_norm", "false"},
                                       {"activation_dropout", NULL},
                                       {"activation_function", NULL},
                                       {"attention_dropout", NULL},
                                       {"do_layer_norm_before", "true"},
                                       {"dropout", NULL},
                                       {"enable_bias", NULL},
                                       {"ffn_dim", NULL},
                                       {"hidden_size", NULL},
                                       {"init_std", NULL},
                                       {"layer_norm_elementwise_affine", "true"},
                                       {"layerdrop", NULL},
                                       {"max_position_embeddings", NULL},
                                       {"num_attention_heads", NULL},
                                       {"num_hidden_layers", NULL},
                                       {"vocab_size", NULL},
                                       {"word_embed_proj_dim", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    int64_t word;
    CAB_TRY(cab_sizes_parse(json, sizes, c));
    CAB_TRY(cab_json_int_or(json, NULL, "word_embed_proj_dim", 1, 1 << 16, c->d_model, &word));
    CAB_TRY(cab_json_bool_or(json, NULL, "enable_bias", true, &c->attention_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "tie_word_embeddings", true, &c->tied));
    CAB_TRY(cab_activation_parse(json, "activation_function", "relu", &c->activation));
    if (word != c->d_model)
        return cab_fail(CAB_EUNSUPPORTED, "%s: word_embed_proj_dim is %d; only hidden_size, %d, is supported",
                        json->name, (int)word, c->d_model);
    if (c->d_model % c->n_head != 0)
        return cab_fail(CAB_ESHAPE, "%s: hidden_size %d is not a multiple of num_attention_heads %d", json->name,
                        c->d_model, c->n_head);
    c->n_kv_head = c->n_head;
    c->head_dim = c->d_model / c->n_head;
    c->norm_eps = 1e-5;
    cab_tokens_parse(json, c);
    return CAB_OK;
}

static cab_status build_positions(cab_builder *b, const cab_config *c, cab_tensor **out)
{
    int64_t *order = NULL;
    CAB_TRY(CAB_NEW(&order, (size_t)c->max_length, "positions"));
    for (int64_t r = 0; r < c->max_length; r++)
        order[r] = r + OFFSET;
    cab_status status = cab_builder_picked(b, out, c->max_length, c->d_model, c->max_length + OFFSET, order,
                                           "decoder.embed_positions.weight");
    cab_free(order);
    return status;
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    const bool biased = c->attention_bias;
    y->mlp.act = c->activation;
    CAB_TRY(cab_decoder_attention(b, c, l, biased, biased, "self_attn.out_proj", &y->attention));
    y->attention.query_scale = y->attention.shape.scale;
    y->attention.shape.scale = 1;
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, true, "self_attn_layer_norm"));
    CAB_TRY(cab_builder_dense(b, &y->mlp.up, c->d_model, c->d_mlp, biased, "fc1"));
    CAB_TRY(cab_builder_dense(b, &y->mlp.down, c->d_mlp, c->d_model, biased, "fc2"));
    return cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, true, "final_layer_norm");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    static const char *const prefixes[] = {"model.", "", NULL};
    cab_builder_prefixes(b, prefixes);
    CAB_TRY(cab_builder_embedding(b, n, c, "decoder.embed_tokens.weight", "lm_head.weight"));
    CAB_TRY(build_positions(b, c, &n->positions));
    for (int l = 0; l < c->n_layer; l++) {
        cab_builder_layer(b, "decoder.layers.%d.", l);
        CAB_TRY(build_block(b, c, l, &n->blocks[l]));
    }
    cab_builder_no_layer(b);
    CAB_TRY(cab_builder_norm(b, &n->final_norm, c->d_model, c->norm_eps, true, "decoder.final_layer_norm"));
    cab_builder_prefixes(b, NULL);
    return cab_builder_head(b, n, c, false, "lm_head");
}

const cab_arch cab_arch_opt = {
    .name = "opt", .teacher = true, .settings = setting_tables, .configure = configure, .build = build};
