#include "nn/mamba1.h"

cab_scan_inputs cab_mamba1_record(cab_graph *g, const cab_context *context, const cab_mamba1 *m, cab_tensor *x,
                                  cab_tensor *z, bool back)
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
    cab_context_tap(context, back ? CAB_TAP_QUERY_BACK : CAB_TAP_QUERY, in.C);
    cab_context_tap(context, back ? CAB_TAP_KEY_BACK : CAB_TAP_KEY, in.B);
    cab_context_tap(context, back ? CAB_TAP_DECAY_BACK : CAB_TAP_DECAY, in.dt);
    return in;
}
