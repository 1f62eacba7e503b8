/* test_tokenizer.c - ids and text against the `tokenizers` library, round trips, streaming, bad input.
 *
 * tokenizer_variants.jsonl (make_variants.py) has small tokenizers of every family with expected results; the golden cases
 * under ../shared are real vocabularies. */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/tokenizer.h"
#include "data/tokenizer_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        cab_status assert_status = (call);                                                                             \
        if (assert_status != CAB_OK)                                                                                   \
            fail_msg("%s: %s", #call, cab_error_text());                                                               \
    } while (0)

enum { FILE_MAX = 64 << 20 };

/* Calls `each` with every line of a .jsonl file; false, saying so, when the file is absent. */
static bool for_lines(const char *path, void (*each)(const cab_json *line, void *user), void *user)
{
    char *text = NULL;
    size_t size = 0;
    if (!cab_path_exists(path)) {
        print_message("skipped: %s is not there\n", path);
        return false;
    }
    assert_ok(cab_file_read(path, FILE_MAX, &text, &size));
    for (char *at = text, *end = NULL; *at != '\0'; at = end + 1) {
        cab_json line;
        end = strchr(at, '\n');
        assert_non_null(end);
        assert_ok(cab_json_parse(at, (size_t)(end - at), path, &line));
        each(&line, user);
        cab_json_close(&line);
    }
    cab_free(text);
    return true;
}

static json_object *member(json_object *object, const char *key)
{
    json_object *value = NULL;
    if (!json_object_object_get_ex(object, key, &value))
        fail_msg("no \"%s\"", key);
    return value;
}

/* Fails unless the ids are those of the JSON array. */
static void check_ids(const char *name, const char *text, const cab_ids *ids, json_object *expected)
{
    size_t count = json_object_array_length(expected), same = 0;
    while (same < count && same < ids->count &&
           json_object_get_int(json_object_array_get_idx(expected, same)) == ids->data[same])
        same++;
    if (same < count || same < ids->count)
        fail_msg("%s: \"%s\": id %zu is %d of %zu, expected %s", name, text, same,
                 same < ids->count ? ids->data[same] : -1, ids->count, json_object_to_json_string(expected));
}

/* ---- every family ----------------------------------------------------------------------------------------------------- */

static void check_variant(const cab_json *line, void *user)
{
    const char *name = json_object_get_string(member(line->root, "name"));
    const char *json = json_object_to_json_string(member(line->root, "tokenizer"));
    json_object *cases = member(line->root, "cases");
    cab_tokenizer *t = NULL;
    cab_encoder *encoder = NULL;
    ++*(int *)user;
    assert_ok(cab_tokenizer_parse(json, strlen(json), name, &t));
    assert_ok(cab_encoder_new(t, &encoder));
    for (size_t i = 0; i < json_object_array_length(cases); i++) {
        json_object *item = json_object_array_get_idx(cases, i), *text = member(item, "text"),
                    *decoded = member(item, "decoded");
        cab_ids ids = {0};
        cab_bytes back = {0};
        assert_ok(
            cab_encoder_encode(encoder, json_object_get_string(text), (size_t)json_object_get_string_len(text), &ids));
        check_ids(name, json_object_get_string(text), &ids, member(item, "ids"));
        assert_ok(cab_tokenizer_decode(t, ids.data, ids.count, false, &back));
        if (back.count != (size_t)json_object_get_string_len(decoded) ||
            (back.count > 0 && memcmp(back.data, json_object_get_string(decoded), back.count) != 0))
            fail_msg("%s: \"%s\" decodes to \"%.*s\", expected \"%s\"", name, json_object_get_string(text),
                     (int)back.count, back.data, json_object_get_string(decoded));
        cab_ids_free(&ids);
        cab_bytes_free(&back);
    }
    cab_encoder_free(encoder);
    cab_tokenizer_free(t);
}

static void test_variants(void **state)
{
    (void)state;
    int count = 0;
    const char *path = getenv("CAB_TOKENIZER_VARIANTS");
    assert_true(for_lines(path == NULL ? "tests/data/tokenizer_variants.jsonl" : path, check_variant, &count));
    assert_true(count >= 30);
}

/* ---- real vocabularies ------------------------------------------------------------------------------------------------ */

typedef struct golden {
    const char *key;
    const char *path;
    cab_tokenizer *tokenizer;
} golden;

static void check_golden(const cab_json *line, void *user)
{
    json_object *text = member(line->root, "text");
    const char *bytes = json_object_get_string(text);
    size_t size = (size_t)json_object_get_string_len(text);
    for (golden *g = user; g->key != NULL; g++) {
        cab_ids ids = {0};
        cab_bytes back = {0};
        if (g->tokenizer == NULL)
            continue;
        assert_ok(cab_tokenizer_encode(g->tokenizer, bytes, size, &ids));
        check_ids(g->key, bytes, &ids, member(line->root, g->key));
        assert_ok(cab_tokenizer_decode(g->tokenizer, ids.data, ids.count, false, &back));
        assert_int_equal(back.count, size);
        if (size > 0)
            assert_memory_equal(back.data, bytes, size);
        cab_ids_free(&ids);
        cab_bytes_free(&back);
    }
}

static void test_golden(void **state)
{
    (void)state;
    char cases[CAB_PATH_MAX], gpt2[CAB_PATH_MAX];
    const char *directory = getenv("CAB_GOLDEN") == NULL ? "../shared/golden" : getenv("CAB_GOLDEN");
    assert_ok(cab_path_join(cases, directory, "tokenizer_cases.jsonl"));
    assert_ok(cab_path_join(gpt2, directory, "gpt2_tokenizer.json"));
    golden all[] = {{"gpt2", gpt2, NULL},
                    {"books", "../shared/teachers/books-gpt2/tokenizer.json", NULL},
                    {"stories", "../shared/teachers/stories260k-llama/tokenizer.json", NULL},
                    {NULL, NULL, NULL}};
    for (golden *g = all; g->key != NULL; g++) {
        if (cab_path_exists(g->path))
            assert_ok(cab_tokenizer_load(g->path, &g->tokenizer));
        else
            print_message("skipped: %s is not there\n", g->path);
    }
    if (for_lines(cases, check_golden, all) && all[0].tokenizer != NULL) {
        int32_t id = -1;
        assert_int_equal(cab_tokenizer_vocab_size(all[0].tokenizer), 50257);
        assert_true(cab_tokenizer_find(all[0].tokenizer, "\u0120the", &id));
        assert_int_equal(id, 262);
        assert_false(cab_tokenizer_find(all[0].tokenizer, "no such token", &id));
    }
    for (golden *g = all; g->key != NULL; g++)
        cab_tokenizer_free(g->tokenizer);
}

/* Tokenizers within GGUF files of real models: $CAB_GGUF/<name>.gguf, build/teachers where it is not set, beside the cases of
 * ../shared/teachers/<name>/. */
static void test_gguf(void **state)
{
    (void)state;
    static const char *const names[] = {"smollm2", "gemma3"};
    const char *directory = getenv("CAB_GGUF") == NULL ? "build/teachers" : getenv("CAB_GGUF");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[CAB_PATH_MAX], cases[CAB_PATH_MAX];
        snprintf(path, sizeof path, "%s/%s.gguf", directory, names[i]);
        snprintf(cases, sizeof cases, "../shared/teachers/%s/tokenizer_cases.jsonl", names[i]);
        if (!cab_path_exists(path)) {
            print_message("skipped: %s is not there\n", path);
            continue;
        }
        golden one[] = {{"ids", path, NULL}, {NULL, NULL, NULL}};
        assert_ok(cab_tokenizer_open(path, &one[0].tokenizer));
        for_lines(cases, check_golden, one);
        cab_tokenizer_free(one[0].tokenizer);
    }
}

/* ---- a small vocabulary for the rest ---------------------------------------------------------------------------------- */

#define MODEL(options, vocab, merges)                                                                                  \
    "\"model\":{\"type\":\"BPE\"," options "\"vocab\":{" vocab "},\"merges\":[" merges "]}"
#define LETTERS                                                                                                        \
    "\"a\":0,\"b\":1,\"ab\":2,\"aa\":3,\"aaaa\":4,\"<0xF0>\":5,\"<0x9F>\":6,\"<0x98>\":7,\"<0x80>\":8,\"</s>\":9"
#define LETTER_MERGES "[\"a\",\"b\"],\"a a\",[\"aa\",\"aa\"]"
#define SMALL                                                                                                          \
    "{\"added_tokens\":[{\"id\":9,\"content\":\"</"                                                                    \
    "s>\",\"special\":true}],\"decoder\":{\"type\":\"ByteFallback\"}," MODEL("\"byte_fallback\":true,", LETTERS,       \
                                                                             LETTER_MERGES) "}"

static cab_tokenizer *parse(const char *json)
{
    cab_tokenizer *t = NULL;
    assert_ok(cab_tokenizer_parse(json, strlen(json), "small.json", &t));
    return t;
}

/* A megabyte in one word takes O(n log n): seconds would be a quadratic loop. */
static void test_long_word(void **state)
{
    (void)state;
    size_t size = 1 << 20;
    cab_tokenizer *t = parse(SMALL);
    cab_ids ids = {0};
    char *text = NULL;
    assert_ok(CAB_NEW(&text, size, "text"));
    memset(text, 'a', size);
    text[size - 1] = 'b'; /* a+b merges before a+a */
    double start = cab_seconds();
    assert_ok(cab_tokenizer_encode(t, text, size, &ids));
    assert_true(cab_seconds() - start < 10);
    /* 2^20 - 2 a's before "ab": 2^19 - 1 pairs, of which 2^18 - 1 join and one is left */
    assert_int_equal(ids.count, (1 << 18) - 1 + 2);
    assert_int_equal(ids.data[0], 4);
    assert_int_equal(ids.data[ids.count - 2], 3);
    assert_int_equal(ids.data[ids.count - 1], 2);
    cab_ids_free(&ids);
    cab_free(text);
    cab_tokenizer_free(t);
}

static void test_streaming(void **state)
{
    (void)state;
    cab_tokenizer *t = parse(SMALL);
    cab_decoder decoder;
    cab_bytes text = {0};
    const int32_t smile[] = {0, 5, 6, 7, 8, 1}; /* a, F0 9F 98 80, b */
    const size_t lengths[] = {1, 1, 1, 1, 5, 6};
    cab_decoder_begin(&decoder, t, true);
    for (size_t i = 0; i < 6; i++) {
        assert_ok(cab_decoder_push(&decoder, smile[i], &text));
        assert_int_equal(text.count, lengths[i]);
    }
    assert_memory_equal(text.data,
                        "a\xF0\x9F\x98\x80"
                        "b",
                        6);
    text.count = 0;
    const int32_t broken[] = {5, 6, 0, 8, 5}; /* F0 9F | a | 80 | F0 */
    for (size_t i = 0; i < 5; i++)
        assert_ok(cab_decoder_push(&decoder, broken[i], &text));
    assert_ok(cab_decoder_finish(&decoder, &text));
    assert_int_equal(text.count, 10);
    assert_memory_equal(text.data,
                        "\uFFFD"
                        "a"
                        "\uFFFD\uFFFD",
                        10);
    assert_int_equal(cab_decoder_push(&decoder, 10, &text), CAB_EARG);
    assert_int_equal(cab_decoder_push(&decoder, -1, &text), CAB_EARG);
    text.count = 0;
    assert_ok(cab_tokenizer_decode(t, (const int32_t[]){2, 9, 0}, 3, true, &text));
    assert_int_equal(text.count, 3);
    assert_true(cab_tokenizer_is_special(t, 9));
    assert_false(cab_tokenizer_is_special(t, 0));
    cab_bytes_free(&text);
    cab_tokenizer_free(t);
}

/* ---- bad input -------------------------------------------------------------------------------------------------------- */

static void test_bad_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t size, offset;
    } bad[] = {{"ab\xFF", 3, 2},           {"\xC0\x80", 2, 0},  {"aaaaaaaaa\xED\xA0\x80", 12, 9},
               {"\xF4\x90\x80\x80", 4, 0}, {"a\xE2\x82", 3, 1}, {"\xE0\x9F\xBF", 3, 0},
               {"aaaaaaaa\x80", 9, 8}};
    cab_tokenizer *t = parse(SMALL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char place[32];
        cab_ids ids = {0};
        assert_int_equal(cab_tokenizer_encode(t, bad[i].text, bad[i].size, &ids), CAB_EFORMAT);
        snprintf(place, sizeof place, "offset %zu", bad[i].offset);
        assert_non_null(strstr(cab_error_text(), place));
        assert_int_equal(ids.count, 0);
        cab_ids_free(&ids);
    }
    cab_tokenizer_free(t);
}

static void test_vocabulary_mismatch(void **state)
{
    (void)state;
    cab_tokenizer *t = parse(SMALL);
    assert_ok(cab_tokenizer_check_vocab(t, 10, "teacher"));
    assert_ok(cab_tokenizer_check_vocab(t, 64, "teacher"));
    assert_int_equal(cab_tokenizer_check_vocab(t, 9, "the teacher"), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "the teacher"));
    assert_non_null(strstr(cab_error_text(), "small.json"));
    cab_tokenizer_free(t);
}

/* A tokenizer whose normalizers double a text twenty times over, and one whose pattern backtracks for ever. */
static void test_runaways(void **state)
{
    (void)state;
#define DOUBLE "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aa\"}"
#define DOUBLES DOUBLE "," DOUBLE "," DOUBLE "," DOUBLE "," DOUBLE
    static const char grows[] = "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" DOUBLES "," DOUBLES
                                "," DOUBLES "," DOUBLES "]}," MODEL("", LETTERS, "") "}";
    static const char backtracks[] = "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a|aa)+$\"},"
                                     "\"behavior\":\"Isolated\"}," MODEL("", LETTERS, "") "}";
    const char *const files[] = {grows, backtracks};
    for (size_t i = 0; i < 2; i++) {
        cab_tokenizer *t = parse(files[i]);
        cab_ids ids = {0};
        char text[64];
        memset(text, 'a', sizeof text);
        text[sizeof text - 1] = 'b';
        assert_int_equal(cab_tokenizer_encode(t, text, sizeof text, &ids), CAB_EUNSUPPORTED);
        assert_non_null(strstr(cab_error_text(), "small.json: "));
        cab_ids_free(&ids);
        cab_tokenizer_free(t);
    }
}

static void test_bad_files(void **state)
{
    (void)state;
#define WITH(part) "{" part "," MODEL("", LETTERS, LETTER_MERGES) "}"
    static const struct {
        const char *json;
        cab_status status;
        const char *word; /* of the error */
    } bad[] = {
        {"", CAB_EFORMAT, "small.json"},
        {"[]", CAB_EFORMAT, "object"},
        {"{\"model\":{}}", CAB_EFORMAT, "vocab"},
        {"{\xFF}", CAB_EFORMAT, "UTF-8"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", CAB_EUNSUPPORTED, "Unigram"},
        {"{" MODEL("", "\"a\":0,\"b\":-1", "") "}", CAB_EFORMAT, "\"b\""},
        {"{" MODEL("", "\"a\":99999999999", "") "}", CAB_EFORMAT, "99999999999"},
        {"{" MODEL("", "\"a\":0.5", "") "}", CAB_EFORMAT, "0.5"},
        {"{" MODEL("", "", "") "}", CAB_EFORMAT, "empty"},
        {"{" MODEL("", LETTERS, "[\"a\"]") "}", CAB_EFORMAT, "merge 0"},
        {"{" MODEL("", LETTERS, "\"a b\",\"a b c\"") "}", CAB_EFORMAT, "merge 1"},
        {"{" MODEL("", LETTERS, "\"b a\"") "}", CAB_EFORMAT, "\"ba\" is not in"},
        {"{" MODEL("", LETTERS, "\"x a\"") "}", CAB_EFORMAT, "\"x\" is not in"},
        {"{" MODEL("\"unk_token\":\"<unk>\",", LETTERS, "") "}", CAB_EFORMAT, "<unk>"},
        {"{" MODEL("\"dropout\":0.1,", LETTERS, "") "}", CAB_EUNSUPPORTED, "dropout"},
        {"{" MODEL("\"end_of_word_suffix\":\"</w>\",", LETTERS, "") "}", CAB_EUNSUPPORTED, "</w>"},
        {WITH("\"normalizer\":{\"type\":\"BertNormalizer\"}"), CAB_EUNSUPPORTED, "BertNormalizer"},
        {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}"), CAB_EUNSUPPORTED,
         "Replace"},
        {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}"), CAB_EUNSUPPORTED,
         "empty"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Whitespace\"}"), CAB_EUNSUPPORTED, "Whitespace"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},\"behavior\":\"Isolated\"}"),
         CAB_EUNSUPPORTED, "[a&&b]"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Kept\"}"),
         CAB_EUNSUPPORTED, "Kept"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
              "\"Digits\"}]}"),
         CAB_EUNSUPPORTED, "Digits"},
        {WITH("\"decoder\":{\"type\":\"WordPiece\"}"), CAB_EUNSUPPORTED, "WordPiece"},
        {WITH("\"added_tokens\":[{\"id\":4194304,\"content\":\"x\"}]"), CAB_EFORMAT, "4194304"},
        {WITH("\"added_tokens\":[7]"), CAB_EFORMAT, "\"id\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cab_tokenizer *t = NULL;
        cab_status status = cab_tokenizer_parse(bad[i].json, strlen(bad[i].json), "small.json", &t);
        if (status != bad[i].status || strstr(cab_error_text(), bad[i].word) == NULL ||
            strstr(cab_error_text(), "small.json") == NULL || strchr(cab_error_text(), '\n') != NULL)
            fail_msg("case %zu: status %d, \"%s\"; expected %d and \"%s\"", i, status, cab_error_text(), bad[i].status,
                     bad[i].word);
        assert_null(t);
    }
    cab_tokenizer *t = NULL;
    assert_int_equal(cab_tokenizer_load("no/such/tokenizer.json", &t), CAB_EIO);
}

/* Pairs of merges become strings where that says the same; nothing else changes, and nothing moves. */
static void merges_are_shortened(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } texts[] = {
        {"{\"merges\": [[\"a\", \"b\"], [\"ab\",\"c\"]] }", "{\"merges\": [\"a b\"     , \"ab c\"    ] }"},
        {"{\"merges\":[\"a b\", [ \"\\\"\" , \"\\\\\" ]]}", "{\"merges\":[\"a b\", \"\\\" \\\\\"        ]}"},
        {"{\"merges\": [[\"a b\", \"c\"], [\"\", \"c\"], [\"\\u0020\", \"c\"]]}", NULL},
        {"{\"vocab\": {\"merges\": 3, \"a\": [[\"a\", \"b\"]]}}", NULL},
        {"{\"merges\": [[\"a\", \"b\", \"c\"], [\"a\", \"b\"]]}", NULL},
        {"{\"merges\": [[\"a\", 3], [\"a\", \"b\"]]}", NULL},
        {"{\"merges\": [[\"a\", \"b\"", NULL},
        {"{\"merges\": [[\"a\", \"b", NULL},
        {"{\"merges\": [[\"a\\", NULL},
        {"{\"merges\": [", NULL},
        {"{\"merges\":", NULL},
        {"{\"merges", NULL},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const size_t size = strlen(texts[i].from);
        char *text = malloc(size); /* without a zero at its end, so that a sanitizer sees who reads on */
        assert_non_null(text);
        memcpy(text, texts[i].from, size);
        cab_merges_shorten(text, size);
        const char *expected = texts[i].to != NULL ? texts[i].to : texts[i].from;
        if (strlen(expected) != size || memcmp(text, expected, size) != 0)
            fail_msg("%.*s, expected %s", (int)size, text, expected);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_shortened), cmocka_unit_test(test_variants),
        cmocka_unit_test(test_golden),          cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_long_word),       cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_bad_text),        cmocka_unit_test(test_vocabulary_mismatch),
        cmocka_unit_test(test_runaways),        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
