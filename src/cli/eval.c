/* eval.c - cab eval: perplexity and bits per byte of a model of text, accuracy of a model of images; KL and agreement
 * against a teacher. The model says which of both it is. */
#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "cli/command.h"
#include "cli/eval_images.h"
#include "cli/eval_tasks.h"
#include "cli/eval_writing.h"
#include "cli/find.h"
#include "cli/results.h"
#include "data/image_archive.h"
#include "models/model.h"
#include "train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WRITTEN_TEXTS = 8, WRITTEN_TOKENS = 1000 };

#define EVAL_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                          \
    LIST(data, 'd', "FILE",                                                                                            \
         "text: .txt, .jsonl, either compressed, or token files .npy, .bin; images: a folder of classes, an archive "  \
         "of it (.tar, .tar.xz, .zip ...), or a .csv list of path,class")                                              \
    TEXT(teacher, 't', "DIR", "", "teacher to compare with: adds KL and top-1 agreement")                              \
    TEXT(classes, 'c', "FILE", "", "images: class map; lines of label, name, class of the model, words between tabs")  \
    BOOL(per_class, 'p', "images: a line for every class")                                                             \
    INT(confusions, 0, "N", 10, 0, 1000000, "images: how many of the most confused pairs of classes to print")         \
    ENUM(on_error, 0, "WORD", 0, "stop|skip", "images that cannot be read")                                            \
    INT(max_member, 0, "MIB", 0, 0, 1 << 30, "what a member of an archive, or a document, may expand to; 0: 1024")     \
    INT(max_expanded, 0, "MIB", 0, 0, 1 << 30, "what a packed file may expand to in all; 0: 256 times its size")       \
    INT(image_size, 0, "N", 0, 0, 4096, "images: pixels of a side; 0: what the model was trained on")                  \
    BOOL(per_document, 0, "score each document alone; without it, windows over all documents joined")                  \
    INT(seq_len, 'l', "N", 0, 0, 1048576, "tokens per window; 0: the model's context")                                 \
    INT(batch, 'b', "N", 0, 0, 1048576, "windows at once; 0: about 4096 tokens, or 32 images")                         \
    INT(max_tokens, 'n', "N", 0, 0, INT64_MAX, "stop after so many tokens; 0: all")                                    \
    TEXT(                                                                                                              \
        task, 0, "NAMES", "",                                                                                          \
        "text: questions with known answers instead, by name or file, commas between them; --data is then the folder " \
        "of their data. recall and generation need none")                                                              \
    INT(items, 0, "N", 0, 0, INT64_MAX,                                                                                \
        "tasks: the first so many questions of each; 0: all, of recall 100; generation: texts; 0: 8")                  \
    REAL(temperature, 0, "X", 1, 0, 100, "generation: divides the logits")                                             \
    REAL(top_p, 0, "X", 1, 0, 1, "generation: sample among the most likely tokens that hold this much probability")    \
    INT(seed, 0, "N", 1, 0, INT64_MAX, "generation: seed of sampling")                                                 \
    TEXT(log_items, 0, "FILE", "", "tasks: write a JSON object for every question into this file")                     \
    TEXT(separator, 0, "TEXT", "<|endoftext|>", "line that ends a document in .txt files")                             \
    TEXT(text_field, 0, "NAME", "text", "field of .jsonl or .json, column of .csv, that holds the document")           \
    ENUM(loss_on, 0, "WORD", 0, "assistant|all", "conversations: which tokens are scored")                             \
    ENUM(bin_type, 0, "NAME", 0, "uint16|uint32", "element type of .bin token files")                                  \
    TEXT(cache, 0, "DIR", "", "token cache; without it $XDG_CACHE_HOME/cab or ~/.cache/cab")                           \
    ENUM(precision, 0, "NAME", 0, "auto|fp32|bf16|as-is",                                                              \
         "numbers kept for activations and matrices; as-is: matrices of a .gguf file stay as quantised as they are")   \
    TEXT(device, 0, "NAME", "cpu", "cpu or cuda")                                                                      \
    INT(threads, 0, "N", 0, 0, 1024, "processor threads; 0: all this process may use")                                 \
    TEXT(out, 'o', "FILE", "", CLI_OUT_HELP)                                                                           \
    BOOL(json, 'j', "print one JSON object")                                                                           \
    BOOL(quiet, 'q', "no messages but warnings")

struct eval_options {
    CAB_FIELDS(EVAL_OPTIONS)
};
CAB_FLAG_TABLE(eval_table, struct eval_options, EVAL_OPTIONS)

/* A number that was not measured is NAN, and left out. */
static void print_evaluation(const cab_evaluation *result, bool json, FILE *out)
{
    const struct {
        const char *key, *text;
        int digits;
        double value;
    } rows[] = {
        {"loss", "loss, nats per token", 4, result->loss},
        {"perplexity", "perplexity", 4, result->perplexity},
        {"bits_per_byte", "bits per byte", 4, result->bits_per_byte},
        {"kl", "KL(teacher || model), nats per token", 4, result->kl},
        {"agreement", "top-1 agreement with the teacher", 4, result->agreement},
        {"tokens", "tokens", 0, (double)result->tokens},
        {"documents", "documents", 0, (double)result->documents},
        {"seconds", "seconds", 2, result->seconds},
        {"tokens_per_second", "tokens per second", 0, result->tokens_per_second},
    };
    const char *before = "{";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!isfinite(rows[i].value))
            continue;
        if (json)
            fprintf(out, "%s\"%s\": %.9g", before, rows[i].key, rows[i].value);
        else
            fprintf(out, "%-38s%.*f\n", rows[i].text, rows[i].digits, rows[i].value);
        before = ", ";
    }
    if (json)
        fprintf(out, "}\n");
}

/* An option of the other kind of model, when it was given. */
struct foreign {
    bool given;
    const char *flag;
};

static cab_status refuse_foreign(const struct foreign *rows, size_t count, const char *model, const char *kind)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].given)
            return cab_fail(CAB_EARG, "%s does not go with %s, a model of %s", rows[i].flag, model, kind);
    return CAB_OK;
}

static bool ends_in_one_of(const char *path, const char *const *suffixes)
{
    size_t length = strlen(path);
    for (; *suffixes != NULL; suffixes++) {
        size_t n = strlen(*suffixes);
        if (length >= n && strcmp(path + length - n, *suffixes) == 0)
            return true;
    }
    return false;
}

/* ---- a model of images -------------------------------------------------------------------------------------------- */

static cab_status check_images(const struct eval_options *o, const char *model)
{
    static const char *const texts[] = {".txt",      ".jsonl",    ".txt.xz",    ".txt.gz", ".txt.zst", ".npy", ".bin",
                                        ".jsonl.xz", ".jsonl.gz", ".jsonl.zst", ".json",   ".txt.bz2", NULL};
    const struct foreign foreign[] = {{o->per_document, "--per-document"},  {o->seq_len != 0, "--seq-len"},
                                      {o->max_tokens != 0, "--max-tokens"}, {o->task[0] != '\0', "--task"},
                                      {o->items != 0, "--items"},           {o->log_items[0] != '\0', "--log-items"},
                                      {o->cache[0] != '\0', "--cache"}};
    CAB_TRY(refuse_foreign(foreign, sizeof foreign / sizeof *foreign, model, "images"));
    for (unsigned i = 0; i < o->data.count; i++)
        if (ends_in_one_of(o->data.items[i], texts))
            return cab_fail(CAB_EARG,
                            "%s: a file of text, %s is a model of images; expected a folder of classes, an archive of "
                            "it, or a .csv list",
                            o->data.items[i], model);
    return CAB_OK;
}

static cab_status eval_images(const struct eval_options *o, const char *model, cab_precision precision,
                              const cli_results *results)
{
    const cab_evaluate_images_options what = {.model = model,
                                              .teacher = o->teacher[0] ? o->teacher : NULL,
                                              .data = (const char *const *)o->data.items,
                                              .data_count = o->data.count,
                                              .classes = o->classes[0] ? o->classes : NULL,
                                              .on_error = o->on_error == 1 ? CAB_ON_ERROR_SKIP : CAB_ON_ERROR_STOP,
                                              .limits = cab_expand_limits_mib(o->max_member, o->max_expanded),
                                              .image_size = (int)o->image_size,
                                              .batch = (int)o->batch,
                                              .precision = precision,
                                              .device = o->device};
    const cli_image_table table = {o->json, o->per_class, (size_t)o->confusions, results};
    cab_image_evaluation result = {0};
    cab_classes classes = {0};
    CAB_TRY(check_images(o, model));
    cab_status status = cab_evaluate_images(&what, &result, &classes);
    if (status == CAB_OK)
        status = cli_print_images(&result, &classes, &table);
    if (status == CAB_OK && result.top1 < 1.0 / (double)result.classes)
        cab_log_warn("%s is worse than chance: top-1 %.2f %% of %zu classes", model, 100 * result.top1,
                     (size_t)result.classes);
    cab_image_evaluation_free(&result);
    cab_classes_free(&classes);
    return status;
}

/* ---- a model of text ---------------------------------------------------------------------------------------------- */

static cab_status check_text(const struct eval_options *o, const char *model)
{
    const struct foreign foreign[] = {{o->classes[0] != '\0', "--classes"},
                                      {o->per_class, "--per-class"},
                                      {o->image_size != 0, "--image-size"},
                                      {o->on_error != 0, "--on-error"}};
    CAB_TRY(refuse_foreign(foreign, sizeof foreign / sizeof *foreign, model, "text"));
    for (unsigned i = 0; i < o->data.count; i++) {
        const char *path = o->data.items[i];
        if (cab_archive_is_name(path) || cab_image_is_name(path))
            return cab_fail(CAB_EARG, "%s: holds images, %s is a model of text; expected text or token files", path,
                            model);
    }
    return CAB_OK;
}

static cab_status eval_text(const struct eval_options *o, const char *model, int words, cab_precision precision,
                            const cli_results *results)
{
    char cache[CAB_PATH_MAX];
    cab_evaluation result = {0};
    CAB_TRY(check_text(o, model));
    CAB_TRY(cli_cache_directory(o->cache, cache));
    const cab_evaluate_options what = {.model = model,
                                       .teacher = o->teacher[0] ? o->teacher : NULL,
                                       .files = (const char *const *)o->data.items,
                                       .files_count = o->data.count,
                                       .separator = o->separator,
                                       .text_field = o->text_field,
                                       .limits = cab_expand_limits_mib(o->max_member, o->max_expanded),
                                       .all_tokens = o->loss_on == 1,
                                       .bin_uint32 = o->bin_type == 1,
                                       .cache = cache,
                                       .seq_len = o->seq_len,
                                       .batch = o->batch,
                                       .per_document = o->per_document,
                                       .max_tokens = (uint64_t)o->max_tokens,
                                       .precision = precision,
                                       .device = o->device};
    CAB_TRY(cab_evaluate(&what, &result));
    if (result.perplexity > words)
        cab_log_warn("%s is worse than chance: perplexity %.0f with a vocabulary of %d", model, result.perplexity,
                     words);
    print_evaluation(&result, o->json, results->stream);
    return CAB_OK;
}

/* ---- tasks -------------------------------------------------------------------------------------------------------- */

static cab_status eval_tasks(const struct eval_options *o, const char *model, cab_precision precision,
                             const cli_results *results)
{
    const struct foreign foreign[] = {{o->per_document, "--per-document"},
                                      {o->seq_len != 0, "--seq-len"},
                                      {o->batch != 0, "--batch"},
                                      {o->max_tokens != 0, "--max-tokens"}};
    const cli_task_options options = {.tasks = o->task,
                                      .folders = &o->data,
                                      .items = (uint64_t)o->items,
                                      .log_items = o->log_items,
                                      .model = model,
                                      .teacher = o->teacher,
                                      .precision = precision,
                                      .device = o->device,
                                      .json = o->json};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (foreign[i].given)
            return cab_fail(CAB_EARG, "%s does not go with --task", foreign[i].flag);
    CAB_TRY(check_text(o, model));
    return cli_eval_tasks(&options, results);
}

/* What the model writes, -n tokens a text. */
static cab_status eval_writing(const struct eval_options *o, const char *model, cab_precision precision,
                               const cli_results *results)
{
    const cli_writing_options options = {
        .writing = {.texts = o->items > 0 ? (uint64_t)o->items : WRITTEN_TEXTS,
                    .tokens = o->max_tokens > 0 ? (uint64_t)o->max_tokens : WRITTEN_TOKENS,
                    .temperature = (float)o->temperature,
                    .top_p = (float)o->top_p,
                    .seed = (uint64_t)o->seed},
        .model = model,
        .teacher = o->teacher,
        .precision = precision,
        .device = o->device,
        .json = o->json};
    CAB_TRY(check_text(o, model));
    if (o->log_items[0] != '\0')
        return cab_fail(CAB_EARG, "--log-items does not go with --task " CLI_TASK_GENERATION);
    return cli_eval_writing(&options, results);
}

/* What is to be measured, and what goes with it alone. */
static cab_status check_kind(const struct eval_options *o, bool tasks, bool writing)
{
    if (o->data.count == 0 && !tasks)
        return cab_fail(CAB_EARG, "nothing to predict: give --data=FILE, or --task");
    if (!tasks && (o->items != 0 || o->log_items[0] != '\0'))
        return cab_fail(CAB_EARG, "%s goes with --task", o->items != 0 ? "--items" : "--log-items");
    if (!writing && (o->temperature_given || o->top_p_given || o->seed_given))
        return cab_fail(CAB_EARG, "%s goes with --task " CLI_TASK_GENERATION,
                        o->temperature_given ? "--temperature"
                        : o->top_p_given     ? "--top-p"
                                             : "--seed");
    return CAB_OK;
}

static cab_status run_eval(const void *given, const cab_list *operands)
{
    const struct eval_options *options = given;
    const cab_precision fitting = cab_precision_auto(options->device);
    const cab_precision precisions[] = {fitting, CAB_PRECISION_FP32, CAB_PRECISION_BF16, fitting | CAB_PRECISION_AS_IS};
    char model[CAB_PATH_MAX];
    cab_config sizes;
    cli_results results;
    const bool writing = strcmp(options->task, CLI_TASK_GENERATION) == 0;
    const bool tasks = options->task[0] != '\0';
    CAB_TRY(check_kind(options, tasks, writing));
    cab_log_quiet(options->quiet);
    if (options->threads)
        cab_thread_limit((int)options->threads);
    CAB_TRY(cli_find_model(operands->items[0], model));
    CAB_TRY(cab_model_sizes(model, &sizes));
    CAB_TRY(cli_results_open(&results, options->out));
    return cli_results_close(
        &results, sizes.image_size > 0 ? eval_images(options, model, precisions[options->precision], &results)
                  : writing            ? eval_writing(options, model, precisions[options->precision], &results)
                  : tasks              ? eval_tasks(options, model, precisions[options->precision], &results)
                          : eval_text(options, model, sizes.vocab_size, precisions[options->precision], &results));
}

static const cli_example examples[] = {
    {"cab eval runs/tales/student --data examples/tales/val.txt --teacher examples/tales/teacher",
     "how close a student came"},
    {"cab eval examples/tales/teacher --data examples/tales/val.txt --per-document --json",
     "one JSON object for a script"},
    {"cab eval vit-tiny --data val.tar.xz --classes classes.tsv --per-class",
     "a teacher of 1000 classes on images of 200 of them"},
    {"cab eval runs/a --task lambada,piqa,recall --data eval --teacher path/to/teacher",
     "tasks: how often each of both answers right"},
    {"cab eval runs/a --task generation --items 1 -n 100000 --teacher path/to/teacher",
     "does a long text stay as good as it began?"},
    {"cab eval runs/vim/student --data val --teacher vit-tiny --classes classes.tsv", "a student beside its teacher"},
    {0}};

const cli_command cli_eval = {
    .name = "eval",
    .summary = "measure a model on text or images, and against a teacher",
    .synopsis = "MODEL",
    .description =
        "Text: predicts the data with the model in directory MODEL, or the student of the run there, and prints "
        "cross-entropy, perplexity and bits per "
        "byte.\n\nImages: prints how often the right class comes first and among the first five, the loss, and the "
        "pairs "
        "of classes most often confused. All is counted among the classes of the data: a class map lets a model of "
        "more classes be measured on these. A map is needed only where the model has other classes than the data.\n\n"
        "With --task: accuracy on questions with known answers, with its standard error. A task is a small YAML file, "
        "found like a "
        "recipe in recipes/tasks; recall is drawn from the vocabulary: values found again by their keys, and a "
        "sequence "
        "that comes twice. --task generation lets the model write, and tells how likely its teacher finds that, how "
        "many of its sequences of 1 to 4 tokens are different, and how often it repeats itself, for every 10,000 "
        "tokens.\n\n"
        "With a teacher, also the KL divergence from it and how often both find the same token or class most likely.",
    .examples = examples,
    .options = eval_table,
    .options_size = sizeof(struct eval_options),
    .operands_min = 1,
    .operands_max = 1,
    .run = run_eval,
};
