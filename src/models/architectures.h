/* architectures.h - one table entry per file of this folder. */
#ifndef CAB_MODELS_ARCHITECTURES_H
#define CAB_MODELS_ARCHITECTURES_H

#include "models/model.h"

extern const cab_arch cab_arch_gpt2;
extern const cab_arch cab_arch_phi;
extern const cab_arch cab_arch_phi_mamba;

/* "gelu_new", "gelu", "silu" ... as config.json says it. */
cab_status cab_activation_parse(const cab_json *json, const char *key, const char *fallback, cab_activation_kind *out);

#endif
