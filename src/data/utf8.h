/* utf8.h - UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef CAB_DATA_UTF8_H
#define CAB_DATA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the bytes at the start of a text are. */
typedef enum cab_utf8_state { CAB_UTF8_VALID, CAB_UTF8_INVALID, CAB_UTF8_INCOMPLETE } cab_utf8_state;

/* Looks at the first character of text[0..size), size > 0. *length: the bytes of the character; when invalid or
 * incomplete, the longest prefix that could have begun one (at least 1), which is what one U+FFFD stands for. */
cab_utf8_state cab_utf8_next(const char *text, size_t size, unsigned *length);

/* The number of bytes before the first one that is not part of valid UTF-8; size when all is well. */
size_t cab_utf8_valid(const char *text, size_t size);

/* The code point at `text`, which must be valid; *length receives its bytes. */
uint32_t cab_utf8_decode(const char *text, unsigned *length);

/* Writes a code point below U+110000 that is no surrogate; returns its bytes. */
unsigned cab_utf8_encode(uint32_t code, char out[4]);

/* Start of the character that ends before text[end], end > 0, in valid text. */
size_t cab_utf8_previous(const char *text, size_t end);

/* The White_Space property; letters, marks, decimal and letter numbers, connectors and joiners. */
bool cab_unicode_is_space(uint32_t code);
bool cab_unicode_is_word(uint32_t code);

#endif
