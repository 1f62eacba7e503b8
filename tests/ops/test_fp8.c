/* Linear layers in 8-bit floats against the same in fp64; where there is no GPU for them, how that is said. */
#include "ops/check.h"
#include "ops/fp8.h"

enum { ROWS = 336, IN = 192, OUT = 144, LEFT = 8, LAYERS = 2 };

/* Two layers, (out, in) with a bias and (in, out) without, on columns of a wider input. */
typedef struct layers {
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *whole, *w[LAYERS], *y[LAYERS];
    double *x, *weights[LAYERS], *bias;
} layers;

static cab_tensor *matrix(layers *l, const char *name, int64_t rows, int64_t columns, const double *values)
{
    float f[IN * OUT];
    cab_tensor *t;
    check_ok(cab_params_add(l->params, name, rows > 1 ? CAB_BF16 : CAB_F32, rows > 1 ? 2 : 1,
                            rows > 1 ? (int64_t[]){rows, columns} : (int64_t[]){columns}, CAB_DECAY, &t));
    for (int64_t i = 0; i < rows * columns; i++)
        f[i] = (float)values[i];
    check_ok(cab_params_write(l->params, t, f));
    t->fp8 = rows > 1 && cab_fp8_fits(t);
    return t;
}

static void open_layers(layers *l)
{
    cab_tensor *parts[2];
    check_ok(cab_params_new(l->backend, &l->params));
    check_ok(cab_graph_new(l->backend, &l->g));
    l->x = check_draw("fp8", 0, (int64_t)ROWS * IN, -3, 3, false);
    l->bias = check_draw("fp8", 1, OUT, -1, 1, false);
    for (int i = 0; i < LAYERS; i++)
        l->weights[i] = check_draw("fp8", 2 + i, IN * OUT, -0.1, 0.1, false);
    l->w[0] = matrix(l, "out_in", OUT, IN, l->weights[0]);
    l->w[1] = matrix(l, "in_out", IN, OUT, l->weights[1]);
    l->whole = cab_graph_input(l->g, "x", CAB_BF16, 2, (int64_t[]){ROWS, LEFT + IN});
    check_write(l->g, l->whole, l->x, IN, LEFT);
    cab_split(l->g, l->whole, 2, (int64_t[]){LEFT, IN}, parts);
    l->y[0] = cab_linear(l->g, parts[1], l->w[0], matrix(l, "bias", 1, OUT, l->bias), CAB_OUT_IN);
    l->y[1] = cab_linear(l->g, parts[1], l->w[1], NULL, CAB_IN_OUT);
    for (int i = 0; i < LAYERS; i++)
        cab_graph_keep(l->g, l->y[i]);
    check_ok(cab_graph_plan(l->g, NULL));
}

static void close_layers(layers *l)
{
    cab_graph_free(l->g);
    cab_params_free(l->params);
    cab_backend_close(l->backend);
    free(l->x);
    free(l->bias);
    for (int i = 0; i < LAYERS; i++)
        free(l->weights[i]);
}

static double *expected(const layers *l, int which)
{
    double *y = check_doubles((int64_t)ROWS * OUT);
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t o = 0; o < OUT; o++) {
            double sum = which == 0 ? l->bias[o] : 0;
            for (int64_t i = 0; i < IN; i++)
                sum += l->x[r * IN + i] * l->weights[which][which == 0 ? o * IN + i : i * OUT + o];
            y[r * OUT + o] = sum;
        }
    return y;
}

static int nodes_named(const cab_graph *g, const char *name)
{
    int n = 0;
    for (int i = 0; i < cab_graph_nodes(g); i++)
        n += strcmp(cab_graph_node(g, i)->op->name, name) == 0;
    return n;
}

/* Numbers of 3 bits have a relative error of 2.7 % (root mean square, uniform inputs), products of two 3.8 %. More than 1 %
 * shows that it was 8 bits indeed. */
static void test_linear(void **state)
{
    layers l = {0};
    (void)state;
    check_ok(cab_backend_open(check_device(), &l.backend));
    if (cab_fp8_check(l.backend) != CAB_OK) {
        print_message("%s\n", cab_error_text());
        cab_backend_close(l.backend);
        skip();
    }
    open_layers(&l);
    assert_int_equal(nodes_named(l.g, "quantise"), 1);
    assert_int_equal(nodes_named(l.g, "linear_fp8"), LAYERS);
    double *first[LAYERS] = {NULL};
    for (int run = 0; run < 3; run++) { /* listed, captured, replayed */
        check_ok(cab_graph_run(l.g));
        for (int i = 0; i < LAYERS; i++) {
            double *y = check_read(l.g, l.y[i], OUT, 0);
            if (run == 0)
                first[i] = y;
            else
                assert_memory_equal(first[i], y, (size_t)ROWS * OUT * sizeof *y);
            if (run > 0)
                free(y);
        }
    }
    for (int i = 0; i < LAYERS; i++) {
        double *y = expected(&l, i);
        const double distance = check_distance(first[i], y, (int64_t)ROWS * OUT);
        print_message("layer %d: %.1e of 4.5e-02\n", i, distance);
        assert_true(distance > 1e-2 && distance < 4.5e-2);
        free(y);
        free(first[i]);
    }
    close_layers(&l);
}

static void test_sizes(void **state)
{
    cab_tensor t = {.dtype = CAB_BF16, .n_dim = 2, .shape = {48, 64}};
    (void)state;
    assert_true(cab_fp8_fits(&t));
    t.shape[0] = 44;
    assert_false(cab_fp8_fits(&t));
    t.shape[0] = 48;
    t.dtype = CAB_F32;
    assert_false(cab_fp8_fits(&t));
}

static void test_refused(void **state)
{
    cab_backend *backend;
    (void)state;
    check_ok(cab_backend_open("cpu", &backend));
    assert_int_equal(cab_fp8_check(backend), CAB_EUNSUPPORTED);
    assert_non_null(strstr(cab_error_text(), "fp8 needs a GPU"));
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linear), cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
