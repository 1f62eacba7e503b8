/* tiny_vision.h - image models of a few thousand numbers. */
#ifndef TINY_VISION_H
#define TINY_VISION_H

#include "models/tiny.h"

/* Width 12, 3 heads, 2 layers, patches of 4, images of 12, 5 classes; `distilled` adds the second token and its head. */
static inline tiny tiny_transformers(cab_dtype dtype, bool distilled)
{
    const char *const model = distilled ? "deit" : "vit";
    tiny t = {.dtype = dtype};
    snprintf(t.config, sizeof t.config,
             "{\"model_type\": \"%s\", \"hidden_size\": 12, \"num_hidden_layers\": 2, \"num_attention_heads\": 3, "
             "\"intermediate_size\": 20, \"image_size\": 12, \"patch_size\": 4, \"num_channels\": 3, "
             "\"hidden_act\": \"gelu\", \"layer_norm_eps\": 1e-6}",
             model);
    tiny_add(&t, 0, 3, (int64_t[]){1, 1, 12}, "%s.embeddings.cls_token", model);
    if (distilled)
        tiny_add(&t, 0, 3, (int64_t[]){1, 1, 12}, "%s.embeddings.distillation_token", model);
    tiny_add(&t, 0, 3, (int64_t[]){1, distilled ? 11 : 10, 12}, "%s.embeddings.position_embeddings", model);
    tiny_add(&t, 0, 4, (int64_t[]){12, 3, 4, 4}, "%s.embeddings.patch_embeddings.projection.weight", model);
    TINY_VECTOR(&t, 0, 12, "%s.embeddings.patch_embeddings.projection.bias", model);
    for (int l = 0; l < 2; l++) {
        static const struct {
            const char *name;
            int64_t in, out;
        } dense[] = {{"attention.attention.query", 12, 12}, {"attention.attention.key", 12, 12},
                     {"attention.attention.value", 12, 12}, {"attention.output.dense", 12, 12},
                     {"intermediate.dense", 12, 20},        {"output.dense", 20, 12}};
        for (int i = 0; i < 6; i++) {
            TINY_MATRIX(&t, dense[i].out, dense[i].in, "%s.encoder.layer.%d.%s.weight", model, l, dense[i].name);
            TINY_VECTOR(&t, 0, dense[i].out, "%s.encoder.layer.%d.%s.bias", model, l, dense[i].name);
        }
        for (int i = 0; i < 2; i++) {
            const char *norm = i == 0 ? "layernorm_before" : "layernorm_after";
            TINY_VECTOR(&t, 1, 12, "%s.encoder.layer.%d.%s.weight", model, l, norm);
            TINY_VECTOR(&t, 0, 12, "%s.encoder.layer.%d.%s.bias", model, l, norm);
        }
    }
    TINY_VECTOR(&t, 1, 12, "%s.layernorm.weight", model);
    TINY_VECTOR(&t, 0, 12, "%s.layernorm.bias", model);
    for (int i = 0; i < (distilled ? 2 : 1); i++) {
        const char *head = !distilled ? "classifier" : i == 0 ? "cls_classifier" : "distillation_classifier";
        TINY_MATRIX(&t, 5, 12, "%s.weight", head);
        TINY_VECTOR(&t, 0, 5, "%s.bias", head);
    }
    return t;
}

/* The same sizes, with `registers` tokens without a position; 0: a model of another type. */
static inline tiny tiny_dinov2(cab_dtype dtype, int registers)
{
    const char *const model = registers > 0 ? "dinov2_with_registers" : "dinov2";
    tiny t = {.dtype = dtype};
    snprintf(t.config, sizeof t.config,
             "{\"model_type\": \"%s\", \"hidden_size\": 12, \"num_hidden_layers\": 2, \"num_attention_heads\": 3, "
             "\"mlp_ratio\": 1.75, \"image_size\": 12, \"patch_size\": 4, \"num_register_tokens\": %d}",
             model, registers);
    tiny_add(&t, 0, 3, (int64_t[]){1, 1, 12}, "%s.embeddings.cls_token", model);
    tiny_add(&t, 0, 2, (int64_t[]){1, 12}, "%s.embeddings.mask_token", model);
    if (registers > 0)
        tiny_add(&t, 0, 3, (int64_t[]){1, registers, 12}, "%s.embeddings.register_tokens", model);
    tiny_add(&t, 0, 3, (int64_t[]){1, 10, 12}, "%s.embeddings.position_embeddings", model);
    tiny_add(&t, 0, 4, (int64_t[]){12, 3, 4, 4}, "%s.embeddings.patch_embeddings.projection.weight", model);
    TINY_VECTOR(&t, 0, 12, "%s.embeddings.patch_embeddings.projection.bias", model);
    for (int l = 0; l < 2; l++) {
        static const struct {
            const char *name;
            int64_t in, out;
        } dense[] = {{"attention.attention.query", 12, 12},
                     {"attention.attention.key", 12, 12},
                     {"attention.attention.value", 12, 12},
                     {"attention.output.dense", 12, 12},
                     {"mlp.fc1", 12, 21},
                     {"mlp.fc2", 21, 12}};
        for (int i = 0; i < 6; i++) {
            TINY_MATRIX(&t, dense[i].out, dense[i].in, "%s.encoder.layer.%d.%s.weight", model, l, dense[i].name);
            TINY_VECTOR(&t, 0, dense[i].out, "%s.encoder.layer.%d.%s.bias", model, l, dense[i].name);
        }
        for (int i = 1; i <= 2; i++) {
            TINY_VECTOR(&t, 1, 12, "%s.encoder.layer.%d.norm%d.weight", model, l, i);
            TINY_VECTOR(&t, 0, 12, "%s.encoder.layer.%d.norm%d.bias", model, l, i);
            TINY_VECTOR(&t, 1, 12, "%s.encoder.layer.%d.layer_scale%d.lambda1", model, l, i);
        }
    }
    TINY_VECTOR(&t, 1, 12, "%s.layernorm.weight", model);
    TINY_VECTOR(&t, 0, 12, "%s.layernorm.bias", model);
    TINY_MATRIX(&t, 5, 24, "classifier.weight");
    TINY_VECTOR(&t, 0, 5, "classifier.bias");
    return t;
}

/* Width 8, state 3, convolution of 4, rank 1, 2 layers, patches of 4, images of 12, 5 classes. */
static inline tiny tiny_vim(void)
{
    tiny t = {.dtype = CAB_F32,
              .config =
                  "{\"model_type\": \"vim\", \"img_size\": 12, \"patch_size\": 4, \"embed_dim\": 8, \"depth\": 2, "
                  "\"num_classes\": 5, \"d_state\": 3}"};
    tiny_add(&t, 0, 4, (int64_t[]){8, 3, 4, 4}, "patch_embed.proj.weight");
    TINY_VECTOR(&t, 0, 8, "patch_embed.proj.bias");
    tiny_add(&t, 0, 3, (int64_t[]){1, 1, 8}, "cls_token");
    tiny_add(&t, 0, 3, (int64_t[]){1, 10, 8}, "pos_embed");
    for (int l = 0; l < 2; l++) {
        TINY_VECTOR(&t, 1, 8, "layers.%d.norm.weight", l);
        TINY_MATRIX(&t, 32, 8, "layers.%d.mixer.in_proj.weight", l);
        TINY_MATRIX(&t, 8, 16, "layers.%d.mixer.out_proj.weight", l);
        for (int d = 0; d < 2; d++) {
            const char *suffix = d == 0 ? "" : "_b";
            TINY_MATRIX(&t, 16, 3, "layers.%d.mixer.A%s_log", l, suffix);
            TINY_VECTOR(&t, 1, 16, "layers.%d.mixer.D%s", l, suffix);
            tiny_add(&t, 0, 3, (int64_t[]){16, 1, 4}, "layers.%d.mixer.conv1d%s.weight", l, suffix);
            TINY_VECTOR(&t, 0, 16, "layers.%d.mixer.conv1d%s.bias", l, suffix);
            TINY_MATRIX(&t, 7, 16, "layers.%d.mixer.x_proj%s.weight", l, suffix);
            TINY_MATRIX(&t, 16, 1, "layers.%d.mixer.dt_proj%s.weight", l, suffix);
            TINY_VECTOR(&t, 0, 16, "layers.%d.mixer.dt_proj%s.bias", l, suffix);
        }
    }
    TINY_VECTOR(&t, 1, 8, "norm_f.weight");
    TINY_MATRIX(&t, 5, 8, "head.weight");
    TINY_VECTOR(&t, 0, 5, "head.bias");
    return t;
}

#endif
