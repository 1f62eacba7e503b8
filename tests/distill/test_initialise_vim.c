/* Where the image student starts: what is drawn, that it is the same again, that every parameter then learns. */
#include "distill/initialise_vim.h"
#include "ops/backends.h"
#include "temp.h"

#include <math.h>

static cab_model *make_student(cab_backend *backend, bool tied_decay)
{
    const cab_arch *arch = NULL;
    cab_model *model = NULL;
    cab_config c = {.d_model = 24,
                    .n_layer = 2,
                    .n_classes = 5,
                    .d_state = 16,
                    .d_conv = 4,
                    .d_inner = 48,
                    .dt_rank = 2,
                    .n_group = 1,
                    .n_special = 1,
                    .class_middle = true,
                    .tied_decay = tied_decay,
                    .patch_size = 4,
                    .norm_eps = 1e-5};
    cab_config_set_image(&c, 12);
    assert_ok(cab_architecture_find("vim", "test", &arch));
    assert_ok(cab_model_create(arch, &c, backend, CAB_PRECISION_FP32, &model));
    return model;
}

static cab_model *student(cab_backend *backend)
{
    return make_student(backend, false);
}

static float *values_of(const cab_model *model, const cab_tensor *t)
{
    float *values = calloc((size_t)cab_elements(t), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_params_read(model->params, t, values));
    return values;
}

static double deviation(const cab_model *model, const cab_tensor *t)
{
    float *values = values_of(model, t);
    double sum = 0;
    for (int64_t i = 0; i < cab_elements(t); i++)
        sum += (double)values[i] * (double)values[i];
    free(values);
    return sqrt(sum / (double)cab_elements(t));
}

static void expect_all(const cab_model *model, const cab_tensor *t, double low, double high)
{
    float *values = values_of(model, t);
    for (int64_t i = 0; i < cab_elements(t); i++)
        assert_true((double)values[i] >= low && (double)values[i] <= high);
    free(values);
}

static void test_values(void **state)
{
    (void)state;
    cab_backend *backend = NULL;
    assert_ok(cab_backend_open(test_device(), &backend));
    cab_model *model = student(backend);
    assert_ok(cab_initialise_vim(model, 3, false));
    const cab_network *m = &model->network;
    for (int l = 0; l < 2; l++)
        for (int d = 0; d < 2; d++) {
            const cab_mamba1 *x = d == 0 ? &m->blocks[l].vim.forward : &m->blocks[l].vim.backward;
            float *A_log = values_of(model, x->A_log);
            for (int64_t i = 0; i < cab_elements(x->A_log); i++)
                assert_true(fabs((double)A_log[i] - log((double)(i % 16 + 1))) < 1e-6);
            free(A_log);
            expect_all(model, x->D, 1, 1);
            expect_all(model, x->dt_bias, log(expm1(0.001)) - 1e-3, log(expm1(0.1)) + 1e-3);
            expect_all(model, x->dt_proj.w, -1 / sqrt(2.0), 1 / sqrt(2.0));
        }
    assert_true(fabs(deviation(model, m->head.w) - 0.02) < 0.005);
    assert_true(fabs(deviation(model, m->patches.w) * sqrt(48) - 1) < 0.1);
    assert_true(fabs(deviation(model, m->blocks[1].vim.in_proj.w) * sqrt(3 * 24) - 1) < 0.1);
    assert_true(fabs(deviation(model, m->blocks[1].vim.out_proj.w) * sqrt(3 * 48 * 2) - 1) < 0.1);
    cab_model_free(model);
    cab_backend_close(backend);
}

static void test_same_again(void **state)
{
    (void)state;
    cab_backend *backend = NULL;
    assert_ok(cab_backend_open(test_device(), &backend));
    cab_model *a = student(backend), *b = student(backend), *other = student(backend);
    assert_ok(cab_initialise_vim(a, 3, true));
    assert_ok(cab_initialise_vim(b, 3, true));
    assert_ok(cab_initialise_vim(other, 4, true));
    size_t differ = 0;
    for (size_t i = 0; i < cab_params_count(a->params); i++) {
        const cab_tensor *t = cab_params_at(a->params, i);
        float *x = values_of(a, t), *y = values_of(b, cab_params_at(b->params, i));
        float *z = values_of(other, cab_params_at(other->params, i));
        assert_memory_equal(x, y, (size_t)cab_elements(t) * sizeof *x);
        differ += memcmp(x, z, (size_t)cab_elements(t) * sizeof *x) != 0;
        if (strstr(t->name, "_log") != NULL)
            expect_all(a, t, -20, -20);
        free(x);
        free(y);
        free(z);
    }
    assert_true(differ > 0);
    cab_model_free(a);
    cab_model_free(b);
    cab_model_free(other);
    cab_backend_close(backend);
}

/* Gradients of the sum of the logits of one image. */
static void go_back(cab_backend *backend, cab_model *model)
{
    float pixels[3 * 12 * 12], one[5] = {1, 1, 1, 1, 1};
    cab_graph *g = NULL;
    for (int i = 0; i < 3 * 12 * 12; i++)
        pixels[i] = sinf((float)i);
    assert_ok(cab_graph_new(backend, &g));
    cab_tensor *input = cab_graph_input(g, "pixels", CAB_F32, 4, (int64_t[]){1, 3, 12, 12});
    cab_tensor *logits = cab_model_record_logits(g, model, cab_model_record(g, model, input, false, NULL));
    cab_tensor *seed = cab_graph_input(g, "seed", CAB_F32, 3, (int64_t[]){1, 1, 5});
    cab_graph_backward(g, 1, &logits, &seed);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, input, pixels));
    assert_ok(cab_tensor_write(g, seed, one));
    assert_ok(cab_graph_run(g));
    cab_graph_free(g);
}

/* All parameters get a gradient, near the identity all but A a large one. */
static void test_everything_learns(void **state)
{
    (void)state;
    cab_backend *backend = NULL;
    assert_ok(cab_backend_open(test_device(), &backend));
    for (int identity = 0; identity < 2; identity++) {
        cab_model *model = student(backend);
        assert_ok(cab_initialise_vim(model, 3, identity));
        go_back(backend, model);
        for (size_t i = 0; i < cab_params_count(model->params); i++) {
            const cab_tensor *t = cab_params_at(model->params, i);
            float *gradient = calloc((size_t)cab_elements(t), sizeof *gradient);
            double largest = 0;
            assert_non_null(gradient);
            assert_ok(cab_params_read_grad(model->params, t, gradient));
            for (int64_t k = 0; k < cab_elements(t); k++)
                largest = fmax(largest, fabs((double)gradient[k]));
            if (!(largest > 1e-15 && isfinite(largest)))
                fail_msg("%s: largest gradient %g", t->name, largest);
            if (identity && strstr(t->name, "_log") != NULL)
                assert_true(largest < 1e-8);
            free(gradient);
        }
        cab_model_free(model);
    }
    cab_backend_close(backend);
}

/* One decay per channel: where it starts, that its states learn alike, and that a file says so. */
static void test_tied_decay(void **state)
{
    cab_backend *backend = NULL;
    assert_ok(cab_backend_open(test_device(), &backend));
    cab_model *model = make_student(backend, true), *again = NULL;
    const cab_tensor *A_log = model->network.blocks[1].vim.backward.A_log;
    float *gradient = calloc((size_t)cab_elements(A_log), sizeof *gradient);
    assert_non_null(gradient);
    assert_ok(cab_initialise_vim(model, 3, true));
    expect_all(model, A_log, -20, -20);
    assert_ok(cab_initialise_vim(model, 3, false));
    expect_all(model, A_log, 1, 1);
    go_back(backend, model);
    assert_ok(cab_params_read_grad(model->params, A_log, gradient));
    for (int64_t i = 0; i < cab_elements(A_log); i++)
        assert_true(gradient[i] != 0 && gradient[i] == gradient[i / 16 * 16]);
    assert_ok(cab_model_save(model, temp_path(state, "student")));
    assert_ok(cab_model_load_on(test_device(), temp_path(state, "student"), CAB_PRECISION_FP32, &again));
    assert_true(again->config.tied_decay && again->network.blocks[1].vim.backward.A_log->tied);
    free(gradient);
    cab_model_free(model);
    cab_model_free(again);
    cab_backend_close(backend);
}

static void test_other_students_refused(void **state)
{
    (void)state;
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), "examples/tales/teacher", CAB_PRECISION_FP32, &model));
    assert_fails(cab_initialise_vim(model, 1, false), CAB_EUNSUPPORTED, "\"gpt2\"");
    cab_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_same_again),
                                       cmocka_unit_test(test_everything_learns), TEMP_TEST(test_tied_decay),
                                       cmocka_unit_test(test_other_students_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
