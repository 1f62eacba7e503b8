/* generate.c - cab generate: text from a teacher or a student, printed as it comes; several texts one after the other when all
 * have ended. */
#include "base/memory.h"
#include "base/thread.h"
#include "cli/command.h"
#include "data/buffer.h"
#include "models/model.h"

#include <stdio.h>
#include <string.h>

#define GENERATE_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                      \
    LIST(prompt, 'p', "TEXT", "text to continue; without one the model begins a document")                             \
    INT(samples, 'N', "N", 1, 1, 65536, "continuations of each prompt, generated together")                            \
    INT(max_tokens, 'n', "N", 128, 1, INT64_MAX, "tokens to generate at most")                                         \
    REAL(temperature, 't', "X", 0.8, 0, 100, "divides the logits; 0: always the most likely token")                    \
    INT(top_k, 'k', "N", 0, 0, UINT32_MAX, "sample among the N most likely tokens; 0: all")                            \
    REAL(top_p, 0, "X", 0.95, 0, 1, "sample among the most likely tokens that hold this much probability; 1: all")     \
    INT(seed, 's', "N", 1, 0, INT64_MAX, "seed of sampling: the same seed gives the same text")                        \
    BOOL(ignore_end, 0, "go on past the end-of-text token")                                                            \
    BOOL(no_echo, 0, "print only what the model adds, without the prompt")                                             \
    TEXT(device, 0, "NAME", "cpu", "cpu or cuda")                                                                      \
    ENUM(precision, 0, "NAME", 0, "auto|fp32|bf16", "numbers kept for activations and matrices")                       \
    INT(threads, 0, "N", 0, 0, 1024, "processor threads; 0: all this process may use")

struct generate_options {
    CAB_FIELDS(GENERATE_OPTIONS)
};
CAB_FLAG_TABLE(generate_table, struct generate_options, GENERATE_OPTIONS)

/* Where texts go: one to stdout at once, several here until they are complete. */
typedef struct texts {
    size_t count;
    cab_bytes *each;
    const char *prompt; /* of the only one, until it has been printed; NULL: not wanted */
    cab_status status;  /* of keeping them */
} texts;

static bool print_text(const char *text, size_t size)
{
    return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0;
}

/* The prompt goes first, once it is known to be one. */
static bool print_prompt(texts *t)
{
    const char *const prompt = t->prompt;
    t->prompt = NULL;
    return prompt == NULL || print_text(prompt, strlen(prompt));
}

static bool take_text(void *user, size_t index, const char *text, size_t size)
{
    texts *t = user;
    if (t->count == 1)
        return print_prompt(t) && print_text(text, size);
    if (t->status == CAB_OK)
        t->status = cab_bytes_append(&t->each[index], text, size);
    return t->status == CAB_OK;
}

/* Each with its prompt unless that is not wanted, an empty line between two. */
static void print_all(const texts *t, const char *const *prompts, size_t samples, bool echo)
{
    for (size_t i = 0; i < t->count; i++) {
        if (i > 0)
            print_text("\n", 1);
        if (echo)
            print_text(prompts[i / samples], strlen(prompts[i / samples]));
        print_text(t->each[i].data, t->each[i].count);
        print_text("\n", 1);
    }
}

static cab_status generate(cab_model *model, const struct generate_options *options)
{
    const cab_generate_options sampling = {.max_tokens = (uint64_t)options->max_tokens,
                                           .temperature = (float)options->temperature,
                                           .top_k = (uint32_t)options->top_k,
                                           .top_p = (float)options->top_p,
                                           .seed = (uint64_t)options->seed,
                                           .ignore_end = options->ignore_end};
    static const char *const none = "";
    const char *const *prompts = options->prompt.count > 0 ? (const char *const *)options->prompt.items : &none;
    const size_t n = options->prompt.count > 0 ? options->prompt.count : 1, samples = (size_t)options->samples;
    texts t = {.count = n * samples};
    cab_status status;
    CAB_TRY(CAB_NEW(&t.each, t.count, "texts"));
    t.prompt = t.count == 1 && !options->no_echo ? prompts[0] : NULL;
    CAB_GOTO(cab_generate_batch(model, n, prompts, (uint32_t)samples, &sampling, take_text, &t));
    CAB_GOTO(t.status);
    if (t.count == 1)
        (void)(print_prompt(&t) && print_text("\n", 1));
    else
        print_all(&t, prompts, samples, !options->no_echo);
done:
    for (size_t i = 0; i < t.count; i++)
        cab_bytes_free(&t.each[i]);
    cab_free(t.each);
    return status;
}

static cab_status run(const void *given, const cab_list *operands)
{
    const struct generate_options *options = given;
    const cab_precision precisions[] = {cab_precision_auto(options->device), CAB_PRECISION_FP32, CAB_PRECISION_BF16};
    cab_model *model = NULL;
    if (options->threads)
        cab_thread_limit((int)options->threads);
    CAB_TRY(cab_model_load_on(options->device, operands->items[0], precisions[options->precision], &model));
    cab_status status = generate(model, options);
    cab_model_free(model);
    return status;
}

static const cli_example examples[] = {
    {"cab generate runs/tales/student --prompt \"Once upon a time\"", "a story from a student"},
    {"cab generate examples/tales/teacher -p \"Lily saw\" --temperature 0", "the teacher's most likely continuation"},
    {"cab generate runs/tales/student -p \"Lily saw\" -p \"Tom ran\" -N 16 --device cuda",
     "32 texts in one batch, on a GPU"},
    {"cab generate runs/tales/student -n 1000 --ignore-end --seed 7", "a long text, in constant memory"},
    {0}};

const cli_command cli_generate = {
    .name = "generate",
    .summary = "continue a text with a teacher or a student",
    .synopsis = "MODEL",
    .description =
        "Loads the model in directory MODEL with its tokenizer, continues the prompt and prints the text as it is "
        "generated. Several prompts or samples are generated as one batch and printed when all have ended, with an "
        "empty "
        "line between two.\n\n"
        "A student needs the same memory and time for every token; a teacher keeps its keys and values and stops at "
        "its "
        "context.",
    .examples = examples,
    .options = generate_table,
    .options_size = sizeof(struct generate_options),
    .operands_min = 1,
    .operands_max = 1,
    .run = run,
};
