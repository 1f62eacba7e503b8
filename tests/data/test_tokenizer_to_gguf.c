/* test_tokenizer_to_gguf.c - a tokenizer.json written into a GGUF file and read back gives the same ids; what llama.cpp would split otherwise is
 * refused by name. */
#include "base/log.h"
#include "base/memory.h"
#include "data/gguf_patterns.h"
#include "data/tokenizer.h"
#include "data/tokenizer_gguf.h"
#include "temp.h"

static const char tales[] = "examples/tales/teacher/tokenizer.json";

static const char *const texts[] = {
    "Once upon a time, there was a little cat named Tim.",
    "  two  spaces,\ttabs\n\nand lines \r\n",
    "It's 12345 o'clock; they'RE late, we'll see. \xC3\xA9t\xC3\xA9 \xE2\x98\x83\xF0\x9F\x98\x80",
    "<|endoftext|>Tom<|endoftext|> <s> </s><unk>",
    "",
    " ",
    "aaaa abab babab a b  ab"};

/* tokenizer.json of *state as a GGUF file. */
static cab_status write_gguf(void **state, int64_t vocab_size)
{
    cab_gguf_writer *w = NULL;
    uint64_t bytes = 0;
    assert_ok(cab_gguf_writer_new(&w));
    cab_status status = cab_tokenizer_to_gguf(*state, vocab_size, w);
    if (status == CAB_OK)
        status = cab_gguf_writer_save(w, temp_path(state, "t.gguf"), &bytes);
    cab_gguf_writer_free(w);
    return status;
}

static void compare_ids(void **state)
{
    cab_tokenizer *a = NULL, *b = NULL;
    assert_ok(cab_tokenizer_open(*state, &a));
    assert_ok(cab_tokenizer_open(temp_path(state, "t.gguf"), &b));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cab_ids x = {0}, y = {0};
        cab_bytes text = {0}, back = {0};
        assert_ok(cab_tokenizer_encode(a, texts[i], strlen(texts[i]), &x));
        assert_ok(cab_tokenizer_encode(b, texts[i], strlen(texts[i]), &y));
        assert_int_equal(x.count, y.count);
        if (x.count > 0)
            assert_memory_equal(x.data, y.data, x.count * sizeof *x.data);
        assert_ok(cab_tokenizer_decode(b, y.data, y.count, false, &text));
        assert_ok(cab_tokenizer_decode(a, x.data, x.count, false, &back));
        assert_int_equal(text.count, back.count);
        if (text.count > 0)
            assert_memory_equal(text.data, back.data, text.count);
        cab_bytes_free(&back);
        cab_bytes_free(&text);
        cab_ids_free(&x);
        cab_ids_free(&y);
    }
    cab_tokenizer_free(a);
    cab_tokenizer_free(b);
}

/* The text of a key of the metadata, as JSON. */
static const char *value_of(void **state, const char *key)
{
    static char text[256];
    cab_gguf *g = NULL;
    json_object *value = NULL;
    assert_ok(cab_gguf_open(temp_path(state, "t.gguf"), &g));
    json_object_object_get_ex(cab_gguf_metadata(g)->root, key, &value);
    snprintf(text, sizeof text, "%s", json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
    cab_gguf_close(g);
    return text;
}

static void put(void **state, const char *name, const char *text)
{
    assert_ok(cab_file_write(temp_path(state, name), text, strlen(text)));
}

/* Byte-level tokens of the demo, and what stands beside them in a model's directory. */
static void bytes_come_back(void **state)
{
    assert_ok(cab_file_copy(tales, temp_path(state, "tokenizer.json")));
    put(state, "config.json", "{\"eos_token_id\": [0, 5], \"bos_token_id\": 3}");
    put(state, "tokenizer_config.json",
        "{\"add_bos_token\": true, \"chat_template\": [{\"name\": \"tool\", \"template\": \"no\"}, "
        "{\"name\": \"default\", \"template\": \"{{ yes }}\"}]}");
    assert_ok(write_gguf(state, 1040)); /* 16 more than there are tokens */
    compare_ids(state);
    assert_string_equal(value_of(state, "tokenizer.ggml.pre"), "\"gpt-2\"");
    assert_string_equal(value_of(state, "tokenizer.ggml.bos_token_id"), "3");
    assert_string_equal(value_of(state, "tokenizer.ggml.eos_token_id"), "0");
    assert_string_equal(value_of(state, "tokenizer.ggml.eot_token_id"), "5");
    assert_string_equal(value_of(state, "tokenizer.ggml.add_bos_token"), "true");
    assert_string_equal(value_of(state, "tokenizer.ggml.add_eos_token"), "false");
    assert_string_equal(value_of(state, "tokenizer.chat_template"), "\"{{ yes }}\"");
    cab_gguf *g = NULL;
    json_object *tokens = NULL, *types = NULL;
    assert_ok(cab_gguf_open(temp_path(state, "t.gguf"), &g));
    assert_ok(cab_json_array(cab_gguf_metadata(g), NULL, "tokenizer.ggml.tokens", &tokens));
    assert_ok(cab_json_array(cab_gguf_metadata(g), NULL, "tokenizer.ggml.token_type", &types));
    assert_int_equal(json_object_array_length(tokens), 1040);
    assert_string_equal(json_object_get_string(json_object_array_get_idx(tokens, 1039)), "[PAD1039]");
    assert_int_equal(json_object_get_int(json_object_array_get_idx(types, 1039)), CAB_TOKEN_UNUSED);
    assert_int_equal(json_object_get_int(json_object_array_get_idx(types, 0)), CAB_TOKEN_CONTROL);
    assert_int_equal(json_object_get_int(json_object_array_get_idx(types, 1)), CAB_TOKEN_NORMAL);
    cab_gguf_close(g);
    put(state, "chat_template.jinja", "{{ file }}\n");
    assert_ok(write_gguf(state, 1024));
    assert_string_equal(value_of(state, "tokenizer.chat_template"), "\"{{ file }}\\n\"");
    assert_fails(write_gguf(state, 1000), CAB_ESHAPE, "they do not belong together");
}

/* The demo's tokens, split as `pre_tokenizer` says. */
static void put_split(void **state, const char *pre_tokenizer, const char *normalizer, bool whole_words)
{
    cab_json json;
    json_object *model = NULL;
    assert_ok(cab_json_load(tales, 1 << 24, &json));
    assert_ok(cab_json_object(&json, NULL, "model", &model));
    json_object_object_add(json.root, "pre_tokenizer", json_tokener_parse(pre_tokenizer));
    json_object_object_add(json.root, "normalizer", normalizer == NULL ? NULL : json_tokener_parse(normalizer));
    json_object_object_add(model, "ignore_merges", json_object_new_boolean(whole_words));
    assert_ok(cab_json_save(json.root, temp_path(state, "tokenizer.json")));
    cab_json_close(&json);
}

static void every_pattern_has_its_name(void **state)
{
    for (const cab_gguf_pattern *p = cab_gguf_patterns; p->name != NULL; p++) {
        const cab_gguf_pattern *first = cab_gguf_patterns;
        char expected[64];
        while (strcmp(first->pre_tokenizer, p->pre_tokenizer) != 0 || first->whole_words != p->whole_words ||
               (first->normalizer != NULL) != (p->normalizer != NULL))
            first++;
        put_split(state, p->pre_tokenizer, p->normalizer, p->whole_words);
        assert_ok(write_gguf(state, 1024));
        snprintf(expected, sizeof expected, "\"%s\"", first->name);
        assert_string_equal(value_of(state, "tokenizer.ggml.pre"), expected);
        compare_ids(state);
    }
    /* the same in other words */
    put_split(state,
              "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, "
              "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\", \"add_prefix_space\": false}]}]}",
              NULL, false);
    assert_ok(write_gguf(state, 1024));
    assert_string_equal(value_of(state, "tokenizer.ggml.pre"), "\"smollm\"");
}

static void other_patterns_are_refused(void **state)
{
    const char *gpt2 = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}";
    put_split(state, "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", NULL, false);
    assert_fails(write_gguf(state, 1024), CAB_EUNSUPPORTED,
                 "words are split by \"ByteLevel 1 1\", normalizer \"\": no way");
    put_split(state, gpt2, NULL, true);
    assert_fails(write_gguf(state, 1024), CAB_EUNSUPPORTED, "\"ByteLevel 0 1\" and whole words are tokens");
    put_split(state, gpt2, "{\"type\": \"Lowercase\"}", false);
    assert_fails(write_gguf(state, 1024), CAB_EUNSUPPORTED, "normalizer \"Lowercase\"");
    put_split(
        state,
        "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a-z]+\"}, "
        "\"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]}",
        NULL, false);
    assert_fails(write_gguf(state, 1024), CAB_EUNSUPPORTED, "\"Split [a-z]+ Isolated 0; ByteLevel 0 0\"");
    assert_false(cab_path_exists(temp_path(state, "t.gguf")));
}

/* <unk>, <s>, </s>, 256 bytes, then pieces; merges as "left right". */
static void put_pieces(void **state, const char *pieces, const char *merges, const char *rest)
{
    static char text[1 << 14];
    size_t used =
        (size_t)snprintf(text, sizeof text,
                         "{\"added_tokens\": [{\"id\": 0, \"content\": \"<unk>\", \"special\": true}, {\"id\": 1, "
                         "\"content\": \"<s>\", \"special\": true}, {\"id\": 2, \"content\": \"</s>\", \"special\": "
                         "true}], %s, \"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", \"fuse_unk\": true, "
                         "\"byte_fallback\": true, \"merges\": [%s], \"vocab\": {\"<unk>\": 0, \"<s>\": 1, "
                         "\"</s>\": 2",
                         rest, merges);
    for (int i = 0; i < 256; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, ", \"<0x%02X>\": %d", (unsigned)i, 3 + i);
    int id = 259;
    for (const char *at = pieces; *at != '\0'; at += strcspn(at, " "), at += *at == ' ')
        used += (size_t)snprintf(text + used, sizeof text - used, ", \"%.*s\": %d", (int)strcspn(at, " "), at, id++);
    used += (size_t)snprintf(text + used, sizeof text - used, "}}}");
    assert_true(used < sizeof text);
    put(state, "tokenizer.json", text);
}

#define PREPENDS                                                                                                       \
    "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}, "    \
    "{\"type\": "                                                                                                      \
    "\"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}]}, \"decoder\": {\"type\": "              \
    "\"Sequence\", "                                                                                                   \
    "\"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"\u2581\"}, \"content\": \" \"}, {\"type\": "   \
    "\"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}"
#define PIECES "\u2581 a b n d \u2581a ab bab abab nd and"
#define MERGES "\"\u2581 a\", \"a b\", \"b ab\", \"a bab\", \"ab ab\", \"n d\", \"a nd\""

static void pieces_come_back(void **state)
{
    put_pieces(state, PIECES, MERGES, PREPENDS);
    assert_ok(write_gguf(state, 272));
    compare_ids(state);
    assert_string_equal(value_of(state, "tokenizer.ggml.model"), "\"llama\"");
    assert_string_equal(value_of(state, "tokenizer.ggml.add_space_prefix"), "true");
    assert_string_equal(value_of(state, "tokenizer.ggml.unknown_token_id"), "0");
    assert_string_equal(value_of(state, "tokenizer.ggml.bos_token_id"), "1");
    assert_string_equal(value_of(state, "tokenizer.ggml.add_bos_token"), "false");
    put_pieces(state, PIECES, MERGES,
               PREPENDS
               ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": "
               "\"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}]}");
    assert_ok(write_gguf(state, 272));
    assert_string_equal(value_of(state, "tokenizer.ggml.add_bos_token"), "true");
    put_pieces(state, PIECES, MERGES,
               "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"prepend_scheme\": \"never\", \"split\": false}");
    assert_ok(write_gguf(state, 270));
    assert_string_equal(value_of(state, "tokenizer.ggml.add_space_prefix"), "false");
}

static void other_pieces_are_refused(void **state)
{
    put_pieces(state, PIECES, "\"\u2581 a\", \"a b\", \"b ab\", \"ab ab\", \"n d\", \"a nd\"", PREPENDS);
    assert_fails(write_gguf(state, 270), CAB_EUNSUPPORTED, "6 merges, but tokens can be cut in 7 ways");
    put_pieces(state, PIECES, "\"\u2581 a\", \"a b\", \"b ab\", \"a bab\", \"n d\", \"ab ab\", \"a nd\"", PREPENDS);
    assert_fails(write_gguf(state, 270), CAB_EUNSUPPORTED, "merge 5 stands apart from the others of its token");
    put_pieces(state, PIECES, MERGES, "\"pre_tokenizer\": {\"type\": \"Metaspace\"}");
    assert_fails(write_gguf(state, 270), CAB_EUNSUPPORTED, "pre_tokenizer \"Metaspace always 1\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(bytes_come_back), TEMP_TEST(every_pattern_has_its_name),
                                       TEMP_TEST(other_patterns_are_refused), TEMP_TEST(pieces_come_back),
                                       TEMP_TEST(other_pieces_are_refused)};
    cab_log_quiet(true);
    return cmocka_run_group_tests_name("tokenizer_to_gguf", tests, NULL, NULL);
}
