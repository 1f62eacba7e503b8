/* runs.h - small distillation runs on the bundled teacher: a few dozen thousand parameters, a few kilobytes of text, one
 * thread. */
#ifndef RUNS_H
#define RUNS_H

#include "base/memory.h"
#include "distill/recipe.h"
#include "temp.h"
#include "train/log.h"

static const char *const runs_teacher = "examples/tales/teacher";

/* The first `size` bytes of a file as temporary file `name`, cut at the end of a document. */
static inline const char *runs_text(void **state, const char *from, size_t size, const char *name)
{
    static const char separator[] = "<|endoftext|>\n";
    char *text = NULL;
    size_t whole = 0;
    assert_ok(cab_file_read(from, 1 << 26, &text, &whole));
    assert_true(size < whole);
    while (size > sizeof separator &&
           memcmp(text + size - (sizeof separator - 1), separator, sizeof separator - 1) != 0)
        size--;
    const char *path = temp_path(state, name);
    assert_ok(cab_file_write(path, text, size));
    cab_free(text);
    return path;
}

/* Applies NULL-terminated "key=value" lines. */
static inline void runs_set(cab_recipe *recipe, const char *const *settings)
{
    for (; *settings != NULL; settings++) {
        char key[64];
        const char *equals = strchr(*settings, '=');
        assert_non_null(equals);
        snprintf(key, sizeof key, "%.*s", (int)(equals - *settings), *settings);
        assert_ok(cab_recipe_set(recipe, key, equals + 1));
    }
}

/* A recipe of the method into <test>/<out>: 8 steps of 4 x 16 tokens, evaluated at the end only. */
static inline cab_recipe *runs_recipe(void **state, const char *method, const char *out, const char *const *settings)
{
    static const char *const common[] = {"student.n_layer=2",
                                         "student.d_model=32",
                                         "student.n_head=4",
                                         "student.d_state=8",
                                         "student.d_mlp=48",
                                         "data.seq_len=16",
                                         "train.batch=4",
                                         "train.tokens=512",
                                         "train.eval_every=1000",
                                         "train.lr=3e-3",
                                         "bridge.hidden=24",
                                         "precision=fp32",
                                         "threads=1",
                                         NULL};
    cab_recipe *recipe = NULL;
    assert_ok(cab_recipe_preset(method, &recipe));
    runs_set(recipe, common);
    assert_ok(cab_recipe_set(recipe, "teacher.path", runs_teacher));
    assert_ok(cab_recipe_set(recipe, "data.train", runs_text(state, "examples/tales/train.txt", 6000, "train.txt")));
    assert_ok(cab_recipe_set(recipe, "data.eval", runs_text(state, "examples/tales/val.txt", 1500, "val.txt")));
    assert_ok(cab_recipe_set(recipe, "data.cache", temp_path(state, "cache")));
    assert_ok(cab_recipe_set(recipe, "out", temp_path(state, out)));
    assert_ok(cab_recipe_set(recipe, "device", test_device()));
    if (settings != NULL)
        runs_set(recipe, settings);
    return recipe;
}

/* The same bytes in both. */
static inline void runs_expect_same_file(const char *a, const char *b)
{
    char *text[2] = {NULL, NULL};
    size_t size[2] = {0, 0};
    assert_ok(cab_file_read(a, 1 << 28, &text[0], &size[0]));
    assert_ok(cab_file_read(b, 1 << 28, &text[1], &size[1]));
    if (size[0] != size[1] || memcmp(text[0], text[1], size[0]) != 0)
        fail_msg("%s and %s differ", a, b);
    cab_free(text[0]);
    cab_free(text[1]);
}

/* Runs to the end and frees the recipe. */
static inline void runs_distill(cab_recipe *recipe, cab_result *result)
{
    assert_ok(cab_distill(recipe, NULL, result));
    cab_recipe_free(recipe);
}

/* Both runs ended with the same student, bit for bit. */
static inline void runs_expect_same_student(void **state, const char *a, const char *b)
{
    char first[CAB_PATH_MAX], second[CAB_PATH_MAX];
    assert_ok(cab_path_join(first, temp_path(state, a), "student/model.safetensors"));
    assert_ok(cab_path_join(second, temp_path(state, b), "student/model.safetensors"));
    runs_expect_same_file(first, second);
}

#endif
