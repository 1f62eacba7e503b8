/* pictures.h - small labelled pictures and models that look at them. */
#ifndef PICTURES_H
#define PICTURES_H

#include "data/image_set.h"
#include "models/tiny_vision.h"

enum { PICTURES = 11, PICTURE_CLASSES = 7, MODEL_CLASSES = 9 };

/* Classes "a" to "g" of 4, 1, 1, 2, 1, 1 and 1 pictures, distinct by their kind, below <test>/data. */
static inline const char *pictures_write(void **state)
{
    static const struct {
        const char *file, *class;
    } pictures[PICTURES] = {{"turned1.png", "a"},  {"turned2.png", "a"}, {"turned3.png", "a"},    {"turned4.png", "a"},
                            {"base.png", "b"},     {"base.jpg", "c"},    {"gray.png", "d"},       {"bilevel.png", "d"},
                            {"palette4.png", "e"}, {"cmyk.jpg", "f"},    {"progressive.jpg", "g"}};
    for (int i = 0; i < PICTURES; i++) {
        char folder[64], from[CAB_PATH_MAX];
        snprintf(folder, sizeof folder, "data/%s", pictures[i].class);
        const char *to = temp_path(state, folder);
        assert_ok(cab_directory_make(to));
        char path[CAB_PATH_MAX], name[32];
        snprintf(name, sizeof name, "%02d%s", i, strrchr(pictures[i].file, '.'));
        assert_ok(cab_path_join(path, to, name));
        assert_ok(cab_path_join(from, "tests/corpora/images", pictures[i].file));
        assert_ok(cab_file_copy(from, path));
    }
    return temp_path(state, "data");
}

static inline cab_image_set *pictures_open(const char *path, cab_on_error on_error)
{
    const cab_image_set_options options = {.on_error = on_error};
    cab_image_set *set = NULL;
    assert_ok(cab_image_set_open(&path, 1, &options, &set));
    return set;
}

/* <test>/<name>: a ViT, or a Vim, of MODEL_CLASSES classes. */
static inline void pictures_write_model(void **state, const char *name, bool vim)
{
    const char *const head = vim ? "head" : "classifier";
    tiny t = vim ? tiny_vim() : tiny_transformers(CAB_F32, false);
    char tensor[CAB_NAME_MAX], *directory = strdup(temp_path(state, name));
    assert_non_null(directory);
    assert_ok(cab_directory_make(directory));
    if (vim)
        tiny_configure(&t, "\"num_classes\": 5", "\"num_classes\": 9");
    snprintf(tensor, sizeof tensor, "%s.weight", head);
    tiny_find(&t, tensor)->shape[0] = MODEL_CLASSES;
    tiny_find(&t, tensor)->scale = 1;
    snprintf(tensor, sizeof tensor, "%s.bias", head);
    tiny_find(&t, tensor)->shape[0] = MODEL_CLASSES;
    tiny_write((void **)&directory, &t, 1);
    free(directory);
}

static inline cab_model *pictures_model(void **state, const char *name, bool vim)
{
    cab_model *model = NULL;
    pictures_write_model(state, name, vim);
    assert_ok(cab_model_load_on(test_device(), temp_path(state, name), CAB_PRECISION_FP32, &model));
    return model;
}

#endif
