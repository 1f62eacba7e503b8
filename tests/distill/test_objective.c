/* The objective of a stage: values against a plain evaluation of the logits, gradients against differences, and what is not
 * asked for is not there. */
#include "distill/objective.h"
#include "nn/bridge.h"
#include "pair.h"
#include "widths.h"

enum { BATCH = 3, LENGTH = 9, ROWS = BATCH * LENGTH, WORDS = 23 };

typedef struct fixture {
    pair models;
    cab_term_set terms;
    int32_t ids[ROWS], labels[ROWS];
} fixture;

static fixture open_fixture(void **state, cab_precision precision)
{
    fixture f = {.terms = {.params = NULL}};
    cab_bridge *bridge = NULL;
    const tiny teacher = tiny_gpt2(CAB_F32, ""), student = tiny_phi_mamba(CAB_F32);
    const cab_bridge_options options = {.n_layer = 2, .hidden = 7, .activation = CAB_SILU};
    const int map[2] = {1, 0};
    pair_open(state, &teacher, &student, precision, &f.models);
    assert_ok(cab_params_new(f.models.backend, &f.terms.params));
    assert_ok(cab_bridge_new(f.terms.params, &options, map, 2,
                             same_widths(cab_model_tap_width(f.models.student, 0, CAB_TAP_KEY),
                                         cab_model_tap_width(f.models.teacher, 0, CAB_TAP_KEY),
                                         cab_model_tap_width(f.models.teacher, 0, CAB_TAP_QUERY)),
                             5, &bridge));
    f.terms.state[CAB_TERM_ALIGN] = bridge;
    for (int i = 0; i < ROWS; i++) {
        f.ids[i] = (7 * i + i / 4) % WORDS;
        f.labels[i] = i % LENGTH == LENGTH - 1 ? -1 : (7 * (i + 1) + (i + 1) / 4) % WORDS;
    }
    return f;
}

static void close_fixture(fixture *f)
{
    cab_term_set_close(&f->terms);
    pair_close(&f->models);
}

static cab_objective *objective(const fixture *f, cab_objective_options options)
{
    cab_objective *o = NULL;
    options.batch = options.batch > 0 ? options.batch : BATCH;
    options.seq_len = LENGTH;
    options.temperature = options.temperature > 0 ? options.temperature : 1;
    bool teacher = options.terms[CAB_TERM_KL] || options.terms[CAB_TERM_ALIGN] || !options.train;
    assert_ok(cab_objective_new(f->models.backend, f->models.student, teacher ? f->models.teacher : NULL, &f->terms,
                                &options, &o));
    assert_ok(cab_objective_plan(o, NULL));
    return o;
}

static cab_term_values run(const fixture *f, cab_objective *o, cab_term_weights weights, int share)
{
    const cab_batch batch = {.input = f->ids, .labels = f->labels};
    cab_term_values values;
    assert_ok(cab_objective_run(o, &batch, &weights, share, &values));
    return values;
}

/* All gradients of a store one after another, which are then cleared; the caller frees. */
static float *gradients(cab_params *params, size_t *n)
{
    *n = (size_t)cab_params_elements(params);
    float *all = calloc(*n, sizeof *all), *at = all;
    assert_non_null(all);
    for (size_t i = 0; i < cab_params_count(params); i++) {
        assert_ok(cab_params_read_grad(params, cab_params_at(params, i), at));
        at += cab_elements(cab_params_at(params, i));
    }
    assert_ok(cab_params_zero_grad(params));
    return all;
}

static int count_nodes(cab_objective *o, const char *name)
{
    const cab_graph *g = cab_objective_graph(o);
    int n = 0;
    for (int i = 0; i < cab_graph_nodes(g); i++)
        n += !cab_graph_node(g, i)->skip && strcmp(cab_graph_node(g, i)->op->name, name) == 0;
    return n;
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

static void log_softmax(const float *logits, double temperature, double out[WORDS])
{
    double largest = -INFINITY, sum = 0;
    for (int v = 0; v < WORDS; v++)
        largest = fmax(largest, (double)logits[v] / temperature);
    for (int v = 0; v < WORDS; v++)
        sum += exp((double)logits[v] / temperature - largest);
    for (int v = 0; v < WORDS; v++)
        out[v] = (double)logits[v] / temperature - largest - log(sum);
}

static cab_term_values plain_values(const fixture *f, double temperature, const int32_t *valid)
{
    float *student = tiny_logits(f->models.student, f->ids, BATCH, LENGTH);
    float *teacher = tiny_logits(f->models.teacher, f->ids, BATCH, LENGTH);
    cab_term_values v = {0};
    for (int r = 0; r < ROWS; r++) {
        double p[WORDS], q[WORDS], plain[WORDS], divergence = 0;
        int best[2] = {0, 0};
        log_softmax(student + r * WORDS, temperature, p);
        log_softmax(teacher + r * WORDS, temperature, q);
        log_softmax(student + r * WORDS, 1, plain);
        for (int w = 0; w < WORDS; w++) {
            divergence += exp(q[w]) * (q[w] - p[w]);
            best[0] = p[w] > p[best[0]] ? w : best[0];
            best[1] = q[w] > q[best[1]] ? w : best[1];
        }
        if (f->labels[r] >= 0) {
            v.of[CAB_TERM_CE] -= plain[f->labels[r]];
            v.labels++;
        }
        if (valid == NULL || valid[r] != 0) {
            v.of[CAB_TERM_KL] += temperature * temperature * divergence;
            v.agreement += best[0] == best[1];
            v.valid++;
        }
    }
    free(student);
    free(teacher);
    v.of[CAB_TERM_CE] /= (double)v.labels;
    v.of[CAB_TERM_KL] /= (double)v.valid;
    v.agreement /= (double)v.valid;
    return v;
}

static void expect_near(double got, double expected)
{
    if (!(fabs(got - expected) <= 1e-5 * fabs(expected)))
        fail_msg("found %.8g, expected %.8g", got, expected);
}

static void test_values(void **state)
{
    fixture f = open_fixture(state, CAB_PRECISION_FP32);
    for (int t = 1; t <= 2; t++) {
        cab_objective *o = objective(
            &f, (cab_objective_options){
                    .terms[CAB_TERM_KL] = true, .terms[CAB_TERM_CE] = true, .train = true, .temperature = (float)t});
        cab_term_values expected = plain_values(&f, t, NULL), got = run(&f, o, (cab_term_weights){{1, 1, 0}}, 1);
        expect_near(got.of[CAB_TERM_CE], expected.of[CAB_TERM_CE]);
        expect_near(got.of[CAB_TERM_KL], expected.of[CAB_TERM_KL]);
        expect_near(got.agreement, expected.agreement);
        assert_int_equal(got.labels, ROWS - BATCH);
        assert_int_equal(got.valid, ROWS);
        assert_true(isnan(got.of[CAB_TERM_ALIGN]));
        cab_objective_free(o);
    }
    close_fixture(&f);
}

static void test_evaluation(void **state)
{
    fixture f = open_fixture(state, CAB_PRECISION_FP32);
    int32_t valid[ROWS];
    for (int i = 0; i < ROWS; i++)
        valid[i] = i % 3 != 0;
    cab_objective *o = objective(&f, (cab_objective_options){.train = false});
    const cab_batch batch = {.input = f.ids, .labels = f.labels, .valid = valid};
    cab_term_values expected = plain_values(&f, 1, valid), got;
    assert_ok(cab_objective_run(o, &batch, &(cab_term_weights){{0}}, 1, &got));
    expect_near(got.of[CAB_TERM_CE], expected.of[CAB_TERM_CE]);
    expect_near(got.of[CAB_TERM_KL], expected.of[CAB_TERM_KL]);
    expect_near(got.agreement, expected.agreement);
    assert_int_equal(got.valid, expected.valid);
    const cab_graph *g = cab_objective_graph(o);
    for (int i = 0; i < cab_graph_nodes(g); i++)
        assert_false(cab_graph_node(g, i)->backward);
    cab_objective_free(o);
    close_fixture(&f);
}

/* ---- what is not asked for is not there ------------------------------------------------------------------------------ */

static void test_only_what_the_terms_need(void **state)
{
    fixture f = open_fixture(state, CAB_PRECISION_FP32);
    cab_objective *ce = objective(&f, (cab_objective_options){.terms[CAB_TERM_CE] = true, .train = true});
    cab_objective *kl = objective(&f, (cab_objective_options){.terms[CAB_TERM_KL] = true, .train = true});
    cab_objective *align = objective(&f, (cab_objective_options){.terms[CAB_TERM_ALIGN] = true, .train = true});
    assert_int_equal(count_nodes(ce, "attention"), 0); /* no teacher */
    assert_int_equal(count_nodes(ce, "head_loss"), 1);
    assert_int_equal(count_nodes(ce, "align_loss"), 0);
    assert_int_equal(count_nodes(kl, "attention"), 2);
    assert_int_equal(count_nodes(align, "head_loss"), 0);
    assert_int_equal(count_nodes(align, "attention"),
                     1); /* layer 1 of the teacher needs layer 0's output, not its own */
    assert_int_equal(count_nodes(align, "align_loss"), 4);
    assert_int_equal(count_nodes(align, "ssd"), 2); /* forward and backward of layer 0; nothing behind layer 1's taps */
    cab_term_values v = run(&f, align, (cab_term_weights){{0, 0, 1}}, 1);
    assert_true(isnan(v.of[CAB_TERM_CE]) && isnan(v.of[CAB_TERM_KL]) && isnan(v.agreement) &&
                isfinite(v.of[CAB_TERM_ALIGN]) && v.of[CAB_TERM_ALIGN] > 0);
    v = run(&f, ce, (cab_term_weights){{1, 0, 0}}, 1);
    assert_true(isfinite(v.of[CAB_TERM_CE]) && isnan(v.of[CAB_TERM_KL]) && isnan(v.of[CAB_TERM_ALIGN]));
    cab_objective_free(ce);
    cab_objective_free(kl);
    cab_objective_free(align);
    close_fixture(&f);
}

/* ---- gradients ------------------------------------------------------------------------------------------------------- */

/* d loss along a random direction of one parameter: <gradient, direction> against a central difference. */
static void expect_slope(const fixture *f, cab_objective *o, cab_params *params, const char *name, cab_term_weights w)
{
    cab_tensor *t = cab_params_find(params, name);
    assert_non_null(t);
    size_t n = (size_t)cab_elements(t), ignored;
    float *values = calloc(4 * n, sizeof *values), *moved = values + n, *direction = moved + n,
          *gradient = direction + n;
    assert_non_null(values);
    assert_ok(cab_params_read(params, t, values));
    run(f, o, w, 1);
    assert_ok(cab_params_read_grad(params, t, gradient));
    free(gradients(f->models.student->params, &ignored));
    free(gradients(f->terms.params, &ignored));
    cab_random random = {.seed = 3, .stream = CAB_STREAM_TEST};
    double slope = 0, loss[2], step = 0.01;
    for (size_t i = 0; i < n; i++) { /* half random, half along the gradient's signs: far from cancelling */
        direction[i] = 0.5f * cab_random_normal(&random) + (gradient[i] > 0 ? 0.5f : -0.5f);
        slope += (double)direction[i] * (double)gradient[i];
    }
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            moved[i] = values[i] + (float)(side ? step : -step) * direction[i];
        assert_ok(cab_params_write(params, t, moved));
        cab_term_values v = run(f, o, w, 1);
        loss[side] = cab_terms_loss(&w, &v);
        free(gradients(f->models.student->params, &ignored));
        free(gradients(f->terms.params, &ignored));
    }
    assert_ok(cab_params_write(params, t, values));
    double difference = (loss[1] - loss[0]) / (2 * step);
    if (!(fabs(slope) > 1e-3) || !(fabs(slope - difference) < 0.01 * fabs(difference)))
        fail_msg("%s: the gradient's slope is %g, the difference's %g", name, slope, difference);
    free(values);
}

/* The alignment loss alone reaches the student's projection and convolution. */
static void test_alignment_reaches_the_student(void **state)
{
    static const char *const reached[] = {
        "backbone.layers.0.mixer.in_proj.weight", "backbone.layers.0.mixer.conv1d.weight",
        "backbone.layers.0.mixer.conv1d.bias",    "backbone.layers.1.mixer.in_proj.weight",
        "backbone.layers.1.mixer.conv1d.weight",  "backbone.layers.0.mixer.out_proj.weight",
        "backbone.layers.0.mlp.fc1.weight",       "backbone.embedding.weight"};
    static const char *const beyond[] = {"backbone.layers.1.mixer.out_proj.weight", "backbone.layers.1.mixer.D",
                                         "backbone.layers.1.mlp.fc1.weight", "backbone.final_layernorm.weight",
                                         "lm_head.weight"};
    fixture f = open_fixture(state, CAB_PRECISION_FP32);
    cab_objective *o = objective(&f, (cab_objective_options){.terms[CAB_TERM_ALIGN] = true, .train = true});
    const cab_term_weights w = {{0, 0, 1}};
    for (size_t i = 0; i < sizeof reached / sizeof *reached; i++)
        expect_slope(&f, o, f.models.student->params, reached[i], w);
    expect_slope(&f, o, f.terms.params, "bridge.B.0.0.weight", w);
    expect_slope(&f, o, f.terms.params, "bridge.C.1.2.bias", w);
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        const cab_tensor *t = cab_params_find(f.models.student->params, beyond[i]);
        assert_false(cab_graph_trains(cab_objective_graph(o), t));
    }
    cab_objective_free(o);
    close_fixture(&f);
}

static void test_joint_gradient(void **state)
{
    static const char *const names[] = {"backbone.layers.0.mixer.in_proj.weight", "backbone.layers.1.mixer.z_bias",
                                        "backbone.layers.1.mixer.D", "backbone.final_layernorm.bias", "lm_head.weight"};
    fixture f = open_fixture(state, CAB_PRECISION_FP32);
    cab_objective *o = objective(&f, (cab_objective_options){.terms[CAB_TERM_CE] = true,
                                                             .terms[CAB_TERM_KL] = true,
                                                             .terms[CAB_TERM_ALIGN] = true,
                                                             .train = true,
                                                             .temperature = 2});
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        expect_slope(&f, o, f.models.student->params, names[i], (cab_term_weights){{0.5, 1.5, 3}});
    cab_objective_free(o);
    close_fixture(&f);
}

static void test_weights_and_shares(void **state)
{
    fixture f = open_fixture(state, CAB_PRECISION_FP32);
    cab_objective *o = objective(
        &f, (cab_objective_options){
                .terms[CAB_TERM_CE] = true, .terms[CAB_TERM_KL] = true, .terms[CAB_TERM_ALIGN] = true, .train = true});
    cab_params *params = f.models.student->params;
    size_t n;
    run(&f, o, (cab_term_weights){{1, 2, 4}}, 1);
    float *one = gradients(params, &n);
    run(&f, o, (cab_term_weights){{2, 4, 8}}, 4);
    float *half = gradients(params, &n);
    for (size_t i = 0; i < n; i++)
        half[i] *= 2;
    assert_true(tiny_distance(half, one, n) < 1e-6);
    run(&f, o, (cab_term_weights){{1, 0, 0}}, 1);
    run(&f, o, (cab_term_weights){{0, 2, 0}}, 1);
    run(&f, o, (cab_term_weights){{0, 0, 4}}, 1);
    float *sum = gradients(params, &n);
    assert_true(tiny_distance(sum, one, n) < 1e-5);
    run(&f, o, (cab_term_weights){{0, 0, 0}}, 1);
    float *none = gradients(params, &n);
    for (size_t i = 0; i < n; i++)
        assert_true(none[i] == 0);
    free(one);
    free(half);
    free(sum);
    free(none);
    free(gradients(f.terms.params, &n));
    cab_objective_free(o);
    close_fixture(&f);
}

/* Three sequences at once, and one after another with a third of the weight. */
static void test_micro_batches(void **state)
{
    fixture f = open_fixture(state, CAB_PRECISION_FP32);
    cab_params *params = f.models.student->params;
    const cab_term_weights w = {{1, 1, 1}};
    size_t n;
    cab_objective_options options = {
        .terms[CAB_TERM_CE] = true, .terms[CAB_TERM_KL] = true, .terms[CAB_TERM_ALIGN] = true, .train = true};
    cab_objective *whole = objective(&f, options);
    options.batch = 1;
    cab_objective *piece = objective(&f, options);
    cab_term_values v = run(&f, whole, w, 1), mean = {0};
    float *expected = gradients(params, &n);
    for (int b = 0; b < BATCH; b++) {
        cab_term_values part;
        const cab_batch batch = {.input = f.ids + b * LENGTH, .labels = f.labels + b * LENGTH};
        assert_ok(cab_objective_run(piece, &batch, &w, BATCH, &part));
        mean.of[CAB_TERM_CE] += part.of[CAB_TERM_CE] / BATCH;
        mean.of[CAB_TERM_ALIGN] += part.of[CAB_TERM_ALIGN] / BATCH;
    }
    float *got = gradients(params, &n);
    assert_true(tiny_distance(got, expected, n) < 1e-5);
    expect_near(mean.of[CAB_TERM_CE], v.of[CAB_TERM_CE]);
    expect_near(mean.of[CAB_TERM_ALIGN], v.of[CAB_TERM_ALIGN]);
    free(expected);
    free(got);
    free(gradients(f.terms.params, &n));
    cab_objective_free(whole);
    cab_objective_free(piece);
    close_fixture(&f);
}

static void test_recompute_gives_the_same_bits_in_less_memory(void **state)
{
    for (int precision = CAB_PRECISION_FP32; precision <= CAB_PRECISION_BF16; precision++) {
        fixture f = open_fixture(state, (cab_precision)precision);
        float *all[2];
        cab_plan plans[2];
        size_t n;
        for (int recompute = 0; recompute < 2; recompute++) {
            const cab_objective_options options = {.batch = BATCH,
                                                   .seq_len = LENGTH,
                                                   .terms[CAB_TERM_CE] = true,
                                                   .terms[CAB_TERM_KL] = true,
                                                   .terms[CAB_TERM_ALIGN] = true,
                                                   .temperature = 1,
                                                   .recompute = recompute,
                                                   .train = true};
            cab_objective *o = NULL;
            assert_ok(cab_objective_new(f.models.backend, f.models.student, f.models.teacher, &f.terms, &options, &o));
            assert_ok(cab_objective_plan(o, &plans[recompute]));
            run(&f, o, (cab_term_weights){{1, 1, 1}}, 1);
            all[recompute] = gradients(f.models.student->params, &n);
            free(gradients(f.terms.params, &n));
            cab_objective_free(o);
        }
        assert_memory_equal(all[0], all[1], n * sizeof *all[0]);
        assert_true(plans[1].arena < plans[0].arena && plans[1].nodes > plans[0].nodes);
        free(all[0]);
        free(all[1]);
        close_fixture(&f);
    }
}

static void test_layers_without_a_teacher(void **state)
{
    fixture f = open_fixture(state, CAB_PRECISION_FP32);
    const cab_bridge_options options = {.n_layer = 1, .hidden = 7, .activation = CAB_SILU, .softmax = true};
    const int map[2] = {-1, 1};
    cab_bridge *bridge = NULL;
    cab_term_set_close(&f.terms);
    assert_ok(cab_params_new(f.models.backend, &f.terms.params));
    assert_ok(cab_bridge_new(f.terms.params, &options, map, 2, same_widths(10, 12, 12), 5, &bridge));
    f.terms.state[CAB_TERM_ALIGN] = bridge;
    assert_int_equal(cab_bridge_aligned(bridge), 1);
    assert_null(cab_params_find(f.terms.params, "bridge.B.0.0.weight"));
    cab_objective *o = objective(&f, (cab_objective_options){.terms[CAB_TERM_ALIGN] = true, .train = true});
    expect_slope(&f, o, f.models.student->params, "backbone.layers.1.mixer.in_proj.weight",
                 (cab_term_weights){{0, 0, 9}});
    cab_objective_free(o);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_values),
        TEMP_TEST(test_evaluation),
        TEMP_TEST(test_only_what_the_terms_need),
        TEMP_TEST(test_alignment_reaches_the_student),
        TEMP_TEST(test_joint_gradient),
        TEMP_TEST(test_weights_and_shares),
        TEMP_TEST(test_micro_batches),
        TEMP_TEST(test_recompute_gives_the_same_bits_in_less_memory),
        TEMP_TEST(test_layers_without_a_teacher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
