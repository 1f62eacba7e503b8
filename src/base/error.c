#include "base/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#ifdef __clang_analyzer__
#undef cab_fail
#undef cab_fail_errno
#endif

enum { ERROR_TEXT_MAX = 1024 };

static _Thread_local char error_text[ERROR_TEXT_MAX];

const char *cab_error_text(void)
{
    return error_text;
}

void cab_error_set_text(const char *text)
{
    snprintf(error_text, sizeof error_text, "%s", text);
}

/* Characters that drive a terminal, break a line or turn the direction of a text: C0, DEL, C1, and of U+2000 the line and
 * paragraph separators and the bidirectional controls. */
static bool is_control(utf8proc_int32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x2028 && code <= 0x202e) ||
           (code >= 0x2066 && code <= 0x2069);
}

const char *cab_printable(const char *text, char *out, size_t size)
{
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;
    size_t used = 0;
    for (utf8proc_ssize_t left = (utf8proc_ssize_t)strlen(text); left > 0;) {
        char shown[16];
        utf8proc_int32_t code = 0;
        utf8proc_ssize_t n = utf8proc_iterate(at, left, &code);
        if (n <= 0)
            snprintf(shown, sizeof shown, "\\x%02x", at[0]);
        else if (is_control(code))
            snprintf(shown, sizeof shown, code < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)code);
        else
            snprintf(shown, sizeof shown, "%.*s", (int)n, (const char *)at);
        if (code == '\n' || code == '\t' || code == '\r')
            snprintf(shown, sizeof shown, "\\%c", code == '\n' ? 'n' : code == '\t' ? 't' : 'r');
        const size_t length = strlen(shown);
        if (used + length + 1 > size)
            break;
        memcpy(out + used, shown, length);
        used += length;
        n = n <= 0 ? 1 : n;
        at += n;
        left -= n;
    }
    if (size > 0)
        out[used] = '\0';
    return out;
}

cab_status cab_fail(cab_status code, const char *format, ...)
{
    char text[ERROR_TEXT_MAX]; /* arguments may point into error_text */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cab_printable(text, error_text, sizeof error_text);
    return code;
}

cab_status cab_fail_errno(cab_status code, int errno_value, const char *format, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return cab_fail(code, "%s: %s", text, strerror(errno_value));
}

const char *cab_status_name(cab_status status)
{
    switch (status) {
#define CAB_STATUS_CASE(name, value, text)                                                                             \
    case name:                                                                                                         \
        return text;
        CAB_STATUS_TABLE(CAB_STATUS_CASE)
#undef CAB_STATUS_CASE
    }
    return "unknown status";
}
