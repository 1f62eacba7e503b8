/* test_block_gemm.c - a linear layer and an embedding over matrices in blocks of few bits, against the same matrix expanded first. */
#include "ops/blocks.h"

static const char *const isas[] = {"v1", "v3", "v4"};

/* Instruction sets of the processor; a GPU has one. */
static int variants(void)
{
    return blocks_on_gpu() ? 1 : 3;
}

static cab_backend *open_isa(const char *isa)
{
    cab_backend *backend = NULL;
    setenv("CAB_CPU_ISA", isa, 1);
    check_ok(cab_backend_open(check_device(), &backend));
    unsetenv("CAB_CPU_ISA");
    return backend;
}

typedef struct blocks_case {
    cab_dtype stored, dtype;
    int64_t m, n, k;
    bool biased;
    bool gelu;
} blocks_case;

enum { RUNS = 3 }; /* of a GPU's list: as it is, captured, replayed */

/* y of a layer whose weight stays in blocks, or is expanded first. */
static void run_layer(const blocks_case *c, const char *isa, bool expanded, const uint8_t *blocks, const float *x,
                      float *y)
{
    cab_backend *backend = open_isa(isa);
    cab_params *params = NULL;
    cab_graph *g = NULL;
    cab_tensor *b = NULL;
    float *bias = malloc((size_t)c->n * sizeof *bias);
    const int64_t shape[2] = {c->n, c->k};
    assert_non_null(bias);
    for (int64_t i = 0; i < c->n; i++)
        bias[i] = (float)(i % 7) - 3;
    check_ok(cab_params_new(backend, &params));
    cab_tensor *w = expanded ? blocks_add_expanded(params, "w", c->stored, c->dtype, shape, blocks)
                             : blocks_add(params, "w", c->stored, shape, blocks);
    check_ok(cab_params_add(params, "b", CAB_F32, 1, &c->n, CAB_NO_DECAY, &b));
    check_ok(cab_params_write(params, b, bias));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *in = cab_graph_input(g, "x", c->dtype, 2, (int64_t[]){c->m, c->k});
    cab_tensor *out = cab_linear(g, in, w, c->biased ? b : NULL, CAB_OUT_IN);
    if (c->gelu)
        out = cab_activate(g, out, CAB_GELU_TANH);
    cab_graph_keep(g, out);
    check_ok(cab_graph_plan(g, NULL));
    blocks_write(g, in, x);
    for (int run = 0; run < (blocks_on_gpu() ? RUNS : 1); run++)
        check_ok(cab_graph_run(g));
    blocks_read(g, out, y);
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
    free(bias);
}

static double tolerance_of(const blocks_case *c)
{
    if (c->dtype == CAB_BF16)
        return 6e-3;
    if (blocks_on_gpu())
        return 2e-6;
    return c->m > 4 ? 1e-6 : 1e-4; /* few rows in 16 bits */
}

static void run_case(const blocks_case *c, const char *isa)
{
    uint8_t *blocks = blocks_make(c->stored, c->n * c->k);
    float *expanded = malloc((size_t)(c->n * c->k) * sizeof *expanded);
    float *x = malloc((size_t)(c->m * c->k) * sizeof *x), *y = malloc((size_t)(c->m * c->n) * sizeof *y);
    assert_true(expanded != NULL && x != NULL && y != NULL);
    cab_blocks_expand(c->stored, blocks, expanded, c->n * c->k);
    blocks_fill(x, c->m * c->k);
    run_layer(c, isa, false, blocks, x, y);
    double difference = 0, size = 0;
    for (int64_t i = 0; i < c->m; i++)
        for (int64_t o = 0; o < c->n; o++) {
            double sum = c->biased ? (double)(o % 7) - 3 : 0;
            for (int64_t e = 0; e < c->k; e++)
                sum += (double)x[i * c->k + e] * (double)expanded[o * c->k + e];
            difference += (y[i * c->n + o] - sum) * (y[i * c->n + o] - sum);
            size += sum * sum;
        }
    if (!(sqrt(difference) <= tolerance_of(c) * sqrt(size)))
        fail_msg("%s, %s, %s, %lld x %lld x %lld: %g away, at most %g", cab_dtype_name(c->stored),
                 cab_dtype_name(c->dtype), isa, (long long)c->m, (long long)c->n, (long long)c->k,
                 sqrt(difference / size), tolerance_of(c));
    free(blocks);
    free(expanded);
    free(x);
    free(y);
}

static void multiplies_as_what_is_expanded_first(void **state)
{
    (void)state;
    for (int t = 0; t < BLOCKS_TYPES; t++) {
        const cab_dtype type = blocks_types[t];
        const int64_t block = cab_dtype_block(type);
        for (int i = 0; i < variants(); i++)
            for (int low = 0; low < 2; low++) {
                const cab_dtype dtype = low ? CAB_BF16 : CAB_F32;
                run_case(&(blocks_case){.stored = type, .dtype = dtype, .m = 1, .n = 7, .k = 3 * block, .biased = true},
                         isas[i]);
                run_case(&(blocks_case){.stored = type, .dtype = dtype, .m = 4, .n = 33, .k = 768}, isas[i]);
                run_case(&(blocks_case){.stored = type, .dtype = dtype, .m = 5, .n = 1, .k = block, .biased = true},
                         isas[i]);
                run_case(&(blocks_case){.stored = type, .dtype = dtype, .m = 19, .n = 71, .k = 1280, .biased = true},
                         isas[i]);
                run_case(&(blocks_case){.stored = type, .dtype = dtype, .m = 11, .n = 48, .k = 256}, isas[i]);
                run_case(&(blocks_case){.stored = type, .dtype = dtype, .m = 35, .n = 19, .k = 512, .biased = true},
                         isas[i]);
            }
    }
}

/* On the processor tiles have 512 rows here, and the last 3; on a GPU 768, and the last 515. */
static void more_rows_than_a_tile(void **state)
{
    (void)state;
    const int64_t m = blocks_on_gpu() ? 9 : 6, k = blocks_on_gpu() ? 8192 : 1024, n = blocks_on_gpu() ? 2051 : 1027;
    run_case(&(blocks_case){.stored = CAB_Q4_1, .dtype = CAB_F32, .m = m, .n = n, .k = k, .biased = true}, "v4");
    if (!blocks_on_gpu())
        run_case(&(blocks_case){.stored = CAB_Q4_K, .dtype = CAB_BF16, .m = m, .n = n, .k = k, .biased = true}, "v4");
}

/* On a GPU, where a matrix is one tile: the numbers that are multiplied are the same, and so is the product. */
static void gives_the_bits_of_what_is_expanded_first(void **state)
{
    (void)state;
    enum { M = 33, K = 256, MOST = 77 };
    static const int64_t widths[] = {77, 77, 72, 72,
                                     64}; /* GELU is fused with multiples of 8; 64 are for kernels of our own */
    float x[M * K], y[2][M * MOST];
    if (!blocks_on_gpu()) {
        print_message("CAB_TEST_DEVICE names no GPU\n");
        skip();
    }
    blocks_fill(x, M * K);
    for (int t = 0; t < BLOCKS_TYPES; t++)
        for (int i = 0; i < 5; i++) {
            const int64_t n = widths[i];
            const blocks_case c = {.stored = blocks_types[t],
                                   .dtype = i % 2 || i == 4 ? CAB_BF16 : CAB_F32,
                                   .m = M,
                                   .n = n,
                                   .k = K,
                                   .biased = true,
                                   .gelu = i == 2 || i == 3};
            uint8_t *blocks = blocks_make(c.stored, n * K);
            run_layer(&c, "", false, blocks, x, y[0]);
            run_layer(&c, "", true, blocks, x, y[1]);
            assert_memory_equal(y[0], y[1], (size_t)(M * n) * sizeof(float));
            free(blocks);
        }
}

static void embed(cab_dtype stored, cab_dtype dtype, const char *isa)
{
    enum { ROWS = 9, COLUMNS = 768 };
    const int32_t ids[5] = {8, 0, 3, 3, 7};
    cab_backend *backend = open_isa(isa);
    cab_params *params = NULL;
    cab_graph *g = NULL;
    float expanded[ROWS * COLUMNS], y[5 * COLUMNS];
    uint8_t *blocks = blocks_make(stored, ROWS * COLUMNS);
    cab_blocks_expand(stored, blocks, expanded, ROWS * COLUMNS);
    check_ok(cab_params_new(backend, &params));
    cab_tensor *table = blocks_add(params, "e", stored, (int64_t[]){ROWS, COLUMNS}, blocks);
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *in = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){1, 5});
    cab_tensor *out = cab_embedding(g, in, table, NULL, NULL, NULL, dtype);
    cab_graph_keep(g, out);
    check_ok(cab_graph_plan(g, NULL));
    check_ok(cab_tensor_write(g, in, ids));
    check_ok(cab_graph_run(g));
    blocks_read(g, out, y);
    for (int e = 0; e < 5 * COLUMNS; e++) { /* the same numbers, at every instruction set */
        const float x = expanded[ids[e / COLUMNS] * COLUMNS + e % COLUMNS];
        assert_true(y[e] == (dtype == CAB_F32 ? x : cab_bf16_to_f32(cab_bf16_from_f32(x))));
    }
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
    free(blocks);
}

static void embeds_the_expanded_rows(void **state)
{
    (void)state;
    for (int t = 0; t < BLOCKS_TYPES; t++)
        for (int i = 0; i < variants(); i++) {
            embed(blocks_types[t], CAB_F32, isas[i]);
            embed(blocks_types[t], CAB_BF16, isas[i]);
        }
}

/* Parameters are read as fp32 from wherever they are, in pieces of 2^20. */
static void is_read_expanded(void **state)
{
    (void)state;
    enum { ROWS = 4099, COLUMNS = 256 };
    cab_backend *backend = open_isa("");
    cab_params *params = NULL;
    uint8_t *blocks = blocks_make(CAB_Q6_K, ROWS * COLUMNS);
    float *expected = malloc(ROWS * COLUMNS * sizeof(float)), *got = malloc(ROWS * COLUMNS * sizeof(float));
    assert_true(expected != NULL && got != NULL);
    cab_blocks_expand(CAB_Q6_K, blocks, expected, ROWS * COLUMNS);
    check_ok(cab_params_new(backend, &params));
    const cab_tensor *w = blocks_add(params, "w", CAB_Q6_K, (int64_t[]){ROWS, COLUMNS}, blocks);
    check_ok(cab_params_read(params, w, got));
    assert_memory_equal(got, expected, ROWS * COLUMNS * sizeof(float));
    if (blocks_on_gpu())
        assert_int_equal(cab_params_bytes(params), cab_dtype_bytes(CAB_Q6_K, ROWS * COLUMNS));
    cab_params_free(params);
    cab_backend_close(backend);
    free(blocks);
    free(expected);
    free(got);
}

/* Frozen, and no gradient flows back through it: both are said by name. */
static void does_not_train(void **state)
{
    (void)state;
    cab_backend *backend = open_isa("v4");
    cab_params *params = NULL;
    cab_graph *g = NULL;
    cab_tensor *first = NULL;
    uint8_t *blocks = blocks_make(CAB_Q8_0, 4 * 32);
    check_ok(cab_params_new(backend, &params));
    cab_tensor *w = blocks_add(params, "quantised.w", CAB_Q8_0, (int64_t[]){4, 32}, blocks);
    check_ok(cab_params_add(params, "first", CAB_F32, 2, (int64_t[]){32, 8}, CAB_DECAY, &first));
    assert_int_equal(cab_params_set_trainable(params, "quantised.w", true, NULL), CAB_EARG);
    assert_non_null(strstr(cab_error_text(), "\"quantised.w\" was loaded frozen and cannot train"));
    check_ok(cab_params_set_trainable(params, "first", true, NULL));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *x = cab_graph_input(g, "x", CAB_F32, 2, (int64_t[]){3, 8});
    cab_tensor *y = cab_linear(g, cab_linear(g, x, first, NULL, CAB_OUT_IN), w, NULL, CAB_OUT_IN);
    cab_tensor *r = cab_graph_input(g, "r", CAB_F32, 2, (int64_t[]){3, 4});
    cab_graph_backward(g, 1, &y, &r);
    check_ok(cab_graph_plan(g, NULL));
    assert_int_equal(cab_graph_run(g), CAB_EUNSUPPORTED);
    assert_non_null(strstr(cab_error_text(), "\"quantised.w\" stays in Q8_0: no gradient flows back through it"));
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
    free(blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multiplies_as_what_is_expanded_first),
        cmocka_unit_test(more_rows_than_a_tile),
        cmocka_unit_test(gives_the_bits_of_what_is_expanded_first),
        cmocka_unit_test(embeds_the_expanded_rows),
        cmocka_unit_test(is_read_expanded),
        cmocka_unit_test(does_not_train),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
