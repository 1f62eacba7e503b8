/* step_timer.c - whole steps are timed without looking inside; then a few more node by node, for the table, and for the time of the
 * update. On a GPU those few wait after every node, so that the table's sum is more than a replayed step takes. */
#include "train/step_timer.h"

#include "base/log.h"
#include "base/memory.h"
#include "distill/layer_map.h"
#include "distill/objective.h"
#include "distill/students.h"
#include "models/synthetic.h"
#include "ops/backends.h"
#include "train/domain.h"
#include "train/limits.h"
#include "train/optimizer.h"
#include "train/schedule.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_OPS = 64, WARM = 3, TABLE_STEPS = 2 };

typedef struct timer {
    cab_step_options o;
    FILE *out;
    const cab_domain *domain;
    cab_backend *backend;
    double available; /* bytes on the device before anything was made */
    cab_model *teacher, *student;
    cab_recipe *recipe; /* one stage, of the terms that are timed */
    cab_term_set terms;
    cab_objective *objective;
    cab_optimizer *optimizer;
    cab_plan plan;
    int *layer_map;
    int32_t *labels;
    void *input;         /* ids or pixels */
    double step, update; /* seconds */
    double apart;        /* of a step without sums over ranks */
    double memory;       /* peak, before the limits are measured */
    uint64_t steps_done;
} timer;

static cab_status timer_open_models(timer *t)
{
    cab_step_options *o = &t->o;
    CAB_TRY(cab_backend_open_for(o->device, o->communicator, &t->backend));
    t->available = t->backend->available(t->backend);
    if (o->teacher != NULL)
        CAB_TRY(cab_model_open_sized(o->teacher, o->image_size, t->backend, o->precision, false, &t->teacher));
    else
        CAB_TRY(cab_model_synthetic(o->teacher_config, o->image_size, t->backend, o->precision, false, &t->teacher));
    if (o->teacher_fp8)
        CAB_TRY(cab_model_quantise(t->teacher));
    if (o->student_config != NULL)
        CAB_TRY(cab_model_synthetic(o->student_config, o->image_size, t->backend, o->precision, true, &t->student));
    else
        CAB_TRY(cab_student_synthetic(t->teacher, o->n_layer, true, &t->student));
    t->domain = cab_domain_of(t->student);
    if (cab_domain_of(t->teacher) != t->domain)
        return cab_fail(CAB_EARG, "the teacher reads %s, the student %s", cab_domain_of(t->teacher)->recipes->name,
                        t->domain->recipes->name);
    CAB_TRY(t->domain->length(t->teacher, o->seq_len, &o->seq_len));
    const int S = t->student->config.n_layer, T = t->teacher->config.n_layer;
    CAB_TRY(CAB_NEW(&t->layer_map, (size_t)S, "a layer map"));
    return cab_layer_map(CAB_LAYERS_PROPORTIONAL, NULL, 0, S, T, t->layer_map);
}

static cab_status weigh(timer *t, const char *term)
{
    char key[64];
    snprintf(key, sizeof key, "stages[0].%s", term);
    return cab_recipe_set(t->recipe, key, "1");
}

/* A recipe of defaults for the student, whose only stage weighs the terms that are timed by 1. */
static cab_status make_recipe(timer *t)
{
    CAB_TRY(cab_recipe_new(&t->recipe));
    const cab_student *row = cab_student_of_model(t->student);
    if (!cab_student_can_be(t->student))
        return cab_fail(CAB_EUNSUPPORTED, "architecture \"%s\" cannot be a student", t->student->arch->name);
    if (row != NULL) {
        CAB_TRY(cab_recipe_set(t->recipe, "student.reads", row->domain->name));
        CAB_TRY(cab_recipe_set(t->recipe, "student.architecture", row->name));
    }
    CAB_TRY(cab_recipe_reset_stages(t->recipe, 1));
    for (const char *const *term = t->domain->distillation; t->o.stage != CAB_STEP_ALIGN && *term != NULL; term++)
        CAB_TRY(weigh(t, *term));
    return t->o.stage == CAB_STEP_SOFT ? CAB_OK : weigh(t, cab_term_name(CAB_TERM_ALIGN));
}

static cab_status timer_record(timer *t)
{
    const cab_step_options *o = &t->o;
    const int ranks = cab_communicator_size(o->communicator);
    cab_objective_options objective = {.batch = o->batch / ranks,
                                       .seq_len = o->seq_len,
                                       .temperature = 1,
                                       .recompute = o->recompute,
                                       .train = true,
                                       .scatter = o->divided};
    const cab_adamw_options adamw = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .clip = 1};
    if (o->batch % ranks != 0)
        return cab_fail(CAB_ESHAPE, "a batch of %lld does not divide among %d ranks", (long long)o->batch, ranks);
    CAB_TRY(make_recipe(t));
    const cab_term_setup setup = {
        .recipe = t->recipe, .student = t->student, .teacher = t->teacher, .layer_map = t->layer_map};
    CAB_TRY(cab_term_set_open(&setup, &t->terms));
    for (int i = 0; i < CAB_TERM_COUNT; i++)
        objective.terms[i] = cab_stage_uses(&t->recipe->stages[0], (cab_term_id)i);
    CAB_TRY(cab_objective_new(t->backend, t->student, t->teacher, &t->terms, &objective, &t->objective));
    CAB_TRY(cab_objective_plan(t->objective, &t->plan));
    cab_objective_set_portion(t->objective, &(cab_portion){1.0 / ranks, 1.0 / ranks, 1.0 / ranks});
    cab_graph_set_reducing(cab_objective_graph(t->objective), true);
    cab_params *stores[2] = {t->student->params, t->terms.params};
    float *const *averages[2] = {NULL, NULL};
    return cab_optimizer_new(cab_objective_graph(t->objective), stores, averages, stores[1] != NULL ? 2 : 1,
                             &(cab_optimizer_rates){.decay = 0.1f}, &adamw, o->divided, &t->optimizer);
}

static cab_status start_batch(timer *t)
{
    const cab_term_weights weights = cab_schedule_weights(&t->recipe->stages[0], 0, 1);
    const cab_batch next = {.input = t->input, .labels = t->labels};
    const cab_batch batch = {.input = t->steps_done > 0 ? NULL : t->input, .labels = t->labels};
    CAB_TRY(cab_objective_start(t->objective, &batch, &weights, 1));
    t->steps_done++;
    return cab_objective_next(t->objective, &next); /* beside the step, as in a run */
}

/* One step, which is waited for twice. */
static cab_status run_step(timer *t)
{
    cab_term_values values;
    double norm = 0;
    CAB_TRY(start_batch(t));
    CAB_TRY(cab_objective_finish(t->objective, &values));
    double started = cab_seconds();
    CAB_TRY(cab_optimizer_step(t->optimizer, 1e-6, t->steps_done, &norm));
    t->update += cab_seconds() - started;
    return CAB_OK;
}

static cab_status end_step(timer *t)
{
    cab_term_values values;
    double norm = 0;
    CAB_TRY(cab_objective_finish(t->objective, &values));
    return cab_optimizer_finish(t->optimizer, &norm);
}

/* As a run takes them: on a device, what one step found is read while the next runs. */
static cab_status follow_steps(timer *t)
{
    for (int i = 0; i < t->o.steps; i++) {
        CAB_TRY(start_batch(t));
        CAB_TRY(cab_optimizer_start(t->optimizer, 1e-6, t->steps_done));
        if (i > 0)
            CAB_TRY(end_step(t));
    }
    return end_step(t);
}

static cab_status time_steps(timer *t, double *seconds)
{
    for (int i = 0; i < WARM; i++)
        CAB_TRY(run_step(t));
    double started = cab_seconds();
    CAB_TRY(follow_steps(t));
    *seconds = (cab_seconds() - started) / t->o.steps;
    return CAB_OK;
}

static cab_status run_steps(timer *t)
{
    if (t->o.communicator != NULL) {
        cab_graph_set_reducing(cab_objective_graph(t->objective), false);
        CAB_TRY(time_steps(t, &t->apart));
        cab_graph_set_reducing(cab_objective_graph(t->objective), true);
    }
    CAB_TRY(time_steps(t, &t->step));
    t->update = 0;
    cab_graph_time(cab_objective_graph(t->objective), true);
    for (int i = 0; i < TABLE_STEPS; i++)
        CAB_TRY(run_step(t));
    t->update /= TABLE_STEPS;
    return CAB_OK;
}

/* ---- the table by op --------------------------------------------------------------------------------------------------- */

typedef struct op_time {
    const char *name;
    double seconds, flops, bytes, floor; /* floor: seconds at the limits, node by node */
    int count;
    bool backward;
} op_time;

typedef struct limits {
    double matrix, copy; /* FLOP/s, bytes/s */
} limits;

/* The time of one node if it reached the limits: reading and writing everything once, or multiplying. */
static double floor_of(const cab_node *node, const limits *l)
{
    const double bytes = cab_node_bytes(node) / l->copy, flops = cab_node_flops(node) / l->matrix;
    return bytes > flops ? bytes : flops;
}

/* The optimizer's too: gradients are read for their norm; then p, m and v are read and written, gradients read and zeroed,
 * and bf16 copies written. */
static double update_floor(const timer *t, const limits *l)
{
    double bytes = 0;
    for (size_t i = 0; i < cab_optimizer_count(t->optimizer); i++) {
        const cab_tensor *p = cab_optimizer_at(t->optimizer, i)->parameter;
        bytes += (double)cab_elements(p) * (p->low != NULL ? 38 : 36);
    }
    return bytes / l->copy;
}

static int by_seconds(const void *a, const void *b)
{
    const op_time *x = a, *y = b;
    return x->seconds < y->seconds ? 1 : -1;
}

static void print_node(const timer *t, int index, const cab_node *node, double seconds)
{
    char shape[96];
    fprintf(t->out, "  node %4d %-18s %s %9.3f ms %8.1f GFLOP/s  %s\n", index, node->op->name,
            node->backward ? "bwd" : "fwd", seconds * 1e3, cab_node_flops(node) / seconds * 1e-9,
            node->in[0] != NULL ? cab_shape_text(node->in[0], shape) : "");
}

static int gather_ops(const timer *t, const limits *l, op_time ops[MAX_OPS])
{
    cab_graph *g = cab_objective_graph(t->objective);
    int n = 0;
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        const double seconds = cab_graph_node_seconds(g, i) / TABLE_STEPS;
        int k = 0;
        if (node->skip)
            continue;
        while (k < n && (strcmp(ops[k].name, node->op->name) != 0 || ops[k].backward != node->backward))
            k++;
        if (k == n && n < MAX_OPS)
            ops[n++] = (op_time){.name = node->op->name, .backward = node->backward};
        if (k >= n)
            continue;
        ops[k].seconds += seconds;
        ops[k].flops += cab_node_flops(node);
        ops[k].bytes += cab_node_bytes(node);
        ops[k].floor += floor_of(node, l);
        ops[k].count++;
        if (t->o.nodes)
            print_node(t, i, node, seconds);
    }
    qsort(ops, (size_t)n, sizeof *ops, by_seconds);
    return n;
}

static void print_ops(const timer *t, const op_time *ops, int n, const limits *l)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += ops[i].seconds;
    fprintf(t->out, "  %-22s %5s %10s %7s %9s %8s %9s %8s\n", "op", "nodes", "ms", "share", "GB/s", "of copy",
            "GFLOP/s", "of limit");
    for (int i = 0; i < n; i++) {
        const double rate = ops[i].flops / ops[i].seconds, copied = ops[i].bytes / ops[i].seconds;
        fprintf(t->out, "  %-18s %s %5d %10.3f %6.1f%% %9.1f %7.1f%%", ops[i].name, ops[i].backward ? "bwd" : "fwd",
                ops[i].count, ops[i].seconds * 1e3, 100 * ops[i].seconds / sum, copied * 1e-9, 100 * copied / l->copy);
        if (ops[i].flops > 0)
            fprintf(t->out, " %9.1f %7.1f%%", rate * 1e-9, 100 * rate / l->matrix);
        fprintf(t->out, "\n");
    }
}

/* Gradients that travel in a step. */
static void print_ranks(const timer *t)
{
    const cab_params *stores[2] = {t->student->params, t->terms.params};
    const int ranks = cab_communicator_size(t->o.communicator);
    char bytes[CAB_FORMAT_MAX], moments[CAB_FORMAT_MAX];
    double sum = 0;
    for (int s = 0; s < 2 && stores[s] != NULL; s++)
        for (size_t b = 0; b < cab_params_buckets(stores[s]); b++)
            sum += (double)cab_params_bucket(stores[s], b).count * sizeof(float);
    fprintf(
        t->out,
        "  %d ranks: %s of gradients, %.2f ms of a step wait for their sums (%.2f ms without sums); moments here %s\n",
        ranks, cab_format_bytes(sum, bytes), (t->step - t->apart) * 1e3, t->apart * 1e3,
        cab_format_bytes((double)cab_optimizer_bytes(t->optimizer), moments));
}

static void timer_print(const timer *t, const limits *l)
{
    op_time ops[MAX_OPS];
    const int n = gather_ops(t, l, ops);
    double least = update_floor(t, l);
    static const char *const stages[] = {"alignment alone", "distillation without alignment", "all terms"};
    char arena[CAB_FORMAT_MAX], peak[CAB_FORMAT_MAX], sample[64];
    const cab_config *c = &t->student->config;
    const double items = (double)(t->o.batch * t->o.seq_len);
    for (int i = 0; i < n; i++)
        least += ops[i].floor;
    t->domain->sample_size(t->student, t->o.seq_len, sample, sizeof sample);
    fprintf(t->out, "%s (%.1f M) -> %s (%.1f M), %d layers, %s, %s, batch %lld x %s, %s\n", t->teacher->arch->name,
            (double)cab_model_parameters(t->teacher) * 1e-6, t->student->arch->name,
            (double)cab_model_parameters(t->student) * 1e-6, c->n_layer, stages[t->o.stage],
            t->o.teacher_fp8                       ? "bf16, teacher fp8"
            : t->o.precision == CAB_PRECISION_BF16 ? "bf16"
                                                   : "fp32",
            (long long)t->o.batch, sample, t->backend->name);
    fprintf(t->out, "  step %.2f ms (update %.2f ms), %.0f %s/s, activations %s, peak %s\n", t->step * 1e3,
            t->update * 1e3, items / t->step, t->domain->recipes->unit, cab_format_bytes((double)t->plan.arena, arena),
            cab_format_bytes(t->memory, peak));
    if (t->o.communicator != NULL)
        print_ranks(t);
    fprintf(t->out, "  %.1f GFLOP in matrix products: %.1f GFLOP/s, %.1f %% of the measured %.1f\n",
            t->plan.flops * 1e-9, t->plan.flops / t->step * 1e-9, 100 * t->plan.flops / t->step / l->matrix,
            l->matrix * 1e-9);
    fprintf(t->out,
            "  at the measured limits (copies %.1f GB/s) every node and the update would take %.2f ms: %.1f %%\n",
            l->copy * 1e-9, least * 1e3, 100 * least / t->step);
    print_ops(t, ops, n, l);
}

static void timer_close(timer *t)
{
    cab_optimizer_free(t->optimizer);
    cab_objective_free(t->objective);
    cab_term_set_close(&t->terms);
    cab_recipe_free(t->recipe);
    cab_model_free(t->student);
    cab_model_free(t->teacher);
    cab_free(t->layer_map);
    cab_free(t->labels);
    cab_free(t->input);
    cab_backend_close(t->backend);
}

cab_status cab_step_time(const cab_step_options *options, FILE *out)
{
    timer t = {.o = *options, .out = out};
    limits l = {0};
    cab_status status;
    CAB_GOTO(timer_open_models(&t));
    CAB_GOTO(timer_record(&t));
    CAB_GOTO(t.domain->draw(t.student, t.o.batch / cab_communicator_size(t.o.communicator), t.o.seq_len, &t.input,
                            &t.labels));
    CAB_GOTO(run_steps(&t));
    t.memory = t.backend->host ? cab_peak_memory() : t.available - t.backend->available(t.backend);
    CAB_GOTO(cab_matrix_limit(t.backend, options->precision == CAB_PRECISION_BF16 ? CAB_BF16 : CAB_F32, &l.matrix));
    CAB_GOTO(cab_copy_limit(t.backend, &l.copy));
    if (cab_communicator_rank(t.o.communicator) == 0)
        timer_print(&t, &l);
done:
    timer_close(&t);
    return status;
}
