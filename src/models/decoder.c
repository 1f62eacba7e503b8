#include "models/decoder.h"

#include <math.h>
#include <string.h>

static const cab_size sizes[] = {CAB_SIZE("vocab_size", vocab_size, 1 << 24, CAB_REQUIRED),
                                 CAB_SIZE("hidden_size", d_model, 1 << 16, CAB_REQUIRED),
                                 CAB_SIZE("num_hidden_layers", n_layer, 1024, CAB_REQUIRED),
                                 CAB_SIZE("num_attention_heads", n_head, 1024, CAB_REQUIRED),
                                 CAB_SIZE("num_key_value_heads", n_kv_head, 1024, 0),
                                 CAB_SIZE("head_dim", head_dim, 1024, 0),
                                 CAB_SIZE("intermediate_size", d_mlp, 1 << 18, 0),
                                 CAB_SIZE("max_position_embeddings", max_length, 1 << 24, 2048),
                                 {0}};

const cab_setting cab_settings_decoder[] = {{"attention_dropout", NULL},
                                            {"embd_pdrop", NULL},
                                            {"head_dim", NULL},
                                            {"hidden_act", NULL},
                                            {"hidden_size", NULL},
                                            {"intermediate_size", NULL},
                                            {"max_position_embeddings", NULL},
                                            {"num_attention_heads", NULL},
                                            {"num_hidden_layers", NULL},
                                            {"num_key_value_heads", NULL},
                                            {"original_max_position_embeddings", NULL},
                                            {"partial_rotary_factor", NULL},
                                            {"resid_pdrop", NULL},
                                            {"rope_parameters", NULL},
                                            {"rope_scaling", NULL},
                                            {"rope_theta", NULL},
                                            {"vocab_size", NULL},
                                            {NULL, NULL}};

/* Functions of rope_theta. */
const char *const cab_decoder_unread[] = {"*.rotary_emb.inv_freq", NULL};

cab_status cab_decoder_parse(const cab_json *json, const char *activation, cab_config *c)
{
    CAB_TRY(cab_sizes_parse(json, sizes, c));
    CAB_TRY(cab_json_bool_or(json, NULL, "tie_word_embeddings", false, &c->tied));
    CAB_TRY(cab_activation_parse(json, "hidden_act", activation, &c->activation));
    c->n_kv_head = c->n_kv_head > 0 ? c->n_kv_head : c->n_head;
    c->d_mlp = c->d_mlp > 0 ? c->d_mlp : 4 * c->d_model;
    if ((c->head_dim == 0 && c->d_model % c->n_head != 0) || c->n_head % c->n_kv_head != 0)
        return cab_fail(CAB_ESHAPE,
                        "%s: hidden_size %d, num_attention_heads %d and num_key_value_heads %d do not divide",
                        json->name, c->d_model, c->n_head, c->n_kv_head);
    c->head_dim = c->head_dim > 0 ? c->head_dim : c->d_model / c->n_head;
    cab_tokens_parse(json, c);
    return CAB_OK;
}

cab_status cab_decoder_gated(const cab_json *json, const cab_config *c)
{
    if (c->activation == CAB_SILU)
        return CAB_OK;
    return cab_fail(CAB_EUNSUPPORTED, "%s: hidden_act is \"%s\"; supported is silu", json->name,
                    cab_activation_name(c->activation));
}

cab_status cab_window_parse(const cab_json *json, int first, cab_config *c)
{
    json_object *types = NULL;
    int64_t window;
    CAB_TRY(cab_json_int_or(json, NULL, "sliding_window", 1, 1 << 24, 0, &window));
    c->window = (int)window;
    if (!json_object_object_get_ex(json->root, "layer_types", &types) || types == NULL) {
        for (int l = first; l < c->n_layer; l++)
            c->layer_kinds[l] |= CAB_LAYER_SLIDING;
        return CAB_OK;
    }
    CAB_TRY(cab_json_array(json, NULL, "layer_types", &types));
    if (json_object_array_length(types) != (size_t)c->n_layer)
        return cab_fail(CAB_EFORMAT, "%s: \"layer_types\" has %zu entries, num_hidden_layers is %d", json->name,
                        json_object_array_length(types), c->n_layer);
    for (int l = 0; l < c->n_layer; l++) {
        const char *type = json_object_get_string(json_object_array_get_idx(types, (size_t)l));
        const bool sliding = type != NULL && strcmp(type, "sliding_attention") == 0;
        if (!sliding && (type == NULL || strcmp(type, "full_attention") != 0))
            return cab_fail(CAB_EUNSUPPORTED,
                            "%s: layer_types[%d] is \"%.40s\"; supported are full_attention and sliding_attention",
                            json->name, l, type != NULL ? type : "null");
        c->layer_kinds[l] |= sliding ? CAB_LAYER_SLIDING : 0;
    }
    return CAB_OK;
}

void cab_decoder_describe(const cab_config *c, json_object *json)
{
    cab_sizes_describe(sizes, c, json);
    json_object_object_add(json, "hidden_act", json_object_new_string(cab_activation_name(c->activation)));
    json_object_object_add(json, "tie_word_embeddings", json_object_new_boolean(c->tied));
    cab_rope_describe(c, json);
}

void cab_decoder_heads(const cab_config *c, int l, cab_attention_mixer *a)
{
    a->shape = cab_config_attention(c, 1.0 / sqrt(c->head_dim));
    a->shape.window = c->layer_kinds[l] & CAB_LAYER_SLIDING ? c->window : 0;
    a->rope = c->layer_kinds[l] & CAB_LAYER_NO_ROPE                            ? (cab_rope){0}
              : c->layer_kinds[l] & CAB_LAYER_SLIDING && c->local_rope.dim > 0 ? c->local_rope
                                                                               : c->rope;
    a->rope.factors[0] = a->rope.kind == CAB_ROPE_LONGROPE ? c->rope_factors[0] : NULL;
    a->rope.factors[1] = a->rope.kind == CAB_ROPE_LONGROPE ? c->rope_factors[1] : NULL;
}

cab_status cab_decoder_attention(cab_builder *b, const cab_config *c, int l, bool biased, bool out_biased,
                                 const char *out, cab_attention_mixer *a)
{
    const int64_t D = c->d_model, Q = (int64_t)c->n_head * c->head_dim, K = (int64_t)c->n_kv_head * c->head_dim;
    const cab_multipliers *m = &c->multipliers;
    cab_decoder_heads(c, l, a);
    CAB_TRY(cab_builder_dense_times(b, &a->q, D, Q, biased, m->attention_in, 1, "self_attn.q_proj"));
    CAB_TRY(cab_builder_dense_times(b, &a->k, D, K, biased, m->attention_in, m->key, "self_attn.k_proj"));
    CAB_TRY(cab_builder_dense_times(b, &a->v, D, K, biased, m->attention_in, 1, "self_attn.v_proj"));
    return cab_builder_dense_times(b, &a->out, Q, D, out_biased, 1, m->attention_out, out);
}

cab_status cab_decoder_gated_mlp(cab_builder *b, const cab_config *c, bool biased, cab_mlp *mlp)
{
    mlp->act = c->activation;
    CAB_TRY(cab_builder_dense(b, &mlp->gate, c->d_model, c->d_mlp, biased, "mlp.gate_proj"));
    CAB_TRY(cab_builder_dense(b, &mlp->up, c->d_model, c->d_mlp, biased, "mlp.up_proj"));
    return cab_builder_dense(b, &mlp->down, c->d_mlp, c->d_model, biased, "mlp.down_proj");
}

cab_status cab_decoder_build(cab_builder *b, const cab_config *c, cab_network *n, cab_decoder_block *block,
                             const char *final_norm, bool norm_biased, bool head_biased)
{
    CAB_TRY(cab_builder_embedding(b, n, c, "model.embed_tokens.weight", "lm_head.weight"));
    for (int l = 0; l < c->n_layer; l++) {
        cab_builder_layer(b, "model.layers.%d.", l);
        CAB_TRY(block(b, c, l, &n->blocks[l]));
    }
    cab_builder_no_layer(b);
    CAB_TRY(cab_builder_norm(b, &n->final_norm, c->d_model, c->norm_eps, norm_biased, final_norm));
    return cab_builder_head(b, n, c, head_biased, "lm_head");
}
