/* The tokens at which a text begins and ends: which file says it, and what is left to names. */
#include "base/json.h"
#include "base/memory.h"
#include "data/text_bounds.h"
#include "scratch.h"

static const char plain[] =
    "{\"added_tokens\": [{\"id\": 3, \"content\": \"</s>\", \"special\": true}, {\"id\": 4, \"content\": \"<|stop|>\", "
    "\"special\": true}, {\"id\": 5, \"content\": \"[EOS]\", \"special\": true}, {\"id\": 6, \"content\": \"[BOS]\", "
    "\"special\": "
    "true}, {\"id\": 9, \"content\": \"[PAD]\", \"special\": true}], "
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2}, \"merges\": []}}";
/* Of the four names two, and nothing that is marked special. */
static const char bare[] =
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"</s>\": 1, \"<eos>\": 2}, \"merges\": []}}";
static const char none[] = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}";

enum { VOCAB = 8 };

static void put(void **state, const char *name, const char *text)
{
    const char *path = scratch_text(state, name, text == NULL ? "" : text);
    if (text == NULL)
        unlink(path);
}

static void test_order(void **state)
{
    static const struct {
        const char *tokenizer, *generation, *config, *tokenizer_config, *map;
        int32_t start, ends[3];
        int count;
    } rows[] = {
        {plain,
         "{\"eos_token_id\": [4, 0, 3], \"bos_token_id\": 1}",
         "{\"eos_token_id\": 2}",
         NULL,
         NULL,
         1,
         {4, 0, 3},
         3},
        {plain, "{\"eos_token_id\": null}", "{\"eos_token_id\": 2, \"bos_token_id\": 0}", NULL, NULL, 0, {2}, 1},
        {plain, NULL, "{\"eos_token_id\": [2, 50256]}", "{\"bos_token\": \"b\"}", NULL, 1, {2}, 1},
        {plain,
         NULL,
         "{\"eos_token_id\": 50256, \"bos_token_id\": -1}",
         "{\"eos_token\": {\"content\": \"<|stop|>\"}}",
         NULL,
         6,
         {4},
         1}, /* ids that the model does not have say nothing */
        {plain, NULL, "{}", "{\"eos_token\": null}", "{\"eos_token\": \"c\", \"bos_token\": \"a\"}", 0, {2}, 1},
        {plain, NULL, "{}", "{\"eos_token\": \"[PAD]\"}", NULL, 6, {5}, 1}, /* beyond the model's rows */
        {plain, NULL, "{}", NULL, NULL, 6, {5}, 1},                         /* special tokens by their names */
        {bare, NULL, "{}", NULL, NULL, 1, {1}, 1}, /* the last resort; a text begins as one ended */
        {none, NULL, "{}", NULL, NULL, -1, {0}, 0},
    };
    scratch *s = *state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cab_tokenizer *t = NULL;
        cab_text_bounds b;
        put(state, "generation_config.json", rows[i].generation);
        put(state, "config.json", rows[i].config);
        put(state, "tokenizer_config.json", rows[i].tokenizer_config);
        put(state, "special_tokens_map.json", rows[i].map);
        assert_ok(cab_tokenizer_parse(rows[i].tokenizer, strlen(rows[i].tokenizer), "t", &t));
        assert_ok(cab_text_bounds_load(s->directory, t, VOCAB, &b));
        if (b.start != rows[i].start || b.ends_count != rows[i].count ||
            memcmp(b.ends, rows[i].ends, (size_t)rows[i].count * sizeof *b.ends) != 0)
            fail_msg("row %zu: starts with %d, %d ends, the first %d", i, b.start, b.ends_count, b.ends[0]);
        assert_int_equal(cab_text_bounds_separator(&b), rows[i].count > 0 ? rows[i].ends[0] : -1);
        for (int k = 0; k < rows[i].count; k++)
            assert_true(cab_text_bounds_ends(&b, rows[i].ends[k]));
        assert_false(cab_text_bounds_ends(&b, 7));
        cab_tokenizer_free(t);
    }
}

static void test_refused(void **state)
{
    scratch *s = *state;
    cab_tokenizer *t = NULL;
    cab_text_bounds b;
    assert_ok(cab_tokenizer_parse(plain, strlen(plain), "t", &t));
    put(state, "config.json", "{\"eos_token_id\": \"2\"}");
    check_error(cab_text_bounds_load(s->directory, t, VOCAB, &b), CAB_EFORMAT, "/config.json",
                "\"eos_token_id\" is \"2\", expected a token's id or a list of them");
    put(state, "config.json", "{\"eos_token_id\": [[1]]}");
    check_error(cab_text_bounds_load(s->directory, t, VOCAB, &b), CAB_EFORMAT, "/config.json",
                "\"eos_token_id\" is [1]");
    put(state, "config.json",
        "{\"eos_token_id\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
        "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}");
    check_error(cab_text_bounds_load(s->directory, t, VOCAB, &b), CAB_EUNSUPPORTED, "/config.json",
                "more than 64 tokens");
    cab_tokenizer_free(t);
}

/* A student begins and ends as its teacher, whichever file said it. */
static void test_copy(void **state)
{
    static const struct {
        const char *generation, *config;
        const char *expected; /* NULL: no file */
    } rows[] = {{"{\"eos_token_id\": [4, 3], \"x\": 1}", "{\"eos_token_id\": 2, \"bos_token_id\": 0}",
                 "{\"eos_token_id\":[4,3],\"x\":1,\"bos_token_id\":0}"},
                {NULL, "{\"eos_token_id\": [4, 3], \"n\": 7}", "{\"eos_token_id\":[4,3]}"},
                {NULL, "{\"n\": 7}", NULL}};
    scratch *s = *state;
    char to[CAB_PATH_MAX], path[CAB_PATH_MAX];
    assert_ok(cab_path_join(to, s->directory, "to"));
    assert_ok(cab_directory_make(to));
    assert_ok(cab_path_join(path, to, "generation_config.json"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cab_json json;
        put(state, "generation_config.json", rows[i].generation);
        put(state, "config.json", rows[i].config);
        unlink(path);
        assert_ok(cab_text_bounds_copy(s->directory, to));
        assert_int_equal(cab_path_exists(path), rows[i].expected != NULL);
        if (rows[i].expected == NULL)
            continue;
        assert_ok(cab_json_load(path, 1 << 20, &json));
        assert_string_equal(json_object_to_json_string_ext(json.root, JSON_C_TO_STRING_PLAIN), rows[i].expected);
        cab_json_close(&json);
    }
}

/* An added token beyond the model's rows is well as long as it does not occur. */
static void test_ids_beyond_the_model(void **state)
{
    cab_tokenizer *t = NULL;
    scratch *s = *state;
    char path[CAB_PATH_MAX];
    assert_ok(cab_tokenizer_parse(plain, strlen(plain), "t.json", &t));
    assert_ok(cab_tokenizer_check_vocab(t, VOCAB, "model"));
    check_error(cab_tokenizer_check_vocab(t, 2, "model"), CAB_ESHAPE, "t.json", "they do not belong together");
    assert_ok(cab_tokenizer_check_id(t, 5, VOCAB, "x.txt"));
    check_error(cab_tokenizer_check_id(t, 9, VOCAB, "x.txt"), CAB_ESHAPE, "x.txt",
                "token \"[PAD]\" has the id 9, but the model has a vocabulary of 8");
    cab_tokenizer_free(t);
    /* and where there is no tokenizer.json, what to do is said */
    assert_ok(cab_path_join(path, s->directory, "tokenizer.json"));
    check_error(cab_tokenizer_load(path, &t), CAB_EIO, path, "cannot open");
    scratch_text(state, "vocab.json", "{}");
    scratch_text(state, "merges.txt", "");
    check_error(cab_tokenizer_load(path, &t), CAB_EUNSUPPORTED, path, "vocab.json is there; make it by: python3 -c");
}

/* Of a GGUF file its metadata: the seed of a fuzz target says that a text ends with id 1. */
static void test_gguf(void **state)
{
    cab_tokenizer *t = NULL;
    cab_text_bounds b;
    char *file = NULL;
    size_t size = 0;
    const char *path = scratch_text(state, "toy.gguf", "");
    assert_ok(cab_file_read("tests/fuzz/corpus/fuzz_gguf/llama", 1 << 20, &file, &size));
    assert_ok(cab_file_write(path, file, size));
    cab_free(file);
    assert_ok(cab_tokenizer_parse(plain, strlen(plain), "t", &t));
    assert_ok(cab_text_bounds_load(path, t, VOCAB, &b));
    assert_int_equal(cab_text_bounds_separator(&b), 1);
    assert_int_equal(b.ends_count, 1);
    cab_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {scratch_test(test_order), scratch_test(test_gguf), scratch_test(test_refused),
                                       scratch_test(test_copy), scratch_test(test_ids_beyond_the_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
