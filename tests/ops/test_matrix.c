/* The linear layer in both weight layouts against three loops in fp64, and products alone in every orientation. */
#include "ops/cpu/gemm.h"
#include "ops/gpu.h"

/* argument: bit 0 IN_OUT, bit 1 no bias */
static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    int flags = *(const int *)argument;
    out[0] = cab_linear(g, in[0], in[1], flags & 2 ? NULL : in[2], flags & 1 ? CAB_IN_OUT : CAB_OUT_IN);
}

static void reference(const check_case *c, double *const *in, double **out)
{
    int flags = *(const int *)c->argument;
    int64_t k = c->in[0].shape[c->in[0].n_dim - 1], n = c->in[2].shape[0];
    int64_t m = check_count(c->in[0].n_dim, c->in[0].shape) / k;
    for (int64_t r = 0; r < m; r++)
        for (int64_t o = 0; o < n; o++) {
            double sum = flags & 2 ? 0 : in[2][o];
            for (int64_t i = 0; i < k; i++)
                sum += in[0][r * k + i] * in[1][flags & 1 ? i * n + o : o * k + i];
            out[0][r * n + o] = sum;
        }
}

static void run(check_kind kind, int flags, int64_t batch, int64_t length, int64_t in, int64_t out)
{
    check_run(&(check_case){.name = "linear",
                            .n_in = flags & 2 ? 2 : 3,
                            .in = {{CHECK_ACTIVATION, 3, {batch, length, in}, 0, 0},
                                   {kind, 2, {flags & 1 ? in : out, flags & 1 ? out : in}, 0, 0},
                                   {kind, 1, {out}, 0, 0}},
                            .n_out = 1,
                            .n_seeded = 1,
                            .record = record,
                            .reference = reference,
                            .argument = &flags});
}

static void test_linear(void **state)
{
    (void)state;
    for (int flags = 0; flags < 4; flags++) {
        run(CHECK_PARAMETER, flags, 2, 5, 12, 9);
        run(CHECK_PARAMETER, flags, 1, 1, 17, 6);
        run(CHECK_PARAMETER, flags, 1, 3, 1, 5);
        run(CHECK_PARAMETER, flags, 1, 4, 7, 1);
        run(CHECK_FROZEN, flags, 1, 7, 20, 8);
        run(CHECK_FROZEN, flags, 1, 1, 75,
            1035); /* a few rows: threads, pieces of columns, and what is left of vectors */
        run(CHECK_FROZEN, flags, 1, 4, 35, 513);
    }
}

static void record_logits(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    int flags = *(const int *)argument;
    out[0] = cab_linear_logits(g, in[0], in[1], flags & 2 ? NULL : in[2], flags & 1 ? CAB_IN_OUT : CAB_OUT_IN);
}

/* Not rounded to the activations' dtype: a few rows and many, few columns and many. */
static void test_logits(void **state)
{
    (void)state;
    static const int64_t sizes[][3] = {{1, 24, 40}, {3, 96, 16}, {17, 72, 72}, {9, 16, 128}};
    for (int flags = 0; flags < 4; flags++)
        for (int i = 0; i < 4; i++)
            check_run(&(check_case){
                .name = "logits",
                .n_in = flags & 2 ? 2 : 3,
                .in = {{CHECK_CONSTANT, 3, {1, sizes[i][0], sizes[i][1]}, 0, 0},
                       {CHECK_FROZEN, 2, {sizes[i][flags & 1 ? 1 : 2], sizes[i][flags & 1 ? 2 : 1]}, 0, 0},
                       {CHECK_FROZEN, 1, {sizes[i][2]}, 0, 0}},
                .n_out = 1,
                .record = record_logits,
                .reference = reference,
                .argument = &flags,
                .low_forward = 1e-5});
}

/* Words of which the largest is taken, and no more: a gradient is refused. */
static void test_logits_do_not_train(void **state)
{
    (void)state;
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *w;
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_params_add(params, "head", CAB_F32, 2, (int64_t[]){16, 8}, CAB_DECAY, &w));
    check_ok(cab_params_set_trainable(params, "head", true, NULL));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *y = cab_linear_logits(g, cab_graph_input(g, "x", CAB_BF16, 2, (int64_t[]){3, 8}), w, NULL, CAB_OUT_IN);
    cab_tensor *seed = cab_graph_input(g, "r", CAB_F32, 2, (int64_t[]){3, 16});
    cab_graph_backward(g, 1, &y, &seed);
    check_ok(cab_graph_plan(g, NULL));
    assert_int_equal(cab_graph_run(g), CAB_EUNSUPPORTED);
    assert_non_null(strstr(cab_error_text(), "\"head\" gives logits: no gradient flows back through it"));
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
}

/* More rows than a chunk of dW. */
static void test_linear_long(void **state)
{
    (void)state;
    for (int flags = 0; flags < 2; flags++)
        check_run(&(check_case){.name = "linear",
                                .n_in = 3,
                                .in = {{CHECK_CONSTANT, 3, {2, 1101, 5}, 0, 0},
                                       {CHECK_PARAMETER, 2, {flags ? 5 : 3, flags ? 3 : 5}, 0, 0},
                                       {CHECK_PARAMETER, 1, {3}, 0, 0}},
                                .n_out = 1,
                                .n_seeded = 1,
                                .record = record,
                                .reference = reference,
                                .argument = &flags});
}

/* Rows of y begin at multiples of 8, also those of its gradient. argument: bit 0 IN_OUT, the columns of the first part */
static void record_padded(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const int *a = argument;
    cab_tensor *y = cab_linear_padded(g, in[0], in[1], in[2], a[0] ? CAB_IN_OUT : CAB_OUT_IN), *parts[2] = {NULL};
    if (y != NULL) {
        assert_int_equal(y->ld, (cab_columns(y) + 7) / 8 * 8);
        cab_split(g, y, 2, (int64_t[]){a[1], cab_columns(y) - a[1]}, parts);
    }
    for (int i = 0; i < 2; i++)
        out[i] = cab_activate(g, parts[i], CAB_TANH);
}

static void padded_reference(const check_case *c, double *const *in, double **out)
{
    const int *a = c->argument;
    const int64_t n = c->in[2].shape[0], m = check_count(2, c->in[0].shape), first = a[1], rest = n - first;
    const check_case whole = {.in = {c->in[0], c->in[1], c->in[2]}, .argument = &(int){a[0]}};
    double *y = check_doubles(m * n);
    reference(&whole, in, &y);
    for (int64_t i = 0; i < m * n; i++) {
        const int64_t row = i / n, column = i % n;
        *(column < first ? &out[0][row * first + column] : &out[1][row * rest + column - first]) = tanh(y[i]);
    }
    free(y);
}

static void test_linear_padded(void **state)
{
    (void)state;
    for (int layout = 0; layout < 2; layout++)
        check_run(&(check_case){.name = "linear, padded",
                                .n_in = 3,
                                .in = {{CHECK_ACTIVATION, 3, {2, 5, 12}, 0, 0},
                                       {CHECK_PARAMETER, 2, {layout ? 12 : 9, layout ? 9 : 12}, 0, 0},
                                       {CHECK_PARAMETER, 1, {9}, 0, 0}},
                                .n_out = 2,
                                .n_seeded = 2,
                                .record = record_padded,
                                .reference = padded_reference,
                                .argument = (int[]){layout, 6}});
}

/* Large enough for products in parts (product_parts.h), once along every size; kernels of ours are in none of these parts that
 * are not in the other cases. */
static void test_linear_padded_gpu(void **state)
{
    (void)state;
    if (check_slow())
        skip();
    const struct {
        int64_t rows, in, out;
    } sizes[] = {{1500, 768, 1004}, {1403, 1024, 777}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int layout = 0; layout < 2; layout++) {
            const int64_t in = sizes[i].in, out = sizes[i].out;
            gpu_compare(&(check_case){.name = "linear, padded",
                                      .n_in = 3,
                                      .in = {{CHECK_ACTIVATION, 3, {1, sizes[i].rows, in}, 0, 0},
                                             {CHECK_PARAMETER, 2, {layout ? in : out, layout ? out : in}, 0, 0},
                                             {CHECK_PARAMETER, 1, {out}, 0, 0}},
                                      .n_out = 2,
                                      .n_seeded = 2,
                                      .record = record_padded,
                                      .argument = (int[]){layout, 512}},
                        2e-5, 1e-2);
        }
}

/* The first and the last of the four combinations of layout and bias say all there is to say of either: check_slow() takes these. */
static int next_flags(int flags)
{
    return flags + (check_slow() ? 3 : 1);
}

/* Tiles, split sums and vectors of the GPU's products; widths that are no multiple of anything; at last more rows of a part than stand in
 * shared memory at a time. check_slow(): a quarter of the rows of large products. */
static void test_linear_gpu(void **state)
{
    (void)state;
    const struct {
        int64_t batch, length, in, out;
    } sizes[] = {{2, 300, 192, 384}, {1, 333, 257, 131}, {4, 1100, 64, 72},  {3, 7, 1024, 40},  {5, 197, 384, 44},
                 {7, 197, 12, 384},  {13, 197, 16, 128}, {3, 197, 768, 56},  {1, 300, 24, 768}, {1, 1, 8, 8},
                 {1, 300, 8, 520},   {1, 100, 32, 136},  {1, 4500, 1032, 8}, {2, 13000, 16, 32}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int flags = 0; flags < 4; flags = next_flags(flags)) {
            const int64_t in = sizes[i].in, out = sizes[i].out;
            const bool fewer = check_slow() && in > 64 && out > 64;
            const int64_t length = fewer ? sizes[i].length / 4 : sizes[i].length;
            const check_case c = {.name = "linear",
                                  .n_in = flags & 2 ? 2 : 3,
                                  .in = {{CHECK_ACTIVATION, 3, {sizes[i].batch, length, in}, 0, 0},
                                         {CHECK_PARAMETER, 2, {flags & 1 ? in : out, flags & 1 ? out : in}, 0, 0},
                                         {CHECK_PARAMETER, 1, {out}, 0, 0}},
                                  .n_out = 1,
                                  .n_seeded = 1,
                                  .record = record,
                                  .argument = &flags};
            gpu_compare(&c, 1e-5, 5e-3);
        }
}

/* As the parts of a Mamba mixer's projection are used: two layers of few outputs on the same x, and layers of few inputs on
 * 12, 16 and 16 of 44 columns, the last of them twice. */
static void record_parts(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    cab_tensor *parts[3];
    (void)argument;
    out[0] = cab_linear(g, in[0], in[1], NULL, CAB_OUT_IN);
    cab_split(g, cab_linear(g, in[0], in[1], NULL, CAB_OUT_IN), 3, (int64_t[]){12, 16, 16}, parts);
    out[1] = cab_linear(g, parts[0], in[2], NULL, CAB_OUT_IN);
    out[2] = cab_linear(g, parts[1], in[3], in[4], CAB_OUT_IN);
    out[3] = cab_linear(g, parts[2], in[3], in[4], CAB_OUT_IN);
    out[4] = cab_linear(g, parts[2], in[3], NULL, CAB_OUT_IN);
}

static void test_linear_parts_gpu(void **state)
{
    (void)state;
    gpu_compare(&(check_case){.name = "linear of parts",
                              .n_in = 5,
                              .in = {{CHECK_DENSE, 3, {3, 333, 384}, 0, 0},
                                     {CHECK_PARAMETER, 2, {44, 384}, 0, 0},
                                     {CHECK_PARAMETER, 2, {384, 12}, 0, 0},
                                     {CHECK_PARAMETER, 2, {128, 16}, 0, 0},
                                     {CHECK_PARAMETER, 1, {128}, 0, 0}},
                              .n_out = 5,
                              .n_seeded = 5,
                              .record = record_parts},
                2e-5, 1e-2);
}

/* As a layer that GELU follows, which a GPU computes in one go; of the second layer what GELU reads is read again. argument: as
 * of record() */
static void record_gelu(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    cab_tensor *y[1];
    record(g, in, y, argument);
    out[0] = cab_activate(g, y[0], CAB_GELU_TANH);
    record(g, in, y, argument);
    out[1] = cab_activate(g, y[0], CAB_GELU_TANH);
    out[2] = cab_activate(g, y[0], CAB_TANH);
}

static void test_linear_gelu_gpu(void **state)
{
    (void)state;
    const struct {
        int64_t length, in, out;
    } sizes[] = {{333, 192, 768}, {1001, 768, 200}, {197, 128, 192}, {1, 256, 1024}, {100, 257, 131}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int flags = 0; flags < 4; flags = next_flags(flags)) {
            const int64_t in = sizes[i].in, out = sizes[i].out;
            const int64_t length = check_slow() && sizes[i].length > 200 ? sizes[i].length / 8 : sizes[i].length;
            gpu_compare(&(check_case){.name = "linear and GELU",
                                      .n_in = flags & 2 ? 2 : 3,
                                      .in = {{CHECK_ACTIVATION, 3, {2, length, in}, 0, 0},
                                             {CHECK_PARAMETER, 2, {flags & 1 ? in : out, flags & 1 ? out : in}, 0, 0},
                                             {CHECK_PARAMETER, 1, {out}, 0, 0}},
                                      .n_out = 3,
                                      .n_seeded = 3,
                                      .record = record_gelu,
                                      .argument = &flags},
                        1e-5, 1e-2);
        }
}

/* Products share their work among threads and sum in parts: always the same parts. */
static void test_linear_repeats(void **state)
{
    (void)state;
    enum { ROWS = 700, IN = 96, OUT = 130 };
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *w;
    static float first[OUT * IN], again[OUT * IN];
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    check_ok(cab_params_add(params, "w", CAB_F32, 2, (int64_t[]){OUT, IN}, CAB_DECAY, &w));
    check_ok(cab_params_set_trainable(params, "w", true, NULL));
    cab_tensor *x = cab_graph_input(g, "x", CAB_BF16, 2, (int64_t[]){ROWS, IN});
    cab_tensor *y = cab_linear(g, x, w, NULL, CAB_OUT_IN);
    cab_tensor *dy = cab_graph_input(g, "dy", CAB_BF16, 2, (int64_t[]){ROWS, OUT});
    double *values[] = {check_draw("repeats", 0, ROWS * IN, -1, 1, false),
                        check_draw("repeats", 1, ROWS * OUT, -1, 1, false)};
    check_write(g, x, values[0], IN, 0);
    check_write(g, dy, values[1], OUT, 0);
    cab_graph_backward(g, 1, &y, &dy);
    for (int run = 0; run < 5; run++) {
        check_ok(cab_params_zero_grad(params));
        check_ok(cab_graph_run(g));
        check_ok(cab_params_read_grad(params, w, run == 0 ? first : again));
        assert_true(run == 0 || memcmp(first, again, sizeof first) == 0);
    }
    assert_true(first[0] != 0.0f);
    free(values[0]);
    free(values[1]);
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
}

static void test_wrong_shapes(void **state)
{
    (void)state;
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *w;
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    check_ok(cab_params_add(params, "w", CAB_F32, 2, (int64_t[]){4, 3}, CAB_DECAY, &w));
    cab_tensor *x = cab_graph_input(g, "x", CAB_F32, 2, (int64_t[]){2, 4});
    assert_null(cab_linear(g, x, w, NULL, CAB_OUT_IN));
    assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "(4, 3)"));
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
}

/* ---- products alone ----------------------------------------------------------------------------------------------------- */

enum { B0 = 2, B1 = 3, GAP = 3 };

typedef struct sizes {
    int64_t m, n, k;
} sizes;

/* A batched operand with gaps between its lines, as numbers and as stored. */
typedef struct operand {
    cab_side side;
    int64_t rows, columns, elements;
    double *values;
    void *data;
} operand;

static double *element(operand *o, int64_t i, int64_t j, int64_t r, int64_t c)
{
    return &o->values[i * o->side.batch[0] + j * o->side.batch[1] + r * o->side.row + c * o->side.column];
}

static operand make_operand(int which, cab_dtype dtype, int64_t rows, int64_t columns, bool transposed)
{
    int64_t line = (transposed ? rows : columns) + GAP, size = (transposed ? columns : rows) * line;
    operand o = {
        .side = cab_side_dense(dtype, line, transposed), .rows = rows, .columns = columns, .elements = B0 * B1 * size};
    o.side.batch[0] = B1 * size;
    o.side.batch[1] = size;
    o.values = check_draw("product", which, o.elements, -1, 1, false);
    o.data = calloc((size_t)o.elements, sizeof(float));
    assert_non_null(o.data);
    for (int64_t i = 0; i < o.elements; i++) {
        float value = (float)o.values[i];
        cab_convert((char *)o.data + (size_t)i * cab_dtype_size(dtype), dtype, &value, CAB_F32, 1);
    }
    return o;
}

static void expected_product(const sizes *z, operand *a, operand *b, operand *c, bool accumulate)
{
    for (int64_t i = 0; i < B0; i++)
        for (int64_t j = 0; j < B1; j++)
            for (int64_t r = 0; r < z->m; r++)
                for (int64_t s = 0; s < z->n; s++) {
                    double sum = accumulate ? *element(c, i, j, r, s) : 0;
                    for (int64_t k = 0; k < z->k; k++)
                        sum += *element(a, i, j, r, k) * *element(b, i, j, k, s);
                    *element(c, i, j, r, s) = sum;
                }
}

static void check_product(cab_backend *backend, const sizes *z, cab_dtype dtype, cab_dtype result, int flags)
{
    bool accumulate = flags & 4, serial = flags & 8;
    operand a = make_operand(0, dtype, z->m, z->k, flags & 1), b = make_operand(1, dtype, z->k, z->n, flags & 2);
    operand c = make_operand(2, result, z->m, z->n, false);
    cab_gemm_shape shape = {.m = z->m,
                            .n = z->n,
                            .k = z->k,
                            .batch = {B0, B1},
                            .a = a.side,
                            .b = b.side,
                            .c = c.side,
                            .accumulate = accumulate,
                            .serial = serial};
    const cab_gemm *gemm, *again;
    check_ok(cab_gemm_get(backend, &shape, &gemm));
    check_ok(cab_gemm_get(backend, &shape, &again));
    assert_ptr_equal(gemm, again);
    void *scratch;
    check_ok(cab_alloc(&scratch, cab_gemm_scratch(gemm), 1, "scratch"));
    check_ok(cab_gemm_run(gemm, a.data, b.data, c.data, NULL, scratch));
    expected_product(z, &a, &b, &c, accumulate);
    for (int64_t i = 0; i < c.elements; i++) {
        float got;
        cab_convert(&got, CAB_F32, (char *)c.data + (size_t)i * cab_dtype_size(result), result, 1);
        double slack = (result == CAB_F32 ? 1e-6 : 1e-2) * sqrt((double)z->k);
        if (!(fabs((double)got - c.values[i]) <= slack * (1 + fabs(c.values[i]))))
            fail_msg("product %s flags %d: element %d is %g, expected %g", cab_dtype_name(dtype), flags, (int)i,
                     (double)got, c.values[i]);
    }
    operand *all[] = {&a, &b, &c};
    for (int i = 0; i < 3; i++) {
        free(all[i]->values);
        free(all[i]->data);
    }
    cab_free(scratch);
}

/* v1: our own products for bf16; the large sizes cover several of its blocks. */
static void test_products(void **state)
{
    (void)state;
    static const char *const isas[] = {"v1", "v3", "v4"};
    static const sizes small = {5, 7, 6}, large = {101, 133, 261};
    for (size_t i = 0; i < 3; i++) {
        if (!check_have(isas[i]))
            continue;
        cab_backend *backend;
        setenv("CAB_CPU_ISA", isas[i], 1);
        check_ok(cab_backend_open("cpu", &backend));
        unsetenv("CAB_CPU_ISA");
        for (int flags = 0; flags < 16; flags++) {
            check_product(backend, &small, CAB_F32, CAB_F32, flags);
            check_product(backend, &small, CAB_BF16, CAB_F32, flags);
            check_product(backend, &small, CAB_BF16, CAB_BF16, flags);
        }
        for (int flags = 0; flags < 4; flags++)
            check_product(backend, &large, CAB_BF16, CAB_F32, flags);
        cab_backend_close(backend);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),           cmocka_unit_test(test_linear_long),
        cmocka_unit_test(test_linear_padded),    cmocka_unit_test(test_linear_padded_gpu),
        cmocka_unit_test(test_linear_gelu_gpu),  cmocka_unit_test(test_linear_gpu),
        cmocka_unit_test(test_linear_parts_gpu), cmocka_unit_test(test_linear_repeats),
        cmocka_unit_test(test_wrong_shapes),     cmocka_unit_test(test_products),
        cmocka_unit_test(test_logits),           cmocka_unit_test(test_logits_do_not_train)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
