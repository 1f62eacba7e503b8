/* cache.h - text tokenised once into a file that is mapped from then on.
 *
 * The file is <directory>/<key>.tok, the key a hash of the text file's bytes, the tokenizer and the options, so a changed
 * input never meets a stale cache, and one cache serves every copy of the same text. Layout, little-endian:
 *
 *   0   "CABTOKS\n"            8 bytes
 *   8   u32 version            2
 *   12  u32 width              bytes per id, 2 or 4
 *   16  u64 key
 *   24  u64 documents          D
 *   32  u64 tokens             T
 *   40  u64 checksum           FNV-1a of all that follows the header
 *   48  u64 reserved           0, twice
 *   64  ids                    T * width, zero-padded to 8 bytes
 *   ..  u64 token_end[D]       end of each document in ids; the last is T
 *   ..  u64 byte_end[D]        the same in bytes of text
 *
 * Documents do not contain separators. A damaged cache is rebuilt with a warning. */
#ifndef CAB_DATA_CACHE_H
#define CAB_DATA_CACHE_H

#include "base/error.h"
#include "data/text.h"
#include "data/tokenizer.h"
#include "data/tokens.h"

#include <stdint.h>

typedef struct cab_cache {
    cab_tokens tokens; /* CAB_TOKEN_U16 or CAB_TOKEN_U32 */
    uint64_t documents;
    const uint64_t *token_end; /* into the mapping */
    const uint64_t *byte_end;
} cab_cache;

/* What the ids depend on besides the tokenizer. */
typedef struct cab_cache_options {
    const char *directory; /* made when absent */
    cab_text_options text;
} cab_cache_options;

/* Opens the cache of a text file, tokenising it first when there is none. Failures leave no file behind. */
cab_status cab_cache_open(const char *text_path, const cab_tokenizer *tokenizer, const cab_cache_options *options,
                          cab_cache *cache);
/* Reads a cache from a mapping, which `cache` takes over when the call succeeds. Ids must lie below vocab_size. */
cab_status cab_cache_parse(const char *path, const cab_map *map, uint64_t key, int64_t vocab_size, cab_cache *cache);
void cab_cache_close(cab_cache *cache);

/* Tokenises a text file into `path`, atomically. */
cab_status cab_cache_build(const char *path, const char *text_path, uint64_t key, const cab_tokenizer *tokenizer,
                           const cab_cache_options *options);
/* The key; reads the whole text file as it lies on disk. */
cab_status cab_cache_key(const char *text_path, const cab_tokenizer *tokenizer, const cab_cache_options *options,
                         uint64_t *key);

#endif
