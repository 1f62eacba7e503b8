/* Students that are opened, not made: models with state-space mixers under transformers' names go on being trained, and are saved as they
 * were. */
#include "base/log.h"
#include "models/synthetic.h"
#include "ops/backends.h"
#include "runs.h"
#include "train/decode.h"

static const char *const configs[] = {
    "{\"model_type\": \"mamba\", \"vocab_size\": 1024, \"hidden_size\": 16, \"num_hidden_layers\": 2, \"state_size\": "
    "4, "
    "\"eos_token_id\": 0, \"max_position_embeddings\": 8}",
    "{\"model_type\": \"mamba2\", \"vocab_size\": 1024, \"hidden_size\": 16, \"num_hidden_layers\": 2, \"state_size\": "
    "4, "
    "\"num_heads\": 4, \"head_dim\": 8, \"n_groups\": 2, \"eos_token_id\": 0}",
    "{\"model_type\": \"falcon_h1\", \"vocab_size\": 1024, \"hidden_size\": 16, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"intermediate_size\": 24, \"mamba_d_ssm\": 32, "
    "\"mamba_n_heads\": 4, \"mamba_d_head\": 8, \"mamba_d_state\": 4, \"max_position_embeddings\": 16, "
    "\"eos_token_id\": 0}",
    "{\"model_type\": \"granitemoehybrid\", \"vocab_size\": 1024, \"hidden_size\": 16, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"shared_intermediate_size\": 24, \"num_local_experts\": "
    "0, "
    "\"layer_types\": [\"mamba\", \"attention\"], \"mamba_n_heads\": 4, \"mamba_d_state\": 4, "
    "\"max_position_embeddings\": "
    "16, \"eos_token_id\": 0}",
};
enum { CONFIGS = sizeof configs / sizeof *configs };

/* A model of random weights in the test's directory. */
static const char *make(void **state, int which)
{
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    assert_ok(cab_file_write(temp_path(state, "sizes.json"), configs[which], strlen(configs[which])));
    assert_ok(cab_backend_open("cpu", &backend));
    assert_ok(cab_model_synthetic(temp_path(state, "sizes.json"), 0, backend, CAB_PRECISION_FP32, true, &model));
    assert_ok(cab_model_save(model, temp_path(state, "given")));
    cab_model_free(model);
    cab_backend_close(backend);
    return temp_path(state, "given");
}

static cab_recipe *recipe_of(void **state, const char *method, const char *out, int which, const char *const *settings)
{
    cab_recipe *r = runs_recipe(state, method, out, settings);
    assert_ok(cab_recipe_set(r, "student.path", make(state, which)));
    return r;
}

/* The bridge's two networks learn from C and B of any of them, and the run saves the family that it was given. */
static void test_students_go_on(void **state)
{
    static const char *const settings[] = {"train.lr=1e-2", "train.tokens=1024", NULL};
    for (int i = 0; i < CONFIGS; i++) {
        cab_result first, last;
        cab_json given = {0}, saved = {0};
        char out[32], path[CAB_PATH_MAX];
        const char *types[2];
        snprintf(out, sizeof out, "out%d", i);
        runs_distill(recipe_of(state, "soft", out, i, (const char *const[]){"train.tokens=64", NULL}), &first);
        snprintf(out, sizeof out, "longer%d", i);
        runs_distill(recipe_of(state, i == 0 ? "cab" : "soft", out, i, settings), &last);
        assert_true(last.loss < first.loss - 0.02);
        assert_ok(cab_json_load(temp_path(state, "given/config.json"), 1 << 20, &given));
        assert_ok(cab_path_join(path, temp_path(state, out), "student/config.json"));
        assert_ok(cab_json_load(path, 1 << 20, &saved));
        assert_ok(cab_json_string(&given, NULL, "model_type", &types[0]));
        assert_ok(cab_json_string(&saved, NULL, "model_type", &types[1]));
        assert_string_equal(types[0], types[1]);
        assert_ok(cab_path_join(path, temp_path(state, out), "student/tokenizer.json"));
        assert_true(cab_path_exists(path));
        cab_json_close(&given);
        cab_json_close(&saved);
    }
}

static void test_windows_that_are_too_long(void **state)
{
    cab_recipe *r = recipe_of(state, "soft", "long", 2, (const char *const[]){"data.seq_len=32", NULL});
    assert_fails(cab_distill(r, NULL, NULL), CAB_ESHAPE, "takes at most 16 tokens");
    cab_recipe_free(r);
    r = recipe_of(state, "soft", "any", 0,
                  (const char *const[]){"data.seq_len=32", NULL}); /* trained on 8, takes any */
    runs_distill(r, NULL);
}

/* A context ends where attention's does; without attention there is none. */
static void test_contexts(void **state)
{
    const int32_t prompt[] = {1};
    const cab_decode_row row = {prompt, 1, 0};
    const cab_sampling likeliest = {0};
    for (int i = 0; i < CONFIGS; i++) {
        cab_model *model = NULL;
        cab_decode *d = NULL;
        assert_ok(cab_model_load(make(state, i), CAB_PRECISION_FP32, &model));
        assert_ok(cab_decode_new(model, &row, 1, &likeliest, &d));
        for (int t = 0; t < 16; t++)
            assert_ok(cab_decode_step(d));
        assert_true(cab_decode_full(d) == (i >= 2));
        if (i >= 2)
            assert_fails(cab_decode_step(d), CAB_ESHAPE, "context of 16 tokens is full");
        else
            assert_ok(cab_decode_step(d));
        cab_decode_free(d);
        cab_model_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_students_go_on),
        TEMP_TEST(test_windows_that_are_too_long),
        TEMP_TEST(test_contexts),
    };
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
