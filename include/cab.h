/* cab.h - the public interface of libcab: from a pretrained Transformer to a Mamba model that behaves like it.
 *
 * The whole journey is four calls: read a recipe (or start from a preset), distil, save, generate. examples/embed.c is
 * that journey in under 60 lines.
 *
 * Conventions.
 *  - Every function that can fail returns cab_status; cab_error_text() then holds one line saying which file, where in
 * it, what was found and what was expected. The text is per thread and lives until that thread's next failure.
 *  - Objects are opaque and owned by whoever received them; each has one _free, which accepts NULL.
 *  - Strings are UTF-8 and NUL-terminated. Sizes are in bytes, times in seconds, losses in nats per token.
 *  - The library never exits, never prints to stdout, and keeps no global state but the request of cab_distill_stop() and
 *    whether messages are silenced. Objects may be used from one thread at a time; distinct objects from distinct threads. */
#ifndef CAB_H
#define CAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CAB_VERSION "0.1.0"

/* name, value (also the exit code of the command-line tool), meaning */
#define CAB_STATUS_TABLE(X)                                                                                            \
    X(CAB_OK, 0, "success")                                                                                            \
    X(CAB_EARG, 2, "wrong argument or option")                                                                         \
    X(CAB_EIO, 3, "a file could not be read or written")                                                               \
    X(CAB_EFORMAT, 4, "a file is not what it should be")                                                               \
    X(CAB_EUNSUPPORTED, 5, "an architecture or feature is not supported")                                              \
    X(CAB_ENOMEM, 6, "not enough memory")                                                                              \
    X(CAB_ESHAPE, 7, "sizes do not fit together")                                                                      \
    X(CAB_ENUMERIC, 8, "a value is not finite")                                                                        \
    X(CAB_EBACKEND, 9, "a math library or device failed")                                                              \
    X(CAB_EINTERRUPTED, 130, "interrupted, state saved")

typedef enum cab_status {
#define CAB_STATUS_ENUM(name, value, text) name = value,
    CAB_STATUS_TABLE(CAB_STATUS_ENUM)
#undef CAB_STATUS_ENUM
} cab_status;

/* The sentence of this thread's last failure; "" before the first. */
const char *cab_error_text(void);
/* The meaning column of the table above. */
const char *cab_status_name(cab_status status);

/* ---- models ---------------------------------------------------------------------------------------------------- */

typedef struct cab_model cab_model;

/* Numbers kept for activations and matrix inputs. Master weights, statistics, states and losses are always fp32. */
typedef enum cab_precision {
    CAB_PRECISION_FP32,
    CAB_PRECISION_BF16,
    /* Together with one of the above, as `CAB_PRECISION_BF16 | CAB_PRECISION_AS_IS`: matrices that a .gguf file holds quantised stay so, and
     * are expanded to that precision where they are multiplied. Frozen models on the processor. */
    CAB_PRECISION_AS_IS
} cab_precision;

/* Loads a Hugging Face directory (config.json, model.safetensors or its sharded index), teacher or student. */
cab_status cab_model_load(const char *directory, cab_precision precision, cab_model **model);
/* The same on a device: "cpu", "cuda", "cuda:1". CAB_EBACKEND says why it cannot be had. */
cab_status cab_model_load_on(const char *device, const char *directory, cab_precision precision, cab_model **model);
/* Writes a Hugging Face-style directory that cab_model_load() accepts; the tokenizer the model came with is copied. An
 * existing model there is replaced file by file, each atomically. */
cab_status cab_model_save(const cab_model *model, const char *directory);
void cab_model_free(cab_model *model);

/* "gpt2", "phi", "phi-mamba" ... */
const char *cab_model_architecture(const cab_model *model);
uint64_t cab_model_parameters(const cab_model *model);

/* ---- recipes and distillation ----------------------------------------------------------------------------------- */

typedef struct cab_recipe cab_recipe;

/* A recipe holding the defaults of a method: "vanilla", "soft", "cab", "cab-joint", "weight-reuse", "cab-best". */
cab_status cab_recipe_preset(const char *method, cab_recipe **recipe);
/* Reads a YAML recipe. Unknown keys, wrong types and values out of range are errors naming file and line. */
cab_status cab_recipe_load(const char *path, cab_recipe **recipe);
/* Overrides one key by its dotted path: cab_recipe_set(r, "train.lr", "1e-3"). */
cab_status cab_recipe_set(cab_recipe *recipe, const char *key, const char *value);
/* Checks everything that can be known before training; a recipe that passes fails later only for its files. */
cab_status cab_recipe_validate(const cab_recipe *recipe);
void cab_recipe_free(cab_recipe *recipe);

/* What a run reached, measured on the validation data at its end. */
typedef struct cab_result {
    double loss;              /* cross-entropy, nats per token or image */
    double perplexity;        /* exp(loss); NaN for images */
    double kl;                /* KL(teacher || student), nats per token or image */
    double agreement;         /* fraction of tokens or images on which both models' most likely one is the same */
    double top1, top5;        /* fraction of images whose class is the likeliest, or among five; NaN for text */
    double tokens_per_second; /* training tokens, or images, over training time */
    double seconds;           /* wall time of the run, evaluation included */
    double peak_memory;       /* peak resident bytes of the process */
    uint64_t tokens;          /* or images, trained on */
    uint64_t steps;
} cab_result;

/* Runs the recipe to its end, or resumes it where its output directory stands. *student (may be NULL) receives the
 * trained model, without the bridge. CAB_EINTERRUPTED: cab_distill_stop() was called, as the tool does on SIGINT; the run can be resumed. */
cab_status cab_distill(const cab_recipe *recipe, cab_model **student, cab_result *result);
/* Asks the run of this process to checkpoint and return at the next step. Async-signal-safe. */
void cab_distill_stop(void);

/* ---- generation ------------------------------------------------------------------------------------------------ */

typedef struct cab_generate_options {
    uint64_t max_tokens;
    float temperature; /* 0: the most likely token */
    uint32_t top_k;    /* 0: all */
    float top_p;       /* 1: all */
    uint64_t seed;
    bool ignore_end; /* go on past the end-of-text token */
    float min_p;     /* among tokens that have at least this share of the likeliest's probability; 0: all */
    /* Divides positive logits of tokens that the text holds already, prompt included, and multiplies negative ones; 0 or 1:
     * none. */
    float repeat_penalty;
    const char *const *stop; /* a text ends before the first of these that appears in it; none is handed over */
    size_t stop_count;
    /* A prompt is what a user says: the model's chat template is put around it, and the text ends where an answer ends. */
    bool chat;
} cab_generate_options;

/* 128 tokens, temperature 0.8, no top-k, top-p 0.95, seed 1. */
cab_generate_options cab_generate_defaults(void);

/* Receives text as it is generated, in whole UTF-8 characters; return false to stop. */
typedef bool (*cab_text_sink)(void *user, const char *text, size_t size);

/* Continues `prompt` with the tokenizer the model came with. A student works in constant memory per token; a teacher
 * keeps its keys and values and is limited to its context. */
cab_status cab_generate(cab_model *model, const char *prompt, const cab_generate_options *options, cab_text_sink sink,
                        void *user);

/* The same, of several texts: text `index` continues prompt index / samples, as its sample number index % samples. Returning
 * false stops that text alone. */
typedef bool (*cab_texts_sink)(void *user, size_t index, const char *text, size_t size);

/* `samples` continuations of each of n prompts, all in one batch. A prompt's first sample is what cab_generate() gives, up to
 * the rounding of a batch's matrix products. */
cab_status cab_generate_batch(cab_model *model, size_t n, const char *const *prompts, uint32_t samples,
                              const cab_generate_options *options, cab_texts_sink sink, void *user);

#ifdef __cplusplus
}
#endif
#endif
