/* decode.c - the "decoder" of a tokenizer.json: ids back to text.
 *
 * What an id stands for in the middle of a text does not depend on its neighbours in the supported families, so its bytes
 * are worked out once at load. The start of a text loses a space (Strip, Metaspace); bytes become characters at the end:
 * each maximal part that cannot begin a character is one U+FFFD, as in the Unicode Standard, section 3.9. */
#include "base/memory.h"
#include "data/tokenizer_internal.h"
#include "data/utf8.h"

#include <stdio.h>
#include <string.h>

/* ---- reading -------------------------------------------------------------------------------------------------------- */

static cab_status read_replace(cab_decode *decode, const cab_json *json, json_object *object, const char *owner)
{
    json_object *content = NULL;
    if (decode->replaced.literal.count > 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: a second Replace is not supported", owner);
    CAB_TRY(cab_pattern_read(&decode->replaced, json, object, owner));
    if (decode->replaced.code != NULL)
        return cab_fail(CAB_EUNSUPPORTED, "%s: a Regex is not supported, only a String", owner);
    if (!json_object_object_get_ex(object, "content", &content) || !json_object_is_type(content, json_type_string))
        return cab_fail(CAB_EFORMAT, "%s: \"content\" is missing, expected a string", owner);
    return cab_bytes_append(&decode->replacement, json_object_get_string(content),
                            (size_t)json_object_get_string_len(content));
}

static cab_status read_strip(cab_decode *decode, const cab_json *json, json_object *object, const char *owner)
{
    const char *content = NULL;
    int64_t start = 0, stop = 0;
    CAB_TRY(cab_json_string(json, object, "content", &content));
    CAB_TRY(cab_json_int(json, object, "start", 0, INT32_MAX, &start));
    CAB_TRY(cab_json_int(json, object, "stop", 0, INT32_MAX, &stop));
    if (strcmp(content, " ") != 0 || start > 1 || stop != 0 || !decode->fused)
        return cab_fail(CAB_EUNSUPPORTED, "%s: only one space at the start, after Fuse, is supported", owner);
    decode->strip_space = start == 1;
    return CAB_OK;
}

static cab_status read_metaspace(cab_decode *decode, const cab_json *json, json_object *object, const char *owner)
{
    const char *replacement = NULL, *scheme = NULL;
    bool prefix = true;
    CAB_TRY(cab_json_string_or(json, object, "replacement", CAB_METASPACE, &replacement));
    CAB_TRY(cab_json_bool_or(json, object, "add_prefix_space", true, &prefix));
    CAB_TRY(cab_json_string_or(json, object, "prepend_scheme", prefix ? "always" : "never", &scheme));
    if (strcmp(replacement, CAB_METASPACE) != 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: replacement \"%.80s\" is not supported; supported: U+2581", owner,
                        replacement);
    decode->kind = CAB_DECODE_METASPACE;
    decode->drop_spaces = strcmp(scheme, "never") != 0;
    return CAB_OK;
}

static cab_status read_sequence(cab_decode *decode, const cab_json *json, json_object *object, int depth)
{
    json_object *items = NULL;
    if (depth == CAB_COMPONENT_DEPTH)
        return cab_fail(CAB_EUNSUPPORTED, "%s: decoder: Sequences nested more than %d deep", json->name, depth);
    CAB_TRY(cab_json_array(json, object, "decoders", &items));
    for (size_t i = 0; i < json_object_array_length(items); i++)
        CAB_TRY(cab_decode_read(decode, json, json_object_array_get_idx(items, i), depth + 1));
    return CAB_OK;
}

cab_status cab_decode_read(cab_decode *decode, const cab_json *json, json_object *object, int depth)
{
    const char *type = NULL;
    char owner[512];
    if (object == NULL)
        return CAB_OK;
    CAB_TRY(cab_json_string(json, object, "type", &type));
    snprintf(owner, sizeof owner, "%s: decoder %.80s", json->name, type);
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(decode, json, object, depth);
    if (strcmp(type, "Replace") == 0)
        return read_replace(decode, json, object, owner);
    if (strcmp(type, "Strip") == 0)
        return read_strip(decode, json, object, owner);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(decode, json, object, owner);
    if (strcmp(type, "ByteLevel") == 0)
        decode->kind = CAB_DECODE_BYTE_LEVEL;
    else if (strcmp(type, "ByteFallback") == 0)
        decode->byte_fallback = true;
    else if (strcmp(type, "Fuse") == 0)
        decode->fused = true;
    else
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s is not supported; supported: Sequence, ByteLevel, Metaspace, Replace, "
                        "ByteFallback, Fuse, Strip",
                        owner);
    return CAB_OK;
}

void cab_decode_clear(cab_decode *decode)
{
    cab_pattern_free(&decode->replaced);
    cab_bytes_free(&decode->replacement);
    cab_bytes_free(&decode->pieces);
    cab_free(decode->begin);
    *decode = (cab_decode){0};
}

/* ---- pieces --------------------------------------------------------------------------------------------------------- */

/* Tokens outside the byte alphabet, added ones, stand for themselves. */
static cab_status byte_level_piece(const char *text, size_t size, cab_bytes *out)
{
    size_t before = out->count;
    unsigned length = 0;
    for (size_t i = 0; i < size; i += length) {
        int byte = cab_byte_level_byte(cab_utf8_decode(text + i, &length));
        if (byte < 0) {
            out->count = before;
            return cab_bytes_append(out, text, size);
        }
        CAB_TRY(cab_bytes_append(out, &(uint8_t){(uint8_t)byte}, 1));
    }
    return CAB_OK;
}

static cab_status replaced_piece(const char *text, size_t size, const cab_bytes *from, const char *to, size_t to_size,
                                 cab_bytes *out)
{
    for (size_t i = 0; i < size;) {
        if (size - i >= from->count && memcmp(text + i, from->data, from->count) == 0) {
            CAB_TRY(cab_bytes_append(out, to, to_size));
            i += from->count;
        } else {
            CAB_TRY(cab_bytes_append(out, text + i, 1));
            i++;
        }
    }
    return CAB_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static cab_status piece(const cab_decode *decode, const char *text, size_t size, cab_bytes *out)
{
    static char metaspace[] = CAB_METASPACE;
    if (decode->kind == CAB_DECODE_BYTE_LEVEL)
        return byte_level_piece(text, size, out);
    if (decode->byte_fallback && size == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>') {
        int high = hex_digit(text[3]), low = hex_digit(text[4]);
        if (high >= 0 && low >= 0)
            return cab_bytes_append(out, &(uint8_t){(uint8_t)(high << 4 | low)}, 1);
    }
    if (decode->kind == CAB_DECODE_METASPACE)
        return replaced_piece(text, size, &(cab_bytes){metaspace, CAB_METASPACE_SIZE, 0}, " ", 1, out);
    if (decode->replaced.literal.count > 0)
        return replaced_piece(text, size, &decode->replaced.literal, decode->replacement.data,
                              decode->replacement.count, out);
    return cab_bytes_append(out, text, size);
}

cab_status cab_decode_build(cab_decode *decode, const cab_vocab *vocab)
{
    CAB_TRY(CAB_NEW(&decode->begin, (size_t)vocab->size + 1, "the pieces of the vocabulary"));
    for (int32_t id = 0; id < vocab->size; id++) {
        const cab_token_text *token = &vocab->tokens[id];
        if (token->present)
            CAB_TRY(piece(decode, vocab->text.data + token->offset, token->size, &decode->pieces));
        decode->begin[id + 1] = decode->pieces.count;
    }
    return CAB_OK;
}

const char *cab_tokenizer_piece(const cab_tokenizer *tokenizer, int32_t id, size_t *size)
{
    *size = 0;
    if (id < 0 || id >= tokenizer->vocab.size || !tokenizer->vocab.tokens[id].present)
        return NULL;
    const cab_decode *decode = &tokenizer->decode;
    *size = decode->begin[id + 1] - decode->begin[id];
    return *size == 0 ? "" : decode->pieces.data + decode->begin[id];
}

/* ---- decoding ------------------------------------------------------------------------------------------------------- */

void cab_decoder_begin(cab_decoder *decoder, const cab_tokenizer *tokenizer, bool at_start)
{
    *decoder = (cab_decoder){.tokenizer = tokenizer, .at_start = at_start};
}

static cab_status push_byte(cab_decoder *decoder, char byte, cab_bytes *text)
{
    decoder->pending[decoder->pending_count++] = byte;
    while (decoder->pending_count > 0) {
        unsigned length = 0;
        cab_utf8_state state = cab_utf8_next(decoder->pending, decoder->pending_count, &length);
        if (state == CAB_UTF8_INCOMPLETE)
            break;
        CAB_TRY(state == CAB_UTF8_VALID ? cab_bytes_append(text, decoder->pending, length)
                                        : cab_bytes_append(text, "\xEF\xBF\xBD", 3));
        decoder->pending_count -= length;
        memmove(decoder->pending, decoder->pending + length, decoder->pending_count);
    }
    return CAB_OK;
}

cab_status cab_decoder_push(cab_decoder *decoder, int32_t id, cab_bytes *text)
{
    const cab_decode *decode = &decoder->tokenizer->decode;
    size_t size = 0, begin = 0;
    const char *bytes = cab_tokenizer_piece(decoder->tokenizer, id, &size);
    if (bytes == NULL)
        return cab_fail(CAB_EARG, "%s: token id %d has no token; ids are 0 to %d", decoder->tokenizer->name, id,
                        decoder->tokenizer->vocab.size - 1);
    if (decoder->at_start && decode->strip_space && size > 0 && bytes[0] == ' ')
        begin = 1;
    bool drop = decoder->at_start && decode->drop_spaces;
    for (size_t i = begin; i < size; i++)
        if (!drop || bytes[i] != ' ')
            CAB_TRY(push_byte(decoder, bytes[i], text));
    if (size > 0)
        decoder->at_start = false;
    return CAB_OK;
}

cab_status cab_decoder_finish(cab_decoder *decoder, cab_bytes *text)
{
    if (decoder->pending_count == 0)
        return CAB_OK;
    decoder->pending_count = 0;
    return cab_bytes_append(text, "\xEF\xBF\xBD", 3);
}

cab_status cab_tokenizer_decode(const cab_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                cab_bytes *text)
{
    cab_decoder decoder;
    cab_decoder_begin(&decoder, tokenizer, true);
    for (size_t i = 0; i < count; i++)
        if (!skip_special || !cab_tokenizer_is_special(tokenizer, ids[i]))
            CAB_TRY(cab_decoder_push(&decoder, ids[i], text));
    return cab_decoder_finish(&decoder, text);
}
