/* fingerprint.c - whole files where that is quick, evenly spaced blocks of larger ones. */
#include "base/fingerprint.h"

#include "base/checksum.h"
#include "base/file.h"

static const uint64_t WHOLE = UINT64_C(1) << 30, BLOCK = UINT64_C(1) << 20, BLOCKS = 256;

cab_fingerprint cab_fingerprint_of(const void *data, uint64_t size)
{
    cab_checksum checksum = cab_checksum_begin();
    if (size <= WHOLE)
        return (cab_fingerprint){size, cab_checksum_of(data, size)};
    for (uint64_t i = 0; i < BLOCKS; i++)
        cab_checksum_add(&checksum, (const char *)data + (size - BLOCK) / (BLOCKS - 1) * i, BLOCK);
    cab_checksum_add(&checksum, (const char *)data + size - BLOCK, BLOCK);
    return (cab_fingerprint){size, cab_checksum_end(&checksum)};
}

cab_status cab_fingerprint_file(const char *path, cab_fingerprint *out)
{
    cab_map map;
    CAB_TRY(cab_map_open(path, &map));
    *out = cab_fingerprint_of(map.data, map.size);
    cab_map_close(&map);
    return CAB_OK;
}
