/* test_conv2d.c - the convolution over a grid of patches against its formula in fp64. */
#include "ops/check.h"
#include "ops/gpu.h"
#include "ops/repeat.h"

typedef struct shape {
    int64_t B, first, height, width, E, K;
    bool bias;
} shape;

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    out[0] = cab_conv2d(g, in[0], in[1], s->bias ? in[2] : NULL, s->first, s->width);
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    const int64_t L = s->first + s->height * s->width;
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t t = 0; t < L; t++)
            for (int64_t e = 0; e < s->E; e++) {
                const double *x = in[0] + b * L * s->E + e;
                const int64_t r = (t - s->first) / s->width, column = (t - s->first) % s->width;
                double u = t < s->first ? x[t * s->E] : s->bias ? in[2][e] : 0;
                for (int64_t i = 0; t >= s->first && i < s->K * s->K; i++) {
                    const int64_t y = r + i / s->K - s->K / 2, z = column + i % s->K - s->K / 2;
                    if (y >= 0 && y < s->height && z >= 0 && z < s->width)
                        u += in[1][e * s->K * s->K + i] * x[(s->first + y * s->width + z) * s->E];
                }
                out[0][(b * L + t) * s->E + e] = u / (1 + exp(-u));
            }
}

static check_case case_of(const char *name, const shape *s)
{
    return (check_case){.name = name,
                        .n_in = s->bias ? 3 : 2,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->first + s->height * s->width, s->E}, -2, 2},
                               {CHECK_PARAMETER, 4, {s->E, 1, s->K, s->K}, 0, 0},
                               {CHECK_PARAMETER, 1, {s->E}, 0, 0}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record,
                        .reference = reference,
                        .argument = s};
}

static void test_shapes(void **state)
{
    static const struct {
        const char *name;
        shape s;
    } cases[] = {{"conv2d", {2, 1, 4, 4, 5, 3, true}},
                 {"conv2d one patch", {2, 1, 1, 1, 3, 3, true}},
                 {"conv2d 7 x 5, two tokens before", {1, 2, 7, 5, 3, 3, true}},
                 {"conv2d 5 x 7, no token before", {2, 0, 5, 7, 2, 3, false}},
                 {"conv2d a row", {1, 5, 1, 6, 2, 3, true}},
                 {"conv2d a column", {1, 1, 6, 1, 2, 3, true}},
                 {"conv2d of side 5", {1, 1, 6, 3, 2, 5, true}},
                 {"conv2d of side 7", {1, 3, 3, 9, 2, 7, false}}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const check_case c = case_of(cases[i].name, &cases[i].s);
        check_run(&c);
    }
}

/* Several blocks of channels, the last of them short: values against the formula (finite differences over so many elements
 * would take too long). */
static void test_blocks(void **state)
{
    static const shape s = {2, 1, 5, 6, 261, 3, true};
    (void)state;
    check_case c = case_of("conv2d blocks", &s);
    c.n_seeded = 0;
    check_run(&c);
}

/* The filter that passes the patch itself on leaves SiLU of x, bit by bit. */
static void test_identity(void **state)
{
    enum { B = 2, FIRST = 5, SIDE = 6, L = FIRST + SIDE * SIDE, E = 140, K = 3 };
    (void)state;
    for (int low = 0; low < 2; low++) {
        const cab_dtype dtype = low ? CAB_BF16 : CAB_F32;
        float filter[E * K * K] = {0};
        cab_backend *backend;
        cab_params *params;
        cab_graph *g;
        cab_tensor *w;
        check_ok(cab_backend_open("cpu", &backend));
        check_ok(cab_params_new(backend, &params));
        check_ok(cab_params_add(params, "w", CAB_F32, 4, (int64_t[]){E, 1, K, K}, CAB_DECAY, &w));
        for (int e = 0; e < E; e++)
            filter[e * K * K + K * K / 2] = 1;
        check_ok(cab_params_write(params, w, filter));
        check_ok(cab_graph_new(backend, &g));
        cab_tensor *x = cab_graph_input(g, "x", dtype, 3, (int64_t[]){B, L, E});
        cab_tensor *y = cab_conv2d(g, x, w, NULL, FIRST, SIDE), *plain = cab_activate(g, x, CAB_SILU);
        cab_graph_keep(g, y);
        cab_graph_keep(g, plain);
        check_ok(cab_graph_plan(g, NULL));
        double *values = check_draw("identity", 0, B * L * E, -3, 3, false);
        check_write(g, x, values, E, 0);
        check_ok(cab_graph_run(g));
        double *got = check_read(g, y, E, 0), *expected = check_read(g, plain, E, 0);
        assert_true(check_distance(got, expected, B * L * E) < 1e-6);
        free(got);
        free(expected);
        free(values);
        cab_graph_free(g);
        cab_params_free(params);
        cab_backend_close(backend);
    }
}

/* On a GPU: vectors of channels and single ones, more than a block of rows, the last block short. */
static void test_gpu(void **state)
{
    static const shape shapes[] = {{3, 1, 14, 14, 1152, 3, true}, {2, 5, 7, 5, 264, 3, true},
                                   {2, 0, 9, 4, 517, 3, false},   {40, 1, 1, 1, 72, 3, true},
                                   {1, 2, 11, 13, 40, 5, true},   {2, 1, 6, 10, 36, 7, true}};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = case_of("conv2d on the GPU", &shapes[i]);
        gpu_compare(&c, 1e-5, 1.5e-2);
    }
}

/* The same bits whatever the number of threads. */
static void test_threads(void **state)
{
    static const shape s = {5, 1, 7, 7, 300, 3, true};
    (void)state;
    const check_case c = case_of("conv2d threads", &s);
    repeat_compare(&c, &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 1},
                   &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 3}, 1000000);
}

static void test_shape_errors(void **state)
{
    static const struct {
        int64_t filter[4], first, width;
        const char *said;
    } bad[] = {{{6, 1, 3, 5}, 1, 3, "conv2d: w is (6, 1, 3, 5) F32"},
               {{5, 1, 3, 3}, 1, 3, "expected (6, 1, K, K) F32 with K 3, 5 or 7"},
               {{6, 1, 9, 9}, 1, 3, "conv2d: w is (6, 1, 9, 9) F32"},
               {{6, 1, 4, 4}, 1, 3, "conv2d: w is (6, 1, 4, 4) F32"},
               {{6, 1, 1, 1}, 1, 3, "conv2d: w is (6, 1, 1, 1) F32"},
               {{6, 1, 3, 3}, 0, 3, "conv2d: 10 tokens are not rows of 3 behind 0 others"},
               {{6, 1, 3, 3}, 10, 3, "conv2d: 10 tokens are not rows of 3 behind 10 others"},
               {{6, 1, 3, 3}, 1, 0, "conv2d: 10 tokens are not rows of 0 behind 1 others"}};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cab_backend *backend;
        cab_graph *g;
        check_ok(cab_backend_open("cpu", &backend));
        check_ok(cab_graph_new(backend, &g));
        cab_tensor *x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, 10, 6});
        cab_tensor *w = cab_graph_input(g, "w", CAB_F32, 4, bad[i].filter);
        assert_null(cab_conv2d(g, x, w, NULL, bad[i].first, bad[i].width));
        assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
        if (strstr(cab_error_text(), bad[i].said) == NULL)
            fail_msg("found \"%s\", expected \"%s\"", cab_error_text(), bad[i].said);
        cab_graph_free(g);
        cab_backend_close(backend);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes),   cmocka_unit_test(test_blocks),
                                       cmocka_unit_test(test_identity), cmocka_unit_test(test_gpu),
                                       cmocka_unit_test(test_threads),  cmocka_unit_test(test_shape_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
