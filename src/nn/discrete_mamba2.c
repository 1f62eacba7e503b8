#include "nn/discrete_mamba2.h"

#include "nn/short_conv.h"

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
    split_xbc(g, m, cab_short_conv_record(g, context, m->conv_w, m->conv_b, p[0], false), xbc);
    cab_context_tap_state(context, xbc[2], xbc[1], xbc[0]);
    cab_context_tap(context, CAB_TAP_DECAY, p[2]);
    const cab_ssd_inputs in = {.x = xbc[0], .B = xbc[1], .C = xbc[2], .dt = p[2], .D = m->D, .starts = context->starts};
    cab_tensor *y = step ? cab_ssd_step(g, &in, h, m->n_head, m->n_group) : cab_ssd(g, &in, m->n_head, m->n_group);
    return cab_dense_record(g, &m->out_proj, cab_gate(g, y, p[1], m->z_bias));
}
