/* compare_json.c - a comparison as compare.json has it (docs/formats.md), written and read back. */
#include "base/base64.h"
#include "base/json.h"
#include "base/memory.h"
#include "train/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- writing --------------------------------------------------------------------------------------------------------- */

/* json-c owns what is added, even where adding fails for want of memory. */
static bool add(json_object *object, const char *key, json_object *value)
{
    if (value == NULL)
        return false;
    if (json_object_object_add(object, key, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

static bool append(json_object *array, json_object *value)
{
    if (value == NULL)
        return false;
    if (json_object_array_add(array, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

/* Four digits are more than a chart shows. */
static json_object *number(double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.4g", value);
    return json_object_new_double_s(value, text);
}

static bool add_floats(json_object *object, const char *key, const float *values, int64_t n)
{
    json_object *array = json_object_new_array();
    bool complete = array != NULL;
    for (int64_t i = 0; complete && i < n; i++)
        complete = append(array, number((double)values[i]));
    return add(object, key, array) && complete;
}

static bool add_similarity(json_object *object, const cab_similarity *s)
{
    return add(object, "min", number(s->min)) && add(object, "q1", number(s->q1)) &&
           add(object, "median", number(s->median)) && add(object, "q3", number(s->q3)) &&
           add(object, "max", number(s->max)) && add(object, "mean", number(s->mean));
}

static bool add_layers(json_object *object, const cab_comparison *c)
{
    json_object *array = json_object_new_array(), *all = json_object_new_object();
    bool complete = array != NULL && all != NULL;
    for (int l = 0; complete && l < c->n_layer; l++) {
        json_object *layer = json_object_new_object();
        complete = append(array, layer) && add(layer, "layer", json_object_new_int(c->layers[l].layer)) &&
                   add(layer, "teacher_layer", json_object_new_int(c->layers[l].teacher_layer)) &&
                   add_similarity(layer, &c->layers[l]);
    }
    complete = complete && add_similarity(all, &c->all);
    complete = add(object, "all", all) && complete;
    return add(object, "layers", array) && complete;
}

static json_object *map_layers(const cab_heat_map *map)
{
    json_object *array = json_object_new_array();
    bool complete = array != NULL;
    for (int i = 0; complete && i < map->n_layer; i++) {
        const cab_heat_layer *from = &map->layers[i];
        json_object *layer = json_object_new_object();
        complete = append(array, layer) && add(layer, "layer", json_object_new_int(from->layer)) &&
                   add(layer, "teacher_layer", json_object_new_int(from->teacher_layer)) &&
                   add_floats(layer, "teacher", from->teacher, map->rows * map->columns) &&
                   add_floats(layer, "student", from->student, map->rows * map->columns);
    }
    if (complete)
        return array;
    json_object_put(array);
    return NULL;
}

static bool add_tokens(json_object *object, const cab_heat_map *map)
{
    json_object *array = json_object_new_array();
    bool complete = array != NULL;
    for (int64_t i = 0; complete && i < map->rows; i++)
        complete = append(array, cab_json_text(map->tokens[i]));
    return add(object, "tokens", array) && complete;
}

static bool add_maps(json_object *object, const cab_comparison *c)
{
    json_object *array = json_object_new_array();
    bool complete = array != NULL;
    for (int64_t i = 0; complete && i < c->n_map; i++) {
        const cab_heat_map *from = &c->maps[i];
        json_object *map = json_object_new_object();
        complete = append(array, map) && add(map, "name", cab_json_text(from->name)) &&
                   (from->thumbnail == NULL || add(map, "thumbnail", json_object_new_string(from->thumbnail))) &&
                   (from->tokens == NULL || add_tokens(map, from)) &&
                   add(map, "rows", json_object_new_int64(from->rows)) &&
                   add(map, "columns", json_object_new_int64(from->columns)) && add(map, "layers", map_layers(from));
    }
    return add(object, "maps", array) && complete;
}

cab_status cab_comparison_json(const cab_comparison *c, json_object **out)
{
    json_object *object = json_object_new_object();
    if (object != NULL && add(object, "teacher", cab_json_text(c->teacher)) &&
        add(object, "student", cab_json_text(c->student)) &&
        add(object, "kind", json_object_new_string(c->images ? "images" : "text")) &&
        add(object, "tokens", json_object_new_int64(c->tokens)) &&
        add(object, "samples", json_object_new_int64(c->samples)) && add_layers(object, c) && add_maps(object, c)) {
        *out = object;
        return CAB_OK;
    }
    json_object_put(object);
    return cab_fail(CAB_ENOMEM, "not enough memory for a comparison as JSON");
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

enum { LAYERS_MAX = 4096, MAPS_MAX = 1000, SIDE_MAX = 1024 };
static const size_t FILE_MAX = (size_t)1 << 30;

static cab_status object_at(const cab_json *json, json_object *array, const char *what, size_t i, json_object **out)
{
    *out = json_object_array_get_idx(array, i);
    if (json_object_is_type(*out, json_type_object))
        return CAB_OK;
    return cab_fail(CAB_EFORMAT, "%s: \"%s\"[%zu]: found %s, expected an object", json->name, what, i,
                    json_type_to_name(json_object_get_type(*out)));
}

static cab_status array_of(const cab_json *json, json_object *object, const char *key, size_t most, json_object **out,
                           size_t *count)
{
    CAB_TRY(cab_json_array(json, object, key, out));
    *count = json_object_array_length(*out);
    if (*count > most)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\": found %zu entries, expected at most %zu", json->name, key, *count,
                        most);
    return CAB_OK;
}

static cab_status read_layer_numbers(const cab_json *json, json_object *object, int *layer, int *teacher_layer)
{
    int64_t own, other;
    CAB_TRY(cab_json_int(json, object, "layer", 0, LAYERS_MAX, &own));
    CAB_TRY(cab_json_int(json, object, "teacher_layer", 0, LAYERS_MAX, &other));
    *layer = (int)own;
    *teacher_layer = (int)other;
    return CAB_OK;
}

static cab_status read_similarity(const cab_json *json, json_object *object, cab_similarity *s)
{
    const struct {
        const char *key;
        double *value;
    } numbers[] = {{"min", &s->min}, {"q1", &s->q1},   {"median", &s->median},
                   {"q3", &s->q3},   {"max", &s->max}, {"mean", &s->mean}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        CAB_TRY(cab_json_number(json, object, numbers[i].key, numbers[i].value));
        if (!(*numbers[i].value >= -1.01 && *numbers[i].value <= 1.01)) /* rounding may pass 1 */
            return cab_fail(CAB_EFORMAT, "%s: \"%s\": found %g, expected a cosine", json->name, numbers[i].key,
                            *numbers[i].value);
    }
    return CAB_OK;
}

static cab_status read_layers(const cab_json *json, cab_comparison *c)
{
    json_object *array, *all, *object;
    size_t count;
    CAB_TRY(cab_json_object(json, NULL, "all", &all));
    CAB_TRY(read_similarity(json, all, &c->all));
    c->all.layer = c->all.teacher_layer = -1;
    CAB_TRY(array_of(json, NULL, "layers", LAYERS_MAX, &array, &count));
    CAB_TRY(CAB_NEW(&c->layers, count, "layers"));
    c->n_layer = (int)count;
    for (size_t i = 0; i < count; i++) {
        CAB_TRY(object_at(json, array, "layers", i, &object));
        CAB_TRY(read_layer_numbers(json, object, &c->layers[i].layer, &c->layers[i].teacher_layer));
        CAB_TRY(read_similarity(json, object, &c->layers[i]));
    }
    return CAB_OK;
}

static cab_status read_floats(const cab_json *json, json_object *object, const char *key, size_t n, float **values)
{
    json_object *array;
    size_t count;
    CAB_TRY(array_of(json, object, key, n, &array, &count));
    if (count != n)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\": found %zu numbers, expected %zu", json->name, key, count, n);
    CAB_TRY(CAB_NEW(values, n, "a drawing"));
    for (size_t i = 0; i < n; i++) {
        (*values)[i] = (float)json_object_get_double(json_object_array_get_idx(array, i));
        if (!isfinite((*values)[i]))
            return cab_fail(CAB_EFORMAT, "%s: \"%s\"[%zu] is not finite", json->name, key, i);
    }
    return CAB_OK;
}

static cab_status read_tokens(const cab_json *json, json_object *object, cab_heat_map *map)
{
    json_object *array;
    size_t count;
    CAB_TRY(array_of(json, object, "tokens", SIDE_MAX, &array, &count));
    if ((int64_t)count != map->rows || map->rows != map->columns)
        return cab_fail(CAB_EFORMAT, "%s: \"tokens\": found %zu, expected as many as rows and columns", json->name,
                        count);
    CAB_TRY(CAB_NEW(&map->tokens, count, "tokens"));
    for (size_t i = 0; i < count; i++) {
        const char *token = json_object_get_string(json_object_array_get_idx(array, i));
        CAB_TRY(cab_strdup(&map->tokens[i], token != NULL ? token : ""));
    }
    return CAB_OK;
}

static cab_status read_map(const cab_json *json, json_object *object, cab_heat_map *map)
{
    const char *name, *thumbnail;
    json_object *array, *layer;
    size_t count;
    CAB_TRY(cab_json_string(json, object, "name", &name));
    CAB_TRY(cab_json_string_or(json, object, "thumbnail", NULL, &thumbnail));
    CAB_TRY(cab_json_int(json, object, "rows", 1, SIDE_MAX, &map->rows));
    CAB_TRY(cab_json_int(json, object, "columns", 1, SIDE_MAX, &map->columns));
    CAB_TRY(cab_strdup(&map->name, name));
    if (thumbnail == NULL)
        CAB_TRY(read_tokens(json, object, map));
    else if (!cab_base64_check(thumbnail))
        return cab_fail(CAB_EFORMAT, "%s: \"thumbnail\" is not base64", json->name);
    else
        CAB_TRY(cab_strdup(&map->thumbnail, thumbnail));
    CAB_TRY(array_of(json, object, "layers", LAYERS_MAX, &array, &count));
    CAB_TRY(CAB_NEW(&map->layers, count, "a drawing"));
    map->n_layer = (int)count;
    for (size_t i = 0; i < count; i++) {
        cab_heat_layer *out = &map->layers[i];
        const size_t n = (size_t)(map->rows * map->columns);
        CAB_TRY(object_at(json, array, "layers", i, &layer));
        CAB_TRY(read_layer_numbers(json, layer, &out->layer, &out->teacher_layer));
        CAB_TRY(read_floats(json, layer, "teacher", n, &out->teacher));
        CAB_TRY(read_floats(json, layer, "student", n, &out->student));
    }
    return CAB_OK;
}

static cab_status read_comparison(const cab_json *json, cab_comparison *c)
{
    const char *teacher, *student, *kind;
    json_object *array, *object;
    size_t count;
    CAB_TRY(cab_json_string(json, NULL, "teacher", &teacher));
    CAB_TRY(cab_json_string(json, NULL, "student", &student));
    CAB_TRY(cab_json_string(json, NULL, "kind", &kind));
    CAB_TRY(cab_json_int(json, NULL, "tokens", 1, INT64_MAX, &c->tokens));
    CAB_TRY(cab_json_int(json, NULL, "samples", 1, INT64_MAX, &c->samples));
    CAB_TRY(cab_strdup(&c->teacher, teacher));
    CAB_TRY(cab_strdup(&c->student, student));
    c->images = strcmp(kind, "images") == 0;
    CAB_TRY(read_layers(json, c));
    CAB_TRY(array_of(json, NULL, "maps", MAPS_MAX, &array, &count));
    CAB_TRY(CAB_NEW(&c->maps, count, "drawings"));
    for (size_t i = 0; i < count; i++) {
        CAB_TRY(object_at(json, array, "maps", i, &object));
        CAB_TRY(read_map(json, object, &c->maps[c->n_map++]));
    }
    return CAB_OK;
}

cab_status cab_comparison_load(const char *path, cab_comparison *out)
{
    cab_json json = {0};
    CAB_TRY(cab_json_load(path, FILE_MAX, &json));
    cab_status status = read_comparison(&json, out);
    cab_json_close(&json);
    return status;
}
