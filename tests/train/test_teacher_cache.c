/* test_teacher_cache.c - the file of a teacher's words: what is written is read, what is damaged or of something else is told. */
#include "base/random.h"
#include "runs.h"
#include "train/teacher_cache.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

enum { K = 3, L = 5, WINDOWS = 4 };

static void fill(uint64_t window, uint64_t V, int32_t *ids, float *top)
{
    cab_random random = {.seed = window, .stream = CAB_STREAM_TEST};
    for (int i = 0; i < L * K; i++) {
        ids[i] = (int32_t)cab_random_below(&random, V);
        top[i] = -12 * cab_random_uniform(&random);
    }
}

static void check_window(const cab_teacher_cache *c, uint64_t window, uint64_t V)
{
    int32_t ids[L * K], wanted[L * K];
    float top[L * K], asked[L * K];
    fill(window, V, wanted, asked);
    assert_ok(cab_teacher_cache_get(c, window, 100 + window, ids, top));
    assert_memory_equal(ids, wanted, sizeof ids);
    for (int i = 0; i < L * K; i++)
        assert_true(fabsf(top[i] - asked[i]) <= 0.5f / 2048 + 1e-6f);
}

/* Of a small vocabulary and a large one; left in the middle and gone on with. */
static void test_round_trip(void **state)
{
    const char *const directory = *state;
    const uint64_t vocabularies[] = {65536, 262144};
    for (int i = 0; i < 2; i++) {
        const cab_teacher_cache_key key = {K, vocabularies[i], L, WINDOWS, 7};
        cab_teacher_cache *c;
        int32_t ids[L * K];
        float top[L * K];
        char path[CAB_PATH_MAX];
        snprintf(path, sizeof path, "%s/cache-%d", directory, i);
        assert_ok(cab_teacher_cache_open(path, &key, &c));
        for (uint64_t w = 0; w < 2; w++) {
            fill(w, key.vocab_size, ids, top);
            assert_false(cab_teacher_cache_has(c, w, 100 + w));
            assert_ok(cab_teacher_cache_put(c, w, 100 + w, ids, top));
        }
        cab_teacher_cache_close(c);
        assert_ok(cab_teacher_cache_open(path, &key, &c));
        assert_true(cab_teacher_cache_has(c, 1, 101));
        assert_false(cab_teacher_cache_has(c, 1, 102)); /* of other tokens */
        assert_false(cab_teacher_cache_has(c, 2, 102));
        for (uint64_t w = 2; w < WINDOWS; w++) {
            fill(w, key.vocab_size, ids, top);
            assert_ok(cab_teacher_cache_put(c, w, 100 + w, ids, top));
        }
        assert_ok(cab_teacher_cache_ready(c));
        for (uint64_t w = 0; w < WINDOWS; w++)
            check_window(c, w, key.vocab_size);
        assert_int_equal(cab_teacher_cache_get(c, 0, 5, ids, top), CAB_EFORMAT);
        cab_teacher_cache_close(c);
    }
}

/* Probabilities of 1 and of almost nothing. */
static void test_ends(void **state)
{
    const cab_teacher_cache_key key = {2, 10, 1, 1, 7};
    cab_teacher_cache *c;
    int32_t ids[] = {9, 0};
    float top[] = {0, -1000};
    char path[CAB_PATH_MAX];
    snprintf(path, sizeof path, "%s/ends", (const char *)*state);
    assert_ok(cab_teacher_cache_open(path, &key, &c));
    assert_ok(cab_teacher_cache_put(c, 0, 1, ids, top));
    assert_ok(cab_teacher_cache_ready(c));
    assert_ok(cab_teacher_cache_get(c, 0, 1, ids, top));
    assert_true(top[0] == 0 && top[1] < -31.9f && isfinite(top[1]));
    cab_teacher_cache_close(c);
}

static void flip(const char *path, off_t at)
{
    unsigned char byte = 0;
    const int file = open(path, O_RDWR);
    assert_true(file >= 0 && pread(file, &byte, 1, at) == 1);
    byte ^= 4;
    assert_true(pwrite(file, &byte, 1, at) == 1);
    close(file);
}

static void check_refused(const char *path, const cab_teacher_cache_key *key, const char *words)
{
    cab_teacher_cache *c = NULL;
    assert_int_equal(cab_teacher_cache_open(path, key, &c), CAB_EFORMAT);
    assert_null(c);
    if (strstr(cab_error_text(), words) == NULL || strstr(cab_error_text(), path) == NULL)
        fail_msg("\"%s\", expected \"%s\"", cab_error_text(), words);
}

static void test_damage(void **state)
{
    const cab_teacher_cache_key key = {K, 1000, L, WINDOWS, 7};
    cab_teacher_cache_key other = key;
    cab_teacher_cache *c, *second = NULL;
    int32_t ids[L * K];
    float top[L * K];
    char path[CAB_PATH_MAX];
    snprintf(path, sizeof path, "%s/cache", (const char *)*state);
    assert_ok(cab_teacher_cache_open(path, &key, &c));
    assert_int_equal(cab_teacher_cache_open(path, &key, &second), CAB_EARG); /* another writes it */
    fill(1, 1000, ids, top);
    assert_ok(cab_teacher_cache_put(c, 1, 101, ids, top));
    cab_teacher_cache_close(c);
    const off_t size = (off_t)cab_teacher_cache_bytes(&key), record = (size - 128) / WINDOWS;
    flip(path, 128 + record + 7);
    assert_ok(cab_teacher_cache_open(path, &key, &c));
    assert_ok(cab_teacher_cache_ready(c));
    assert_int_equal(cab_teacher_cache_get(c, 1, 101, ids, top), CAB_EFORMAT);
    assert_non_null(strstr(cab_error_text(), "window 1 is damaged"));
    cab_teacher_cache_close(c);
    other.k = 4;
    check_refused(path, &other, "of words a token: 3, expected 4");
    other = key;
    other.windows = 5;
    check_refused(path, &other, "of windows: 4, expected 5");
    other = key;
    other.teacher = 8;
    check_refused(path, &other, "of another teacher");
    assert_int_equal(truncate(path, size - 1), 0);
    check_refused(path, &key, "bytes, expected");
    flip(path, 20);
    check_refused(path, &key, "its header is damaged");
    flip(path, 0);
    check_refused(path, &key, "is no teacher's cache");
    assert_int_equal(truncate(path, 10), 0);
    check_refused(path, &key, "is no teacher's cache");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_ends, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_damage, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
