/* The in-place student: all heads kept is the teacher; which are kept, and how; how mixers begin; what a layout cannot hold is
 * named; the layer-wise error, its gradient, and what it leaves alone. */
#include "base/log.h"
#include "distill/objective.h"
#include "distill/students.h"
#include "models/tiny.h"

#include <math.h>

enum { BATCH = 2, LENGTH = 7, ROWS = BATCH * LENGTH, WORDS = 23, HEADS = 4, WIDTH = 6, D = 16, E = 48 };

typedef struct fixture {
    cab_backend *backend;
    cab_model *teacher, *student;
    cab_recipe *recipe;
    cab_kept kept;
    int32_t ids[ROWS], labels[ROWS];
} fixture;

static void set(fixture *f, const char *key, const char *value)
{
    assert_ok(cab_recipe_set(f->recipe, key, value));
}

static fixture open_fixture(void **state, const tiny *teacher)
{
    fixture f = {0};
    void *directory = strdup(temp_path(state, "teacher"));
    assert_ok(cab_directory_make(directory));
    tiny_write(&directory, teacher, 1);
    assert_ok(cab_backend_open(test_device(), &f.backend));
    assert_ok(cab_model_open(directory, f.backend, CAB_PRECISION_FP32, false, &f.teacher));
    free(directory);
    assert_ok(cab_recipe_new(&f.recipe));
    set(&f, "student.architecture", "in-place");
    set(&f, "method", "cab-best");
    for (int i = 0; i < ROWS; i++) {
        f.ids[i] = (7 * i + i / 4) % WORDS;
        f.labels[i] = (7 * (i + 1) + (i + 1) / 4) % WORDS;
    }
    return f;
}

static void close_fixture(fixture *f)
{
    cab_kept_close(&f->kept);
    cab_recipe_free(f->recipe);
    cab_model_free(f->student);
    cab_model_free(f->teacher);
    cab_backend_close(f->backend);
}

static cab_status make(fixture *f)
{
    static const int map[] = {0, 1};
    const cab_windows windows = {.ids = f->ids, .count = BATCH, .length = LENGTH};
    cab_student_source source = {.teacher = f->teacher, .recipe = f->recipe, .seq_len = LENGTH, .layer_map = map};
    CAB_TRY(cab_student_of(f->recipe)->keeps(&source, &windows, &f->kept));
    source.kept = &f->kept;
    CAB_TRY(cab_student_create(&source, f->backend, CAB_PRECISION_FP32, &f->student));
    return cab_student_initialise(f->student, &source);
}

static float *values_of(const cab_model *model, const char *name)
{
    const cab_tensor *t = cab_params_find(model->params, name);
    assert_non_null(t);
    float *values = calloc((size_t)cab_elements(t), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_params_read(model->params, t, values));
    return values;
}

/* n values, `factor` times those of the teacher. */
static void expect_rows(const float *student, const float *teacher, double factor, int n)
{
    for (int i = 0; i < n; i++)
        assert_true(fabs((double)student[i] - factor * (double)teacher[i]) <= 1e-6 * (1 + fabs((double)teacher[i])));
}

static void test_all_heads(void **state)
{
    const tiny teacher = tiny_llama(CAB_F32);
    fixture f = open_fixture(state, &teacher);
    set(&f, "student.keep", "4");
    assert_ok(make(&f));
    float *expected = tiny_logits(f.teacher, f.ids, BATCH, LENGTH), *got = tiny_logits(f.student, f.ids, BATCH, LENGTH);
    assert_true(tiny_distance(got, expected, ROWS * WORDS) < 1e-5);
    free(expected);
    free(got);
    close_fixture(&f);
}

static void test_one_head(void **state)
{
    const tiny teacher = tiny_llama(CAB_F32);
    fixture f = open_fixture(state, &teacher);
    set(&f, "student.keep_list", "3");
    set(&f, "init.qk_scale", "0.5");
    assert_ok(make(&f));
    const char *const layer = "model.layers.1.";
    static const struct {
        const char *name;
        int first, n; /* values of the teacher's */
    } parts[] = {{"self_attn.q_proj.weight", 3 * WIDTH * D, WIDTH * D},
                 {"self_attn.q_proj.bias", 3 * WIDTH, WIDTH},
                 {"self_attn.k_proj.weight", WIDTH * D, WIDTH * D},
                 {"self_attn.v_proj.weight", WIDTH * D, WIDTH * D},
                 {"self_attn.v_proj.bias", WIDTH, WIDTH},
                 {"self_attn.o_proj.bias", 0, D}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[CAB_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", layer, parts[i].name);
        float *from = values_of(f.teacher, name), *to = values_of(f.student, name);
        expect_rows(to, from + parts[i].first, 1, parts[i].n);
        free(from);
        free(to);
    }
    float *in = values_of(f.student, "model.layers.1.mamba.in_proj.weight"),
          *conv = values_of(f.student, "model.layers.1.mamba.conv1d.bias");
    float *v = values_of(f.teacher, "model.layers.1.self_attn.v_proj.weight"),
          *bias = values_of(f.teacher, "model.layers.1.self_attn.v_proj.bias");
    float *k = values_of(f.teacher, "model.layers.1.self_attn.k_proj.weight"),
          *q = values_of(f.teacher, "model.layers.1.self_attn.q_proj.weight");
    float *out = values_of(f.student, "model.layers.1.mamba.out_proj.weight"),
          *o = values_of(f.teacher, "model.layers.1.self_attn.o_proj.weight");
    for (int head = 0; head < HEADS; head++)
        for (int negative = 0; negative < 2; negative++) {
            const int x = (2 * head + negative) * WIDTH, row = head / 2 * WIDTH;
            expect_rows(in + (E + x) * D, v + row * D, negative ? -1 : 1, WIDTH * D);
            expect_rows(conv + x, bias + row, negative ? -1 : 1, WIDTH);
            for (int r = 0; r < D; r++) /* a kept head is not imitated */
                expect_rows(out + r * E + x, o + r * HEADS * WIDTH + head * WIDTH,
                            head == 3  ? 0
                            : negative ? -1
                                       : 1,
                            WIDTH);
        }
    for (int g = 0; g < 2; g++)
        for (int i = 0; i < WIDTH * D; i++) {
            const double key = 0.5 * (double)k[g * WIDTH * D + i];
            const double query = 0.25 * ((double)q[2 * g * WIDTH * D + i] + (double)q[(2 * g + 1) * WIDTH * D + i]);
            assert_true(fabs((double)in[(2 * E + g * 2 * WIDTH) * D + i] - key) < 1e-6);
            assert_true(fabs((double)in[(2 * E + (2 * g + 1) * WIDTH) * D + i] + key) < 1e-6);
            assert_true(fabs((double)in[(2 * E + 4 * WIDTH + g * 2 * WIDTH) * D + i] - query) < 1e-6);
        }
    float *all[] = {in, conv, v, bias, k, q, out, o};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    close_fixture(&f);
}

/* A head whose output is multiplied by zero costs nothing to leave out. */
static void test_ranking(void **state)
{
    const tiny teacher = tiny_llama(CAB_F32);
    fixture f = open_fixture(state, &teacher);
    float *out = values_of(f.teacher, "model.layers.0.self_attn.o_proj.weight");
    for (int r = 0; r < D; r++)
        memset(out + r * HEADS * WIDTH + 2 * WIDTH, 0, WIDTH * sizeof *out);
    assert_ok(cab_params_write(f.teacher->params,
                               cab_params_find(f.teacher->params, "model.layers.0.self_attn.o_proj.weight"), out));
    free(out);
    set(&f, "student.keep", "3");
    set(&f, "student.keep_by", "kl");
    assert_ok(make(&f));
    assert_true(fabsf(f.kept.cost[2]) < 1e-6f && !cab_kept_has(&f.kept, 0, 2));
    for (int h = 0; h < HEADS; h++)
        assert_true(h == 2 || f.kept.cost[h] > 1e-5f);
    assert_true(cab_kept_head(&f.kept, 0, 0) == 0 && cab_kept_head(&f.kept, 0, 2) == 3);
    close_fixture(&f);
    f = open_fixture(state, &teacher);
    set(&f, "student.layout", "granite-hybrid");
    set(&f, "student.head_dim", "8");
    assert_ok(make(&f));
    assert_true(!cab_block_attends(&f.student->network.blocks[1]));
    set(&f, "student.keep", "1");
    cab_model_free(f.student);
    f.student = NULL;
    assert_int_equal(make(&f), CAB_EUNSUPPORTED); /* heads of 6, 16 / 4 is 4 */
    close_fixture(&f);
}

static void test_refused(void **state)
{
    const tiny gpt2 = tiny_gpt2(CAB_F32, ""), llama = tiny_llama(CAB_F32);
    fixture f = open_fixture(state, &gpt2);
    set(&f, "student.layout", "falcon-h1");
    assert_fails(make(&f), CAB_EUNSUPPORTED, "learned positions");
    close_fixture(&f);
    f = open_fixture(state, &llama);
    set(&f, "student.keep", "1");
    set(&f, "student.keep_unit", "layers");
    set(&f, "student.layout", "falcon-h1");
    assert_fails(make(&f), CAB_EUNSUPPORTED, "cannot hold whole layers of attention; layouts that can: own");
    close_fixture(&f);
    static const struct {
        const char *key, *value, *said;
    } bad[] = {{"student.keep", "5", "the teacher has 4 heads"},
               {"student.keep_list", "1,1", "keep_list[1] is 1"},
               {"student.n_layer", "1", "student.n_layer is 1"},
               {"student.n_group", "3", "student.n_group 3 does not divide"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        f = open_fixture(state, &llama);
        set(&f, bad[i].key, bad[i].value);
        assert_int_not_equal(make(&f), CAB_OK);
        if (strstr(cab_error_text(), bad[i].said) == NULL)
            fail_msg("%s", cab_error_text());
        close_fixture(&f);
    }
}

/* ---- the layer-wise error --------------------------------------------------------------------------------------------- */

/* A stage of this term alone; terms and objective are the caller's. */
static cab_objective *layer_objective(const fixture *f, cab_term_set *terms)
{
    const int map[] = {0, 1};
    const cab_term_setup setup = {.recipe = f->recipe, .student = f->student, .teacher = f->teacher, .layer_map = map};
    cab_objective_options options = {.batch = BATCH, .seq_len = LENGTH, .temperature = 1, .train = true};
    cab_objective *o = NULL;
    options.terms[CAB_TERM_LAYER] = true;
    assert_ok(cab_term_set_open(&setup, terms));
    assert_ok(cab_objective_new(f->backend, f->student, f->teacher, terms, &options, &o));
    assert_ok(cab_objective_plan(o, NULL));
    return o;
}

static double layer_error(const fixture *f, cab_objective *o)
{
    const cab_batch batch = {.input = f->ids, .labels = f->labels};
    cab_term_weights weights = {{0}};
    cab_term_values values;
    weights.of[CAB_TERM_LAYER] = 1;
    assert_ok(cab_objective_run(o, &batch, &weights, 1, &values));
    return values.of[CAB_TERM_LAYER];
}

/* The gradient of one element by differences. */
static void check_element(const fixture *f, cab_objective *o, cab_tensor *t, int64_t at)
{
    float *values = calloc((size_t)cab_elements(t), sizeof *values),
          *gradient = calloc((size_t)cab_elements(t), sizeof *gradient);
    const double step = 1e-2;
    double error[2];
    assert_ok(cab_params_zero_grad(f->student->params));
    (void)layer_error(f, o);
    assert_ok(cab_params_read_grad(f->student->params, t, gradient));
    assert_ok(cab_params_read(f->student->params, t, values));
    const float own = values[at];
    for (int i = 0; i < 2; i++) {
        values[at] = own + (float)(i ? -step : step);
        assert_ok(cab_params_write(f->student->params, t, values));
        error[i] = layer_error(f, o);
    }
    values[at] = own;
    assert_ok(cab_params_write(f->student->params, t, values));
    const double expected = (error[0] - error[1]) / (2 * step);
    if (fabs((double)gradient[at] - expected) > 2e-3 * fabs(expected) + 2e-5)
        fail_msg("%s[%lld]: gradient %g, by differences %g", t->name, (long long)at, (double)gradient[at], expected);
    free(values);
    free(gradient);
}

static void test_layer_error(void **state)
{
    const tiny teacher = tiny_llama(CAB_F32);
    fixture f = open_fixture(state, &teacher);
    set(&f, "student.keep_list", "0");
    assert_ok(make(&f));
    cab_term_set terms = {0};
    cab_objective *o = layer_objective(&f, &terms);
    static const char *const trained[] = {"model.layers.1.mamba.in_proj.weight", "model.layers.0.mamba.out_proj.weight",
                                          "model.layers.0.mamba.A_log", "model.layers.1.mamba.conv1d.weight",
                                          "model.layers.1.self_attn.o_proj.weight"};
    for (size_t i = 0; i < sizeof trained / sizeof *trained; i++) {
        cab_tensor *t = cab_params_find(f.student->params, trained[i]);
        assert_true(cab_graph_trains(cab_objective_graph(o), t));
        check_element(&f, o, t, cab_elements(t) / 2 + 1);
    }
    static const char *const untouched[] = {"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                                            "model.layers.1.feed_forward.down_proj.weight"};
    for (size_t i = 0; i < sizeof untouched / sizeof *untouched; i++)
        assert_false(cab_graph_trains(cab_objective_graph(o), cab_params_find(f.student->params, untouched[i])));
    cab_objective_free(o);
    cab_term_set_close(&terms);
    close_fixture(&f);
}

/* Kept heads alone are the teacher's mixers: nothing is left to explain. */
static void test_no_error(void **state)
{
    const tiny teacher = tiny_llama(CAB_F32);
    fixture f = open_fixture(state, &teacher);
    set(&f, "student.keep", "4");
    assert_ok(make(&f));
    cab_term_set terms = {0};
    cab_objective *o = layer_objective(&f, &terms);
    assert_true(layer_error(&f, o) < 1e-9);
    cab_objective_free(o);
    cab_term_set_close(&terms);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_all_heads),   TEMP_TEST(test_one_head),
                                       TEMP_TEST(test_ranking),     TEMP_TEST(test_refused),
                                       TEMP_TEST(test_layer_error), TEMP_TEST(test_no_error)};
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
