/* test_text.c - documents out of .txt and .jsonl, plain and compressed; token files; everything that can be wrong with
 * them. Files are made in a fresh directory under $TMPDIR. */
#include "base/file.h"
#include "base/memory.h"
#include "data/buffer.h"
#include "data/scratch.h"
#include "data/text.h"
#include "data/tokens.h"

#include <archive.h>
#include <archive_entry.h>

/* All documents of a file, joined by '|'. */
static cab_status read_all(const char *path, cab_bytes *out)
{
    cab_text *t = NULL;
    const char *document = NULL;
    size_t size = 0;
    out->count = 0;
    CAB_TRY(cab_text_open(path, &(cab_text_options){.separator = "<|endoftext|>", .field = "text"}, &t));
    cab_status status = CAB_OK;
    while ((status = cab_text_next(t, &document, &size)) == CAB_OK && document != NULL) {
        if (out->count > 0)
            assert_ok(cab_bytes_append(out, "|", 1));
        assert_ok(cab_bytes_append(out, document, size));
    }
    cab_text_close(t);
    return status;
}

static void check_documents(const char *path, const char *expected)
{
    cab_bytes all = {0};
    assert_ok(read_all(path, &all));
    if (all.count != strlen(expected) || (all.count > 0 && memcmp(all.data, expected, all.count) != 0))
        fail_msg("%s: read \"%.*s\", expected \"%s\"", path, (int)all.count, all.data, expected);
    cab_bytes_free(&all);
}

static void check_fails(const char *path, cab_status expected, const char *words)
{
    cab_bytes all = {0};
    check_error(read_all(path, &all), expected, path, words);
    cab_bytes_free(&all);
}

/* data[0..size) as `path`, through a filter of libarchive ("gzip", "xz", "zstd"). */
static void write_compressed(const char *path, const char *filter, const void *data, size_t size)
{
    struct archive *a = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    assert_int_equal(archive_write_add_filter_by_name(a, filter), ARCHIVE_OK);
    assert_int_equal(archive_write_set_format_raw(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    archive_entry_set_filetype(entry, AE_IFREG);
    assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(a, data, size), (la_ssize_t)size);
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_entry_free(entry);
    archive_write_free(a);
}

static const char story[] =
    "first\nstory\n<|endoftext|>\n\n second\t\r\n<|endoftext|>\r\n<|endoftext|>\nthird <|endoftext|>\n";
static const char story_documents[] = "first\nstory|second|third <|endoftext|>";

static void test_txt(void **state)
{
    const char *path = scratch_text(state, "a.txt", story);
    check_documents(path, story_documents);
    check_documents(scratch_text(state, "one.txt", "no newline at the end"), "no newline at the end");
    check_documents(scratch_text(state, "empty.txt", ""), "");
    check_documents(scratch_text(state, "blank.txt", "\n\n<|endoftext|>\n \n"), "");
    check_documents(scratch_text(state, "end.txt", "a\n<|endoftext|>"), "a");
}

static void test_jsonl(void **state)
{
    check_documents(scratch_text(state, "a.jsonl",
                                 "{\"text\": \" one\\n\", \"id\": 1}\n\n{\"id\":2,\"text\":\"\"}\n"
                                 "  {\"text\":\"caf\\u00e9 \xC3\xA9\"}\r\n{\"text\":\"last\"}"),
                    " one\n|caf\xC3\xA9 \xC3\xA9|last");
}

/* Pairs that json-c itself gets wrong, a lone half, and backslashes that escape each other. */
static void test_escapes(void **state)
{
    check_documents(
        scratch_text(state, "e.jsonl",
                     "{\"text\":\"\\uD83D\\uDE00 \\ud836\\udc1e\"}\n{\"text\":\"\\ud836 \\\\ud836\\udc1e\"}\n"),
        "\xF0\x9F\x98\x80 \xF0\x9D\xA0\x9E|\uFFFD \\ud836\uFFFD");
}

static void test_compressed(void **state)
{
    static const struct {
        const char *name, *filter;
    } kinds[] = {{"a.txt.gz", "gzip"}, {"a.txt.xz", "xz"}, {"a.txt.zst", "zstd"}};
    for (size_t i = 0; i < 3; i++) {
        const char *path = scratch_path(state, kinds[i].name);
        write_compressed(path, kinds[i].filter, story, sizeof story - 1);
        check_documents(path, story_documents);
    }
}

/* Many documents, many buffers: boundaries fall everywhere. */
static void test_long_file(void **state)
{
    cab_bytes text = {0}, all = {0};
    for (int i = 0; i < 40000; i++) {
        char line[64];
        int size = snprintf(line, sizeof line, "%d %.*s\n<|endoftext|>\n", i, i % 37,
                            "abcdefghijklmnopqrstuvwxyzabcdefghijklmnop");
        assert_ok(cab_bytes_append(&text, line, (size_t)size));
    }
    const char *plain = scratch_data(state, "long.txt", text.data, text.count);
    const char *packed = scratch_path(state, "long.txt.zst");
    write_compressed(packed, "zstd", text.data, text.count);
    assert_ok(read_all(plain, &all));
    const char *at = all.data, *end = all.data + all.count;
    for (int i = 0; i < 40000; i++) {
        char *next = NULL;
        assert_int_equal(strtol(at, &next, 10), i);
        at = memchr(next, '|', (size_t)(end - next));
        at = at == NULL ? end : at + 1;
    }
    assert_ptr_equal(at, end);
    cab_bytes again = {0};
    assert_ok(read_all(packed, &again));
    assert_int_equal(again.count, all.count);
    assert_memory_equal(again.data, all.data, all.count);
    cab_bytes_free(&text);
    cab_bytes_free(&all);
    cab_bytes_free(&again);
}

/* A file from Windows and a file with a mark hold what the plain file holds. */
static void test_line_ends_and_marks(void **state)
{
    check_documents(scratch_text(state, "crlf.txt", "first\r\nstory\r\n<|endoftext|>\r\nsecond\r\n"),
                    "first\nstory|second");
    check_documents(scratch_text(state, "cr.txt", "a\rb\r\r\nc"), "a\rb\r\nc");
    check_documents(scratch_text(state, "mark.txt",
                                 "\xEF\xBB\xBF"
                                 "a \xEF\xBB\xBF"
                                 "b"),
                    "a \xEF\xBB\xBF"
                    "b");
    check_documents(scratch_text(state, "mark.jsonl", "\xEF\xBB\xBF{\"text\":\"a\\r\\n\"}\r\n{\"text\":\"b\"}\r\n"),
                    "a\r\n|b");
    check_documents(scratch_text(state, "mark.csv", "\xEF\xBB\xBFtext\r\na\r\n"), "a");
    check_documents(scratch_text(state, "only.txt", "\xEF\xBB\xBF"), "");
}

static void test_utf16(void **state)
{
    static const char little[] = "\xFF\xFE"
                                 "a\0b\0",
                      big[] = "\xFE\xFF\0a\0b", bare[] = "{\0\"\0t\0e\0", wide[] = "\xFF\xFE\0\0a\0\0\0";
    check_fails(scratch_data(state, "l.txt", little, sizeof little - 1), CAB_EFORMAT,
                "is UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW");
    check_fails(scratch_data(state, "b.md", big, sizeof big - 1), CAB_EFORMAT, "is UTF-16, expected");
    check_fails(scratch_data(state, "n.jsonl", bare, sizeof bare - 1), CAB_EFORMAT, "iconv -f UTF-16LE");
    check_fails(scratch_data(state, "w.csv", wide, sizeof wide - 1), CAB_EFORMAT, "is UTF-32");
}

static void test_json(void **state)
{
    check_documents(scratch_text(state, "a.json",
                                 " [ {\"text\": \"one }\\\"\"},\n{\"id\":[{}],\"text\":\"\"} , {\"text\":\"two\"}]\n"),
                    "one }\"|two");
    check_documents(scratch_text(state, "o.json", "{\n  \"text\": \"one\"\n}\n"), "one");
    check_documents(scratch_text(state, "l.json", "{\"text\":\"one\"}\n{\"text\":\"two\"}"), "one|two");
    check_documents(scratch_text(state, "e.json", "[]"), "");
    check_fails(scratch_text(state, "1.json", "[{\"text\":\"one\"}"), CAB_EFORMAT,
                "after 1 objects, at byte 15: found the end");
    check_fails(scratch_text(state, "2.json", "[{\"text\":\"one\"} {}]"), CAB_EFORMAT,
                "found '{', expected ',' or ']'");
    check_fails(scratch_text(state, "3.json", "[\"one\"]"), CAB_EFORMAT, "expected an object");
    check_fails(scratch_text(state, "4.json", "[{\"text\":\"one"), CAB_EFORMAT, "object 1 ends unfinished");
    check_fails(scratch_text(state, "5.json", "[{\"text\":\"one\"}] x"), CAB_EFORMAT, "found 'x', expected the end");
    check_fails(scratch_text(state, "6.json", "[{\"content\":\"one\",\"id\":4}]"), CAB_EFORMAT,
                "string field \"text\" (text_field chooses it); its fields: content, id (int)");
}

static void test_csv(void **state)
{
    check_documents(scratch_text(state, "a.csv", "id,text\n1,one\n2,\"two, \"\"quoted\"\"\r\nand more\"\n\n3,\n4,last"),
                    "one|two, \"quoted\"\nand more|last");
    check_documents(scratch_text(state, "a.tsv", "text\tid\r\none, two\t1\r\n"), "one, two");
    check_documents(scratch_text(state, "names.csv", "text\n"), "");
    check_fails(scratch_text(state, "1.csv", "id,content\n1,one\n"), CAB_EFORMAT,
                "no column \"text\" (text_field chooses it); its columns: id, content");
    check_fails(scratch_text(state, "2.csv", "text,id\na,1\nb\n"), CAB_EFORMAT, "line 3: 1 fields, expected 2");
    check_fails(scratch_text(state, "3.csv", "text\n\"a\nb\n"), CAB_EFORMAT, "a double quote without its end");
    check_fails(scratch_text(state, "4.csv", "text\n\"a\nb\"c\n"), CAB_EFORMAT, "line 3: a double quote");
    check_fails(scratch_text(state, "5.csv", "text\n\xFF\n"), CAB_EFORMAT, "not UTF-8: byte 0xFF at offset 5");
}

static void test_bad_text(void **state)
{
    check_fails(scratch_path(state, "absent.txt"), CAB_EIO, "cannot open");
    check_fails(scratch_path(state, "absent.txt.gz"), CAB_EIO, "cannot open");
    check_fails(scratch_text(state, "a.pdf", "x"), CAB_EUNSUPPORTED, ".jsonl");
    check_fails(scratch_text(state, "bad.txt", "good\n<|endoftext|>\nab\xFF"), CAB_EFORMAT,
                "document 2 is not UTF-8: byte 0xFF at offset 21");
    check_fails(scratch_text(state, "bad.jsonl", "{\"text\":\"a\"}\n{\"text\":\"\xC3\"}\n"), CAB_EFORMAT,
                "document 2 is not UTF-8: byte 0xC3 at offset 22");
    check_fails(scratch_text(state, "half.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"\n"), CAB_EFORMAT, "line 2");
    check_fails(scratch_text(state, "more.jsonl", "{\"text\":\"a\"} {}\n"), CAB_EFORMAT, "line 1");
    check_fails(scratch_text(state, "field.jsonl", "{\"content\":\"a\"}\n"), CAB_EFORMAT, "string field \"text\"");
    check_fails(scratch_text(state, "type.jsonl", "{\"text\":1}\n"), CAB_EFORMAT, "string field \"text\"");
    check_fails(scratch_text(state, "list.jsonl", "[1]\n"), CAB_EFORMAT, "line 1");
    check_fails(scratch_text(state, "plain.txt.gz", "this is no archive"), CAB_EFORMAT, "gzip");
    check_fails(scratch_text(state, "plain.txt.xz", "this is no archive"), CAB_EFORMAT, "xz");
    check_fails(scratch_text(state, "plain.txt.zst", "this is no archive"), CAB_EFORMAT, "zstd");
}

static void test_truncated_archives(void **state)
{
    static const struct {
        const char *name, *cut, *filter;
    } kinds[] = {{"w.txt.gz", "c.txt.gz", "gzip"}, {"w.txt.xz", "c.txt.xz", "xz"}, {"w.txt.zst", "c.txt.zst", "zstd"}};
    cab_bytes text = {0};
    for (uint32_t i = 0, x = 1; i < 20000; i++, x = x * 1664525u + 1013904223u) {
        char word[16];
        assert_ok(cab_bytes_append(&text, word, (size_t)snprintf(word, sizeof word, "%u\n", x)));
    }
    for (size_t i = 0; i < 3; i++) {
        const char *path = scratch_path(state, kinds[i].name);
        cab_map map;
        write_compressed(path, kinds[i].filter, text.data, text.count);
        assert_ok(cab_map_open(path, &map));
        check_fails(scratch_data(state, kinds[i].cut, map.data, map.size / 2), CAB_EFORMAT, "truncated");
        check_fails(scratch_data(state, kinds[i].cut, map.data, map.size - 3), CAB_EFORMAT, "truncated");
        cab_map_close(&map);
    }
    cab_bytes_free(&text);
}

/* One flipped bit in the packed text or in a checksum. (libarchive writes zstd without one.) */
static void test_damaged_archives(void **state)
{
    static const struct {
        const char *name, *flipped, *filter;
        size_t trailer; /* bytes from the end where a checksum lies */
    } kinds[] = {{"w.txt.gz", "f.txt.gz", "gzip", 8}, {"w.txt.xz", "f.txt.xz", "xz", 40}};
    cab_bytes text = {0};
    for (uint32_t i = 0, x = 1; i < 2000; i++, x = x * 1664525u + 1013904223u) {
        char word[16];
        assert_ok(cab_bytes_append(&text, word, (size_t)snprintf(word, sizeof word, "%u\n", x)));
    }
    for (size_t i = 0; i < 2; i++) {
        const char *path = scratch_path(state, kinds[i].name), *flipped = scratch_path(state, kinds[i].flipped);
        char *packed = NULL;
        size_t size = 0;
        write_compressed(path, kinds[i].filter, text.data, text.count);
        assert_ok(cab_file_read(path, 1 << 20, &packed, &size));
        const size_t places[] = {size / 2, size / 3, size - kinds[i].trailer};
        for (size_t k = 0; k < 3; k++) {
            packed[places[k]] ^= 1;
            assert_ok(cab_file_write(flipped, packed, size));
            check_fails(flipped, CAB_EFORMAT, "damaged or truncated");
            packed[places[k]] ^= 1;
        }
        cab_free(packed);
    }
    cab_bytes_free(&text);
}

/* Members of gzip one after the other are one text; anything else behind the last is an error. */
static void test_gzip_members(void **state)
{
    const char *path = scratch_path(state, "m.txt.gz");
    char *packed = NULL;
    size_t size = 0;
    cab_bytes both = {0};
    write_compressed(path, "gzip", "one\n", 4);
    assert_ok(cab_file_read(path, 1 << 20, &packed, &size));
    assert_ok(cab_bytes_append(&both, packed, size));
    assert_ok(cab_bytes_append(&both, packed, size));
    check_documents(scratch_data(state, "both.txt.gz", both.data, both.count), "one\none");
    assert_ok(cab_bytes_append(&both, "\0\0\0", 3));
    check_documents(scratch_data(state, "zeros.txt.gz", both.data, both.count), "one\none");
    assert_ok(cab_bytes_append(&both, "x", 1));
    check_fails(scratch_data(state, "more.txt.gz", both.data, both.count), CAB_EFORMAT, "other bytes follow its end");
    cab_bytes_free(&both);
    cab_free(packed);
}

/* Zeros in a few kilobytes: more than the 64 MiB that a small file may become, or than was asked for. */
static void test_expansion(void **state)
{
    enum { LARGE = 80 << 20, SMALL = 4 << 20 };
    static const char *const names[][2] = {{"bomb.txt.gz", "gzip"}, {"bomb.txt.xz", "xz"}, {"bomb.txt.zst", "zstd"}};
    const cab_text_options one = {.separator = "--", .field = "text", .limits.total = 1 << 20};
    char *zeros = calloc(1, LARGE);
    assert_non_null(zeros);
    write_compressed(scratch_path(state, "large.txt.gz"), "gzip", zeros, LARGE);
    check_fails(scratch_path(state, "large.txt.gz"), CAB_EFORMAT, "expands to more than 64 MiB from");
    for (size_t i = 0; i < 3; i++) {
        const char *path = scratch_path(state, names[i][0]), *document = NULL;
        cab_text *t = NULL;
        size_t size = 0;
        write_compressed(path, names[i][1], zeros, SMALL);
        assert_ok(cab_text_open(path, &one, &t));
        check_error(cab_text_next(t, &document, &size), CAB_EFORMAT, path, "expands to more than 1 MiB from");
        assert_non_null(strstr(cab_error_text(), "max_expanded"));
        cab_text_close(t);
    }
    free(zeros);
    cab_text *t = NULL;
    const char *path = scratch_text(state, "long.txt", "a line of some length\n");
    const cab_text_options small = {.separator = "--", .field = "text", .limits.member = 10};
    check_error(cab_text_open(path, &small, &t), CAB_EFORMAT, path, "max_member");
}

/* ---- token files ------------------------------------------------------------------------------------------------------ */

/* A .npy of the given header text and body. */
static const char *write_npy(void **state, const char *name, int version, const char *dictionary, const void *body,
                             size_t size)
{
    cab_bytes file = {0};
    size_t length = strlen(dictionary);
    char head[12] = {'\x93', 'N', 'U', 'M', 'P', 'Y', (char)version, 0, (char)length, (char)(length >> 8), 0, 0};
    assert_ok(cab_bytes_append(&file, head, version == 1 ? 10 : 12));
    assert_ok(cab_bytes_append(&file, dictionary, length));
    assert_ok(cab_bytes_append(&file, body, size));
    const char *path = scratch_data(state, name, file.data, file.count);
    cab_bytes_free(&file);
    return path;
}

static void check_tokens(const char *path, cab_token_type bin_type, const int64_t *expected, size_t count)
{
    cab_tokens tokens;
    assert_ok(cab_tokens_open(path, bin_type, &tokens));
    assert_int_equal(tokens.count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(cab_tokens_get(&tokens, i), expected[i]);
    cab_tokens_close(&tokens);
}

static void test_token_files(void **state)
{
    static const uint16_t u16[] = {1, 2, 65535};
    static const uint32_t u32[] = {1, 2, 4000000000};
    static const int32_t i32[] = {1, -2, 3};
    static const int64_t i64[] = {1, 2, INT64_MAX};
    check_tokens(scratch_data(state, "a.bin", u16, sizeof u16), CAB_TOKEN_U16, (int64_t[]){1, 2, 65535}, 3);
    check_tokens(scratch_data(state, "b.bin", u32, sizeof u32), CAB_TOKEN_U32, (int64_t[]){1, 2, 4000000000}, 3);
    check_tokens(
        write_npy(state, "a.npy", 1, "{'descr': '<u2', 'fortran_order': False, 'shape': (3,), }   \n", u16, sizeof u16),
        0, (int64_t[]){1, 2, 65535}, 3);
    check_tokens(write_npy(state, "b.npy", 2, "{'shape':(3,),'descr':\"<u4\",'fortran_order':True}\n", u32, sizeof u32),
                 0, (int64_t[]){1, 2, 4000000000}, 3);
    check_tokens(
        write_npy(state, "c.npy", 3, "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }\n", i32, sizeof i32), 0,
        (int64_t[]){1, -2, 3}, 3);
    check_tokens(
        write_npy(state, "d.npy", 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }\n", i64, sizeof i64), 0,
        i64, 3);
}

static void test_bad_token_files(void **state)
{
#define NPY(descr, shape) "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }\n"
    static const uint16_t u16[] = {1, 2, 3};
    static const struct {
        const char *dictionary;
        int version;
        cab_status status;
        const char *words;
    } bad[] = {
        {NPY("<f4", "(3,)"), 1, CAB_EUNSUPPORTED, "'<f4'"},
        {NPY(">u2", "(3,)"), 1, CAB_EUNSUPPORTED, "'>u2'"},
        {NPY("<u2", "(3, 1)"), 1, CAB_EUNSUPPORTED, "2 dimensions"},
        {NPY("<u2", "()"), 1, CAB_EUNSUPPORTED, "0 dimensions"},
        {NPY("<u2", "(4,)"), 1, CAB_EFORMAT, "truncated"},
        {NPY("<u2", "(2,)"), 1, CAB_EFORMAT, "2 elements"},
        {NPY("<u2", "(9223372036854775809,)"), 1, CAB_EFORMAT, "9223372036854775809 elements"},
        {NPY("<u2", "(99999999999999999999,)"), 1, CAB_EFORMAT, "header"},
        {NPY("<u2", "(3"), 1, CAB_EFORMAT, "header"},
        {NPY("<u2", "3"), 1, CAB_EFORMAT, "header"},
        {"{'descr': '<u2', 'shape': (3,)}\n", 1, CAB_EFORMAT, "header"},
        {"{'descr': '<u2\n", 1, CAB_EFORMAT, "header"},
        {"{", 1, CAB_EFORMAT, "header"},
        {"", 1, CAB_EFORMAT, "header"},
        {NPY("<u2", "(3,)"), 4, CAB_EUNSUPPORTED, "version 4"},
    };
    cab_tokens tokens;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *path = write_npy(state, "bad.npy", bad[i].version, bad[i].dictionary, u16, sizeof u16);
        check_error(cab_tokens_open(path, CAB_TOKEN_U16, &tokens), bad[i].status, path, bad[i].words);
    }
    const char *path = scratch_text(state, "text.npy", "1 2 3 4 5 6");
    check_error(cab_tokens_open(path, CAB_TOKEN_U16, &tokens), CAB_EFORMAT, path, "not a .npy file");
    path = scratch_data(state, "short.npy", "\x93NUMPY\1\0\xFF\xFF{", 11);
    check_error(cab_tokens_open(path, CAB_TOKEN_U16, &tokens), CAB_EFORMAT, path, "65535 bytes");
    path = scratch_data(state, "odd.bin", "abc", 3);
    check_error(cab_tokens_open(path, CAB_TOKEN_U16, &tokens), CAB_EFORMAT, path, "3 bytes");
    path = scratch_path(state, "absent.bin");
    check_error(cab_tokens_open(path, CAB_TOKEN_U16, &tokens), CAB_EIO, path, "cannot open");
}

static void test_token_documents(void **state)
{
    static const uint16_t ids[] = {9, 1, 2, 9, 9, 3, 9};
    const char *path = scratch_data(state, "documents.bin", ids, sizeof ids);
    cab_tokens tokens;
    cab_token_spans spans = {0};
    assert_ok(cab_tokens_open(path, CAB_TOKEN_U16, &tokens));
    assert_ok(cab_tokens_split(&tokens, path, 9, 10, &spans));
    assert_int_equal(spans.count, 2);
    assert_int_equal(spans.begin[0], 1);
    assert_int_equal(spans.end[0], 3);
    assert_int_equal(spans.begin[1], 5);
    assert_int_equal(spans.end[1], 6);
    cab_token_spans_free(&spans);
    assert_ok(cab_tokens_split(&tokens, path, -1, 10, &spans));
    assert_int_equal(spans.count, 1);
    assert_int_equal(spans.end[0], 7);
    cab_token_spans_free(&spans);
    check_error(cab_tokens_split(&tokens, path, 9, 3, &spans), CAB_EFORMAT, path,
                "document 1, position 0 (token 0 of the file): id 9");
    cab_token_spans_free(&spans);
    check_error(cab_tokens_split(&tokens, path, -1, 9, &spans), CAB_EFORMAT, path, "id 9, but the vocabulary has 9");
    cab_token_spans_free(&spans);
    cab_tokens_close(&tokens);
    static const int32_t negative[] = {1, 9, 4, -5};
    path = write_npy(state, "negative.npy", 1, NPY("<i4", "(4,)"), negative, sizeof negative);
    assert_ok(cab_tokens_open(path, CAB_TOKEN_U16, &tokens));
    check_error(cab_tokens_split(&tokens, path, 9, 10, &spans), CAB_EFORMAT, path,
                "document 2, position 1 (token 3 of the file): id -5");
    cab_token_spans_free(&spans);
    cab_tokens_close(&tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        scratch_test(test_txt),
        scratch_test(test_jsonl),
        scratch_test(test_escapes),
        scratch_test(test_compressed),
        scratch_test(test_long_file),
        scratch_test(test_bad_text),
        scratch_test(test_line_ends_and_marks),
        scratch_test(test_utf16),
        scratch_test(test_json),
        scratch_test(test_csv),
        scratch_test(test_truncated_archives),
        scratch_test(test_damaged_archives),
        scratch_test(test_gzip_members),
        scratch_test(test_expansion),
        scratch_test(test_token_files),
        scratch_test(test_bad_token_files),
        scratch_test(test_token_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
