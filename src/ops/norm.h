/* norm.h - what the norms' recorders tell their kernels, and the layout of their scratch. */
#ifndef CAB_OPS_NORM_H
#define CAB_OPS_NORM_H

#include "tensor/graph.h"

#include <stdbool.h>

extern const cab_op cab_op_layer_norm, cab_op_rms_norm, cab_op_add_rms_norm;

typedef struct cab_norm_attributes {
    float eps;
    int n_group; /* of RMS norm: equal groups of columns, each with a mean of its own */
} cab_norm_attributes;

/* Rows of D floats each thread works in: forward: w, b, x, y; backward: w, x, dy, dx. */
enum { CAB_NORM_ROWS = 4 };

#endif
