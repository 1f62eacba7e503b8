/* tokens.h - token ids kept in a file, mapped, read in place.
 *
 * .npy (versions 1 to 3): one dimension of little-endian uint16, int32, uint32 or int64. .bin: bare uint16 or uint32,
 * little-endian. .tok: our cache (cache.h). */
#ifndef CAB_DATA_TOKENS_H
#define CAB_DATA_TOKENS_H

#include "base/error.h"
#include "base/file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cab_token_type { CAB_TOKEN_U16, CAB_TOKEN_U32, CAB_TOKEN_I32, CAB_TOKEN_I64 } cab_token_type;

/* Ids in a mapped file; `data` need not be aligned. */
typedef struct cab_tokens {
    cab_map map;
    const uint8_t *data;
    cab_token_type type;
    uint64_t count;
} cab_tokens;

/* Whether the name ends in .npy or .bin. */
bool cab_tokens_is_tokens(const char *path);
/* bin_type: the element type of .bin files. An empty or malformed file is CAB_EFORMAT. */
cab_status cab_tokens_open(const char *path, cab_token_type bin_type, cab_tokens *tokens);
/* The same from a mapping that `tokens` takes over when the call succeeds. */
cab_status cab_tokens_parse_npy(const char *path, const cab_map *map, cab_tokens *tokens);
cab_status cab_tokens_parse_bin(const char *path, const cab_map *map, cab_token_type bin_type, cab_tokens *tokens);
void cab_tokens_close(cab_tokens *tokens);

size_t cab_token_size(cab_token_type type);
/* The value at i < count, as stored: it may be negative or beyond any vocabulary until it was checked. */
int64_t cab_tokens_get(const cab_tokens *tokens, uint64_t i);
/* ids[k] = value at begin + k; the values must have been checked. */
void cab_tokens_copy(const cab_tokens *tokens, uint64_t begin, uint64_t count, int32_t *ids);

/* Documents of a token file as [begin[i], end[i]): runs between end-of-text ids, empty ones left out; all in one when
 * end_id is negative. Every id is checked against vocab_size; the error gives file, document and position. */
typedef struct cab_token_spans {
    uint64_t *begin;
    uint64_t *end;
    size_t begin_capacity;
    size_t end_capacity;
    uint64_t count;
} cab_token_spans;
cab_status cab_tokens_split(const cab_tokens *tokens, const char *path, int32_t end_id, int64_t vocab_size,
                            cab_token_spans *spans);
void cab_token_spans_free(cab_token_spans *spans);

#endif
