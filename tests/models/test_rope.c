/* Rotary embeddings that reach further: which factors a sequence gets, what is refused, how far decoding goes. */
#include "tiny.h"

enum { TOKENS = 6, WORDS = 23 };

/* tiny_llama() with this after "rope_type", from the opening quote on. */
static cab_status open_with(void **state, const char *type, cab_model **model)
{
    tiny t = tiny_llama(CAB_F32);
    char changed[400];
    snprintf(changed, sizeof changed, "\"rope_type\": %s", type);
    tiny_configure(&t, "\"rope_type\": \"default\"", changed);
    return cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, model);
}

static float *logits_with(void **state, const char *type)
{
    static const int32_t ids[TOKENS] = {3, 1, 4, 1, 5, 9};
    cab_model *model = NULL;
    assert_ok(open_with(state, type, &model));
    float *logits = tiny_logits(model, ids, 1, TOKENS);
    cab_model_free(model);
    return logits;
}

static double distance_of(void **state, const char *type, const char *other)
{
    float *a = logits_with(state, type), *b = logits_with(state, other);
    const double distance = tiny_distance(a, b, TOKENS * WORDS);
    free(a);
    free(b);
    return distance;
}

#define LONG(original, rest)                                                                                           \
    "\"longrope\", \"original_max_position_embeddings\": " original ", \"short_factor\": [1, 1, 1], \"long_factor\": " \
    "[3, 3, 3]" rest

/* Six tokens are within six and beyond five: the one set of factors or the other, of all tokens. */
static void test_longrope_by_length(void **state)
{
    assert_true(distance_of(state, LONG("6", ", \"attention_factor\": 1"), "\"default\"") < 1e-6);
    assert_true(distance_of(state, LONG("5", ", \"attention_factor\": 1"), "\"linear\", \"factor\": 3") < 1e-6);
    assert_true(distance_of(state, LONG("5", ", \"attention_factor\": 1"), "\"default\"") > 1e-3);
}

/* What is turned is multiplied: by what the file says, or by what follows from how much further than before it reaches, sqrt(1 + log
 * 4 / log 4) from 4 to 16 tokens. */
static void test_longrope_attention_factor(void **state)
{
    assert_true(distance_of(state, LONG("8", ""), LONG("8", ", \"attention_factor\": 1.1547005383792515")) < 1e-6);
    assert_true(distance_of(state, LONG("8", ""), LONG("8", ", \"attention_factor\": 1")) > 1e-3);
    assert_true(distance_of(state, LONG("4", ""), LONG("4", ", \"attention_factor\": 1.4142135623730951")) < 1e-6);
    assert_true(distance_of(state, LONG("8", ", \"factor\": 0.5"), LONG("8", ", \"attention_factor\": 1")) < 1e-6);
}

/* Each pair of features has its own factor, and the one that the file calls so. */
static void test_longrope_each_pair(void **state)
{
    static const char first[] = "\"longrope\", \"factor\": 1, \"short_factor\": [2, 1, 1], \"long_factor\": [1, 1, 1]";
    static const char last[] = "\"longrope\", \"factor\": 1, \"short_factor\": [1, 1, 2], \"long_factor\": [1, 1, 1]";
    assert_true(distance_of(state, first, "\"default\"") > 1e-3);
    assert_true(distance_of(state, last, "\"default\"") > 1e-5);
    assert_true(distance_of(state, first, last) > 1e-3);
    assert_true(distance_of(state, "\"su\", \"factor\": 1, \"short_factor\": [2, 1, 1], \"long_factor\": [1, 1, 1]",
                            first) < 1e-7);
}

/* A key that stands in a cache has been turned by the one set: decoding ends where the other begins. */
static void test_longrope_steps(void **state)
{
    cab_model *model = NULL;
    assert_ok(open_with(state, LONG("5", ""), &model));
    assert_int_equal(model->network.step_length, 5);
    assert_int_equal(model->network.max_length, 16);
    cab_model_free(model);
    assert_ok(open_with(state, LONG("32", ""), &model));
    assert_int_equal(model->network.step_length, 16);
    cab_model_free(model);
    assert_ok(open_with(state,
                        "\"longrope\", \"original_max_position_embeddings\": 5, \"short_factor\": [4, 2, 1], "
                        "\"long_factor\": [4, 2, 1]",
                        &model));
    assert_int_equal(model->network.step_length, 16);
    cab_model_free(model);
}

static void test_refusals(void **state)
{
    static const char *const cases[][2] = {
        {"\"su\"", "\"short_factor\" is missing"},
        {"\"longrope\", \"short_factor\": [1, 1, 1]", "\"long_factor\" is missing"},
        {"\"longrope\", \"short_factor\": [1, 1, 1], \"long_factor\": [1, 1]",
         "\"short_factor\" has 3 entries, \"long_factor\" 2"},
        {"\"longrope\", \"short_factor\": [1, 1], \"long_factor\": [1, 1]", "have 2 entries, expected 3"},
        {"\"longrope\", \"short_factor\": [1, 0, 1], \"long_factor\": [1, 1, 1]",
         "\"short_factor\"[1] is 0, expected a positive number"},
        {"\"longrope\", \"short_factor\": [1, 1, \"x\"], \"long_factor\": [1, 1, 1]", "\"short_factor\"[2] is \"x\""},
        {"\"longrope\", \"short_factor\": [1, 1, 1e300], \"long_factor\": [1, 1, 1]", "\"short_factor\"[2] is"},
        {"\"longrope\", \"short_mscale\": 1.2", "\"short_mscale\" is 1.2"},
        {"\"yarn3\"", "rope_type is \"yarn3\"; supported are default, linear, dynamic, llama3, yarn and longrope"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cab_model *model = NULL;
        if (open_with(state, cases[i][0], &model) == CAB_OK || strstr(cab_error_text(), cases[i][1]) == NULL)
            fail_msg("%s: \"%s\", expected \"%s\"", cases[i][0], cab_error_text(), cases[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_longrope_by_length, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_longrope_attention_factor, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_longrope_each_pair, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_longrope_steps, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, temp_setup, temp_teardown),
    };
    cab_thread_limit(2);
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
