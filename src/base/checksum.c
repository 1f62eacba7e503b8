/* checksum.c - XXH64 with seed 0, after https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
 *
 * Four lanes take 8 bytes of each block of 32; the end folds them into one, then takes what is left by 8, 4 and 1 bytes.
 * Every round is a bijection of its lane, so that no change within one word of 8 bytes can vanish from it. */
#include "base/checksum.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read as they lie in memory");

static const uint64_t P1 = UINT64_C(0x9E3779B185EBCA87), P2 = UINT64_C(0xC2B2AE3D27D4EB4F),
                      P3 = UINT64_C(0x165667B19E3779F9), P4 = UINT64_C(0x85EBCA77C2B2AE63),
                      P5 = UINT64_C(0x27D4EB2F165667C5);

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static uint64_t mix(uint64_t lane, uint64_t word)
{
    return rotate(lane + word * P2, 31) * P1;
}

static uint64_t load64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static uint64_t load32(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static void take_blocks(uint64_t lanes[4], const uint8_t *at, size_t blocks)
{
    uint64_t a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
    for (; blocks > 0; blocks--, at += CAB_CHECKSUM_BLOCK) {
        a = mix(a, load64(at));
        b = mix(b, load64(at + 8));
        c = mix(c, load64(at + 16));
        d = mix(d, load64(at + 24));
    }
    lanes[0] = a;
    lanes[1] = b;
    lanes[2] = c;
    lanes[3] = d;
}

cab_checksum cab_checksum_begin(void)
{
    return (cab_checksum){.lanes = {P1 + P2, P2, 0, 0 - P1}};
}

void cab_checksum_add(cab_checksum *checksum, const void *data, size_t size)
{
    const uint8_t *at = data;
    const size_t waiting = checksum->size % CAB_CHECKSUM_BLOCK, missing = CAB_CHECKSUM_BLOCK - waiting;
    if (size == 0)
        return;
    checksum->size += size;
    if (size < missing) {
        memcpy(checksum->rest + waiting, at, size);
        return;
    }
    if (waiting > 0) {
        memcpy(checksum->rest + waiting, at, missing);
        take_blocks(checksum->lanes, checksum->rest, 1);
        at += missing;
        size -= missing;
    }
    take_blocks(checksum->lanes, at, size / CAB_CHECKSUM_BLOCK);
    memcpy(checksum->rest, at + size / CAB_CHECKSUM_BLOCK * CAB_CHECKSUM_BLOCK, size % CAB_CHECKSUM_BLOCK);
}

static uint64_t fold(const cab_checksum *c)
{
    if (c->size < CAB_CHECKSUM_BLOCK)
        return P5;
    uint64_t h = rotate(c->lanes[0], 1) + rotate(c->lanes[1], 7) + rotate(c->lanes[2], 12) + rotate(c->lanes[3], 18);
    for (int i = 0; i < 4; i++)
        h = (h ^ mix(0, c->lanes[i])) * P1 + P4;
    return h;
}

uint64_t cab_checksum_end(const cab_checksum *checksum)
{
    const uint8_t *at = checksum->rest, *end = at + checksum->size % CAB_CHECKSUM_BLOCK;
    uint64_t h = fold(checksum) + checksum->size;
    for (; end - at >= 8; at += 8)
        h = rotate(h ^ mix(0, load64(at)), 27) * P1 + P4;
    if (end - at >= 4) {
        h = rotate(h ^ load32(at) * P1, 23) * P2 + P3;
        at += 4;
    }
    for (; at < end; at++)
        h = rotate(h ^ *at * P5, 11) * P1;
    h = (h ^ h >> 33) * P2;
    h = (h ^ h >> 29) * P3;
    return h ^ h >> 32;
}

uint64_t cab_checksum_of(const void *data, size_t size)
{
    cab_checksum checksum = cab_checksum_begin();
    cab_checksum_add(&checksum, data, size);
    return cab_checksum_end(&checksum);
}
