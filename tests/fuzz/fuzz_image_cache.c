/* fuzz_image_cache.c - hostile caches of decoded images. Where the first byte is odd, version, sizes and checksums are made right, so that what
 * lies behind them is reached; every pixel of an accepted cache is read. */
#include "base/checksum.h"
#include "base/memory.h"
#include "data/image_set_internal.h"

#include <string.h>

enum { KEY = 7, HEADER = 64, VERSION = 2, VERSION_AT = 8, KEY_AT = 16, IMAGES_AT = 24, SIZE_AT = 32, CHECKSUM_AT = 40 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put64(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, sizeof value);
}

static void make_right(uint8_t *data, size_t size, uint64_t images)
{
    const uint32_t version = VERSION;
    cab_checksum checksum = cab_checksum_begin();
    memcpy(data, "CABIMGS\n", 8);
    memcpy(data + VERSION_AT, &version, sizeof version);
    put64(data + KEY_AT, KEY);
    put64(data + IMAGES_AT, images);
    put64(data + SIZE_AT, size);
    put64(data + CHECKSUM_AT, 0);
    for (uint64_t i = 0; i < images; i++) {
        cab_cached_image *image = (void *)(data + HEADER + i * sizeof *image);
        const uint64_t bytes = 3 * (uint64_t)image->width * image->height;
        if (image->offset <= size && bytes <= size - image->offset && image->offset >= HEADER + images * sizeof *image)
            image->checksum = cab_checksum_of(data + image->offset, bytes);
    }
    cab_checksum_add(&checksum, data, HEADER + images * sizeof(cab_cached_image));
    put64(data + CHECKSUM_AT, cab_checksum_end(&checksum));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = NULL; /* aligned as a mapping is, and at its exact size */
    const cab_cached_image *table = NULL;
    bool stale = false;
    if (size < 2 || CAB_NEW(&copy, size - 1, "a copy") != CAB_OK)
        return 0;
    const uint64_t images = data[1] % 5;
    memcpy(copy, data + 1, size - 1);
    if (data[0] % 2 == 1 && size - 1 >= HEADER + images * sizeof *table)
        make_right(copy, size - 1, images);
    if (cab_image_cache_parse("fuzz", &(cab_map){copy, size - 1}, KEY, images, 1, &table, &stale) == CAB_OK) {
        uint64_t sum = 0;
        for (uint64_t i = 0; i < images; i++)
            for (uint64_t k = 0; table[i].offset != 0 && k < 3 * (uint64_t)table[i].width * table[i].height; k++)
                sum += copy[table[i].offset + k];
        if (stale || sum > 255 * images * size)
            __builtin_trap();
    }
    cab_free(copy);
    return 0;
}
