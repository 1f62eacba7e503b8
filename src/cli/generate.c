/* generate.c - cab generate: text from a teacher or a student, printed as it comes; several texts one after the other when all
 * have ended; or in turns. */
#include "train/generate.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/thread.h"
#include "cli/command.h"
#include "cli/find.h"
#include "cli/prompts.h"
#include "cli/results.h"
#include "data/buffer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define GENERATE_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                      \
    LIST(prompt, 'p', "TEXT", "text to continue; without one the model begins a document")                             \
    LIST(file, 'f', "FILE", "the same, from a file; -: from standard input")                                           \
    BOOL(interactive, 'i',                                                                                             \
         "in turns: you write a line, the model goes on, until the input ends; with --chat: it answers")               \
    BOOL(chat, 'c', "the prompt is what a user says: put through the model's chat template, for an answer")            \
    INT(samples, 'N', "N", 1, 1, 65536, "continuations of each prompt, generated together")                            \
    INT(max_tokens, 'n', "N", 128, 1, INT64_MAX, "tokens to generate at most")                                         \
    LIST(stop, 0, "TEXT", "end a text before this appears in it")                                                      \
    REAL(temperature, 't', "X", 0.8, 0, 100, "divides the logits; 0: always the most likely token")                    \
    INT(top_k, 'k', "N", 0, 0, UINT32_MAX, "sample among the N most likely tokens; 0: all")                            \
    REAL(top_p, 0, "X", 0.95, 0, 1, "sample among the most likely tokens that hold this much probability; 1: all")     \
    REAL(min_p, 0, "X", 0, 0, 1, "and among tokens at least this share as likely as the likeliest; 0: all")            \
    REAL(repeat_penalty, 0, "X", 1, 0.01, 100,                                                                         \
         "divides positive logits of tokens that the text holds already, and multiplies negative ones; 1: none")       \
    INT(seed, 's', "N", -1, -1, INT64_MAX, "seed of sampling: the same seed gives the same text; -1: drawn, and said") \
    BOOL(ignore_end, 0, "go on past the end-of-text token")                                                            \
    BOOL(no_echo, 0, "print only what the model adds, without the prompt")                                             \
    TEXT(device, 0, "NAME", "cpu", "cpu or cuda")                                                                      \
    ENUM(precision, 0, "NAME", 0, "auto|fp32|bf16|as-is",                                                              \
         "numbers kept for activations and matrices; as-is, and auto on the processor: matrices of a .gguf file stay " \
         "as "                                                                                                         \
         "quantised as they are")                                                                                      \
    INT(threads, 0, "N", 0, 0, 1024, "processor threads; 0: all this process may use")                                 \
    TEXT(out, 'o', "FILE", "", CLI_OUT_HELP)                                                                           \
    BOOL(json, 'j', "print a JSON object a line, one for each text")                                                   \
    BOOL(quiet, 'q', "no messages but warnings")

struct generate_options {
    CAB_FIELDS(GENERATE_OPTIONS)
};
CAB_FLAG_TABLE(generate_table, struct generate_options, GENERATE_OPTIONS)

/* Where texts go: one to stdout at once, several here until they are complete. */
typedef struct texts {
    const cli_results *results;
    size_t count;
    cab_bytes *each;
    bool keep;          /* none is printed before its end */
    const char *prompt; /* of the only one, until it has been printed; NULL: not wanted */
    cab_status status;  /* of keeping them */
} texts;

/* The prompt goes first, once it is known to be one. */
static bool print_prompt(texts *t)
{
    const char *const prompt = t->prompt;
    t->prompt = NULL;
    return prompt == NULL || cli_results_put(t->results, prompt, strlen(prompt));
}

static bool take_text(void *user, size_t index, const char *text, size_t size)
{
    texts *t = user;
    if (!t->keep)
        return print_prompt(t) && cli_results_put(t->results, text, size);
    if (t->status == CAB_OK)
        t->status = cab_bytes_append(&t->each[index], text, size);
    return t->status == CAB_OK;
}

/* Each with its prompt unless that is not wanted, an empty line between two. */
static void print_all(const texts *t, char *const *prompts, size_t samples, bool echo)
{
    for (size_t i = 0; i < t->count; i++) {
        if (i > 0)
            cli_results_put(t->results, "\n", 1);
        if (echo)
            cli_results_put(t->results, prompts[i / samples], strlen(prompts[i / samples]));
        cli_results_put(t->results, t->each[i].data, t->each[i].count);
        cli_results_put(t->results, "\n", 1);
    }
}

static double rate(uint64_t tokens, double seconds)
{
    return seconds > 0 ? (double)tokens / seconds : 0;
}

static cab_status print_json(const cab_bytes *bytes, const char *prompt, size_t sample, uint64_t seed,
                             const cab_generation *g, FILE *out)
{
    char speed[CAB_FORMAT_MAX], *text = NULL;
    CAB_TRY(cab_alloc((void **)&text, bytes->count + 1, 1, "a text"));
    if (bytes->count > 0)
        memcpy(text, bytes->data, bytes->count);
    json_object *root = json_object_new_object();
    json_object_object_add(root, "prompt", cab_json_text(prompt));
    json_object_object_add(root, "text", cab_json_text(text));
    json_object_object_add(root, "prompt_tokens", json_object_new_int64((int64_t)g->prompt_tokens));
    json_object_object_add(root, "tokens", json_object_new_int64((int64_t)g->tokens));
    json_object_object_add(root, "seed", json_object_new_int64((int64_t)seed));
    json_object_object_add(root, "sample", json_object_new_int64((int64_t)sample));
    json_object_object_add(root, "stop", json_object_new_string(cab_stop_word(g->stop)));
    snprintf(speed, sizeof speed, "%.1f", rate(g->tokens, g->seconds));
    json_object_object_add(root, "tokens_per_second", json_object_new_double_s(rate(g->tokens, g->seconds), speed));
    fprintf(out, "%s\n",
            json_object_to_json_string_ext(root, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(root);
    cab_free(text);
    return CAB_OK;
}

/* "96 tokens in 0.5s, 192 tokens/s" */
static void log_speed(const cab_generation *generations, size_t count)
{
    char time[CAB_FORMAT_MAX];
    uint64_t tokens = 0;
    double seconds = 0;
    for (size_t i = 0; i < count; i++) {
        tokens += generations[i].tokens;
        seconds = generations[i].seconds > seconds ? generations[i].seconds : seconds;
    }
    cab_log_info("%" PRIu64 " tokens in %s, %.0f tokens/s", tokens, cab_format_seconds(seconds, time),
                 rate(tokens, seconds));
}

/* What the command line says about sampling. */
static cab_generate_options sampling_of(const struct generate_options *o, uint64_t seed)
{
    return (cab_generate_options){.max_tokens = (uint64_t)o->max_tokens,
                                  .temperature = (float)o->temperature,
                                  .top_k = (uint32_t)o->top_k,
                                  .top_p = (float)o->top_p,
                                  .seed = seed,
                                  .ignore_end = o->ignore_end,
                                  .min_p = (float)o->min_p,
                                  .repeat_penalty = (float)o->repeat_penalty,
                                  .stop = (const char *const *)o->stop.items,
                                  .stop_count = o->stop.count,
                                  .chat = o->chat};
}

/* ---- at once ------------------------------------------------------------------------------------------------------- */

static cab_status print_results(texts *t, const struct generate_options *options, const cab_list *prompts,
                                uint64_t seed, const cab_generation *generations)
{
    const size_t samples = (size_t)options->samples;
    if (options->json)
        for (size_t i = 0; i < t->count; i++)
            CAB_TRY(print_json(&t->each[i], prompts->items[i / samples], i % samples, seed, &generations[i],
                               t->results->stream));
    else if (t->keep)
        print_all(t, prompts->items, samples, !options->no_echo && !options->chat);
    else
        (void)(print_prompt(t) && cli_results_put(t->results, "\n", 1));
    log_speed(generations, t->count);
    return CAB_OK;
}

static cab_status generate(cab_model *model, const struct generate_options *options, const cab_list *prompts,
                           uint64_t seed, const cli_results *results)
{
    const cab_generate_options sampling = sampling_of(options, seed);
    const size_t n = prompts->count, samples = (size_t)options->samples;
    texts t = {.results = results, .count = n * samples, .keep = n * samples > 1 || options->json};
    cab_generation *generations = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&t.each, t.count, "texts"));
    CAB_GOTO(CAB_NEW(&generations, t.count, "texts"));
    t.prompt = t.keep || options->no_echo || options->chat ? NULL : prompts->items[0];
    CAB_GOTO(cab_generate_texts(model, n, (const char *const *)prompts->items, (uint32_t)samples, &sampling, take_text,
                                &t, generations));
    CAB_GOTO(t.status);
    status = print_results(&t, options, prompts, seed, generations);
done:
    for (size_t i = 0; i < t.count; i++)
        cab_bytes_free(&t.each[i]);
    cab_free(t.each);
    cab_free(generations);
    return status;
}

/* ---- in turns ------------------------------------------------------------------------------------------------------ */

static bool take_turn(void *user, const char *text, size_t size)
{
    return cli_results_put(user, text, size);
}

/* A line of standard input in *line, without its end; false where there is no more. */
static bool read_line(char **line, size_t *capacity)
{
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "> ");
    ssize_t size = getline(line, capacity, stdin);
    if (size > 0 && (*line)[size - 1] == '\n')
        (*line)[size - 1] = '\0';
    return size >= 0;
}

/* One turn after another in one text: every line begins on a line of its own. In a conversation an empty line says nothing. */
static cab_status turns(cab_model *model, const struct generate_options *options, uint64_t seed,
                        const cli_results *results)
{
    const cab_generate_options sampling = sampling_of(options, seed);
    cab_dialogue *dialogue = NULL;
    cab_generation g;
    cab_bytes words = {0};
    char *line = NULL;
    size_t capacity = 0;
    cab_status status;
    CAB_TRY(cab_dialogue_new(model, &sampling, &dialogue));
    for (bool first = true; read_line(&line, &capacity); first = false) {
        words.count = 0;
        if (options->chat && line[0] == '\0')
            continue;
        if (!first && !options->chat)
            CAB_GOTO(cab_bytes_append(&words, "\n", 1));
        CAB_GOTO(cab_bytes_append(&words, line, strlen(line) + 1));
        CAB_GOTO(cab_dialogue_turn(dialogue, words.data, take_turn, (void *)results, &g));
        cli_results_put(results, "\n", 1);
        log_speed(&g, 1);
    }
    status = ferror(stdin) ? cab_fail_errno(CAB_EIO, errno, "standard input: cannot be read") : CAB_OK;
done:
    free(line);
    cab_bytes_free(&words);
    cab_dialogue_free(dialogue);
    return status;
}

/* ---- the command --------------------------------------------------------------------------------------------------- */

/* The seed that was given, or one from the clock and the number of the process. */
static uint64_t choose_seed(const struct generate_options *options)
{
    uint32_t word[4];
    struct timespec now;
    if (options->seed >= 0)
        return (uint64_t)options->seed;
    clock_gettime(CLOCK_REALTIME, &now);
    cab_philox((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, CAB_STREAM_SAMPLE, (uint32_t)getpid(), 0,
               word);
    if (options->temperature > 0)
        cab_log_info("seed %" PRIu32 " (--seed %" PRIu32 " gives the same again)", word[0], word[0]);
    return word[0];
}

static cab_status check(const struct generate_options *o)
{
    if (o->interactive && (o->prompt.count > 0 || o->file.count > 0 || o->samples > 1 || o->json || o->out[0]))
        return cab_fail(CAB_EARG, "--interactive excludes --prompt, --file, --samples, --json and --out");
    for (unsigned i = 0; i < o->stop.count; i++)
        if (o->stop.items[i][0] == '\0')
            return cab_fail(CAB_EARG, "--stop: the text is empty");
    return CAB_OK;
}

static cab_status run_generate(const void *given, const cab_list *operands)
{
    const struct generate_options *options = given;
    const cab_precision fitting = cab_precision_auto(options->device);
    char directory[CAB_PATH_MAX];
    cab_model *model = NULL;
    cli_prompts prompts = {0};
    cli_results results;
    cab_status status;
    CAB_TRY(check(options));
    CAB_TRY(cli_find_model(operands->items[0], directory));
    const cab_precision precisions[] = {cab_precision_of_file(options->device, directory), CAB_PRECISION_FP32,
                                        CAB_PRECISION_BF16, fitting | CAB_PRECISION_AS_IS};
    cab_log_quiet(options->quiet);
    if (options->threads)
        cab_thread_limit((int)options->threads);
    if (!options->interactive)
        CAB_GOTO(cli_prompts_gather(&options->prompt, &options->file, &prompts));
    CAB_GOTO(cab_model_load_on(options->device, directory, precisions[options->precision], &model));
    const uint64_t seed = choose_seed(options);
    CAB_GOTO(cli_results_open(&results, options->out));
    status =
        cli_results_close(&results, options->interactive ? turns(model, options, seed, &results)
                                                         : generate(model, options, &prompts.texts, seed, &results));
done:
    cab_model_free(model);
    cli_prompts_free(&prompts);
    return status;
}

static const cli_example examples[] = {
    {"cab generate runs/tales/student --prompt \"Once upon a time\"", "a story from a student"},
    {"cab generate examples/tales/teacher -p \"Lily saw\" --temperature 0", "the teacher's most likely continuation"},
    {"cab generate runs/tales/student -p \"Lily saw\" -p \"Tom ran\" -N 16 --device cuda",
     "32 texts in one batch, on a GPU"},
    {"cab generate runs/tales/student -n 1000 --ignore-end --seed 7", "a long text, in constant memory"},
    {"cab generate runs/tales/student -f opening.txt --stop 'The end' --json", "from a file, for a script"},
    {"cab generate smollm2.gguf --chat -p \"What is the capital of France?\"", "an answer"},
    {"cab generate runs/tales/student -i", "in turns: type a line, read on"},
    {"cab generate smollm2.gguf --chat -i", "a conversation"},
    {0}};

const cli_command cli_generate = {
    .name = "generate",
    .summary = "continue a text with a teacher or a student",
    .synopsis = "MODEL",
    .description =
        "Loads the model in directory MODEL, or the student of the run there, with its tokenizer, continues the prompt "
        "and prints the text as it is "
        "generated. Several prompts or samples are generated as one batch and printed when all have ended, with an "
        "empty "
        "line between two. Without --prompt and --file, a pipe or a file on standard input is the prompt.\n\n"
        "With --json: prompt, text, prompt_tokens, tokens, seed, sample, stop (length, end, stop, context), "
        "tokens_per_second.\n\n"
        "A student needs the same memory and time for every token; a teacher keeps its keys and values and stops at "
        "its "
        "context.",
    .examples = examples,
    .options = generate_table,
    .options_size = sizeof(struct generate_options),
    .operands_min = 1,
    .operands_max = 1,
    .run = run_generate,
};
