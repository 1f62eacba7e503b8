/* Whole runs: the same bits from the same seed, through kills and interrupts; averages; failures that say where and leave
 * nothing half-written. */
#include "base/log.h"
#include "base/memory.h"
#include "io/safetensors.h"
#include "models/model.h"
#include "runs.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static void distill(cab_recipe *recipe, cab_result *result)
{
    assert_ok(cab_distill(recipe, NULL, result));
    cab_recipe_free(recipe);
}

static void expect_same_student(void **state, const char *a, const char *b)
{
    char first[CAB_PATH_MAX], second[CAB_PATH_MAX];
    assert_ok(cab_path_join(first, temp_path(state, a), "student/model.safetensors"));
    assert_ok(cab_path_join(second, temp_path(state, b), "student/model.safetensors"));
    runs_expect_same_file(first, second);
}

/* ||a - b|| / ||a|| over all parameters of two students. */
static double student_distance(void **state, const char *a, const char *b)
{
    cab_model *models[2] = {NULL, NULL};
    const char *names[2] = {a, b};
    double difference = 0, norm = 0;
    for (int k = 0; k < 2; k++) {
        char path[CAB_PATH_MAX];
        assert_ok(cab_path_join(path, temp_path(state, names[k]), "student"));
        assert_ok(cab_model_load(path, CAB_PRECISION_FP32, &models[k]));
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
    distill(runs_recipe(state, "cab-joint", "a", NULL), &a);
    distill(runs_recipe(state, "cab-joint", "b", NULL), &b);
    distill(runs_recipe(state, "cab-joint", "c", (const char *const[]){"seed=2", NULL}), &c);
    expect_same_student(state, "a", "b");
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
    distill(runs_recipe(state, "cab-joint", "whole", NULL), &a);
    distill(runs_recipe(state, "cab-joint", "pieces", (const char *const[]){"train.micro_batch=1", NULL}), &b);
    assert_true(fabs(a.loss - b.loss) < 1e-3 * a.loss);
    double distance = student_distance(state, "whole", "pieces");
    print_message("one batch of 4 and four of 1 are %.1e apart\n", distance);
    assert_true(distance < 1e-3); /* other orders of summation; Adam's first steps magnify tiny gradients */
}

static void test_recompute_gives_the_same_bits(void **state)
{
    distill(runs_recipe(state, "cab-joint", "kept", NULL), NULL);
    distill(runs_recipe(state, "cab-joint", "again", (const char *const[]){"train.recompute=true", NULL}), NULL);
    expect_same_student(state, "kept", "again");
}

static void test_eager_gives_the_same_bits(void **state)
{
    distill(runs_recipe(state, "cab-joint", "planned", NULL), NULL);
    setenv("CAB_EAGER", "1", 1);
    distill(runs_recipe(state, "cab-joint", "eager", NULL), NULL);
    unsetenv("CAB_EAGER");
    expect_same_student(state, "planned", "eager");
}

/* ---- kills and interrupts: the run is a process of its own ------------------------------------------------------------ */

static pid_t start_process(const char *recipe)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "test_distill", "run", recipe, (char *)NULL);
        _exit(99);
    }
    return pid;
}

static void sleep_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

/* Lines of the run's log; 0 when there is none yet. */
static int log_lines(const char *out)
{
    char path[CAB_PATH_MAX];
    assert_ok(cab_path_join(path, out, CAB_RUN_LOG));
    FILE *file = fopen(path, "r");
    int lines = 0;
    for (int c = 0; file != NULL && (c = fgetc(file)) != EOF;)
        lines += c == '\n';
    if (file != NULL)
        fclose(file);
    return lines;
}

/* Everything at once: stages, averages, bf16, micro-batches, a checkpoint after every step. */
static const char *const demanding[] = {"train.tokens=2560",    "train.ema=0.9",
                                        "train.micro_batch=2",  "precision=bf16",
                                        "train.recompute=true", "train.checkpoint_every=1",
                                        "train.eval_every=15",  NULL};

static void test_killed_at_random_moments(void **state)
{
    char recipe[CAB_PATH_MAX], out[CAB_PATH_MAX], other[CAB_PATH_MAX];
    unsigned kills = 0;
    cab_recipe *r = runs_recipe(state, "cab", "killed", demanding);
    snprintf(out, sizeof out, "%s", r->out);
    snprintf(recipe, sizeof recipe, "%s", temp_path(state, "killed.yaml"));
    assert_ok(cab_recipe_save(r, recipe));
    cab_recipe_free(r);
    distill(runs_recipe(state, "cab", "unbroken", demanding), NULL);
    srand((unsigned)time(NULL) ^ (unsigned)getpid());
    int status = 0;
    for (int attempt = 0; attempt < 4; attempt++) {
        int before = log_lines(out), patience = 0;
        pid_t pid = start_process(recipe);
        while (patience++ < 2000 && log_lines(out) < before + 3 && waitpid(pid, &status, WNOHANG) == 0)
            sleep_ms(2);
        sleep_ms(rand() % 60);
        kills += kill(pid, SIGKILL) == 0;
        waitpid(pid, &status, 0);
    }
    print_message("killed %u times, at line %d of the log at last\n", kills, log_lines(out));
    assert_true(kills > 0);
    pid_t pid = start_process(recipe);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!(WIFSIGNALED(status) || WEXITSTATUS(status) == CAB_OK || WEXITSTATUS(status) == CAB_EARG))
        fail_msg("the resumed run ended with %d", WEXITSTATUS(status));
    expect_same_student(state, "unbroken", "killed");
    assert_int_equal(log_lines(out), log_lines(temp_path(state, "unbroken"))); /* no line twice, none lost */
    assert_ok(cab_path_join(other, temp_path(state, "unbroken"), CAB_RUN_RESULT));
    assert_true(cab_path_exists(other));
    assert_ok(cab_path_join(other, out, CAB_RUN_RESULT));
    assert_true(cab_path_exists(other));
    assert_int_equal(temp_count_files(out), 4); /* no remains of the kills */
}

static void test_interrupted_and_resumed(void **state)
{
    char recipe[CAB_PATH_MAX], out[CAB_PATH_MAX], checkpoint[CAB_PATH_MAX];
    static const char *const settings[] = {"train.tokens=6400", NULL};
    cab_recipe *r = runs_recipe(state, "cab-joint", "stopped", settings);
    snprintf(out, sizeof out, "%s", r->out);
    snprintf(recipe, sizeof recipe, "%s", temp_path(state, "stopped.yaml"));
    assert_ok(cab_recipe_save(r, recipe));
    pid_t pid = start_process(recipe);
    for (int patience = 0; patience < 5000 && log_lines(out) < 5; patience++)
        sleep_ms(2);
    int status = 0;
    kill(pid, SIGINT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), CAB_EINTERRUPTED);
    int lines = log_lines(out);
    assert_in_range(lines, 5, 99);
    assert_ok(cab_path_join(checkpoint, out, CAB_RUN_CHECKPOINT));
    assert_true(cab_path_exists(checkpoint)); /* saved although none was due */
    cab_result resumed, unbroken;
    distill(r, &resumed);
    distill(runs_recipe(state, "cab-joint", "straight", settings), &unbroken);
    expect_same_student(state, "stopped", "straight");
    assert_true(resumed.loss == unbroken.loss && resumed.steps == 100 && resumed.tokens == 6400);
    assert_int_equal(log_lines(out), 101); /* a line per step and the last evaluation: none twice */
}

static void test_stop_before_the_first_step(void **state)
{
    cab_recipe *r = runs_recipe(state, "vanilla", "never", NULL);
    cab_distill_stop();
    assert_fails(cab_distill(r, NULL, NULL), CAB_EINTERRUPTED, "interrupted before the first step");
    assert_false(cab_path_exists(r->out));
    distill(r, NULL); /* the request was for the first run only */
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
    return runs_recipe(state, "cab-joint", "out", (const char *const[]){setting, NULL});
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
    expect_refusal(runs_recipe(state, "cab", "out", wrong), CAB_ESHAPE,
                   "bridge.layers has 3 entries, student.n_layer is 2");
    expect_refusal(runs_recipe(state, "cab", "out", outside), CAB_ESHAPE, "a teacher layer 0 to 3");
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
    static const char *const settings[] = {"train.batch=60000", "data.seq_len=256", "train.tokens=20000000",
                                           "train.recompute=false", NULL};
    cab_recipe *r = runs_recipe(state, "cab-joint", "out", settings);
    assert_ok(cab_recipe_set(r, "data.train", "examples/tales/train.txt"));
    assert_fails(cab_distill(r, NULL, NULL), CAB_ENOMEM, "the plan needs ");
    assert_non_null(strstr(cab_error_text(), "GiB for activations"));
    assert_non_null(strstr(cab_error_text(), "train.micro_batch (60000)"));
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
    distill(with(state, "seed=1"), NULL); /* and the mended recipe runs there */
}

/* Writes the student of a finished run with one parameter's values replaced. */
static void damage_student(void **state, const char *run, const char *name, float value, const char *to)
{
    char path[CAB_PATH_MAX];
    cab_model *model = NULL;
    assert_ok(cab_path_join(path, temp_path(state, run), "student"));
    assert_ok(cab_model_load(path, CAB_PRECISION_FP32, &model));
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
        {"cab", "backbone.layers.0.mixer.conv1d.weight", "step 1 (stage \"align\"): the loss term align is "},
    };
    distill(with(state, "train.tokens=64"), NULL);
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

/* Rewrites a checkpoint with one tensor's values replaced. */
static void damage_checkpoint(const char *path, const char *name, float value)
{
    static const char *const keys[] = {"version", "step", "seconds", "train_seconds", "recipe"};
    cab_safetensors *st = NULL;
    cab_safetensors_writer *writer = NULL;
    float large[32 * 1024];
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        large[i] = value;
    assert_ok(cab_safetensors_open(path, &st));
    assert_ok(cab_safetensors_writer_new(&writer));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_ok(cab_safetensors_writer_metadata(writer, keys[i], cab_safetensors_metadata(st, keys[i])));
    for (size_t i = 0; i < cab_safetensors_count(st); i++) {
        const cab_safetensors_entry *e = cab_safetensors_at(st, i);
        bool chosen = strcmp(e->name, name) == 0;
        assert_true(!chosen || e->bytes <= sizeof large);
        assert_ok(cab_safetensors_writer_add(writer, e->name, e->dtype, e->n_dim, e->shape, chosen ? large : e->data));
    }
    assert_ok(cab_safetensors_writer_save(writer, path));
    cab_safetensors_writer_free(writer);
    cab_safetensors_close(st);
}

/* Stops after three steps, as another process. */
static cab_recipe *broken_off(void **state, const char *out, char checkpoint[CAB_PATH_MAX])
{
    static const char *const settings[] = {"train.tokens=64000", "train.checkpoint_every=3", NULL};
    char recipe[CAB_PATH_MAX];
    cab_recipe *r = runs_recipe(state, "vanilla", out, settings);
    snprintf(recipe, sizeof recipe, "%s", temp_path(state, "recipe.yaml"));
    assert_ok(cab_recipe_save(r, recipe));
    assert_ok(cab_path_join(checkpoint, r->out, CAB_RUN_CHECKPOINT));
    pid_t pid = start_process(recipe);
    for (int patience = 0; patience < 5000 && !cab_path_exists(checkpoint); patience++)
        sleep_ms(1);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return r;
}

static void test_a_failed_step_names_the_checkpoint(void **state)
{
    char checkpoint[CAB_PATH_MAX], text[64];
    cab_recipe *r = broken_off(state, "broken", checkpoint);
    damage_checkpoint(checkpoint, "student.lm_head.weight", 3e38f);
    assert_fails(cab_distill(r, NULL, NULL), CAB_ENUMERIC, "the loss term ce is ");
    snprintf(text, sizeof text, "/%s (step ", CAB_RUN_CHECKPOINT);
    assert_non_null(strstr(cab_error_text(), text));
    assert_true(cab_path_exists(checkpoint));
    cab_recipe_free(r);
}

static void test_checkpoints_that_do_not_belong(void **state)
{
    char checkpoint[CAB_PATH_MAX];
    cab_recipe *r = broken_off(state, "broken", checkpoint);
    damage_checkpoint(checkpoint, "student.lm_head.weight", NAN);
    assert_fails(cab_distill(r, NULL, NULL), CAB_ENUMERIC, "student.lm_head.weight");
    assert_ok(cab_file_write(checkpoint, "rubbish", 7));
    assert_fails(cab_distill(r, NULL, NULL), CAB_EFORMAT, checkpoint);
    assert_true(cab_path_exists(checkpoint)); /* not ours to delete */
    assert_int_equal(temp_count_files(r->out), 3);
    cab_recipe_free(r);
}

/* ---- the other process ----------------------------------------------------------------------------------------------- */

static void stop(int signal_number)
{
    (void)signal_number;
    cab_distill_stop();
}

static int run_recipe(const char *path)
{
    cab_recipe *recipe = NULL;
    struct sigaction action = {.sa_handler = stop};
    cab_log_quiet(true);
    sigaction(SIGINT, &action, NULL);
    cab_status status = cab_recipe_load(path, &recipe);
    if (status == CAB_OK)
        status = cab_distill(recipe, NULL, NULL);
    cab_recipe_free(recipe);
    return (int)status;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_seeds),
        TEMP_TEST(test_micro_batches_add_up),
        TEMP_TEST(test_recompute_gives_the_same_bits),
        TEMP_TEST(test_eager_gives_the_same_bits),
        TEMP_TEST(test_killed_at_random_moments),
        TEMP_TEST(test_interrupted_and_resumed),
        TEMP_TEST(test_stop_before_the_first_step),
        TEMP_TEST(test_corpus),
        TEMP_TEST(test_sizes),
        TEMP_TEST(test_layer_lists),
        TEMP_TEST(test_freeze_patterns),
        TEMP_TEST(test_plan_larger_than_memory),
        TEMP_TEST(test_output_directory),
        TEMP_TEST(test_refusals_leave_other_files_alone),
        TEMP_TEST(test_a_loss_that_is_not_a_number),
        TEMP_TEST(test_a_failed_step_names_the_checkpoint),
        TEMP_TEST(test_checkpoints_that_do_not_belong),
    };
    if (argc == 3 && strcmp(argv[1], "run") == 0)
        return run_recipe(argv[2]);
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
