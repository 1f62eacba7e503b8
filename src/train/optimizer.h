/* optimizer.h - AdamW over the parameters that a graph trains, as a graph of its own. */
#ifndef CAB_TRAIN_OPTIMIZER_H
#define CAB_TRAIN_OPTIMIZER_H

#include "ops/ops.h"

typedef struct cab_optimizer cab_optimizer;

/* What differs between parameters. */
typedef struct cab_optimizer_rates {
    float decay;              /* of parameters declared CAB_DECAY */
    const char *const *fresh; /* patterns (shell wildcards) of parameters that train at the full rate; NULL: all do */
    float others;             /* factor on the rate of the others in store 0 */
} cab_optimizer_rates;

/* Updates those trainable parameters of `stores` that the planned graph `trained` adds gradients to: one that a stage does not
 * reach does not decay either. Moments start at zero. averages[store] (may be NULL) holds one fp32 array per parameter of that store, or NULL, that
 * follows the parameter as its EMA. */
cab_status cab_optimizer_new(const cab_graph *trained, cab_params *const *stores, float *const *const *averages,
                             int n_stores, const cab_optimizer_rates *rates, const cab_adamw_options *options,
                             cab_optimizer **optimizer);
void cab_optimizer_free(cab_optimizer *optimizer);

/* One update from the accumulated gradients, which are cleared. `step` counts from 1. CAB_ENUMERIC when the gradient is not
 * finite: nothing has changed then. */
cab_status cab_optimizer_step(cab_optimizer *optimizer, double lr, uint64_t step, double *gradient_norm);

/* What is updated, with its moments, for checkpoints. */
size_t cab_optimizer_count(const cab_optimizer *optimizer);
const cab_optimized *cab_optimizer_at(const cab_optimizer *optimizer, size_t index);
size_t cab_optimizer_bytes(const cab_optimizer *optimizer);

#endif
