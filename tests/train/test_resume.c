/* Runs that are killed, interrupted or damaged, and go on: each is a process of its own, this program once more. */
#include "base/log.h"
#include "io/safetensors.h"
#include "runs.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static pid_t start_process(const char *recipe)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "test_resume", "run", recipe, (char *)NULL);
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
static const char *const demanding[] = {"train.tokens=1536",    "train.ema=0.9",
                                        "train.micro_batch=2",  "precision=bf16",
                                        "train.recompute=true", "train.checkpoint_every=1",
                                        "train.eval_every=9",   NULL};

static void test_killed_at_random_moments(void **state)
{
    char recipe[CAB_PATH_MAX], out[CAB_PATH_MAX], other[CAB_PATH_MAX];
    unsigned kills = 0;
    cab_recipe *r = runs_recipe(state, "cab-published", "killed", demanding);
    snprintf(out, sizeof out, "%s", r->out);
    snprintf(recipe, sizeof recipe, "%s", temp_path(state, "killed.yaml"));
    assert_ok(cab_recipe_save(r, recipe));
    cab_recipe_free(r);
    runs_distill(runs_recipe(state, "cab-published", "unbroken", demanding), NULL);
    srand((unsigned)time(NULL) ^ (unsigned)getpid());
    int status = 0;
    for (int attempt = 0; attempt < 3; attempt++) {
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
    runs_expect_same_student(state, "unbroken", "killed");
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
    static const char *const settings[] = {"train.tokens=3072", NULL};
    cab_recipe *r = runs_recipe(state, "cab", "stopped", settings);
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
    assert_in_range(lines, 5, 47);
    assert_ok(cab_path_join(checkpoint, out, CAB_RUN_CHECKPOINT));
    assert_true(cab_path_exists(checkpoint)); /* saved although none was due */
    cab_result resumed, unbroken;
    runs_distill(r, &resumed);
    runs_distill(runs_recipe(state, "cab", "straight", settings), &unbroken);
    runs_expect_same_student(state, "stopped", "straight");
    assert_true(resumed.loss == unbroken.loss && resumed.steps == 48 && resumed.tokens == 3072);
    assert_int_equal(log_lines(out), 49); /* a line per step and the last evaluation: none twice */
}

/* ---- damaged checkpoints --------------------------------------------------------------------------------------------------- */

/* Rewrites a checkpoint with one tensor's values replaced. */
static void damage_checkpoint(const char *path, const char *name, float value)
{
    static const char *const keys[] = {"version", "step",   "seconds", "train_seconds",
                                       "recipe",  "inputs", "threads", "precision"};
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

/* One flipped bit anywhere ends in an error that names the file and says what to do. */
static void test_flipped_bits_are_refused(void **state)
{
    char checkpoint[CAB_PATH_MAX], *sound = NULL;
    size_t size = 0;
    cab_recipe *r = broken_off(state, "broken", checkpoint);
    assert_ok(cab_file_read(checkpoint, 1 << 26, &sound, &size));
    for (size_t k = 0; k < 40; k++) {
        const size_t at = k < 20 ? k * 97 : (size_t)((double)(size - 1) * (double)(k - 20) / 19);
        sound[at] = (char)(sound[at] ^ 1 << k % 8);
        assert_ok(cab_file_write(checkpoint, sound, size));
        assert_fails(cab_distill(r, NULL, NULL), CAB_EFORMAT, checkpoint);
        assert_non_null(strstr(cab_error_text(), "start anew with --overwrite"));
        sound[at] = (char)(sound[at] ^ 1 << k % 8);
    }
    cab_free(sound);
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
        TEMP_TEST(test_killed_at_random_moments),           TEMP_TEST(test_interrupted_and_resumed),
        TEMP_TEST(test_a_failed_step_names_the_checkpoint), TEMP_TEST(test_checkpoints_that_do_not_belong),
        TEMP_TEST(test_flipped_bits_are_refused),
    };
    if (argc == 3 && strcmp(argv[1], "run") == 0)
        return run_recipe(argv[2]);
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
