/* test_safetensors.c - every way a header can lie, values and their conversion, and what the writer promises. */
#include "base/log.h"
#include "base/memory.h"
#include "io/safetensors.h"
#include "temp.h"

#include <math.h>

/* A file in memory: length, header, `body` bytes counting 0, 1, 2 ... The block has exactly the file's size, so that a
 * sanitizer sees any read beyond it. Freed by the caller. */
static uint8_t *build(const char *header, uint64_t length, size_t body, size_t *size)
{
    size_t text = strlen(header);
    *size = sizeof length + text + body;
    uint8_t *data = malloc(*size);
    memcpy(data, &length, sizeof length);
    memcpy(data + sizeof length, header, text);
    for (size_t i = 0; i < body; i++)
        data[sizeof length + text + i] = (uint8_t)i;
    return data;
}

static cab_status parse_once(const char *header, uint64_t length, size_t body)
{
    cab_safetensors *st = NULL;
    size_t size = 0;
    uint8_t *data = build(header, length, body, &size);
    cab_status status = cab_safetensors_parse(data, size, "bad.st", &st);
    assert_true((status == CAB_OK) == (st != NULL));
    cab_safetensors_close(st);
    free(data);
    return status;
}

#define ENTRY(dtype, shape, begin, end)                                                                                \
    "{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin "," #end "]}"
#define ONE(dtype, shape, begin, end) "{\"w\":" ENTRY(dtype, shape, begin, end) "}"

static void lying_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t body;
        const char *text;
    } cases[] = {
        {ONE("F32", "2", 0, 8), 7, "bad.st: tensor \"w\": data lies outside the file (0..8 of 7 bytes)"},
        {ONE("F32", "2", 4, 12), 8, "bad.st: tensor \"w\": data lies outside the file (4..12 of 8 bytes)"},
        {ONE("F32", "2", 8, 0), 8, "bad.st: tensor \"w\": data lies outside the file (8..0 of 8 bytes)"},
        {ONE("F32", "2", 0, 99999999999999999999999), 8, "lies outside the file (0..9223372036854775807 of 8 bytes)"},
        {ONE("F32", "2", -8, 0), 8, "\"data_offsets\" is [ -8, 0 ], expected [begin, end]"},
        {ONE("F32", "2", 0.0, 8), 8, "expected [begin, end]"},
        {ONE("F32", "3", 0, 8), 8, "bad.st: tensor \"w\": 8 bytes of data, its shape needs 12"},
        {ONE("BF16", "2,2", 0, 12), 12, "bad.st: tensor \"w\": 12 bytes of data, its shape needs 8"},
        {ONE("F32", "", 0, 8), 8, "bad.st: tensor \"w\": 8 bytes of data, its shape needs 4"},
        {ONE("F32", "4294967296,4294967296", 0, 0), 0, "its shape needs more than 2^64 bytes"},
        {ONE("F64", "2305843009213693952", 0, 0), 0, "its shape needs more than 2^64 bytes"},
        {ONE("F32", "0,3", 0, 4), 4, "4 bytes of data, its shape needs 0"},
        {ONE("F32", "-2", 0, 8), 8, "bad.st: tensor \"w\": dimension 0 is -2, expected a whole number from 0"},
        {ONE("F32", "1,1.5", 0, 8), 8, "dimension 1 is 1.5, expected a whole number"},
        {ONE("F32", "null", 0, 8), 8, "dimension 0 is null, expected a whole number"},
        {ONE("F32", "1,1,1,1,1,1,1,1,2", 0, 8), 8, "bad.st: tensor \"w\": 9 dimensions, expected at most 8"},
        {ONE("F31", "2", 0, 8), 8, "bad.st: tensor \"w\": unknown dtype \"F31\", expected F32, BF16, F16, F64"},
        {"{\"w\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "bad.st: tensor \"w\": unknown dtype \"?\""},
        {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "bad.st: tensor \"w\": no \"shape\" array"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "\"data_offsets\" is null, expected [begin, end]"},
        {"{\"w\":7}", 8, "bad.st: tensor \"w\": a JSON int, expected an object"},
        {"{\"w\":null}", 8, "bad.st: tensor \"w\": a JSON null, expected an object"},
        {"{\"w\":" ENTRY("F32", "2", 0, 8) ",\"v\":" ENTRY("F32", "2", 4, 12) "}", 12,
         "bad.st: tensors \"w\" and \"v\" overlap"},
        {"{\"w\":" ENTRY("F32", "3", 0, 12) ",\"v\":" ENTRY("F32", "1", 4, 8) "}", 12,
         "bad.st: tensors \"w\" and \"v\" overlap"},
        {"{\"w\":" ENTRY("F32", "1", 0, 4) ",\"w\":" ENTRY("F32", "1", 4, 8) "}", 8,
         "bad.st: a name appears twice in the header: \"w\""},
        {"{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "appears twice"},
        {"{\"__metadata__\":[]}", 0, "bad.st: \"__metadata__\" is a JSON array, expected an object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "bad.st: \"__metadata__\": \"a\" is a JSON int, expected a string"},
        {"[]", 0, "bad.st: the header does not begin with '{'"},
        {" {}", 0, "bad.st: the header does not begin with '{'"},
        {"{\"w\":", 0, "bad.st: JSON ends unfinished after 5 bytes"},
        {"{} {}", 0, "bad.st: not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_fails(parse_once(cases[i].header, strlen(cases[i].header), cases[i].body), CAB_EFORMAT, cases[i].text);
}

static void lying_lengths(void **state)
{
    (void)state;
    cab_safetensors *st = NULL;
    assert_fails(cab_safetensors_parse("", 0, "bad.st", &st), CAB_EFORMAT, "bad.st: 0 bytes, too short");
    assert_fails(cab_safetensors_parse("\1\0\0\0\0\0\0", 7, "bad.st", &st), CAB_EFORMAT, "bad.st: 7 bytes, too short");
    assert_fails(parse_once("{}", UINT64_C(1) << 60, 0), CAB_EFORMAT,
                 "bad.st: header of 1152921504606846976 bytes in a file of 10: truncated");
    assert_fails(parse_once("{}", UINT64_MAX, 0), CAB_EFORMAT, "header of 18446744073709551615 bytes");
    assert_fails(parse_once("{}", 3, 0), CAB_EFORMAT, "bad.st: header of 3 bytes in a file of 10: truncated");
    assert_fails(parse_once("{}", 0, 0), CAB_EFORMAT, "bad.st: the header does not begin with '{'");
    assert_fails(parse_once("{}", 1, 0), CAB_EFORMAT, "bad.st: JSON ends unfinished after 1 bytes");
}

static void depth_bomb(void **state)
{
    (void)state;
    enum { DEPTH = 200000 };
    char *bomb = malloc(DEPTH + 1);
    memset(bomb, '[', DEPTH);
    memcpy(bomb, "{\"w\":", 5);
    bomb[DEPTH] = '\0';
    assert_fails(parse_once(bomb, DEPTH, 0), CAB_EFORMAT, "bad.st: not valid JSON");
    free(bomb);
}

static void unusual_but_right(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{}",
        "{}      ",
        "{\"__metadata__\":{\"a:\\\"b\":\"c:d\\\\\"}}",
        ONE("F32", "1", 4, 8),                       /* a hole before it */
        ONE("F32", "0,9223372036854775807,3", 8, 8), /* no data, whatever the other sizes */
        ONE("BOOL", "2", 0, 2),                      /* in the format, of no use here */
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"later\":{\"x\":[{\"y\":1}]}}}",
        "{\"w\":" ENTRY("F32", "0", 4, 4) ",\"v\":" ENTRY("F32", "2", 0, 8) ",\"u\":" ENTRY("F32", "0", 4, 4) "}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        assert_ok(parse_once(headers[i], strlen(headers[i]), 8));
}

static void values_at_odd_addresses(void **state)
{
    (void)state;
    const char *header = "{\"w\":" ENTRY("F32", "2", 1, 9) "}";
    const float expected[2] = {-1.5f, 3.25f};
    const int64_t two = 2;
    cab_safetensors *st = NULL;
    size_t size = 0;
    float out[2];
    uint8_t *data = build(header, strlen(header), 9, &size);
    memcpy(data + size - 8, expected, 8);
    assert_ok(cab_safetensors_parse(data, size, "odd.st", &st));
    assert_ok(cab_safetensors_read_f32(st, "w", 1, &two, out));
    assert_memory_equal(out, expected, sizeof out);
    cab_safetensors_close(st);
    free(data);
}

/* ---- values ----------------------------------------------------------------------------------------------------- */

typedef struct item {
    const char *name;
    cab_dtype dtype;
    int n_dim;
    int64_t shape[CAB_SAFETENSORS_DIMS];
    const void *data;
} item;

static void save(const char *path, const item *items, size_t count)
{
    cab_safetensors_writer *writer = NULL;
    assert_ok(cab_safetensors_writer_new(&writer));
    for (size_t i = 0; i < count; i++)
        assert_ok(cab_safetensors_writer_add(writer, items[i].name, items[i].dtype, items[i].n_dim, items[i].shape,
                                             items[i].data));
    assert_ok(cab_safetensors_writer_save(writer, path));
    cab_safetensors_writer_free(writer);
}

static void conversions(void **state)
{
    static const double f64[4] = {1.0, -2.5, 0x1p-126, 65504.0};
    static const uint16_t bf16[4] = {0x3f80, 0xc020, 0x0080, 0x4780}, f16[4] = {0x3c00, 0xc100, 0x0001, 0x7bff};
    static const float as_bf16[4] = {1.0f, -2.5f, 0x1p-126f, 65536.0f}, as_f16[4] = {1.0f, -2.5f, 0x1p-24f, 65504.0f};
    static const float as_f64[4] = {1.0f, -2.5f, 0x1p-126f, 65504.0f};
    const item items[] = {{"double", CAB_F64, 2, {2, 2}, f64}, {"bf16", CAB_BF16, 1, {4}, bf16},
                          {"half", CAB_F16, 1, {4}, f16},      {"single", CAB_F32, 2, {4, 1}, as_f64},
                          {"scalar", CAB_F32, 0, {0}, as_f64}, {"int", CAB_I32, 1, {4}, as_f64},
                          {"none", CAB_F32, 2, {0, 5}, NULL}};
    const char *path = temp_path(state, "values.st");
    cab_safetensors *st = NULL;
    float out[4];
    save(path, items, sizeof items / sizeof *items);
    assert_ok(cab_safetensors_open(path, &st));
    assert_ok(cab_safetensors_read_f32(st, "double", 2, (int64_t[]){2, 2}, out));
    assert_memory_equal(out, as_f64, sizeof out);
    assert_ok(cab_safetensors_read_f32(st, "bf16", 1, (int64_t[]){4}, out));
    assert_memory_equal(out, as_bf16, sizeof out);
    assert_ok(cab_safetensors_read_f32(st, "half", 1, (int64_t[]){4}, out));
    assert_memory_equal(out, as_f16, sizeof out);
    assert_ok(cab_safetensors_read_f32(st, "single", 2, (int64_t[]){4, 1}, out));
    assert_memory_equal(out, as_f64, sizeof out);
    assert_ok(cab_safetensors_read_f32(st, "scalar", 0, NULL, out));
    assert_true(out[0] == 1.0f);
    assert_ok(cab_safetensors_read_f32(st, "none", 2, (int64_t[]){0, 5}, out));
    assert_fails(cab_safetensors_read_f32(st, "int", 1, (int64_t[]){4}, out), CAB_EFORMAT,
                 "values.st: tensor \"int\": stored as I32, expected F32, BF16, F16 or F64");
    assert_fails(cab_safetensors_read_f32(st, "absent", 1, (int64_t[]){4}, out), CAB_EFORMAT,
                 "values.st: tensor \"absent\" is missing");
    assert_fails(cab_safetensors_read_f32(st, "double", 2, (int64_t[]){2, 3}, out), CAB_ESHAPE,
                 "values.st: tensor \"double\": shape (2, 2), expected (2, 3)");
    assert_fails(cab_safetensors_read_f32(st, "double", 1, (int64_t[]){4}, out), CAB_ESHAPE,
                 "shape (2, 2), expected (4)");
    assert_fails(cab_safetensors_read_f32(st, "scalar", 1, (int64_t[]){1}, out), CAB_ESHAPE, "shape (), expected (1)");
    cab_safetensors_close(st);
}

/* Large enough for several threads and a last chunk that is not full; the first bad element is named whichever thread
 * finds it. */
static void values_that_are_not_finite(void **state)
{
    enum { N = 300007 };
    const int64_t shape[1] = {N};
    const char *path = temp_path(state, "nan.st");
    static const size_t places[] = {0, 4095, 4096, 299999, N - 1};
    float *values = calloc(N, sizeof *values), *out = malloc(N * sizeof *out);
    double huge[1] = {1e300};
    for (size_t i = 0; i < N; i++)
        values[i] = (float)i;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        cab_safetensors *st = NULL;
        char text[128];
        values[N - 1] = INFINITY;
        values[places[i]] = i % 2 == 0 ? NAN : -INFINITY;
        const item items[] = {{"w", CAB_F32, 1, {N}, values}, {"huge", CAB_F64, 1, {1}, huge}};
        save(path, items, 2);
        assert_ok(cab_safetensors_open(path, &st));
        snprintf(text, sizeof text, "nan.st: tensor \"w\": element %zu is %s, expected a finite", places[i],
                 i % 2 == 0 ? "nan" : "-inf");
        assert_fails(cab_safetensors_read_f32(st, "w", 1, shape, out), CAB_ENUMERIC, text);
        assert_fails(cab_safetensors_read_f32(st, "huge", 1, (int64_t[]){1}, out), CAB_ENUMERIC, "element 0 is inf");
        cab_safetensors_close(st);
        values[places[i]] = values[N - 1] = 1.0f;
    }
    const item items[] = {{"w", CAB_F32, 1, {N}, values}};
    cab_safetensors *st = NULL;
    save(path, items, 1);
    assert_ok(cab_safetensors_open(path, &st));
    assert_ok(cab_safetensors_read_f32(st, "w", 1, shape, out));
    assert_memory_equal(out, values, N * sizeof *out);
    cab_safetensors_close(st);
    free(values);
    free(out);
}

/* ---- writer ----------------------------------------------------------------------------------------------------- */

static void round_trip(void **state)
{
    static const uint8_t bytes[64] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const item items[] = {
        {"odd", CAB_U8, 1, {3}, bytes},
        {"b", CAB_BF16, 2, {3, 1}, bytes},
        {"a\"\\\n\xc3\xa9", CAB_F32, 1, {3}, bytes},
        {"i", CAB_I64, 0, {0}, bytes},
        {"d", CAB_F64, 1, {2}, bytes},
        {"u", CAB_U16, 1, {1}, bytes},
        {"deep", CAB_U8, 8, {1, 1, 2, 1, 1, 1, 1, 3}, bytes},
        {"n", CAB_I32, 1, {0}, NULL},
    };
    enum { COUNT = sizeof items / sizeof *items };
    const char *path = temp_path(state, "round.st"), *other = temp_path(state, "other.st");
    cab_safetensors *st = NULL;
    cab_safetensors_writer *writer = NULL;
    assert_ok(cab_safetensors_writer_new(&writer));
    for (size_t i = COUNT; i-- > 0;)
        assert_ok(cab_safetensors_writer_add(writer, items[i].name, items[i].dtype, items[i].n_dim, items[i].shape,
                                             items[i].data));
    assert_ok(cab_safetensors_writer_save(writer, other));
    save(path, items, COUNT);
    cab_map one, two;
    assert_ok(cab_map_open(path, &one));
    assert_ok(cab_map_open(other, &two));
    assert_int_equal(one.size, two.size);
    assert_memory_equal(one.data, two.data, one.size); /* whatever the order of adding */
    cab_map_close(&one);
    cab_map_close(&two);

    assert_ok(cab_safetensors_writer_metadata(writer, "format", "np"));
    assert_ok(cab_safetensors_writer_metadata(writer, "format", "pt"));
    assert_ok(cab_safetensors_writer_save(writer, path));
    cab_safetensors_writer_free(writer);
    assert_ok(cab_safetensors_open(path, &st));
    assert_int_equal(cab_safetensors_count(st), COUNT);
    assert_string_equal(cab_safetensors_metadata(st, "format"), "pt");
    assert_null(cab_safetensors_metadata(st, "absent"));
    for (size_t i = 0; i < COUNT; i++) {
        const cab_safetensors_entry *entry = cab_safetensors_find(st, items[i].name);
        assert_non_null(entry);
        assert_int_equal(entry->dtype, items[i].dtype);
        assert_string_equal(entry->dtype_name, cab_dtype_name(items[i].dtype));
        assert_ok(cab_safetensors_entry_check_shape(entry, items[i].n_dim, items[i].shape));
        assert_int_equal((uintptr_t)entry->data % cab_dtype_size(entry->dtype), 0);
        if (entry->bytes > 0)
            assert_memory_equal(entry->data, items[i].data, entry->bytes);
    }
    assert_null(cab_safetensors_find(st, "absent"));
    cab_safetensors_close(st);
}

/* The format's own library refuses holes: each tensor must begin where the one before it ends, the last at the file's
 * end. The body begins on a cache line. */
enum { STREAMED = 6, STREAMED_FLOATS = 1 << 10 };

/* Values that are nowhere until they are asked for: `source` is the first of them. */
typedef struct stream {
    const void *buffer; /* where values were asked for; the same every time */
    int reads, fail_at;
} stream;

static cab_status read_stream(void *user, const void *source, void *out, size_t bytes)
{
    stream *s = user;
    if (++s->reads == s->fail_at)
        return cab_fail(CAB_EBACKEND, "the device is gone");
    assert_true(s->buffer == NULL || s->buffer == out);
    s->buffer = out;
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        ((float *)out)[i] = *(const float *)source + (float)i;
    return CAB_OK;
}

/* Tensors that are read when they are written give the same file, through one buffer of one tensor's size; what cannot be read
 * leaves the old file. */
static void tensors_are_streamed(void **state)
{
    static const float first[STREAMED] = {1, 2000, 30000, 4, 5, 6};
    static float values[STREAMED][STREAMED_FLOATS];
    const char *whole = temp_path(state, "whole.st"), *streamed = temp_path(state, "streamed.st");
    for (int failing = 0; failing < 2; failing++) {
        cab_safetensors_writer *writers[2] = {NULL, NULL};
        stream s = {.fail_at = failing ? 3 : 0};
        for (int w = 0; w < 2; w++)
            assert_ok(cab_safetensors_writer_new(&writers[w]));
        for (int i = 0; i < STREAMED; i++) {
            char name[16];
            const int64_t shape[2] = {4, (STREAMED_FLOATS >> i) / 4};
            snprintf(name, sizeof name, "tensor %d", i);
            for (int k = 0; k < STREAMED_FLOATS; k++)
                values[i][k] = first[i] + (float)k;
            assert_ok(cab_safetensors_writer_add(writers[0], name, CAB_F32, 2, shape, values[i]));
            assert_ok(cab_safetensors_writer_add_from(writers[1], name, CAB_F32, 2, shape, read_stream, &s, &first[i]));
        }
        assert_ok(cab_safetensors_writer_save(writers[0], whole));
        if (failing)
            assert_fails(cab_safetensors_writer_save(writers[1], streamed), CAB_EBACKEND, "the device is gone");
        else
            assert_ok(cab_safetensors_writer_save(writers[1], streamed));
        assert_true(failing ? s.reads == 3 : s.reads >= STREAMED);
        for (int w = 0; w < 2; w++)
            cab_safetensors_writer_free(writers[w]);
        cab_map one, two;
        assert_ok(cab_map_open(whole, &one));
        assert_ok(cab_map_open(streamed, &two));
        assert_int_equal(one.size, two.size);
        assert_memory_equal(one.data, two.data, one.size);
        cab_map_close(&one);
        cab_map_close(&two);
    }
    assert_int_equal(temp_count_files(*state), 2); /* nothing half-written */
}

static void written_without_holes(void **state)
{
    static const uint8_t bytes[64];
    const item items[] = {{"x", CAB_U8, 1, {3}, bytes}, {"y", CAB_F32, 1, {5}, bytes}, {"z", CAB_BF16, 1, {7}, bytes}};
    const char *path = temp_path(state, "dense.st");
    cab_safetensors *st = NULL;
    cab_map map;
    uint64_t length = 0;
    save(path, items, 3);
    assert_ok(cab_safetensors_open(path, &st));
    assert_ok(cab_map_open(path, &map));
    memcpy(&length, map.data, sizeof length);
    assert_int_equal((length + 8) % 64, 0);
    assert_int_equal(map.size, 8 + length + 3 + 20 + 14);
    assert_string_equal(cab_safetensors_at(st, 0)->name, "y");
    assert_string_equal(cab_safetensors_at(st, 1)->name, "z");
    assert_string_equal(cab_safetensors_at(st, 2)->name, "x");
    const uint8_t *place = cab_safetensors_at(st, 0)->data;
    for (size_t i = 0; i < 3; i++) {
        assert_ptr_equal(cab_safetensors_at(st, i)->data, place);
        place += cab_safetensors_at(st, i)->bytes;
    }
    cab_map_close(&map);
    cab_safetensors_close(st);
}

static void writer_refuses(void **state)
{
    const int64_t shape[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, negative[1] = {-1}, large[2] = {INT64_MAX, INT64_MAX};
    const float value = 1;
    cab_safetensors_writer *writer = NULL;
    assert_ok(cab_safetensors_writer_new(&writer));
    assert_fails(cab_safetensors_writer_add(writer, "w", CAB_F32, 9, shape, &value), CAB_ESHAPE, "\"w\": 9 dimensions");
    assert_fails(cab_safetensors_writer_add(writer, "w", CAB_F32, 1, negative, &value), CAB_ESHAPE,
                 "dimension 0 is -1");
    assert_fails(cab_safetensors_writer_add(writer, "w", CAB_F32, 2, large, &value), CAB_ESHAPE, "dimension 0");
    assert_fails(cab_safetensors_writer_add(writer, "__metadata__", CAB_F32, 1, shape, &value), CAB_EARG, "reserved");
    assert_ok(cab_safetensors_writer_add(writer, "w", CAB_F32, 1, shape, &value));
    assert_fails(cab_safetensors_writer_save(writer, temp_path(state, "no/such.st")), CAB_EIO, "cannot create");
    assert_ok(cab_safetensors_writer_add(writer, "w", CAB_BF16, 1, shape, &value));
    assert_fails(cab_safetensors_writer_save(writer, temp_path(state, "w.st")), CAB_EARG,
                 "two tensors are named \"w\"");
    assert_int_equal(temp_count_files(*state), 0);
    cab_safetensors_writer_free(writer);
    cab_safetensors_writer_free(NULL);
}

static void an_empty_file_is_a_file(void **state)
{
    cab_safetensors *st = NULL;
    save(temp_path(state, "empty.st"), NULL, 0);
    assert_ok(cab_safetensors_open(temp_path(state, "empty.st"), &st));
    assert_int_equal(cab_safetensors_count(st), 0);
    assert_null(cab_safetensors_find(st, "w"));
    assert_null(cab_safetensors_metadata(st, "format"));
    cab_safetensors_close(st);
    cab_safetensors_close(NULL);
}

/* Every bit of a file of ours: its flip is an error, or it hides the name of the checksum and leaves every tensor as it is. */
static void flipped_bits_are_noticed(void **state)
{
    static const float values[5] = {1, 2, 3, 4, 5};
    const item items[] = {{"w", CAB_F32, 1, {5}, values}, {"v", CAB_U8, 1, {3}, values}};
    const char *path = temp_path(state, "flip.st");
    char *data = NULL;
    size_t size = 0, unnoticed = 0;
    save(path, items, 2);
    assert_ok(cab_file_read(path, 1 << 20, &data, &size));
    for (size_t bit = 0; bit < 8 * size; bit++) {
        cab_safetensors *st = NULL;
        data[bit / 8] = (char)(data[bit / 8] ^ 1 << bit % 8);
        if (cab_safetensors_parse(data, size, "flip.st", &st) == CAB_OK) {
            float out[5];
            unnoticed++;
            assert_null(cab_safetensors_metadata(st, "cab_checksum"));
            assert_ok(cab_safetensors_read_f32(st, "w", 1, (int64_t[]){5}, out));
            assert_memory_equal(out, values, sizeof values);
            assert_memory_equal(cab_safetensors_find(st, "v")->data, values, 3);
        }
        cab_safetensors_close(st);
        data[bit / 8] = (char)(data[bit / 8] ^ 1 << bit % 8);
    }
    print_message("%zu of %zu flips hide the checksum's name\n", unnoticed, 8 * size);
    assert_true(unnoticed < 8 * strlen("cab_checksum"));
    data[size - 1]++;
    cab_safetensors *st = NULL;
    assert_fails(cab_safetensors_parse(data, size, "flip.st", &st), CAB_EFORMAT,
                 "flip.st: damaged, or changed by a program");
    cab_free(data);
}

/* A checksum of another kind under our name is refused; without the name the file is anybody's. */
static void only_checksums_of_ours_are_verified(void **state)
{
    (void)state;
    static const char text[] = "{\"__metadata__\":{\"cab_checksum\":\"xxh64:0123456789abcdef\"}}";
    static const struct {
        const char *from, *to;
        const char *error; /* NULL: accepted */
    } cases[] = {{"cab_checksum", "a_b_checksum", NULL},
                 {"xxh64", "md5:x", "\"cab_checksum\" is \"md5:x:0123456789abcdef\", which cab has not written"},
                 {":\"xx", ": xx", "flip.st"},
                 {"0123", "9123", "flip.st: damaged"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t data[8 + sizeof text] = {sizeof text - 1};
        cab_safetensors *st = NULL;
        memcpy(data + 8, text, sizeof text);
        char *at = strstr((char *)data + 8, cases[i].from);
        assert_non_null(at);
        memcpy(at, cases[i].to, strlen(cases[i].to));
        cab_status status = cab_safetensors_parse(data, 8 + sizeof text - 1, "flip.st", &st);
        if (cases[i].error == NULL)
            assert_ok(status);
        else
            assert_fails(status, CAB_EFORMAT, cases[i].error);
        cab_safetensors_close(st);
    }
}

/* ---- real files --------------------------------------------------------------------------------------------------- */

static void real_files(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t tensors;
    } files[] = {
        {"../shared/teachers/tales-gpt2/golden.safetensors", 11},
        {"../shared/teachers/vit-tiny/model.safetensors", 152},
        {"../shared/golden/hf_mamba/golden.safetensors", 39},
        {"../shared/golden/phi_mamba_small.safetensors", 152},
        {"../shared/golden/vim_small.safetensors", 378},
    };
    size_t seen = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        cab_safetensors *st = NULL;
        if (!cab_path_exists(files[i].path)) {
            print_message("no %s here\n", files[i].path);
            continue;
        }
        seen++;
        assert_ok(cab_safetensors_open(files[i].path, &st));
        assert_int_equal(cab_safetensors_count(st), files[i].tensors);
        for (size_t k = 0; k < files[i].tensors; k++) {
            const cab_safetensors_entry *entry = cab_safetensors_at(st, k);
            float *out = NULL;
            assert_ptr_equal(cab_safetensors_find(st, entry->name), entry);
            if (entry->dtype == CAB_I32)
                continue;
            assert_int_equal(entry->dtype, CAB_F32);
            assert_ok(cab_alloc((void **)&out, entry->bytes, 1, "values"));
            assert_ok(cab_safetensors_entry_read_f32(entry, entry->n_dim, entry->shape, out));
            assert_memory_equal(out, entry->data, entry->bytes);
            cab_free(out);
        }
        cab_safetensors_close(st);
    }
    if (seen == 0)
        skip();
}

/* A sanitizer's allocator takes memory of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool memory_is_told = false;
#elif defined(__has_feature)
static const bool memory_is_told = !(__has_feature(address_sanitizer) || __has_feature(thread_sanitizer));
#else
static const bool memory_is_told = true;
#endif

/* A header of many tensors takes little more than their table: 64 bytes of JSON each, 300 MB as one JSON document. */
static void many_empty_tensors(void **state)
{
    enum { COUNT = 100000, LINE = 80 };
    (void)state;
    char *file = NULL;
    size_t at = 8;
    cab_safetensors *st = NULL;
    assert_ok(CAB_NEW(&file, (size_t)COUNT * LINE + 16, "a header"));
    file[at++] = '{';
    for (int i = 0; i < COUNT; i++)
        at += (size_t)sprintf(file + at, "%s\"tensor.%d\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}",
                              i == 0 ? "" : ",", i);
    file[at++] = '}';
    const uint64_t length = at - 8;
    memcpy(file, &length, sizeof length);
    const double before = cab_peak_memory();
    assert_ok(cab_safetensors_parse(file, at, "many.st", &st));
    if (memory_is_told)
        assert_true(cab_peak_memory() - before < 60e6);
    assert_int_equal(cab_safetensors_count(st), COUNT);
    assert_string_equal(cab_safetensors_at(st, COUNT - 1)->name, "tensor.99999");
    assert_ptr_equal(cab_safetensors_find(st, "tensor.777"), cab_safetensors_at(st, 777));
    cab_safetensors_close(st);
    cab_free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_empty_tensors),
        cmocka_unit_test(lying_headers),
        cmocka_unit_test(lying_lengths),
        cmocka_unit_test(depth_bomb),
        cmocka_unit_test(unusual_but_right),
        cmocka_unit_test(values_at_odd_addresses),
        TEMP_TEST(conversions),
        TEMP_TEST(values_that_are_not_finite),
        TEMP_TEST(round_trip),
        TEMP_TEST(tensors_are_streamed),
        TEMP_TEST(written_without_holes),
        TEMP_TEST(writer_refuses),
        TEMP_TEST(an_empty_file_is_a_file),
        TEMP_TEST(flipped_bits_are_noticed),
        cmocka_unit_test(only_checksums_of_ours_are_verified),
        cmocka_unit_test(real_files),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
