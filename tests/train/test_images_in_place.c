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

/* Half of its steps teach the mixers alone, the others all. Without the convolution: on a grid of 3 x 3 patches and so few pictures it is
 * noise. */
static void test_learns(void **state)
{
    static const char *const settings[] = {"train.passes=6", "student.grid_conv=0", NULL};
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

/* A third of the layers, of which the one that is hardest to imitate stays attention. */
static void test_fewer_layers(void **state)
{
    static const char *const settings[] = {"student.n_layer=4",  "student.keep=1",
                                           "train.passes=2",     "bridge.layer_map=uniform-last",
                                           "data.image_size=32", NULL};
    char file[CAB_PATH_MAX];
    cab_kept chosen;
    cab_result end;
    if (!images_present())
        skip();
    const cab_run_evaluation start = evaluate(in_place(state, "cab-best", "fewer", settings));
    runs_distill(in_place(state, "cab-best", "fewer", settings), &end);
    print_message("KL %.3f -> %.3f\n", start.kl, end.kl);
    assert_true(end.kl < 0.7 * start.kl);
    assert_ok(cab_path_join(file, temp_path(state, "fewer"), CAB_KEPT_FILE));
    assert_ok(cab_kept_load(file, &chosen));
    assert_true(chosen.layers && chosen.n_layer == 4 && chosen.count == 1);
    cab_kept_close(&chosen);
}

/* A student of half the width learns by KL and the bridges, and goes on from its own directory, which a layer-wise stage refuses. */
static void test_another_width(void **state)
{
    static const char *const narrow[] = {"student.d_model=96", "student.n_layer=2", "init.weights=scratch",
                                         "train.passes=2",     "train.lr=1e-3",     NULL};
    static const char *const on[] = {"train.passes=1", "init.weights=scratch", NULL};
    cab_result end, later;
    if (!images_present())
        skip();
    const cab_run_evaluation start = evaluate(in_place(state, "cab-published", "narrow", narrow));
    runs_distill(in_place(state, "cab-published", "narrow", narrow), &end);
    cab_recipe *recipe = in_place(state, "cab", "narrow-on", on);
    assert_ok(cab_recipe_set(recipe, "student.path", temp_path(state, "narrow/student")));
    runs_distill(recipe, &later);
    print_message("KL %.3f -> %.3f -> %.3f\n", start.kl, end.kl, later.kl);
    assert_true(end.kl < 0.8 * start.kl && later.kl < 0.8 * start.kl);
    recipe = in_place(state, "cab-best", "narrow-no", on);
    assert_ok(cab_recipe_set(recipe, "student.path", temp_path(state, "narrow/student")));
    cab_run run = {0};
    assert_fails(cab_run_open(recipe, &run), CAB_ESHAPE, "the student is 96 wide, the teacher 192");
    cab_run_close(&run);
    cab_recipe_free(recipe);
}

/* Classes that the teacher does not know: the layers are taught, then the whole by the labels. */
static void test_new_classes(void **state)
{
    static const char *const settings[] = {
        "data.classes=",  "student.n_layer=3", "train.passes=4",     "stages[1].kl=0",
        "stages[1].ce=1", "stages[1].lr=1e-3", "data.image_size=32", NULL};
    cab_result end;
    if (!images_present())
        skip();
    runs_distill(in_place(state, "cab-best", "new-classes", settings), &end);
    print_message("loss %.3f, top-1 %.1f\n", end.loss, 100 * end.top1);
    assert_true(end.loss < 0.9 * log(4) && end.top1 > 0.4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_learns),        cmocka_unit_test(test_ranking),
                                       cmocka_unit_test(test_recompute),     cmocka_unit_test(test_fewer_layers),
                                       cmocka_unit_test(test_another_width), cmocka_unit_test(test_new_classes)};
    return cmocka_run_group_tests(tests, images_setup, temp_teardown);
}
