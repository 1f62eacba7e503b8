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
 * follows the parameter as its EMA. Of ranks (backend->communicator) all call this together, and begin with the same parameters.
 * divided: each has the moments of its part alone; the graph then reduces gradients with `scatter` (cab_graph_reduce). */
cab_status cab_optimizer_new(const cab_graph *trained, cab_params *const *stores, float *const *const *averages,
                             int n_stores, const cab_optimizer_rates *rates, const cab_adamw_options *options,
                             bool divided, cab_optimizer **optimizer);
void cab_optimizer_free(cab_optimizer *optimizer);

/* One update from the accumulated gradients, which are cleared. `step` counts from 1. CAB_ENUMERIC when the gradient is not
 * finite: nothing has changed then. In two calls, the next step can be asked for in between: finish waits for the oldest update. */
cab_status cab_optimizer_start(cab_optimizer *optimizer, double lr, uint64_t step);
cab_status cab_optimizer_finish(cab_optimizer *optimizer, double *gradient_norm);
/* start and finish, with nothing in between. */
cab_status cab_optimizer_step(cab_optimizer *optimizer, double lr, uint64_t step, double *gradient_norm);

/* What is updated, for checkpoints. Its moments, m and v, are there unless they are divided. */
size_t cab_optimizer_count(const cab_optimizer *optimizer);
const cab_optimized *cab_optimizer_at(const cab_optimizer *optimizer, size_t index);
bool cab_optimizer_divided(const cab_optimizer *optimizer);
/* Divided: moments of the parameter cab_optimizer_at(index), whole, on the host. All ranks call this; those but rank 0 get
 * their own part. */
cab_status cab_optimizer_read_moments(const cab_optimizer *optimizer, size_t index, float *m, float *v);
/* Takes what is here of the moments of a parameter, divided or not. */
cab_status cab_optimizer_write_moments(const cab_optimizer *optimizer, size_t index, const float *m, const float *v);
/* Bytes of the moments here. */
size_t cab_optimizer_bytes(const cab_optimizer *optimizer);

#endif
