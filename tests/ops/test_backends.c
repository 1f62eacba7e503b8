/* The CPU backend: opening by name, choosing an instruction set, memory. */
#include "base/memory.h"
#include "ops/backends.h"
#include "ops/cpu/device.h"

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

static void test_names(void **state)
{
    (void)state;
    cab_backend *backend;
    assert_int_equal(cab_backend_open("cpu", &backend), CAB_OK);
    assert_true(backend->host);
    assert_string_equal(backend->name, "cpu");
    assert_true(backend->threads >= 1);
    cab_backend_close(backend);
    assert_int_equal(cab_backend_open("gpu", &backend), CAB_EARG);
    assert_null(backend);
    assert_non_null(strstr(cab_error_text(), "\"gpu\""));
    cab_backend_close(NULL);
}

static cab_status open_with(const char *isa, cab_backend **backend)
{
    setenv("CAB_CPU_ISA", isa, 1);
    cab_status status = cab_backend_open("cpu", backend);
    unsetenv("CAB_CPU_ISA");
    return status;
}

static void test_instruction_set(void **state)
{
    (void)state;
    cab_backend *best, *lowered;
    assert_int_equal(cab_backend_open("cpu", &best), CAB_OK);
    assert_int_equal(open_with("v1", &lowered), CAB_OK);
    assert_int_equal(cab_cpu_isa(lowered), CAB_ISA_V1);
    assert_true(cab_cpu_isa(best) >= CAB_ISA_V1);
    cab_backend_close(lowered);
    assert_int_equal(open_with("", &lowered), CAB_OK);
    assert_int_equal(cab_cpu_isa(lowered), cab_cpu_isa(best));
    cab_backend_close(lowered);
    assert_int_equal(open_with("v2", &lowered), CAB_EARG);
    assert_null(lowered);
    if (cab_cpu_isa(best) < CAB_ISA_V4)
        assert_int_equal(open_with("v4", &lowered), CAB_EBACKEND);
    cab_backend_close(best);
}

static void test_memory(void **state)
{
    (void)state;
    enum { N = 24 };
    cab_backend *b;
    void *block = NULL;
    unsigned char from[N], to[N];
    assert_int_equal(cab_backend_open("cpu", &b), CAB_OK);
    assert_int_equal(b->allocate(b, N, "a block", &block), CAB_OK);
    assert_int_equal((uintptr_t)block % 64, 0);
    memset(to, 1, N);
    assert_int_equal(b->download(b, to, block, N), CAB_OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(to[i], 0);
        from[i] = (unsigned char)(i + 1);
    }
    assert_int_equal(b->upload(b, block, from, N), CAB_OK);
    assert_int_equal(b->fill(b, (char *)block + 2, 0xff, 8, 3, 2), CAB_OK); /* bytes 2..4 and 10..12 */
    assert_int_equal(b->download(b, to, block, N), CAB_OK);
    for (int i = 0; i < N; i++)
        assert_int_equal(to[i], (i >= 2 && i < 5) || (i >= 10 && i < 13) ? 0xff : i + 1);
    assert_int_equal(b->fill(b, block, 7, N, N, 1), CAB_OK);
    assert_int_equal(((unsigned char *)block)[N - 1], 7);
    assert_int_equal(b->fill(b, block, 9, 0, 0, 0), CAB_OK);
    assert_int_equal(((unsigned char *)block)[0], 7);
    assert_true(b->available(b) > 0);
    b->release(b, block);
    assert_int_equal(b->allocate(b, SIZE_MAX / 2, "too much", &block), CAB_ENOMEM);
    assert_non_null(strstr(cab_error_text(), "too much"));
    cab_backend_close(b);
}

static void note(void *state)
{
    *(int *)state += 1;
}

/* What kernels keep in the library slot is freed with the backend. */
static void test_library(void **state)
{
    (void)state;
    int freed = 0;
    cab_backend *b;
    assert_int_equal(cab_backend_open("cpu", &b), CAB_OK);
    cab_library *library = b->library;
    assert_null(library->state);
    library->state = &freed;
    library->free = note;
    cab_backend_close(b);
    assert_int_equal(freed, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_instruction_set),
                                       cmocka_unit_test(test_memory), cmocka_unit_test(test_library)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
