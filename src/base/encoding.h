/* encoding.h - how a text begins: byte order marks, and UTF-16 told apart from UTF-8. */
#ifndef CAB_BASE_ENCODING_H
#define CAB_BASE_ENCODING_H

#include "base/error.h"

#include <stddef.h>

/* Looks at the first bytes of a text. *mark: the size of UTF-8's byte order mark, 3, or 0 where there is none. UTF-16 and
 * UTF-32 are CAB_EFORMAT with the command that converts them; `name` is the file in error texts. */
cab_status cab_encoding_check(const char *name, const char *text, size_t size, size_t *mark);

#endif
