/* test_ssd.c - the recurrence in chunks against the recurrence itself in fp64, forward and backward. */
#include "ops/gpu.h"
#include "ops/repeat.h"

typedef struct shape {
    int64_t B, L, H, G, P, N;
} shape;

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    out[0] = cab_ssd(g, in[0], in[1], in[2], in[3], in[4], (int)s->H, (int)s->G);
}

/* One head of one sequence; every array starts at the head's first column of the sequence's first token. h: (L + 1, P, N) */
static void head_forward(const shape *s, const double *x, const double *Bm, const double *Cm, const double *a_log,
                         double D, double *h, double *y)
{
    const int64_t P = s->P, N = s->N;
    memset(h, 0, (size_t)(P * N) * sizeof *h);
    for (int64_t t = 0; t < s->L; t++) {
        const double a = 1 / (1 + exp(a_log[t * s->H]));
        const double *B = Bm + t * s->G * N, *C = Cm + t * s->G * N, *before = h + t * P * N;
        double *after = h + (t + 1) * P * N;
        for (int64_t p = 0; p < P; p++) {
            double sum = D * x[t * s->H * P + p];
            for (int64_t n = 0; n < N; n++) {
                after[p * N + n] = a * before[p * N + n] + x[t * s->H * P + p] * B[n];
                sum += after[p * N + n] * C[n];
            }
            y[t * s->H * P + p] = sum;
        }
    }
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    double *h = check_doubles((s->L + 1) * s->P * s->N);
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t head = 0; head < s->H; head++) {
            int64_t group = head / (s->H / s->G), x = b * s->L * s->H * s->P + head * s->P;
            int64_t m = b * s->L * s->G * s->N + group * s->N;
            head_forward(s, in[0] + x, in[1] + m, in[2] + m, in[3] + b * s->L * s->H + head, in[4][head], h,
                         out[0] + x);
        }
    free(h);
}

/* Gradients of <seed, y> of one head by the recurrence run backwards; offsets as in head_forward. */
static void head_backward(const shape *s, double *const *in, double **gradient, const double *seed, int64_t b,
                          int64_t head)
{
    const int64_t P = s->P, N = s->N, H = s->H, G = s->G, group = head / (H / G);
    const int64_t x0 = b * s->L * H * P + head * P, m0 = b * s->L * G * N + group * N, a0 = b * s->L * H + head;
    double *h = check_doubles((s->L + 1) * P * N), *dh = check_doubles(P * N), *y = check_doubles(s->L * H * P);
    head_forward(s, in[0] + x0, in[1] + m0, in[2] + m0, in[3] + a0, in[4][head], h, y);
    for (int64_t t = s->L - 1; t >= 0; t--) {
        const double a = 1 / (1 + exp(in[3][a0 + t * H]));
        double da = 0;
        for (int64_t p = 0; p < P; p++) {
            const int64_t xi = x0 + t * H * P + p;
            const double dy = seed[xi];
            gradient[4][head] += dy * in[0][xi];
            gradient[0][xi] += dy * in[4][head];
            for (int64_t n = 0; n < N; n++) {
                const int64_t mi = m0 + t * G * N + n, i = p * N + n;
                dh[i] += dy * in[2][mi];
                gradient[2][mi] += dy * h[(t + 1) * P * N + i];
                gradient[1][mi] += dh[i] * in[0][xi];
                gradient[0][xi] += dh[i] * in[1][mi];
                da += dh[i] * h[t * P * N + i];
                dh[i] *= a;
            }
        }
        gradient[3][a0 + t * H] += da * -a * (1 - a);
    }
    free(h);
    free(dh);
    free(y);
}

static check_case make_case(const char *name, const shape *s)
{
    return (check_case){.name = name,
                        .n_in = 5,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->H * s->P}, 0, 0},
                               {CHECK_ACTIVATION, 3, {s->B, s->L, s->G * s->N}, 0, 0},
                               {CHECK_ACTIVATION, 3, {s->B, s->L, s->G * s->N}, 0, 0},
                               {CHECK_ACTIVATION, 3, {s->B, s->L, s->H}, -5, 2},
                               {CHECK_PARAMETER, 1, {s->H}, 0, 0}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record,
                        .reference = reference,
                        .argument = s};
}

/* Finite differences of the naive recurrence, small sizes. */
static void test_small(void **state)
{
    (void)state;
    const shape shapes[] = {{1, 1, 1, 1, 1, 1}, {2, 3, 2, 2, 3, 2}, {1, 5, 4, 2, 2, 3}, {1, 4, 3, 1, 1, 17}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = make_case("ssd", &shapes[i]);
        check_run(&c);
    }
}

/* As check_run(), with the gradients of the naive backward recurrence: sizes that finite differences are too slow for. */
static void run_chunks(const shape *s, const char *isa, cab_dtype dtype, int threads)
{
    check_case c = make_case("ssd chunks", s);
    check_reference r = {0};
    int64_t counts[5];
    for (int i = 0; i < 5; i++) {
        const check_input *in = &c.in[i];
        counts[i] = check_count(in->n_dim, in->shape);
        r.in[i] = check_draw(c.name, i, counts[i], i == 3 ? in->low : -1, i == 3 ? in->high : 1, false);
        r.gradient[i] = check_doubles(counts[i]);
    }
    r.out_count[0] = counts[0];
    r.out[0] = check_doubles(counts[0]);
    r.seed[0] = check_draw(c.name, 100, counts[0], -1, 1, false);
    reference(&c, r.in, r.out);
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t h = 0; h < s->H; h++)
            head_backward(s, r.in, r.gradient, r.seed[0], b, h);
    check_variant v = {.dtype = dtype, .isa = isa, .view = true, .twice = true, .threads = threads};
    check_one(&c, &v, &r);
    check_release(&r);
}

static void test_chunks(void **state)
{
    (void)state;
    const shape shapes[] = {{1, 65, 1, 1, 16, 16},  {2, 64, 2, 2, 5, 7},     {1, 200, 4, 2, 33, 19},
                            {1, 130, 2, 1, 64, 64}, {1, 129, 1, 1, 20, 128}, {3, 63, 3, 3, 8, 40},
                            {1, 77, 6, 1, 4, 4}};
    const char *const isas[] = {"v1", "v3", "v4"};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (!check_have(isas[i])) {
            print_message("not run at %s, which this processor lacks\n", isas[i]);
            continue;
        }
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++)
            for (int low = 0; low < 2; low++)
                run_chunks(&shapes[j], isas[i], low ? CAB_BF16 : CAB_F32, low ? 0 : 3);
    }
}

/* Decays of e^-40 a token, where anything but exp(S[i] - S[j]) of non-positive differences would overflow, and of 1. */
static void test_extreme_decay(void **state)
{
    (void)state;
    const shape s = {1, 150, 2, 1, 8, 8};
    for (int strong = 0; strong < 2; strong++) {
        check_case c = make_case("ssd decay", &s);
        check_reference r = {0};
        for (int i = 0; i < 5; i++) {
            int64_t n = check_count(c.in[i].n_dim, c.in[i].shape);
            r.in[i] = check_draw(c.name, i, n, i != 3 ? -1 : strong ? 39 : -90, i != 3 ? 1 : strong ? 40 : -89, false);
        }
        r.out_count[0] = s.L * s.H * s.P;
        r.out[0] = check_doubles(r.out_count[0]);
        reference(&c, r.in, r.out);
        c.n_seeded = 0;
        check_variant v = {.dtype = CAB_F32, .isa = "v1"};
        check_one(&c, &v, &r);
        check_release(&r);
    }
}

/* The step, token by token, against the chunked form. */
static void step_through(cab_dtype dtype, double tolerance)
{
    enum { B = 2, L = 70, H = 4, G = 2, P = 9, N = 21 };
    const shape s = {B, L, H, G, P, N};
    const int64_t widths[4] = {H * P, G * N, G * N, H};
    check_case c = make_case("ssd step", &s);
    check_variant v = {.dtype = dtype, .isa = "v1"};
    double *values[5];
    for (int i = 0; i < 5; i++)
        values[i] =
            check_draw(c.name, i, check_count(c.in[i].n_dim, c.in[i].shape), i == 3 ? -5 : -1, i == 3 ? 2 : 1, false);
    check_graph whole;
    check_open(&c, &v, values, &whole);
    check_ok(cab_graph_plan(whole.graph, NULL));
    check_ok(cab_graph_run(whole.graph));
    double *expected = check_read(whole.graph, whole.out[0][0], H * P, 0);
    cab_graph *g;
    check_ok(cab_graph_new(whole.backend, &g));
    cab_tensor *in[4];
    for (int i = 0; i < 4; i++)
        in[i] = cab_graph_input(g, "in", dtype, 3, (int64_t[]){B, 1, widths[i]});
    cab_tensor *memory = cab_graph_state(g, "memory", CAB_F32, 3, (int64_t[]){B, H, P * N});
    cab_tensor *y = cab_ssd_step(g, in[0], in[1], in[2], in[3], whole.in[4], memory, H, G);
    cab_graph_keep(g, y);
    check_ok(cab_graph_plan(g, NULL));
    double *stepped = check_doubles(B * L * H * P);
    for (int l = 0; l < L; l++) {
        for (int i = 0; i < 4; i++) {
            double token[B * G * N];
            for (int b = 0; b < B; b++)
                memcpy(token + b * widths[i], values[i] + (b * L + l) * widths[i], (size_t)widths[i] * sizeof *token);
            check_write(g, in[i], token, widths[i], 0);
        }
        check_ok(cab_graph_run(g));
        double *got = check_read(g, y, H * P, 0);
        for (int b = 0; b < B; b++)
            memcpy(stepped + (b * L + l) * H * P, got + b * H * P, H * P * sizeof *got);
        free(got);
    }
    const double distance = check_distance(stepped, expected, B * L * H * P);
    if (!(distance < tolerance))
        fail_msg("%s: token by token differs from chunks by %g, more than %g", cab_dtype_name(dtype), distance,
                 tolerance);
    free(stepped);
    free(expected);
    cab_graph_free(g);
    check_close(&whole);
    for (int i = 0; i < 5; i++)
        free(values[i]);
}

static void test_step(void **state)
{
    (void)state;
    step_through(CAB_F32, 1e-4);
    step_through(CAB_BF16, 5e-3);
}

static void test_shape_errors(void **state)
{
    (void)state;
    cab_backend *backend;
    check_ok(cab_backend_open("cpu", &backend));
    cab_graph *g;
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, 4, 6});
    cab_tensor *B = cab_graph_input(g, "B", CAB_F32, 3, (int64_t[]){1, 4, 8});
    cab_tensor *C = cab_graph_input(g, "C", CAB_F32, 3, (int64_t[]){1, 5, 8});
    cab_tensor *a_log = cab_graph_input(g, "a_log", CAB_F32, 3, (int64_t[]){1, 4, 2});
    cab_tensor *D = cab_graph_input(g, "D", CAB_F32, 1, (int64_t[]){2});
    assert_null(cab_ssd(g, x, B, C, a_log, D, 2, 2));
    assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "C (1, 5, 8) F32"));
    cab_graph_free(g);
    cab_backend_close(backend);
}

/* The same bits whatever the number of threads. */
static void test_threads(void **state)
{
    (void)state;
    const shape s = {2, 130, 4, 2, 16, 12};
    const check_case c = make_case("ssd threads", &s);
    repeat_compare(&c, &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 1},
                   &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 3}, 200000);
}

/* Whole tiles, tiles padded in every direction, states of two tiles and larger ones, heads that share groups. */
static void test_gpu(void **state)
{
    (void)state;
    const shape shapes[] = {{2, 512, 4, 4, 64, 64}, {3, 197, 6, 2, 64, 64},  {1, 333, 3, 3, 48, 16},
                            {2, 129, 2, 1, 40, 56}, {1, 300, 2, 2, 64, 128}, {1, 140, 2, 1, 96, 72},
                            {2, 150, 3, 1, 64, 72}, {1, 200, 4, 2, 24, 99}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const check_case c = make_case("ssd tiles", &shapes[i]);
        gpu_compare(&c, 1e-4, 1.5e-2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small), cmocka_unit_test(test_chunks),       cmocka_unit_test(test_extreme_decay),
        cmocka_unit_test(test_step),  cmocka_unit_test(test_shape_errors), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
