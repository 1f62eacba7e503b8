/* recipe.c - cab recipe: finds recipes, checks them, and prints the keys they may have. */
#include "distill/recipe.h"

#include "base/file.h"
#include "base/memory.h"
#include "cli/command.h"
#include "cli/find.h"
#include "data/data_paths.h"

#include <stdio.h>
#include <string.h>

#define RECIPE_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                        \
    LIST(set, 's', "KEY=VALUE", "override a key before the check")                                                     \
    BOOL(quiet, 'q', "with list and keys: the names alone")                                                            \
    BOOL(markdown, 0, "with keys: as docs/recipes.md has them")

struct recipe_options {
    CAB_FIELDS(RECIPE_OPTIONS)
};
CAB_FLAG_TABLE(recipe_table, struct recipe_options, RECIPE_OPTIONS)

enum { TEXT_BYTES = 512, RECIPE_MAX = 256 * 1024, NAME_COLUMN = 22 };

/* ---- keys ----------------------------------------------------------------------------------------------------------- */

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

static void print_key(const cab_recipe_group *group, const cab_option *option, const struct recipe_options *options)
{
    char value[TEXT_BYTES], expected[TEXT_BYTES], help[TEXT_BYTES];
    cab_option_default(option, value, sizeof value);
    cab_option_expected(option, expected, sizeof expected);
    cab_recipe_help(group, option, help, sizeof help);
    if (options->markdown) {
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
    if (options->quiet)
        printf("%s\n", key);
    else
        printf("%-26s %s\n%27s%s; default %s\n", key, help, "", expected, value);
}

static void print_keys(const struct recipe_options *options)
{
    for (unsigned g = 0; g < CAB_RECIPE_GROUPS; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        if (options->markdown)
            printf("\n### %s\n\n| key | takes | default | meaning |\n|---|---|---|---|\n", group_title(&group));
        for (unsigned i = 0; i < group.table.count; i++)
            print_key(&group, &group.table.rows[i], options);
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
            fprintf(out, ".TP\n.B ");
            cli_put_roff(out, option->key);
            fprintf(out, "\n\\&");
            cli_put_roff(out, help);
            fprintf(out, ".\nTakes ");
            cli_put_roff(out, expected);
            fprintf(out, "; default ");
            cli_put_roff(out, value);
            fprintf(out, ".\n");
        }
    }
}

/* ---- found by name -------------------------------------------------------------------------------------------------- */

static cab_status read_text(const char *path, char **text, size_t *size)
{
    return cab_file_read(path, RECIPE_MAX, text, size);
}

/* The first sentence of the comment that a file begins with, "" without one. */
static void first_sentence(const char *text, char *out, size_t size)
{
    size_t used = 0;
    for (; *text == '#' && used + 1 < size; text += strcspn(text, "\n"), text += *text == '\n') {
        const char *line = text + 1 + (text[1] == ' ');
        const size_t length = strcspn(line, "\n");
        const char *end = strstr(line, ". ");
        if (length == 0 || text[1] == '\n')
            break;
        const bool ends = end != NULL && end < line + length;
        used += (size_t)snprintf(out + used, size - used, "%s%.*s", used > 0 ? " " : "",
                                 ends ? (int)(end + 1 - line) : (int)length, line);
        if (ends)
            break;
    }
}

/* "tales-gpt2  The demo: a GPT-2 of ...", and where it lies. */
static cab_status print_name(void *user, const char *name, const char *path)
{
    const struct recipe_options *options = user;
    const int column = cli_second_column(stdout, NAME_COLUMN);
    char *text = NULL, words[TEXT_BYTES] = "", shown[TEXT_BYTES];
    size_t size = 0;
    if (options->quiet) {
        printf("%s\n", name);
        return CAB_OK;
    }
    CAB_TRY(read_text(path, &text, &size));
    first_sentence(text, words, sizeof words);
    cab_free(text);
    cli_print_row(stdout, name, cab_printable(words, shown, sizeof shown), column);
    printf("%*s%s\n", column, "", path);
    return CAB_OK;
}

static cab_status show(const char *name)
{
    char path[CAB_PATH_MAX], *text = NULL;
    size_t size = 0;
    CAB_TRY(cli_find_recipe(name, path));
    CAB_TRY(read_text(path, &text, &size));
    fwrite(text, 1, size, stdout);
    cab_free(text);
    return CAB_OK;
}

/* A copy to be changed: without the comments at its head, which tell what the original reproduces. */
static cab_status begin(const char *name)
{
    char path[CAB_PATH_MAX], *text = NULL;
    size_t size = 0;
    CAB_TRY(cli_find_recipe(name, path));
    CAB_TRY(read_text(path, &text, &size));
    const char *rest = text;
    while (*rest == '#' || *rest == '\n')
        rest += strcspn(rest, "\n") + (rest[strcspn(rest, "\n")] == '\n');
    printf("# From the recipe %s of cab %s. Yours to set: teacher.path, data.train, data.eval, out. Then:\n"
           "#   cab recipe validate THIS-FILE\n"
           "#   cab distill THIS-FILE --dry-run\n\n%s",
           name, CAB_VERSION, rest);
    cab_free(text);
    return CAB_OK;
}

/* ---- checks --------------------------------------------------------------------------------------------------------- */

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

/* Data may be named by a pattern. */
static void print_absent_data(const char *key, const char *word)
{
    if (!cab_data_paths_exist(word))
        printf("  not here: %s %s\n", key, word);
}

static void print_absent(const cab_recipe *recipe)
{
    print_absent_file("teacher.path", recipe->teacher.path);
    print_absent_file("student.path", recipe->student.path);
    for (unsigned i = 0; i < recipe->data.train.count; i++)
        print_absent_data("data.train", recipe->data.train.items[i]);
    for (unsigned i = 0; i < recipe->data.eval.count; i++)
        print_absent_data("data.eval", recipe->data.eval.items[i]);
    print_absent_file("data.classes", recipe->data.classes);
}

/* Mistakes are printed as they are found, but for the last, which is the failure of the command. */
struct mistakes {
    const char *file; /* put before texts that do not name it; NULL: they do */
    char last[2 * TEXT_BYTES];
    cab_status first;
};

static void tell(void *user, const char *text)
{
    struct mistakes *m = user;
    if (m->last[0])
        fprintf(stderr, "cab recipe: %s\n", m->last);
    snprintf(m->last, sizeof m->last, "%s%s%s", m->file ? m->file : "", m->file ? ": " : "", text);
}

/* Checks of the whole recipe make sense only where its keys do. */
static cab_status find_mistakes(const char *path, const cab_list *sets, struct mistakes *m, cab_recipe **recipe)
{
    m->file = NULL;
    CAB_TRY(cab_recipe_load_all(path, tell, m, recipe));
    cab_status status = apply_sets(*recipe, sets);
    if (status != CAB_OK) {
        tell(m, cab_error_text());
        return status;
    }
    m->file = path;
    return cab_recipe_validate_all(*recipe, tell, m);
}

static void validate(const char *given, const cab_list *sets, struct mistakes *m)
{
    cab_recipe *recipe = NULL;
    char path[CAB_PATH_MAX];
    m->file = NULL;
    cab_status status = cli_find_recipe(given, path);
    if (status != CAB_OK || !cab_path_exists(path)) {
        status = status != CAB_OK ? status : cab_fail(CAB_EIO, "%s: no such file", path);
        tell(m, cab_error_text());
    } else {
        status = find_mistakes(path, sets, m, &recipe);
    }
    if (status == CAB_OK) {
        printf("%s: valid\n", path);
        print_absent(recipe);
    }
    m->first = m->first == CAB_OK ? status : m->first;
    cab_recipe_free(recipe);
}

/* ---- the command ---------------------------------------------------------------------------------------------------- */

static cab_status act_list(const struct recipe_options *options, const cab_list *operands)
{
    (void)operands;
    struct recipe_options shown = *options;
    return cli_each_recipe(print_name, &shown);
}

static cab_status act_show(const struct recipe_options *options, const cab_list *operands)
{
    (void)options;
    return show(operands->items[1]);
}

static cab_status act_new(const struct recipe_options *options, const cab_list *operands)
{
    (void)options;
    return begin(operands->items[1]);
}

static cab_status act_validate(const struct recipe_options *options, const cab_list *operands)
{
    struct mistakes m = {.first = CAB_OK};
    for (unsigned i = 1; i < operands->count; i++)
        validate(operands->items[i], &options->set, &m);
    if (m.first != CAB_OK)
        return cab_fail(m.first, "%s", m.last);
    return CAB_OK;
}

static cab_status act_keys(const struct recipe_options *options, const cab_list *operands)
{
    (void)operands;
    print_keys(options);
    return CAB_OK;
}

static cab_status run_recipe(const void *given, const cab_list *operands)
{
    static const struct {
        const char *name;
        unsigned least, most; /* words behind it */
        cab_status (*act)(const struct recipe_options *options, const cab_list *operands);
    } actions[] = {{"list", 0, 0, act_list},
                   {"show", 1, 1, act_show},
                   {"new", 1, 1, act_new},
                   {"validate", 1, UINT32_MAX, act_validate},
                   {"keys", 0, 0, act_keys}};
    const struct recipe_options *options = given;
    const unsigned words = operands->count - 1;
    char shown[64];
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(operands->items[0], actions[i].name) != 0)
            continue;
        if (words < actions[i].least)
            return cab_fail(CAB_EARG, "%s: name a recipe; cab recipe list has those that are found by name",
                            actions[i].name);
        if (words > actions[i].most)
            return cab_fail(CAB_EARG, "%s: too many arguments: \"%s\"", actions[i].name,
                            cab_printable(operands->items[1 + actions[i].most], shown, sizeof shown));
        return actions[i].act(options, operands);
    }
    return cab_fail(CAB_EARG, "no action \"%s\"; expected list, show, new, validate or keys",
                    cab_printable(operands->items[0], shown, sizeof shown));
}

static const cli_example examples[] = {
    {"cab recipe list", "recipes that are found by name, and what each does"},
    {"cab recipe new tales-gpt2 > mine.yaml", "begin one of your own"},
    {"cab recipe validate recipes/*.yaml", "check recipes without running them"},
    {"cab recipe validate my.yaml --set train.lr=1e-4", "check one with an override"},
    {"cab recipe keys", "every key, what it takes and what it means"},
    {0}};

const cli_command cli_recipe = {
    .name = "recipe",
    .summary = "find and check recipes, list their keys",
    .synopsis = "list | show RECIPE | new RECIPE | validate RECIPE... | keys",
    .description =
        "A RECIPE is a file, or a name: NAME.yaml is looked for in ./recipes, in the directories of $CAB_RECIPES "
        "(colons between them), and in share/cab/recipes of the prefix where cab is installed. list names those that "
        "are found so, show prints one, new prints one to be changed.\n\n"
        "validate reads recipes and checks everything that can be known before training: unknown keys, types, "
        "ranges, stage lengths. Every mistake is a line with the file, the line and the key; where all keys are right, "
        "whether they fit "
        "together. Teacher and data that are not on this "
        "machine are named.\n\nkeys lists "
        "every key of a recipe.",
    .examples = examples,
    .options = recipe_table,
    .options_size = sizeof(struct recipe_options),
    .operands_min = 1,
    .operands_max = 10000,
    .run = run_recipe,
    .more_manual = manual,
};
