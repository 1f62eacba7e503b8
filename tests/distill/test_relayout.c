/* Students written in another layout compute what they did; what a layout cannot hold is named. */
#include "base/log.h"
#include "distill/relayout.h"
#include "distill/students.h"
#include "models/families.h"

enum { BATCH = 2, LENGTH = 9, LOGITS = BATCH * LENGTH * FAMILY_WORDS };

static int32_t ids[BATCH * LENGTH];

/* A student of that family, saved in <test>/student. */
static void make_student(void **state, int which, const char *const *settings)
{
    static const int map[] = {0, 1};
    cab_backend *backend = NULL;
    cab_model *teacher = NULL, *student = NULL;
    cab_recipe *recipe = NULL;
    cab_kept kept = {0};
    const cab_windows windows = {.ids = ids, .count = BATCH, .length = LENGTH};
    family_write(&families[which], temp_path(state, "teacher"));
    assert_ok(cab_backend_open("cpu", &backend));
    assert_ok(cab_model_open(temp_path(state, "teacher"), backend, CAB_PRECISION_FP32, false, &teacher));
    assert_ok(cab_recipe_new(&recipe));
    assert_ok(cab_recipe_set(recipe, "student.architecture", "in-place"));
    for (; *settings != NULL; settings += 2)
        assert_ok(cab_recipe_set(recipe, settings[0], settings[1]));
    cab_student_source source = {.teacher = teacher, .recipe = recipe, .seq_len = LENGTH, .layer_map = map};
    assert_ok(cab_student_of(recipe)->keeps(&source, &windows, &kept));
    source.kept = &kept;
    assert_ok(cab_student_create(&source, backend, CAB_PRECISION_FP32, &student));
    assert_ok(cab_student_initialise(student, &source));
    assert_ok(cab_model_save(student, temp_path(state, "student")));
    cab_kept_close(&kept);
    cab_recipe_free(recipe);
    cab_model_free(student);
    cab_model_free(teacher);
    cab_backend_close(backend);
}

static float *logits_of(void **state, const char *name, const char *type)
{
    cab_model *model = NULL;
    assert_ok(cab_model_load(temp_path(state, name), CAB_PRECISION_FP32, &model));
    assert_string_equal(cab_model_architecture(model), type);
    float *logits = tiny_logits(model, ids, BATCH, LENGTH);
    cab_model_free(model);
    return logits;
}

static cab_status write_again(void **state, const char *layout, cab_exported *done)
{
    char directory[CAB_PATH_MAX];
    snprintf(directory, sizeof directory, "%s", temp_path(state, "student"));
    const cab_export what = {.model = directory, .dtype = CAB_F32};
    return cab_relayout(&what, layout, temp_path(state, "again"), done);
}

static void test_falcon_h1(void **state)
{
    static const struct {
        int family;
        const char *type, *settings[9];
    } students[] = {
        {2, "in-place", {"student.layout", "own", "student.keep_list", "0,1", NULL}},
        {2, "in-place", {"student.layout", "own", NULL}},
        {2, "in-place", {"student.layout", "own", "student.keep_list", "1", "student.keep_unit", "layers", NULL}},
        {4, "in-place", {"student.layout", "own", "student.keep_list", "1,2", NULL}},
        {6, "in-place", {"student.layout", "own", "student.keep_list", "0,1,2", NULL}},
        {2,
         "granitemoehybrid",
         {"student.layout", "granite-hybrid", "student.keep_list", "1", "student.head_dim", "8", NULL}},
        {6, "granitemoehybrid", {"student.layout", "granite-hybrid", "student.head_dim", "8", NULL}}};
    for (size_t i = 0; i < sizeof students / sizeof *students; i++) {
        cab_exported done;
        make_student(state, students[i].family, students[i].settings);
        if (write_again(state, "falcon-h1", &done) != CAB_OK)
            fail_msg("%zu: %s", i, cab_error_text());
        float *expected = logits_of(state, "student", students[i].type), *got = logits_of(state, "again", "falcon_h1");
        if (!(tiny_distance(expected, got, LOGITS) < 2e-6))
            fail_msg("%zu: %g", i, tiny_distance(expected, got, LOGITS));
        free(expected);
        free(got);
    }
}

static void test_refused(void **state)
{
    static const char *const own[] = {"student.layout", "own", "student.keep_list", "1", NULL};
    static const char *const falcon[] = {"student.layout", "falcon-h1", "student.keep", "4", NULL};
    static const struct {
        int family;
        const char *const *settings;
        const char *layout, *said;
    } bad[] = {
        {0, own, "falcon-h1", "layout falcon-h1 cannot hold learned positions; layouts that can: its own"},
        {16, own, "falcon-h1", "cannot hold norms behind attention and MLP"},
        {2, own, "mamba2", "layout mamba2 cannot hold an MLP; layouts that can: its own, falcon-h1"},
        {2, own, "mamba", "layout mamba cannot hold an MLP"},
        {0, own, "mamba2", "layout mamba2 cannot hold an MLP; layouts that can: its own"},
        {2, falcon, "own", "layout own cannot hold a model that has no teacher's configuration"},
        {2, falcon, "granite-hybrid", "layout granite-hybrid cannot hold attention and a mixer side by side"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cab_exported done;
        make_student(state, bad[i].family, bad[i].settings);
        assert_fails(write_again(state, bad[i].layout, &done), CAB_EUNSUPPORTED, bad[i].said);
        assert_false(cab_path_exists(temp_path(state, "again")));
    }
    char teacher[CAB_PATH_MAX];
    snprintf(teacher, sizeof teacher, "%s", temp_path(state, "teacher"));
    cab_exported done;
    assert_fails(
        cab_relayout(&(cab_export){.model = teacher, .dtype = CAB_F32}, "falcon-h1", temp_path(state, "again"), &done),
        CAB_EUNSUPPORTED, "architecture \"llama\" has no state-space mixers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_falcon_h1), TEMP_TEST(test_refused)};
    for (int i = 0; i < BATCH * LENGTH; i++)
        ids[i] = (7 * i + i / 4) % FAMILY_WORDS;
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
