#include "train/optimizer.h"

#include "base/memory.h"

#include <fnmatch.h>
#include <math.h>

struct cab_optimizer {
    cab_backend *backend;
    cab_optimized *list;
    size_t count;
    size_t bytes;
    cab_graph *graph;
    cab_tensor *lr, *step, *norm;
};

static cab_status optimizer_add(cab_optimizer *o, cab_tensor *parameter, float *average, float decay, float rate)
{
    cab_optimized *entry = &o->list[o->count++];
    size_t bytes = (size_t)cab_elements(parameter) * sizeof(float);
    *entry = (cab_optimized){.parameter = parameter, .average = average, .decay = decay, .rate = rate};
    CAB_TRY(o->backend->allocate(o->backend, bytes, parameter->name, (void **)&entry->m));
    CAB_TRY(o->backend->allocate(o->backend, bytes, parameter->name, (void **)&entry->v));
    o->bytes += 2 * bytes;
    return CAB_OK;
}

static cab_status optimizer_record(cab_optimizer *o, const cab_adamw_options *options)
{
    CAB_TRY(cab_graph_new(o->backend, &o->graph));
    o->lr = cab_graph_scalar(o->graph, "lr", 0);
    o->step = cab_graph_input(o->graph, "step", CAB_I32, 1, (int64_t[]){1});
    o->norm = cab_adamw(o->graph, o->list, o->count, options, o->lr, o->step);
    cab_graph_keep(o->graph, o->norm);
    return cab_graph_plan(o->graph, NULL);
}

static float rate_of(const cab_optimizer_rates *rates, int store, const char *name)
{
    bool fresh = rates->fresh == NULL || store > 0;
    for (const char *const *pattern = rates->fresh; !fresh && *pattern != NULL; pattern++)
        fresh = fnmatch(*pattern, name, 0) == 0;
    return fresh ? 1 : rates->others;
}

cab_status cab_optimizer_new(const cab_graph *trained, cab_params *const *stores, float *const *const *averages,
                             int n_stores, const cab_optimizer_rates *rates, const cab_adamw_options *options,
                             cab_optimizer **optimizer)
{
    cab_optimizer *o = NULL;
    size_t total = 0;
    cab_status status;
    for (int s = 0; s < n_stores; s++)
        total += cab_params_count(stores[s]);
    CAB_TRY(CAB_NEW(&o, 1, "an optimizer"));
    o->backend = cab_graph_backend(trained);
    CAB_GOTO(CAB_NEW(&o->list, total, "an optimizer"));
    for (int s = 0; s < n_stores; s++) {
        for (size_t i = 0; i < cab_params_count(stores[s]); i++) {
            cab_tensor *p = cab_params_at(stores[s], i);
            float *average = averages[s] != NULL ? averages[s][i] : NULL;
            if (p->trainable && cab_graph_trains(trained, p))
                CAB_GOTO(optimizer_add(o, p, average, cab_params_decay(stores[s], i) == CAB_DECAY ? rates->decay : 0,
                                       rate_of(rates, s, p->name)));
        }
    }
    if (o->count == 0)
        status = cab_fail(CAB_EARG, "nothing trains: every parameter is frozen");
    else
        status = optimizer_record(o, options);
done:
    if (status != CAB_OK)
        cab_optimizer_free(o);
    else
        *optimizer = o;
    return status;
}

void cab_optimizer_free(cab_optimizer *o)
{
    if (o == NULL)
        return;
    cab_graph_free(o->graph);
    for (size_t i = 0; o->list != NULL && i < o->count; i++) {
        o->backend->release(o->backend, o->list[i].m);
        o->backend->release(o->backend, o->list[i].v);
    }
    cab_free(o->list);
    cab_free(o);
}

cab_status cab_optimizer_step(cab_optimizer *o, double lr, uint64_t step, double *gradient_norm)
{
    float norm = 0;
    int32_t count = step > INT32_MAX ? INT32_MAX : (int32_t)step; /* bias correction is 1 long before */
    CAB_TRY(cab_scalar_write(o->graph, o->lr, (float)lr));
    CAB_TRY(cab_tensor_write(o->graph, o->step, &count));
    CAB_TRY(cab_graph_run(o->graph));
    CAB_TRY(cab_scalar_read(o->graph, o->norm, &norm));
    *gradient_norm = norm;
    return isfinite(norm) ? CAB_OK : cab_fail(CAB_ENUMERIC, "the gradient norm is %g", (double)norm);
}

size_t cab_optimizer_count(const cab_optimizer *o)
{
    return o->count;
}

const cab_optimized *cab_optimizer_at(const cab_optimizer *o, size_t index)
{
    return &o->list[index];
}

size_t cab_optimizer_bytes(const cab_optimizer *o)
{
    return o->bytes;
}
