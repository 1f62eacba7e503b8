#include "base/settings.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cab_setting *find(const cab_setting *const *tables, const char *key)
{
    for (int i = 0; tables[i] != NULL; i++)
        for (const cab_setting *s = tables[i]; s->key != NULL; s++)
            if (strcmp(s->key, key) == 0)
                return s;
    return NULL;
}

static bool equals(json_object *value, const char *only)
{
    if (json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double)) {
        char *end = NULL;
        const double number = strtod(only, &end);
        return *end == '\0' && end != only && json_object_get_double(value) == number;
    }
    return strcmp(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
                  only) == 0;
}

cab_status cab_settings_check(const cab_json *json, json_object *object, const cab_setting *const *tables, bool strict)
{
    json_object_object_foreach(object == NULL ? json->root : object, key, value)
    {
        const cab_setting *s = find(tables, key);
        if (value == NULL || (s == NULL && !strict) || (s != NULL && (s->only == NULL || equals(value, s->only))))
            continue;
        if (s == NULL)
            return cab_fail(CAB_EUNSUPPORTED, "%s: \"%.64s\" is %.80s; there is no such setting here", json->name, key,
                            json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"%s\" is %.80s; only %s is supported", json->name, key,
                        json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), s->only);
    }
    return CAB_OK;
}

void cab_settings_warn(const cab_json *json, const cab_setting *const *tables)
{
    enum { NAMED = 6 };
    char names[NAMED * 72] = "", more[32] = "";
    size_t used = 0;
    int count = 0;
    json_object_object_foreach(json->root, key, value)
    {
        if (value == NULL || key[0] == '_' || find(tables, key) != NULL)
            continue;
        if (count < NAMED)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s\"%.64s\"", count > 0 ? ", " : "", key);
        count++;
    }
    if (count > NAMED)
        snprintf(more, sizeof more, " and %d more", count - NAMED);
    if (count > 0)
        cab_log_warn("%s: settings that are not known here and have no effect: %s%s", json->name, names, more);
}
