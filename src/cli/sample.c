/* sample.c - cab sample: a corpus that a model writes, for those who have none. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "cli/command.h"
#include "cli/find.h"
#include "models/model.h"
#include "train/corpus.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const size_t PROMPTS_MAX = (size_t)256 << 20;

#define SAMPLE_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                        \
    INT(count, 'N', "N", 1000, 1, INT64_MAX, "texts of the whole file")                                                \
    TEXT(out, 'o', "FILE", "", "file of JSON lines; one that is there is gone on with")                                \
    ENUM(kind, 0, "WORD", 0, "plain|answers|turns",                                                                    \
         "plain text; answers to the prompts through the chat template; both turns, the questions written by the "     \
         "model too")                                                                                                  \
    TEXT(prompts, 'f', "FILE", "", "a prompt a line; taken in turn, from the first again behind the last")             \
    INT(max_tokens, 'n', "N", 512, 1, INT64_MAX, "tokens of a text at most")                                           \
    INT(batch, 'b', "N", 64, 1, 65536, "texts at once")                                                                \
    REAL(temperature, 't', "X", 1, 0, 100, "divides the logits")                                                       \
    INT(top_k, 'k', "N", 0, 0, UINT32_MAX, "sample among the N most likely tokens; 0: all")                            \
    REAL(top_p, 0, "X", 1, 0, 1, "sample among the most likely tokens that hold this much probability; 1: all")        \
    INT(seed, 's', "N", 1, 0, INT64_MAX, "seed of sampling")                                                           \
    ENUM(precision, 0, "NAME", 0, "auto|fp32|bf16", "numbers kept for activations and matrices")                       \
    TEXT(device, 0, "NAME", "cpu", "cpu or cuda")                                                                      \
    INT(threads, 0, "N", 0, 0, 1024, "processor threads; 0: all this process may use")                                 \
    BOOL(quiet, 'q', "no messages but warnings")

struct sample_options {
    CAB_FIELDS(SAMPLE_OPTIONS)
};
CAB_FLAG_TABLE(sample_table, struct sample_options, SAMPLE_OPTIONS)

/* The lines of the file that are not empty; *text owns them. */
static cab_status read_prompts(const char *path, char **text, cab_list *prompts)
{
    size_t size, lines = 1;
    if (path[0] == '\0')
        return CAB_OK;
    CAB_TRY(cab_file_read_text(path, PROMPTS_MAX, text, &size));
    if (strlen(*text) != size)
        return cab_fail(CAB_EFORMAT, "%s: a zero byte at offset %zu, expected a prompt a line", path, strlen(*text));
    for (size_t i = 0; i < size; i++)
        lines += (*text)[i] == '\n';
    CAB_TRY(CAB_NEW(&prompts->items, lines, "prompts"));
    for (char *at = *text; *at != '\0';) {
        char *line = at;
        at += strcspn(at, "\n");
        at += *at == '\n' ? (*at = '\0', 1) : 0;
        line[strcspn(line, "\r")] = '\0';
        if (line[0] != '\0')
            prompts->items[prompts->count++] = line;
    }
    return prompts->count > 0 ? CAB_OK : cab_fail(CAB_EFORMAT, "%s: holds no prompt", path);
}

static cab_status run_sample(const void *given, const cab_list *operands)
{
    const struct sample_options *o = given;
    const cab_precision precisions[] = {cab_precision_auto(o->device), CAB_PRECISION_FP32, CAB_PRECISION_BF16};
    char directory[CAB_PATH_MAX], time[CAB_FORMAT_MAX], *text = NULL;
    cab_model *model = NULL;
    cab_list prompts = {0};
    cab_corpus_result result;
    cab_status status;
    if (o->out[0] == '\0')
        return cab_fail(CAB_EARG, "where to? give --out=FILE");
    cab_log_quiet(o->quiet);
    if (o->threads)
        cab_thread_limit((int)o->threads);
    CAB_GOTO(cli_find_model(operands->items[0], directory));
    CAB_GOTO(read_prompts(o->prompts, &text, &prompts));
    CAB_GOTO(cab_model_load_on(o->device, directory, precisions[o->precision], &model));
    const cab_corpus_options options = {.kind = (cab_corpus_kind)o->kind,
                                        .count = (uint64_t)o->count,
                                        .prompts = &prompts,
                                        .batch = (uint64_t)o->batch,
                                        .sampling = {.max_tokens = (uint64_t)o->max_tokens,
                                                     .temperature = (float)o->temperature,
                                                     .top_k = (uint32_t)o->top_k,
                                                     .top_p = (float)o->top_p,
                                                     .seed = (uint64_t)o->seed,
                                                     .chat = o->kind == CAB_CORPUS_ANSWERS}};
    CAB_GOTO(cab_corpus_write(model, &options, o->out, &result));
    cab_log_info("%s: %" PRIu64 " texts were there, %" PRIu64 " written: %" PRIu64 " tokens in %s, %.0f tokens/s",
                 o->out, result.found, result.written, result.tokens, cab_format_seconds(result.seconds, time),
                 result.seconds > 0 ? (double)result.tokens / result.seconds : 0);
done:
    cab_model_free(model);
    cab_free(prompts.items);
    cab_free(text);
    return status;
}

static const cli_example examples[] = {
    {"cab sample smollm2.gguf --count 100000 --out corpus.jsonl --device cuda", "a corpus to distil on"},
    {"cab sample smollm2.gguf --kind turns --count 20000 --out talk.jsonl --device cuda --batch 256",
     "questions and answers, both written by an instruct model"},
    {"cab sample smollm2.gguf --kind answers --prompts questions.txt --count 5000 --out answers.jsonl",
     "answers to questions of your own"},
    {0}};

const cli_command cli_sample = {
    .name = "sample",
    .summary = "let a teacher write a corpus to distil it on",
    .synopsis = "MODEL",
    .description =
        "Lets the model in directory MODEL, or the student of the run there, write texts from its own beginning of "
        "texts, many at a time, and appends them to a file of JSON lines that cab distill --train reads as it is.\n\n"
        "It may be killed at any moment: the same command goes on where the file ends. Text number i depends on the "
        "model, the options and i alone.",
    .examples = examples,
    .options = sample_table,
    .options_size = sizeof(struct sample_options),
    .operands_min = 1,
    .operands_max = 1,
    .run = run_sample,
};
