/* safetensors_internal.h - what reader and writer share: the checksum of a file.
 *
 * "__metadata__": {"cab_checksum": "xxh64:<16 digits>"}: XXH64 of the whole file, computed with these digits as zeros. Other programs ignore
 * it; files without it are not checked. */
#ifndef CAB_IO_SAFETENSORS_INTERNAL_H
#define CAB_IO_SAFETENSORS_INTERNAL_H

#include "base/checksum.h"
#include "io/safetensors.h"

#define CAB_SAFETENSORS_CHECKSUM "cab_checksum"
#define CAB_SAFETENSORS_ALGORITHM "xxh64:"
enum { CAB_SAFETENSORS_DIGITS = 16 };

/* Where the digits begin in a header as the writer writes it; SIZE_MAX: nowhere. Text within strings has its quotes escaped, so it is
 * never mistaken for them. */
size_t cab_safetensors_find_digits(const char *header, size_t size);

#endif
