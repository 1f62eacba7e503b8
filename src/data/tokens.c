/* tokens.c - token ids in .npy and .bin files.
 *
 * .npy: "\x93NUMPY", u8 major, u8 minor, u16 (version 1) or u32 (2, 3) header length, then a Python dictionary such as
 *
 *   {'descr': '<u2', 'fortran_order': False, 'shape': (1234,), }
 *
 * padded by spaces and ended by a newline, then the elements. */
#include "data/tokens.h"

#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "token files are mapped as they are, little-endian");

size_t cab_token_size(cab_token_type type)
{
    return type == CAB_TOKEN_U16 ? 2 : type == CAB_TOKEN_I64 ? 8 : 4;
}

int64_t cab_tokens_get(const cab_tokens *tokens, uint64_t i)
{
    const uint8_t *at = tokens->data + i * cab_token_size(tokens->type);
    uint16_t u16 = 0;
    uint32_t u32 = 0;
    int64_t i64 = 0;
    switch (tokens->type) {
    case CAB_TOKEN_U16:
        memcpy(&u16, at, sizeof u16);
        return u16;
    case CAB_TOKEN_U32:
    case CAB_TOKEN_I32:
        memcpy(&u32, at, sizeof u32);
        return tokens->type == CAB_TOKEN_U32 ? (int64_t)u32 : (int64_t)(int32_t)u32;
    default:
        memcpy(&i64, at, sizeof i64);
        return i64;
    }
}

void cab_tokens_copy(const cab_tokens *tokens, uint64_t begin, uint64_t count, int32_t *ids)
{
    for (uint64_t i = 0; i < count; i++)
        ids[i] = (int32_t)cab_tokens_get(tokens, begin + i);
}

static bool has_suffix(const char *path, const char *suffix)
{
    size_t size = strlen(path), length = strlen(suffix);
    return size > length && strcmp(path + size - length, suffix) == 0;
}

bool cab_tokens_is_tokens(const char *path)
{
    return has_suffix(path, ".npy") || has_suffix(path, ".bin");
}

/* ---- .npy ------------------------------------------------------------------------------------------------------------- */

/* What is left of the header dictionary. */
typedef struct cursor {
    const char *at, *end;
} cursor;

static void skip_blanks(cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t'))
        c->at++;
}

static bool take(cursor *c, const char *word)
{
    size_t size = strlen(word);
    skip_blanks(c);
    if ((size_t)(c->end - c->at) < size || memcmp(c->at, word, size) != 0)
        return false;
    c->at += size;
    return true;
}

static bool take_string(cursor *c, char *out, size_t size)
{
    skip_blanks(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
        return false;
    const char *close = memchr(c->at + 1, *c->at, (size_t)(c->end - c->at) - 1);
    if (close == NULL || (size_t)(close - c->at) > size)
        return false;
    memcpy(out, c->at + 1, (size_t)(close - c->at) - 1);
    out[close - c->at - 1] = '\0';
    c->at = close + 1;
    return true;
}

static bool take_number(cursor *c, uint64_t *out)
{
    skip_blanks(c);
    const char *first = c->at;
    for (*out = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (__builtin_mul_overflow(*out, 10u, out) || __builtin_add_overflow(*out, (uint64_t)(*c->at - '0'), out))
            return false;
    return c->at > first;
}

typedef struct npy_header {
    char descr[32];
    uint64_t count;
    unsigned dimensions;
} npy_header;

static bool take_shape(cursor *c, npy_header *header)
{
    if (!take(c, "("))
        return false;
    while (!take(c, ")")) {
        if (!take_number(c, &header->count))
            return false;
        header->dimensions++;
        if (!take(c, ",") && !take(c, ")"))
            return false;
        else if (c->at[-1] == ')')
            break;
    }
    return true;
}

static bool parse_header(cursor c, npy_header *header)
{
    bool descr = false, order = false, shape = false;
    if (!take(&c, "{"))
        return false;
    while (!take(&c, "}")) {
        char key[32];
        if (!take_string(&c, key, sizeof key) || !take(&c, ":"))
            return false;
        bool known = false;
        if (strcmp(key, "descr") == 0)
            known = descr = take_string(&c, header->descr, sizeof header->descr);
        else if (strcmp(key, "fortran_order") == 0) /* all the same for one dimension */
            known = order = take(&c, "False") || take(&c, "True");
        else if (strcmp(key, "shape") == 0 && !shape)
            known = shape = take_shape(&c, header);
        if (!known || (!take(&c, ",") && !(take(&c, "}") && c.at--)))
            return false;
    }
    return descr && order && shape;
}

/* Where the dictionary lies; fails for anything that is not .npy version 1 to 3. */
static cab_status find_header(const char *path, const cab_map *map, cursor *c)
{
    const uint8_t *p = map->data;
    if (map->size < 10 || memcmp(p, "\x93NUMPY", 6) != 0)
        return cab_fail(CAB_EFORMAT, "%s: not a .npy file: does not begin with \\x93NUMPY", path);
    if (p[6] < 1 || p[6] > 3)
        return cab_fail(CAB_EUNSUPPORTED, "%s: .npy version %u, expected 1 to 3", path, p[6]);
    uint64_t start = p[6] == 1 ? 10 : 12;
    uint64_t length = p[8] | (uint64_t)p[9] << 8;
    if (p[6] > 1 && map->size >= start)
        length |= (uint64_t)p[10] << 16 | (uint64_t)p[11] << 24;
    if (map->size < start || length > map->size - start)
        return cab_fail(CAB_EFORMAT, "%s: .npy header of %" PRIu64 " bytes in a file of %zu", path, length, map->size);
    *c = (cursor){(const char *)p + start, (const char *)p + start + length};
    return CAB_OK;
}

static cab_status find_type(const char *path, const char *descr, cab_token_type *type)
{
    static const struct {
        const char *descr;
        cab_token_type type;
    } types[] = {{"<u2", CAB_TOKEN_U16}, {"<u4", CAB_TOKEN_U32}, {"<i4", CAB_TOKEN_I32}, {"<i8", CAB_TOKEN_I64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(descr, types[i].descr) == 0) {
            *type = types[i].type;
            return CAB_OK;
        }
    }
    return cab_fail(CAB_EUNSUPPORTED, "%s: elements are '%s', expected uint16, int32, uint32 or int64, little-endian",
                    path, descr);
}

cab_status cab_tokens_parse_npy(const char *path, const cab_map *map, cab_tokens *tokens)
{
    cursor c;
    npy_header header = {0};
    cab_token_type type = CAB_TOKEN_U16;
    uint64_t needed = 0;
    CAB_TRY(find_header(path, map, &c));
    if (!parse_header(c, &header))
        return cab_fail(CAB_EFORMAT, "%s: .npy header is not {'descr': ..., 'fortran_order': ..., 'shape': ...}: %.*s",
                        path, (int)(c.end - c.at < 80 ? c.end - c.at : 80), c.at);
    if (header.dimensions != 1)
        return cab_fail(CAB_EUNSUPPORTED, "%s: an array of %u dimensions, expected 1", path, header.dimensions);
    CAB_TRY(find_type(path, header.descr, &type));
    size_t body = map->size - (size_t)((const uint8_t *)c.end - map->data);
    if (__builtin_mul_overflow(header.count, cab_token_size(type), &needed) || needed != body)
        return cab_fail(CAB_EFORMAT, "%s: %" PRIu64 " elements of %zu bytes, but %zu bytes of data: %s", path,
                        header.count, cab_token_size(type), body, body < needed ? "truncated" : "damaged");
    *tokens = (cab_tokens){*map, (const uint8_t *)c.end, type, header.count};
    return CAB_OK;
}

/* ---- .bin ------------------------------------------------------------------------------------------------------------- */

cab_status cab_tokens_parse_bin(const char *path, const cab_map *map, cab_token_type bin_type, cab_tokens *tokens)
{
    size_t width = cab_token_size(bin_type);
    if (map->size % width != 0)
        return cab_fail(CAB_EFORMAT, "%s: %zu bytes are no whole number of %zu-byte tokens", path, map->size, width);
    *tokens = (cab_tokens){*map, map->data, bin_type, map->size / width};
    return CAB_OK;
}

cab_status cab_tokens_open(const char *path, cab_token_type bin_type, cab_tokens *tokens)
{
    cab_map map = {0};
    *tokens = (cab_tokens){0};
    if (!cab_tokens_is_tokens(path))
        return cab_fail(CAB_EUNSUPPORTED, "%s: not a kind of token file; expected .npy or .bin", path);
    CAB_TRY(cab_map_open(path, &map));
    cab_status status = has_suffix(path, ".npy") ? cab_tokens_parse_npy(path, &map, tokens)
                                                 : cab_tokens_parse_bin(path, &map, bin_type, tokens);
    if (status != CAB_OK)
        cab_map_close(&map);
    return status;
}

void cab_tokens_close(cab_tokens *tokens)
{
    cab_map_close(&tokens->map);
    *tokens = (cab_tokens){0};
}

/* ---- documents -------------------------------------------------------------------------------------------------------- */

static cab_status add_span(cab_token_spans *spans, uint64_t begin, uint64_t end)
{
    if (begin == end)
        return CAB_OK;
    CAB_TRY(CAB_GROW(&spans->begin, &spans->begin_capacity, spans->count + 1, "documents"));
    CAB_TRY(CAB_GROW(&spans->end, &spans->end_capacity, spans->count + 1, "documents"));
    spans->begin[spans->count] = begin;
    spans->end[spans->count++] = end;
    return CAB_OK;
}

cab_status cab_tokens_split(const cab_tokens *tokens, const char *path, int32_t end_id, int64_t vocab_size,
                            cab_token_spans *spans)
{
    uint64_t begin = 0;
    for (uint64_t i = 0; i < tokens->count; i++) {
        int64_t id = cab_tokens_get(tokens, i);
        if (id < 0 || id >= vocab_size)
            return cab_fail(CAB_EFORMAT,
                            "%s: document %" PRIu64 ", position %" PRIu64 " (token %" PRIu64
                            " of the file): id %" PRId64 ", but the vocabulary has %" PRId64,
                            path, spans->count + 1, i - begin, i, id, vocab_size);
        if (end_id >= 0 && id == end_id) {
            CAB_TRY(add_span(spans, begin, i));
            begin = i + 1;
        }
    }
    return add_span(spans, begin, tokens->count);
}

void cab_token_spans_free(cab_token_spans *spans)
{
    cab_free(spans->begin);
    cab_free(spans->end);
    *spans = (cab_token_spans){0};
}
