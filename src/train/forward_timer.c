/* forward_timer.c - random pixels through a model, size by size; what a pass needs is planned anew for each. */
#include "train/forward_timer.h"

#include "base/log.h"
#include "base/memory.h"
#include "models/synthetic.h"
#include "ops/backends.h"
#include "train/domain.h"

enum { WARM = 3 };

typedef struct timer {
    const cab_forward_timer_options *o;
    cab_backend *backend;
    cab_model *model;
    cab_graph *graph;
    cab_plan plan;
    void *pixels;
    int32_t *labels;
    double seconds; /* of a pass */
} timer;

static cab_status open_model(timer *t, int size)
{
    const cab_forward_timer_options *o = t->o;
    CAB_TRY(o->model != NULL ? cab_model_open_sized(o->model, size, t->backend, o->precision, false, &t->model)
                             : cab_model_synthetic(o->config, size, t->backend, o->precision, false, &t->model));
    return cab_model_reads_images(t->model) ? CAB_OK
                                            : cab_fail(CAB_EARG, "%s: a model of text; forward is of images",
                                                       o->model != NULL ? o->model : o->config);
}

/* One pass; reading its logits waits for the device. */
static cab_status pass(const timer *t, cab_tensor *input, cab_tensor *logits, void *values)
{
    CAB_TRY(cab_tensor_write(t->graph, input, t->pixels));
    CAB_TRY(cab_graph_run(t->graph));
    return cab_tensor_read(t->graph, logits, values);
}

static cab_status time_passes(timer *t)
{
    const int64_t batch = t->o->batch;
    void *values = NULL;
    cab_status status;
    CAB_TRY(cab_graph_new(t->backend, &t->graph));
    cab_tensor *input = cab_model_input(t->graph, t->model, batch, 1);
    cab_tensor *logits =
        cab_model_record_logits(t->graph, t->model, cab_model_record(t->graph, t->model, input, 0, NULL));
    cab_graph_keep(t->graph, logits);
    CAB_TRY(cab_graph_plan(t->graph, &t->plan));
    CAB_TRY(cab_alloc(&values, cab_tensor_bytes(logits), 1, "logits"));
    for (int i = 0; i < WARM; i++)
        CAB_GOTO(pass(t, input, logits, values));
    const double started = cab_seconds();
    for (int i = 0; i < t->o->steps; i++)
        CAB_GOTO(cab_graph_run(t->graph));
    CAB_GOTO(cab_tensor_read(t->graph, logits, values));
    t->seconds = (cab_seconds() - started) / t->o->steps;
    status = CAB_OK;
done:
    cab_free(values);
    return status;
}

static void close_size(timer *t)
{
    cab_graph_free(t->graph);
    cab_model_free(t->model);
    cab_free(t->pixels);
    cab_free(t->labels);
    t->graph = NULL;
    t->model = NULL;
    t->pixels = NULL;
    t->labels = NULL;
}

static cab_status time_size(timer *t, int size, FILE *out)
{
    char arena[CAB_FORMAT_MAX];
    CAB_TRY(open_model(t, size));
    CAB_TRY(cab_domain_of(t->model)->draw(t->model, t->o->batch, 1, &t->pixels, &t->labels));
    CAB_TRY(time_passes(t));
    if (size == (int)t->o->sizes[0])
        fprintf(out, "%s (%.1f M), batch %lld, %s, %s\n  %6s %8s %10s %12s %14s\n", t->model->arch->name,
                (double)cab_model_parameters(t->model) * 1e-6, (long long)t->o->batch,
                t->o->precision == CAB_PRECISION_BF16 ? "bf16" : "fp32", t->backend->name, "px", "tokens", "ms",
                "images/s", "activations");
    fprintf(out, "  %6d %8lld %10.2f %12.1f %14s\n", t->model->config.image_size,
            (long long)cab_model_tokens(t->model, 1), t->seconds * 1e3, (double)t->o->batch / t->seconds,
            cab_format_bytes((double)t->plan.arena, arena));
    fflush(out);
    return CAB_OK;
}

cab_status cab_forward_time(const cab_forward_timer_options *options, FILE *out)
{
    timer t = {.o = options};
    cab_status status = cab_backend_open(options->device, &t.backend);
    for (unsigned i = 0; status == CAB_OK && i < options->n_size; i++) {
        status = time_size(&t, (int)options->sizes[i], out);
        close_size(&t);
    }
    cab_backend_close(t.backend);
    return status;
}
