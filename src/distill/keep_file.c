/* keep_file.c - kept_attention.json, written and read back. */
#include "base/json.h"
#include "base/memory.h"
#include "distill/keep.h"

#include <math.h>
#include <string.h>

enum { FILE_MAX = 1 << 24, UNITS_MAX = 1024 };

static json_object *row_of(const float *cost, const int *units, int n)
{
    json_object *row = json_object_new_array();
    for (int i = 0; i < n; i++)
        json_object_array_add(row,
                              cost != NULL ? json_object_new_double((double)cost[i]) : json_object_new_int(units[i]));
    return row;
}

cab_status cab_kept_save(const cab_kept *k, const char *path)
{
    const int rows = k->layers ? 1 : k->n_layer, units = k->layers ? k->n_layer : k->n_head;
    json_object *json = json_object_new_object(), *cost = json_object_new_array(), *kept = json_object_new_array();
    json_object_object_add(json, "unit", json_object_new_string(k->layers ? "layers" : "heads"));
    for (int row = 0; row < rows; row++) {
        if (k->cost != NULL)
            json_object_array_add(cost, row_of(k->cost + row * units, NULL, units));
        json_object_array_add(kept, row_of(NULL, k->units + row * k->count, k->count));
    }
    json_object_object_add(json, "by", json_object_new_string(cab_kept_by(k)));
    json_object_object_add(json, "cost", cost);
    json_object_object_add(json, "kept", kept);
    const cab_status status = cab_json_save(json, path);
    json_object_put(json);
    return status;
}

const char *cab_kept_by(const cab_kept *k)
{
    return k->by == CAB_KEEP_BY_KL ? "kl" : "error";
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

/* A list of lists of one length, of 1 to UNITS_MAX rows and columns. */
static cab_status measure(const cab_json *json, const char *key, json_object **list, int *rows, int *columns)
{
    CAB_TRY(cab_json_array(json, NULL, key, list));
    const size_t n = json_object_array_length(*list);
    bool good = n <= UNITS_MAX;
    *rows = good ? (int)n : 0;
    *columns = 0;
    for (int i = 0; good && i < *rows; i++) {
        json_object *row = json_object_array_get_idx(*list, (size_t)i);
        const size_t length = json_object_is_type(row, json_type_array) ? json_object_array_length(row) : 0;
        good = length > 0 && length <= UNITS_MAX && (i == 0 || (int)length == *columns);
        *columns = (int)length;
    }
    return good ? CAB_OK
                : cab_fail(CAB_EFORMAT, "%s: \"%s\" is no list of at most %d lists of one length", json->name, key,
                           UNITS_MAX);
}

static json_object *entry(json_object *list, int row, int column)
{
    return json_object_array_get_idx(json_object_array_get_idx(list, (size_t)row), (size_t)column);
}

static cab_status read_kept(const cab_json *json, json_object *list, int units, int n, cab_kept *k)
{
    CAB_TRY(CAB_NEW(&k->units, (size_t)n, "kept attention"));
    for (int i = 0; i < n; i++) {
        json_object *item = entry(list, i / k->count, i % k->count);
        const int64_t unit = json_object_is_type(item, json_type_int) ? json_object_get_int64(item) : -1;
        if (unit < 0 || unit >= units)
            return cab_fail(CAB_EFORMAT, "%s: kept[%d][%d] is %.40s, expected a number below %d", json->name,
                            i / k->count, i % k->count, json_object_to_json_string(item), units);
        k->units[i] = (int)unit;
    }
    return CAB_OK;
}

static cab_status read_costs(const cab_json *json, json_object *list, int columns, int n, cab_kept *k)
{
    CAB_TRY(CAB_NEW(&k->cost, (size_t)n, "costs"));
    for (int i = 0; i < n; i++) {
        json_object *item = entry(list, i / columns, i % columns);
        const bool number = json_object_is_type(item, json_type_double) || json_object_is_type(item, json_type_int);
        k->cost[i] = number ? (float)json_object_get_double(item) : NAN;
        if (!isfinite(k->cost[i]))
            return cab_fail(CAB_EFORMAT, "%s: cost[%d][%d] is %.40s, expected a number", json->name, i / columns,
                            i % columns, json_object_to_json_string(item));
    }
    return CAB_OK;
}

static cab_status read_all(const cab_json *json, cab_kept *k)
{
    json_object *cost = NULL, *kept = NULL;
    const char *unit = NULL, *by = NULL;
    int rows, columns, kept_rows;
    CAB_TRY(cab_json_string(json, NULL, "unit", &unit));
    CAB_TRY(cab_json_string_or(json, NULL, "by", "kl", &by)); /* of files that do not say */
    CAB_TRY(measure(json, "cost", &cost, &rows, &columns));
    CAB_TRY(measure(json, "kept", &kept, &kept_rows, &k->count));
    k->layers = strcmp(unit, "layers") == 0;
    if (!k->layers && strcmp(unit, "heads") != 0)
        return cab_fail(CAB_EFORMAT, "%s: \"unit\" is \"%.40s\", expected heads or layers", json->name, unit);
    k->by = strcmp(by, "kl") == 0 ? CAB_KEEP_BY_KL : CAB_KEEP_BY_ERROR;
    if (k->by == CAB_KEEP_BY_ERROR && strcmp(by, "error") != 0)
        return cab_fail(CAB_EFORMAT, "%s: \"by\" is \"%.40s\", expected error or kl", json->name, by);
    if (rows == 0)
        return CAB_OK; /* named, not ranked */
    if (kept_rows != rows || (k->layers && rows != 1))
        return cab_fail(CAB_EFORMAT, "%s: \"cost\" has %d rows, \"kept\" %d", json->name, rows, kept_rows);
    k->n_layer = k->layers ? columns : rows;
    k->n_head = k->layers ? 1 : columns;
    CAB_TRY(read_kept(json, kept, columns, rows * k->count, k));
    return read_costs(json, cost, columns, rows * columns, k);
}

cab_status cab_kept_load(const char *path, cab_kept *k)
{
    cab_json json;
    *k = (cab_kept){0};
    CAB_TRY(cab_json_load(path, FILE_MAX, &json));
    const cab_status status = read_all(&json, k);
    cab_json_close(&json);
    if (status != CAB_OK)
        cab_kept_close(k);
    return status;
}
