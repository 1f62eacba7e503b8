/* run_timer.c - steps as a run takes them, then the same steps with nothing to load. Both stretches are timed as a whole, by the
 * clock, after some steps to warm up, in which libraries choose their algorithms and the loader fills its ring. */
#include "train/run_timer.h"

#include "base/file.h"
#include "base/log.h"
#include "train/rehearse.h"
#include "train/run.h"
#include "train/schedule.h"

#include <errno.h>
#include <inttypes.h>

enum { WARM = 8 };

typedef struct run_timer {
    int steps;
    FILE *out;
    double opened;       /* when opening began */
    double first;        /* seconds from then to the end of the first step */
    double whole, alone; /* seconds of the timed steps */
} run_timer;

/* The log lines of the steps that are on their way but for `behind` of them. */
static cab_status end_steps(cab_run *run, int behind)
{
    while (run->flying > behind) {
        cab_run_found found;
        CAB_TRY(cab_run_end_step(run, &found));
        cab_run_step line = {.step = found.step,
                             .stage = "timed",
                             .loss = cab_terms_loss(&found.weights, &found.values),
                             .lr = found.lr,
                             .grad_norm = found.norm,
                             .unit = run->domain->recipes->unit};
        CAB_TRY(cab_run_log_step(&run->log, &line));
    }
    return CAB_OK;
}

/* `steps` steps as a run takes them, from asking for the first to the end of the last. */
static cab_status take_steps(cab_run *run, int steps)
{
    for (int i = 0; i < steps; i++) {
        CAB_TRY(cab_run_begin_step(run));
        CAB_TRY(end_steps(run, cab_run_behind(run)));
    }
    return end_steps(run, 0);
}

static cab_status time_whole(cab_run *run, run_timer *t)
{
    CAB_TRY(take_steps(run, 1));
    t->first = cab_seconds() - t->opened;
    CAB_TRY(take_steps(run, WARM - 1));
    run->spent = (cab_run_spent){0};
    const double started = cab_seconds();
    CAB_TRY(take_steps(run, t->steps));
    t->whole = cab_seconds() - started;
    return CAB_OK;
}

/* Asks for a step of micro-batches that are all the same one; *waiting counts those that are not finished. Its rate changes nothing. */
static cab_status begin_alone(cab_run *run, const cab_batch *batch, const cab_term_weights *weights, int *waiting)
{
    const int share = (int)(run->batch / run->micro_batch);
    cab_batch sent = *batch;
    sent.input = NULL, sent.pictures = NULL;
    for (int i = 0; i < share; i++, ++*waiting) {
        cab_term_values values;
        if (cab_objective_full(run->objective)) {
            CAB_TRY(cab_objective_finish(run->objective, &values));
            --*waiting;
        }
        CAB_TRY(cab_objective_start(run->objective, &sent, weights, share));
        CAB_TRY(cab_objective_next(run->objective, batch)); /* beside the step, as in a run */
    }
    return cab_optimizer_start(run->optimizer, 1e-9, run->step + 1);
}

/* Ends the oldest; `left` micro-batches of the one behind it may wait. */
static cab_status end_alone(cab_run *run, int left, int *waiting)
{
    double norm = 0;
    for (; *waiting > left; --*waiting) {
        cab_term_values values;
        CAB_TRY(cab_objective_finish(run->objective, &values));
    }
    return cab_optimizer_finish(run->optimizer, &norm);
}

static cab_status steps_alone(cab_run *run, const cab_batch *batch, const cab_term_weights *weights, int steps)
{
    const int share = (int)(run->batch / run->micro_batch), behind = cab_run_behind(run);
    int waiting = 0;
    for (int i = 0; i < steps; i++) {
        CAB_TRY(begin_alone(run, batch, weights, &waiting));
        if (i >= behind)
            CAB_TRY(end_alone(run, behind * share, &waiting));
    }
    return behind > 0 ? end_alone(run, 0, &waiting) : CAB_OK;
}

static cab_status time_alone(cab_run *run, run_timer *t)
{
    uint64_t first = 0;
    const unsigned index = cab_run_stage(run, run->step, &first);
    const cab_term_weights weights =
        cab_schedule_weights(&run->recipe->stages[index], run->step - first, run->stage_steps[index]);
    cab_batch batch;
    CAB_TRY(run->domain->batch(run->data, run->step, 0, &batch));
    CAB_TRY(cab_objective_next(run->objective, &batch));
    CAB_TRY(steps_alone(run, &batch, &weights, WARM));
    const double started = cab_seconds();
    CAB_TRY(steps_alone(run, &batch, &weights, t->steps));
    t->alone = cab_seconds() - started;
    return CAB_OK;
}

static void print_rates(const cab_run *run, const run_timer *t)
{
    const double units = (double)t->steps * (double)(run->batch * run->seq_len);
    const cab_run_spent *s = &run->spent;
    const double host = s->steps - s->loader - s->device + (t->whole - s->steps);
    const char *unit = run->domain->recipes->unit;
    fprintf(t->out, "end to end   %10.0f %s/s   %.2f ms a step of %" PRId64 "\n", units / t->whole, unit,
            t->whole * 1e3 / t->steps, run->batch);
    fprintf(t->out, "step alone   %10.0f %s/s   %.2f ms: end to end is %.1f %% of it\n", units / t->alone, unit,
            t->alone * 1e3 / t->steps, 100 * t->alone / t->whole);
    fprintf(t->out, "time         loader %.1f %%, host %.1f %%, device %.1f %%\n", 100 * s->loader / t->whole,
            100 * host / t->whole, 100 * s->device / t->whole);
    fprintf(t->out, "first step   %.2f s after opening began\n", t->first);
}

static cab_status time_run(cab_run *run, void *user)
{
    run_timer *t = user;
    const unsigned last = run->recipe->stages_count - 1;
    const uint64_t needed = (uint64_t)t->steps + WARM + 1;
    if (run->stage_steps[last] < needed)
        return cab_fail(CAB_EARG,
                        "the last stage has %" PRIu64 " steps, timing %d takes %" PRIu64
                        ": raise train.tokens or lower --steps",
                        run->stage_steps[last], t->steps, needed);
    run->step = run->total_steps - run->stage_steps[last];
    CAB_TRY(cab_run_enter_stage(run, last));
    run->log.stream = fopen("/dev/null", "w");
    if (run->log.stream == NULL)
        return cab_fail_errno(CAB_EIO, errno, "/dev/null: cannot be opened");
    cab_status status = time_whole(run, t);
    const cab_run_spent spent = run->spent;
    if (status == CAB_OK)
        status = time_alone(run, t);
    run->spent = spent;
    cab_run_log_close(&run->log);
    if (status == CAB_OK)
        print_rates(run, t);
    return status;
}

cab_status cab_run_time(const cab_recipe *recipe, int steps, FILE *out)
{
    run_timer t = {.steps = steps, .out = out, .opened = cab_seconds()};
    return cab_rehearse_with(recipe, time_run, &t);
}
