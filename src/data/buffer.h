/* buffer.h - growing arrays of bytes and token ids. Zero-initialise, append, free. */
#ifndef CAB_DATA_BUFFER_H
#define CAB_DATA_BUFFER_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct cab_bytes {
    char *data;
    size_t count;
    size_t capacity;
} cab_bytes;

typedef struct cab_ids {
    int32_t *data;
    size_t count;
    size_t capacity;
} cab_ids;

cab_status cab_bytes_append(cab_bytes *bytes, const void *data, size_t size);
void cab_bytes_free(cab_bytes *bytes);

cab_status cab_ids_append(cab_ids *ids, const int32_t *data, size_t count);
cab_status cab_ids_push(cab_ids *ids, int32_t id);
void cab_ids_free(cab_ids *ids);

#endif
