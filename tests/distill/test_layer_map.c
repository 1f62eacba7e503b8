/* Layer maps for any pair of depths. */
#include "distill/layer_map.h"
#include "distill/recipe.h"
#include "temp.h"

enum { DEPTH_MAX = 40 };

static void expect(int kind, int S, int T, const int *expected)
{
    int map[DEPTH_MAX];
    assert_ok(cab_layer_map(kind, NULL, 0, S, T, map));
    for (int l = 0; l < S; l++)
        if (map[l] != expected[l])
            fail_msg("kind %d, %d of %d: g(%d) is %d, expected %d", kind, S, T, l, map[l], expected[l]);
}

static void test_values(void **state)
{
    (void)state;
    expect(CAB_LAYERS_PROPORTIONAL, 6, 24, (int[]){0, 4, 8, 12, 16, 20});
    expect(CAB_LAYERS_PROPORTIONAL, 8, 4, (int[]){0, 0, 1, 1, 2, 2, 3, 3});
    expect(CAB_LAYERS_PROPORTIONAL, 5, 3, (int[]){0, 0, 1, 1, 2});
    expect(CAB_LAYERS_PROPORTIONAL, 3, 5, (int[]){0, 1, 3});
    expect(CAB_LAYERS_PROPORTIONAL, 1, 7, (int[]){0});
    expect(CAB_LAYERS_UNIFORM_LAST, 6, 24, (int[]){3, 7, 11, 15, 19, 23});
    expect(CAB_LAYERS_UNIFORM_LAST, 4, 2, (int[]){0, 0, 1, 1});
    expect(CAB_LAYERS_UNIFORM_LAST, 3, 5, (int[]){1, 3, 4});
    expect(CAB_LAYERS_UNIFORM_LAST, 1, 7, (int[]){6});
    expect(CAB_LAYERS_FIRST, 3, 5, (int[]){0, 1, 2});
    expect(CAB_LAYERS_FIRST, 4, 2, (int[]){0, 1, -1, -1});
}

static void test_every_depth(void **state)
{
    (void)state;
    for (int S = 1; S <= DEPTH_MAX; S++)
        for (int T = 1; T <= DEPTH_MAX; T++)
            for (int kind = CAB_LAYERS_PROPORTIONAL; kind <= CAB_LAYERS_UNIFORM_LAST; kind++) {
                int map[DEPTH_MAX];
                assert_ok(cab_layer_map(kind, NULL, 0, S, T, map));
                for (int l = 0; l < S; l++) {
                    assert_in_range(map[l], 0, T - 1);
                    assert_true(l == 0 || map[l] >= map[l - 1]);
                    assert_true(S != T || map[l] == l);
                }
                if (kind == CAB_LAYERS_PROPORTIONAL)
                    assert_int_equal(map[0], 0);
                else
                    assert_int_equal(map[S - 1], T - 1);
            }
}

static void test_lists(void **state)
{
    (void)state;
    int map[3] = {7, 7, 7};
    assert_ok(cab_layer_map(CAB_LAYERS_LIST, (int64_t[]){3, -1, 0}, 3, 3, 4, map));
    assert_true(map[0] == 3 && map[1] == -1 && map[2] == 0);
    assert_fails(cab_layer_map(CAB_LAYERS_LIST, (int64_t[]){0, 1}, 2, 3, 4, map), CAB_ESHAPE,
                 "2 entries for 3 student layers");
    assert_fails(cab_layer_map(CAB_LAYERS_LIST, NULL, 0, 3, 4, map), CAB_ESHAPE, "0 entries");
    assert_fails(cab_layer_map(CAB_LAYERS_LIST, (int64_t[]){0, 4, 1}, 3, 3, 4, map), CAB_ESHAPE,
                 "bridge.layers[1]: 4, expected -1 (none) or a teacher layer 0 to 3");
    assert_fails(cab_layer_map(CAB_LAYERS_LIST, (int64_t[]){0, 1, -2}, 3, 3, 4, map), CAB_ESHAPE,
                 "bridge.layers[2]: -2");
    assert_fails(cab_layer_map(CAB_LAYERS_LIST, (int64_t[]){INT64_MIN, 1, 2}, 3, 3, 4, map), CAB_ESHAPE,
                 "bridge.layers[0]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_every_depth),
        cmocka_unit_test(test_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
