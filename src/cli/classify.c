/* classify.c - cab classify: what a model sees on single pictures. */
#include "train/classify.h"

#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/thread.h"
#include "cli/command.h"
#include "cli/find.h"
#include "cli/image_paths.h"
#include "cli/results.h"
#include "ops/backends.h"
#include "train/class_names.h"

#include <inttypes.h>
#include <stdio.h>

#define CLASSIFY_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                      \
    INT(top, 'k', "N", 5, 1, 1000000, "how many of the likeliest classes to print")                                    \
    TEXT(classes, 'c', "FILE", "",                                                                                     \
         "names of the classes: a class map, or one name a line; of others the model's directory says them")           \
    ENUM(on_error, 0, "WORD", 0, "stop|skip", "images that cannot be read")                                            \
    INT(image_size, 0, "N", 0, 0, 4096, "pixels of a side; 0: what the model was trained on")                          \
    INT(batch, 'b', "N", 0, 0, 65536, "images at once; 0: up to 16")                                                   \
    ENUM(precision, 0, "NAME", 0, "auto|fp32|bf16", "numbers kept for activations and matrices")                       \
    TEXT(device, 0, "NAME", "cpu", "cpu or cuda")                                                                      \
    INT(threads, 0, "N", 0, 0, 1024, "processor threads; 0: all this process may use")                                 \
    TEXT(out, 'o', "FILE", "", CLI_OUT_HELP)                                                                           \
    BOOL(json, 'j', "print a JSON object a line, one for each image")                                                  \
    BOOL(quiet, 'q', "no messages but warnings")

struct classify_options {
    CAB_FIELDS(CLASSIFY_OPTIONS)
};
CAB_FLAG_TABLE(classify_table, struct classify_options, CLASSIFY_OPTIONS)

enum { SHOWN = 4 * CAB_PATH_MAX }; /* bytes of a name that a terminal shows */

typedef struct printer {
    const struct classify_options *options;
    cli_results results;
    cab_class_names names;
    cab_progress progress; /* where the results do not show it themselves */
    uint64_t done, skipped;
} printer;

/* A class that would be printed with 0.00 %. */
static bool is_nothing(const cab_class_share *share)
{
    return share->probability < 0.00005f;
}

static void print_text(const printer *p, const char *path, const cab_class_share *top, size_t count)
{
    char name[32], shown[SHOWN];
    fprintf(p->results.stream, "%s\n", cli_results_name(&p->results, path, shown, sizeof shown));
    for (size_t k = 0; k < count && !is_nothing(&top[k]); k++)
        fprintf(p->results.stream, "  %6.2f %%  %s\n", 100.0 * top[k].probability,
                cli_results_name(&p->results, cab_class_name(&p->names, top[k].class, name), shown, sizeof shown));
}

static void print_json(const printer *p, const char *path, const cab_class_share *top, size_t count)
{
    json_object *root = json_object_new_object(), *list = json_object_new_array();
    json_object_object_add(root, "image", cab_json_text(path));
    for (size_t k = 0; k < count; k++) {
        char probability[32], name[32];
        json_object *item = json_object_new_object();
        snprintf(probability, sizeof probability, "%.9g", top[k].probability);
        json_object_object_add(item, "class", json_object_new_int(top[k].class));
        json_object_object_add(item, "name", cab_json_text(cab_class_name(&p->names, top[k].class, name)));
        json_object_object_add(item, "probability", json_object_new_double_s(top[k].probability, probability));
        json_object_array_add(list, item);
    }
    json_object_object_add(root, "classes", list);
    fprintf(p->results.stream, "%s\n",
            json_object_to_json_string_ext(root, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(root);
}

/* What has just failed ends the command, or is named and counted. */
static cab_status on_failure(printer *p, cab_status status)
{
    bool about_files = status == CAB_EFORMAT || status == CAB_EIO || status == CAB_EUNSUPPORTED;
    if (p->options->on_error == 0 || !about_files)
        return status;
    cab_log_warn("skipped: %s", cab_error_text());
    p->skipped++;
    return CAB_OK;
}

static cab_status take(void *user, const char *path, cab_status status, const cab_class_share *top, size_t count)
{
    printer *p = user;
    if (!p->results.terminal)
        cab_progress_update(&p->progress, p->done + p->skipped + 1, "");
    if (status != CAB_OK)
        return on_failure(p, status);
    p->done++;
    (p->options->json ? print_json : print_text)(p, path, top, count);
    return cli_results_flush(&p->results);
}

static cab_status classify(const cab_model *model, printer *p, const cli_image_paths *paths)
{
    const struct classify_options *o = p->options;
    const size_t classes = (size_t)model->config.n_classes;
    CAB_TRY(cab_class_names_load(model, o->classes[0] ? o->classes : NULL, &p->names));
    cab_progress_begin(&p->progress, "classifying", "images", 0, paths->count);
    cab_status status = cab_classify(model, (const char *const *)paths->items, paths->count,
                                     (size_t)o->top < classes ? (size_t)o->top : classes, (int)o->batch, take, p);
    cab_progress_end(&p->progress);
    CAB_TRY(status);
    if (p->skipped > 0 && p->done > 0)
        cab_log_info("%" PRIu64 " images classified, %" PRIu64 " skipped", p->done, p->skipped);
    if (p->done == 0)
        return cab_fail(CAB_EFORMAT, "none of the images could be read; %" PRIu64 " skipped", p->skipped);
    return CAB_OK;
}

static cab_status run_classify(const void *given, const cab_list *operands)
{
    const struct classify_options *o = given;
    const cab_precision precisions[] = {cab_precision_auto(o->device), CAB_PRECISION_FP32, CAB_PRECISION_BF16};
    char directory[CAB_PATH_MAX];
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    cab_config sizes;
    cli_image_paths paths = {0};
    printer p = {.options = o};
    cab_status status;
    cab_log_quiet(o->quiet);
    if (o->threads)
        cab_thread_limit((int)o->threads);
    CAB_TRY(cli_find_model(operands->items[0], directory));
    CAB_TRY(cab_model_sizes(directory, &sizes));
    if (sizes.image_size == 0)
        return cab_fail(CAB_EARG, "%s: a model of text; cab classify needs one of images", directory);
    for (unsigned i = 1; i < operands->count; i++) {
        status = cli_image_paths_add(&paths, operands->items[i]);
        if (status != CAB_OK)
            CAB_GOTO(on_failure(&p, status));
    }
    CAB_GOTO(cab_backend_open(o->device, &backend));
    CAB_GOTO(cab_model_open_sized(directory, (int)o->image_size, backend, precisions[o->precision], false, &model));
    CAB_GOTO(cli_results_open(&p.results, o->out));
    status = cli_results_close(&p.results, classify(model, &p, &paths));
done:
    cab_class_names_free(&p.names);
    cab_model_free(model);
    cab_backend_close(backend);
    cli_image_paths_free(&paths);
    return status;
}

static const cli_example examples[] = {
    {"cab classify vit-tiny photo.jpg", "the five likeliest classes of a picture"},
    {"cab classify runs/vim/student photos --on-error skip", "every picture in a folder, but for broken ones"},
    {"cab classify vit-tiny 'photos/*.png' --classes classes.tsv --json", "a pattern, names from a file, for a script"},
    {0}};

const cli_command cli_classify = {
    .name = "classify",
    .summary = "say what is on pictures",
    .synopsis = "MODEL IMAGE...",
    .description =
        "Prints the likeliest classes of every IMAGE, with their probabilities, as the model in directory MODEL, or "
        "the student of the run there, finds "
        "them. IMAGE is a JPEG or PNG file, a folder, or a pattern in quotes.\n\nThe names of the classes come from "
        "--classes, or from the model's directory: \"id2label\" in config.json, \"label_names\" of timm, or a file "
        "classes.tsv, classes.txt or imagenet1k_wnids.txt.",
    .examples = examples,
    .options = classify_table,
    .options_size = sizeof(struct classify_options),
    .operands_min = 2,
    .operands_max = UINT32_MAX,
    .run = run_classify,
};
