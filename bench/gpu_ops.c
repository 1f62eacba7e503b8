/* gpu_ops.c - time of single operations on a GPU, forward and backward, beside what the GPU can do.
 *
 *   bench_gpu_ops [--device cuda[:N]] [--precision fp32|bf16] [NAME...]
 *
 * NAME picks cases whose name contains it. Each case is recorded several times over on inputs of its own, so that nothing
 * is found in the second-level cache; the list is captured once and replayed, between two events. Backward is the time of
 * the list with backward less that of the list without; losses compute value and gradient together and print the time of
 * both. Printed are ms of one operation, GB/s of its inputs, outputs and gradients read or written once, TFLOP/s of its
 * matrix products, and both as shares of what the same program reaches when it only copies, or only multiplies large
 * matrices. */
#include "base/memory.h"
#include "base/random.h"
#include "ops/backends.h"
#include "ops/cuda/device.h"
#include "ops/ops.h"
#include "train/limits.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_COPIES = 16, BATCHES = 5, PATTERN = 1 << 20 };

/* What a case is measured on. */
typedef struct bench {
    cab_backend *backend;
    cab_params *params;
    cab_graph *graph;
    cab_dtype dtype;
    float *pattern;                  /* PATTERN uniform numbers in -1 .. 1 */
    double copy_limit, matrix_limit; /* bytes/s, FLOP/s */
    bool backward;
} bench;

/* B batch, L tokens, E columns; n: states, taps, heads ... as the case takes it. */
typedef struct shape {
    int64_t B, L, E, n;
} shape;

typedef struct operation {
    const char *name;
    cab_tensor *(*record)(bench *b, const shape *s);
    shape s;
} operation;

/* ---- inputs -------------------------------------------------------------------------------------------------------- */

static cab_status fill(bench *b, cab_tensor *t)
{
    const size_t n = (size_t)cab_elements(t), size = cab_dtype_size(t->dtype);
    char *data = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&data, n * size, "an input"));
    for (size_t i = 0; i < n; i += PATTERN)
        cab_convert(data + i * size, t->dtype, b->pattern, CAB_F32, (int64_t)(n - i < PATTERN ? n - i : PATTERN));
    CAB_GOTO(cab_tensor_write(b->graph, t, data));
done:
    cab_free(data);
    return status;
}

/* Tokens of `columns` uniform numbers in -1 .. 1. */
static cab_tensor *tokens(bench *b, const shape *s, int64_t columns)
{
    cab_tensor *t = cab_graph_input(b->graph, "x", b->dtype, 3, (int64_t[]){s->B, s->L, columns});
    if (t == NULL)
        return NULL;
    if (fill(b, t) != CAB_OK)
        return cab_graph_fail(b->graph, CAB_EBACKEND, "%s", cab_error_text());
    cab_graph_want_gradient(b->graph, t);
    return t;
}

static cab_status fill_parameter(bench *b, cab_tensor *t)
{
    const size_t n = (size_t)cab_elements(t);
    float *data = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&data, n, "a parameter"));
    for (size_t i = 0; i < n; i++)
        data[i] = b->pattern[i % PATTERN];
    CAB_GOTO(cab_params_write(b->params, t, data));
done:
    cab_free(data);
    return status;
}

/* A trainable parameter; the last of `n_dim` sizes may be 0 for a vector of `rows`. */
static cab_tensor *parameter(bench *b, int n_dim, const int64_t *sizes)
{
    char name[32];
    cab_tensor *t = NULL;
    snprintf(name, sizeof name, "w%zu", cab_params_count(b->params));
    cab_status status = cab_params_add(b->params, name, CAB_F32, n_dim, sizes, CAB_DECAY, &t);
    if (status == CAB_OK)
        status = cab_params_set_trainable(b->params, name, true, NULL);
    if (status == CAB_OK)
        status = fill_parameter(b, t);
    return status == CAB_OK ? t : cab_graph_fail(b->graph, status, "%s", cab_error_text());
}

/* ---- cases --------------------------------------------------------------------------------------------------------- */

static cab_scan_inputs scan_inputs(bench *b, const shape *s, cab_tensor *z)
{
    cab_tensor *parts[2];
    cab_split(b->graph, tokens(b, s, 2 * s->n), 2, (int64_t[]){s->n, s->n}, parts);
    return (cab_scan_inputs){.u = tokens(b, s, s->E),
                             .dt = tokens(b, s, s->E),
                             .A_log = parameter(b, 2, (int64_t[]){s->E, s->n}),
                             .B = parts[0],
                             .C = parts[1],
                             .D = parameter(b, 1, (int64_t[]){s->E}),
                             .z = z,
                             .dt_bias = parameter(b, 1, (int64_t[]){s->E})};
}

static cab_tensor *scan(bench *b, const shape *s)
{
    const cab_scan_inputs in = scan_inputs(b, s, tokens(b, s, s->E));
    return cab_scan(b->graph, &in, false);
}

static cab_tensor *scan_reverse(bench *b, const shape *s)
{
    const cab_scan_inputs in = scan_inputs(b, s, tokens(b, s, s->E));
    return cab_scan(b->graph, &in, true);
}

/* One decay per channel. */
static cab_tensor *scan_tied(bench *b, const shape *s)
{
    const cab_scan_inputs in = scan_inputs(b, s, tokens(b, s, s->E));
    if (in.A_log != NULL)
        in.A_log->tied = true;
    return cab_scan(b->graph, &in, false);
}

/* As a layer of Vim ends. */
static cab_tensor *scan_layer(bench *b, const shape *s, bool tied)
{
    cab_tensor *const z = tokens(b, s, s->E);
    const cab_scan_inputs forward = scan_inputs(b, s, z), backward = scan_inputs(b, s, z);
    if (forward.A_log != NULL && backward.A_log != NULL)
        forward.A_log->tied = backward.A_log->tied = tied;
    return cab_scan_both(b->graph, &forward, &backward);
}

static cab_tensor *scan_both(bench *b, const shape *s)
{
    return scan_layer(b, s, false);
}

static cab_tensor *scan_both_tied(bench *b, const shape *s)
{
    return scan_layer(b, s, true);
}

static cab_tensor *conv1d_of(bench *b, const shape *s, cab_tensor *x)
{
    return cab_conv1d(b->graph, x, parameter(b, 3, (int64_t[]){s->E, 1, s->n}), parameter(b, 1, (int64_t[]){s->E}),
                      NULL, true);
}

static cab_tensor *conv1d(bench *b, const shape *s)
{
    return conv1d_of(b, s, tokens(b, s, s->E));
}

/* As a layer of Vim begins. */
static cab_tensor *conv1d_both(bench *b, const shape *s)
{
    cab_conv1d_filter filters[2];
    cab_tensor *y[2];
    for (int d = 0; d < 2; d++)
        filters[d] =
            (cab_conv1d_filter){parameter(b, 3, (int64_t[]){s->E, 1, s->n}), parameter(b, 1, (int64_t[]){s->E})};
    cab_conv1d_both(b->graph, tokens(b, s, s->E), filters, true, y);
    return cab_add(b->graph, 2, y);
}

/* x as part of a projection, as a mixer has it: rows of 4 E / 3 + 12 columns begin at 8 bytes. */
static cab_tensor *conv1d_part(bench *b, const shape *s)
{
    cab_tensor *parts[2];
    cab_split(b->graph, tokens(b, s, s->E / 3 * 4 + 12), 2, (int64_t[]){s->E, s->E / 3 + 12}, parts);
    return conv1d_of(b, s, parts[0]);
}

/* y, and a gate that is part of a projection likewise, of 4 E + 12 columns. */
static cab_tensor *gate(bench *b, const shape *s)
{
    cab_tensor *parts[3];
    cab_split(b->graph, tokens(b, s, 4 * s->E + 12), 3, (int64_t[]){3 * s->E, s->E, 12}, parts);
    return cab_gate(b->graph, tokens(b, s, s->E), parts[1], parameter(b, 1, &s->E));
}

/* E columns in, n out. */
static cab_tensor *linear(bench *b, const shape *s)
{
    return cab_linear(b->graph, tokens(b, s, s->E), parameter(b, 2, (int64_t[]){s->n, s->E}),
                      parameter(b, 1, (int64_t[]){s->n}), CAB_OUT_IN);
}

/* The same of the last E of 44 columns, as bridges and dt_proj have it, and back into the gradient of all 44. */
static cab_tensor *linear_part(bench *b, const shape *s)
{
    cab_tensor *parts[2];
    cab_split(b->graph, tokens(b, s, 44), 2, (int64_t[]){44 - s->E, s->E}, parts);
    return cab_linear(b->graph, parts[1], parameter(b, 2, (int64_t[]){s->n, s->E}), parameter(b, 1, (int64_t[]){s->n}),
                      CAB_OUT_IN);
}

/* As the head of a language model is: no bias. */
static cab_tensor *linear_plain(bench *b, const shape *s)
{
    return cab_linear(b->graph, tokens(b, s, s->E), parameter(b, 2, (int64_t[]){s->n, s->E}), NULL, CAB_OUT_IN);
}

/* n: the feature map. */
static cab_tensor *align(bench *b, const shape *s)
{
    cab_tensor *target = cab_graph_input(b->graph, "target", b->dtype, 3, (int64_t[]){s->B, s->L, s->E});
    if (target == NULL || fill(b, target) != CAB_OK)
        return NULL;
    return cab_align_loss(b->graph, tokens(b, s, s->E), target, &(cab_alignment){.map = (cab_feature_map)s->n});
}

/* A bridge from the last 16 of 44 columns, through 128, to E; n: the feature map. */
static cab_tensor *bridge(bench *b, const shape *s)
{
    enum { IN = 16, HIDDEN = 128 };
    cab_tensor *parts[2], *target = cab_graph_input(b->graph, "target", b->dtype, 3, (int64_t[]){s->B, s->L, s->E});
    if (target == NULL || fill(b, target) != CAB_OK)
        return NULL;
    cab_split(b->graph, tokens(b, s, 44), 2, (int64_t[]){44 - IN, IN}, parts);
    const cab_bridge_layers layers = {.w1 = parameter(b, 2, (int64_t[]){HIDDEN, IN}),
                                      .b1 = parameter(b, 1, (int64_t[]){HIDDEN}),
                                      .w2 = parameter(b, 2, (int64_t[]){s->E, HIDDEN}),
                                      .b2 = parameter(b, 1, (int64_t[]){s->E}),
                                      .activation = CAB_SILU};
    return cab_bridge_loss(b->graph, parts[1], &layers, target, &(cab_alignment){.map = (cab_feature_map)s->n});
}

/* KL against a teacher of the same width; n words. Every label is 0. */
static cab_tensor *head(bench *b, const shape *s)
{
    const int64_t sizes[] = {s->n, s->E};
    cab_tensor *labels = cab_graph_input(b->graph, "labels", CAB_I32, 2, (int64_t[]){s->B, s->L});
    const cab_head_side student = {tokens(b, s, s->E), parameter(b, 2, sizes), NULL};
    cab_head_side teacher = {cab_graph_input(b->graph, "teacher", b->dtype, 3, (int64_t[]){s->B, s->L, s->E}),
                             parameter(b, 2, sizes), NULL};
    if (teacher.hidden == NULL || fill(b, teacher.hidden) != CAB_OK)
        return NULL;
    return cab_head_loss(b->graph, &student, &teacher, labels, NULL, 1.0f).kl;
}

/* n heads over E columns, q, k and v parts of one tensor as a fused projection leaves them. */
static cab_tensor *attention_of(bench *b, const shape *s, bool causal)
{
    cab_tensor *parts[3];
    const int head_dim = (int)(s->E / s->n);
    cab_split(b->graph, tokens(b, s, 3 * s->E), 3, (int64_t[]){s->E, s->E, s->E}, parts);
    return cab_attention(b->graph, parts[0], parts[1], parts[2], NULL,
                         &(cab_attention_shape){.n_head = (int)s->n,
                                                .n_kv_head = (int)s->n,
                                                .head_dim = head_dim,
                                                .scale = 1.0f / sqrtf((float)head_dim),
                                                .causal = causal});
}

static cab_tensor *attention(bench *b, const shape *s)
{
    return attention_of(b, s, false);
}

static cab_tensor *attention_causal(bench *b, const shape *s)
{
    return attention_of(b, s, true);
}

/* E columns in heads of 64 with B and C of their own, n states; x, B and C parts of one tensor. */
static cab_tensor *ssd(bench *b, const shape *s)
{
    const int64_t heads = s->E / 64, states = heads * s->n;
    cab_tensor *parts[3];
    cab_split(b->graph, tokens(b, s, s->E + 2 * states), 3, (int64_t[]){s->E, states, states}, parts);
    const cab_ssd_inputs in = {
        .x = parts[0], .B = parts[1], .C = parts[2], .dt = tokens(b, s, heads), .D = parameter(b, 1, &heads)};
    return cab_ssd(b->graph, &in, (int)heads, (int)heads);
}

/* As Dao and Gu wrote it: a step size, and groups of heads of 64 columns that share B and C. */
static cab_tensor *ssd_of(bench *b, const shape *s, int groups, bool both)
{
    const int64_t heads = s->E / 64, states = groups * s->n;
    cab_tensor *parts[3];
    cab_split(b->graph, tokens(b, s, s->E + 2 * states), 3, (int64_t[]){s->E, states, states}, parts);
    const cab_ssd_inputs in = {.x = parts[0],
                               .B = parts[1],
                               .C = parts[2],
                               .dt = tokens(b, s, heads),
                               .dt_bias = parameter(b, 1, &heads),
                               .A_log = parameter(b, 1, &heads),
                               .D = parameter(b, 1, &heads)};
    return (both ? cab_ssd_both : cab_ssd)(b->graph, &in, (int)heads, groups);
}

static cab_tensor *ssd_delta(bench *b, const shape *s)
{
    return ssd_of(b, s, 1, false);
}

static cab_tensor *ssd_three_groups(bench *b, const shape *s)
{
    return ssd_of(b, s, 3, false);
}

static cab_tensor *ssd_both(bench *b, const shape *s)
{
    return ssd_of(b, s, 3, true);
}

/* A mixer of n heads, each with C and B of 2 P states of its own, against attention of as many heads over E columns. */
static cab_tensor *mixer_matrix_of(bench *b, const shape *s, bool both)
{
    const int64_t heads = s->n, states = 2 * s->E, steps = both ? 2 * heads : heads;
    const int head_dim = (int)(s->E / s->n);
    cab_tensor *mixer[2], *qk[2];
    cab_split(b->graph, tokens(b, s, 2 * states), 2, (int64_t[]){states, states}, mixer);
    cab_split(b->graph, tokens(b, s, 2 * s->E), 2, (int64_t[]){s->E, s->E}, qk);
    const cab_mixer_matrix m = {
        .directions[0] = {.C = mixer[0],
                          .B = mixer[1],
                          .decays = cab_mixer_decay(b->graph, tokens(b, s, steps), parameter(b, 1, &steps),
                                                    parameter(b, 1, &steps)),
                          .D = parameter(b, 1, &heads)},
        .both = both,
        .n_head = (int)heads,
        .n_group = (int)heads,
        .share = 1,
        .width = 1,
        .of = 1,
        .scale = 1.0f / (float)s->L,
        .q = qk[0],
        .k = qk[1],
        .attention = {.n_head = (int)heads,
                      .n_kv_head = (int)heads,
                      .head_dim = head_dim,
                      .scale = 1.0f / sqrtf((float)head_dim),
                      .causal = !both}};
    return cab_mixer_matrix_loss(b->graph, &m);
}

static cab_tensor *mixer_matrix_causal(bench *b, const shape *s)
{
    return mixer_matrix_of(b, s, false);
}

static cab_tensor *mixer_matrix_both(bench *b, const shape *s)
{
    return mixer_matrix_of(b, s, true);
}

static cab_tensor *layer_norm(bench *b, const shape *s)
{
    return cab_layer_norm(b->graph, tokens(b, s, s->E), parameter(b, 1, &s->E), parameter(b, 1, &s->E), 1e-5f);
}

static cab_tensor *rms_norm(bench *b, const shape *s)
{
    return cab_rms_norm(b->graph, tokens(b, s, s->E), parameter(b, 1, &s->E), 1, 1e-5f);
}

static cab_tensor *add_rms_norm(bench *b, const shape *s)
{
    cab_tensor *residual = cab_graph_input(b->graph, "residual", CAB_F32, 3, (int64_t[]){s->B, s->L, s->E}), *sum;
    if (residual == NULL || fill(b, residual) != CAB_OK)
        return NULL;
    cab_graph_want_gradient(b->graph, residual);
    return cab_add_rms_norm(b->graph, tokens(b, s, s->E), residual, parameter(b, 1, &s->E), 1e-5f, &sum);
}

static const operation operations[] = {
    {"scan 128 x 197, E 384, N 16", scan, {128, 197, 384, 16}},
    {"scan reverse 128 x 197, E 384, N 16", scan_reverse, {128, 197, 384, 16}},
    {"scan both 128 x 197, E 384, N 16", scan_both, {128, 197, 384, 16}},
    {"scan both 16 x 197, E 384, N 16", scan_both, {16, 197, 384, 16}},
    {"scan tied 128 x 197, E 384, N 16", scan_tied, {128, 197, 384, 16}},
    {"scan tied both 128 x 197, E 384", scan_both_tied, {128, 197, 384, 16}},
    {"scan tied both 512 x 197, E 384", scan_both_tied, {512, 197, 384, 16}},
    {"scan 64 x 197, E 768, N 16", scan, {64, 197, 768, 16}},
    {"scan 8 x 2048, E 1536, N 16", scan, {8, 2048, 1536, 16}},
    {"scan 32 x 197, E 384, N 64", scan, {32, 197, 384, 64}},
    {"ssd 8 x 2048, H 32, P 64, N 64", ssd, {8, 2048, 2048, 64}},
    {"ssd 32 x 1024, H 12, P 64, N 64", ssd, {32, 1024, 768, 64}},
    {"ssd 4 x 2048, H 32, P 64, N 64", ssd, {4, 2048, 2048, 64}},
    {"ssd 8 x 2048, H 32, P 64, N 128", ssd, {8, 2048, 2048, 128}},
    {"ssd delta 8 x 2048, H 32, P 64, N 128, G 1", ssd_delta, {8, 2048, 2048, 128}},
    {"ssd delta 16 x 1024, H 9, P 64, N 128, G 1", ssd_delta, {16, 1024, 576, 128}},
    {"ssd delta 16 x 1024, H 18, P 64, N 128, G 3", ssd_three_groups, {16, 1024, 1152, 128}},
    {"ssd both 128 x 197, H 6, P 64, N 128, G 3", ssd_both, {128, 197, 384, 128}},
    {"layer_norm 32 x 1024 x 768", layer_norm, {32, 1024, 768, 0}},
    {"layer_norm 4 x 2048 x 2048", layer_norm, {4, 2048, 2048, 0}},
    {"rms_norm 32 x 1024 x 768", rms_norm, {32, 1024, 768, 0}},
    {"add_rms_norm 128 x 197 x 192", add_rms_norm, {128, 197, 192, 0}},
    {"add_rms_norm 128 x 197 x 384", add_rms_norm, {128, 197, 384, 0}},
    {"conv1d 128 x 197, E 384, K 4", conv1d, {128, 197, 384, 4}},
    {"conv1d both 512 x 197, E 384, and a sum", conv1d_both, {512, 197, 384, 4}},
    {"conv1d 8 x 2048, E 6144, K 4", conv1d, {8, 2048, 6144, 4}},
    {"conv1d 32 x 1024, E 2304 of 3084, K 4", conv1d_part, {32, 1024, 2304, 4}},
    {"gate 32 x 1024, 768 of 3084", gate, {32, 1024, 768, 0}},
    {"linear 25216 x 192 -> 768", linear, {128, 197, 192, 768}},
    {"linear 25216 x 768 -> 192", linear, {128, 197, 768, 192}},
    {"linear 25216 x 192 -> 192", linear, {128, 197, 192, 192}},
    {"linear 25216 x 192 -> 576", linear, {128, 197, 192, 576}},
    {"linear 25216 x 384 -> 192", linear_plain, {128, 197, 384, 192}},
    {"linear 25216 x 384 -> 44", linear_plain, {128, 197, 384, 44}},
    {"linear 25216 x 12 of 44 -> 384", linear_part, {128, 197, 12, 384}},
    {"linear 25216 x 16 of 44 -> 128", linear_part, {128, 197, 16, 128}},
    {"linear 25216 x 128 -> 192", linear, {128, 197, 128, 192}},
    {"linear 50432 x 768 -> 56", linear_plain, {256, 197, 768, 56}},
    {"linear 50432 x 24 -> 768", linear, {256, 197, 24, 768}},
    {"linear 32768 x 768 -> 3072", linear, {32, 1024, 768, 3072}},
    {"linear 32768 x 3072 -> 768", linear, {32, 1024, 3072, 768}},
    {"linear 8192 x 2048 -> 8192", linear, {4, 2048, 2048, 8192}},
    {"linear 2560 x 768 -> 50257, a chunk", linear_plain, {1, 2560, 768, 50257}},
    {"align 128 x 197 x 192", align, {128, 197, 192, CAB_MAP_NONE}},
    {"align 128 x 197 x 192, over features", align, {128, 197, 192, CAB_MAP_SOFTMAX_FEATURES}},
    {"align 128 x 197 x 192, over tokens", align, {128, 197, 192, CAB_MAP_SOFTMAX_TOKENS}},
    {"align 32 x 1024 x 768", align, {32, 1024, 768, CAB_MAP_NONE}},
    {"align 32 x 1024 x 768, over features", align, {32, 1024, 768, CAB_MAP_SOFTMAX_FEATURES}},
    {"align 32 x 1024 x 768, over tokens", align, {32, 1024, 768, CAB_MAP_SOFTMAX_TOKENS}},
    {"align 4 x 2048 x 2048, over tokens", align, {4, 2048, 2048, CAB_MAP_SOFTMAX_TOKENS}},
    {"bridge 128 x 197, 16 of 44 -> 128 -> 192", bridge, {128, 197, 192, CAB_MAP_NONE}},
    {"bridge, over features", bridge, {128, 197, 192, CAB_MAP_SOFTMAX_FEATURES}},
    {"bridge, over tokens", bridge, {128, 197, 192, CAB_MAP_SOFTMAX_TOKENS}},
    {"bridge 128 x 197, 16 of 44 -> 128 -> 384", bridge, {128, 197, 384, CAB_MAP_NONE}},
    {"head + KL 32768 x 768, V 50257", head, {32, 1024, 768, 50257}},
    {"head + KL 8192 x 2048, V 51200", head, {4, 2048, 2048, 51200}},
    {"head + KL 32768 x 512, V 8192", head, {64, 512, 512, 8192}},
    {"head + KL 256 x 192, V 1000", head, {256, 1, 192, 1000}},
    {"attention causal 32 x 1024, H 12, P 64", attention_causal, {32, 1024, 768, 12}},
    {"attention causal 4 x 2048, H 32, P 64", attention_causal, {4, 2048, 2048, 32}},
    {"attention 128 x 197, H 3, P 64", attention, {128, 197, 192, 3}},
    {"mixer matrix causal 32 x 1024, H 12, P 64", mixer_matrix_causal, {32, 1024, 768, 12}},
    {"mixer matrix causal 4 x 2048, H 32, P 64", mixer_matrix_causal, {4, 2048, 2048, 32}},
    {"mixer matrix both 128 x 197, H 3, P 64", mixer_matrix_both, {128, 197, 192, 3}},
};

/* ---- measuring ----------------------------------------------------------------------------------------------------- */

/* Bytes and FLOPs of the nodes of one direction. */
static void count_work(const cab_graph *g, bool backward, double *bytes, double *flops)
{
    *bytes = *flops = 0;
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        if (node->skip || node->backward != backward)
            continue;
        *bytes += cab_node_bytes(node);
        *flops += cab_node_flops(node);
    }
}

/* Seconds of one call of `run`, the best of several batches of about 20 ms. */
static cab_status time_calls(bench *b, cab_status (*run)(bench *b), double *seconds)
{
    cudaStream_t stream = cab_cuda_of(b->backend)->stream;
    cudaEvent_t from = NULL, to = NULL;
    float ms = 0;
    cab_status status;
    CAB_GOTO(cab_cuda_check(cudaEventCreate(&from), "an event"));
    CAB_GOTO(cab_cuda_check(cudaEventCreate(&to), "an event"));
    for (int i = 0; i < 3; i++) /* the first sets up, the second captures */
        CAB_GOTO(run(b));
    *seconds = 0;
    for (int batch = 0, calls = 1; batch <= BATCHES; batch++) {
        CAB_GOTO(cab_cuda_check(cudaEventRecord(from, stream), "an event"));
        for (int i = 0; i < calls; i++)
            CAB_GOTO(run(b));
        CAB_GOTO(cab_cuda_check(cudaEventRecord(to, stream), "an event"));
        CAB_GOTO(b->backend->wait(b->backend));
        CAB_GOTO(cab_cuda_check(cudaEventElapsedTime(&ms, from, to), "an event"));
        const double now = (double)ms * 1e-3 / calls;
        if (batch == 0)
            calls = now < 1e-2 ? (int)(2e-2 / now) + 1 : 2;
        else if (batch == 1 || now < *seconds)
            *seconds = now;
    }
done:
    if (from != NULL)
        (void)cudaEventDestroy(from);
    if (to != NULL)
        (void)cudaEventDestroy(to);
    return status;
}

static cab_status run_graph(bench *b)
{
    return cab_graph_run(b->graph);
}

/* Records the case as often as it takes to exceed the cache several times. */
static cab_status record_copies(bench *b, const operation *op, int *copies)
{
    cab_tensor *outputs[MAX_COPIES], *seeds[MAX_COPIES];
    double bytes = 0, flops;
    int n = 0;
    while (n < MAX_COPIES && (n == 0 || bytes < 4.0 * (double)cab_cuda_of(b->backend)->l2)) {
        cab_tensor *y = op->record(b, &op->s);
        if (y == NULL)
            break;
        cab_graph_keep(b->graph, y);
        if (b->backward) {
            seeds[n] = cab_graph_input(b->graph, "seed", y->dtype, y->n_dim, y->shape);
            CAB_TRY(seeds[n] != NULL ? fill(b, seeds[n]) : cab_graph_plan(b->graph, NULL));
        }
        outputs[n++] = y;
        count_work(b->graph, false, &bytes, &flops);
    }
    *copies = n;
    if (b->backward)
        cab_graph_backward(b->graph, n, outputs, seeds);
    return cab_graph_plan(b->graph, NULL);
}

/* Seconds, bytes and FLOPs of one copy: of the forward pass, or with b->backward of both and of the backward pass. */
static cab_status measure(bench *b, const operation *op, double *seconds, double *bytes, double *flops)
{
    int copies;
    cab_status status;
    CAB_GOTO(cab_params_new(b->backend, &b->params));
    CAB_GOTO(cab_graph_new(b->backend, &b->graph));
    CAB_GOTO(record_copies(b, op, &copies));
    CAB_GOTO(time_calls(b, run_graph, seconds));
    count_work(b->graph, b->backward, bytes, flops);
    *seconds /= copies;
    *bytes /= copies;
    *flops /= copies;
done:
    cab_graph_free(b->graph);
    cab_params_free(b->params);
    b->graph = NULL;
    b->params = NULL;
    return status;
}

static void print_work(const bench *b, const char *name, const char *direction, double seconds, double bytes,
                       double flops)
{
    printf("%-40s %s %9.4f ms %8.1f GB/s %5.1f %%", name, direction, seconds * 1e3, bytes / seconds * 1e-9,
           100 * bytes / seconds / b->copy_limit);
    if (flops > 0)
        printf(" %8.2f TFLOP/s %5.1f %%", flops / seconds * 1e-12, 100 * flops / seconds / b->matrix_limit);
    printf("\n");
    fflush(stdout);
}

/* Value and gradient come from one node. */
static bool is_loss(const operation *op)
{
    return op->record == align || op->record == bridge || op->record == head;
}

static cab_status measure_case(bench *b, const operation *op)
{
    double forward, both, bytes, flops;
    b->backward = false;
    CAB_TRY(measure(b, op, &forward, &bytes, &flops));
    print_work(b, op->name, "fwd", forward, bytes, flops);
    b->backward = true;
    CAB_TRY(measure(b, op, &both, &bytes, &flops));
    print_work(b, op->name, is_loss(op) ? "all" : "bwd", is_loss(op) ? both : both - forward, bytes, flops);
    return CAB_OK;
}

/* ---- the program --------------------------------------------------------------------------------------------------- */

static bool chosen(const char *name, int count, char **patterns)
{
    for (int i = 0; i < count; i++)
        if (strstr(name, patterns[i]) != NULL)
            return true;
    return count == 0;
}

/* Takes the options off the arguments; what is left are names. */
static cab_status parse(bench *b, const char **device, int *count, char **arguments)
{
    int left = 0;
    for (int i = 0; i < *count; i++) {
        const char *value = i + 1 < *count ? arguments[i + 1] : "";
        if (strncmp(arguments[i], "--", 2) != 0)
            arguments[left++] = arguments[i];
        else if (strcmp(arguments[i], "--device") == 0 && strncmp(value, "cuda", 4) == 0)
            *device = arguments[++i];
        else if (strcmp(arguments[i], "--precision") == 0 && (strcmp(value, "fp32") == 0 || strcmp(value, "bf16") == 0))
            b->dtype = strcmp(arguments[++i], "fp32") == 0 ? CAB_F32 : CAB_BF16;
        else
            return cab_fail(CAB_EARG, "%s %s: expected --device cuda[:N] or --precision fp32|bf16", arguments[i],
                            value);
    }
    *count = left;
    return CAB_OK;
}

int main(int argc, char **argv)
{
    bench b = {.dtype = CAB_BF16};
    const char *device = "cuda";
    int names = argc - 1;
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    cab_status status;
    CAB_GOTO(parse(&b, &device, &names, argv + 1));
    CAB_GOTO(CAB_NEW(&b.pattern, PATTERN, "inputs"));
    for (int i = 0; i < PATTERN; i++)
        b.pattern[i] = 2.0f * cab_random_uniform(&random) - 1.0f;
    CAB_GOTO(cab_backend_open(device, &b.backend));
    CAB_GOTO(cab_copy_limit(b.backend, &b.copy_limit));
    CAB_GOTO(cab_matrix_limit(b.backend, b.dtype, &b.matrix_limit));
    printf("%s, %s: copies %.1f GB/s, matrix products %.1f TFLOP/s\n", b.backend->name, cab_dtype_name(b.dtype),
           b.copy_limit * 1e-9, b.matrix_limit * 1e-12);
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (chosen(operations[i].name, names, argv + 1))
            CAB_GOTO(measure_case(&b, &operations[i]));
done:
    if (status != CAB_OK)
        fprintf(stderr, "bench_gpu_ops: %s\n", cab_error_text());
    cab_backend_close(b.backend);
    cab_free(b.pattern);
    return (int)status;
}
