/* json.h - json-c behind checks that name the file and the key. Accepts bare NaN and Infinity. */
#ifndef CAB_BASE_JSON_H
#define CAB_BASE_JSON_H

#include "base/error.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A parsed document and the name used for it in error texts. */
typedef struct cab_json {
    json_object *root;
    char *name;
} cab_json;

/* Parse errors give the file and the offset. The root must be an object. Files over max_bytes are refused. */
cab_status cab_json_load(const char *path, size_t max_bytes, cab_json *out);
cab_status cab_json_parse(const char *text, size_t size, const char *name, cab_json *out);
void cab_json_close(cab_json *json);

/* Writes `object` as indented JSON, atomically. Keys keep their order. */
cab_status cab_json_save(json_object *object, const char *path);

/* A string for JSON of any bytes, a path for one: what is no UTF-8 becomes U+FFFD, byte by byte. NULL without memory. */
json_object *cab_json_text(const char *text);

/* Typed getters: the key must exist in `object` and have the type; the error names file, key, what was found. `object`
 * NULL means the root. The _or forms give `fallback` when the key is absent or null, and still check the type. */
cab_status cab_json_int(const cab_json *json, json_object *object, const char *key, int64_t low, int64_t high,
                        int64_t *out);
cab_status cab_json_int_or(const cab_json *json, json_object *object, const char *key, int64_t low, int64_t high,
                           int64_t fallback, int64_t *out);
cab_status cab_json_number(const cab_json *json, json_object *object, const char *key, double *out);
cab_status cab_json_number_or(const cab_json *json, json_object *object, const char *key, double fallback, double *out);
cab_status cab_json_bool_or(const cab_json *json, json_object *object, const char *key, bool fallback, bool *out);
/* *out points into the document. */
cab_status cab_json_string(const cab_json *json, json_object *object, const char *key, const char **out);
cab_status cab_json_string_or(const cab_json *json, json_object *object, const char *key, const char *fallback,
                              const char **out);
cab_status cab_json_object(const cab_json *json, json_object *object, const char *key, json_object **out);
cab_status cab_json_array(const cab_json *json, json_object *object, const char *key, json_object **out);

#endif
