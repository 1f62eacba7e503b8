/* MOHAWK's three stages on the bundled teacher and on ViT-Tiny: the errors of matrices and of mixers fall, the run ends better than it
 * began, and one that is interrupted ends with the same bits. */
#include "base/log.h"
#include "images.h"
#include "interrupt.h"

#include <math.h>

/* Sizes are the teacher's. */
#define SIZES                                                                                                          \
    "student.n_layer=0", "student.d_model=0", "student.n_head=0", "student.d_state=0", "student.d_mlp=0", "train.lr=0"
static const char *const phi_mamba[] = {SIZES, NULL};
static const char *const in_place[] = {SIZES, "student.architecture=in-place", NULL};
static const char *const third[] = {"stages[0].share=0.4", "stages[1].share=0.3", "train.tokens=1280", NULL};

static cab_recipe *text(void **state, const char *const *student, const char *out)
{
    cab_recipe *recipe = runs_recipe(state, "multi-stage", out, student);
    runs_set(recipe, third);
    return recipe;
}

static cab_recipe *images(void **state, const char *out)
{
    static const char *const sizes[] = {
        SIZES, "student.architecture=in-place", "train.passes=2", "stages[0].share=0.4", "stages[1].share=0.3", NULL};
    return images_recipe(state, "multi-stage", out, sizes);
}

/* The values of a term in the first and the last step of the stage that has it. */
static void read_term(const char *directory, const char *term, double *first, double *last)
{
    char path[CAB_PATH_MAX], line[4096], key[32];
    snprintf(key, sizeof key, "\"%s\":", term);
    assert_ok(cab_path_join(path, directory, CAB_RUN_LOG));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    *first = *last = (double)NAN;
    while (fgets(line, sizeof line, file) != NULL) {
        const char *at = strstr(line, key);
        if (at == NULL)
            continue;
        *last = strtod(at + strlen(key), NULL);
        *first = isnan(*first) ? *last : *first;
    }
    fclose(file);
}

static void expect_falls(const char *directory, const char *term, double to)
{
    double first, last;
    read_term(directory, term, &first, &last);
    print_message("%s: %s %.3f -> %.3f\n", directory, term, first, last);
    assert_true(first > 0 && last < to * first);
}

static void test_text(void **state)
{
    const char *const *const students[] = {phi_mamba, in_place};
    for (int i = 0; i < 2; i++) {
        cab_result end;
        const char *out = i == 0 ? "phi-mamba" : "in-place";
        runs_distill(text(state, students[i], out), &end);
        assert_int_equal(end.steps, 20);
        expect_falls(temp_path(state, out), "matrix", 0.97);
        expect_falls(temp_path(state, out), "layer", 0.97);
    }
}

static void test_images(void **state)
{
    cab_result end;
    if (!images_present())
        skip();
    runs_distill(images(state, "vit"), &end);
    expect_falls(temp_path(state, "vit"), "matrix", 0.97);
    expect_falls(temp_path(state, "vit"), "layer", 0.8);
}

/* ---- an interruption ------------------------------------------------------------------------------------------------------ */

static void test_resumed(void **state)
{
    cab_recipe *r = text(state, in_place, "stopped");
    runs_interrupt(r, 4); /* in the first stage */
    runs_distill(r, NULL);
    runs_distill(text(state, in_place, "straight"), NULL);
    runs_expect_same_student(state, "stopped", "straight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_images),
                                       cmocka_unit_test(test_resumed)};
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, images_setup, temp_teardown);
}
