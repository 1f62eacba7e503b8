/* step.c - time of one training step: teacher, student, bridge, losses, backward, optimizer.
 *
 *   bench_step TEACHER_DIR [--batch N] [--seq-len L] [--layers S] [--precision fp32|bf16] [--stage joint|align|soft]
 *              [--steps N] [--nodes]
 *
 * Prints ms and tokens per second, the matrix FLOPs of the step (teacher included), their rate and its share of the
 * processor's measured matrix rate, and a table of the time by op. Weights of the student are random: time does not depend
 * on them. */
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "bench/matrix_limit.h"
#include "device/device.h"
#include "distill/initialise.h"
#include "distill/layer_map.h"
#include "distill/objective.h"
#include "train/optimizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPS = 64 };

typedef struct options {
    const char *teacher, *stage;
    int64_t batch, seq_len;
    int n_layer, steps;
    cab_precision precision;
    bool nodes, recompute;
} options;

typedef struct bench {
    options o;
    cab_backend *backend;
    cab_model *teacher, *student;
    cab_params *bridge_params;
    cab_bridge *bridge;
    cab_objective *objective;
    cab_optimizer *optimizer;
    int *layer_map;
    int32_t *ids, *labels;
    double forward_backward, update; /* seconds per step */
} bench;

static cab_status open_models(bench *b)
{
    const options *o = &b->o;
    cab_recipe *recipe = NULL;
    const cab_arch *arch = NULL;
    CAB_TRY(cab_backend_open("cpu", &b->backend));
    CAB_TRY(cab_model_open(o->teacher, b->backend, o->precision, false, &b->teacher));
    const cab_config *t = &b->teacher->config;
    cab_config c = *t;
    c.n_layer = o->n_layer > 0 ? o->n_layer : t->n_layer;
    c.n_group = c.n_kv_head = c.n_head;
    c.d_state = t->head_dim;
    c.d_conv = 4;
    CAB_TRY(cab_architecture_find("phi-mamba", "bench", &arch));
    CAB_TRY(cab_model_create(arch, &c, b->backend, o->precision, &b->student));
    CAB_TRY(CAB_NEW(&b->layer_map, (size_t)c.n_layer, "a layer map"));
    CAB_TRY(cab_layer_map(CAB_LAYERS_PROPORTIONAL, NULL, 0, c.n_layer, t->n_layer, b->layer_map));
    CAB_TRY(cab_recipe_preset("soft", &recipe));
    cab_status status = cab_initialise(b->student, b->teacher, recipe, b->layer_map);
    cab_recipe_free(recipe);
    return status;
}

static cab_status record(bench *b, cab_plan *plan)
{
    const options *o = &b->o;
    bool align = strcmp(o->stage, "soft") != 0, head = strcmp(o->stage, "align") != 0;
    cab_bridge_options bridge = {.n_layer = 2, .hidden = b->teacher->config.d_model, .activation = CAB_SILU};
    cab_objective_options objective = {.batch = o->batch,
                                       .seq_len = o->seq_len,
                                       .ce = head,
                                       .kl = head,
                                       .align = align,
                                       .temperature = 1,
                                       .recompute = o->recompute,
                                       .train = true};
    cab_adamw_options adamw = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .clip = 1};
    CAB_TRY(cab_params_new(b->backend, &b->bridge_params));
    CAB_TRY(cab_bridge_new(b->bridge_params, &bridge, b->layer_map, b->student->config.n_layer,
                           cab_model_key_width(b->student), cab_model_key_width(b->teacher),
                           cab_model_query_width(b->teacher), 1, &b->bridge));
    CAB_TRY(cab_objective_new(b->backend, b->student, b->teacher, b->bridge, &objective, &b->objective));
    CAB_TRY(cab_objective_plan(b->objective, plan));
    cab_params *stores[2] = {b->student->params, b->bridge_params};
    float *const *averages[2] = {NULL, NULL};
    return cab_optimizer_new(cab_objective_graph(b->objective), stores, averages, 2, 0.1f, &adamw, &b->optimizer);
}

static cab_status draw_batch(bench *b)
{
    size_t n = (size_t)(b->o.batch * b->o.seq_len);
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    CAB_TRY(CAB_NEW(&b->ids, n, "a batch"));
    CAB_TRY(CAB_NEW(&b->labels, n, "a batch"));
    for (size_t i = 0; i < n; i++) {
        b->ids[i] = (int32_t)cab_random_below(&random, (uint64_t)b->teacher->config.vocab_size);
        b->labels[i] = (int32_t)cab_random_below(&random, (uint64_t)b->teacher->config.vocab_size);
    }
    return CAB_OK;
}

static cab_status run_steps(bench *b)
{
    const cab_term_weights weights = {.ce = 1, .kl = 1, .align = 1};
    cab_term_values values;
    double norm = 0;
    for (int i = -1; i < b->o.steps; i++) { /* the first is a warm-up */
        double t0 = cab_seconds();
        if (i == 0)
            cab_graph_time(cab_objective_graph(b->objective), true);
        CAB_TRY(cab_objective_run(b->objective, b->ids, b->labels, NULL, &weights, 1, &values));
        double t1 = cab_seconds();
        CAB_TRY(cab_optimizer_step(b->optimizer, 1e-4, (uint64_t)(i + 2), &norm));
        double t2 = cab_seconds();
        if (i >= 0) {
            b->forward_backward += (t1 - t0) / b->o.steps;
            b->update += (t2 - t1) / b->o.steps;
        }
    }
    return CAB_OK;
}

typedef struct op_time {
    const char *name;
    bool backward;
    double seconds, flops;
    int count;
} op_time;

static int by_seconds(const void *a, const void *b)
{
    const op_time *x = a, *y = b;
    return x->seconds < y->seconds ? 1 : -1;
}

static void print_ops(const bench *b, double limit)
{
    cab_graph *g = cab_objective_graph(b->objective);
    op_time ops[MAX_OPS];
    int n = 0;
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        int k = 0;
        if (node->skip)
            continue;
        while (k < n && (strcmp(ops[k].name, node->op->name) != 0 || ops[k].backward != node->backward))
            k++;
        if (k == n && n < MAX_OPS)
            ops[n++] = (op_time){.name = node->op->name, .backward = node->backward};
        if (k >= n)
            continue;
        ops[k].seconds += cab_graph_node_seconds(g, i) / b->o.steps;
        ops[k].flops += cab_node_flops(node);
        ops[k].count++;
        if (b->o.nodes)
            printf("  node %4d %-18s %s %9.3f ms %8.1f GFLOP/s\n", i, node->op->name, node->backward ? "bwd" : "fwd",
                   cab_graph_node_seconds(g, i) / b->o.steps * 1e3,
                   cab_node_flops(node) / (cab_graph_node_seconds(g, i) / b->o.steps) * 1e-9);
    }
    qsort(ops, (size_t)n, sizeof *ops, by_seconds);
    printf("  %-22s %5s %10s %7s %10s %8s\n", "op", "nodes", "ms", "share", "GFLOP/s", "of limit");
    for (int i = 0; i < n; i++) {
        double rate = ops[i].flops / ops[i].seconds;
        printf("  %-18s %s %5d %10.3f %6.1f%%", ops[i].name, ops[i].backward ? "bwd" : "fwd", ops[i].count,
               ops[i].seconds * 1e3, 100 * ops[i].seconds / (b->forward_backward + b->update));
        if (ops[i].flops > 0)
            printf(" %10.1f %7.1f%%", rate * 1e-9, 100 * rate / limit);
        printf("\n");
    }
}

static cab_status measure(bench *b)
{
    cab_plan plan;
    char bytes[32];
    double limit = 0;
    CAB_TRY(open_models(b));
    CAB_TRY(record(b, &plan));
    CAB_TRY(draw_batch(b));
    CAB_TRY(run_steps(b));
    CAB_TRY(cab_matrix_limit(b->backend, b->o.precision == CAB_PRECISION_BF16 ? CAB_BF16 : CAB_F32, &limit));
    double step = b->forward_backward + b->update, tokens = (double)(b->o.batch * b->o.seq_len);
    printf("%s, %s, %s, %d layers, batch %lld x %lld, %d threads\n", b->o.teacher, b->o.stage,
           b->o.precision == CAB_PRECISION_BF16 ? "bf16" : "fp32", b->student->config.n_layer, (long long)b->o.batch,
           (long long)b->o.seq_len, b->backend->threads);
    printf("  step %.1f ms (update %.1f ms), %.0f tokens/s, activations %s, peak %.2f GiB\n", step * 1e3,
           b->update * 1e3, tokens / step, cab_format_bytes((double)plan.arena, bytes),
           cab_peak_memory() / 1073741824.0);
    printf("  %.1f GFLOP in matrix products: %.1f GFLOP/s, %.1f %% of the measured %.1f\n", plan.flops * 1e-9,
           plan.flops / step * 1e-9, 100 * plan.flops / step / limit, limit * 1e-9);
    print_ops(b, limit);
    return CAB_OK;
}

static bool parse(int argc, char **argv, options *o)
{
    *o = (options){.stage = "joint", .batch = 16, .steps = 3, .precision = CAB_PRECISION_BF16};
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (argv[i][0] != '-')
            o->teacher = argv[i];
        else if (strcmp(argv[i], "--nodes") == 0)
            o->nodes = true;
        else if (strcmp(argv[i], "--recompute") == 0)
            o->recompute = true;
        else if (has_value && strcmp(argv[i], "--batch") == 0)
            o->batch = atoll(argv[++i]);
        else if (has_value && strcmp(argv[i], "--seq-len") == 0)
            o->seq_len = atoll(argv[++i]);
        else if (has_value && strcmp(argv[i], "--layers") == 0)
            o->n_layer = atoi(argv[++i]);
        else if (has_value && strcmp(argv[i], "--steps") == 0)
            o->steps = atoi(argv[++i]);
        else if (has_value && strcmp(argv[i], "--stage") == 0)
            o->stage = argv[++i];
        else if (has_value && strcmp(argv[i], "--precision") == 0)
            o->precision = strcmp(argv[++i], "fp32") == 0 ? CAB_PRECISION_FP32 : CAB_PRECISION_BF16;
        else
            return false;
    }
    return o->teacher != NULL && o->batch > 0 && o->steps > 0 && o->seq_len > 0;
}

int main(int argc, char **argv)
{
    bench b = {0};
    if (!parse(argc, argv, &b.o)) {
        fprintf(stderr, "usage: bench_step TEACHER_DIR --seq-len L [--batch N] [--layers S] [--precision fp32|bf16] "
                        "[--stage joint|align|soft] [--steps N] [--recompute] [--nodes]\n");
        return CAB_EARG;
    }
    cab_status status = measure(&b);
    if (status != CAB_OK)
        fprintf(stderr, "bench_step: %s\n", cab_error_text());
    cab_optimizer_free(b.optimizer);
    cab_objective_free(b.objective);
    cab_bridge_free(b.bridge);
    cab_params_free(b.bridge_params);
    cab_model_free(b.student);
    cab_model_free(b.teacher);
    cab_free(b.layer_map);
    cab_free(b.ids);
    cab_free(b.labels);
    cab_backend_close(b.backend);
    return (int)status;
}
