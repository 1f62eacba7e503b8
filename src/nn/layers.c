#include "nn/layers.h"

cab_tensor *cab_dense_record(cab_graph *g, const cab_dense *dense, cab_tensor *x)
{
    return cab_linear(g, x, dense->w, dense->b, dense->layout);
}

cab_tensor *cab_norm_record(cab_graph *g, const cab_norm *norm, cab_tensor *x)
{
    return norm->b != NULL ? cab_layer_norm(g, x, norm->w, norm->b, norm->eps)
                           : cab_rms_norm(g, x, norm->w, 1, norm->eps);
}

bool cab_mlp_gated(const cab_mlp *mlp)
{
    return mlp->gate_up.w != NULL || mlp->gate.w != NULL;
}

cab_tensor *cab_mlp_record(cab_graph *g, const cab_mlp *mlp, cab_tensor *x)
{
    if (!cab_mlp_gated(mlp)) {
        cab_tensor *hidden = cab_dense_record(g, &mlp->up, x);
        return cab_dense_record(g, &mlp->down, cab_activate(g, hidden, mlp->act));
    }
    if (mlp->gate_up.w != NULL) {
        cab_tensor *both = cab_dense_record(g, &mlp->gate_up, x), *parts[2] = {NULL, NULL};
        if (both != NULL)
            cab_split(g, both, 2, (int64_t[]){cab_columns(both) / 2, cab_columns(both) / 2}, parts);
        return cab_dense_record(g, &mlp->down, cab_glu(g, parts[0], parts[1], mlp->act));
    }
    cab_tensor *gate = cab_dense_record(g, &mlp->gate, x);
    return cab_dense_record(g, &mlp->down, cab_glu(g, gate, cab_dense_record(g, &mlp->up, x), mlp->act));
}
