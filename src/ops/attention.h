/* attention.h - what the recorders of attention and of rotary positions tell their kernels. */
#ifndef CAB_OPS_ATTENTION_H
#define CAB_OPS_ATTENTION_H

#include "ops/ops.h"

enum { CAB_ATTENTION_STARTS = 3 }; /* of the inputs of attention: q k v starts */
enum { CAB_ROTARY_MAX = 1024 };    /* largest head_dim */

typedef struct cab_rotary_attributes {
    int n_head;
    float scale;
} cab_rotary_attributes;

extern const cab_op cab_op_attention, cab_op_attention_step, cab_op_rotary;

/* The keys query `row` sees: first .. end. */
void cab_attention_range(const cab_attention_shape *shape, int64_t length, int64_t row, int64_t *first, int64_t *end);
/* The same on the host with the documents of sequence b: `first`, or the first token of the row's document. */
int64_t cab_attention_first(const cab_node *node, int64_t b, int64_t row, int64_t first);

#endif
