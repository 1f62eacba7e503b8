/* What of a ViT or DeiT the image student starts from, number by number. */
#include "base/memory.h"
#include "distill/initialise_vim.h"
#include "models/part.h"
#include "models/tiny_vision.h"

enum { D = 12, E = 24, N = 3, PATCHES = 9, CLASSES = 5 };

typedef struct fixture {
    cab_backend *backend;
    cab_model *teacher, *student;
    cab_recipe *recipe;
} fixture;

static cab_model *student(cab_backend *backend, int width, int classes)
{
    const cab_arch *arch = NULL;
    cab_model *model = NULL;
    cab_config c = {.d_model = width,
                    .n_layer = 3,
                    .n_classes = classes,
                    .d_state = N,
                    .d_conv = 4,
                    .d_inner = 2 * width,
                    .dt_rank = 1,
                    .n_group = 1,
                    .n_special = 1,
                    .class_middle = true,
                    .patch_size = 4,
                    .norm_eps = 1e-5};
    cab_config_set_image(&c, 12);
    assert_ok(cab_architecture_find("vim", "test", &arch));
    assert_ok(cab_model_create(arch, &c, backend, CAB_PRECISION_FP32, &model));
    return model;
}

static fixture open_fixture(void **state, bool distilled, int width, int classes)
{
    fixture f = {0};
    const tiny teacher = tiny_transformers(CAB_F32, distilled);
    assert_ok(cab_backend_open(test_device(), &f.backend));
    assert_ok(cab_model_open(tiny_write(state, &teacher, 1), f.backend, CAB_PRECISION_FP32, false, &f.teacher));
    f.student = student(f.backend, width, classes);
    assert_ok(cab_recipe_new(&f.recipe));
    assert_ok(cab_recipe_set(f.recipe, "student.architecture", "vim"));
    assert_ok(cab_recipe_set(f.recipe, "method", "weight-reuse"));
    return f;
}

static void close_fixture(fixture *f)
{
    cab_model_free(f->teacher);
    cab_model_free(f->student);
    cab_recipe_free(f->recipe);
    cab_backend_close(f->backend);
}

static void initialise(const fixture *f, const int32_t *classes)
{
    static const int map[3] = {1, -1, 0};
    assert_ok(cab_initialise_images(f->student, f->teacher, f->recipe, map, classes));
}

static float *of(const cab_model *model, const cab_tensor *t)
{
    float *values = calloc((size_t)cab_elements(t), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_params_read(model->params, t, values));
    return values;
}

static float *part(const fixture *f, cab_part which, int layer)
{
    cab_part_values p;
    assert_ok(cab_model_part(f->teacher, which, layer, &p));
    assert_non_null(p.values);
    return p.values;
}

static void expect_whole(const fixture *f, const cab_tensor *t, cab_part which, int layer)
{
    float *got = of(f->student, t), *expected = part(f, which, layer);
    assert_memory_equal(got, expected, (size_t)cab_elements(t) * sizeof *got);
    free(got);
    cab_free(expected);
}

static void test_ends(void **state)
{
    static const int32_t classes[2] = {4, 1};
    for (int distilled = 0; distilled < 2; distilled++) {
        fixture f = open_fixture(state, distilled, D, 2);
        const cab_network *m = &f.student->network;
        initialise(&f, classes);
        expect_whole(&f, m->patches.w, CAB_PART_EMBEDDING, 0);
        expect_whole(&f, m->patches.b, CAB_PART_EMBEDDING_B, 0);
        expect_whole(&f, m->special[0], CAB_PART_CLASS_TOKEN, 0);
        expect_whole(&f, m->final_norm.w, CAB_PART_FINAL_NORM_W, 0);
        expect_whole(&f, m->blocks[0].norm.w, CAB_PART_NORM_W, 1);
        expect_whole(&f, m->blocks[2].norm.w, CAB_PART_NORM_W, 0);
        float *got = of(f.student, m->positions), *from = part(&f, CAB_PART_POSITIONS, 0);
        for (int l = 0; l <= PATCHES; l++) { /* the class token's goes to the middle */
            int row = l == PATCHES / 2 ? 0 : 1 + distilled + (l < PATCHES / 2 ? l : l - 1);
            assert_memory_equal(got + l * D, from + row * D, sizeof(float[D]));
        }
        free(got);
        cab_free(from);
        got = of(f.student, m->head.w);
        from = part(&f, CAB_PART_HEAD_W, 0);
        assert_memory_equal(got, from + 4 * D, sizeof(float[D]));
        assert_memory_equal(got + D, from + D, sizeof(float[D]));
        free(got);
        cab_free(from);
        close_fixture(&f);
    }
}

/* The class token through the sum of both heads' halves gives the mean of both. */
static void test_two_heads(void **state)
{
    fixture f = open_fixture(state, true, D, CLASSES);
    const cab_head_side head = cab_model_head(f.teacher);
    float *whole = of(f.teacher, head.w), *one = part(&f, CAB_PART_HEAD_W, 0);
    assert_int_equal(cab_columns(head.w), 2 * D);
    for (int v = 0; v < CLASSES; v++)
        for (int d = 0; d < D; d++)
            assert_true(one[v * D + d] == whole[v * 2 * D + d] + whole[v * 2 * D + D + d]);
    free(whole);
    cab_free(one);
    close_fixture(&f);
}

/* Row r of in_proj is a row of the teacher's matrix; returns which, -1 for none. */
static int row_in(const float *row, const float *matrix)
{
    for (int i = 0; i < D; i++)
        if (memcmp(row, matrix + i * D, sizeof(float[D])) == 0)
            return i;
    return -1;
}

/* One direction reads B off the channels of K, and C, scaled, off those of Q. */
static void expect_picked(const fixture *f, const cab_mamba1 *m, float scale)
{
    float *x_proj = of(f->student, m->x_proj.w);
    for (int n = 0; n < 2 * N; n++)
        for (int e = 0; e < E; e++)
            assert_true(x_proj[(1 + n) * E + e] == (e != D + n ? 0.0f : n < N ? 1.0f : scale));
    free(x_proj);
}

static void test_mixer(void **state)
{
    fixture f = open_fixture(state, false, D, CLASSES);
    const cab_vim_mixer *m = &f.student->network.blocks[0].vim;
    assert_ok(cab_recipe_set(f.recipe, "init.qk_scale", "0.5"));
    initialise(&f, NULL);
    float *in_proj = of(f.student, m->in_proj.w), *out_proj = of(f.student, m->out_proj.w);
    float *v = part(&f, CAB_PART_V_W, 1), *k = part(&f, CAB_PART_K_W, 1), *q = part(&f, CAB_PART_Q_W, 1),
          *out = part(&f, CAB_PART_OUT_W, 1);
    assert_memory_equal(in_proj, v, sizeof(float[D * D]));
    for (int n = 0; n < N; n++) { /* the same feature of K and of Q */
        int feature = row_in(in_proj + (D + n) * D, k);
        assert_true(feature >= 0 && feature == row_in(in_proj + (D + N + n) * D, q));
    }
    expect_picked(&f, &m->forward, 0.5f);
    expect_picked(&f, &m->backward, 0.5f);
    for (int d = 0; d < D; d++) {
        assert_memory_equal(out_proj + d * E, out + d * D, sizeof(float[D]));
        for (int e = D; e < D + 2 * N; e++)
            assert_true(out_proj[d * E + e] == 0);
    }
    free(in_proj);
    free(out_proj);
    cab_free(v);
    cab_free(k);
    cab_free(q);
    cab_free(out);
    close_fixture(&f);
}

/* With a convolution that passes the current token, x before its activation is V of the teacher's normed input, bias and all. */
static void test_constants(void **state)
{
    fixture f = open_fixture(state, false, D, CLASSES);
    const cab_mamba1 *m = &f.student->network.blocks[0].vim.backward;
    assert_ok(cab_recipe_set(f.recipe, "init.conv_identity", "true"));
    initialise(&f, NULL);
    float *w = of(f.student, m->conv_w), *b = of(f.student, m->conv_b);
    float *v = part(&f, CAB_PART_V_W, 1), *bias = part(&f, CAB_PART_V_B, 1), *norm = part(&f, CAB_PART_NORM_B, 1);
    for (int e = 0; e < E; e++)
        for (int k = 0; k < 4; k++)
            assert_true(w[e * 4 + k] == (k == 3 ? 1.0f : 0.0f));
    for (int d = 0; d < D; d++) {
        double constant = (double)bias[d];
        for (int i = 0; i < D; i++)
            constant += (double)v[d * D + i] * (double)norm[i];
        assert_true(fabs((double)b[d] - constant) < 1e-6);
    }
    free(w);
    free(b);
    cab_free(v);
    cab_free(bias);
    cab_free(norm);
    close_fixture(&f);
}

/* What does not fit stays as it was drawn. */
static void test_other_width(void **state)
{
    fixture f = open_fixture(state, false, 8, CLASSES);
    const cab_network *m = &f.student->network;
    cab_model *fresh = student(f.backend, 8, CLASSES);
    const cab_network *other = &fresh->network;
    initialise(&f, NULL);
    assert_ok(cab_initialise_vim(fresh, (uint64_t)f.recipe->seed, false));
    const cab_tensor *const pairs[][2] = {{m->patches.w, other->patches.w},
                                          {m->positions, other->positions},
                                          {m->head.w, other->head.w},
                                          {m->blocks[0].vim.in_proj.w, other->blocks[0].vim.in_proj.w},
                                          {m->blocks[0].vim.out_proj.w, other->blocks[0].vim.out_proj.w}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        float *got = of(f.student, pairs[i][0]), *expected = of(fresh, pairs[i][1]);
        assert_memory_equal(got, expected, (size_t)cab_elements(pairs[i][0]) * sizeof *got);
        free(got);
        free(expected);
    }
    cab_model_free(fresh);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_ends), TEMP_TEST(test_two_heads), TEMP_TEST(test_mixer),
                                       TEMP_TEST(test_constants), TEMP_TEST(test_other_width)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
