/* test_feature.c - the alignment loss under every feature map, value and gradient. */
#include "ops/golden.h"
#include "ops/gpu.h"

typedef struct shape {
    int64_t B, L, D;
    cab_feature_map map;
    bool relative;
} shape;

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    out[0] = cab_align_loss(g, in[0], in[1], &(cab_alignment){.map = s->map, .relative = s->relative});
}

/* 0 where all elements are equal. */
static double inverse_variance(const double *x, int64_t n)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - sum) * (x[i] - sum) / (double)n;
    return squares > 1e-20 ? 1 / squares : 0;
}

/* What the squares of sequence b are multiplied by. */
static double scale_of(const shape *s, const double *psi, int64_t b)
{
    return s->relative ? inverse_variance(psi + b * s->L * s->D, s->L * s->D) : 1;
}

/* sum of exp over n elements, `stride` apart. */
static double sum_exp(const double *t, int64_t n, int64_t stride)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp(t[i * stride]);
    return sum;
}

static void map_target(const shape *s, const double *t, double *psi)
{
    const int64_t L = s->L, D = s->D;
    for (int64_t i = 0; i < s->B * L * D; i++)
        psi[i] = s->map == CAB_MAP_NONE ? t[i] : s->map == CAB_MAP_RELU ? fmax(t[i], 0) : exp(t[i]);
    for (int64_t row = 0; row < s->B * L && s->map == CAB_MAP_SOFTMAX_FEATURES; row++) {
        const double sum = sum_exp(t + row * D, D, 1);
        for (int64_t d = 0; d < D; d++)
            psi[row * D + d] /= sum;
    }
    for (int64_t column = 0; column < s->B * D && s->map == CAB_MAP_SOFTMAX_TOKENS; column++) {
        const int64_t first = column / D * L * D + column % D;
        const double sum = sum_exp(t + first, L, D);
        for (int64_t l = 0; l < L; l++)
            psi[first + l * D] /= sum;
    }
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    const int64_t sequence = s->L * s->D, n = s->B * sequence;
    double *psi = check_doubles(n), sum = 0;
    map_target(s, in[1], psi);
    for (int64_t i = 0; i < n; i++)
        sum += (in[0][i] - psi[i]) * (in[0][i] - psi[i]) * scale_of(s, psi, i / sequence);
    out[0][0] = sum / (double)n;
    free(psi);
}

static const struct {
    const char *name;
    cab_feature_map map;
    bool relative;
} maps[] = {{"none", CAB_MAP_NONE, false},
            {"softmax features", CAB_MAP_SOFTMAX_FEATURES, false},
            {"softmax tokens", CAB_MAP_SOFTMAX_TOKENS, false},
            {"relu", CAB_MAP_RELU, false},
            {"exp", CAB_MAP_EXP, false},
            {"none, relative", CAB_MAP_NONE, true},
            {"softmax features, relative", CAB_MAP_SOFTMAX_FEATURES, true},
            {"softmax tokens, relative", CAB_MAP_SOFTMAX_TOKENS, true},
            {"relu, relative", CAB_MAP_RELU, true},
            {"exp, relative", CAB_MAP_EXP, true}};

/* The target is a frozen teacher's: given as a constant, so that any gradient to it would be a failure to record. */
static check_case make_case(const char *name, const shape *s, check_kind target)
{
    return (check_case){.name = name,
                        .n_in = 2,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->D}, 0, 0}, {target, 3, {s->B, s->L, s->D}, -3, 3}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record,
                        .reference = reference,
                        .argument = s};
}

static void test_maps(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        const shape shapes[] = {{2, 5, 7, maps[i].map, maps[i].relative},
                                {1, 1, 3, maps[i].map, maps[i].relative},
                                {3, 4, 1, maps[i].map, maps[i].relative},
                                {1, 19, 2, maps[i].map, maps[i].relative}};
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
            check_case c = make_case(maps[i].name, &shapes[j], CHECK_CONSTANT);
            check_run(&c);
        }
    }
}

/* Rows longer than a piece, more tokens than a block, both as views: the gradient from the formula. */
static void test_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        const shape s = {2, 21, 1030, maps[i].map, maps[i].relative};
        const int64_t n = s.B * s.L * s.D;
        check_case c = make_case(maps[i].name, &s, CHECK_CONSTANT);
        check_reference r = {0};
        r.in[0] = check_draw("pred", 0, n, -1, 1, false);
        r.in[1] = check_draw("target", 0, n, -3, 3, false);
        r.seed[0] = check_doubles(1);
        r.seed[0][0] = 300.0;
        r.out[0] = check_doubles(1);
        r.out_count[0] = 1;
        r.gradient[0] = check_doubles(n);
        reference(&c, r.in, r.out);
        map_target(&s, r.in[1], r.gradient[0]);
        const double factors[2] = {600.0 / (double)n * scale_of(&s, r.gradient[0], 0),
                                   600.0 / (double)n * scale_of(&s, r.gradient[0], 1)};
        for (int64_t j = 0; j < n; j++)
            r.gradient[0][j] = factors[j / (s.L * s.D)] * (r.in[0][j] - r.gradient[0][j]);
        for (int low = 0; low < 2; low++) {
            check_variant v = {.dtype = low ? CAB_BF16 : CAB_F32, .isa = "v1", .view = true, .twice = true};
            check_one(&c, &v, &r);
        }
        check_release(&r);
    }
}

/* Scores of +-80 make exp overflow unless the maximum is taken off first. */
static void test_large_scores(void **state)
{
    (void)state;
    for (int tokens = 0; tokens < 2; tokens++) {
        const shape s = {1, 6, 9, tokens ? CAB_MAP_SOFTMAX_TOKENS : CAB_MAP_SOFTMAX_FEATURES, false};
        check_case c = make_case("large", &s, CHECK_CONSTANT);
        c.in[1].low = -400;
        c.in[1].high = 400;
        check_run(&c);
    }
}

/* A target without variance weighs nothing. */
static void test_constant(void **state)
{
    (void)state;
    const shape s = {1, 3, 5, CAB_MAP_NONE, true};
    check_case c = make_case("constant", &s, CHECK_CONSTANT);
    check_variant v = {.dtype = CAB_F32, .isa = "v1"};
    check_graph k;
    double *in[2] = {check_draw("pred", 0, 15, -1, 1, false), check_doubles(15)};
    for (int i = 0; i < 15; i++)
        in[1][i] = 0.7;
    check_open(&c, &v, in, &k);
    check_ok(cab_graph_plan(k.graph, NULL));
    check_ok(cab_graph_run(k.graph));
    double *got = check_read(k.graph, k.out[0][0], 1, 0);
    assert_true(got[0] == 0);
    free(got);
    check_close(&k);
    free(in[0]);
    free(in[1]);
}

/* Tiles, parts of sequences and vectors of the GPU's kernels. */
static void test_gpu(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        const shape shapes[] = {{4, 197, 192, maps[i].map, maps[i].relative},
                                {2, 600, 264, maps[i].map, maps[i].relative},
                                {3, 70, 1027, maps[i].map, maps[i].relative}};
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
            if (check_slow() && (i + j) % 2 > 0) /* an emulated GPU takes one half */
                continue;
            const check_case c = make_case(maps[i].name, &shapes[j], CHECK_CONSTANT);
            gpu_compare(&c, 1e-5, 5e-3);
        }
    }
}

/* The value has the same bits whatever the number of threads. */
static void test_threads(void **state)
{
    (void)state;
    const shape s = {3, 50, 40, CAB_MAP_SOFTMAX_TOKENS, false};
    check_case c = make_case("threads", &s, CHECK_CONSTANT);
    double *in[2] = {check_draw("threads", 0, 6000, -1, 1, false), check_draw("threads", 1, 6000, -1, 1, false)};
    double first = 0;
    for (int threads = 1; threads <= 4; threads++) {
        check_variant v = {.dtype = CAB_F32, .isa = "v1", .threads = threads};
        check_graph k;
        check_open(&c, &v, in, &k);
        check_ok(cab_graph_plan(k.graph, NULL));
        check_ok(cab_graph_run(k.graph));
        double *got = check_read(k.graph, k.out[0][0], 1, 0);
        if (threads == 1)
            first = got[0];
        assert_true(got[0] == first);
        free(got);
        check_close(&k);
    }
    free(in[0]);
    free(in[1]);
}

enum { LAYERS = 2, PARTS = 2, TOKENS = 38, NARROW = 32, WIDE = 24 };

/* One bridge of the reference: linear, SiLU, linear. Its four parameters are added under their names, trainable. */
static cab_tensor *record_bridge(cab_graph *g, cab_params *params, const golden *gold, const char *part, int layer,
                                 cab_tensor *x)
{
    cab_tensor *p[4];
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "bridge.%s.%d.%d.%s", part, layer, i < 2 ? 0 : 2, i % 2 ? "bias" : "weight");
        const int64_t sizes[2] = {WIDE, i < 2 ? NARROW : WIDE}, n = i % 2 ? WIDE : sizes[0] * sizes[1];
        check_ok(cab_params_add(params, name, CAB_F32, i % 2 ? 1 : 2, sizes, CAB_DECAY, &p[i]));
        check_ok(cab_params_set_trainable(params, name, true, NULL));
        float *values = golden_read(gold, name, (size_t)n);
        check_ok(cab_params_write(params, p[i], values));
        free(values);
    }
    return cab_linear(g, cab_activate(g, cab_linear(g, x, p[0], p[1], CAB_OUT_IN), CAB_SILU), p[2], p[3], CAB_OUT_IN);
}

static cab_tensor *golden_input(cab_graph *g, const golden *gold, const char *name, int64_t width)
{
    cab_tensor *t = cab_graph_input(g, name, CAB_F32, 3, (int64_t[]){2, TOKENS / 2, width});
    void *values = golden_read(gold, name, (size_t)(TOKENS * width));
    check_ok(cab_tensor_write(g, t, values));
    free(values);
    return t;
}

/* The reference's alignment: per layer phi_B(B) against K and phi_C(C) against Q, the mean over layers; the gradients of
 * every bridge parameter. */
static void test_golden(void **state)
{
    (void)state;
    golden gold = {0};
    if (!golden_open(&gold, "phi_mamba_small"))
        skip();
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *losses[LAYERS * PARTS], *seeds[LAYERS * PARTS], *weight = cab_graph_scalar(g, "weight", 1.0f / LAYERS);
    for (int i = 0; i < LAYERS * PARTS; i++) {
        char source[32], target[32];
        snprintf(source, sizeof source, "act.%d.%s", i / PARTS, i % PARTS ? "C" : "B");
        snprintf(target, sizeof target, "teacher.%d.%s", i / PARTS, i % PARTS ? "q" : "k");
        cab_tensor *x = golden_input(g, &gold, source, NARROW);
        cab_tensor *pred = record_bridge(g, params, &gold, i % PARTS ? "C" : "B", i / PARTS, x);
        losses[i] = cab_align_loss(g, pred, golden_input(g, &gold, target, WIDE), &(cab_alignment){0});
        cab_graph_keep(g, losses[i]);
        seeds[i] = weight;
    }
    cab_graph_backward(g, LAYERS * PARTS, losses, seeds);
    check_ok(cab_graph_plan(g, NULL));
    check_ok(cab_graph_run(g));
    float total = 0, *expected = golden_read(&gold, "loss_align", 1);
    for (int i = 0; i < LAYERS * PARTS; i++) {
        float value;
        check_ok(cab_scalar_read(g, losses[i], &value));
        total += value / LAYERS;
    }
    assert_true(golden_distance(&total, expected, 1) < 1e-5);
    free(expected);
    for (size_t i = 0; i < cab_params_count(params); i++) {
        const cab_tensor *p = cab_params_at(params, i);
        const size_t n = (size_t)cab_elements(p);
        char name[CAB_NAME_MAX + 16];
        float gradient[WIDE * NARROW];
        snprintf(name, sizeof name, "grad_align.%s", p->name);
        expected = golden_read(&gold, name, n);
        check_ok(cab_params_read_grad(params, p, gradient));
        assert_true(golden_distance(gradient, expected, n) < 1e-5);
        free(expected);
    }
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
    golden_close(&gold);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_maps),     cmocka_unit_test(test_pieces),
                                       cmocka_unit_test(test_gpu),      cmocka_unit_test(test_large_scores),
                                       cmocka_unit_test(test_constant), cmocka_unit_test(test_threads),
                                       cmocka_unit_test(test_golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
