/* test_residual.c - the fp32 residual stream: sum and RMS norm in one, and the mean of branches. */
#include "ops/gpu.h"

typedef struct shape {
    int64_t B, L, D;
} shape;

static const float eps = 1e-5f;

/* Two layers: the second reads the first's sum. Sum and both norms come out. */
static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    (void)argument;
    cab_tensor *first = NULL;
    out[0] = cab_add_rms_norm(g, in[0], NULL, in[2], eps, &first);
    out[1] = cab_add_rms_norm(g, in[1], first, in[3], eps, &out[2]);
}

static void norm(const double *x, const double *w, int64_t n, double *y)
{
    double square = 0;
    for (int64_t i = 0; i < n; i++)
        square += x[i] * x[i];
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] / sqrt(square / (double)n + (double)eps) * w[i];
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    for (int64_t row = 0; row < s->B * s->L; row++) {
        const int64_t at = row * s->D;
        norm(in[0] + at, in[2], s->D, out[0] + at);
        for (int64_t i = at; i < at + s->D; i++)
            out[2][i] = in[0][i] + in[1][i];
        norm(out[2] + at, in[3], s->D, out[1] + at);
    }
}

static void test_add_rms_norm(void **state)
{
    (void)state;
    const shape shapes[] = {{2, 3, 7}, {1, 1, 2}, {1, 37, 3}, {2, 1, 33}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int seeded = 2; seeded <= 3; seeded++) {
            const shape *s = &shapes[i];
            check_case c = {.name = "add rms norm",
                            .n_in = 4,
                            .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->D}, -2, 2},
                                   {CHECK_ACTIVATION, 3, {s->B, s->L, s->D}, -2, 2},
                                   {CHECK_PARAMETER, 1, {s->D}, 0, 0},
                                   {CHECK_PARAMETER, 1, {s->D}, 0, 0}},
                            .n_out = 3,
                            .n_seeded = seeded, /* with and without a gradient of the last sum */
                            .record = record,
                            .reference = reference,
                            .argument = s};
            check_run(&c);
        }
}

static void test_gpu(void **state)
{
    (void)state;
    const int64_t columns[] = {192, 384, 768, 1024, 2048, 3072, 4100};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        for (int seeded = 2; seeded <= 3; seeded++) {
            const shape s = {2, check_slow() ? 31 : 197, columns[i]};
            const check_case c = {.name = "add rms norm",
                                  .n_in = 4,
                                  .in = {{CHECK_ACTIVATION, 3, {s.B, s.L, s.D}, -2, 2},
                                         {CHECK_ACTIVATION, 3, {s.B, s.L, s.D}, -2, 2},
                                         {CHECK_PARAMETER, 1, {s.D}, 0.5, 1.5},
                                         {CHECK_PARAMETER, 1, {s.D}, 0.5, 1.5}},
                                  .n_out = 3,
                                  .n_seeded = seeded,
                                  .record = record,
                                  .argument = &s};
            gpu_compare(&c, 1e-5, 5e-3);
        }
}

static void record_mean(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_mean(g, *(const int *)argument, in);
}

static void reference_mean(const check_case *c, double *const *in, double **out)
{
    const int n = *(const int *)c->argument;
    for (int64_t i = 0; i < check_count(3, c->in[0].shape); i++) {
        double sum = 0;
        for (int k = 0; k < n; k++)
            sum += in[k][i];
        out[0][i] = sum / n;
    }
}

static void test_mean(void **state)
{
    (void)state;
    for (int n = 2; n <= 4; n++) {
        const check_input in = {CHECK_ACTIVATION, 3, {2, 3, 5}, 0, 0};
        check_case c = {.name = "mean",
                        .n_in = n,
                        .in = {in, in, in, in},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record_mean,
                        .reference = reference_mean,
                        .argument = &n};
        check_run(&c);
    }
}

static void record_scale(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_scale(g, in[0], *(const float *)argument);
}

static void reference_scale(const check_case *c, double *const *in, double **out)
{
    for (int64_t i = 0; i < check_count(3, c->in[0].shape); i++)
        out[0][i] = (double)*(const float *)c->argument * in[0][i];
}

static void test_scale(void **state)
{
    (void)state;
    const float factors[] = {0.4f, -3};
    for (int i = 0; i < 2; i++) {
        check_case c = {.name = "scale",
                        .n_in = 1,
                        .in = {{CHECK_ACTIVATION, 3, {2, 3, 5}, 0, 0}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record_scale,
                        .reference = reference_scale,
                        .argument = &factors[i]};
        check_run(&c);
        gpu_compare(&c, 1e-6, 5e-3);
    }
}

static void test_shapes_must_fit(void **state)
{
    (void)state;
    cab_backend *backend;
    cab_graph *g;
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, 2, 4}), *sum;
    cab_tensor *residual = cab_graph_input(g, "stream", CAB_F32, 3, (int64_t[]){1, 3, 4});
    cab_tensor *w = cab_graph_input(g, "w", CAB_F32, 1, (int64_t[]){4});
    assert_null(cab_add_rms_norm(g, x, residual, w, eps, &sum));
    assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "\"stream\" is (1, 3, 4) F32"));
    cab_graph_free(g);
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_add_rms_norm), cmocka_unit_test(test_mean),
                                       cmocka_unit_test(test_scale), cmocka_unit_test(test_shapes_must_fit),
                                       cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
