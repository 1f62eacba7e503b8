/* The in-place student of images on real pictures: a few steps leave it near its teacher; what it leaves opens, is judged as in the run, and
 * is gone on with; recomputing changes nothing. */
#include "images.h"

#include <math.h>

static cab_recipe *in_place(void **state, const char *method, const char *out, const char *const *settings)
{
    static const char *const sizes[] = {"student.architecture=in-place",
                                        "student.n_layer=0",
                                        "student.d_model=0",
                                        "student.d_state=0",
                                        "train.lr=0",
                                        NULL};
    cab_recipe *recipe = images_recipe(state, method, out, sizes);
    if (settings != NULL)
        runs_set(recipe, settings);
    return recipe;
}

static cab_run_evaluation evaluate(cab_recipe *recipe)
{
    cab_run run = {0};
    cab_run_evaluation e;
    assert_ok(cab_run_open(recipe, &run));
    assert_ok(cab_run_evaluate(&run, 0, &e));
    cab_run_close(&run);
    cab_recipe_free(recipe);
    return e;
}

/* Half of its steps teach the mixers alone, the others all. */
static void test_learns(void **state)
{
    static const char *const settings[] = {"train.passes=6", NULL};
    if (!images_present())
        skip();
    cab_result end;
    const cab_run_evaluation start = evaluate(in_place(state, "cab-best", "learns", settings));
    runs_distill(in_place(state, "cab-best", "learns", settings), &end);
    cab_recipe *recipe = in_place(state, "soft", "goes-on", NULL);
    assert_ok(cab_recipe_set(recipe, "student.path", temp_path(state, "learns/student")));
    const cab_run_evaluation again = evaluate(recipe);
    print_message("KL %.3f -> %.3f\n", start.kl, end.kl);
    assert_true(end.steps == 68 && end.kl < 0.4 * start.kl);
    assert_true(fabs(again.loss - end.loss) < 1e-6 && again.top1 == end.top1);
}

/* The first step's terms and the gradient's norm. */
static cab_term_values first_step(cab_recipe *recipe, double *norm)
{
    cab_run run = {0};
    cab_term_values values;
    cab_term_weights weights;
    double lr;
    assert_ok(cab_run_open(recipe, &run));
    assert_ok(cab_run_enter_stage(&run, 0));
    assert_ok(cab_run_advance(&run, &values, &weights, &lr, norm));
    cab_run_close(&run);
    cab_recipe_free(recipe);
    return values;
}

static void test_recompute(void **state)
{
    static const char *const kept[] = {"student.keep_list=3,7", NULL}, *const again[] = {"student.keep_list=3,7",
                                                                                         "train.recompute=true", NULL};
    double norms[2];
    if (!images_present())
        skip();
    const cab_term_values a = first_step(in_place(state, "cab", "kept", kept), &norms[0]),
                          b = first_step(in_place(state, "cab", "again", again), &norms[1]);
    assert_true(a.of[CAB_TERM_KL] == b.of[CAB_TERM_KL] && a.of[CAB_TERM_ALIGN] == b.of[CAB_TERM_ALIGN] &&
                a.of[CAB_TERM_ALIGN] > 0);
    assert_true(norms[0] == norms[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_learns), cmocka_unit_test(test_recompute)};
    return cmocka_run_group_tests(tests, images_setup, temp_teardown);
}
