/* eval.c - cab eval: perplexity and bits per byte of a model, KL and agreement against a teacher. */
#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "cli/command.h"
#include "models/model.h"
#include "train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define EVAL_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                          \
    LIST(data, 'd', "FILE", "text to predict: .txt, .jsonl, either compressed, or token files .npy, .bin")             \
    TEXT(teacher, 't', "DIR", "", "teacher to compare with: adds KL and top-1 agreement")                              \
    BOOL(per_document, 0, "score each document alone; without it, windows over all documents joined")                  \
    INT(seq_len, 'l', "N", 0, 0, 1048576, "tokens per window; 0: the model's context")                                 \
    INT(batch, 'b', "N", 0, 0, 1048576, "windows at once; 0: about 4096 tokens")                                       \
    INT(max_tokens, 'n', "N", 0, 0, INT64_MAX, "stop after so many tokens; 0: all")                                    \
    TEXT(separator, 0, "TEXT", "<|endoftext|>", "line that ends a document in .txt files")                             \
    TEXT(text_field, 0, "NAME", "text", "field of .jsonl lines that holds the document")                               \
    ENUM(bin_type, 0, "NAME", 0, "uint16|uint32", "element type of .bin token files")                                  \
    TEXT(cache, 0, "DIR", "", "token cache; without it $XDG_CACHE_HOME/cab or ~/.cache/cab")                           \
    ENUM(precision, 0, "NAME", 0, "auto|fp32|bf16", "numbers kept for activations and matrices")                       \
    TEXT(device, 0, "NAME", "cpu", "cpu or cuda")                                                                      \
    INT(threads, 0, "N", 0, 0, 1024, "processor threads; 0: all this process may use")                                 \
    BOOL(json, 'j', "print one JSON object")                                                                           \
    BOOL(quiet, 'q', "no messages but warnings")

struct eval_options {
    CAB_FIELDS(EVAL_OPTIONS)
};
CAB_FLAG_TABLE(eval_table, struct eval_options, EVAL_OPTIONS)

static cab_status cache_directory(const struct eval_options *options, char out[CAB_PATH_MAX])
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (options->cache[0])
        return cab_path_join(out, options->cache, ".");
    if (cache && cache[0])
        return cab_path_join(out, cache, "cab");
    if (home && home[0])
        return cab_path_join(out, home, ".cache/cab");
    return cab_fail(CAB_EARG, "neither XDG_CACHE_HOME nor HOME is set: give --cache=DIR");
}

/* A number that was not measured is NAN, and left out. */
static void print_evaluation(const cab_evaluation *result, bool json)
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
            printf("%s\"%s\": %.9g", before, rows[i].key, rows[i].value);
        else
            printf("%-38s%.*f\n", rows[i].text, rows[i].digits, rows[i].value);
        before = ", ";
    }
    if (json)
        printf("}\n");
}

static cab_status run(const void *given, const cab_list *operands)
{
    const struct eval_options *options = given;
    const cab_precision precisions[] = {cab_precision_auto(), CAB_PRECISION_FP32, CAB_PRECISION_BF16};
    char cache[CAB_PATH_MAX];
    cab_evaluation result = {0};
    if (options->data.count == 0)
        return cab_fail(CAB_EARG, "nothing to predict: give --data=FILE");
    CAB_TRY(cache_directory(options, cache));
    cab_evaluate_options what = {.model = operands->items[0],
                                 .teacher = options->teacher[0] ? options->teacher : NULL,
                                 .files = (const char *const *)options->data.items,
                                 .files_count = options->data.count,
                                 .separator = options->separator,
                                 .text_field = options->text_field,
                                 .bin_uint32 = options->bin_type == 1,
                                 .cache = cache,
                                 .seq_len = options->seq_len,
                                 .batch = options->batch,
                                 .per_document = options->per_document,
                                 .max_tokens = (uint64_t)options->max_tokens,
                                 .precision = precisions[options->precision],
                                 .device = options->device};
    cab_log_quiet(options->quiet);
    if (options->threads)
        cab_thread_limit((int)options->threads);
    CAB_TRY(cab_evaluate(&what, &result));
    print_evaluation(&result, options->json);
    return CAB_OK;
}

static const cli_example examples[] = {
    {"cab eval runs/tales/student --data examples/tales/val.txt --teacher examples/tales/teacher",
     "how close a student came"},
    {"cab eval examples/tales/teacher --data examples/tales/val.txt --per-document --json",
     "one JSON object for a script"},
    {0}};

const cli_command cli_eval = {
    .name = "eval",
    .summary = "measure a model on text, and against a teacher",
    .synopsis = "MODEL",
    .description = "Predicts the text in the data files with the model in directory MODEL and prints cross-entropy, "
                   "perplexity and bits per byte. With a teacher, also the KL divergence from it and how often both "
                   "models find the same next token most likely.",
    .examples = examples,
    .options = eval_table,
    .options_size = sizeof(struct eval_options),
    .operands_min = 1,
    .operands_max = 1,
    .run = run,
};
