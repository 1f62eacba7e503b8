/* test_scan.c - the selective scan in both directions against the recurrence itself in fp64, forward and backward. */
#include "ops/check.h"
#include "ops/gpu.h"

typedef struct shape {
    int64_t B, L, E, N;
    bool reverse, gated, biased, tied;
} shape;

enum { U, DT, A_LOG, BM, CM, SKIP, Z, BIAS, INPUTS, SECOND = INPUTS };

static cab_scan_inputs inputs_of(const shape *s, cab_tensor *const *in)
{
    return (cab_scan_inputs){.u = in[U],
                             .dt = in[DT],
                             .A_log = in[A_LOG],
                             .B = in[BM],
                             .C = in[CM],
                             .D = in[SKIP],
                             .z = s->gated ? in[Z] : NULL,
                             .dt_bias = s->biased ? in[s->gated ? BIAS : Z] : NULL};
}

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    const cab_scan_inputs inputs = inputs_of(s, in);
    out[0] = cab_scan(g, &inputs, s->reverse);
}

/* Both directions with all inputs; the second's stand behind the first's, which has z. */
static void record_both(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    (void)argument;
    cab_scan_inputs of[2];
    for (int d = 0; d < 2; d++) {
        cab_tensor *const *own = in + (d ? SECOND : 0);
        of[d] = (cab_scan_inputs){.u = own[U],
                                  .dt = own[DT],
                                  .A_log = own[A_LOG],
                                  .B = own[BM],
                                  .C = own[CM],
                                  .D = own[SKIP],
                                  .z = in[Z],
                                  .dt_bias = d ? own[Z] : own[BIAS]};
    }
    out[0] = cab_scan_both(g, &of[0], &of[1]);
}

/* -A of a state, or of all of a channel's. */
static double rate(const shape *s, double *const *in, int64_t e, int64_t n)
{
    return exp(s->tied ? check_mean(in[A_LOG] + e * s->N, s->N) : in[A_LOG][e * s->N + n]);
}

static double softplus(double x)
{
    return x > 30 ? x : log1p(exp(x));
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* One channel of one sequence; h: (L + 1, N), rows in the scan's order. */
static void channel_forward(const shape *s, double *const *in, int64_t b, int64_t e, double *h, double *y)
{
    const double *bias = s->biased ? in[s->gated ? BIAS : Z] : NULL;
    memset(h, 0, (size_t)s->N * sizeof *h);
    for (int64_t t = 0; t < s->L; t++) {
        const int64_t row = b * s->L + (s->reverse ? s->L - 1 - t : t), i = row * s->E + e;
        const double delta = softplus(in[DT][i] + (bias ? bias[e] : 0)), u = in[U][i];
        double sum = in[SKIP][e] * u;
        for (int64_t n = 0; n < s->N; n++) {
            const double a = exp(-delta * rate(s, in, e, n));
            h[(t + 1) * s->N + n] = a * h[t * s->N + n] + delta * u * in[BM][row * s->N + n];
            sum += h[(t + 1) * s->N + n] * in[CM][row * s->N + n];
        }
        y[i] = s->gated ? sum * silu(in[Z][i]) : sum;
    }
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    double *h = check_doubles((s->L + 1) * s->N);
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t e = 0; e < s->E; e++)
            channel_forward(s, in, b, e, h, out[0]);
    free(h);
}

static void reference_both(const check_case *c, double *const *in, double **out)
{
    shape s = *(const shape *)c->argument;
    const int64_t n = s.B * s.L * s.E;
    double *h = check_doubles((s.L + 1) * s.N), *y = check_doubles(n), *second[INPUTS];
    for (int i = 0; i < Z; i++)
        second[i] = in[SECOND + i];
    second[Z] = in[Z];
    second[BIAS] = in[SECOND + Z];
    for (int64_t b = 0; b < s.B; b++)
        for (int64_t e = 0; e < s.E; e++) {
            s.reverse = false;
            channel_forward(&s, in, b, e, h, out[0]);
            s.reverse = true;
            channel_forward(&s, second, b, e, h, y);
        }
    for (int64_t i = 0; i < n; i++)
        out[0][i] = (out[0][i] + y[i]) / 2;
    free(h);
    free(y);
}

static check_case make_case(const char *name, const shape *s)
{
    check_case c = {.name = name,
                    .n_in = 6,
                    .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->E}, 0, 0},
                           {CHECK_ACTIVATION, 3, {s->B, s->L, s->E}, -3, 2},
                           {s->tied ? CHECK_TIED : CHECK_PARAMETER, 2, {s->E, s->N}, -2, 2},
                           {CHECK_ACTIVATION, 3, {s->B, s->L, s->N}, 0, 0},
                           {CHECK_ACTIVATION, 3, {s->B, s->L, s->N}, 0, 0},
                           {CHECK_PARAMETER, 1, {s->E}, 0, 0}},
                    .n_out = 1,
                    .n_seeded = 1,
                    .record = record,
                    .reference = reference,
                    .argument = s};
    if (s->gated)
        c.in[c.n_in++] = (check_input){CHECK_ACTIVATION, 3, {s->B, s->L, s->E}, -2, 2};
    if (s->biased)
        c.in[c.n_in++] = (check_input){CHECK_PARAMETER, 1, {s->E}, 0, 0};
    return c;
}

/* Of a gated, biased shape. */
static check_case make_both(const char *name, const shape *s)
{
    check_case c = make_case(name, s);
    for (int i = 0; i < Z; i++)
        c.in[SECOND + i] = c.in[i];
    c.in[SECOND + Z] = c.in[BIAS];
    c.n_in = SECOND + Z + 1;
    c.record = record_both;
    c.reference = reference_both;
    return c;
}

static void test_both(void **state)
{
    (void)state;
    const shape shapes[] = {{1, 1, 1, 1, false, true, true, false},
                            {2, 5, 3, 2, false, true, true, false},
                            {2, 18, 8, 4, false, true, true, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = make_both("scan both ways", &shapes[i]);
        check_run(&c);
    }
}

/* Finite differences of the naive recurrence, small sizes. */
static void test_small(void **state)
{
    (void)state;
    const shape shapes[] = {{1, 1, 1, 1, false, true, true, false},    {2, 3, 5, 2, false, true, true, false},
                            {2, 3, 5, 2, true, true, true, false},     {1, 6, 3, 3, true, false, true, false},
                            {1, 5, 2, 17, false, false, false, false}, {3, 4, 17, 2, true, true, false, false},
                            {2, 4, 3, 3, true, true, true, true},      {1, 18, 8, 4, false, true, true, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = make_case("scan", &shapes[i]);
        check_run(&c);
    }
}

/* Gradients of <seed, y> of one channel by the recurrence run backwards. */
static void channel_backward(const shape *s, double *const *in, double **gradient, const double *seed, int64_t b,
                             int64_t e)
{
    double *h = check_doubles((s->L + 1) * s->N), *dh = check_doubles(s->N), *y = check_doubles(s->B * s->L * s->E);
    const int bias = s->gated ? BIAS : Z;
    channel_forward(s, in, b, e, h, y);
    for (int64_t t = s->L - 1; t >= 0; t--) {
        const int64_t row = b * s->L + (s->reverse ? s->L - 1 - t : t), i = row * s->E + e;
        const double dt = in[DT][i] + (s->biased ? in[bias][e] : 0), delta = softplus(dt), u = in[U][i];
        double p = seed[i], ddelta = 0, plain = in[SKIP][e] * u;
        if (s->gated) {
            const double z = in[Z][i], sigmoid = 1 / (1 + exp(-z));
            for (int64_t n = 0; n < s->N; n++)
                plain += h[(t + 1) * s->N + n] * in[CM][row * s->N + n];
            gradient[Z][i] += p * plain * (sigmoid + z * sigmoid * (1 - sigmoid));
            p *= silu(z);
        }
        gradient[U][i] += p * in[SKIP][e];
        gradient[SKIP][e] += p * u;
        for (int64_t n = 0; n < s->N; n++) {
            const double A = -rate(s, in, e, n), a = exp(delta * A);
            dh[n] += p * in[CM][row * s->N + n];
            gradient[CM][row * s->N + n] += p * h[(t + 1) * s->N + n];
            gradient[BM][row * s->N + n] += dh[n] * delta * u;
            gradient[U][i] += dh[n] * delta * in[BM][row * s->N + n];
            ddelta += dh[n] * (u * in[BM][row * s->N + n] + h[t * s->N + n] * a * A);
            for (int64_t j = s->tied ? 0 : n; j <= (s->tied ? s->N - 1 : n); j++)
                gradient[A_LOG][e * s->N + j] += dh[n] * h[t * s->N + n] * a * delta * A / (double)(s->tied ? s->N : 1);
            dh[n] *= a;
        }
        gradient[DT][i] += ddelta / (1 + exp(-dt));
        if (s->biased)
            gradient[bias][e] += ddelta / (1 + exp(-dt));
    }
    free(h);
    free(dh);
    free(y);
}

static void run_large(const shape *s, const char *isa, cab_dtype dtype, int threads)
{
    check_case c = make_case("scan chunks", s);
    check_reference r = {0};
    for (int i = 0; i < c.n_in; i++) {
        const check_input *in = &c.in[i];
        const int64_t n = check_count(in->n_dim, in->shape);
        const bool unit = in->low == 0 && in->high == 0;
        r.in[i] = check_draw(c.name, i, n, unit ? -1 : in->low, unit ? 1 : in->high, false);
        r.gradient[i] = check_doubles(n);
    }
    r.out_count[0] = s->B * s->L * s->E;
    r.out[0] = check_doubles(r.out_count[0]);
    r.seed[0] = check_draw(c.name, 100, r.out_count[0], -1, 1, false);
    reference(&c, r.in, r.out);
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t e = 0; e < s->E; e++)
            channel_backward(s, r.in, r.gradient, r.seed[0], b, e);
    check_variant v = {.dtype = dtype, .isa = isa, .view = true, .twice = true, .threads = threads};
    check_one(&c, &v, &r);
    check_release(&r);
}

/* Several chunks of tokens and groups of channels, none of them whole; with the gradients of the naive recurrence. */
static void test_chunks(void **state)
{
    (void)state;
    const shape shapes[] = {{2, 16, 64, 16, false, true, true, false},
                            {1, 33, 65, 16, true, true, true, false},
                            {2, 70, 130, 5, true, false, true, false},
                            {1, 47, 20, 64, false, true, false, false},
                            {2, 40, 24, 16, true, true, true, true}};
    const char *const isas[] = {"v1", "v3", "v4"};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (!check_have(isas[i])) {
            print_message("not run at %s, which this processor lacks\n", isas[i]);
            continue;
        }
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++)
            for (int low = 0; low < 2; low++)
                run_large(&shapes[j], isas[i], low ? CAB_BF16 : CAB_F32, low ? 0 : 3);
    }
}

/* Decays that underflow, and the near-identity start, where the state is a plain sum. */
static void test_extreme_decay(void **state)
{
    (void)state;
    const shape s = {1, 50, 7, 16, false, true, true, false};
    for (int strong = 0; strong < 2; strong++) {
        check_case c = make_case("scan decay", &s);
        c.in[A_LOG].low = strong ? 5 : -20;
        c.in[A_LOG].high = strong ? 8 : -19;
        check_reference r = {0};
        for (int i = 0; i < c.n_in; i++) {
            const check_input *in = &c.in[i];
            const bool unit = in->low == 0 && in->high == 0;
            r.in[i] = check_draw(c.name, i, check_count(in->n_dim, in->shape), unit ? -1 : in->low, unit ? 1 : in->high,
                                 false);
        }
        r.out_count[0] = s.B * s.L * s.E;
        r.out[0] = check_doubles(r.out_count[0]);
        reference(&c, r.in, r.out);
        c.n_seeded = 0;
        check_variant v = {.dtype = CAB_F32, .isa = "v1"};
        check_one(&c, &v, &r);
        check_release(&r);
    }
}

/* An emulated GPU of 6 multiprocessors is full with fewer sequences. */
static shape fewer(shape s)
{
    if (check_slow() && s.B > 60)
        s.B = (s.B + 7) / 8;
    return s;
}

/* On a GPU: every number of lanes, many and few sequences, odd widths, more states than one walk holds. Many sequences
 * make a thread per channel. */
static void test_gpu(void **state)
{
    (void)state;
    const shape shapes[] = {{2, 197, 384, 16, false, true, true, false},  {90, 21, 384, 16, true, true, true, false},
                            {1, 33, 131, 8, true, true, true, false},     {2, 50, 200, 32, false, false, true, false},
                            {1, 64, 66, 13, true, true, false, false},    {1, 40, 72, 64, true, true, true, false},
                            {1, 19, 35, 100, false, true, true, false},   {2, 9, 10, 256, true, false, false, false},
                            {140, 18, 131, 13, false, true, true, false}, {270, 9, 40, 16, true, false, false, false},
                            {264, 1, 5, 1, false, true, false, false},    {300, 16, 128, 8, true, true, true, false}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape s = fewer(shapes[i]);
        check_case c = make_case("scan on the GPU", &s);
        gpu_compare(&c, 1e-4, 1.5e-2);
    }
    const shape both[] = {{70, 18, 256, 16, false, true, true, false},
                          {70, 9, 250, 7, false, true, true, false},
                          {3, 40, 100, 16, false, true, true, false},
                          {2, 19, 35, 9, false, true, true, false},
                          {1, 20, 24, 100, false, true, true, false}};
    for (size_t i = 0; i < sizeof both / sizeof *both; i++) {
        const shape s = fewer(both[i]);
        check_case c = make_both("scan both ways on the GPU", &s);
        gpu_compare(&c, 1e-4, 1.5e-2);
    }
}

/* One decay per channel, on a GPU's tensor cores: chunks of tokens and blocks of channels that are not whole, few states, no gate or bias, the
 * near-identity start, decays of nearly everything, and sizes that are left to the other kernels. check_slow(): fewer tokens and blocks, fp32,
 * whose kernels are the other ones, once, and as few sequences as make an emulated GPU of 6 multiprocessors take one direction after the other. */
static void test_gpu_tied(void **state)
{
    (void)state;
    const bool slow = check_slow();
    const shape shapes[] = {{slow ? 1 : 2, slow ? 50 : 197, slow ? 136 : 384, 16, false, true, true, true},
                            {3, 21, 136, 16, true, true, true, true},
                            {1, 16, 128, 8, true, true, true, true},
                            {2, 50, 200, 12, false, true, true, true},
                            {1, 20, 16, 16, false, false, true, true},
                            {1, 33, 72, 16, true, true, false, true},
                            {2, 1, 8, 4, false, true, true, true},
                            {1, 19, 35, 16, false, true, true, true},
                            {2, 20, 16, 32, true, true, true, true}};
    const double ranges[][2] = {{-2, 2}, {-20, -20}, {1, 1}, {3, 5}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t j = 0; j < (i == 0 ? sizeof ranges / sizeof *ranges : 1); j++) {
            check_case c = make_case("tied scan on the GPU", &shapes[i]);
            c.in[A_LOG].low = ranges[j][0];
            c.in[A_LOG].high = ranges[j][1];
            c.bf16_only = slow && i + j > 0;
            gpu_compare(&c, 1e-4, 1.5e-2);
        }
    /* The last: so many that a block takes one direction after the other. */
    const shape both[] = {{3, 40, 144, 16, false, true, true, true},
                          {2, 18, 128, 4, false, true, true, true},
                          {slow ? 50 : 1060, 2, 8, 4, false, true, true, true}};
    for (size_t i = 0; i < sizeof both / sizeof *both; i++) {
        check_case c = make_both("tied scan both ways on the GPU", &both[i]);
        c.bf16_only = slow && i > 0;
        gpu_compare(&c, 1e-4, 1.5e-2);
    }
}

/* dt as a product, of x (B, L, rank) in its place and W, the last input, in both directions. */
typedef struct product {
    shape s; /* gated and biased */
    int64_t rank;
    bool both;
} product;

static void record_product(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const product *p = argument;
    cab_tensor *own[CHECK_MAX_IN], *w = in[p->both ? SECOND + BIAS : INPUTS];
    memcpy(own, in, sizeof own);
    for (int i = DT; i < (p->both ? 2 * INPUTS : INPUTS); i += SECOND)
        own[i] = cab_linear(g, in[i], w, NULL, CAB_OUT_IN);
    (p->both ? record_both : record)(g, own, out, argument);
}

/* What a scan on a GPU computes itself: ranks of one tile and two; of none are the last two. check_slow() as above. */
static void test_gpu_tied_product(void **state)
{
    (void)state;
    const int64_t many = check_slow() ? 50 : 1060;
    const product products[] = {
        {{2, 37, 136, 16, false, true, true, true}, 12, false}, {{1, 33, 72, 16, true, true, true, true}, 24, false},
        {{2, 40, 144, 16, false, true, true, true}, 12, true},  {{many, 2, 8, 4, false, true, true, true}, 4, true},
        {{1, 50, 136, 16, false, true, true, true}, 32, true},  {{2, 20, 24, 16, false, true, true, true}, 13, true},
        {{2, 20, 24, 16, false, true, true, true}, 40, false}};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        const product *p = &products[i];
        check_case c = (p->both ? make_both : make_case)("tied scan of a product", &p->s);
        c.in[DT] = (check_input){CHECK_ACTIVATION, 3, {p->s.B, p->s.L, p->rank}, 0, 0};
        if (p->both)
            c.in[SECOND + DT] = c.in[DT];
        c.in[c.n_in++] = (check_input){CHECK_PARAMETER, 2, {p->s.E, p->rank}, 0, 0};
        c.record = record_product;
        c.argument = p;
        c.bf16_only = check_slow();
        gpu_compare(&c, 1e-4, 1.5e-2);
    }
}

/* Node by node as they are recorded, when dt is in memory after all and states are left before anybody is known to want them. */
static void test_gpu_eager(void **state)
{
    (void)state;
    const shape s = {2, 37, 136, 16, false, true, true, true};
    const product p = {s, 12, true};
    check_case c = make_both("tied scan, eager", &s);
    check_reference r = {0};
    gpu_results planned = {0}, eager = {0};
    if (strcmp(check_device(), "cpu") == 0)
        skip();
    c.in[DT] = c.in[SECOND + DT] = (check_input){CHECK_ACTIVATION, 3, {s.B, s.L, p.rank}, 0, 0};
    c.in[c.n_in++] = (check_input){CHECK_PARAMETER, 2, {s.E, p.rank}, 0, 0};
    c.record = record_product;
    c.argument = &p;
    for (int i = 0; i < c.n_in; i++)
        r.in[i] = check_draw(c.name, i, check_count(c.in[i].n_dim, c.in[i].shape), -1, 1, false);
    check_variant v = {.dtype = CAB_BF16, .isa = ""};
    gpu_run(&c, &v, &r, 1, &planned);
    v.eager = true;
    gpu_run(&c, &v, &r, 1, &eager);
    gpu_against(&c, &v, &eager, &planned, 1e-2);
    gpu_release(&planned);
    gpu_release(&eager);
    check_release(&r);
}

/* Of a product, a layer of 12 inputs, whose result is in no memory unless somebody else reads it, or decays are a state's own. */
static void test_gpu_multiplies_dt(void **state)
{
    (void)state;
    if (strcmp(check_device(), "cpu") == 0)
        skip();
    for (int way = 0; way < 3; way++) {
        const shape s = {1, 20, 64, 16, false, true, true, way != 1};
        const product p = {s, 12, false};
        check_case c = make_case("multiplied", &s);
        check_reference r = {0};
        check_graph k;
        c.in[DT] = (check_input){CHECK_ACTIVATION, 3, {s.B, s.L, p.rank}, 0, 0};
        c.in[c.n_in++] = (check_input){CHECK_PARAMETER, 2, {s.E, p.rank}, 0, 0};
        c.record = record_product;
        c.argument = &p;
        for (int i = 0; i < c.n_in; i++)
            r.in[i] = check_doubles(check_count(c.in[i].n_dim, c.in[i].shape));
        check_open(&c, &(check_variant){.dtype = CAB_BF16, .isa = ""}, r.in, &k);
        cab_tensor *dt = k.out[0][0];
        for (int i = 0; i < cab_graph_nodes(k.graph); i++)
            if (strcmp(cab_graph_node(k.graph, i)->op->name, "linear") == 0)
                dt = cab_graph_node(k.graph, i)->out[0];
        if (way == 2)
            cab_graph_keep(k.graph, dt);
        check_ok(cab_graph_plan(k.graph, NULL));
        check_ok(cab_graph_run(k.graph));
        assert_int_equal(dt->data == NULL, way == 0);
        check_close(&k);
        check_release(&r);
    }
}

/* Feeds token t of every sequence to the step's inputs. */
static void feed(const check_case *c, const shape *s, cab_graph *g, cab_tensor *const *in, double *const *values,
                 int64_t t)
{
    for (int i = 0; i < c->n_in; i++) {
        if (c->in[i].kind != CHECK_ACTIVATION)
            continue;
        const int64_t width = c->in[i].shape[2];
        double *token = check_doubles(s->B * width);
        for (int64_t b = 0; b < s->B; b++)
            memcpy(token + b * width, values[i] + (b * s->L + t) * width, (size_t)width * sizeof *token);
        check_write(g, in[i], token, width, 0);
        free(token);
    }
}

/* The step, token by token, against the formula. */
static void step_through(const shape *s, cab_dtype dtype, const char *isa)
{
    const check_case c = make_case("scan step", s);
    const check_variant v = {.dtype = dtype, .isa = isa};
    double *values[INPUTS], *expected = check_doubles(s->B * s->L * s->E), *stepped = check_doubles(s->B * s->L * s->E);
    for (int i = 0; i < c.n_in; i++)
        values[i] = check_values(&c, i);
    reference(&c, values, &expected);
    check_graph whole; /* has the parameters */
    check_open(&c, &v, values, &whole);
    cab_graph *g;
    check_ok(cab_graph_new(whole.backend, &g));
    cab_tensor *in[INPUTS];
    memcpy(in, whole.in, sizeof in);
    for (int i = 0; i < c.n_in; i++)
        if (c.in[i].kind == CHECK_ACTIVATION)
            in[i] = cab_graph_input(g, "in", dtype, 3, (int64_t[]){s->B, 1, c.in[i].shape[2]});
    cab_tensor *memory = cab_graph_state(g, "memory", CAB_F32, 3, (int64_t[]){s->B, s->E, s->N});
    const cab_scan_inputs inputs = inputs_of(s, in);
    cab_tensor *y = cab_scan_step(g, &inputs, memory);
    cab_graph_keep(g, y);
    check_ok(cab_graph_plan(g, NULL));
    for (int64_t t = 0; t < s->L; t++) {
        feed(&c, s, g, in, values, t);
        check_ok(cab_graph_run(g));
        double *got = check_read(g, y, s->E, 0);
        for (int64_t b = 0; b < s->B; b++)
            memcpy(stepped + (b * s->L + t) * s->E, got + b * s->E, (size_t)s->E * sizeof *got);
        free(got);
    }
    check_compare(&c, &v, "output", 0, stepped, expected, s->B * s->L * s->E, dtype == CAB_F32 ? 1e-5 : 1e-2);
    free(stepped);
    free(expected);
    cab_graph_free(g);
    check_close(&whole);
    for (int i = 0; i < c.n_in; i++)
        free(values[i]);
}

static void test_step(void **state)
{
    (void)state;
    const shape shapes[] = {{1, 3, 1, 1, false, false, false, false},
                            {2, 7, 70, 16, false, true, true, false},
                            {3, 4, 129, 5, false, true, false, false},
                            {1, 5, 33, 256, false, false, true, false}};
    const char *const isas[] = {"v1", "v3", "v4"};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes && check_have(isas[i]); j++)
            for (int low = 0; low < 2; low++)
                step_through(&shapes[j], low ? CAB_BF16 : CAB_F32, isas[i]);
}

static void test_shape_errors(void **state)
{
    (void)state;
    cab_backend *backend;
    check_ok(cab_backend_open("cpu", &backend));
    cab_graph *g;
    check_ok(cab_graph_new(backend, &g));
    cab_scan_inputs in = {.u = cab_graph_input(g, "u", CAB_F32, 3, (int64_t[]){1, 4, 6}),
                          .dt = cab_graph_input(g, "dt", CAB_F32, 3, (int64_t[]){1, 4, 6}),
                          .A_log = cab_graph_input(g, "A_log", CAB_F32, 2, (int64_t[]){6, 3}),
                          .B = cab_graph_input(g, "B", CAB_F32, 3, (int64_t[]){1, 4, 3}),
                          .C = cab_graph_input(g, "C", CAB_F32, 3, (int64_t[]){1, 5, 3}),
                          .D = cab_graph_input(g, "D", CAB_F32, 1, (int64_t[]){6})};
    assert_null(cab_scan(g, &in, false));
    assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "C is (1, 5, 3) F32"));
    cab_graph_free(g);
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_small),
                                       cmocka_unit_test(test_both),
                                       cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_extreme_decay),
                                       cmocka_unit_test(test_step),
                                       cmocka_unit_test(test_gpu),
                                       cmocka_unit_test(test_gpu_tied),
                                       cmocka_unit_test(test_gpu_tied_product),
                                       cmocka_unit_test(test_gpu_multiplies_dt),
                                       cmocka_unit_test(test_gpu_eager),
                                       cmocka_unit_test(test_shape_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
