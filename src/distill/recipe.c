/* recipe.c - recipes in memory: defaults, presets, overrides by dotted path, and every check that needs no file.
 *
 * A key is "seed" (top), "train.lr" (a group's) or "stages[1].lr". Order of precedence, weakest first: defaults, those of
 * the student's architecture, the method's preset, the keys of the file, overrides in the order in which they are given. Each
 * option knows whether it was set: defaults and presets fill in only what was not. A method that is set replaces what methods
 * set, whoever did it before: init.*, the stages, and the other keys of its preset. */
#include "distill/recipe.h"

#include "base/memory.h"
#include "data/utf8.h"
#include "distill/recipe_domain.h"
#include "distill/students.h"
#include "distill/term.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_MAX = 96, SENTENCE_MAX = 512 };

CAB_OPTION_TABLE(top_table, struct cab_recipe, CAB_RECIPE_TOP)
#define SECTION_TABLE(name, ROWS) CAB_OPTION_TABLE(name##_table, struct cab_recipe_##name, ROWS)
CAB_RECIPE_SECTIONS(SECTION_TABLE)
CAB_OPTION_TABLE(stage_table, cab_stage, CAB_RECIPE_STAGE)

cab_recipe_group cab_recipe_group_get(unsigned index)
{
#define SECTION_GROUP(name, ROWS) {#name, name##_table(), offsetof(struct cab_recipe, name)},
    const cab_recipe_group groups[CAB_RECIPE_GROUPS] = {{"", top_table(), 0},
                                                        CAB_RECIPE_SECTIONS(SECTION_GROUP){"stages", stage_table(), 0}};
    return groups[index];
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

cab_status cab_recipe_new(cab_recipe **out)
{
    cab_recipe *recipe;
    cab_status status;
    CAB_TRY(CAB_NEW(&recipe, 1, "a recipe"));
    for (unsigned i = 0; i < CAB_RECIPE_STAGES_GROUP; i++) {
        cab_recipe_group group = cab_recipe_group_get(i);
        CAB_GOTO(cab_options_init(group.table, (char *)recipe + group.offset));
    }
    *out = recipe;
    return CAB_OK;
done:
    cab_recipe_free(recipe);
    return status;
}

static void free_stages(cab_recipe *recipe)
{
    for (unsigned i = 0; i < recipe->stages_count; i++)
        cab_options_clear(stage_table(), &recipe->stages[i]);
    cab_free(recipe->stages);
    recipe->stages = NULL;
    recipe->stages_count = 0;
}

void cab_recipe_free(cab_recipe *recipe)
{
    if (!recipe)
        return;
    for (unsigned i = 0; i < CAB_RECIPE_STAGES_GROUP; i++) {
        cab_recipe_group group = cab_recipe_group_get(i);
        cab_options_clear(group.table, (char *)recipe + group.offset);
    }
    free_stages(recipe);
    cab_free(recipe);
}

cab_status cab_recipe_reset_stages(cab_recipe *recipe, unsigned count)
{
    free_stages(recipe);
    if (count > CAB_STAGES_MAX)
        return cab_fail(CAB_EARG, "stages: found %u, expected at most %d", count, CAB_STAGES_MAX);
    CAB_TRY(CAB_NEW(&recipe->stages, count, "stages"));
    recipe->stages_count = count;
    for (unsigned i = 0; i < count; i++)
        CAB_TRY(cab_options_init(stage_table(), &recipe->stages[i]));
    return CAB_OK;
}

/* ---- methods ---------------------------------------------------------------------------------------------------- */

static const cab_option *method_option(void)
{
    return cab_option_find(top_table(), "method");
}

const char *cab_recipe_method_name(const cab_recipe *recipe, char *out, size_t size)
{
    if (!cab_words_get(method_option()->words, (unsigned)recipe->method, out, size))
        snprintf(out, size, "?");
    return out;
}

cab_status cab_recipe_preset(const char *method, cab_recipe **out)
{
    cab_recipe *recipe;
    CAB_TRY(cab_recipe_new(&recipe));
    cab_status status = cab_recipe_set(recipe, "method", method);
    if (status != CAB_OK)
        cab_recipe_free(recipe);
    else
        *out = recipe;
    return status;
}

/* ---- overrides -------------------------------------------------------------------------------------------------- */

/* "train.lr"; stages as "stages[0].lr". */
static void key_name(const cab_recipe_group *group, const char *key, char *out)
{
    bool stage = strcmp(group->name, "stages") == 0;
    snprintf(out, KEY_MAX, "%s%s%s%s", group->name, stage ? "[0]" : "", group->name[0] ? "." : "", key);
}

/* Offers every key; `bare` compares the last part only, for keys put into the wrong group. */
static void offer_keys(cab_nearest *nearest, bool bare)
{
    for (unsigned g = 0; g < CAB_RECIPE_GROUPS; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        for (unsigned i = 0; i < group.table.count; i++) {
            char name[KEY_MAX];
            key_name(&group, group.table.rows[i].key, name);
            cab_nearest_offer(nearest, bare ? group.table.rows[i].key : name, name);
        }
    }
}

/* The keys of the group that `key` names; the groups where it names none. */
static void list_keys(const char *key, char *out, size_t size)
{
    unsigned chosen = CAB_RECIPE_GROUPS;
    for (unsigned g = 1; g < CAB_RECIPE_GROUPS; g++) {
        const char *name = cab_recipe_group_get(g).name;
        size_t length = strlen(name);
        if (strncmp(key, name, length) == 0 && (key[length] == '.' || key[length] == '[' || key[length] == '\0'))
            chosen = g;
    }
    size_t used = strlen(out);
    if (chosen == CAB_RECIPE_GROUPS) {
        snprintf(out + used, size - used,
                 "; groups are teacher, student, data, augment, init, bridge, train, eval, stages[N]");
        return;
    }
    cab_recipe_group group = cab_recipe_group_get(chosen);
    for (unsigned i = 0; i < group.table.count; i++) {
        snprintf(out + used, size - used, "%s%s", i ? ", " : "; its group has ", group.table.rows[i].key);
        used = strlen(out);
    }
}

void cab_recipe_unknown_key(const char *key, char *out, size_t size)
{
    char shown[KEY_MAX];
    const char *dot = strrchr(key, '.');
    snprintf(out, size, "unknown key \"%s\"", cab_printable(key, shown, sizeof shown));
    for (unsigned g = 1; g < CAB_RECIPE_GROUPS; g++) {
        if (strcmp(key, cab_recipe_group_get(g).name) == 0) {
            list_keys(key, out, size);
            return;
        }
    }
    cab_nearest nearest = cab_nearest_begin(key);
    offer_keys(&nearest, false);
    if (!nearest.best[0]) {
        nearest = cab_nearest_begin(dot ? dot + 1 : key);
        offer_keys(&nearest, true);
    }
    size_t used = strlen(out);
    if (nearest.best[0])
        snprintf(out + used, size - used, "; did you mean \"%s\"?", nearest.best);
    else
        list_keys(key, out, size);
}

/* The stage that "stages[N].key" names, and the key in it; *stage stays NULL when `key` has another form. */
static cab_status find_stage(cab_recipe *recipe, const char *key, cab_stage **stage, const char **rest)
{
    static const char prefix[] = "stages[";
    char *end;
    *stage = NULL;
    if (strncmp(key, prefix, sizeof prefix - 1) != 0 || !strchr("0123456789", key[sizeof prefix - 1]))
        return CAB_OK;
    unsigned long index = strtoul(key + sizeof prefix - 1, &end, 10);
    if (end[0] != ']' || end[1] != '.')
        return CAB_OK;
    if (index >= recipe->stages_count)
        return cab_fail(CAB_EARG, "%.40s: the recipe has %u stage%s, counted from 0", key, recipe->stages_count,
                        recipe->stages_count == 1 ? "" : "s");
    *stage = &recipe->stages[index];
    *rest = end + 2;
    return CAB_OK;
}

/* The option that a key outside of stages names, and where in a recipe the struct lies that holds it; NULL for none. */
static const cab_option *find_option(const char *key, size_t *offset)
{
    for (unsigned g = 0; g < CAB_RECIPE_STAGES_GROUP; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        size_t length = strlen(group.name);
        bool named = length > 0 && strncmp(key, group.name, length) == 0 && key[length] == '.';
        const cab_option *option = NULL;
        if (g == CAB_RECIPE_TOP_GROUP || named)
            option = cab_option_find(group.table, named ? key + length + 1 : key);
        if (option) {
            *offset = group.offset;
            return option;
        }
    }
    return NULL;
}

/* ---- defaults of architecture and method ------------------------------------------------------------------------- */

/* Any key but method and those that decide which student it is, which bring others along. The struct that holds it in *object. */
static cab_status find_key(cab_recipe *recipe, const char *key, const cab_option **option, void **object)
{
    char sentence[SENTENCE_MAX];
    const char *rest;
    cab_stage *stage;
    size_t offset = 0;
    CAB_TRY(find_stage(recipe, key, &stage, &rest));
    *option = stage ? cab_option_find(stage_table(), rest) : find_option(key, &offset);
    *object = stage ? (void *)stage : (char *)recipe + offset;
    if (*option)
        return CAB_OK;
    cab_recipe_unknown_key(key, sentence, sizeof sentence);
    return cab_fail(CAB_EARG, "%s", sentence);
}

static cab_status preset_key(cab_recipe *recipe, const char *key, const char *value)
{
    const cab_option *option;
    void *object;
    CAB_TRY(find_key(recipe, key, &option, &object));
    return cab_option_preset(option, object, key, value);
}

/* To its default, where nobody has set it. */
static cab_status reset_key(cab_recipe *recipe, const char *key)
{
    const cab_option *option;
    void *object;
    CAB_TRY(find_key(recipe, key, &option, &object));
    return cab_option_reset(option, object);
}

static bool of_stages(const char *setting)
{
    return strncmp(setting, "stages[", strlen("stages[")) == 0;
}

static void split(const char *setting, char key[KEY_MAX], const char **value)
{
    size_t length = strcspn(setting, "=");
    snprintf(key, KEY_MAX, "%.*s", (int)length, setting);
    *value = setting + length + 1;
}

/* As if nobody had set what methods set. */
static cab_status forget_preset(cab_recipe *recipe, const char *const *settings)
{
    char key[KEY_MAX];
    const char *value;
    const cab_option *option;
    void *object;
    recipe->stages_given = false;
    for (unsigned i = 0; i < init_table().count; i++)
        cab_option_forget(&init_table().rows[i], &recipe->init);
    for (; *settings; settings++) {
        if (of_stages(*settings))
            continue;
        split(*settings, key, &value);
        CAB_TRY(find_key(recipe, key, &option, &object));
        cab_option_forget(option, object);
    }
    return CAB_OK;
}

/* The method's settings where nobody has set anything else. */
static cab_status fill_in_method(cab_recipe *recipe)
{
    const cab_preset *preset = cab_recipe_method_preset(recipe, recipe->method);
    const char *const *settings = preset->settings;
    if (recipe->method == CAB_METHOD_CUSTOM)
        return CAB_OK;
    for (unsigned i = 0; i < init_table().count; i++)
        CAB_TRY(cab_option_reset(&init_table().rows[i], &recipe->init));
    if (!recipe->stages_given)
        CAB_TRY(cab_recipe_reset_stages(recipe, preset->stages));
    for (; *settings; settings++) {
        char key[KEY_MAX];
        const char *value;
        split(*settings, key, &value);
        if (!of_stages(key) || !recipe->stages_given)
            CAB_TRY(preset_key(recipe, key, value));
    }
    return CAB_OK;
}

cab_status cab_recipe_apply_method(cab_recipe *recipe, int method)
{
    recipe->method = method;
    if (method != CAB_METHOD_CUSTOM)
        CAB_TRY(forget_preset(recipe, cab_recipe_method_preset(recipe, method)->settings));
    return fill_in_method(recipe);
}

/* Where nobody has set them: what is read, by the architecture that was given, or where that does not say by the teacher, if that is
 * there; and the architecture. */
static cab_status settle_student(cab_recipe *recipe)
{
    const cab_student *row = cab_student_of(recipe);
    const cab_recipe_domain *domain = row->domain;
    size_t offset = 0;
    const cab_option *option = find_option("student.architecture", &offset);
    const bool open = !cab_option_given(option, (char *)recipe + offset) || cab_student_namesake(row) != NULL;
    cab_config sizes;
    if (open && recipe->teacher.path[0] != '\0' && cab_model_sizes(recipe->teacher.path, &sizes) == CAB_OK)
        domain = sizes.image_size > 0 ? &cab_recipe_images : &cab_recipe_text;
    CAB_TRY(preset_key(recipe, "student.reads", domain->name));
    return preset_key(recipe, "student.architecture", cab_student_for(cab_student_domain(recipe))->name);
}

static bool decides_student(const char *key)
{
    return strcmp(key, "student.architecture") == 0 || strcmp(key, "student.reads") == 0 ||
           strcmp(key, "teacher.path") == 0;
}

/* What nobody has set gets the defaults of this student in place of those of the one before, and what the method sets for it. */
static cab_status set_student(cab_recipe *recipe, const cab_option *option, void *object, const char *key,
                              const char *value)
{
    const cab_student *before = cab_student_of(recipe);
    CAB_TRY(cab_option_set(option, object, key, value));
    CAB_TRY(settle_student(recipe));
    const cab_student *now = cab_student_of(recipe);
    if (before == now)
        return CAB_OK;
    for (int i = 0; before->defaults[i].key; i++)
        CAB_TRY(reset_key(recipe, before->defaults[i].key));
    for (int i = 0; before->keys[i]; i++)
        CAB_TRY(reset_key(recipe, before->keys[i]));
    for (int i = 0; now->defaults[i].key; i++)
        CAB_TRY(preset_key(recipe, now->defaults[i].key, now->defaults[i].value));
    return fill_in_method(recipe);
}

cab_status cab_recipe_set(cab_recipe *recipe, const char *key, const char *value)
{
    const cab_option *option;
    void *object;
    if (strcmp(key, "method") == 0) {
        int64_t before = recipe->method;
        CAB_TRY(cab_option_set(method_option(), recipe, key, value));
        cab_status status = cab_recipe_apply_method(recipe, (int)recipe->method);
        if (status != CAB_OK)
            recipe->method = before;
        return status;
    }
    CAB_TRY(find_key(recipe, key, &option, &object));
    if (decides_student(key))
        return set_student(recipe, option, object, key, value);
    CAB_TRY(cab_option_set(option, object, key, value));
    recipe->stages_given = recipe->stages_given || of_stages(key);
    return CAB_OK;
}

/* ---- what keys mean --------------------------------------------------------------------------------------------- */

static bool has_key(const cab_student *student, const char *key)
{
    for (int i = 0; student->keys[i]; i++)
        if (strcmp(student->keys[i], key) == 0)
            return true;
    return false;
}

/* "in-place"; "in-place of images" where its namesake has no such key. */
static size_t put_name(const cab_student *student, const char *key, char *out, size_t size)
{
    const cab_student *other = cab_student_namesake(student);
    const bool alone = other != NULL && !has_key(other, key);
    const int n = snprintf(out, size, "%s%s%s", student->name, alone ? " of " : "", alone ? student->domain->name : "");
    return n < 0 || (size_t)n >= size ? 0 : (size_t)n;
}

/* Whether an earlier row stands for this one. */
static bool named_before(unsigned index, const char *key)
{
    for (unsigned i = 0; i < index; i++)
        if (cab_student_at(i) == cab_student_namesake(cab_student_at(index)) && has_key(cab_student_at(i), key))
            return true;
    return false;
}

void cab_recipe_help(const cab_recipe_group *group, const cab_option *option, char *out, size_t size)
{
    const cab_student *s;
    char key[KEY_MAX];
    size_t used = 0;
    snprintf(key, sizeof key, "%s%s%s", group->name, group->name[0] ? "." : "", option->key);
    snprintf(out, size, "%s", "");
    for (unsigned i = 0; (s = cab_student_at(i)) != NULL; i++)
        if (has_key(s, key) && !named_before(i, key)) {
            used += (size_t)snprintf(out + used, size - used, "%s", used > 0 ? ", " : "");
            used += put_name(s, key, out + used, size - used);
        }
    used += used > 0 ? (size_t)snprintf(out + used, size - used, ": ") : 0;
    snprintf(out + used, size - used, "%s", option->help);
    for (unsigned i = 0; (s = cab_student_at(i)) != NULL && strcmp(key, "student.architecture") == 0; i++) {
        used = strlen(out);
        if (cab_student_namesake(s) == NULL)
            snprintf(out + used, size - used, "; %s reads %s", s->name, s->domain->name);
        else if (s->domain == &cab_recipe_images)
            snprintf(out + used, size - used, "; %s reads what its teacher does", s->name);
    }
    for (unsigned i = 0; (s = cab_student_at(i)) != NULL; i++)
        for (const cab_student_default *d = s->defaults; d->key; d++) {
            used = strlen(out);
            if (strcmp(d->key, key) != 0)
                continue;
            used += (size_t)snprintf(out + used, size - used, ". ");
            used += put_name(s, key, out + used, size - used);
            snprintf(out + used, size - used, ": %s", d->value);
        }
}

/* ---- lengths ---------------------------------------------------------------------------------------------------- */

/* Tokens of so many passes, at least one; at most 2^62, beyond which no run ends. */
static uint64_t tokens_of(double passes, uint64_t pass_tokens)
{
    const double tokens = passes * (double)pass_tokens + 0.5, most = 0x1p62;
    return tokens < 1 ? 1 : tokens < most ? (uint64_t)tokens : (uint64_t)most;
}

/* Tokens over all stages; 0 when the recipe leaves it to them. */
static uint64_t total_tokens(const cab_recipe *recipe, uint64_t pass_tokens)
{
    return recipe->train.passes > 0 ? tokens_of(recipe->train.passes, pass_tokens) : (uint64_t)recipe->train.tokens;
}

/* Tokens of a stage that says how long it is; 0 for one that takes what the others leave. */
static cab_status stage_tokens(const cab_recipe *recipe, unsigned index, uint64_t per_step, uint64_t pass_tokens,
                               uint64_t *tokens)
{
    const cab_stage *stage = &recipe->stages[index];
    uint64_t total = total_tokens(recipe, pass_tokens);
    int given = (stage->share > 0) + (stage->tokens > 0) + (stage->steps > 0) + (stage->passes > 0);
    *tokens = 0;
    if (given > 1)
        return cab_fail(CAB_EARG, "stages[%u] \"%s\": give one of share, tokens, steps and passes, found %d", index,
                        stage->name, given);
    if (total == 0 && (given == 0 || stage->share > 0))
        return cab_fail(CAB_EARG,
                        "stages[%u] \"%s\" has no length: set train.tokens (--tokens) or train.passes (--passes), or "
                        "the stage's tokens, steps or passes",
                        index, stage->name);
    if (stage->steps > 0 && __builtin_mul_overflow((uint64_t)stage->steps, per_step, tokens))
        return cab_fail(CAB_EARG, "stages[%u] \"%s\": %" PRId64 " steps of %" PRIu64 " tokens are too many", index,
                        stage->name, stage->steps, per_step);
    if (stage->tokens > 0)
        *tokens = (uint64_t)stage->tokens;
    if (stage->passes > 0)
        *tokens = tokens_of(stage->passes, pass_tokens);
    if (stage->share > 0)
        *tokens = tokens_of(stage->share, total);
    return CAB_OK;
}

static uint64_t steps_of(uint64_t tokens, uint64_t per_step)
{
    uint64_t steps = tokens / per_step + (tokens % per_step >= per_step - tokens % per_step);
    return steps ? steps : 1;
}

cab_status cab_recipe_stage_steps(const cab_recipe *recipe, uint64_t seq_len, uint64_t pass_tokens, uint64_t *steps)
{
    uint64_t per_step, sum = 0, sum_steps = 0, total = total_tokens(recipe, pass_tokens);
    unsigned open = recipe->stages_count, count = recipe->stages_count;
    if (__builtin_mul_overflow((uint64_t)recipe->train.batch, seq_len, &per_step) || per_step == 0)
        return cab_fail(CAB_EARG, "train.batch %" PRId64 " of %" PRIu64 " tokens: expected at least one token",
                        recipe->train.batch, seq_len);
    for (unsigned i = 0; i < count; i++) {
        uint64_t tokens;
        CAB_TRY(stage_tokens(recipe, i, per_step, pass_tokens, &tokens));
        if (tokens == 0 && open < count)
            return cab_fail(CAB_EARG, "stages[%u] and stages[%u] both have no length: at most one takes the rest", open,
                            i);
        if (tokens == 0)
            open = i;
        if (__builtin_add_overflow(sum, tokens, &sum))
            return cab_fail(CAB_EARG, "stages: their lengths add up to more than 2^64 tokens");
        steps[i] = tokens ? steps_of(tokens, per_step) : 0;
        sum_steps += steps[i];
    }
    /* shares and steps are rounded: a step per stage is no contradiction */
    uint64_t slack = per_step > UINT64_MAX / (count + 1) ? UINT64_MAX : per_step * count;
    uint64_t apart = sum > total ? sum - total : total - sum;
    if (open == count && total > 0 && apart > slack)
        return cab_fail(CAB_EARG,
                        "stages: their lengths add up to %" PRIu64 " tokens, train.tokens is %" PRIu64
                        "; leave one stage without a length to take the rest",
                        sum, total);
    if (open < count && sum >= total)
        return cab_fail(CAB_EARG, "stages[%u] \"%s\": the other stages leave none of the %" PRIu64 " tokens", open,
                        recipe->stages[open].name, total);
    if (open < count) {
        uint64_t all = steps_of(total, per_step);
        steps[open] = all > sum_steps ? all - sum_steps : 1;
    }
    return CAB_OK;
}

/* ---- checks ----------------------------------------------------------------------------------------------------- */

/* A recipe is written as YAML, which holds no other bytes. */
static cab_status check_utf8(const char *key, const char *text)
{
    const size_t size = strlen(text), valid = size == 0 ? 0 : cab_utf8_valid(text, size);
    if (valid == size)
        return CAB_OK;
    return cab_fail(CAB_EARG, "%s: found \"%.200s\", which is not UTF-8: byte 0x%02X", key, text,
                    (unsigned)(unsigned char)text[valid]);
}

static cab_status check_files(const char *key, const cab_list *files)
{
    for (unsigned i = 0; i < files->count; i++)
        CAB_TRY(check_utf8(key, files->items[i]));
    for (unsigned i = 0; i < files->count; i++)
        if (!files->items[i][0])
            return cab_fail(CAB_EARG, "%s[%u]: the name is empty", key, i);
    return CAB_OK;
}

static cab_status check_names(const cab_recipe *recipe)
{
    CAB_TRY(check_utf8("out", recipe->out));
    CAB_TRY(check_utf8("teacher.path", recipe->teacher.path));
    CAB_TRY(check_utf8("teacher.cache", recipe->teacher.cache));
    CAB_TRY(check_utf8("student.path", recipe->student.path));
    CAB_TRY(check_utf8("data.cache", recipe->data.cache));
    CAB_TRY(check_files("eval.tasks", &recipe->eval.tasks));
    CAB_TRY(check_files("eval.data", &recipe->eval.data));
    CAB_TRY(check_files("data.train", &recipe->data.train));
    return check_files("data.eval", &recipe->data.eval);
}

static cab_status check_teacher(const cab_recipe *recipe)
{
    if (!recipe->teacher.path[0])
        return cab_fail(CAB_EARG, "teacher.path is missing: the Hugging Face directory of the teacher (--teacher)");
    return CAB_OK;
}

static cab_status check_train(const cab_recipe *recipe)
{
    if (!recipe->data.train.count)
        return cab_fail(CAB_EARG, "data.train is missing: at least one file to train on (--train)");
    return CAB_OK;
}

static cab_status check_eval(const cab_recipe *recipe)
{
    if (!recipe->data.eval.count)
        return cab_fail(CAB_EARG, "data.eval is missing: at least one file to validate on (--eval)");
    return CAB_OK;
}

static cab_status check_out(const cab_recipe *recipe)
{
    if (!recipe->out[0])
        return cab_fail(CAB_EARG, "out is missing: the directory of the run (--out)");
    return CAB_OK;
}

static cab_status check_device(const cab_recipe *recipe)
{
    if (strcmp(recipe->device, "cpu") != 0 && strcmp(recipe->device, "cuda") != 0 &&
        strncmp(recipe->device, "cuda:", 5) != 0)
        return cab_fail(CAB_EARG, "device: found \"%.40s\", expected cpu, cuda or cuda:N", recipe->device);
    if (recipe->student.path[0] && recipe->init.weights == CAB_INIT_TEACHER)
        return cab_fail(CAB_EARG, "student.path and init.weights: teacher exclude each other: the student has weights");
    return CAB_OK;
}

static cab_status check_sizes(const cab_recipe *recipe)
{
    const struct cab_recipe_student *student = &recipe->student;
    const struct cab_recipe_bridge *bridge = &recipe->bridge;
    if (student->d_model && student->n_head && student->d_model % student->n_head)
        return cab_fail(CAB_ESHAPE, "student.d_model %" PRId64 " is no multiple of student.n_head %" PRId64,
                        student->d_model, student->n_head);
    bool listed = bridge->layer_map == CAB_LAYERS_LIST;
    if (listed != (bridge->layers.count > 0))
        return cab_fail(CAB_EARG, listed ? "bridge.layer_map is list, but bridge.layers is empty"
                                         : "bridge.layers is given, but bridge.layer_map is not list");
    if (listed && student->n_layer && bridge->layers.count != student->n_layer)
        return cab_fail(CAB_ESHAPE, "bridge.layers has %u entries, student.n_layer is %" PRId64, bridge->layers.count,
                        student->n_layer);
    for (unsigned i = 0; i < bridge->layers.count; i++) {
        if (bridge->layers.items[i] < -1 || bridge->layers.items[i] >= 1024)
            return cab_fail(CAB_EARG, "bridge.layers[%u]: found %" PRId64 ", expected a teacher layer from 0, or -1", i,
                            bridge->layers.items[i]);
    }
    if (recipe->init.near_identity && (recipe->init.decay <= 0 || recipe->init.decay >= 1))
        return cab_fail(CAB_EARG, "init.decay: found %g, expected a number between 0 and 1", recipe->init.decay);
    return CAB_OK;
}

static cab_status check_training(const cab_recipe *recipe)
{
    const struct cab_recipe_train *train = &recipe->train;
    const struct {
        const char *key;
        double value;
        bool positive; /* else: below 1 */
    } rules[] = {
        {"train.eps", train->eps, true},      {"data.fraction", recipe->data.fraction, true},
        {"train.beta1", train->beta1, false}, {"train.beta2", train->beta2, false},
        {"train.ema", train->ema, false},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (rules[i].positive ? rules[i].value <= 0 : rules[i].value >= 1)
            return cab_fail(CAB_EARG, "%s: found %g, expected %s", rules[i].key, rules[i].value,
                            rules[i].positive ? "more than 0" : "less than 1");
    }
    if (train->tokens && train->passes > 0)
        return cab_fail(CAB_EARG, "train.tokens and train.passes exclude each other");
    if (train->micro_batch && (train->micro_batch > train->batch || train->batch % train->micro_batch))
        return cab_fail(CAB_EARG, "train.batch %" PRId64 " is no multiple of train.micro_batch %" PRId64, train->batch,
                        train->micro_batch);
    return CAB_OK;
}

/* A weight at the stage's end is -1 (the same) or at least 0. */
static cab_status check_weight(unsigned index, const cab_stage *stage, cab_term_id term)
{
    const double end = cab_stage_weight(stage, term).end;
    if (end < 0 && end != -1)
        return cab_fail(CAB_EARG, "stages[%u].%s_end: found %g, expected 0 or more, or -1", index, cab_term_name(term),
                        end);
    return CAB_OK;
}

/* Lengths can be compared only in one unit; the run does so once it knows the teacher and the data. */
static cab_status check_lengths(const cab_recipe *recipe)
{
    enum { PASS = 1 << 20 };
    const uint64_t length = cab_recipe_length(recipe), seq_len = length > 0 ? length : 1;
    uint64_t steps[CAB_STAGES_MAX];
    bool by_steps = false, by_tokens = recipe->train.tokens > 0, by_passes = recipe->train.passes > 0;
    for (unsigned i = 0; i < recipe->stages_count; i++) {
        by_steps = by_steps || recipe->stages[i].steps > 0;
        by_tokens = by_tokens || recipe->stages[i].tokens > 0;
        by_passes = by_passes || recipe->stages[i].passes > 0;
    }
    if ((by_passes && (by_steps || by_tokens)) || (by_steps && length == 0))
        return CAB_OK;
    return cab_recipe_stage_steps(recipe, seq_len, (uint64_t)recipe->train.batch * seq_len * PASS, steps);
}

static cab_status check_stages(const cab_recipe *recipe)
{
    if (!recipe->stages_count)
        return cab_fail(CAB_EARG, "stages: none; name a method, or list at least one stage with a loss weight");
    for (unsigned i = 0; i < recipe->stages_count; i++) {
        const cab_stage *stage = &recipe->stages[i];
        char names[SENTENCE_MAX];
        bool used = false;
        for (int t = 0; t < CAB_TERM_COUNT; t++) {
            CAB_TRY(check_weight(i, stage, (cab_term_id)t));
            used = used || cab_stage_uses(stage, (cab_term_id)t);
        }
        if (!used)
            return cab_fail(CAB_EARG, "stages[%u] \"%s\": no loss term; give %s a weight", i, stage->name,
                            cab_term_names(names, sizeof names));
    }
    return check_lengths(recipe);
}

/* Keys of another student. */
static cab_status check_student(const cab_recipe *recipe, const cab_student *other)
{
    const cab_student *student = cab_student_of(recipe);
    for (int i = 0; other != student && other->keys[i]; i++) {
        size_t offset = 0;
        if (has_key(student, other->keys[i]))
            continue;
        const cab_option *option = find_option(other->keys[i], &offset);
        char name[64];
        put_name(other, other->keys[i], name, sizeof name);
        if (option && !cab_option_at_default(option, (const char *)recipe + offset))
            return cab_fail(CAB_EARG, "%s is of %s, the student is %s%s%s", other->keys[i], name, student->name,
                            cab_student_namesake(student) ? " of " : "",
                            cab_student_namesake(student) ? student->domain->name : "");
    }
    return CAB_OK;
}

/* A rate of its own for what is the teacher's, in a student that has nothing that is. */
static cab_status check_rates(const cab_recipe *recipe)
{
    for (unsigned i = 0; i < recipe->stages_count && cab_student_of(recipe)->fresh == NULL; i++)
        if (recipe->stages[i].reused_rate != 1)
            return cab_fail(CAB_EARG,
                            "stages[%u].reused_rate is of students that keep parts of their teacher, %s does not", i,
                            cab_student_of(recipe)->name);
    return CAB_OK;
}

static cab_status check_students(const cab_recipe *recipe)
{
    const cab_student *student = cab_student_of(recipe);
    if (student->domain != cab_student_domain(recipe))
        return cab_fail(CAB_EARG, "student.reads is %s, student.architecture %s reads %s",
                        cab_student_domain(recipe)->name, student->name, student->domain->name);
    CAB_TRY(check_rates(recipe));
    for (unsigned i = 0; cab_student_at(i); i++)
        CAB_TRY(check_student(recipe, cab_student_at(i)));
    return CAB_OK;
}

static cab_status check_domain(const cab_recipe *recipe)
{
    return cab_recipe_domain_of(recipe)->check(recipe);
}

static cab_status (*const checks[])(const cab_recipe *recipe) = {
    check_names, check_teacher,  check_train,    check_eval,   check_out,   check_device,
    check_sizes, check_training, check_students, check_domain, check_stages};
enum { CHECKS = sizeof checks / sizeof *checks };

cab_status cab_recipe_validate(const cab_recipe *recipe)
{
    for (size_t i = 0; i < CHECKS; i++)
        CAB_TRY(checks[i](recipe));
    return CAB_OK;
}

cab_status cab_recipe_validate_all(const cab_recipe *recipe, cab_recipe_mistake_sink sink, void *user)
{
    cab_status first = CAB_OK;
    for (size_t i = 0; i < CHECKS; i++) {
        const cab_status status = checks[i](recipe);
        if (status != CAB_OK)
            sink(user, cab_error_text());
        first = first == CAB_OK ? status : first;
    }
    return first;
}
