/* domain_text.c - distilling from text: token files cut into sequences, the next token to predict. */
#include "train/domain_text.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/random.h"
#include "data/loops.h"
#include "data/text_bounds.h"
#include "distill/students.h"
#include "train/compare_internal.h"
#include "train/inputs.h"
#include "train/keep_trial.h"
#include "train/tasks.h"
#include "train/teach.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SAMPLE_BYTES = 2048, PERIODIC_TOKENS = 16384, KEY_MAX = 320 };

/* ---- data --------------------------------------------------------------------------------------------------------- */

static cab_status choose_length(cab_text_data *d)
{
    const cab_recipe *r = d->setup.recipe;
    const int most = d->setup.teacher->config.max_length;
    d->seq_len = r->data.seq_len > 0 ? r->data.seq_len : most;
    if (d->seq_len > most)
        return cab_fail(CAB_ESHAPE, "data.seq_len is %" PRId64 ", the teacher %s takes at most %d tokens", d->seq_len,
                        r->teacher.path, most);
    return CAB_OK;
}

static cab_status text_open_sets(cab_text_data *d)
{
    const cab_recipe *r = d->setup.recipe;
    const int vocab_size = d->setup.teacher->config.vocab_size;
    cab_text_bounds bounds;
    char cache[CAB_PATH_MAX];
    CAB_TRY(cab_tokenizer_open(r->teacher.path, &d->tokenizer));
    CAB_TRY(cab_tokenizer_check_vocab(d->tokenizer, vocab_size, r->teacher.path));
    CAB_TRY(cab_text_bounds_load(r->teacher.path, d->tokenizer, vocab_size, &bounds));
    CAB_TRY(cab_chat_open(r->teacher.path, d->tokenizer, vocab_size, &d->chat));
    CAB_TRY(cab_domain_cache(r, cache));
    cab_dataset_options options = {.tokenizer = d->tokenizer,
                                   .separator = r->data.separator,
                                   .text_field = r->data.text_field,
                                   .limits = cab_expand_limits_mib(r->data.max_member, r->data.max_expanded),
                                   .chat = d->chat,
                                   .answers_only = r->data.loss_on == 0,
                                   .cache = cache,
                                   .bin_type = r->data.bin_type == 0 ? CAB_TOKEN_U16 : CAB_TOKEN_U32,
                                   .vocab_size = vocab_size,
                                   .end_id = cab_text_bounds_separator(&bounds),
                                   .fraction = r->data.fraction,
                                   .seed = (uint64_t)r->seed,
                                   .same_windows = r->teacher.cache[0] != '\0'};
    CAB_TRY(cab_dataset_open((const char *const *)r->data.train.items, r->data.train.count, &options, &d->train));
    CAB_TRY(cab_dataset_set_sequence(d->train, (uint64_t)d->seq_len));
    options.fraction = 1;
    return cab_dataset_open((const char *const *)r->data.eval.items, r->data.eval.count, &options, &d->eval);
}

static void text_close(void *data)
{
    cab_text_data *d = data;
    if (d == NULL)
        return;
    cab_dataset_free(d->train);
    cab_dataset_free(d->eval);
    cab_chat_free(d->chat);
    cab_tokenizer_free(d->tokenizer);
    cab_free(d->ids);
    cab_free(d->labels);
    cab_free(d->valid);
    cab_free(d->starts);
    cab_free(d->word_ids);
    cab_free(d->word_top);
    cab_teacher_cache_close(d->cache);
    cab_kept_close(&d->kept);
    cab_free(d);
}

static cab_status text_open(const cab_domain_setup *setup, void **data, cab_domain_sizes *sizes)
{
    cab_text_data *d = NULL;
    CAB_TRY(CAB_NEW(&d, 1, "the data of a run"));
    d->setup = *setup;
    cab_status status = choose_length(d);
    if (status == CAB_OK)
        status = text_open_sets(d);
    if (status != CAB_OK) {
        text_close(d);
        return status;
    }
    const uint64_t length = (uint64_t)d->seq_len, given = (uint64_t)setup->recipe->train.eval_tokens;
    *sizes = (cab_domain_sizes){.length = d->seq_len,
                                .pass = cab_dataset_tokens(d->train),
                                .eval = cab_dataset_eval_windows(d->eval, length) * length,
                                .part = given > 0 ? given : PERIODIC_TOKENS};
    *data = d;
    return CAB_OK;
}

static cab_status add_files(cab_input_list *list, const char *name, const cab_dataset *set)
{
    for (size_t i = 0; i < cab_dataset_files(set); i++) {
        char key[KEY_MAX];
        cab_fingerprint content;
        const char *path = cab_dataset_file(set, i, &content);
        snprintf(key, sizeof key, "%s[%zu]", name, i);
        CAB_TRY(cab_input_add(list, key, path, &content));
    }
    return CAB_OK;
}

static cab_status text_inputs(const void *data, cab_input_list *list)
{
    const cab_text_data *d = data;
    CAB_TRY(add_files(list, "data.train", d->train));
    return add_files(list, "data.eval", d->eval);
}

/* ---- student ------------------------------------------------------------------------------------------------------ */

/* What of the teacher stays attention, where the student can have some: by sequences of the training data. */
static cab_status choose_kept(cab_text_data *d, const cab_student_source *source)
{
    const cab_student *row = cab_student_of(source->recipe);
    cab_windows windows = {.count = CAB_TRIAL_WINDOWS, .length = d->seq_len};
    int32_t *ids = NULL, *labels = NULL;
    bool found = false;
    cab_status status;
    if (row->keeps != NULL)
        CAB_TRY(cab_kept_recall(&d->setup, &d->kept, &found));
    if (row->keeps == NULL || found)
        return CAB_OK;
    CAB_GOTO(CAB_NEW(&ids, (size_t)(CAB_TRIAL_WINDOWS * d->seq_len), "windows"));
    CAB_GOTO(CAB_NEW(&labels, (size_t)d->seq_len, "windows"));
    for (int64_t i = 0; i < CAB_TRIAL_WINDOWS; i++)
        CAB_GOTO(cab_dataset_train_sequence(d->train, (uint64_t)i, ids + i * d->seq_len, labels));
    windows.ids = ids;
    CAB_GOTO(row->keeps(source, &windows, &d->kept));
    const cab_trial_data trial = cab_trial_windows(&windows);
    if (d->kept.open)
        CAB_GOTO(cab_keep_trial(&d->setup, source, &trial, &d->kept));
    cab_kept_print(&d->kept);
    status = CAB_OK;
done:
    cab_free(ids);
    cab_free(labels);
    return status;
}

static cab_status text_student(void *data, cab_model **student)
{
    cab_text_data *d = data;
    const cab_domain_setup *setup = &d->setup;
    const char *path = setup->recipe->student.path, *teacher = setup->recipe->teacher.path;
    cab_student_source source = {.teacher = setup->teacher, .recipe = setup->recipe, .seq_len = d->seq_len};
    if (path[0] == '\0') {
        CAB_TRY(choose_kept(d, &source));
        source.kept = &d->kept;
        return cab_student_create(&source, setup->backend, setup->precision, student);
    }
    CAB_TRY(cab_model_open(path, setup->backend, setup->precision, true, student));
    const cab_model *s = *student;
    if (!cab_student_can_be(s))
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" cannot be a student", path, s->arch->name);
    if (cab_domain_of(s) != &cab_domain_text)
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" reads %s, the teacher %s text", path, s->arch->name,
                        cab_domain_of(s)->recipes->name, teacher);
    if (s->config.vocab_size != setup->teacher->config.vocab_size)
        return cab_fail(CAB_ESHAPE, "%s: vocabulary of %d, the teacher %s has %d", path, s->config.vocab_size, teacher,
                        setup->teacher->config.vocab_size);
    if (cab_network_bounded(&s->network) && d->seq_len > s->config.max_length)
        return cab_fail(CAB_ESHAPE, "data.seq_len is %" PRId64 ", the student %s takes at most %d tokens", d->seq_len,
                        path, s->config.max_length);
    return CAB_OK;
}

static cab_status text_record(const void *data, const char *out)
{
    const cab_text_data *d = data;
    return d->kept.cost != NULL ? cab_kept_record(&d->kept, out) : CAB_OK; /* else named, or nothing */
}

static cab_status text_initialise(void *data, cab_model *student, const int *layer_map)
{
    const cab_text_data *d = data;
    return cab_student_initialise(
        student, &(cab_student_source){
                     .teacher = d->setup.teacher, .recipe = d->setup.recipe, .layer_map = layer_map, .kept = &d->kept});
}

/* ---- training ----------------------------------------------------------------------------------------------------- */

static cab_status text_start(void *data, const cab_model *student, int64_t batch, int64_t micro_batch)
{
    cab_text_data *d = data;
    const int64_t rows = micro_batch / cab_communicator_size(d->setup.communicator);
    const size_t n = (size_t)(rows * d->seq_len);
    (void)student;
    d->batch = batch;
    d->micro_batch = micro_batch;
    d->rows = rows;
    CAB_TRY(CAB_NEW(&d->ids, n, "a batch"));
    CAB_TRY(CAB_NEW(&d->valid, n, "a batch"));
    if (d->setup.recipe->data.reset)
        CAB_TRY(CAB_NEW(&d->starts, n, "a batch"));
    return CAB_NEW(&d->labels, n, "a batch");
}

static void text_objective(const void *data, cab_objective_options *options)
{
    const cab_text_data *d = data;
    options->documents = d->setup.recipe->data.reset;
    options->words = d->words;
}

static cab_status text_teach(void *data, uint64_t sequences)
{
    cab_text_data *d = data;
    return d->setup.recipe->teacher.cache[0] != '\0' ? cab_teach(d, sequences) : CAB_OK;
}

/* What the teacher's cache has of row i of the batch, which is training sequence `index`, just read. */
static cab_status read_words(cab_text_data *d, uint64_t index, int64_t i)
{
    const size_t each = (size_t)(d->seq_len * d->words);
    const int32_t *starts = d->starts != NULL ? d->starts + i * d->seq_len : NULL;
    const uint64_t hash = cab_teach_hash(d->ids + i * d->seq_len, starts, d->seq_len);
    return cab_teacher_cache_get(d->cache, cab_dataset_train_window(d->train, index), hash,
                                 d->word_ids + (size_t)i * each, d->word_top + (size_t)i * each);
}

/* The loop of row i of the batch, training sequence `index`, if it has one. Its rows stay valid: KL is measured there, CE is not. */
static void put_loop(cab_text_data *d, uint64_t index, int64_t i)
{
    const cab_recipe *r = d->setup.recipe;
    const int64_t at = i * d->seq_len;
    cab_loop loop;
    if (cab_loop_draw((uint64_t)r->seed, r->data.loops, index, d->seq_len, &loop))
        cab_loop_apply(&loop, d->starts != NULL ? d->starts + at : NULL, d->ids + at, d->labels + at);
}

static cab_status text_batch(void *data, uint64_t step, int index, cab_batch *batch)
{
    cab_text_data *d = data;
    const int64_t row = index * d->micro_batch + cab_communicator_rank(d->setup.communicator) * d->rows;
    const uint64_t first = step * (uint64_t)d->batch + (uint64_t)row;
    for (int64_t i = 0; i < d->rows; i++) {
        const uint64_t sequence = first + (uint64_t)i;
        CAB_TRY(cab_dataset_train_sequence(d->train, sequence, d->ids + i * d->seq_len, d->labels + i * d->seq_len));
        if (d->starts != NULL)
            cab_dataset_train_starts(d->train, sequence, d->starts + i * d->seq_len, d->labels + i * d->seq_len);
        if (d->cache != NULL)
            CAB_TRY(read_words(d, sequence, i));
    }
    for (int64_t i = 0; i < d->rows * d->seq_len; i++)
        d->valid[i] = d->labels[i] >= 0;
    for (int64_t i = 0; i < d->rows; i++)
        put_loop(d, first + (uint64_t)i, i);
    *batch = (cab_batch){.input = d->ids,
                         .labels = d->labels,
                         .valid = d->valid,
                         .starts = d->starts,
                         .word_ids = d->word_ids,
                         .word_top = d->word_top};
    return CAB_OK;
}

/* ---- evaluation --------------------------------------------------------------------------------------------------- */

struct cab_evaluator {
    const cab_text_data *data;
    cab_objective *objective;
    int32_t *ids, *labels, *valid, *starts; /* one batch; starts: NULL without reset */
};

static void text_evaluator_free(cab_evaluator *e)
{
    if (e == NULL)
        return;
    cab_objective_free(e->objective);
    cab_free(e->ids);
    cab_free(e->labels);
    cab_free(e->valid);
    cab_free(e->starts);
    cab_free(e);
}

static cab_status text_evaluator(void *data, const cab_model *model, const cab_model *teacher, cab_evaluator **out)
{
    const cab_text_data *d = data;
    const size_t n = (size_t)(d->rows * d->seq_len);
    const cab_objective_options options = {
        .batch = d->rows, .seq_len = d->seq_len, .documents = d->setup.recipe->data.reset, .temperature = 1};
    cab_evaluator *e = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&e, 1, "an evaluator"));
    e->data = d;
    CAB_GOTO(CAB_NEW(&e->ids, n, "a batch"));
    CAB_GOTO(CAB_NEW(&e->labels, n, "a batch"));
    CAB_GOTO(CAB_NEW(&e->valid, n, "a batch"));
    if (options.documents)
        CAB_GOTO(CAB_NEW(&e->starts, n, "a batch"));
    CAB_GOTO(cab_objective_new(d->setup.backend, model, teacher, NULL, &options, &e->objective));
    CAB_GOTO(cab_objective_plan(e->objective, NULL));
    *out = e;
    return CAB_OK;
done:
    text_evaluator_free(e);
    return status;
}

/* Fills the batch with windows [first, first + micro_batch); rows past the end have neither label nor weight. */
static void load_windows(cab_evaluator *e, uint64_t first, uint64_t windows)
{
    const cab_text_data *d = e->data;
    for (int64_t i = 0; i < d->rows; i++) {
        int32_t *labels = e->labels + i * d->seq_len, *valid = e->valid + i * d->seq_len;
        int32_t *ids = e->ids + i * d->seq_len;
        bool real = first + (uint64_t)i < windows;
        if (real)
            cab_dataset_eval_window(d->eval, (uint64_t)d->seq_len, first + (uint64_t)i, ids, labels);
        if (real && e->starts != NULL)
            cab_dataset_eval_starts(d->eval, (uint64_t)d->seq_len, first + (uint64_t)i, e->starts + i * d->seq_len,
                                    labels);
        for (int64_t t = 0; t < d->seq_len; t++) {
            if (!real) {
                ids[t] = 0;
                labels[t] = -1;
            }
            if (!real && e->starts != NULL)
                e->starts[i * d->seq_len + t] = 0;
            valid[t] = labels[t] >= 0;
        }
    }
}

/* Sums over the windows that were looked at. */
typedef struct sums {
    double ce, kl, agreement, labels;
} sums;

/* Every rank takes its batches of windows, one by one in turn. */
static cab_status sum_windows(cab_evaluator *e, uint64_t windows, sums *s)
{
    const cab_text_data *d = e->data;
    const cab_term_weights none = {{0}};
    const cab_batch batch = {.input = e->ids, .labels = e->labels, .valid = e->valid, .starts = e->starts};
    const uint64_t rows = (uint64_t)d->rows, ranks = (uint64_t)cab_communicator_size(d->setup.communicator);
    cab_progress progress;
    cab_status status = CAB_OK;
    cab_progress_begin(&progress, "evaluating", "windows", 0, windows);
    for (uint64_t w = (uint64_t)cab_communicator_rank(d->setup.communicator) * rows; w < windows; w += ranks * rows) {
        cab_term_values v;
        load_windows(e, w, windows);
        CAB_GOTO(cab_objective_run(e->objective, &batch, &none, 1, &v));
        cab_progress_update(&progress, w + ranks * rows < windows ? w + ranks * rows : windows, "");
        s->ce += v.of[CAB_TERM_CE] * (double)v.labels;
        s->kl += v.of[CAB_TERM_KL] * (double)v.valid;
        s->agreement += v.agreement * (double)v.valid;
        s->labels += (double)v.labels;
    }
done:
    cab_progress_end(&progress);
    return status;
}

static cab_status text_evaluate(cab_evaluator *e, uint64_t most, cab_run_evaluation *out)
{
    const cab_text_data *d = e->data;
    const uint64_t length = (uint64_t)d->seq_len, limit = (most + length - 1) / length;
    uint64_t windows = cab_dataset_eval_windows(d->eval, length);
    sums s = {0};
    if (most > 0 && limit < windows)
        windows = limit;
    CAB_TRY(sum_windows(e, windows, &s));
    double all[] = {s.ce, s.kl, s.agreement, s.labels};
    CAB_TRY(cab_communicator_sum(d->setup.communicator, all, 4));
    const double n = all[3];
    *out = (cab_run_evaluation){.loss = all[0] / n,
                                .perplexity = exp(all[0] / n),
                                .kl = all[1] / n,
                                .agreement = all[2] / n,
                                .top1 = NAN,
                                .top5 = NAN,
                                .teacher_top1 = NAN,
                                .teacher_top5 = NAN,
                                .tokens = (uint64_t)n};
    return CAB_OK;
}

static cab_status text_tasks(const void *data, const cab_model *student, cab_task_set **set)
{
    const cab_text_data *d = data;
    const cab_recipe *r = d->setup.recipe;
    const cab_task_options options = {.tasks = (const char *const *)r->eval.tasks.items,
                                      .count = r->eval.tasks.count,
                                      .folders = (const char *const *)r->eval.data.items,
                                      .folders_count = r->eval.data.count,
                                      .tokenizer = d->tokenizer,
                                      .directory = r->teacher.path,
                                      .vocab_size = d->setup.teacher->config.vocab_size,
                                      .longest = cab_tasks_longest(student, d->setup.teacher)};
    return cab_task_set_open(&options, set);
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

static void text_describe(const void *data, const cab_model *student, uint64_t steps)
{
    const cab_text_data *d = data;
    const cab_config *s = &student->config;
    cab_log_info("student  %s, %.2f M parameters, %d layers, width %d, %d heads, state %d", student->arch->name,
                 (double)cab_model_parameters(student) * 1e-6, s->n_layer, s->d_model, s->n_head, s->d_state);
    cab_log_info("data     %" PRIu64 " of %" PRIu64 " documents, %" PRIu64 " tokens; %" PRIu64 " steps of %" PRId64
                 " x %" PRId64 " tokens, %s",
                 cab_dataset_documents(d->train), cab_dataset_documents_all(d->train), cab_dataset_tokens(d->train),
                 steps, d->batch, d->seq_len, d->setup.precision == CAB_PRECISION_BF16 ? "bf16" : "fp32");
}

static void text_found(const cab_run_evaluation *e, char *out, size_t size)
{
    snprintf(out, size, "perplexity %.2f", e->perplexity);
}

/* A model that knows nothing has the perplexity of the vocabulary's size. */
static bool text_by_chance(const void *data, const cab_run_evaluation *e, char *out, size_t size)
{
    const cab_text_data *d = data;
    const int words = d->setup.teacher->config.vocab_size;
    snprintf(out, size, "perplexity %.0f with a vocabulary of %d", e->perplexity, words);
    return e->perplexity > words;
}

static void text_progress(double done, double per_second, char *out, size_t size)
{
    snprintf(out, size, "%.1fk tokens  %.1fk tokens/s", done / 1e3, per_second / 1e3);
}

/* ---- at the end --------------------------------------------------------------------------------------------------- */

static cab_status text_export(const void *data, const cab_model *student, const char *directory)
{
    const cab_text_data *d = data;
    CAB_TRY(cab_model_export(student, directory, d->setup.recipe->teacher.path, NULL));
    return d->kept.count > 0 ? cab_kept_record(&d->kept, directory) : CAB_OK;
}

typedef struct sample {
    char *text;
    size_t size;
} sample;

static bool collect(void *user, const char *text, size_t size)
{
    sample *s = user;
    if (s->size + size >= SAMPLE_BYTES)
        return false;
    memcpy(s->text + s->size, text, size);
    s->size += size;
    s->text[s->size] = '\0';
    return true;
}

/* A text that the student begins by itself. */
static cab_status text_show(const void *data, cab_model *student, char **out)
{
    const cab_text_data *d = data;
    cab_generate_options options = cab_generate_defaults();
    sample s = {0};
    CAB_TRY(CAB_NEW(&s.text, SAMPLE_BYTES, "a sample"));
    options.seed = (uint64_t)d->setup.recipe->seed;
    if (cab_generate(student, "", &options, collect, &s) != CAB_OK) /* as where no token begins a text */
        cab_log_warn("no sample of the student's text: %s", cab_error_text());
    *out = s.text;
    return CAB_OK;
}

/* ---- for timing --------------------------------------------------------------------------------------------------- */

static const char *const text_distillation[] = {"ce", "kl", NULL};

static cab_status text_length(const cab_model *teacher, int64_t wanted, int64_t *length)
{
    const int most = teacher->config.max_length;
    if (wanted > most)
        return cab_fail(CAB_EARG, "seq_len is %" PRId64 ", the teacher takes at most %d tokens", wanted, most);
    *length = wanted > 0 ? wanted : most;
    return CAB_OK;
}

static cab_status text_draw(const cab_model *student, int64_t batch, int64_t length, void **input, int32_t **labels)
{
    const size_t n = (size_t)(batch * length);
    const uint64_t words = (uint64_t)student->config.vocab_size;
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    CAB_TRY(CAB_NEW(labels, n, "a batch"));
    CAB_TRY(cab_alloc(input, n, sizeof(int32_t), "a batch"));
    int32_t *ids = *input;
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)cab_random_below(&random, words);
        (*labels)[i] = (int32_t)cab_random_below(&random, words);
    }
    return CAB_OK;
}

static void text_sample_size(const cab_model *student, int64_t length, char *out, size_t size)
{
    (void)student;
    snprintf(out, size, "%" PRId64 " tokens", length);
}

const cab_domain cab_domain_text = {
    .recipes = &cab_recipe_text,
    .smaller = "data.seq_len",
    .teacher_alone = true,
    .open = text_open,
    .close = text_close,
    .inputs = text_inputs,
    .student = text_student,
    .record = text_record,
    .initialise = text_initialise,
    .start = text_start,
    .teach = text_teach,
    .objective = text_objective,
    .batch = text_batch,
    .evaluator = text_evaluator,
    .evaluate = text_evaluate,
    .evaluator_free = text_evaluator_free,
    .tasks = text_tasks,
    .describe = text_describe,
    .found = text_found,
    .by_chance = text_by_chance,
    .progress = text_progress,
    .export_student = text_export,
    .show = text_show,
    .compare = &cab_compare_text,
    .distillation = text_distillation,
    .length = text_length,
    .draw = text_draw,
    .sample_size = text_sample_size,
};
