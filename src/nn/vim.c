#include "nn/vim.h"

cab_tensor *cab_vim_record(cab_graph *g, const cab_vim_mixer *m, cab_tensor *u, cab_vim_taps *taps)
{
    const int64_t sizes[2] = {m->d_inner, m->d_inner};
    cab_tensor *xz[2];
    cab_split(g, cab_dense_record(g, &m->in_proj, u), 2, sizes, xz);
    const cab_scan_inputs forward = cab_mamba1_record(g, &m->forward, xz[0], xz[1], false, &taps->forward);
    const cab_scan_inputs backward = cab_mamba1_record(g, &m->backward, xz[0], xz[1], true, &taps->backward);
    return cab_dense_record(g, &m->out_proj, cab_scan_both(g, &forward, &backward));
}
