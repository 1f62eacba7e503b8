/* tokens.h - what the recorders of the token operations tell their kernels. */
#ifndef CAB_OPS_TOKENS_H
#define CAB_OPS_TOKENS_H

#include "ops/ops.h"

extern const cab_op cab_op_patches, cab_op_insert_tokens, cab_op_select_tokens, cab_op_pool_tokens, cab_op_order_tokens;

enum { CAB_TOKENS_MAX = 2 };

/* Inputs of insert_tokens; the inserted tokens follow. */
enum { CAB_INSERT_X, CAB_INSERT_POSITIONS, CAB_INSERT_TOKENS };

typedef struct cab_patches_attributes {
    int patch;
} cab_patches_attributes;

typedef struct cab_insert_attributes {
    int n;
    int64_t at[CAB_TOKENS_MAX];
} cab_insert_attributes;

typedef struct cab_select_attributes {
    int64_t first;
} cab_select_attributes;

typedef struct cab_pool_attributes {
    int64_t first;
} cab_pool_attributes;

typedef struct cab_order_attributes {
    cab_row_map rows;
} cab_order_attributes;

/* The row of x that row l is. */
static inline int64_t cab_order_source(const cab_order_attributes *a, int64_t l)
{
    return l == a->rows.class_at ? 0 : 1 + a->rows.skip + (l < a->rows.class_at ? l : l - 1);
}

/* The inserted token that stands at row l, or -1 and in *from the row of x. */
static inline int cab_insert_source(const cab_insert_attributes *a, int64_t l, int64_t *from)
{
    int before = 0;
    for (int i = 0; i < a->n; i++) {
        if (a->at[i] == l)
            return i;
        before += a->at[i] < l;
    }
    *from = l - before;
    return -1;
}

#endif
