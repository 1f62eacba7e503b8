/* test_base64.c - the vectors of RFC 4648, and what is not base64. */
#include "base/base64.h"
#include "base/memory.h"
#include "temp.h"

static void test_vectors(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xfb\xff\xfe", "+//+"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char *text = NULL;
        assert_ok(cab_base64_encode(pairs[i][0], strlen(pairs[i][0]), &text));
        assert_string_equal(text, pairs[i][1]);
        assert_true(cab_base64_check(text) == (i > 0));
        cab_free(text);
    }
}

static void test_what_it_is_not(void **state)
{
    (void)state;
    static const char *const texts[] = {"",     "Zg",   "Zg=",  "Z===",     "====",      "Zm9v\"",
                                        "Zm 9", "Zm=v", "<svg", "Zm9v=Zm9", "Zm9vZm9v\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (cab_base64_check(texts[i]))
            fail_msg("\"%s\" passes", texts[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors), cmocka_unit_test(test_what_it_is_not)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
