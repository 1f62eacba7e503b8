/* eval_tasks.c - tasks of one model, or of two side by side. */
#include "cli/eval_tasks.h"

#include "base/memory.h"
#include "cli/find.h"
#include "ops/backends.h"
#include "train/domain.h"
#include "train/tasks.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { TASKS_MAX = 64, MODELS = 2 };

typedef struct asker {
    const cli_task_options *options;
    char *paths[TASKS_MAX];
    size_t count;
    cab_backend *backend;
    cab_tokenizer *tokenizer;
    cab_task_set *set;
    cab_writer items; /* of --log-items */
    cab_task_result *results[MODELS];
} asker;

/* "lambada,piqa" -> files. */
static cab_status find_tasks(asker *a)
{
    for (const char *word = a->options->tasks; *word != '\0';
         word += strcspn(word, ",") + (word[strcspn(word, ",")] == ',')) {
        char name[CAB_PATH_MAX], path[CAB_PATH_MAX];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(word, ","), word);
        if (name[0] == '\0')
            return cab_fail(CAB_EARG, "--task: found an empty name in \"%.80s\"", a->options->tasks);
        if (a->count == TASKS_MAX)
            return cab_fail(CAB_EARG, "--task: more than %d tasks", TASKS_MAX);
        CAB_TRY(cli_find_task(name, path));
        CAB_TRY(cab_strdup(&a->paths[a->count++], path));
    }
    return CAB_OK;
}

static cab_status open_set(asker *a, const cab_model *model, const cab_model *teacher)
{
    const cli_task_options *o = a->options;
    const cab_task_options options = {.tasks = (const char *const *)a->paths,
                                      .count = a->count,
                                      .folders = (const char *const *)o->folders->items,
                                      .folders_count = o->folders->count,
                                      .items = o->items,
                                      .tokenizer = a->tokenizer,
                                      .directory = o->model,
                                      .vocab_size = model->config.vocab_size,
                                      .longest = cab_tasks_longest(model, teacher)};
    if (cab_domain_of(model) != &cab_domain_text || (teacher != NULL && cab_domain_of(teacher) != &cab_domain_text))
        return cab_fail(CAB_EARG, "%s: reads images, tasks are of text",
                        cab_domain_of(model) != &cab_domain_text ? o->model : o->teacher);
    if (teacher != NULL && teacher->config.vocab_size != model->config.vocab_size)
        return cab_fail(CAB_ESHAPE, "%s: vocabulary of %d, %s has %d", o->teacher, teacher->config.vocab_size, o->model,
                        model->config.vocab_size);
    return cab_task_set_open(&options, &a->set);
}

static cab_status ask(asker *a, const cab_model *model, int which)
{
    CAB_TRY(CAB_NEW(&a->results[which], cab_task_set_count(a->set) + 1, "results"));
    return cab_task_set_run(a->set, model, 0, a->items.stream, a->results[which]);
}

/* ---- the table ------------------------------------------------------------------------------------------------------ */

typedef struct column {
    const char *title;
    size_t offset;
} column;

static const column columns[] = {{"accuracy", offsetof(cab_task_result, accuracy)},
                                 {"normalised", offsetof(cab_task_result, normalised)},
                                 {"last word", offsetof(cab_task_result, last_word)}};
enum { COLUMNS = sizeof columns / sizeof *columns };

static cab_share share_at(const cab_task_result *r, const column *c)
{
    return *(const cab_share *)(const void *)((const char *)r + c->offset);
}

static void print_json(const asker *a, FILE *out)
{
    json_object *root = json_object_new_object();
    json_object_object_add(root, "tasks",
                           cab_task_results_json(a->results[0], a->results[1], cab_task_set_count(a->set)));
    fprintf(out, "%s\n",
            json_object_to_json_string_ext(root, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(root);
}

static void print_row(const char *task, const char *who, const cab_task_result *r, FILE *out)
{
    int blank = 0; /* columns without a number so far: written before the next one that has */
    fprintf(out, "%-22s %-8s %7" PRIu64, task, who, r->items);
    for (int i = 0; i < COLUMNS; i++) {
        const cab_share share = share_at(r, &columns[i]);
        if (!isfinite(share.value)) {
            blank += 16;
            continue;
        }
        fprintf(out, "%*s  %6.2f", blank, "", 100 * share.value);
        blank = isfinite(share.error) ? 0 : 8;
        if (isfinite(share.error))
            fprintf(out, " +- %4.2f", 100 * share.error);
    }
    if (isfinite(r->perplexity))
        fprintf(out, "%*s  %11.2f", blank, "", r->perplexity);
    fprintf(out, "\n");
}

static void print_table(const asker *a, FILE *out)
{
    const size_t count = cab_task_set_count(a->set);
    fprintf(out, "%-22s %-8s %7s", "task", "", "items");
    for (int i = 0; i < COLUMNS; i++)
        fprintf(out, "  %14s", columns[i].title);
    fprintf(out, "  %11s\n", "perplexity");
    for (size_t i = 0; i < count; i++) {
        print_row(a->results[0][i].name, a->results[1] != NULL ? "model" : "", &a->results[0][i], out);
        if (a->results[1] != NULL)
            print_row("", "teacher", &a->results[1][i], out);
    }
}

static cab_status ask_both(asker *a, cab_model **model, cab_model **teacher)
{
    const cli_task_options *o = a->options;
    CAB_TRY(find_tasks(a));
    CAB_TRY(cab_backend_open(o->device, &a->backend));
    CAB_TRY(cab_model_open(o->model, a->backend, o->precision, false, model));
    if (o->teacher[0] != '\0')
        CAB_TRY(cab_model_open(o->teacher, a->backend, o->precision, false, teacher));
    CAB_TRY(cab_tokenizer_open(o->model, &a->tokenizer));
    CAB_TRY(cab_tokenizer_check_vocab(a->tokenizer, (*model)->config.vocab_size, o->model));
    CAB_TRY(open_set(a, *model, *teacher));
    if (o->log_items[0] != '\0')
        CAB_TRY(cab_writer_open(&a->items, o->log_items));
    CAB_TRY(ask(a, *model, 0));
    return *teacher != NULL ? ask(a, *teacher, 1) : CAB_OK;
}

cab_status cli_eval_tasks(const cli_task_options *options, const cli_results *results)
{
    asker a = {.options = options};
    cab_model *model = NULL, *teacher = NULL;
    cab_status status = ask_both(&a, &model, &teacher);
    if (a.items.stream != NULL && status == CAB_OK)
        status = cab_writer_commit(&a.items);
    else if (a.items.stream != NULL)
        cab_writer_abort(&a.items);
    if (status == CAB_OK && options->json)
        print_json(&a, results->stream);
    else if (status == CAB_OK)
        print_table(&a, results->stream);
    cab_task_set_free(a.set);
    cab_tokenizer_free(a.tokenizer);
    cab_model_free(model);
    cab_model_free(teacher);
    cab_backend_close(a.backend);
    for (size_t i = 0; i < a.count; i++)
        cab_free(a.paths[i]);
    for (int i = 0; i < MODELS; i++)
        cab_free(a.results[i]);
    return status;
}
