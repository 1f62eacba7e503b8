/* A mixer's matrix against that of attention: the formula in fp64, L x L elements and all, at small odd sizes; at those of several tiles
 * the GPU against the processor, and any number of threads against one. */
#include "ops/gpu.h"

/* In: q k, then C B dt dt_bias A_log D of each direction that has its own. */
typedef struct shape {
    int64_t B, L;
    int H, G, N; /* heads and groups of the mixer */
    int Ht, Gt, P;
    bool both, own, discrete, shared;
    int share, width, of;
    int window;
    float cap, scale;
    int64_t tied;
    const cab_row_map *rows;
    bool documents; /* the last input says where they begin */
} shape;

enum { Q, K, C, B, DT, BIAS, A_LOG, D, OF_DIRECTION = D + 1 - C };

static int inputs_of(const shape *s)
{
    return 2 + OF_DIRECTION * (s->own ? 2 : 1);
}

static cab_mixer_direction direction(cab_graph *g, const shape *s, cab_tensor **in)
{
    return (cab_mixer_direction){
        .C = in[0],
        .B = in[1],
        .decays = cab_mixer_decay(g, in[DT - C], s->discrete ? NULL : in[BIAS - C], s->discrete ? NULL : in[A_LOG - C]),
        .D = in[D - C]};
}

static cab_attention_shape attention_of(const shape *s)
{
    return (cab_attention_shape){.n_head = s->Ht,
                                 .n_kv_head = s->Gt,
                                 .head_dim = s->P,
                                 .scale = 0.7f,
                                 .causal = !s->both,
                                 .window = s->window,
                                 .cap = s->cap};
}

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    cab_mixer_matrix m = {.both = s->both,
                          .n_head = s->H,
                          .n_group = s->G,
                          .share = s->share,
                          .width = s->width,
                          .of = s->of,
                          .scale = s->scale,
                          .q = in[Q],
                          .k = in[K],
                          .starts = s->documents ? in[inputs_of(s)] : NULL,
                          .attention = attention_of(s),
                          .rows = s->rows};
    m.directions[0] = direction(g, s, in + C);
    if (s->own)
        m.directions[1] = direction(g, s, in + C + OF_DIRECTION);
    out[0] = cab_mixer_matrix_loss(g, &m);
}

static check_case make_case(const shape *s)
{
    const int64_t steps = s->both && !s->own && !s->shared ? 2 * s->H : s->H;
    const int64_t Lt = s->L + (s->rows != NULL ? s->rows->skip : 0);
    check_case c = {.name = "mixer_matrix_loss",
                    .n_in = inputs_of(s),
                    .in = {{CHECK_CONSTANT, 3, {s->B, Lt, (int64_t)s->Ht * s->P}, -2, 2},
                           {CHECK_CONSTANT, 3, {s->B, Lt, (int64_t)s->Gt * s->P}, -2, 2}},
                    .n_out = 1,
                    .n_seeded = 1,
                    .record = record,
                    .argument = s};
    for (int d = 0; d < (s->own ? 2 : 1); d++) {
        check_input *in = c.in + C + d * OF_DIRECTION;
        const check_kind given = s->discrete ? CHECK_FROZEN : CHECK_PARAMETER;
        in[0] = in[1] = (check_input){CHECK_ACTIVATION, 3, {s->B, s->L, (int64_t)s->G * s->N}, 0, 0};
        in[DT - C] = (check_input){CHECK_ACTIVATION, 3, {s->B, s->L, steps}, -2, 1};
        in[BIAS - C] = (check_input){given, 1, {steps}, 0, 0};
        in[A_LOG - C] = (check_input){given, 1, {steps}, -2, 0.5};
        if (s->tied > 0)
            in[A_LOG - C] = (check_input){CHECK_TIED, 2, {steps, s->tied}, -2, 0.5};
        in[D - C] = (check_input){CHECK_PARAMETER, 1, {s->H}, 0, 0};
    }
    if (s->documents)
        c.in[c.n_in++] = (check_input){CHECK_STARTS, 2, {s->B, s->L}, 1, 7};
    return c;
}

/* ---- the formula ---------------------------------------------------------------------------------------------------------- */

static double softplus(double x)
{
    return x > 30 ? x : log1p(exp(x));
}

/* The attention's token that the mixer's token l is compared with. */
static int64_t token_of(const shape *s, int64_t l)
{
    if (s->rows == NULL)
        return l;
    return l == s->rows->class_at ? 0 : 1 + s->rows->skip + (l < s->rows->class_at ? l : l - 1);
}

/* A[i, j] of a head of attention, in the order of its own tokens. */
static void attend(const shape *s, double *const *in, int64_t b, int head, double *A)
{
    const int64_t L = s->L + (s->rows != NULL ? s->rows->skip : 0);
    const int kv = head / (s->Ht / s->Gt);
    for (int64_t i = 0; i < L; i++) {
        double sum = 0;
        int64_t first = s->window > 0 && i >= s->window ? i - s->window + 1 : 0;
        if (s->documents && (int64_t)in[inputs_of(s)][b * L + i] > first)
            first = (int64_t)in[inputs_of(s)][b * L + i];
        for (int64_t j = 0; j < L; j++) {
            double score = 0;
            for (int p = 0; p < s->P; p++)
                score += in[Q][((b * L + i) * s->Ht + head) * s->P + p] * in[K][((b * L + j) * s->Gt + kv) * s->P + p];
            score *= (double)0.7f;
            if (s->cap > 0)
                score = (double)s->cap * tanh(score / (double)s->cap);
            const bool sees = j >= first && (s->both || j <= i);
            A[i * L + j] = sees ? exp(score) : 0;
            sum += A[i * L + j];
        }
        for (int64_t j = 0; j < L; j++)
            A[i * L + j] /= sum;
    }
}

/* log a and delta of a token. */
static void decay_of(const shape *s, double *const *in, int64_t b, int64_t t, int d, int head, double *log_a,
                     double *step)
{
    const bool second = d == 1 && !s->own && !s->shared;
    const int64_t steps = s->both && !s->own && !s->shared ? 2 * s->H : s->H, h = head + (second ? s->H : 0);
    double *const *own = in + C + (d == 1 && s->own ? OF_DIRECTION : 0);
    const double raw = own[DT - C][(b * s->L + t) * steps + h];
    double rate = 0;
    const int64_t n = s->tied > 0 ? s->tied : 1;
    for (int64_t i = 0; i < n; i++)
        rate += own[A_LOG - C][h * n + i] / (double)n;
    *step = s->discrete ? 1 : softplus(raw + own[BIAS - C][h]);
    *log_a = s->discrete ? -softplus(raw) : -*step * exp(rate);
}

static double mixed(const shape *s, double *const *in, int64_t b, int d, int head, int64_t i, int64_t j)
{
    double *const *own = in + C + (d == 1 && s->own ? OF_DIRECTION : 0);
    const int group = head / (s->H / s->G);
    double dot = 0, sum = 0, log_a, step;
    for (int n = 0; n < s->N; n++)
        dot += own[0][((b * s->L + i) * s->G + group) * s->N + n] * own[1][((b * s->L + j) * s->G + group) * s->N + n];
    for (int64_t t = d == 0 ? j + 1 : i; t < (d == 0 ? i + 1 : j); t++) {
        decay_of(s, in, b, t, d, head, &log_a, &step);
        sum += log_a;
    }
    decay_of(s, in, b, j, d, head, &log_a, &step);
    return (double)s->scale * dot * exp(sum) * step;
}

static double element(const shape *s, double *const *in, int64_t b, int head, int64_t i, int64_t j)
{
    double m = 0;
    if (s->documents && j < (int64_t)in[inputs_of(s)][b * s->L + i])
        return 0;
    if (j <= i)
        m += mixed(s, in, b, 0, head, i, j);
    if (s->both && (j > i || (j == i && s->own)))
        m += mixed(s, in, b, 1, head, i, j);
    for (int d = 0; i == j && d < (s->own ? 2 : 1); d++)
        m += (double)s->scale * in[D + d * OF_DIRECTION][head];
    return m;
}

/* ||M - A||^2 / ||A||^2 of a pair of heads. */
static double pair_error(const shape *s, double *const *in, int64_t b, int head, const double *A)
{
    const int64_t L = s->L + (s->rows != NULL ? s->rows->skip : 0);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < s->L; i++)
        for (int64_t j = 0; j < s->L; j++) {
            const double a = A[token_of(s, i) * L + token_of(s, j)];
            const double e = (j <= i || s->both ? element(s, in, b, head, i, j) : 0) - a;
            error += e * e;
            norm += a * a;
        }
    return error / norm;
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    const int64_t L = s->L + (s->rows != NULL ? s->rows->skip : 0);
    double *A = check_doubles(L * L), sum = 0;
    int pairs = 0;
    for (int64_t b = 0; b < s->B; b++)
        for (int other = 0; other < s->Ht; other++) {
            attend(s, in, b, other, A);
            for (int h = 0; h < s->H; h++) {
                const double from = (double)(h / s->share * s->width) / s->of;
                const double to = (double)((h / s->share + 1) * s->width) / s->of;
                if (other + 1 <= from || other >= to)
                    continue;
                sum += pair_error(s, in, b, h, A);
                pairs += b == 0;
            }
        }
    out[0][0] = sum / (double)(s->B * pairs);
    free(A);
}

/* ---- tests ------------------------------------------------------------------------------------------------------------------ */

static void check_shapes(const shape *shapes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        check_case c = make_case(&shapes[i]);
        c.reference = reference;
        c.low_forward = 2e-2;
        c.low_gradient = 3e-2;
        check_run(&c);
    }
}

static void test_causal(void **state)
{
    (void)state;
    const shape shapes[] = {
        {2, 5, 2, 2, 3, 2, 2, 4, .discrete = true, .share = 1, .width = 1, .of = 1, .scale = 1},
        {1, 7, 4, 2, 3, 2, 1, 3, .share = 2, .width = 1, .of = 1, .scale = 1}, /* grouped heads on both sides */
        {1, 6, 2, 1, 2, 4, 2, 3, .share = 2, .width = 4, .of = 2, .window = 3, .cap = 2, .scale = 0.5f},
        {1, 1, 1, 1, 1, 1, 1, 1, .share = 1, .width = 1, .of = 1, .scale = 1},
        {2, 9, 3, 1, 2, 1, 1, 2, .share = 1, .width = 1, .of = 3, .scale = 1, .documents = true},
        {1, 67, 1, 1, 2, 1, 1, 2, .share = 1, .width = 1, .of = 1, .scale = 1}, /* more than a tile */
    };
    check_shapes(shapes, sizeof shapes / sizeof *shapes);
}

static void test_both(void **state)
{
    (void)state;
    const cab_row_map middle = {.class_at = 2, .skip = 1};
    const shape shapes[] = {
        {2, 5, 2, 2, 3, 2, 2, 3, .both = true, .share = 1, .width = 1, .of = 1, .scale = 0.8f},
        {1, 6, 4, 1, 2, 2, 2, 2, .both = true, .shared = true, .share = 2, .width = 1, .of = 1, .scale = 1},
        {1, 5, 4, 1, 3, 2, 2, 2, .both = true, .own = true, .share = 1, .width = 2, .of = 4, .scale = 0.5f, .tied = 3,
         .rows = &middle},
        {1, 66, 1, 1, 1, 1, 1, 1, .both = true, .own = true, .share = 1, .width = 1, .of = 1, .scale = 1},
        {1, 65, 1, 1, 1, 1, 1, 1, .both = true, .share = 1, .width = 1, .of = 1, .scale = 1},
    };
    check_shapes(shapes, sizeof shapes / sizeof *shapes);
}

/* What takes several tiles and every width of N. */
static const cab_row_map class_token = {.class_at = 35, .skip = 1};
static const shape large[] = {
    {2, 150, 4, 2, 64, 4, 2, 64, .discrete = true, .share = 1, .width = 1, .of = 1, .scale = 1},
    {1, 130, 4, 1, 128, 2, 1, 80, .share = 2, .width = 1, .of = 1, .scale = 1, .window = 40},
    {1, 70, 2, 1, 200, 2, 2, 30, .share = 1, .width = 1, .of = 1, .scale = 1, .cap = 3},
    {2, 129, 2, 1, 16, 2, 2, 32, .share = 1, .width = 1, .of = 1, .scale = 1, .documents = true},
    {2, 71, 12, 1, 16, 3, 3, 64, .both = true, .own = true, .share = 1, .width = 3, .of = 12, .scale = 0.5f, .tied = 16,
     .rows = &class_token},
    {1, 140, 6, 3, 128, 3, 3, 64, .both = true, .share = 2, .width = 1, .of = 1, .scale = 0.03f},
    {2, 64, 20, 1, 64, 4, 4, 16, .both = true, .shared = true, .share = 5, .width = 1, .of = 1, .scale = 0.06f},
};

static void test_threads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        check_case c = make_case(&large[i]);
        check_threads(&c);
    }
}

static void test_gpu(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        check_case c = make_case(&large[i]);
        gpu_compare(&c, 1e-5, 1e-2);
    }
}

static void fails(const shape *s, const char *text)
{
    check_case c = make_case(s);
    check_reference r = {0};
    check_graph k;
    for (int i = 0; i < c.n_in; i++)
        r.in[i] = check_values(&c, i);
    check_open(&c, &(check_variant){.dtype = CAB_F32, .isa = ""}, r.in, &k);
    assert_int_not_equal(cab_graph_plan(k.graph, NULL), CAB_OK);
    if (strstr(cab_error_text(), text) == NULL)
        fail_msg("found \"%s\", expected \"%s\"", cab_error_text(), text);
    check_close(&k);
    check_release(&r);
}

static void test_refusals(void **state)
{
    (void)state;
    fails(&(shape){1, 3, 1, 1, 300, 1, 1, 2, .share = 1, .width = 1, .of = 1, .scale = 1}, "N at most 256");
    fails(&(shape){1, 3, 3, 2, 4, 1, 1, 2, .share = 1, .width = 1, .of = 1, .scale = 1}, "of 2 groups");
    fails(&(shape){1, 3, 2, 2, 4, 3, 2, 2, .share = 1, .width = 1, .of = 1, .scale = 1}, "3 and 2 heads");
    fails(&(shape){1, 3, 1, 1, 4, 1, 1, 2, .both = true, .share = 1, .width = 1, .of = 1, .scale = 1, .window = 2,
                   .rows = &class_token},
          "rows in another order");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_causal), cmocka_unit_test(test_both),
                                       cmocka_unit_test(test_threads), cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
