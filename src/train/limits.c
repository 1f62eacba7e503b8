#include "train/limits.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"

enum { RUNS = 8 };

static cab_status draw(float **values, int64_t n)
{
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    CAB_TRY(CAB_NEW(values, (size_t)n, "a matrix"));
    for (int64_t i = 0; i < n; i++)
        (*values)[i] = cab_random_uniform(&random) - 0.5f;
    return CAB_OK;
}

static cab_status best_of(cab_graph *g, double flops, double *rate)
{
    cab_backend *backend = cab_graph_backend(g);
    for (int i = 0; i < RUNS; i++) {
        double started = cab_seconds();
        CAB_TRY(cab_graph_run(g));
        if (backend->wait != NULL)
            CAB_TRY(backend->wait(backend));
        double now = flops / (cab_seconds() - started);
        if (i > 0 && now > *rate)
            *rate = now;
    }
    return CAB_OK;
}

/* A processor's memory needs all of its threads. */
static cab_status copy_all(cab_backend *backend, char *to, const char *from, size_t bytes)
{
    const int parts = backend->host && backend->threads > 1 ? backend->threads : 1;
    const size_t part = bytes / (size_t)parts;
    bool failed = false;
#pragma omp parallel for schedule(static) num_threads(parts)
    for (int i = 0; i < parts; i++)
        if (backend->copy(backend, to + (size_t)i * part, from + (size_t)i * part, part) != CAB_OK)
            failed = true;
    if (failed)
        return CAB_EBACKEND;
    return backend->wait != NULL ? backend->wait(backend) : CAB_OK;
}

cab_status cab_copy_limit(cab_backend *backend, double *bytes_per_second)
{
    const size_t bytes = (size_t)(backend->host ? 256 : 1024) << 20;
    void *blocks[2] = {NULL, NULL};
    cab_status status;
    *bytes_per_second = 0;
    CAB_GOTO(backend->allocate(backend, bytes, "a copy", &blocks[0]));
    CAB_GOTO(backend->allocate(backend, bytes, "a copy", &blocks[1]));
    for (int i = 0; i < RUNS; i++) {
        double started = cab_seconds();
        CAB_GOTO(copy_all(backend, blocks[1], blocks[0], bytes));
        const double now = 2.0 * (double)bytes / (cab_seconds() - started);
        if (i > 0 && now > *bytes_per_second)
            *bytes_per_second = now;
    }
done:
    backend->release(backend, blocks[0]);
    backend->release(backend, blocks[1]);
    return status;
}

cab_status cab_matrix_limit(cab_backend *backend, cab_dtype dtype, double *flops_per_second)
{
    const int64_t size = backend->host ? 2048 : 8192, shape[2] = {size, size};
    cab_params *params = NULL;
    cab_graph *g = NULL;
    cab_tensor *w = NULL, *x = NULL;
    float *values = NULL;
    cab_status status;
    *flops_per_second = 0;
    CAB_GOTO(draw(&values, size * size));
    CAB_GOTO(cab_params_new(backend, &params));
    CAB_GOTO(cab_params_add(params, "w", dtype, 2, shape, CAB_DECAY, &w));
    CAB_GOTO(cab_params_add(params, "x", dtype, 2, shape, CAB_DECAY, &x));
    CAB_GOTO(cab_params_write(params, w, values));
    CAB_GOTO(cab_params_write(params, x, values));
    CAB_GOTO(cab_graph_new(backend, &g));
    cab_graph_keep(g, cab_linear(g, x, w, NULL, CAB_OUT_IN));
    status = best_of(g, 2.0 * (double)size * (double)size * (double)size, flops_per_second);
done:
    cab_graph_free(g);
    cab_params_free(params);
    cab_free(values);
    return status;
}
