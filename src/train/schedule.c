#include "train/schedule.h"

#include <math.h>

static const double pi = 3.14159265358979323846;
static const double wsd_decay = 0.2; /* share of the stage in which WSD comes down */

/* From 1 at progress 0 to 0 at progress 1. */
static double shape(int64_t schedule, double progress)
{
    switch (schedule) {
    case CAB_SCHEDULE_COSINE:
        return 0.5 * (1.0 + cos(pi * progress));
    case CAB_SCHEDULE_LINEAR:
        return 1.0 - progress;
    case CAB_SCHEDULE_WSD:
        return progress < 1.0 - wsd_decay ? 1.0 : (1.0 - progress) / wsd_decay;
    default:
        return 1.0;
    }
}

double cab_schedule_lr(const struct cab_recipe *recipe, const cab_stage *stage, int64_t d_model, uint64_t step,
                       uint64_t steps)
{
    double peak = cab_recipe_lr(recipe, stage, d_model);
    double warmup = floor(recipe->train.warmup * (double)steps);
    double position = (double)step;
    if (position < warmup)
        return peak * (position + 1.0) / (warmup + 1.0);
    double span = (double)steps - 1.0 - warmup;
    double progress = span > 0 ? (position - warmup) / span : 1.0;
    double low = recipe->train.schedule == CAB_SCHEDULE_CONSTANT ? 1.0 : recipe->train.min_lr;
    return peak * (low + (1.0 - low) * shape(recipe->train.schedule, progress));
}

static double weight(double start, double end, int64_t kind, double progress)
{
    if (end < 0)
        return start;
    double way = kind == CAB_WEIGHTS_COSINE ? 0.5 * (1.0 - cos(pi * progress)) : progress;
    return start + (end - start) * way;
}

cab_term_weights cab_schedule_weights(const cab_stage *stage, uint64_t step, uint64_t steps)
{
    double progress = steps > 1 ? (double)step / (double)(steps - 1) : 0.0;
    cab_term_weights weights;
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        const cab_term_span span = cab_stage_weight(stage, (cab_term_id)t);
        weights.of[t] = weight(span.start, span.end, stage->weights_shape, progress);
    }
    return weights;
}
