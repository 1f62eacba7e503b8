/* test_ssd.c - the recurrence in chunks against the recurrence itself in fp64, forward and backward: the discrete one, the
 * one with a step size, and documents. */
#include "ops/gpu.h"
#include "ops/repeat.h"

typedef struct shape {
    int64_t B, L, H, G, P, N;
    bool delta, bias; /* A_log, dt_bias */
    int documents;    /* tokens of the longest; 0: no starts */
} shape;

enum { X, BM, CM, DT, D, DT_BIAS, A_LOG, STARTS, INPUTS };

static cab_ssd_inputs inputs_of(const shape *s, cab_tensor *const *in)
{
    return (cab_ssd_inputs){.x = in[X],
                            .B = in[BM],
                            .C = in[CM],
                            .dt = in[DT],
                            .D = in[D],
                            .dt_bias = s->bias ? in[DT_BIAS] : NULL,
                            .A_log = s->delta ? in[A_LOG] : NULL,
                            .starts = s->documents ? in[STARTS] : NULL};
}

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    const cab_ssd_inputs inputs = inputs_of(s, in);
    out[0] = cab_ssd(g, &inputs, (int)s->H, (int)s->G);
}

/* A head of a sequence: where its first elements lie in x, B and C, dt, and starts. */
typedef struct head_at {
    int64_t head, x, m, dt, starts;
} head_at;

static head_at find_head(const shape *s, int64_t b, int64_t head)
{
    const int64_t group = head / (s->H / s->G);
    return (head_at){.head = head,
                     .x = b * s->L * s->H * s->P + head * s->P,
                     .m = b * s->L * s->G * s->N + group * s->N,
                     .dt = b * s->L * s->H + head,
                     .starts = b * s->L};
}

/* Token t of a head: a, what x is multiplied with, and what delta is the softplus of. */
typedef struct token_step {
    double a, scale, raw, rate, delta;
    bool first; /* of a document */
} token_step;

static token_step step_of(const shape *s, double *const *in, const head_at *at, int64_t t)
{
    token_step k = {.raw = in[DT][at->dt + t * s->H] + (s->bias ? in[DT_BIAS][at->head] : 0)};
    k.delta = k.raw > 30 ? k.raw : log1p(exp(k.raw));
    k.rate = s->delta ? exp(in[A_LOG][at->head]) : 1;
    k.a = exp(-k.delta * k.rate);
    k.scale = s->delta ? k.delta : 1;
    k.first = s->documents ? in[STARTS][at->starts + t] == (double)t : t == 0;
    return k;
}

/* h: (L + 1, P, N), the states before and after every token. y: all heads' */
static void head_forward(const shape *s, double *const *in, const head_at *at, double *h, double *y)
{
    const int64_t P = s->P, N = s->N;
    memset(h, 0, (size_t)(P * N) * sizeof *h);
    for (int64_t t = 0; t < s->L; t++) {
        const token_step k = step_of(s, in, at, t);
        const double *B = in[BM] + at->m + t * s->G * N, *C = in[CM] + at->m + t * s->G * N;
        double *before = h + t * P * N, *after = h + (t + 1) * P * N;
        for (int64_t p = 0; p < P; p++) {
            const double x = in[X][at->x + t * s->H * P + p];
            double sum = in[D][at->head] * x;
            for (int64_t n = 0; n < N; n++) {
                after[p * N + n] = (k.first ? 0 : k.a * before[p * N + n]) + k.scale * x * B[n];
                sum += after[p * N + n] * C[n];
            }
            y[at->x + t * s->H * P + p] = sum;
        }
    }
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    double *h = check_doubles((s->L + 1) * s->P * s->N);
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t head = 0; head < s->H; head++) {
            const head_at at = find_head(s, b, head);
            head_forward(s, in, &at, h, out[0]);
        }
    free(h);
}

/* Token t backwards. dh: of the state after it, becomes that of the state before. h: the state before, then after. */
static void token_backward(const shape *s, double *const *in, double **gradient, const double *seed, const head_at *at,
                           int64_t t, const double *h, double *dh)
{
    const int64_t P = s->P, N = s->N;
    const token_step k = step_of(s, in, at, t);
    double da = 0, dscale = 0;
    for (int64_t p = 0; p < P; p++) {
        const int64_t xi = at->x + t * s->H * P + p;
        const double dy = seed[xi], x = in[X][xi];
        gradient[D][at->head] += dy * x;
        gradient[X][xi] += dy * in[D][at->head];
        for (int64_t n = 0; n < N; n++) {
            const int64_t mi = at->m + t * s->G * N + n, i = p * N + n;
            dh[i] += dy * in[CM][mi];
            gradient[CM][mi] += dy * h[P * N + i];
            gradient[BM][mi] += dh[i] * k.scale * x;
            gradient[X][xi] += dh[i] * k.scale * in[BM][mi];
            dscale += dh[i] * x * in[BM][mi];
            da += k.first ? 0 : dh[i] * h[i];
            dh[i] *= k.first ? 0 : k.a;
        }
    }
    const double dloga = da * k.a, ddelta = (s->delta ? dscale : 0) - k.rate * dloga;
    const double ddt = ddelta / (1 + exp(-k.raw));
    gradient[DT][at->dt + t * s->H] += ddt;
    gradient[DT_BIAS][at->head] += ddt;
    gradient[A_LOG][at->head] -= k.rate * k.delta * dloga;
}

/* Gradients of <seed, y> of one head by the recurrence run backwards. */
static void head_backward(const shape *s, double *const *in, double **gradient, const double *seed, int64_t b,
                          int64_t head)
{
    const int64_t state = s->P * s->N;
    const head_at at = find_head(s, b, head);
    double *h = check_doubles((s->L + 1) * state), *dh = check_doubles(state),
           *y = check_doubles(s->B * s->L * s->H * s->P);
    head_forward(s, in, &at, h, y);
    for (int64_t t = s->L - 1; t >= 0; t--)
        token_backward(s, in, gradient, seed, &at, t, h + t * state, dh);
    free(h);
    free(dh);
    free(y);
}

static check_case make_case(const char *name, const shape *s)
{
    return (check_case){.name = name,
                        .n_in = INPUTS,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->H * s->P}, 0, 0},
                               {CHECK_ACTIVATION, 3, {s->B, s->L, s->G * s->N}, 0, 0},
                               {CHECK_ACTIVATION, 3, {s->B, s->L, s->G * s->N}, 0, 0},
                               {CHECK_ACTIVATION, 3, {s->B, s->L, s->H}, -5, 2},
                               {CHECK_PARAMETER, 1, {s->H}, 0, 0},
                               {s->bias ? CHECK_PARAMETER : CHECK_FROZEN, 1, {s->H}, -2, 1},
                               {s->delta ? CHECK_PARAMETER : CHECK_FROZEN, 1, {s->H}, -3, 1},
                               {CHECK_STARTS, 2, {s->B, s->L}, 1, s->documents ? s->documents : 1}},
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
    const shape shapes[] = {
        {1, 1, 1, 1, 1, 1, false, false, 0},  {2, 3, 2, 2, 3, 2, false, false, 0}, {1, 5, 4, 2, 2, 3, false, false, 0},
        {1, 4, 3, 1, 1, 17, false, false, 0}, {1, 1, 2, 1, 2, 3, true, true, 0},   {2, 3, 2, 2, 3, 2, true, false, 0},
        {1, 5, 4, 2, 2, 3, false, true, 0},   {2, 9, 2, 1, 2, 3, true, true, 4},   {1, 7, 1, 1, 3, 2, false, false, 3}};
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
    const int64_t count = check_count(3, c.in[X].shape);
    for (int i = 0; i < INPUTS; i++) {
        r.in[i] = check_values(&c, i);
        r.gradient[i] = check_doubles(check_count(c.in[i].n_dim, c.in[i].shape));
    }
    r.out_count[0] = count;
    r.out[0] = check_doubles(count);
    r.seed[0] = check_draw(c.name, 100, count, -1, 1, false);
    reference(&c, r.in, r.out);
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t h = 0; h < s->H; h++)
            head_backward(s, r.in, r.gradient, r.seed[0], b, h);
    check_variant v = {.dtype = dtype, .isa = isa, .view = true, .twice = true, .threads = threads};
    check_one(&c, &v, &r);
    check_release(&r);
}

/* Sizes that fill no chunk, tile or vector; documents that begin and end in chunks and at their borders, of one token, and
 * longer than a chunk. */
static void test_chunks(void **state)
{
    (void)state;
    const shape shapes[] = {{1, 65, 1, 1, 16, 16, false, false, 0},   {2, 64, 2, 2, 5, 7, false, false, 0},
                            {1, 200, 4, 2, 33, 19, false, false, 0},  {1, 130, 2, 1, 64, 64, false, false, 0},
                            {1, 129, 1, 1, 20, 128, false, false, 0}, {3, 63, 3, 3, 8, 40, false, false, 0},
                            {1, 77, 6, 1, 4, 4, false, false, 0},     {1, 200, 4, 2, 33, 19, true, true, 0},
                            {2, 65, 2, 1, 16, 16, true, false, 0},    {1, 129, 2, 1, 20, 128, true, true, 0},
                            {2, 300, 4, 2, 9, 16, true, true, 150},   {2, 131, 2, 2, 16, 8, true, true, 5},
                            {1, 256, 2, 1, 8, 24, false, false, 90},  {1, 64, 2, 1, 8, 24, true, true, 64}};
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

/* y of a case's inputs, on one processor. */
static double *run_forward(const check_case *c, double *const *in)
{
    check_graph k;
    const check_variant v = {.dtype = CAB_F32, .isa = "v1"};
    check_open(c, &v, in, &k);
    check_ok(cab_graph_plan(k.graph, NULL));
    check_ok(cab_graph_run(k.graph));
    double *y = check_read(k.graph, k.out[0][0], cab_columns(k.out[0][0]), 0);
    check_close(&k);
    return y;
}

/* A document in a sequence of several gives what it gives alone. */
static void test_documents(void **state)
{
    (void)state;
    const shape all = {1, 331, 4, 2, 7, 12, true, true, 140};
    const check_case c = make_case("ssd documents", &all);
    double *in[INPUTS], *part[INPUTS];
    for (int i = 0; i < INPUTS; i++)
        in[i] = check_values(&c, i);
    double *y = run_forward(&c, in);
    int documents = 0;
    for (int64_t first = 0, end; first < all.L; first = end, documents++) {
        for (end = first + 1; end < all.L && in[STARTS][end] == (double)first;)
            end++;
        shape one = all;
        one.L = end - first;
        one.documents = 0;
        const check_case alone = make_case("ssd document", &one);
        for (int i = 0; i < INPUTS; i++)
            part[i] = in[i] + (c.in[i].kind == CHECK_ACTIVATION ? first * c.in[i].shape[2] : 0);
        double *expected = run_forward(&alone, part);
        const int64_t width = all.H * all.P;
        const double distance = check_distance(y + first * width, expected, one.L * width);
        if (!(distance < 1e-5))
            fail_msg("tokens %d to %d differ from the document alone by %g", (int)first, (int)end, distance);
        free(expected);
    }
    assert_true(documents > 4);
    free(y);
    for (int i = 0; i < INPUTS; i++)
        free(in[i]);
}

/* Decays of e^-40 a token, where anything but exp(S[i] - S[j]) of non-positive differences would overflow, and of 1. */
static void test_extreme_decay(void **state)
{
    (void)state;
    const shape s = {1, 150, 2, 1, 8, 8, false, false, 0};
    for (int strong = 0; strong < 2; strong++) {
        check_case c = make_case("ssd decay", &s);
        check_reference r = {0};
        c.in[DT].low = strong ? 39 : -90;
        c.in[DT].high = strong ? 40 : -89;
        for (int i = 0; i < INPUTS; i++)
            r.in[i] = check_values(&c, i);
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
static void step_through(bool delta, cab_dtype dtype, double tolerance)
{
    enum { B = 2, L = 70, H = 4, G = 2, P = 9, N = 21 };
    const shape s = {B, L, H, G, P, N, delta, delta, 0};
    const int64_t widths[4] = {H * P, G * N, G * N, H};
    check_case c = make_case("ssd step", &s);
    check_variant v = {.dtype = dtype, .isa = "v1"};
    double *values[INPUTS];
    for (int i = 0; i < INPUTS; i++)
        values[i] = check_values(&c, i);
    check_graph whole;
    check_open(&c, &v, values, &whole);
    check_ok(cab_graph_plan(whole.graph, NULL));
    check_ok(cab_graph_run(whole.graph));
    double *expected = check_read(whole.graph, whole.out[0][0], H * P, 0);
    cab_graph *g;
    check_ok(cab_graph_new(whole.backend, &g));
    cab_tensor *in[INPUTS];
    memcpy(in, whole.in, sizeof in);
    for (int i = 0; i < 4; i++)
        in[i] = cab_graph_input(g, "in", dtype, 3, (int64_t[]){B, 1, widths[i]});
    cab_tensor *memory = cab_graph_state(g, "memory", CAB_F32, 3, (int64_t[]){B, H, P * N});
    const cab_ssd_inputs inputs = inputs_of(&s, in);
    cab_tensor *y = cab_ssd_step(g, &inputs, memory, H, G);
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
    for (int i = 0; i < INPUTS; i++)
        free(values[i]);
}

static void test_step(void **state)
{
    (void)state;
    for (int delta = 0; delta < 2; delta++) {
        step_through(delta, CAB_F32, 1e-4);
        step_through(delta, CAB_BF16, 5e-3);
    }
}

static void expect_refused(cab_graph *g, const cab_tensor *made, const char *text)
{
    assert_null(made);
    assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
    if (strstr(cab_error_text(), text) == NULL)
        fail_msg("\"%s\" does not tell of \"%s\"", cab_error_text(), text);
    cab_graph_free(g);
}

static void test_shape_errors(void **state)
{
    (void)state;
    static const char *const expected[] = {"C (1, 5, 8)",
                                           "dt is (1, 4, 3)",
                                           "D is (3)",
                                           "A_log is (3)",
                                           "dt_bias is (3)",
                                           "starts is (1, 5) I32",
                                           "with starts, expected one token and no starts"};
    for (int wrong = 0; wrong < 7; wrong++) {
        cab_backend *backend;
        cab_graph *g;
        check_ok(cab_backend_open("cpu", &backend));
        check_ok(cab_graph_new(backend, &g));
        const int64_t L = wrong == 6 ? 1 : 4,
                      heads[5] = {2, 2, wrong == 2 ? 3 : 2, wrong == 3 ? 3 : 2, wrong == 4 ? 3 : 2};
        const cab_ssd_inputs in = {.x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, L, 6}),
                                   .B = cab_graph_input(g, "B", CAB_F32, 3, (int64_t[]){1, L, 8}),
                                   .C = cab_graph_input(g, "C", CAB_F32, 3, (int64_t[]){1, wrong == 0 ? 5 : L, 8}),
                                   .dt = cab_graph_input(g, "dt", CAB_F32, 3, (int64_t[]){1, L, wrong == 1 ? 3 : 2}),
                                   .D = cab_graph_input(g, "D", CAB_F32, 1, heads + 2),
                                   .A_log = cab_graph_input(g, "A_log", CAB_F32, 1, heads + 3),
                                   .dt_bias = cab_graph_input(g, "dt_bias", CAB_F32, 1, heads + 4),
                                   .starts =
                                       cab_graph_input(g, "starts", CAB_I32, 2, (int64_t[]){1, wrong == 5 ? 5 : L})};
        cab_tensor *memory = cab_graph_state(g, "memory", CAB_F32, 3, (int64_t[]){1, 2, 12});
        expect_refused(g, wrong == 6 ? cab_ssd_step(g, &in, memory, 2, 2) : cab_ssd(g, &in, 2, 2), expected[wrong]);
        cab_backend_close(backend);
    }
}

/* The same bits whatever the number of threads. */
static void test_threads(void **state)
{
    (void)state;
    for (int delta = 0; delta < 2; delta++) {
        const shape s = {2, 130, 4, 2, 16, 12, delta, delta, delta ? 70 : 0};
        const check_case c = make_case("ssd threads", &s);
        repeat_compare(&c, &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 1},
                       &(check_variant){.dtype = CAB_BF16, .isa = "v1", .threads = 3}, 200000);
    }
}

/* Whole tiles, tiles padded in every direction, states of two tiles and larger ones, heads that share groups; with step
 * sizes, and documents that begin anywhere. */
static void test_gpu(void **state)
{
    (void)state;
    const shape shapes[] = {{2, 512, 4, 4, 64, 64, false, false, 0},  {3, 197, 6, 2, 64, 64, false, false, 0},
                            {1, 333, 3, 3, 48, 16, false, false, 0},  {2, 129, 2, 1, 40, 56, false, false, 0},
                            {1, 300, 2, 2, 64, 128, false, false, 0}, {1, 140, 2, 1, 96, 72, false, false, 0},
                            {2, 150, 3, 1, 64, 72, false, false, 0},  {1, 200, 4, 2, 24, 99, false, false, 0},
                            {2, 197, 4, 1, 64, 128, true, true, 0},   {1, 320, 2, 2, 64, 64, true, true, 0},
                            {1, 330, 4, 1, 64, 128, true, true, 150}, {2, 150, 3, 3, 40, 16, true, true, 90},
                            {1, 140, 2, 1, 128, 256, true, true, 60}, {1, 200, 4, 2, 24, 99, false, true, 70},
                            {1, 50, 6, 1, 64, 128, true, true, 20},   {1, 100, 5, 1, 32, 64, false, false, 0},
                            {2, 100, 2, 2, 96, 128, true, false, 0},  {1, 200, 4, 2, 64, 192, true, true, 90},
                            {1, 70, 2, 2, 160, 40, false, false, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const check_case c = make_case("ssd tiles", &shapes[i]);
        gpu_compare(&c, 1e-4, 1.5e-2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_small),     cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_documents), cmocka_unit_test(test_extreme_decay),
                                       cmocka_unit_test(test_step),      cmocka_unit_test(test_shape_errors),
                                       cmocka_unit_test(test_threads),   cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
