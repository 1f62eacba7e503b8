/* backbone.h - what Mamba and Mamba-2 have in common in transformers: models of mixers alone, whose layers are backbone.layers. */
#ifndef CAB_MODELS_BACKBONE_H
#define CAB_MODELS_BACKBONE_H

#include "models/sizes.h"
#include "models/state_space.h"

/* Keys of both, those read here among them. */
extern const cab_setting cab_settings_backbone[];

/* vocab_size, hidden_size, num_hidden_layers, state_size, conv_kernel, expand, layer_norm_epsilon, use_bias, use_conv_bias,
 * residual_in_fp32, tie_word_embeddings (`tied` where it is absent), bos_token_id, eos_token_id; max_position_embeddings, which
 * says what length a model was trained on. */
cab_status cab_backbone_parse(const cab_json *json, bool tied, cab_config *config);
void cab_backbone_describe(const cab_config *config, json_object *json);

/* backbone.embeddings, backbone.layers.<l>, its norm and its mixer, backbone.norm_f, lm_head. */
typedef cab_status cab_backbone_mixer(cab_builder *b, const cab_config *c, cab_block *block);
cab_status cab_backbone_build(cab_builder *b, const cab_config *c, cab_network *n, cab_backbone_mixer *mixer);

#endif
