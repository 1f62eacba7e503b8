/* stage.c - one stage of a run: its graph, its optimizer, its steps, its evaluations. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "distill/students.h"
#include "train/ranks.h"
#include "train/schedule.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

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

static cab_status new_optimizer(cab_run *run, const cab_stage *stage)
{
    const cab_recipe *r = run->recipe;
    const cab_optimizer_rates rates = {
        .decay = (float)r->train.weight_decay, .fresh = cab_student_of(r)->fresh, .others = (float)stage->reused_rate};
    cab_params *stores[2] = {run->student->params, run->terms.params};
    float *const *averages[2] = {run->averages, NULL};
    cab_adamw_options options = {.beta1 = (float)r->train.beta1,
                                 .beta2 = (float)r->train.beta2,
                                 .eps = (float)r->train.eps,
                                 .clip = (float)r->train.clip,
                                 .ema_decay = (float)r->train.ema};
    cab_optimizer_free(run->optimizer);
    run->optimizer = NULL;
    return cab_optimizer_new(cab_objective_graph(run->objective), stores, averages, stores[1] != NULL ? 2 : 1, &rates,
                             &options, r->train.shard == CAB_SHARD_OPTIMIZER, &run->optimizer);
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
                    run->domain->smaller);
}

cab_status cab_run_enter_stage(cab_run *run, unsigned index)
{
    const cab_stage *stage = &run->recipe->stages[index];
    cab_plan plan;
    cab_objective_options options = {
        .batch = run->rank_batch,
        .seq_len = run->seq_len,
        .temperature = (float)stage->temperature,
        .train = true,
        .scatter = run->recipe->train.shard == CAB_SHARD_OPTIMIZER,
    };
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        options.terms[t] = cab_stage_uses(stage, (cab_term_id)t);
    run->domain->objective(run->data, &options);
    options.targets = options.targets && cab_stage_needs(stage, CAB_NEEDS_LABELS);
    cab_objective_free(run->objective);
    run->objective = NULL;
    run->ahead = false;
    run->flying = run->landed = 0;
    CAB_TRY(freeze(run, stage));
    CAB_TRY(cab_run_fit(run, &options, &plan));
    CAB_TRY(cab_run_compare_lists(run));
    CAB_TRY(new_optimizer(run, stage));
    run->peak =
        parameter_bytes(run) + (double)cab_optimizer_bytes(run->optimizer) + (double)plan.arena + (double)plan.inputs;
    cab_run_print_plan(run, stage, &plan);
    return check_memory(run, &plan);
}

/* Adds the seconds since `started` to one share of the time, and passes a status on. */
static cab_status spend(double *share, double started, cab_status status)
{
    *share += cab_seconds() - started;
    return status;
}

static cab_status next_batch(cab_run *run, uint64_t step, int index, cab_batch *batch)
{
    const double started = cab_seconds();
    return spend(&run->spent.loader, started, run->domain->batch(run->data, step, index, batch));
}

/* What follows micro-batch `index` is loaded, sent and counted while the device computes. A failure to load comes again when it is its
 * turn. */
static cab_status send_next(cab_run *run, int index, int share)
{
    const bool last = index + 1 == share;
    const uint64_t step = run->step + (last ? 1 : 0);
    uint64_t first = 0;
    cab_batch next;
    if (step >= run->total_steps || cab_run_stage(run, step, &first) != cab_run_stage(run, run->step, &first))
        return CAB_OK;
    const bool here = next_batch(run, step, last ? 0 : index + 1, &next) == CAB_OK &&
                      cab_objective_next(run->objective, &next) == CAB_OK;
    return cab_run_portion(run, here ? &next : NULL, &run->portion, &run->ahead);
}

/* Asks for micro-batch `index` of the current step, of `share`. */
static cab_status start_batch(cab_run *run, int index, const cab_term_weights *weights, int share)
{
    cab_batch batch;
    CAB_TRY(next_batch(run, run->step, index, &batch));
    if (run->ahead)
        batch.input = NULL, batch.pictures = NULL;
    else
        CAB_TRY(cab_run_portion(run, &batch, &run->portion, &run->ahead));
    run->ahead = false;
    cab_objective_set_portion(run->objective, &run->portion);
    cab_graph_set_reducing(cab_objective_graph(run->objective), index + 1 == share);
    double started = cab_seconds(), launched = 0;
    CAB_TRY(spend(run->backend->host ? &run->spent.device : &launched, started,
                  cab_objective_start(run->objective, &batch, weights, share)));
    return send_next(run, index, share);
}

/* A term that the stage has must be a number. */
static cab_status check_finite(const cab_run *run, uint64_t step, const cab_term_values *v)
{
    uint64_t first = 0;
    const cab_stage *stage = &run->recipe->stages[cab_run_stage(run, step - 1, &first)];
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        if (cab_stage_uses(stage, (cab_term_id)t) && v->counted[t] && !isfinite(v->of[t]))
            return cab_fail(CAB_ENUMERIC, "step %" PRIu64 " (stage \"%s\"): the loss term %s is %g", step, stage->name,
                            cab_term_name((cab_term_id)t), v->of[t]);
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

static int share_of(const cab_run *run)
{
    return (int)(run->batch / run->micro_batch);
}

/* The values of the oldest micro-batch that was asked for are added to its step's. */
static cab_status land_batch(cab_run *run)
{
    cab_run_found *step = &run->flight[run->landed / share_of(run)];
    cab_term_values v;
    const double started = cab_seconds();
    CAB_TRY(spend(&run->spent.device, started, cab_objective_finish(run->objective, &v)));
    if (run->communicator == NULL)
        CAB_TRY(check_finite(run, step->step, &v));
    add_values(&step->values, &v, share_of(run));
    run->landed++;
    return CAB_OK;
}

static cab_status begin_step(cab_run *run)
{
    uint64_t first = 0;
    unsigned index = cab_run_stage(run, run->step, &first);
    const cab_stage *stage = &run->recipe->stages[index];
    const int share = share_of(run);
    cab_run_found *step = &run->flight[run->flying];
    *step = (cab_run_found){
        .step = run->step + 1,
        .weights = cab_schedule_weights(stage, run->step - first, run->stage_steps[index]),
        .lr = cab_schedule_lr(run->recipe, stage, run->student->config.d_model, run->step - first,
                              run->stage_steps[index]),
    };
    run->flying++;
    for (int i = 0; i < share; i++) {
        if (cab_objective_full(run->objective))
            CAB_TRY(land_batch(run));
        CAB_TRY(start_batch(run, i, &step->weights, share));
    }
    const double update = cab_seconds();
    double launched = 0;
    CAB_TRY(spend(run->backend->host ? &run->spent.device : &launched, update,
                  cab_optimizer_start(run->optimizer, step->lr, run->step - first + 1)));
    run->step++;
    return CAB_OK;
}

/* A failed step, or one behind it, is not done. */
static cab_status end_at_failure(cab_run *run, cab_status status)
{
    if (status != CAB_OK && run->flying > 0)
        run->step = run->flight[0].step - 1;
    return status;
}

cab_status cab_run_begin_step(cab_run *run)
{
    const double started = cab_seconds();
    return end_at_failure(run, spend(&run->spent.steps, started, begin_step(run)));
}

/* Of the oldest step on its way: all its values. */
static cab_status land_step(cab_run *run)
{
    cab_run_found *step = &run->flight[0];
    while (run->landed < share_of(run))
        CAB_TRY(land_batch(run));
    CAB_TRY(cab_run_sum_values(run, &step->values));
    if (run->communicator != NULL)
        CAB_TRY(check_finite(run, step->step, &step->values)); /* ranks fail together */
    const double started = cab_seconds();
    const cab_status status = spend(&run->spent.device, started, cab_optimizer_finish(run->optimizer, &step->norm));
    if (status != CAB_ENUMERIC)
        return status;
    uint64_t first = 0;
    const cab_stage *stage = &run->recipe->stages[cab_run_stage(run, step->step - 1, &first)];
    return cab_fail(CAB_ENUMERIC, "step %" PRIu64 " (stage \"%s\"): the gradient norm is %g", step->step, stage->name,
                    step->norm);
}

cab_status cab_run_end_step(cab_run *run, cab_run_found *found)
{
    const double started = cab_seconds();
    const cab_status status = end_at_failure(run, spend(&run->spent.steps, started, land_step(run)));
    *found = run->flight[0];
    memmove(&run->flight[0], &run->flight[1], sizeof run->flight[0]);
    run->flying--;
    run->landed -= share_of(run);
    return status;
}

int cab_run_behind(const cab_run *run)
{
    return run->backend->host ? 0 : 1;
}

cab_status cab_run_advance(cab_run *run, cab_term_values *values, cab_term_weights *weights, double *lr, double *norm)
{
    cab_run_found found;
    CAB_TRY(cab_run_begin_step(run));
    CAB_TRY(cab_run_end_step(run, &found));
    *values = found.values;
    *weights = found.weights;
    *lr = found.lr;
    *norm = found.norm;
    return CAB_OK;
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

cab_status cab_run_evaluate(cab_run *run, uint64_t max_tokens, cab_run_evaluation *out)
{
    const cab_domain *domain = run->domain;
    CAB_TRY(cab_run_swap_averages(run));
    cab_status status = CAB_OK;
    if (run->evaluator == NULL)
        status = domain->evaluator(run->data, run->student, run->teacher, &run->evaluator);
    if (status == CAB_OK)
        status = domain->evaluate(run->evaluator, max_tokens, out);
    cab_status back = cab_run_swap_averages(run);
    return status != CAB_OK ? status : back;
}
