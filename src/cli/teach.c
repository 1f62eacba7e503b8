/* teach.c - cab teach: what a recipe's teacher says of its training data, computed alone. */
#include "train/teach.h"

#include "base/file.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/find.h"
#include "distill/recipe.h"

#include <inttypes.h>

#define TEACH_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                         \
    TEXT(cache, 'o', "FILE", "", "the cache; without it the recipe's teacher.cache")                                   \
    TEXT(teacher, 't', "DIR", "", "directory of the teacher")                                                          \
    TEXT(device, 0, "NAME", "", "cpu or cuda")                                                                         \
    LIST(set, 's', "KEY=VALUE", "any key of the recipe")                                                               \
    BOOL(quiet, 'q', "no messages but warnings")

struct teach_options {
    CAB_FIELDS(TEACH_OPTIONS)
};
CAB_FLAG_TABLE(teach_table, struct teach_options, TEACH_OPTIONS)

static cab_status prepare(const struct teach_options *o, const char *given, cab_recipe **recipe)
{
    const struct {
        const char *key, *value;
    } flags[] = {{"teacher.cache", o->cache}, {"teacher.path", o->teacher}, {"device", o->device}};
    char path[CAB_PATH_MAX];
    CAB_TRY(cli_find_recipe(given, path));
    CAB_TRY(cab_recipe_load(path, recipe));
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (flags[i].value[0] != '\0')
            CAB_TRY(cab_recipe_set(*recipe, flags[i].key, flags[i].value));
    for (unsigned i = 0; i < o->set.count; i++)
        CAB_TRY(cli_recipe_set(*recipe, o->set.items[i]));
    if ((*recipe)->teacher.cache[0] == '\0')
        return cab_fail(CAB_EARG, "where to? give --cache=FILE, or teacher.cache in the recipe");
    return cab_recipe_validate(*recipe);
}

static cab_status run_teach(const void *given, const cab_list *operands)
{
    const struct teach_options *o = given;
    char bytes[CAB_FORMAT_MAX], time[CAB_FORMAT_MAX];
    cab_recipe *recipe = NULL;
    cab_teach_result r;
    cab_status status;
    cab_log_quiet(o->quiet);
    CAB_GOTO(prepare(o, operands->items[0], &recipe));
    CAB_GOTO(cab_teach_recipe(recipe, &r));
    cab_log_info("%s: %" PRIu64 " windows, %" PRIu64 " tokens, %s; %s", recipe->teacher.cache, r.windows, r.tokens,
                 cab_format_bytes((double)r.bytes, bytes), cab_format_seconds(r.seconds, time));
done:
    cab_recipe_free(recipe);
    return status;
}

static const cli_example examples[] = {
    {"cab teach books-llama --cache books-llama.teach --set device=cuda", "the teacher once, on a big machine"},
    {"cab distill books-llama --set teacher.cache=books-llama.teach", "students anywhere"},
    {0}};

const cli_command cli_teach = {
    .name = "teach",
    .summary = "compute what a teacher says of the training data, once",
    .synopsis = "RECIPE",
    .description =
        "Runs the recipe's teacher over its training data and keeps, of every token, the likeliest words and "
        "their log-probabilities in a file. cab distill with teacher.cache reads it in the teacher's place; "
        "without the file it makes it first. Killed, it goes on where it was.",
    .examples = examples,
    .options = teach_table,
    .options_size = sizeof(struct teach_options),
    .operands_min = 1,
    .operands_max = 1,
    .run = run_teach,
};
