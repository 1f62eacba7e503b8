/* scan.h - what the recorder of the selective scan tells its kernels. */
#ifndef CAB_OPS_SCAN_H
#define CAB_OPS_SCAN_H

#include "tensor/graph.h"

#include <string.h>

extern const cab_op cab_op_scan, cab_op_scan_step;

enum {
    CAB_SCAN_GROUP = 64, /* channels of a task */
    CAB_SCAN_CHUNK = 16, /* tokens of a chunk */
    CAB_SCAN_LANES = 16, /* channels of the widest vector */
    CAB_SCAN_MAX_STATE = 256
};

enum {
    CAB_SCAN_U,
    CAB_SCAN_DT,
    CAB_SCAN_A_LOG,
    CAB_SCAN_B,
    CAB_SCAN_C,
    CAB_SCAN_D,
    CAB_SCAN_DT_BIAS,
    CAB_SCAN_Z,
    CAB_SCAN_INPUTS,
    CAB_SCAN_STATE = CAB_SCAN_INPUTS,            /* of a step */
    CAB_SCAN_BOTH = CAB_SCAN_INPUTS + CAB_SCAN_Z /* with the second direction's, which shares z */
};

typedef struct cab_scan_attributes {
    int directions;
    bool reverse[2];
} cab_scan_attributes;

static inline const cab_scan_attributes *cab_scan_attributes_of(const cab_node *node)
{
    return (const cab_scan_attributes *)node->attributes;
}

/* What a direction's y is multiplied with: a node of both gives their mean. */
static inline float cab_scan_share(const cab_node *node)
{
    return 1.0f / (float)cab_scan_attributes_of(node)->directions;
}

/* Direction d of a node as a node of its own. The gradient of z is written by the second, then added to by the first. */
static inline cab_node cab_scan_direction(const cab_node *node, int d)
{
    cab_node one = *node;
    one.n_in = CAB_SCAN_INPUTS;
    if (d == 0) {
        if (cab_scan_attributes_of(node)->directions == 2)
            one.accumulate |= CAB_SAVE_IN(CAB_SCAN_Z);
        return one;
    }
    for (int i = 0; i < CAB_SCAN_Z; i++) {
        one.in[i] = node->in[CAB_SCAN_INPUTS + i];
        one.gin[i] = node->gin[CAB_SCAN_INPUTS + i];
    }
    one.accumulate = node->accumulate >> CAB_SCAN_INPUTS | (node->accumulate & CAB_SAVE_IN(CAB_SCAN_Z));
    return one;
}

typedef struct cab_scan_shape {
    int64_t B, L, E;
    int N, groups, chunks;
} cab_scan_shape;

static inline cab_scan_shape cab_scan_shape_of(const cab_node *node)
{
    const cab_tensor *u = node->in[CAB_SCAN_U];
    const int64_t E = cab_columns(u), L = u->shape[1];
    return (cab_scan_shape){.B = u->shape[0],
                            .L = L,
                            .E = E,
                            .N = (int)cab_columns(node->in[CAB_SCAN_B]),
                            .groups = (int)((E + CAB_SCAN_GROUP - 1) / CAB_SCAN_GROUP),
                            .chunks = (int)((L + CAB_SCAN_CHUNK - 1) / CAB_SCAN_CHUNK)};
}

#endif
