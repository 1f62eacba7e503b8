/* expand.h - what lies behind a gzip, xz, zstd or bzip2 filter, block by block, with every checksum verified.
 *
 * The end is told only after the checksums of all that came before were right, so a damaged file cannot pass for a whole
 * one. A limit is checked before the memory is taken that it would need. */
#ifndef CAB_DATA_EXPAND_H
#define CAB_DATA_EXPAND_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct cab_expander cab_expander;

typedef enum cab_packing { CAB_UNPACKED, CAB_GZIP, CAB_XZ, CAB_ZSTD, CAB_BZIP2 } cab_packing;

/* Told by the first bytes. */
cab_packing cab_packing_of(const void *data, size_t size);
/* "gzip", "xz", "zstd", "bzip2"; "no" for CAB_UNPACKED. */
const char *cab_packing_name(cab_packing packing);

/* What a packed file may expand to, in bytes; 0: the default. */
typedef struct cab_expand_limits {
    uint64_t member; /* one member of an archive, one document of a text. Default: 1 GiB */
    uint64_t total;  /* in all. Default: 256 times the size of the file, and 64 MiB for small ones */
} cab_expand_limits;

/* From options in MiB; 0: the default. */
cab_expand_limits cab_expand_limits_mib(int64_t member, int64_t total);
/* The limits with their defaults filled in for a file of `size` bytes. */
cab_expand_limits cab_expand_limits_of(const cab_expand_limits *limits, uint64_t size);

/* `data` must outlive the expander and be packed; `name` (copied) stands for the file in error texts. total: 0 for none. */
cab_status cab_expander_open(const void *data, size_t size, const char *name, uint64_t total, cab_expander **out);
/* The next block, borrowed until the next call; *size is 0 at the end. CAB_EFORMAT: damaged, cut short, followed by other
 * bytes, or larger than `total`. */
cab_status cab_expander_next(cab_expander *expander, const void **block, size_t *size);
/* Packed bytes read so far. */
uint64_t cab_expander_position(const cab_expander *expander);
void cab_expander_close(cab_expander *expander);

#endif
