/* test_cuda.c - the GPU backend: opening, memory, copies through the staging ring, replayed lists, faults. Skips without a
 * GPU, unless CAB_TEST_DEVICE asks for one. */
#include "base/memory.h"
#include "base/random.h"
#include "ops/backends.h"
#include "tensor/dtype.h"

/* cmocka wants the four before it. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdlib.h>
#include <string.h>

static void check_ok(cab_status status)
{
    if (status != CAB_OK)
        fail_msg("%s: %s", cab_status_name(status), cab_error_text());
}

static cab_backend *open_gpu(void)
{
    cab_backend *backend = NULL;
    const char *wanted = getenv("CAB_TEST_DEVICE");
    const bool must = wanted != NULL && strcmp(wanted, "cpu") != 0;
    cab_status status = cab_backend_open(must ? wanted : "cuda", &backend);
    if (status != CAB_OK) {
        assert_non_null(strstr(cab_error_text(), "cuda"));
        assert_true(status == CAB_EBACKEND || status == CAB_EUNSUPPORTED);
        if (must)
            fail_msg("%s", cab_error_text());
        print_message("%s\n", cab_error_text());
        skip();
    }
    return backend;
}

static void test_open(void **state)
{
    (void)state;
    cab_backend *one = open_gpu(), *other = NULL;
    assert_false(one->host);
    assert_true(one->available(one) > 0);
    assert_int_equal(cab_backend_open("cuda:999", &other), CAB_EBACKEND);
    assert_non_null(strstr(cab_error_text(), "numbered from 0"));
    assert_int_equal(cab_backend_open("cuda:x", &other), CAB_EARG);
    assert_int_equal(cab_backend_open("cuda:-1", &other), CAB_EARG);
    assert_int_equal(cab_backend_open("cudax", &other), CAB_EARG);
    check_ok(cab_backend_open("cuda:0", &other)); /* two at a time */
    assert_string_equal(other->name, "cuda:0");
    cab_backend_close(other);
    cab_backend_close(one);
}

/* Below, at and above the slots of the ring, and more than all of it; begun at odd addresses. */
static void test_copies(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 3, 4095, (4u << 20) - 1, 4u << 20, (4u << 20) + 1, (17u << 20) + 13};
    const size_t most = (17u << 20) + 64;
    cab_backend *b = open_gpu();
    unsigned char *from = malloc(most), *to = malloc(most);
    void *block = NULL;
    assert_non_null(from);
    assert_non_null(to);
    check_ok(b->allocate(b, most, "a block", &block));
    assert_int_equal((uintptr_t)block % 256, 0);
    check_ok(b->download(b, to, block, most));
    for (size_t i = 0; i < most; i++)
        assert_int_equal(to[i], 0);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const size_t n = sizes[k];
        for (size_t i = 0; i < n; i++)
            from[i] = (unsigned char)(i * 7 + (i >> 11) + k);
        check_ok(b->upload(b, (char *)block + 1 + k, from, n));
        memset(from, 0xee, n); /* it is ours again */
        memset(to, 0, n);
        check_ok(b->download(b, to, (char *)block + 1 + k, n));
        for (size_t i = 0; i < n; i++)
            if (to[i] != (unsigned char)(i * 7 + (i >> 11) + k))
                fail_msg("byte %zu of %zu is %d", i, n, to[i]);
    }
    b->release(b, block);
    b->release(b, NULL);
    free(from);
    free(to);
    cab_backend_close(b);
}

static void test_fill(void **state)
{
    (void)state;
    enum { N = 24 };
    cab_backend *b = open_gpu();
    unsigned char to[N];
    void *block = NULL;
    check_ok(b->allocate(b, N, "a block", &block));
    check_ok(b->fill(b, (char *)block + 2, 0xff, 8, 3, 2)); /* bytes 2..4 and 10..12 */
    check_ok(b->download(b, to, block, N));
    for (int i = 0; i < N; i++)
        assert_int_equal(to[i], (i >= 2 && i < 5) || (i >= 10 && i < 13) ? 0xff : 0);
    check_ok(b->fill(b, block, 7, N, N, 1));
    check_ok(b->fill(b, block, 1, N, 0, 1));
    check_ok(b->fill(b, block, 1, N, N, 0));
    check_ok(b->download(b, to, block, N));
    for (int i = 0; i < N; i++)
        assert_int_equal(to[i], 7);
    b->release(b, block);
    cab_backend_close(b);
}

static void test_copy_and_narrow(void **state)
{
    (void)state;
    enum { N = 100003 };
    cab_backend *b = open_gpu();
    float *values = malloc(N * sizeof *values), *back = malloc(N * sizeof *back);
    cab_bf16 *low = malloc(N * sizeof *low);
    void *one = NULL, *two = NULL, *narrow = NULL;
    cab_random random = {.seed = 3, .stream = CAB_STREAM_TEST};
    assert_true(values && back && low);
    for (int i = 0; i < N; i++)
        values[i] = 100.0f * (cab_random_uniform(&random) - 0.5f);
    check_ok(b->allocate(b, N * sizeof(float), "one", &one));
    check_ok(b->allocate(b, N * sizeof(float), "two", &two));
    check_ok(b->allocate(b, N * sizeof(cab_bf16), "narrow", &narrow));
    check_ok(b->upload(b, one, values, N * sizeof(float)));
    check_ok(b->copy(b, two, one, N * sizeof(float)));
    check_ok(b->narrow(b, narrow, two, N));
    check_ok(b->download(b, back, two, N * sizeof(float)));
    check_ok(b->download(b, low, narrow, N * sizeof *low));
    assert_memory_equal(back, values, N * sizeof(float));
    for (int i = 0; i < N; i++)
        assert_int_equal(low[i], cab_bf16_from_f32(values[i]));
    b->release(b, one);
    b->release(b, two);
    b->release(b, narrow);
    free(values);
    free(back);
    free(low);
    cab_backend_close(b);
}

/* Each upload ahead arrives whole before it is taken, and the next does not overwrite what is still being taken. */
static void test_uploads_ahead(void **state)
{
    (void)state;
    enum { N = (9 << 20) + 5, ROUNDS = 6 };
    cab_backend *b = open_gpu();
    unsigned char *from = malloc(N), *to = malloc(N);
    void *buffer = NULL, *place[ROUNDS] = {NULL};
    assert_true(from && to);
    check_ok(b->allocate(b, N, "a buffer", &buffer));
    for (int k = 0; k < ROUNDS; k++)
        check_ok(b->allocate(b, N, "a place", &place[k]));
    check_ok(b->wait(b));
    for (int k = 0; k < ROUNDS; k++) {
        for (size_t i = 0; i < N; i++)
            from[i] = (unsigned char)(i * 3 + (i >> 9) + (size_t)k * 41);
        check_ok(b->upload_ahead(b, buffer, from, N));
        check_ok(b->take(b, place[k], buffer, N));
    }
    for (int k = 0; k < ROUNDS; k++) {
        check_ok(b->download(b, to, place[k], N));
        for (size_t i = 0; i < N; i++)
            if (to[i] != (unsigned char)(i * 3 + (i >> 9) + (size_t)k * 41))
                fail_msg("round %d, byte %zu is %d", k, i, to[i]);
        b->release(b, place[k]);
    }
    b->release(b, buffer);
    free(from);
    free(to);
    cab_backend_close(b);
}

/* What is lent is read where it lies, and may change once it has been sent. */
static void test_lent(void **state)
{
    (void)state;
    enum { N = (9 << 20) + 5, ROUNDS = 6 };
    cab_backend *b = open_gpu();
    unsigned char *from = NULL, *to = malloc(N);
    void *buffer = NULL, *place[ROUNDS] = {NULL};
    assert_non_null(to);
    check_ok(cab_host_allocate(b, N, "pictures", (void **)&from));
    assert_true(from[0] == 0 && from[N - 1] == 0);
    check_ok(b->allocate(b, N, "a buffer", &buffer));
    for (int k = 0; k < ROUNDS; k++)
        check_ok(b->allocate(b, N, "a place", &place[k]));
    check_ok(b->wait(b));
    for (int k = 0; k < ROUNDS; k++) {
        check_ok(b->sent(b));
        for (size_t i = 0; i < N; i++)
            from[i] = (unsigned char)(i * 5 + (i >> 9) + (size_t)k * 43);
        check_ok(b->upload_lent(b, buffer, from, N));
        check_ok(b->take(b, place[k], buffer, N));
    }
    for (int k = 0; k < ROUNDS; k++) {
        check_ok(b->download(b, to, place[k], N));
        for (size_t i = 0; i < N; i++)
            if (to[i] != (unsigned char)(i * 5 + (i >> 9) + (size_t)k * 43))
                fail_msg("round %d, byte %zu is %d", k, i, to[i]);
        b->release(b, place[k]);
    }
    b->release(b, buffer);
    cab_host_release(b, from);
    free(to);
    cab_backend_close(b);
}

/* What is asked for between begin and end runs when it is replayed, as often as that is, and not before. */
static void test_replay(void **state)
{
    (void)state;
    enum { N = 1000 };
    cab_backend *b = open_gpu();
    unsigned char to[N];
    void *one = NULL, *two = NULL, *captured = NULL;
    check_ok(b->allocate(b, N, "one", &one));
    check_ok(b->allocate(b, N, "two", &two));
    check_ok(b->capture_begin(b));
    check_ok(b->copy(b, two, one, N));
    check_ok(b->fill(b, one, 9, N, N, 1));
    check_ok(b->capture_end(b, &captured));
    assert_non_null(captured);
    check_ok(b->download(b, to, one, N));
    assert_int_equal(to[0], 0);
    check_ok(b->replay(b, captured));
    check_ok(b->download(b, to, two, N));
    assert_int_equal(to[N - 1], 0);
    check_ok(b->replay(b, captured));
    check_ok(b->wait(b));
    check_ok(b->download(b, to, two, N));
    assert_int_equal(to[N - 1], 9);
    b->capture_free(b, captured);
    b->capture_free(b, NULL);
    b->release(b, one);
    b->release(b, two);
    cab_backend_close(b);
}

/* More than any GPU has: the message says what was asked for, what is left and what to change. */
static void test_out_of_memory(void **state)
{
    (void)state;
    cab_backend *b = open_gpu();
    void *block = NULL;
    assert_int_equal(b->allocate(b, (size_t)1 << 46, "a very large thing", &block), CAB_ENOMEM);
    assert_null(block);
    assert_non_null(strstr(cab_error_text(), "a very large thing needs 64.0 TiB on "));
    assert_non_null(strstr(cab_error_text(), "left"));
    check_ok(b->allocate(b, 256, "a small thing", &block)); /* and nothing lingers */
    b->release(b, block);
    cab_backend_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_open),          cmocka_unit_test(test_copies),
                                       cmocka_unit_test(test_fill),          cmocka_unit_test(test_copy_and_narrow),
                                       cmocka_unit_test(test_uploads_ahead), cmocka_unit_test(test_lent),
                                       cmocka_unit_test(test_replay),        cmocka_unit_test(test_out_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
