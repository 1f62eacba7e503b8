#include "train/product_timer.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "ops/matrix.h"

#include <inttypes.h>

enum { WARM = 3, MOST = 8, PATTERN = 1 << 20 };

/* Bytes of the results of a list. */
static const int64_t RESULTS = INT64_C(1) << 30;

void cab_products_of(const cab_graph *g, cab_product_time products[CAB_PRODUCT_TIMES], int *n)
{
    *n = 0;
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        if (node->op != &cab_op_linear || node->backward)
            continue;
        const cab_gemm_shape s = cab_linear_y(node);
        int at = 0;
        while (at < *n &&
               (products[at].m != s.m || products[at].n != s.n || products[at].k != s.k || products[at].bias != s.bias))
            at++;
        if (at == CAB_PRODUCT_TIMES)
            continue;
        if (at == *n)
            products[(*n)++] = (cab_product_time){.m = s.m, .n = s.n, .k = s.k, .bias = s.bias};
        products[at].times++;
    }
}

typedef struct timer {
    cab_backend *backend;
    cab_dtype dtype;
    cab_params *params;
    cab_graph *graph;
    float *values; /* PATTERN numbers and what fills the largest matrix */
} timer;

/* A matrix or a vector of random numbers. */
static cab_status add(timer *t, const char *name, int n_dim, const int64_t *shape, cab_tensor **out)
{
    const size_t n = (size_t)(n_dim == 2 ? shape[0] * shape[1] : shape[0]);
    float *values = NULL;
    cab_status status;
    CAB_TRY(cab_params_add(t->params, name, t->dtype, n_dim, shape, CAB_NO_DECAY, out));
    CAB_TRY(CAB_NEW(&values, n, name));
    for (size_t i = 0; i < n; i++)
        values[i] = t->values[i % PATTERN];
    status = cab_params_write(t->params, *out, values);
    cab_free(values);
    return status;
}

static cab_status record(timer *t, const cab_product_time *p, int count)
{
    cab_tensor *x = NULL, *b = NULL;
    CAB_TRY(cab_params_new(t->backend, &t->params));
    CAB_TRY(cab_graph_new(t->backend, &t->graph));
    CAB_TRY(add(t, "x", 2, (int64_t[]){p->m, p->k}, &x));
    if (p->bias)
        CAB_TRY(add(t, "b", 1, &p->n, &b));
    for (int i = 0; i < count; i++) {
        char name[16];
        cab_tensor *w = NULL;
        snprintf(name, sizeof name, "w%d", i);
        CAB_TRY(add(t, name, 2, (int64_t[]){p->n, p->k}, &w));
        cab_graph_keep(t->graph, cab_linear(t->graph, x, w, b, CAB_OUT_IN));
    }
    return cab_graph_plan(t->graph, NULL);
}

static cab_status run(const timer *t, int runs)
{
    for (int i = 0; i < runs; i++)
        CAB_TRY(cab_graph_run(t->graph));
    return t->backend->wait != NULL ? t->backend->wait(t->backend) : CAB_OK;
}

static cab_status time_one(timer *t, int steps, cab_product_time *p)
{
    const int64_t fits = RESULTS / (p->m * p->n * (int64_t)cab_dtype_size(t->dtype));
    const int count = fits < 1 ? 1 : fits < MOST ? (int)fits : MOST;
    cab_status status = record(t, p, count);
    if (status == CAB_OK)
        status = run(t, WARM);
    const double started = cab_seconds();
    if (status == CAB_OK)
        status = run(t, steps);
    p->seconds = (cab_seconds() - started) / (steps * count);
    cab_graph_free(t->graph);
    cab_params_free(t->params);
    t->graph = NULL;
    t->params = NULL;
    return status;
}

cab_status cab_products_time(cab_backend *backend, cab_dtype dtype, int steps, cab_product_time *products, int n)
{
    timer t = {.backend = backend, .dtype = dtype};
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    cab_status status;
    CAB_TRY(CAB_NEW(&t.values, PATTERN, "random numbers"));
    for (int i = 0; i < PATTERN; i++)
        t.values[i] = cab_random_uniform(&random) - 0.5f;
    status = CAB_OK;
    for (int i = 0; i < n && status == CAB_OK; i++)
        status = time_one(&t, steps, &products[i]);
    cab_free(t.values);
    return status;
}
