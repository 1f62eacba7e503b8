/* task_template.c - "Question: {goal}" with the fields of an object. */
#include "data/task.h"

#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 256 };

cab_status cab_template_check(const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == at[1] && (*at == '{' || *at == '}')) {
            at++;
            continue;
        }
        const size_t length = *at == '{' ? strcspn(at + 1, "{}") : 0;
        if (*at == '}' || (*at == '{' && (at[1 + length] != '}' || length == 0 || length >= PATH_BYTES)))
            return cab_fail(CAB_EARG, "found \"%.40s\", expected a field's name in braces, or a brace written twice",
                            at);
        at += *at == '{' ? length + 1 : 0;
    }
    return CAB_OK;
}

/* What `path` leads to; a list on the way is gone through at `index`, and *list becomes its length. NULL: nothing. */
static json_object *follow(json_object *object, const char *path, size_t length, int index, size_t *list)
{
    char key[PATH_BYTES];
    *list = 0;
    while (object != NULL) {
        if (json_object_is_type(object, json_type_array) && *list == 0) {
            *list = json_object_array_length(object);
            object = index >= 0 && (size_t)index < *list ? json_object_array_get_idx(object, (size_t)index) : NULL;
            continue;
        }
        if (length == 0)
            break;
        const char *dot = memchr(path, '.', length);
        const size_t n = dot != NULL ? (size_t)(dot - path) : length;
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        if (!json_object_is_type(object, json_type_object) || !json_object_object_get_ex(object, key, &object))
            return NULL;
        path += dot != NULL ? n + 1 : n;
        length -= dot != NULL ? n + 1 : n;
    }
    return object;
}

static cab_status fill_field(const char *path, size_t length, json_object *object, int index, cab_bytes *out)
{
    size_t list;
    json_object *value = follow(object, path, length, index, &list);
    if (value == NULL && list > 0 && (index < 0 || (size_t)index >= list))
        return cab_fail(CAB_EFORMAT, "\"%.*s\" is a list of %zu, expected %s", (int)length, path, list,
                        index < 0 ? "one text" : "as many as of the others");
    if (value == NULL)
        return cab_fail(CAB_EFORMAT, "there is no \"%.*s\"", (int)length, path);
    if (!json_object_is_type(value, json_type_string) && !json_object_is_type(value, json_type_int) &&
        !json_object_is_type(value, json_type_double))
        return cab_fail(CAB_EFORMAT, "\"%.*s\" is %s, expected a text or a number", (int)length, path,
                        json_type_to_name(json_object_get_type(value)));
    const char *text = json_object_get_string(value);
    return cab_bytes_append(out, text, strlen(text));
}

cab_status cab_template_fill(const char *text, json_object *object, int index, cab_bytes *out)
{
    for (const char *at = text; *at != '\0';) {
        size_t length = strcspn(at, "{}");
        CAB_TRY(cab_bytes_append(out, at, length));
        at += length;
        if (*at != '\0' && at[1] == *at) {
            CAB_TRY(cab_bytes_append(out, at, 1));
            at += 2;
        } else if (*at != '\0') {
            length = strcspn(at, "}");
            CAB_TRY(fill_field(at + 1, length - 1, object, index, out));
            at += length + 1;
        }
    }
    return CAB_OK;
}

size_t cab_template_length(const char *text, json_object *object)
{
    size_t longest = 0, list;
    for (const char *at = strchr(text, '{'); at != NULL; at = strchr(at, '{')) {
        if (at[1] == '{') {
            at += 2;
            continue;
        }
        const size_t length = strcspn(at, "}");
        follow(object, at + 1, length - 1, 0, &list);
        longest = list > longest ? list : longest;
        at += length;
    }
    return longest;
}
