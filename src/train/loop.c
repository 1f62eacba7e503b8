/* loop.c - cab_distill(): from a recipe to an exported student, resumable at any moment. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "train/claim.h"
#include "train/ranks.h"
#include "train/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const double checkpoint_seconds = 300; /* between checkpoints, when the recipe leaves it open */
static const double eval_share = 0.1;         /* of a run's time that evaluations take at most, likewise */

static atomic_int stop_requested; /* outside a run: a signal handler, or another thread, has nothing else to reach */

/* Nothing else goes with it, so relaxed: ThreadSanitizer's other stores take a lock, which a signal may find taken. */
void cab_distill_stop(void)
{
    atomic_store_explicit(&stop_requested, 1, memory_order_relaxed);
}

static uint64_t tokens_in(const cab_run *run, uint64_t steps)
{
    return steps * (uint64_t)(run->batch * run->seq_len);
}

static uint64_t tokens_done(const cab_run *run)
{
    return tokens_in(run, run->step);
}

static cab_status log_step(cab_run *run, const cab_run_found *found)
{
    uint64_t first = 0;
    const cab_stage *stage = &run->recipe->stages[cab_run_stage(run, found->step - 1, &first)];
    const uint64_t tokens = tokens_in(run, found->step);
    cab_run_step line = {.step = found->step,
                         .tokens = tokens,
                         .stage = stage->name,
                         .loss = cab_terms_loss(&found->weights, &found->values),
                         .lr = found->lr,
                         .grad_norm = found->norm,
                         .tokens_per_s = (double)tokens / run->train_seconds,
                         .unit = run->domain->recipes->unit,
                         .seconds = run->seconds};
    memcpy(line.terms, found->values.of, sizeof line.terms);
    if (found->step % (uint64_t)run->recipe->train.log_every != 0 || !cab_run_writes(run))
        return CAB_OK;
    return cab_run_log_step(&run->log, &line);
}

/* What an evaluation found, one line. */
static void tell(const cab_run *run, const cab_run_evaluation *e)
{
    char found[CAB_FOUND_MAX], kl[64] = "";
    run->domain->found(e, found, sizeof found);
    if (!isnan(e->kl))
        snprintf(kl, sizeof kl, ", KL %.4f, agreement %.1f %%", e->kl, 100 * e->agreement);
    cab_log_info("step %" PRIu64 " of %" PRIu64 ": %s%s, on %" PRIu64 " %s", run->step, run->total_steps, found, kl,
                 e->tokens, run->domain->recipes->unit);
}

/* max_tokens 0: the last evaluation, on everything. *tasks is the caller's to put. */
static cab_status evaluate_and_log(cab_run *run, uint64_t max_tokens, cab_run_evaluation *out, json_object **tasks)
{
    double started = cab_seconds();
    *tasks = NULL;
    CAB_TRY(cab_run_evaluate(run, max_tokens, out));
    tell(run, out);
    CAB_TRY(cab_run_ask(run, max_tokens == 0, tasks));
    run->eval_last = cab_seconds() - started;
    run->seconds += run->eval_last;
    cab_run_eval line = {.step = run->step,
                         .tokens = tokens_done(run),
                         .loss = out->loss,
                         .perplexity = out->perplexity,
                         .kl = out->kl,
                         .agreement = out->agreement,
                         .top1 = out->top1,
                         .top5 = out->top5,
                         .unit = run->domain->recipes->unit,
                         .tasks = *tasks,
                         .seconds = run->seconds};
    return cab_run_writes(run) ? cab_run_log_eval(&run->log, &line) : CAB_OK;
}

/* Whether the evaluations so far and one more take a tenth of the time so far at most. The first one is taken to cost per token
 * half of what a step does, which goes backward as well. */
static bool evaluation_affordable(const cab_run *run)
{
    const double per_token = run->train_seconds / (double)tokens_done(run);
    const double next = run->eval_last > 0 ? run->eval_last : 0.5 * per_token * (double)run->sizes.part;
    return run->eval_seconds + next <= eval_share * (run->train_seconds + run->eval_seconds + next);
}

/* As often as the recipe says; else every tenth of the run, where that is affordable. */
static bool evaluation_due(const cab_run *run)
{
    const uint64_t given = (uint64_t)run->recipe->train.eval_every;
    const uint64_t every = given > 0 ? given : run->total_steps < 10 ? 1 : run->total_steps / 10;
    if (run->step % every != 0 || run->step >= run->total_steps)
        return false;
    return given > 0 || evaluation_affordable(run);
}

static void show_progress(const cab_run *run, cab_progress *progress, const cab_run_found *found)
{
    char detail[160];
    int used = 0;
    const cab_term_values *v = &found->values;
    for (int t = 0; t < CAB_TERM_COUNT && (size_t)used < sizeof detail / 2; t++)
        if (v->counted[t] && !isnan(v->of[t]))
            used += snprintf(detail + used, sizeof detail - (size_t)used, "%s %.3f  ", cab_term_name((cab_term_id)t),
                             v->of[t]);
    const double done = (double)tokens_in(run, found->step);
    used += snprintf(detail + used, sizeof detail - (size_t)used, "lr %.1e  ", found->lr);
    run->domain->progress(done, done / run->train_seconds, detail + used, sizeof detail - (size_t)used);
    cab_progress_update(progress, found->step, detail);
}

/* Saves, and says where the run stands and how it goes on. */
static cab_status interrupted(cab_run *run)
{
    char word[CAB_PATH_MAX];
    CAB_TRY(cab_snapshot_save(run));
    return cab_fail(CAB_EINTERRUPTED,
                    "interrupted at step %" PRIu64 " of %" PRIu64 "; to go on from there: cab distill --resume %s",
                    run->step, run->total_steps, cab_path_quoted(run->recipe->out, word));
}

/* A failed step leaves parameters as they were; the text gains the place to go on from. */
static cab_status failed_step(cab_run *run, cab_status status)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", cab_error_text());
    (void)cab_snapshot_wait(run);
    if (!cab_run_writes(run)) /* rank 0 knows */
        return cab_fail(status, "%s; %s/" CAB_RUN_CHECKPOINT " is the last good checkpoint, if there is one", text,
                        run->recipe->out);
    if (run->saved_step > 0)
        return cab_fail(status, "%s; the last good checkpoint is %s/" CAB_RUN_CHECKPOINT " (step %" PRIu64 ")", text,
                        run->recipe->out, run->saved_step);
    return cab_fail(status, "%s; no checkpoint had been written yet", text);
}

/* The same for what comes between steps, where a rank may wait for another in vain. */
static cab_status between_steps(cab_run *run, cab_status status)
{
    return status == CAB_OK || run->communicator == NULL ? status : failed_step(run, status);
}

/* Ends the steps that are on their way but for `behind` of them, and reports them. */
static cab_status catch_up(cab_run *run, int behind, cab_progress *progress)
{
    while (run->flying > behind) {
        cab_run_found found;
        const double started = cab_seconds();
        const cab_status status = cab_run_end_step(run, &found);
        const double spent = cab_seconds() - started;
        run->seconds += spent;
        run->train_seconds += spent;
        if (status != CAB_OK)
            return failed_step(run, status);
        show_progress(run, progress, &found);
        CAB_TRY(log_step(run, &found));
    }
    return CAB_OK;
}

static cab_status enter_stage_if_new(cab_run *run, unsigned *current, bool resumed, cab_progress *progress)
{
    uint64_t first = 0;
    unsigned stage = cab_run_stage(run, run->step, &first);
    if (stage == *current)
        return CAB_OK;
    *current = stage;
    CAB_TRY(catch_up(run, 0, progress));
    CAB_TRY(cab_run_enter_stage(run, stage));
    return resumed && run->step > first ? cab_snapshot_moments(run) : CAB_OK;
}

static bool checkpoint_due(const cab_run *run, double last)
{
    uint64_t every = (uint64_t)run->recipe->train.checkpoint_every;
    return every > 0 ? run->step % every == 0 : cab_seconds() - last > checkpoint_seconds;
}

static cab_status train_one(cab_run *run, cab_progress *progress)
{
    const double started = cab_seconds();
    const cab_status status = cab_run_begin_step(run);
    if (status != CAB_OK)
        return failed_step(run, status);
    const double spent = cab_seconds() - started;
    run->seconds += spent;
    run->train_seconds += spent;
    return catch_up(run, cab_run_behind(run), progress);
}

static cab_status evaluate_during(cab_run *run, cab_progress *progress)
{
    cab_run_evaluation evaluation;
    json_object *tasks = NULL;
    CAB_TRY(catch_up(run, 0, progress));
    const cab_status status = evaluate_and_log(run, run->sizes.part, &evaluation, &tasks);
    json_object_put(tasks);
    CAB_TRY(between_steps(run, status));
    run->eval_seconds += run->eval_last;
    return CAB_OK;
}

static cab_status stop_here(cab_run *run, bool begun, cab_progress *progress)
{
    if (!begun)
        return cab_fail(CAB_EINTERRUPTED, "interrupted before the first step");
    CAB_TRY(catch_up(run, 0, progress));
    return interrupted(run);
}

/* On a device, what a step found is read while the next one runs; before anything that needs the state, all steps are ended. */
static cab_status train(cab_run *run, bool resumed)
{
    unsigned stage = UINT32_MAX;
    double saved = cab_seconds();
    cab_progress progress;
    cab_due due = {.stop = stop_requested};
    cab_status status = CAB_OK;
    char label[64];
    run->saved_step = resumed ? run->step : 0;
    CAB_TRY(cab_run_agree(run, &due));
    cab_progress_begin(&progress, cab_recipe_method_name(run->recipe, label, sizeof label), "steps", run->step,
                       run->total_steps);
    while (run->step < run->total_steps) {
        if (due.stop || (run->communicator == NULL && stop_requested)) {
            status = stop_here(run, stage != UINT32_MAX, &progress);
            goto done;
        }
        CAB_GOTO(enter_stage_if_new(run, &stage, resumed, &progress));
        resumed = false;
        CAB_GOTO(train_one(run, &progress));
        CAB_GOTO(cab_snapshot_check(run));
        due = (cab_due){stop_requested, evaluation_due(run), checkpoint_due(run, saved)};
        CAB_GOTO(between_steps(run, cab_run_agree(run, &due)));
        if (due.evaluation)
            CAB_GOTO(evaluate_during(run, &progress));
        if (due.checkpoint && run->step < run->total_steps) {
            CAB_GOTO(catch_up(run, 0, &progress));
            CAB_GOTO(enter_stage_if_new(run, &stage, false, &progress)); /* a stage's end is the next one's start */
            CAB_GOTO(between_steps(run, cab_snapshot_begin(run)));
            saved = cab_seconds();
        }
    }
    status = catch_up(run, 0, &progress);
done:
    cab_progress_end(&progress);
    return status;
}

/* What the teacher itself reaches on the same data: the floor. Unknown where the domain scores it beside the student. */
static cab_status teacher_perplexity(cab_run *run, double *perplexity)
{
    cab_evaluator *evaluator = NULL;
    cab_run_evaluation found;
    *perplexity = NAN;
    if (!run->domain->teacher_alone)
        return CAB_OK;
    CAB_TRY(run->domain->evaluator(run->data, run->teacher, NULL, &evaluator));
    cab_status status = run->domain->evaluate(evaluator, 0, &found);
    run->domain->evaluator_free(evaluator);
    if (status == CAB_OK)
        *perplexity = found.perplexity;
    return status;
}

/* The student as it will be used: written, read back, working from its own directory. */
static cab_status export_and_show(cab_run *run, const char *directory, char **sample)
{
    CAB_TRY(cab_run_swap_averages(run));
    cab_free(run->student->directory);
    run->student->directory = NULL;
    CAB_TRY(run->domain->export_student(run->data, run->student, directory));
    CAB_TRY(cab_strdup(&run->student->directory, directory));
    return run->domain->show(run->data, run->student, sample);
}

static void warn_of_chance(const cab_run *run, const cab_run_evaluation *e)
{
    char what[CAB_FOUND_MAX];
    if (run->domain->by_chance(run->data, e, what, sizeof what))
        cab_log_warn("the student is worse than chance: %s", what);
}

static cab_status write_summary(const cab_run *run, const cab_run_evaluation *e, const char *student,
                                const char *sample, double teacher, json_object *tasks, cab_result *result)
{
    char method[64];
    *result = (cab_result){.loss = e->loss,
                           .perplexity = e->perplexity,
                           .kl = e->kl,
                           .agreement = e->agreement,
                           .top1 = e->top1,
                           .top5 = e->top5,
                           .tokens_per_second = (double)tokens_done(run) / run->train_seconds,
                           .seconds = run->seconds,
                           .peak_memory = cab_peak_memory(),
                           .tokens = tokens_done(run),
                           .steps = run->step};
    const cab_run_summary summary = {.result = *result,
                                     .method = cab_recipe_method_name(run->recipe, method, sizeof method),
                                     .teacher = run->recipe->teacher.path,
                                     .student = student,
                                     .sample = sample,
                                     .fraction = run->recipe->data.fraction,
                                     .seed = (uint64_t)run->recipe->seed,
                                     .parameters = cab_model_parameters(run->student),
                                     .tasks = tasks,
                                     .teacher_perplexity = teacher,
                                     .teacher_top1 = e->teacher_top1,
                                     .teacher_top5 = e->teacher_top5,
                                     .teacher_parameters = cab_model_parameters(run->teacher),
                                     .spent = run->spent,
                                     .unit = run->domain->recipes->unit};
    return cab_run_summary_write(run->recipe->out, &summary);
}

/* How fast the steps of this sitting were, and where their time went. */
static void tell_speed(const cab_run *run)
{
    const cab_run_spent *s = &run->spent;
    if (s->steps > 0)
        cab_log_info("time     %.1f %s/s in training: loader %.1f %%, host %.1f %%, device %.1f %%",
                     (double)tokens_done(run) / run->train_seconds, run->domain->recipes->unit,
                     100 * s->loader / s->steps, 100 * (s->steps - s->loader - s->device) / s->steps,
                     100 * s->device / s->steps);
}

static cab_status run_finish(cab_run *run, cab_result *result)
{
    char directory[CAB_PATH_MAX], *sample = NULL;
    json_object *tasks = NULL;
    cab_run_evaluation e;
    double teacher = NAN;
    cab_status status;
    CAB_GOTO(evaluate_and_log(run, 0, &e, &tasks));
    CAB_GOTO(teacher_perplexity(run, &teacher));
    if (!cab_run_writes(run))
        goto done;
    warn_of_chance(run, &e);
    CAB_GOTO(cab_path_join(directory, run->recipe->out, "student"));
    CAB_GOTO(export_and_show(run, directory, &sample));
    CAB_GOTO(write_summary(run, &e, directory, sample, teacher, tasks, result));
    status = cab_snapshot_remove(run);
done:
    cab_free(sample);
    json_object_put(tasks);
    return status;
}

static void run_describe(const cab_run *run)
{
    const cab_config *t = &run->teacher->config;
    cab_log_info("teacher  %s: %s, %.2f M parameters, %d layers, width %d", run->recipe->teacher.path,
                 run->teacher->arch->name, (double)cab_model_parameters(run->teacher) * 1e-6, t->n_layer, t->d_model);
    run->domain->describe(run->data, run->student, run->total_steps);
}

/* From the opened run to its result. */
static cab_status carry_out(cab_run *run, double opened, cab_model **student, cab_result *result)
{
    bool resumed = false;
    CAB_TRY(cab_snapshot_load(run, &resumed));
    CAB_TRY(cab_run_meet(run));
    if (cab_run_writes(run)) {
        CAB_TRY(cab_claim_record(run->recipe));
        if (run->domain->record != NULL)
            CAB_TRY(run->domain->record(run->data, run->recipe->out));
    }
    if (resumed)
        cab_log_info("resuming at step %" PRIu64 " of %" PRIu64, run->step, run->total_steps);
    run_describe(run);
    run->seconds += cab_seconds() - opened;
    if (cab_run_writes(run))
        CAB_TRY(cab_run_log_open(&run->log, run->recipe->out, run->step, run->step == run->total_steps));
    CAB_TRY(train(run, resumed));
    tell_speed(run);
    if (run->optimizer != NULL) /* trained just now: what follows may be interrupted without losing it */
        CAB_TRY(cab_snapshot_save(run));
    CAB_TRY(run_finish(run, result));
    return student != NULL ? cab_model_load(run->student->directory, run->precision, student) : CAB_OK;
}

static cab_status distill(const cab_recipe *recipe, bool anew, cab_communicator *communicator, cab_model **student,
                          cab_result *result)
{
    cab_run run = {.communicator = communicator, .anew = anew};
    cab_claim claim = {.directory = -1};
    cab_result own;
    const double opened = cab_seconds();
    cab_status status;
    CAB_TRY(cab_recipe_validate(recipe));
    if (cab_run_writes(&run))
        CAB_GOTO(cab_claim_take(recipe, anew, &claim));
    CAB_GOTO(cab_run_open(recipe, &run));
    if (cab_run_writes(&run))
        CAB_GOTO(cab_claim_begin(recipe, anew, &claim));
    CAB_GOTO(cab_run_after_first(&run));
    CAB_GOTO(carry_out(&run, opened, student, result != NULL ? result : &own));
done:
    stop_requested = 0; /* obeyed, or too late: another run may follow in this process */
    cab_run_log_close(&run.log);
    if (cab_run_writes(&run))
        cab_claim_release(recipe, status != CAB_OK && run.step == 0, &claim);
    cab_run_close(&run);
    return status;
}

cab_status cab_distill(const cab_recipe *recipe, cab_model **student, cab_result *result)
{
    return distill(recipe, false, NULL, student, result);
}

cab_status cab_distill_anew(const cab_recipe *recipe, cab_model **student, cab_result *result)
{
    return distill(recipe, true, NULL, student, result);
}

cab_status cab_distill_ranks(const cab_recipe *recipe, bool anew, cab_communicator *communicator)
{
    return distill(recipe, anew, communicator, NULL, NULL);
}
