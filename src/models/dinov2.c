/* dinov2.c - DINOv2 (Oquab et al. 2023), with and without registers (Darcet et al. 2023), names of transformers, with the
 * classifier of Dinov2ForImageClassification.
 *
 *   x = (class token, patches(pixels) W + b) + positions, registers behind the class token
 *   per layer:  x = x + scale1 * out(attention(norm1(x)))     x = x + scale2 * fc2(gelu(fc1(norm2(x))))
 *   logits = classifier(norm(x)[0], mean of norm(x)[patches])
 *
 * Positions for another image size are interpolated, of the model with registers with antialiasing, of the other without. The giant's MLP is gated: weights_out(silu(g) * u), (g, u) = weights_in(norm2(x)). The scales are multiplied into the matrices before them. */
#include "models/architectures.h"
#include "models/vision.h"

static const cab_size register_sizes[] = {CAB_SIZE("num_register_tokens", n_register, CAB_REGISTERS_MAX, 4), {0}};
/* Those of a backbone's feature maps change nothing. */
static const cab_setting settings[] = {
    {"apply_layernorm", NULL}, {"drop_path_rate", NULL},        {"layerscale_value", NULL},
    {"mlp_ratio", NULL},       {"num_register_tokens", NULL},   {"out_features", NULL},
    {"out_indices", NULL},     {"reshape_hidden_states", NULL}, {"stage_names", NULL},
    {"use_mask_token", NULL},  {"use_swiglu_ffn", NULL},        {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_vision, cab_settings_transformers, NULL};
/* It stands for a patch that is masked in pretraining. */
static const char *const unread[] = {"*embeddings.mask_token", NULL};

static const cab_vision_names names = {.patches = "embeddings.patch_embeddings.projection",
                                       .class_token = "embeddings.cls_token",
                                       .registers = "embeddings.register_tokens",
                                       .positions = "embeddings.position_embeddings",
                                       .layer = "encoder.layer.%d.",
                                       .norm1 = "norm1",
                                       .norm2 = "norm2",
                                       .q = "attention.attention.query",
                                       .k = "attention.attention.key",
                                       .v = "attention.attention.value",
                                       .out = "attention.output.dense",
                                       .out_scale = "layer_scale1.lambda1",
                                       .fc1 = "mlp.fc1",
                                       .fc2 = "mlp.fc2",
                                       .fc2_scale = "layer_scale2.lambda1",
                                       .gated_in = "mlp.weights_in",
                                       .gated_out = "mlp.weights_out",
                                       .final_norm = "layernorm"};

static cab_status parse(const cab_json *json, int patch, cab_config *c)
{
    double ratio;
    CAB_TRY(cab_vision_parse(json, patch, 1e-6, c));
    CAB_TRY(cab_positive_parse(json, NULL, "mlp_ratio", 4, &ratio));
    if (ratio * c->d_model < 1 || ratio * c->d_model > 1 << 18)
        return cab_fail(CAB_ESHAPE, "%s: mlp_ratio %g of hidden_size %d: expected 1 to %d", json->name, ratio,
                        c->d_model, 1 << 18);
    c->d_mlp = (int)(ratio * c->d_model); /* rounds down */
    CAB_TRY(cab_json_bool_or(json, NULL, "use_swiglu_ffn", false, &c->gated));
    if (c->gated) { /* as many weights, in multiples of 8 */
        c->d_mlp = (c->d_mlp * 2 / 3 + 7) / 8 * 8;
        c->activation = CAB_SILU;
    }
    c->n_special = 1;
    return CAB_OK;
}

static cab_status configure_plain(const cab_json *json, cab_config *c)
{
    return parse(json, 14, c);
}

static cab_status configure_registers(const cab_json *json, cab_config *c)
{
    CAB_TRY(parse(json, 16, c));
    CAB_TRY(cab_sizes_parse(json, register_sizes, c));
    c->n_special = 1 + c->n_register;
    c->smooth_positions = true;
    return CAB_OK;
}

static cab_status measure(const cab_checkpoint *source, cab_config *c)
{
    if (!cab_checkpoint_has(source, "classifier.weight"))
        return cab_fail(
            CAB_EUNSUPPORTED,
            "%s: no tensor \"classifier.weight\": DINOv2's backbone alone, which tells no classes; supported is "
            "Dinov2ForImageClassification",
            cab_checkpoint_directory(source));
    CAB_TRY(cab_vision_classes(source, "classifier.weight", "num_labels", c));
    cab_config_set_image(c, c->image_size);
    return CAB_OK;
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    static const char *const prefixes[] = {"dinov2.", "dinov2_with_registers.", "", NULL};
    n->read_count = 2;
    n->pool_from = c->n_special;
    cab_builder_prefixes(b, prefixes);
    CAB_TRY(cab_vision_embeddings(b, c, &names, n));
    CAB_TRY(cab_vision_layers(b, c, &names, n));
    cab_builder_prefixes(b, NULL);
    return cab_builder_dense(b, &n->head, 2 * c->d_model, c->n_classes, true, "classifier");
}

const cab_arch cab_arch_dinov2 = {.name = "dinov2",
                                  .teacher = true,
                                  .settings = setting_tables,
                                  .unread = unread,
                                  .configure = configure_plain,
                                  .measure = measure,
                                  .build = build};

const cab_arch cab_arch_dinov2_with_registers = {.name = "dinov2_with_registers",
                                                 .teacher = true,
                                                 .settings = setting_tables,
                                                 .unread = unread,
                                                 .configure = configure_registers,
                                                 .measure = measure,
                                                 .build = build};
