/* decoder.h - what the decoders of transformers have in common: most of their config.json, and how their layers are named. */
#ifndef CAB_MODELS_DECODER_H
#define CAB_MODELS_DECODER_H

#include "models/builder.h"
#include "models/sizes.h"

/* Keys that the decoders of transformers have, those read here among them; and tensors of older files that change nothing. */
extern const cab_setting cab_settings_decoder[];
extern const char *const cab_decoder_unread[];

/* vocab_size, hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size,
 * max_position_embeddings, hidden_act, tie_word_embeddings (false), bos_token_id and eos_token_id. The architecture's
 * activation where hidden_act is absent. CAB_ESHAPE where heads do not divide. */
cab_status cab_decoder_parse(const cab_json *json, const char *activation, cab_config *config);

/* Rotary embedding: rope_theta (10000) and partial_rotary_factor (`partial`) at the top level, or in rope_parameters since
 * transformers 5; other kinds than "default" are refused. head_dim must be set. */
cab_status cab_rope_parse(const cab_json *json, double partial, cab_config *config);

/* Separate projections q, k, v and out of the layer in the builder's scope, biased or not, and what they are computed with:
 * all heads of the configuration, causal, scaled by 1 / sqrt(head_dim). */
typedef struct cab_attention_names {
    const char *q, *k, *v, *out;
} cab_attention_names;
cab_status cab_decoder_attention(cab_builder *b, const cab_config *c, cab_attention_mixer *a, bool biased,
                                 const cab_attention_names *names);

#endif
