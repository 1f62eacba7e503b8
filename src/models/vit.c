/* vit.c - Vision Transformers (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021), names of transformers or of timm.
 *
 *   x = (class token, [distillation token,] patches(pixels) W + b) + positions
 *   per layer:  x = x + proj(attention(qkv(norm1(x))))     x = x + fc2(gelu(fc1(norm2(x))))
 *   logits = classifier(norm(x)[0]), or the mean of two classifiers on the class and the distillation token
 *
 * transformers keeps Q, K and V in three matrices and says all sizes in config.json; timm keeps them in one (timm.h). */
#include "base/memory.h"
#include "models/architectures.h"
#include "models/timm.h"
#include "models/vision.h"

#include <stdio.h>

static const cab_size sizes[] = {CAB_SIZE("intermediate_size", d_mlp, 1 << 18, CAB_REQUIRED), {0}};
/* encoder_stride is of a decoder of masked images; the classifier reads the class token, not the pooler. */
static const cab_setting settings[] = {{"encoder_stride", NULL},
                                       {"intermediate_size", NULL},
                                       {"pooler_act", NULL},
                                       {"pooler_output_size", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_vision, cab_settings_transformers, NULL};
/* The pooler, and the token that stands for a patch that is masked in pretraining. */
static const char *const unread[] = {"*pooler.dense.weight", "*pooler.dense.bias", "*embeddings.mask_token", NULL};

static const cab_vision_names timm_names = {.patches = "patch_embed.proj",
                                            .class_token = "cls_token",
                                            .second_token = "dist_token",
                                            .positions = "pos_embed",
                                            .layer = "blocks.%d.",
                                            .norm1 = "norm1",
                                            .norm2 = "norm2",
                                            .qkv = "attn.qkv",
                                            .out = "attn.proj",
                                            .fc1 = "mlp.fc1",
                                            .fc2 = "mlp.fc2",
                                            .final_norm = "norm"};
static const cab_vision_names transformers_names = {.patches = "embeddings.patch_embeddings.projection",
                                                    .class_token = "embeddings.cls_token",
                                                    .second_token = "embeddings.distillation_token",
                                                    .positions = "embeddings.position_embeddings",
                                                    .layer = "encoder.layer.%d.",
                                                    .norm1 = "layernorm_before",
                                                    .norm2 = "layernorm_after",
                                                    .q = "attention.attention.query",
                                                    .k = "attention.attention.key",
                                                    .v = "attention.attention.value",
                                                    .out = "attention.output.dense",
                                                    .fc1 = "intermediate.dense",
                                                    .fc2 = "output.dense",
                                                    .final_norm = "layernorm"};

static cab_status configure(const cab_json *json, cab_config *c)
{
    const char *type = NULL;
    CAB_TRY(cab_json_string_or(json, NULL, "model_type", NULL, &type));
    if (type == NULL)
        return cab_timm_configure(json, c);
    CAB_TRY(cab_vision_parse(json, 16, 1e-12, c));
    return cab_sizes_parse(json, sizes, c);
}

static cab_status measure(const cab_checkpoint *source, cab_config *c)
{
    static const char *const distillation[] = {"dist_token", "deit.embeddings.distillation_token",
                                               "embeddings.distillation_token"};
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
    CAB_TRY(cab_vision_classes(source, first, c->timm ? "num_classes" : "num_labels", c));
    if (c->timm)
        CAB_TRY(cab_timm_measure(source, c));
    cab_config_set_image(c, c->image_size);
    return CAB_OK;
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

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    static const char *const prefixes[] = {"vit.", "deit.", "", NULL};
    const cab_vision_names *names = c->timm ? &timm_names : &transformers_names;
    n->read_count = c->two_heads ? 2 : 1;
    cab_builder_prefixes(b, prefixes);
    CAB_TRY(cab_vision_embeddings(b, c, names, n));
    CAB_TRY(cab_vision_layers(b, c, names, n));
    cab_builder_prefixes(b, NULL);
    if (c->two_heads && b->source != NULL)
        return build_two_heads(b, c, &n->head);
    return cab_builder_dense(b, &n->head, c->d_model, c->n_classes, true, c->timm ? "head" : "classifier");
}

const cab_arch cab_arch_vit = {.name = "vit",
                               .timm = "vit_",
                               .teacher = true,
                               .settings = setting_tables,
                               .unread = unread,
                               .configure = configure,
                               .measure = measure,
                               .build = build};

const cab_arch cab_arch_deit = {.name = "deit",
                                .timm = "deit_",
                                .teacher = true,
                                .settings = setting_tables,
                                .unread = unread,
                                .configure = configure,
                                .measure = measure,
                                .build = build};
