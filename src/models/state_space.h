/* state_space.h - what configurations of models with state-space mixers have in common, and how they name a mixer's tensors. */
#ifndef CAB_MODELS_STATE_SPACE_H
#define CAB_MODELS_STATE_SPACE_H

#include "models/builder.h"

/* The keys that the hybrids of transformers have for their Mamba-2 mixers: mamba_*, time_step_limit. */
extern const cab_setting cab_settings_mamba2[];

/* mamba_d_state, mamba_n_heads, mamba_n_groups, mamba_d_conv, mamba_d_head, mamba_conv_bias, mamba_proj_bias. The inner width is
 * `inner`, or where that is 0 mamba_expand times hidden_size. */
cab_status cab_mamba2_parse(const cab_json *json, int64_t inner, cab_config *config);
void cab_mamba2_describe(const cab_config *config, json_object *json);

/* Which layers of a hybrid have the mixer and which attention, in layer_types or layers_block_type: "mamba" and "attention", which
 * transformers 5 calls "linear_attention" and "full_attention". Without a list all have the mixer. */
cab_status cab_mixers_parse(const cab_json *json, cab_config *config);
void cab_mixers_describe(const cab_config *config, json_object *json);

/* Refuses heads of another width than `width` (0: any), and heads, groups and inner width that do not divide. */
cab_status cab_mamba2_check(const cab_json *json, int64_t width, const cab_config *config);
/* Refuses steps that are limited otherwise than by 0 and infinity. */
cab_status cab_time_step_check(const cab_json *json);
/* A size up to `most`, 0 where the key is absent or says "auto". */
cab_status cab_size_or_auto(const cab_json *json, const char *key, int64_t most, int64_t *out);

/* In the scope of a layer: `name`.{in_proj, conv1d, dt_bias, A_log, D, norm, out_proj}, of a checkpoint times the
 * configuration's multipliers. */
cab_status cab_mamba2_build(cab_builder *b, const cab_config *c, const char *name, cab_mamba2 *m);

#endif
