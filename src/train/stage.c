/* stage.c - one stage of a run: its graph, its optimizer, its steps, its evaluations. */
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "train/run_images.h"
#include "train/schedule.h"

#include <inttypes.h>
#include <math.h>

static const uint64_t periodic_eval_tokens = 16384; /* where the recipe leaves it open */

unsigned cab_run_stage(const cab_run *run, uint64_t step, uint64_t *first)
{
    *first = 0;
    unsigned stage = 0;
    while (stage + 1 < run->recipe->stages_count && step >= *first + run->stage_steps[stage])
        *first += run->stage_steps[stage++];
    return stage;
}

static cab_status freeze(cab_run *run, const cab_stage *stage)
{
    CAB_TRY(cab_params_set_trainable(run->student->params, "*", true, NULL));
    for (unsigned i = 0; i < stage->freeze.count; i++) {
        size_t matched = 0;
        CAB_TRY(cab_params_set_trainable(run->student->params, stage->freeze.items[i], false, &matched));
        if (matched == 0)
            return cab_fail(CAB_EARG, "stage \"%s\": freeze pattern \"%s\" matches no parameter of the student",
                            stage->name, stage->freeze.items[i]);
    }
    return CAB_OK;
}

static cab_status new_optimizer(cab_run *run)
{
    const struct cab_recipe *r = run->recipe;
    cab_params *stores[2] = {run->student->params, run->terms.params};
    float *const *averages[2] = {run->averages, NULL};
    cab_adamw_options options = {.beta1 = (float)r->train.beta1,
                                 .beta2 = (float)r->train.beta2,
                                 .eps = (float)r->train.eps,
                                 .clip = (float)r->train.clip,
                                 .ema_decay = (float)r->train.ema};
    cab_optimizer_free(run->optimizer);
    run->optimizer = NULL;
    return cab_optimizer_new(cab_objective_graph(run->objective), stores, averages, stores[1] != NULL ? 2 : 1,
                             (float)r->train.weight_decay, &options, &run->optimizer);
}

/* Parameters and gradients. */
static double parameter_bytes(const cab_run *run)
{
    return (double)(cab_params_bytes(run->student->params) + cab_params_bytes(run->teacher->params)) +
           (run->terms.params != NULL ? (double)cab_params_bytes(run->terms.params) : 0);
}

void cab_run_print_plan(const cab_run *run, const cab_stage *stage, const cab_plan *plan)
{
    char a[32], b[32], c[32], d[32], e[32];
    cab_log_info("plan of stage \"%s\": %d nodes, %d tensors, %.2f GFLOP in matrix products per micro-batch",
                 stage->name, plan->nodes, plan->tensors, plan->flops * 1e-9);
    cab_log_info("  parameters and gradients  %10s", cab_format_bytes(parameter_bytes(run), a));
    cab_log_info("  optimizer                 %10s", cab_format_bytes((double)cab_optimizer_bytes(run->optimizer), b));
    cab_log_info("  activations               %10s   (%s if none shared memory)",
                 cab_format_bytes((double)plan->arena, c), cab_format_bytes((double)plan->arena_unshared, d));
    cab_log_info("  peak                      %10s", cab_format_bytes(run->peak, e));
}

/* Said before anything runs, with every number needed to choose otherwise. */
static cab_status check_memory(const cab_run *run, const cab_plan *plan)
{
    char need[32], have[32];
    double available = run->backend->available(run->backend);
    if ((double)plan->arena <= available)
        return CAB_OK;
    return cab_fail(CAB_ENOMEM,
                    "the plan needs %s for activations, %s are available; lower train.micro_batch (%" PRId64
                    ") or %s, or set train.recompute",
                    cab_format_bytes((double)plan->arena, need), cab_format_bytes(available, have), run->micro_batch,
                    run->reads_images ? "data.image_size" : "data.seq_len");
}

cab_status cab_run_enter_stage(cab_run *run, unsigned index)
{
    const cab_stage *stage = &run->recipe->stages[index];
    cab_plan plan;
    cab_objective_options options = {.batch = run->micro_batch,
                                     .seq_len = run->seq_len,
                                     .temperature = (float)stage->temperature,
                                     .train = true,
                                     .teacher_head = run->images.side,
                                     .targets = run->images.mixed && cab_stage_needs(stage, CAB_NEEDS_LABELS)};
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        options.terms[t] = cab_stage_uses(stage, (cab_term_id)t);
    cab_objective_free(run->objective);
    run->objective = NULL;
    run->images.ahead = false;
    CAB_TRY(freeze(run, stage));
    CAB_TRY(cab_run_fit(run, &options, &plan));
    CAB_TRY(new_optimizer(run));
    run->peak =
        parameter_bytes(run) + (double)cab_optimizer_bytes(run->optimizer) + (double)plan.arena + (double)plan.inputs;
    cab_run_print_plan(run, stage, &plan);
    return check_memory(run, &plan);
}

/* Micro-batch `index` of the current step. */
static cab_status run_text(cab_run *run, int index, const cab_term_weights *weights, int share, cab_term_values *v)
{
    const uint64_t first = run->step * (uint64_t)run->batch + (uint64_t)(index * run->micro_batch);
    for (int64_t i = 0; i < run->micro_batch; i++)
        CAB_TRY(cab_dataset_train_sequence(run->train, first + (uint64_t)i, run->ids + i * run->seq_len,
                                           run->labels + i * run->seq_len));
    const cab_batch batch = {.input = run->ids, .labels = run->labels};
    return cab_objective_run(run->objective, &batch, weights, share, v);
}

/* A term that the stage has must be a number. */
static cab_status check_finite(const cab_run *run, const cab_stage *stage, const cab_term_values *v)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        if (cab_stage_uses(stage, (cab_term_id)t) && v->counted[t] && !isfinite(v->of[t]))
            return cab_fail(CAB_ENUMERIC, "step %" PRIu64 " (stage \"%s\"): the loss term %s is %g", run->step + 1,
                            stage->name, cab_term_name((cab_term_id)t), v->of[t]);
    return CAB_OK;
}

static void add_values(cab_term_values *sum, const cab_term_values *v, int share)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        sum->of[t] += v->of[t] / share;
        sum->counted[t] = sum->counted[t] || v->counted[t];
    }
    sum->agreement += v->agreement / share;
    sum->labels += v->labels;
    sum->valid += v->valid;
}

cab_status cab_run_advance(cab_run *run, cab_term_values *values, cab_term_weights *weights, double *lr, double *norm)
{
    uint64_t first = 0;
    unsigned index = cab_run_stage(run, run->step, &first);
    const cab_stage *stage = &run->recipe->stages[index];
    const int share = (int)(run->batch / run->micro_batch);
    *values = (cab_term_values){0};
    *weights = cab_schedule_weights(stage, run->step - first, run->stage_steps[index]);
    *lr = cab_schedule_lr(run->recipe, stage, run->student->config.d_model, run->step - first, run->stage_steps[index]);
    for (int i = 0; i < share; i++) {
        cab_term_values v;
        CAB_TRY(run->reads_images ? cab_run_images_train(run, i, weights, share, &v)
                                  : run_text(run, i, weights, share, &v));
        CAB_TRY(check_finite(run, stage, &v));
        add_values(values, &v, share);
    }
    cab_status status = cab_optimizer_step(run->optimizer, *lr, run->step - first + 1, norm);
    if (status == CAB_ENUMERIC)
        return cab_fail(CAB_ENUMERIC, "step %" PRIu64 " (stage \"%s\"): the gradient norm is %g", run->step + 1,
                        stage->name, *norm);
    run->step += status == CAB_OK;
    return status;
}

/* Graphs hold the tensors, whose memory changes here. A list that was captured keeps the addresses of its second run: training
 * never runs on the averages and evaluation, where there are any, on nothing else, so they stay right. */
cab_status cab_run_swap_averages(cab_run *run)
{
    cab_params *params = run->student->params;
    for (size_t i = 0; run->averages != NULL && i < cab_params_count(params); i++) {
        cab_tensor *t = cab_params_at(params, i);
        void *data = t->data;
        t->data = run->averages[i];
        run->averages[i] = data;
    }
    return run->averages != NULL ? cab_params_refresh(params) : CAB_OK;
}

/* Fills the micro-batch with windows [first, first + micro_batch); rows past the end have neither label nor weight. */
static void load_windows(cab_run *run, uint64_t first, uint64_t windows)
{
    for (int64_t i = 0; i < run->micro_batch; i++) {
        int32_t *labels = run->labels + i * run->seq_len, *valid = run->valid + i * run->seq_len;
        int32_t *ids = run->ids + i * run->seq_len;
        bool real = first + (uint64_t)i < windows;
        if (real)
            cab_dataset_eval_window(run->eval, (uint64_t)run->seq_len, first + (uint64_t)i, ids, labels);
        for (int64_t t = 0; t < run->seq_len; t++) {
            if (!real) {
                ids[t] = 0;
                labels[t] = -1;
            }
            valid[t] = labels[t] >= 0;
        }
    }
}

static cab_status evaluation_graph(cab_run *run)
{
    if (run->evaluation != NULL)
        return CAB_OK;
    cab_objective_options options = {.batch = run->micro_batch, .seq_len = run->seq_len, .temperature = 1};
    CAB_TRY(cab_objective_new(run->backend, run->student, run->teacher, NULL, &options, &run->evaluation));
    return cab_objective_plan(run->evaluation, NULL);
}

static cab_status evaluate_windows(cab_run *run, uint64_t windows, cab_run_evaluation *out)
{
    const cab_term_weights none = {{0}};
    const cab_batch batch = {.input = run->ids, .labels = run->labels, .valid = run->valid};
    double ce = 0, kl = 0, agreement = 0;
    cab_progress progress;
    cab_status status = CAB_OK;
    cab_progress_begin(&progress, "evaluating", "windows", 0, windows);
    for (uint64_t w = 0; w < windows; w += (uint64_t)run->micro_batch) {
        cab_term_values v;
        load_windows(run, w, windows);
        CAB_GOTO(cab_objective_run(run->evaluation, &batch, &none, 1, &v));
        cab_progress_update(&progress,
                            w + (uint64_t)run->micro_batch < windows ? w + (uint64_t)run->micro_batch : windows, "");
        ce += v.of[CAB_TERM_CE] * (double)v.labels;
        kl += v.of[CAB_TERM_KL] * (double)v.valid;
        agreement += v.agreement * (double)v.valid;
        out->tokens += (uint64_t)v.labels;
    }
    out->loss = ce / (double)out->tokens;
    out->kl = kl / (double)out->tokens;
    out->agreement = agreement / (double)out->tokens;
done:
    cab_progress_end(&progress);
    return status;
}

static cab_status evaluate_text(cab_run *run, uint64_t max_tokens, cab_run_evaluation *out)
{
    uint64_t windows = cab_dataset_eval_windows(run->eval, (uint64_t)run->seq_len);
    uint64_t limit = (max_tokens + (uint64_t)run->seq_len - 1) / (uint64_t)run->seq_len;
    if (max_tokens > 0 && limit < windows)
        windows = limit;
    CAB_TRY(evaluation_graph(run));
    return evaluate_windows(run, windows, out);
}

uint64_t cab_run_eval_size(const cab_run *run)
{
    const uint64_t given = (uint64_t)run->recipe->train.eval_tokens;
    if (run->reads_images)
        return cab_image_set_count(run->images.part != NULL ? run->images.part : run->images.eval);
    return given > 0 ? given : periodic_eval_tokens;
}

cab_status cab_run_evaluate(cab_run *run, uint64_t max_tokens, cab_run_evaluation *out)
{
    *out = (cab_run_evaluation){.top1 = NAN, .top5 = NAN, .teacher_top1 = NAN, .teacher_top5 = NAN};
    CAB_TRY(cab_run_swap_averages(run));
    cab_status status =
        run->reads_images ? cab_run_images_evaluate(run, max_tokens == 0, out) : evaluate_text(run, max_tokens, out);
    cab_status back = cab_run_swap_averages(run);
    return status != CAB_OK ? status : back;
}
