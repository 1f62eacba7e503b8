#include "nn/mamba1.h"

#include "nn/short_conv.h"

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
    cab_context_tap(context, back ? CAB_TAP_DECAY_BACK : CAB_TAP_DECAY, in.dt);
    if (!back) {
        cab_context_tap_state(context, in.C, in.B, x);
        return in;
    }
    cab_context_tap(context, CAB_TAP_QUERY_BACK, in.C);
    cab_context_tap(context, CAB_TAP_KEY_BACK, in.B);
    return in;
}

cab_tensor *cab_mamba1_mixer_record(cab_graph *g, const cab_context *context, const cab_mamba1_mixer *m, cab_tensor *u)
{
    const int64_t sizes[2] = {m->d_inner, m->d_inner};
    cab_tensor *xz[2];
    cab_split(g, cab_dense_record(g, &m->in_proj, u), 2, sizes, xz);
    cab_tensor *x = cab_short_conv_record(g, context, m->inner.conv_w, m->inner.conv_b, xz[0], true);
    const cab_scan_inputs in = cab_mamba1_record(g, context, &m->inner, x, xz[1], false);
    if (context->starts != NULL)
        return cab_graph_fail(g, CAB_EUNSUPPORTED, "Mamba: its state is not reset where a document begins");
    if (context->position == NULL || x == NULL)
        return cab_dense_record(g, &m->out_proj, cab_scan(g, &in, false));
    const int64_t state[3] = {x->shape[0], m->d_inner, m->inner.d_state};
    cab_tensor *y = cab_scan_step(g, &in, cab_graph_state(g, "scan state", CAB_F32, 3, state));
    return cab_dense_record(g, &m->out_proj, y);
}
