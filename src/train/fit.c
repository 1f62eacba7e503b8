/* fit.c - trading time for memory: how many of the student's layers are computed again in the backward pass.
 *
 * Recording and planning a step takes milliseconds and runs nothing, so the fewest layers that fit a budget are found by
 * bisection over plans: the more layers are recomputed, the smaller the arena. Results do not depend on it, to the bit. */
#include "base/log.h"
#include "train/ranks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* "40GiB", "512 MiB", "2e9": bytes. */
static cab_status parse_bytes(const char *text, double *bytes)
{
    static const struct {
        const char *unit;
        double size;
    } units[] = {{"", 1},         {"B", 1},    {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
                 {"TiB", 0x1p40}, {"KB", 1e3}, {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};
    char *end = NULL;
    double value = strtod(text, &end);
    while (end != text && *end == ' ')
        end++;
    for (size_t i = 0; end != text && value > 0 && isfinite(value) && i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].unit) == 0) {
            *bytes = value * units[i].size;
            return CAB_OK;
        }
    }
    return cab_fail(CAB_EARG, "train.memory: found \"%.40s\", expected a size as 40GiB, or auto", text);
}

/* What activations may take: the budget less everything else, or what the device has left. The optimizer has two moments per
 * trained parameter, and is made after the plan. */
static cab_status activation_budget(const cab_run *run, double *budget)
{
    const char *memory = run->recipe->train.memory;
    const int parts = run->recipe->train.shard == CAB_SHARD_OPTIMIZER ? cab_communicator_size(run->communicator) : 1;
    const double moments = 8.0 * (double)cab_model_parameters(run->student) / parts;
    if (strcmp(memory, "auto") == 0) {
        *budget = 0.95 * (run->backend->available(run->backend) - (run->optimizer == NULL ? moments : 0));
        return CAB_OK;
    }
    CAB_TRY(parse_bytes(memory, budget));
    *budget -= moments + (double)(cab_params_bytes(run->student->params) + cab_params_bytes(run->teacher->params));
    if (run->terms.params != NULL)
        *budget -= 3.0 * (double)cab_params_bytes(run->terms.params);
    return CAB_OK;
}

static bool needs_teacher(const cab_objective_options *options)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        if (options->terms[t] && (cab_term_at((cab_term_id)t)->needs & CAB_NEEDS_TEACHER))
            return true;
    return false;
}

static cab_status plan_with(cab_run *run, cab_objective_options *options, int recompute, cab_plan *plan)
{
    options->recompute = recompute;
    cab_objective_free(run->objective);
    run->objective = NULL;
    CAB_TRY(cab_objective_new(run->backend, run->student, needs_teacher(options) ? run->teacher : NULL, &run->terms,
                              options, &run->objective));
    return cab_objective_plan(run->objective, plan);
}

static bool fits(const cab_plan *plan, double budget)
{
    return (double)plan->arena + (double)plan->inputs <= budget;
}

cab_status cab_run_fit(cab_run *run, cab_objective_options *options, cab_plan *plan)
{
    const int n_layer = run->student->config.n_layer;
    char kept[CAB_FORMAT_MAX], traded[CAB_FORMAT_MAX], left[CAB_FORMAT_MAX];
    double budget = 0;
    if (run->recipe->train.memory[0] == '\0')
        return plan_with(run, options, run->recipe->train.recompute ? n_layer : 0, plan);
    CAB_TRY(plan_with(run, options, 0, plan)); /* makes the bf16 copies, which count */
    CAB_TRY(activation_budget(run, &budget));
    const cab_plan all_kept = *plan;
    int low = 0, high = fits(plan, budget) ? 0 : n_layer; /* low layers do not fit, high may */
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        CAB_TRY(plan_with(run, options, middle, plan));
        *(fits(plan, budget) ? &high : &low) = middle;
    }
    CAB_TRY(cab_run_most(run, &high)); /* the same list on all ranks */
    if (high == 0)
        return CAB_OK;
    CAB_TRY(plan_with(run, options, high, plan));
    cab_format_bytes((double)all_kept.arena, kept);
    cab_format_bytes((double)plan->arena, traded);
    if (!fits(plan, budget))
        return cab_fail(CAB_ENOMEM,
                        "train.memory: %s leaves %s for activations; the plan needs %s, and %s with every layer "
                        "recomputed; use a smaller train.micro_batch",
                        run->recipe->train.memory, cab_format_bytes(fmax(budget, 0), left), kept, traded);
    cab_log_info("memory: %d of %d layers are recomputed, activations take %s instead of %s", high, n_layer, traded,
                 kept);
    return CAB_OK;
}
