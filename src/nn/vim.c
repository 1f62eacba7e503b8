#include "nn/vim.h"

cab_tensor *cab_vim_record(cab_graph *g, const cab_context *context, const cab_vim_mixer *m, cab_tensor *u)
{
    const int64_t sizes[2] = {m->d_inner, m->d_inner};
    cab_tensor *xz[2], *x[2];
    cab_split(g, cab_dense_record(g, &m->in_proj, u), 2, sizes, xz);
    const cab_conv1d_filter filters[2] = {{m->forward.conv_w, m->forward.conv_b},
                                          {m->backward.conv_w, m->backward.conv_b}};
    cab_conv1d_both(g, xz[0], filters, true, x);
    const cab_scan_inputs forward = cab_mamba1_record(g, context, &m->forward, x[0], xz[1], false);
    const cab_scan_inputs backward = cab_mamba1_record(g, context, &m->backward, x[1], xz[1], true);
    return cab_dense_record(g, &m->out_proj, cab_scan_both(g, &forward, &backward));
}
