/* Runs on pictures that are killed or interrupted and go on, with the same bits: each is a process of its own, this program
 * once more. */
#include "images.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

/* Everything at once: mixing, averages, micro-batches, a checkpoint after every step. */
static const char *const demanding[] = {"augment.preset=deit",
                                        "augment.repeats=2",
                                        "student.n_layer=1",
                                        "train.passes=0",
                                        "train.tokens=384",
                                        "train.ema=0.9",
                                        "train.micro_batch=8",
                                        "train.recompute=true",
                                        "train.checkpoint_every=1",
                                        "train.eval_every=9",
                                        NULL};

/* The student that keeps its teacher's blocks, a layer's attention too: over the border of its stages, of half the layers. */
static const char *const in_place[] = {"student.architecture=in-place",
                                       "student.d_model=0",
                                       "student.d_state=0",
                                       "student.n_layer=6",
                                       "student.keep_list=3",
                                       "data.image_size=32",
                                       "train.passes=0",
                                       "train.tokens=384",
                                       "train.micro_batch=8",
                                       "train.recompute=true",
                                       "train.checkpoint_every=1",
                                       "train.eval_every=30",
                                       "train.lr=0",
                                       NULL};

static pid_t start_process(const char *recipe)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "test_images_resume", "run", recipe, (char *)NULL);
        _exit(99);
    }
    return pid;
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

/* Sends `signal` once the log has grown by `lines`; the process's exit status. */
static int stop_after(const char *recipe, const char *out, int lines, int signal)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    const int before = log_lines(out);
    int status = 0;
    pid_t pid = start_process(recipe);
    for (int patience = 0; patience < 10000 && log_lines(out) < before + lines; patience++)
        nanosleep(&pause, NULL);
    kill(pid, signal);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void check_same_bits(void **state, const char *method, const char *const *settings)
{
    char file[CAB_PATH_MAX], out[CAB_PATH_MAX];
    if (!images_present())
        skip();
    runs_distill(images_recipe(state, method, "unbroken", settings), NULL);
    cab_recipe *recipe = images_recipe(state, method, "broken", settings);
    snprintf(out, sizeof out, "%s", recipe->out);
    snprintf(file, sizeof file, "%s", temp_path(state, "broken.yaml"));
    assert_ok(cab_recipe_save(recipe, file));
    int killed = stop_after(file, out, 5, SIGKILL), interrupted = stop_after(file, out, 5, SIGINT);
    assert_true(WIFSIGNALED(killed));
    assert_true(WIFEXITED(interrupted) && WEXITSTATUS(interrupted) == CAB_EINTERRUPTED);
    cab_result result;
    runs_distill(recipe, &result);
    assert_int_equal(result.steps, 24);
    runs_expect_same_student(state, "unbroken", "broken");
    assert_int_equal(log_lines(out), log_lines(temp_path(state, "unbroken")));
    temp_remove(temp_path(state, "unbroken"));
    temp_remove(temp_path(state, "broken"));
}

static void test_same_bits(void **state)
{
    check_same_bits(state, "cab", demanding);
}

static void test_in_place(void **state)
{
    check_same_bits(state, "cab-best", in_place);
}

static void stop(int signal)
{
    (void)signal;
    cab_distill_stop();
}

/* As a process of its own: runs the recipe, obeys SIGINT. */
static int run_recipe(const char *path)
{
    cab_recipe *recipe = NULL;
    if (signal(SIGINT, stop) == SIG_ERR)
        return 98;
    cab_status status = cab_recipe_load(path, &recipe);
    if (status == CAB_OK)
        status = cab_distill(recipe, NULL, NULL);
    cab_recipe_free(recipe);
    return (int)status;
}

int main(int argc, char **argv)
{
    if (argc == 3)
        return run_recipe(argv[2]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits), cmocka_unit_test(test_in_place)};
    return cmocka_run_group_tests(tests, images_setup, temp_teardown);
}
