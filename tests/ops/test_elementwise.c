/* Activations, gates and sums against their formulas in fp64. */
#include "ops/gpu.h"

/* ---- activate --------------------------------------------------------------------------------------------------------- */

static void record_activate(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_activate(g, in[0], *(const cab_activation_kind *)argument);
}

static double activation(cab_activation_kind kind, double x)
{
    switch (kind) {
    case CAB_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case CAB_GELU_ERF:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case CAB_SILU:
        return x / (1 + exp(-x));
    case CAB_RELU:
        return x > 0 ? x : 0;
    case CAB_TANH:
        return tanh(x);
    }
    return 0;
}

static void reference_activate(const check_case *c, double *const *in, double **out)
{
    int64_t n = check_count(c->in[0].n_dim, c->in[0].shape);
    for (int64_t i = 0; i < n; i++)
        out[0][i] = activation(*(const cab_activation_kind *)c->argument, in[0][i]);
}

static void test_activate(void **state)
{
    (void)state;
    static const char *const names[] = {"gelu_tanh", "gelu_erf", "silu", "relu", "tanh"};
    static const check_input shapes[] = {
        {CHECK_ACTIVATION, 3, {2, 7, 21}, -6, 6},
        {CHECK_ACTIVATION, 3, {1, 1, 1}, -3, 3},
        {CHECK_ACTIVATION, 2, {2, 600}, -20, 20},
    };
    for (cab_activation_kind kind = CAB_GELU_TANH; kind <= CAB_TANH; kind++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            check_run(&(check_case){.name = names[kind],
                                    .n_in = 1,
                                    .in = {shapes[i]},
                                    .n_out = 1,
                                    .n_seeded = 1,
                                    .record = record_activate,
                                    .reference = reference_activate,
                                    .argument = &kind});
}

/* ---- glu and gate ------------------------------------------------------------------------------------------------------- */

static void record_glu(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_glu(g, in[0], in[1], *(const cab_activation_kind *)argument);
}

static void reference_glu(const check_case *c, double *const *in, double **out)
{
    int64_t n = check_count(c->in[0].n_dim, c->in[0].shape);
    for (int64_t i = 0; i < n; i++)
        out[0][i] = activation(*(const cab_activation_kind *)c->argument, in[0][i]) * in[1][i];
}

static void test_glu(void **state)
{
    (void)state;
    static const int64_t columns[] = {1, 37, 600};
    for (cab_activation_kind kind = CAB_GELU_TANH; kind <= CAB_TANH; kind++)
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
            check_run(&(check_case){.name = "glu",
                                    .n_in = 2,
                                    .in = {{CHECK_ACTIVATION, 3, {2, 3, columns[i]}, -4, 4},
                                           {CHECK_ACTIVATION, 3, {2, 3, columns[i]}, 0, 0}},
                                    .n_out = 1,
                                    .n_seeded = 1,
                                    .record = record_glu,
                                    .reference = reference_glu,
                                    .argument = &kind});
}

static void record_gate(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_gate(g, in[0], in[1], argument ? NULL : in[2]);
}

static void reference_gate(const check_case *c, double *const *in, double **out)
{
    int64_t columns = c->in[0].shape[c->in[0].n_dim - 1], n = check_count(c->in[0].n_dim, c->in[0].shape);
    for (int64_t i = 0; i < n; i++)
        out[0][i] = in[0][i] * activation(CAB_SILU, in[1][i] + (c->argument ? 0 : in[2][i % columns]));
}

static void test_gate(void **state)
{
    (void)state;
    static const int64_t columns[] = {1, 48, 515};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        for (int biased = 0; biased < 2; biased++)
            check_run(&(check_case){.name = "gate",
                                    .n_in = 2 + biased,
                                    .in = {{CHECK_ACTIVATION, 2, {3, columns[i]}, 0, 0},
                                           {CHECK_ACTIVATION, 2, {3, columns[i]}, -4, 4},
                                           {CHECK_PARAMETER, 1, {columns[i]}, 0, 0}},
                                    .n_out = 1,
                                    .n_seeded = 1,
                                    .record = record_gate,
                                    .reference = reference_gate,
                                    .argument = biased ? NULL : &biased});
}

/* ---- add ------------------------------------------------------------------------------------------------------------------ */

static void record_add(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_add(g, *(const int *)argument, in);
}

static void reference_add(const check_case *c, double *const *in, double **out)
{
    int64_t n = check_count(c->in[0].n_dim, c->in[0].shape);
    for (int64_t i = 0; i < n; i++) {
        out[0][i] = 0;
        for (int k = 0; k < c->n_in; k++)
            out[0][i] += in[k][i];
    }
}

static void test_add(void **state)
{
    (void)state;
    for (int n = 2; n <= 4; n++)
        check_run(&(check_case){.name = "add",
                                .n_in = n,
                                .in = {{CHECK_ACTIVATION, 3, {2, 3, 19}, 0, 0},
                                       {CHECK_ACTIVATION, 3, {2, 3, 19}, 0, 0},
                                       {CHECK_ACTIVATION, 3, {2, 3, 19}, 0, 0},
                                       {CHECK_ACTIVATION, 3, {2, 3, 19}, 0, 0}},
                                .n_out = 1,
                                .n_seeded = 1,
                                .record = record_add,
                                .reference = reference_add,
                                .argument = &n});
}

/* argument: which one */
static void record_any(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    switch (*(const int *)argument) {
    case 0:
        out[0] = cab_activate(g, in[0], CAB_GELU_TANH);
        break;
    case 1:
        out[0] = cab_glu(g, in[0], in[1], CAB_SILU);
        break;
    case 2:
        out[0] = cab_gate(g, in[0], in[1], in[2]);
        break;
    case 3:
        out[0] = cab_add(g, 2, in);
        break;
    case 4:
        out[0] = cab_mean(g, 2, in);
        break;
    default:
        out[0] = cab_glu(g, in[0], in[1], CAB_GELU_TANH);
    }
}

static void test_threads(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++)
        check_threads(&(check_case){.name = "elementwise",
                                    .n_in = which == 2   ? 3
                                            : which == 0 ? 1
                                                         : 2,
                                    .in = {{CHECK_ACTIVATION, 3, {2, 37, 523}, -3, 3},
                                           {CHECK_ACTIVATION, 3, {2, 37, 523}, -3, 3},
                                           {CHECK_PARAMETER, 1, {523}, 0, 0}},
                                    .n_out = 1,
                                    .n_seeded = 1,
                                    .record = record_any,
                                    .argument = &which});
}

/* Rows of whole packets, of none, and many rows: the partial sums of the gate's bias. */
static void test_gpu(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {{2, 300, 768}, {1, 2500, 257}, {3, 1, 4096}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int which = 0; which < 6; which++) {
            const int64_t *s = shapes[i];
            gpu_compare(&(check_case){.name = "elementwise on the GPU",
                                      .n_in = which == 2   ? 3
                                              : which == 0 ? 1
                                                           : 2,
                                      .in = {{CHECK_ACTIVATION, 3, {s[0], s[1], s[2]}, -3, 3},
                                             {CHECK_ACTIVATION, 3, {s[0], s[1], s[2]}, -3, 3},
                                             {CHECK_PARAMETER, 1, {s[2]}, 0, 0}},
                                      .n_out = 1,
                                      .n_seeded = 1,
                                      .record = record_any,
                                      .argument = &which},
                        1e-5, 1e-2);
        }
}

static void test_shapes_must_fit(void **state)
{
    (void)state;
    cab_backend *backend;
    cab_graph *g;
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *a = cab_graph_input(g, "a", CAB_F32, 2, (int64_t[]){2, 3});
    cab_tensor *b = cab_graph_input(g, "b", CAB_F32, 2, (int64_t[]){3, 2});
    assert_null(cab_add(g, 2, (cab_tensor *[]){a, b}));
    assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "add"));
    assert_null(cab_glu(g, a, a, CAB_SILU));
    cab_graph_free(g);
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_activate),       cmocka_unit_test(test_glu),
                                       cmocka_unit_test(test_gate),           cmocka_unit_test(test_add),
                                       cmocka_unit_test(test_threads),        cmocka_unit_test(test_gpu),
                                       cmocka_unit_test(test_shapes_must_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
