/* feature.h - what the recorder of the alignment loss tells its kernels. */
#ifndef CAB_OPS_FEATURE_H
#define CAB_OPS_FEATURE_H

#include "ops/ops.h"

enum { CAB_ALIGN_ROWS = 16 }; /* rows whose squares are summed together: fixed, so that threads do not change the sum */

typedef struct cab_align_attributes {
    cab_feature_map map;
} cab_align_attributes;

static inline int64_t cab_align_blocks(const cab_tensor *pred)
{
    return (cab_rows(pred) + CAB_ALIGN_ROWS - 1) / CAB_ALIGN_ROWS;
}

#endif
