/* test_conv1d_reverse.c - the short convolution from the last token to the first, against its formula in fp64. */
#include "ops/check.h"
#include "ops/gpu.h"

typedef struct shape {
    int64_t B, L, E, K;
    bool silu;
} shape;

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_conv1d_reverse(g, in[0], in[1], in[2], ((const shape *)argument)->silu);
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t l = 0; l < s->L; l++)
            for (int64_t e = 0; e < s->E; e++) {
                double u = in[2][e];
                for (int64_t k = 0; k < s->K && l + k < s->L; k++)
                    u += in[1][e * s->K + s->K - 1 - k] * in[0][(b * s->L + l + k) * s->E + e];
                out[0][(b * s->L + l) * s->E + e] = s->silu ? u / (1 + exp(-u)) : u;
            }
}

static check_case make_case(const char *name, const shape *s)
{
    return (check_case){.name = name,
                        .n_in = 3,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->E}, -2, 2},
                               {CHECK_PARAMETER, 3, {s->E, 1, s->K}, 0, 0},
                               {CHECK_PARAMETER, 1, {s->E}, 0, 0}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record,
                        .reference = reference,
                        .argument = s};
}

static void test_shapes(void **state)
{
    (void)state;
    const shape shapes[] = {{2, 7, 5, 4, true}, {1, 1, 3, 4, true}, {2, 21, 3, 4, false}, {1, 6, 2, 3, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = make_case("conv1d reverse", &shapes[i]);
        check_run(&c);
    }
}

/* Several stretches of tokens and blocks of channels; a filter's gradient is a sum over all of them. */
static void test_blocks(void **state)
{
    (void)state;
    const shape s = {2, 261, 515, 4, false};
    check_case c = make_case("conv1d reverse blocks", &s);
    check_reference r = {0};
    for (int i = 0; i < 3; i++) {
        const int64_t n = check_count(c.in[i].n_dim, c.in[i].shape);
        r.in[i] = check_draw(c.name, i, n, -1, 1, false);
        r.gradient[i] = check_doubles(n);
    }
    r.out_count[0] = s.B * s.L * s.E;
    r.out[0] = check_doubles(r.out_count[0]);
    r.seed[0] = check_draw(c.name, 100, r.out_count[0], -1, 1, false);
    reference(&c, r.in, r.out);
    for (int64_t i = 0; i < r.out_count[0]; i++) {
        const int64_t e = i % s.E, l = i / s.E % s.L;
        r.gradient[2][e] += r.seed[0][i];
        for (int64_t k = 0; k < s.K && l + k < s.L; k++) {
            r.gradient[1][e * s.K + s.K - 1 - k] += r.seed[0][i] * r.in[0][i + k * s.E];
            r.gradient[0][i + k * s.E] += r.seed[0][i] * r.in[1][e * s.K + s.K - 1 - k];
        }
    }
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
    const shape shapes[] = {{3, 197, 384, 4, true}, {2, 50, 37, 4, true}, {1, 40, 16, 7, false}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = make_case("conv1d reverse on the GPU", &shapes[i]);
        gpu_compare(&c, 1e-5, 1.5e-2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes), cmocka_unit_test(test_blocks),
                                       cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
