/* gguf_mixer.h - what a GGUF file says of state-space mixers, as keys of config.json. For gguf_view.c. */
#ifndef CAB_IO_GGUF_MIXER_H
#define CAB_IO_GGUF_MIXER_H

#include "io/gguf.h"
#include "io/gguf_names.h"

/* Whether such a model has this key, behind "<architecture>.". */
bool cab_gguf_mixer_knows(const char *suffix);
/* Adds the sizes of the family's mixers, and which layers are such, to a config.json of its other keys. */
cab_status cab_gguf_mixer_config(const cab_gguf *gguf, const cab_gguf_family *family, json_object *config);
/* Heads of keys and values: of a list by layer, the number that is not 0. CAB_EUNSUPPORTED where there are several. */
cab_status cab_gguf_kv_heads(const cab_json *metadata, const cab_gguf_family *family, int64_t fallback, int64_t *out);

#endif
