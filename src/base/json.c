/* json.c - json-c in its strict mode, which still takes the bare NaN and Infinity that Python's json writes. */
#include "base/json.h"

#include "base/file.h"
#include "base/memory.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <utf8proc.h>

enum { DEPTH_MAX = 32 };

cab_status cab_json_load(const char *path, size_t max_bytes, cab_json *out)
{
    char *text = NULL;
    size_t size = 0;
    *out = (cab_json){0};
    CAB_TRY(cab_file_read_text(path, max_bytes, &text, &size));
    cab_status status = cab_json_parse(text, size, path, out);
    cab_free(text);
    return status;
}

/* Ends well only with one complete value that is an object; anything else is told with its place. */
static cab_status check_parsed(struct json_tokener *tokener, json_object *root, size_t size, const char *name)
{
    enum json_tokener_error error = json_tokener_get_error(tokener);
    size_t offset = json_tokener_get_parse_end(tokener);
    if (error == json_tokener_continue)
        return cab_fail(CAB_EFORMAT, "%s: JSON ends unfinished after %zu bytes", name, size);
    if (error != json_tokener_success)
        return cab_fail(CAB_EFORMAT, "%s: not valid JSON at byte %zu: %s", name, offset,
                        json_tokener_error_desc(error));
    if (!json_object_is_type(root, json_type_object))
        return cab_fail(CAB_EFORMAT, "%s: holds a JSON %s, expected an object", name,
                        json_type_to_name(json_object_get_type(root)));
    return CAB_OK;
}

cab_status cab_json_parse(const char *text, size_t size, const char *name, cab_json *out)
{
    cab_status status = CAB_OK;
    json_object *root = NULL;
    *out = (cab_json){0};
    if (size >= INT_MAX)
        return cab_fail(CAB_EFORMAT, "%s: %zu bytes of JSON, at most %d are read", name, size, INT_MAX - 1);
    struct json_tokener *tokener = json_tokener_new_ex(DEPTH_MAX);
    if (tokener == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: parsing %s", name);
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    root = json_tokener_parse_ex(tokener, text, (int)size);
    CAB_GOTO(check_parsed(tokener, root, size, name));
    CAB_GOTO(cab_strdup(&out->name, name));
    out->root = root;
    root = NULL;
done:
    json_object_put(root);
    json_tokener_free(tokener);
    return status;
}

void cab_json_close(cab_json *json)
{
    json_object_put(json->root);
    cab_free(json->name);
    *json = (cab_json){0};
}

json_object *cab_json_text(const char *text)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    const size_t size = strlen(text);
    size_t used = 0;
    char *valid = NULL;
    if (CAB_NEW(&valid, 3 * size + 1, "a text of JSON") != CAB_OK)
        return NULL;
    for (size_t i = 0; i < size;) {
        utf8proc_int32_t code;
        const utf8proc_ssize_t n =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(size - i), &code);
        const bool whole = n > 0 && code >= 0;
        memcpy(valid + used, whole ? text + i : replacement, whole ? (size_t)n : 3);
        used += whole ? (size_t)n : 3;
        i += whole ? (size_t)n : 1;
    }
    json_object *object = json_object_new_string_len(valid, (int)used);
    cab_free(valid);
    return object;
}

cab_status cab_json_save(json_object *object, const char *path)
{
    size_t length = 0;
    cab_writer writer;
    const char *text = json_object_to_json_string_length(
        object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
    if (text == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: writing %s", path);
    CAB_TRY(cab_writer_open(&writer, path));
    cab_status status = cab_writer_write(&writer, text, length);
    if (status == CAB_OK)
        status = cab_writer_write(&writer, "\n", 1);
    if (status == CAB_OK)
        status = cab_writer_commit(&writer);
    cab_writer_abort(&writer);
    return status;
}

/* *value is NULL when the key is absent or null. */
static void find(const cab_json *json, json_object *object, const char *key, json_object **value)
{
    *value = NULL;
    json_object_object_get_ex(object == NULL ? json->root : object, key, value);
}

static cab_status wrong_type(const cab_json *json, const char *key, json_object *value, const char *expected)
{
    return cab_fail(CAB_EFORMAT, "%s: \"%s\" is %.80s (%s), expected %s", json->name, key,
                    json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN),
                    json_type_to_name(json_object_get_type(value)), expected);
}

static cab_status require(const cab_json *json, json_object *object, const char *key, const char *expected,
                          json_object **value)
{
    find(json, object, key, value);
    if (*value == NULL)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" is missing, expected %s", json->name, key, expected);
    return CAB_OK;
}

static cab_status get_int(const cab_json *json, const char *key, json_object *value, int64_t low, int64_t high,
                          int64_t *out)
{
    if (!json_object_is_type(value, json_type_int))
        return wrong_type(json, key, value, "an integer");
    int64_t number = json_object_get_int64(value); /* saturates */
    if (number < low || number > high)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" is %" PRId64 ", expected %" PRId64 " to %" PRId64, json->name, key,
                        number, low, high);
    *out = number;
    return CAB_OK;
}

cab_status cab_json_int(const cab_json *json, json_object *object, const char *key, int64_t low, int64_t high,
                        int64_t *out)
{
    json_object *value = NULL;
    CAB_TRY(require(json, object, key, "an integer", &value));
    return get_int(json, key, value, low, high, out);
}

cab_status cab_json_int_or(const cab_json *json, json_object *object, const char *key, int64_t low, int64_t high,
                           int64_t fallback, int64_t *out)
{
    json_object *value = NULL;
    find(json, object, key, &value);
    if (value != NULL)
        return get_int(json, key, value, low, high, out);
    *out = fallback;
    return CAB_OK;
}

static cab_status get_number(const cab_json *json, const char *key, json_object *value, double *out)
{
    if (!json_object_is_type(value, json_type_int) && !json_object_is_type(value, json_type_double))
        return wrong_type(json, key, value, "a number");
    *out = json_object_get_double(value);
    return CAB_OK;
}

cab_status cab_json_number(const cab_json *json, json_object *object, const char *key, double *out)
{
    json_object *value = NULL;
    CAB_TRY(require(json, object, key, "a number", &value));
    return get_number(json, key, value, out);
}

cab_status cab_json_number_or(const cab_json *json, json_object *object, const char *key, double fallback, double *out)
{
    json_object *value = NULL;
    find(json, object, key, &value);
    if (value != NULL)
        return get_number(json, key, value, out);
    *out = fallback;
    return CAB_OK;
}

cab_status cab_json_bool_or(const cab_json *json, json_object *object, const char *key, bool fallback, bool *out)
{
    json_object *value = NULL;
    find(json, object, key, &value);
    if (value != NULL && !json_object_is_type(value, json_type_boolean))
        return wrong_type(json, key, value, "true or false");
    *out = value == NULL ? fallback : json_object_get_boolean(value) != 0;
    return CAB_OK;
}

static cab_status get_string(const cab_json *json, const char *key, json_object *value, const char **out)
{
    if (!json_object_is_type(value, json_type_string))
        return wrong_type(json, key, value, "a string");
    *out = json_object_get_string(value);
    return CAB_OK;
}

cab_status cab_json_string(const cab_json *json, json_object *object, const char *key, const char **out)
{
    json_object *value = NULL;
    CAB_TRY(require(json, object, key, "a string", &value));
    return get_string(json, key, value, out);
}

cab_status cab_json_string_or(const cab_json *json, json_object *object, const char *key, const char *fallback,
                              const char **out)
{
    json_object *value = NULL;
    find(json, object, key, &value);
    if (value != NULL)
        return get_string(json, key, value, out);
    *out = fallback;
    return CAB_OK;
}

cab_status cab_json_object(const cab_json *json, json_object *object, const char *key, json_object **out)
{
    json_object *value = NULL;
    CAB_TRY(require(json, object, key, "an object", &value));
    if (!json_object_is_type(value, json_type_object))
        return wrong_type(json, key, value, "an object");
    *out = value;
    return CAB_OK;
}

cab_status cab_json_array(const cab_json *json, json_object *object, const char *key, json_object **out)
{
    json_object *value = NULL;
    CAB_TRY(require(json, object, key, "an array", &value));
    if (!json_object_is_type(value, json_type_array))
        return wrong_type(json, key, value, "an array");
    *out = value;
    return CAB_OK;
}
