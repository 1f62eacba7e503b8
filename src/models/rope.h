/* rope.h - the rotary embedding of a configuration. */
#ifndef CAB_MODELS_ROPE_H
#define CAB_MODELS_ROPE_H

#include "models/model.h"

/* Rotary embedding: rope_theta (`theta`) and partial_rotary_factor (`partial`) at the top level, or in rope_parameters since
 * transformers 5; rope_type default, linear, llama3, yarn, longrope, or dynamic, which within max_position_embeddings is default.
 * Others are refused. head_dim must be set. The factors of longrope go to config->rope_factors; config->rope does not point to
 * them, because configurations are copied: cab_decoder_heads() makes it. */
cab_status cab_rope_parse(const cab_json *json, double theta, double partial, cab_config *config);

/* The same of a family that turns all features of a head; another partial_rotary_factor is refused. */
cab_status cab_rope_whole_parse(const cab_json *json, double theta, cab_config *config);
/* Writes config->rope, for transformers 4 and 5; nothing where it does not turn. */
void cab_rope_describe(const cab_config *config, json_object *json);

/* The same of a family whose sliding layers turn otherwise than its others: config->local_rope. rope_theta (`theta`),
 * rope_scaling and rope_local_base_freq (`local_theta`), or an object for each kind of layers in rope_parameters. */
cab_status cab_rope_layers_parse(const cab_json *json, double theta, double local_theta, cab_config *config);

#endif
