/* loop.c - cab_distill(): from a recipe to an exported student, resumable at any moment. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "train/claim.h"
#include "train/run_images.h"
#include "train/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const double checkpoint_seconds = 300; /* between checkpoints, when the recipe leaves it open */
static const double eval_share = 0.1;         /* of a run's time that evaluations take at most, likewise */

static volatile sig_atomic_t stop_requested; /* outside a run: a signal handler has nothing else to reach */

void cab_distill_stop(void)
{
    stop_requested = 1;
}

static uint64_t tokens_done(const cab_run *run)
{
    return run->step * (uint64_t)(run->batch * run->seq_len);
}

static cab_status log_step(cab_run *run, const cab_term_values *v, const cab_term_weights *w, double lr, double norm)
{
    uint64_t first = 0;
    const cab_stage *stage = &run->recipe->stages[cab_run_stage(run, run->step - 1, &first)];
    cab_run_step line = {.step = run->step,
                         .tokens = tokens_done(run),
                         .stage = stage->name,
                         .loss = cab_terms_loss(w, v),
                         .lr = lr,
                         .grad_norm = norm,
                         .tokens_per_s = (double)tokens_done(run) / run->train_seconds,
                         .images = run->reads_images,
                         .seconds = run->seconds};
    memcpy(line.terms, v->of, sizeof line.terms);
    if (run->step % (uint64_t)run->recipe->train.log_every != 0)
        return CAB_OK;
    return cab_run_log_step(&run->log, &line);
}

/* What an evaluation found, one line. */
static void tell(const cab_run *run, const cab_run_evaluation *e)
{
    char kl[64] = "";
    if (!isnan(e->kl))
        snprintf(kl, sizeof kl, ", KL %.4f, agreement %.1f %%", e->kl, 100 * e->agreement);
    if (run->reads_images)
        cab_log_info("step %" PRIu64 " of %" PRIu64 ": top-1 %.2f %%, top-5 %.2f %%%s, on %" PRIu64 " images",
                     run->step, run->total_steps, 100 * e->top1, 100 * e->top5, kl, e->tokens);
    else
        cab_log_info("step %" PRIu64 " of %" PRIu64 ": perplexity %.2f%s, on %" PRIu64 " tokens", run->step,
                     run->total_steps, exp(e->loss), kl, e->tokens);
}

static cab_status evaluate_and_log(cab_run *run, uint64_t max_tokens, cab_run_evaluation *out)
{
    double started = cab_seconds();
    CAB_TRY(cab_run_evaluate(run, max_tokens, out));
    run->eval_last = cab_seconds() - started;
    run->seconds += run->eval_last;
    tell(run, out);
    cab_run_eval line = {.step = run->step,
                         .tokens = tokens_done(run),
                         .loss = out->loss,
                         .perplexity = run->reads_images ? NAN : exp(out->loss),
                         .kl = out->kl,
                         .agreement = out->agreement,
                         .top1 = out->top1,
                         .top5 = out->top5,
                         .images = run->reads_images,
                         .seconds = run->seconds};
    return cab_run_log_eval(&run->log, &line);
}

/* Whether the evaluations so far and one more take a tenth of the time so far at most. The first one is taken to cost per token
 * half of what a step does, which goes backward as well. */
static bool evaluation_affordable(const cab_run *run)
{
    const double per_token = run->train_seconds / (double)tokens_done(run);
    const double next = run->eval_last > 0 ? run->eval_last : 0.5 * per_token * (double)cab_run_eval_size(run);
    return run->eval_seconds + next <= eval_share * (run->train_seconds + run->eval_seconds + next);
}

/* As often as the recipe says; else every tenth of the run, where that is affordable. */
static bool evaluation_due(const cab_run *run)
{
    const uint64_t given = (uint64_t)run->recipe->train.eval_every;
    const uint64_t every = given > 0 ? given : run->total_steps < 10 ? 1 : run->total_steps / 10;
    if ((run->eval == NULL && !run->reads_images) || run->step % every != 0 || run->step >= run->total_steps)
        return false;
    return given > 0 || evaluation_affordable(run);
}

static void show_progress(const cab_run *run, cab_progress *progress, const cab_term_values *v, double lr)
{
    char detail[160];
    int used = 0;
    for (int t = 0; t < CAB_TERM_COUNT && (size_t)used < sizeof detail / 2; t++)
        if (v->counted[t] && !isnan(v->of[t]))
            used += snprintf(detail + used, sizeof detail - (size_t)used, "%s %.3f  ", cab_term_name((cab_term_id)t),
                             v->of[t]);
    const double done = (double)tokens_done(run);
    if (run->reads_images)
        snprintf(detail + used, sizeof detail - (size_t)used, "lr %.1e  %.1fk images  %.1f images/s", lr, done / 1e3,
                 done / run->train_seconds);
    else
        snprintf(detail + used, sizeof detail - (size_t)used, "lr %.1e  %.1fk tokens  %.1fk tokens/s", lr, done / 1e3,
                 done / run->train_seconds / 1e3);
    cab_progress_update(progress, run->step, detail);
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
static cab_status failed_step(const cab_run *run, uint64_t saved_step, cab_status status)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", cab_error_text());
    if (saved_step > 0)
        return cab_fail(status, "%s; the last good checkpoint is %s/" CAB_RUN_CHECKPOINT " (step %" PRIu64 ")", text,
                        run->recipe->out, saved_step);
    return cab_fail(status, "%s; no checkpoint had been written yet", text);
}

static cab_status enter_stage_if_new(cab_run *run, unsigned *current, bool resumed)
{
    uint64_t first = 0;
    unsigned stage = cab_run_stage(run, run->step, &first);
    if (stage == *current)
        return CAB_OK;
    *current = stage;
    CAB_TRY(cab_run_enter_stage(run, stage));
    return resumed && run->step > first ? cab_snapshot_moments(run) : CAB_OK;
}

static bool checkpoint_due(const cab_run *run, double last)
{
    uint64_t every = (uint64_t)run->recipe->train.checkpoint_every;
    return every > 0 ? run->step % every == 0 : cab_seconds() - last > checkpoint_seconds;
}

static cab_status train_one(cab_run *run, cab_progress *progress, uint64_t saved_step)
{
    cab_term_values values;
    cab_term_weights weights;
    double lr = 0, norm = 0, started = cab_seconds();
    cab_status status = cab_run_advance(run, &values, &weights, &lr, &norm);
    if (status != CAB_OK)
        return failed_step(run, saved_step, status);
    double spent = cab_seconds() - started;
    run->seconds += spent;
    run->train_seconds += spent;
    show_progress(run, progress, &values, lr);
    return log_step(run, &values, &weights, lr, norm);
}

static cab_status train(cab_run *run, bool resumed)
{
    unsigned stage = UINT32_MAX;
    uint64_t saved_step = resumed ? run->step : 0;
    double saved = cab_seconds();
    cab_run_evaluation evaluation;
    cab_progress progress;
    cab_status status = CAB_OK;
    char label[64];
    cab_progress_begin(&progress, cab_recipe_method_name(run->recipe, label, sizeof label), "steps", run->step,
                       run->total_steps);
    while (run->step < run->total_steps) {
        if (stop_requested) {
            status = stage == UINT32_MAX ? cab_fail(CAB_EINTERRUPTED, "interrupted before the first step")
                                         : interrupted(run);
            goto done;
        }
        CAB_GOTO(enter_stage_if_new(run, &stage, resumed));
        resumed = false;
        CAB_GOTO(train_one(run, &progress, saved_step));
        if (evaluation_due(run)) {
            CAB_GOTO(evaluate_and_log(run, cab_run_eval_size(run), &evaluation));
            run->eval_seconds += run->eval_last;
        }
        if (checkpoint_due(run, saved) && run->step < run->total_steps) {
            CAB_GOTO(enter_stage_if_new(run, &stage, false)); /* a stage's end is the next one's start */
            CAB_GOTO(cab_snapshot_save(run));
            saved = cab_seconds();
            saved_step = run->step;
        }
    }
done:
    cab_progress_end(&progress);
    return status;
}

/* Cross-entropy of the teacher itself on the same windows: the floor. */
static cab_status teacher_loss(cab_run *run, double *loss)
{
    cab_model *student = run->student;
    cab_objective *evaluation = run->evaluation;
    cab_run_evaluation out = {0};
    float **averages = run->averages;
    cab_model *teacher = run->teacher;
    run->student = teacher;
    run->teacher = NULL;
    run->evaluation = NULL;
    run->averages = NULL;
    cab_status status = cab_run_evaluate(run, 0, &out);
    cab_objective_free(run->evaluation);
    run->student = student;
    run->teacher = teacher;
    run->evaluation = evaluation;
    run->averages = averages;
    *loss = out.loss;
    return status;
}

typedef struct sample {
    char text[2048];
    size_t size;
} sample;

static bool collect(void *user, const char *text, size_t size)
{
    sample *s = user;
    if (s->size + size >= sizeof s->text)
        return false;
    memcpy(s->text + s->size, text, size);
    s->size += size;
    s->text[s->size] = '\0';
    return true;
}

/* The student as it will be used: written, read back, decoding from its own directory. */
static cab_status export_and_sample(cab_run *run, const char *directory, sample *s)
{
    cab_generate_options options = cab_generate_defaults();
    CAB_TRY(cab_run_swap_averages(run));
    cab_free(run->student->directory);
    run->student->directory = NULL;
    CAB_TRY(cab_model_export(run->student, directory, run->reads_images ? NULL : run->recipe->teacher.path, NULL));
    CAB_TRY(cab_strdup(&run->student->directory, directory));
    if (run->reads_images) {
        CAB_TRY(cab_run_images_describe(run, directory));
        return cab_run_images_predict(run);
    }
    options.seed = (uint64_t)run->recipe->seed;
    if (cab_generate(run->student, "", &options, collect, s) != CAB_OK) /* as where no token begins a text */
        cab_log_warn("no sample of the student's text: %s", cab_error_text());
    return CAB_OK;
}

/* A model that knows nothing has the perplexity of the vocabulary's size, and is right once in as many times as there are classes. */
static void warn_of_chance(const cab_run *run, const cab_run_evaluation *e)
{
    const int words = run->student->config.vocab_size;
    if (run->reads_images) {
        const size_t classes = cab_image_set_classes(run->images.eval)->count;
        if (e->top1 < 1.0 / (double)classes)
            cab_log_warn("the student is worse than chance: top-1 %.2f %% of %zu classes", 100 * e->top1, classes);
    } else if (exp(e->loss) > words) {
        cab_log_warn("the student is worse than chance: perplexity %.0f with a vocabulary of %d", exp(e->loss), words);
    }
}

static cab_status finish(cab_run *run, cab_result *result)
{
    char directory[CAB_PATH_MAX], method[64];
    sample text = {.text = ""};
    cab_run_evaluation e = {
        .loss = NAN, .kl = NAN, .agreement = NAN, .top1 = NAN, .top5 = NAN, .teacher_top1 = NAN, .teacher_top5 = NAN};
    double floor = NAN;
    if (run->eval != NULL || run->reads_images)
        CAB_TRY(evaluate_and_log(run, 0, &e));
    if (run->eval != NULL)
        CAB_TRY(teacher_loss(run, &floor));
    warn_of_chance(run, &e);
    CAB_TRY(cab_path_join(directory, run->recipe->out, "student"));
    CAB_TRY(export_and_sample(run, directory, &text));
    *result = (cab_result){.loss = e.loss,
                           .perplexity = run->reads_images ? NAN : exp(e.loss),
                           .kl = e.kl,
                           .agreement = e.agreement,
                           .top1 = e.top1,
                           .top5 = e.top5,
                           .tokens_per_second = (double)tokens_done(run) / run->train_seconds,
                           .seconds = run->seconds,
                           .peak_memory = cab_peak_memory(),
                           .tokens = tokens_done(run),
                           .steps = run->step};
    cab_run_summary summary = {.result = *result,
                               .method = cab_recipe_method_name(run->recipe, method, sizeof method),
                               .teacher = run->recipe->teacher.path,
                               .student = directory,
                               .sample = run->reads_images ? NULL : text.text,
                               .fraction = run->recipe->data.fraction,
                               .seed = (uint64_t)run->recipe->seed,
                               .parameters = cab_model_parameters(run->student),
                               .teacher_perplexity = exp(floor),
                               .teacher_top1 = e.teacher_top1,
                               .teacher_top5 = e.teacher_top5,
                               .teacher_parameters = run->teacher ? cab_model_parameters(run->teacher) : 0,
                               .images = run->reads_images};
    CAB_TRY(cab_run_summary_write(run->recipe->out, &summary));
    return cab_snapshot_remove(run);
}

static void describe(const cab_run *run)
{
    const cab_config *t = &run->teacher->config, *s = &run->student->config;
    cab_log_info("teacher  %s: %s, %.2f M parameters, %d layers, width %d", run->recipe->teacher.path,
                 run->teacher->arch->name, (double)cab_model_parameters(run->teacher) * 1e-6, t->n_layer, t->d_model);
    if (run->reads_images) {
        cab_run_images_print(run);
        return;
    }
    cab_log_info("student  %s, %.2f M parameters, %d layers, width %d, %d heads, state %d", run->student->arch->name,
                 (double)cab_model_parameters(run->student) * 1e-6, s->n_layer, s->d_model, s->n_head, s->d_state);
    cab_log_info("data     %" PRIu64 " of %" PRIu64 " documents, %" PRIu64 " tokens; %" PRIu64 " steps of %" PRId64
                 " x %" PRId64 " tokens, %s",
                 cab_dataset_documents(run->train), cab_dataset_documents_all(run->train),
                 cab_dataset_tokens(run->train), run->total_steps, run->batch, run->seq_len,
                 run->precision == CAB_PRECISION_BF16 ? "bf16" : "fp32");
}

/* From the opened run to its result. */
static cab_status carry_out(cab_run *run, double opened, cab_model **student, cab_result *result)
{
    bool resumed = false;
    CAB_TRY(cab_snapshot_load(run, &resumed));
    CAB_TRY(cab_claim_record(run->recipe));
    if (resumed)
        cab_log_info("resuming at step %" PRIu64 " of %" PRIu64, run->step, run->total_steps);
    describe(run);
    run->seconds += cab_seconds() - opened;
    CAB_TRY(cab_run_log_open(&run->log, run->recipe->out, run->step, run->step == run->total_steps));
    CAB_TRY(train(run, resumed));
    if (run->optimizer != NULL) /* trained just now: what follows may be interrupted without losing it */
        CAB_TRY(cab_snapshot_save(run));
    CAB_TRY(finish(run, result));
    return student != NULL ? cab_model_load(run->student->directory, run->precision, student) : CAB_OK;
}

static cab_status distill(const cab_recipe *recipe, bool anew, cab_model **student, cab_result *result)
{
    cab_run run = {0};
    cab_claim claim = {.directory = -1};
    cab_result own;
    const double opened = cab_seconds();
    cab_status status;
    CAB_TRY(cab_recipe_validate(recipe));
    CAB_GOTO(cab_claim_take(recipe, anew, &claim));
    CAB_GOTO(cab_run_open(recipe, &run));
    CAB_GOTO(cab_claim_begin(recipe, anew, &claim));
    CAB_GOTO(carry_out(&run, opened, student, result != NULL ? result : &own));
done:
    stop_requested = 0; /* obeyed, or too late: another run may follow in this process */
    cab_run_log_close(&run.log);
    cab_claim_release(recipe, status != CAB_OK && run.step == 0, &claim);
    cab_run_close(&run);
    return status;
}

cab_status cab_distill(const cab_recipe *recipe, cab_model **student, cab_result *result)
{
    return distill(recipe, false, student, result);
}

cab_status cab_distill_anew(const cab_recipe *recipe, cab_model **student, cab_result *result)
{
    return distill(recipe, true, student, result);
}
