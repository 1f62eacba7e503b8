/* layers.h - blocks that several models share: parameters side by side, and how to record them. */
#ifndef CAB_NN_LAYERS_H
#define CAB_NN_LAYERS_H

#include "ops/ops.h"

typedef struct cab_dense {
    cab_tensor *w, *b; /* b may be NULL */
    cab_layout layout;
} cab_dense;

typedef struct cab_norm {
    cab_tensor *w, *b; /* b NULL: RMS norm */
    float eps;
} cab_norm;

/* y = fc2(act(fc1(x))) */
typedef struct cab_mlp {
    cab_dense fc1, fc2;
    cab_activation_kind act;
} cab_mlp;

cab_tensor *cab_dense_record(cab_graph *g, const cab_dense *dense, cab_tensor *x);
cab_tensor *cab_norm_record(cab_graph *g, const cab_norm *norm, cab_tensor *x);
cab_tensor *cab_mlp_record(cab_graph *g, const cab_mlp *mlp, cab_tensor *x);

/* inv_freq[i] = theta^(-2 i / rotary_dim), i < rotary_dim / 2, as an input of the graph for cab_rotary(). */
cab_tensor *cab_rotary_frequencies(cab_graph *g, double theta, int rotary_dim);

#endif
