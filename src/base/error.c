#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

/* Names and values quoted from hostile files must not break the line or drive the terminal. */
static void make_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

cab_status cab_fail(cab_status code, const char *format, ...)
{
    char text[ERROR_TEXT_MAX]; /* arguments may point into error_text */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_printable(text);
    memcpy(error_text, text, sizeof text);
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
