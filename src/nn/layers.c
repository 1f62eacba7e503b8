#include "nn/layers.h"

#include "base/memory.h"

#include <math.h>

cab_tensor *cab_dense_record(cab_graph *g, const cab_dense *dense, cab_tensor *x)
{
    return cab_linear(g, x, dense->w, dense->b, dense->layout);
}

cab_tensor *cab_norm_record(cab_graph *g, const cab_norm *norm, cab_tensor *x)
{
    return norm->b != NULL ? cab_layer_norm(g, x, norm->w, norm->b, norm->eps) : cab_rms_norm(g, x, norm->w, norm->eps);
}

cab_tensor *cab_mlp_record(cab_graph *g, const cab_mlp *mlp, cab_tensor *x)
{
    cab_tensor *hidden = cab_dense_record(g, &mlp->fc1, x);
    return cab_dense_record(g, &mlp->fc2, cab_activate(g, hidden, mlp->act));
}

cab_tensor *cab_rotary_frequencies(cab_graph *g, double theta, int rotary_dim)
{
    int half = rotary_dim / 2;
    cab_tensor *t = cab_graph_input(g, "inv_freq", CAB_F32, 1, (int64_t[]){half});
    float *values = NULL;
    if (t == NULL)
        return NULL;
    cab_status status = CAB_NEW(&values, (size_t)half, "rotary frequencies");
    for (int i = 0; status == CAB_OK && i < half; i++)
        values[i] = (float)pow(theta, -2.0 * i / rotary_dim);
    if (status == CAB_OK)
        status = cab_tensor_write(g, t, values);
    cab_free(values);
    return status == CAB_OK ? t : cab_graph_fail(g, status, "%s", cab_error_text());
}
