#include "io/scaled.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { SIDE = 128 };

static bool text_is(json_object *object, const char *key, const char *wanted)
{
    json_object *value = NULL;
    return json_object_object_get_ex(object, key, &value) && json_object_is_type(value, json_type_string) &&
           strcmp(json_object_get_string(value), wanted) == 0;
}

cab_status cab_scaled_is(const cab_json *config, bool *scaled)
{
    json_object *q = NULL, *blocks = NULL;
    *scaled = false;
    if (!json_object_object_get_ex(config->root, "quantization_config", &q) ||
        !json_object_is_type(q, json_type_object))
        return CAB_OK;
    *scaled = text_is(q, "quant_method", "fp8") ||
              (text_is(q, "quant_method", "compressed-tensors") && text_is(q, "format", "float-quantized"));
    if (!*scaled || !json_object_object_get_ex(q, "weight_block_size", &blocks) || blocks == NULL)
        return CAB_OK;
    for (size_t i = 0; i < 2; i++)
        if (!json_object_is_type(blocks, json_type_array) || json_object_array_length(blocks) != 2 ||
            json_object_get_int(json_object_array_get_idx(blocks, i)) != SIDE)
            return cab_fail(CAB_EUNSUPPORTED,
                            "%s: quantization_config: weight_block_size is %.40s, expected [128, 128]", config->name,
                            json_object_to_json_string_ext(blocks, JSON_C_TO_STRING_PLAIN));
    return CAB_OK;
}

bool cab_scaled_names(const char *name, size_t *length)
{
    static const char *const endings[] = {"_scale", "_scale_inv"};
    const size_t n = strlen(name);
    for (size_t i = 0; i < 2; i++) {
        const size_t e = strlen(endings[i]);
        if (n > e && strcmp(name + n - e, endings[i]) == 0) {
            *length = n - e;
            return true;
        }
    }
    return false;
}

/* Of the scales: elements of a row and of a column of `entry` that one of them is for; 0: they fit in no way. */
static void spans(const cab_safetensors_entry *entry, const cab_safetensors_entry *scales, int64_t span[2])
{
    const int64_t rows = entry->n_dim == 2 ? entry->shape[0] : 0, columns = entry->n_dim == 2 ? entry->shape[1] : 0;
    int64_t count = 1;
    for (int i = 0; i < scales->n_dim; i++)
        count *= scales->shape[i];
    span[0] = span[1] = 0;
    if (rows == 0 || columns == 0)
        return;
    if (count == 1) {
        span[0] = rows;
        span[1] = columns;
    } else if (count == rows && scales->shape[0] == rows && scales->n_dim <= 2) {
        span[0] = 1;
        span[1] = columns;
    } else if (scales->n_dim == 2 && scales->shape[0] == (rows + SIDE - 1) / SIDE &&
               scales->shape[1] == (columns + SIDE - 1) / SIDE) {
        span[0] = span[1] = SIDE;
    }
}

cab_status cab_scaled_check(const cab_safetensors_entry *entry, const cab_safetensors_entry *scales)
{
    int64_t span[2];
    spans(entry, scales, span);
    if (span[0] == 0)
        return cab_fail(CAB_ESHAPE,
                        "%s: tensor \"%s\" has %d dimensions and %lld rows, expected one scale, one a row, or one "
                        "for each 128 x 128 elements of a matrix",
                        scales->file, scales->name, scales->n_dim,
                        (long long)(scales->n_dim > 0 ? scales->shape[0] : 1));
    return CAB_OK;
}

cab_status cab_scaled_apply(const cab_safetensors_entry *entry, const cab_safetensors_entry *scales, int64_t first,
                            int64_t count, float *values)
{
    int64_t span[2], n = 1;
    float *s = NULL;
    cab_status status;
    spans(entry, scales, span);
    const int64_t columns = entry->shape[1], across = (columns + span[1] - 1) / span[1];
    for (int i = 0; i < scales->n_dim; i++)
        n *= scales->shape[i];
    CAB_GOTO(CAB_NEW(&s, (size_t)n, "the scales of a matrix"));
    CAB_GOTO(cab_safetensors_entry_read_f32(scales, scales->n_dim, scales->shape, s));
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = (first + i) / columns, column = (first + i) % columns;
        values[i] *= s[row / span[0] * across + column / span[1]];
    }
done:
    cab_free(s);
    return status;
}
