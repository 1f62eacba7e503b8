/* Random graphs: a plan never lays two live blocks over each other, and its results equal those of eager mode, where every
 * tensor has memory of its own, bit for bit - with recompute and without. Gradients equal the graph's own differences:
 * each op is linear in each input, and the input whose gradient is asked for is read by linear ops only. */
#include "base/random.h"
#include "toy.h"

enum { ROWS = 4, MAX_TENSORS = 96 };

typedef struct dag {
    cab_graph *g;
    cab_random random;
    cab_tensor *pool[MAX_TENSORS]; /* what may be read; all ROWS x something */
    int n;
    cab_tensor *weights[3]; /* of 4, 8 and 12 columns */
    cab_tensor *x, *y;
    bool linear; /* no products: y is linear in x */
} dag;

static uint64_t draw(dag *d, uint64_t n)
{
    return cab_random_below(&d->random, n);
}

static void put(dag *d, cab_tensor *t)
{
    assert_non_null(t);
    if (d->n < MAX_TENSORS)
        d->pool[d->n++] = t;
}

static cab_tensor *reshaped_from(cab_tensor *t)
{
    return t->base != NULL && t->ld == cab_columns(t) ? t->base : t;
}

/* Takes the tensor at index i, about to be split, out of the pool, and with it every reshape of it. */
static cab_tensor *take(dag *d, int i)
{
    cab_tensor *t = d->pool[i], *original = reshaped_from(t);
    for (int k = 0; k < d->n; k++)
        if (reshaped_from(d->pool[k]) == original)
            d->pool[k--] = d->pool[--d->n];
    return t;
}

static cab_tensor *any(dag *d)
{
    return d->pool[draw(d, (uint64_t)d->n)];
}

/* A tensor of the pool with as many columns as `like`; itself when there is no other. */
static cab_tensor *similar(dag *d, cab_tensor *like)
{
    int first = (int)draw(d, (uint64_t)d->n);
    for (int i = 0; i < d->n; i++) {
        cab_tensor *t = d->pool[(first + i) % d->n];
        if (cab_columns(t) == cab_columns(like))
            return t;
    }
    return like;
}

static void add_split(dag *d)
{
    int i = (int)draw(d, (uint64_t)d->n);
    int64_t columns = cab_columns(d->pool[i]);
    if (columns < 8 || d->n < 6)
        return;
    cab_tensor *parts[3], *t = take(d, i);
    cab_split(d->g, t, columns == 8 ? 2 : 3, (int64_t[]){4, 4, columns - 8}, parts);
    for (int k = 0; k < (columns == 8 ? 2 : 3); k++)
        put(d, parts[k]);
}

static void add_node(dag *d)
{
    cab_tensor *a = any(d), *b = similar(d, a), *halves[2];
    int64_t columns = cab_columns(a);
    switch (draw(d, 8)) {
    case 0:
        put(d, d->linear ? toy_mix(d->g, 2, (cab_tensor *[]){a, b}) : toy_mul(d->g, a, b));
        break;
    case 1:
        put(d, toy_mix(d->g, 3, (cab_tensor *[]){a, b, similar(d, a)}));
        break;
    case 2:
        put(d,
            columns % 4 == 0 && columns <= 12 ? toy_weigh(d->g, a, d->weights[columns / 4 - 1]) : toy_running(d->g, a));
        break;
    case 3:
        put(d, toy_stretch(d->g, a, 4 * (int64_t)(1 + draw(d, 3))));
        break;
    case 4:
        put(d, toy_running(d->g, a));
        break;
    case 5:
        toy_halves(d->g, a, halves);
        put(d, halves[draw(d, 2)]);
        if (draw(d, 2) == 0)
            put(d, halves[0]);
        break;
    case 6:
        if (a->base == NULL)
            put(d, cab_reshape(d->g, a, 3, (int64_t[]){2, ROWS / 2, columns}));
        break;
    default:
        add_split(d);
    }
    assert_true(d->n > 0);
}

/* A graph that depends on nothing but `seed` (and, in its results, on x). */
static void record(dag *d, cab_backend *backend, cab_params *params, uint64_t seed, bool linear, bool segments)
{
    *d = (dag){.random = {.seed = seed, .stream = CAB_STREAM_TEST}, .linear = linear};
    assert_ok(cab_graph_new(backend, &d->g));
    static const char *const names[3] = {"w4", "w8", "w12"};
    for (int i = 0; i < 3; i++)
        d->weights[i] = cab_params_find(params, names[i]);
    d->x = toy_input(d->g, ROWS, 4, 0.25f, 0.0625f);
    cab_graph_want_gradient(d->g, d->x);
    put(d, toy_stretch(d->g, d->x, 12));
    put(d, toy_mix(d->g, 1, &d->x));
    int n_nodes = 10 + (int)draw(d, 30), until = 0;
    for (int i = 0; i < n_nodes; i++) {
        if (i == until && segments)
            cab_graph_segment_end(d->g);
        if (i >= until && draw(d, 3) == 0) {
            until = i + 2 + (int)draw(d, 6);
            if (segments)
                cab_graph_segment_begin(d->g);
        }
        add_node(d);
    }
    if (segments)
        cab_graph_segment_end(d->g);
    cab_tensor *ends[3];
    for (int i = 0; i < 3; i++)
        ends[i] = toy_total(d->g, any(d));
    d->y = toy_mix(d->g, 3, ends);
    cab_graph_keep(d->g, d->y);
}

static void backward(dag *d)
{
    toy_backward(d->g, 1, &d->y);
    assert_ok(cab_graph_run(d->g));
}

typedef struct outcome {
    float value, x[ROWS * 4], weights[3][12];
    bool has_x;
} outcome;

/* Parameters' gradients are read and cleared. */
static void collect(dag *d, cab_params *params, outcome *o)
{
    memset(o, 0, sizeof *o);
    assert_ok(cab_scalar_read(d->g, d->y, &o->value));
    const cab_tensor *gradient = cab_graph_gradient(d->g, d->x);
    o->has_x = gradient != NULL;
    if (gradient != NULL)
        assert_ok(cab_tensor_read(d->g, gradient, o->x));
    for (int i = 0; i < 3; i++)
        assert_ok(cab_params_read_grad(params, d->weights[i], o->weights[i]));
    assert_ok(cab_params_zero_grad(params));
    cab_graph_free(d->g);
}

static cab_params *make_params(cab_backend *backend)
{
    cab_params *params = NULL;
    float values[12];
    for (int i = 0; i < 12; i++)
        values[i] = 0.5f + 0.125f * (float)(i % 5);
    assert_ok(cab_params_new(backend, &params));
    toy_parameter(params, "w4", 4, values);
    toy_parameter(params, "w8", 8, values);
    toy_parameter(params, "w12", 12, values);
    assert_ok(cab_params_set_trainable(params, "w*", true, NULL));
    return params;
}

static void test_plan_recompute_and_eager_agree_bitwise(void **state)
{
    (void)state;
    toy_heap heap = toy_open();
    cab_params *params = make_params(&heap.backend);
    for (uint64_t seed = 0; seed < 400; seed++) {
        outcome planned, recomputed, eager;
        dag d;
        record(&d, &heap.backend, params, seed, false, false);
        backward(&d);
        collect(&d, params, &planned);
        record(&d, &heap.backend, params, seed, false, true);
        backward(&d);
        collect(&d, params, &recomputed);
        setenv("CAB_EAGER", "1", 1);
        record(&d, &heap.backend, params, seed, false, false);
        unsetenv("CAB_EAGER");
        backward(&d);
        collect(&d, params, &eager);
        if (memcmp(&planned, &eager, sizeof planned) != 0)
            fail_msg("seed %d: planned and eager results differ", (int)seed);
        if (memcmp(&planned, &recomputed, sizeof planned) != 0)
            fail_msg("seed %d: results with and without recompute differ", (int)seed);
    }
    cab_params_free(params);
    assert_int_equal(heap.blocks, 0);
}

/* y(x + e_j) - y(x) is the gradient's element j where y is linear in x. */
static void test_gradients_equal_differences(void **state)
{
    (void)state;
    toy_heap heap = toy_open();
    cab_params *params = make_params(&heap.backend);
    int compared = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        outcome o;
        dag d;
        record(&d, &heap.backend, params, seed, true, seed % 2 == 0);
        backward(&d);
        collect(&d, params, &o);
        record(&d, &heap.backend, params, seed, true, false);
        assert_ok(cab_graph_plan(d.g, NULL));
        for (int j = 0; j < ROWS * 4; j++) {
            float unit[ROWS * 4] = {0}, value = 0;
            unit[j] = 1;
            assert_ok(cab_tensor_write(d.g, d.x, unit));
            assert_ok(cab_graph_run(d.g));
            assert_ok(cab_scalar_read(d.g, d.y, &value));
            if (!(fabsf(value - o.x[j]) <= 1e-4f * fabsf(value)))
                fail_msg("seed %d: gradient %d is %g, the difference %g", (int)seed, j, (double)o.x[j], (double)value);
            compared += value != 0;
        }
        cab_graph_free(d.g);
    }
    assert_true(compared > 500);
    cab_params_free(params);
}

/* The same graph planned twice has the same places, and the arena is no larger than its parts. */
static void test_plans_are_reproducible(void **state)
{
    (void)state;
    toy_heap heap = toy_open();
    cab_params *params = make_params(&heap.backend);
    for (uint64_t seed = 0; seed < 20; seed++) {
        size_t offsets[2] = {0};
        cab_plan plans[2] = {0};
        for (int i = 0; i < 2; i++) {
            dag d;
            record(&d, &heap.backend, params, seed, false, true);
            toy_backward(d.g, 1, &d.y);
            assert_ok(cab_graph_plan(d.g, &plans[i]));
            assert_ok(cab_graph_run(d.g));
            const char *base = NULL;
            for (int k = 0; k < cab_graph_nodes(d.g); k++) {
                const cab_node *node = cab_graph_node(d.g, k);
                const char *place = node->skip || node->n_out == 0 || node->out[0] == NULL ? NULL : node->out[0]->data;
                base = base == NULL ? place : base;
                offsets[i] = offsets[i] * 31 + (size_t)(place == NULL ? 0 : place - base);
            }
            cab_graph_free(d.g);
        }
        assert_int_equal(offsets[0], offsets[1]);
        assert_memory_equal(&plans[0].arena, &plans[1].arena, sizeof plans[0].arena);
        assert_true(plans[0].arena <= plans[0].arena_unshared && plans[0].nodes > 0);
    }
    cab_params_free(params);
}

/* n branches of x, each with a loss of its own: x -> x * x -> (x * x)^2 -> loss. */
static size_t branches(cab_backend *backend, int n, float dx[4])
{
    cab_graph *g = NULL;
    cab_plan plan;
    cab_tensor *losses[8], *seeds[8];
    assert_ok(cab_graph_new(backend, &g));
    cab_tensor *x = toy_input(g, 64, 16, 0.1f, 0.001f);
    cab_graph_want_gradient(g, x);
    for (int i = 0; i < n; i++) {
        cab_tensor *square = toy_mul(g, x, x);
        losses[i] = toy_loss(g, toy_mul(g, square, square), toy_input(g, 64, 16, 0.5f, 0));
        seeds[i] = cab_graph_scalar(g, "weight", 1);
    }
    cab_graph_backward(g, n, losses, seeds);
    assert_ok(cab_graph_plan(g, &plan));
    assert_ok(cab_graph_run(g));
    float *gradient = toy_read(g, cab_graph_gradient(g, x));
    memcpy(dx, gradient, 4 * sizeof *dx);
    free(gradient);
    cab_graph_free(g);
    return plan.arena;
}

/* What only the backward pass reads is computed there: branches take turns in the same memory. */
static void test_branches_of_losses_take_turns(void **state)
{
    (void)state;
    toy_heap heap = toy_open();
    float one[4], eight[4];
    const size_t bytes[] = {branches(&heap.backend, 1, one), branches(&heap.backend, 8, eight)};
    assert_in_range(bytes[1], bytes[0], bytes[0] + (size_t)64 * 16 * sizeof(float));
    for (int i = 0; i < 4; i++)
        assert_true(one[i] != 0 && fabsf(eight[i] - 8 * one[i]) < 1e-4f * fabsf(eight[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_branches_of_losses_take_turns),
        cmocka_unit_test(test_plan_recompute_and_eager_agree_bitwise),
        cmocka_unit_test(test_gradients_equal_differences),
        cmocka_unit_test(test_plans_are_reproducible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
