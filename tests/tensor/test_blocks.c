/* test_blocks.c - every block type against gguf-py's numpy reference (gguf 0.17, gguf.quants.dequantize) on bytes that a formula makes. */
#include "temp.h"
#include "tensor/blocks.h"

#include <math.h>

typedef struct reference {
    cab_dtype dtype;
    size_t bytes;    /* of a block; there are two */
    int halves[2];   /* where fp16 numbers stand in it; -1: no second one */
    float values[6]; /* elements 0, 1, 17, n / 2 - 1, n / 2 + 5 and n - 1 */
    double sum;      /* of every element times (1 + its index) modulo 13 */
} reference;

static const reference references[] = {
    {CAB_Q8_0,
     34,
     {0, -1},
     {7.89807129f, 11.597168f, -3.79907227f, -0.999755859f, -6.15100098f, -3.45056152f},
     152.599609375},
    {CAB_Q4_0,
     18,
     {0, -1},
     {0.699829102f, -0.399902344f, -0.0999755859f, 0.0999755859f, 0.75012207f, 0.600097656f},
     -26.2451171875},
    {CAB_Q4_1,
     20,
     {0, 2},
     {1.09973145f, 1.59960938f, 1.29968262f, 1.49963379f, -0.600097656f, -2.25036621f},
     -196.447998046875},
    {CAB_Q5_0,
     22,
     {0, -1},
     {0.299926758f, 0.299926758f, -1.49963379f, 0.199951172f, 1.50024414f, 1.35021973f},
     40.6197509765625},
    {CAB_Q5_1,
     24,
     {0, 2},
     {2.59936523f, 1.49963379f, 2.29943848f, 0.899780273f, -3.45056152f, -2.85046387f},
     -309.2841796875},
    {CAB_Q4_K,
     144,
     {0, 2},
     {16.2960205f, -11.1972656f, 3.79907227f, -2.39941406f, -15.6025391f, -11.1018066f},
     -11163.411499023438},
    {CAB_Q5_K,
     176,
     {0, 2},
     {46.2886963f, 6.29846191f, 21.2947998f, -3.59912109f, -41.1066895f, -180.929443f},
     -3978.403564453125},
    {CAB_Q6_K,
     210,
     {208, -1},
     {-37.7907715f, 39.590332f, 0, 84.5793457f, 297.04834f, -27.0043945f},
     -4851.3240966796875},
};

/* fp16 of 0.1, 0.2 (first block), -0.15 and -0.3 (second). */
static const uint16_t halves[2][2] = {{0x2e66, 0x3266}, {0xb0cd, 0xb4cd}};

static void make_bytes(const reference *r, uint8_t *bytes)
{
    for (size_t i = 0; i < 2 * r->bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + 11 * (i / 7) + 5);
    for (int block = 0; block < 2; block++)
        for (int i = 0; i < 2 && r->halves[i] >= 0; i++)
            memcpy(bytes + (size_t)block * r->bytes + r->halves[i], &halves[block][i], 2);
}

static void expands_as_the_reference(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof references / sizeof *references; k++) {
        const reference *r = &references[k];
        uint8_t bytes[512];
        float values[512];
        double sum = 0;
        const int n = 2 * (int)cab_dtype_block(r->dtype), at[6] = {0, 1, 17, n / 2 - 1, n / 2 + 5, n - 1};
        make_bytes(r, bytes);
        assert_int_equal(cab_dtype_bytes(r->dtype, n), 2 * r->bytes);
        cab_blocks_expand(r->dtype, bytes, values, n);
        for (int i = 0; i < n; i++)
            sum += (double)values[i] * ((i + 1) % 13);
        for (int i = 0; i < 6; i++)
            if (fabsf(values[at[i]] - r->values[i]) > 1e-5f * fabsf(r->values[i]) + 1e-6f)
                fail_msg("%s: element %d is %.9g, expected %.9g", cab_dtype_name(r->dtype), at[i],
                         (double)values[at[i]], (double)r->values[i]);
        if (fabs(sum - r->sum) > 1e-5 * fabs(r->sum))
            fail_msg("%s: the sum is %.12g, expected %.12g", cab_dtype_name(r->dtype), sum, r->sum);
    }
}

static void plain_types_are_blocks_of_one(void **state)
{
    (void)state;
    assert_false(cab_dtype_is_blocks(CAB_BF16));
    assert_int_equal(cab_dtype_block(CAB_F32), 1);
    assert_int_equal(cab_dtype_bytes(CAB_F16, 7), 14);
}

/* fp16 in plain steps: of 2^-24 below 2^-14, of 2^(e - 10) above. */
static double half_of(double x)
{
    int e = 0;
    frexp(x, &e);
    const double step = ldexp(1, (e - 1 < -14 ? -14 : e - 1) - 10);
    return nearbyint(x / step) * step;
}

/* Numbers of many magnitudes, both signs. */
static void fill(float *x, int n, int seed, int exponent)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)ldexp(sin(i * 12.9898 + seed) * 1.7, exponent);
}

/* d and q by the formulas of the header, in the arithmetic of ggml's reference: fp32, d rounded only where it is stored. */
static void packs_by_the_formula(void **state)
{
    (void)state;
    for (int seed = 0; seed < 200; seed++) {
        float x[64], eight[64], four[64];
        uint8_t bytes[68];
        fill(x, 64, seed, seed % 30 - 20);
        assert_int_equal(cab_blocks_pack(CAB_Q8_0, x, bytes, 64), -1);
        cab_blocks_expand(CAB_Q8_0, bytes, eight, 64);
        assert_int_equal(cab_blocks_pack(CAB_Q4_0, x, bytes, 64), -1);
        cab_blocks_expand(CAB_Q4_0, bytes, four, 64);
        for (int b = 0; b < 64; b += 32) {
            float most = 0;
            for (int i = 0; i < 32; i++)
                most = fabsf(x[b + i]) > fabsf(most) ? x[b + i] : most;
            const float d8 = fabsf(most) / 127, d4 = most / -8;
            for (int i = b; i < b + 32; i++) {
                const float stored8 = (float)half_of(d8), stored4 = (float)half_of(d4),
                            q = floorf(x[i] * (1 / d4) + 8.5f);
                assert_true(eight[i] == stored8 * roundf(x[i] * (1 / d8)));
                assert_true(four[i] == stored4 * ((q > 15 ? 15 : q) - 8));
            }
        }
    }
}

static void packs_the_limits(void **state)
{
    (void)state;
    float x[32] = {0}, back[32];
    uint8_t bytes[34];
    const cab_dtype types[] = {CAB_Q8_0, CAB_Q4_0};
    for (int k = 0; k < 2; k++) {
        memset(x, 0, sizeof x);
        assert_int_equal(cab_blocks_pack(types[k], x, bytes, 32), -1);
        cab_blocks_expand(types[k], bytes, back, 32);
        for (int i = 0; i < 32; i++)
            assert_true(back[i] == 0); /* of either sign, as in ggml's reference */
        x[3] = 1e-42f;                 /* a subnormal: its scale is nothing in fp16 */
        x[4] = -3e-9f;
        assert_int_equal(cab_blocks_pack(types[k], x, bytes, 32), -1);
        cab_blocks_expand(types[k], bytes, back, 32);
        for (int i = 0; i < 32; i++)
            assert_true(back[i] == 0);
        x[5] = types[k] == CAB_Q8_0 ? 127 * 65504.0f : -8 * 65504.0f; /* the largest scale */
        assert_int_equal(cab_blocks_pack(types[k], x, bytes, 32), -1);
        cab_blocks_expand(types[k], bytes, back, 32);
        assert_true(back[5] == x[5]);
        x[5] *= 1.01f;
        assert_int_equal(cab_blocks_pack(types[k], x, bytes, 32), 0);
    }
    const float largest = 65504, beyond = 65520;
    uint16_t half = 0;
    assert_int_equal(cab_blocks_pack(CAB_F16, &largest, &half, 1), -1);
    assert_int_equal(half, 0x7bff);
    assert_int_equal(cab_blocks_pack(CAB_F16, &beyond, &half, 1), 0);
}

/* Every half there is comes back, and numbers between two of them go to the nearer, of two equally near ones to the even one. */
static void halves_round_to_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        const uint16_t low = (uint16_t)h, high = (uint16_t)(h + 1);
        float a, b;
        uint16_t back;
        cab_convert(&a, CAB_F32, &low, CAB_F16, 1);
        cab_convert(&back, CAB_F16, &a, CAB_F32, 1);
        assert_int_equal(back, low);
        if (high == 0x7c00)
            break;
        cab_convert(&b, CAB_F32, &high, CAB_F16, 1);
        const float middle = a + (b - a) / 2, tries[3] = {nextafterf(middle, a), middle, -nextafterf(middle, b)};
        const uint16_t expected[3] = {low, low % 2 == 0 ? low : high, (uint16_t)(high | 0x8000)};
        for (int i = 0; i < 3; i++) {
            cab_convert(&back, CAB_F16, &tries[i], CAB_F32, 1);
            assert_int_equal(back, expected[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(expands_as_the_reference),
                                       cmocka_unit_test(plain_types_are_blocks_of_one),
                                       cmocka_unit_test(packs_by_the_formula), cmocka_unit_test(packs_the_limits),
                                       cmocka_unit_test(halves_round_to_even)};
    return cmocka_run_group_tests_name("blocks", tests, NULL, NULL);
}
