/* sizes.h - what config.json says, in tables: a key, the field of cab_config that it gives, and its range. */
#ifndef CAB_MODELS_SIZES_H
#define CAB_MODELS_SIZES_H

#include "models/model.h"

typedef struct cab_size {
    const char *key;
    size_t offset;    /* of an int in cab_config */
    int64_t most;     /* from 1 */
    int64_t fallback; /* where the key is absent; CAB_REQUIRED: an error. 0: the architecture derives it */
} cab_size;

enum { CAB_REQUIRED = -1 };

#define CAB_SIZE(key_, field_, most_, fallback_)                                                                       \
    {                                                                                                                  \
        .key = key_, .offset = offsetof(cab_config, field_), .most = most_, .fallback = fallback_                      \
    }

/* Reads them, in the order of a table that ends with a key of NULL. */
cab_status cab_sizes_parse(const cab_json *json, const cab_size *sizes, cab_config *config);
/* Writes them. */
void cab_sizes_describe(const cab_size *sizes, const cab_config *config, json_object *json);

/* Numbers above zero and switches, likewise. */
typedef struct cab_number {
    const char *key;
    size_t offset; /* of a double in cab_config */
    double fallback;
} cab_number;

typedef struct cab_switch {
    const char *key;
    size_t offset; /* of a bool */
    bool fallback;
} cab_switch;

#define CAB_FIELD(key_, field_, fallback_)                                                                             \
    {                                                                                                                  \
        .key = key_, .offset = offsetof(cab_config, field_), .fallback = fallback_                                     \
    }

cab_status cab_numbers_parse(const cab_json *json, const cab_number *numbers, cab_config *config);
cab_status cab_switches_parse(const cab_json *json, const cab_switch *switches, cab_config *config);
/* A number of 0 is the fallback: the configuration was not read from a file. */
void cab_numbers_describe(const cab_number *numbers, const cab_config *config, json_object *json);
void cab_switches_describe(const cab_switch *switches, const cab_config *config, json_object *json);

/* A finite number above zero in `object` (NULL: the root). */
cab_status cab_positive_parse(const cab_json *json, json_object *object, const char *key, double fallback, double *out);
/* A list of n of them, all 1 where the key is absent. */
cab_status cab_positives_parse(const cab_json *json, const char *key, size_t n, double *out);
/* "gelu_new", "gelu", "silu" ... as config.json says it. */
cab_status cab_activation_parse(const cab_json *json, const char *key, const char *fallback, cab_activation_kind *out);
const char *cab_activation_name(cab_activation_kind kind);
/* bos_token and eos_token of vocab_size; of a list the first; -1 where a key is absent or outside the vocabulary, as in many small
 * models' files. */
void cab_tokens_parse(const cab_json *json, cab_config *config);
/* Writes them, null where there is none. */
void cab_tokens_describe(const cab_config *config, json_object *json);
/* Writes model_type, the class of transformers that reads it, and these tokens, null where there is none. */
void cab_model_describe(const char *model_type, const char *class_name, const cab_config *config, json_object *json);

#endif
