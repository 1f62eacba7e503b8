/* test_keep_trial.c - heads and layers that stay attention, by trial: the head that does all the work of a layer is found, whole layers are
 * ranked by what is left unexplained, and a run that goes on keeps what it has chosen. */
#include "base/log.h"
#include "models/tiny.h"
#include "runs.h"
#include "train/claim.h"
#include "train/keep_trial.h"

#include <math.h>

enum { LENGTH = 16, WORDS = 23, HEADS = 4, LAYERS = 2 };

typedef struct fixture {
    cab_backend *backend;
    cab_model *teacher;
    cab_recipe *recipe;
    int32_t ids[CAB_TRIAL_WINDOWS * LENGTH];
} fixture;

/* Only these heads of the two layers give anything. */
static const int working[LAYERS] = {2, 1};

static void silence_others(fixture *f)
{
    for (int l = 0; l < LAYERS; l++) {
        cab_tensor *w = f->teacher->network.blocks[l].attention.out.w;
        const int64_t rows = w->shape[0], columns = w->shape[1], width = columns / HEADS;
        float *values = calloc((size_t)(rows * columns), sizeof *values);
        assert_ok(cab_params_read(f->teacher->params, w, values));
        for (int64_t i = 0; i < rows * columns; i++)
            if (i % columns / width != working[l])
                values[i] = 0;
        assert_ok(cab_params_write(f->teacher->params, w, values));
        free(values);
    }
}

static fixture *open_fixture(void **state, const char *keep, const char *layout)
{
    const tiny llama = tiny_llama(CAB_F32);
    fixture *f = calloc(1, sizeof *f);
    void *directory = strdup(temp_path(state, "teacher"));
    assert_ok(cab_directory_make(directory));
    tiny_write(&directory, &llama, 1);
    assert_ok(cab_backend_open(test_device(), &f->backend));
    assert_ok(cab_model_open(directory, f->backend, CAB_PRECISION_FP32, false, &f->teacher));
    free(directory);
    silence_others(f);
    assert_ok(cab_recipe_new(&f->recipe));
    assert_ok(cab_recipe_set(f->recipe, "student.architecture", "in-place"));
    assert_ok(cab_recipe_set(f->recipe, "method", "cab-best"));
    assert_ok(cab_recipe_set(f->recipe, "student.layout", layout));
    assert_ok(cab_recipe_set(f->recipe, "student.keep", keep));
    for (int i = 0; i < CAB_TRIAL_WINDOWS * LENGTH; i++)
        f->ids[i] = (7 * i + i / 4 + i * i / 31) % WORDS;
    return f;
}

static void close_fixture(fixture *f)
{
    cab_recipe_free(f->recipe);
    cab_model_free(f->teacher);
    cab_backend_close(f->backend);
    free(f);
}

static void choose(fixture *f, cab_kept *kept)
{
    cab_windows windows = {.ids = f->ids, .count = CAB_TRIAL_WINDOWS, .length = LENGTH};
    const cab_student_source source = {.teacher = f->teacher, .recipe = f->recipe, .seq_len = LENGTH};
    const cab_domain_setup setup = {
        .recipe = f->recipe, .backend = f->backend, .precision = CAB_PRECISION_FP32, .teacher = f->teacher};
    assert_ok(cab_student_of(f->recipe)->keeps(&source, &windows, kept));
    assert_true(kept->open);
    const cab_trial_data data = cab_trial_windows(&windows);
    assert_ok(cab_keep_trial(&setup, &source, &data, kept));
}

/* Kept, the head that works leaves nothing to explain. The others are worth nothing. The same again has the same bits. */
static void test_heads(void **state)
{
    fixture *f = open_fixture(state, "1", "falcon-h1");
    cab_kept kept, again;
    choose(f, &kept);
    for (int l = 0; l < LAYERS; l++) {
        assert_int_equal(cab_kept_head(&kept, l, 0), working[l]);
        const float *cost = kept.cost + l * HEADS;
        for (int h = 0; h < HEADS; h++)
            if (h != working[l] && !(fabsf(cost[h]) < 0.5f * cost[working[l]]))
                fail_msg("layer %d, head %d: %g, the head that works %g", l, h, (double)cost[h],
                         (double)cost[working[l]]);
    }
    choose(f, &again);
    assert_memory_equal(kept.cost, again.cost, LAYERS * HEADS * sizeof *kept.cost);
    cab_kept_close(&again);
    cab_kept_close(&kept);
    close_fixture(f);
}

static void test_layers(void **state)
{
    fixture *f = open_fixture(state, "1", "own");
    cab_kept kept;
    assert_ok(cab_recipe_set(f->recipe, "student.keep_unit", "layers"));
    choose(f, &kept);
    assert_true(kept.cost[0] > 0 && kept.cost[1] > 0 && kept.cost[0] != kept.cost[1]);
    assert_int_equal(kept.units[0], kept.cost[1] > kept.cost[0]);
    cab_kept_close(&kept);
    close_fixture(f);
}

/* The choice lies in the run's directory. A run that goes on reads it there; one that begins anew does not. */
static void test_recalled(void **state)
{
    static const char *const settings[] = {"student.architecture=in-place",
                                           "student.layout=own",
                                           "student.keep=1",
                                           "student.d_model=0",
                                           "student.n_layer=0",
                                           "student.n_head=0",
                                           "student.d_mlp=0",
                                           "train.tokens=64",
                                           "data.seq_len=8",
                                           NULL};
    char path[CAB_PATH_MAX];
    cab_kept chosen, other;
    cab_recipe *r = runs_recipe(state, "cab-best", "run", NULL);
    runs_set(r, settings);
    assert_ok(cab_distill(r, NULL, NULL));
    assert_ok(cab_path_join(path, r->out, CAB_KEPT_FILE));
    assert_ok(cab_kept_load(path, &chosen));
    assert_int_equal(chosen.by, CAB_KEEP_BY_ERROR);
    for (int round = 0; round < 2; round++) { /* goes on, anew */
        char result[CAB_PATH_MAX], student[CAB_PATH_MAX];
        cab_kept changed;
        assert_ok(cab_kept_load(path, &changed));
        changed.units[0] = (chosen.units[0] + 1) % chosen.n_head;
        assert_ok(cab_kept_save(&changed, path));
        assert_ok(cab_path_join(result, r->out, CAB_RUN_RESULT));
        assert_int_equal(remove(result), 0);
        assert_ok(round == 0 ? cab_distill(r, NULL, NULL) : cab_distill_anew(r, NULL, NULL));
        assert_ok(cab_path_join(student, r->out, "student/" CAB_KEPT_FILE));
        assert_ok(cab_kept_load(student, &other));
        assert_int_equal(other.units[0], round == 0 ? changed.units[0] : chosen.units[0]);
        cab_kept_close(&other);
        cab_kept_close(&changed);
    }
    cab_kept_close(&chosen);
    assert_ok(cab_file_write(path, "{", 1)); /* damaged: a run that goes on says so */
    assert_ok(cab_path_join(path, r->out, CAB_RUN_RESULT));
    assert_int_equal(remove(path), 0);
    assert_fails(cab_distill(r, NULL, NULL), CAB_EFORMAT, CAB_KEPT_FILE);
    cab_recipe_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_heads), TEMP_TEST(test_layers), TEMP_TEST(test_recalled)};
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
