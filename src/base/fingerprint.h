/* fingerprint.h - what tells one content of a file from another, wherever the file lies and whenever it was written. */
#ifndef CAB_BASE_FINGERPRINT_H
#define CAB_BASE_FINGERPRINT_H

#include "base/error.h"

#include <stdint.h>

typedef struct cab_fingerprint {
    uint64_t size;
    uint64_t checksum; /* XXH64: up to 1 GiB of all bytes, beyond of 256 blocks of 1 MiB from head to tail */
} cab_fingerprint;

cab_fingerprint cab_fingerprint_of(const void *data, uint64_t size);
cab_status cab_fingerprint_file(const char *path, cab_fingerprint *out);

#endif
