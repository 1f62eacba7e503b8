#include "bench/matrix_limit.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"

enum { SIZE = 2048, RUNS = 8 };

static cab_status random_weights(cab_params *params, cab_tensor *w)
{
    float *values = NULL;
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    CAB_TRY(CAB_NEW(&values, (size_t)cab_elements(w), "weights"));
    for (int64_t i = 0; i < cab_elements(w); i++)
        values[i] = cab_random_uniform(&random) - 0.5f;
    cab_status status = cab_params_write(params, w, values);
    cab_free(values);
    return status;
}

cab_status cab_matrix_limit(cab_backend *backend, cab_dtype dtype, double *flops_per_second)
{
    const int64_t shape[2] = {SIZE, SIZE};
    cab_params *params = NULL;
    cab_graph *g = NULL;
    cab_tensor *w = NULL;
    cab_status status;
    *flops_per_second = 0;
    CAB_GOTO(cab_params_new(backend, &params));
    CAB_GOTO(cab_params_add(params, "w", dtype, 2, shape, CAB_DECAY, &w));
    CAB_GOTO(random_weights(params, w));
    CAB_GOTO(cab_graph_new(backend, &g));
    cab_graph_keep(g, cab_linear(g, cab_graph_input(g, "x", dtype, 2, shape), w, NULL, CAB_OUT_IN));
    for (int i = 0; i < RUNS; i++) {
        double started = cab_seconds();
        CAB_GOTO(cab_graph_run(g));
        double rate = 2.0 * SIZE * SIZE * SIZE / (cab_seconds() - started);
        if (i > 0 && rate > *flops_per_second)
            *flops_per_second = rate;
    }
done:
    cab_graph_free(g);
    cab_params_free(params);
    return status;
}
