#include "train/optimizer.h"

#include "base/memory.h"
#include "tensor/readback.h"

#include <fnmatch.h>
#include <math.h>

struct cab_optimizer {
    cab_backend *backend;
    cab_optimized *list; /* the parameters, whole; without moments where these are divided */
    size_t count;
    cab_optimized *parts; /* this rank's parts of them, where they are divided; NULL: all is here */
    size_t n_parts, parts_capacity;
    cab_params *stores[2];
    int n_stores;
    size_t bytes;
    cab_graph *graph;
    cab_tensor *lr, *step, *norm;
    cab_readback *readback; /* of the norm */
};

static cab_status add_moments(cab_optimizer *o, cab_optimized *entry)
{
    const size_t n = (size_t)(entry->count > 0 ? entry->count : cab_elements(entry->parameter));
    const size_t bytes = n * sizeof(float);
    CAB_TRY(o->backend->allocate(o->backend, bytes, entry->parameter->name, (void **)&entry->m));
    CAB_TRY(o->backend->allocate(o->backend, bytes, entry->parameter->name, (void **)&entry->v));
    o->bytes += 2 * bytes;
    return CAB_OK;
}

/* ---- parts -------------------------------------------------------------------------------------------------------- */

/* What of a parameter lies in this rank's piece of a bucket: elements *first ... of them, 0 for none. */
static int64_t part_in(const cab_optimizer *o, const cab_tensor *p, const cab_bucket *bucket, int64_t *first)
{
    const int64_t piece = (int64_t)bucket->count / cab_communicator_size(o->backend->communicator);
    const int64_t begin =
        bucket->data + cab_communicator_rank(o->backend->communicator) * piece - (float *)p->grad->data;
    const int64_t end = begin + piece < cab_elements(p) ? begin + piece : cab_elements(p);
    *first = begin > 0 ? begin : 0;
    return end > *first ? end - *first : 0;
}

/* A rank has the same piece of every bucket. */
static cab_status add_parts(cab_optimizer *o, const cab_optimized *whole)
{
    for (int s = 0; s < o->n_stores; s++)
        for (size_t b = 0; b < cab_params_buckets(o->stores[s]); b++) {
            const cab_bucket bucket = cab_params_bucket(o->stores[s], b);
            cab_optimized part = *whole;
            part.count = part_in(o, whole->parameter, &bucket, &part.first);
            if (part.count == 0)
                continue;
            CAB_TRY(CAB_GROW(&o->parts, &o->parts_capacity, o->n_parts + 1, "an optimizer"));
            o->parts[o->n_parts] = part;
            CAB_TRY(add_moments(o, &o->parts[o->n_parts++]));
        }
    return CAB_OK;
}

static cab_status divide(cab_optimizer *o)
{
    CAB_TRY(CAB_GROW(&o->parts, &o->parts_capacity, 1, "an optimizer"));
    for (size_t i = 0; i < o->count; i++)
        CAB_TRY(add_parts(o, &o->list[i]));
    return CAB_OK;
}

/* ---- its graph ---------------------------------------------------------------------------------------------------- */

static cab_status optimizer_record(cab_optimizer *o, const cab_adamw_options *options)
{
    cab_adamw_options part = *options;
    CAB_TRY(cab_graph_new(o->backend, &o->graph));
    o->lr = cab_graph_scalar(o->graph, "lr", 0);
    o->step = cab_graph_input(o->graph, "step", CAB_I32, 1, (int64_t[]){1});
    if (o->parts == NULL) {
        o->norm = cab_adamw(o->graph, o->list, o->count, options, o->lr, o->step);
    } else {
        part.publish = true;
        cab_tensor *norms = cab_adamw_norms(o->graph, o->parts, o->n_parts);
        o->norm = cab_adamw_part(o->graph, o->parts, o->n_parts, &part, o->lr, o->step, norms);
        cab_collect(o->graph, o->stores, o->n_stores);
        cab_adopt(o->graph, o->list, o->count, options, o->norm);
    }
    cab_graph_keep(o->graph, o->norm);
    CAB_TRY(cab_graph_plan(o->graph, NULL));
    return cab_readback_new(o->graph, 1, &o->norm, &o->readback);
}

/* Ranks begin with the same bits, whatever processors have computed them: every rank's pieces go to all. */
static cab_status begin_alike(const cab_optimizer *o)
{
    cab_graph *g = NULL;
    cab_status status;
    if (o->backend->communicator == NULL)
        return CAB_OK;
    CAB_TRY(cab_graph_new(o->backend, &g));
    for (size_t i = 0; i < o->count; i++) {
        const cab_tensor *p = o->list[i].parameter;
        CAB_GOTO(o->backend->copy(o->backend, p->grad->data, p->data, cab_tensor_bytes(p)));
    }
    cab_collect(g, o->stores, o->n_stores);
    cab_adopt(g, o->list, o->count, &(cab_adamw_options){.ema_decay = 1}, cab_graph_scalar(g, "norm", 0));
    CAB_GOTO(cab_graph_plan(g, NULL));
    status = cab_graph_run(g);
    if (status == CAB_OK && o->backend->wait != NULL)
        status = o->backend->wait(o->backend);
done:
    cab_graph_free(g);
    return status;
}

static float rate_of(const cab_optimizer_rates *rates, int store, const char *name)
{
    bool fresh = rates->fresh == NULL || store > 0;
    for (const char *const *pattern = rates->fresh; !fresh && *pattern != NULL; pattern++)
        fresh = fnmatch(*pattern, name, 0) == 0;
    return fresh ? 1 : rates->others;
}

/* What trains of a store, without moments. */
static void list_store(cab_optimizer *o, int store, const cab_graph *trained, float *const *averages,
                       const cab_optimizer_rates *rates)
{
    const cab_params *params = o->stores[store];
    for (size_t i = 0; i < cab_params_count(params); i++) {
        cab_tensor *p = cab_params_at(params, i);
        if (p->trainable && cab_graph_trains(trained, p))
            o->list[o->count++] = (cab_optimized){.parameter = p,
                                                  .average = averages != NULL ? averages[i] : NULL,
                                                  .decay = cab_params_decay(params, i) == CAB_DECAY ? rates->decay : 0,
                                                  .rate = rate_of(rates, store, p->name)};
    }
}

cab_status cab_optimizer_new(const cab_graph *trained, cab_params *const *stores, float *const *const *averages,
                             int n_stores, const cab_optimizer_rates *rates, const cab_adamw_options *options,
                             bool divided, cab_optimizer **optimizer)
{
    cab_optimizer *o = NULL;
    size_t total = 0;
    cab_status status;
    CAB_TRY(CAB_NEW(&o, 1, "an optimizer"));
    o->backend = cab_graph_backend(trained);
    o->n_stores = n_stores;
    for (int s = 0; s < n_stores; s++) {
        o->stores[s] = stores[s];
        total += cab_params_count(stores[s]);
    }
    CAB_GOTO(CAB_NEW(&o->list, total, "an optimizer"));
    for (int s = 0; s < n_stores; s++)
        list_store(o, s, trained, averages[s], rates);
    if (o->count == 0)
        CAB_GOTO(cab_fail(CAB_EARG, "nothing trains: every parameter is frozen"));
    if (divided && o->backend->communicator != NULL)
        CAB_GOTO(divide(o));
    for (size_t i = 0; o->parts == NULL && i < o->count; i++)
        CAB_GOTO(add_moments(o, &o->list[i]));
    CAB_GOTO(begin_alike(o));
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
    cab_readback_free(o->readback);
    cab_graph_free(o->graph);
    cab_optimized *own = o->parts != NULL ? o->parts : o->list;
    for (size_t i = 0; own != NULL && i < (o->parts != NULL ? o->n_parts : o->count); i++) {
        o->backend->release(o->backend, own[i].m);
        o->backend->release(o->backend, own[i].v);
    }
    cab_free(o->parts);
    cab_free(o->list);
    cab_free(o);
}

cab_status cab_optimizer_start(cab_optimizer *o, double lr, uint64_t step)
{
    int32_t count = step > INT32_MAX ? INT32_MAX : (int32_t)step; /* bias correction is 1 long before */
    CAB_TRY(cab_scalar_write(o->graph, o->lr, (float)lr));
    CAB_TRY(cab_tensor_write(o->graph, o->step, &count));
    CAB_TRY(cab_graph_run(o->graph));
    return cab_readback_ask(o->readback);
}

cab_status cab_optimizer_finish(cab_optimizer *o, double *gradient_norm)
{
    float norm = 0;
    CAB_TRY(cab_readback_take(o->readback, sizeof norm, &norm));
    *gradient_norm = (double)norm;
    return isfinite(norm) ? CAB_OK : cab_fail(CAB_ENUMERIC, "the gradient norm is %g", (double)norm);
}

cab_status cab_optimizer_step(cab_optimizer *o, double lr, uint64_t step, double *gradient_norm)
{
    CAB_TRY(cab_optimizer_start(o, lr, step));
    return cab_optimizer_finish(o, gradient_norm);
}

size_t cab_optimizer_count(const cab_optimizer *o)
{
    return o->count;
}

const cab_optimized *cab_optimizer_at(const cab_optimizer *o, size_t index)
{
    return &o->list[index];
}

bool cab_optimizer_divided(const cab_optimizer *o)
{
    return o->parts != NULL;
}

/* ---- moments of all ranks ----------------------------------------------------------------------------------------- */

/* A part's place in its parameter. */
typedef struct place {
    int64_t first, count;
} place;

/* Rank 0 asks rank r for what it has of a parameter: the places, then the values. */
static cab_status hear(cab_communicator *c, int r, float *m, float *v)
{
    place at;
    for (;;) {
        CAB_TRY(cab_communicator_receive(c, r, &at, sizeof at));
        if (at.count == 0)
            return CAB_OK;
        CAB_TRY(cab_communicator_receive(c, r, m + at.first, (size_t)at.count * sizeof *m));
        CAB_TRY(cab_communicator_receive(c, r, v + at.first, (size_t)at.count * sizeof *v));
    }
}

static cab_status tell_first(cab_communicator *c, const place *at, const float *m, const float *v)
{
    CAB_TRY(cab_communicator_send(c, 0, at, sizeof *at));
    if (at->count == 0)
        return CAB_OK;
    CAB_TRY(cab_communicator_send(c, 0, m + at->first, (size_t)at->count * sizeof *m));
    return cab_communicator_send(c, 0, v + at->first, (size_t)at->count * sizeof *v);
}

cab_status cab_optimizer_read_moments(const cab_optimizer *o, size_t index, float *m, float *v)
{
    cab_backend *b = o->backend;
    const bool first = cab_communicator_rank(b->communicator) == 0;
    for (size_t i = 0; i < o->n_parts; i++) {
        const cab_optimized *part = &o->parts[i];
        const size_t bytes = (size_t)part->count * sizeof(float);
        if (part->parameter != o->list[index].parameter)
            continue;
        CAB_TRY(b->download(b, m + part->first, part->m, bytes));
        CAB_TRY(b->download(b, v + part->first, part->v, bytes));
        if (!first)
            CAB_TRY(tell_first(b->communicator, &(place){part->first, part->count}, m, v));
    }
    if (!first)
        return tell_first(b->communicator, &(place){0, 0}, m, v);
    for (int r = 1; r < cab_communicator_size(b->communicator); r++)
        CAB_TRY(hear(b->communicator, r, m, v));
    return CAB_OK;
}

cab_status cab_optimizer_write_moments(const cab_optimizer *o, size_t index, const float *m, const float *v)
{
    const cab_optimized *list = o->parts != NULL ? o->parts : o->list;
    for (size_t i = 0; i < (o->parts != NULL ? o->n_parts : o->count); i++) {
        const cab_optimized *part = &list[i];
        const size_t n = (size_t)(part->count > 0 ? part->count : cab_elements(part->parameter));
        if (part->parameter != o->list[index].parameter)
            continue;
        CAB_TRY(o->backend->upload(o->backend, part->m, m + part->first, n * sizeof *m));
        CAB_TRY(o->backend->upload(o->backend, part->v, v + part->first, n * sizeof *v));
    }
    return CAB_OK;
}

size_t cab_optimizer_bytes(const cab_optimizer *o)
{
    return o->bytes;
}
