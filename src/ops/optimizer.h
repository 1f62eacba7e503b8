/* optimizer.h - what the recorder of AdamW tells its kernels. */
#ifndef CAB_OPS_OPTIMIZER_H
#define CAB_OPS_OPTIMIZER_H

#include "ops/ops.h"

enum { CAB_ADAMW_BLOCK = 1 << 14 }; /* elements of one task, and of one partial sum of the norm */

/* Elements first .. first + count of list[entry]. */
typedef struct cab_adamw_block {
    size_t entry, first, count;
    double squares; /* of the gradient */
} cab_adamw_block;

typedef struct cab_adamw_attributes {
    const cab_optimized *list;
    size_t n, blocks;
    cab_adamw_options options;
} cab_adamw_attributes;

#endif
