/* generate.c - decoding one token at a time: a graph of one step whose states stay in it.
 *
 * Randomness is a function of (seed, position), so a continuation does not depend on how it was requested. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/tokenizer.h"
#include "models/model.h"
#include "train/decode.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct cab_decode {
    const cab_model *model;
    cab_graph *graph;
    cab_tensor *ids, *position, *logits;
    void *raw;     /* logits as the model gives them */
    float *values; /* and as fp32 */
    int32_t count; /* tokens fed */
};

cab_status cab_decode_new(const cab_model *model, cab_decode **out)
{
    cab_decode *d = NULL;
    size_t vocab = (size_t)model->config.vocab_size;
    cab_status status;
    CAB_TRY(CAB_NEW(&d, 1, "a decoder"));
    d->model = model;
    CAB_GOTO(cab_graph_new(model->backend, &d->graph));
    d->ids = cab_graph_input(d->graph, "ids", CAB_I32, 2, (int64_t[]){1, 1});
    d->position = cab_graph_input(d->graph, "position", CAB_I32, 1, (int64_t[]){1});
    d->logits =
        cab_model_record_logits(d->graph, model, model->arch->record_step(d->graph, model, d->ids, d->position));
    cab_graph_keep(d->graph, d->logits);
    CAB_GOTO(CAB_NEW(&d->values, vocab, "logits"));
    CAB_GOTO(cab_alloc(&d->raw, vocab, sizeof(float), "logits"));
    status = cab_graph_plan(d->graph, NULL);
done:
    if (status != CAB_OK)
        cab_decode_free(d);
    else
        *out = d;
    return status;
}

void cab_decode_free(cab_decode *d)
{
    if (d == NULL)
        return;
    cab_graph_free(d->graph);
    cab_free(d->raw);
    cab_free(d->values);
    cab_free(d);
}

cab_status cab_decode_step(cab_decode *d, int32_t token, const float **logits)
{
    const cab_config *c = &d->model->config;
    if (d->model->arch->teacher && d->count >= c->max_length)
        return cab_fail(CAB_ESHAPE, "the model's context of %d tokens is full", c->max_length);
    CAB_TRY(cab_tensor_write(d->graph, d->ids, &token));
    CAB_TRY(cab_tensor_write(d->graph, d->position, &d->count));
    CAB_TRY(cab_graph_run(d->graph));
    CAB_TRY(cab_tensor_read(d->graph, d->logits, d->raw));
    cab_convert(d->values, CAB_F32, d->raw, d->logits->dtype, (size_t)c->vocab_size);
    if (d->count < INT32_MAX)
        d->count++;
    *logits = d->values;
    return CAB_OK;
}

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Probabilities of the sorted candidates that top-k and top-p leave; returns how many. */
static size_t keep_likely(candidate *c, size_t n, const cab_generate_options *o, double *total)
{
    double sum = 0, kept = 0;
    size_t limit = o->top_k > 0 && o->top_k < n ? o->top_k : n;
    const double largest = c[0].logit;
    for (size_t i = 0; i < limit; i++) {
        c[i].logit = (float)exp((c[i].logit - largest) / o->temperature);
        sum += c[i].logit;
    }
    size_t count = 0;
    while (count < limit && (count == 0 || kept < o->top_p * sum))
        kept += c[count++].logit;
    *total = kept;
    return count;
}

int32_t cab_sample(const float *logits, size_t n, const cab_generate_options *o, uint64_t position, void *scratch)
{
    candidate *c = scratch;
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        c[i] = (candidate){logits[i], (int32_t)i};
        if (logits[i] > logits[best])
            best = i;
    }
    if (o->temperature <= 0)
        return (int32_t)best;
    qsort(c, n, sizeof *c, by_logit);
    double total = 0;
    size_t count = keep_likely(c, n, o, &total);
    cab_random random = {.seed = o->seed, .stream = CAB_STREAM_SAMPLE, .index = position};
    double target = cab_random_uniform(&random) * total;
    size_t i = 0;
    while (i + 1 < count && target >= c[i].logit)
        target -= c[i++].logit;
    return c[i].id;
}

size_t cab_sample_scratch(size_t n)
{
    return n * sizeof(candidate);
}

cab_generate_options cab_generate_defaults(void)
{
    return (cab_generate_options){.max_tokens = 128, .temperature = 0.8f, .top_p = 0.95f, .seed = 1};
}

/* What one call of cab_generate() holds. */
typedef struct session {
    cab_tokenizer *tokenizer;
    cab_decode *decode;
    cab_ids prompt;
    cab_bytes text;
    void *scratch;
    int32_t end;
} session;

static cab_status session_open(session *s, cab_model *model, const char *prompt)
{
    char path[CAB_PATH_MAX];
    if (model->directory == NULL)
        return cab_fail(CAB_EARG, "the model has no directory and so no tokenizer; save it first");
    CAB_TRY(cab_path_join(path, model->directory, "tokenizer.json"));
    CAB_TRY(cab_tokenizer_load(path, &s->tokenizer));
    CAB_TRY(cab_tokenizer_check_vocab(s->tokenizer, model->config.vocab_size, model->directory));
    s->end = cab_tokenizer_end_of_text(s->tokenizer);
    CAB_TRY(cab_tokenizer_encode(s->tokenizer, prompt, strlen(prompt), &s->prompt));
    if (s->prompt.count == 0 && s->end < 0)
        return cab_fail(CAB_EARG, "the prompt is empty and the tokenizer has no token to start from");
    CAB_TRY(cab_alloc(&s->scratch, 1, cab_sample_scratch((size_t)model->config.vocab_size), "sampling"));
    return cab_decode_new(model, &s->decode);
}

static void session_close(session *s)
{
    cab_decode_free(s->decode);
    cab_ids_free(&s->prompt);
    cab_bytes_free(&s->text);
    cab_free(s->scratch);
    cab_tokenizer_free(s->tokenizer);
}

/* Feeds the prompt (or the end-of-text token, which also starts a text); logits of the token after it. */
static cab_status feed_prompt(session *s, const float **logits)
{
    if (s->prompt.count == 0)
        return cab_decode_step(s->decode, s->end, logits);
    for (size_t i = 0; i < s->prompt.count; i++)
        CAB_TRY(cab_decode_step(s->decode, s->prompt.data[i], logits));
    return CAB_OK;
}

static cab_status stream(session *s, const cab_model *model, const cab_generate_options *o, const float *logits,
                         cab_text_sink sink, void *user)
{
    cab_decoder decoder;
    cab_decoder_begin(&decoder, s->tokenizer, s->prompt.count == 0);
    for (uint64_t i = 0; i < o->max_tokens; i++) {
        int32_t token = cab_sample(logits, (size_t)model->config.vocab_size, o, i, s->scratch);
        if (token == s->end && !o->ignore_end)
            break;
        s->text.count = 0;
        CAB_TRY(cab_decoder_push(&decoder, token, &s->text));
        if (s->text.count > 0 && !sink(user, s->text.data, s->text.count))
            return CAB_OK;
        if (model->arch->teacher && s->decode->count >= model->config.max_length) {
            cab_log_warn("stopped: the context of %d tokens is full", model->config.max_length);
            break;
        }
        if (i + 1 < o->max_tokens)
            CAB_TRY(cab_decode_step(s->decode, token, &logits));
    }
    s->text.count = 0;
    CAB_TRY(cab_decoder_finish(&decoder, &s->text));
    if (s->text.count > 0)
        sink(user, s->text.data, s->text.count);
    return CAB_OK;
}

cab_status cab_generate(cab_model *model, const char *prompt, const cab_generate_options *options, cab_text_sink sink,
                        void *user)
{
    session s = {0};
    const float *logits = NULL;
    cab_status status;
    CAB_GOTO(session_open(&s, model, prompt));
    CAB_GOTO(feed_prompt(&s, &logits));
    status = stream(&s, model, options, logits, sink, user);
done:
    session_close(&s);
    return status;
}
