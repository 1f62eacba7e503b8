/* run.c - opening a run: teacher, data, student, loss terms. */
#include "train/run.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "distill/layer_map.h"
#include "distill/students.h"
#include "ops/backends.h"
#include "train/inputs.h"
#include "train/ranks.h"
#include "train/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cab_status run_open_models(const cab_recipe *r, cab_run *run)
{
    CAB_TRY(cab_backend_open_for(r->device, run->communicator, &run->backend));
    run->precision = r->precision == CAB_RECIPE_AUTO   ? cab_precision_auto(r->device)
                     : r->precision == CAB_RECIPE_BF16 ? CAB_PRECISION_BF16
                                                       : CAB_PRECISION_FP32;
    const cab_precision kept = r->teacher.precision == CAB_TEACHER_AS_IS ? CAB_PRECISION_AS_IS : 0;
    CAB_TRY(cab_model_open_sized(r->teacher.path, (int)r->data.image_size, run->backend, run->precision | kept, false,
                                 &run->teacher));
    if (!run->teacher->arch->teacher)
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" cannot be a teacher", r->teacher.path,
                        run->teacher->arch->name);
    if (r->teacher.precision == CAB_TEACHER_FP8)
        CAB_TRY(cab_model_quantise(run->teacher));
    run->domain = cab_domain_of_recipe(r);
    const cab_domain *of_teacher = cab_domain_of(run->teacher);
    if (of_teacher != run->domain)
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: architecture \"%s\" reads %s; student.architecture must be %s, if it is given",
                        r->teacher.path, run->teacher->arch->name, of_teacher->recipes->name,
                        cab_student_for(of_teacher->recipes)->name);
    return CAB_OK;
}

static cab_status open_terms(const cab_recipe *r, cab_run *run)
{
    const cab_term_setup setup = {
        .recipe = r, .student = run->student, .teacher = run->teacher, .layer_map = run->layer_map};
    return cab_term_set_open(&setup, &run->terms);
}

static cab_status open_averages(const cab_recipe *r, cab_run *run)
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

static cab_status choose_batches(const cab_recipe *r, uint64_t pass, cab_run *run)
{
    run->batch = r->train.batch;
    run->micro_batch = r->train.micro_batch > 0 ? r->train.micro_batch : r->train.batch;
    if (run->batch % run->micro_batch != 0)
        return cab_fail(CAB_ESHAPE, "train.batch %" PRId64 " is not a multiple of train.micro_batch %" PRId64,
                        run->batch, run->micro_batch);
    const int ranks = cab_communicator_size(run->communicator);
    if (run->micro_batch % ranks != 0)
        return cab_fail(CAB_ESHAPE, "%s %" PRId64 " does not divide among %d ranks",
                        r->train.micro_batch > 0 ? "train.micro_batch" : "train.batch", run->micro_batch, ranks);
    run->rank_batch = run->micro_batch / ranks;
    CAB_TRY(CAB_NEW(&run->stage_steps, r->stages_count, "stages"));
    CAB_TRY(cab_recipe_stage_steps(r, (uint64_t)run->seq_len, pass, run->stage_steps));
    for (unsigned i = 0; i < r->stages_count; i++)
        run->total_steps += run->stage_steps[i];
    return CAB_OK;
}

static cab_status run_open_data(const cab_recipe *r, cab_run *run)
{
    const cab_domain_setup setup = {.recipe = r,
                                    .backend = run->backend,
                                    .communicator = run->communicator,
                                    .precision = run->precision,
                                    .anew = run->anew,
                                    .teacher = run->teacher};
    CAB_TRY(run->domain->open(&setup, &run->data, &run->sizes));
    run->seq_len = run->sizes.length;
    return choose_batches(r, run->sizes.pass, run);
}

cab_status cab_run_open(const cab_recipe *r, cab_run *run)
{
    run->recipe = r;
    if (r->threads > 0)
        cab_thread_limit((int)r->threads);
    else if (run->communicator != NULL)
        cab_thread_limit(cab_run_threads(run));
    CAB_TRY(run_open_models(r, run));
    /* Rank 0 fills the caches that the others read. */
    if (!cab_run_writes(run))
        CAB_TRY(cab_run_after_first(run));
    CAB_TRY(run_open_data(r, run));
    if (cab_run_writes(run))
        CAB_TRY(cab_run_after_first(run));
    CAB_TRY(run->domain->student(run->data, &run->student));
    const int n_layer = run->student->config.n_layer;
    CAB_TRY(CAB_NEW(&run->layer_map, (size_t)n_layer, "a layer map"));
    CAB_TRY(cab_layer_map((int)r->bridge.layer_map, r->bridge.layers.items, r->bridge.layers.count, n_layer,
                          run->teacher->config.n_layer, run->layer_map));
    CAB_TRY(open_terms(r, run));
    if (r->student.path[0] == '\0')
        CAB_TRY(run->domain->initialise(run->data, run->student, run->layer_map));
    CAB_TRY(open_averages(r, run));
    CAB_TRY(run->domain->start(run->data, run->student, run->batch, run->micro_batch));
    CAB_TRY(cab_run_tasks_open(run));
    if (run->domain->teach != NULL)
        CAB_TRY(run->domain->teach(run->data, run->total_steps * (uint64_t)run->batch));
    return cab_inputs_describe(run, &run->inputs);
}

void cab_run_close(cab_run *run)
{
    char text[1024]; /* of what ended the run */
    snprintf(text, sizeof text, "%s", cab_error_text());
    if (cab_snapshot_wait(run) != CAB_OK)
        cab_error_set_text(text);
    cab_objective_free(run->objective);
    cab_optimizer_free(run->optimizer);
    if (run->domain != NULL) {
        run->domain->evaluator_free(run->evaluator);
        run->domain->close(run->data);
    }
    cab_run_tasks_close(run);
    cab_term_set_close(&run->terms);
    if (run->averages != NULL)
        for (size_t i = 0; i < cab_params_count(run->student->params); i++)
            run->backend->release(run->backend, run->averages[i]);
    cab_free(run->averages);
    cab_model_free(run->student);
    cab_model_free(run->teacher);
    cab_free(run->layer_map);
    cab_free(run->inputs);
    cab_free(run->stage_steps);
    cab_backend_close(run->backend);
}
