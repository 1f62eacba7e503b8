/* distill.c - cab distill: a recipe from file, flags and overrides, run once or once per method. */
#include "cli/distill.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/command.h"
#include "cli/find.h"
#include "cli/ranks.h"
#include "data/data_paths.h"
#include "distill/recipe_domain.h"
#include "distill/term.h"
#include "report/report.h"
#include "train/log.h"
#include "train/rehearse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DISTILL_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                       \
    ENUM(method, 'm', "NAME", 0, "recipe|" CAB_METHOD_WORDS,                                                           \
         "method whose initialisation and stages replace the recipe's")                                                \
    TEXT(methods, 'M', "A,B,...", "", "run each of these methods into <out>/<method>, then compare them")              \
    TEXT(teacher, 't', "DIR", "", "Hugging Face directory of the teacher (teacher.path)")                              \
    LIST(train, 0, "FILE", "training files, or folder or archive of images (data.train)")                              \
    LIST(eval, 0, "FILE", "validation files, likewise (data.eval)")                                                    \
    TEXT(classes, 0, "FILE", "", "images: class map, which of the teacher's classes the data's are (data.classes)")    \
    TEXT(out, 'o', "DIR", "", "directory of the run (out)")                                                            \
    TEXT(fraction, 'f', "X", "", "share of the training documents, or of every class, that is used (data.fraction)")   \
    TEXT(tokens, 'n', "N", "", "tokens, or images, to train on (train.tokens)")                                        \
    TEXT(passes, 'p', "N", "", "passes over the training data instead (train.passes)")                                 \
    TEXT(lr, 0, "X", "", "peak learning rate (train.lr)")                                                              \
    TEXT(seed, 0, "N", "", "seed of everything random (seed)")                                                         \
    TEXT(device, 0, "NAME", "", "cpu or cuda (device)")                                                                \
    TEXT(threads, 0, "N", "", "processor threads; 0: all this process may use (threads)")                              \
    LIST(set, 's', "KEY=VALUE", "override any key of the recipe, after the flags above")                               \
    BOOL(resume, 'r',                                                                                                  \
         "go on with the run in the output directory, or in the directory given in place of RECIPE; one that has "     \
         "ended is kept")                                                                                              \
    BOOL(overwrite, 0, "start anew where the output directory holds a run")                                            \
    BOOL(dry_run, 0, "open everything, print the plan, its memory and the time to expect, and stop")                   \
    BOOL(quiet, 'q', "no messages but warnings")

struct distill_options {
    CAB_FIELDS(DISTILL_OPTIONS)
};
CAB_FLAG_TABLE(distill_table, struct distill_options, DISTILL_OPTIONS)

enum { NAME_BYTES = 64, METHODS_MAX = CAB_METHOD_CAB_BEST };

/* The recipes of one command line, and the directory that holds their runs when there are several. */
struct plan {
    cab_recipe *recipes[METHODS_MAX];
    unsigned count;
    char root[CAB_PATH_MAX];
};

/* ---- building the recipe ---------------------------------------------------------------------------------------- */

cab_status cli_recipe_set(cab_recipe *recipe, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    char shown[NAME_BYTES], *key;
    if (!equals || equals == assignment)
        return cab_fail(CAB_EARG, "--set: found \"%s\", expected KEY=VALUE",
                        cab_printable(assignment, shown, sizeof shown));
    CAB_TRY(cab_strdup(&key, assignment));
    key[equals - assignment] = '\0';
    cab_status status = cab_recipe_set(recipe, key, equals + 1);
    cab_free(key);
    return status;
}

/* Replaces a list of files; file names may hold commas, so they are not joined for cab_recipe_set(). */
static cab_status set_files(cab_recipe *recipe, const char *key, const cab_list *files)
{
    for (unsigned g = 1; files->count > 0 && g < CAB_RECIPE_STAGES_GROUP; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        const cab_option *option = cab_option_find(group.table, key);
        if (strcmp(group.name, "data") != 0 || !option)
            continue;
        void *object = (char *)recipe + group.offset;
        cab_option_empty(option, object);
        for (unsigned i = 0; i < files->count; i++)
            CAB_TRY(cab_option_append(option, object, key, files->items[i]));
    }
    return CAB_OK;
}

static cab_status apply_flags(cab_recipe *recipe, const struct distill_options *options, const char *method)
{
    const struct {
        const char *key, *value;
    } flags[] = {{"method", method},
                 {"teacher.path", options->teacher},
                 {"out", options->out},
                 {"data.fraction", options->fraction},
                 {"data.classes", options->classes},
                 {"train.tokens", options->passes[0] && !options->tokens[0] ? "0" : options->tokens},
                 {"train.passes", options->tokens[0] && !options->passes[0] ? "0" : options->passes},
                 {"train.lr", options->lr},
                 {"seed", options->seed},
                 {"device", options->device},
                 {"threads", options->threads}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (flags[i].value[0])
            CAB_TRY(cab_recipe_set(recipe, flags[i].key, flags[i].value));
    }
    CAB_TRY(set_files(recipe, "train", &options->train));
    CAB_TRY(set_files(recipe, "eval", &options->eval));
    for (unsigned i = 0; i < options->set.count; i++)
        CAB_TRY(cli_recipe_set(recipe, options->set.items[i]));
    return CAB_OK;
}

/* The recipe of a run's directory, which goes on there, wherever it was begun. */
static cab_status load_run(const char *directory, cab_recipe **recipe)
{
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, directory, CAB_RUN_RECIPE));
    if (!cab_path_exists(path))
        return cab_fail(CAB_EARG, "%s: holds no run: there is no " CAB_RUN_RECIPE " in it", directory);
    CAB_TRY(cab_recipe_load(path, recipe));
    return cab_recipe_set(*recipe, "out", directory);
}

/* Names of tasks become the files that they mean. */
static cab_status find_tasks(cab_recipe *recipe)
{
    cab_list *tasks = &recipe->eval.tasks;
    for (unsigned i = 0; i < tasks->count; i++) {
        char path[CAB_PATH_MAX];
        CAB_TRY(cli_find_task(tasks->items[i], path));
        cab_free(tasks->items[i]);
        tasks->items[i] = NULL;
        CAB_TRY(cab_strdup(&tasks->items[i], path));
    }
    return CAB_OK;
}

/* Adds the recipe for one method ("": as the file has it). */
static cab_status add_recipe(struct plan *plan, const struct distill_options *options, const cab_list *operands,
                             const char *method)
{
    cab_recipe **recipe = &plan->recipes[plan->count];
    if (plan->count >= METHODS_MAX)
        return cab_fail(CAB_EARG, "--methods: more than %d", METHODS_MAX);
    const char *given = operands->count ? operands->items[0] : NULL;
    char path[CAB_PATH_MAX];
    if (given && cab_path_is_directory(given) && !options->resume)
        return cab_fail(CAB_EARG, "%s: is a directory, expected a recipe; --resume goes on with the run in it", given);
    if (given && cab_path_is_directory(given)) {
        CAB_TRY(load_run(given, recipe));
    } else if (given) {
        CAB_TRY(cli_find_recipe(given, path));
        CAB_TRY(cab_recipe_load(path, recipe));
    } else {
        CAB_TRY(cab_recipe_preset("cab-best", recipe));
    }
    plan->count++;
    CAB_TRY(apply_flags(*recipe, options, method));
    CAB_TRY(cab_recipe_validate(*recipe));
    CAB_TRY(find_tasks(*recipe));
    if (!options->methods[0])
        return CAB_OK;
    char out[CAB_PATH_MAX];
    if (snprintf(plan->root, sizeof plan->root, "%s", (*recipe)->out) >= CAB_PATH_MAX)
        return cab_fail(CAB_EARG, "out: the path is longer than %d bytes", CAB_PATH_MAX - 1);
    CAB_TRY(cab_path_join(out, (*recipe)->out, method));
    return cab_recipe_set(*recipe, "out", out);
}

static cab_status add_recipes(struct plan *plan, const struct distill_options *options, const cab_list *operands)
{
    char method[NAME_BYTES] = "";
    if (options->methods[0] && options->method)
        return cab_fail(CAB_EARG, "--method and --methods exclude each other");
    if (options->resume && options->overwrite)
        return cab_fail(CAB_EARG, "--resume and --overwrite exclude each other");
    if (!options->methods[0]) {
        if (options->method)
            cab_words_get(CAB_METHOD_WORDS, (unsigned)options->method - 1, method, sizeof method);
        return add_recipe(plan, options, operands, method);
    }
    for (const char *word = options->methods; *word; word += strcspn(word, ",") + (word[strcspn(word, ",")] == ',')) {
        snprintf(method, sizeof method, "%.*s", (int)strcspn(word, ","), word);
        if (!method[0])
            return cab_fail(CAB_EARG, "--methods: found an empty name in \"%.80s\"", options->methods);
        CAB_TRY(add_recipe(plan, options, operands, method));
        for (unsigned i = 0; i + 1 < plan->count; i++) {
            if (plan->recipes[i]->method == plan->recipes[plan->count - 1]->method)
                return cab_fail(CAB_EARG, "--methods: \"%s\" is named twice", method);
        }
    }
    return CAB_OK;
}

/* ---- the plan --------------------------------------------------------------------------------------------------- */

static void print_weights(const cab_stage *stage)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        const cab_term_span weight = cab_stage_weight(stage, (cab_term_id)t);
        if (!cab_stage_uses(stage, (cab_term_id)t))
            continue;
        printf("  %s %g", cab_term_name((cab_term_id)t), weight.start);
        if (weight.end >= 0 && weight.end != weight.start)
            printf(" -> %g", weight.end);
    }
}

/* "10 passes", "50000 tokens" ...: how long a stage is, in the recipe's own words. */
static void print_length(const cab_recipe *recipe, const cab_stage *stage, const char *unit)
{
    const double passes = stage->passes > 0 ? stage->passes : recipe->train.passes;
    const int64_t tokens = stage->tokens > 0 ? stage->tokens : recipe->train.tokens;
    if (stage->steps > 0) {
        printf(" %" PRId64 " steps,", stage->steps);
        return;
    }
    if (stage->share > 0)
        printf(" %g %% of", 100 * stage->share);
    else if (stage->tokens == 0 && !(stage->passes > 0) && recipe->stages_count > 1)
        printf(" the rest of");
    if (stage->passes > 0 || (stage->tokens == 0 && recipe->train.passes > 0))
        printf(" %g passes over the data,", passes);
    else
        printf(" %" PRId64 " %s,", tokens, unit);
}

static cab_status print_stages(const cab_recipe *recipe)
{
    const char *unit = cab_recipe_domain_of(recipe)->unit;
    uint64_t steps[CAB_STAGES_MAX] = {0}, seq_len = cab_recipe_length(recipe);
    bool known = seq_len > 0 && !(recipe->train.passes > 0);
    for (unsigned i = 0; i < recipe->stages_count; i++)
        known = known && !(recipe->stages[i].passes > 0);
    if (known)
        CAB_TRY(cab_recipe_stage_steps(recipe, seq_len, 0, steps));
    for (unsigned i = 0; i < recipe->stages_count; i++) {
        const cab_stage *stage = &recipe->stages[i];
        const double lr = cab_recipe_lr(recipe, stage, 0); /* the student's width is not known */
        printf("stage %u          %s:", i, stage->name);
        if (known)
            printf(" %" PRIu64 " steps of %" PRIu64 " %s,", steps[i], (uint64_t)recipe->train.batch * seq_len, unit);
        else
            print_length(recipe, stage, unit);
        if (lr > 0)
            printf(" learning rate %g;", lr);
        else
            printf(" learning rate of the method;");
        print_weights(stage);
        putchar('\n');
    }
    return CAB_OK;
}

static void print_files(const char *title, const cab_list *files)
{
    for (unsigned i = 0; i < files->count; i++)
        printf("%-16s %s\n", i ? "" : title, files->items[i]);
}

static cab_status print_plan(const cab_recipe *recipe)
{
    char name[NAME_BYTES];
    const char *weights = recipe->init.weights == CAB_INIT_TEACHER ? "the teacher's weights" : "scratch";
    printf("%-16s %s\n", "method", cab_recipe_method_name(recipe, name, sizeof name));
    printf("%-16s %s\n", "teacher", recipe->teacher.path);
    printf("%-16s %s%s\n", "student", recipe->student.path[0] ? recipe->student.path : "new, from ",
           recipe->student.path[0] ? "" : weights);
    print_files("train on", &recipe->data.train);
    printf("%-16s %g %% of %s\n", "", 100 * recipe->data.fraction, cab_recipe_domain_of(recipe)->parts);
    print_files("validate on", &recipe->data.eval);
    CAB_TRY(print_stages(recipe));
    printf("%-16s %s\n", "out", recipe->out);
    return CAB_OK;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* The plan in words, then what opening everything and a few steps tell about memory and time. */
static cab_status rehearse(const cab_recipe *recipe)
{
    char memory[CAB_FORMAT_MAX], all[CAB_FORMAT_MAX], training[CAB_FORMAT_MAX], evaluation[CAB_FORMAT_MAX];
    cab_rehearsal r;
    CAB_TRY(print_plan(recipe));
    CAB_TRY(cli_flush_results());
    CAB_TRY(cab_rehearse(recipe, &r));
    printf("%-16s %s\n", "memory", cab_format_bytes(r.memory, memory));
    printf("%-16s about %s: %s for %" PRIu64 " steps (measured over %" PRIu64 "), %s for evaluations (estimated from a "
           "step)\n",
           "time", cab_format_seconds(r.training + r.evaluation, all), cab_format_seconds(r.training, training),
           r.steps, r.measured, cab_format_seconds(r.evaluation, evaluation));
    return CAB_OK;
}

/* Refuses directories that hold a run already. */
static cab_status check_directories(const struct plan *plan, const struct distill_options *options)
{
    for (unsigned i = 0; i < plan->count; i++) {
        const char *out = plan->recipes[i]->out;
        if (!options->overwrite && !options->resume && cab_report_is_run(out))
            return cab_fail(CAB_EARG, "%s holds a run already; --resume goes on with it, --overwrite starts anew", out);
    }
    return CAB_OK;
}

/* The table of what was reached on stdout, and report.html: in the directory of the run, or of all of them. */
static cab_status print_results(const struct plan *plan, bool several)
{
    const char *directories[METHODS_MAX];
    char path[CAB_PATH_MAX], title[CAB_PATH_MAX + NAME_BYTES];
    cab_report_runs runs = {0};
    cab_status status;
    for (unsigned i = 0; i < plan->count; i++)
        directories[i] = plan->recipes[i]->out;
    CAB_GOTO(cab_report_runs_read(directories, plan->count, &runs));
    CAB_GOTO(cab_report_table(&runs, stdout));
    const char *directory = several ? plan->root : directories[0];
    CAB_GOTO(cab_path_join(path, directory, "report.html"));
    snprintf(title, sizeof title, "%s%s", cab_path_name(directory), several ? ": methods compared" : "");
    CAB_GOTO(cab_report_html(&runs, &(cab_report_page){.title = title}, path));
    cab_log_info("report: %s", path);
done:
    cab_report_runs_free(&runs);
    return status;
}

/* Where the student is, and what one does with it. */
static void print_next(const cab_recipe *recipe)
{
    cab_log_info("student  %s/student", recipe->out);
    const char *const *use = cab_recipe_domain_of(recipe)->use;
    cab_log_info("next     %s %s %s", use[0], recipe->out, use[1]);
    cab_log_info("         cab report %s", recipe->out);
}

static cab_status run_plan(const struct plan *plan, const struct distill_options *options)
{
    bool several = options->methods[0] != '\0';
    CAB_TRY(check_directories(plan, options));
    for (unsigned i = 0; options->dry_run && i < plan->count; i++) {
        if (i)
            putchar('\n');
        CAB_TRY(rehearse(plan->recipes[i]));
    }
    if (options->dry_run)
        return CAB_OK;
    if (several)
        CAB_TRY(cli_distill_each(plan->recipes, plan->count, options->overwrite));
    else if (!options->overwrite && cab_report_is_finished(plan->recipes[0]->out))
        cab_log_info("%s: this run has ended; --overwrite starts anew", plan->recipes[0]->out);
    else
        CAB_TRY(cli_distill_here(plan->recipes[0], options->overwrite, NULL));
    CAB_TRY(print_results(plan, several));
    if (!several)
        print_next(plan->recipes[0]);
    return CAB_OK;
}

/* One of several ranks. Rank 0 looks at the directory, and prints. */
static cab_status run_rank(const struct plan *plan, const struct distill_options *options, cab_communicator *ranks)
{
    const bool first = cab_communicator_rank(ranks) == 0;
    bool ended = false;
    if (options->methods[0] || options->dry_run)
        return cab_fail(CAB_EARG, "%s is for one process, this is one of %d",
                        options->dry_run ? "--dry-run" : "--methods", cab_communicator_size(ranks));
    if (first) {
        CAB_TRY(check_directories(plan, options));
        ended = !options->overwrite && cab_report_is_finished(plan->recipes[0]->out);
    }
    CAB_TRY(cab_communicator_share(ranks, &ended, sizeof ended));
    if (ended)
        cab_log_info("%s: this run has ended; --overwrite starts anew", plan->recipes[0]->out);
    else
        CAB_TRY(cli_distill_here(plan->recipes[0], options->overwrite, ranks));
    if (first) {
        CAB_TRY(print_results(plan, false));
        print_next(plan->recipes[0]);
    }
    return CAB_OK;
}

static cab_status run_distill(const void *given, const cab_list *operands)
{
    const struct distill_options *options = given;
    struct plan plan = {0};
    cab_communicator *ranks = NULL;
    CAB_TRY(cab_communicator_open(&ranks));
    cab_log_quiet(options->quiet || cab_communicator_rank(ranks) > 0);
    cab_status status = add_recipes(&plan, options, operands);
    if (status == CAB_OK)
        status = ranks != NULL ? run_rank(&plan, options, ranks) : run_plan(&plan, options);
    for (unsigned i = 0; i < plan.count; i++)
        cab_recipe_free(plan.recipes[i]);
    cli_leave_ranks(ranks, status);
    return status;
}

/* Data behind --train and --eval may be several files; --set takes one word. */
static bool is_operand(const cab_option *list, const char *word)
{
    return strcmp(list->key, "set") == 0 || cli_is_recipe(word) || !cab_data_paths_exist(word);
}

static const cli_example examples[] = {
    {"cab distill tales-gpt2", "run a recipe, by its name or its file"},
    {"cab distill recipes/tales-gpt2.yaml --set train.lr=1e-4 --set stages[0].align=2 -o runs/b", "with other values"},
    {"cab distill recipes/tales-gpt2.yaml --methods vanilla,soft,cab-best --out runs/compare",
     "several methods, a table and runs/compare/report.html"},
    {"cab distill --teacher gpt2 --train a.txt --eval b.txt --tokens 20e6 --out runs/a",
     "without a recipe file: cab-best"},
    {"cab distill recipes/vit-tiny-vim-tiny.yaml --methods soft,cab --out runs/vim --passes 10",
     "from images: a ViT becomes a Vision Mamba"},
    {"cab distill --resume runs/a", "go on after an interruption, from any directory, with the same bits"},
    {0}};

const cli_command cli_distill = {
    .name = "distill",
    .summary = "train a Mamba student from a Transformer teacher",
    .synopsis = "[RECIPE | --resume RUN]",
    .description =
        "Runs a recipe: reads teacher and data, trains the student, and leaves in the output directory recipe.yaml, "
        "log.jsonl, result.json and the student. RECIPE is a file, or the name of one that cab recipe list has. "
        "Without it the "
        "defaults and the method cab-best are used.\n\n"
        "A teacher of images gets a student of images. They lie in folders of classes, archives of them, or .csv "
        "lists; "
        "a class map says which of the teacher's classes they are.\n\n"
        "Weakest first: defaults, the method's preset, the recipe file, the flags, --set.\n\n"
        "Ctrl-C saves the state, stops and prints the command that goes on from there; so do SIGTERM, SIGHUP, SIGUSR1, "
        "SIGUSR2 and SIGXCPU (Slurm: --signal=USR1@60). --resume takes the run's directory, or a recipe and --out; "
        "keys "
        "that do not change the student may differ, and the inputs must be those it began with, wherever they lie now. "
        "At the end a table of what was reached is printed "
        "to standard output.",
    .examples = examples,
    .options = distill_table,
    .options_size = sizeof(struct distill_options),
    .operands_max = 1,
    .is_operand = is_operand,
    .run = run_distill,
};
