/* compare_json.c - a comparison as compare.json has it (docs/formats.md). */
#include "train/compare.h"

#include <stdio.h>

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
    return (add(object, "all", all) & add(object, "layers", array)) && complete;
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
        complete = append(array, json_object_new_string(map->tokens[i]));
    return add(object, "tokens", array) && complete;
}

static bool add_maps(json_object *object, const cab_comparison *c)
{
    json_object *array = json_object_new_array();
    bool complete = array != NULL;
    for (int64_t i = 0; complete && i < c->n_map; i++) {
        const cab_heat_map *from = &c->maps[i];
        json_object *map = json_object_new_object();
        complete = append(array, map) && add(map, "name", json_object_new_string(from->name)) &&
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
    if (object != NULL && add(object, "teacher", json_object_new_string(c->teacher)) &&
        add(object, "student", json_object_new_string(c->student)) &&
        add(object, "kind", json_object_new_string(c->images ? "images" : "text")) &&
        add(object, "tokens", json_object_new_int64(c->tokens)) &&
        add(object, "samples", json_object_new_int64(c->samples)) && add_layers(object, c) && add_maps(object, c)) {
        *out = object;
        return CAB_OK;
    }
    json_object_put(object);
    return cab_fail(CAB_ENOMEM, "not enough memory for a comparison as JSON");
}
