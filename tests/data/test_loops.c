/* test_loops.c - sequences in which a few tokens come again and again: where, how often, and what labels are left. */
#include "data/loops.h"
#include "temp.h"

#include <math.h>

enum { TOKENS = 128, SEQUENCES = 4000 };

static void fill(int32_t *ids, int32_t *labels)
{
    for (int t = 0; t < TOKENS; t++) {
        ids[t] = 1000 + t;
        labels[t] = 1001 + t;
    }
}

static void test_share(void **state)
{
    int found = 0;
    (void)state;
    for (uint64_t i = 0; i < SEQUENCES; i++) {
        cab_loop loop, again;
        if (!cab_loop_draw(7, 0.25, i, TOKENS, &loop))
            continue;
        found++;
        assert_true(cab_loop_draw(7, 0.25, i, TOKENS, &again));
        assert_true(again.first == loop.first && again.length == loop.length && again.span == loop.span);
        assert_true(loop.span >= 1 && loop.span <= 8 && loop.first >= loop.span);
        assert_true(loop.length >= 16 && loop.length <= TOKENS / 2 && loop.first + loop.length <= TOKENS);
    }
    assert_true(fabs((double)found / SEQUENCES - 0.25) < 0.03);
    cab_loop loop;
    assert_false(cab_loop_draw(7, 1, 0, 31, &loop)); /* too short */
    assert_true(cab_loop_draw(7, 1, 0, 32, &loop));
    assert_false(cab_loop_draw(7, 0, 0, TOKENS, &loop));
}

static void test_applied(void **state)
{
    const cab_loop loop = {.first = 20, .length = 17, .span = 3};
    int32_t ids[TOKENS], labels[TOKENS];
    (void)state;
    fill(ids, labels);
    assert_true(cab_loop_apply(&loop, NULL, ids, labels));
    for (int t = 0; t < TOKENS; t++) {
        const bool inside = t >= 20 && t < 37, unlabelled = t >= 19 && t < 37;
        assert_int_equal(ids[t], inside ? 1017 + (t - 20) % 3 : 1000 + t);
        assert_int_equal(labels[t], unlabelled ? -1 : 1001 + t);
    }
}

/* Over an answer's border, or into another document, no loop goes. */
static void test_refused(void **state)
{
    const cab_loop loop = {.first = 20, .length = 17, .span = 3};
    int32_t ids[TOKENS], labels[TOKENS], starts[TOKENS] = {0}, clean_ids[TOKENS], clean_labels[TOKENS];
    (void)state;
    for (int border = 16; border < 38; border++) {
        const bool free_of_it = border < 17 || border > 36;
        fill(ids, labels);
        labels[border] = -1;
        memcpy(clean_ids, ids, sizeof ids);
        memcpy(clean_labels, labels, sizeof labels);
        assert_int_equal(cab_loop_apply(&loop, NULL, ids, labels), free_of_it);
        if (!free_of_it) {
            assert_memory_equal(ids, clean_ids, sizeof ids);
            assert_memory_equal(labels, clean_labels, sizeof labels);
        }
        fill(ids, labels);
        for (int t = 0; t < TOKENS; t++)
            starts[t] = t >= border ? border : 0;
        assert_int_equal(cab_loop_apply(&loop, starts, ids, labels), border <= 17 || border > 36);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_share), cmocka_unit_test(test_applied),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
