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
                                            {"partial_rotary_factor", NULL},
                                            {"resid_pdrop", NULL},
                                            {"rope_parameters", NULL},
                                            {"rope_scaling", "null"},
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

cab_status cab_rope_parse(const cab_json *json, double partial, cab_config *c)
{
    const char *type = NULL;
    json_object *rope = NULL;
    CAB_TRY(cab_positive_parse(json, NULL, "partial_rotary_factor", partial, &partial));
    CAB_TRY(cab_positive_parse(json, NULL, "rope_theta", 10000.0, &c->rope.theta));
    if (json_object_object_get_ex(json->root, "rope_parameters", &rope) && rope != NULL) {
        CAB_TRY(cab_json_object(json, NULL, "rope_parameters", &rope));
        CAB_TRY(cab_positive_parse(json, rope, "partial_rotary_factor", partial, &partial));
        CAB_TRY(cab_positive_parse(json, rope, "rope_theta", c->rope.theta, &c->rope.theta));
        CAB_TRY(cab_json_string_or(json, rope, "rope_type", "default", &type));
        if (strcmp(type, "default") != 0)
            return cab_fail(CAB_EUNSUPPORTED, "%s: rope_type is \"%s\"; supported is default", json->name, type);
    }
    c->rope.dim = partial <= 1 ? (int)(partial * c->head_dim) / 2 * 2 : 0;
    if (c->rope.dim < 2)
        return cab_fail(CAB_ESHAPE,
                        "%s: partial_rotary_factor %g of head width %d leaves nothing to rotate or too much",
                        json->name, partial, c->head_dim);
    return CAB_OK;
}

cab_status cab_decoder_attention(cab_builder *b, const cab_config *c, cab_attention_mixer *a, bool biased,
                                 const cab_attention_names *names)
{
    const int64_t D = c->d_model, Q = (int64_t)c->n_head * c->head_dim, K = (int64_t)c->n_kv_head * c->head_dim;
    a->shape = cab_config_attention(c, 1.0 / sqrt(c->head_dim));
    a->rope = c->rope;
    CAB_TRY(cab_builder_dense(b, &a->q, D, Q, biased, names->q));
    CAB_TRY(cab_builder_dense(b, &a->k, D, K, biased, names->k));
    CAB_TRY(cab_builder_dense(b, &a->v, D, K, biased, names->v));
    return cab_builder_dense(b, &a->out, Q, D, biased, names->out);
}
