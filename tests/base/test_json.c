/* test_json.c - what parses, what is refused, and which words say so. */
#include "base/json.h"
#include "temp.h"

#include <math.h>

static void parse_text(const char *text, cab_json *json)
{
    assert_ok(cab_json_parse(text, strlen(text), "doc", json));
}

static cab_status parse_bad(const char *text, size_t size)
{
    cab_json json;
    cab_status status = cab_json_parse(text, size, "doc", &json);
    cab_json_close(&json);
    return status;
}

#define assert_refused(text, part) assert_fails(parse_bad(text, sizeof(text) - 1), CAB_EFORMAT, part)

static void refuses_what_is_no_json(void **state)
{
    (void)state;
    assert_refused("", "doc: JSON ends unfinished after 0 bytes");
    assert_refused("{\"a\": 1", "doc: JSON ends unfinished after 7 bytes");
    assert_refused("{\"a\": }", "doc: not valid JSON at byte 6");
    assert_refused("{\"a\": 1,}", "doc: not valid JSON");
    assert_refused("{\"a\": 'x'}", "doc: not valid JSON");
    assert_refused("{\"a\": 1} x", "doc: not valid JSON");
    assert_refused("{\"a\": /* no */ 1}", "doc: not valid JSON");
    assert_refused("{\"a\": \"\xff\"}", "doc: not valid JSON");
    assert_refused("[1]", "doc: holds a JSON array, expected an object");
    assert_refused("\"a\"", "doc: holds a JSON string, expected an object");
}

static void refuses_depth(void **state)
{
    (void)state;
    static char deep[100000];
    memset(deep, '[', sizeof deep);
    memcpy(deep, "{\"a\":", 5);
    assert_fails(parse_bad(deep, sizeof deep), CAB_EFORMAT, "doc: not valid JSON at byte");
}

static void accepts_what_pytorch_writes(void **state)
{
    (void)state;
    cab_json json;
    double value = 0;
    parse_text("{\"a\": NaN, \"b\": Infinity, \"c\": -Infinity, \"d\": 1e-5, \"e\": 3}\n ", &json);
    assert_ok(cab_json_number(&json, NULL, "a", &value));
    assert_true(isnan(value));
    assert_ok(cab_json_number(&json, NULL, "b", &value));
    assert_true(isinf(value) && value > 0);
    assert_ok(cab_json_number(&json, NULL, "c", &value));
    assert_true(isinf(value) && value < 0);
    assert_ok(cab_json_number(&json, NULL, "d", &value));
    assert_true(value == 1e-5);
    assert_ok(cab_json_number(&json, NULL, "e", &value));
    assert_true(value == 3);
    cab_json_close(&json);
}

static const char *const document =
    "{\"i\": 7, \"big\": 99999999999999999999, \"f\": 1.5, \"s\": \"text\", \"b\": true, \"n\": null,"
    " \"o\": {\"i\": 8}, \"a\": [1, 2]}";

static void integers(void **state)
{
    (void)state;
    cab_json json;
    int64_t value = 0;
    json_object *inner = NULL;
    parse_text(document, &json);
    assert_ok(cab_json_int(&json, NULL, "i", 7, 7, &value));
    assert_int_equal(value, 7);
    assert_fails(cab_json_int(&json, NULL, "i", 8, 9, &value), CAB_EFORMAT, "doc: \"i\" is 7, expected 8 to 9");
    assert_fails(cab_json_int(&json, NULL, "i", 0, 6, &value), CAB_EFORMAT, "doc: \"i\" is 7, expected 0 to 6");
    assert_fails(cab_json_int(&json, NULL, "big", 0, 10, &value), CAB_EFORMAT, "expected 0 to 10");
    assert_fails(cab_json_int(&json, NULL, "f", 0, 10, &value), CAB_EFORMAT, "\"f\" is 1.5 (double), expected an int");
    assert_fails(cab_json_int(&json, NULL, "s", 0, 10, &value), CAB_EFORMAT, "\"s\" is \"text\" (string), expected");
    assert_fails(cab_json_int(&json, NULL, "x", 0, 10, &value), CAB_EFORMAT, "doc: \"x\" is missing, expected an int");
    assert_fails(cab_json_int(&json, NULL, "n", 0, 10, &value), CAB_EFORMAT, "doc: \"n\" is missing");
    assert_ok(cab_json_int_or(&json, NULL, "x", 0, 10, 5, &value));
    assert_int_equal(value, 5);
    assert_ok(cab_json_int_or(&json, NULL, "n", 0, 10, 6, &value));
    assert_int_equal(value, 6);
    assert_ok(cab_json_int_or(&json, NULL, "i", 0, 10, 6, &value));
    assert_int_equal(value, 7);
    assert_fails(cab_json_int_or(&json, NULL, "s", 0, 10, 6, &value), CAB_EFORMAT, "expected an integer");
    assert_ok(cab_json_object(&json, NULL, "o", &inner));
    assert_ok(cab_json_int(&json, inner, "i", 0, 10, &value));
    assert_int_equal(value, 8);
    cab_json_close(&json);
}

static void other_types(void **state)
{
    (void)state;
    cab_json json;
    double number = 0;
    bool flag = false;
    const char *text = NULL;
    json_object *inner = NULL;
    parse_text(document, &json);
    assert_fails(cab_json_number(&json, NULL, "s", &number), CAB_EFORMAT, "expected a number");
    assert_fails(cab_json_number(&json, NULL, "x", &number), CAB_EFORMAT, "\"x\" is missing, expected a number");
    assert_ok(cab_json_number_or(&json, NULL, "x", 2.5, &number));
    assert_true(number == 2.5);
    assert_fails(cab_json_number_or(&json, NULL, "b", 2.5, &number), CAB_EFORMAT, "\"b\" is true (boolean)");
    assert_ok(cab_json_bool_or(&json, NULL, "b", false, &flag));
    assert_true(flag);
    assert_ok(cab_json_bool_or(&json, NULL, "n", false, &flag));
    assert_false(flag);
    assert_fails(cab_json_bool_or(&json, NULL, "i", false, &flag), CAB_EFORMAT, "expected true or false");
    assert_ok(cab_json_string(&json, NULL, "s", &text));
    assert_string_equal(text, "text");
    assert_fails(cab_json_string(&json, NULL, "i", &text), CAB_EFORMAT, "\"i\" is 7 (int), expected a string");
    assert_ok(cab_json_string_or(&json, NULL, "n", "other", &text));
    assert_string_equal(text, "other");
    assert_fails(cab_json_string_or(&json, NULL, "a", "other", &text), CAB_EFORMAT, "\"a\" is [1,2] (array)");
    assert_ok(cab_json_array(&json, NULL, "a", &inner));
    assert_int_equal(json_object_array_length(inner), 2);
    assert_fails(cab_json_array(&json, NULL, "o", &inner), CAB_EFORMAT, "expected an array");
    assert_fails(cab_json_object(&json, NULL, "a", &inner), CAB_EFORMAT, "expected an object");
    cab_json_close(&json);
}

static void hostile_text_stays_one_line(void **state)
{
    (void)state;
    cab_json json;
    int64_t value = 0;
    parse_text("{\"a\": \"\\u001b[2J\\nx\"}", &json);
    assert_fails(cab_json_int(&json, NULL, "a", 0, 1, &value), CAB_EFORMAT, "expected an integer");
    cab_json_close(&json);
    assert_fails(cab_fail(CAB_EFORMAT, "%s", "a\n\x1b[2Jb\x7f"), CAB_EFORMAT, "a\\n\\x1b[2Jb\\x7f");
    assert_fails(cab_fail(CAB_EFORMAT, "caf\xC3\xA9 \xC2\x9B"
                                       "2J \xE2\x80\xAE \xFF\t"),
                 CAB_EFORMAT, "caf\xC3\xA9 \\u009b2J \\u202e \\xff\\t");
}

static void any_bytes_become_utf8(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"", ""},
                                           {"a\xC3\xA4.jpg", "a\xC3\xA4.jpg"},
                                           {"bad\xFF", "bad\xEF\xBF\xBD"},
                                           {"\xE2\x82", "\xEF\xBF\xBD\xEF\xBF\xBD"},
                                           {"\xED\xA0\x80x", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDx"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        json_object *text = cab_json_text(pairs[i][0]);
        assert_string_equal(json_object_get_string(text), pairs[i][1]);
        json_object_put(text);
    }
}

/* As editors on Windows save it. */
static void byte_order_marks(void **state)
{
    cab_json json;
    const char *path = temp_path(state, "config.json");
    assert_ok(cab_file_write(path, "\xEF\xBB\xBF{\"a\": 1}", 11));
    assert_ok(cab_json_load(path, 100, &json));
    cab_json_close(&json);
    assert_ok(cab_file_write(path, "\xFF\xFE{\0}\0", 6));
    assert_fails(cab_json_load(path, 100, &json), CAB_EFORMAT,
                 "config.json: is UTF-16, expected UTF-8; convert it: iconv");
}

static void files(void **state)
{
    cab_json json;
    const char *path = temp_path(state, "doc.json");
    int64_t value = 0;
    parse_text("{\"z\": 1, \"a/b\": [1.5, NaN]}", &json);
    assert_ok(cab_json_save(json.root, path));
    cab_json_close(&json);
    char *text = NULL;
    size_t size = 0;
    assert_ok(cab_file_read(path, 1000, &text, &size));
    assert_string_equal(text, "{\n  \"z\": 1,\n  \"a/b\": [\n    1.5,\n    NaN\n  ]\n}\n");
    free(text);
    assert_ok(cab_json_load(path, size, &json));
    assert_ok(cab_json_int(&json, NULL, "z", 0, 1, &value));
    cab_json_close(&json);
    assert_fails(cab_json_load(path, size - 1, &json), CAB_EFORMAT, "doc.json: larger than the");
    assert_fails(cab_json_load(temp_path(state, "absent"), 10, &json), CAB_EIO, "absent: cannot open");
}

static void real_configuration(void **state)
{
    (void)state;
    const char *path = "../shared/teachers/books-gpt2/config.json";
    cab_json json;
    int64_t value = 0;
    const char *type = NULL;
    if (!cab_path_exists(path)) {
        print_message("no %s here\n", path);
        skip();
    }
    assert_ok(cab_json_load(path, 1 << 20, &json));
    assert_ok(cab_json_string(&json, NULL, "model_type", &type));
    assert_string_equal(type, "gpt2");
    assert_ok(cab_json_int(&json, NULL, "n_embd", 1, 65536, &value));
    assert_int_equal(value, 512);
    cab_json_close(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_no_json),
        cmocka_unit_test(refuses_depth),
        cmocka_unit_test(accepts_what_pytorch_writes),
        cmocka_unit_test(integers),
        cmocka_unit_test(other_types),
        cmocka_unit_test(hostile_text_stays_one_line),
        cmocka_unit_test(any_bytes_become_utf8),
        TEMP_TEST(byte_order_marks),
        TEMP_TEST(files),
        cmocka_unit_test(real_configuration),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
