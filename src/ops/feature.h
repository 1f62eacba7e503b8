/* feature.h - what the recorder of the alignment loss tells its kernels. */
#ifndef CAB_OPS_FEATURE_H
#define CAB_OPS_FEATURE_H

#include "ops/ops.h"

extern const cab_op cab_op_align_loss, cab_op_inverse_variance;
/* in: target, BF16   out: stats, F32   attributes: cab_align_attributes with a map that is a softmax. stats: (B, D, 2) over tokens,
 * (B, L, 2) over features, each a maximum and the inverse of a sum of exponentials. */
extern const cab_op cab_op_align_stats;

enum { CAB_ALIGN_ROWS = 16 }; /* rows whose squares are summed together: fixed, so that threads do not change the sum */

typedef struct cab_align_attributes {
    cab_feature_map map;
    bool mapped; /* rows says which row of the target; otherwise the same */
    cab_row_map rows;
} cab_align_attributes;

/* What a node of this op gives for a target and these attributes, if it is recorded already; else NULL. */
cab_tensor *cab_align_recorded(const cab_graph *g, const cab_op *op, const cab_tensor *target,
                               const cab_align_attributes *attributes);

/* Tokens of a sequence that are compared. */
static inline int64_t cab_align_length(const cab_align_attributes *a, const cab_tensor *target)
{
    return target->shape[1] - (a->mapped ? a->rows.skip : 0);
}

/* The mean of psi where it is known: under a softmax 1 / D over features, 1 / L over tokens; elsewhere 0. */
static inline double cab_align_center(const cab_align_attributes *a, const cab_tensor *target)
{
    return a->map == CAB_MAP_SOFTMAX_TOKENS     ? 1.0 / (double)cab_align_length(a, target)
           : a->map == CAB_MAP_SOFTMAX_FEATURES ? 1.0 / (double)cab_columns(target)
                                                : 0.0;
}

/* The token of the target that token l of pred is compared with. */
static inline int64_t cab_align_token(const cab_align_attributes *a, int64_t l)
{
    if (!a->mapped)
        return l;
    if (l == a->rows.class_at)
        return 0;
    return 1 + a->rows.skip + (l < a->rows.class_at ? l : l - 1);
}

/* A variance below this share of the mean square of psi may be nothing but rounding; its inverse is 0 then. */
#define CAB_VARIANCE_ROUNDING 1e-14

/* Blocks of CAB_ALIGN_ROWS rows; of a variance, of every sequence. */
static inline int64_t cab_align_blocks(int64_t rows)
{
    return (rows + CAB_ALIGN_ROWS - 1) / CAB_ALIGN_ROWS;
}

#endif
