/* Recording and running: failures that stick, views, lifetimes, recompute-free plans, eager mode. */
#include "toy.h"

static cab_status refuse(const cab_node *node, cab_backend *backend)
{
    (void)node;
    (void)backend;
    return cab_fail(CAB_EBACKEND, "the kernel refuses");
}

static cab_status leave_unwritten(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    *(float *)node->out[0]->data = 1;
    return CAB_OK;
}

static const cab_op op_refuse = {.name = "refuse"}, op_lazy = {.name = "lazy"};
static const cab_kernel_row rows[] = {TOY_KERNELS,
                                      {.op = &op_refuse, .direction = CAB_FORWARD, .run = refuse},
                                      {.op = &op_lazy, .direction = CAB_FORWARD, .run = leave_unwritten}};
static const cab_kernel_table kernels = {.rows = rows, .n_row = sizeof rows / sizeof *rows};

typedef struct fixture {
    toy_heap heap;
    cab_params *params;
    cab_graph *g;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL)
        return -1;
    f->heap = toy_open_with(&kernels);
    *state = f;
    return cab_params_new(&f->heap.backend, &f->params) == CAB_OK && cab_graph_new(&f->heap.backend, &f->g) == CAB_OK
               ? 0
               : -1;
}

/* Nothing may be left on the heap. */
static int teardown(void **state)
{
    fixture *f = *state;
    cab_graph_free(f->g);
    cab_params_free(f->params);
    int left = f->heap.blocks;
    free(f);
    return left;
}

static void run(fixture *f)
{
    assert_ok(cab_graph_plan(f->g, NULL));
    assert_ok(cab_graph_run(f->g));
}

static void test_first_failure_sticks(void **state)
{
    fixture *f = *state;
    cab_tensor *a = toy_input(f->g, 2, 3, 1, 1), *b = toy_input(f->g, 2, 4, 1, 1);
    assert_null(toy_mix(f->g, 2, (cab_tensor *[]){a, b}));
    assert_true(cab_graph_failed(f->g));
    assert_null(cab_graph_input(f->g, "late", CAB_F32, 1, (int64_t[]){1}));
    assert_null(cab_graph_fail(f->g, CAB_EARG, "a later failure"));
    assert_null(cab_reshape(f->g, a, 1, (int64_t[]){7}));
    cab_graph_backward(f->g, 0, NULL, NULL);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "mix: (2, 3) F32 and (2, 4) F32, expected the same");
    assert_fails(cab_graph_run(f->g), CAB_ESHAPE, "mix: ");
}

static void test_bad_shapes(void **state)
{
    static const struct {
        int n_dim;
        int64_t shape[5];
    } bad[] = {
        {1, {0}}, {1, {-4}}, {2, {INT64_MAX, 2}}, {0, {1}}, {5, {1, 1, 1, 1, 1}}, {3, {1 << 30, 1 << 30, 1 << 10}}};
    fixture *f = *state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cab_graph *g = NULL;
        assert_ok(cab_graph_new(&f->heap.backend, &g));
        assert_null(cab_graph_input(g, "strange", CAB_F32, bad[i].n_dim, bad[i].shape));
        assert_fails(cab_graph_plan(g, NULL), CAB_ESHAPE, "strange: ");
        cab_graph_free(g);
    }
}

static void test_plans_once(void **state)
{
    fixture *f = *state;
    cab_graph_keep(f->g, toy_running(f->g, toy_input(f->g, 2, 2, 1, 1)));
    assert_ok(cab_graph_plan(f->g, NULL));
    assert_fails(cab_graph_plan(f->g, NULL), CAB_EARG, "planned before");
    assert_ok(cab_graph_run(f->g));
}

static void test_runs_again_with_other_inputs(void **state)
{
    fixture *f = *state;
    cab_tensor *x = toy_input(f->g, 2, 2, 1, 1), *y = toy_running(f->g, x);
    cab_graph_keep(f->g, y);
    run(f);
    toy_expect(f->g, y, (float[]){1, 2, 4, 6});
    assert_ok(cab_tensor_write(f->g, x, (float[]){10, 0, 0, 5}));
    assert_ok(cab_graph_run(f->g));
    toy_expect(f->g, y, (float[]){10, 0, 10, 5});
}

static void test_split_views(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *x = toy_mix(f->g, 1, (cab_tensor *[]){toy_input(f->g, 2, 5, 1, 1)});
    cab_split(f->g, x, 2, (int64_t[]){2, 3}, parts);
    assert_int_equal(parts[1]->ld, 5);
    cab_tensor *left = toy_running(f->g, parts[0]), *right = toy_running(f->g, parts[1]);
    cab_graph_keep(f->g, left);
    cab_graph_keep(f->g, right);
    run(f);
    toy_expect(f->g, left, (float[]){1, 2, 7, 9});
    toy_expect(f->g, right, (float[]){3, 4, 5, 11, 13, 15});
}

static void test_split_of_a_part(void **state)
{
    fixture *f = *state;
    cab_tensor *outer[2], *inner[2], *x = toy_input(f->g, 2, 6, 1, 1);
    cab_split(f->g, x, 2, (int64_t[]){2, 4}, outer);
    cab_split(f->g, outer[1], 2, (int64_t[]){3, 1}, inner);
    cab_tensor *y = toy_running(f->g, inner[1]);
    cab_graph_keep(f->g, y);
    run(f);
    toy_expect(f->g, y, (float[]){6, 18});
}

static void test_split_sizes_must_sum_up(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[3];
    cab_split(f->g, toy_input(f->g, 2, 5, 0, 0), 3, (int64_t[]){2, 2, 2}, parts);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "sum to 6 columns, expected 5");
}

static void test_split_tensor_is_used_up(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *x = toy_input(f->g, 2, 4, 0, 0);
    cab_split(f->g, x, 2, (int64_t[]){2, 2}, parts);
    toy_running(f->g, x);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "running: \"input\" has been split");
}

static void test_split_twice_fails(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *x = toy_input(f->g, 2, 4, 0, 0);
    cab_split(f->g, x, 2, (int64_t[]){2, 2}, parts);
    cab_split(f->g, x, 2, (int64_t[]){1, 3}, parts);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "split: \"input\" has been split");
}

static void test_aliases_of_a_split_tensor_are_used_up(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *x = toy_input(f->g, 2, 4, 0, 0);
    cab_tensor *before = cab_reshape(f->g, x, 2, (int64_t[]){4, 2});
    cab_split(f->g, cab_reshape(f->g, x, 2, (int64_t[]){1, 8}), 2, (int64_t[]){4, 4}, parts);
    toy_running(f->g, before);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "has been split");
}

static void test_reshape_is_the_same_memory(void **state)
{
    fixture *f = *state;
    cab_tensor *x = toy_mix(f->g, 1, (cab_tensor *[]){toy_input(f->g, 2, 6, 1, 1)});
    cab_tensor *y = cab_reshape(f->g, x, 3, (int64_t[]){2, 3, 2}), *z = toy_running(f->g, y);
    cab_graph_keep(f->g, z);
    cab_graph_keep(f->g, y);
    run(f);
    assert_ptr_equal(x->data, y->data);
    assert_int_equal(cab_rows(y), 6);
    toy_expect(f->g, z, (float[]){1, 2, 4, 6, 9, 12, 16, 20, 25, 30, 36, 42});
}

static void test_reshape_wants_dense_memory_and_as_many_elements(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2];
    cab_split(f->g, toy_input(f->g, 2, 4, 0, 0), 2, (int64_t[]){2, 2}, parts);
    assert_null(cab_reshape(f->g, parts[0], 1, (int64_t[]){4}));
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "elements apart, expected");
    cab_graph *g = NULL;
    assert_ok(cab_graph_new(&f->heap.backend, &g));
    assert_null(cab_reshape(g, toy_input(g, 2, 4, 0, 0), 2, (int64_t[]){3, 3}));
    assert_fails(cab_graph_plan(g, NULL), CAB_ESHAPE, "has 8 elements, expected 9");
    cab_graph_free(g);
}

static void test_padded_rows(void **state)
{
    fixture *f = *state;
    cab_tensor *t = cab_graph_padded(f->g, "padded", CAB_F32, 3, (int64_t[]){2, 3, 5}, 4);
    assert_int_equal(t->ld, 8);
    assert_int_equal(cab_tensor_bytes(t), 2 * 3 * 8 * sizeof(float));
    assert_int_equal(cab_graph_padded(f->g, "full", CAB_BF16, 2, (int64_t[]){3, 16}, 8)->ld, 16);
    assert_null(cab_reshape(f->g, t, 2, (int64_t[]){5, 6}));
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "rows of \"padded\" are 8 elements apart, expected 5");
}

static void test_parameters_have_no_views(void **state)
{
    fixture *f = *state;
    cab_tensor *w = toy_parameter(f->params, "w", 4, (float[]){1, 2, 3, 4}), *parts[2];
    cab_split(f->g, w, 2, (int64_t[]){2, 2}, parts);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "split: \"w\" is a parameter");
}

static void test_dead_nodes_are_dropped(void **state)
{
    fixture *f = *state;
    cab_plan plan;
    cab_tensor *x = toy_input(f->g, 2, 2, 1, 1), *tap = toy_running(f->g, x), *y = tap;
    cab_graph_keep(f->g, tap);
    for (int i = 0; i < 3; i++)
        y = toy_mul(f->g, y, y);
    assert_ok(cab_graph_plan(f->g, &plan));
    assert_int_equal(plan.nodes, 1);
    assert_int_equal(plan.dropped, 3);
    assert_ok(cab_graph_run(f->g));
    toy_expect(f->g, tap, (float[]){1, 2, 4, 6});
    assert_fails(cab_tensor_read(f->g, y, (float[4]){0}), CAB_EARG, "was not kept");
}

static void test_unkept_tensors_cannot_be_read(void **state)
{
    fixture *f = *state;
    cab_tensor *y = toy_running(f->g, toy_input(f->g, 2, 2, 1, 1)), *z = toy_running(f->g, y);
    cab_graph_keep(f->g, z);
    run(f);
    assert_fails(cab_tensor_read(f->g, y, (float[4]){0}), CAB_EARG, "was not kept");
    assert_fails(cab_tensor_write(f->g, y, (float[4]){0}), CAB_EARG, "was not kept");
}

static void test_kept_columns_cannot_be_read_whole(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2];
    cab_split(f->g, toy_running(f->g, toy_input(f->g, 2, 4, 1, 1)), 2, (int64_t[]){2, 2}, parts);
    cab_graph_keep(f->g, parts[1]);
    run(f);
    assert_fails(cab_tensor_read(f->g, parts[1], (float[4]){0}), CAB_EARG, "is a view on columns");
}

/* A chain of equal tensors needs two of them at a time; a kept one stays to the end. */
static void test_memory_is_shared_but_not_with_kept_tensors(void **state)
{
    fixture *f = *state;
    cab_plan plan;
    cab_tensor *x = toy_input(f->g, 8, 16, 1, 0), *y = x, *kept = NULL;
    for (int i = 0; i < 12; i++) {
        y = toy_mix(f->g, 1, &y);
        if (i == 3)
            kept = y = toy_running(f->g, y);
    }
    cab_graph_keep(f->g, kept);
    cab_graph_keep(f->g, y);
    const size_t one = 8 * 16 * sizeof(float);
    assert_ok(cab_graph_plan(f->g, &plan));
    assert_int_equal(plan.arena, 3 * one);
    assert_int_equal(plan.arena_unshared, 13 * one + 256); /* and the running sum's scratch */
    assert_ok(cab_graph_run(f->g));
    float *values = toy_read(f->g, kept);
    for (int r = 0; r < 8; r++)
        assert_true(values[r * 16] == (float)(r + 1));
    free(values);
}

static void test_out_of_memory_gives_the_numbers(void **state)
{
    fixture *f = *state;
    cab_graph_keep(f->g, toy_running(f->g, toy_input(f->g, 1024, 256, 1, 0)));
    assert_ok(cab_graph_plan(f->g, NULL));
    f->heap.available = 1024 * 1024;
    assert_fails(cab_graph_run(f->g), CAB_ENOMEM, "the plan needs 1.0 MiB for activations and toy has 1.0 MiB left");
    f->heap.available = 1e12;
    assert_ok(cab_graph_run(f->g));
}

static void test_a_failing_kernel_stops_the_run(void **state)
{
    static const cab_op elsewhere = {.name = "elsewhere"};
    fixture *f = *state;
    cab_tensor *x = toy_input(f->g, 1, 1, 0, 0);
    cab_graph_keep(f->g, toy_record(f->g, &op_refuse, 1, &x, 1, 1));
    assert_ok(cab_graph_plan(f->g, NULL));
    assert_fails(cab_graph_run(f->g), CAB_EBACKEND, "the kernel refuses");
    cab_graph *g = NULL;
    assert_ok(cab_graph_new(&f->heap.backend, &g));
    x = toy_input(g, 1, 1, 0, 0);
    cab_graph_keep(g, toy_record(g, &elsewhere, 1, &x, 1, 1));
    assert_fails(cab_graph_run(g), CAB_EUNSUPPORTED, "elsewhere is not available on toy");
    cab_graph_free(g);
}

static void test_unwritten_memory_is_nan_in_debug_builds(void **state)
{
#ifdef NDEBUG
    (void)state;
    print_message("not run: a release build does not fill the arena\n");
    skip();
#else
    fixture *f = *state;
    cab_tensor *x = toy_input(f->g, 1, 2, 0, 0), *y = toy_record(f->g, &op_lazy, 1, &x, 1, 2);
    cab_graph_keep(f->g, y);
    run(f);
    for (int i = 0; i < 2; i++) { /* and again on every run */
        float *values = toy_read(f->g, y);
        assert_true(values[0] == 1.0f && isnan(values[1]));
        values[1] = 0;
        assert_ok(cab_tensor_write(f->g, y, values));
        assert_ok(cab_graph_run(f->g));
        free(values);
    }
#endif
}

static void test_states_outlive_runs(void **state)
{
    fixture *f = *state;
    cab_tensor *h = cab_graph_state(f->g, "h", CAB_F32, 1, (int64_t[]){1});
    cab_tensor *y = toy_count(f->g, h, toy_input(f->g, 1, 2, 1, 1));
    toy_count(f->g, h, y); /* its output is not used, its effect is */
    cab_graph_keep(f->g, y);
    assert_ok(cab_graph_plan(f->g, NULL));
    for (int i = 0; i < 3; i++) {
        assert_ok(cab_graph_run(f->g));
        toy_expect(f->g, y, (float[]){(float)(2 + 2 * i), (float)(3 + 2 * i)});
        toy_expect(f->g, h, (float[]){(float)(2 + 2 * i)});
    }
}

static void test_eager_runs_while_recording(void **state)
{
    fixture *f = *state;
    cab_graph *g = NULL;
    setenv("CAB_EAGER", "1", 1);
    assert_ok(cab_graph_new(&f->heap.backend, &g));
    unsetenv("CAB_EAGER");
    cab_tensor *y = toy_running(g, toy_input(g, 2, 2, 1, 1));
    assert_memory_equal(y->data, ((float[]){1, 2, 4, 6}), 4 * sizeof(float));
    cab_tensor *h = cab_graph_state(g, "h", CAB_F32, 1, (int64_t[]){1}), *z = toy_count(g, h, y);
    assert_true(*(float *)h->data == 0.0f); /* recording is no step of a recurrence */
    cab_graph_keep(g, z);
    assert_ok(cab_graph_run(g));
    toy_expect(g, z, (float[]){2, 3, 5, 7});
    assert_ok(cab_graph_run(g));
    toy_expect(g, z, (float[]){3, 4, 6, 8});
    cab_graph_free(g);
}

static void test_eager_failures_stick(void **state)
{
    fixture *f = *state;
    cab_graph *g = NULL;
    setenv("CAB_EAGER", "1", 1);
    assert_ok(cab_graph_new(&f->heap.backend, &g));
    unsetenv("CAB_EAGER");
    cab_tensor *x = toy_input(g, 1, 1, 0, 0);
    assert_null(toy_record(g, &op_refuse, 1, &x, 1, 1));
    assert_fails(cab_graph_plan(g, NULL), CAB_EBACKEND, "the kernel refuses");
    cab_graph_free(g);
}

static void test_too_many_inputs(void **state)
{
    fixture *f = *state;
    cab_tensor *xs[CAB_MAX_IN + 1];
    for (int i = 0; i <= CAB_MAX_IN; i++)
        xs[i] = toy_input(f->g, 1, 1, 0, 0);
    toy_mix(f->g, CAB_MAX_IN + 1, xs);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "mix: 17 inputs and 1 outputs, at most 16 and 6");
}

static void test_timing(void **state)
{
    fixture *f = *state;
    cab_graph_keep(f->g, toy_running(f->g, toy_input(f->g, 64, 64, 1, 0)));
    cab_graph_time(f->g, true);
    run(f);
    assert_true(cab_graph_node_seconds(f->g, 0) > 0);
}

static void test_names_and_long_shapes(void **state)
{
    fixture *f = *state;
    char text[96], name[3 * CAB_NAME_MAX];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    cab_tensor *t = cab_graph_input(f->g, name, CAB_I64, 4, (int64_t[]){1, 2, 3, 4});
    assert_int_equal(strlen(t->name), CAB_NAME_MAX - 1);
    assert_string_equal(cab_shape_text(t, text), "(1, 2, 3, 4) I64");
    t->n_dim = 4;
    for (int i = 0; i < 4; i++)
        t->shape[i] = INT64_MAX;
    assert_true(strlen(cab_shape_text(t, text)) < sizeof text);
}

#define GRAPH_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GRAPH_TEST(test_first_failure_sticks),
        GRAPH_TEST(test_bad_shapes),
        GRAPH_TEST(test_plans_once),
        GRAPH_TEST(test_runs_again_with_other_inputs),
        GRAPH_TEST(test_split_views),
        GRAPH_TEST(test_split_of_a_part),
        GRAPH_TEST(test_split_sizes_must_sum_up),
        GRAPH_TEST(test_split_tensor_is_used_up),
        GRAPH_TEST(test_split_twice_fails),
        GRAPH_TEST(test_aliases_of_a_split_tensor_are_used_up),
        GRAPH_TEST(test_reshape_is_the_same_memory),
        GRAPH_TEST(test_reshape_wants_dense_memory_and_as_many_elements),
        GRAPH_TEST(test_padded_rows),
        GRAPH_TEST(test_parameters_have_no_views),
        GRAPH_TEST(test_dead_nodes_are_dropped),
        GRAPH_TEST(test_unkept_tensors_cannot_be_read),
        GRAPH_TEST(test_kept_columns_cannot_be_read_whole),
        GRAPH_TEST(test_memory_is_shared_but_not_with_kept_tensors),
        GRAPH_TEST(test_out_of_memory_gives_the_numbers),
        GRAPH_TEST(test_a_failing_kernel_stops_the_run),
        GRAPH_TEST(test_unwritten_memory_is_nan_in_debug_builds),
        GRAPH_TEST(test_states_outlive_runs),
        GRAPH_TEST(test_eager_runs_while_recording),
        GRAPH_TEST(test_eager_failures_stick),
        GRAPH_TEST(test_too_many_inputs),
        GRAPH_TEST(test_timing),
        GRAPH_TEST(test_names_and_long_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
