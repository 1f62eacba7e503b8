/* architectures.h - one table entry per file of this folder. */
#ifndef CAB_MODELS_ARCHITECTURES_H
#define CAB_MODELS_ARCHITECTURES_H

#include "models/model.h"

extern const cab_arch cab_arch_gpt2;
extern const cab_arch cab_arch_phi;
extern const cab_arch cab_arch_phi_mamba;
extern const cab_arch cab_arch_vit;
extern const cab_arch cab_arch_deit;
extern const cab_arch cab_arch_vim;

/* A token id of config.json; -1 when it is absent, a list, or outside the vocabulary, as in many small models' files. */
int cab_token_parse(const cab_json *json, const char *key, int64_t vocab_size);
/* A finite number above zero in `object` (NULL: the root). */
cab_status cab_positive_parse(const cab_json *json, json_object *object, const char *key, double fallback, double *out);
/* "gelu_new", "gelu", "silu" ... as config.json says it. */
cab_status cab_activation_parse(const cab_json *json, const char *key, const char *fallback, cab_activation_kind *out);

#endif
