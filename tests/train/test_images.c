/* Runs on real pictures: a student learns, what it leaves can be used, and what does not fit together is said. */
#include "data/image_transform.h"
#include "images.h"

#include <math.h>

static cab_run_evaluation evaluation_at_start(cab_recipe *recipe)
{
    cab_run run = {0};
    cab_run_evaluation e;
    assert_ok(cab_run_open(recipe, &run));
    assert_ok(cab_run_evaluate(&run, 0, &e));
    cab_run_close(&run);
    return e;
}

/* Fails, saying so; frees the recipe. */
static void expect_refusal(cab_recipe *recipe, const char *sentence)
{
    assert_true(cab_distill(recipe, NULL, NULL) != CAB_OK);
    if (strstr(cab_error_text(), sentence) == NULL)
        fail_msg("found \"%s\", expected \"%s\"", cab_error_text(), sentence);
    cab_recipe_free(recipe);
}

/* Loss, KL and top-1 are better than at the start; top-1 is well beyond what four classes give for nothing. */
static void test_learns(void **state)
{
    static const char *const settings[] = {"train.passes=9", NULL};
    if (!images_present())
        skip();
    cab_recipe *recipe = images_recipe(state, "cab", "learns", settings);
    cab_run_evaluation start = evaluation_at_start(recipe);
    cab_result end;
    runs_distill(recipe, &end);
    print_message("top-1 %.2f -> %.2f, loss %.3f -> %.3f, KL %.3f -> %.3f; teacher %.2f; %.0f images/s\n", start.top1,
                  end.top1, start.loss, end.loss, start.kl, end.kl, start.teacher_top1, end.tokens_per_second);
    assert_true(start.tokens == 20 && fabs(start.loss - log(4)) < 0.3);
    assert_true(end.tokens == end.steps * 16 && end.steps == 101); /* 9 passes of 180 images */
    assert_true(end.loss < start.loss - 0.2 && end.kl < start.kl && end.top1 >= 0.4);
    assert_true(end.top5 == 1 && isnan(end.perplexity) && end.top1 > start.top1);
}

static void test_what_a_run_leaves(void **state)
{
    if (!images_present())
        skip();
    cab_model *model = NULL;
    cab_image_transform given, left;
    cab_classes classes = {0};
    cab_json json = {0};
    double value = 0;
    cab_recipe *recipe = images_recipe(state, "cab-published", "leaves", NULL);
    assert_ok(cab_distill(recipe, &model, NULL));
    assert_string_equal(cab_model_architecture(model), "vim");
    assert_true(model->config.n_classes == 4 && model->config.image_size == 48 && model->config.class_at == 4);
    cab_model_free(model);
    assert_ok(cab_image_transform_load(images_teacher, &given));
    assert_ok(cab_image_transform_load(temp_path(state, "leaves/student"), &left));
    given.size = 48;
    assert_true(left.size == 48 && floor(left.size / left.crop) == floor(given.size / given.crop));
    assert_memory_equal(left.mean, given.mean, sizeof left.mean);
    assert_memory_equal(left.std, given.std, sizeof left.std);
    assert_int_equal(left.filter, given.filter);
    assert_ok(cab_classes_load(temp_path(state, "leaves/student/classes.tsv"), &classes));
    assert_true(classes.count == 4 && classes.teacher[3] == 3);
    assert_string_equal(classes.words[2], "school bus");
    cab_classes_free(&classes);
    assert_ok(cab_json_load(temp_path(state, "leaves/result.json"), 1 << 20, &json));
    assert_ok(cab_json_number(&json, NULL, "teacher_top1", &value));
    assert_ok(cab_json_number(&json, NULL, "images_per_second", &value));
    assert_ok(cab_json_number(&json, NULL, "top5", &value));
    assert_false(json_object_object_get_ex(json.root, "perplexity", NULL));
    cab_json_close(&json);
    cab_recipe_free(recipe);
}

/* A student that was written is gone on with where it stands, and not by a recipe of other classes. */
static void test_goes_on(void **state)
{
    static const char *const settings[] = {"init.near_identity=false", "augment.preset=none", NULL};
    if (!images_present())
        skip();
    cab_result first;
    runs_distill(images_recipe(state, "soft", "first", settings), &first);
    cab_recipe *recipe = images_recipe(state, "soft", "second", settings);
    assert_ok(cab_recipe_set(recipe, "student.path", temp_path(state, "first/student")));
    cab_run_evaluation start = evaluation_at_start(recipe);
    assert_true(fabs(start.loss - first.loss) < 1e-6 && start.top1 == first.top1);
    assert_ok(cab_recipe_set(recipe, "student.classes", "teacher"));
    expect_refusal(recipe, "tells 4 classes apart, expected 1000");
}

/* The first step's loss terms; `labels` receives the batch's labels. */
static cab_term_values first_step(cab_recipe *recipe, int32_t labels[16])
{
    cab_run run = {0};
    cab_term_values values;
    cab_term_weights weights;
    double lr, norm;
    assert_ok(cab_run_open(recipe, &run));
    assert_ok(cab_run_enter_stage(&run, 0));
    assert_ok(cab_run_advance(&run, &values, &weights, &lr, &norm));
    const cab_image_data *data = run.data;
    memcpy(labels, data->lent.labels, sizeof(int32_t[16]));
    cab_run_close(&run);
    cab_recipe_free(recipe);
    return values;
}

/* Mixing is drawn for the batch of a step, however it is cut. */
static void test_micro_batches(void **state)
{
    static const char *const whole[] = {"augment.preset=deit", NULL}, *const cut[] = {"augment.preset=deit",
                                                                                      "train.micro_batch=4", NULL};
    int32_t labels[16];
    if (!images_present())
        skip();
    cab_term_values a = first_step(images_recipe(state, "cab", "whole", whole), labels);
    cab_term_values b = first_step(images_recipe(state, "cab", "cut", cut), labels);
    assert_true(fabs(a.of[CAB_TERM_CE] - b.of[CAB_TERM_CE]) < 1e-5 &&
                fabs(a.of[CAB_TERM_KL] - b.of[CAB_TERM_KL]) < 1e-5 &&
                fabs(a.of[CAB_TERM_ALIGN] - b.of[CAB_TERM_ALIGN]) < 1e-5);
    assert_int_equal(a.labels, b.labels);
}

/* All of the teacher's classes: labels are the teacher's, and the student is judged among the data's. */
static void test_all_the_teachers_classes(void **state)
{
    static const char *const settings[] = {"student.classes=teacher", "init.weights=teacher", "augment.preset=none",
                                           "student.d_model=0", NULL};
    int32_t labels[16];
    cab_run run = {0};
    cab_run_evaluation e;
    if (!images_present())
        skip();
    cab_recipe *recipe = images_recipe(state, "soft", "all", settings);
    assert_ok(cab_run_open(recipe, &run));
    assert_int_equal(run.student->config.n_classes, 1000);
    assert_ok(cab_run_evaluate(&run, 0, &e));
    assert_true(e.loss > 0.5 && e.loss < 3); /* among four */
    cab_run_close(&run);
    first_step(recipe, labels);
    for (int i = 0; i < 16; i++)
        assert_true(labels[i] == 1 || labels[i] == 145 || labels[i] == 779 || labels[i] == 951);
}

/* Students narrower than the teacher, of fewer layers or more, and of a map that leaves layers out. */
static void test_other_shapes(void **state)
{
    static const char *const shapes[][5] = {
        {"student.n_layer=5", "student.d_model=24", NULL},
        {"student.n_layer=14", "student.d_model=16", NULL},
        {"student.n_layer=3", "bridge.layer_map=list", "bridge.layers=11,-1,0", NULL}};
    int32_t labels[16];
    if (!images_present())
        skip();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        cab_term_values v = first_step(images_recipe(state, "cab-published", "shapes", shapes[i]), labels);
        assert_true(isfinite(v.of[CAB_TERM_ALIGN]) && v.of[CAB_TERM_ALIGN] > 0 && isfinite(v.of[CAB_TERM_KL]));
    }
}

static void test_what_does_not_fit(void **state)
{
    static const char *const cases[][3] = {
        {"teacher.path", "examples/tales/teacher", "not a model of images"},
        {"data.train", "examples/tales/train.txt", "expected a folder of classes, an archive of one, or a .csv list"},
        {"data.classes", "", "data.classes is missing: the data has 4 classes"},
        {"data.image_size", "60", "is not a multiple of the patches' 16"},
        {"student.patch_size", "8", "alignment compares token with token"},
        {"student.patch_size", "9", "not a multiple"},
    };
    if (!images_present())
        skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cab_recipe *recipe = images_recipe(state, "cab-published", "refused", NULL);
        assert_ok(cab_recipe_set(recipe, cases[i][0], cases[i][1]));
        expect_refusal(recipe, cases[i][2]);
    }
    cab_recipe *text = runs_recipe(state, "soft", "refused", NULL);
    assert_ok(cab_recipe_set(text, "student.architecture", "phi-mamba"));
    assert_ok(cab_recipe_set(text, "teacher.path", images_teacher));
    expect_refusal(text, "reads images; student.architecture must be in-place");
    text = runs_recipe(state, "soft", "refused", NULL);
    assert_ok(cab_recipe_set(text, "data.train", images_archive));
    expect_refusal(text, "not a kind of data file");
    assert_false(cab_path_exists(temp_path(state, "refused")));
}

/* A picture cut short: the run names it and stops, or goes on without it; no label moves. */
static void test_bad_pictures(void **state)
{
    static const char *const skipping[] = {"data.on_error=skip", "train.passes=0", "train.tokens=16", NULL};
    static const char bad[] = "\xff\xd8\xff\xe0 cut";
    if (!images_present())
        skip();
    const char *path = temp_path(state, "train/n02056570/bad.JPEG");
    assert_ok(cab_file_write(path, bad, sizeof bad));
    expect_refusal(images_recipe(state, "vanilla", "bad", NULL), "train/n02056570/bad.JPEG");
    cab_result result;
    runs_distill(images_recipe(state, "vanilla", "skipping", skipping), &result);
    assert_true(result.tokens == 16 && isfinite(result.loss));
    assert_int_equal(unlink(temp_path(state, "train/n02056570/bad.JPEG")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_what_a_run_leaves),
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_micro_batches),
        cmocka_unit_test(test_all_the_teachers_classes),
        cmocka_unit_test(test_other_shapes),
        cmocka_unit_test(test_what_does_not_fit),
        cmocka_unit_test(test_bad_pictures),
    };
    return cmocka_run_group_tests(tests, images_setup, temp_teardown);
}
