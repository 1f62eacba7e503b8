/* Where a student starts: fresh numbers, options, and exact reuse of a teacher: behind the fold, the student's first layer
 * sees the teacher's queries, keys and values. */
#include "base/log.h"
#include "base/memory.h"
#include "distill/initialise_phi_mamba.h"
#include "distill/students.h"
#include "pair.h"

enum { LENGTH = 6 };

static cab_recipe *recipe_with(const char *const *settings)
{
    cab_recipe *recipe = NULL;
    assert_ok(cab_recipe_new(&recipe));
    for (; *settings != NULL; settings++) {
        char key[64];
        const char *equals = strchr(*settings, '=');
        snprintf(key, sizeof key, "%.*s", (int)(equals - *settings), *settings);
        assert_ok(cab_recipe_set(recipe, key, equals + 1));
    }
    return recipe;
}

static void initialise(pair *p, const int *map, const char *const *settings)
{
    cab_recipe *recipe = recipe_with(settings);
    assert_ok(cab_initialise_phi_mamba(p->student, p->teacher, recipe, map));
    cab_recipe_free(recipe);
}

static float *read_parameter(const cab_model *model, const char *name, size_t *n)
{
    const cab_tensor *t = cab_params_find(model->params, name);
    assert_non_null(t);
    *n = (size_t)cab_elements(t);
    float *values = calloc(*n, sizeof *values);
    assert_non_null(values);
    assert_ok(cab_params_read(model->params, t, values));
    return values;
}

static float *read_all(const cab_model *model, size_t *n)
{
    *n = (size_t)cab_params_elements(model->params);
    float *all = calloc(*n, sizeof *all), *at = all;
    assert_non_null(all);
    for (size_t i = 0; i < cab_params_count(model->params); i++) {
        assert_ok(cab_params_read(model->params, cab_params_at(model->params, i), at));
        at += cab_elements(cab_params_at(model->params, i));
    }
    return all;
}

static void expect_constant(const cab_model *model, const char *name, float value)
{
    size_t n;
    float *values = read_parameter(model, name, &n);
    for (size_t i = 0; i < n; i++)
        assert_true(values[i] == value);
    free(values);
}

static void expect_spread(const cab_model *model, const char *name, double std)
{
    size_t n;
    double sum = 0, squares = 0;
    float *values = read_parameter(model, name, &n);
    for (size_t i = 0; i < n; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    double got = sqrt(squares / (double)n);
    if (!(fabs(got - std) < 0.15 * std && fabs(sum / (double)n) < 0.3 * std))
        fail_msg("%s: deviation %g, mean %g; expected %g and 0", name, got, sum / (double)n, std);
    free(values);
}

static void open_gpt2_pair(void **state, pair *p)
{
    const tiny teacher = tiny_gpt2(CAB_F32, ""), student = tiny_phi_mamba(CAB_F32);
    pair_open(state, &teacher, &student, CAB_PRECISION_FP32, p);
}

/* ---- from scratch ---------------------------------------------------------------------------------------------------- */

static void test_scratch(void **state)
{
    pair p;
    open_gpt2_pair(state, &p);
    initialise(&p, (int[]){0, 1}, (const char *const[]){"init.weights=scratch", NULL});
    expect_constant(p.student, "backbone.layers.0.input_layernorm.weight", 1);
    expect_constant(p.student, "backbone.layers.0.input_layernorm.bias", 0);
    expect_constant(p.student, "backbone.final_layernorm.weight", 1);
    expect_constant(p.student, "backbone.layers.1.mixer.D", 1);
    expect_constant(p.student, "backbone.layers.1.mixer.z_bias", 0);
    expect_constant(p.student, "backbone.layers.1.mixer.conv1d.bias", 0);
    expect_constant(p.student, "lm_head.bias", 0);
    expect_spread(p.student, "backbone.embedding.weight", 0.02);
    expect_spread(p.student, "backbone.layers.0.mixer.in_proj.weight",
                  sqrt(1.0 / 12 / 3)); /* uniform in +-1/sqrt(12) */
    expect_spread(p.student, "backbone.layers.0.mlp.fc2.weight", sqrt(1.0 / 18 / 3));
    expect_spread(p.student, "backbone.layers.0.mixer.conv1d.weight", sqrt(1.0 / 3 / 3));
    pair_close(&p);
}

static void test_deviation(void **state)
{
    pair p;
    open_gpt2_pair(state, &p);
    initialise(&p, (int[]){0, 1}, (const char *const[]){"init.std=0.5", "init.skip=0.25", NULL});
    expect_spread(p.student, "backbone.embedding.weight", 0.5);
    expect_spread(p.student, "backbone.layers.1.mixer.in_proj.weight", 0.5);
    expect_spread(p.student, "lm_head.weight", 0.5);
    expect_constant(p.student, "backbone.layers.0.mixer.D", 0.25f);
    pair_close(&p);
}

static void test_seeds(void **state)
{
    pair p;
    size_t n;
    float *all[3];
    static const char *const seeds[] = {"seed=1", "seed=1", "seed=2"};
    open_gpt2_pair(state, &p);
    for (int i = 0; i < 3; i++) {
        initialise(&p, (int[]){0, 1}, (const char *const[]){seeds[i], NULL});
        all[i] = read_all(p.student, &n);
    }
    assert_memory_equal(all[0], all[1], n * sizeof(float));
    assert_true(tiny_distance(all[2], all[0], n) > 0.1);
    float *a = NULL, *b = NULL; /* layers do not start as copies of one another */
    a = read_parameter(p.student, "backbone.layers.0.mlp.fc1.weight", &n);
    b = read_parameter(p.student, "backbone.layers.1.mlp.fc1.weight", &n);
    assert_true(tiny_distance(a, b, n) > 0.5);
    for (int i = 0; i < 3; i++)
        free(all[i]);
    free(a);
    free(b);
    pair_close(&p);
}

static void test_identities(void **state)
{
    pair p;
    size_t n;
    open_gpt2_pair(state, &p);
    initialise(&p, (int[]){0, 1}, (const char *const[]){"init.conv_identity=true", "init.gate_open=true", NULL});
    float *conv = read_parameter(p.student, "backbone.layers.1.mixer.conv1d.weight", &n);
    for (size_t i = 0; i < n; i++)
        assert_true(conv[i] == (i % 3 == 2 ? 1.0f : 0.0f));
    float *in_proj = read_parameter(p.student, "backbone.layers.1.mixer.in_proj.weight", &n);
    float *gate = read_parameter(p.student, "backbone.layers.1.mixer.z_bias", &n);
    for (size_t i = 0; i < 12 * 12; i++)
        assert_true(in_proj[32 * 12 + i] == 0);
    for (size_t i = 0; i < n; i++)
        assert_true(fabs((double)gate[i] / (1 + exp(-(double)gate[i])) - 1) < 1e-6);
    free(conv);
    free(in_proj);
    free(gate);
    pair_close(&p);
}

/* ---- reuse ----------------------------------------------------------------------------------------------------------- */

/* Taps of layer 0 of a model, (1, LENGTH, width) each, as fp32; the caller frees. */
static void first_taps(const cab_model *model, float *taps[3])
{
    cab_graph *g = NULL;
    cab_tensor *block[3][2];
    const cab_taps wanted = {.query = block[0], .key = block[1], .value = block[2]};
    const int32_t ids[LENGTH] = {3, 1, 4, 1, 5, 9};
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *input = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){1, LENGTH});
    cab_model_record(g, model, input, false, &wanted);
    for (int i = 0; i < 3; i++)
        cab_graph_keep(g, block[i][0]);
    assert_ok(cab_tensor_write(g, input, ids));
    assert_ok(cab_graph_run(g));
    for (int i = 0; i < 3; i++) {
        const cab_tensor *t = block[i][0], *whole = t;
        int64_t width = cab_columns(t), first = 0;
        for (; whole->base != NULL; whole = whole->base)
            first += whole->offset;
        float *all = calloc((size_t)cab_elements(whole), sizeof *all);
        taps[i] = calloc((size_t)(LENGTH * width), sizeof **taps);
        assert_true(all != NULL && taps[i] != NULL);
        assert_ok(cab_tensor_read(g, whole, all));
        for (int64_t l = 0; l < LENGTH; l++)
            memcpy(taps[i] + l * width, all + first + l * t->ld, (size_t)width * sizeof *all);
        free(all);
    }
    cab_graph_free(g);
}

static void expect_near(const char *what, float got, float expected)
{
    if (!(fabsf(got - expected) <= 1e-5f + 1e-4f * fabsf(expected)))
        fail_msg("%s: found %g, expected %g", what, (double)got, (double)expected);
}

static const char *const exact[] = {"init.weights=teacher", "init.fold=true", "init.conv_identity=true",
                                    "init.qk_scale=0.5",    "init.skip=0",    NULL};

/* A student with heads as the teacher's: its B, C and x are the teacher's K, Q and V. */
static void test_exact_reuse(void **state)
{
    pair p;
    tiny teacher = tiny_gpt2(CAB_F32, ""), student = tiny_phi_mamba(CAB_F32);
    tiny_find(&teacher, "wpe.weight")->scale = 0; /* the student has no positions */
    tiny_configure(&student, "\"n_v_heads\": 4, \"n_qk_heads\": 2, \"d_state\": 5",
                   "\"n_v_heads\": 3, \"n_qk_heads\": 3, \"d_state\": 4");
    const int64_t channels = 12 + 2 * 3 * 4;
    for (int i = 0; i < student.count; i++) {
        tiny_tensor *t = &student.tensors[i];
        if (strstr(t->name, "in_proj") != NULL)
            t->shape[0] = channels + 12 + 3;
        if (strstr(t->name, "conv1d") != NULL)
            t->shape[0] = channels;
        if (strstr(t->name, "mixer.D") != NULL)
            t->shape[0] = 3;
    }
    pair_open(state, &teacher, &student, CAB_PRECISION_FP32, &p);
    initialise(&p, (int[]){0, 1}, exact);
    float *ours[3], *theirs[3];
    static const float scale[3] = {0.5f, 0.5f, 1};
    first_taps(p.student, ours);
    first_taps(p.teacher, theirs);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < LENGTH * 12; k++)
            expect_near(i == 0 ? "query" : i == 1 ? "key" : "value", ours[i][k], scale[i] * theirs[i][k]);
        free(ours[i]);
        free(theirs[i]);
    }
    size_t n;
    float *head = read_parameter(p.student, "lm_head.weight", &n), *tied = read_parameter(p.teacher, "wte.weight", &n);
    assert_memory_equal(head, tied, n * sizeof *head);
    free(head);
    free(tied);
    head = read_parameter(p.student, "backbone.final_layernorm.bias", &n);
    tied = read_parameter(p.teacher, "ln_f.bias", &n);
    assert_memory_equal(head, tied, n * sizeof *head);
    free(head);
    free(tied);
    pair_close(&p);
}

/* Grouped keys, and states wider than the teacher's heads: the rest of C is zero, so that C B is the teacher's Q K. */
static void test_groups_and_wider_states(void **state)
{
    pair p;
    tiny teacher = tiny_phi(CAB_F32), student = tiny_phi_mamba(CAB_F32);
    tiny_configure(&teacher, "\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\": 0.5, \"rope_theta\": 1e30");
    for (int i = 0; i < student.count; i++) { /* width 16, as the teacher's */
        tiny_tensor *t = &student.tensors[i];
        for (int d = 0; d < t->n_dim; d++)
            t->shape[d] = t->shape[d] == 12 ? 16 : t->shape[d];
        if (strstr(t->name, "in_proj") != NULL)
            t->shape[0] = 16 + 20 + 16 + 4;
        if (strstr(t->name, "conv1d") != NULL)
            t->shape[0] = 16 + 20;
    }
    tiny_configure(&student, "\"d_model\": 12", "\"d_model\": 16");
    pair_open(state, &teacher, &student, CAB_PRECISION_FP32, &p);
    initialise(&p, (int[]){0, 1}, exact);
    float *ours[3], *theirs[3];
    first_taps(p.student, ours);
    first_taps(p.teacher, theirs);
    for (int g = 0; g < 2; g++) {
        expect_near("key at the first token", ours[1][g * 5 + 3], 0.5f * theirs[1][g * 4 + 3]);
        expect_near("query at the first token", ours[0][g * 5 + 3], 0.5f * theirs[0][g * 2 * 4 + 3]);
        expect_near("query beyond the teacher's", ours[0][g * 5 + 4], 0);
    }
    for (int h = 0; h < 4; h++)
        for (int i = 0; i < 4; i++)
            expect_near("value", ours[2][h * 4 + i], theirs[2][h / 2 * 4 + i]);
    for (int i = 0; i < 3; i++) {
        free(ours[i]);
        free(theirs[i]);
    }
    pair_close(&p);
}

/* a[t] is `decay` for every token and head. */
static void test_near_identity(void **state)
{
    static const char *const settings[][4] = {
        {"init.near_identity=true", "init.decay=0.95", NULL},
        {"init.near_identity=true", "init.weights=teacher", "init.fold=true", NULL}};
    static const double decay[2] = {0.95, 0.9};
    for (int i = 0; i < 2; i++) {
        pair p;
        size_t n;
        open_gpt2_pair(state, &p);
        initialise(&p, (int[]){0, 1}, settings[i]);
        float *bias = read_parameter(p.student, "backbone.layers.1.input_layernorm.bias", &n);
        float *rows = read_parameter(p.student, "backbone.layers.1.mixer.in_proj.weight", &n);
        for (int h = 0; h < 4; h++) {
            const float *row = rows + (32 + 12 + h) * 12;
            double constant = 0, sum = 0, size = 0;
            for (int k = 0; k < 12; k++) {
                constant += (double)row[k] * (double)bias[k];
                sum += (double)row[k]; /* LayerNorm's output is orthogonal to equal entries */
                size += fabs((double)row[k]);
                assert_true(row[k] == row[0]);
            }
            assert_true(size > 0 && fabs(sum) > 0);
            assert_true(fabs(1 / (1 + exp(constant)) - decay[i]) < 1e-5);
        }
        free(bias);
        free(rows);
        pair_close(&p);
    }
}

/* What does not fit stays as drawn, layers without a teacher too; nothing fails. */
static void test_parts_that_do_not_fit(void **state)
{
    pair p;
    size_t n;
    const tiny teacher = tiny_phi(CAB_F32), student = tiny_phi_mamba(CAB_F32); /* width 16, width 12 */
    pair_open(state, &teacher, &student, CAB_PRECISION_FP32, &p);
    initialise(&p, (int[]){0, 1}, (const char *const[]){"init.weights=scratch", NULL});
    float *fresh = read_all(p.student, &n);
    initialise(&p, (int[]){0, 1}, (const char *const[]){"init.weights=teacher", NULL});
    float *reused = read_all(p.student, &n);
    int different = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(reused[i]));
        different += fresh[i] != reused[i];
    }
    assert_int_equal(different, 23); /* the head's bias, which has the vocabulary's length */
    free(fresh);
    free(reused);
    pair_close(&p);
    open_gpt2_pair(state, &p);
    initialise(&p, (int[]){-1, 1}, (const char *const[]){"init.weights=scratch", NULL});
    fresh = read_parameter(p.student, "backbone.layers.0.mixer.in_proj.weight", &n);
    initialise(&p, (int[]){-1, 1}, (const char *const[]){"init.weights=teacher", NULL});
    reused = read_parameter(p.student, "backbone.layers.0.mixer.in_proj.weight", &n);
    assert_memory_equal(fresh, reused, n * sizeof *fresh);
    free(fresh);
    free(reused);
    pair_close(&p);
}

/* What a teacher multiplies its embedding and its logits by becomes part of the student's matrices. */
static void test_multipliers(void **state)
{
    tiny teacher = tiny_llama(CAB_F32);
    tiny_configure(&teacher, "\"model_type\": \"llama\"",
                   "\"model_type\": \"granite\", \"embedding_multiplier\": 3.0, \"logits_scaling\": 2.0");
    pair p = {0};
    cab_recipe *recipe = recipe_with((const char *const[]){"init.weights=teacher", NULL});
    const int map[] = {0, 1};
    size_t n;
    assert_ok(cab_backend_open(test_device(), &p.backend));
    tiny_write(state, &teacher, 1);
    assert_ok(cab_model_open(*state, p.backend, CAB_PRECISION_FP32, false, &p.teacher));
    const cab_student_source source = {.teacher = p.teacher, .recipe = recipe, .seq_len = 8, .layer_map = map};
    assert_ok(cab_student_create(&source, p.backend, CAB_PRECISION_FP32, &p.student));
    assert_ok(cab_student_initialise(p.student, &source));
    float *from = read_parameter(p.teacher, "model.embed_tokens.weight", &n);
    float *embedding = read_parameter(p.student, "backbone.embedding.weight", &n);
    float *head = read_parameter(p.student, "lm_head.weight", &n);
    for (size_t i = 0; i < n; i++)
        assert_true(embedding[i] == 3 * from[i] && head[i] == from[i] / 2);
    free(from);
    free(embedding);
    free(head);
    cab_recipe_free(recipe);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_scratch),       TEMP_TEST(test_deviation),
        TEMP_TEST(test_seeds),         TEMP_TEST(test_identities),
        TEMP_TEST(test_exact_reuse),   TEMP_TEST(test_groups_and_wider_states),
        TEMP_TEST(test_near_identity), TEMP_TEST(test_parts_that_do_not_fit),
        TEMP_TEST(test_multipliers),
    };
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
