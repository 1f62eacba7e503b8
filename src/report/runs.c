/* runs.c - reading run directories back: log.jsonl line by line, result.json, recipe.yaml. */
#include "report/runs.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "distill/recipe.h"
#include "train/log.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t LOG_MAX = (size_t)1 << 30;
enum { RESULT_MAX = 1 << 20, RECIPE_MAX = 1 << 20, RUNS_MAX = 1000 };

static bool has_file(const char *directory, const char *name)
{
    char path[CAB_PATH_MAX];
    return cab_path_join(path, directory, name) == CAB_OK && cab_path_exists(path);
}

bool cab_report_is_run(const char *directory)
{
    return has_file(directory, CAB_RUN_LOG) || has_file(directory, CAB_RUN_RESULT) ||
           has_file(directory, CAB_RUN_CHECKPOINT);
}

bool cab_report_is_finished(const char *directory)
{
    return has_file(directory, CAB_RUN_RESULT);
}

/* ---- log.jsonl -------------------------------------------------------------------------------------------------- */

struct number {
    const char *key;
    double *value;
};

/* Every number of the list: NAN where it is missing. Fails where one is no number. */
static cab_status read_numbers(const cab_json *json, const struct number *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        CAB_TRY(cab_json_number_or(json, NULL, numbers[i].key, NAN, numbers[i].value));
    return CAB_OK;
}

static cab_status read_point(const cab_json *json, cab_report_point *point, bool *evaluation)
{
    const struct number numbers[] = {
        {"step", &point->step},
        {"tokens", &point->tokens},
        {"loss", &point->loss},
        {"kl", &point->kl},
        {"lr", &point->lr},
        {"perplexity", &point->perplexity},
        {"seconds", &point->seconds},
        {"agreement", &point->agreement},
        {"tokens_per_s", &point->tokens_per_s},
        {"images_per_s", &point->images_per_s},
        {"top1", &point->top1},
        {"top5", &point->top5},
    };
    CAB_TRY(cab_json_bool_or(json, NULL, "eval", false, evaluation));
    CAB_TRY(read_numbers(json, numbers, sizeof numbers / sizeof *numbers));
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        CAB_TRY(cab_json_number_or(json, NULL, cab_term_name((cab_term_id)t), NAN, &point->terms[t]));
    if (!isfinite(point->step) || !isfinite(point->tokens))
        return cab_fail(CAB_EFORMAT, "%s: a line without step or tokens", json->name);
    return CAB_OK;
}

static cab_status add_point(cab_report_points *points, const cab_report_point *point)
{
    CAB_TRY(CAB_GROW(&points->items, &points->capacity, points->count + 1, "points of a log"));
    points->items[points->count++] = *point;
    return CAB_OK;
}

static cab_status read_line(cab_report_run *run, const char *line, size_t length)
{
    cab_json json;
    cab_report_point point;
    bool evaluation = false;
    cab_status status = CAB_OK;
    if (length == 0)
        return CAB_OK;
    if (cab_json_parse(line, length, CAB_RUN_LOG, &json) != CAB_OK) {
        run->unreadable++;
        return CAB_OK;
    }
    if (read_point(&json, &point, &evaluation) != CAB_OK)
        run->unreadable++;
    else
        status = add_point(evaluation ? &run->evaluations : &run->training, &point);
    cab_json_close(&json);
    return status;
}

static cab_status read_log(cab_report_run *run)
{
    char path[CAB_PATH_MAX], *text;
    size_t size, length;
    cab_status status = CAB_OK;
    CAB_TRY(cab_path_join(path, run->directory, CAB_RUN_LOG));
    if (!cab_path_exists(path))
        return CAB_OK;
    CAB_TRY(cab_file_read_text(path, LOG_MAX, &text, &size));
    for (size_t at = 0; status == CAB_OK && at < size; at += length + 1) {
        const char *end = memchr(text + at, '\n', size - at);
        length = end ? (size_t)(end - text) - at : size - at;
        status = read_line(run, text + at, length);
    }
    cab_free(text);
    return status;
}

/* ---- result.json, recipe.yaml ----------------------------------------------------------------------------------- */

static cab_status replace(char **out, const char *text)
{
    char *copy;
    CAB_TRY(cab_strdup(&copy, text));
    cab_free(*out);
    *out = copy;
    return CAB_OK;
}

static cab_status read_text(const cab_json *json, const char *key, char **out)
{
    const char *text;
    CAB_TRY(cab_json_string_or(json, NULL, key, "", &text));
    return replace(out, text);
}

static cab_status read_result(cab_report_run *run, const char *path)
{
    cab_json json;
    cab_status status;
    const struct number numbers[] = {
        {"loss", &run->loss},
        {"perplexity", &run->perplexity},
        {"kl", &run->kl},
        {"agreement", &run->agreement},
        {"tokens_per_second", &run->tokens_per_second},
        {"seconds", &run->seconds},
        {"peak_memory", &run->peak_memory},
        {"tokens", &run->tokens},
        {"steps", &run->steps},
        {"parameters", &run->parameters},
        {"fraction", &run->fraction},
        {"seed", &run->seed},
        {"teacher_perplexity", &run->teacher_perplexity},
        {"top1", &run->top1},
        {"top5", &run->top5},
        {"teacher_top1", &run->teacher_top1},
        {"teacher_top5", &run->teacher_top5},
        {"teacher_parameters", &run->teacher_parameters},
        {"images_per_second", &run->images_per_second},
    };
    CAB_TRY(cab_json_load(path, RESULT_MAX, &json));
    CAB_GOTO(read_numbers(&json, numbers, sizeof numbers / sizeof *numbers));
    CAB_GOTO(read_text(&json, "method", &run->method));
    CAB_GOTO(read_text(&json, "teacher", &run->teacher));
    CAB_GOTO(read_text(&json, "student", &run->student));
    CAB_GOTO(read_text(&json, "sample", &run->sample));
    run->images = isfinite(run->top1) || isfinite(run->images_per_second);
    run->finished = true;
done:
    cab_json_close(&json);
    return status;
}

/* What an unfinished run has reached: its last evaluation and its last step; its settings are those of its recipe. */
static cab_status estimate(cab_report_run *run)
{
    cab_recipe *recipe = NULL;
    char method[64];
    if (run->evaluations.count) {
        const cab_report_point *last = &run->evaluations.items[run->evaluations.count - 1];
        run->loss = last->loss;
        run->perplexity = last->perplexity;
        run->kl = last->kl;
        run->agreement = last->agreement;
        run->top1 = last->top1;
        run->top5 = last->top5;
        run->images = isfinite(last->top1);
        run->seconds = last->seconds;
    }
    if (run->training.count) {
        const cab_report_point *last = &run->training.items[run->training.count - 1];
        run->tokens_per_second = last->tokens_per_s;
        run->images_per_second = last->images_per_s;
        run->images = run->images || isfinite(last->images_per_s);
        run->seconds = last->seconds;
        run->tokens = last->tokens;
        run->steps = last->step;
    }
    if (cab_recipe_parse(run->directory, run->recipe, strlen(run->recipe), &recipe) != CAB_OK)
        return CAB_OK; /* the recipe is shown as it is */
    cab_status status = replace(&run->method, cab_recipe_method_name(recipe, method, sizeof method));
    if (status == CAB_OK)
        status = replace(&run->teacher, recipe->teacher.path);
    run->fraction = recipe->data.fraction;
    run->seed = (double)recipe->seed;
    cab_recipe_free(recipe);
    return status;
}

static cab_status read_recipe(cab_report_run *run)
{
    char path[CAB_PATH_MAX], *text;
    size_t size;
    CAB_TRY(cab_path_join(path, run->directory, CAB_RUN_RECIPE));
    if (!cab_path_exists(path))
        return CAB_OK;
    CAB_TRY(cab_file_read_text(path, RECIPE_MAX, &text, &size));
    cab_free(run->recipe);
    run->recipe = text;
    return CAB_OK;
}

static void forget_numbers(cab_report_run *run)
{
    double *const numbers[] = {&run->loss,
                               &run->perplexity,
                               &run->kl,
                               &run->agreement,
                               &run->tokens_per_second,
                               &run->seconds,
                               &run->peak_memory,
                               &run->tokens,
                               &run->steps,
                               &run->parameters,
                               &run->fraction,
                               &run->seed,
                               &run->top1,
                               &run->top5,
                               &run->images_per_second,
                               &run->teacher_perplexity,
                               &run->teacher_top1,
                               &run->teacher_top5,
                               &run->teacher_parameters};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *numbers[i] = NAN;
}

static cab_status read_run(cab_report_run *run, const char *directory)
{
    char path[CAB_PATH_MAX];
    char **const texts[] = {&run->method, &run->teacher, &run->student, &run->sample, &run->recipe, &run->name};
    forget_numbers(run);
    CAB_TRY(cab_strdup(&run->directory, directory));
    for (size_t length = strlen(directory); length > 1 && run->directory[length - 1] == '/'; length--)
        run->directory[length - 1] = '\0';
    for (size_t i = 0; i + 1 < sizeof texts / sizeof *texts; i++)
        CAB_TRY(cab_strdup(texts[i], ""));
    CAB_TRY(cab_strdup(&run->name, cab_path_name(run->directory)));
    CAB_TRY(read_log(run));
    if (read_recipe(run) != CAB_OK)
        cab_log_warn("%s", cab_error_text());
    CAB_TRY(cab_path_join(path, run->directory, CAB_RUN_RESULT));
    if (cab_path_exists(path) && read_result(run, path) != CAB_OK)
        cab_log_warn("%s", cab_error_text());
    if (!run->finished)
        CAB_TRY(estimate(run));
    if (run->unreadable)
        cab_log_warn("%s: %zu line%s of %s cannot be read", run->directory, run->unreadable,
                     run->unreadable == 1 ? "" : "s", CAB_RUN_LOG);
    return CAB_OK;
}

/* ---- several runs ----------------------------------------------------------------------------------------------- */

static void free_run(cab_report_run *run)
{
    char *const texts[] = {run->directory, run->name,   run->method, run->teacher,
                           run->student,   run->sample, run->recipe};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        cab_free(texts[i]);
    cab_predictions_free(&run->predictions);
    cab_kept_close(&run->kept);
    cab_free(run->training.items);
    cab_free(run->evaluations.items);
}

void cab_report_runs_free(cab_report_runs *runs)
{
    for (size_t i = 0; i < runs->count; i++)
        free_run(&runs->items[i]);
    for (size_t i = 0; i < runs->n_comparison; i++) {
        cab_free(runs->comparisons[i].name);
        cab_comparison_free(&runs->comparisons[i].comparison);
    }
    cab_free(runs->comparisons);
    cab_free(runs->items);
    *runs = (cab_report_runs){0};
}

static cab_status add_run(cab_report_runs *runs, const char *directory)
{
    if (runs->count >= RUNS_MAX)
        return cab_fail(CAB_EARG, "more than %d runs in one report", RUNS_MAX);
    CAB_TRY(CAB_GROW(&runs->items, &runs->capacity, runs->count + 1, "runs"));
    runs->count++; /* first, so that what a failure leaves is freed */
    return read_run(&runs->items[runs->count - 1], directory);
}

/* Adds the runs that lie directly in `directory`, by name. */
static cab_status add_contents(cab_report_runs *runs, const char *directory)
{
    struct dirent **entries = NULL;
    size_t before = runs->count;
    cab_status status = CAB_OK;
    int count = scandir(directory, &entries, NULL, alphasort);
    if (count < 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot be read", directory);
    for (int i = 0; i < count; i++) {
        char path[CAB_PATH_MAX];
        if (status == CAB_OK && entries[i]->d_name[0] != '.' &&
            cab_path_join(path, directory, entries[i]->d_name) == CAB_OK && cab_report_is_run(path))
            status = add_run(runs, path);
        free(entries[i]);
    }
    free(entries);
    if (status == CAB_OK && runs->count == before)
        return cab_fail(CAB_EIO, "%s: holds no run: no %s, no %s", directory, CAB_RUN_LOG, CAB_RUN_RESULT);
    return status;
}

/* Two runs of one name are told apart by their whole paths. */
static cab_status make_names_unique(cab_report_runs *runs)
{
    for (size_t i = 0; i < runs->count; i++) {
        bool twice = false;
        for (size_t j = 0; j < runs->count; j++)
            twice = twice || (i != j && strcmp(cab_path_name(runs->items[i].directory),
                                               cab_path_name(runs->items[j].directory)) == 0);
        if (twice) {
            cab_free(runs->items[i].name);
            runs->items[i].name = NULL;
            CAB_TRY(cab_strdup(&runs->items[i].name, runs->items[i].directory));
        }
    }
    return CAB_OK;
}

cab_report_run cab_report_teacher_of(const cab_report_runs *runs)
{
    cab_report_run teacher = {.name = (char *)"teacher"};
    forget_numbers(&teacher);
    for (size_t i = 0; i < runs->count; i++) {
        const cab_report_run *run = &runs->items[i];
        const struct {
            double *to, from;
        } known[] = {{&teacher.perplexity, run->teacher_perplexity},
                     {&teacher.top1, run->teacher_top1},
                     {&teacher.top5, run->teacher_top5},
                     {&teacher.parameters, run->teacher_parameters}};
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
            *known[k].to = isfinite(*known[k].to) ? *known[k].to : known[k].from;
            teacher.finished = teacher.finished || isfinite(*known[k].to);
        }
    }
    return teacher;
}

/* ---- comparisons ------------------------------------------------------------------------------------------------------ */

cab_status cab_report_runs_add(cab_report_runs *runs, const char *name, cab_comparison *comparison)
{
    CAB_TRY(CAB_GROW(&runs->comparisons, &runs->comparisons_capacity, runs->n_comparison + 1, "comparisons"));
    cab_report_comparison *added = &runs->comparisons[runs->n_comparison];
    CAB_TRY(cab_strdup(&added->name, name));
    added->look = runs->count + runs->n_comparison;
    added->comparison = *comparison;
    *comparison = (cab_comparison){0};
    runs->n_comparison++;
    return CAB_OK;
}

static cab_status add_comparison(cab_report_runs *runs, const char *name, const char *path)
{
    cab_comparison comparison = {0};
    cab_status status = cab_comparison_load(path, &comparison);
    if (status == CAB_OK)
        status = cab_report_runs_add(runs, name, &comparison);
    cab_comparison_free(&comparison);
    return status;
}

/* What a run may have beside its log. Damaged, it is left out. */
static cab_status add_extras(cab_report_runs *runs, size_t i)
{
    cab_report_run *run = &runs->items[i];
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, run->directory, CAB_RUN_COMPARISON));
    if (cab_path_exists(path)) {
        if (add_comparison(runs, run->name, path) == CAB_OK)
            runs->comparisons[runs->n_comparison - 1].look = i;
        else
            cab_log_warn("%s", cab_error_text());
    }
    CAB_TRY(cab_path_join(path, run->directory, CAB_RUN_PREDICTIONS));
    if (cab_path_exists(path) && cab_predictions_load(path, &run->predictions) != CAB_OK) {
        cab_log_warn("%s", cab_error_text());
        cab_predictions_free(&run->predictions);
    }
    CAB_TRY(cab_path_join(path, run->directory, "student/" CAB_KEPT_FILE));
    if (cab_path_exists(path) && cab_kept_load(path, &run->kept) != CAB_OK)
        cab_log_warn("%s", cab_error_text());
    return CAB_OK;
}

static bool is_comparison(const char *path)
{
    const size_t length = strlen(path);
    return length > 5 && strcmp(path + length - 5, ".json") == 0 && !cab_path_is_directory(path);
}

cab_status cab_report_runs_read(const char *const *paths, size_t count, cab_report_runs *runs)
{
    for (size_t i = 0; i < count; i++) {
        if (is_comparison(paths[i]))
            continue;
        if (!cab_path_is_directory(paths[i]))
            return cab_fail(CAB_EIO, "%s: is no directory, expected a run", paths[i]);
        if (cab_report_is_run(paths[i]))
            CAB_TRY(add_run(runs, paths[i]));
        else
            CAB_TRY(add_contents(runs, paths[i]));
    }
    CAB_TRY(make_names_unique(runs));
    for (size_t i = 0; i < runs->count; i++)
        CAB_TRY(add_extras(runs, i));
    for (size_t i = 0; i < count; i++)
        if (is_comparison(paths[i]))
            CAB_TRY(add_comparison(runs, cab_path_name(paths[i]), paths[i]));
    return CAB_OK;
}
