/* The objective on images: a ViT or DeiT of width 12 teaches a Vim of width 8 that is deeper or shallower; values, gradients
 * against differences, micro-batches, a restricted head, and what is not asked for is not there. */
#include "distill/objective.h"
#include "models/tiny_vision.h"
#include "nn/bridge.h"
#include "pair.h"
#include "widths.h"

enum { BATCH = 4, SIZE = 12, PIXELS = 3 * SIZE * SIZE, CLASSES = 5 };

typedef struct fixture {
    pair models;
    cab_term_set terms;
    float pixels[BATCH * PIXELS], targets[BATCH * CLASSES];
    int32_t labels[BATCH];
} fixture;

static fixture open_fixture(void **state, bool distilled, bool softmax)
{
    fixture f = {.terms = {.params = NULL}};
    cab_bridge *bridge = NULL;
    const tiny teacher = tiny_transformers(CAB_F32, distilled), student = tiny_vim();
    const cab_bridge_options options = {
        .n_layer = 2, .hidden = 7, .activation = CAB_SILU, .softmax = softmax, .bidirectional = true};
    const int map[2] = {1, 0};
    cab_random random = {.seed = 3, .stream = CAB_STREAM_TEST};
    pair_open(state, &teacher, &student, CAB_PRECISION_FP32, &f.models);
    assert_ok(cab_params_new(f.models.backend, &f.terms.params));
    assert_ok(cab_bridge_new(f.terms.params, &options, map, 2,
                             same_widths(cab_model_tap_width(f.models.student, 0, CAB_TAP_KEY),
                                         cab_model_tap_width(f.models.teacher, 0, CAB_TAP_KEY),
                                         cab_model_tap_width(f.models.teacher, 0, CAB_TAP_QUERY)),
                             5, &bridge));
    f.terms.state[CAB_TERM_ALIGN] = bridge;
    for (int i = 0; i < BATCH * PIXELS; i++)
        f.pixels[i] = cab_random_normal(&random);
    for (int i = 0; i < BATCH; i++) {
        f.labels[i] = (i * 3 + 1) % CLASSES;
        f.targets[i * CLASSES + f.labels[i]] = 0.75f; /* mixed with its neighbour */
        f.targets[i * CLASSES + (f.labels[i] + 1) % CLASSES] = 0.25f;
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
    options.seq_len = 1;
    options.temperature = 1;
    bool teacher = options.terms[CAB_TERM_KL] || options.terms[CAB_TERM_ALIGN];
    assert_ok(cab_objective_new(f->models.backend, f->models.student, teacher ? f->models.teacher : NULL, &f->terms,
                                &options, &o));
    assert_ok(cab_objective_plan(o, NULL));
    return o;
}

static cab_term_values run(const fixture *f, cab_objective *o, cab_term_weights weights, int first, int share)
{
    const cab_batch batch = {
        .input = f->pixels + first * PIXELS, .labels = f->labels + first, .targets = f->targets + first * CLASSES};
    cab_term_values values;
    assert_ok(cab_objective_run(o, &batch, &weights, share, &values));
    return values;
}

static double weighted(const fixture *f, cab_objective *o, cab_term_weights w)
{
    cab_term_values v = run(f, o, w, 0, 1);
    return cab_terms_loss(&w, &v);
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

/* Logits of the fixture's images, the caller frees. */
static float *logits_of(const fixture *f, const cab_model *model)
{
    cab_graph *g = NULL;
    float *values = calloc(BATCH * CLASSES, sizeof *values);
    assert_non_null(values);
    assert_ok(cab_graph_new(f->models.backend, &g));
    cab_tensor *input = cab_graph_input(g, "pixels", CAB_F32, 4, (int64_t[]){BATCH, 3, SIZE, SIZE});
    cab_tensor *logits = cab_model_record_logits(g, model, cab_model_record(g, model, input, false, NULL));
    cab_graph_keep(g, logits);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, input, f->pixels));
    assert_ok(cab_graph_run(g));
    assert_ok(cab_tensor_read(g, logits, values));
    cab_graph_free(g);
    return values;
}

static void log_softmax(const float *logits, const int *classes, int n, double *out)
{
    double sum = 0;
    for (int v = 0; v < n; v++)
        sum += exp((double)logits[classes[v]]);
    for (int v = 0; v < n; v++)
        out[v] = (double)logits[classes[v]] - log(sum);
}

static void test_values(void **state)
{
    static const int all[CLASSES] = {0, 1, 2, 3, 4};
    for (int distilled = 0; distilled < 2; distilled++) {
        fixture f = open_fixture(state, distilled, true);
        cab_objective *o =
            objective(&f, (cab_objective_options){
                              .terms[CAB_TERM_CE] = true, .terms[CAB_TERM_KL] = true, .targets = true, .train = true});
        cab_term_values got = run(&f, o, (cab_term_weights){.of[CAB_TERM_CE] = 1, .of[CAB_TERM_KL] = 1}, 0, 1);
        float *student = logits_of(&f, f.models.student), *teacher = logits_of(&f, f.models.teacher);
        double ce = 0, kl = 0;
        for (int i = 0; i < BATCH; i++) {
            double p[CLASSES], q[CLASSES];
            log_softmax(student + i * CLASSES, all, CLASSES, p);
            log_softmax(teacher + i * CLASSES, all, CLASSES, q);
            for (int v = 0; v < CLASSES; v++) {
                ce -= (double)f.targets[i * CLASSES + v] * p[v] / BATCH;
                kl += exp(q[v]) * (q[v] - p[v]) / BATCH;
            }
        }
        assert_true(fabs(got.of[CAB_TERM_CE] - ce) < 1e-5 &&
                    fabs(got.of[CAB_TERM_KL] - kl) < 1e-5); /* batchmean: per image */
        assert_int_equal(got.valid, BATCH);
        free(student);
        free(teacher);
        cab_objective_free(o);
        close_fixture(&f);
    }
}

/* A teacher heard on three of its classes by a student of three. */
static void test_restricted_head(void **state)
{
    static const int chosen[3] = {4, 0, 2}, own[3] = {0, 1, 2};
    fixture f = open_fixture(state, false, false);
    const cab_head_side whole = cab_model_head(f.models.teacher);
    cab_network *student = &f.models.student->network;
    cab_objective_options options = {.terms[CAB_TERM_KL] = true, .train = true};
    float w[CLASSES * 12], b[CLASSES], rows[3 * 12], biases[3];
    cab_params *head = NULL;
    assert_ok(cab_params_new(f.models.backend, &head));
    assert_ok(cab_params_add(head, "w", CAB_F32, 2, (int64_t[]){3, 12}, CAB_NO_DECAY, &options.teacher_head.w));
    assert_ok(cab_params_add(head, "b", CAB_F32, 1, (int64_t[]){3}, CAB_NO_DECAY, &options.teacher_head.b));
    assert_ok(cab_params_read(f.models.teacher->params, whole.w, w));
    assert_ok(cab_params_read(f.models.teacher->params, whole.b, b));
    for (int v = 0; v < 3; v++) {
        memcpy(rows + v * 12, w + chosen[v] * 12, sizeof(float[12]));
        biases[v] = b[chosen[v]];
    }
    assert_ok(cab_params_write(head, options.teacher_head.w, rows));
    assert_ok(cab_params_write(head, options.teacher_head.b, biases));
    float *student_logits = logits_of(&f, f.models.student), *teacher_logits = logits_of(&f, f.models.teacher);
    student->head.w->shape[0] = student->head.b->shape[0] = 3; /* its first three classes */
    student->head.w->grad->shape[0] = student->head.b->grad->shape[0] = 3;
    memset(f.labels, 0, sizeof f.labels);
    cab_objective *o = objective(&f, options);
    cab_term_values got = run(&f, o, (cab_term_weights){.of[CAB_TERM_KL] = 1}, 0, 1);
    double kl = 0;
    for (int i = 0; i < BATCH; i++) {
        double p[3], q[3];
        log_softmax(student_logits + i * CLASSES, own, 3, p);
        log_softmax(teacher_logits + i * CLASSES, chosen, 3, q);
        for (int v = 0; v < 3; v++)
            kl += exp(q[v]) * (q[v] - p[v]) / BATCH;
    }
    assert_true(fabs(got.of[CAB_TERM_KL] - kl) < 1e-5);
    free(student_logits);
    free(teacher_logits);
    cab_objective_free(o);
    cab_params_free(head);
    close_fixture(&f);
}

/* ---- gradients ------------------------------------------------------------------------------------------------------- */

/* One element of each parameter against central differences of the weighted loss. */
static void expect_gradients(const fixture *f, cab_objective *o, cab_params *params, cab_term_weights w)
{
    const double step = 1e-2;
    double square = 0, apart = 0;
    for (size_t i = 0; i < cab_params_count(params); i++) {
        cab_tensor *t = cab_params_at(params, i);
        const size_t n = (size_t)cab_elements(t), at = (7 * i + 3) % n;
        float *values = calloc(n, sizeof *values), *gradient = calloc(n, sizeof *gradient);
        double loss[2];
        assert_ok(cab_params_zero_grad(params));
        weighted(f, o, w);
        assert_ok(cab_params_read(params, t, values));
        assert_ok(cab_params_read_grad(params, t, gradient));
        const float held = values[at];
        for (int side = 0; side < 2; side++) {
            values[at] = held + (float)(side == 0 ? -step : step);
            assert_ok(cab_params_write(params, t, values));
            loss[side] = weighted(f, o, w);
        }
        values[at] = held;
        assert_ok(cab_params_write(params, t, values));
        const double difference = (loss[1] - loss[0]) / (2 * step), got = (double)gradient[at];
        square += difference * difference;
        apart += (difference - got) * (difference - got);
        free(values);
        free(gradient);
    }
    print_message("gradients %g apart\n", sqrt(apart / square));
    if (!(sqrt(apart) < 2e-3 * sqrt(square)))
        fail_msg("gradients are %g apart of %g", sqrt(apart), sqrt(square));
    assert_ok(cab_params_zero_grad(params));
}

static void test_gradients(void **state)
{
    static const struct {
        cab_objective_options options;
        cab_term_weights weights;
        bool distilled, softmax;
    } cases[] = {
        {{.terms[CAB_TERM_CE] = true,
          .terms[CAB_TERM_KL] = true,
          .terms[CAB_TERM_ALIGN] = true,
          .targets = true,
          .train = true},
         {{.5, 1, 2}},
         false,
         false},
        {{.terms[CAB_TERM_ALIGN] = true, .train = true}, {{0, 0, 1}}, true, false},
        {{.terms[CAB_TERM_ALIGN] = true, .train = true}, {{0, 0, 1}}, false, true},
        {{.terms[CAB_TERM_CE] = true,
          .terms[CAB_TERM_KL] = true,
          .terms[CAB_TERM_ALIGN] = true,
          .train = true,
          .recompute = true},
         {{1, 1, 1}},
         true,
         true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f = open_fixture(state, cases[i].distilled, cases[i].softmax);
        cab_objective *o = objective(&f, cases[i].options);
        expect_gradients(&f, o, f.models.student->params, cases[i].weights);
        expect_gradients(&f, o, f.terms.params, cases[i].weights);
        cab_objective_free(o);
        close_fixture(&f);
    }
}

/* All gradients of the student, which are then cleared; the caller frees. */
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

static void test_micro_batches(void **state)
{
    fixture f = open_fixture(state, false, true);
    const cab_term_weights w = {{1, 1, 3}};
    cab_objective_options options = {.terms[CAB_TERM_CE] = true,
                                     .terms[CAB_TERM_KL] = true,
                                     .terms[CAB_TERM_ALIGN] = true,
                                     .targets = true,
                                     .train = true};
    size_t n = 0;
    cab_objective *whole = objective(&f, options);
    cab_term_values values = run(&f, whole, w, 0, 1);
    float *once = gradients(f.models.student->params, &n);
    options.batch = 1;
    cab_objective *piece = objective(&f, options);
    double align = 0, square = 0, apart = 0;
    for (int i = 0; i < BATCH; i++)
        align += run(&f, piece, w, i, BATCH).of[CAB_TERM_ALIGN] / BATCH;
    float *pieces = gradients(f.models.student->params, &n);
    for (size_t i = 0; i < n; i++) {
        square += (double)once[i] * (double)once[i];
        apart += ((double)once[i] - (double)pieces[i]) * ((double)once[i] - (double)pieces[i]);
    }
    assert_true(fabs(align - values.of[CAB_TERM_ALIGN]) < 1e-6);
    assert_true(sqrt(apart) < 1e-5 * sqrt(square));
    free(once);
    free(pieces);
    cab_objective_free(whole);
    cab_objective_free(piece);
    close_fixture(&f);
}

/* ---- what is there --------------------------------------------------------------------------------------------------- */

static int count_nodes(cab_objective *o, const char *name)
{
    const cab_graph *g = cab_objective_graph(o);
    int n = 0;
    for (int i = 0; i < cab_graph_nodes(g); i++)
        n += !cab_graph_node(g, i)->skip && strcmp(cab_graph_node(g, i)->op->name, name) == 0;
    return n;
}

static void test_what_runs(void **state)
{
    fixture f = open_fixture(state, false, true);
    cab_objective *o = objective(&f, (cab_objective_options){.terms[CAB_TERM_CE] = true, .train = true});
    assert_int_equal(count_nodes(o, "attention"), 0); /* no teacher */
    assert_int_equal(count_nodes(o, "align_loss"), 0);
    cab_objective_free(o);
    o = objective(&f, (cab_objective_options){.terms[CAB_TERM_ALIGN] = true, .train = true});
    assert_int_equal(count_nodes(o, "align_loss"), 8); /* two layers, two directions, B and C */
    assert_int_equal(count_nodes(o, "head_loss"), 0);
    assert_int_equal(count_nodes(o, "attention"), 1); /* the last layer's keys need the first layer only */
    cab_objective_free(o);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_values),        TEMP_TEST(test_restricted_head), TEMP_TEST(test_gradients),
        TEMP_TEST(test_micro_batches), TEMP_TEST(test_what_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
