#include "nn/mamba1.h"

cab_scan_inputs cab_mamba1_record(cab_graph *g, const cab_mamba1 *m, cab_tensor *x, cab_tensor *z,
                                  cab_mamba1_taps *taps)
{
    const int64_t sizes[3] = {m->dt_rank, m->d_state, m->d_state};
    cab_tensor *parts[3];
    cab_split(g, cab_dense_record(g, &m->x_proj, x), 3, sizes, parts);
    const cab_scan_inputs in = {.u = x,
                                .dt = cab_dense_record(g, &m->dt_proj, parts[0]),
                                .A_log = m->A_log,
                                .B = parts[1],
                                .C = parts[2],
                                .D = m->D,
                                .z = z,
                                .dt_bias = m->dt_bias};
    *taps = (cab_mamba1_taps){.x = x, .B = parts[1], .C = parts[2], .dt = in.dt};
    return in;
}
