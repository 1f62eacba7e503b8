/* forward_timer.c - random tokens or pixels through a model. Of images size by size; what a pass needs is planned anew for each. Of text
 * once, and the products of its linear layers alone, which no pass can be faster than. */
#include "train/forward_timer.h"

#include "base/log.h"
#include "base/memory.h"
#include "models/synthetic.h"
#include "ops/backends.h"
#include "train/domain.h"
#include "train/limits.h"
#include "train/product_timer.h"

enum { WARM = 3, USUAL_LENGTH = 1024 };

typedef struct timer {
    const cab_forward_timer_options *o;
    cab_backend *backend;
    cab_model *model;
    cab_graph *graph;
    cab_plan plan;
    void *input; /* pixels or ids */
    int32_t *labels;
    double seconds; /* of a pass */
    cab_product_time products[CAB_PRODUCT_TIMES];
    int n_product;
} timer;

/* size: pixels of a side; 0: the model's own, or text. */
static cab_status open_model(timer *t, int size)
{
    const cab_forward_timer_options *o = t->o;
    return o->model != NULL ? cab_model_open_sized(o->model, size, t->backend, o->precision, false, &t->model)
                            : cab_model_synthetic(o->config, size, t->backend, o->precision, false, &t->model);
}

static cab_status wait(const timer *t)
{
    return t->backend->wait != NULL ? t->backend->wait(t->backend) : CAB_OK;
}

static cab_status time_passes(timer *t, int64_t length)
{
    const cab_forward_timer_options *o = t->o;
    CAB_TRY(cab_domain_of(t->model)->draw(t->model, o->batch, length, &t->input, &t->labels));
    CAB_TRY(cab_graph_new(t->backend, &t->graph));
    cab_tensor *input = cab_model_input(t->graph, t->model, o->batch, length);
    cab_graph_keep(t->graph,
                   cab_model_record_logits(t->graph, t->model, cab_model_record(t->graph, t->model, input, 0, NULL)));
    cab_products_of(t->graph, t->products, &t->n_product);
    CAB_TRY(cab_graph_plan(t->graph, &t->plan));
    CAB_TRY(cab_tensor_write(t->graph, input, t->input));
    for (int i = 0; i < WARM; i++)
        CAB_TRY(cab_graph_run(t->graph));
    CAB_TRY(wait(t));
    const double started = cab_seconds();
    for (int i = 0; i < o->steps; i++)
        CAB_TRY(cab_graph_run(t->graph));
    CAB_TRY(wait(t));
    t->seconds = (cab_seconds() - started) / o->steps;
    return CAB_OK;
}

static void close_graph(timer *t)
{
    cab_graph_free(t->graph);
    cab_free(t->input);
    cab_free(t->labels);
    t->graph = NULL;
    t->input = NULL;
    t->labels = NULL;
}

static void close_model(timer *t)
{
    close_graph(t);
    cab_model_free(t->model);
    t->model = NULL;
}

static const char *precision_text(const timer *t)
{
    return t->o->precision & CAB_PRECISION_BF16 ? "bf16" : "fp32";
}

/* ---- images -------------------------------------------------------------------------------------------------------- */

static cab_status time_size(timer *t, int size, FILE *out)
{
    char arena[CAB_FORMAT_MAX];
    CAB_TRY(open_model(t, size));
    CAB_TRY(time_passes(t, 1));
    if (size == (int)t->o->sizes[0])
        fprintf(out, "%s (%.1f M), batch %lld, %s, %s\n  %6s %8s %10s %12s %14s\n", t->model->arch->name,
                (double)cab_model_parameters(t->model) * 1e-6, (long long)t->o->batch, precision_text(t),
                t->backend->name, "px", "tokens", "ms", "images/s", "activations");
    fprintf(out, "  %6d %8lld %10.2f %12.1f %14s\n", t->model->config.image_size,
            (long long)cab_model_tokens(t->model, 1), t->seconds * 1e3, (double)t->o->batch / t->seconds,
            cab_format_bytes((double)t->plan.arena, arena));
    fflush(out);
    return CAB_OK;
}

static cab_status time_images(timer *t, FILE *out)
{
    cab_status status = CAB_OK;
    for (unsigned i = 0; status == CAB_OK && i < t->o->n_size; i++) {
        close_model(t);
        status = time_size(t, (int)t->o->sizes[i], out);
    }
    return status;
}

/* ---- text ---------------------------------------------------------------------------------------------------------- */

static double flops_of(const cab_product_time *p)
{
    return 2.0 * (double)p->m * (double)p->n * (double)p->k;
}

/* Bytes of the values as they lie, mapped ones included. */
static double weights_of(const cab_model *model)
{
    double bytes = 0;
    for (size_t i = 0; i < cab_params_count(model->params); i++)
        bytes += (double)cab_tensor_bytes(cab_params_at(model->params, i));
    return bytes;
}

static void print_products(const timer *t, double tokens, double limit, FILE *out)
{
    double flops = 0, alone = 0;
    fprintf(out, "  %-28s %6s %11s %11s\n", "product", "times", "ms of one", "GFLOP/s");
    for (int i = 0; i < t->n_product; i++) {
        const cab_product_time *p = &t->products[i];
        char shape[64];
        snprintf(shape, sizeof shape, "%lld x %lld x %lld%s", (long long)p->m, (long long)p->n, (long long)p->k,
                 p->bias ? " + b" : "");
        fprintf(out, "  %-28s %6d %11.4f %11.1f\n", shape, p->times, p->seconds * 1e3, flops_of(p) / p->seconds * 1e-9);
        flops += p->times * flops_of(p);
        alone += p->times * p->seconds;
    }
    fprintf(out, "  these alone %10.3f ms, %.1f GFLOP/s: %.1f %% of the measured %.1f\n", alone * 1e3,
            flops / alone * 1e-9, 100 * flops / alone / limit, limit * 1e-9);
    fprintf(out, "  forward     %10.3f ms, %.1f GFLOP/s: %.1f %% of that; %.0f tokens/s\n", t->seconds * 1e3,
            flops / t->seconds * 1e-9, 100 * alone / t->seconds, tokens / t->seconds);
    if (t->plan.flops > 1.001 * flops)
        fprintf(out, "  %.1f GFLOP of attention and others are not counted in either; these are %.1f\n",
                (t->plan.flops - flops) * 1e-9, flops * 1e-9);
}

static cab_status time_text(timer *t, FILE *out)
{
    const cab_forward_timer_options *o = t->o;
    const cab_dtype dtype = cab_model_dtype(t->model);
    char weights[CAB_FORMAT_MAX], arena[CAB_FORMAT_MAX];
    const int64_t context = t->model->config.max_length, usual = context < USUAL_LENGTH ? context : USUAL_LENGTH;
    const int64_t length = o->seq_len > 0 ? o->seq_len : usual;
    double limit = 0;
    CAB_TRY(time_passes(t, length));
    fprintf(out, "%s (%.1f M), batch %lld x %lld tokens, %s%s, %s\n  weights %s, activations %s\n",
            t->model->arch->name, (double)cab_model_parameters(t->model) * 1e-6, (long long)o->batch, (long long)length,
            precision_text(t), t->model->as_is ? ", matrices as they are" : "", t->backend->name,
            cab_format_bytes(weights_of(t->model), weights), cab_format_bytes((double)t->plan.arena, arena));
    close_model(t);
    CAB_TRY(cab_products_time(t->backend, dtype, o->steps, t->products, t->n_product));
    CAB_TRY(cab_matrix_limit(t->backend, dtype, &limit));
    print_products(t, (double)(o->batch * length), limit, out);
    fflush(out);
    return CAB_OK;
}

cab_status cab_forward_time(const cab_forward_timer_options *options, FILE *out)
{
    timer t = {.o = options};
    cab_status status;
    CAB_GOTO(cab_backend_open(options->device, &t.backend));
    CAB_GOTO(open_model(&t, 0));
    status = cab_model_reads_images(t.model) ? time_images(&t, out) : time_text(&t, out);
done:
    close_model(&t);
    cab_backend_close(t.backend);
    return status;
}
