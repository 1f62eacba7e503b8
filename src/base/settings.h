/* settings.h - what a configuration from outside may say: a setting that changes the result is obeyed or refused by name. */
#ifndef CAB_BASE_SETTINGS_H
#define CAB_BASE_SETTINGS_H

#include "base/json.h"

/* One key of a configuration. A table of them ends with a key of NULL. */
typedef struct cab_setting {
    const char *key;
    const char
        *only; /* the one value that is computed with, as JSON; NULL: any, it is read elsewhere or changes no result */
} cab_setting;

/* Refuses, by name, a key of `object` (NULL: the root) with another value than its table allows: CAB_EUNSUPPORTED. An absent key
 * and null are the default, which is computed with. strict: a key of no table is refused too. */
cab_status cab_settings_check(const cab_json *json, json_object *object, const cab_setting *const *tables, bool strict);

/* Names in one warning the keys of the root that are in no table; keys that begin with '_' are notes. */
void cab_settings_warn(const cab_json *json, const cab_setting *const *tables);

#endif
