/* Whole runs: the same bits from the same seed; failures that say where and leave nothing half-written. */
#include "base/log.h"
#include "base/memory.h"
#include "models/model.h"
#include "runs.h"

#include <math.h>

/* ||a - b|| / ||a|| over all parameters of two students. */
static double student_distance(void **state, const char *a, const char *b)
{
    cab_model *models[2] = {NULL, NULL};
    const char *names[2] = {a, b};
    double difference = 0, norm = 0;
    for (int k = 0; k < 2; k++) {
        char path[CAB_PATH_MAX];
        assert_ok(cab_path_join(path, temp_path(state, names[k]), "student"));
        assert_ok(cab_model_load_on(test_device(), path, CAB_PRECISION_FP32, &models[k]));
    }
    for (size_t i = 0; i < cab_params_count(models[0]->params); i++) {
        size_t n = (size_t)cab_elements(cab_params_at(models[0]->params, i));
        float *values[2];
        for (int k = 0; k < 2; k++) {
            values[k] = calloc(n, sizeof(float));
            assert_non_null(values[k]);
            assert_ok(cab_params_read(models[k]->params, cab_params_at(models[k]->params, i), values[k]));
        }
        for (size_t j = 0; j < n; j++) {
            difference += pow((double)values[0][j] - (double)values[1][j], 2);
            norm += pow((double)values[0][j], 2);
        }
        free(values[0]);
        free(values[1]);
    }
    cab_model_free(models[0]);
    cab_model_free(models[1]);
    return sqrt(difference / norm);
}

/* ---- determinism ----------------------------------------------------------------------------------------------------- */

static void test_seeds(void **state)
{
    cab_result a, b, c;
    runs_distill(runs_recipe(state, "cab", "a", NULL), &a);
    runs_distill(runs_recipe(state, "cab", "b", NULL), &b);
    runs_distill(runs_recipe(state, "cab", "c", (const char *const[]){"seed=2", NULL}), &c);
    runs_expect_same_student(state, "a", "b");
    assert_true(a.loss == b.loss && a.kl == b.kl && a.steps == 8 && a.tokens == 512);
    assert_true(a.loss != c.loss && student_distance(state, "a", "c") > 1e-3);
    assert_true(isfinite(a.loss) && a.perplexity > 1 && fabs(a.perplexity - exp(a.loss)) < 1e-6 * a.perplexity);
    assert_true(a.agreement >= 0 && a.agreement <= 1 && a.peak_memory > 0);
    char path[CAB_PATH_MAX]; /* ended: no state is left, the result and the model are */
    assert_ok(cab_path_join(path, temp_path(state, "a"), CAB_RUN_CHECKPOINT));
    assert_false(cab_path_exists(path));
    assert_int_equal(temp_count_files(temp_path(state, "a")), 4);
    assert_ok(cab_path_join(path, temp_path(state, "a"), "student/tokenizer.json"));
    assert_true(cab_path_exists(path));
}

static void test_micro_batches_add_up(void **state)
{
    cab_result a, b;
    runs_distill(runs_recipe(state, "cab", "whole", NULL), &a);
    runs_distill(runs_recipe(state, "cab", "pieces", (const char *const[]){"train.micro_batch=1", NULL}), &b);
    assert_true(fabs(a.loss - b.loss) < 1e-3 * a.loss);
    double distance = student_distance(state, "whole", "pieces");
    print_message("one batch of 4 and four of 1 are %.1e apart\n", distance);
    assert_true(distance < 1e-3); /* other orders of summation; Adam's first steps magnify tiny gradients */
}

static void test_recompute_gives_the_same_bits(void **state)
{
    runs_distill(runs_recipe(state, "cab", "kept", NULL), NULL);
    runs_distill(runs_recipe(state, "cab", "again", (const char *const[]){"train.recompute=true", NULL}), NULL);
    runs_expect_same_student(state, "kept", "again");
}

static void test_eager_gives_the_same_bits(void **state)
{
    runs_distill(runs_recipe(state, "cab", "planned", NULL), NULL);
    setenv("CAB_EAGER", "1", 1);
    runs_distill(runs_recipe(state, "cab", "eager", NULL), NULL);
    unsetenv("CAB_EAGER");
    runs_expect_same_student(state, "planned", "eager");
}

static void test_stop_before_the_first_step(void **state)
{
    cab_recipe *r = runs_recipe(state, "vanilla", "never", NULL);
    cab_distill_stop();
    assert_fails(cab_distill(r, NULL, NULL), CAB_EINTERRUPTED, "interrupted before the first step");
    assert_false(cab_path_exists(r->out));
    runs_distill(r, NULL); /* the request was for the first run only */
}

/* ---- failures -------------------------------------------------------------------------------------------------------- */

/* The run fails with one line that has `text`, and its directory does not exist afterwards. */
static void expect_refusal(cab_recipe *recipe, cab_status status, const char *text)
{
    assert_fails(cab_distill(recipe, NULL, NULL), status, text);
    assert_null(strchr(cab_error_text(), '\n'));
    if (cab_path_exists(recipe->out))
        fail_msg("%s is left behind", recipe->out);
    cab_recipe_free(recipe);
}

static cab_recipe *with(void **state, const char *setting)
{
    return runs_recipe(state, "cab", "out", (const char *const[]){setting, NULL});
}

static cab_recipe *with_corpus(void **state, const char *text)
{
    cab_recipe *r = with(state, "seed=1");
    const char *path = temp_path(state, "corpus.txt");
    assert_ok(cab_file_write(path, text, strlen(text)));
    assert_ok(cab_recipe_set(r, "data.train", path));
    return r;
}

static void test_corpus(void **state)
{
    expect_refusal(with_corpus(state, ""), CAB_EFORMAT, "corpus.txt");
    expect_refusal(with_corpus(state, "<|endoftext|>\n<|endoftext|>\n"), CAB_EFORMAT, "corpus.txt");
    expect_refusal(with_corpus(state, "Once upon a time.\n<|endoftext|>\n"), CAB_EFORMAT, "17"); /* tokens needed */
    expect_refusal(with(state, "data.train=/no/such/file.txt"), CAB_EIO, "/no/such/file.txt");
    expect_refusal(with(state, "data.eval=/no/such/file.txt"), CAB_EIO, "/no/such/file.txt");
}

static void test_sizes(void **state)
{
    expect_refusal(with(state, "train.micro_batch=3"), CAB_EARG, "train.batch 4 is no multiple of train.micro_batch 3");
    expect_refusal(with(state, "train.micro_batch=8"), CAB_EARG, "train.batch 4 is no multiple of train.micro_batch 8");
    expect_refusal(with(state, "student.n_head=5"), CAB_ESHAPE,
                   "student.d_model 32 is no multiple of student.n_head 5");
    expect_refusal(with(state, "data.seq_len=100000"), CAB_ESHAPE, "data.seq_len is 100000");
    expect_refusal(with(state, "teacher.path=/no/such/teacher"), CAB_EIO, "/no/such/teacher");
}

static void test_layer_lists(void **state)
{
    static const char *const wrong[] = {"bridge.layer_map=list", "bridge.layers=0,1,2", NULL};
    static const char *const outside[] = {"bridge.layer_map=list", "bridge.layers=0,4", NULL};
    expect_refusal(runs_recipe(state, "cab-published", "out", wrong), CAB_ESHAPE,
                   "bridge.layers has 3 entries, student.n_layer is 2");
    expect_refusal(runs_recipe(state, "cab-published", "out", outside), CAB_ESHAPE, "a teacher layer 0 to 3");
}

static void test_freeze_patterns(void **state)
{
    static const char *const nothing[] = {"stages[0].freeze=*.no_such_thing", NULL};
    static const char *const everything[] = {"stages[0].freeze=*", NULL};
    expect_refusal(runs_recipe(state, "vanilla", "out", nothing), CAB_EARG,
                   "freeze pattern \"*.no_such_thing\" matches no parameter");
    expect_refusal(runs_recipe(state, "vanilla", "out", everything), CAB_EARG, "every parameter is frozen");
}

/* Refused with the plan's numbers before anything is allocated for it. */
static void test_plan_larger_than_memory(void **state)
{
    static const char *const settings[] = {"train.batch=200000", "data.seq_len=256", "train.tokens=200000000",
                                           "train.recompute=false", NULL};
    cab_recipe *r = runs_recipe(state, "cab", "out", settings);
    assert_fails(cab_distill(r, NULL, NULL), CAB_ENOMEM, "the plan needs ");
    assert_non_null(strstr(cab_error_text(), "GiB for activations"));
    assert_non_null(strstr(cab_error_text(), "train.micro_batch (200000)"));
    assert_false(cab_path_exists(r->out));
    cab_recipe_free(r);
}

static void test_output_directory(void **state)
{
    cab_recipe *r = with(state, "seed=1");
    char path[CAB_PATH_MAX];
    assert_ok(cab_recipe_set(r, "out", temp_path(state, "train.txt/inner"))); /* below a file */
    assert_fails(cab_distill(r, NULL, NULL), CAB_EIO, "train.txt");
    assert_ok(cab_recipe_set(r, "out", temp_path(state, "train.txt")));
    assert_fails(cab_distill(r, NULL, NULL), CAB_EIO, "train.txt");
    assert_ok(cab_recipe_set(r, "out", "/proc/cab"));
    assert_fails(cab_distill(r, NULL, NULL), CAB_EIO, "/proc/cab");
    assert_ok(cab_recipe_set(r, "out", temp_path(state, "mine")));
    assert_ok(cab_distill(r, NULL, NULL));
    assert_fails(cab_distill(r, NULL, NULL), CAB_EARG, "holds this run, finished");
    assert_ok(cab_recipe_set(r, "seed", "9"));
    assert_fails(cab_distill(r, NULL, NULL), CAB_EARG, "holds another run");
    assert_ok(cab_path_join(path, r->out, "student/model.safetensors"));
    assert_true(cab_path_exists(path)); /* untouched */
    cab_recipe_free(r);
}

/* A directory that was there stays, whatever else it holds. */
static void test_refusals_leave_other_files_alone(void **state)
{
    cab_recipe *r = with(state, "data.train=/no/such/file.txt");
    char path[CAB_PATH_MAX];
    assert_ok(cab_directory_make(r->out));
    assert_ok(cab_path_join(path, r->out, "notes.txt"));
    assert_ok(cab_file_write(path, "x", 1));
    assert_fails(cab_distill(r, NULL, NULL), CAB_EIO, "/no/such/file.txt");
    assert_int_equal(temp_count_files(r->out), 1);
    cab_recipe_free(r);
    runs_distill(with(state, "seed=1"), NULL); /* and the mended recipe runs there */
}

/* Writes the student of a finished run with one parameter's values replaced. */
static void damage_student(void **state, const char *run, const char *name, float value, const char *to)
{
    char path[CAB_PATH_MAX];
    cab_model *model = NULL;
    assert_ok(cab_path_join(path, temp_path(state, run), "student"));
    assert_ok(cab_model_load_on(test_device(), path, CAB_PRECISION_FP32, &model));
    cab_tensor *t = cab_params_find(model->params, name);
    assert_non_null(t);
    size_t n = (size_t)cab_elements(t);
    float *values = calloc(n, sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++)
        values[i] = value;
    assert_ok(cab_params_write(model->params, t, values));
    assert_ok(cab_model_save(model, temp_path(state, to)));
    free(values);
    cab_model_free(model);
}

static void test_a_loss_that_is_not_a_number(void **state)
{
    static const struct {
        const char *method, *parameter, *text;
    } cases[] = {
        {"vanilla", "lm_head.weight", "step 1 (stage \"train\"): the loss term ce is "},
        {"cab-published", "backbone.layers.0.mixer.conv1d.weight", "step 1 (stage \"align\"): the loss term align is "},
    };
    runs_distill(with(state, "train.tokens=64"), NULL);
    for (int i = 0; i < 2; i++) {
        damage_student(state, "out", cases[i].parameter, 3e38f, "large");
        cab_recipe *r = runs_recipe(state, cases[i].method, "broken", NULL);
        assert_ok(cab_recipe_set(r, "student.path", temp_path(state, "large")));
        assert_fails(cab_distill(r, NULL, NULL), CAB_ENUMERIC, cases[i].text);
        assert_non_null(strstr(cab_error_text(), "no checkpoint had been written yet"));
        assert_false(cab_path_exists(r->out));
        cab_recipe_free(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_seeds),
        TEMP_TEST(test_micro_batches_add_up),
        TEMP_TEST(test_recompute_gives_the_same_bits),
        TEMP_TEST(test_eager_gives_the_same_bits),
        TEMP_TEST(test_stop_before_the_first_step),
        TEMP_TEST(test_corpus),
        TEMP_TEST(test_sizes),
        TEMP_TEST(test_layer_lists),
        TEMP_TEST(test_freeze_patterns),
        TEMP_TEST(test_plan_larger_than_memory),
        TEMP_TEST(test_output_directory),
        TEMP_TEST(test_refusals_leave_other_files_alone),
        TEMP_TEST(test_a_loss_that_is_not_a_number),
    };
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
