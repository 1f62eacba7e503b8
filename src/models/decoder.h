/* decoder.h - what the decoders of transformers have in common: most of their config.json, and how they name their parts. */
#ifndef CAB_MODELS_DECODER_H
#define CAB_MODELS_DECODER_H

#include "models/builder.h"
#include "models/rope.h"
#include "models/sizes.h"

/* Keys that the decoders of transformers have, those read here among them; and tensors of older files that change nothing. */
extern const cab_setting cab_settings_decoder[];
extern const char *const cab_decoder_unread[];

/* vocab_size, hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size,
 * max_position_embeddings, hidden_act, tie_word_embeddings (false), bos_token_id and eos_token_id. The architecture's
 * activation where hidden_act is absent. CAB_ESHAPE where heads do not divide. */
cab_status cab_decoder_parse(const cab_json *json, const char *activation, cab_config *config);
/* Refuses another activation than silu, the one that a gated MLP is computed with. */
cab_status cab_decoder_gated(const cab_json *json, const cab_config *config);

/* sliding_window, and which layers it is of: those that layer_types says; without it those from layer `first` on. */
cab_status cab_window_parse(const cab_json *json, int first, cab_config *config);

/* Writes what cab_decoder_parse() and cab_rope_parse() read, for transformers 4 and 5. */
void cab_decoder_describe(const cab_config *config, json_object *json);

/* In the scope of a layer: projections self_attn.{q,k,v}_proj and `out`, biased or not, of all heads of the configuration,
 * causal, scaled by 1 / sqrt(head_dim), rotary embedding and window as layer l has them; of a checkpoint times the configuration's
 * multipliers. */
cab_status cab_decoder_attention(cab_builder *b, const cab_config *c, int l, bool biased, bool out_biased,
                                 const char *out, cab_attention_mixer *a);
/* What of this needs no tensors. */
void cab_decoder_heads(const cab_config *c, int l, cab_attention_mixer *a);
/* mlp.{gate,up,down}_proj. */
cab_status cab_decoder_gated_mlp(cab_builder *b, const cab_config *c, bool biased, cab_mlp *mlp);

/* model.embed_tokens, model.layers.<l>, each by `block`, the final norm, lm_head. */
typedef cab_status cab_decoder_block(cab_builder *b, const cab_config *c, int l, cab_block *block);
cab_status cab_decoder_build(cab_builder *b, const cab_config *c, cab_network *n, cab_decoder_block *block,
                             const char *final_norm, bool norm_biased, bool head_biased);

#endif
