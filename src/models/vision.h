/* vision.h - what the models of images have in common: most of their config.json, and parts under names of their own. */
#ifndef CAB_MODELS_VISION_H
#define CAB_MODELS_VISION_H

#include "models/builder.h"
#include "models/sizes.h"

/* Keys that the image encoders of transformers have, those read here among them. */
extern const cab_setting cab_settings_vision[];

/* hidden_size, num_hidden_layers, num_attention_heads, image_size (224), patch_size (`patch`), num_channels (3, the only one),
 * layer_norm_eps (`eps`), qkv_bias (true), hidden_act (gelu). CAB_ESHAPE where heads or patches do not divide. */
cab_status cab_vision_parse(const cab_json *json, int patch, double eps, cab_config *config);
/* n_classes: the rows of the matrix `classifier`, with which `key` of config.json must agree. */
cab_status cab_vision_classes(const cab_checkpoint *source, const char *classifier, const char *key,
                              cab_config *config);

/* Where the parts lie. NULL: none. */
typedef struct cab_vision_names {
    const char *patches, *class_token, *second_token, *registers, *positions;
    const char *layer; /* with %d: what stands before a layer's names, those of the next line */
    const char *norm1, *norm2, *q, *k, *v, *out, *fc1, *fc2;
    const char *qkv;                   /* where Q, K and V are one matrix */
    const char *out_scale, *fc2_scale; /* LayerScale, a factor for each of the outputs of `out` and fc2 */
    const char *gated_in,
        *gated_out; /* in the place of fc1 and fc2 where the MLP is gated: gate and up in one matrix */
    const char *final_norm;
} cab_vision_names;

/* patch_size, patches, the special tokens, of which registers are the last, and the positions. */
cab_status cab_vision_embeddings(cab_builder *b, const cab_config *c, const cab_vision_names *names, cab_network *n);
/* The layers, each x = x + out(attention(norm1(x))), x = x + fc2(act(fc1(norm2(x)))), and the final norm. */
cab_status cab_vision_layers(cab_builder *b, const cab_config *c, const cab_vision_names *names, cab_network *n);

#endif
