/* test_ssd_both.c - two directions of the Mamba-2 recurrence in one node, against the sum over pairs of tokens in fp64, forward and
 * backward. */
#include "ops/gpu.h"
#include "ops/repeat.h"

typedef struct shape {
    int64_t B, L, H, G, P, N;
    bool delta, bias; /* A_log, dt_bias */
    bool shared;      /* both directions have the same dt, dt_bias and A_log */
} shape;

/* Columns of dt. */
static int64_t steps_of(const shape *s)
{
    return s->shared ? s->H : 2 * s->H;
}

enum { X, BM, CM, DT, D, DT_BIAS, A_LOG, INPUTS };

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    const cab_ssd_inputs inputs = {.x = in[X],
                                   .B = in[BM],
                                   .C = in[CM],
                                   .dt = in[DT],
                                   .D = in[D],
                                   .dt_bias = s->bias ? in[DT_BIAS] : NULL,
                                   .A_log = s->delta ? in[A_LOG] : NULL};
    out[0] = cab_ssd_both(g, &inputs, (int)s->H, (int)s->G);
}

static int64_t x_at(const shape *s, int64_t b, int64_t t, int64_t head)
{
    return ((b * s->L + t) * s->H + head) * s->P;
}

static int64_t m_at(const shape *s, int64_t b, int64_t t, int64_t head)
{
    return ((b * s->L + t) * s->G + head / (s->H / s->G)) * s->N;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* A head of a sequence in one direction: column of dt, and per token delta and the sum of log a up to it. */
typedef struct direction {
    int64_t column;
    double rate, *delta, *sum;
} direction;

static direction open_direction(const shape *s, double *const *in, int64_t b, int64_t head, bool back)
{
    direction d = {
        .column = head + (back && !s->shared ? s->H : 0), .delta = check_doubles(s->L), .sum = check_doubles(s->L)};
    double sum = 0;
    d.rate = s->delta ? exp(in[A_LOG][d.column]) : 1;
    for (int64_t i = 0; i < s->L; i++) {
        const int64_t t = back ? s->L - 1 - i : i;
        const double raw = in[DT][(b * s->L + t) * steps_of(s) + d.column] + (s->bias ? in[DT_BIAS][d.column] : 0);
        d.delta[t] = log1p(exp(raw));
        d.sum[t] = sum -= d.delta[t] * d.rate;
    }
    return d;
}

static void close_direction(direction *d)
{
    free(d->delta);
    free(d->sum);
}

/* Whether token i sees token j: all up to itself, backwards all behind it. */
static bool sees(bool back, int64_t i, int64_t j)
{
    return back ? j > i : j <= i;
}

static void head_forward(const shape *s, double *const *in, int64_t b, int64_t head, bool back, double *y)
{
    direction d = open_direction(s, in, b, head, back);
    for (int64_t i = 0; i < s->L; i++)
        for (int64_t j = 0; j < s->L; j++) {
            if (!sees(back, i, j))
                continue;
            const double G = dot(in[CM] + m_at(s, b, i, head), in[BM] + m_at(s, b, j, head), s->N);
            const double w = G * exp(d.sum[i] - d.sum[j]) * (s->delta ? d.delta[j] : 1);
            for (int64_t p = 0; p < s->P; p++)
                y[x_at(s, b, i, head) + p] += w * in[X][x_at(s, b, j, head) + p];
        }
    close_direction(&d);
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    for (int64_t i = 0; i < s->B * s->L * s->H * s->P; i++)
        out[0][i] = in[D][i / s->P % s->H] * in[X][i];
    for (int64_t task = 0; task < s->B * s->H * 2; task++)
        head_forward(s, in, task / 2 / s->H, task / 2 % s->H, task % 2 == 1, out[0]);
}

/* The gradients that come from what token i takes of token j; dsum, ddelta: of the direction's. */
static void pair_backward(const shape *s, double *const *in, double **gradient, const double *seed, const direction *d,
                          const int64_t at[4], int64_t i, int64_t j, double *dsum, double *ddelta)
{
    const int64_t xi = at[0], xj = at[1], mi = at[2], mj = at[3];
    const double scale = s->delta ? d->delta[j] : 1, decay = exp(d->sum[i] - d->sum[j]);
    const double G = dot(in[CM] + mi, in[BM] + mj, s->N), dw = dot(seed + xi, in[X] + xj, s->P);
    for (int64_t n = 0; n < s->N; n++) {
        gradient[CM][mi + n] += dw * decay * scale * in[BM][mj + n];
        gradient[BM][mj + n] += dw * decay * scale * in[CM][mi + n];
    }
    for (int64_t p = 0; p < s->P; p++)
        gradient[X][xj + p] += G * decay * scale * seed[xi + p];
    ddelta[j] += s->delta ? dw * G * decay : 0;
    dsum[i] += dw * G * decay * scale;
    dsum[j] -= dw * G * decay * scale;
}

static void head_backward(const shape *s, double *const *in, double **gradient, const double *seed, int64_t b,
                          int64_t head, bool back)
{
    direction d = open_direction(s, in, b, head, back);
    double *dsum = check_doubles(s->L), *ddelta = check_doubles(s->L), dlog = 0;
    for (int64_t i = 0; i < s->L; i++)
        for (int64_t j = 0; j < s->L; j++) {
            const int64_t at[4] = {x_at(s, b, i, head), x_at(s, b, j, head), m_at(s, b, i, head), m_at(s, b, j, head)};
            if (sees(back, i, j))
                pair_backward(s, in, gradient, seed, &d, at, i, j, dsum, ddelta);
        }
    for (int64_t i = s->L - 1; i >= 0; i--) {
        const int64_t t = back ? s->L - 1 - i : i;
        dlog += dsum[t];
        const double slope = 1 - exp(-d.delta[t]), ddt = slope * (ddelta[t] - d.rate * dlog);
        gradient[DT][(b * s->L + t) * steps_of(s) + d.column] += ddt;
        gradient[DT_BIAS][d.column] += ddt;
        gradient[A_LOG][d.column] -= d.rate * d.delta[t] * dlog;
    }
    free(dsum);
    free(ddelta);
    close_direction(&d);
}

static void reference_backward(const shape *s, double *const *in, double **gradient, const double *seed)
{
    for (int64_t i = 0; i < s->B * s->L * s->H * s->P; i++) {
        gradient[X][i] += seed[i] * in[D][i / s->P % s->H];
        gradient[D][i / s->P % s->H] += seed[i] * in[X][i];
    }
    for (int64_t task = 0; task < s->B * s->H * 2; task++)
        head_backward(s, in, gradient, seed, task / 2 / s->H, task / 2 % s->H, task % 2 == 1);
}

static check_case make_case(const char *name, const shape *s)
{
    return (check_case){.name = name,
                        .n_in = INPUTS,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->H * s->P}, 0, 0},
                               {CHECK_ACTIVATION, 3, {s->B, s->L, s->G * s->N}, 0, 0},
                               {CHECK_ACTIVATION, 3, {s->B, s->L, s->G * s->N}, 0, 0},
                               {CHECK_ACTIVATION, 3, {s->B, s->L, steps_of(s)}, -5, 2},
                               {CHECK_PARAMETER, 1, {s->H}, 0, 0},
                               {s->bias ? CHECK_PARAMETER : CHECK_FROZEN, 1, {steps_of(s)}, -2, 1},
                               {s->delta ? CHECK_PARAMETER : CHECK_FROZEN, 1, {steps_of(s)}, -3, 1}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record,
                        .reference = reference,
                        .argument = s};
}

/* Finite differences of the sum over pairs, small sizes; every variant of check.h. */
static void test_small(void **state)
{
    (void)state;
    const shape shapes[] = {{1, 1, 1, 1, 1, 1, true, true, false},  {2, 3, 2, 2, 3, 2, true, true, false},
                            {1, 5, 4, 2, 2, 3, true, false, false}, {1, 4, 3, 1, 1, 17, false, false, false},
                            {2, 6, 2, 1, 3, 2, false, true, false}, {1, 2, 2, 1, 2, 3, true, true, false},
                            {2, 5, 4, 2, 2, 3, true, true, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = make_case("ssd both", &shapes[i]);
        check_run(&c);
    }
}

static void run_chunks(const shape *s, const char *isa, cab_dtype dtype, int threads)
{
    check_case c = make_case("ssd both chunks", s);
    check_reference r = {0};
    for (int i = 0; i < INPUTS; i++) {
        r.in[i] = check_values(&c, i);
        r.gradient[i] = check_doubles(check_count(c.in[i].n_dim, c.in[i].shape));
    }
    r.out_count[0] = check_count(3, c.in[X].shape);
    r.out[0] = check_doubles(r.out_count[0]);
    r.seed[0] = check_draw(c.name, 100, r.out_count[0], -1, 1, false);
    reference(&c, r.in, r.out);
    reference_backward(s, r.in, r.gradient, r.seed[0]);
    check_variant v = {.dtype = dtype, .isa = isa, .view = true, .twice = true, .threads = threads};
    check_one(&c, &v, &r);
    check_release(&r);
}

/* Sizes that fill no chunk, tile or vector. */
static void test_chunks(void **state)
{
    (void)state;
    const shape shapes[] = {{1, 65, 1, 1, 16, 16, true, true, false},  {2, 64, 2, 2, 5, 7, true, true, false},
                            {1, 200, 4, 2, 33, 19, true, true, false}, {1, 130, 2, 1, 64, 64, false, false, false},
                            {2, 50, 6, 3, 8, 40, true, true, false},   {1, 129, 2, 1, 20, 128, true, false, false},
                            {2, 130, 4, 2, 9, 12, true, true, true}};
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

/* The same bits whatever the number of threads. */
static void test_threads(void **state)
{
    (void)state;
    const shape s = {2, 130, 4, 2, 16, 12, true, true, false};
    const check_case c = make_case("ssd both threads", &s);
    repeat_compare(&c, &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 1},
                   &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 3}, 200000);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const expected[] = {"dt is (1, 4, 3) F32, expected (1, 4, 4)", "A_log is (2) F32, expected (4)",
                                           "starts are given"};
    for (int wrong = 0; wrong < 3; wrong++) {
        cab_backend *backend;
        cab_graph *g;
        check_ok(cab_backend_open("cpu", &backend));
        check_ok(cab_graph_new(backend, &g));
        const cab_ssd_inputs in = {.x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, 4, 6}),
                                   .B = cab_graph_input(g, "B", CAB_F32, 3, (int64_t[]){1, 4, 8}),
                                   .C = cab_graph_input(g, "C", CAB_F32, 3, (int64_t[]){1, 4, 8}),
                                   .dt = cab_graph_input(g, "dt", CAB_F32, 3, (int64_t[]){1, 4, wrong == 0 ? 3 : 4}),
                                   .D = cab_graph_input(g, "D", CAB_F32, 1, (int64_t[]){2}),
                                   .A_log = cab_graph_input(g, "A_log", CAB_F32, 1, (int64_t[]){wrong == 1 ? 2 : 4}),
                                   .starts =
                                       wrong == 2 ? cab_graph_input(g, "starts", CAB_I32, 2, (int64_t[]){1, 4}) : NULL};
        assert_null(cab_ssd_both(g, &in, 2, 2));
        assert_int_not_equal(cab_graph_plan(g, NULL), CAB_OK);
        if (strstr(cab_error_text(), expected[wrong]) == NULL)
            fail_msg("\"%s\" does not tell of \"%s\"", cab_error_text(), expected[wrong]);
        cab_graph_free(g);
        cab_backend_close(backend);
    }
}

/* Both forms for tensor cores and the one for any size; tiles padded in every direction; one chunk, and several. */
static void test_gpu(void **state)
{
    (void)state;
    const shape shapes[] = {{1, 130, 3, 3, 64, 64, true, true, false}, {1, 197, 4, 2, 64, 128, true, true, false},
                            {2, 50, 2, 1, 64, 128, true, true, false}, {1, 129, 2, 2, 40, 128, true, false, false},
                            {2, 70, 2, 1, 24, 56, false, true, false}, {1, 100, 4, 2, 24, 99, true, true, false},
                            {1, 70, 2, 1, 96, 136, true, true, false}, {2, 70, 2, 1, 24, 56, true, true, true},
                            {1, 130, 2, 2, 64, 64, true, true, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const check_case c = make_case("ssd both tiles", &shapes[i]);
        gpu_compare(&c, 1e-4, 1.5e-2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_small), cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_threads), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
