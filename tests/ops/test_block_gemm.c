/* test_block_gemm.c - a linear layer and an embedding over matrices in blocks of few bits, against the same matrix expanded first. */
#include "ops/check.h"
#include "tensor/blocks.h"

static const cab_dtype types[] = {CAB_Q8_0, CAB_Q4_0, CAB_Q4_1, CAB_Q5_0, CAB_Q5_1, CAB_Q4_K, CAB_Q5_K, CAB_Q6_K};
static const char *const isas[] = {"v1", "v3", "v4"};
enum { TYPES = sizeof types / sizeof *types };

/* Where a block has its fp16 numbers; -1: no second one. */
static void halves_of(cab_dtype dtype, int at[2])
{
    at[0] = dtype == CAB_Q6_K ? 208 : 0;
    at[1] = dtype == CAB_Q4_1 || dtype == CAB_Q5_1 || dtype == CAB_Q4_K || dtype == CAB_Q5_K ? 2 : -1;
}

/* Any bytes are a block, as long as its fp16 numbers are: 0.001 to 0.3, some negative, some subnormal. */
static uint8_t *make_blocks(cab_dtype dtype, int64_t n)
{
    static const uint16_t scales[] = {0x1419, 0x2e66, 0xb0cd, 0x34cd, 0x0123, 0x9419};
    const size_t bytes = cab_dtype_bytes(dtype, n), block = cab_dtype_bytes(dtype, cab_dtype_block(dtype));
    uint8_t *data = malloc(bytes);
    uint32_t seed = 1 + (uint32_t)dtype;
    int at[2];
    assert_non_null(data);
    halves_of(dtype, at);
    for (size_t i = 0; i < bytes; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (uint8_t)(seed >> 24);
    }
    for (size_t b = 0; b < bytes; b += block)
        for (int i = 0; i < 2 && at[i] >= 0; i++)
            memcpy(data + b + at[i], &scales[(b / block * 5 + (size_t)i) % 6], 2);
    return data;
}

static cab_backend *open_isa(const char *isa)
{
    cab_backend *backend = NULL;
    setenv("CAB_CPU_ISA", isa, 1);
    check_ok(cab_backend_open("cpu", &backend));
    unsetenv("CAB_CPU_ISA");
    return backend;
}

typedef struct blocks_case {
    cab_dtype stored, dtype;
    int64_t m, n, k;
    bool biased;
} blocks_case;

static void run_case(const blocks_case *c, const char *isa)
{
    cab_backend *backend = open_isa(isa);
    cab_params *params = NULL;
    cab_graph *g = NULL;
    cab_plan plan;
    cab_tensor *w = NULL, *b = NULL;
    uint8_t *blocks = make_blocks(c->stored, c->n * c->k);
    float *expanded = malloc((size_t)(c->n * c->k) * sizeof *expanded);
    float *x = malloc((size_t)(c->m * c->k) * sizeof *x), *y = malloc((size_t)(c->m * c->n) * sizeof *y);
    float *bias = malloc((size_t)c->n * sizeof *bias);
    assert_true(expanded != NULL && x != NULL && y != NULL && bias != NULL);
    cab_blocks_expand(c->stored, blocks, expanded, c->n * c->k);
    for (int64_t i = 0; i < c->m * c->k; i++)
        x[i] = (float)((i * 37 + i / 11) % 65 - 32) / 32.0f; /* a bf16 number */
    for (int64_t i = 0; i < c->n; i++)
        bias[i] = (float)(i % 7) - 3;
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_params_add_mapped(params, "w", c->stored, 2, (int64_t[]){c->n, c->k}, blocks, &w));
    check_ok(cab_params_add(params, "b", CAB_F32, 1, &c->n, CAB_NO_DECAY, &b));
    check_ok(cab_params_write(params, b, bias));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *in = cab_graph_input(g, "x", c->dtype, 2, (int64_t[]){c->m, c->k});
    cab_tensor *out = cab_linear(g, in, w, c->biased ? b : NULL, CAB_OUT_IN);
    cab_graph_keep(g, out);
    check_ok(cab_graph_plan(g, &plan));
    cab_convert(in->data, c->dtype, x, CAB_F32, (size_t)(c->m * c->k));
    check_ok(cab_graph_run(g));
    cab_convert(y, CAB_F32, out->data, c->dtype, (size_t)(c->m * c->n));
    double difference = 0, size = 0;
    for (int64_t i = 0; i < c->m; i++)
        for (int64_t o = 0; o < c->n; o++) {
            double sum = c->biased ? (double)bias[o] : 0;
            for (int64_t e = 0; e < c->k; e++)
                sum += (double)x[i * c->k + e] * (double)expanded[o * c->k + e];
            difference += (y[i * c->n + o] - sum) * (y[i * c->n + o] - sum);
            size += sum * sum;
        }
    const double tolerance = c->dtype == CAB_F32 ? (c->m > 4 ? 1e-6 : 1e-4) : 6e-3; /* few rows: 16 bits */
    if (!(sqrt(difference) <= tolerance * sqrt(size)))
        fail_msg("%s, %s, %s, %lld x %lld x %lld: %g away, at most %g", cab_dtype_name(c->stored),
                 cab_dtype_name(c->dtype), isa, (long long)c->m, (long long)c->n, (long long)c->k,
                 sqrt(difference / size), tolerance);
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
    free(blocks);
    free(expanded);
    free(x);
    free(y);
    free(bias);
}

static void multiplies_as_what_is_expanded_first(void **state)
{
    (void)state;
    for (int t = 0; t < TYPES; t++) {
        const int64_t block = cab_dtype_block(types[t]);
        for (int i = 0; i < 3; i++)
            for (int low = 0; low < 2; low++) {
                const cab_dtype dtype = low ? CAB_BF16 : CAB_F32;
                run_case(&(blocks_case){types[t], dtype, 1, 7, 3 * block, true}, isas[i]);
                run_case(&(blocks_case){types[t], dtype, 4, 33, 768, false}, isas[i]);
                run_case(&(blocks_case){types[t], dtype, 5, 1, block, true}, isas[i]);
                run_case(&(blocks_case){types[t], dtype, 19, 71, 1280, true}, isas[i]);
            }
    }
}

/* Tiles have 512 rows here, and the last 3. */
static void more_rows_than_a_tile(void **state)
{
    (void)state;
    run_case(&(blocks_case){CAB_Q4_1, CAB_F32, 6, 2 * 512 + 3, 1024, true}, "v4");
    run_case(&(blocks_case){CAB_Q4_K, CAB_BF16, 6, 2 * 512 + 3, 1024, true}, "v4");
}

static void embeds_the_expanded_rows(void **state)
{
    (void)state;
    enum { ROWS = 9, COLUMNS = 768 };
    const int32_t ids[5] = {8, 0, 3, 3, 7};
    for (int t = 0; t < TYPES; t++)
        for (int i = 0; i < 3; i++) {
            cab_backend *backend = open_isa(isas[i]);
            cab_params *params = NULL;
            cab_graph *g = NULL;
            cab_plan plan;
            cab_tensor *table = NULL;
            float expanded[ROWS * COLUMNS];
            uint8_t *blocks = make_blocks(types[t], ROWS * COLUMNS);
            cab_blocks_expand(types[t], blocks, expanded, ROWS * COLUMNS);
            check_ok(cab_params_new(backend, &params));
            check_ok(cab_params_add_mapped(params, "e", types[t], 2, (int64_t[]){ROWS, COLUMNS}, blocks, &table));
            check_ok(cab_graph_new(backend, &g));
            cab_tensor *in = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){1, 5});
            cab_tensor *out = cab_embedding(g, in, table, NULL, NULL, NULL, CAB_F32);
            cab_graph_keep(g, out);
            check_ok(cab_graph_plan(g, &plan));
            memcpy(in->data, ids, sizeof ids);
            check_ok(cab_graph_run(g));
            for (int e = 0; e < 5 * COLUMNS; e++) /* the same numbers, at every instruction set */
                assert_true(((const float *)out->data)[e] == expanded[ids[e / COLUMNS] * COLUMNS + e % COLUMNS]);
            cab_graph_free(g);
            cab_params_free(params);
            cab_backend_close(backend);
            free(blocks);
        }
}

/* Frozen, and no gradient flows back through it: both are said by name. */
static void does_not_train(void **state)
{
    (void)state;
    cab_backend *backend = open_isa("v4");
    cab_params *params = NULL;
    cab_graph *g = NULL;
    cab_plan plan;
    cab_tensor *w = NULL, *first = NULL;
    uint8_t *blocks = make_blocks(CAB_Q8_0, 4 * 32);
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_params_add_mapped(params, "quantised.w", CAB_Q8_0, 2, (int64_t[]){4, 32}, blocks, &w));
    check_ok(cab_params_add(params, "first", CAB_F32, 2, (int64_t[]){32, 8}, CAB_DECAY, &first));
    assert_int_equal(cab_params_set_trainable(params, "quantised.w", true, NULL), CAB_EARG);
    assert_non_null(strstr(cab_error_text(), "\"quantised.w\" was loaded frozen and cannot train"));
    check_ok(cab_params_set_trainable(params, "first", true, NULL));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *x = cab_graph_input(g, "x", CAB_F32, 2, (int64_t[]){3, 8});
    cab_tensor *y = cab_linear(g, cab_linear(g, x, first, NULL, CAB_OUT_IN), w, NULL, CAB_OUT_IN);
    cab_tensor *r = cab_graph_input(g, "r", CAB_F32, 2, (int64_t[]){3, 4});
    cab_graph_backward(g, 1, &y, &r);
    check_ok(cab_graph_plan(g, &plan));
    assert_int_equal(cab_graph_run(g), CAB_EUNSUPPORTED);
    assert_non_null(strstr(cab_error_text(), "\"quantised.w\" stays in Q8_0: no gradient flows back through it"));
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
    free(blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(multiplies_as_what_is_expanded_first),
                                       cmocka_unit_test(more_rows_than_a_tile),
                                       cmocka_unit_test(embeds_the_expanded_rows), cmocka_unit_test(does_not_train)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
