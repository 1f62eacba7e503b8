/* A backend that rewrites its lists: nodes that compute what others before or after them would have, and what forward nodes save for
 * backward ones: what is computed, what is in memory, and what stays apart. */
#include "tensor/rewrite.h"
#include "toy.h"

static const cab_op op_plus_one = {.name = "plus_one", .saves = CAB_SAVE_IN(0)};
static const cab_op op_twice = {.name = "twice"};
static const cab_op op_twice_plus_one = {.name = "twice_plus_one"};
static const cab_op op_thrice = {.name = "thrice", .saves = CAB_SAVE_IN(0)};
static const cab_op op_six_times = {.name = "six_times"}; /* thrice of twice */
static const cab_op op_square = {.name = "square", .saves = CAB_SAVE_IN(0)};

/* twice: y = 2 x, and fused with plus_one, y = x + 1, 2 x + 1. */
static cab_status twice(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->out[0]); c++) {
            const float y = 2 * toy_row(node->in[0], r)[c];
            toy_row(node->out[0], r)[c] = node->op == &op_twice_plus_one ? y + 1 : y;
            if (node->n_out > 1 && node->out[1] != NULL)
                toy_row(node->out[1], r)[c] = y;
        }
    return CAB_OK;
}

static cab_status plus_one(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->out[0]); c++)
            toy_row(node->out[0], r)[c] = toy_row(node->in[0], r)[c] + 1;
    return CAB_OK;
}

static cab_status give_twice(const cab_node *node, cab_backend *backend)
{
    const float factor = strcmp(node->op->name, "twice") == 0 ? 2 : 1;
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->gout[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->gout[0]); c++)
            toy_give(node, 0, r, c, factor * toy_row(node->gout[0], r)[c]);
    return CAB_OK;
}

/* y = 3 x, by one who reads t = 2 x or, as six_times, x; its backward node reads t, too. */
static float half_of(const cab_node *node, int64_t r, int64_t c)
{
    const float x = toy_row(node->in[0], r)[c];
    return node->op == &op_six_times ? x : x / 2;
}

static cab_status thrice(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->out[0]); c++)
            toy_row(node->out[0], r)[c] = 3 * half_of(node, r, c);
    return CAB_OK;
}

/* x times what flows back. */
static cab_status give_half(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->gout[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->gout[0]); c++)
            toy_give(node, 0, r, c, half_of(node, r, c) * toy_row(node->gout[0], r)[c]);
    return CAB_OK;
}

/* y = x^2, of which the slope 2 x is saved for backward. */
static cab_status square(const cab_node *node, cab_backend *backend)
{
    float *saved = node->n_out > 1 ? node->out[1]->data : NULL;
    (void)backend;
    for (int64_t r = 0; r < 2; r++)
        for (int64_t c = 0; c < 2; c++) {
            const float x = toy_row(node->in[0], r)[c];
            toy_row(node->out[0], r)[c] = x * x;
            if (saved != NULL)
                saved[2 * r + c] = 2 * x;
        }
    return CAB_OK;
}

static cab_status give_saved(const cab_node *node, cab_backend *backend)
{
    const float *saved = node->out[1]->data;
    (void)backend;
    for (int64_t r = 0; r < 2; r++)
        for (int64_t c = 0; c < 2; c++)
            toy_give(node, 0, r, c, saved[2 * r + c] * toy_row(node->gout[0], r)[c]);
    return CAB_OK;
}

static bool always(const cab_node *first, const cab_node *second, const cab_backend *backend)
{
    (void)first;
    (void)second;
    (void)backend;
    return true;
}

static bool recomputes(const cab_node *reader, int i, const cab_node *writer, const cab_backend *backend)
{
    (void)backend;
    return reader->op == &op_thrice && i == 0 && writer->op == &op_twice;
}

static void recompute(cab_node *reader, int i, const cab_node *writer)
{
    reader->op = &op_six_times;
    reader->in[i] = writer->in[0];
}

static size_t slopes(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return (size_t)cab_elements(node->in[0]) * sizeof(float);
}

static cab_status optimise(cab_graph *g)
{
    static const cab_fusion fusions[] = {
        {.first = &op_twice, .second = &op_plus_one, .fused = &op_twice_plus_one, .fits = always}};
    CAB_TRY(cab_rewrite_save_for_backward(g, &op_square, slopes));
    CAB_TRY(cab_rewrite_recompute_in_readers(g, recomputes, recompute));
    return cab_rewrite_fuse(g, fusions, sizeof fusions / sizeof *fusions);
}

static const cab_kernel_row rows[] = {TOY_KERNELS,
                                      {.op = &op_twice, .direction = CAB_FORWARD, .run = twice},
                                      {.op = &op_twice, .direction = CAB_BACKWARD, .run = give_twice},
                                      {.op = &op_twice_plus_one, .direction = CAB_FORWARD, .run = twice},
                                      {.op = &op_plus_one, .direction = CAB_FORWARD, .run = plus_one},
                                      {.op = &op_plus_one, .direction = CAB_BACKWARD, .run = give_twice},
                                      {.op = &op_thrice, .direction = CAB_FORWARD, .run = thrice},
                                      {.op = &op_thrice, .direction = CAB_BACKWARD, .run = give_half},
                                      {.op = &op_six_times, .direction = CAB_FORWARD, .run = thrice},
                                      {.op = &op_six_times, .direction = CAB_BACKWARD, .run = give_half},
                                      {.op = &op_square, .direction = CAB_FORWARD, .run = square},
                                      {.op = &op_square, .direction = CAB_BACKWARD, .run = give_saved}};
static const cab_kernel_table kernels = {.rows = rows, .n_row = sizeof rows / sizeof *rows, .optimise = optimise};

static cab_tensor *apply(cab_graph *g, const cab_op *op, cab_tensor *x)
{
    cab_tensor *y = cab_graph_activation(g, op->name, x->dtype, x->n_dim, x->shape);
    cab_graph_append(g, op, 1, &x, 1, &y, NULL, 0);
    return y;
}

typedef struct fixture {
    toy_heap heap;
    cab_graph *g;
    cab_tensor *x;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->heap = toy_open_with(&kernels);
    assert_ok(cab_graph_new(&f->heap.backend, &f->g));
    f->x = toy_input(f->g, 2, 2, 1, 1); /* 1 2 / 3 4 */
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    cab_graph_free(f->g);
    assert_int_equal(f->heap.blocks, 0);
    free(f);
    return 0;
}

static cab_plan run(fixture *f)
{
    cab_plan plan;
    assert_ok(cab_graph_plan(f->g, &plan));
    assert_ok(cab_graph_run(f->g));
    return plan;
}

/* z, the sum of y, and its gradient by x, both kept. */
static cab_tensor *differentiate(cab_graph *g, cab_tensor *x, cab_tensor *y, cab_tensor **z)
{
    cab_tensor *seed = toy_input(g, 1, 1, 1, 0);
    *z = toy_total(g, y);
    cab_graph_want_gradient(g, x);
    cab_graph_backward(g, 1, z, &seed);
    cab_tensor *dx = cab_graph_gradient(g, x);
    cab_graph_keep(g, dx);
    cab_graph_keep(g, *z);
    return dx;
}

static void test_one_node_of_two(void **state)
{
    fixture *f = *state;
    cab_tensor *t = apply(f->g, &op_twice, f->x), *y = apply(f->g, &op_plus_one, t);
    cab_graph_keep(f->g, y);
    const cab_plan plan = run(f);
    assert_int_equal(plan.nodes, 1);
    assert_null(t->data);
    toy_expect(f->g, y, (float[]){3, 5, 7, 9});
}

/* By the host, and by another node. */
static void test_own_result_is_wanted(void **state)
{
    fixture *f = *state;
    cab_tensor *t = apply(f->g, &op_twice, f->x), *y = apply(f->g, &op_plus_one, t);
    cab_tensor *u = apply(f->g, &op_twice, y), *z = apply(f->g, &op_plus_one, u), *sum = toy_mix(f->g, 1, &u);
    cab_graph_keep(f->g, t);
    cab_graph_keep(f->g, z);
    cab_graph_keep(f->g, sum);
    const cab_plan plan = run(f);
    assert_int_equal(plan.nodes, 3);
    toy_expect(f->g, t, (float[]){2, 4, 6, 8});
    toy_expect(f->g, z, (float[]){7, 11, 15, 19});
    toy_expect(f->g, sum, (float[]){6, 10, 14, 18});
}

/* What a backward node reads is written, by the fused node. */
static void test_backward_reads_it(void **state)
{
    fixture *f = *state;
    cab_tensor *t = apply(f->g, &op_twice, f->x), *y = apply(f->g, &op_plus_one, t), *z;
    cab_tensor *dx = differentiate(f->g, f->x, y, &z);
    const cab_plan plan = run(f);
    assert_int_equal(plan.nodes, 5); /* of six */
    assert_non_null(t->data);
    toy_expect(f->g, z, (float[]){24});
    toy_expect(f->g, dx, (float[]){2, 2, 2, 2});
}

static void test_only_what_it_takes(void **state)
{
    fixture *f = *state;
    cab_tensor *t = apply(f->g, &op_twice, f->x), *other = apply(f->g, &op_plus_one, f->x);
    cab_tensor *y = apply(f->g, &op_plus_one, t); /* not the next node */
    cab_tensor *z = apply(f->g, &op_twice, apply(f->g, &op_twice, y));
    cab_tensor *all[] = {other, z};
    for (int i = 0; i < 2; i++)
        cab_graph_keep(f->g, all[i]);
    const cab_plan plan = run(f);
    assert_int_equal(plan.nodes, 5);
    toy_expect(f->g, other, (float[]){2, 3, 4, 5});
    toy_expect(f->g, z, (float[]){12, 20, 28, 36});
}

/* A second input is a parameter, or `next` stays apart: it may not be there yet. */
static void test_other_inputs(void **state)
{
    fixture *f = *state;
    cab_params *params = NULL;
    assert_ok(cab_params_new(&f->heap.backend, &params));
    cab_tensor *w = toy_parameter(params, "w", 2, (float[]){5, 5}), *y[2];
    for (int i = 0; i < 2; i++) {
        cab_tensor *t = apply(f->g, &op_twice, f->x), *in[2] = {t, i == 0 ? w : f->x};
        y[i] = cab_graph_activation(f->g, "y", CAB_F32, 2, t->shape);
        cab_graph_append(f->g, &op_plus_one, 2, in, 1, &y[i], NULL, 0);
        cab_graph_keep(f->g, y[i]);
    }
    const cab_plan plan = run(f);
    assert_int_equal(plan.nodes, 3);
    for (int i = 0; i < 2; i++)
        toy_expect(f->g, y[i], (float[]){3, 5, 7, 9});
    cab_params_free(params);
}

static void test_tensor_of_no_memory(void **state)
{
    fixture *f = *state;
    cab_tensor *t = apply(f->g, &op_twice, f->x), *y = apply(f->g, &op_thrice, t), *z;
    cab_tensor *dx = differentiate(f->g, f->x, y, &z);
    const cab_plan plan = run(f);
    assert_int_equal(plan.nodes, 5); /* of six */
    assert_null(t->data);
    assert_true(cab_node_bytes(cab_graph_node(f->g, 1)) == 32); /* f->x and y */
    toy_expect(f->g, z, (float[]){30});
    toy_expect(f->g, dx, (float[]){2, 4, 6, 8});
}

/* What it is made of lives until its last reader, which is after the next tensor of that size. */
static void test_what_it_is_made_of_lives(void **state)
{
    fixture *f = *state;
    cab_tensor *x = apply(f->g, &op_plus_one, f->x), *t = apply(f->g, &op_twice, x);
    cab_tensor *other = apply(f->g, &op_plus_one, f->x), *sum = toy_mix(f->g, 1, &other);
    cab_tensor *y = apply(f->g, &op_thrice, t);
    cab_graph_keep(f->g, sum);
    cab_graph_keep(f->g, y);
    run(f);
    assert_null(t->data);
    toy_expect(f->g, y, (float[]){6, 9, 12, 15});
}

/* By the host, or by one who would not make it again. */
static void test_tensor_others_read(void **state)
{
    fixture *f = *state;
    cab_tensor *t = apply(f->g, &op_twice, f->x), *y = apply(f->g, &op_thrice, t), *z = apply(f->g, &op_plus_one, t);
    cab_tensor *kept = apply(f->g, &op_twice, f->x), *w = apply(f->g, &op_thrice, kept);
    cab_tensor *all[] = {y, z, kept, w};
    for (int i = 0; i < 4; i++)
        cab_graph_keep(f->g, all[i]);
    const cab_plan plan = run(f);
    assert_int_equal(plan.nodes, 5);
    toy_expect(f->g, y, (float[]){3, 6, 9, 12});
    toy_expect(f->g, z, (float[]){3, 5, 7, 9});
    toy_expect(f->g, kept, (float[]){2, 4, 6, 8});
    toy_expect(f->g, w, (float[]){3, 6, 9, 12});
}

/* Whether or not it is computed again. */
static void test_saved_for_backward(void **state)
{
    fixture *f = *state;
    for (int again = 0; again < 2; again++) {
        cab_graph *g;
        assert_ok(cab_graph_new(&f->heap.backend, &g));
        cab_tensor *x = toy_input(g, 2, 2, 1, 1);
        if (again)
            cab_graph_segment_begin(g);
        cab_tensor *y = apply(g, &op_plus_one, apply(g, &op_square, x)); /* whose backward node reads the square */
        if (again)
            cab_graph_segment_end(g);
        cab_tensor *z, *dx = differentiate(g, x, y, &z);
        cab_plan plan;
        assert_ok(cab_graph_plan(g, &plan));
        assert_ok(cab_graph_run(g));
        assert_int_equal(plan.nodes, 6 + again);
        assert_int_equal(cab_graph_node(g, 0)->n_out, again ? 1 : 2); /* the one that is computed again saves it */
        toy_expect(g, z, (float[]){34});
        toy_expect(g, dx, (float[]){2, 4, 6, 8});
        cab_graph_free(g);
    }
}

/* Two nodes of the same input: each saves for a backward node of its own. */
static void test_saved_twice(void **state)
{
    fixture *f = *state;
    cab_tensor *y[2] = {apply(f->g, &op_square, f->x), apply(f->g, &op_square, f->x)}, *z;
    cab_tensor *dx = differentiate(f->g, f->x, toy_mix(f->g, 2, y), &z); /* x^2 + 2 x^2 */
    run(f);
    for (int i = 0; i < 2; i++)
        assert_int_equal(cab_graph_node(f->g, i)->n_out, 2);
    assert_ptr_not_equal(cab_graph_node(f->g, 0)->out[1], cab_graph_node(f->g, 1)->out[1]);
    toy_expect(f->g, dx, (float[]){6, 12, 18, 24});
}

static void test_saved_for_nobody(void **state)
{
    fixture *f = *state;
    cab_tensor *y = apply(f->g, &op_square, f->x);
    cab_graph_keep(f->g, y);
    run(f);
    assert_int_equal(cab_graph_node(f->g, 0)->n_out, 1);
    toy_expect(f->g, y, (float[]){1, 4, 9, 16});
}

#define REWRITE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        REWRITE_TEST(test_one_node_of_two),    REWRITE_TEST(test_own_result_is_wanted),
        REWRITE_TEST(test_backward_reads_it),  REWRITE_TEST(test_only_what_it_takes),
        REWRITE_TEST(test_other_inputs),       REWRITE_TEST(test_tensor_of_no_memory),
        REWRITE_TEST(test_saved_for_backward), REWRITE_TEST(test_saved_twice),
        REWRITE_TEST(test_saved_for_nobody),   REWRITE_TEST(test_what_it_is_made_of_lives),
        REWRITE_TEST(test_tensor_others_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
