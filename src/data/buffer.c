/* buffer.c - growing arrays of bytes and token ids. */
#include "data/buffer.h"

#include "base/memory.h"

#include <string.h>

cab_status cab_bytes_append(cab_bytes *bytes, const void *data, size_t size)
{
    size_t needed = 0;
    if (size == 0)
        return CAB_OK;
    if (__builtin_add_overflow(bytes->count, size, &needed))
        return cab_fail(CAB_ENOMEM, "out of memory: a text of more than %zu bytes", SIZE_MAX);
    CAB_TRY(CAB_GROW(&bytes->data, &bytes->capacity, needed, "text"));
    memcpy(bytes->data + bytes->count, data, size);
    bytes->count = needed;
    return CAB_OK;
}

void cab_bytes_free(cab_bytes *bytes)
{
    cab_free(bytes->data);
    *bytes = (cab_bytes){0};
}

cab_status cab_ids_append(cab_ids *ids, const int32_t *data, size_t count)
{
    size_t needed = 0;
    if (count == 0)
        return CAB_OK;
    if (__builtin_add_overflow(ids->count, count, &needed))
        return cab_fail(CAB_ENOMEM, "out of memory: more than %zu token ids", SIZE_MAX);
    CAB_TRY(CAB_GROW(&ids->data, &ids->capacity, needed, "token ids"));
    memcpy(ids->data + ids->count, data, count * sizeof *data);
    ids->count = needed;
    return CAB_OK;
}

cab_status cab_ids_push(cab_ids *ids, int32_t id)
{
    return cab_ids_append(ids, &id, 1);
}

void cab_ids_free(cab_ids *ids)
{
    cab_free(ids->data);
    *ids = (cab_ids){0};
}
