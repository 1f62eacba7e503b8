/* test_dataset.c - the token cache, subsets, packing and evaluation windows. */
#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "data/cache.h"
#include "data/dataset.h"
#include "data/scratch.h"
#include "data/text.h"

#include <math.h>

/* Digits 0 to 9 are tokens 0 to 9; 10 is the end of text. */
static const char digits_json[] =
    "{\"added_tokens\":[{\"id\":10,\"content\":\"<|endoftext|>\",\"special\":true}],\"model\":{\"type\":\"BPE\","
    "\"vocab\":{"
    "\"0\":0,\"1\":1,\"2\":2,\"3\":3,\"4\":4,\"5\":5,\"6\":6,\"7\":7,\"8\":8,\"9\":9},\"merges\":[]}}";
enum { END = 10, VOCABULARY = 11 };

static cab_tokenizer *digits(void)
{
    cab_tokenizer *t = NULL;
    assert_ok(cab_tokenizer_parse(digits_json, strlen(digits_json), "digits.json", &t));
    return t;
}

/* A tokenizer, options that use it, and a cache directory of the test's own. */
typedef struct world {
    cab_tokenizer *tokenizer;
    cab_dataset_options options;
} world;

static world world_open(void **state)
{
    world w = {.tokenizer = digits()};
    w.options = (cab_dataset_options){.tokenizer = w.tokenizer,
                                      .cache = scratch_path(state, "cache"),
                                      .vocab_size = VOCABULARY,
                                      .end_id = END,
                                      .fraction = 1,
                                      .seed = 1};
    return w;
}

static void world_close(world *w)
{
    cab_tokenizer_free(w->tokenizer);
}

static cab_dataset *open_one(const world *w, const char *path)
{
    cab_dataset *d = NULL;
    assert_ok(cab_dataset_open(&path, 1, &w->options, &d));
    return d;
}

/* `count` documents: document i is its number in three digits, then i % 7 nines. */
static const char *numbered(void **state, const char *name, int count)
{
    cab_bytes text = {0};
    for (int i = 0; i < count; i++) {
        char line[64];
        assert_ok(cab_bytes_append(
            &text, line, (size_t)snprintf(line, sizeof line, "%03d%.*s\n<|endoftext|>\n", i, i % 7, "9999999")));
    }
    const char *path = scratch_data(state, name, text.data, text.count);
    cab_bytes_free(&text);
    return path;
}

static int document_number(const cab_dataset *d, uint64_t i)
{
    int32_t ids[3];
    cab_dataset_document_copy(d, i, 0, 3, ids);
    assert_int_equal(cab_dataset_document_tokens(d, i), 3 + (ids[0] * 100 + ids[1] * 10 + ids[2]) % 7);
    return ids[0] * 100 + ids[1] * 10 + ids[2];
}

/* ---- cache ------------------------------------------------------------------------------------------------------------ */

static void check_numbered_cache(const cab_cache *cache, int count)
{
    assert_int_equal(cache->documents, count);
    for (int i = 0; i < count; i++) {
        uint64_t begin = i == 0 ? 0 : cache->token_end[i - 1];
        assert_int_equal(cache->token_end[i] - begin, 3 + i % 7);
        assert_int_equal(cache->byte_end[i] - begin, 3 + i % 7); /* a byte per token */
        assert_int_equal(cab_tokens_get(&cache->tokens, begin) * 100 + cab_tokens_get(&cache->tokens, begin + 1) * 10 +
                             cab_tokens_get(&cache->tokens, begin + 2),
                         i);
    }
}

static void test_cache(void **state)
{
    world w = world_open(state);
    const char *path = numbered(state, "a.txt", 500);
    cab_cache_options options = {w.options.cache, {.separator = "<|endoftext|>", .field = "text"}};
    cab_cache cache;
    char file[CAB_PATH_MAX], name[32];
    uint64_t key = 0, other = 0;
    assert_ok(cab_cache_open(path, w.tokenizer, &options, &cache));
    check_numbered_cache(&cache, 500);
    assert_int_equal(cab_token_size(cache.tokens.type), 2);
    cab_cache_close(&cache);
    assert_int_equal(scratch_entries(options.directory), 1);

    assert_ok(cab_cache_key(path, w.tokenizer, &options, &key));
    snprintf(name, sizeof name, "%016llx.tok", (unsigned long long)key);
    assert_ok(cab_path_join(file, options.directory, name));
    assert_true(cab_path_exists(file));
    /* the same text elsewhere: the same cache. Another separator or another text: another. */
    assert_ok(cab_cache_key(numbered(state, "b.txt", 500), w.tokenizer, &options, &other));
    assert_true(other == key);
    assert_ok(cab_cache_key(numbered(state, "b.txt", 499), w.tokenizer, &options, &other));
    assert_true(other != key);
    cab_cache_options changed = {options.directory, {.separator = "---", .field = "text"}};
    assert_ok(cab_cache_key(path, w.tokenizer, &changed, &other));
    assert_true(other != key);
    assert_ok(cab_cache_key(numbered(state, "c.jsonl", 500), w.tokenizer, &options, &other));
    assert_true(other != key);
    world_close(&w);
}

/* Bytes of the cache are changed one place at a time; each must be seen and mended. */
static void test_damaged_cache(void **state)
{
    world w = world_open(state);
    const char *path = numbered(state, "a.txt", 20);
    cab_cache_options options = {w.options.cache, {.separator = "<|endoftext|>", .field = "text"}};
    cab_cache cache;
    char file[CAB_PATH_MAX], name[32], *sound = NULL;
    uint64_t key = 0;
    size_t size = 0;
    assert_ok(cab_cache_open(path, w.tokenizer, &options, &cache));
    cab_cache_close(&cache);
    assert_ok(cab_cache_key(path, w.tokenizer, &options, &key));
    snprintf(name, sizeof name, "%016llx.tok", (unsigned long long)key);
    assert_ok(cab_path_join(file, options.directory, name));
    assert_ok(cab_file_read(file, 1 << 20, &sound, &size));
    for (size_t i = 0; i < size; i += i < 64 ? 1 : 97) {
        cab_map map;
        sound[i] ^= 0x40;
        assert_ok(cab_file_write(file, sound, size));
        assert_ok(cab_map_open(file, &map));
        check_error(cab_cache_parse(file, &map, key, VOCABULARY, &cache), CAB_EFORMAT, file, "");
        cab_map_close(&map);
        sound[i] ^= 0x40;
    }
    for (size_t cut = 0; cut < size; cut += 61) {
        cab_map map;
        assert_ok(cab_file_write(file, sound, cut));
        assert_ok(cab_map_open(file, &map));
        check_error(cab_cache_parse(file, &map, key, VOCABULARY, &cache), CAB_EFORMAT, file, "");
        cab_map_close(&map);
    }
    print_message("a warning about a damaged cache is expected here:\n");
    assert_ok(cab_cache_open(path, w.tokenizer, &options, &cache)); /* the last cut is still there */
    check_numbered_cache(&cache, 20);
    check_error(cab_cache_parse(file, &cache.tokens.map, key, 5, &cache), CAB_EFORMAT, file, "the vocabulary has 5");
    cab_cache_close(&cache);
    cab_free(sound);
    world_close(&w);
}

/* Threads and batches leave no trace in the result. */
static void test_cache_threads(void **state)
{
    cab_tokenizer *t = NULL;
    const char *text = "../shared/data/tales-sampled/val.txt", *json = "../shared/teachers/tales-gpt2/tokenizer.json";
    if (!cab_path_exists(text) || !cab_path_exists(json)) {
        print_message("skipped: %s or %s is not there\n", text, json);
        return;
    }
    assert_ok(cab_tokenizer_load(json, &t));
    cab_cache_options options = {scratch_path(state, "cache"), {.separator = "<|endoftext|>", .field = "text"}};
    cab_cache cache;
    assert_ok(cab_cache_open(text, t, &options, &cache));
    assert_int_equal(cache.documents, 400);
    cab_text *reader = NULL;
    const char *document = NULL;
    size_t size = 0;
    uint64_t at = 0;
    assert_ok(cab_text_open(text, &options.text, &reader));
    for (uint64_t i = 0; i < cache.documents; i++) {
        cab_ids ids = {0};
        assert_ok(cab_text_next(reader, &document, &size));
        assert_ok(cab_tokenizer_encode(t, document, size, &ids));
        assert_int_equal(cache.token_end[i], at + ids.count);
        for (size_t k = 0; k < ids.count; k++)
            assert_int_equal(cab_tokens_get(&cache.tokens, at + k), ids.data[k]);
        at += ids.count;
        cab_ids_free(&ids);
    }
    cab_text_close(reader);
    cab_cache_close(&cache);
    cab_tokenizer_free(t);
}

/* ---- subsets ---------------------------------------------------------------------------------------------------------- */

static void test_fraction(void **state)
{
    world w = world_open(state);
    const char *path = numbered(state, "a.txt", 1000);
    static const struct {
        double fraction;
        uint64_t kept;
    } cases[] = {{0.05, 50}, {0.07, 70}, {0.0001, 1}, {0.3331, 334}, {1, 1000}};
    bool in_small[1000] = {false};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        w.options.fraction = cases[c].fraction;
        cab_dataset *d = open_one(&w, path), *again = open_one(&w, path);
        assert_int_equal(cab_dataset_documents(d), cases[c].kept);
        assert_int_equal(cab_dataset_documents_all(d), 1000);
        uint64_t tokens = 0, subset = 0;
        int previous = -1;
        for (uint64_t i = 0; i < cases[c].kept; i++) {
            int number = document_number(d, i);
            assert_int_equal(number, document_number(again, i));
            assert_true(number > previous); /* file order */
            previous = number;
            tokens += cab_dataset_document_tokens(d, i);
            subset += in_small[number];
            if (c == 0)
                in_small[number] = true;
        }
        assert_int_equal(cab_dataset_tokens(d), tokens + cases[c].kept);
        assert_int_equal(cab_dataset_text_bytes(d), tokens);
        if (c == 1 || c > 2) /* larger fractions hold the smaller one */
            assert_int_equal(subset, 50);
        cab_dataset_free(d);
        cab_dataset_free(again);
    }
    w.options.fraction = 0.05;
    w.options.seed = 2;
    cab_dataset *other = open_one(&w, path);
    int common = 0;
    for (uint64_t i = 0; i < 50; i++)
        common += in_small[document_number(other, i)];
    assert_true(common < 15); /* 2.5 are expected by chance */
    cab_dataset_free(other);
    world_close(&w);
}

/* ---- training --------------------------------------------------------------------------------------------------------- */

static void test_purity(void **state)
{
    world w = world_open(state);
    const char *path = numbered(state, "a.txt", 200);
    cab_dataset *d = open_one(&w, path), *e = open_one(&w, path);
    enum { L = 13 };
    assert_ok(cab_dataset_set_sequence(d, L));
    assert_ok(cab_dataset_set_sequence(e, L));
    uint64_t n = cab_dataset_sequences(d), counts[2][VOCABULARY] = {{0}};
    assert_int_equal(n, (cab_dataset_tokens(d) - 1) / L);
    int32_t ids[L], labels[L], ids2[L], labels2[L], first[L];
    int same = 0;
    for (uint64_t k = 0; k < 3 * n; k++) {
        uint64_t index = k * 7919 % (3 * n); /* any order, across epochs */
        assert_ok(cab_dataset_train_sequence(d, k, ids, labels));
        assert_memory_equal(ids + 1, labels, (L - 1) * sizeof *ids);
        for (int i = 0; i < L && k < 2 * n; i++)
            counts[k / n][ids[i]]++;
        if (k % 40 == 0) {
            assert_ok(cab_dataset_train_sequence(e, 3 * n - 1 - index, ids2, labels2));
            assert_ok(cab_dataset_train_sequence(e, k, ids2, labels2));
            assert_memory_equal(ids, ids2, sizeof ids);
            assert_memory_equal(labels, labels2, sizeof labels);
        }
        if (k == 0)
            memcpy(first, ids, sizeof ids);
        same += k % n == 0 && memcmp(first, ids, sizeof ids) == 0;
    }
    assert_int_equal(same, 1); /* epochs differ */
    uint64_t ends = counts[0][END];
    assert_true(ends >= 190 && ends <= 200); /* all but those in the dropped tail */
    assert_true(counts[1][END] >= 190 && counts[1][END] <= 200);
    cab_dataset_free(d);
    cab_dataset_free(e);
    world_close(&w);
}

/* Without shuffling windows would be a partition of the stream: here each token of the corpus must appear once. */
static void test_epoch_covers(void **state)
{
    static uint16_t ids[1000];
    for (int i = 0; i < 1000; i++)
        ids[i] = (uint16_t)i;
    const char *path = scratch_data(state, "a.bin", ids, sizeof ids);
    cab_dataset_options options = {
        .bin_type = CAB_TOKEN_U16, .vocab_size = 1000, .end_id = -1, .fraction = 1, .seed = 3};
    cab_dataset *d = NULL;
    bool seen[1000] = {false};
    int32_t in[27], out[27];
    bool shuffled = false;
    assert_ok(cab_dataset_open(&path, 1, &options, &d));
    assert_int_equal(cab_dataset_text_bytes(d), 0);
    assert_ok(cab_dataset_set_sequence(d, 27));
    assert_int_equal(cab_dataset_sequences(d), 37); /* 999 labels */
    for (uint64_t k = 0; k < 37; k++) {
        assert_ok(cab_dataset_train_sequence(d, k, in, out));
        shuffled = shuffled || in[0] != (int32_t)k * 27;
        for (int i = 0; i < 27; i++) {
            assert_int_equal(out[i], in[i] + 1);
            assert_false(seen[in[i]]);
            seen[in[i]] = true;
        }
    }
    assert_true(shuffled);
    cab_dataset_free(d);
}

/* ---- evaluation ------------------------------------------------------------------------------------------------------- */

static void test_evaluation(void **state)
{
    world w = world_open(state);
    const char *paths[] = {scratch_text(state, "a.txt", "12\n<|endoftext|>\n345\n"),
                           scratch_text(state, "b.jsonl", "{\"text\":\"6\"}\n")};
    static const int32_t stream[] = {1, 2, END, 3, 4, 5, END, 6, END};
    cab_dataset *d = NULL;
    assert_ok(cab_dataset_open(paths, 2, &w.options, &d));
    assert_int_equal(cab_dataset_tokens(d), 9);
    assert_int_equal(cab_dataset_text_bytes(d), 6);
    for (uint64_t L = 1; L < 12; L++) {
        uint64_t windows = cab_dataset_eval_windows(d, L), labelled = 0;
        assert_int_equal(windows, (8 + L - 1) / L);
        for (uint64_t k = 0; k < windows; k++) {
            int32_t ids[12], labels[12];
            uint64_t valid = cab_dataset_eval_window(d, L, k, ids, labels);
            for (uint64_t i = 0; i < L; i++) {
                assert_int_equal(ids[i], i < valid ? stream[k * L + i] : 0);
                assert_int_equal(labels[i], i < valid ? stream[k * L + i + 1] : -1);
            }
            labelled += valid;
        }
        assert_int_equal(labelled, 8);
    }
    int32_t two[2];
    assert_int_equal(cab_dataset_documents(d), 3);
    assert_int_equal(cab_dataset_document_tokens(d, 1), 3);
    cab_dataset_document_copy(d, 1, 1, 2, two);
    assert_int_equal(two[0], 4);
    assert_int_equal(two[1], 5);
    cab_dataset_free(d);
    world_close(&w);
}

/* The counts that the teachers were evaluated on (stats.json beside each). */
static void test_known_count(void **state)
{
    const char *text = "../shared/data/tales/val.txt", *json = "../shared/teachers/tales-gpt2/tokenizer.json";
    cab_tokenizer *t = NULL;
    cab_dataset *d = NULL;
    if (!cab_path_exists(text) || !cab_path_exists(json)) {
        print_message("skipped: %s or %s is not there\n", text, json);
        return;
    }
    assert_ok(cab_tokenizer_load(json, &t));
    cab_dataset_options options = {
        .tokenizer = t, .cache = scratch_path(state, "cache"), .vocab_size = 1024, .end_id = 0, .fraction = 1};
    assert_ok(cab_dataset_open(&text, 1, &options, &d));
    assert_int_equal(cab_dataset_tokens(d), 81360);
    cab_dataset_free(d);
    cab_tokenizer_free(t);
}

/* ---- bad input -------------------------------------------------------------------------------------------------------- */

static void check_open_fails(const world *w, const char *path, cab_status status, const char *file, const char *words)
{
    cab_dataset *d = NULL;
    check_error(cab_dataset_open(&path, 1, &w->options, &d), status, file, words);
    assert_null(d);
}

static void test_bad_corpora(void **state)
{
    world w = world_open(state);
    const char *empty = scratch_text(state, "empty.txt", "\n<|endoftext|>\n");
    const char *latin = scratch_text(state, "latin.txt", "12\n<|endoftext|>\n3\xE9\n");
    const char *none = scratch_text(state, "none.bin", "");
    check_open_fails(&w, empty, CAB_EFORMAT, empty, "holds no document");
    check_open_fails(&w, latin, CAB_EFORMAT, latin, "document 2 is not UTF-8: byte 0xE9 at offset 18");
    assert_int_equal(scratch_entries(w.options.cache), 0); /* nothing half-written */
    check_open_fails(&w, none, CAB_EFORMAT, none, "holds no document");
    check_open_fails(&w, scratch_path(state, "absent.txt"), CAB_EIO, "absent.txt", "cannot open");
    check_open_fails(&w, scratch_text(state, "a.doc", "x"), CAB_EUNSUPPORTED, "a.doc", ".npy");
    static const uint16_t large[] = {1, 2, END, 3, VOCABULARY};
    const char *tokens = scratch_data(state, "large.bin", large, sizeof large);
    check_open_fails(&w, tokens, CAB_EFORMAT, tokens,
                     "document 2, position 1 (token 4 of the file): id 11, but the vocabulary has 11");
    w.options.vocab_size = VOCABULARY - 2;
    w.options.end_id = -1;
    check_open_fails(&w, latin, CAB_ESHAPE, "digits.json", "vocabulary of 9");
    w.options.vocab_size = VOCABULARY - 1; /* an added token beyond the model's rows, which occurs */
    const char *within = scratch_text(state, "within.txt", "123 4<|endoftext|>5");
    check_open_fails(&w, within, CAB_ESHAPE, within,
                     "token \"<|endoftext|>\" has the id 10, but the model has a vocabulary");
    world_close(&w);
}

static void test_short_corpus(void **state)
{
    world w = world_open(state);
    cab_dataset *d = open_one(&w, scratch_text(state, "short.txt", "123\n<|endoftext|>\n45"));
    int32_t ids[7], labels[7];
    assert_int_equal(cab_dataset_train_sequence(d, 0, ids, labels), CAB_EARG);
    check_error(cab_dataset_set_sequence(d, 7), CAB_EFORMAT, "short.txt",
                "7 tokens in 2 documents, a sequence of 7 needs 8");
    assert_int_equal(cab_dataset_set_sequence(d, 0), CAB_EARG);
    assert_ok(cab_dataset_set_sequence(d, 6));
    assert_int_equal(cab_dataset_sequences(d), 1);
    assert_ok(cab_dataset_train_sequence(d, 5, ids, labels));
    assert_int_equal(labels[5], END);
    cab_dataset_free(d);
    world_close(&w);
}

static void test_bad_options(void **state)
{
    world w = world_open(state);
    const char *path = scratch_text(state, "a.txt", "1");
    cab_dataset *d = NULL;
    assert_int_equal(cab_dataset_open(NULL, 0, &w.options, &d), CAB_EARG);
    static const double fractions[] = {0, -1, 1.01, (double)NAN};
    for (size_t i = 0; i < 4; i++) {
        w.options.fraction = fractions[i];
        assert_int_equal(cab_dataset_open(&path, 1, &w.options, &d), CAB_EARG);
    }
    w.options.fraction = 1;
    w.options.end_id = VOCABULARY;
    assert_int_equal(cab_dataset_open(&path, 1, &w.options, &d), CAB_ESHAPE);
    w.options.end_id = END;
    w.options.tokenizer = NULL;
    check_error(cab_dataset_open(&path, 1, &w.options, &d), CAB_EARG, path, "tokenizer");
    assert_null(d);
    world_close(&w);
}

/* Where documents begin in a window, and which labels begin another. */
static void starts_of_documents(void **state)
{
    world w = world_open(state);
    cab_dataset *d = open_one(&w, scratch_text(state, "a.txt", "123\n<|endoftext|>\n4\n<|endoftext|>\n5678\n"));
    int32_t ids[4], labels[4], starts[4];
    static const int32_t expected[2][2][4] = {{{0, 0, 0, 0}, {2, 3, END, -1}}, {{0, 0, 2, 2}, {END, -1, 6, 7}}};
    for (uint64_t i = 0; i < 3; i++) { /* 1 2 3 . | 4 . 5 6 | 7 8 . */
        cab_dataset_eval_window(d, 4, i, ids, labels);
        cab_dataset_eval_starts(d, 4, i, starts, labels);
        if (i < 2) {
            assert_memory_equal(starts, expected[i][0], sizeof starts);
            assert_memory_equal(labels, expected[i][1], sizeof labels);
        } else {
            assert_true(starts[0] == 0 && starts[1] == 0 && labels[0] == 8 && labels[1] == END);
        }
    }
    cab_dataset_free(d);
    world_close(&w);
}

int main(void)
{
    cab_log_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(starts_of_documents, scratch_setup, scratch_teardown),
        scratch_test(test_cache),
        scratch_test(test_damaged_cache),
        scratch_test(test_cache_threads),
        scratch_test(test_fraction),
        scratch_test(test_purity),
        scratch_test(test_epoch_covers),
        scratch_test(test_evaluation),
        scratch_test(test_known_count),
        scratch_test(test_bad_corpora),
        scratch_test(test_short_corpus),
        scratch_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
