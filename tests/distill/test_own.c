/* In-place students of layout own, of every family of teachers: all heads kept is the teacher; kept heads are the teacher's, exactly; what is
 * saved opens again and computes the same; decoding is the sequence token by token; damaged directories are refused. */
#include "base/log.h"
#include "distill/students.h"
#include "models/families.h"
#include "models/steps.h"

enum { BATCH = 2, LENGTH = 9, TOKENS = BATCH * LENGTH, LOGITS = TOKENS * FAMILY_WORDS, P = 8 };

typedef struct fixture {
    cab_backend *backend;
    cab_model *teacher, *student;
    cab_recipe *recipe;
    cab_kept kept;
    int32_t ids[TOKENS];
} fixture;

static fixture open_fixture(void **state, const family *kind, const char *const *settings)
{
    fixture f = {0};
    family_write(kind, temp_path(state, "teacher"));
    assert_ok(cab_backend_open(test_device(), &f.backend));
    assert_ok(cab_model_open(temp_path(state, "teacher"), f.backend, CAB_PRECISION_FP32, false, &f.teacher));
    assert_ok(cab_recipe_new(&f.recipe));
    assert_ok(cab_recipe_set(f.recipe, "student.architecture", "in-place"));
    assert_ok(cab_recipe_set(f.recipe, "student.layout", "own"));
    assert_ok(cab_recipe_set(f.recipe, "init.weights", "teacher"));
    for (; *settings != NULL; settings += 2)
        assert_ok(cab_recipe_set(f.recipe, settings[0], settings[1]));
    for (int i = 0; i < TOKENS; i++)
        f.ids[i] = (7 * i + i / 4) % FAMILY_WORDS;
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

/* Zeros in the columns of some heads, or of all (-1), of a layer's last projection. */
static void silence(const cab_model *model, const cab_dense *out, int head)
{
    const int64_t columns = out->layout == CAB_IN_OUT ? out->w->shape[0] : out->w->shape[1];
    float *values = calloc((size_t)cab_elements(out->w), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_params_read(model->params, out->w, values));
    for (int64_t i = 0; i < cab_elements(out->w); i++) {
        const int64_t column = out->layout == CAB_IN_OUT ? i / out->w->shape[1] : i % columns;
        if (head < 0 || column / P == head)
            values[i] = 0;
    }
    assert_ok(cab_params_write(model->params, out->w, values));
    free(values);
}

static void expect_equal(const cab_model *a, const cab_model *b, const int32_t *ids, double tolerance, const char *what)
{
    float *x = tiny_logits(a, ids, BATCH, LENGTH), *y = tiny_logits(b, ids, BATCH, LENGTH);
    const double distance = tiny_distance(x, y, LOGITS);
    if (!(distance <= tolerance))
        fail_msg("%s: %g apart", what, distance);
    free(x);
    free(y);
}

static void test_all_heads(void **state)
{
    static const char *const settings[] = {"student.keep", "4", NULL};
    for (int i = 0; i < FAMILIES; i++) {
        if (families[i].together)
            continue;
        fixture f = open_fixture(state, &families[i], settings);
        assert_ok(make(&f));
        expect_equal(f.student, f.teacher, f.ids, 1e-6, families[i].name);
        close_fixture(&f);
    }
}

/* With silent mixers the student is the teacher without the heads that are not kept. */
static void check_kept(void **state, const family *kind, const char *const *settings)
{
    fixture f = open_fixture(state, kind, settings);
    if (make(&f) != CAB_OK)
        fail_msg("%s: %s", kind->name, cab_error_text());
    float *whole = tiny_logits(f.teacher, f.ids, BATCH, LENGTH), *with = tiny_logits(f.student, f.ids, BATCH, LENGTH);
    assert_true(tiny_distance(whole, with, LOGITS) > 1e-4);
    for (int l = 0; l < FAMILY_LAYERS; l++) {
        cab_block *s = &f.student->network.blocks[l];
        if (s->mamba2.out_proj.w != NULL)
            silence(f.student, &s->mamba2.out_proj, -1);
        for (int h = 0; h < FAMILY_HEADS; h++)
            if (f.kept.count == 0 || !cab_kept_has(&f.kept, l, h))
                silence(f.teacher, &f.teacher->network.blocks[l].attention.out, h);
    }
    expect_equal(f.student, f.teacher, f.ids, 2e-6, kind->name);
    free(whole);
    free(with);
    close_fixture(&f);
}

static void test_kept_heads(void **state)
{
    static const char *const settings[][5] = {{"student.keep_list", "2", NULL},
                                              {"student.keep_list", "1,2", NULL},
                                              {"student.keep_list", "0,1,3", NULL},
                                              {"student.keep_list", "2,3", NULL},
                                              {NULL},
                                              {"student.keep_list", "1", "student.keep_unit", "layers", NULL}};
    for (int i = 0; i < FAMILIES; i++)
        for (size_t j = families[i].together ? 4 : 0; j < sizeof settings / sizeof *settings; j++)
            check_kept(state, &families[i], settings[j]);
}

static void test_saved(void **state)
{
    static const char *const settings[] = {
        "student.keep_list", "1,2", "student.d_state", "16", "student.expand", "1", NULL};
    for (int i = 0; i < FAMILIES; i++) {
        if (families[i].together)
            continue;
        fixture f = open_fixture(state, &families[i], settings);
        cab_model *again = NULL, *trainable = NULL;
        assert_ok(make(&f));
        assert_ok(cab_model_save(f.student, temp_path(state, "student")));
        assert_ok(cab_model_open(temp_path(state, "student"), f.backend, CAB_PRECISION_FP32, false, &again));
        expect_equal(f.student, again, f.ids, 0, families[i].name);
        assert_ok(cab_model_open(temp_path(state, "student"), f.backend, CAB_PRECISION_FP32, true, &trainable));
        expect_equal(f.student, trainable, f.ids, 0, families[i].name);
        assert_ptr_equal(cab_student_of_model(again), cab_student_of(f.recipe));
        float *whole = tiny_logits(again, f.ids, BATCH, LENGTH), *steps = tiny_steps(again, f.ids, BATCH, LENGTH);
        if (!(tiny_distance(whole, steps, LOGITS) < 2e-5))
            fail_msg("%s: steps are %g from the whole", families[i].name, tiny_distance(whole, steps, LOGITS));
        free(whole);
        free(steps);
        cab_model_free(again);
        cab_model_free(trainable);
        close_fixture(&f);
    }
}

static float *values_of(const cab_model *model, const cab_tensor *t)
{
    float *values = calloc((size_t)cab_elements(t), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_params_read(model->params, t, values));
    return values;
}

/* Where K is normed, B starts with rows as long as the norm makes keys on average: w, for inputs that the layer's own norm gives. */
static void test_normed_keys(void **state)
{
    enum { D = 32, N = 2 * P, GROUPS = 2, E = 2 * FAMILY_HEADS * P };
    static const char *const settings[] = {"student.n_group", "2", "init.qk_scale", "0.5", NULL};
    fixture f = open_fixture(state, &families[5], settings); /* qwen3 */
    assert_ok(make(&f));
    const cab_block *t = &f.teacher->network.blocks[1];
    float *in = values_of(f.student, f.student->network.blocks[1].mamba2.in_proj.w),
          *k = values_of(f.teacher, t->attention.k.w), *w = values_of(f.teacher, t->attention.k_norm.w),
          *g = values_of(f.teacher, t->norm.w);
    for (int group = 0; group < GROUPS; group++) {
        double mean = 0;
        for (int i = 0; i < P * D; i++)
            mean += pow((double)k[group * P * D + i] * (double)g[i % D], 2) / P;
        for (int i = 0; i < P * D; i++) {
            const double key = 0.5 * (double)w[i / D] / sqrt(mean) * (double)k[group * P * D + i];
            assert_true(fabs((double)in[(2 * E + group * N) * D + i] - key) < 1e-6);
            assert_true(fabs((double)in[(2 * E + group * N + P) * D + i] + key) < 1e-6);
        }
    }
    float *all[] = {in, k, w, g};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    close_fixture(&f);
}

/* Where the norm before attention multiplies by much, the mixer divides by that, and starts as if it did not. */
static void test_large_inputs(void **state)
{
    enum { D = 32, E = 2 * FAMILY_HEADS * P };
    static const char *const settings[] = {"student.keep_list", "1", "init.qk_scale", "0.5", NULL};
    fixture f = open_fixture(state, &families[2], settings); /* llama */
    for (int l = 0; l < FAMILY_LAYERS; l++) {
        cab_tensor *norm = f.teacher->network.blocks[l].norm.w;
        float twenty[D];
        for (int i = 0; i < D; i++)
            twenty[i] = 20;
        assert_ok(cab_params_write(f.teacher->params, norm, twenty));
    }
    assert_ok(make(&f));
    const cab_mamba2 *m = &f.student->network.blocks[1].mamba2;
    const cab_attention_mixer *a = &f.teacher->network.blocks[1].attention;
    assert_true(fabsf(m->input_scale - 0.05f) < 1e-6f);
    float *in = values_of(f.student, m->in_proj.w), *conv = values_of(f.student, m->conv_b),
          *out = values_of(f.student, m->out_proj.w), *v = values_of(f.teacher, a->v.w),
          *b = values_of(f.teacher, a->v.b), *k = values_of(f.teacher, a->k.w), *kb = values_of(f.teacher, a->k.b),
          *o = values_of(f.teacher, a->out.w);
    for (int i = 0; i < P * D; i++) { /* x of the first head, B of the first group */
        assert_true(fabsf(in[E * D + i] - v[i]) < 1e-6f);
        assert_true(fabsf(in[2 * E * D + i] - 0.5f * 20 * k[i]) < 1e-5f);
    }
    for (int i = 0; i < P; i++) {
        assert_true(fabsf(conv[i] - b[i] / 20) < 1e-6f);
        assert_true(fabsf(conv[E + i] - 0.5f * kb[i]) < 1e-6f);
        assert_true(fabsf(out[i] - 20 * o[i]) < 1e-5f);
    }
    assert_ok(cab_model_save(f.student, temp_path(state, "student")));
    cab_model *again = NULL;
    assert_ok(cab_model_open(temp_path(state, "student"), f.backend, CAB_PRECISION_FP32, false, &again));
    expect_equal(f.student, again, f.ids, 0, "large inputs");
    float *all[] = {in, conv, out, v, b, k, kb, o};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    cab_model_free(again);
    close_fixture(&f);
}

/* KL per token of one model's words from another's, by their logits. */
static double divergence(const float *p, const float *q)
{
    double sum = 0;
    for (int row = 0; row < TOKENS; row++) {
        const float *a = p + row * FAMILY_WORDS, *b = q + row * FAMILY_WORDS;
        double za = 0, zb = 0, mean = 0;
        for (int v = 0; v < FAMILY_WORDS; v++) {
            za += exp((double)a[v]);
            zb += exp((double)b[v]);
        }
        for (int v = 0; v < FAMILY_WORDS; v++)
            mean += exp((double)a[v]) / za * ((double)a[v] - log(za) - (double)b[v] + log(zb));
        sum += mean / TOKENS;
    }
    return sum;
}

/* What leaving out a head costs is the KL of the teacher from itself without that head, though only the layers from there on are computed. */
static void test_costs(void **state)
{
    static const char *const settings[] = {"student.keep", "1", "student.keep_by", "kl", NULL};
    static const int some[] = {0, 2, 12, 15, 16}; /* gpt2, llama, gpt_neox, gemma2, gemma3 */
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        fixture f = open_fixture(state, &families[some[i]], settings);
        assert_ok(make(&f));
        float *whole = tiny_logits(f.teacher, f.ids, BATCH, LENGTH);
        for (int l = 0; l < FAMILY_LAYERS; l++)
            for (int h = 0; h < FAMILY_HEADS; h++) {
                const cab_dense *out = &f.teacher->network.blocks[l].attention.out;
                float *own = values_of(f.teacher, out->w);
                silence(f.teacher, out, h);
                float *without = tiny_logits(f.teacher, f.ids, BATCH, LENGTH);
                const double expected = divergence(whole, without), cost = (double)f.kept.cost[l * FAMILY_HEADS + h];
                if (!(fabs(cost - expected) < 1e-5 * (1 + expected)))
                    fail_msg("%s, layer %d, head %d: %g, expected %g", families[some[i]].name, l, h, cost, expected);
                assert_ok(cab_params_write(f.teacher->params, out->w, own));
                free(own);
                free(without);
            }
        free(whole);
        close_fixture(&f);
    }
}

/* ---- what is refused -------------------------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
    static const char *const some[] = {"student.keep", "2", "student.keep_by", "kl", NULL};
    for (int i = 0; i < FAMILIES; i++) {
        if (!families[i].together)
            continue;
        fixture f = open_fixture(state, &families[i], some);
        assert_fails(make(&f), CAB_EUNSUPPORTED, "norms of Q and K over all heads together");
        close_fixture(&f);
    }
    static const struct {
        int family;
        const char *layout, *said;
    } bad[] = {{0, "falcon-h1", "cannot hold learned positions; layouts that can: own"},
               {12, "granite-hybrid", "layouts that can: own"},
               {2, "mamba", "cannot hold some heads of a layer; layouts that can: falcon-h1, granite-hybrid, own"},
               {16, "falcon-h1", "cannot hold norms behind attention and MLP; layouts that can: own"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fixture f = open_fixture(state, &families[bad[i].family], some);
        assert_ok(cab_recipe_set(f.recipe, "student.layout", bad[i].layout));
        assert_fails(make(&f), CAB_EUNSUPPORTED, bad[i].said);
        assert_ok(cab_recipe_set(f.recipe, "student.layout", "auto"));
        assert_ok(make(&f));
        assert_string_equal(cab_model_architecture(f.student), bad[i].family == 2 ? "falcon_h1" : "in-place");
        close_fixture(&f);
    }
}

static void test_damaged(void **state)
{
    static const char *const settings[] = {"student.keep_list", "1,2", NULL};
    static const struct {
        const char *from, *to, *said;
    } edits[] = {
        {"\"llama\"", "\"in-place\"", "config.json: teacher: architecture \"in-place\" is no Transformer"},
        {"\"llama\"", "\"falcon_h1\"", "config.json: teacher: architecture \"falcon_h1\" is no Transformer"},
        {"\"llama\"", "\"lama\"", "config.json: teacher: architecture \"lama\" is not supported"},
        {"\"hidden_size\":32", "\"hidden_size\":33", "config.json: teacher: hidden_size 33"},
        {"\"mamba2\"", "\"mamba3\"",
         "config.json: mixer: \"kind\" is \"mamba3\"; supported are mamba2 and mamba2-both-ways"},
        {"\"mamba_d_ssm\"", "\"mamba_d_sm\"", "mamba_d_sm"},
        {"\"mamba_n_heads\":", "\"mamba_n_heads\":5", "config.json: mixer:"},
        {"\"kept\":[", "\"kept\":[[0],", "config.json: \"kept\" has 3 entries, the teacher has 2 layers"},
        {"\"kept\":[[1,2]", "\"kept\":[[2,1]",
         "config.json: kept[0][1] is 1, expected rising numbers of heads below 4"},
        {"\"kept\":[[1,2]", "\"kept\":[[1,4]", "config.json: kept[0][1] is 4"},
        {"\"kept\":[[1,2]", "\"kept\":[[1,\"2\"]", "config.json: kept[0][1] is \"2\""},
        {"\"kept\":[[1,2]", "\"kept\":[7", "config.json: kept[0] is 7, expected a list of heads"},
        {"\"kept\":[[1,2]", "\"kept\":[[1]", "tensor \"model.layers.0.self_attn.q_proj.weight\""},
        {"\"kept\":[[1,2]", "\"kept\":[[]", "left over"},
        {"\"mixer\"", "\"mixr\"", "mixr"},
        {"{\"model_type\"", "{\"own\":1,\"model_type\"", "\"own\""},
    };
    fixture f = open_fixture(state, &families[2], settings);
    assert_ok(make(&f));
    assert_ok(cab_model_save(f.student, temp_path(state, "student")));
    cab_json json = {0};
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

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_all_heads),   TEMP_TEST(test_kept_heads),   TEMP_TEST(test_saved),
                                       TEMP_TEST(test_normed_keys), TEMP_TEST(test_large_inputs), TEMP_TEST(test_costs),
                                       TEMP_TEST(test_refused),     TEMP_TEST(test_damaged)};
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
