/* collective.h - what the recorders of collectives tell their kernels. */
#ifndef CAB_OPS_COLLECTIVE_H
#define CAB_OPS_COLLECTIVE_H

#include "ops/ops.h"

extern const cab_op cab_op_gather, cab_op_collect;

typedef struct cab_collect_attributes {
    cab_params *const *stores;
    int n;
} cab_collect_attributes;

#endif
