/* test_writing.c - measures of what a model wrote against plain counting over the same texts. */
#include "runs.h"
#include "train/decode.h"
#include "train/scorer.h"
#include "train/writing.h"

#include <math.h>

static const char teacher[] = "examples/tales/teacher";
enum { TEXTS = 3, TOKENS = 200, START = 0 };

/* The same texts, one at a time. */
static void write_text(const cab_model *m, float temperature, int32_t sample, int32_t *out)
{
    const int32_t start = START;
    const cab_decode_row row = {&start, 1, sample};
    const cab_sampling sampling = {.temperature = temperature, .top_p = 1, .seed = 9};
    cab_decode *decode;
    assert_ok(cab_decode_new(m, &row, 1, &sampling, &decode));
    for (int t = 0; t < TOKENS; t++) {
        assert_ok(cab_decode_step(decode));
        assert_ok(cab_decode_tokens(decode, out + t));
    }
    cab_decode_free(decode);
}

static double distinct(int32_t ids[TEXTS][TOKENS], int gram)
{
    int all = 0, first = 0;
    for (int i = 0; i < TEXTS; i++)
        for (int t = 0; t + gram <= TOKENS; t++) {
            bool seen = false;
            for (int j = 0; j <= i && !seen; j++)
                for (int u = 0; u + gram <= TOKENS && (j < i || u < t) && !seen; u++)
                    seen = memcmp(ids[j] + u, ids[i] + t, (size_t)gram * sizeof **ids) == 0;
            all++;
            first += !seen;
        }
    return (double)first / all;
}

static double repetition(int32_t ids[TEXTS][TOKENS])
{
    int repeated = 0;
    for (int i = 0; i < TEXTS; i++)
        for (int t = 3; t < TOKENS; t++) {
            bool seen = false;
            for (int u = 3; u < t && !seen; u++)
                seen = memcmp(ids[i] + u - 3, ids[i] + t - 3, 4 * sizeof **ids) == 0;
            repeated += seen;
        }
    return (double)repeated / (TEXTS * TOKENS);
}

static void check_measures(float temperature)
{
    cab_model *m;
    int32_t ids[TEXTS][TOKENS];
    cab_writing_block *blocks;
    size_t count;
    double logp = 0;
    assert_ok(cab_model_load(teacher, CAB_PRECISION_FP32, &m));
    const cab_writing_options o = {
        .texts = TEXTS, .tokens = TOKENS, .temperature = temperature, .top_p = 1, .seed = 9, .start = START};
    assert_ok(cab_writing_measure(m, m, &o, &blocks, &count));
    assert_int_equal(count, 1);
    assert_int_equal(blocks[0].tokens, TEXTS * TOKENS);
    for (int i = 0; i < TEXTS; i++) {
        cab_score half[2];
        write_text(m, temperature, i, ids[i]);
        /* 256 tokens of context: 128 tokens behind nothing, then the others behind them */
        const cab_request requests[2] = {{ids[i], 129, 1}, {ids[i], TOKENS, 129}};
        assert_ok(cab_score_requests(m, requests, 2, "test", half, NULL));
        logp += half[0].logp + half[1].logp;
    }
    assert_true(fabs(log(blocks[0].perplexity) + logp / (TEXTS * (TOKENS - 1))) < 1e-4);
    for (int gram = 1; gram <= CAB_WRITING_GRAMS; gram++)
        assert_true(fabs(blocks[0].distinct[gram - 1] - distinct(ids, gram)) < 1e-9);
    assert_true(fabs(blocks[0].repetition - repetition(ids)) < 1e-9);
    cab_free(blocks);
    cab_model_free(m);
}

/* Drawn, and greedily, which goes round in circles. */
static void test_measures(void **state)
{
    (void)state;
    check_measures(1);
    check_measures(0);
}

/* A model of 256 tokens of context writes two texts of its own length where one of 500 tokens is asked for. */
static void test_context(void **state)
{
    (void)state;
    cab_model *m;
    cab_writing_block *blocks;
    size_t count;
    assert_ok(cab_model_load(teacher, CAB_PRECISION_FP32, &m));
    const cab_writing_options o = {.texts = 1, .tokens = 500, .temperature = 1, .top_p = 1, .seed = 1, .start = 0};
    assert_ok(cab_writing_measure(m, NULL, &o, &blocks, &count));
    assert_int_equal(count, 1);
    assert_int_equal(blocks[0].texts, 2);
    assert_int_equal(blocks[0].tokens, 512);
    assert_true(isnan(blocks[0].perplexity));
    cab_free(blocks);
    cab_writing_options none = o;
    none.start = -1;
    assert_int_equal(cab_writing_measure(m, NULL, &none, &blocks, &count), CAB_EARG);
    none = o;
    none.texts = 0;
    assert_int_equal(cab_writing_measure(m, NULL, &none, &blocks, &count), CAB_EARG);
    cab_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_measures), cmocka_unit_test(test_context)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
