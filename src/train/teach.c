/* teach.c - the teacher's k likeliest words of batches of windows:
 *
 *   ids (B, L) -> the teacher's hidden states -> its head, k words of every row and log p of each -> the cache */
#include "train/teach.h"

#include "base/checksum.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/thread.h"
#include "distill/term.h"
#include "ops/backends.h"
#include "train/inputs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct teaching {
    cab_text_data *d;
    const cab_model *teacher;
    int64_t B, L, k;
    cab_graph *graph;
    cab_tensor *ids, *starts, *labels;
    cab_head_scores out;
    int32_t *token_ids, *token_labels, *token_starts, *words; /* of a batch */
    float *top;
    uint64_t *windows, *hashes;
    int64_t filled;
} teaching;

uint64_t cab_teach_hash(const int32_t *ids, const int32_t *starts, int64_t length)
{
    cab_checksum sum = cab_checksum_begin();
    cab_checksum_add(&sum, ids, (size_t)length * sizeof *ids);
    if (starts != NULL)
        cab_checksum_add(&sum, starts, (size_t)length * sizeof *starts);
    return cab_checksum_end(&sum);
}

/* Whether a stage takes KL from the head and looks into no layer of the teacher. */
static bool some_stage_reads(const cab_recipe *r)
{
    for (unsigned i = 0; i < r->stages_count; i++) {
        bool reads = false, looks = false;
        for (int t = 0; t < CAB_TERM_COUNT; t++) {
            const cab_term *term = cab_term_at((cab_term_id)t);
            if (!cab_stage_uses(&r->stages[i], (cab_term_id)t))
                continue;
            reads = reads || ((term->needs & CAB_NEEDS_TEACHER) && (term->needs & CAB_NEEDS_HEAD));
            looks = looks || term->teacher_taps != 0;
        }
        if (reads && !looks)
            return true;
    }
    return false;
}

static cab_status open_cache(cab_text_data *d)
{
    const cab_recipe *r = d->setup.recipe;
    const uint64_t how[] = {(uint64_t)d->setup.precision, (uint64_t)r->teacher.precision, r->data.reset};
    const int64_t V = d->setup.teacher->config.vocab_size;
    uint64_t teacher;
    CAB_TRY(cab_inputs_model_hash(r->teacher.path, &teacher));
    d->words = r->teacher.cache_words < V ? r->teacher.cache_words : V;
    const cab_teacher_cache_key key = {.k = (uint64_t)d->words,
                                       .vocab_size = (uint64_t)V,
                                       .length = (uint64_t)d->seq_len,
                                       .windows = cab_dataset_sequences(d->train),
                                       .teacher = teacher ^ cab_checksum_of(how, sizeof how)};
    return cab_teacher_cache_open(r->teacher.cache, &key, &d->cache);
}

static cab_status open_graph(teaching *t)
{
    const int64_t shape[] = {t->B, t->L};
    const size_t n = (size_t)(t->B * t->L);
    cab_head_side head = cab_model_head(t->teacher);
    CAB_TRY(CAB_NEW(&t->token_ids, n, "a batch"));
    CAB_TRY(CAB_NEW(&t->token_labels, n, "a batch"));
    CAB_TRY(CAB_NEW(&t->token_starts, n, "a batch"));
    CAB_TRY(CAB_NEW(&t->words, n * (size_t)t->k, "a batch"));
    CAB_TRY(CAB_NEW(&t->top, n * (size_t)t->k, "a batch"));
    CAB_TRY(CAB_NEW(&t->windows, (size_t)t->B, "a batch"));
    CAB_TRY(CAB_NEW(&t->hashes, (size_t)t->B, "a batch"));
    CAB_TRY(cab_graph_new(t->teacher->backend, &t->graph));
    t->ids = cab_model_input(t->graph, t->teacher, t->B, t->L);
    t->labels = cab_graph_input(t->graph, "labels", CAB_I32, 2, shape);
    if (t->d->setup.recipe->data.reset)
        t->starts = cab_graph_input(t->graph, "starts", CAB_I32, 2, shape);
    head.hidden = cab_model_record_documents(t->graph, t->teacher, t->ids, t->starts, 0, NULL);
    t->out = cab_head_score(t->graph, &head, t->labels, t->k);
    cab_graph_keep(t->graph, t->out.ids);
    cab_graph_keep(t->graph, t->out.top);
    CAB_TRY(cab_graph_plan(t->graph, NULL));
    for (size_t i = 0; i < n; i++)
        t->token_labels[i] = -1;
    return cab_tensor_write(t->graph, t->labels, t->token_labels);
}

static void close_graph(teaching *t)
{
    cab_graph_free(t->graph);
    cab_free(t->token_ids);
    cab_free(t->token_labels);
    cab_free(t->token_starts);
    cab_free(t->words);
    cab_free(t->top);
    cab_free(t->windows);
    cab_free(t->hashes);
}

/* Asks about the windows that have been gathered. */
static cab_status ask(teaching *t)
{
    const size_t each = (size_t)(t->L * t->k);
    if (t->filled == 0)
        return CAB_OK;
    CAB_TRY(cab_tensor_write(t->graph, t->ids, t->token_ids));
    if (t->starts != NULL)
        CAB_TRY(cab_tensor_write(t->graph, t->starts, t->token_starts));
    CAB_TRY(cab_graph_run(t->graph));
    CAB_TRY(cab_tensor_read(t->graph, t->out.ids, t->words));
    CAB_TRY(cab_tensor_read(t->graph, t->out.top, t->top));
    for (int64_t i = 0; i < t->filled; i++)
        CAB_TRY(cab_teacher_cache_put(t->d->cache, t->windows[i], t->hashes[i], t->words + (size_t)i * each,
                                      t->top + (size_t)i * each));
    t->filled = 0;
    return CAB_OK;
}

/* Gathers training sequence `index` unless it is there. */
static cab_status gather(teaching *t, uint64_t index)
{
    int32_t *ids = t->token_ids + t->filled * t->L, *starts = NULL;
    CAB_TRY(cab_dataset_train_sequence(t->d->train, index, ids, t->token_labels));
    if (t->starts != NULL) {
        starts = t->token_starts + t->filled * t->L;
        cab_dataset_train_starts(t->d->train, index, starts, t->token_labels);
    }
    const uint64_t window = cab_dataset_train_window(t->d->train, index), hash = cab_teach_hash(ids, starts, t->L);
    if (cab_teacher_cache_has(t->d->cache, window, hash))
        return CAB_OK;
    t->windows[t->filled] = window;
    t->hashes[t->filled++] = hash;
    return t->filled == t->B ? ask(t) : CAB_OK;
}

static cab_status ask_all(cab_text_data *d, uint64_t sequences)
{
    teaching t = {.d = d, .teacher = d->setup.teacher, .B = d->micro_batch, .L = d->seq_len, .k = d->words};
    cab_progress progress;
    cab_status status;
    CAB_GOTO(open_graph(&t));
    cab_progress_begin(&progress, "asking the teacher", "windows", 0, sequences);
    for (uint64_t i = 0; status == CAB_OK && i < sequences; i++) {
        status = gather(&t, i);
        cab_progress_update(&progress, i + 1, "");
    }
    if (status == CAB_OK)
        status = ask(&t);
    cab_progress_end(&progress);
done:
    close_graph(&t);
    return status;
}

cab_status cab_teach(cab_text_data *d, uint64_t sequences)
{
    const size_t n = (size_t)(d->rows * d->seq_len);
    const uint64_t all = cab_dataset_sequences(d->train);
    if (cab_communicator_size(d->setup.communicator) > 1)
        return cab_fail(CAB_EUNSUPPORTED, "teacher.cache: found %d ranks, expected one: a cache is of one process",
                        cab_communicator_size(d->setup.communicator));
    if (!some_stage_reads(d->setup.recipe))
        return cab_fail(CAB_EARG,
                        "teacher.cache: no stage could read it: where they learn from the teacher's head at all, "
                        "they look into its layers too");
    CAB_TRY(open_cache(d));
    CAB_TRY(ask_all(d, sequences < all ? sequences : all));
    CAB_TRY(cab_teacher_cache_ready(d->cache));
    CAB_TRY(CAB_NEW(&d->word_ids, n * (size_t)d->words, "a batch"));
    return CAB_NEW(&d->word_top, n * (size_t)d->words, "a batch");
}

/* ---- alone ---------------------------------------------------------------------------------------------------------------- */

cab_status cab_teach_recipe(const cab_recipe *r, cab_teach_result *result)
{
    const cab_domain *domain = cab_domain_of_recipe(r);
    cab_domain_setup setup = {.recipe = r};
    cab_domain_sizes sizes;
    cab_backend *backend = NULL;
    cab_model *teacher = NULL;
    cab_text_data *d = NULL;
    const double started = cab_seconds();
    cab_status status;
    if (domain != &cab_domain_text)
        return cab_fail(CAB_EARG, "teacher.cache is of text, the student reads images");
    if (r->threads > 0)
        cab_thread_limit((int)r->threads);
    setup.precision = r->precision == CAB_RECIPE_AUTO   ? cab_precision_auto(r->device)
                      : r->precision == CAB_RECIPE_FP32 ? CAB_PRECISION_FP32
                                                        : CAB_PRECISION_BF16;
    CAB_GOTO(cab_backend_open(r->device, &backend));
    const cab_precision kept = r->teacher.precision == CAB_TEACHER_AS_IS ? CAB_PRECISION_AS_IS : 0;
    CAB_GOTO(cab_model_open(r->teacher.path, backend, setup.precision | kept, false, &teacher));
    if (r->teacher.precision == CAB_TEACHER_FP8)
        CAB_GOTO(cab_model_quantise(teacher));
    setup.backend = backend;
    setup.teacher = teacher;
    CAB_GOTO(domain->open(&setup, (void **)&d, &sizes));
    const int64_t micro = r->train.micro_batch > 0 ? r->train.micro_batch : r->train.batch;
    CAB_GOTO(domain->start(d, NULL, micro, micro));
    CAB_GOTO(cab_teach(d, UINT64_MAX));
    const cab_teacher_cache_key key = {.k = (uint64_t)d->words,
                                       .vocab_size = (uint64_t)teacher->config.vocab_size,
                                       .length = (uint64_t)d->seq_len,
                                       .windows = cab_dataset_sequences(d->train)};
    *result = (cab_teach_result){.windows = key.windows,
                                 .tokens = key.windows * key.length,
                                 .bytes = cab_teacher_cache_bytes(&key),
                                 .seconds = cab_seconds() - started};
done:
    domain->close(d);
    cab_model_free(teacher);
    cab_backend_close(backend);
    return status;
}
