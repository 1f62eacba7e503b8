/* Runs that make in-place students of layout own: of a Pythia and of a Gemma 3, both random and small. They learn, go on after an
 * interruption with equal bits, are evaluated, generate, and are gone on from. */
#include "base/log.h"
#include "interrupt.h"
#include "models/families.h"
#include "train/decode.h"

#define SIZES                                                                                                          \
    "\"vocab_size\": 1024, \"hidden_size\": 32, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "                \
    "\"intermediate_size\": 48, \"max_position_embeddings\": 64, \"eos_token_id\": 0"

static const family teachers[] = {
    {"pythia", "{\"model_type\": \"gpt_neox\", " SIZES "}", false},
    {"gemma3",
     "{\"model_type\": \"gemma3_text\", \"num_key_value_heads\": 1, \"head_dim\": 16, \"sliding_window\": 5, "
     "\"layer_types\": [\"sliding_attention\", \"full_attention\"], " SIZES "}",
     false}};
enum { TEACHERS = sizeof teachers / sizeof *teachers };

static const char *const in_place[] = {"student.architecture=in-place",
                                       "student.n_layer=0",
                                       "student.d_model=0",
                                       "student.n_head=0",
                                       "student.d_mlp=0",
                                       "student.keep=1",
                                       "student.keep_by=kl",
                                       "student.n_group=1",
                                       NULL};

static cab_recipe *recipe_for(void **state, const char *method, const family *teacher, const char *out)
{
    cab_recipe *r = runs_recipe(state, method, out, NULL);
    char from[CAB_PATH_MAX], to[CAB_PATH_MAX];
    family_write(teacher, temp_path(state, teacher->name));
    assert_ok(cab_path_join(from, runs_teacher, "tokenizer.json"));
    assert_ok(cab_path_join(to, temp_path(state, teacher->name), "tokenizer.json"));
    assert_ok(cab_file_copy(from, to));
    assert_ok(cab_recipe_set(r, "teacher.path", temp_path(state, teacher->name)));
    return r;
}

static cab_recipe *recipe_of(void **state, const family *teacher, const char *out, const char *const *settings)
{
    cab_recipe *r = recipe_for(state, "cab-best", teacher, out);
    runs_set(r, in_place);
    runs_set(r, settings);
    return r;
}

/* ---- an interruption -------------------------------------------------------------------------------------------------- */

static void test_resumed(void **state)
{
    static const char *const settings[] = {"train.tokens=3072", "stages[0].share=0.5", NULL};
    for (int i = 0; i < TEACHERS; i++) {
        cab_result resumed, unbroken;
        cab_recipe *r = recipe_of(state, &teachers[i], "stopped", settings);
        runs_interrupt(r, i == 0 ? 5 : 30); /* in the first stage, in the second */
        runs_distill(r, &resumed);
        runs_distill(recipe_of(state, &teachers[i], "straight", settings), &unbroken);
        runs_expect_same_student(state, "stopped", "straight");
        assert_true(resumed.loss == unbroken.loss && resumed.steps == 48);
        temp_remove(temp_path(state, "stopped"));
        temp_remove(temp_path(state, "straight"));
    }
}

/* ---- afterwards ------------------------------------------------------------------------------------------------------- */

/* One step of a student that is there begins where the last one ended. */
static void test_goes_on(void **state)
{
    static const char *const short_one[] = {"train.tokens=64", NULL}, *const longer[] = {"train.tokens=6144", NULL};
    for (int i = 0; i < TEACHERS; i++) {
        cab_result first, last, again;
        char out[32], student[CAB_PATH_MAX];
        snprintf(out, sizeof out, "first%d", i);
        runs_distill(recipe_of(state, &teachers[i], out, short_one), &first);
        snprintf(out, sizeof out, "last%d", i);
        runs_distill(recipe_of(state, &teachers[i], out, longer), &last);
        assert_true(last.kl < 0.9 * first.kl);
        assert_ok(cab_path_join(student, temp_path(state, out), "student"));
        snprintf(out, sizeof out, "again%d", i);
        cab_recipe *r = recipe_for(state, "soft", &teachers[i], out);
        runs_set(r, short_one);
        assert_ok(cab_recipe_set(r, "student.path", student));
        assert_ok(cab_recipe_set(r, "train.lr", "1e-9"));
        runs_distill(r, &again);
        assert_true(fabs(again.loss - last.loss) < 1e-5);
    }
}

/* Text comes out, and ends where attention's context does. */
static void test_generates(void **state)
{
    static const char *const settings[] = {"train.tokens=64", NULL};
    const int32_t prompt[] = {1};
    const cab_decode_row row = {prompt, 1, 0};
    const cab_sampling likeliest = {0};
    for (int i = 0; i < TEACHERS; i++) {
        cab_model *model = NULL;
        cab_decode *d = NULL;
        char out[32], student[CAB_PATH_MAX];
        snprintf(out, sizeof out, "out%d", i);
        runs_distill(recipe_of(state, &teachers[i], out, settings), NULL);
        assert_ok(cab_path_join(student, temp_path(state, out), "student"));
        assert_ok(cab_model_load_on(test_device(), student, CAB_PRECISION_FP32, &model));
        assert_ok(cab_decode_new(model, &row, 1, &likeliest, &d));
        while (!cab_decode_full(d))
            assert_ok(cab_decode_step(d));
        assert_fails(cab_decode_step(d), CAB_ESHAPE, "context of 64 tokens is full");
        cab_decode_free(d);
        cab_model_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_resumed), TEMP_TEST(test_goes_on), TEMP_TEST(test_generates)};
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
