/* conv1d.h - what the recorder of the short convolution tells its kernels. */
#ifndef CAB_OPS_CONV1D_H
#define CAB_OPS_CONV1D_H

#include "tensor/graph.h"

enum {
    CAB_CONV1D_MAX_WIDTH = 16,
    CAB_CONV1D_TOKENS =
        256 /* of one task, and of one partial sum of the filters' gradient: fixed, whatever the threads */
};

typedef struct cab_conv1d_attributes {
    bool silu;
    bool reverse; /* tokens run from the last to the first */
} cab_conv1d_attributes;

/* Scratch on the GPU: partial gradients of filters and bias. */
size_t cab_conv1d_backward_scratch_cuda(const cab_node *node, const cab_backend *backend);

#endif
