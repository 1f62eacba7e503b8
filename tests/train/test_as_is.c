/* test_as_is.c - distillation of a quantised teacher whose matrices stay as they are, beside one whose matrices are expanded first. */
#include "base/log.h"
#include "models/export.h"
#include "models/families.h"
#include "runs.h"

static const family teacher = {"llama",
                               "{\"model_type\": \"llama\", \"tie_word_embeddings\": true, \"vocab_size\": 1024, "
                               "\"hidden_size\": 64, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
                               "\"num_key_value_heads\": 1, \"intermediate_size\": 96, "
                               "\"max_position_embeddings\": 64, \"eos_token_id\": 0}",
                               false};

/* A random Llama with the tokenizer of the bundled teacher, as a quantised file. */
static void write_teacher(void **state, cab_dtype dtype, const char *file)
{
    char directory[CAB_PATH_MAX], from[CAB_PATH_MAX], to[CAB_PATH_MAX];
    cab_exported done;
    snprintf(directory, sizeof directory, "%s", temp_path(state, "llama"));
    family_write(&teacher, directory);
    assert_ok(cab_path_join(from, runs_teacher, "tokenizer.json"));
    assert_ok(cab_path_join(to, directory, "tokenizer.json"));
    assert_ok(cab_file_copy(from, to));
    const cab_export what = {.model = directory, .dtype = dtype};
    assert_ok(cab_export_gguf(&what, file, &done));
    assert_int_equal(done.wider, 0);
}

static void distill(void **state, const char *file, const char *precision, const char *kept, const char *out)
{
    static const char *const settings[] = {"student.n_layer=0", "student.d_model=0",     "student.n_head=0",
                                           "student.d_mlp=0",   "student.d_state=0",     "train.tokens=256",
                                           "train.log_every=1", "train.eval_every=1000", NULL};
    cab_result result;
    cab_recipe *recipe = runs_recipe(state, "cab", out, settings);
    assert_ok(cab_recipe_set(recipe, "teacher.path", file));
    assert_ok(cab_recipe_set(recipe, "teacher.precision", kept));
    assert_ok(cab_recipe_set(recipe, "precision", precision));
    runs_distill(recipe, &result);
    assert_int_equal(result.steps, 4);
    assert_true(isfinite(result.loss));
}

/* Taps, KL and the steps of the student: the same bits, as products multiply the same numbers in the same way. */
static void teaches_what_the_expanded_one_does(void **state)
{
    static const cab_dtype stored[] = {CAB_Q4_0, CAB_Q8_0};
    char file[CAB_PATH_MAX];
    snprintf(file, sizeof file, "%s", temp_path(state, "teacher.gguf"));
    for (int i = 0; i < 2; i++) {
        const char *precision = i ? "bf16" : "fp32";
        char names[2][32];
        write_teacher(state, stored[i], file);
        for (int k = 0; k < 2; k++) {
            snprintf(names[k], sizeof names[k], "%s-%d", precision, k);
            distill(state, file, precision, k ? "as-is" : "auto", names[k]);
        }
        runs_expect_same_student(state, names[0], names[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(teaches_what_the_expanded_one_does, temp_setup, temp_teardown)};
    cab_log_quiet(true);
    return cmocka_run_group_tests_name("as_is", tests, NULL, NULL);
}
