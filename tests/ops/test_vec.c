/* The vector functions against libm in double, over floats of every magnitude; rows in and out of bf16. */
#include "ops/check.h"
#include "ops/cpu/vec.h"

enum { STEP = 20011 }; /* of the 2^32 floats, every so many: a prime, so that all mantissas occur */

typedef struct function {
    const char *name;
    float (*approximate)(float x);
    double (*exact)(double x);
    double ulp; /* the bound vec.h states */
} function;

static double exact_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double exact_softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

static void check_function(const function *f)
{
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += STEP) {
        float x = cab_bits_float((uint32_t)bits);
        double exact = f->exact((double)x), got = (double)f->approximate(x);
        if (isnan(x) || fabs(exact) < 0x1p-126)
            continue;
        if (fabs(exact) > (double)3.402823e38f) {
            assert_true(fabs(got) > 3.4e38);
            continue;
        }
        double error = fabs(got - exact) / ldexp(1, ilogb(exact) - 23);
        if (!(error <= f->ulp))
            fail_msg("%s(%a) is %a, exact %a: %.2f ulp", f->name, (double)x, got, exact, error);
    }
    assert_true(isnan(f->approximate(NAN)));
}

static void test_functions(void **state)
{
    (void)state;
    static const function functions[] = {{"exp", cab_exp, exp, 1.0},
                                         {"sigmoid", cab_sigmoid, exact_sigmoid, 2.5},
                                         {"tanh", cab_tanh, tanh, 1.3},
                                         {"erf", cab_erf, erf, 5.5},
                                         {"softplus", cab_softplus, exact_softplus, 2.6}};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        check_function(&functions[i]);
}

static void test_ends(void **state)
{
    (void)state;
    assert_true(cab_exp(-INFINITY) == 0.0f);
    assert_true(cab_exp(INFINITY) == INFINITY);
    assert_true(cab_sigmoid(-INFINITY) == 0.0f);
    assert_true(cab_sigmoid(INFINITY) == 1.0f);
    assert_true(cab_tanh(-INFINITY) == -1.0f);
    assert_true(cab_erf(INFINITY) == 1.0f);
    assert_true(cab_softplus(INFINITY) == INFINITY);
    assert_true(cab_softplus(-INFINITY) == 0.0f);
}

static void test_reductions(void **state)
{
    (void)state;
    float a[37], b[37];
    double dot = 0, sum = 0;
    for (int i = 0; i < 37; i++) {
        a[i] = (float)(i - 20);
        b[i] = (float)(3 * i + 1);
        dot += (double)a[i] * (double)b[i];
        sum += (double)a[i];
    }
    assert_true((double)cab_dot(a, b, 37) == dot);
    assert_true((double)cab_sum(a, 37) == sum);
    assert_true(cab_max(a, 37) == 16.0f);
    assert_true(cab_max(a, 0) == -INFINITY);
    a[5] = NAN;
    assert_true(isnan(cab_max(a, 37)));
}

/* Every bf16 number survives the way to fp32 and back, NaNs as NaNs. */
static void test_bf16_round_trip(void **state)
{
    (void)state;
    enum { ALL = 65536 };
    static cab_bf16 from[ALL], to[ALL];
    static float wide[ALL];
    for (int i = 0; i < ALL; i++)
        from[i] = (cab_bf16)i;
    cab_widen(wide, from, ALL);
    cab_narrow(to, wide, ALL);
    for (int i = 0; i < ALL; i++)
        assert_true(isnan(wide[i]) ? isnan(cab_bf16_to_f32(to[i])) : to[i] == from[i]);
}

/* A column view: rows end where the view does, and += starts from what is there. */
static void test_rows(void **state)
{
    (void)state;
    cab_bf16 data[2 * 5] = {0};
    float buffer[3];
    cab_tensor view = {.dtype = CAB_BF16, .n_dim = 2, .shape = {2, 3}, .ld = 5, .data = data + 1};
    float *out = cab_row_out(&view, 1, 0, buffer);
    for (int i = 0; i < 3; i++)
        out[i] = (float)(i + 1);
    cab_row_done(&view, 1, 0, 3, out);
    out = cab_row_sum(&view, 1, 0, 3, true, buffer);
    cab_axpy(out, 2.0f, out, 3);
    cab_row_done(&view, 1, 0, 3, out);
    static const float expected[10] = {0, 0, 0, 0, 0, 0, 3, 6, 9, 0};
    for (int i = 0; i < 10; i++)
        assert_true(cab_bf16_to_f32(data[i]) == expected[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_functions), cmocka_unit_test(test_ends),
                                       cmocka_unit_test(test_reductions), cmocka_unit_test(test_bf16_round_trip),
                                       cmocka_unit_test(test_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
