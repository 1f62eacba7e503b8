/* utf8.c - UTF-8 as Unicode defines it (The Unicode Standard, table 3-7, well-formed byte sequences):
 *
 *   00..7F | C2..DF c | E0 A0..BF c | E1..EC,EE,EF c c | ED 80..9F c | F0 90..BF c c | F1..F3 c c c | F4 80..8F c c
 *
 * where c is 80..BF. */
#include "data/utf8.h"

#include <string.h>
#include <utf8proc.h>

/* Bounds of the second byte; the first byte is known to lead `more` others. */
static void second_bounds(uint8_t first, uint8_t *low, uint8_t *high)
{
    *low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    *high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
}

cab_utf8_state cab_utf8_next(const char *text, size_t size, unsigned *length)
{
    const uint8_t *p = (const uint8_t *)text;
    *length = 1;
    if (p[0] < 0x80)
        return CAB_UTF8_VALID;
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return CAB_UTF8_INVALID;
    unsigned more = p[0] < 0xE0 ? 1 : p[0] < 0xF0 ? 2 : 3;
    uint8_t low = 0, high = 0;
    second_bounds(p[0], &low, &high);
    for (unsigned i = 1; i <= more; i++) {
        if (i == size)
            return CAB_UTF8_INCOMPLETE;
        if (p[i] < low || p[i] > high)
            return CAB_UTF8_INVALID;
        *length = i + 1;
        low = 0x80;
        high = 0xBF;
    }
    return CAB_UTF8_VALID;
}

size_t cab_utf8_valid(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        uint64_t word = 0;
        if (size - at >= sizeof word) { /* eight ASCII bytes at a time */
            memcpy(&word, text + at, sizeof word);
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                at += sizeof word;
                continue;
            }
        }
        unsigned length = 0;
        if (cab_utf8_next(text + at, size - at, &length) != CAB_UTF8_VALID)
            return at;
        at += length;
    }
    return size;
}

uint32_t cab_utf8_decode(const char *text, unsigned *length)
{
    const uint8_t *p = (const uint8_t *)text;
    if (p[0] < 0x80) {
        *length = 1;
        return p[0];
    }
    if (p[0] < 0xE0) {
        *length = 2;
        return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    }
    if (p[0] < 0xF0) {
        *length = 3;
        return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    }
    *length = 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

unsigned cab_utf8_encode(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    unsigned length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (unsigned i = length; --i > 0; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(0xF00u >> length | code);
    return length;
}

size_t cab_utf8_previous(const char *text, size_t end)
{
    do
        end--;
    while (end > 0 && ((uint8_t)text[end] & 0xC0) == 0x80);
    return end;
}

bool cab_unicode_is_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
           code == 0x3000;
}

bool cab_unicode_is_word(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return code == 0x200C || code == 0x200D;
    }
}
