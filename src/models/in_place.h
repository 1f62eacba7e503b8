/* in_place.h - models that were a Transformer of any family that is read here, with a state-space mixer in the place of its attention, or of
 * some of its heads.
 *
 * Their config.json:
 *
 *   {"model_type": "in-place",
 *    "teacher": {...},            the Transformer's own config.json
 *    "sizes": {...},              of images: its own, of which the teacher's config.json may leave some to the tensors
 *    "mixer": {"kind": "mamba2", "mamba_d_ssm": E, ...},
 *    "kept": [[0, 3], [], ...]}   for every layer, the heads that stay attention: all, and there is no mixer; none, and there is no attention
 *
 * The network is the one that the teacher's family builds, rewritten. Its parameters are stored under the names that the family's files have
 * for them, with the values that are computed with: 1 + w of a norm that multiplies by that, rows of Q, K and V one after the other. Those of
 * the mixers are layers.N.mamba.*. Images have mixers of kind "mamba2-both-ways". */
#ifndef CAB_MODELS_IN_PLACE_H
#define CAB_MODELS_IN_PLACE_H

#include "models/model.h"

enum { CAB_HEADS_MAX = 1024 };

/* Makes `config`, a copy of the teacher's with the sizes of a mixer, that of an in-place model. kept: the list above, a reference that this
 * takes over. The caller puts config->in_place, also after a failure. CAB_EUNSUPPORTED: a teacher that was not read from files. */
cab_status cab_in_place_describe_teacher(const cab_model *teacher, json_object *kept, cab_config *config);

/* The heads of a layer that stay attention, rising; returns how many. */
int cab_in_place_kept(const cab_config *config, int layer, int heads[CAB_HEADS_MAX]);

/* Heads of K and V that n kept heads need, where `share` heads of the teacher share one: those that they share if each then has as many of
 * the kept heads, else a copy for each of them. */
int cab_in_place_kv_heads(const int *heads, int n, int share);

#endif
