/* The in-place student of images on real pictures: a few steps leave it near its teacher; what it leaves opens, is judged as in the run, and
 * is gone on with; recomputing changes nothing. */
#include "images.h"
#include "train/keep_trial.h"

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
    static const char *const kept[] = {"student.keep_list=3,7", "student.grid_conv=3", NULL};
    static const char *const again[] = {"student.keep_list=3,7", "student.grid_conv=3", "train.recompute=true", NULL};
    double norms[2];
    if (!images_present())
        skip();
    const cab_term_values a = first_step(in_place(state, "cab", "kept", kept), &norms[0]),
                          b = first_step(in_place(state, "cab", "again", again), &norms[1]);
    assert_true(a.of[CAB_TERM_KL] == b.of[CAB_TERM_KL] && a.of[CAB_TERM_ALIGN] == b.of[CAB_TERM_ALIGN] &&
                a.of[CAB_TERM_ALIGN] > 0);
    assert_true(norms[0] == norms[1]);
}

/* The layers that stay are those that mixers imitate worst; the choice lies in the run, which goes on with it, and beside the student. */
static void test_ranking(void **state)
{
    static const char *const settings[] = {"student.keep=2", "data.image_size=32", "train.passes=0", "train.tokens=32",
                                           NULL};
    char file[CAB_PATH_MAX];
    cab_kept chosen, changed, again;
    if (!images_present())
        skip();
    runs_distill(in_place(state, "cab-best", "ranked", settings), NULL);
    assert_ok(cab_path_join(file, temp_path(state, "ranked"), CAB_KEPT_FILE));
    assert_ok(cab_kept_load(file, &chosen));
    assert_true(chosen.layers && chosen.n_layer == 12 && chosen.count == 2 && chosen.by == CAB_KEEP_BY_ERROR);
    for (int l = 0; l < 12; l++)
        for (int i = 0; i < 2 && !cab_kept_has(&chosen, l, 0); i++)
            assert_true(chosen.cost[l] > 0 && chosen.cost[l] <= chosen.cost[chosen.units[i]]);
    assert_ok(cab_kept_load(file, &changed));
    changed.units[0] = 0;
    changed.units[1] = changed.units[1] == 11 ? 10 : 11;
    assert_ok(cab_kept_save(&changed, file));
    assert_ok(cab_path_join(file, temp_path(state, "ranked"), CAB_RUN_RESULT));
    assert_int_equal(remove(file), 0);
    runs_distill(in_place(state, "cab-best", "ranked", settings), NULL);
    assert_ok(cab_path_join(file, temp_path(state, "ranked"), "student/" CAB_KEPT_FILE));
    assert_ok(cab_kept_load(file, &again));
    assert_memory_equal(again.units, changed.units, 2 * sizeof *again.units);
    cab_kept_close(&chosen);
    cab_kept_close(&changed);
    cab_kept_close(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_learns), cmocka_unit_test(test_ranking),
                                       cmocka_unit_test(test_recompute)};
    return cmocka_run_group_tests(tests, images_setup, temp_teardown);
}
