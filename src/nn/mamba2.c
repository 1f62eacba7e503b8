#include "nn/mamba2.h"

/* Splits in_proj's output into xBC, z and a_log. */
static void project(cab_graph *g, const cab_mamba2 *m, cab_tensor *u, cab_tensor *parts[3])
{
    const int64_t groups = (int64_t)m->n_group * m->d_state;
    const int64_t sizes[3] = {m->d_inner + 2 * groups, m->d_inner, m->n_head};
    cab_split(g, cab_dense_record(g, &m->in_proj, u), 3, sizes, parts);
}

static void split_xbc(cab_graph *g, const cab_mamba2 *m, cab_tensor *xbc, cab_tensor *parts[3])
{
    const int64_t groups = (int64_t)m->n_group * m->d_state;
    const int64_t sizes[3] = {m->d_inner, groups, groups};
    cab_split(g, xbc, 3, sizes, parts);
}

cab_tensor *cab_mamba2_record(cab_graph *g, const cab_mamba2 *m, cab_tensor *u, cab_mamba2_taps *taps)
{
    cab_tensor *p[3], *xbc[3];
    project(g, m, u, p);
    split_xbc(g, m, cab_conv1d(g, p[0], m->conv_w, m->conv_b, false), xbc);
    cab_tensor *y = cab_ssd(g, xbc[0], xbc[1], xbc[2], p[2], m->D, m->n_head, m->n_group);
    *taps = (cab_mamba2_taps){.x = xbc[0], .B = xbc[1], .C = xbc[2]};
    return cab_dense_record(g, &m->out_proj, cab_gate(g, y, p[1], m->z_bias));
}

cab_tensor *cab_mamba2_record_step(cab_graph *g, const cab_mamba2 *m, cab_tensor *u)
{
    if (u == NULL)
        return NULL;
    cab_tensor *p[3], *xbc[3];
    const int64_t batch = u->shape[0], channels = m->d_inner + 2 * (int64_t)m->n_group * m->d_state;
    const int64_t head = (int64_t)(m->d_inner / m->n_head) * m->d_state;
    cab_tensor *window = cab_graph_state(g, "conv state", CAB_F32, 3, (int64_t[]){batch, m->d_conv - 1, channels});
    cab_tensor *h = cab_graph_state(g, "ssd state", CAB_F32, 3, (int64_t[]){batch, m->n_head, head});
    project(g, m, u, p);
    split_xbc(g, m, cab_conv1d_step(g, p[0], m->conv_w, m->conv_b, window, false), xbc);
    cab_tensor *y = cab_ssd_step(g, xbc[0], xbc[1], xbc[2], p[2], m->D, h, m->n_head, m->n_group);
    return cab_dense_record(g, &m->out_proj, cab_gate(g, y, p[1], m->z_bias));
}
