/* test_conv1d.c - the short causal convolution against its formula in fp64. */
#include "ops/check.h"
#include "ops/gpu.h"
#include "ops/repeat.h"

typedef struct shape {
    int64_t B, L, E, K;
    bool bias, silu;
    int documents; /* tokens of the longest; 0: no starts */
} shape;

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    out[0] = cab_conv1d(g, in[0], in[1], s->bias ? in[2] : NULL, s->documents ? in[3] : NULL, s->silu);
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t l = 0; l < s->L; l++)
            for (int64_t e = 0; e < s->E; e++) {
                double u = s->bias ? in[2][e] : 0;
                for (int64_t k = 0; k < s->K; k++) {
                    int64_t from = l - (s->K - 1) + k;
                    if (from >= (s->documents ? (int64_t)in[3][b * s->L + l] : 0))
                        u += in[1][e * s->K + k] * in[0][(b * s->L + from) * s->E + e];
                }
                out[0][(b * s->L + l) * s->E + e] = s->silu ? u / (1 + exp(-u)) : u;
            }
}

static void run(const char *name, shape s)
{
    check_case c = {.name = name,
                    .n_in = s.documents ? 4
                            : s.bias    ? 3
                                        : 2,
                    .in = {{CHECK_ACTIVATION, 3, {s.B, s.L, s.E}, -2, 2},
                           {CHECK_PARAMETER, 3, {s.E, 1, s.K}, 0, 0},
                           {CHECK_PARAMETER, 1, {s.E}, 0, 0},
                           {CHECK_STARTS, 2, {s.B, s.L}, 1, s.documents}},
                    .n_out = 1,
                    .n_seeded = 1,
                    .record = record,
                    .reference = reference,
                    .argument = &s};
    check_run(&c);
}

static void test_shapes(void **state)
{
    (void)state;
    run("conv1d", (shape){2, 7, 5, 4, true, true, 0});
    run("conv1d one token", (shape){1, 1, 3, 4, true, true, 0});
    run("conv1d plain", (shape){2, 21, 3, 4, true, false, 0});
    run("conv1d no bias", (shape){1, 6, 2, 3, false, true, 0});
    run("conv1d one tap", (shape){1, 3, 2, 1, true, true, 0});
    run("conv1d wide", (shape){1, 19, 1, 16, true, true, 0});
    run("conv1d documents", (shape){2, 13, 3, 4, true, true, 5});
    run("conv1d wide documents", (shape){1, 23, 1, 9, true, false, 12});
}

/* Several tiles of tokens, several blocks of channels, the last of each short: against the formula, without gradients
 * (finite differences over so many elements would take too long). */
static void test_blocks(void **state)
{
    (void)state;
    for (int documents = 0; documents <= 90; documents += 90) {
        shape s = {2, 300, 517, 4, true, true, documents};
        check_case c = {.name = "conv1d blocks",
                        .n_in = documents ? 4 : 3,
                        .in = {{CHECK_ACTIVATION, 3, {s.B, s.L, s.E}, -2, 2},
                               {CHECK_PARAMETER, 3, {s.E, 1, s.K}, 0, 0},
                               {CHECK_PARAMETER, 1, {s.E}, 0, 0},
                               {CHECK_STARTS, 2, {s.B, s.L}, 1, s.documents}},
                        .n_out = 1,
                        .record = record,
                        .reference = reference,
                        .argument = &s};
        check_run(&c);
    }
}

/* dw, dbias and dx over many blocks, from the formula in fp64 for a random dy. */
static void block_gradients(int documents)
{
    enum { B = 2, L = 261, E = 515, K = 4 };
    check_graph k;
    shape s = {B, L, E, K, true, true, documents};
    check_case c = {.name = "conv1d gradients",
                    .n_in = documents ? 4 : 3,
                    .in = {{CHECK_ACTIVATION, 3, {B, L, E}, -2, 2},
                           {CHECK_PARAMETER, 3, {E, 1, K}, 0, 0},
                           {CHECK_PARAMETER, 1, {E}, 0, 0},
                           {CHECK_STARTS, 2, {B, L}, 1, documents}},
                    .n_out = 1,
                    .n_seeded = 1,
                    .record = record,
                    .reference = reference,
                    .argument = &s};
    check_reference r = {0};
    int64_t counts[3] = {B * L * E, E * K, E};
    for (int i = 0; i < 3; i++) {
        r.in[i] = check_draw(c.name, i, counts[i], -1, 1, false);
        r.gradient[i] = check_doubles(counts[i]);
    }
    if (documents)
        r.in[3] = check_values(&c, 3);
    r.seed[0] = check_draw(c.name, 100, counts[0], -1, 1, false);
    r.out_count[0] = counts[0];
    for (int64_t b = 0; b < B; b++)
        for (int64_t e = 0; e < E; e++)
            for (int64_t l = 0; l < L; l++) {
                const int64_t first = documents ? (int64_t)r.in[3][b * L + l] : 0;
                double u = r.in[2][e];
                for (int64_t i = 0; i < K; i++)
                    u += l - 3 + i < first ? 0 : r.in[1][e * K + i] * r.in[0][(b * L + l - 3 + i) * E + e];
                double sigmoid = 1 / (1 + exp(-u)),
                       p = r.seed[0][(b * L + l) * E + e] * (sigmoid + u * sigmoid * (1 - sigmoid));
                r.gradient[2][e] += p;
                for (int64_t i = 0; i < K; i++)
                    if (l - 3 + i >= first) {
                        r.gradient[1][e * K + i] += p * r.in[0][(b * L + l - 3 + i) * E + e];
                        r.gradient[0][(b * L + l - 3 + i) * E + e] += p * r.in[1][e * K + i];
                    }
            }
    for (int low = 0; low < 2; low++) {
        check_variant v = {.dtype = low ? CAB_BF16 : CAB_F32, .isa = "v1", .view = true, .twice = true};
        check_open(&c, &v, r.in, &k);
        check_backward(&c, &v, &r, &k);
        check_ok(cab_graph_plan(k.graph, NULL));
        check_ok(cab_graph_run(k.graph));
        for (int i = 0; i < 3; i++) {
            double *got = check_gradient(&c, &v, &k, i);
            check_compare(&c, &v, "gradient of input", i, got, r.gradient[i], counts[i], low ? 1e-2 : 1e-5);
            free(got);
        }
        check_close(&k);
    }
    check_release(&r);
}

static void test_block_gradients(void **state)
{
    (void)state;
    block_gradients(0);
    block_gradients(40);
}

/* Token by token, the step gives what the whole sequence gives. */
static void test_step(void **state)
{
    (void)state;
    enum { B = 2, L = 6, E = 133, K = 4 };
    for (int low = 0; low < 2; low++) {
        cab_dtype dtype = low ? CAB_BF16 : CAB_F32;
        cab_backend *backend;
        cab_params *params;
        cab_graph *whole, *step;
        cab_tensor *w, *bias;
        check_ok(cab_backend_open(check_device(), &backend));
        check_ok(cab_params_new(backend, &params));
        check_ok(cab_params_add(params, "w", CAB_F32, 3, (int64_t[]){E, 1, K}, CAB_DECAY, &w));
        check_ok(cab_params_add(params, "bias", CAB_F32, 1, (int64_t[]){E}, CAB_DECAY, &bias));
        double *values = check_draw("step", 0, B * L * E, -1, 1, false),
               *filter = check_draw("step", 1, E * K, -1, 1, false);
        float f[E * K];
        for (int i = 0; i < E * K; i++)
            f[i] = (float)filter[i];
        check_ok(cab_params_write(params, w, f));
        check_ok(cab_params_write(params, bias, f));
        check_ok(cab_graph_new(backend, &whole));
        check_ok(cab_graph_new(backend, &step));
        cab_tensor *x = cab_graph_input(whole, "x", dtype, 3, (int64_t[]){B, L, E});
        cab_tensor *y = cab_conv1d(whole, x, w, bias, NULL, true);
        cab_graph_keep(whole, y);
        cab_tensor *x1 = cab_graph_input(step, "x", dtype, 3, (int64_t[]){B, 1, E});
        cab_tensor *memory = cab_graph_state(step, "memory", CAB_F32, 3, (int64_t[]){B, K - 1, E});
        cab_tensor *y1 = cab_conv1d_step(step, x1, w, bias, memory, true);
        cab_graph_keep(step, y1);
        check_ok(cab_graph_plan(whole, NULL));
        check_ok(cab_graph_plan(step, NULL));
        check_write(whole, x, values, E, 0);
        check_ok(cab_graph_run(whole));
        double *expected = check_read(whole, y, E, 0);
        for (int l = 0; l < L; l++) {
            double token[B * E];
            for (int b = 0; b < B; b++)
                memcpy(token + b * E, values + (b * L + l) * E, E * sizeof(double));
            check_write(step, x1, token, E, 0);
            check_ok(cab_graph_run(step));
            double *got = check_read(step, y1, E, 0);
            for (int b = 0; b < B; b++)
                assert_true(check_distance(got + b * E, expected + (b * L + l) * E, E) < (low ? 1e-3 : 1e-6));
            free(got);
        }
        free(expected);
        free(values);
        free(filter);
        cab_graph_free(whole);
        cab_graph_free(step);
        cab_params_free(params);
        cab_backend_close(backend);
    }
}

/* On a GPU: vectors of channels and single ones, stretches of tokens that end anywhere, more than a block of them. */
static void test_gpu(void **state)
{
    (void)state;
    const shape shapes[] = {{3, 197, 384, 4, true, true, 0},  {2, 300, 517, 4, true, true, 0},
                            {1, 65, 72, 3, true, false, 0},   {2, 70, 40, 16, false, true, 0},
                            {3, 197, 384, 4, true, true, 50}, {1, 165, 72, 3, true, false, 9},
                            {2, 70, 40, 16, false, true, 30}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape *s = &shapes[i];
        const check_case c = {.name = "conv1d on the GPU",
                              .n_in = s->documents ? 4
                                      : s->bias    ? 3
                                                   : 2,
                              .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->E}, -2, 2},
                                     {CHECK_PARAMETER, 3, {s->E, 1, s->K}, 0, 0},
                                     {CHECK_PARAMETER, 1, {s->E}, 0, 0},
                                     {CHECK_STARTS, 2, {s->B, s->L}, 1, s->documents}},
                              .n_out = 1,
                              .n_seeded = 1,
                              .record = record,
                              .argument = s};
        gpu_compare(&c, 1e-5, 1.5e-2);
    }
}

static void test_shape_errors(void **state)
{
    (void)state;
    cab_backend *backend;
    check_ok(cab_backend_open("cpu", &backend));
    cab_graph *g;
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, 4, 6});
    cab_tensor *w = cab_graph_input(g, "w", CAB_F32, 3, (int64_t[]){5, 1, 4});
    assert_null(cab_conv1d(g, x, w, NULL, NULL, true));
    assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "conv1d: w is (5, 1, 4) F32"));
    cab_graph_free(g);
    cab_backend_close(backend);
}

/* The same bits whatever the number of threads. */
static void test_threads(void **state)
{
    (void)state;
    const shape s = {2, 300, 517, 4, true, true, 0};
    const check_case c = {.name = "conv1d threads",
                          .n_in = 3,
                          .in = {{CHECK_ACTIVATION, 3, {s.B, s.L, s.E}, 0, 0},
                                 {CHECK_PARAMETER, 3, {s.E, 1, s.K}, 0, 0},
                                 {CHECK_PARAMETER, 1, {s.E}, 0, 0}},
                          .n_out = 1,
                          .n_seeded = 1,
                          .record = record,
                          .argument = &s};
    repeat_compare(&c, &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 1},
                   &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 3}, 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes), cmocka_unit_test(test_blocks), cmocka_unit_test(test_block_gradients),
        cmocka_unit_test(test_step),   cmocka_unit_test(test_gpu),    cmocka_unit_test(test_shape_errors),
        cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
