/* attention.h - what the recorders of attention and of rotary positions tell their kernels. */
#ifndef CAB_OPS_ATTENTION_H
#define CAB_OPS_ATTENTION_H

#include "ops/ops.h"

enum { CAB_ROTARY_MAX = 1024 }; /* largest head_dim */

typedef struct cab_rotary_attributes {
    int n_head;
    float scale;
} cab_rotary_attributes;

extern const cab_op cab_op_attention, cab_op_attention_step, cab_op_rotary;

/* The keys query `row` sees: first .. end. */
void cab_attention_range(const cab_attention_shape *shape, int64_t length, int64_t row, int64_t *first, int64_t *end);

#endif
