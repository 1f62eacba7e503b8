/* The backward pass: who gets one, = and +=, views, fused losses, recompute. Numbers are small integers, so that every
 * sum is exact. */
#include "toy.h"

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
    f->heap = toy_open();
    *state = f;
    return cab_params_new(&f->heap.backend, &f->params) == CAB_OK && cab_graph_new(&f->heap.backend, &f->g) == CAB_OK
               ? 0
               : -1;
}

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

/* An input whose gradient is wanted. */
static cab_tensor *wanted(fixture *f, int64_t rows, int64_t columns)
{
    cab_tensor *x = toy_input(f->g, rows, columns, 1, 1);
    cab_graph_want_gradient(f->g, x);
    return x;
}

static void expect_gradient(fixture *f, const cab_tensor *x, const float *expected)
{
    toy_expect(f->g, cab_graph_gradient(f->g, x), expected);
}

static void test_chain(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 2, 2), *y = toy_total(f->g, toy_running(f->g, toy_mul(f->g, x, x)));
    toy_backward(f->g, 1, &y);
    run(f);
    expect_gradient(f, x, (float[]){4, 8, 6, 8});
}

static void test_same_tensor_twice_in_one_node(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 1, 2), *y = toy_total(f->g, toy_mix(f->g, 2, (cab_tensor *[]){x, x}));
    toy_backward(f->g, 1, &y);
    run(f);
    expect_gradient(f, x, (float[]){3, 3});
}

static void test_diamond(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 1, 2), *a = toy_mix(f->g, 1, &x), *left = toy_running(f->g, a),
               *right = toy_mul(f->g, a, x);
    cab_tensor *y = toy_total(f->g, toy_mix(f->g, 2, (cab_tensor *[]){left, right}));
    toy_backward(f->g, 1, &y);
    run(f);
    expect_gradient(f, x, (float[]){5, 9}); /* d (x + 2 x^2) */
}

static void test_tensor_used_three_times_over_runs(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 1, 2), *a = toy_mul(f->g, x, x), *totals[3];
    for (int i = 0; i < 3; i++)
        totals[i] = toy_total(f->g, toy_mix(f->g, 2, (cab_tensor *[]){a, x}));
    toy_backward(f->g, 3, totals);
    assert_ok(cab_graph_plan(f->g, NULL));
    for (int i = 0; i < 3; i++) { /* nothing is left over from an earlier run */
        assert_ok(cab_graph_run(f->g));
        expect_gradient(f, x, (float[]){12, 18});
    }
}

static void test_parameters_accumulate_over_uses_and_runs(void **state)
{
    fixture *f = *state;
    cab_tensor *w = toy_parameter(f->params, "w", 2, (float[]){2, 3}), *x = toy_input(f->g, 1, 2, 1, 1);
    assert_ok(cab_params_set_trainable(f->params, "w", true, NULL));
    cab_tensor *y = toy_total(f->g, toy_weigh(f->g, toy_weigh(f->g, x, w), w));
    toy_backward(f->g, 1, &y);
    assert_ok(cab_graph_plan(f->g, NULL));
    assert_true(cab_graph_trains(f->g, w));
    float gradient[2];
    for (int i = 1; i <= 3; i++) {
        assert_ok(cab_graph_run(f->g));
        assert_ok(cab_params_read_grad(f->params, w, gradient));
        assert_true(gradient[0] == (float)(4 * i) && gradient[1] == (float)(12 * i));
    }
    assert_ok(cab_params_zero_grad(f->params));
    assert_ok(cab_params_read_grad(f->params, w, gradient));
    assert_true(gradient[0] == 0 && gradient[1] == 0);
}

static void test_frozen_parts_get_no_backward(void **state)
{
    fixture *f = *state;
    cab_tensor *frozen = toy_parameter(f->params, "teacher", 2, (float[]){2, 3});
    cab_tensor *trained = toy_parameter(f->params, "student", 2, (float[]){5, 7});
    assert_ok(cab_params_set_trainable(f->params, "student", true, NULL));
    cab_tensor *x = toy_input(f->g, 1, 2, 1, 1), *y = x;
    for (int i = 0; i < 4; i++) /* in front of the trained one: nothing flows back */
        y = toy_weigh(f->g, y, frozen);
    y = toy_weigh(f->g, y, trained);
    y = toy_total(f->g, toy_weigh(f->g, y, frozen)); /* behind it: something does */
    toy_backward(f->g, 1, &y);
    run(f);
    assert_int_equal(toy_count_nodes(f->g, &toy_op_weigh, true), 2);
    assert_null(frozen->grad);
    assert_false(cab_graph_trains(f->g, frozen));
    float gradient[2];
    assert_ok(cab_params_read_grad(f->params, trained, gradient));
    assert_true(gradient[0] == 32 && gradient[1] == 486);
}

static void test_nothing_trainable_means_no_backward(void **state)
{
    fixture *f = *state;
    cab_tensor *w = toy_parameter(f->params, "w", 2, (float[]){2, 3});
    cab_tensor *y = toy_total(f->g, toy_weigh(f->g, toy_input(f->g, 1, 2, 1, 1), w));
    int nodes = cab_graph_nodes(f->g);
    toy_backward(f->g, 1, &y);
    assert_int_equal(cab_graph_nodes(f->g), nodes);
}

static void test_a_tap_drops_what_lies_behind_it(void **state)
{
    fixture *f = *state;
    cab_plan plan;
    cab_tensor *w = toy_parameter(f->params, "w", 2, (float[]){2, 3});
    assert_ok(cab_params_set_trainable(f->params, "w", true, NULL));
    cab_tensor *x = toy_input(f->g, 1, 2, 1, 1), *tap = NULL, *y = x;
    for (int i = 0; i < 6; i++) {
        y = toy_weigh(f->g, y, w);
        if (i == 2)
            tap = y;
    }
    cab_tensor *loss = toy_loss(f->g, tap, x);
    cab_graph_keep(f->g, loss);
    toy_backward(f->g, 1, &loss);
    assert_ok(cab_graph_plan(f->g, &plan));
    assert_int_equal(toy_count_nodes(f->g, &toy_op_weigh, false), 3);
    assert_int_equal(toy_count_nodes(f->g, &toy_op_weigh, true), 3);
    assert_int_equal(plan.nodes, 7);
    assert_int_equal(plan.dropped, 4); /* three layers, and the loss's forward node */
}

static void test_split_parts_without_gradient_are_zero(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[3], *x = wanted(f, 2, 5), *y = toy_mix(f->g, 1, &x);
    cab_split(f->g, y, 3, (int64_t[]){1, 2, 2}, parts);
    y = toy_total(f->g, toy_running(f->g, parts[1]));
    toy_backward(f->g, 1, &y);
    run(f);
    expect_gradient(f, x, (float[]){0, 2, 2, 0, 0, 0, 1, 1, 0, 0});
}

static void test_split_of_a_part_backward(void **state)
{
    fixture *f = *state;
    cab_tensor *outer[2], *inner[2], *x = wanted(f, 2, 4), *y = toy_mix(f->g, 1, &x);
    cab_split(f->g, y, 2, (int64_t[]){1, 3}, outer);
    cab_split(f->g, outer[1], 2, (int64_t[]){1, 2}, inner);
    y = toy_total(f->g, toy_running(f->g, inner[1]));
    toy_backward(f->g, 1, &y);
    run(f);
    expect_gradient(f, x, (float[]){0, 0, 2, 2, 0, 0, 1, 1});
}

static void test_a_split_nobody_reads_is_not_filled(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *x = wanted(f, 1, 2), *a = toy_mix(f->g, 1, &x), *b = toy_mix(f->g, 1, &x);
    cab_split(f->g, b, 2, (int64_t[]){1, 1}, parts);
    cab_tensor *y = toy_total(f->g, a);
    int split_nodes = toy_count_nodes(f->g, cab_graph_node(f->g, 2)->op, true);
    toy_backward(f->g, 1, &y);
    run(f);
    assert_int_equal(toy_count_nodes(f->g, cab_graph_node(f->g, 2)->op, true), split_nodes);
    expect_gradient(f, x, (float[]){1, 1});
}

static void test_tensor_used_before_its_split(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *x = wanted(f, 1, 4), *y = toy_mix(f->g, 1, &x), *ends[2];
    ends[0] = toy_total(f->g, y);
    cab_split(f->g, y, 2, (int64_t[]){3, 1}, parts);
    ends[1] = toy_total(f->g, toy_mul(f->g, parts[0], parts[0]));
    toy_backward(f->g, 2, ends);
    run(f);
    expect_gradient(f, x, (float[]){3, 5, 7, 1});
}

static void test_parts_of_an_input(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *x = wanted(f, 2, 3);
    cab_split(f->g, x, 2, (int64_t[]){1, 2}, parts);
    cab_tensor *y = toy_total(f->g, toy_mul(f->g, parts[1], parts[1]));
    toy_backward(f->g, 1, &y);
    run(f);
    expect_gradient(f, x, (float[]){0, 4, 6, 0, 10, 12});
    assert_null(cab_graph_gradient(f->g, parts[0]));
    assert_int_equal(cab_graph_gradient(f->g, parts[1])->ld, 3);
}

static void test_reshapes_share_one_gradient(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 2, 2), *a = toy_mix(f->g, 1, &x);
    cab_tensor *flat = cab_reshape(f->g, a, 2, (int64_t[]){1, 4}), *tall = cab_reshape(f->g, a, 2, (int64_t[]){4, 1});
    cab_tensor *ends[3] = {toy_total(f->g, toy_running(f->g, tall)), toy_total(f->g, toy_mul(f->g, flat, flat)),
                           toy_total(f->g, a)};
    toy_backward(f->g, 3, ends);
    run(f);
    expect_gradient(f, x, (float[]){4 + 2 + 1, 3 + 4 + 1, 2 + 6 + 1, 1 + 8 + 1});
}

static void test_split_of_a_reshape(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *x = wanted(f, 2, 4), *a = toy_mix(f->g, 1, &x);
    cab_tensor *early = toy_total(f->g, a);
    cab_split(f->g, cab_reshape(f->g, a, 3, (int64_t[]){2, 2, 2}), 2, (int64_t[]){1, 1}, parts);
    cab_tensor *ends[2] = {early, toy_total(f->g, toy_running(f->g, parts[1]))};
    toy_backward(f->g, 2, ends);
    run(f);
    expect_gradient(f, x, (float[]){1, 5, 1, 4, 1, 3, 1, 2});
}

static void test_node_with_two_outputs(void **state)
{
    for (int which = 0; which < 3; which++) {
        fixture *f = *state;
        cab_graph *g = NULL;
        assert_ok(cab_graph_new(&f->heap.backend, &g));
        cab_tensor *x = toy_input(g, 1, 1, 3, 0), *halves[2];
        cab_graph_want_gradient(g, x);
        toy_halves(g, x, halves);
        cab_tensor *ends[2] = {toy_total(g, halves[0]), toy_total(g, halves[1])};
        toy_backward(g, which == 2 ? 2 : 1, which == 1 ? &ends[1] : ends);
        assert_ok(cab_graph_run(g));
        toy_expect(g, cab_graph_gradient(g, x), (float[]){(which != 1 ? 0.5f : 0) + (which != 0 ? 2.0f : 0)});
        cab_graph_free(g);
    }
}

static void test_wanted_gradient_of_an_activation_and_a_part(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *x = wanted(f, 2, 4), *y = toy_mul(f->g, x, x);
    cab_split(f->g, y, 2, (int64_t[]){2, 2}, parts);
    cab_tensor *z = toy_mul(f->g, parts[0], parts[1]), *end = toy_total(f->g, toy_running(f->g, z));
    cab_graph_want_gradient(f->g, z);
    cab_graph_want_gradient(f->g, parts[1]);
    toy_backward(f->g, 1, &end);
    run(f);
    expect_gradient(f, z, (float[]){2, 2, 1, 1});
    const cab_tensor *part = cab_graph_gradient(f->g, parts[1]); /* a view of the kept whole */
    assert_true(toy_row(part, 0)[0] == 2 * 1 && toy_row(part, 0)[1] == 2 * 4 && toy_row(part, 1)[0] == 25 &&
                toy_row(part, 1)[1] == 36);
}

static void test_wanting_a_parameters_gradient_is_harmless(void **state)
{
    fixture *f = *state;
    cab_graph_want_gradient(f->g, toy_parameter(f->params, "w", 1, (float[]){1}));
    cab_graph_want_gradient(f->g, NULL);
    cab_tensor *x = wanted(f, 1, 1), *y = toy_total(f->g, x);
    toy_backward(f->g, 1, &y);
    run(f);
    expect_gradient(f, x, (float[]){1});
}

static void test_no_gradient_where_none_flows(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 1, 1), *unused = wanted(f, 1, 1), *y = toy_total(f->g, x);
    toy_backward(f->g, 1, &y);
    run(f);
    assert_null(cab_graph_gradient(f->g, unused));
    assert_non_null(cab_graph_gradient(f->g, x));
}

static void test_weights_of_losses_may_change_between_runs(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 1, 2), *ends[2] = {toy_total(f->g, x), toy_total(f->g, toy_mul(f->g, x, x))};
    cab_tensor *seeds[2] = {cab_graph_scalar(f->g, "a", 1), cab_graph_scalar(f->g, "b", 0)};
    cab_graph_backward(f->g, 2, ends, seeds);
    run(f);
    expect_gradient(f, x, (float[]){1, 1});
    assert_ok(cab_scalar_write(f->g, seeds[0], 0));
    assert_ok(cab_scalar_write(f->g, seeds[1], 10));
    assert_ok(cab_graph_run(f->g));
    expect_gradient(f, x, (float[]){20, 40});
    float seed = 0;
    assert_ok(cab_scalar_read(f->g, seeds[1], &seed));
    assert_true(seed == 10);
}

static void test_seed_of_a_whole_tensor(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 2, 2), *y = toy_running(f->g, x), *seed = toy_input(f->g, 2, 2, 1, 1);
    cab_graph_backward(f->g, 1, &y, &seed);
    run(f);
    expect_gradient(f, x, (float[]){4, 6, 3, 4});
    assert_ptr_equal(cab_graph_gradient(f->g, y), seed);
}

static void expect_refusal(fixture *f, int n, cab_tensor *const *outputs, cab_tensor *const *seeds, const char *text)
{
    cab_graph_backward(f->g, n, outputs, seeds);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, text);
}

static void test_seed_must_fit(void **state)
{
    fixture *f = *state;
    cab_tensor *y = toy_running(f->g, wanted(f, 2, 2)), *seed = cab_graph_scalar(f->g, "seed", 1);
    expect_refusal(f, 1, &y, &seed, "the seed of \"running\" differs from it in shape or type");
}

static void test_seed_on_a_view(void **state)
{
    fixture *f = *state;
    cab_tensor *parts[2], *seed = toy_input(f->g, 2, 2, 1, 0);
    cab_split(f->g, toy_mix(f->g, 1, (cab_tensor *[]){wanted(f, 2, 4)}), 2, (int64_t[]){2, 2}, parts);
    expect_refusal(f, 1, &parts[1], &seed, "is a view or has two seeds");
}

static void test_two_seeds_on_one_output(void **state)
{
    fixture *f = *state;
    cab_tensor *y = toy_total(f->g, wanted(f, 2, 2)), *seed = cab_graph_scalar(f->g, "seed", 1);
    expect_refusal(f, 2, (cab_tensor *[]){y, y}, (cab_tensor *[]){seed, seed}, "is a view or has two seeds");
}

/* Adding the second contribution would change the host's seed, and with it the next run. */
static void test_seed_on_a_tensor_that_is_read(void **state)
{
    fixture *f = *state;
    cab_tensor *y = toy_running(f->g, wanted(f, 2, 2)), *z = toy_total(f->g, y);
    expect_refusal(f, 2, (cab_tensor *[]){y, z},
                   (cab_tensor *[]){toy_input(f->g, 2, 2, 1, 0), cab_graph_scalar(f->g, "seed", 1)},
                   "\"running\" has a seed, so no other op may read it, but total does");
}

static void test_backward_only_once(void **state)
{
    fixture *f = *state;
    cab_tensor *y = toy_total(f->g, wanted(f, 2, 2));
    toy_backward(f->g, 1, &y);
    toy_backward(f->g, 1, &y);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_EARG, "has a backward pass already");
}

static void test_op_without_backward(void **state)
{
    fixture *f = *state;
    cab_tensor *h = cab_graph_state(f->g, "h", CAB_F32, 1, (int64_t[]){1});
    cab_tensor *y = toy_total(f->g, toy_count(f->g, h, wanted(f, 1, 2)));
    toy_backward(f->g, 1, &y);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_EUNSUPPORTED, "count has no backward pass on toy");
}

static void test_fused_loss_gives_value_and_gradient_in_one_node(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 1, 3), *loss = toy_loss(f->g, x, toy_input(f->g, 1, 3, 0, 0));
    cab_graph_keep(f->g, loss);
    cab_tensor *seed = cab_graph_scalar(f->g, "weight", 3);
    cab_graph_backward(f->g, 1, &loss, &seed);
    run(f);
    assert_int_equal(toy_count_nodes(f->g, &toy_op_loss, false), 0);
    assert_int_equal(toy_count_nodes(f->g, &toy_op_loss, true), 1);
    toy_expect(f->g, loss, (float[]){14});
    expect_gradient(f, x, (float[]){6, 12, 18});
}

static void test_fused_loss_without_gradient_runs_forward(void **state)
{
    fixture *f = *state;
    cab_tensor *loss = toy_loss(f->g, toy_input(f->g, 1, 3, 1, 1), toy_input(f->g, 1, 3, 0, 0));
    cab_graph_keep(f->g, loss);
    toy_backward(f->g, 1, &loss);
    run(f);
    assert_int_equal(toy_count_nodes(f->g, &toy_op_loss, false), 1);
    toy_expect(f->g, loss, (float[]){14});
}

static void test_value_of_a_fused_loss_must_not_be_read(void **state)
{
    fixture *f = *state;
    cab_tensor *x = wanted(f, 1, 3), *unseeded = toy_loss(f->g, x, toy_input(f->g, 1, 3, 0, 0));
    cab_tensor *y = toy_total(f->g, toy_mix(f->g, 1, &unseeded));
    toy_backward(f->g, 1, &y);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_ESHAPE, "loss is a fused loss: no other op may read its value");
}

/* Three layers x -> running(x * x) + x, each a segment when asked, the middle one's product tapped from outside. */
static size_t layers(fixture *f, bool recompute, float value[4], float gradient[4], float first[32])
{
    cab_graph *g = NULL;
    cab_plan plan;
    assert_ok(cab_graph_new(&f->heap.backend, &g));
    cab_tensor *x = toy_input(g, 8, 4, 0.1f, 0.01f), *y = x, *tap = NULL;
    cab_tensor *w = cab_params_find(f->params, "w");
    assert_ok(cab_params_zero_grad(f->params));
    cab_graph_want_gradient(g, x);
    for (int l = 0; l < 3; l++) {
        if (recompute)
            cab_graph_segment_begin(g);
        cab_tensor *parts[2], *wide = toy_stretch(g, toy_weigh(g, y, w), 8);
        cab_split(g, wide, 2, (int64_t[]){4, 4}, parts);
        cab_tensor *product = toy_mul(g, parts[0], cab_reshape(g, toy_running(g, parts[1]), 2, (int64_t[]){8, 4}));
        if (l == 1)
            tap = product;
        y = toy_mix(g, 2, (cab_tensor *[]){y, product});
        if (recompute)
            cab_graph_segment_end(g);
    }
    cab_tensor *ends[2] = {toy_total(g, toy_mul(g, y, y)), toy_loss(g, toy_mul(g, tap, tap), x)};
    cab_graph_keep(g, y);
    toy_backward(g, 2, ends);
    assert_ok(cab_graph_plan(g, &plan));
    assert_ok(cab_graph_run(g));
    float *all = toy_read(g, y);
    memcpy(value, all, 4 * sizeof *value);
    free(all);
    assert_ok(cab_params_read_grad(f->params, w, gradient));
    all = toy_read(g, cab_graph_gradient(g, x));
    memcpy(first, all, 32 * sizeof *first);
    free(all);
    cab_graph_free(g);
    return plan.arena;
}

static void test_recompute_gives_the_same_bits_in_less_memory(void **state)
{
    fixture *f = *state;
    toy_parameter(f->params, "w", 4, (float[]){0.5f, 1.25f, -0.75f, 1.1f});
    assert_ok(cab_params_set_trainable(f->params, "w", true, NULL));
    float value[2][4], gradient[2][4], first[2][32];
    size_t without = layers(f, false, value[0], gradient[0], first[0]);
    size_t with = layers(f, true, value[1], gradient[1], first[1]);
    assert_memory_equal(value[0], value[1], sizeof value[0]);
    assert_memory_equal(gradient[0], gradient[1], sizeof gradient[0]);
    assert_memory_equal(first[0], first[1], sizeof first[0]);
    assert_true(gradient[0][0] != 0 && isfinite(gradient[0][0]));
    if (with >= without)
        fail_msg("with recompute the plan needs %zu bytes, without %zu", with, without);
}

static void test_segments_do_not_nest(void **state)
{
    fixture *f = *state;
    cab_graph_segment_begin(f->g);
    cab_graph_segment_begin(f->g);
    assert_fails(cab_graph_plan(f->g, NULL), CAB_EARG, "segments do not nest");
}

static void test_eager_backward(void **state)
{
    fixture *f = *state;
    cab_tensor *w = toy_parameter(f->params, "w", 2, (float[]){2, 3});
    assert_ok(cab_params_set_trainable(f->params, "w", true, NULL));
    cab_graph *g = NULL;
    setenv("CAB_EAGER", "1", 1);
    assert_ok(cab_graph_new(&f->heap.backend, &g));
    unsetenv("CAB_EAGER");
    cab_tensor *x = toy_input(g, 1, 2, 1, 1);
    cab_graph_want_gradient(g, x);
    cab_tensor *loss = toy_loss(g, toy_weigh(g, x, w), toy_input(g, 1, 2, 0, 0));
    toy_backward(g, 1, &loss);
    float gradient[2];
    assert_ok(cab_params_read_grad(f->params, w, gradient));
    assert_true(gradient[0] == 0 && gradient[1] == 0); /* recording adds nothing */
    assert_ok(cab_graph_run(g));
    assert_ok(cab_params_read_grad(f->params, w, gradient));
    assert_true(gradient[0] == 4 && gradient[1] == 24);
    toy_expect(g, cab_graph_gradient(g, x), (float[]){8, 36});
    cab_graph_free(g);
}

#define GRAPH_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GRAPH_TEST(test_chain),
        GRAPH_TEST(test_same_tensor_twice_in_one_node),
        GRAPH_TEST(test_diamond),
        GRAPH_TEST(test_tensor_used_three_times_over_runs),
        GRAPH_TEST(test_parameters_accumulate_over_uses_and_runs),
        GRAPH_TEST(test_frozen_parts_get_no_backward),
        GRAPH_TEST(test_nothing_trainable_means_no_backward),
        GRAPH_TEST(test_a_tap_drops_what_lies_behind_it),
        GRAPH_TEST(test_split_parts_without_gradient_are_zero),
        GRAPH_TEST(test_split_of_a_part_backward),
        GRAPH_TEST(test_a_split_nobody_reads_is_not_filled),
        GRAPH_TEST(test_tensor_used_before_its_split),
        GRAPH_TEST(test_parts_of_an_input),
        GRAPH_TEST(test_reshapes_share_one_gradient),
        GRAPH_TEST(test_split_of_a_reshape),
        GRAPH_TEST(test_node_with_two_outputs),
        GRAPH_TEST(test_wanted_gradient_of_an_activation_and_a_part),
        GRAPH_TEST(test_wanting_a_parameters_gradient_is_harmless),
        GRAPH_TEST(test_no_gradient_where_none_flows),
        GRAPH_TEST(test_weights_of_losses_may_change_between_runs),
        GRAPH_TEST(test_seed_of_a_whole_tensor),
        GRAPH_TEST(test_seed_must_fit),
        GRAPH_TEST(test_seed_on_a_view),
        GRAPH_TEST(test_two_seeds_on_one_output),
        GRAPH_TEST(test_seed_on_a_tensor_that_is_read),
        GRAPH_TEST(test_backward_only_once),
        GRAPH_TEST(test_op_without_backward),
        GRAPH_TEST(test_fused_loss_gives_value_and_gradient_in_one_node),
        GRAPH_TEST(test_fused_loss_without_gradient_runs_forward),
        GRAPH_TEST(test_value_of_a_fused_loss_must_not_be_read),
        GRAPH_TEST(test_recompute_gives_the_same_bits_in_less_memory),
        GRAPH_TEST(test_segments_do_not_nest),
        GRAPH_TEST(test_eager_backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
