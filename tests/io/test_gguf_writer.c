/* test_gguf_writer.c - what is written comes back by the reader: metadata, values, places; a failure leaves the old file. */
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "temp.h"

#include <math.h>

/* Element i of tensor `source`; the 1000th of one named "bad" is too large for fp16. */
static cab_status wave(void *user, const void *source, int64_t first, int64_t count, float *out)
{
    const int *limit = user;
    for (int64_t i = 0; i < count; i++)
        out[i] = first + i == *limit ? 1e6f : (float)sin((double)(first + i) * 0.37 + strlen(source));
    return CAB_OK;
}

static cab_status failing(void *user, const void *source, int64_t first, int64_t count, float *out)
{
    (void)user;
    (void)source;
    (void)out;
    return first + count > 300000 ? cab_fail(CAB_ENUMERIC, "the source is damaged") : CAB_OK;
}

static cab_status add(cab_gguf_writer *w, const char *name, cab_dtype dtype, int n_dim, int64_t rows, int64_t columns,
                      int *limit)
{
    const int64_t shape[2] = {rows, columns};
    return cab_gguf_writer_tensor(w, name, dtype, n_dim, n_dim == 1 ? shape + 1 : shape, wave, limit, name);
}

static void compare(const cab_gguf *g, const char *name, int64_t rows, int64_t columns, double tolerance)
{
    const cab_safetensors_entry *e = cab_gguf_find(g, name);
    const size_t n = (size_t)(rows > 0 ? rows * columns : columns);
    float *values = malloc(n * sizeof *values);
    assert_non_null(e);
    assert_int_equal(e->n_dim, rows > 0 ? 2 : 1);
    assert_int_equal((uintptr_t)e->data % 32, 0);
    const int64_t shape[2] = {rows, columns};
    assert_ok(cab_safetensors_entry_read_f32(e, e->n_dim, rows > 0 ? shape : shape + 1, values));
    for (size_t i = 0; i < n; i++)
        if (fabs((double)values[i] - (double)(float)sin((double)i * 0.37 + strlen(name))) > tolerance)
            fail_msg("%s: element %zu is %g", name, i, (double)values[i]);
    free(values);
}

static void what_is_written_comes_back(void **state)
{
    const char *path = temp_path(state, "a.gguf");
    cab_gguf_writer *w = NULL;
    cab_gguf *g = NULL;
    uint64_t bytes = 0;
    int none = -1;
    assert_ok(cab_gguf_writer_new(&w));
    json_object *words = json_tokener_parse("[\"a\", \"\\u0120b\", \"\"]"), *types = json_tokener_parse("[1, 3, -6]"),
                *scores = json_tokener_parse("[0.5, -1e6]");
    assert_ok(cab_gguf_writer_text(w, "general.architecture", "toy"));
    assert_ok(cab_gguf_writer_u32(w, "toy.count", 4000000000u));
    assert_ok(cab_gguf_writer_f32(w, "toy.eps", 0.25));
    assert_ok(cab_gguf_writer_bool(w, "toy.flag", true));
    assert_ok(cab_gguf_writer_json(w, "toy.words", words));
    assert_ok(cab_gguf_writer_json(w, "toy.types", types));
    assert_ok(cab_gguf_writer_json(w, "toy.scores", scores));
    assert_ok(add(w, "vector", CAB_F32, 1, 0, 300001, &none)); /* more than one piece */
    assert_ok(add(w, "matrix", CAB_F32, 2, 3, 5, &none));
    assert_ok(add(w, "half", CAB_F16, 2, 700, 501, &none));
    assert_ok(add(w, "bf16", CAB_BF16, 2, 2, 270000, &none)); /* a row is more than a piece */
    assert_ok(add(w, "eight", CAB_Q8_0, 2, 5000, 96, &none));
    assert_ok(add(w, "four", CAB_Q4_0, 2, 3, 32, &none));
    assert_int_equal(add(w, "four", CAB_Q4_0, 2, 3, 33, &none), CAB_ESHAPE);
    assert_ok(cab_gguf_writer_save(w, path, &bytes));
    assert_ok(cab_gguf_open(path, &g));
    assert_string_equal(
        json_object_to_json_string_ext(cab_gguf_metadata(g)->root, JSON_C_TO_STRING_PLAIN),
        "{\"general.architecture\":\"toy\",\"toy.count\":4000000000,\"toy.eps\":0.25,\"toy.flag\":true,"
        "\"toy.words\":[\"a\",\"\u0120b\",\"\"],\"toy.types\":[1,3,-6],\"toy.scores\":[0.5,-1000000.0]}");
    assert_int_equal(cab_gguf_count(g), 6);
    compare(g, "vector", 0, 300001, 0);
    compare(g, "matrix", 3, 5, 0);
    compare(g, "half", 700, 501, 0.0003);
    compare(g, "bf16", 2, 270000, 0.003);
    compare(g, "eight", 5000, 96, 0.5 / 127 + 0.0005);
    compare(g, "four", 3, 32, 1.0 / 8 + 0.001);
    FILE *file = fopen(path, "rb");
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    assert_int_equal(ftell(file), bytes);
    fclose(file);
    cab_gguf_close(g);
    cab_gguf_writer_free(w);
    json_object_put(words);
    json_object_put(types);
    json_object_put(scores);
}

static void a_failure_leaves_the_old_file(void **state)
{
    char text[8] = "";
    const char *path = temp_path(state, "b.gguf");
    cab_gguf_writer *w = NULL;
    uint64_t bytes = 0;
    int large = 1000;
    const int64_t shape[1] = {400000};
    FILE *old = fopen(path, "w");
    fputs("old", old);
    fclose(old);
    assert_ok(cab_gguf_writer_new(&w));
    assert_ok(add(w, "bad", CAB_F16, 2, 40, 50, &large));
    assert_int_equal(cab_gguf_writer_save(w, path, &bytes), CAB_ENUMERIC);
    assert_non_null(strstr(cab_error_text(), "tensor \"bad\" has values too large for F16; bf16 and f32 hold them"));
    cab_gguf_writer_free(w);
    assert_ok(cab_gguf_writer_new(&w));
    assert_ok(cab_gguf_writer_tensor(w, "w", CAB_F32, 1, shape, failing, NULL, NULL));
    assert_int_equal(cab_gguf_writer_save(w, path, &bytes), CAB_ENUMERIC);
    assert_string_equal(cab_error_text(), "the source is damaged");
    cab_gguf_writer_free(w);
    old = fopen(path, "r");
    assert_non_null(fgets(text, sizeof text, old));
    fclose(old);
    assert_string_equal(text, "old");
    assert_int_equal(temp_count_files(*state), 1);
}

static void odd_metadata_is_refused(void **state)
{
    (void)state;
    cab_gguf_writer *w = NULL;
    json_object *mixed = json_tokener_parse("[1, \"a\"]"), *object = json_tokener_parse("{}");
    assert_ok(cab_gguf_writer_new(&w));
    assert_int_equal(cab_gguf_writer_json(w, "k", mixed), CAB_EFORMAT);
    assert_string_equal(cab_error_text(), "\"k\": \"a\" cannot be written, expected a string, a number or a boolean");
    assert_int_equal(cab_gguf_writer_json(w, "k", object), CAB_EFORMAT);
    cab_gguf_writer_free(w);
    json_object_put(mixed);
    json_object_put(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(what_is_written_comes_back), TEMP_TEST(a_failure_leaves_the_old_file),
                                       TEMP_TEST(odd_metadata_is_refused)};
    return cmocka_run_group_tests_name("gguf_writer", tests, NULL, NULL);
}
