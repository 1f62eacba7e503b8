/* optimizer.h - what the recorder of AdamW tells its kernels. */
#ifndef CAB_OPS_OPTIMIZER_H
#define CAB_OPS_OPTIMIZER_H

#include "ops/ops.h"

extern const cab_op cab_op_adamw, cab_op_gradient_norm, cab_op_adopt;

enum { CAB_ADAMW_BLOCK = 1 << 14 }; /* elements of one task, and of one partial sum of the norm */

/* Elements first .. first + count of list[entry]. */
typedef struct cab_adamw_block {
    size_t entry, first, count;
    double squares; /* of the gradient */
} cab_adamw_block;

/* The list for devices that cannot follow the host's pointers: one entry per parameter in order, written before every run into memory
 * that the kernel has prepared. */
typedef struct cab_adamw_entry {
    float *p, *g, *m, *v, *average; /* average: NULL for none */
    void *low;                      /* bf16, NULL for none */
    int64_t first_block, count;     /* blocks of the entries before it; elements */
    float decay, rate;
} cab_adamw_entry;

typedef struct cab_adamw_attributes {
    const cab_optimized *list;
    size_t n, blocks;
    cab_adamw_options options;
} cab_adamw_attributes;

/* Inputs of adamw. */
enum { CAB_ADAMW_LR, CAB_ADAMW_STEP, CAB_ADAMW_NORMS /* NULL: the norm of the list */ };

static inline int64_t cab_optimized_count(const cab_optimized *o)
{
    return o->count > 0 ? o->count : cab_elements(o->parameter);
}

#endif
