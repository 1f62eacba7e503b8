/* test_memory.c - blocks are zeroed and aligned; sizes that overflow are told, not wrapped. */
#include "base/memory.h"
#include "temp.h"

static void blocks_are_zeroed_and_aligned(void **state)
{
    (void)state;
    uint8_t *block = NULL;
    assert_ok(CAB_NEW(&block, 100, "bytes"));
    assert_int_equal((uintptr_t)block % 64, 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(block[i], 0);
    cab_free(block);
    assert_ok(CAB_NEW(&block, 0, "nothing"));
    assert_non_null(block);
    cab_free(block);
    cab_free(NULL);
}

static void impossible_sizes_are_told(void **state)
{
    (void)state;
    void *block = &block;
    assert_fails(cab_alloc(&block, SIZE_MAX / 2, 3, "the arena"), CAB_ENOMEM, "out of memory: the arena needs");
    assert_null(block);
    assert_fails(cab_alloc(&block, SIZE_MAX, 1, "the arena"), CAB_ENOMEM, "out of memory: the arena needs");
    assert_null(block);
}

static void growing_keeps_and_zeroes(void **state)
{
    (void)state;
    int *array = NULL;
    size_t capacity = 0;
    assert_ok(CAB_GROW(&array, &capacity, 1, "numbers"));
    for (size_t i = 0; i < capacity; i++)
        array[i] = (int)i + 1;
    size_t before = capacity;
    assert_ok(CAB_GROW(&array, &capacity, before, "numbers"));
    assert_int_equal(capacity, before);
    assert_ok(CAB_GROW(&array, &capacity, before + 1, "numbers"));
    assert_true(capacity > before);
    for (size_t i = 0; i < capacity; i++)
        assert_int_equal(array[i], i < before ? (int)i + 1 : 0);
    int *kept = array;
    assert_fails(CAB_GROW(&array, &capacity, SIZE_MAX, "numbers"), CAB_ENOMEM, "numbers");
    assert_ptr_equal(array, kept);
    cab_free(array);
}

static void strings_are_copied(void **state)
{
    (void)state;
    char source[] = "text", *copy = NULL;
    assert_ok(cab_strdup(&copy, source));
    source[0] = 'n';
    assert_string_equal(copy, "text");
    cab_free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_zeroed_and_aligned),
        cmocka_unit_test(impossible_sizes_are_told),
        cmocka_unit_test(growing_keeps_and_zeroes),
        cmocka_unit_test(strings_are_copied),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
