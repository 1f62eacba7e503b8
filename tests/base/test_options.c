/* test_options.c - option tables: defaults, reading and its refusals, writing, lists, suggestions. */
#include "base/memory.h"
#include "base/options.h"
#include "temp.h"

#include <math.h>

#define SAMPLE(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                                \
    INT(coats, 2, 1, 9, "coats of paint")                                                                              \
    REAL(gloss, 0.1, 0, 1, "share of light")                                                                           \
    BOOL(primer, true, "a first coat")                                                                                 \
    TEXT(shop, "corner", "where it is bought")                                                                         \
    ENUM(finish, 1, "matt|satin|gloss", "how it shines")                                                               \
    LIST(rooms, "what is painted")                                                                                     \
    INTS(walls, "which walls")

struct sample {
    CAB_FIELDS(SAMPLE)
};
CAB_OPTION_TABLE(sample_table, struct sample, SAMPLE)

static const cab_option *row(const char *key)
{
    const cab_option *option = cab_option_find(sample_table(), key);
    assert_non_null(option);
    return option;
}

static void defaults_come_from_the_rows(void **state)
{
    (void)state;
    struct sample sample = {0};
    assert_ok(cab_options_init(sample_table(), &sample));
    assert_int_equal(sample.coats, 2);
    assert_true(sample.gloss == 0.1 && sample.primer && sample.finish == 1);
    assert_string_equal(sample.shop, "corner");
    assert_int_equal(sample.rooms.count, 0);
    cab_options_clear(sample_table(), &sample);
    assert_null(sample.shop);
}

/* What was set to its default is set all the same. */
static void an_option_knows_whether_it_was_set(void **state)
{
    (void)state;
    struct sample sample = {0};
    assert_ok(cab_options_init(sample_table(), &sample));
    for (unsigned i = 0; i < sample_table().count; i++)
        assert_false(cab_option_given(&sample_table().rows[i], &sample));
    assert_ok(cab_option_set(row("coats"), &sample, "coats", "2"));
    assert_true(cab_option_given(row("coats"), &sample) && sample.coats_given && !sample.gloss_given);
    assert_true(cab_option_at_default(row("coats"), &sample));
    assert_ok(cab_option_preset(row("coats"), &sample, "coats", "9"));
    assert_ok(cab_option_preset(row("shop"), &sample, "shop", "mill"));
    assert_int_equal(sample.coats, 2);
    assert_string_equal(sample.shop, "mill");
    assert_false(sample.shop_given || cab_option_at_default(row("shop"), &sample));
    assert_ok(cab_option_append(row("walls"), &sample, "walls", "3"));
    cab_option_empty(row("rooms"), &sample);
    assert_true(sample.walls_given && sample.rooms_given);
    for (unsigned i = 0; i < sample_table().count; i++)
        assert_ok(cab_option_reset(&sample_table().rows[i], &sample));
    assert_string_equal(sample.shop, "corner");
    assert_int_equal(sample.walls.count, 1);
    cab_option_forget(row("walls"), &sample);
    assert_ok(cab_option_reset(row("walls"), &sample));
    assert_int_equal(sample.walls.count, 0);
    assert_fails(cab_option_set(row("gloss"), &sample, "gloss", "2"), CAB_EARG, "gloss");
    assert_false(sample.gloss_given); /* refused: not set */
    cab_options_clear(sample_table(), &sample);
    assert_false(sample.coats_given);
}

static void values_are_read_and_written_back(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"coats", "7", "7"},
        {"coats", "+3", "3"},
        {"coats", "0.5e1", "5"},
        {"gloss", "1e-3", "0.001"},
        {"gloss", "0.30000000000000004", "0.30000000000000004"},
        {"primer", "off", "false"},
        {"primer", "yes", "true"},
        {"finish", "gloss", "gloss"},
        {"shop", "", ""},
        {"shop", "a=b,c", "a=b,c"},
    };
    struct sample sample = {0};
    assert_ok(cab_options_init(sample_table(), &sample));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text;
        assert_ok(cab_option_set(row(cases[i][0]), &sample, cases[i][0], cases[i][1]));
        assert_ok(cab_option_format(row(cases[i][0]), &sample, 0, &text));
        assert_string_equal(text, cases[i][2]);
        cab_free(text);
    }
    cab_options_clear(sample_table(), &sample);
}

static void wrong_values_leave_the_field_as_it_was(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"coats", "0", "coats: found \"0\", expected a whole number from 1 to 9"},
        {"coats", "1.5", "coats: found \"1.5\""},
        {"coats", " 3", "coats: found \" 3\""},
        {"coats", "3x", "coats: found \"3x\""},
        {"coats", "", "coats: found \"\""},
        {"coats", "1e300", "coats: found \"1e300\""},
        {"gloss", "0x1p-1", "gloss: found \"0x1p-1\", expected a number from 0 to 1"},
        {"gloss", "inf", "gloss: found \"inf\""},
        {"gloss", "1e400", "gloss: found \"1e400\""},
        {"primer", "maybe", "primer: found \"maybe\", expected true or false"},
        {"finish", "glos", "finish: found \"glos\", did you mean \"gloss\"? Expected one of matt, satin, gloss"},
        {"finish", "xxxxxxxx\033", "finish: found \"xxxxxxxx?\", expected one of matt, satin, gloss"},
    };
    struct sample sample = {0};
    assert_ok(cab_options_init(sample_table(), &sample));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_fails(cab_option_set(row(cases[i][0]), &sample, cases[i][0], cases[i][1]), CAB_EARG, cases[i][2]);
    assert_int_equal(sample.coats, 2);
    assert_true(sample.gloss == 0.1 && sample.primer && sample.finish == 1);
    cab_options_clear(sample_table(), &sample);
}

static void lists_are_replaced_and_appended(void **state)
{
    (void)state;
    struct sample sample = {0};
    char item[32];
    assert_ok(cab_options_init(sample_table(), &sample));
    assert_ok(cab_option_set(row("walls"), &sample, "walls", "3,-1,2"));
    assert_int_equal(sample.walls.count, 3);
    assert_int_equal(sample.walls.items[1], -1);
    assert_fails(cab_option_set(row("walls"), &sample, "walls", "1,x"), CAB_EARG, "walls: found \"x\"");
    assert_ok(cab_option_set(row("rooms"), &sample, "rooms", ""));
    assert_int_equal(sample.rooms.count, 0);
    for (int i = 0; i < 100; i++) {
        snprintf(item, sizeof item, "room,%d", i);
        assert_ok(cab_option_append(row("rooms"), &sample, "rooms", item));
    }
    assert_int_equal(cab_option_count(row("rooms"), &sample), 100);
    assert_string_equal(sample.rooms.items[77], "room,77");
    cab_option_empty(row("rooms"), &sample);
    assert_int_equal(sample.rooms.count, 0);
    cab_options_clear(sample_table(), &sample);
}

static void options_describe_themselves(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"coats", "a whole number from 1 to 9", "2"},
        {"gloss", "a number from 0 to 1", "0.1"},
        {"primer", "true or false", "true"},
        {"shop", "text", "corner"},
        {"finish", "one of matt, satin, gloss", "satin"},
        {"rooms", "a list of texts", "none"},
        {"walls", "a list of whole numbers", "none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[128];
        cab_option_expected(row(cases[i][0]), text, sizeof text);
        assert_string_equal(text, cases[i][1]);
        cab_option_default(row(cases[i][0]), text, sizeof text);
        assert_string_equal(text, cases[i][2]);
    }
    assert_null(cab_option_find(sample_table(), "coat"));
    assert_null(cab_option_find(sample_table(), "coatss"));
}

static void the_nearest_word_is_suggested(void **state)
{
    (void)state;
    static const char *const words[] = {"distill", "report", "recipe", "inspect"};
    static const char *const cases[][2] = {
        {"distil", "distill"}, {"reprot", "report"}, {"recepi", "recipe"}, {"xyz", ""}, {"", ""},
        {"inspekt", "inspect"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cab_nearest nearest = cab_nearest_begin(cases[i][0]);
        for (size_t j = 0; j < sizeof words / sizeof *words; j++)
            cab_nearest_offer(&nearest, words[j], NULL);
        assert_string_equal(nearest.best, cases[i][1]);
    }
    char longest[200];
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    cab_nearest nearest = cab_nearest_begin(longest);
    cab_nearest_offer(&nearest, longest, NULL);
    assert_string_equal(nearest.best, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_come_from_the_rows),      cmocka_unit_test(an_option_knows_whether_it_was_set),
        cmocka_unit_test(values_are_read_and_written_back), cmocka_unit_test(wrong_values_leave_the_field_as_it_was),
        cmocka_unit_test(lists_are_replaced_and_appended),  cmocka_unit_test(options_describe_themselves),
        cmocka_unit_test(the_nearest_word_is_suggested),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
