/* The in-place student of images: what is not replaced is the teacher's, of ViT, DeiT and DINOv2; where mixers begin; classes and layers of
 * its own; what is saved opens again, also for images of another size; what its mixers compute; what is refused. */
#include "base/log.h"
#include "distill/students.h"
#include "models/tiny_vision.h"

enum { BATCH = 2, CLASSES = 5, D = 12, HEADS = 3, P = 4, E = 24, N = 8, GROUPS = HEADS * N, LAYERS = 2 };

typedef struct fixture {
    cab_backend *backend;
    cab_model *teacher, *student;
    cab_recipe *recipe;
    cab_kept kept;
    int map[LAYERS];
    const int32_t *class_map;
    int n_classes;
} fixture;

static tiny tiny_teacher(int kind)
{
    return kind < 2 ? tiny_transformers(CAB_F32, kind == 1) : tiny_dinov2(CAB_F32, kind == 2 ? 0 : 4);
}
enum { KINDS = 4 };
static const char *const kinds[KINDS] = {"vit", "deit", "dinov2", "dinov2 with registers"};

static fixture open_fixture(void **state, int kind, const char *const *settings)
{
    fixture f = {.map = {0, 1}, .n_classes = CLASSES};
    const tiny teacher = tiny_teacher(kind);
    void *directory = strdup(temp_path(state, "teacher"));
    assert_ok(cab_directory_make(directory));
    tiny_write(&directory, &teacher, 1);
    assert_ok(cab_backend_open(test_device(), &f.backend));
    assert_ok(cab_model_open(directory, f.backend, CAB_PRECISION_FP32, false, &f.teacher));
    assert_ok(cab_recipe_new(&f.recipe));
    assert_ok(cab_recipe_set(f.recipe, "teacher.path", directory)); /* which says that images are read */
    assert_ptr_equal(cab_student_of(f.recipe)->domain, &cab_recipe_images);
    assert_string_equal(cab_student_of(f.recipe)->name, "in-place");
    assert_int_equal(f.recipe->train.batch, 64);
    free(directory);
    assert_ok(cab_recipe_set(f.recipe, "method", "cab-best"));
    assert_int_equal(f.recipe->student.grid_conv, 3);
    assert_ok(cab_recipe_set(f.recipe, "student.grid_conv", "0"));
    for (; settings != NULL && *settings != NULL; settings += 2)
        assert_ok(cab_recipe_set(f.recipe, settings[0], settings[1]));
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
    cab_student_source source = {.teacher = f->teacher,
                                 .recipe = f->recipe,
                                 .n_classes = f->n_classes,
                                 .layer_map = f->map,
                                 .kept = &f->kept,
                                 .class_map = f->class_map};
    cab_kept_close(&f->kept);
    CAB_TRY(cab_student_of(f->recipe)->keeps(&source, NULL, &f->kept));
    CAB_TRY(cab_student_create(&source, f->backend, CAB_PRECISION_FP32, &f->student));
    return cab_student_initialise(f->student, &source);
}

/* Of two drawn pictures, (BATCH, n_classes). */
static float *logits_of(const cab_model *model)
{
    const cab_config *c = &model->config;
    const int64_t shape[4] = {BATCH, 3, c->image_size, c->image_size};
    const size_t pixels = (size_t)(shape[0] * shape[1] * shape[2] * shape[3]), n = BATCH * (size_t)c->n_classes;
    float *images = calloc(pixels, sizeof *images), *values = calloc(n, sizeof *values);
    cab_graph *g = NULL;
    assert_true(images != NULL && values != NULL);
    cab_random random = {.seed = 3, .stream = CAB_STREAM_TEST};
    for (size_t i = 0; i < pixels; i++)
        images[i] = cab_random_normal(&random);
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *input = cab_graph_input(g, "pixels", CAB_F32, 4, shape);
    cab_tensor *logits = cab_model_record_logits(g, model, cab_model_record(g, model, input, 0, NULL));
    cab_graph_keep(g, logits);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, input, images));
    assert_ok(cab_graph_run(g));
    assert_ok(cab_tensor_read(g, logits, values));
    cab_graph_free(g);
    free(images);
    return values;
}

static void expect_equal(const cab_model *a, const cab_model *b, double tolerance, const char *what)
{
    float *x = logits_of(a), *y = logits_of(b);
    const double distance = tiny_distance(x, y, BATCH * (size_t)a->config.n_classes);
    if (!(distance <= tolerance))
        fail_msg("%s: %g apart", what, distance);
    free(x);
    free(y);
}

static float *values_of(const cab_model *model, const cab_tensor *t)
{
    float *values = calloc((size_t)cab_elements(t), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_params_read(model->params, t, values));
    return values;
}

/* Zeros in a projection: what it adds is its bias alone. */
static void silence(const cab_model *model, const cab_dense *out)
{
    float *values = calloc((size_t)cab_elements(out->w), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_params_write(model->params, out->w, values));
    free(values);
}

/* ---- what is the teacher's -------------------------------------------------------------------------------------------- */

/* With silent mixers the student is the teacher without the attention that was replaced. */
static void test_rest_is_the_teacher(void **state)
{
    static const char *const settings[][3] = {
        {NULL}, {"student.keep_list", "0", NULL}, {"student.keep_list", "1", NULL}};
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t j = 0; j < sizeof settings / sizeof *settings; j++) {
            fixture f = open_fixture(state, kind, settings[j]);
            assert_ok(make(&f));
            float *whole = logits_of(f.teacher), *with = logits_of(f.student);
            assert_true(tiny_distance(whole, with, BATCH * CLASSES) > 1e-4);
            free(whole);
            free(with);
            for (int l = 0; l < LAYERS; l++) {
                const cab_block *s = &f.student->network.blocks[l];
                assert_int_equal(cab_block_attends(s), s->mamba2.out_proj.w == NULL);
                if (cab_block_attends(s))
                    continue;
                silence(f.student, &s->mamba2.out_proj);
                silence(f.teacher, &f.teacher->network.blocks[l].attention.out);
            }
            expect_equal(f.student, f.teacher, 2e-6, kinds[kind]);
            close_fixture(&f);
        }
}

/* A student of one layer is the second of the teacher's. */
static void test_half_the_layers(void **state)
{
    static const char *const settings[] = {"student.n_layer", "1", NULL};
    fixture f = open_fixture(state, 0, settings);
    f.map[0] = 1;
    assert_ok(make(&f));
    const cab_block *s = &f.student->network.blocks[0], *t = &f.teacher->network.blocks[1];
    const cab_tensor *const pairs[][2] = {{s->norm.w, t->norm.w},
                                          {s->mlp.up.w, t->mlp.up.w},
                                          {s->mlp.down.b, t->mlp.down.b},
                                          {s->mamba2.out_proj.b, t->attention.out.b}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        float *a = values_of(f.student, pairs[i][0]), *b = values_of(f.teacher, pairs[i][1]);
        assert_memory_equal(a, b, (size_t)cab_elements(pairs[i][0]) * sizeof *a);
        free(a);
        free(b);
    }
    cab_model *again = NULL;
    assert_ok(cab_model_save(f.student, temp_path(state, "student")));
    assert_ok(cab_model_open(temp_path(state, "student"), f.backend, CAB_PRECISION_FP32, false, &again));
    expect_equal(f.student, again, 0, "one layer");
    cab_model_free(again);
    f.map[0] = -1;
    cab_model_free(f.student);
    f.student = NULL;
    assert_fails(make(&f), CAB_EARG, "bridge.layers[0] is -1");
    close_fixture(&f);
}

/* A student of another width has its teacher's architecture, and heads as wide where nothing else is said; it comes back from its
 * directory, with an attention of its own in the layer that keeps one, and for images of another size. */
static void test_another_width(void **state)
{
    static const char *const settings[] = {"method", "soft", "student.d_model", "8", "student.keep_list", "1", NULL};
    for (int kind = 0; kind < KINDS; kind++) {
        fixture f = open_fixture(state, kind, settings);
        cab_model *again = NULL, *larger = NULL;
        f.n_classes = 3;
        assert_ok(make(&f));
        const cab_config *c = &f.student->config;
        const cab_block *b = f.student->network.blocks;
        assert_true(c->d_model == 8 && c->n_head == 2 && c->head_dim == P && c->d_inner == 16 && c->n_classes == 3);
        assert_int_equal(c->d_mlp, kind < 2 ? 14 : 14);
        assert_true(cab_block_attends(&b[1]) && !cab_block_attends(&b[0]));
        float *norm = values_of(f.student, b[0].norm.w), *logits = logits_of(f.student);
        assert_true(norm[0] == 1 && norm[7] == 1 && isfinite(logits[0]));
        assert_true(logits[0] != logits[3]); /* two pictures are told apart */
        free(norm);
        free(logits);
        assert_ok(cab_model_save(f.student, temp_path(state, "student")));
        assert_ok(cab_model_open(temp_path(state, "student"), f.backend, CAB_PRECISION_FP32, true, &again));
        expect_equal(f.student, again, 0, kinds[kind]);
        assert_ok(cab_model_open_sized(temp_path(state, "student"), 24, f.backend, CAB_PRECISION_FP32, false, &larger));
        free(logits_of(larger));
        cab_model_free(again);
        cab_model_free(larger);
        close_fixture(&f);
    }
}

/* Classes of its own are the teacher's rows of the class map. */
static void test_classes(void **state)
{
    static const int32_t map[] = {4, 0, 2};
    for (int kind = 0; kind < KINDS; kind++) {
        fixture all = open_fixture(state, kind, NULL), some = open_fixture(state, kind, NULL);
        some.class_map = map;
        some.n_classes = 3;
        assert_ok(make(&all));
        assert_ok(make(&some));
        float *expected = logits_of(all.student), *got = logits_of(some.student);
        for (int b = 0; b < BATCH; b++)
            for (int v = 0; v < 3; v++)
                assert_true(fabsf(got[b * 3 + v] - expected[b * CLASSES + map[v]]) < 1e-5f);
        free(expected);
        free(got);
        close_fixture(&all);
        close_fixture(&some);
    }
}

/* Classes that nobody says to be the teacher's get a head of their own; the rest is the teacher's. */
static void test_new_classes(void **state)
{
    static const int counts[] = {3, CLASSES + 2};
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < 2; i++) {
            fixture f = open_fixture(state, kind, NULL);
            f.n_classes = counts[i];
            assert_ok(make(&f));
            const cab_network *s = &f.student->network, *t = &f.teacher->network;
            const int64_t columns = cab_columns(t->head.w);
            float *head = values_of(f.student, s->head.w), *own = values_of(f.teacher, t->head.w);
            float *bias = values_of(f.student, s->head.b);
            float *norm = values_of(f.student, s->final_norm.w), *its = values_of(f.teacher, t->final_norm.w);
            assert_int_equal(cab_elements(s->head.w), counts[i] * columns);
            assert_true(tiny_distance(head, own, 3 * (size_t)columns) > 0.5);
            for (int v = 0; v < counts[i]; v++)
                assert_true(bias[v] == 0 && head[v * columns] != 0);
            assert_memory_equal(norm, its, D * sizeof *norm);
            float *all[] = {head, own, bias, norm, its};
            for (size_t k = 0; k < sizeof all / sizeof *all; k++)
                free(all[k]);
            close_fixture(&f);
        }
}

/* ---- where mixers begin ----------------------------------------------------------------------------------------------- */

static void expect_rows(const float *student, const float *teacher, double factor, int n)
{
    for (int i = 0; i < n; i++)
        assert_true(fabs((double)student[i] - factor * (double)teacher[i]) <= 1e-6);
}

static void test_start(void **state)
{
    fixture f = open_fixture(state, 1, NULL);
    assert_ok(make(&f));
    const cab_mamba2 *m = &f.student->network.blocks[1].mamba2;
    const cab_attention_mixer *a = &f.teacher->network.blocks[1].attention;
    const int tokens = 11;
    float *in = values_of(f.student, m->in_proj.w), *bias = values_of(f.student, m->in_proj.b);
    float *out = values_of(f.student, m->out_proj.w), *A = values_of(f.student, m->A_log);
    float *v = values_of(f.teacher, a->v.w), *vb = values_of(f.teacher, a->v.b), *k = values_of(f.teacher, a->k.w),
          *kb = values_of(f.teacher, a->k.b), *q = values_of(f.teacher, a->q.w), *o = values_of(f.teacher, a->out.w);
    assert_true(m->both && m->n_head == 2 * HEADS && m->n_group == HEADS && m->d_state == N && m->conv_w == NULL);
    for (int i = 0; i < E; i++) { /* the gate is open */
        assert_true(fabs((double)bias[i] / (1 + exp(-(double)bias[i])) - 1) < 1e-6);
        assert_true(in[i * D] == 0);
    }
    for (int h = 0; h < HEADS; h++)
        for (int negative = 0; negative < 2; negative++) {
            const int x = (2 * h + negative) * P;
            const double sign = negative ? -1 : 1;
            expect_rows(in + (E + x) * D, v + h * P * D, sign, P * D);
            expect_rows(bias + E + x, vb + h * P, sign, P);
            expect_rows(in + (2 * E + h * N + negative * P) * D, k + h * P * D, 0.35 * sign, P * D);
            expect_rows(bias + 2 * E + h * N + negative * P, kb + h * P, 0.35 * sign, P);
            expect_rows(in + (2 * E + GROUPS + h * N + negative * P) * D, q + h * P * D, 0.35 * sign, P * D);
            for (int r = 0; r < D; r++)
                expect_rows(out + r * E + x, o + r * D + h * P, sign, P);
        }
    for (int i = 0; i < 4 * HEADS; i++) /* 1 / e over the tokens of a picture */
        assert_true(fabs(exp((double)A[i]) - 1.0 / tokens) < 1e-6);
    float *all[] = {in, bias, out, A, v, vb, k, kb, q, o};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    close_fixture(&f);
}

/* A convolution that passes the patch itself on changes nothing at the start. */
static void test_grid_start(void **state)
{
    static const char *const grid[] = {"student.grid_conv", "3", NULL};
    static const char *const drawn[] = {"student.grid_conv", "5", "init.conv_identity", "false", NULL};
    for (int kind = 0; kind < KINDS; kind++) {
        fixture plain = open_fixture(state, kind, NULL), with = open_fixture(state, kind, grid),
                random = open_fixture(state, kind, drawn);
        assert_ok(make(&plain));
        assert_ok(make(&with));
        assert_ok(make(&random));
        const cab_mamba2 *m = &with.student->network.blocks[0].mamba2;
        assert_true(m->conv_w != NULL && m->conv_b != NULL && m->conv_w->shape[0] == E + 2 * GROUPS);
        expect_equal(plain.student, with.student, 1e-6, kinds[kind]);
        float *a = logits_of(plain.student), *b = logits_of(random.student);
        assert_true(tiny_distance(a, b, BATCH * CLASSES) > 1e-3);
        free(a);
        free(b);
        close_fixture(&plain);
        close_fixture(&with);
        close_fixture(&random);
    }
}

/* ---- what a mixer computes -------------------------------------------------------------------------------------------- */

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* Token i's output of a mixer whose projections give `z` (tokens, 2 E + 2 G N + 4 H) rows, or 2 H where the decays are shared; token scale 3. */
static double mixed(const double *z, int tokens, const float *A, const float *dt_bias, const float *skip, bool shared,
                    int i, int channel)
{
    const int columns = 2 * E + 2 * GROUPS + (shared ? 2 : 4) * HEADS, head = channel / P, group = head / 2;
    double sum = 0;
    for (int j = 0; j < tokens; j++) {
        const int back = j > i, column = (shared ? 0 : back * 2 * HEADS) + head;
        double dot = 0, log_decay = 0;
        for (int n = 0; n < N; n++)
            dot += silu(z[j * columns + 2 * E + group * N + n]) * silu(z[i * columns + 2 * E + GROUPS + group * N + n]);
        for (int t = back ? i : j + 1; t < (back ? j : i + 1); t++)
            log_decay -= log1p(exp(z[t * columns + 2 * E + 2 * GROUPS + column] + (double)dt_bias[column])) *
                         exp((double)A[column]);
        const double delta = log1p(exp(z[j * columns + 2 * E + 2 * GROUPS + column] + (double)dt_bias[column]));
        sum += dot * exp(log_decay) * delta * silu(z[j * columns + E + channel]);
    }
    sum = 3.0 / tokens * (sum + (double)skip[head] * silu(z[i * columns + E + channel]));
    return sum * silu(z[i * columns + channel]);
}

enum { GRID = 3, TOKENS = 1 + GRID * GRID };

/* x, B and C of the patches, after the convolution of side GRID by w (channels, GRID, GRID) and b. */
static void convolve(double *z, int columns, const float *w, const float *b)
{
    double before[GRID * GRID];
    for (int e = 0; e < E + 2 * GROUPS; e++) {
        for (int i = 0; i < GRID * GRID; i++)
            before[i] = z[(1 + i) * columns + E + e];
        for (int i = 0; i < GRID * GRID; i++) {
            double sum = (double)b[e];
            for (int k = 0; k < GRID * GRID; k++) {
                const int r = i / GRID + k / GRID - 1, c = i % GRID + k % GRID - 1;
                if (r >= 0 && r < GRID && c >= 0 && c < GRID)
                    sum += (double)w[e * GRID * GRID + k] * before[r * GRID + c];
            }
            z[(1 + i) * columns + E + e] = sum;
        }
    }
}

static void randomise(const cab_model *model, cab_tensor *t, float *values)
{
    cab_random random = {.seed = 5, .stream = CAB_STREAM_TEST, .sub = (uint32_t)t->n_dim * 100 + (uint32_t)t->shape[0]};
    for (int64_t i = 0; i < cab_elements(t); i++)
        values[i] = 0.4f * cab_random_normal(&random);
    assert_ok(cab_params_write(model->params, t, values));
}

static void check_mixer(void **state, bool shared, bool grid)
{
    enum { COLUMNS_MOST = 2 * E + 2 * GROUPS + 4 * HEADS, PARAMETERS_MOST = 9 };
    const int n_column = shared ? COLUMNS_MOST - 2 * HEADS : COLUMNS_MOST;
    const char *const settings[] = {
        "student.token_scale", "3", "student.shared_decay", shared ? "true" : "false", "student.grid_conv",
        grid ? "3" : "0",      NULL};
    const int n_parameter = grid ? PARAMETERS_MOST : PARAMETERS_MOST - 2;
    fixture f = open_fixture(state, 0, settings);
    assert_ok(make(&f));
    const cab_block *b = &f.student->network.blocks[0];
    const cab_mamba2 *m = &b->mamba2;
    cab_tensor *const parameters[] = {m->in_proj.w, m->in_proj.b, m->out_proj.w, m->out_proj.b, m->A_log,
                                      m->dt_bias,   m->D,         m->conv_w,     m->conv_b};
    float *p[PARAMETERS_MOST], u[TOKENS * D], got[TOKENS * D];
    double z[TOKENS * COLUMNS_MOST];
    for (int i = 0; i < n_parameter; i++) {
        p[i] = values_of(f.student, parameters[i]);
        randomise(f.student, parameters[i], p[i]);
    }
    cab_random random = {.seed = 9, .stream = CAB_STREAM_TEST};
    for (int i = 0; i < TOKENS * D; i++)
        u[i] = cab_random_normal(&random);
    cab_graph *g = NULL;
    assert_ok(cab_graph_new(f.backend, &g));
    cab_context context = {.dtype = CAB_F32};
    cab_tensor *input = cab_graph_input(g, "u", CAB_F32, 3, (int64_t[]){1, TOKENS, D});
    cab_tensor *y = cab_block_mix_record(g, &context, b, input);
    cab_graph_keep(g, y);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, input, u));
    assert_ok(cab_graph_run(g));
    assert_ok(cab_tensor_read(g, y, got));
    for (int i = 0; i < TOKENS * n_column; i++) {
        z[i] = (double)p[1][i % n_column];
        for (int d = 0; d < D; d++)
            z[i] += (double)p[0][i % n_column * D + d] * (double)u[i / n_column * D + d];
    }
    if (grid)
        convolve(z, n_column, p[7], p[8]);
    for (int i = 0; i < TOKENS; i++)
        for (int r = 0; r < D; r++) {
            double expected = (double)p[3][r];
            for (int e = 0; e < E; e++)
                expected += (double)p[2][r * E + e] * mixed(z, TOKENS, p[4], p[5], p[6], shared, i, e);
            if (!(fabs((double)got[i * D + r] - expected) < 1e-4 * (1 + fabs(expected))))
                fail_msg("token %d, %d: %g, expected %g", i, r, (double)got[i * D + r], expected);
        }
    for (int i = 0; i < n_parameter; i++)
        free(p[i]);
    cab_graph_free(g);
    close_fixture(&f);
}

static void test_mixer(void **state)
{
    check_mixer(state, false, false);
    check_mixer(state, true, false);
    check_mixer(state, false, true);
}

/* ---- directories ------------------------------------------------------------------------------------------------------ */

static void test_saved(void **state)
{
    static const char *const settings[] = {
        "student.keep_list", "1", "student.n_group", "1", "student.expand", "1", "student.grid_conv", "5", NULL};
    for (int kind = 0; kind < KINDS; kind++) {
        fixture f = open_fixture(state, kind, settings);
        cab_model *again = NULL, *trainable = NULL, *larger = NULL, *teacher = NULL;
        assert_ok(make(&f));
        assert_ok(cab_model_save(f.student, temp_path(state, "student")));
        assert_ok(cab_model_open(temp_path(state, "student"), f.backend, CAB_PRECISION_FP32, false, &again));
        expect_equal(f.student, again, 0, kinds[kind]);
        assert_ok(cab_model_open(temp_path(state, "student"), f.backend, CAB_PRECISION_FP32, true, &trainable));
        expect_equal(f.student, trainable, 0, kinds[kind]);
        assert_ptr_equal(cab_student_of_model(again), cab_student_of(f.recipe));
        assert_ok(cab_model_open_sized(temp_path(state, "student"), 24, f.backend, CAB_PRECISION_FP32, false, &larger));
        assert_ok(
            cab_model_open_sized(temp_path(state, "teacher"), 24, f.backend, CAB_PRECISION_FP32, false, &teacher));
        float *a = values_of(larger, larger->network.positions), *b = values_of(teacher, teacher->network.positions);
        assert_memory_equal(a, b, (size_t)cab_elements(teacher->network.positions) * sizeof *a);
        free(logits_of(larger)); /* it runs */
        free(a);
        free(b);
        cab_model_free(again);
        cab_model_free(trainable);
        cab_model_free(larger);
        cab_model_free(teacher);
        close_fixture(&f);
    }
}

/* Images of another size have another grid: the convolution that passes patches on changes nothing there, and another does. */
static void test_grid_of_another_size(void **state)
{
    static const char *const grid[] = {"student.grid_conv", "3", NULL};
    const int registers = 3;
    fixture plain = open_fixture(state, registers, NULL), with = open_fixture(state, registers, grid);
    cab_model *models[2] = {0};
    assert_ok(make(&plain));
    assert_ok(make(&with));
    assert_ok(cab_model_save(plain.student, temp_path(state, "plain")));
    assert_ok(cab_model_save(with.student, temp_path(state, "with")));
    for (int i = 0; i < 2; i++)
        assert_ok(cab_model_open_sized(temp_path(state, i == 0 ? "plain" : "with"), 20, plain.backend,
                                       CAB_PRECISION_FP32, true, &models[i]));
    expect_equal(models[0], models[1], 1e-6, "a grid of 5");
    cab_tensor *w = models[1]->network.blocks[0].mamba2.conv_w;
    float *values = values_of(models[1], w);
    randomise(models[1], w, values);
    float *a = logits_of(models[0]), *b = logits_of(models[1]);
    assert_true(tiny_distance(a, b, BATCH * CLASSES) > 1e-3);
    free(a);
    free(b);
    free(values);
    cab_model_free(models[0]);
    cab_model_free(models[1]);
    close_fixture(&plain);
    close_fixture(&with);
}

static void test_damaged(void **state)
{
    static const struct {
        const char *from, *to, *said;
    } edits[] = {
        {"\"mamba2-both-ways\"", "\"mamba2\"", "config.json: mixer: \"kind\" is \"mamba2\", the teacher reads images"},
        {"\"num_hidden_layers\":2,\"intermediate", "\"num_hidden_layers\":3,\"intermediate",
         "config.json: \"kept\" has 2 entries, the teacher has 3 layers"},
        {"\"special_tokens\":1", "\"special_tokens\":3", "config.json: sizes: hidden_size 12 in 3 heads"},
        {"\"special_tokens\":1", "\"special_tokens\":2", "tensor \"vit.embeddings.distillation_token\""},
        {"\"num_labels\":5", "\"num_labels\":0", "config.json: sizes: \"num_labels\""},
        {"\"num_labels\":5", "\"num_label\":5", "\"num_label\""},
        {"\"two_heads\":false", "\"two_heads\":true", "config.json: sizes: hidden_size 12 in 3 heads"},
        {"\"sizes\"", "\"size\"", "\"size\""},
        {"\"token_scale\":4", "\"token_scale\":-4", "config.json: mixer: \"token_scale\""},
        {"\"mamba_d_conv\":1", "\"mamba_d_conv\":4", "mamba_d_conv"},
        {"\"mamba_conv_bias\":false", "\"mamba_conv_bias\":true", "mamba_conv_bias"},
        {"\"mamba_d_conv\":1", "\"mamba_d_conv\":1,\"grid_conv\":4",
         "config.json: mixer: \"grid_conv\" is 4; supported are 3, 5 and 7"},
        {"\"mamba_d_conv\":1", "\"mamba_d_conv\":1,\"grid_conv\":9", "config.json: mixer: \"grid_conv\""},
        {"\"mamba_d_conv\":1", "\"mamba_d_conv\":1,\"grid_conv\":3", "tensor \"layers.0.mamba.conv2d.weight\""},
    };
    fixture f = open_fixture(state, 0, NULL);
    cab_json json = {0};
    assert_ok(make(&f));
    assert_ok(cab_model_save(f.student, temp_path(state, "student")));
    assert_ok(cab_json_load(temp_path(state, "student/config.json"), 1 << 20, &json));
    char *good =
        strdup(json_object_to_json_string_ext(json.root, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    assert_non_null(good);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char text[4096];
        cab_model *model = NULL;
        const char *at = strstr(good, edits[i].from);
        if (at == NULL)
            fail_msg("%s: not in %s", edits[i].from, good);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, edits[i].to, at + strlen(edits[i].from));
        assert_ok(cab_file_write(temp_path(state, "student/config.json"), text, strlen(text)));
        assert_int_not_equal(cab_model_open(temp_path(state, "student"), f.backend, CAB_PRECISION_FP32, false, &model),
                             CAB_OK);
        if (strstr(cab_error_text(), edits[i].said) == NULL)
            fail_msg("%s: %s", edits[i].to, cab_error_text());
    }
    free(good);
    cab_json_close(&json);
    close_fixture(&f);
}

static void test_refused(void **state)
{
    static const struct {
        const char *settings[5], *said;
    } bad[] = {
        {{"student.n_layer", "1", "student.keep", "1", NULL}, "student.keep keeps all 1 layers"},
        {{"student.n_layer", "1", "student.keep", "2", NULL}, "student.keep is 2, there are 1 layers"},
        {{"student.keep_list", "0,1", NULL}, "student.keep keeps all 2 layers"},
        {{"student.n_layer", "1", "student.keep_list", "1", NULL},
         "student.keep_list[0] is 1, expected rising numbers below 1"},
        {{"student.n_layer", "3", NULL}, "student.n_layer is 3, the teacher has 2 layers"},
        {{"student.d_mlp", "24", NULL},
         "student.d_mlp is 24; an in-place student of its teacher's width has its teacher's, 20"},
        {{"student.d_model", "24", NULL},
         "student.d_model is 24, the teacher's 12: weights of one width say nothing to another"},
        {{"student.d_model", "8", "student.keep", "1", NULL},
         "student.keep is 1: layers of another width than the teacher's, 12, are not ranked"},
        {{"student.head_dim", "5", NULL}, "student.head_dim 5 does not divide the inner width 24"},
        {{"student.n_group", "4", NULL}, "student.n_group 4 does not divide 6 heads"},
        {{"student.grid_conv", "4", NULL}, "student.grid_conv is 4; supported are 3, 5 and 7"},
        {{"student.grid_conv", "1", NULL}, "student.grid_conv is 1; supported are 3, 5 and 7"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fixture f = open_fixture(state, 0, bad[i].settings);
        assert_int_not_equal(make(&f), CAB_OK);
        if (strstr(cab_error_text(), bad[i].said) == NULL)
            fail_msg("found \"%s\", expected \"%s\"", cab_error_text(), bad[i].said);
        close_fixture(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_rest_is_the_teacher),
                                       TEMP_TEST(test_half_the_layers),
                                       TEMP_TEST(test_another_width),
                                       TEMP_TEST(test_classes),
                                       TEMP_TEST(test_new_classes),
                                       TEMP_TEST(test_start),
                                       TEMP_TEST(test_grid_start),
                                       TEMP_TEST(test_mixer),
                                       TEMP_TEST(test_saved),
                                       TEMP_TEST(test_grid_of_another_size),
                                       TEMP_TEST(test_damaged),
                                       TEMP_TEST(test_refused)};
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
