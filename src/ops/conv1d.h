/* conv1d.h - what the recorder of the short convolution tells its kernels. */
#ifndef CAB_OPS_CONV1D_H
#define CAB_OPS_CONV1D_H

#include "tensor/graph.h"

extern const cab_op cab_op_conv1d, cab_op_conv1d_step;

enum {
    CAB_CONV1D_MAX_WIDTH = 16,
    CAB_CONV1D_TOKENS =
        256 /* of one task, and of one partial sum of the filters' gradient: fixed, whatever the threads */
};

enum { CAB_CONV1D_STARTS = 5, CAB_CONV1D_INPUTS }; /* in: x w bias, of a second direction w bias, starts */

typedef struct cab_conv1d_attributes {
    bool silu;
    int directions; /* the second's tokens run from the last to the first */
} cab_conv1d_attributes;

static inline const cab_conv1d_attributes *cab_conv1d_attributes_of(const cab_node *node)
{
    return (const cab_conv1d_attributes *)node->attributes;
}

/* Whether anything flows back into direction d. */
static inline bool cab_conv1d_flows(const cab_node *node, int d)
{
    return node->gout[d] != NULL;
}

/* Direction d of a node as a node of its own: in x w bias - - starts, out y. What the first gives as gradient of x, the second adds to. */
static inline cab_node cab_conv1d_direction(const cab_node *node, int d)
{
    cab_node one = *node;
    one.n_out = 1;
    if (d == 0)
        return one;
    for (int i = 1; i < 3; i++) {
        one.in[i] = node->in[i + 2];
        one.gin[i] = node->gin[i + 2];
    }
    one.out[0] = node->out[1];
    one.gout[0] = node->gout[1];
    one.accumulate = (node->accumulate >> 2 & 6u) | (cab_conv1d_flows(node, 0) ? 1u : node->accumulate & 1u);
    return one;
}

#endif
