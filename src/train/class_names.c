/* class_names.c - names out of a configuration, a class map or a plain list. A class of a map is called by its name and its
 * words. */
#include "train/class_names.h"

#include "base/file.h"
#include "base/memory.h"
#include "train/class_match.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t FILE_MAX = (size_t)64 << 20;

void cab_class_names_free(cab_class_names *n)
{
    for (int i = 0; n->names != NULL && i < n->count; i++)
        cab_free(n->names[i]);
    cab_free(n->names);
    *n = (cab_class_names){0};
}

const char *cab_class_name(const cab_class_names *n, int32_t class, char *out)
{
    if (n->names[class] != NULL)
        return n->names[class];
    snprintf(out, 32, "class %" PRId32, class);
    return out;
}

static cab_status set_name(cab_class_names *n, int64_t class, const char *text)
{
    cab_free(n->names[class]);
    n->names[class] = NULL;
    return cab_strdup(&n->names[class], text);
}

/* ---- config.json -------------------------------------------------------------------------------------------------- */

/* transformers: {"0": "tench, Tinca tinca", ...} */
static cab_status read_id2label(const cab_json *json, json_object *labels, cab_class_names *n)
{
    json_object_object_foreach(labels, key, value)
    {
        char *end = NULL;
        long class = strtol(key, &end, 10);
        if (end == key || *end != '\0' || class < 0 || class >= n->count)
            return cab_fail(CAB_EFORMAT, "%s: \"id2label\" names class \"%.40s\"; expected 0 to %d", json->name, key,
                            n->count - 1);
        if (!json_object_is_type(value, json_type_string))
            return cab_fail(CAB_EFORMAT, "%s: \"id2label\"[\"%s\"] is no string", json->name, key);
        CAB_TRY(set_name(n, class, json_object_get_string(value)));
    }
    return CAB_OK;
}

/* timm: "label_names": ["n01440764", ...] and, by these names, "label_descriptions": {"n01440764": "tench", ...} */
static cab_status read_label_names(const cab_json *json, json_object *timm, cab_class_names *n)
{
    json_object *list = NULL, *texts = NULL, *text = NULL;
    CAB_TRY(cab_json_array(json, timm, "label_names", &list));
    if (json_object_array_length(list) != (size_t)n->count)
        return cab_fail(CAB_EFORMAT, "%s: \"label_names\" has %zu names; the model has %d classes", json->name,
                        json_object_array_length(list), n->count);
    json_object_object_get_ex(timm, "label_descriptions", &texts);
    for (int i = 0; i < n->count; i++) {
        json_object *name = json_object_array_get_idx(list, (size_t)i);
        if (!json_object_is_type(name, json_type_string))
            return cab_fail(CAB_EFORMAT, "%s: \"label_names\"[%d] is no string", json->name, i);
        if (json_object_is_type(texts, json_type_object) &&
            json_object_object_get_ex(texts, json_object_get_string(name), &text) &&
            json_object_is_type(text, json_type_string))
            name = text;
        CAB_TRY(set_name(n, i, json_object_get_string(name)));
    }
    return CAB_OK;
}

/* *found tells whether the configuration names classes. */
static cab_status read_config(const char *directory, cab_class_names *n, bool *found)
{
    cab_json config = {0};
    json_object *labels = NULL, *timm = NULL;
    char path[CAB_PATH_MAX];
    cab_status status;
    CAB_TRY(cab_path_join(path, directory, "config.json"));
    CAB_TRY(cab_json_load(path, FILE_MAX, &config));
    bool by_id =
        json_object_object_get_ex(config.root, "id2label", &labels) && json_object_is_type(labels, json_type_object);
    bool in_order = !by_id && json_object_object_get_ex(config.root, "pretrained_cfg", &timm) &&
                    json_object_object_get_ex(timm, "label_names", &labels) && labels != NULL;
    *found = by_id || in_order;
    status = by_id ? read_id2label(&config, labels, n) : in_order ? read_label_names(&config, timm, n) : CAB_OK;
    cab_json_close(&config);
    return status;
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

/* map: by label the model's class; NULL: the label itself. */
static cab_status take_classes(const cab_classes *classes, const int32_t *map, cab_class_names *n)
{
    char name[512];
    for (size_t i = 0; i < classes->count; i++) {
        const char *words = classes->words[i];
        if (words == NULL || strcmp(words, classes->names[i]) == 0)
            words = "";
        snprintf(name, sizeof name, "%s%s%s", classes->names[i], *words == '\0' ? "" : " ", words);
        CAB_TRY(set_name(n, map == NULL ? (int64_t)i : map[i], name));
    }
    return CAB_OK;
}

static cab_status read_map(const cab_model *model, const char *path, const char *text, size_t size, cab_class_names *n)
{
    cab_classes classes = {0};
    const int32_t *map = NULL;
    CAB_TRY(cab_classes_parse(text, size, path, &classes));
    cab_status status = cab_image_classes_for(&classes, model, &map);
    if (status == CAB_OK)
        status = take_classes(&classes, map, n);
    cab_classes_free(&classes);
    return status;
}

/* One name a line; the text is cut up. */
static cab_status read_list(const char *path, char *text, cab_class_names *n)
{
    int class = 0;
    for (char *line = text, *next = NULL; *line != '\0'; line = next, class ++) {
        size_t length = strcspn(line, "\n");
        next = line + length + (line[length] != '\0');
        line[length] = '\0';
        if (length > 0 && line[length - 1] == '\r')
            line[length - 1] = '\0';
        if (*line == '\0')
            return cab_fail(CAB_EFORMAT, "%s:%d: the line is empty; expected the name of a class", path, class + 1);
        if (class < n->count)
            CAB_TRY(set_name(n, class, line));
    }
    if (class != n->count)
        return cab_fail(CAB_EFORMAT, "%s: %d names of classes; the model has %d classes", path, class, n->count);
    return CAB_OK;
}

static cab_status read_file(const cab_model *model, const char *path, cab_class_names *n)
{
    char *text = NULL;
    size_t size = 0;
    CAB_TRY(cab_file_read_text(path, FILE_MAX, &text, &size));
    bool map = memchr(text, '\t', strcspn(text, "\n")) != NULL;
    cab_status status = map ? read_map(model, path, text, size, n) : read_list(path, text, n);
    cab_free(text);
    return status;
}

static cab_status read_own_map(const cab_model *model, cab_class_names *n, bool *found)
{
    cab_classes own = {0};
    CAB_TRY(cab_model_classes(model, &own));
    *found = own.count > 0;
    cab_status status = take_classes(&own, own.teacher, n);
    cab_classes_free(&own);
    return status;
}

static cab_status read_directory(const cab_model *model, cab_class_names *n)
{
    static const char *const files[] = {"classes.txt", "imagenet1k_wnids.txt"};
    bool found = false;
    char path[CAB_PATH_MAX];
    CAB_TRY(read_config(model->directory, n, &found));
    if (!found)
        CAB_TRY(read_own_map(model, n, &found));
    for (size_t i = 0; !found && i < sizeof files / sizeof *files; i++) {
        CAB_TRY(cab_path_join(path, model->directory, files[i]));
        found = cab_path_exists(path);
        if (found)
            CAB_TRY(read_file(model, path, n));
    }
    return CAB_OK;
}

cab_status cab_class_names_load(const cab_model *model, const char *file, cab_class_names *n)
{
    cab_status status = CAB_OK;
    *n = (cab_class_names){.count = model->config.n_classes};
    CAB_TRY(CAB_NEW(&n->names, (size_t)n->count, "names of classes"));
    if (model->directory != NULL)
        status = read_directory(model, n);
    if (status == CAB_OK && file != NULL)
        status = read_file(model, file, n);
    if (status != CAB_OK)
        cab_class_names_free(n);
    return status;
}
