/* test_conv1d_both.c - the short convolution in both directions of one x, against its formula in fp64. */
#include "ops/check.h"
#include "ops/gpu.h"

typedef struct shape {
    int64_t B, L, E, K;
    bool silu;
    bool swapped; /* the second direction's result comes first */
} shape;

enum { X, W, BIAS, SECOND = 2, INPUTS = 5 };

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    const cab_conv1d_filter filters[2] = {{in[W], in[BIAS]}, {in[SECOND + W], in[SECOND + BIAS]}};
    cab_tensor *y[2];
    cab_conv1d_both(g, in[X], filters, s->silu, y);
    out[0] = y[s->swapped];
    out[1] = y[!s->swapped];
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    for (int d = 0; d < 2; d++)
        for (int64_t i = 0; i < s->B * s->L * s->E; i++) {
            const int64_t e = i % s->E, l = i / s->E % s->L;
            double u = in[SECOND * d + BIAS][e];
            for (int64_t k = 0; k < s->K; k++)
                if (d ? l + k < s->L : l >= k)
                    u += in[SECOND * d + W][e * s->K + s->K - 1 - k] * in[X][i + (d ? k : -k) * s->E];
            out[d != s->swapped][i] = s->silu ? u / (1 + exp(-u)) : u;
        }
}

static check_case make_case(const char *name, const shape *s)
{
    check_case c = {.name = name,
                    .n_in = INPUTS,
                    .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->E}, -2, 2},
                           {CHECK_PARAMETER, 3, {s->E, 1, s->K}, 0, 0},
                           {CHECK_PARAMETER, 1, {s->E}, 0, 0}},
                    .n_out = 2,
                    .n_seeded = 2,
                    .record = record,
                    .reference = reference,
                    .argument = s};
    c.in[SECOND + W] = c.in[W];
    c.in[SECOND + BIAS] = c.in[BIAS];
    return c;
}

/* Results of both that something flows back into, then of one alone. */
static void test_shapes(void **state)
{
    (void)state;
    const shape shapes[] = {{2, 7, 5, 4, true, false},
                            {1, 1, 3, 4, true, true},
                            {2, 21, 3, 4, false, true},
                            {1, 6, 2, 3, true, false},
                            {1, 19, 1, 16, true, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int seeded = 2; seeded > 0; seeded--) {
            check_case c = make_case("conv1d both", &shapes[i]);
            c.n_seeded = seeded;
            check_run(&c);
        }
}

/* Gradients of a plain convolution; a filter's is a sum over all tokens. */
static void add_gradients(const shape *s, const check_reference *r, int64_t i, int d)
{
    const int64_t e = i % s->E, l = i / s->E % s->L;
    r->gradient[SECOND * d + BIAS][e] += r->seed[d][i];
    for (int64_t k = 0; k < s->K; k++) {
        const int64_t tap = e * s->K + s->K - 1 - k, from = i + (d ? k : -k) * s->E;
        if (d ? l + k >= s->L : l < k)
            continue;
        r->gradient[SECOND * d + W][tap] += r->seed[d][i] * r->in[X][from];
        r->gradient[X][from] += r->seed[d][i] * r->in[SECOND * d + W][tap];
    }
}

/* Several stretches of tokens and blocks of channels. */
static void test_blocks(void **state)
{
    (void)state;
    const shape s = {2, 261, 515, 4, false, false};
    check_case c = make_case("conv1d both, blocks", &s);
    check_reference r = {0};
    for (int i = 0; i < INPUTS; i++) {
        const int64_t n = check_count(c.in[i].n_dim, c.in[i].shape);
        r.in[i] = check_draw(c.name, i, n, -1, 1, false);
        r.gradient[i] = check_doubles(n);
    }
    for (int d = 0; d < 2; d++) {
        r.out_count[d] = s.B * s.L * s.E;
        r.out[d] = check_doubles(r.out_count[d]);
        r.seed[d] = check_draw(c.name, 100 + d, r.out_count[d], -1, 1, false);
        for (int64_t i = 0; i < r.out_count[d]; i++)
            add_gradients(&s, &r, i, d);
    }
    reference(&c, r.in, r.out);
    for (int low = 0; low < 2; low++) {
        check_variant v = {.dtype = low ? CAB_BF16 : CAB_F32, .isa = "v1", .view = true, .twice = true};
        check_one(&c, &v, &r);
    }
    check_release(&r);
}

/* On a GPU, both kinds of kernels. */
static void test_gpu(void **state)
{
    (void)state;
    const shape shapes[] = {{3, 197, 384, 4, true, false},
                            {2, 50, 37, 4, true, true},
                            {1, 40, 16, 7, false, false},
                            {2, 3, 8, 4, true, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int seeded = 2; seeded > 0; seeded--) {
            check_case c = make_case("conv1d both on the GPU", &shapes[i]);
            c.n_seeded = seeded;
            gpu_compare(&c, 1e-5, 1.5e-2);
        }
}

static void test_filters_fit(void **state)
{
    (void)state;
    cab_backend *backend;
    check_ok(cab_backend_open("cpu", &backend));
    cab_graph *g;
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, 4, 6}), *y[2];
    const cab_conv1d_filter filters[2] = {{cab_graph_input(g, "w", CAB_F32, 3, (int64_t[]){6, 1, 4}), NULL},
                                          {cab_graph_input(g, "w2", CAB_F32, 3, (int64_t[]){6, 1, 3}), NULL}};
    cab_conv1d_both(g, x, filters, true, y);
    assert_null(y[0]);
    assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "4 and 3 taps"));
    cab_graph_free(g);
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes), cmocka_unit_test(test_blocks),
                                       cmocka_unit_test(test_gpu), cmocka_unit_test(test_filters_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
