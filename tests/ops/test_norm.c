/* Layer and RMS norm against their formulas in fp64. */
#include "ops/gpu.h"

static const float eps = 1e-5f;

static void record_layer_norm(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    (void)argument;
    out[0] = cab_layer_norm(g, in[0], in[1], in[2], eps);
}

static void record_rms_norm(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_rms_norm(g, in[0], in[1], argument ? *(const int *)argument : 1, eps);
}

static void reference_norm(const check_case *c, double *const *in, double **out)
{
    bool centred = c->record == record_layer_norm;
    const int groups = c->argument ? *(const int *)c->argument : 1;
    int64_t n = c->in[1].shape[0] / groups, rows = check_count(c->in[0].n_dim, c->in[0].shape) / n;
    for (int64_t r = 0; r < rows; r++) {
        const double *x = in[0] + r * n, *w = in[1] + r % groups * n;
        double mean = 0, square = 0;
        for (int64_t i = 0; i < n && centred; i++)
            mean += x[i] / (double)n;
        for (int64_t i = 0; i < n; i++)
            square += (x[i] - mean) * (x[i] - mean) / (double)n;
        for (int64_t i = 0; i < n; i++)
            out[0][r * n + i] = (x[i] - mean) / sqrt(square + (double)eps) * w[i] + (centred ? in[2][i] : 0);
    }
}

static void run(check_kind parameters, int64_t rows, int64_t columns, bool centred)
{
    check_run(&(check_case){.name = centred ? "layer_norm" : "rms_norm",
                            .n_in = centred ? 3 : 2,
                            .in = {{CHECK_ACTIVATION, 2, {rows, columns}, -2, 3},
                                   {parameters, 1, {columns}, 0.5, 1.5},
                                   {parameters, 1, {columns}, 0, 0}},
                            .n_out = 1,
                            .n_seeded = 1,
                            .record = centred ? record_layer_norm : record_rms_norm,
                            .reference = reference_norm});
}

static void test_layer_norm(void **state)
{
    (void)state;
    run(CHECK_PARAMETER, 5, 37, true);
    run(CHECK_PARAMETER, 1, 16, true);
    run(CHECK_PARAMETER, 67, 8, true);
    run(CHECK_FROZEN, 3, 33, true);
}

static void test_rms_norm(void **state)
{
    (void)state;
    run(CHECK_PARAMETER, 5, 37, false);
    run(CHECK_PARAMETER, 67, 8, false);
    run(CHECK_FROZEN, 3, 33, false);
}

/* Groups of columns, each with its own mean. */
static void test_groups(void **state)
{
    (void)state;
    const int shapes[][3] = {{5, 36, 2}, {3, 21, 7}, {2, 33, 33}, {67, 16, 4}}; /* rows, columns, groups */
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_run(&(check_case){.name = "rms_norm groups",
                                .n_in = 2,
                                .in = {{CHECK_ACTIVATION, 2, {shapes[i][0], shapes[i][1]}, -2, 3},
                                       {CHECK_PARAMETER, 1, {shapes[i][1]}, 0.5, 1.5}},
                                .n_out = 1,
                                .n_seeded = 1,
                                .record = record_rms_norm,
                                .reference = reference_norm,
                                .argument = &shapes[i][2]});
    cab_backend *backend;
    cab_graph *g;
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_graph_new(backend, &g));
    assert_null(cab_rms_norm(g, cab_graph_input(g, "x", CAB_F32, 2, (int64_t[]){2, 10}),
                             cab_graph_input(g, "w", CAB_F32, 1, (int64_t[]){10}), 3, eps));
    assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "\"x\" has 10 columns in 3 groups"));
    cab_graph_free(g);
    cab_backend_close(backend);
}

static void test_threads(void **state)
{
    (void)state;
    for (int centred = 0; centred < 2; centred++)
        check_threads(&(check_case){.name = centred ? "layer_norm" : "rms_norm",
                                    .n_in = centred ? 3 : 2,
                                    .in = {{CHECK_ACTIVATION, 3, {3, 71, 129}, -2, 3},
                                           {CHECK_PARAMETER, 1, {129}, 0.5, 1.5},
                                           {CHECK_PARAMETER, 1, {129}, 0, 0}},
                                    .n_out = 1,
                                    .n_seeded = 1,
                                    .record = centred ? record_layer_norm : record_rms_norm});
}

/* A large common offset must not cancel: the variance is taken about the mean. */
static void test_offset(void **state)
{
    (void)state;
    enum { N = 64 };
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    float ones[N], zeros[N] = {0}, x[N], y[N];
    for (int i = 0; i < N; i++) {
        ones[i] = 1.0f;
        x[i] = 4096.0f + (float)(i % 2);
    }
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *w, *b, *in = cab_graph_input(g, "x", CAB_F32, 1, (int64_t[]){N});
    check_ok(cab_params_add(params, "w", CAB_F32, 1, (int64_t[]){N}, CAB_NO_DECAY, &w));
    check_ok(cab_params_add(params, "b", CAB_F32, 1, (int64_t[]){N}, CAB_NO_DECAY, &b));
    check_ok(cab_params_write(params, w, ones));
    check_ok(cab_params_write(params, b, zeros));
    check_ok(cab_tensor_write(g, in, x));
    cab_tensor *out = cab_layer_norm(g, in, w, b, 1e-6f);
    cab_graph_keep(g, out);
    check_ok(cab_graph_run(g));
    check_ok(cab_tensor_read(g, out, y));
    for (int i = 0; i < N; i++)
        assert_true(fabsf(y[i] - (i % 2 ? 1.0f : -1.0f)) < 1e-4f);
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
}

/* Rows held by a warp and by a block in one piece and in several, rows too wide for that, and rows of odd width. */
static void test_gpu(void **state)
{
    (void)state;
    const int64_t columns[] = {192, 384, 768, 1000, 1536, 2048, 4096, 4104, 5001};
    const int64_t rows = check_slow() ? 61 : 301;
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        for (int centred = 0; centred < 2; centred++) {
            const check_case c = {.name = centred ? "layer_norm" : "rms_norm",
                                  .n_in = centred ? 3 : 2,
                                  .in = {{CHECK_ACTIVATION, 3, {2, rows, columns[i]}, -2, 3},
                                         {CHECK_PARAMETER, 1, {columns[i]}, 0.5, 1.5},
                                         {CHECK_PARAMETER, 1, {columns[i]}, 0, 0}},
                                  .n_out = 1,
                                  .n_seeded = 1,
                                  .record = centred ? record_layer_norm : record_rms_norm};
            gpu_compare(&c, 1e-5, 5e-3);
        }
}

/* Groups of one vector and more, of a warp and of a block, and of a width that fills no vector. */
static void test_groups_gpu(void **state)
{
    (void)state;
    const int shapes[][2] = {{64, 8}, {1536, 2}, {4096, 4}, {4400, 4}, {2048, 16}}; /* columns, groups */
    const int64_t rows = check_slow() ? 31 : 301;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const check_case c = {.name = "rms_norm groups",
                              .n_in = 2,
                              .in = {{CHECK_ACTIVATION, 3, {2, rows, shapes[i][0]}, -2, 3},
                                     {CHECK_PARAMETER, 1, {shapes[i][0]}, 0.5, 1.5}},
                              .n_out = 1,
                              .n_seeded = 1,
                              .record = record_rms_norm,
                              .argument = &shapes[i][1]};
        gpu_compare(&c, 1e-5, 5e-3);
    }
}

typedef struct sum_case {
    int terms; /* 2 or 3 */
    bool both; /* the sum comes out as well */
    bool rms;
} sum_case;

static void record_norm_of_sum(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const sum_case *c = argument;
    cab_tensor *sum = cab_add(g, c->terms, in);
    out[0] = c->rms ? cab_rms_norm(g, sum, in[3], 1, 1e-5f) : cab_layer_norm(g, sum, in[3], in[4], 1e-5f);
    if (c->both)
        out[1] = sum;
}

/* A sum and its norm, which a GPU computes in one go; with and without a backward pass, which reads the sum. */
static void test_norm_of_sum_gpu(void **state)
{
    (void)state;
    const int64_t columns[] = {192, 384, 768, 1000, 2048, 3072, 37, 4104};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        for (int way = 0; way < 16; way += check_slow() ? 5 : 1) {
            const int64_t n = columns[i];
            const sum_case sum = {.terms = 2 + way % 2, .both = way / 2 % 2, .rms = way / 8 > 0};
            gpu_compare(&(check_case){.name = sum.rms ? "rms_norm of a sum" : "layer_norm of a sum",
                                      .n_in = sum.rms ? 4 : 5,
                                      .in = {{CHECK_ACTIVATION, 3, {2, 51, n}, -2, 3},
                                             {CHECK_ACTIVATION, 3, {2, 51, n}, -2, 2},
                                             {way % 2 ? CHECK_ACTIVATION : CHECK_CONSTANT, 3, {2, 51, n}, -1, 2},
                                             {CHECK_PARAMETER, 1, {n}, 0.5, 1.5},
                                             {CHECK_PARAMETER, 1, {n}, 0, 0}},
                                      .n_out = sum.both ? 2 : 1,
                                      .n_seeded = way / 4 % 2,
                                      .record = record_norm_of_sum,
                                      .argument = &sum},
                        1e-5, 1e-2);
        }
}

/* Nodes that are left of an add and a norm. */
static int nodes_of_sum(int64_t columns, bool rms)
{
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_plan plan;
    cab_tensor *in[5], *out[1];
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    for (int i = 0; i < 3; i++)
        in[i] = cab_graph_input(g, "x", CAB_BF16, 2, (int64_t[]){3, columns});
    check_ok(cab_params_add(params, "w", CAB_F32, 1, &columns, CAB_NO_DECAY, &in[3]));
    check_ok(cab_params_add(params, "b", CAB_F32, 1, &columns, CAB_NO_DECAY, &in[4]));
    record_norm_of_sum(g, in, out, &(sum_case){.terms = 3, .rms = rms});
    cab_graph_keep(g, out[0]);
    check_ok(cab_graph_plan(g, &plan));
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
    return plan.nodes;
}

static void test_norm_of_sum_is_one(void **state)
{
    (void)state;
    for (int rms = 0; rms < 2; rms++) {
        assert_int_equal(nodes_of_sum(768, rms), strcmp(check_device(), "cpu") == 0 ? 2 : 1);
        assert_int_equal(nodes_of_sum(37, rms), 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layer_norm),
                                       cmocka_unit_test(test_rms_norm),
                                       cmocka_unit_test(test_groups),
                                       cmocka_unit_test(test_threads),
                                       cmocka_unit_test(test_offset),
                                       cmocka_unit_test(test_gpu),
                                       cmocka_unit_test(test_groups_gpu),
                                       cmocka_unit_test(test_norm_of_sum_gpu),
                                       cmocka_unit_test(test_norm_of_sum_is_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
