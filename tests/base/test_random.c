/* test_random.c - Philox against its published vectors; the distributions against their moments. */
#include "base/random.h"
#include "temp.h"

#include <math.h>

/* kat_vectors of the authors' Random123 1.14, "philox4x32 10": counter, key, result. */
static void philox_known_answers(void **state)
{
    (void)state;
    static const uint32_t cases[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
         0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        const uint32_t *c = cases[i];
        uint32_t out[4];
        cab_philox((uint64_t)c[5] << 32 | c[4], c[3], c[2], (uint64_t)c[1] << 32 | c[0], out);
        assert_memory_equal(out, c + 6, sizeof out);
    }
}

static void views_advance_by_one(void **state)
{
    (void)state;
    cab_random random = {.seed = 5, .stream = CAB_STREAM_TEST, .sub = 2, .index = 9};
    uint32_t words[4];
    cab_philox(5, CAB_STREAM_TEST, 2, 9, words);
    assert_int_equal(cab_random_u32(&random), words[0]);
    cab_random_uniform(&random);
    cab_random_normal(&random);
    cab_random_below(&random, 10);
    assert_int_equal(random.index, 13);

    cab_random resumed = {.seed = 5, .stream = CAB_STREAM_TEST, .sub = 2, .index = 13};
    assert_int_equal(cab_random_u32(&random), cab_random_u32(&resumed));
    cab_random other = resumed;
    other.stream = CAB_STREAM_SAMPLE;
    assert_int_not_equal(cab_random_u32(&other), cab_random_u32(&resumed));
}

/* Chi-square over 10 cells: above 35 has a probability below 1e-4. */
static void below_is_even(void **state)
{
    (void)state;
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    enum { DRAWS = 100000, CELLS = 10 };
    int count[CELLS] = {0};
    double chi = 0;
    for (int i = 0; i < DRAWS; i++) {
        uint64_t value = cab_random_below(&random, CELLS);
        assert_true(value < CELLS);
        count[value]++;
    }
    for (int i = 0; i < CELLS; i++)
        chi += pow(count[i] - DRAWS / CELLS, 2) / (DRAWS / CELLS);
    assert_true(chi < 35);
    assert_int_equal(cab_random_below(&random, 1), 0);
}

/* With n = 3/4 of 2^64 a quarter of the draws is refused; without that, values below 2^62 would come twice as often. */
static void below_refuses_the_uneven_rest(void **state)
{
    (void)state;
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    uint64_t n = UINT64_C(3) << 62, low = 0;
    enum { DRAWS = 30000 };
    for (int i = 0; i < DRAWS; i++)
        low += cab_random_below(&random, n) < UINT64_C(1) << 62;
    assert_true(fabs((double)low / DRAWS - 1.0 / 3) < 0.015);
    assert_true(random.index > DRAWS * 5 / 4 && random.index < DRAWS * 3 / 2);
}

static void uniform_and_normal_moments(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    cab_random random = {.seed = 3, .stream = CAB_STREAM_TEST};
    double sum = 0, square = 0, fourth = 0, uniform = 0;
    for (int i = 0; i < DRAWS; i++) {
        float u = cab_random_uniform(&random);
        assert_true(u >= 0.0f && u < 1.0f);
        uniform += u;
        double x = cab_random_normal(&random);
        assert_true(isfinite(x));
        sum += x;
        square += x * x;
        fourth += x * x * x * x;
    }
    assert_true(fabs(uniform / DRAWS - 0.5) < 0.004);
    assert_true(fabs(sum / DRAWS) < 0.012);
    assert_true(fabs(square / DRAWS - 1) < 0.02);
    assert_true(fabs(fourth / DRAWS - 3) < 0.15);
}

static void permutation_permutes(void **state)
{
    (void)state;
    enum { N = 1000 };
    uint64_t order[N], again[N];
    bool seen[N] = {false};
    size_t fixed = 0;
    cab_random random = {.seed = 7, .stream = CAB_STREAM_SHUFFLE}, same = random;
    cab_random_permutation(&random, order, N);
    cab_random_permutation(&same, again, N);
    assert_memory_equal(order, again, sizeof order);
    for (size_t i = 0; i < N; i++) {
        assert_true(order[i] < N && !seen[order[i]]);
        seen[order[i]] = true;
        fixed += order[i] == i;
    }
    assert_true(fixed < 8); /* one is expected */
    cab_random_permutation(&random, order, 0);
    cab_random_permutation(&random, order, 1);
    assert_int_equal(order[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(views_advance_by_one),
        cmocka_unit_test(below_is_even),
        cmocka_unit_test(below_refuses_the_uneven_rest),
        cmocka_unit_test(uniform_and_normal_moments),
        cmocka_unit_test(permutation_permutes),
    };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
