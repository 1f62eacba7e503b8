/* layers.h - parts that layers are made of: parameters side by side, and how to record them. */
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

/* y = down(act(up(x))), or gated: y = down(act(gate(x)) * up(x)) */
typedef struct cab_mlp {
    cab_dense gate_up; /* outputs of gate, then up, in one product; w NULL: two, or */
    cab_dense gate;    /* w NULL too: not gated */
    cab_dense up, down;
    cab_activation_kind act;
} cab_mlp;

cab_tensor *cab_dense_record(cab_graph *g, const cab_dense *dense, cab_tensor *x);
cab_tensor *cab_norm_record(cab_graph *g, const cab_norm *norm, cab_tensor *x);
/* Whether it is gated. */
bool cab_mlp_gated(const cab_mlp *mlp);
cab_tensor *cab_mlp_record(cab_graph *g, const cab_mlp *mlp, cab_tensor *x);

#endif
