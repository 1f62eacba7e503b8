/* test_optimizer.c - AdamW against its formula in fp64: several steps, clipping, averages, bf16 copies, bad gradients. */
#include "ops/check.h"

enum { N = 4, PARTS = 2 * N };
static const int64_t shapes[N][2] = {{1, 1}, {37, 3}, {3, 16384}, {130, 127}}; /* the last two span several blocks */

/* The list on the device, and the same state in fp64. */
typedef struct setup {
    cab_backend *backend;
    cab_params *params;
    cab_graph *graph;
    cab_tensor *lr, *step, *norm;
    cab_optimized list[N];
    cab_communicator *communicator; /* of one rank; NULL: none */
    cab_optimized parts[PARTS];
    cab_adamw_options options;
    double *p[N], *m[N], *v[N], *average[N];
} setup;

static size_t count(int i)
{
    return (size_t)(shapes[i][0] * shapes[i][1]);
}

static void allocate(setup *s, int i, float **out)
{
    check_ok(s->backend->allocate(s->backend, count(i) * sizeof(float), "a moment", (void **)out));
}

/* Host copy of n elements on the device; to be freed. */
static void *copy(const setup *s, const void *from, size_t n, size_t size)
{
    void *to = calloc(n, size);
    assert_non_null(to);
    check_ok(s->backend->download(s->backend, to, from, n * size));
    return to;
}

/* The update in its three steps for ranks: every parameter is cut in two, where the part ends at a multiple of 64. */
static void record_parts(setup *s)
{
    size_t n = 0;
    for (int i = 0; i < N; i++) {
        const int64_t all = (int64_t)count(i), cut = all / 128 * 64;
        for (int k = 0; k < 2; k++) {
            cab_optimized *part = &s->parts[n];
            *part = s->list[i];
            part->first = k == 0 ? 0 : cut;
            part->count = k == 0 ? cut : all - cut;
            part->m += part->first;
            part->v += part->first;
            n += part->count > 0;
        }
    }
    cab_adamw_options options = s->options;
    options.publish = true;
    cab_tensor *norms = cab_adamw_norms(s->graph, s->parts, n);
    s->norm = cab_adamw_part(s->graph, s->parts, n, &options, s->lr, s->step, norms);
    cab_collect(s->graph, &s->params, 1);
    cab_adopt(s->graph, s->list, N, &s->options, s->norm);
}

static void open_communicator(setup *s)
{
    setenv("RANK", "0", 1);
    setenv("WORLD_SIZE", "1", 1);
    check_ok(cab_communicator_open(&s->communicator));
    unsetenv("RANK");
    unsetenv("WORLD_SIZE");
    assert_int_equal(cab_communicator_size(s->communicator), 1);
    check_ok(s->backend->join(s->backend, s->communicator));
}

static void open_setup(setup *s, const char *isa, int threads, float clip, bool divided)
{
    *s = (setup){.options = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .clip = clip, .ema_decay = 0.75f}};
    setenv("CAB_CPU_ISA", isa, 1);
    check_ok(cab_backend_open(check_device(), &s->backend));
    unsetenv("CAB_CPU_ISA");
    if (threads && s->backend->host)
        s->backend->threads = threads;
    if (divided)
        open_communicator(s);
    check_ok(cab_params_new(s->backend, &s->params));
    check_ok(cab_graph_new(s->backend, &s->graph));
    for (int i = 0; i < N; i++) {
        char name[8];
        snprintf(name, sizeof name, "p%d", i);
        cab_optimized *o = &s->list[i];
        check_ok(cab_params_add(s->params, name, CAB_F32, 2, shapes[i], CAB_DECAY, &o->parameter));
        check_ok(cab_params_set_trainable(s->params, name, true, NULL));
        s->p[i] = check_draw(name, 0, (int64_t)count(i), -1, 1, false);
        s->m[i] = check_doubles((int64_t)count(i));
        s->v[i] = check_doubles((int64_t)count(i));
        s->average[i] = check_doubles((int64_t)count(i));
        allocate(s, i, &o->m);
        allocate(s, i, &o->v);
        if (i % 2)
            allocate(s, i, &o->average);
        o->decay = i == 2 ? 0.0f : 0.1f;
        o->rate = i == 1 ? 0.25f : 1.0f;
        float *values = calloc(count(i), sizeof *values);
        for (size_t j = 0; j < count(i); j++)
            values[j] = (float)s->p[i][j];
        check_ok(cab_params_write(s->params, o->parameter, values));
        free(values);
    }
    assert_non_null(cab_graph_weight(s->graph, s->list[1].parameter, CAB_BF16));
    assert_non_null(cab_graph_weight(s->graph, s->list[3].parameter, CAB_BF16));
    s->lr = cab_graph_scalar(s->graph, "lr", 1e-2f);
    s->step = cab_graph_input(s->graph, "step", CAB_I32, 1, (int64_t[]){1});
    if (divided)
        record_parts(s);
    else
        s->norm = cab_adamw(s->graph, s->list, N, &s->options, s->lr, s->step);
    check_ok(cab_graph_plan(s->graph, NULL));
}

static void close_setup(setup *s)
{
    for (int i = 0; i < N; i++) {
        s->backend->release(s->backend, s->list[i].m);
        s->backend->release(s->backend, s->list[i].v);
        s->backend->release(s->backend, s->list[i].average);
        free(s->p[i]);
        free(s->m[i]);
        free(s->v[i]);
        free(s->average[i]);
    }
    cab_graph_free(s->graph);
    cab_params_free(s->params);
    cab_backend_close(s->backend);
    cab_communicator_close(s->communicator);
}

/* Fills the gradients for a step, runs it, and returns the norm it reports. */
static float run_step(setup *s, int step, float factor)
{
    for (int i = 0; i < N; i++) {
        double *values = check_draw("gradient", step * N + i, (int64_t)count(i), -1, 1, false);
        float *g = calloc(count(i), sizeof *g);
        for (size_t j = 0; j < count(i); j++)
            g[j] = factor * (float)values[j];
        check_ok(s->backend->upload(s->backend, s->list[i].parameter->grad->data, g, count(i) * sizeof *g));
        free(values);
        free(g);
    }
    check_ok(cab_tensor_write(s->graph, s->step, &(int32_t){step}));
    check_ok(cab_graph_run(s->graph));
    float norm;
    check_ok(cab_scalar_read(s->graph, s->norm, &norm));
    return norm;
}

static double reference_step(setup *s, int step, double factor)
{
    double *g[N], squares = 0;
    for (int i = 0; i < N; i++) {
        g[i] = check_draw("gradient", step * N + i, (int64_t)count(i), -1, 1, false);
        for (size_t j = 0; j < count(i); j++)
            squares += factor * factor * g[i][j] * g[i][j];
    }
    const double norm = sqrt(squares), clip = (double)s->options.clip;
    const double scale = factor * (clip > 0 && norm > clip ? clip / norm : 1);
    for (int i = 0; i < N; i++) {
        for (size_t j = 0; j < count(i); j++) {
            s->m[i][j] = 0.9 * s->m[i][j] + 0.1 * scale * g[i][j];
            s->v[i][j] = 0.95 * s->v[i][j] + 0.05 * scale * g[i][j] * scale * g[i][j];
            double m = s->m[i][j] / (1 - pow(0.9, step)), v = s->v[i][j] / (1 - pow(0.95, step));
            s->p[i][j] -=
                (double)s->list[i].rate * 1e-2 * (m / (sqrt(v) + 1e-8) + (double)s->list[i].decay * s->p[i][j]);
            s->average[i][j] = 0.75 * s->average[i][j] + 0.25 * s->p[i][j];
        }
        free(g[i]);
    }
    return norm;
}

static void assert_near(const setup *s, const float *device, const double *expected, size_t n)
{
    double *values = check_doubles((int64_t)n);
    float *got = copy(s, device, n, sizeof *got);
    for (size_t i = 0; i < n; i++)
        values[i] = (double)got[i];
    assert_true(check_distance(values, expected, (int64_t)n) < 1e-5);
    free(got);
    free(values);
}

static void assert_state(const setup *s)
{
    for (int i = 0; i < N; i++) {
        const cab_optimized *o = &s->list[i];
        assert_near(s, o->parameter->data, s->p[i], count(i));
        assert_near(s, o->m, s->m[i], count(i));
        assert_near(s, o->v, s->v[i], count(i));
        if (o->average)
            assert_near(s, o->average, s->average[i], count(i));
        float *p = copy(s, o->parameter->data, count(i), sizeof *p);
        float *g = copy(s, o->parameter->grad->data, count(i), sizeof *g);
        cab_bf16 *low = o->parameter->low ? copy(s, o->parameter->low->data, count(i), sizeof *low) : NULL;
        for (size_t j = 0; j < count(i); j++) {
            assert_true(g[j] == 0.0f);
            if (low)
                assert_int_equal(low[j], cab_bf16_from_f32(p[j]));
        }
        free(p);
        free(g);
        free(low);
    }
}

static void test_steps(void **state)
{
    (void)state;
    const char *const isas[] = {"v1", "v3", "v4"};
    for (size_t k = 0; k < sizeof isas / sizeof *isas; k++)
        for (int form = 0; form < 4 && check_have(isas[k]); form++) { /* clipped or not, divided or not */
            setup s;
            open_setup(&s, isas[k], 0, form % 2 == 1 ? 1.0f : 0.0f, form >= 2);
            const uint64_t version = s.list[1].parameter->version, low = s.list[1].parameter->low->version;
            for (int step = 1; step <= 3; step++) {
                float factor = step == 2 ? 1e-3f : 1.0f; /* one below the clipping norm */
                double expected = reference_step(&s, step, (double)factor);
                float norm = run_step(&s, step, factor);
                assert_true(fabs((double)norm - expected) < 1e-6 * expected);
            }
            assert_state(&s);
            assert_true(s.list[1].parameter->version > version);
            assert_true(s.list[1].parameter->low->version > low);
            close_setup(&s);
        }
}

/* A gradient that is not finite changes nothing but the gradients, and the norm says so. */
static void test_bad_gradient(void **state)
{
    (void)state;
    const float bad[] = {INFINITY, -INFINITY, NAN};
    for (size_t k = 0; k < 2 * (sizeof bad / sizeof *bad); k++) {
        setup s;
        open_setup(&s, "v1", 0, 1.0f, k % 2 == 1);
        reference_step(&s, 1, 1.0);
        run_step(&s, 1, 1.0f);
        assert_false(isfinite(run_step(&s, 2, bad[k / 2])));
        assert_state(&s);
        close_setup(&s);
    }
}

/* The same bits whatever the number of threads. */
static void test_threads(void **state)
{
    (void)state;
    setup one, many;
    open_setup(&one, "v1", 1, 1.0f, false);
    open_setup(&many, "v1", 3, 1.0f, false);
    for (int step = 1; step <= 2; step++)
        assert_true(run_step(&one, step, 1.0f) == run_step(&many, step, 1.0f));
    for (int i = 0; i < N; i++) {
        float *p[2] = {copy(&one, one.list[i].parameter->data, count(i), sizeof **p),
                       copy(&many, many.list[i].parameter->data, count(i), sizeof **p)};
        float *v[2] = {copy(&one, one.list[i].v, count(i), sizeof **v),
                       copy(&many, many.list[i].v, count(i), sizeof **v)};
        assert_memory_equal(p[0], p[1], count(i) * sizeof(float));
        assert_memory_equal(v[0], v[1], count(i) * sizeof(float));
        for (int k = 0; k < 2; k++) {
            free(p[k]);
            free(v[k]);
        }
    }
    close_setup(&one);
    close_setup(&many);
}

/* A bf16 copy may be made after the first steps: by an evaluation that multiplies with what only trained so far. */
static void test_late_copy(void **state)
{
    (void)state;
    setup s;
    open_setup(&s, "v1", 0, 1.0f, false);
    for (int step = 1; step <= 4; step++) {
        cab_tensor *low;
        reference_step(&s, step, 1.0);
        run_step(&s, step, 1.0f);
        if (step == 2)
            check_ok(cab_params_low(s.params, s.list[2].parameter, &low));
    }
    assert_non_null(s.list[2].parameter->low);
    assert_state(&s);
    close_setup(&s);
}

/* A GPU finds out when results are read. */
static void test_bad_step(void **state)
{
    (void)state;
    setup s;
    float norm;
    open_setup(&s, "v1", 0, 1.0f, false);
    check_ok(cab_tensor_write(s.graph, s.step, &(int32_t){0}));
    cab_status status = cab_graph_run(s.graph);
    if (!s.backend->host) {
        check_ok(status);
        status = cab_scalar_read(s.graph, s.norm, &norm);
    }
    assert_int_equal(status, CAB_EARG);
    assert_non_null(strstr(cab_error_text(), "step is 0"));
    close_setup(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_steps), cmocka_unit_test(test_bad_gradient),
                                       cmocka_unit_test(test_threads), cmocka_unit_test(test_late_copy),
                                       cmocka_unit_test(test_bad_step)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
