/* vit.c - Vision Transformers (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021), names of transformers or of timm.
 *
 *   x = (class token, [distillation token,] patches(pixels) W + b) + positions
 *   per layer:  x = x + proj(attention(qkv(norm1(x))))     x = x + fc2(gelu(fc1(norm2(x))))
 *   logits = classifier(norm(x)[0]), or the mean of two classifiers on the class and the distillation token
 *
 * transformers keeps Q, K and V in three matrices and says all sizes in config.json; timm keeps them in one (timm.h). */
#include "base/memory.h"
#include "models/architectures.h"
#include "models/builder.h"
#include "models/sizes.h"
#include "models/timm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- sizes ----------------------------------------------------------------------------------------------------------- */

static const char *const encoder_prefixes[] = {"vit.", "deit.", "", NULL};
static const char *const plain_prefixes[] = {"", NULL};

static const cab_setting settings[] = {{"attention_probs_dropout_prob", NULL},
                                       {"encoder_stride", NULL}, /* of a decoder of masked images */
                                       {"hidden_act", NULL},
                                       {"hidden_dropout_prob", NULL},
                                       {"hidden_size", NULL},
                                       {"image_size", NULL},
                                       {"intermediate_size", NULL},
                                       {"layer_norm_eps", NULL},
                                       {"num_attention_heads", NULL},
                                       {"num_channels", NULL},
                                       {"num_hidden_layers", NULL},
                                       {"patch_size", NULL},
                                       {"pooler_act", NULL}, /* the classifier reads the class token, not the pooler */
                                       {"pooler_output_size", NULL},
                                       {"qkv_bias", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_transformers, NULL};
/* The pooler, and the token that stands for a patch that is masked in pretraining. */
static const char *const unread[] = {"*pooler.dense.weight", "*pooler.dense.bias", "*embeddings.mask_token", NULL};

static cab_status configure_transformers(const cab_json *json, cab_config *c)
{
    int64_t width, n_layer, n_head, inner, image, patch, channels;
    CAB_TRY(cab_json_int(json, NULL, "hidden_size", 1, 1 << 16, &width));
    CAB_TRY(cab_json_int(json, NULL, "num_hidden_layers", 1, 1024, &n_layer));
    CAB_TRY(cab_json_int(json, NULL, "num_attention_heads", 1, 1024, &n_head));
    CAB_TRY(cab_json_int(json, NULL, "intermediate_size", 1, 1 << 18, &inner));
    CAB_TRY(cab_json_int_or(json, NULL, "image_size", 1, CAB_IMAGE_MAX, 224, &image));
    CAB_TRY(cab_json_int_or(json, NULL, "patch_size", 1, CAB_IMAGE_MAX, 16, &patch));
    CAB_TRY(cab_json_int_or(json, NULL, "num_channels", 3, 3, 3, &channels));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_eps", 1e-12, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "qkv_bias", true, &c->qkv_bias));
    CAB_TRY(cab_activation_parse(json, "hidden_act", "gelu", &c->activation));
    if (width % n_head != 0 || image % patch != 0)
        return cab_fail(
            CAB_ESHAPE,
            "%s: hidden_size %lld over num_attention_heads %lld and image_size %lld over patch_size %lld do "
            "not divide",
            json->name, (long long)width, (long long)n_head, (long long)image, (long long)patch);
    c->d_model = (int)width;
    c->n_layer = (int)n_layer;
    c->n_head = c->n_kv_head = (int)n_head;
    c->head_dim = (int)(width / n_head);
    c->d_mlp = (int)inner;
    c->patch_size = (int)patch;
    c->image_size = (int)image;
    return CAB_OK;
}

static cab_status configure(const cab_json *json, cab_config *c)
{
    const char *type = NULL;
    CAB_TRY(cab_json_string_or(json, NULL, "model_type", NULL, &type));
    return type != NULL ? configure_transformers(json, c) : cab_timm_configure(json, c);
}

static cab_status check_classes(const cab_json *json, const cab_safetensors_entry *classifier, const char *key)
{
    int64_t classes = 0;
    CAB_TRY(cab_json_int_or(json, NULL, key, 1, 1 << 24, classifier->shape[0], &classes));
    if (classes != classifier->shape[0])
        return cab_fail(CAB_ESHAPE, "%s: \"%s\" is %lld, but \"%s\" has %lld rows", json->name, key, (long long)classes,
                        classifier->name, (long long)classifier->shape[0]);
    return CAB_OK;
}

static cab_status measure(const cab_checkpoint *source, cab_config *c)
{
    static const char *const distillation[] = {"dist_token", "deit.embeddings.distillation_token",
                                               "embeddings.distillation_token"};
    const cab_safetensors_entry *classifier;
    const char *second = c->timm ? "head_dist.weight" : "distillation_classifier.weight";
    c->n_special = 1;
    for (size_t i = 0; i < sizeof distillation / sizeof *distillation; i++)
        if (cab_checkpoint_has(source, distillation[i]))
            c->n_special = 2;
    c->two_heads = cab_checkpoint_has(source, second);
    if (c->two_heads && c->n_special < 2)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\" without a distillation token", cab_checkpoint_directory(source),
                        second);
    const char *first = c->timm ? "head.weight" : c->two_heads ? "cls_classifier.weight" : "classifier.weight";
    CAB_TRY(cab_checkpoint_need(source, first, 2, &classifier));
    c->n_classes = (int)classifier->shape[0];
    CAB_TRY(check_classes(cab_checkpoint_config(source), classifier, c->timm ? "num_classes" : "num_labels"));
    if (c->timm)
        CAB_TRY(cab_timm_measure(source, c));
    cab_config_set_image(c, c->image_size);
    return CAB_OK;
}

/* ---- parameters ------------------------------------------------------------------------------------------------------ */

static cab_status build_dense(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, bool has_bias,
                              const char *format, int l)
{
    char name[CAB_NAME_MAX - 8], bias[CAB_NAME_MAX];
    snprintf(name, sizeof name, format, l);
    snprintf(bias, sizeof bias, "%s.bias", name);
    CAB_TRY(cab_builder_matrix(b, &dense->w, n_out, n_in, "%s.weight", name));
    return has_bias ? cab_builder_vector(b, &dense->b, n_out, "%s", bias) : CAB_OK;
}

/* The names of a layer's parts. */
typedef struct layer_names {
    const char *norm1, *norm2, *proj, *fc1, *fc2;
} layer_names;

static const layer_names timm_names = {"blocks.%d.norm1", "blocks.%d.norm2", "blocks.%d.attn.proj", "blocks.%d.mlp.fc1",
                                       "blocks.%d.mlp.fc2"};
static const layer_names transformers_names = {"encoder.layer.%d.layernorm_before", "encoder.layer.%d.layernorm_after",
                                               "encoder.layer.%d.attention.output.dense",
                                               "encoder.layer.%d.intermediate.dense", "encoder.layer.%d.output.dense"};

static cab_status build_layer(cab_builder *b, const cab_config *c, cab_block *y, int l)
{
    cab_attention_mixer *a = &y->attention;
    const layer_names *n = c->timm ? &timm_names : &transformers_names;
    const int64_t D = c->d_model;
    char name[CAB_NAME_MAX];
    a->shape = cab_config_attention(c, 1.0 / sqrt(c->head_dim));
    a->shape.causal = false;
    y->mlp.act = c->activation;
    snprintf(name, sizeof name, n->norm1, l);
    CAB_TRY(cab_builder_norm(b, &y->norm, D, c->norm_eps, true, name));
    snprintf(name, sizeof name, n->norm2, l);
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, D, c->norm_eps, true, name));
    CAB_TRY(build_dense(b, &a->out, D, D, true, n->proj, l));
    CAB_TRY(build_dense(b, &y->mlp.up, D, c->d_mlp, true, n->fc1, l));
    CAB_TRY(build_dense(b, &y->mlp.down, c->d_mlp, D, true, n->fc2, l));
    if (c->timm)
        return build_dense(b, &a->qkv, D, 3 * D, c->qkv_bias, "blocks.%d.attn.qkv", l);
    CAB_TRY(build_dense(b, &a->q, D, D, c->qkv_bias, "encoder.layer.%d.attention.attention.query", l));
    CAB_TRY(build_dense(b, &a->k, D, D, c->qkv_bias, "encoder.layer.%d.attention.attention.key", l));
    return build_dense(b, &a->v, D, D, c->qkv_bias, "encoder.layer.%d.attention.attention.value", l);
}

/* Half of each of two heads, side by side: applied to both tokens in a row, that is the mean of their logits. */
static cab_status build_two_heads(cab_builder *b, const cab_config *c, cab_dense *head)
{
    const char *const names[2] = {c->timm ? "head" : "cls_classifier",
                                  c->timm ? "head_dist" : "distillation_classifier"};
    const int64_t V = c->n_classes, D = c->d_model;
    float *w = NULL, *bias = NULL, *one = NULL;
    char name[CAB_NAME_MAX];
    cab_status status;
    CAB_GOTO(CAB_NEW(&one, (size_t)(V * D), "classifier"));
    CAB_GOTO(CAB_NEW(&w, (size_t)(2 * V * D), "classifier"));
    CAB_GOTO(CAB_NEW(&bias, (size_t)V, "classifier"));
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s.weight", names[i]);
        CAB_GOTO(cab_checkpoint_read_f32(b->source, name, 2, (int64_t[]){V, D}, one));
        cab_builder_used(b, name);
        for (int64_t j = 0; j < V * D; j++)
            w[(j / D * 2 + i) * D + j % D] = 0.5f * one[j];
        snprintf(name, sizeof name, "%s.bias", names[i]);
        CAB_GOTO(cab_checkpoint_read_f32(b->source, name, 1, &V, one));
        cab_builder_used(b, name);
        for (int64_t j = 0; j < V; j++)
            bias[j] += 0.5f * one[j];
    }
    const cab_dtype dtype = b->trainable ? CAB_F32 : b->dtype;
    CAB_GOTO(cab_params_add(b->params, "both heads.weight", dtype, 2, (int64_t[]){V, 2 * D}, CAB_DECAY, &head->w));
    CAB_GOTO(cab_params_add(b->params, "both heads.bias", CAB_F32, 1, &V, CAB_NO_DECAY, &head->b));
    CAB_GOTO(cab_params_write(b->params, head->w, w));
    status = cab_params_write(b->params, head->b, bias);
done:
    cab_free(w);
    cab_free(bias);
    cab_free(one);
    return status;
}

static cab_status build_embeddings(cab_builder *b, const cab_config *c, cab_network *m)
{
    const int64_t D = c->d_model, filter[4] = {D, 3, c->patch_size, c->patch_size}, token[3] = {1, 1, D};
    const char *projection = c->timm ? "patch_embed.proj" : "embeddings.patch_embeddings.projection";
    CAB_TRY(cab_builder_filter(b, &m->patches.w, 4, filter, "%s.weight", projection));
    CAB_TRY(cab_builder_vector(b, &m->patches.b, D, "%s.bias", projection));
    CAB_TRY(cab_builder_shaped(b, &m->special[0], CAB_NO_DECAY, 3, token, "%s",
                               c->timm ? "cls_token" : "embeddings.cls_token"));
    if (c->n_special > 1)
        CAB_TRY(cab_builder_shaped(b, &m->special[1], CAB_NO_DECAY, 3, token, "%s",
                                   c->timm ? "dist_token" : "embeddings.distillation_token"));
    return cab_builder_positions(b, &m->positions, c, c->timm ? "pos_embed" : "embeddings.position_embeddings");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *m)
{
    cab_builder_prefixes(b, encoder_prefixes);
    m->patch_size = c->patch_size;
    m->n_special = c->n_special;
    m->special_at[1] = 1;
    m->read_count = c->two_heads ? 2 : 1;
    CAB_TRY(build_embeddings(b, c, m));
    for (int l = 0; l < c->n_layer; l++)
        CAB_TRY(build_layer(b, c, &m->blocks[l], l));
    CAB_TRY(cab_builder_norm(b, &m->final_norm, c->d_model, c->norm_eps, true, c->timm ? "norm" : "layernorm"));
    cab_builder_prefixes(b, plain_prefixes);
    if (c->two_heads && b->source != NULL)
        return build_two_heads(b, c, &m->head);
    return build_dense(b, &m->head, c->d_model, c->n_classes, true, c->timm ? "head" : "classifier", 0);
}

const cab_arch cab_arch_vit = {
    .name = "vit",
    .timm = "vit_",
    .teacher = true,
    .settings = setting_tables,
    .unread = unread,
    .configure = configure,
    .measure = measure,
    .build = build,
};

const cab_arch cab_arch_deit = {
    .name = "deit",
    .timm = "deit_",
    .teacher = true,
    .settings = setting_tables,
    .unread = unread,
    .configure = configure,
    .measure = measure,
    .build = build,
};
