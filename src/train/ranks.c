/* ranks.c - small sums over the ranks of a run, on the host. */
#include "train/ranks.h"

#include "base/checksum.h"
#include "base/memory.h"
#include "base/thread.h"
#include "tensor/reduce.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

bool cab_run_writes(const cab_run *run)
{
    return cab_communicator_rank(run->communicator) == 0;
}

int cab_run_threads(const cab_run *run)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    const int part = (int)(online / cab_communicator_local_size(run->communicator)), own = cab_thread_processors();
    return part < 1 ? 1 : part < own ? part : own;
}

cab_status cab_run_after_first(const cab_run *run)
{
    char nothing = 0;
    return cab_communicator_share(run->communicator, &nothing, sizeof nothing);
}

/* What all ranks must have found alike. */
typedef struct findings {
    uint64_t inputs, step, steps;
} findings;

cab_status cab_run_meet(const cab_run *run)
{
    const size_t size = (size_t)cab_communicator_size(run->communicator);
    cab_checksum inputs = cab_checksum_begin();
    findings *all = NULL;
    cab_status status = CAB_OK;
    if (run->communicator == NULL)
        return CAB_OK;
    cab_checksum_add(&inputs, run->inputs, strlen(run->inputs));
    const findings own = {.inputs = cab_checksum_end(&inputs), .step = run->step, .steps = run->total_steps};
    CAB_TRY(CAB_NEW(&all, size, "ranks"));
    CAB_GOTO(cab_communicator_gather(run->communicator, &own, sizeof own, all));
    for (size_t r = 1; r < size; r++) {
        if (all[r].inputs != all[0].inputs || all[r].steps != all[0].steps)
            CAB_GOTO(cab_fail(CAB_EARG, "rank %zu was given other files or another recipe than rank 0", r));
        if (all[r].step != all[0].step)
            CAB_GOTO(cab_fail(CAB_EARG,
                              "%s: rank %zu finds step %" PRIu64 " there, rank 0 step %" PRIu64
                              ": it must be on a file system that all ranks share",
                              run->recipe->out, r, all[r].step, all[0].step));
    }
    cab_communicator_limit(run->communicator, (double)run->recipe->train.timeout);
done:
    cab_free(all);
    return status;
}

cab_status cab_run_most(const cab_run *run, int *number)
{
    const int size = cab_communicator_size(run->communicator), own = *number;
    int *all = NULL;
    CAB_TRY(CAB_NEW(&all, (size_t)size, "ranks"));
    cab_status status = cab_communicator_gather(run->communicator, &own, sizeof own, all);
    for (int r = 0; status == CAB_OK && r < size; r++)
        *number = all[r] > *number ? all[r] : *number;
    cab_free(all);
    return status;
}

cab_status cab_run_compare_lists(const cab_run *run)
{
    const cab_graph *g = cab_objective_graph(run->objective);
    cab_checksum order = cab_checksum_begin();
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        if (node->op != &cab_op_reduce)
            continue;
        const cab_reduce_attributes *a = node->attributes;
        const uint64_t what[] = {a->store, a->index, a->bucket.count};
        cab_checksum_add(&order, what, sizeof what);
    }
    uint64_t first = cab_checksum_end(&order);
    const uint64_t own = first;
    CAB_TRY(cab_communicator_share(run->communicator, &first, sizeof first));
    return own == first
               ? CAB_OK
               : cab_fail(CAB_EBACKEND,
                          "the list of a step adds up gradients in another order here than on rank 0: ranks need "
                          "the same build of cab and the same kind of device");
}

/* ---- counts --------------------------------------------------------------------------------------------------------- */

/* A part of a whole; of nothing every rank has an equal part. */
static double part_of(double part, double whole, int ranks)
{
    return whole > 0 ? part / whole : 1.0 / ranks;
}

cab_status cab_run_portion(const cab_run *run, const cab_batch *batch, cab_portion *portion, bool *known)
{
    const int size = cab_communicator_size(run->communicator);
    const int64_t n = run->rank_batch * run->seq_len;
    *portion = (cab_portion){1, 1, 1};
    *known = batch != NULL;
    if (run->communicator == NULL)
        return CAB_OK;
    double labels = 0, valid = 0;
    for (int64_t i = 0; batch != NULL && i < n; i++) {
        labels += batch->labels[i] >= 0;
        valid += batch->valid == NULL || batch->valid[i] != 0;
    }
    double sums[] = {labels, valid, batch != NULL};
    CAB_TRY(cab_communicator_sum(run->communicator, sums, 3));
    *portion = (cab_portion){part_of(labels, sums[0], size), part_of(valid, sums[1], size), 1.0 / size};
    *known = sums[2] >= size;
    return CAB_OK;
}

cab_status cab_run_sum_values(const cab_run *run, cab_term_values *values)
{
    double sums[2 * CAB_TERM_COUNT + 3];
    if (run->communicator == NULL)
        return CAB_OK;
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        sums[t] = values->of[t];
        sums[CAB_TERM_COUNT + t] = values->counted[t];
    }
    double *rest = sums + 2 * CAB_TERM_COUNT;
    rest[0] = values->agreement;
    rest[1] = (double)values->labels;
    rest[2] = (double)values->valid;
    CAB_TRY(cab_communicator_sum(run->communicator, sums, 2 * CAB_TERM_COUNT + 3));
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        values->of[t] = sums[t];
        values->counted[t] = sums[CAB_TERM_COUNT + t] > 0;
    }
    values->agreement = rest[0];
    values->labels = (int64_t)rest[1];
    values->valid = (int64_t)rest[2];
    return CAB_OK;
}

cab_status cab_run_agree(const cab_run *run, cab_due *due)
{
    double flags[] = {due->stop, due->evaluation, due->checkpoint};
    CAB_TRY(cab_communicator_sum(run->communicator, flags, 3));
    *due = (cab_due){flags[0] > 0, flags[1] > 0, flags[2] > 0};
    return CAB_OK;
}
