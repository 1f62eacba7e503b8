#include "models/sizes.h"

#include <math.h>
#include <string.h>

static int *field(const cab_size *size, cab_config *config)
{
    return (int *)(void *)((char *)config + size->offset);
}

cab_status cab_sizes_parse(const cab_json *json, const cab_size *sizes, cab_config *config)
{
    for (const cab_size *s = sizes; s->key != NULL; s++) {
        int64_t value = 0;
        if (s->fallback == CAB_REQUIRED)
            CAB_TRY(cab_json_int(json, NULL, s->key, 1, s->most, &value));
        else
            CAB_TRY(cab_json_int_or(json, NULL, s->key, 1, s->most, s->fallback, &value));
        *field(s, config) = (int)value;
    }
    return CAB_OK;
}

void cab_sizes_describe(const cab_size *sizes, const cab_config *config, json_object *json)
{
    cab_config copy = *config;
    for (const cab_size *s = sizes; s->key != NULL; s++)
        json_object_object_add(json, s->key, json_object_new_int(*field(s, &copy)));
}

cab_status cab_numbers_parse(const cab_json *json, const cab_number *numbers, cab_config *config)
{
    for (const cab_number *n = numbers; n->key != NULL; n++)
        CAB_TRY(cab_positive_parse(json, NULL, n->key, n->fallback, (double *)(void *)((char *)config + n->offset)));
    return CAB_OK;
}

cab_status cab_switches_parse(const cab_json *json, const cab_switch *switches, cab_config *config)
{
    for (const cab_switch *s = switches; s->key != NULL; s++)
        CAB_TRY(cab_json_bool_or(json, NULL, s->key, s->fallback, (bool *)((char *)config + s->offset)));
    return CAB_OK;
}

void cab_numbers_describe(const cab_number *numbers, const cab_config *config, json_object *json)
{
    for (const cab_number *n = numbers; n->key != NULL; n++) {
        const double value = *(const double *)(const void *)((const char *)config + n->offset);
        json_object_object_add(json, n->key, json_object_new_double(value > 0 ? value : n->fallback));
    }
}

void cab_switches_describe(const cab_switch *switches, const cab_config *config, json_object *json)
{
    for (const cab_switch *s = switches; s->key != NULL; s++)
        json_object_object_add(json, s->key,
                               json_object_new_boolean(*(const bool *)((const char *)config + s->offset)));
}

cab_status cab_positive_parse(const cab_json *json, json_object *object, const char *key, double fallback, double *out)
{
    CAB_TRY(cab_json_number_or(json, object, key, fallback, out));
    if (!(*out > 0) || isinf(*out))
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" is %g, expected a positive number", json->name, key, *out);
    return CAB_OK;
}

cab_status cab_positives_parse(const cab_json *json, const char *key, size_t n, double *out)
{
    json_object *list = NULL;
    for (size_t i = 0; i < n; i++)
        out[i] = 1;
    if (!json_object_object_get_ex(json->root, key, &list) || list == NULL)
        return CAB_OK;
    CAB_TRY(cab_json_array(json, NULL, key, &list));
    bool good = json_object_array_length(list) == n;
    for (size_t i = 0; good && i < n; i++) {
        json_object *item = json_object_array_get_idx(list, i);
        out[i] = json_object_get_double(item);
        good = (json_object_is_type(item, json_type_double) || json_object_is_type(item, json_type_int)) &&
               out[i] > 0 && !isinf(out[i]);
    }
    return good ? CAB_OK
                : cab_fail(CAB_EFORMAT, "%s: \"%s\" is %.80s, expected %zu positive numbers", json->name, key,
                           json_object_to_json_string_ext(list, JSON_C_TO_STRING_PLAIN), n);
}

static const struct {
    const char *name; /* the first of a kind is the one that is written */
    cab_activation_kind kind;
} activations[] = {{"gelu_new", CAB_GELU_TANH},  {"gelu_pytorch_tanh", CAB_GELU_TANH},
                   {"gelu_fast", CAB_GELU_TANH}, {"gelu", CAB_GELU_ERF},
                   {"silu", CAB_SILU},           {"swish", CAB_SILU},
                   {"relu", CAB_RELU},           {"tanh", CAB_TANH}};

cab_status cab_activation_parse(const cab_json *json, const char *key, const char *fallback, cab_activation_kind *out)
{
    const char *name = NULL;
    CAB_TRY(cab_json_string_or(json, NULL, key, fallback, &name));
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++) {
        if (strcmp(activations[i].name, name) == 0) {
            *out = activations[i].kind;
            return CAB_OK;
        }
    }
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: \"%s\" is \"%s\"; supported are gelu_new, gelu_pytorch_tanh, gelu, silu, relu, tanh",
                    json->name, key, name);
}

const char *cab_activation_name(cab_activation_kind kind)
{
    size_t i = 0;
    while (i + 1 < sizeof activations / sizeof *activations && activations[i].kind != kind)
        i++;
    return activations[i].name;
}

static int token(const cab_json *json, const char *key, int64_t vocab_size)
{
    json_object *value = NULL;
    json_object_object_get_ex(json->root, key, &value);
    const bool list = json_object_is_type(value, json_type_array);
    for (size_t i = 0; i < (list ? json_object_array_length(value) : 1); i++) {
        json_object *item = list ? json_object_array_get_idx(value, i) : value;
        const int64_t id = json_object_is_type(item, json_type_int) ? json_object_get_int64(item) : -1;
        if (id >= 0 && id < vocab_size)
            return (int)id;
    }
    return -1;
}

void cab_tokens_parse(const cab_json *json, cab_config *config)
{
    config->bos_token = token(json, "bos_token_id", config->vocab_size);
    config->eos_token = token(json, "eos_token_id", config->vocab_size);
}

static json_object *token_json(int id)
{
    return id < 0 ? NULL : json_object_new_int(id);
}

void cab_tokens_describe(const cab_config *config, json_object *json)
{
    json_object_object_add(json, "bos_token_id", token_json(config->bos_token));
    json_object_object_add(json, "eos_token_id", token_json(config->eos_token));
}

void cab_model_describe(const char *model_type, const char *class_name, const cab_config *config, json_object *json)
{
    json_object *architectures = json_object_new_array();
    json_object_array_add(architectures, json_object_new_string(class_name));
    json_object_object_add(json, "architectures", architectures);
    json_object_object_add(json, "model_type", json_object_new_string(model_type));
    cab_tokens_describe(config, json);
    json_object_object_add(json, "pad_token_id", NULL);
}
