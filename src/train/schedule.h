/* schedule.h - learning rate and loss weights as functions of the step. Steps count from 0 within a stage. */
#ifndef CAB_TRAIN_SCHEDULE_H
#define CAB_TRAIN_SCHEDULE_H

#include "distill/objective.h"
#include "distill/recipe.h"

/* Linear warm-up to the peak (cab_recipe_lr) over the first `warmup` share of the stage, then the recipe's shape down to
 * min_lr * peak at the last step. */
double cab_schedule_lr(const struct cab_recipe *recipe, const cab_stage *stage, int64_t d_model, uint64_t step,
                       uint64_t steps);
/* Weights of the terms: from start to end over the stage, linearly or along half a cosine. */
cab_term_weights cab_schedule_weights(const cab_stage *stage, uint64_t step, uint64_t steps);

#endif
