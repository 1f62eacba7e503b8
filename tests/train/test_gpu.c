/* test_gpu.c - a run on the GPU beside the same run on the CPU: the losses of 50 steps; and the same bits when it is run again,
 * in bf16 as well. Skips unless CAB_TEST_DEVICE names a GPU. */
#include "base/json.h"
#include "train/runs.h"

#include <math.h>

enum { STEPS = 50 };

static void need_gpu(void)
{
    if (strcmp(test_device(), "cpu") != 0)
        return;
    print_message("skipped: CAB_TEST_DEVICE names no GPU\n");
    skip();
}

/* The losses of a run's steps as its log has them. */
static void read_losses(void **state, const char *out, double losses[STEPS])
{
    char path[CAB_PATH_MAX], *text = NULL, *rest = NULL;
    size_t size = 0, n = 0;
    assert_ok(cab_path_join(path, temp_path(state, out), CAB_RUN_LOG));
    assert_ok(cab_file_read(path, 1 << 24, &text, &size));
    for (char *line = strtok_r(text, "\n", &rest); line != NULL && n < STEPS; line = strtok_r(NULL, "\n", &rest)) {
        json_object *json = json_tokener_parse(line), *loss = NULL, *norm = NULL;
        if (json_object_object_get_ex(json, "loss", &loss) && json_object_object_get_ex(json, "grad_norm", &norm))
            losses[n++] = json_object_get_double(loss);
        json_object_put(json);
    }
    cab_free(text);
    assert_int_equal(n, STEPS);
}

static void distill_on(void **state, const char *method, const char *device, const char *out, const char *precision)
{
    static const char *const settings[] = {"train.tokens=3200", "train.log_every=1", "train.ema=0.9",
                                           "train.eval_every=20", NULL};
    cab_result result;
    cab_recipe *recipe = runs_recipe(state, method, out, settings);
    assert_ok(cab_recipe_set(recipe, "device", device));
    assert_ok(cab_recipe_set(recipe, "precision", precision));
    runs_distill(recipe, &result);
    assert_int_equal(result.steps, STEPS);
    assert_true(isfinite(result.loss));
}

static void test_losses(void **state)
{
    need_gpu();
    static const char *const methods[] = {"vanilla", "soft", "cab"};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        double cpu[STEPS], gpu[STEPS], worst = 0;
        char names[2][32];
        snprintf(names[0], sizeof names[0], "cpu%zu", i);
        snprintf(names[1], sizeof names[1], "gpu%zu", i);
        distill_on(state, methods[i], "cpu", names[0], "fp32");
        distill_on(state, methods[i], test_device(), names[1], "fp32");
        read_losses(state, names[0], cpu);
        read_losses(state, names[1], gpu);
        for (int k = 0; k < STEPS; k++)
            worst = fmax(worst, fabs(gpu[k] - cpu[k]) / cpu[k]);
        print_message("%s: losses of %d steps within %.1e\n", methods[i], STEPS, worst);
        assert_true(worst < 1e-3);
    }
}

static void test_same_bits(void **state)
{
    need_gpu();
    static const char *const precisions[] = {"fp32", "bf16"};
    for (int p = 0; p < 2; p++) {
        char names[2][32];
        for (int k = 0; k < 2; k++) {
            snprintf(names[k], sizeof names[k], "%s-%d", precisions[p], k);
            distill_on(state, "cab", test_device(), names[k], precisions[p]);
        }
        runs_expect_same_student(state, names[0], names[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_losses, temp_setup, temp_teardown),
                                       cmocka_unit_test_setup_teardown(test_same_bits, temp_setup, temp_teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
