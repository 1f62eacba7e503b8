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

/* One step of the run, and its log line. */
static cab_status take_step(cab_run *run)
{
    cab_term_values values;
    cab_term_weights weights;
    double lr, norm;
    CAB_TRY(cab_run_advance(run, &values, &weights, &lr, &norm));
    cab_run_step line = {.step = run->step,
                         .stage = "timed",
                         .loss = cab_terms_loss(&weights, &values),
                         .lr = lr,
                         .grad_norm = norm,
                         .unit = run->domain->recipes->unit};
    return cab_run_log_step(&run->log, &line);
}

static cab_status time_whole(cab_run *run, run_timer *t)
{
    CAB_TRY(take_step(run));
    t->first = cab_seconds() - t->opened;
    for (int i = 1; i < WARM; i++)
        CAB_TRY(take_step(run));
    run->spent = (cab_run_spent){0};
    const double started = cab_seconds();
    for (int i = 0; i < t->steps; i++)
        CAB_TRY(take_step(run));
    t->whole = cab_seconds() - started;
    return CAB_OK;
}

/* A step of micro-batches that are all the same one. Its rate changes nothing. */
static cab_status step_alone(cab_run *run, const cab_batch *batch, const cab_term_weights *weights)
{
    const int share = (int)(run->batch / run->micro_batch);
    cab_term_values values;
    cab_batch sent = *batch;
    double norm = 0;
    sent.input = NULL, sent.pictures = NULL;
    for (int i = 0; i < share; i++) {
        CAB_TRY(cab_objective_start(run->objective, &sent, weights, share));
        CAB_TRY(cab_objective_next(run->objective, batch)); /* beside the step, as in a run */
        CAB_TRY(cab_objective_finish(run->objective, &values));
    }
    return cab_optimizer_step(run->optimizer, 1e-9, run->step + 1, &norm);
}

static cab_status time_alone(cab_run *run, run_timer *t)
{
    uint64_t first = 0;
    const unsigned index = cab_run_stage(run, run->step, &first);
    const cab_term_weights weights =
        cab_schedule_weights(&run->recipe->stages[index], run->step - first, run->stage_steps[index]);
    cab_batch batch;
    double started = 0;
    CAB_TRY(run->domain->batch(run->data, run->step, 0, &batch));
    CAB_TRY(cab_objective_next(run->objective, &batch));
    for (int i = 0; i < WARM + t->steps; i++) {
        if (i == WARM)
            started = cab_seconds();
        CAB_TRY(step_alone(run, &batch, &weights));
    }
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
