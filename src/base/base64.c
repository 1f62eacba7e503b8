/* base64.c - three bytes are four letters of six bits each; '=' fills up the last four. */
#include "base/base64.h"

#include "base/memory.h"

#include <stdint.h>
#include <string.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

cab_status cab_base64_encode(const void *data, size_t size, char **text)
{
    const unsigned char *from = data;
    char *to;
    if (size > SIZE_MAX / 2)
        return cab_fail(CAB_ENOMEM, "not enough memory for %zu bytes as base64", size);
    CAB_TRY(CAB_NEW(text, (size + 2) / 3 * 4 + 1, "base64"));
    to = *text;
    for (size_t i = 0; i < size; i += 3) {
        const size_t left = size - i;
        const uint32_t bits = (uint32_t)from[i] << 16 | (left > 1 ? (uint32_t)from[i + 1] << 8 : 0) |
                              (left > 2 ? (uint32_t)from[i + 2] : 0);
        *to++ = letters[bits >> 18];
        *to++ = letters[bits >> 12 & 63];
        *to++ = left > 1 ? letters[bits >> 6 & 63] : '=';
        *to++ = left > 2 ? letters[bits & 63] : '=';
    }
    return CAB_OK;
}

bool cab_base64_check(const char *text)
{
    const size_t length = strlen(text), body = strspn(text, letters);
    return length > 0 && length % 4 == 0 && length - body <= 2 && strspn(text + body, "=") == length - body;
}
