#include "nn/discrete_mamba2.h"

/* Splits in_proj's output into xBC, z and a_log. */
static void project(cab_graph *g, const cab_discrete_mamba2 *m, cab_tensor *u, cab_tensor *parts[3])
{
    const int64_t groups = (int64_t)m->n_group * m->d_state;
    const int64_t sizes[3] = {m->d_inner + 2 * groups, m->d_inner, m->n_head};
    cab_split(g, cab_linear_padded(g, u, m->in_proj.w, m->in_proj.b, m->in_proj.layout), 3, sizes, parts);
}

static void split_xbc(cab_graph *g, const cab_discrete_mamba2 *m, cab_tensor *xbc, cab_tensor *parts[3])
{
    const int64_t groups = (int64_t)m->n_group * m->d_state;
    const int64_t sizes[3] = {m->d_inner, groups, groups};
    cab_split(g, xbc, 3, sizes, parts);
}

/* A convolution of one tap looks back at nothing and keeps no window. */
static cab_tensor *conv_step(cab_graph *g, const cab_discrete_mamba2 *m, cab_tensor *xbc)
{
    if (xbc == NULL || m->d_conv == 1)
        return cab_conv1d(g, xbc, m->conv_w, m->conv_b, NULL, false);
    const int64_t shape[3] = {xbc->shape[0], m->d_conv - 1, cab_columns(xbc)};
    cab_tensor *window = cab_graph_state(g, "conv state", CAB_F32, 3, shape);
    return cab_conv1d_step(g, xbc, m->conv_w, m->conv_b, window, false);
}

cab_tensor *cab_discrete_mamba2_record(cab_graph *g, const cab_context *context, const cab_discrete_mamba2 *m,
                                       cab_tensor *u)
{
    const bool step = context->position != NULL;
    const int64_t head = (int64_t)(m->d_inner / m->n_head) * m->d_state;
    cab_tensor *p[3], *xbc[3], *h = NULL;
    if (u == NULL)
        return NULL;
    if (step)
        h = cab_graph_state(g, "ssd state", CAB_F32, 3, (int64_t[]){u->shape[0], m->n_head, head});
    project(g, m, u, p);
    split_xbc(g, m, step ? conv_step(g, m, p[0]) : cab_conv1d(g, p[0], m->conv_w, m->conv_b, NULL, false), xbc);
    cab_context_tap_state(context, xbc[2], xbc[1], xbc[0]);
    cab_context_tap(context, CAB_TAP_DECAY, p[2]);
    const cab_ssd_inputs in = {.x = xbc[0], .B = xbc[1], .C = xbc[2], .dt = p[2], .D = m->D};
    cab_tensor *y = step ? cab_ssd_step(g, &in, h, m->n_head, m->n_group) : cab_ssd(g, &in, m->n_head, m->n_group);
    return cab_dense_record(g, &m->out_proj, cab_gate(g, y, p[1], m->z_bias));
}
