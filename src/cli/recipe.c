/* recipe.c - cab recipe: checks recipes, and prints the keys they may have. */
#include "distill/recipe.h"

#include "base/file.h"
#include "base/memory.h"
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

#define RECIPE_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                        \
    LIST(set, 's', "KEY=VALUE", "override a key before the check")                                                     \
    BOOL(markdown, 0, "with keys: as docs/recipes.md has them")

struct recipe_options {
    CAB_FIELDS(RECIPE_OPTIONS)
};
CAB_FLAG_TABLE(recipe_table, struct recipe_options, RECIPE_OPTIONS)

enum { TEXT_BYTES = 512 };

/* "top-level", "train", "stages[N]" as headings. */
static const char *group_title(const cab_recipe_group *group)
{
    return !group->name[0] ? "Top level" : strcmp(group->name, "stages") == 0 ? "stages[N]" : group->name;
}

/* A bar ends a cell of a table. */
static void print_cell(const char *text)
{
    for (; *text; text++)
        printf(*text == '|' ? "\\%c" : "%c", *text);
}

static void print_key(const cab_recipe_group *group, const cab_option *option, bool markdown)
{
    char value[TEXT_BYTES], expected[TEXT_BYTES], help[TEXT_BYTES];
    cab_option_default(option, value, sizeof value);
    cab_option_expected(option, expected, sizeof expected);
    cab_recipe_help(group, option, help, sizeof help);
    if (markdown) {
        printf("| `%s` | ", option->key);
        print_cell(expected);
        printf(" | `");
        print_cell(value);
        printf("` | ");
        print_cell(help);
        printf(" |\n");
        return;
    }
    const char *dot = group->name[0] ? "." : "";
    char key[TEXT_BYTES];
    snprintf(key, sizeof key, "%s%s%s", group->name[0] ? group_title(group) : "", dot, option->key);
    printf("%-26s %s\n%27s%s; default %s\n", key, help, "", expected, value);
}

static void print_keys(bool markdown)
{
    for (unsigned g = 0; g < CAB_RECIPE_GROUPS; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        if (markdown)
            printf("\n### %s\n\n| key | takes | default | meaning |\n|---|---|---|---|\n", group_title(&group));
        for (unsigned i = 0; i < group.table.count; i++)
            print_key(&group, &group.table.rows[i], markdown);
    }
}

/* KEYS section of the manual page. */
static void manual(FILE *out)
{
    char value[TEXT_BYTES], expected[TEXT_BYTES], help[TEXT_BYTES];
    fputs(".SH KEYS\nA recipe is YAML: the keys below, in groups.\n", out);
    for (unsigned g = 0; g < CAB_RECIPE_GROUPS; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        fprintf(out, ".SS %s\n", group_title(&group));
        for (unsigned i = 0; i < group.table.count; i++) {
            const cab_option *option = &group.table.rows[i];
            cab_option_default(option, value, sizeof value);
            cab_option_expected(option, expected, sizeof expected);
            cab_recipe_help(&group, option, help, sizeof help);
            fprintf(out, ".TP\n.B %s\n\\&%s.\nTakes %s; default %s.\n", option->key, help, expected, value);
        }
    }
}

static cab_status apply_sets(cab_recipe *recipe, const cab_list *sets)
{
    for (unsigned i = 0; i < sets->count; i++)
        CAB_TRY(cli_recipe_set(recipe, sets->items[i]));
    return CAB_OK;
}

/* A recipe may be for another machine: what is not on this one is no error. */
static void print_absent_file(const char *key, const char *path)
{
    if (path[0] && !cab_path_exists(path))
        printf("  not here: %s %s\n", key, path);
}

static void print_absent(const cab_recipe *recipe)
{
    print_absent_file("teacher.path", recipe->teacher.path);
    print_absent_file("student.path", recipe->student.path);
    for (unsigned i = 0; i < recipe->data.train.count; i++)
        print_absent_file("data.train", recipe->data.train.items[i]);
    for (unsigned i = 0; i < recipe->data.eval.count; i++)
        print_absent_file("data.eval", recipe->data.eval.items[i]);
    print_absent_file("data.classes", recipe->data.classes);
}

static cab_status validate(const char *path, const cab_list *sets)
{
    cab_recipe *recipe = NULL;
    CAB_TRY(cab_recipe_load(path, &recipe));
    cab_status status = apply_sets(recipe, sets);
    if (status == CAB_OK) {
        status = cab_recipe_validate(recipe);
        if (status != CAB_OK) {
            char text[TEXT_BYTES];
            snprintf(text, sizeof text, "%s", cab_error_text());
            cab_fail(status, "%s: %s", path, text);
        }
    }
    if (status == CAB_OK) {
        printf("%s: valid\n", path);
        print_absent(recipe);
    }
    cab_recipe_free(recipe);
    return status;
}

static cab_status run(const void *given, const cab_list *operands)
{
    const struct recipe_options *options = given;
    const char *action = operands->items[0];
    char shown[64];
    if (strcmp(action, "keys") == 0) {
        print_keys(options->markdown);
        return CAB_OK;
    }
    if (strcmp(action, "validate") != 0)
        return cab_fail(CAB_EARG, "no action \"%s\"; expected validate or keys",
                        cab_printable(action, shown, sizeof shown));
    if (operands->count < 2)
        return cab_fail(CAB_EARG, "validate: name at least one recipe file");
    for (unsigned i = 1; i < operands->count; i++)
        CAB_TRY(validate(operands->items[i], &options->set));
    return CAB_OK;
}

static const cli_example examples[] = {
    {"cab recipe validate recipes/*.yaml", "check recipes without running them"},
    {"cab recipe validate my.yaml --set train.lr=1e-4", "check one with an override"},
    {"cab recipe keys", "every key, what it takes and what it means"},
    {0}};

const cli_command cli_recipe = {
    .name = "recipe",
    .summary = "check recipes, list their keys",
    .synopsis = "validate FILE... | keys",
    .description =
        "validate reads recipes and checks everything that can be known before training: unknown keys, types, "
        "ranges, stage lengths. An error names the file, the line and the key. Teacher and data that are not on this "
        "machine are named.\n\nkeys lists "
        "every key of a recipe.",
    .examples = examples,
    .options = recipe_table,
    .options_size = sizeof(struct recipe_options),
    .operands_min = 1,
    .operands_max = 10000,
    .run = run,
    .more_manual = manual,
};
