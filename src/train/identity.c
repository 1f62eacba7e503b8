/* identity.c - comparing recipes key by key, by the tables of recipe.h. */
#include "train/identity.h"

#include "base/file.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_MAX = 128, VALUE_SHOWN = 200 };

typedef enum key_kind {
    RESULT,  /* changes the student: must be the same */
    FREE,    /* does not */
    DEVICE,  /* of "cuda:1", the number does not */
    PRESENT, /* whether there is one does */
    PATH     /* to be resolved */
} key_kind;

static key_kind kind_of(const char *key)
{
    static const struct {
        const char *key;
        key_kind kind;
    } special[] = {{"out", FREE},
                   {"threads", FREE},
                   {"device", DEVICE},
                   {"teacher.path", PATH},
                   {"teacher.cache", PRESENT},
                   {"student.path", PATH},
                   {"data.train", PATH},
                   {"data.eval", PATH},
                   {"data.classes", PATH},
                   {"data.cache", FREE},
                   {"data.image_cache", FREE},
                   {"train.recompute", FREE},
                   {"train.memory", FREE},
                   {"train.eval_every", FREE},
                   {"train.eval_tokens", FREE},
                   {"train.checkpoint_every", FREE},
                   {"train.log_every", FREE},
                   {"train.shard", FREE},
                   {"train.timeout", FREE},
                   {"eval.tasks", FREE},
                   {"eval.data", FREE},
                   {"eval.items", FREE}};
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (strcmp(special[i].key, key) == 0)
            return special[i].kind;
    return RESULT;
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

static bool same_path(const char *a, const char *b)
{
    char *real_a = realpath(a, NULL), *real_b = realpath(b, NULL);
    const bool same = strcmp(real_a != NULL ? real_a : a, real_b != NULL ? real_b : b) == 0;
    free(real_a);
    free(real_b);
    return same;
}

static bool same_value(key_kind kind, const char *a, const char *b)
{
    switch (kind) {
    case FREE:
        return true;
    case PATH:
        return same_path(a, b);
    case PRESENT:
        return (a[0] == '\0') == (b[0] == '\0');
    case DEVICE:
        return strcspn(a, ":") == strcspn(b, ":") && strncmp(a, b, strcspn(a, ":")) == 0;
    default:
        return strcmp(a, b) == 0;
    }
}

static cab_status compare_option(const char *file, const char *key, const cab_option *option, const void *then,
                                 const void *now)
{
    const key_kind kind = kind_of(key);
    const unsigned a_count = cab_option_count(option, then), b_count = cab_option_count(option, now);
    if (kind != FREE && a_count != b_count)
        return cab_fail(CAB_EARG, "%s: %s had %u items there and has %u now", file, key, a_count, b_count);
    for (unsigned i = 0; kind != FREE && i < a_count; i++) {
        char *a = NULL, *b = NULL, a_shown[VALUE_SHOWN], b_shown[VALUE_SHOWN];
        cab_status status = cab_option_format(option, then, i, &a);
        if (status == CAB_OK)
            status = cab_option_format(option, now, i, &b);
        if (status == CAB_OK && !same_value(kind, a, b))
            status = cab_fail(CAB_EARG, "%s: %s was \"%s\" there and is \"%s\" now", file, key,
                              cab_printable(a, a_shown, sizeof a_shown), cab_printable(b, b_shown, sizeof b_shown));
        cab_free(a);
        cab_free(b);
        if (status != CAB_OK)
            return status;
    }
    return CAB_OK;
}

static cab_status compare_table(const char *file, const char *prefix, cab_option_table table, const void *then,
                                const void *now, bool paths)
{
    for (unsigned i = 0; i < table.count; i++) {
        char key[KEY_MAX];
        snprintf(key, sizeof key, "%s%s", prefix, table.rows[i].key);
        if (paths || kind_of(key) != PATH)
            CAB_TRY(compare_option(file, key, &table.rows[i], then, now));
    }
    return CAB_OK;
}

cab_status cab_identity_compare(const char *file, const cab_recipe *then, const cab_recipe *now, bool paths)
{
    char prefix[KEY_MAX / 2];
    for (unsigned g = 0; g < CAB_RECIPE_STAGES_GROUP; g++) {
        const cab_recipe_group group = cab_recipe_group_get(g);
        snprintf(prefix, sizeof prefix, "%s%s", group.name, group.name[0] != '\0' ? "." : "");
        CAB_TRY(compare_table(file, prefix, group.table, (const char *)then + group.offset,
                              (const char *)now + group.offset, paths));
    }
    if (then->stages_count != now->stages_count)
        return cab_fail(CAB_EARG, "%s: there were %u stages there and are %u now", file, then->stages_count,
                        now->stages_count);
    for (unsigned i = 0; i < now->stages_count; i++) {
        snprintf(prefix, sizeof prefix, "stages[%u].", i);
        CAB_TRY(compare_table(file, prefix, cab_recipe_group_get(CAB_RECIPE_STAGES_GROUP).table, &then->stages[i],
                              &now->stages[i], paths));
    }
    return CAB_OK;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* Links stay as they are: what a file is called says what kind it is. */
static cab_status make_absolute(const char *path, char out[CAB_PATH_MAX])
{
    char here[CAB_PATH_MAX];
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    if (path[0] == '/' || path[0] == '\0' || getcwd(here, sizeof here) == NULL)
        return cab_path_join(out, "", path);
    return cab_path_join(out, here, path);
}

/* A task without a slash is one of cab's own. */
static bool is_name(const char *key, const char *path)
{
    return strcmp(key, "eval.tasks") == 0 && strchr(path, '/') == NULL;
}

/* Keys that lead somewhere, though the run may be gone on with elsewhere. */
static bool leads_somewhere(const char *key)
{
    static const char *const keys[] = {"out", "teacher.cache", "data.cache", "eval.tasks", "eval.data"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i], key) == 0)
            return true;
    return kind_of(key) == PATH;
}

static cab_status make_option_absolute(const cab_option *option, void *object, const char *key)
{
    const unsigned count = cab_option_count(option, object);
    const bool list = option->kind == CAB_OPTION_LIST;
    char **paths = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&paths, count + 1, "the paths of a recipe"));
    for (unsigned i = 0; i < count; i++) {
        char absolute[CAB_PATH_MAX];
        CAB_GOTO(cab_option_format(option, object, i, &paths[i]));
        CAB_GOTO(is_name(key, paths[i]) ? cab_path_join(absolute, "", paths[i]) : make_absolute(paths[i], absolute));
        cab_free(paths[i]);
        CAB_GOTO(cab_strdup(&paths[i], absolute));
    }
    if (list)
        cab_option_empty(option, object);
    status = CAB_OK;
    for (unsigned i = 0; status == CAB_OK && i < count; i++)
        if (paths[i][0] != '\0')
            status =
                list ? cab_option_append(option, object, key, paths[i]) : cab_option_set(option, object, key, paths[i]);
done:
    for (unsigned i = 0; i < count; i++)
        cab_free(paths[i]);
    cab_free(paths);
    return status;
}

static cab_status make_recipe_absolute(cab_recipe *recipe)
{
    for (unsigned g = 0; g < CAB_RECIPE_STAGES_GROUP; g++) {
        const cab_recipe_group group = cab_recipe_group_get(g);
        for (unsigned i = 0; i < group.table.count; i++) {
            char key[KEY_MAX];
            const cab_option *option = &group.table.rows[i];
            snprintf(key, sizeof key, "%s%s%s", group.name, group.name[0] != '\0' ? "." : "", option->key);
            if (leads_somewhere(key))
                CAB_TRY(make_option_absolute(option, (char *)recipe + group.offset, key));
        }
    }
    return CAB_OK;
}

cab_status cab_identity_save(const cab_recipe *recipe, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    cab_recipe *copy = NULL;
    CAB_TRY(cab_recipe_print(recipe, &text, &size));
    cab_status status = cab_recipe_parse(path, text, size, &copy);
    cab_free(text);
    if (status == CAB_OK)
        status = make_recipe_absolute(copy);
    if (status == CAB_OK)
        status = cab_recipe_save(copy, path);
    cab_recipe_free(copy);
    return status;
}
