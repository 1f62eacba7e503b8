/* Token and position embeddings against their formula; ids that do not fit are errors. */
#include "ops/gpu.h"

/* argument: bit 0 positions, bit 1 first */
static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    int have = *(const int *)argument;
    cab_dtype dtype = in[4]->dtype;
    out[0] = cab_embedding(g, in[0], in[1], have & 1 ? in[2] : NULL, have & 2 ? in[3] : NULL, NULL, dtype);
}

static void reference(const check_case *c, double *const *in, double **out)
{
    int have = *(const int *)c->argument;
    int64_t n = check_count(2, c->in[0].shape), length = c->in[0].shape[1], width = c->in[1].shape[1];
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < width; k++) {
            int64_t position = i % length + (have & 2 ? (int64_t)in[3][0] : 0);
            out[0][i * width + k] = in[1][(int64_t)in[0][i] * width + k] + (have & 1 ? in[2][position * width + k] : 0);
        }
}

static void test_embedding(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {{2, 5, 11, 7}, {1, 1, 3, 20}, {3, 9, 4, 35}}; /* B, L, V, D */
    for (int have = 0; have < 4; have++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            const int64_t *s = shapes[i];
            check_run(&(check_case){.name = "embedding",
                                    .n_in = 5,
                                    .in = {{CHECK_IDS, 2, {s[0], s[1]}, 0, (double)s[2]},
                                           {CHECK_PARAMETER, 2, {s[2], s[3]}, 0, 0},
                                           {CHECK_PARAMETER, 2, {12, s[3]}, 0, 0},
                                           {CHECK_IDS, 1, {1}, 2, 4},
                                           {CHECK_CONSTANT, 1, {1}, 0, 0}}, /* tells the variant's dtype */
                                    .n_out = 1,
                                    .n_seeded = 1,
                                    .record = record,
                                    .reference = reference,
                                    .argument = &have});
        }
}

static void test_threads(void **state)
{
    (void)state;
    static const int have = 1;
    check_threads(&(check_case){.name = "embedding",
                                .n_in = 5,
                                .in = {{CHECK_IDS, 2, {3, 61}, 0, 9},
                                       {CHECK_PARAMETER, 2, {9, 77}, 0, 0},
                                       {CHECK_PARAMETER, 2, {61, 77}, 0, 0},
                                       {CHECK_IDS, 1, {1}, 0, 1},
                                       {CHECK_CONSTANT, 1, {1}, 0, 0}},
                                .n_out = 1,
                                .n_seeded = 1,
                                .record = record,
                                .argument = &have});
}

/* Ids that occur once, in several pieces of the sorted tokens, and all the time; one, two and three passes of the sort. */
static void test_gpu(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {
        {4, 300, 50257, 768}, {3, 700, 5, 64}, {2, 1100, 1, 40}, {1, 33, 100000, 7}, {2, 513, 300, 1032}};
    static const int have = 1;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t *s = shapes[i];
        gpu_compare(&(check_case){.name = "embedding on the GPU",
                                  .n_in = 5,
                                  .in = {{CHECK_IDS, 2, {s[0], s[1]}, 0, (double)s[2]},
                                         {CHECK_PARAMETER, 2, {s[2], s[3]}, 0, 0},
                                         {CHECK_PARAMETER, 2, {s[1], s[3]}, 0, 0},
                                         {CHECK_IDS, 1, {1}, 0, 1},
                                         {CHECK_CONSTANT, 1, {1}, 0, 0}},
                                  .n_out = 1,
                                  .n_seeded = 1,
                                  .record = record,
                                  .argument = &have},
                    1e-5, 1e-2);
    }
}

/* The CPU says so at once; a GPU when results are read, and once: what comes after is not its fault. */
static void expect_failure(int32_t id, int32_t first, const char *text, const char *gpu_text)
{
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *table, *positions;
    float y[6];
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    check_ok(cab_params_add(params, "table", CAB_F32, 2, (int64_t[]){5, 3}, CAB_DECAY, &table));
    check_ok(cab_params_add(params, "positions", CAB_F32, 2, (int64_t[]){4, 3}, CAB_DECAY, &positions));
    cab_tensor *ids = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){1, 2});
    cab_tensor *start = cab_graph_input(g, "first", CAB_I32, 1, (int64_t[]){1});
    cab_tensor *out = cab_embedding(g, ids, table, positions, start, NULL, CAB_F32);
    cab_graph_keep(g, out);
    check_ok(cab_tensor_write(g, ids, (int32_t[]){1, id}));
    check_ok(cab_tensor_write(g, start, &first));
    cab_status status = cab_graph_run(g);
    if (!backend->host) {
        check_ok(status);
        status = cab_tensor_read(g, out, y);
    }
    assert_int_equal(status, CAB_EARG);
    assert_non_null(strstr(cab_error_text(), backend->host ? text : gpu_text));
    check_ok(cab_tensor_write(g, ids, (int32_t[]){1, 4}));
    check_ok(cab_tensor_write(g, start, &(int32_t){0}));
    check_ok(cab_graph_run(g));
    check_ok(cab_tensor_read(g, out, y));
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
}

static void test_outside(void **state)
{
    (void)state;
    expect_failure(5, 0, "token 1 has id 5, expected 0 to 4", "a token has id 5, expected 0 to 4");
    expect_failure(-1, 0, "token 1 has id -1", "a token has id -1");
    expect_failure(0, 3, "positions 3 to 4, expected 0 to 3", "position 4, expected 0 to 3");
    expect_failure(0, -1, "positions -1 to 0", "position -1, expected");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_embedding), cmocka_unit_test(test_threads),
                                       cmocka_unit_test(test_gpu), cmocka_unit_test(test_outside)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
