/* class_match.c - by the names in the model's own class map, or by number. */
#include "train/class_match.h"

#include "base/file.h"
#include "base/memory.h"

static const char *name_of(const cab_model *model)
{
    return model->directory == NULL ? model->arch->name : model->directory;
}

cab_status cab_model_classes(const cab_model *model, cab_classes *own)
{
    char path[CAB_PATH_MAX];
    *own = (cab_classes){0};
    if (model->directory == NULL)
        return CAB_OK;
    CAB_TRY(cab_path_join(path, model->directory, "classes.tsv"));
    if (!cab_path_exists(path))
        return CAB_OK;
    CAB_TRY(cab_classes_load(path, own));
    for (size_t i = 0; i < own->count; i++) {
        if (own->teacher[i] < model->config.n_classes)
            continue;
        cab_status status = cab_fail(CAB_EFORMAT, "%s: \"%s\" is class %d; expected one of the model's 0 to %d", path,
                                     own->names[i], (int)own->teacher[i], model->config.n_classes - 1);
        cab_classes_free(own);
        return status;
    }
    return CAB_OK;
}

cab_status cab_image_classes_for(const cab_classes *classes, const cab_model *model, const int32_t **map)
{
    const char *name = name_of(model);
    const int64_t width = model->config.n_classes;
    bool inside = true, same = true;
    for (size_t i = 0; i < classes->count; i++) {
        inside = inside && classes->teacher[i] >= 0 && classes->teacher[i] < width;
        same = same && classes->teacher[i] == (int32_t)i;
    }
    *map = NULL;
    if ((int64_t)classes->count > width)
        return cab_fail(CAB_EFORMAT, "%s: tells %lld classes apart, the data has %zu", name, (long long)width,
                        classes->count);
    if ((int64_t)classes->count == width) {
        if (inside && !same)
            return cab_fail(CAB_EFORMAT,
                            "%s: the class map renumbers all of its %lld classes; bring the lines of the map into the "
                            "model's order",
                            name, (long long)width);
        return CAB_OK;
    }
    for (size_t i = 0; i < classes->count; i++)
        if (classes->teacher[i] < 0)
            return cab_fail(CAB_EFORMAT,
                            "%s: tells %lld classes apart, the data has %zu; a class map (--classes) must say which "
                            "of them these are",
                            name, (long long)width, classes->count);
    *map = classes->teacher;
    return cab_classes_check_teacher(classes, width);
}

static cab_status match_names(const cab_classes *classes, const cab_classes *own, const cab_model *model, int32_t *map)
{
    for (size_t i = 0; i < classes->count; i++) {
        int32_t label = cab_classes_find(own, classes->names[i]);
        if (label < 0)
            return cab_fail(CAB_EFORMAT, "%s: the class \"%s\" of the data is not in its classes.tsv", name_of(model),
                            classes->names[i]);
        map[i] = own->teacher[label];
    }
    return CAB_OK;
}

cab_status cab_image_classes_match(const cab_classes *classes, const cab_model *model, int32_t **map)
{
    cab_classes own = {0};
    const int32_t *numbers = NULL;
    cab_status status;
    *map = NULL;
    CAB_TRY(cab_model_classes(model, &own));
    CAB_GOTO(CAB_NEW(map, classes->count, "a class map"));
    if (own.count > 0)
        CAB_GOTO(match_names(classes, &own, model, *map));
    else
        CAB_GOTO(cab_image_classes_for(classes, model, &numbers));
    for (size_t i = 0; own.count == 0 && i < classes->count; i++)
        (*map)[i] = numbers == NULL ? (int32_t)i : numbers[i];
done:
    cab_classes_free(&own);
    if (status != CAB_OK) {
        cab_free(*map);
        *map = NULL;
    }
    return status;
}
