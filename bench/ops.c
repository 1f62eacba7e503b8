/* ops.c - time of single operations, forward and backward.
 *
 *   bench_ops [--precision fp32|bf16] [--shape books|tales] [NAME...]
 *
 * books: 16 x 512 tokens, width 512; tales: 8 x 256 tokens, width 128. NAME picks operations whose name contains it. For
 * each: the best of several runs in ms, GFLOP/s of matrix products and the share of the processor's measured matrix rate,
 * GB/s of inputs, outputs and their gradients read or written once. */
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "ops/backends.h"
#include "train/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
    int64_t batch, length, width;
    int n_head;
} shape;

/* One operation being measured. */
typedef struct bench {
    cab_backend *backend;
    cab_params *params;
    cab_graph *graph;
    cab_dtype dtype;
    shape s;
    double limit; /* FLOP/s */
} bench;

typedef struct operation {
    const char *name;
    cab_tensor *(*record)(bench *b);
} operation;

/* Tokens of `columns` uniform numbers in -1 .. 1; NULL when the graph has failed. */
static cab_tensor *tokens(bench *b, int64_t columns)
{
    cab_tensor *t = cab_graph_input(b->graph, "x", b->dtype, 3, (int64_t[]){b->s.batch, b->s.length, columns});
    if (t == NULL)
        return NULL;
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    for (int64_t i = 0; i < cab_elements(t); i++) {
        float value = 2.0f * cab_random_uniform(&random) - 1.0f;
        cab_convert((char *)t->data + (size_t)i * cab_dtype_size(b->dtype), b->dtype, &value, CAB_F32, 1);
    }
    cab_graph_want_gradient(b->graph, t);
    return t;
}

static cab_tensor *weights(bench *b, int n_dim, int64_t rows, int64_t columns)
{
    char name[32];
    cab_tensor *t = NULL;
    snprintf(name, sizeof name, "w%zu", cab_params_count(b->params));
    int64_t size[2] = {rows, columns};
    cab_status status = cab_params_add(b->params, name, CAB_F32, n_dim, size + (2 - n_dim), CAB_DECAY, &t);
    if (status == CAB_OK)
        status = cab_params_set_trainable(b->params, name, true, NULL);
    return status == CAB_OK ? t : cab_graph_fail(b->graph, status, "%s", cab_error_text());
}

static cab_tensor *up(bench *b)
{
    int64_t d = b->s.width;
    return cab_linear(b->graph, tokens(b, d), weights(b, 2, 4 * d, d), weights(b, 1, 0, 4 * d), CAB_OUT_IN);
}

static cab_tensor *down(bench *b)
{
    int64_t d = b->s.width;
    return cab_linear(b->graph, tokens(b, 4 * d), weights(b, 2, d, 4 * d), weights(b, 1, 0, d), CAB_OUT_IN);
}

/* The mixer's input projection: x, B, C and one decay per head. */
static cab_tensor *in_proj(bench *b)
{
    int64_t d = b->s.width;
    return cab_linear(b->graph, tokens(b, d), weights(b, 2, 4 * d + b->s.n_head, d), NULL, CAB_OUT_IN);
}

static cab_tensor *conv1d_layout(bench *b)
{
    int64_t d = b->s.width;
    return cab_linear(b->graph, tokens(b, d), weights(b, 2, d, 4 * d), weights(b, 1, 0, 4 * d), CAB_IN_OUT);
}

static cab_tensor *attention(bench *b)
{
    int head_dim = (int)b->s.width / b->s.n_head;
    cab_attention_shape a = {b->s.n_head, b->s.n_head, head_dim, 0.125f, true, 0, 0};
    return cab_attention(b->graph, tokens(b, b->s.width), tokens(b, b->s.width), tokens(b, b->s.width), NULL, &a);
}

static cab_tensor *rotary(bench *b)
{
    cab_tensor *frequencies =
        cab_graph_input(b->graph, "inv_freq", CAB_F32, 1, (int64_t[]){b->s.width / b->s.n_head / 2});
    return cab_rotary(b->graph, tokens(b, b->s.width), frequencies, NULL, b->s.n_head, 1);
}

static cab_tensor *layer_norm(bench *b)
{
    return cab_layer_norm(b->graph, tokens(b, b->s.width), weights(b, 1, 0, b->s.width), weights(b, 1, 0, b->s.width),
                          1e-5f);
}

static cab_tensor *rms_norm(bench *b)
{
    return cab_rms_norm(b->graph, tokens(b, b->s.width), weights(b, 1, 0, b->s.width), 1, 1e-5f);
}

static cab_tensor *gelu(bench *b)
{
    return cab_activate(b->graph, tokens(b, 4 * b->s.width), CAB_GELU_TANH);
}

static cab_tensor *swiglu(bench *b)
{
    return cab_glu(b->graph, tokens(b, 4 * b->s.width), tokens(b, 4 * b->s.width), CAB_SILU);
}

static cab_tensor *gate(bench *b)
{
    return cab_gate(b->graph, tokens(b, b->s.width), tokens(b, b->s.width), weights(b, 1, 0, b->s.width));
}

static cab_tensor *add(bench *b)
{
    return cab_add(b->graph, 2, (cab_tensor *[]){tokens(b, b->s.width), tokens(b, b->s.width)});
}

static cab_tensor *embedding(bench *b)
{
    enum { VOCABULARY = 8192 };
    cab_tensor *ids = cab_graph_input(b->graph, "ids", CAB_I32, 2, (int64_t[]){b->s.batch, b->s.length});
    cab_random random = {.seed = 2, .stream = CAB_STREAM_TEST};
    for (int64_t i = 0; ids != NULL && i < cab_elements(ids); i++)
        ((int32_t *)ids->data)[i] = (int32_t)cab_random_below(&random, VOCABULARY);
    return cab_embedding(b->graph, ids, weights(b, 2, VOCABULARY, b->s.width), weights(b, 2, b->s.length, b->s.width),
                         NULL, NULL, b->dtype);
}

static cab_tensor *conv1d(bench *b)
{
    enum { TAPS = 4 };
    cab_tensor *w = NULL;
    cab_status status =
        cab_params_add(b->params, "conv", CAB_F32, 3, (int64_t[]){3 * b->s.width, 1, TAPS}, CAB_NO_DECAY, &w);
    if (status == CAB_OK)
        status = cab_params_set_trainable(b->params, "conv", true, NULL);
    if (status != CAB_OK)
        return cab_graph_fail(b->graph, status, "%s", cab_error_text());
    return cab_conv1d(b->graph, tokens(b, 3 * b->s.width), w, weights(b, 1, 0, 3 * b->s.width), NULL, true);
}

static cab_tensor *ssd(bench *b)
{
    int64_t d = b->s.width;
    const cab_ssd_inputs in = {.x = tokens(b, d),
                               .B = tokens(b, d),
                               .C = tokens(b, d),
                               .dt = tokens(b, b->s.n_head),
                               .D = weights(b, 1, 0, b->s.n_head)};
    return cab_ssd(b->graph, &in, b->s.n_head, b->s.n_head);
}

static const operation operations[] = {
    {"linear D -> 4D", up},
    {"linear 4D -> D", down},
    {"linear D -> 4D + H", in_proj},
    {"linear D -> 4D, in_out", conv1d_layout},
    {"attention", attention},
    {"rotary", rotary},
    {"ssd", ssd},
    {"conv1d 3D", conv1d},
    {"layer_norm", layer_norm},
    {"rms_norm", rms_norm},
    {"gelu 4D", gelu},
    {"swiglu 4D", swiglu},
    {"gate", gate},
    {"add", add},
    {"embedding", embedding},
};

static double bytes_of(cab_tensor *const *tensors, int n)
{
    double bytes = 0;
    for (int i = 0; i < n; i++)
        bytes += tensors[i] != NULL ? (double)cab_elements(tensors[i]) * (double)cab_dtype_size(tensors[i]->dtype) : 0;
    return bytes;
}

static void print_node(const bench *b, const char *name, const cab_node *node, double seconds)
{
    double bytes = bytes_of(node->in, node->n_in) + bytes_of(node->out, node->n_out) +
                   bytes_of(node->gout, node->n_out) + bytes_of(node->gin, node->n_in);
    double flops = cab_node_flops(node);
    printf("%-24s %s %9.3f ms", name, node->backward ? "bwd" : "fwd", seconds * 1e3);
    if (flops > 0)
        printf(" %8.1f GFLOP/s %5.1f %%", flops / seconds * 1e-9, 100 * flops / seconds / b->limit);
    else
        printf(" %24s", "");
    printf(" %7.1f GB/s\n", bytes / seconds * 1e-9);
}

/* Runs the list for half a second; the best time of each node. */
static cab_status time_nodes(bench *b, const char *name)
{
    int n = cab_graph_nodes(b->graph);
    double *best = NULL, *before = NULL, started = cab_seconds();
    cab_status status;
    CAB_GOTO(CAB_NEW(&best, (size_t)n, "times"));
    CAB_GOTO(CAB_NEW(&before, (size_t)n, "times"));
    cab_graph_time(b->graph, true);
    for (int run = 0; run < 3 || cab_seconds() - started < 0.5; run++) {
        CAB_GOTO(cab_graph_run(b->graph));
        for (int i = 0; i < n; i++) {
            double seconds = cab_graph_node_seconds(b->graph, i) - before[i];
            best[i] = run == 0 || seconds < best[i] ? seconds : best[i];
            before[i] += seconds;
        }
    }
    for (int i = 0; i < n; i++)
        if (best[i] > 0)
            print_node(b, name, cab_graph_node(b->graph, i), best[i]);
done:
    cab_free(best);
    cab_free(before);
    return status;
}

static cab_status measure(bench *b, const operation *op)
{
    cab_status status;
    CAB_GOTO(cab_params_new(b->backend, &b->params));
    CAB_GOTO(cab_graph_new(b->backend, &b->graph));
    cab_tensor *y = op->record(b);
    if (y != NULL) {
        cab_tensor *seed = cab_graph_input(b->graph, "seed", y->dtype, y->n_dim, y->shape);
        cab_graph_keep(b->graph, y); /* or the forward node would be dropped */
        cab_graph_backward(b->graph, 1, &y, &seed);
    }
    CAB_GOTO(cab_graph_plan(b->graph, NULL));
    CAB_GOTO(time_nodes(b, op->name));
done:
    cab_graph_free(b->graph);
    cab_params_free(b->params);
    b->graph = NULL;
    b->params = NULL;
    return status;
}

static bool chosen(const char *name, int count, char **patterns)
{
    for (int i = 0; i < count; i++)
        if (strstr(name, patterns[i]) != NULL)
            return true;
    return count == 0;
}

/* Takes the options off the arguments; what is left are names. */
static cab_status parse(bench *b, int *count, char **arguments)
{
    int left = 0;
    for (int i = 0; i < *count; i++) {
        const char *value = i + 1 < *count ? arguments[i + 1] : "";
        if (strncmp(arguments[i], "--", 2) != 0)
            arguments[left++] = arguments[i];
        else if (strcmp(arguments[i], "--precision") == 0 && (strcmp(value, "fp32") == 0 || strcmp(value, "bf16") == 0))
            b->dtype = strcmp(arguments[++i], "fp32") == 0 ? CAB_F32 : CAB_BF16;
        else if (strcmp(arguments[i], "--shape") == 0 && (strcmp(value, "books") == 0 || strcmp(value, "tales") == 0))
            b->s = strcmp(arguments[++i], "books") == 0 ? (shape){16, 512, 512, 8} : (shape){8, 256, 128, 4};
        else
            return cab_fail(CAB_EARG, "%s %s: expected --precision fp32|bf16 or --shape books|tales", arguments[i],
                            value);
    }
    *count = left;
    return CAB_OK;
}

int main(int argc, char **argv)
{
    bench b = {.dtype = CAB_BF16, .s = {16, 512, 512, 8}};
    int names = argc - 1;
    cab_status status;
    CAB_GOTO(parse(&b, &names, argv + 1));
    CAB_GOTO(cab_backend_open("cpu", &b.backend));
    CAB_GOTO(cab_matrix_limit(b.backend, b.dtype, &b.limit));
    printf("%lld x %lld tokens, D %lld, H %d, %s, %d threads, matrix limit %.1f GFLOP/s\n", (long long)b.s.batch,
           (long long)b.s.length, (long long)b.s.width, b.s.n_head, cab_dtype_name(b.dtype), b.backend->threads,
           b.limit * 1e-9);
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (chosen(operations[i].name, names, argv + 1))
            CAB_GOTO(measure(&b, &operations[i]));
done:
    if (status != CAB_OK)
        fprintf(stderr, "bench_ops: %s\n", cab_error_text());
    cab_backend_close(b.backend);
    return (int)status;
}
