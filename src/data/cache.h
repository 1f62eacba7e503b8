/* cache.h - text tokenised once into a file that is mapped from then on.
 *
 * The file is <directory>/<key>.tok, the key a hash of the text file's bytes, the tokenizer and the options, so a changed
 * input never meets a stale cache, and one cache serves every copy of the same text. Layout, little-endian:
 *
 *   0   "CABTOKS\n"            8 bytes
 *   8   u32 version            3
 *   12  u32 width              bytes per id, 2 or 4
 *   16  u64 key
 *   24  u64 documents          D
 *   32  u64 tokens             T
 *   40  u64 checksum           XXH64 of all that follows the header, then of the header with zeros here
 *   48  u64 marked             1: the last table is there
 *   56  u64 reserved           0
 *   64  ids                    T * width, zero-padded to 8 bytes
 *   ..  u64 token_end[D]       end of each document in ids; the last is T
 *   ..  u64 byte_end[D]        the same in bytes of text
 *   ..  u64 marks[(T + 63)/64] where documents are conversations: bit i % 64 of word i / 64, whether token i is an answer's
 *
 * Documents do not contain separators. A damaged cache is rebuilt with a warning. */
#ifndef CAB_DATA_CACHE_H
#define CAB_DATA_CACHE_H

#include "base/error.h"
#include "base/fingerprint.h"
#include "data/text.h"
#include "data/tokenizer.h"
#include "data/tokens.h"

#include <stdint.h>

typedef struct cab_cache {
    cab_tokens tokens; /* CAB_TOKEN_U16 or CAB_TOKEN_U32 */
    uint64_t documents;
    const uint64_t *token_end; /* into the mapping */
    const uint64_t *byte_end;
    const uint64_t *marks; /* NULL: no document is a conversation */
    cab_fingerprint text;  /* of the text file, of all its bytes; set by cab_cache_open() */
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
