/* generate.c - text from prompts: every sample of every prompt is a row of one batch.
 *
 * Randomness is a function of (seed, sample, position in the continuation), so a text does not depend on what else is
 * generated beside it. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "data/tokenizer.h"
#include "models/model.h"
#include "train/decode.h"

#include <string.h>

cab_generate_options cab_generate_defaults(void)
{
    return (cab_generate_options){.max_tokens = 128, .temperature = 0.8f, .top_p = 0.95f, .seed = 1};
}

/* A text under way. */
typedef struct continuation {
    cab_decoder decoder;
    uint64_t count; /* tokens generated */
    bool ended;
} continuation;

/* What one call holds. */
typedef struct session {
    cab_model *model;
    const cab_generate_options *options;
    cab_texts_sink sink;
    void *user;
    cab_tokenizer *tokenizer;
    cab_decode *decode;
    cab_ids *prompts; /* of each prompt */
    size_t n_prompts, n_rows;
    cab_decode_row *rows;
    continuation *texts;
    int32_t *tokens; /* the next of each row */
    cab_bytes bytes;
    int32_t end;
} session;

/* A prompt's tokens; the end-of-text token, which also starts a text, where it has none. */
static cab_status encode(const session *s, const char *prompt, cab_ids *ids, bool *empty)
{
    CAB_TRY(cab_tokenizer_encode(s->tokenizer, prompt, strlen(prompt), ids));
    *empty = ids->count == 0;
    if (!*empty)
        return CAB_OK;
    if (s->end < 0)
        return cab_fail(CAB_EARG, "the prompt is empty and the tokenizer has no token to start from");
    return cab_ids_push(ids, s->end);
}

static cab_status open_rows(session *s, const char *const *prompts, uint32_t samples)
{
    s->n_rows = s->n_prompts * samples;
    CAB_TRY(CAB_NEW(&s->prompts, s->n_prompts, "prompts"));
    CAB_TRY(CAB_NEW(&s->rows, s->n_rows, "texts"));
    CAB_TRY(CAB_NEW(&s->texts, s->n_rows, "texts"));
    CAB_TRY(CAB_NEW(&s->tokens, s->n_rows, "texts"));
    for (size_t p = 0; p < s->n_prompts; p++) {
        bool empty;
        CAB_TRY(encode(s, prompts[p], &s->prompts[p], &empty));
        for (uint32_t k = 0; k < samples; k++) {
            const size_t row = p * samples + k;
            s->rows[row] = (cab_decode_row){s->prompts[p].data, s->prompts[p].count, (int32_t)k};
            cab_decoder_begin(&s->texts[row].decoder, s->tokenizer, empty);
        }
    }
    return CAB_OK;
}

static cab_status session_open(session *s, const char *const *prompts, uint32_t samples)
{
    char path[CAB_PATH_MAX];
    const cab_model *model = s->model;
    const cab_generate_options *o = s->options;
    const cab_sampling sampling = {
        .temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .seed = o->seed};
    if (s->n_prompts == 0 || samples == 0 || samples > INT32_MAX)
        return cab_fail(CAB_EARG, "%zu prompts with %u samples each: nothing to generate", s->n_prompts, samples);
    if (cab_model_reads_images(model))
        return cab_fail(CAB_EARG, "the model in %s reads images, expected one of text",
                        model->directory ? model->directory : "memory");
    if (model->directory == NULL)
        return cab_fail(CAB_EARG, "the model has no directory and so no tokenizer; save it first");
    CAB_TRY(cab_path_join(path, model->directory, "tokenizer.json"));
    CAB_TRY(cab_tokenizer_load(path, &s->tokenizer));
    CAB_TRY(cab_tokenizer_check_vocab(s->tokenizer, model->config.vocab_size, model->directory));
    s->end = cab_tokenizer_end_of_text(s->tokenizer);
    CAB_TRY(open_rows(s, prompts, samples));
    return cab_decode_new(model, s->rows, (int64_t)s->n_rows, &sampling, &s->decode);
}

static void session_close(session *s)
{
    cab_decode_free(s->decode);
    for (size_t i = 0; s->prompts != NULL && i < s->n_prompts; i++)
        cab_ids_free(&s->prompts[i]);
    cab_free(s->prompts);
    cab_free(s->rows);
    cab_free(s->texts);
    cab_free(s->tokens);
    cab_bytes_free(&s->bytes);
    cab_tokenizer_free(s->tokenizer);
}

/* Hands over the bytes decoded; a sink that has enough ends the text. */
static void hand_over(session *s, size_t row)
{
    if (s->bytes.count > 0 && !s->sink(s->user, row, s->bytes.data, s->bytes.count))
        s->texts[row].ended = true;
    s->bytes.count = 0;
}

static cab_status finish(session *s, size_t row)
{
    s->texts[row].ended = true;
    CAB_TRY(cab_decoder_finish(&s->texts[row].decoder, &s->bytes));
    hand_over(s, row);
    return CAB_OK;
}

/* What the last step drew for a row whose prompt is over. */
static cab_status take(session *s, size_t row)
{
    continuation *t = &s->texts[row];
    const int32_t token = s->tokens[row];
    if (t->ended || (size_t)cab_decode_position(s->decode) < s->rows[row].length)
        return CAB_OK;
    if (token == s->end && !s->options->ignore_end)
        return finish(s, row);
    size_t size = 0;
    if (cab_tokenizer_piece(s->tokenizer, token, &size) != NULL) /* else a row that pads the vocabulary: no text */
        CAB_TRY(cab_decoder_push(&t->decoder, token, &s->bytes));
    hand_over(s, row);
    if (!t->ended && ++t->count == s->options->max_tokens)
        return finish(s, row);
    return CAB_OK;
}

static bool all_ended(const session *s)
{
    for (size_t i = 0; i < s->n_rows; i++)
        if (!s->texts[i].ended)
            return false;
    return true;
}

/* While all rows are fed their prompts nobody looks at what comes. One text shows its progress by itself. */
static cab_status run(session *s)
{
    size_t shortest = SIZE_MAX, longest = 0;
    cab_progress progress;
    cab_status status = CAB_OK;
    for (size_t i = 0; i < s->n_rows; i++) {
        shortest = s->rows[i].length < shortest ? s->rows[i].length : shortest;
        longest = s->rows[i].length > longest ? s->rows[i].length : longest;
    }
    cab_progress_begin(&progress, "generating", "positions", 0, longest + s->options->max_tokens);
    while (!all_ended(s)) {
        if (cab_decode_full(s->decode) && (size_t)cab_decode_position(s->decode) >= longest) {
            cab_log_warn("stopped: the context of %d tokens is full", s->model->config.max_length);
            break;
        }
        CAB_GOTO(cab_decode_step(s->decode));
        if (s->n_rows > 1)
            cab_progress_update(&progress, (uint64_t)cab_decode_position(s->decode), "");
        if ((size_t)cab_decode_position(s->decode) < shortest)
            continue;
        CAB_GOTO(cab_decode_tokens(s->decode, s->tokens));
        for (size_t i = 0; i < s->n_rows; i++)
            CAB_GOTO(take(s, i));
    }
    for (size_t i = 0; i < s->n_rows; i++)
        if (!s->texts[i].ended)
            CAB_GOTO(finish(s, i));
done:
    cab_progress_end(&progress);
    return status;
}

cab_status cab_generate_batch(cab_model *model, size_t n, const char *const *prompts, uint32_t samples,
                              const cab_generate_options *options, cab_texts_sink sink, void *user)
{
    session s = {.model = model, .options = options, .sink = sink, .user = user, .n_prompts = n};
    cab_status status;
    CAB_GOTO(session_open(&s, prompts, samples));
    status = options->max_tokens > 0 ? run(&s) : CAB_OK;
done:
    session_close(&s);
    return status;
}

typedef struct one_sink {
    cab_text_sink sink;
    void *user;
} one_sink;

static bool pass_on(void *user, size_t row, const char *text, size_t size)
{
    const one_sink *one = user;
    (void)row;
    return one->sink(one->user, text, size);
}

cab_status cab_generate(cab_model *model, const char *prompt, const cab_generate_options *options, cab_text_sink sink,
                        void *user)
{
    one_sink one = {sink, user};
    return cab_generate_batch(model, 1, &prompt, 1, options, pass_on, &one);
}
