/* image_fingerprint.c - a set of images as one number: cheap for a million files, and the same after they were moved or copied. */
#include "base/checksum.h"
#include "base/memory.h"
#include "data/image_set_internal.h"

#include <string.h>
#include <sys/stat.h>

enum { SAMPLES = 256 };

/* Bytes of image i's file; 0 where there is none. */
static uint64_t size_of(const cab_image_set *set, uint64_t i)
{
    char path[CAB_PATH_MAX];
    struct stat info;
    if (set->items[i].data != NULL)
        return set->items[i].size;
    cab_image_set_name(set, i, path);
    return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

static void add_bytes(const cab_image_set *set, uint64_t i, cab_checksum *checksum)
{
    const uint8_t *data = NULL;
    size_t size = 0;
    char *owned = NULL;
    if (cab_image_set_bytes(set, i, &data, &size, &owned) == CAB_OK)
        cab_checksum_add(checksum, data, size);
    cab_free(owned); /* one that cannot be read is found when it is decoded */
}

cab_status cab_image_set_fingerprint(const cab_image_set *set, cab_fingerprint *out)
{
    cab_checksum checksum = cab_checksum_begin();
    const uint64_t step = set->count / SAMPLES + 1;
    *out = (cab_fingerprint){0};
    for (size_t i = 0; i < set->sources_count; i++) {
        cab_fingerprint archive;
        if (set->sources[i].archive == NULL)
            continue;
        CAB_TRY(cab_fingerprint_file(set->sources[i].path, &archive));
        cab_checksum_add(&checksum, &archive, sizeof archive);
    }
    for (uint64_t i = 0; i < set->count; i++) {
        const char *name = cab_path_name(set->items[i].name);
        const uint64_t size = size_of(set, i);
        cab_checksum_add(&checksum, &set->items[i].label, sizeof set->items[i].label);
        cab_checksum_add(&checksum, name, strlen(name) + 1);
        cab_checksum_add(&checksum, &size, sizeof size);
        if (i % step == 0)
            add_bytes(set, i, &checksum);
        out->size += size;
    }
    out->checksum = cab_checksum_end(&checksum);
    return CAB_OK;
}
