#define _GNU_SOURCE
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 64 };

cab_status cab_alloc(void **out, size_t count, size_t size, const char *what)
{
    size_t bytes = 0;
    *out = NULL;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - ALIGNMENT)
        return cab_fail(CAB_ENOMEM, "out of memory: %s needs %zu x %zu bytes", what, count, size);
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (rounded == 0)
        rounded = ALIGNMENT;
    void *block = aligned_alloc(ALIGNMENT, rounded);
    if (block == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: %s needs %zu bytes", what, bytes);
    memset(block, 0, rounded);
    *out = block;
    return CAB_OK;
}

cab_status cab_grow(void **array, size_t *capacity, size_t needed, size_t size, const char *what)
{
    if (needed <= *capacity)
        return CAB_OK;
    size_t grown = *capacity < 8 ? 8 : *capacity;
    while (grown < needed)
        grown = grown > SIZE_MAX / 2 ? needed : grown * 2;
    void *block = NULL;
    CAB_TRY(cab_alloc(&block, grown, size, what));
    if (*array != NULL)
        memcpy(block, *array, *capacity * size);
    cab_free(*array);
    *array = block;
    *capacity = grown;
    return CAB_OK;
}

cab_status cab_strdup(char **out, const char *text)
{
    size_t length = strlen(text);
    CAB_TRY(CAB_NEW(out, length + 1, "a string"));
    memcpy(*out, text, length + 1);
    return CAB_OK;
}

void cab_free(void *block)
{
    free(block);
}

void cab_pages_forget(const void *data, size_t size)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + size) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}
