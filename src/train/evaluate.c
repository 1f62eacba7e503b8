/* evaluate.c - rows of at most seq_len tokens, each a window of the joined text or a piece of one document. */
#include "train/evaluate.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "data/dataset.h"
#include "data/text_bounds.h"
#include "distill/objective.h"
#include "ops/backends.h"
#include "train/domain.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_TOKENS = 4096 };

typedef struct evaluator {
    const cab_evaluate_options *options;
    cab_backend *backend;
    cab_model *model, *teacher;
    cab_tokenizer *tokenizer;
    cab_chat *chat;
    cab_dataset *dataset;
    cab_objective *objective;
    cab_text_bounds bounds;
    uint64_t seq_len, batch;
    int32_t *ids, *labels, *valid;
    uint64_t document, position; /* per_document: where the next row begins */
    uint64_t window;             /* windowed: likewise */
    double ce, kl, agreement;    /* sums over tokens */
    uint64_t tokens;
} evaluator;

static cab_status evaluator_open_models(evaluator *e)
{
    const cab_evaluate_options *o = e->options;
    CAB_TRY(cab_backend_open(o->device != NULL ? o->device : "cpu", &e->backend));
    CAB_TRY(cab_model_open(o->model, e->backend, o->precision, false, &e->model));
    if (cab_domain_of(e->model) != &cab_domain_text)
        return cab_fail(CAB_EARG, "%s: reads %s, the data is text", o->model, cab_domain_of(e->model)->recipes->name);
    e->seq_len = o->seq_len > 0 ? (uint64_t)o->seq_len : (uint64_t)e->model->config.max_length;
    if (cab_network_bounded(&e->model->network) && e->seq_len > (uint64_t)e->model->config.max_length)
        return cab_fail(CAB_ESHAPE, "%s: takes at most %d tokens, the window is %" PRIu64, o->model,
                        e->model->config.max_length, e->seq_len);
    if (o->teacher == NULL)
        return CAB_OK;
    CAB_TRY(cab_model_open(o->teacher, e->backend, o->precision, false, &e->teacher));
    if (cab_domain_of(e->teacher) != &cab_domain_text)
        return cab_fail(CAB_EARG, "%s: reads %s, %s reads text", o->teacher, cab_domain_of(e->teacher)->recipes->name,
                        o->model);
    if (e->teacher->config.vocab_size != e->model->config.vocab_size)
        return cab_fail(CAB_ESHAPE, "%s: vocabulary of %d, %s has %d", o->teacher, e->teacher->config.vocab_size,
                        o->model, e->model->config.vocab_size);
    if (cab_network_bounded(&e->teacher->network) && e->seq_len > (uint64_t)e->teacher->config.max_length)
        return cab_fail(CAB_ESHAPE, "%s: takes at most %d tokens, the window is %" PRIu64, o->teacher,
                        e->teacher->config.max_length, e->seq_len);
    return CAB_OK;
}

static cab_status evaluator_open_data(evaluator *e)
{
    const cab_evaluate_options *o = e->options;
    CAB_TRY(cab_tokenizer_open(o->model, &e->tokenizer));
    CAB_TRY(cab_tokenizer_check_vocab(e->tokenizer, e->model->config.vocab_size, o->model));
    CAB_TRY(cab_text_bounds_load(o->model, e->tokenizer, e->model->config.vocab_size, &e->bounds));
    CAB_TRY(cab_chat_open(o->model, e->tokenizer, e->model->config.vocab_size, &e->chat));
    cab_dataset_options options = {.tokenizer = e->tokenizer,
                                   .chat = e->chat,
                                   .answers_only = !o->all_tokens,
                                   .separator = o->separator,
                                   .text_field = o->text_field,
                                   .limits = o->limits,
                                   .cache = o->cache,
                                   .bin_type = o->bin_uint32 ? CAB_TOKEN_U32 : CAB_TOKEN_U16,
                                   .vocab_size = e->model->config.vocab_size,
                                   .end_id = cab_text_bounds_separator(&e->bounds),
                                   .fraction = 1};
    return cab_dataset_open(o->files, o->files_count, &options, &e->dataset);
}

static cab_status open_graph(evaluator *e)
{
    e->batch = e->options->batch > 0 ? (uint64_t)e->options->batch : (BATCH_TOKENS + e->seq_len - 1) / e->seq_len;
    size_t n = (size_t)(e->batch * e->seq_len);
    cab_objective_options options = {.batch = (int64_t)e->batch, .seq_len = (int64_t)e->seq_len, .temperature = 1};
    CAB_TRY(CAB_NEW(&e->ids, n, "a batch"));
    CAB_TRY(CAB_NEW(&e->labels, n, "a batch"));
    CAB_TRY(CAB_NEW(&e->valid, n, "a batch"));
    CAB_TRY(cab_objective_new(e->backend, e->model, e->teacher, NULL, &options, &e->objective));
    return cab_objective_plan(e->objective, NULL);
}

/* The next piece of the current document: it is predicted from the token that starts a text, or, without one, from its own
 * first token. False when no document is left. */
static bool next_document_row(evaluator *e, int32_t *ids, int32_t *labels)
{
    const uint64_t lead = e->bounds.start >= 0 ? 0 : 1; /* tokens that nothing predicts */
    while (e->document < cab_dataset_documents(e->dataset) &&
           e->position + lead >= cab_dataset_document_tokens(e->dataset, e->document)) {
        e->document++;
        e->position = 0;
    }
    if (e->document >= cab_dataset_documents(e->dataset))
        return false;
    uint64_t left = cab_dataset_document_tokens(e->dataset, e->document) - e->position - lead;
    uint64_t n = left < e->seq_len ? left : e->seq_len;
    cab_dataset_document_labels(e->dataset, e->document, e->position + lead, n, labels);
    if (lead == 0 && e->position == 0) {
        ids[0] = e->bounds.start;
        cab_dataset_document_copy(e->dataset, e->document, 0, n - 1, ids + 1);
    } else {
        cab_dataset_document_copy(e->dataset, e->document, e->position + lead - 1, n, ids);
    }
    e->position += n;
    return true;
}

static bool next_row(evaluator *e, int32_t *ids, int32_t *labels)
{
    if (e->options->per_document)
        return next_document_row(e, ids, labels);
    if (e->window >= cab_dataset_eval_windows(e->dataset, e->seq_len))
        return false;
    cab_dataset_eval_window(e->dataset, e->seq_len, e->window++, ids, labels);
    return true;
}

/* Fills the batch, as far as max_tokens goes; returns the number of tokens in it that are predicted. */
static uint64_t load_batch(evaluator *e)
{
    const uint64_t n = e->batch * e->seq_len, limit = e->options->max_tokens;
    const uint64_t left = limit > 0 ? limit - e->tokens : UINT64_MAX;
    uint64_t labelled = 0;
    for (uint64_t i = 0; i < n; i++) {
        e->ids[i] = 0;
        e->labels[i] = -1;
    }
    for (uint64_t row = 0; row < e->batch; row++)
        if (!next_row(e, e->ids + row * e->seq_len, e->labels + row * e->seq_len))
            break;
    for (uint64_t i = 0; i < n; i++) {
        if (labelled == left)
            e->labels[i] = -1;
        e->valid[i] = e->labels[i] >= 0;
        labelled += e->labels[i] >= 0;
    }
    return labelled;
}

/* A mean over everything would be no number, and tell nothing of where. */
static cab_status check_finite(const evaluator *e, const cab_term_values *v)
{
    if (!isfinite(v->of[CAB_TERM_CE]))
        return cab_fail(CAB_ENUMERIC,
                        "%s: the cross-entropy of a batch after %" PRIu64 " tokens is %g, expected a finite number",
                        e->options->model, e->tokens, v->of[CAB_TERM_CE]);
    if (e->teacher != NULL && !isfinite(v->of[CAB_TERM_KL]))
        return cab_fail(CAB_ENUMERIC,
                        "%s: the KL divergence from %s of a batch after %" PRIu64
                        " tokens is %g, expected a finite number",
                        e->options->model, e->options->teacher, e->tokens, v->of[CAB_TERM_KL]);
    return CAB_OK;
}

static cab_status evaluate(evaluator *e, bool *complete)
{
    const cab_term_weights none = {{0}};
    const cab_batch batch = {.input = e->ids, .labels = e->labels, .valid = e->valid};
    uint64_t total = cab_dataset_tokens(e->dataset), limit = e->options->max_tokens;
    cab_progress progress;
    cab_status status = CAB_OK;
    uint64_t labelled;
    if (limit > 0 && limit < total)
        total = limit;
    cab_progress_begin(&progress, "evaluating", "tokens", 0, total);
    *complete = true;
    while ((labelled = load_batch(e)) > 0) {
        cab_term_values v;
        CAB_GOTO(cab_objective_run(e->objective, &batch, &none, 1, &v));
        CAB_GOTO(check_finite(e, &v));
        e->ce += v.of[CAB_TERM_CE] * (double)v.labels;
        e->kl += v.of[CAB_TERM_KL] * (double)v.valid;
        e->agreement += v.agreement * (double)v.valid;
        e->tokens += labelled;
        cab_progress_update(&progress, e->tokens < total ? e->tokens : total, "");
        if (limit > 0 && e->tokens >= limit) {
            *complete = false;
            break;
        }
    }
done:
    cab_progress_end(&progress);
    return status;
}

static void evaluator_summarise(const evaluator *e, bool complete, double seconds, cab_evaluation *out)
{
    double n = (double)e->tokens;
    double bytes = complete ? (double)cab_dataset_text_bytes(e->dataset) : 0;
    *out = (cab_evaluation){.tokens = e->tokens,
                            .documents = cab_dataset_documents(e->dataset),
                            .loss = e->ce / n,
                            .perplexity = exp(e->ce / n),
                            .bits_per_byte = bytes > 0 ? e->ce / log(2.0) / bytes : NAN,
                            .kl = e->teacher != NULL ? e->kl / n : NAN,
                            .agreement = e->teacher != NULL ? e->agreement / n : NAN,
                            .seconds = seconds,
                            .tokens_per_second = n / seconds};
}

cab_status cab_evaluate(const cab_evaluate_options *options, cab_evaluation *evaluation)
{
    evaluator e = {.options = options};
    bool complete = true;
    double started = 0;
    cab_status status;
    CAB_GOTO(evaluator_open_models(&e));
    CAB_GOTO(evaluator_open_data(&e));
    CAB_GOTO(open_graph(&e));
    started = cab_seconds();
    CAB_GOTO(evaluate(&e, &complete));
    if (e.tokens == 0)
        status = cab_fail(CAB_EFORMAT, "%s: nothing to evaluate: no token follows another", options->files[0]);
    else
        evaluator_summarise(&e, complete, cab_seconds() - started, evaluation);
done:
    cab_objective_free(e.objective);
    cab_model_free(e.model);
    cab_model_free(e.teacher);
    cab_dataset_free(e.dataset);
    cab_chat_free(e.chat);
    cab_tokenizer_free(e.tokenizer);
    cab_free(e.ids);
    cab_free(e.labels);
    cab_free(e.valid);
    cab_backend_close(e.backend);
    return status;
}
