/* encoding.c - the marks that Unicode texts may begin with:
 *
 *   EF BB BF      UTF-8        FF FE         UTF-16, little-endian       FE FF         UTF-16, big-endian
 *                              FF FE 00 00   UTF-32, little-endian       00 00 FE FF   UTF-32, big-endian
 *
 * UTF-16 without a mark shows by its zeros: in the first characters of nearly every text one byte of two is 0. */
#include "base/encoding.h"

#include <stdbool.h>
#include <string.h>

enum { LOOKED_AT = 32, LEAST = 4 };

static bool begins(const char *text, size_t size, const char *mark, size_t length)
{
    return size >= length && memcmp(text, mark, length) == 0;
}

/* Whether exactly the bytes at odd (1) or even (0) places of the beginning are 0. */
static bool every_other_is_zero(const char *text, size_t size, size_t parity)
{
    const size_t n = size < LOOKED_AT ? size / 2 * 2 : LOOKED_AT;
    if (n < LEAST)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((text[i] == '\0') != (i % 2 == parity))
            return false;
    return true;
}

cab_status cab_encoding_check(const char *name, const char *text, size_t size, size_t *mark)
{
    const char *found = NULL;
    *mark = begins(text, size, "\xEF\xBB\xBF", 3) ? 3 : 0;
    if (begins(text, size, "\xFF\xFE\0\0", 4) || begins(text, size, "\0\0\xFE\xFF", 4))
        found = "UTF-32";
    else if (begins(text, size, "\xFF\xFE", 2) || begins(text, size, "\xFE\xFF", 2))
        found = "UTF-16";
    else if (every_other_is_zero(text, size, 1))
        found = "UTF-16LE";
    else if (every_other_is_zero(text, size, 0))
        found = "UTF-16BE";
    if (found == NULL)
        return CAB_OK;
    return cab_fail(CAB_EFORMAT, "%s: is %s, expected UTF-8; convert it: iconv -f %s -t UTF-8 FILE > NEW", name, found,
                    found);
}
