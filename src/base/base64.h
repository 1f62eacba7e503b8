/* base64.h - bytes as text, for data URIs (RFC 4648, with padding). */
#ifndef CAB_BASE_BASE64_H
#define CAB_BASE_BASE64_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* A NUL-terminated string owned by the caller. */
cab_status cab_base64_encode(const void *data, size_t size, char **text);
/* Whether the text is base64 of at least one byte, and nothing else: then it is safe between quotes. */
bool cab_base64_check(const char *text);

#endif
