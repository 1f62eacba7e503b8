/* fuzz_tokens.c - hostile token files. The first byte chooses the kind: .npy, .bin of either width, or a token cache, the
 * last with its key and checksum made right so that what lies behind them is reached. */
#include "base/checksum.h"
#include "base/memory.h"
#include "data/cache.h"
#include "data/tokens.h"

#include <string.h>

enum { KEY = 7, VOCABULARY = 1000, END = 0, HEADER = 64, KEY_AT = 16, CHECKSUM_AT = 40 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_tokens(uint8_t kind, const cab_map *map)
{
    cab_tokens tokens;
    cab_token_spans spans = {0};
    cab_status status = kind == 0
                            ? cab_tokens_parse_npy("fuzz", map, &tokens)
                            : cab_tokens_parse_bin("fuzz", map, kind == 1 ? CAB_TOKEN_U16 : CAB_TOKEN_U32, &tokens);
    if (status != CAB_OK)
        return;
    if (cab_tokens_split(&tokens, "fuzz", END, VOCABULARY, &spans) == CAB_OK) {
        for (uint64_t i = 0; i < spans.count; i++)
            for (uint64_t k = spans.begin[i]; k < spans.end[i]; k++)
                if (cab_tokens_get(&tokens, k) <= END || cab_tokens_get(&tokens, k) >= VOCABULARY)
                    __builtin_trap();
    }
    cab_token_spans_free(&spans);
}

static void fuzz_cache(const cab_map *map)
{
    cab_cache cache;
    uint8_t *copy = NULL; /* aligned as a mapping is, and at its exact size */
    if (CAB_NEW(&copy, map->size, "a copy") != CAB_OK)
        return;
    if (map->size > 0)
        memcpy(copy, map->data, map->size);
    if (map->size >= HEADER) {
        uint64_t key = KEY, value = 0;
        cab_checksum checksum = cab_checksum_begin();
        memcpy(copy + KEY_AT, &key, sizeof key);
        memcpy(copy + CHECKSUM_AT, &value, sizeof value);
        cab_checksum_add(&checksum, copy + HEADER, map->size - HEADER);
        cab_checksum_add(&checksum, copy, HEADER);
        value = cab_checksum_end(&checksum);
        memcpy(copy + CHECKSUM_AT, &value, sizeof value);
    }
    if (cab_cache_parse("fuzz", &(cab_map){copy, map->size}, KEY, VOCABULARY, &cache) == CAB_OK) {
        uint64_t at = 0;
        for (uint64_t i = 0; i < cache.documents; i++)
            for (; at < cache.token_end[i]; at++)
                if (cab_tokens_get(&cache.tokens, at) >= VOCABULARY)
                    __builtin_trap();
        if (at != cache.tokens.count)
            __builtin_trap();
    }
    cab_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    cab_map map = {size > 1 ? data + 1 : NULL, size - 1};
    if (data[0] % 4 == 3)
        fuzz_cache(&map);
    else
        fuzz_tokens(data[0] % 4, &map);
    return 0;
}
