/* Parameter stores: names, freezing, gradients, bf16 copies, mapped values. Conversions of element types. */
#include "toy.h"

typedef struct fixture {
    toy_heap heap;
    cab_params *params;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL)
        return -1;
    f->heap = toy_open();
    *state = f;
    return cab_params_new(&f->heap.backend, &f->params) == CAB_OK ? 0 : -1;
}

static int teardown(void **state)
{
    fixture *f = *state;
    cab_params_free(f->params);
    int left = f->heap.blocks;
    free(f);
    return left;
}

static void test_add_and_find(void **state)
{
    fixture *f = *state;
    cab_tensor *a = NULL, *b = NULL;
    assert_ok(cab_params_add(f->params, "a.weight", CAB_F32, 2, (int64_t[]){3, 4}, CAB_DECAY, &a));
    assert_ok(cab_params_add(f->params, "a.bias", CAB_BF16, 1, (int64_t[]){5}, CAB_NO_DECAY, &b));
    assert_int_equal(cab_params_count(f->params), 2);
    assert_ptr_equal(cab_params_find(f->params, "a.bias"), b);
    assert_ptr_equal(cab_params_at(f->params, 0), a);
    assert_null(cab_params_find(f->params, "a"));
    assert_int_equal(cab_params_decay(f->params, 0), CAB_DECAY);
    assert_int_equal(cab_params_decay(f->params, 1), CAB_NO_DECAY);
    assert_int_equal(cab_params_elements(f->params), 17);
    assert_int_equal(cab_params_bytes(f->params), 3 * 4 * 4 + 5 * 2);
    float values[12];
    assert_ok(cab_params_read(f->params, a, values));
    for (int i = 0; i < 12; i++)
        assert_true(values[i] == 0);
}

/* A store may grow while graphs hold its tensors. */
static void test_tensors_stay_where_they_are(void **state)
{
    fixture *f = *state;
    cab_tensor *first = toy_parameter(f->params, "first", 1, (float[]){42});
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        toy_parameter(f->params, name, 1, (float[]){(float)i});
    }
    assert_ptr_equal(cab_params_find(f->params, "first"), first);
    assert_true(*(float *)first->data == 42);
}

static void test_refusals(void **state)
{
    fixture *f = *state;
    cab_tensor *t = NULL;
    char name[CAB_NAME_MAX + 1];
    memset(name, 'n', CAB_NAME_MAX);
    name[CAB_NAME_MAX] = '\0';
    toy_parameter(f->params, "twin", 1, (float[]){0});
    const int64_t one[5] = {1, 1, 1, 1, 1};
    assert_fails(cab_params_add(f->params, "twin", CAB_F32, 1, one, CAB_DECAY, &t), CAB_EARG,
                 "\"twin\" is declared twice");
    assert_fails(cab_params_add(f->params, name, CAB_F32, 1, one, CAB_DECAY, &t), CAB_EARG,
                 "is longer than 95 characters");
    name[CAB_NAME_MAX - 1] = '\0';
    assert_ok(cab_params_add(f->params, name, CAB_F32, 1, one, CAB_DECAY, &t));
    assert_string_equal(t->name, name);
    assert_fails(cab_params_add(f->params, "d0", CAB_F32, 0, one, CAB_DECAY, &t), CAB_ESHAPE, "has 0 dimensions");
    assert_fails(cab_params_add(f->params, "d5", CAB_F32, 5, one, CAB_DECAY, &t), CAB_ESHAPE, "has 5 dimensions");
    assert_fails(cab_params_add(f->params, "none", CAB_F32, 2, (int64_t[]){3, 0}, CAB_DECAY, &t), CAB_ESHAPE,
                 "dimension 1 is 0");
    assert_fails(cab_params_add(f->params, "huge", CAB_F32, 2, (int64_t[]){INT64_MAX, 3}, CAB_DECAY, &t), CAB_ESHAPE,
                 "\"huge\": dimension 0 is 9223372036854775807");
    assert_int_equal(cab_params_count(f->params), 2);
}

static void test_freezing_by_pattern(void **state)
{
    static const char *const names[] = {"layers.0.mixer.in_proj.weight", "layers.0.mixer.D", "layers.1.mixer.D",
                                        "head.weight"};
    fixture *f = *state;
    size_t matched = 0;
    for (int i = 0; i < 4; i++)
        toy_parameter(f->params, names[i], 2, (float[]){1, 2});
    assert_false(cab_params_at(f->params, 0)->trainable);
    assert_ok(cab_params_set_trainable(f->params, "*", true, &matched));
    assert_int_equal(matched, 4);
    assert_int_equal(cab_params_bytes(f->params), 4 * 2 * (4 + 4));
    assert_ok(cab_params_set_trainable(f->params, "layers.*.D", false, &matched));
    assert_int_equal(matched, 2);
    assert_ok(cab_params_set_trainable(f->params, "layers.[1-9].*", true, &matched));
    assert_int_equal(matched, 1);
    assert_ok(cab_params_set_trainable(f->params, "no such *", false, &matched));
    assert_int_equal(matched, 0);
    const bool expected[] = {true, false, true, true};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(cab_params_at(f->params, i)->trainable, expected[i]);
    cab_tensor *grad = cab_params_at(f->params, 1)->grad; /* stays for later stages, and is not made twice */
    assert_ok(cab_params_set_trainable(f->params, "*", true, NULL));
    assert_ptr_equal(cab_params_at(f->params, 1)->grad, grad);
    assert_int_equal(cab_params_bytes(f->params), 4 * 2 * (4 + 4));
}

static void test_gradient_of_a_frozen_parameter(void **state)
{
    fixture *f = *state;
    float values[2];
    cab_tensor *w = toy_parameter(f->params, "w", 2, (float[]){1, 2});
    assert_fails(cab_params_read_grad(f->params, w, values), CAB_EARG, "\"w\" does not train and has no gradient");
}

static void test_only_fp32_trains(void **state)
{
    fixture *f = *state;
    cab_tensor *t = NULL;
    const cab_bf16 stored[2] = {cab_bf16_from_f32(1.5f), cab_bf16_from_f32(-2.0f)};
    assert_ok(cab_params_add(f->params, "low", CAB_BF16, 1, (int64_t[]){2}, CAB_DECAY, &t));
    assert_fails(cab_params_set_trainable(f->params, "low", true, NULL), CAB_EARG, "\"low\" was loaded frozen");
    assert_ok(cab_params_add_mapped(f->params, "mapped", CAB_BF16, 1, (int64_t[]){2}, stored, &t));
    assert_fails(cab_params_set_trainable(f->params, "mapped", true, NULL), CAB_EARG, "\"mapped\" was loaded frozen");
}

static void test_mapped_values(void **state)
{
    fixture *f = *state;
    static const cab_bf16 stored[2] = {0x3fc0, 0xc000};
    cab_tensor *t = NULL;
    float values[2];
    int blocks = f->heap.blocks;
    assert_ok(cab_params_add_mapped(f->params, "mapped", CAB_BF16, 1, (int64_t[]){2}, stored, &t));
    assert_ptr_equal(t->data, stored);
    assert_int_equal(f->heap.blocks, blocks);
    assert_int_equal(cab_params_bytes(f->params), 0);
    assert_ok(cab_params_read(f->params, t, values));
    assert_true(values[0] == 1.5f && values[1] == -2.0f);
    assert_fails(cab_params_write(f->params, t, values), CAB_EARG, "\"mapped\" lies in a mapped file");
    assert_fails(cab_params_add_mapped(f->params, "mapped", CAB_BF16, 1, (int64_t[]){2}, stored, &t), CAB_EARG,
                 "declared twice");
}

static void test_low_copies_follow_their_master(void **state)
{
    fixture *f = *state;
    cab_tensor *w = toy_parameter(f->params, "w", 2, (float[]){1.0f, 1.0f + 1.0f / 512}), *low = NULL, *again = NULL;
    float values[2];
    assert_ok(cab_params_low(f->params, w, &low));
    assert_int_equal(low->dtype, CAB_BF16);
    assert_ptr_equal(low->master, w);
    assert_ok(cab_params_read(f->params, low, values));
    assert_true(values[0] == 1.0f && values[1] == 1.0f); /* eight bits of mantissa */
    assert_ok(cab_params_low(f->params, w, &again));
    assert_ptr_equal(again, low);
    assert_int_equal(cab_params_bytes(f->params), 2 * (4 + 2));

    uint64_t version = w->version, low_version = low->version;
    assert_ok(cab_params_write(f->params, w, (float[]){3, 4}));
    assert_true(w->version > version && low->version > low_version);
    assert_ok(cab_params_read(f->params, low, values));
    assert_true(values[0] == 3 && values[1] == 4);

    version = w->version, low_version = low->version;
    ((float *)w->data)[0] = 5; /* as a kernel does */
    assert_ok(cab_params_refresh(f->params));
    assert_true(w->version > version && low->version > low_version);
    assert_ok(cab_params_read(f->params, low, values));
    assert_true(values[0] == 5);
    assert_int_equal(cab_params_count(f->params), 1); /* copies are not parameters */
}

static void test_weight_in_the_dtype_of_a_product(void **state)
{
    fixture *f = *state;
    cab_graph *g = NULL;
    cab_tensor *w = toy_parameter(f->params, "w", 2, (float[]){1, 2}), *frozen = NULL;
    assert_ok(cab_params_add(f->params, "frozen", CAB_BF16, 1, (int64_t[]){2}, CAB_DECAY, &frozen));
    assert_ok(cab_graph_new(&f->heap.backend, &g));
    assert_ptr_equal(cab_graph_weight(g, w, CAB_F32), w);
    cab_tensor *low = cab_graph_weight(g, w, CAB_BF16);
    assert_non_null(low);
    assert_ptr_equal(low, w->low);
    assert_ptr_equal(cab_graph_weight(g, frozen, CAB_BF16), frozen);
    assert_null(cab_graph_weight(g, frozen, CAB_F32));
    assert_fails(cab_graph_plan(g, NULL), CAB_ESHAPE, "\"frozen\" is BF16 where F32 is needed");
    cab_graph_free(g);
}

/* A gradient asked of the bf16 copy is the master's. */
static void test_gradient_through_a_low_copy(void **state)
{
    fixture *f = *state;
    cab_graph *g = NULL;
    cab_tensor *w = toy_parameter(f->params, "w", 2, (float[]){1, 2}), *low = NULL;
    assert_ok(cab_params_set_trainable(f->params, "w", true, NULL));
    assert_ok(cab_params_low(f->params, w, &low));
    assert_ok(cab_graph_new(&f->heap.backend, &g));
    cab_tensor *x = toy_input(g, 1, 2, 1, 1), *y = toy_total(g, toy_weigh(g, x, low));
    toy_backward(g, 1, &y);
    bool found = false;
    for (int i = 0; i < cab_graph_nodes(g); i++)
        found |= cab_graph_node(g, i)->gin[1] == w->grad;
    assert_true(found);
    assert_ptr_equal(cab_graph_gradient(g, low), w->grad);
    cab_graph_free(g);
}

static void test_conversions(void **state)
{
    (void)state;
    static const uint16_t half[] = {0x0000, 0x8000, 0x3c00, 0xc000, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0xfc00};
    static const float expected[] = {0.0f,         -0.0f,    1.0f,     -2.0f,    0x1p-24f,
                                     0x1.ff8p-15f, 0x1p-14f, 65504.0f, INFINITY, -INFINITY};
    float got[10];
    cab_convert(got, CAB_F32, half, CAB_F16, 10);
    assert_memory_equal(got, expected, sizeof expected);
    uint16_t nan = 0x7e01;
    cab_convert(got, CAB_F32, &nan, CAB_F16, 1);
    assert_true(isnan(got[0]));
    cab_convert(got, CAB_F32, (double[]){1e-300, 3.25}, CAB_F64, 2);
    assert_true(got[0] == 0 && got[1] == 3.25f);
    cab_bf16 low[4];
    cab_convert(low, CAB_BF16, (float[]){1.00390625f, 1.01171875f, 3.4028235e38f, NAN}, CAB_F32, 4);
    assert_int_equal(low[0], 0x3f80); /* ties to even, down */
    assert_int_equal(low[1], 0x3f82); /* ties to even, up */
    assert_int_equal(low[2], 0x7f80); /* rounds to infinity */
    assert_true(isnan(cab_bf16_to_f32(low[3])));
    cab_convert(low, CAB_BF16, half + 2, CAB_F16, 1);
    assert_int_equal(low[0], 0x3f80);
    cab_convert(got, CAB_F32, (int64_t[]){-3}, CAB_I64, 1);
    assert_true(got[0] == -3);
    cab_convert(got, CAB_F32, (uint8_t[]){200}, CAB_U8, 1);
    assert_true(got[0] == 200);
    cab_convert(got, CAB_F32, (uint16_t[]){65535}, CAB_U16, 1);
    assert_true(got[0] == 65535);
    cab_convert(got, CAB_F32, (int32_t[]){-70000}, CAB_I32, 1);
    assert_true(got[0] == -70000);
    assert_string_equal(cab_dtype_name(CAB_BF16), "BF16");
}

#define PARAMS_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PARAMS_TEST(test_add_and_find),
        PARAMS_TEST(test_tensors_stay_where_they_are),
        PARAMS_TEST(test_refusals),
        PARAMS_TEST(test_freezing_by_pattern),
        PARAMS_TEST(test_gradient_of_a_frozen_parameter),
        PARAMS_TEST(test_only_fp32_trains),
        PARAMS_TEST(test_mapped_values),
        PARAMS_TEST(test_low_copies_follow_their_master),
        PARAMS_TEST(test_weight_in_the_dtype_of_a_product),
        PARAMS_TEST(test_gradient_through_a_low_copy),
        cmocka_unit_test(test_conversions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
