#include "nn/mamba2.h"

#include "nn/short_conv.h"

/* in_proj's output: z, xBC and dt. */
static void project(cab_graph *g, const cab_mamba2 *m, cab_tensor *u, cab_tensor *parts[3])
{
    const int64_t groups = (int64_t)m->n_group * m->d_state;
    const int64_t sizes[3] = {m->d_inner, m->d_inner + 2 * groups,
                              m->both && !m->shared_decay ? 2 * m->n_head : m->n_head};
    cab_split(g, cab_linear_padded(g, u, m->in_proj.w, m->in_proj.b, m->in_proj.layout), 3, sizes, parts);
}

/* silu(conv(xBC)) */
static cab_tensor *activated(cab_graph *g, const cab_context *context, const cab_mamba2 *m, cab_tensor *xBC)
{
    if (m->conv_w == NULL)
        return cab_activate(g, xBC, CAB_SILU);
    if (m->both)
        return cab_conv2d(g, xBC, m->conv_w, m->conv_b, m->grid_first, m->grid_width);
    return cab_short_conv_record(g, context, m->conv_w, m->conv_b, xBC, true);
}

static void convolve(cab_graph *g, const cab_context *context, const cab_mamba2 *m, cab_tensor *xBC,
                     cab_tensor *parts[3])
{
    const int64_t groups = (int64_t)m->n_group * m->d_state;
    const int64_t sizes[3] = {m->d_inner, groups, groups};
    cab_split(g, activated(g, context, m, xBC), 3, sizes, parts);
}

static cab_tensor *scan(cab_graph *g, const cab_context *context, const cab_mamba2 *m, const cab_ssd_inputs *in)
{
    if (context->position == NULL || in->x == NULL)
        return cab_ssd(g, in, m->n_head, m->n_group);
    const int64_t state[3] = {in->x->shape[0], m->n_head, (int64_t)(m->d_inner / m->n_head) * m->d_state};
    return cab_ssd_step(g, in, cab_graph_state(g, "ssd state", CAB_F32, 3, state), m->n_head, m->n_group);
}

/* Of both directions: the means over tokens. */
static cab_tensor *scan_both(cab_graph *g, const cab_mamba2 *m, const cab_ssd_inputs *in)
{
    cab_tensor *y = cab_ssd_both(g, in, m->n_head, m->n_group);
    return y != NULL && m->token_scale > 0 ? cab_scale(g, y, m->token_scale / (float)y->shape[1]) : y;
}

static cab_tensor *gate(cab_graph *g, const cab_mamba2 *m, cab_tensor *y, cab_tensor *z)
{
    if (m->norm.w == NULL)
        return cab_gate(g, y, z, NULL);
    if (m->norm_first)
        return cab_gate(g, cab_rms_norm(g, y, m->norm.w, m->n_group, m->norm.eps), z, NULL);
    return cab_rms_norm(g, cab_gate(g, y, z, NULL), m->norm.w, m->n_group, m->norm.eps);
}

cab_tensor *cab_mamba2_record(cab_graph *g, const cab_context *context, const cab_mamba2 *m, cab_tensor *u)
{
    cab_tensor *p[3], *xBC[3];
    project(g, m, m->input_scale > 0 ? cab_scale(g, u, m->input_scale) : u, p);
    convolve(g, context, m, p[1], xBC);
    const cab_ssd_inputs in = {.x = xBC[0],
                               .B = xBC[1],
                               .C = xBC[2],
                               .dt = p[2],
                               .dt_bias = m->dt_bias,
                               .A_log = m->A_log,
                               .D = m->D,
                               .starts = context->starts};
    cab_context_tap_state(context, in.C, in.B, in.x);
    cab_context_tap(context, CAB_TAP_DECAY, in.dt);
    cab_tensor *y = m->both ? scan_both(g, m, &in) : scan(g, context, m, &in);
    return cab_dense_record(g, &m->out_proj, gate(g, m, y, p[0]));
}
