/* memory.h - allocation that reports instead of crashing. All blocks are 64-byte aligned and freed with cab_free(). */
#ifndef CAB_BASE_MEMORY_H
#define CAB_BASE_MEMORY_H

#include "base/error.h"

#include <stddef.h>

/* A zeroed block of count * size bytes in *out; CAB_ENOMEM, naming `what` and the size, when there is none or the
 * product overflows. A zero-sized request gives a valid pointer. */
cab_status cab_alloc(void **out, size_t count, size_t size, const char *what);

/* Grows *array so that it holds at least `needed` elements; *capacity is updated. New elements are zeroed. */
cab_status cab_grow(void **array, size_t *capacity, size_t needed, size_t size, const char *what);

/* A copy of `text` in *out. */
cab_status cab_strdup(char **out, const char *text);

void cab_free(void *block);

/* The whole pages within data[0..size) of a file mapped to be read are no longer counted as this process's memory; touched again, they
 * come from the file again. */
void cab_pages_forget(const void *data, size_t size);

/* cab_alloc() for typed pointers: CAB_NEW(&array, n, "labels"). */
#define CAB_NEW(pointer, count, what) cab_alloc((void **)(pointer), (count), sizeof **(pointer), (what))
#define CAB_GROW(pointer, capacity, needed, what)                                                                      \
    cab_grow((void **)(pointer), (capacity), (needed), sizeof **(pointer), (what))

#endif
