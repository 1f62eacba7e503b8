#include "models/vision.h"

#include <math.h>

static const cab_size sizes[] = {CAB_SIZE("hidden_size", d_model, 1 << 16, CAB_REQUIRED),
                                 CAB_SIZE("num_hidden_layers", n_layer, CAB_LAYERS_MAX, CAB_REQUIRED),
                                 CAB_SIZE("num_attention_heads", n_head, 1024, CAB_REQUIRED),
                                 CAB_SIZE("image_size", image_size, CAB_IMAGE_MAX, 224),
                                 CAB_SIZE("patch_size", patch_size, CAB_IMAGE_MAX, 0),
                                 {0}};

const cab_setting cab_settings_vision[] = {{"attention_probs_dropout_prob", NULL},
                                           {"hidden_act", NULL},
                                           {"hidden_dropout_prob", NULL},
                                           {"hidden_size", NULL},
                                           {"image_size", NULL},
                                           {"layer_norm_eps", NULL},
                                           {"num_attention_heads", NULL},
                                           {"num_channels", NULL},
                                           {"num_hidden_layers", NULL},
                                           {"patch_size", NULL},
                                           {"qkv_bias", NULL},
                                           {NULL, NULL}};

cab_status cab_vision_parse(const cab_json *json, int patch, double eps, cab_config *c)
{
    int64_t channels;
    CAB_TRY(cab_sizes_parse(json, sizes, c));
    CAB_TRY(cab_json_int_or(json, NULL, "num_channels", 3, 3, 3, &channels));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_eps", eps, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "qkv_bias", true, &c->qkv_bias));
    CAB_TRY(cab_activation_parse(json, "hidden_act", "gelu", &c->activation));
    c->patch_size = c->patch_size > 0 ? c->patch_size : patch;
    if (c->d_model % c->n_head != 0 || c->image_size % c->patch_size != 0)
        return cab_fail(CAB_ESHAPE,
                        "%s: hidden_size %d over num_attention_heads %d and image_size %d over patch_size %d do not "
                        "divide",
                        json->name, c->d_model, c->n_head, c->image_size, c->patch_size);
    c->n_kv_head = c->n_head;
    c->head_dim = c->d_model / c->n_head;
    return CAB_OK;
}

cab_status cab_vision_classes(const cab_checkpoint *source, const char *classifier, const char *key, cab_config *c)
{
    const cab_json *json = cab_checkpoint_config(source);
    const cab_safetensors_entry *entry;
    int64_t classes = 0;
    CAB_TRY(cab_checkpoint_need(source, classifier, 2, &entry));
    c->n_classes = (int)entry->shape[0];
    CAB_TRY(cab_json_int_or(json, NULL, key, 1, 1 << 24, entry->shape[0], &classes));
    if (classes != entry->shape[0])
        return cab_fail(CAB_ESHAPE, "%s: \"%s\" is %lld, but \"%s\" has %lld rows", json->name, key, (long long)classes,
                        entry->name, (long long)entry->shape[0]);
    return CAB_OK;
}

cab_status cab_vision_embeddings(cab_builder *b, const cab_config *c, const cab_vision_names *names, cab_network *n)
{
    const int64_t D = c->d_model, filter[4] = {D, 3, c->patch_size, c->patch_size}, token[3] = {1, 1, D};
    cab_config placed = *c; /* without the registers, which have no position */
    placed.n_special -= c->n_register;
    placed.max_length -= c->n_register;
    n->patch_size = c->patch_size;
    n->n_special = placed.n_special;
    n->n_register = c->n_register;
    CAB_TRY(cab_builder_filter(b, &n->patches.w, 4, filter, "%s.weight", names->patches));
    CAB_TRY(cab_builder_vector(b, &n->patches.b, D, "%s.bias", names->patches));
    for (int i = 0; i < n->n_special; i++) {
        n->special_at[i] = c->class_at + i;
        CAB_TRY(cab_builder_shaped(b, &n->special[i], CAB_NO_DECAY, 3, token, "%s",
                                   i == 0 ? names->class_token : names->second_token));
    }
    if (c->n_register > 0)
        CAB_TRY(cab_builder_rows(b, n->registers, c->n_register, D, names->registers));
    return cab_builder_positions(b, &n->positions, &placed, names->positions);
}

static cab_status build_block(cab_builder *b, const cab_config *c, const cab_vision_names *names, cab_block *y)
{
    cab_attention_mixer *a = &y->attention;
    const int64_t D = c->d_model;
    a->shape = cab_config_attention(c, 1.0 / sqrt(c->head_dim));
    a->shape.causal = false;
    y->mlp.act = c->activation;
    CAB_TRY(cab_builder_norm(b, &y->norm, D, c->norm_eps, true, names->norm1));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, D, c->norm_eps, true, names->norm2));
    CAB_TRY(cab_builder_scaled_dense(b, &a->out, D, D, names->out, names->out_scale));
    CAB_TRY(c->gated ? cab_builder_dense(b, &y->mlp.gate_up, D, 2 * (int64_t)c->d_mlp, true, names->gated_in)
                     : cab_builder_dense(b, &y->mlp.up, D, c->d_mlp, true, names->fc1));
    CAB_TRY(cab_builder_scaled_dense(b, &y->mlp.down, c->d_mlp, D, c->gated ? names->gated_out : names->fc2,
                                     names->fc2_scale));
    if (names->qkv != NULL)
        return cab_builder_dense(b, &a->qkv, D, 3 * D, c->qkv_bias, names->qkv);
    CAB_TRY(cab_builder_dense(b, &a->q, D, D, c->qkv_bias, names->q));
    CAB_TRY(cab_builder_dense(b, &a->k, D, D, c->qkv_bias, names->k));
    return cab_builder_dense(b, &a->v, D, D, c->qkv_bias, names->v);
}

cab_status cab_vision_layers(cab_builder *b, const cab_config *c, const cab_vision_names *names, cab_network *n)
{
    for (int l = 0; l < c->n_layer; l++) {
        cab_builder_layer(b, names->layer, l);
        CAB_TRY(build_block(b, c, names, &n->blocks[l]));
    }
    cab_builder_no_layer(b);
    return cab_builder_norm(b, &n->final_norm, c->d_model, c->norm_eps, true, names->final_norm);
}
