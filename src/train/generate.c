/* generate.c - text from prompts: every sample of every prompt is a row of one batch.
 *
 * Randomness is a function of (seed, sample, position in the continuation), so a text does not depend on what else is
 * generated beside it. */
#include "train/generate.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "data/chat.h"
#include "data/text_bounds.h"
#include "train/decode.h"
#include "train/domain.h"

#include <inttypes.h>
#include <string.h>

cab_generate_options cab_generate_defaults(void)
{
    return (cab_generate_options){.max_tokens = 128, .temperature = 0.8f, .top_p = 0.95f, .seed = 1};
}

const char *cab_stop_word(cab_stop_reason reason)
{
#define STOP_WORD(name, word) word,
    static const char *const words[] = {CAB_STOP_REASONS(STOP_WORD)};
#undef STOP_WORD
    return words[reason];
}

/* A text under way. */
typedef struct continuation {
    cab_decoder decoder;
    cab_bytes held; /* what may be the beginning of a stop text */
    cab_generation account;
    bool ended;
} continuation;

/* What one call holds. */
typedef struct session {
    cab_model *model;
    const cab_generate_options *options;
    cab_texts_sink sink;
    void *user;
    cab_tokenizer *tokenizer;
    cab_chat *chat; /* options->chat: the model's template */
    cab_decode *decode;
    cab_ids *prompts; /* of each prompt */
    size_t n_prompts, n_rows;
    uint32_t first; /* the number of every prompt's first sample */
    cab_decode_row *rows;
    continuation *texts;
    int32_t *tokens; /* the next of each row */
    cab_ids *drawn;  /* gets what the only row draws; NULL: not wanted */
    double started;  /* when the first token could be drawn; 0: not yet */
    cab_text_bounds bounds;
} session;

/* A conversation for the model to answer. */
static cab_status encode_messages(const session *s, const cab_message *messages, size_t count, cab_ids *ids)
{
    cab_conversation text = {0};
    cab_status status = cab_chat_render(s->chat, messages, count, true, &text);
    if (status == CAB_OK)
        status = cab_tokenizer_encode(s->tokenizer, text.text.data, text.text.count, ids);
    cab_conversation_free(&text);
    return status;
}

/* A prompt as what a user says. */
static cab_status encode_turn(const session *s, const char *prompt, cab_ids *ids)
{
    return encode_messages(s, &(cab_message){CAB_CHAT_USER, prompt, strlen(prompt)}, 1, ids);
}

static cab_status check_ids(const session *s, const cab_ids *ids)
{
    for (size_t i = 0; i < ids->count; i++)
        CAB_TRY(cab_tokenizer_check_id(s->tokenizer, ids->data[i], s->model->config.vocab_size, "the prompt"));
    return CAB_OK;
}

/* The template, and the end of an answer as an end of texts. */
static cab_status open_chat(session *s)
{
    int32_t end;
    CAB_TRY(cab_chat_open(s->model->directory, s->tokenizer, s->model->config.vocab_size, &s->chat));
    if (cab_tokenizer_find(s->tokenizer, cab_chat_end(s->chat), &end) && !cab_text_bounds_ends(&s->bounds, end) &&
        s->bounds.ends_count < CAB_ENDS_MAX)
        s->bounds.ends[s->bounds.ends_count++] = end;
    return CAB_OK;
}

/* A prompt's tokens; the token that starts a text, where it has none. */
static cab_status encode(const session *s, const char *prompt, cab_ids *ids, bool *empty)
{
    CAB_TRY(s->chat != NULL ? encode_turn(s, prompt, ids)
                            : cab_tokenizer_encode(s->tokenizer, prompt, strlen(prompt), ids));
    CAB_TRY(check_ids(s, ids));
    *empty = ids->count == 0;
    if (!*empty)
        return CAB_OK;
    if (s->bounds.start < 0)
        return cab_fail(CAB_EARG, "the prompt is empty, and nothing in %s says which token starts a text",
                        s->model->directory);
    return cab_ids_push(ids, s->bounds.start);
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
            s->rows[row] = (cab_decode_row){s->prompts[p].data, s->prompts[p].count, (int32_t)(s->first + k)};
            s->texts[row].account.prompt_tokens = s->prompts[p].count;
            cab_decoder_begin(&s->texts[row].decoder, s->tokenizer, empty);
        }
    }
    return CAB_OK;
}

static cab_status open_decode(session *s)
{
    const cab_generate_options *o = s->options;
    const cab_sampling sampling = {.temperature = o->temperature,
                                   .top_k = o->top_k,
                                   .top_p = o->top_p,
                                   .seed = o->seed,
                                   .min_p = o->min_p,
                                   .repeat_penalty = o->repeat_penalty};
    return cab_decode_new(s->model, s->rows, (int64_t)s->n_rows, &sampling, &s->decode);
}

static cab_status session_open(session *s, const char *const *prompts, uint32_t samples)
{
    const cab_model *model = s->model;
    const cab_generate_options *o = s->options;
    if (s->n_prompts == 0 || samples == 0 || samples > INT32_MAX)
        return cab_fail(CAB_EARG, "%zu prompts with %u samples each: nothing to generate", s->n_prompts, samples);
    for (size_t i = 0; i < o->stop_count; i++)
        if (o->stop[i][0] == '\0')
            return cab_fail(CAB_EARG, "a stop text is empty");
    if (cab_domain_of(model) != &cab_domain_text)
        return cab_fail(CAB_EARG, "the model in %s reads images, expected one of text",
                        model->directory ? model->directory : "memory");
    if (model->directory == NULL)
        return cab_fail(CAB_EARG, "the model has no directory and so no tokenizer; save it first");
    CAB_TRY(cab_tokenizer_open(model->directory, &s->tokenizer));
    CAB_TRY(cab_tokenizer_check_vocab(s->tokenizer, model->config.vocab_size, model->directory));
    CAB_TRY(cab_text_bounds_load(model->directory, s->tokenizer, model->config.vocab_size, &s->bounds));
    if (o->chat)
        CAB_TRY(open_chat(s));
    CAB_TRY(open_rows(s, prompts, samples));
    return open_decode(s);
}

static void session_close(session *s)
{
    cab_decode_free(s->decode);
    for (size_t i = 0; s->prompts != NULL && i < s->n_prompts; i++)
        cab_ids_free(&s->prompts[i]);
    for (size_t i = 0; s->texts != NULL && i < s->n_rows; i++)
        cab_bytes_free(&s->texts[i].held);
    cab_free(s->prompts);
    cab_free(s->rows);
    cab_free(s->texts);
    cab_free(s->tokens);
    cab_chat_free(s->chat);
    cab_tokenizer_free(s->tokenizer);
}

/* ---- text goes out ------------------------------------------------------------------------------------------------- */

static void end_text(session *s, size_t row, cab_stop_reason reason)
{
    continuation *t = &s->texts[row];
    if (t->ended)
        return;
    t->ended = true;
    t->account.stop = reason;
    t->account.seconds = s->started > 0 ? cab_seconds() - s->started : 0;
}

/* Where the first of the stop texts begins in text[0..size); size where there is none. */
static size_t find_stop(const cab_generate_options *o, const char *text, size_t size)
{
    size_t first = size;
    for (size_t i = 0; i < o->stop_count; i++) {
        const size_t length = strlen(o->stop[i]);
        for (size_t at = 0; at < first && at + length <= size; at++)
            if (memcmp(text + at, o->stop[i], length) == 0)
                first = at;
    }
    return first;
}

/* How many bytes at the end of the text may be the beginning of a stop text. */
static size_t unsure(const cab_generate_options *o, const char *text, size_t size)
{
    size_t most = 0;
    for (size_t i = 0; i < o->stop_count; i++)
        for (size_t n = strlen(o->stop[i]) - 1; n > most; n--)
            if (n <= size && memcmp(text + size - n, o->stop[i], n) == 0)
                most = n;
    return most;
}

/* Hands over what is held but for its last `keep` bytes; a sink that has enough ends the text. */
static void hand_over(session *s, size_t row, size_t keep)
{
    cab_bytes *held = &s->texts[row].held;
    const size_t size = held->count - keep;
    if (size > 0 && !s->sink(s->user, row, held->data, size))
        end_text(s, row, CAB_STOP_SINK);
    if (size > 0 && keep > 0)
        memmove(held->data, held->data + size, keep);
    held->count = keep;
}

/* A stop text ends the text before it. */
static void release(session *s, size_t row)
{
    cab_bytes *held = &s->texts[row].held;
    const size_t at = find_stop(s->options, held->data, held->count);
    if (at == held->count) {
        hand_over(s, row, unsure(s->options, held->data, held->count));
        return;
    }
    held->count = at;
    hand_over(s, row, 0);
    end_text(s, row, CAB_STOP_TEXT);
}

static cab_status session_finish(session *s, size_t row, cab_stop_reason reason)
{
    continuation *t = &s->texts[row];
    CAB_TRY(cab_decoder_finish(&t->decoder, &t->held));
    if (t->held.count > 0)
        hand_over(s, row, 0);
    end_text(s, row, reason);
    return CAB_OK;
}

/* What the last step drew for a row whose prompt is over. */
static cab_status take(session *s, size_t row)
{
    continuation *t = &s->texts[row];
    const int32_t token = s->tokens[row];
    if (t->ended || (size_t)cab_decode_position(s->decode) < s->rows[row].length)
        return CAB_OK;
    if (s->drawn != NULL)
        CAB_TRY(cab_ids_push(s->drawn, token));
    if (cab_text_bounds_ends(&s->bounds, token) && !s->options->ignore_end)
        return session_finish(s, row, CAB_STOP_END);
    size_t size = 0;
    t->account.tokens++;
    if (cab_tokenizer_piece(s->tokenizer, token, &size) != NULL) /* else a row that pads the vocabulary: no text */
        CAB_TRY(cab_decoder_push(&t->decoder, token, &t->held));
    if (t->held.count > 0)
        release(s, row);
    if (!t->ended && t->account.tokens == s->options->max_tokens)
        return session_finish(s, row, CAB_STOP_LENGTH);
    return CAB_OK;
}

/* ---- steps ---------------------------------------------------------------------------------------------------------- */

static bool all_ended(const session *s)
{
    for (size_t i = 0; i < s->n_rows; i++)
        if (!s->texts[i].ended)
            return false;
    return true;
}

/* While all rows are fed their prompts nobody looks at what comes. One text shows its progress by itself. */
static cab_status session_run(session *s)
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
            cab_log_warn("%s: stopped: the context of %" PRId64 " tokens is full",
                         s->model->directory != NULL ? s->model->directory : s->model->arch->name,
                         s->model->network.step_length);
            break;
        }
        if (s->started == 0 && (size_t)cab_decode_position(s->decode) + 1 >= shortest)
            s->started = cab_seconds();
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
            CAB_GOTO(session_finish(s, i, CAB_STOP_CONTEXT));
done:
    cab_progress_end(&progress);
    return status;
}

cab_status cab_generate_samples(cab_model *model, size_t n, const char *const *prompts, uint32_t first,
                                uint32_t samples, const cab_generate_options *options, cab_texts_sink sink, void *user,
                                cab_generation *generations)
{
    session s = {.model = model, .options = options, .sink = sink, .user = user, .n_prompts = n, .first = first};
    cab_status status;
    CAB_GOTO(session_open(&s, prompts, samples));
    if (options->max_tokens > 0)
        CAB_GOTO(session_run(&s));
    for (size_t i = 0; generations != NULL && i < s.n_rows; i++)
        generations[i] = s.texts[i].account;
done:
    session_close(&s);
    return status;
}

cab_status cab_generate_texts(cab_model *model, size_t n, const char *const *prompts, uint32_t samples,
                              const cab_generate_options *options, cab_texts_sink sink, void *user,
                              cab_generation *generations)
{
    return cab_generate_samples(model, n, prompts, 0, samples, options, sink, user, generations);
}

cab_status cab_generate_batch(cab_model *model, size_t n, const char *const *prompts, uint32_t samples,
                              const cab_generate_options *options, cab_texts_sink sink, void *user)
{
    return cab_generate_texts(model, n, prompts, samples, options, sink, user, NULL);
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

/* ---- turns ---------------------------------------------------------------------------------------------------------- */

struct cab_dialogue {
    session session; /* of one row; opened by the first turn */
    one_sink sink;
    /* options->chat: what has been said, texts owned; the tokens that the model has read, and the last that it drew; its answer. */
    cab_message *messages;
    size_t count, capacity;
    cab_ids read;
    cab_bytes answer;
    cab_status status; /* of keeping the answer */
};

/* What the model says goes on, and is kept where the next turn repeats it. */
static bool take_answer(void *user, size_t row, const char *text, size_t size)
{
    cab_dialogue *d = user;
    if (d->session.options->chat && d->status == CAB_OK)
        d->status = cab_bytes_append(&d->answer, text, size);
    return d->status == CAB_OK && pass_on(&d->sink, row, text, size);
}

cab_status cab_dialogue_new(cab_model *model, const cab_generate_options *options, cab_dialogue **dialogue)
{
    CAB_TRY(CAB_NEW(dialogue, 1, "a dialogue"));
    cab_dialogue *d = *dialogue;
    d->session = (session){.model = model, .options = options, .sink = take_answer, .user = d, .n_prompts = 1};
    d->session.drawn = options->chat ? &d->read : NULL;
    return CAB_OK;
}

/* The model is fed the tokens from `first` on, but for the last one, which the next step takes. */
static cab_status read_on(session *s, const cab_ids *ids, size_t first)
{
    for (size_t i = first; i < ids->count; i++) {
        CAB_TRY(cab_decode_put(s->decode, &ids->data[i]));
        if (i + 1 < ids->count)
            CAB_TRY(cab_decode_step(s->decode));
    }
    return CAB_OK;
}

/* The model is fed the last token that it drew, unless that ended its text, and the words. */
static cab_status feed(session *s, const cab_ids *ids)
{
    if (s->texts[0].account.stop != CAB_STOP_END)
        CAB_TRY(cab_decode_step(s->decode));
    return read_on(s, ids, 0);
}

/* A new answer, after prompt_tokens more. */
static void begin_answer(session *s, size_t prompt_tokens)
{
    s->texts[0].account = (cab_generation){.prompt_tokens = prompt_tokens};
    s->texts[0].ended = false;
    s->texts[0].held.count = 0;
    s->started = 0;
    cab_decoder_begin(&s->texts[0].decoder, s->tokenizer, false);
}

static cab_status next_turn(session *s, const char *words)
{
    cab_ids ids = {0};
    cab_status status;
    CAB_GOTO(cab_tokenizer_encode(s->tokenizer, words, strlen(words), &ids));
    if (ids.count == 0) {
        status = cab_fail(CAB_EARG, "a turn without words");
        goto done;
    }
    CAB_GOTO(feed(s, &ids));
    begin_answer(s, ids.count);
done:
    cab_ids_free(&ids);
    return status;
}

/* ---- a conversation -------------------------------------------------------------------------------------------------- */

static cab_status add_message(cab_dialogue *d, cab_chat_role role, const char *text, size_t size)
{
    char *copy = NULL;
    CAB_TRY(CAB_GROW(&d->messages, &d->capacity, d->count + 1, "a conversation"));
    CAB_TRY(cab_alloc((void **)&copy, size + 1, 1, "a conversation"));
    if (size > 0)
        memcpy(copy, text, size);
    d->messages[d->count++] = (cab_message){role, copy, size};
    return CAB_OK;
}

/* The model reads all of it from the beginning. */
static cab_status read_anew(cab_dialogue *d, const cab_ids *ids)
{
    session *s = &d->session;
    s->prompts[0].count = 0;
    for (size_t i = 0; i < ids->count; i++)
        CAB_TRY(cab_ids_push(&s->prompts[0], ids->data[i]));
    s->rows[0] = (cab_decode_row){s->prompts[0].data, ids->count, (int32_t)(d->count / 2)};
    cab_decode_free(s->decode);
    s->decode = NULL;
    return open_decode(s);
}

/* The conversation as the template has it, all of it. What the model has read is mostly its beginning; not where a template changes what
 * has been said, or where an answer's text has other tokens than the model drew. */
static cab_status next_question(cab_dialogue *d)
{
    session *s = &d->session;
    const size_t read = (size_t)cab_decode_position(s->decode);
    cab_ids ids = {0};
    cab_status status;
    CAB_GOTO(encode_messages(s, d->messages, d->count, &ids));
    CAB_GOTO(check_ids(s, &ids));
    const bool begins =
        ids.count > read && read <= d->read.count && memcmp(ids.data, d->read.data, read * sizeof *ids.data) == 0;
    CAB_GOTO(begins ? read_on(s, &ids, read) : read_anew(d, &ids));
    begin_answer(s, begins ? ids.count - read : ids.count);
    cab_ids_free(&d->read);
    d->read = ids;
    return CAB_OK;
done:
    cab_ids_free(&ids);
    return status;
}

static cab_status chat_turn(cab_dialogue *d, const char *words)
{
    session *s = &d->session;
    CAB_TRY(add_message(d, CAB_CHAT_USER, words, strlen(words)));
    if (s->decode != NULL)
        return next_question(d);
    CAB_TRY(session_open(s, &words, 1));
    for (size_t i = 0; i < s->prompts[0].count; i++)
        CAB_TRY(cab_ids_push(&d->read, s->prompts[0].data[i]));
    return CAB_OK;
}

cab_status cab_dialogue_turn(cab_dialogue *dialogue, const char *words, cab_text_sink sink, void *user,
                             cab_generation *generation)
{
    session *s = &dialogue->session;
    dialogue->sink = (one_sink){sink, user};
    dialogue->answer.count = 0;
    if (s->options->chat)
        CAB_TRY(chat_turn(dialogue, words));
    else
        CAB_TRY(s->decode == NULL ? session_open(s, &words, 1) : next_turn(s, words));
    CAB_TRY(session_run(s));
    CAB_TRY(dialogue->status);
    *generation = s->texts[0].account;
    return s->options->chat ? add_message(dialogue, CAB_CHAT_ASSISTANT, dialogue->answer.data, dialogue->answer.count)
                            : CAB_OK;
}

void cab_dialogue_free(cab_dialogue *dialogue)
{
    if (dialogue == NULL)
        return;
    session_close(&dialogue->session);
    for (size_t i = 0; i < dialogue->count; i++)
        cab_free((void *)dialogue->messages[i].text);
    cab_free(dialogue->messages);
    cab_ids_free(&dialogue->read);
    cab_bytes_free(&dialogue->answer);
    cab_free(dialogue);
}
