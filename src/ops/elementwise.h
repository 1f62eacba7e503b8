/* elementwise.h - what the elementwise recorders tell their kernels. */
#ifndef CAB_OPS_ELEMENTWISE_H
#define CAB_OPS_ELEMENTWISE_H

#include "ops/ops.h"

extern const cab_op cab_op_activate, cab_op_glu, cab_op_add, cab_op_gate;

enum { CAB_ADD_MAX = 4 };

typedef struct cab_activate_attributes { /* of activate and glu */
    cab_activation_kind kind;
} cab_activate_attributes;

typedef struct cab_add_attributes {
    float scale; /* of the sum */
} cab_add_attributes;

#endif
