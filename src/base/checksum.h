/* checksum.h - XXH64 (seed 0), which files of ours carry to know their own damage: several bytes a cycle, never security. */
#ifndef CAB_BASE_CHECKSUM_H
#define CAB_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

enum { CAB_CHECKSUM_BLOCK = 32 };

/* A checksum under way: the data may come in pieces of any size. */
typedef struct cab_checksum {
    uint64_t lanes[4];
    uint64_t size;                    /* bytes so far */
    uint8_t rest[CAB_CHECKSUM_BLOCK]; /* the first size % CAB_CHECKSUM_BLOCK of these wait for a whole block */
} cab_checksum;

cab_checksum cab_checksum_begin(void);
void cab_checksum_add(cab_checksum *checksum, const void *data, size_t size);
/* Of all that was added. More may be added afterwards. */
uint64_t cab_checksum_end(const cab_checksum *checksum);
/* Of one piece. */
uint64_t cab_checksum_of(const void *data, size_t size);

#endif
