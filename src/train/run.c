/* run.c - opening a run: teacher, tokenizer, data, student, loss terms. */
#include "train/run.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "device/device.h"
#include "distill/initialise.h"
#include "distill/initialise_vim.h"
#include "distill/layer_map.h"
#include "train/run_images.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cab_status open_models(const struct cab_recipe *r, cab_run *run)
{
    CAB_TRY(cab_backend_open(r->device, &run->backend));
    run->precision = r->precision == CAB_RECIPE_AUTO   ? cab_precision_auto(r->device)
                     : r->precision == CAB_RECIPE_BF16 ? CAB_PRECISION_BF16
                                                       : CAB_PRECISION_FP32;
    CAB_TRY(cab_model_open_sized(r->teacher.path, (int)r->data.image_size, run->backend, run->precision, false,
                                 &run->teacher));
    if (!run->teacher->arch->teacher)
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" cannot be a teacher", r->teacher.path,
                        run->teacher->arch->name);
    if (r->teacher.precision == CAB_TEACHER_FP8)
        CAB_TRY(cab_model_quantise(run->teacher));
    run->reads_images = cab_recipe_reads_images(r);
    if (cab_model_reads_images(run->teacher) != run->reads_images)
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" reads %s; student.architecture must be %s",
                        r->teacher.path, run->teacher->arch->name, run->reads_images ? "text" : "images",
                        run->reads_images ? "phi-mamba" : "vim");
    run->seq_len = 1;
    return CAB_OK;
}

static cab_status choose_length(const struct cab_recipe *r, cab_run *run)
{
    run->seq_len = r->data.seq_len > 0 ? r->data.seq_len : run->teacher->config.max_length;
    if (run->seq_len > run->teacher->config.max_length)
        return cab_fail(CAB_ESHAPE, "data.seq_len is %" PRId64 ", the teacher %s takes at most %d tokens", run->seq_len,
                        r->teacher.path, run->teacher->config.max_length);
    return CAB_OK;
}

cab_status cab_run_cache_directory(const struct cab_recipe *r, char out[CAB_PATH_MAX])
{
    if (r->data.cache[0] != '\0') {
        if (snprintf(out, CAB_PATH_MAX, "%s", r->data.cache) >= CAB_PATH_MAX)
            return cab_fail(CAB_EARG, "data.cache: the path is too long");
        return CAB_OK;
    }
    const char *home = getenv("XDG_CACHE_HOME");
    if (home != NULL && home[0] != '\0')
        return cab_path_join(out, home, "cab");
    return cab_path_join(out, r->out, "../cache");
}

static cab_status open_data(const struct cab_recipe *r, cab_run *run)
{
    char path[CAB_PATH_MAX], cache[CAB_PATH_MAX];
    CAB_TRY(choose_length(r, run));
    CAB_TRY(cab_path_join(path, r->teacher.path, "tokenizer.json"));
    CAB_TRY(cab_tokenizer_load(path, &run->tokenizer));
    CAB_TRY(cab_tokenizer_check_vocab(run->tokenizer, run->teacher->config.vocab_size, r->teacher.path));
    CAB_TRY(cab_run_cache_directory(r, cache));
    cab_dataset_options options = {.tokenizer = run->tokenizer,
                                   .separator = r->data.separator,
                                   .text_field = r->data.text_field,
                                   .limits = cab_expand_limits_mib(r->data.max_member, r->data.max_expanded),
                                   .cache = cache,
                                   .bin_type = r->data.bin_type == 0 ? CAB_TOKEN_U16 : CAB_TOKEN_U32,
                                   .vocab_size = run->teacher->config.vocab_size,
                                   .end_id = cab_tokenizer_end_of_text(run->tokenizer),
                                   .fraction = r->data.fraction,
                                   .seed = (uint64_t)r->seed};
    CAB_TRY(cab_dataset_open((const char *const *)r->data.train.items, r->data.train.count, &options, &run->train));
    CAB_TRY(cab_dataset_set_sequence(run->train, (uint64_t)run->seq_len));
    options.fraction = 1;
    if (r->data.eval.count == 0)
        return CAB_OK;
    return cab_dataset_open((const char *const *)r->data.eval.items, r->data.eval.count, &options, &run->eval);
}

static int chosen(int64_t value, int fallback)
{
    return value > 0 ? (int)value : fallback;
}

/* Master, gradient, bf16 copy and two moments of every parameter, said before any is allocated. */
static cab_status check_student_fits(const cab_run *run, const cab_config *c)
{
    const double bytes_per_parameter = 4 + 4 + 2 + 8;
    double d = c->d_model, states = (double)c->n_group * c->d_state, channels = d + 2 * states;
    double layer =
        (channels + d + c->n_head) * d + d * d + 2 * d * c->d_mlp + c->d_mlp + channels * (c->d_conv + 1) + 5 * d;
    double parameters = 2.0 * c->vocab_size * d + c->n_layer * layer;
    double available = run->backend->available(run->backend);
    char need[CAB_FORMAT_MAX], have[CAB_FORMAT_MAX];
    if (parameters * bytes_per_parameter <= available)
        return CAB_OK;
    return cab_fail(
        CAB_ENOMEM, "the student has %.0f M parameters; training needs %s for them and the optimizer, %s are available",
        parameters * 1e-6, cab_format_bytes(parameters * bytes_per_parameter, need), cab_format_bytes(available, have));
}

static cab_status new_student(const struct cab_recipe *r, cab_run *run)
{
    const cab_config *t = &run->teacher->config;
    const cab_arch *arch = NULL;
    cab_config c = {.vocab_size = t->vocab_size,
                    .d_model = chosen(r->student.d_model, t->d_model),
                    .n_layer = chosen(r->student.n_layer, t->n_layer),
                    .n_head = chosen(r->student.n_head, t->n_head),
                    .d_mlp = chosen(r->student.d_mlp, t->d_mlp),
                    .d_conv = (int)r->student.d_conv,
                    .max_length = (int)run->seq_len,
                    .norm_eps = t->norm_eps,
                    .activation = t->activation,
                    .bos_token = t->bos_token,
                    .eos_token = t->eos_token};
    CAB_TRY(cab_architecture_find("phi-mamba", "student.architecture", &arch));
    if (c.d_model % c.n_head != 0)
        return cab_fail(CAB_ESHAPE, "student.d_model %d is not a multiple of student.n_head %d", c.d_model, c.n_head);
    c.n_kv_head = c.n_group = c.n_head;
    c.head_dim = c.d_model / c.n_head;
    c.d_state = chosen(r->student.d_state, t->head_dim);
    CAB_TRY(check_student_fits(run, &c));
    return cab_model_create(arch, &c, run->backend, run->precision, &run->student);
}

static cab_status open_student(const struct cab_recipe *r, cab_run *run)
{
    if (run->reads_images)
        return cab_run_images_open_student(run);
    if (r->student.path[0] == '\0')
        return new_student(r, run);
    CAB_TRY(cab_model_open(r->student.path, run->backend, run->precision, true, &run->student));
    if (!run->student->arch->student)
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" cannot be a student", r->student.path,
                        run->student->arch->name);
    if (cab_model_reads_images(run->student))
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" reads images, the teacher %s text", r->student.path,
                        run->student->arch->name, r->teacher.path);
    if (run->student->config.vocab_size != run->teacher->config.vocab_size)
        return cab_fail(CAB_ESHAPE, "%s: vocabulary of %d, the teacher %s has %d", r->student.path,
                        run->student->config.vocab_size, r->teacher.path, run->teacher->config.vocab_size);
    return CAB_OK;
}

static cab_status open_terms(const struct cab_recipe *r, cab_run *run)
{
    const cab_term_setup setup = {
        .recipe = r, .student = run->student, .teacher = run->teacher, .layer_map = run->layer_map};
    return cab_term_set_open(&setup, &run->terms);
}

static cab_status open_averages(const struct cab_recipe *r, cab_run *run)
{
    cab_params *params = run->student->params;
    size_t n = cab_params_count(params);
    if (r->train.ema <= 0)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&run->averages, n, "the average of the weights"));
    for (size_t i = 0; i < n; i++) {
        const cab_tensor *t = cab_params_at(params, i);
        size_t bytes = (size_t)cab_elements(t) * sizeof(float);
        CAB_TRY(run->backend->allocate(run->backend, bytes, t->name, (void **)&run->averages[i]));
        CAB_TRY(run->backend->copy(run->backend, run->averages[i], t->data, bytes));
    }
    return CAB_OK;
}

static cab_status choose_batches(const struct cab_recipe *r, cab_run *run)
{
    run->batch = r->train.batch;
    run->micro_batch = r->train.micro_batch > 0 ? r->train.micro_batch : r->train.batch;
    if (run->batch % run->micro_batch != 0)
        return cab_fail(CAB_ESHAPE, "train.batch %" PRId64 " is not a multiple of train.micro_batch %" PRId64,
                        run->batch, run->micro_batch);
    size_t n = (size_t)(run->micro_batch * run->seq_len);
    CAB_TRY(CAB_NEW(&run->ids, n, "a batch"));
    CAB_TRY(CAB_NEW(&run->labels, n, "a batch"));
    CAB_TRY(CAB_NEW(&run->valid, n, "a batch"));
    CAB_TRY(CAB_NEW(&run->stage_steps, r->stages_count, "stages"));
    uint64_t pass = run->reads_images ? cab_image_set_count(run->images.train) : cab_dataset_tokens(run->train);
    CAB_TRY(cab_recipe_stage_steps(r, (uint64_t)run->seq_len, pass, run->stage_steps));
    for (unsigned i = 0; i < r->stages_count; i++)
        run->total_steps += run->stage_steps[i];
    return CAB_OK;
}

cab_status cab_run_open(const struct cab_recipe *r, cab_run *run)
{
    run->recipe = r;
    if (r->threads > 0)
        cab_thread_limit((int)r->threads);
    CAB_TRY(open_models(r, run));
    CAB_TRY(run->reads_images ? cab_run_images_open_data(run) : open_data(r, run));
    CAB_TRY(choose_batches(r, run));
    CAB_TRY(open_student(r, run));
    const int n_layer = run->student->config.n_layer;
    CAB_TRY(CAB_NEW(&run->layer_map, (size_t)n_layer, "a layer map"));
    CAB_TRY(cab_layer_map((int)r->bridge.layer_map, r->bridge.layers.items, r->bridge.layers.count, n_layer,
                          run->teacher->config.n_layer, run->layer_map));
    if (r->student.path[0] == '\0')
        CAB_TRY(run->reads_images
                    ? cab_initialise_images(run->student, run->teacher, r, run->layer_map,
                                            r->student.classes == CAB_CLASSES_DATA ? run->images.map : NULL)
                    : cab_initialise(run->student, run->teacher, r, run->layer_map));
    CAB_TRY(open_terms(r, run));
    CAB_TRY(open_averages(r, run));
    return run->reads_images ? cab_run_images_open_loader(run) : CAB_OK;
}

void cab_run_close(cab_run *run)
{
    cab_objective_free(run->objective);
    cab_objective_free(run->evaluation);
    cab_optimizer_free(run->optimizer);
    cab_run_images_close(run);
    cab_term_set_close(&run->terms);
    if (run->averages != NULL)
        for (size_t i = 0; i < cab_params_count(run->student->params); i++)
            run->backend->release(run->backend, run->averages[i]);
    cab_free(run->averages);
    cab_model_free(run->student);
    cab_model_free(run->teacher);
    cab_dataset_free(run->train);
    cab_dataset_free(run->eval);
    cab_tokenizer_free(run->tokenizer);
    cab_free(run->layer_map);
    cab_free(run->stage_steps);
    cab_free(run->ids);
    cab_free(run->labels);
    cab_free(run->valid);
    cab_backend_close(run->backend);
}
