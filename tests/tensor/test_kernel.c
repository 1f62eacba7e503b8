/* Which kernel a node gets: the first of its op and direction that fits it, with its scratch and the memory that it prepares. */
#include "toy.h"

/* double: y = 2 x, by three kernels that leave their mark in `ran`; its backward pass is for one column only. */
static const cab_op op_double = {.name = "double"};
static char ran;

static cab_status compute(const cab_node *node, char mark)
{
    ran = mark;
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->out[0]); c++)
            toy_row(node->out[0], r)[c] = 2 * toy_row(node->in[0], r)[c];
    return CAB_OK;
}

static cab_status for_one_column(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    return compute(node, '1');
}

static cab_status for_few_columns(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    return compute(node, '4');
}

static cab_status reference(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    return compute(node, 'r');
}

static cab_status give_double(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->gout[0]); r++)
        toy_give(node, 0, r, 0, 2 * toy_row(node->gout[0], r)[0]);
    return CAB_OK;
}

static int64_t columns_of(const cab_node *node)
{
    return cab_columns(node->backward ? node->gout[0] : node->in[0]);
}

static bool one_column(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return columns_of(node) == 1;
}

static bool few_columns(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return columns_of(node) <= 4;
}

static size_t seven(const cab_node *node, const cab_backend *backend)
{
    (void)node;
    (void)backend;
    return 7;
}

/* add_run: y = x + how many runs were prepared; the number is in memory of the node's own. */
static const cab_op op_add_run = {.name = "add_run"};

static cab_status count_run(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    ++*(float *)node->prepared;
    return CAB_OK;
}

static cab_status add_run(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    *(float *)node->out[0]->data = *(const float *)node->in[0]->data + *(const float *)node->prepared;
    return CAB_OK;
}

static size_t one_float(const cab_node *node, const cab_backend *backend)
{
    (void)node;
    (void)backend;
    return sizeof(float);
}

static const cab_kernel_row rows[] = {
    TOY_KERNELS,
    {.op = &op_double, .direction = CAB_FORWARD, .run = for_one_column, .fits = one_column},
    {.op = &op_double, .direction = CAB_FORWARD, .run = for_few_columns, .fits = few_columns, .scratch = seven},
    {.op = &op_double, .direction = CAB_FORWARD, .run = reference},
    {.op = &op_double, .direction = CAB_BACKWARD, .run = give_double, .fits = one_column},
    {.op = &op_add_run, .direction = CAB_FORWARD, .run = add_run, .prepare = count_run, .prepared = one_float}};
static const cab_kernel_table kernels = {.rows = rows, .n_row = sizeof rows / sizeof *rows};

static void test_first_that_fits(void **state)
{
    (void)state;
    const struct {
        int64_t columns;
        char kernel;
        size_t scratch;
    } cases[] = {{1, '1', 0}, {4, '4', 7}, {5, 'r', 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        toy_heap heap = toy_open_with(&kernels);
        cab_graph *g = NULL;
        assert_ok(cab_graph_new(&heap.backend, &g));
        cab_tensor *x = toy_input(g, 2, cases[i].columns, 1, 1);
        cab_tensor *y = toy_record(g, &op_double, 1, &x, 2, cases[i].columns);
        cab_graph_keep(g, y);
        assert_ok(cab_graph_plan(g, NULL));
        assert_int_equal(cab_graph_node(g, 0)->scratch_bytes, cases[i].scratch);
        assert_ok(cab_graph_run(g));
        assert_int_equal(ran, cases[i].kernel);
        cab_graph_free(g);
        assert_int_equal(heap.blocks, 0);
    }
}

static void test_none_that_fits(void **state)
{
    (void)state;
    for (int columns = 1; columns <= 2; columns++) {
        toy_heap heap = toy_open_with(&kernels);
        cab_graph *g = NULL;
        assert_ok(cab_graph_new(&heap.backend, &g));
        cab_tensor *x = toy_input(g, 2, columns, 1, 1);
        const cab_node node = {.op = &op_double, .backward = true, .gout = {x}};
        assert_int_equal(cab_graph_supports(g, &node), columns == 1);
        cab_tensor *y = toy_total(g, toy_record(g, &op_double, 1, &x, 2, columns));
        cab_graph_want_gradient(g, x);
        toy_backward(g, 1, &y);
        if (columns == 1)
            assert_ok(cab_graph_run(g));
        else
            assert_fails(cab_graph_run(g), CAB_EUNSUPPORTED, "double has no backward pass on toy");
        cab_graph_free(g);
        assert_int_equal(heap.blocks, 0);
    }
}

static void test_prepared_before_every_run(void **state)
{
    (void)state;
    toy_heap heap = toy_open_with(&kernels);
    cab_graph *g = NULL;
    cab_plan plan;
    assert_ok(cab_graph_new(&heap.backend, &g));
    cab_tensor *x = toy_input(g, 1, 1, 5, 0), *y = toy_record(g, &op_add_run, 1, &x, 1, 1);
    cab_graph_keep(g, y);
    assert_ok(cab_graph_plan(g, &plan));
    assert_int_equal(plan.inputs, 2 * sizeof(float)); /* x, and the node's own */
    for (int run = 1; run <= 3; run++) {
        assert_ok(cab_graph_run(g));
        toy_expect(g, y, (float[]){5 + (float)run});
    }
    cab_graph_free(g);
    assert_int_equal(heap.blocks, 0);
}

/* Outside any list, as a frozen weight is converted once. */
static void test_alone(void **state)
{
    (void)state;
    toy_heap heap = toy_open_with(&kernels);
    float from[] = {1, 2, 3, 4}, to[4] = {0};
    cab_tensor x = {.dtype = CAB_F32, .n_dim = 2, .shape = {1, 4}, .ld = 4, .data = from}, y = x;
    y.data = to;
    cab_node node = {.op = &op_double, .n_in = 1, .n_out = 1, .in = {&x}, .out = {&y}};
    assert_ok(cab_node_run_alone(&node, &heap.backend));
    assert_int_equal(ran, '4');
    assert_memory_equal(to, ((float[]){2, 4, 6, 8}), sizeof to);
    assert_int_equal(heap.blocks, 0);
    node.backward = true;
    node.gout[0] = &y;
    assert_fails(cab_node_run_alone(&node, &heap.backend), CAB_EUNSUPPORTED, "double has no backward pass on toy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_first_that_fits), cmocka_unit_test(test_none_that_fits),
                                       cmocka_unit_test(test_prepared_before_every_run), cmocka_unit_test(test_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
