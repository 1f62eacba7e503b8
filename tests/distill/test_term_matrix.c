/* The matrix error of real pairs, of text and images: its value within what it can be, its gradient, what it leaves alone; pairs for which it
 * has no meaning. tests/ops/test_mixer_matrix.c holds the values against the formula. */
#include "base/log.h"
#include "distill/objective.h"
#include "distill/students.h"
#include "models/tiny_vision.h"

#include <math.h>

enum { BATCH = 2, LENGTH = 7, ROWS = BATCH * LENGTH, WORDS = 23, PIXELS_MOST = BATCH * 3 * 64 * 64 };

typedef struct fixture {
    cab_backend *backend;
    cab_model *teacher, *student;
    cab_recipe *recipe;
    cab_kept kept;
    cab_term_set terms;
    cab_objective *objective;
    int32_t ids[ROWS], labels[ROWS];
    float *pixels;
} fixture;

static cab_status make(fixture *f)
{
    static const int map[] = {0, 1};
    const cab_windows windows = {.ids = f->ids, .count = BATCH, .length = LENGTH};
    cab_student_source source = {.teacher = f->teacher,
                                 .recipe = f->recipe,
                                 .seq_len = LENGTH,
                                 .n_classes = f->teacher->config.n_classes,
                                 .layer_map = map};
    if (cab_student_of(f->recipe)->keeps != NULL)
        CAB_TRY(cab_student_of(f->recipe)->keeps(&source, &windows, &f->kept));
    source.kept = &f->kept;
    CAB_TRY(cab_student_create(&source, f->backend, CAB_PRECISION_FP32, &f->student));
    CAB_TRY(cab_student_initialise(f->student, &source));
    const cab_term_setup setup = {.recipe = f->recipe, .student = f->student, .teacher = f->teacher, .layer_map = map};
    const bool images = f->teacher->config.image_size > 0;
    cab_objective_options options = {.batch = BATCH, .seq_len = images ? 1 : LENGTH, .temperature = 1, .train = true};
    options.terms[CAB_TERM_MATRIX] = true;
    CAB_TRY(cab_term_set_open(&setup, &f->terms));
    CAB_TRY(cab_objective_new(f->backend, f->student, f->teacher, &f->terms, &options, &f->objective));
    return cab_objective_plan(f->objective, NULL);
}

static fixture open_fixture(void **state, const tiny *teacher, const char *const *settings)
{
    fixture f = {0};
    void *directory = strdup(temp_path(state, "teacher"));
    cab_random random = {.seed = 3, .stream = CAB_STREAM_TEST};
    assert_ok(cab_directory_make(directory));
    tiny_write(&directory, teacher, 1);
    assert_ok(cab_backend_open(test_device(), &f.backend));
    assert_ok(cab_model_open(directory, f.backend, CAB_PRECISION_FP32, false, &f.teacher));
    assert_ok(cab_recipe_new(&f.recipe));
    assert_ok(cab_recipe_set(f.recipe, "teacher.path", directory));
    free(directory);
    for (; *settings != NULL; settings += 2)
        assert_ok(cab_recipe_set(f.recipe, settings[0], settings[1]));
    for (int i = 0; i < ROWS; i++) {
        f.ids[i] = (7 * i + i / 4) % WORDS;
        f.labels[i] = -1;
    }
    f.pixels = calloc(PIXELS_MOST, sizeof *f.pixels);
    assert_non_null(f.pixels);
    for (int i = 0; i < PIXELS_MOST; i++)
        f.pixels[i] = cab_random_normal(&random);
    return f;
}

static void close_fixture(fixture *f)
{
    cab_objective_free(f->objective);
    cab_term_set_close(&f->terms);
    cab_kept_close(&f->kept);
    cab_recipe_free(f->recipe);
    cab_model_free(f->student);
    cab_model_free(f->teacher);
    cab_backend_close(f->backend);
    free(f->pixels);
}

static double error_of(const fixture *f)
{
    const bool images = f->teacher->config.image_size > 0;
    const cab_batch batch = {.input = images ? (const void *)f->pixels : f->ids, .labels = f->labels};
    cab_term_weights weights = {{0}};
    cab_term_values values;
    weights.of[CAB_TERM_MATRIX] = 1;
    assert_ok(cab_objective_run(f->objective, &batch, &weights, 1, &values));
    return values.of[CAB_TERM_MATRIX];
}

/* The gradient of one element by differences. */
static void check_element(const fixture *f, const char *name)
{
    cab_tensor *t = cab_params_find(f->student->params, name);
    if (t == NULL)
        fail_msg("no parameter \"%s\"", name);
    const int64_t at = cab_elements(t) / 2;
    float *values = calloc((size_t)cab_elements(t), sizeof *values),
          *gradient = calloc((size_t)cab_elements(t), sizeof *gradient);
    const double step = 1e-2;
    double error[2];
    assert_true(values != NULL && gradient != NULL);
    assert_ok(cab_params_zero_grad(f->student->params));
    (void)error_of(f);
    assert_ok(cab_params_read_grad(f->student->params, t, gradient));
    assert_ok(cab_params_read(f->student->params, t, values));
    const float own = values[at];
    for (int i = 0; i < 2; i++) {
        values[at] = own + (float)(i ? -step : step);
        assert_ok(cab_params_write(f->student->params, t, values));
        error[i] = error_of(f);
    }
    values[at] = own;
    assert_ok(cab_params_write(f->student->params, t, values));
    const double expected = (error[0] - error[1]) / (2 * step);
    if (fabs((double)gradient[at] - expected) > 5e-3 * fabs(expected) + 5e-5)
        fail_msg("%s[%lld]: gradient %g, by differences %g", name, (long long)at, (double)gradient[at], expected);
    free(values);
    free(gradient);
}

static void check_pair(void **state, const tiny *teacher, const char *const *settings, const char *const *trained,
                       const char *const *untouched)
{
    fixture f = open_fixture(state, teacher, settings);
    assert_ok(make(&f));
    const double error = error_of(&f);
    if (!(error > 0.02 && error < 20))
        fail_msg("the matrix error begins at %g", error);
    for (; *trained != NULL; trained++)
        check_element(&f, *trained);
    for (; *untouched != NULL; untouched++) {
        const cab_tensor *t = cab_params_find(f.student->params, *untouched);
        assert_non_null(t);
        assert_false(cab_graph_trains(cab_objective_graph(f.objective), t));
    }
    close_fixture(&f);
}

static void test_in_place(void **state)
{
    const tiny teacher = tiny_llama(CAB_F32); /* grouped heads */
    static const char *const settings[] = {"student.architecture", "in-place", "method", "multi-stage", NULL};
    static const char *const trained[] = {"model.layers.1.mamba.in_proj.weight", "model.layers.1.mamba.dt_bias",
                                          "model.layers.0.mamba.A_log",          "model.layers.1.mamba.D",
                                          "model.layers.1.mamba.conv1d.weight",  NULL};
    static const char *const untouched[] = {"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                                            "model.layers.0.mamba.out_proj.weight",
                                            "model.layers.1.feed_forward.down_proj.weight", NULL};
    check_pair(state, &teacher, settings, trained, untouched);
}

/* The student's own norm reads the teacher's hidden state, and learns with it. */
static void test_phi_mamba(void **state)
{
    const tiny teacher = tiny_phi(CAB_F32);
    static const char *const settings[] = {"method", "multi-stage", NULL};
    static const char *const trained[] = {"backbone.layers.1.mixer.in_proj.weight", "backbone.layers.0.mixer.D",
                                          "backbone.layers.1.input_layernorm.weight",
                                          "backbone.layers.0.mixer.conv1d.weight", NULL};
    static const char *const untouched[] = {"backbone.embedding.weight", "backbone.layers.0.mixer.out_proj.weight",
                                            NULL};
    check_pair(state, &teacher, settings, trained, untouched);
}

static void test_images(void **state)
{
    const tiny teacher = tiny_transformers(CAB_F32, true); /* with a distillation token */
    static const char *const settings[] = {"method", "multi-stage", NULL}, *const shared[] = {"method", "multi-stage",
                                                                                              "student.shared_decay",
                                                                                              "true", NULL};
    static const char *const trained[] = {"layers.1.mamba.in_proj.weight", "layers.1.mamba.dt_bias",
                                          "layers.0.mamba.A_log", NULL};
    static const char *const untouched[] = {"layers.0.mamba.out_proj.weight", NULL};
    check_pair(state, &teacher, settings, trained, untouched);
    check_pair(state, &teacher, shared, trained, untouched);
}

static void refuse(void **state, const char *const *settings, const char *said)
{
    const tiny teacher = tiny_transformers(CAB_F32, false);
    fixture f = open_fixture(state, &teacher, settings);
    assert_int_not_equal(make(&f), CAB_OK);
    if (strstr(cab_error_text(), said) == NULL)
        fail_msg("found \"%s\", expected \"%s\"", cab_error_text(), said);
    close_fixture(&f);
}

/* Two layers of Vim, whose class token stands in the middle. */
static void test_vim(void **state)
{
    const tiny teacher = tiny_transformers(CAB_F32, true);
    static const char *const settings[] = {"student.architecture", "vim", "student.n_layer", "2", "method",
                                           "multi-stage",          NULL};
    static const char *const trained[] = {"layers.1.mixer.in_proj.weight",  "layers.1.norm.weight",
                                          "layers.0.mixer.A_b_log",         "layers.1.mixer.A_log",
                                          "layers.0.mixer.dt_proj.bias",    "layers.1.mixer.D_b",
                                          "layers.0.mixer.x_proj_b.weight", NULL};
    static const char *const untouched[] = {"cls_token", "layers.0.mixer.out_proj.weight", NULL};
    check_pair(state, &teacher, settings, trained, untouched);
}

static void test_refused(void **state)
{
    static const char *const untied[] = {"student.architecture",
                                         "vim",
                                         "student.n_layer",
                                         "2",
                                         "method",
                                         "multi-stage",
                                         "student.tied_decay",
                                         "false",
                                         NULL};
    static const char *const narrow[] = {"student.architecture", "vim", "student.d_model", "8", "method",
                                         "multi-stage",          NULL};
    refuse(state, untied, "matrices are compared where student.tied_decay is on");
    refuse(state, narrow, "the student is 8 wide, the teacher 12");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_in_place), TEMP_TEST(test_phi_mamba), TEMP_TEST(test_images),
                                       TEMP_TEST(test_vim), TEMP_TEST(test_refused)};
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
