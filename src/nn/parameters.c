/* parameters.c - where a network's parameters stand, one after the other. */
#include "nn/network.h"

#define VISIT(place) CAB_TRY(visit(user, &(place)))

static cab_status dense(cab_dense *d, cab_parameter_visit *visit, void *user)
{
    VISIT(d->w);
    VISIT(d->b);
    return CAB_OK;
}

static cab_status norm(cab_norm *n, cab_parameter_visit *visit, void *user)
{
    VISIT(n->w);
    VISIT(n->b);
    return CAB_OK;
}

static cab_status attention(cab_attention_mixer *a, cab_parameter_visit *visit, void *user)
{
    cab_dense *const denses[] = {&a->qkv, &a->q, &a->k, &a->v, &a->out};
    for (size_t i = 0; i < sizeof denses / sizeof *denses; i++)
        CAB_TRY(dense(denses[i], visit, user));
    CAB_TRY(norm(&a->q_norm, visit, user));
    return norm(&a->k_norm, visit, user);
}

static cab_status mamba2(cab_mamba2 *m, cab_parameter_visit *visit, void *user)
{
    CAB_TRY(dense(&m->in_proj, visit, user));
    CAB_TRY(dense(&m->out_proj, visit, user));
    VISIT(m->conv_w);
    VISIT(m->conv_b);
    VISIT(m->dt_bias);
    VISIT(m->A_log);
    VISIT(m->D);
    return norm(&m->norm, visit, user);
}

static cab_status mamba1(cab_mamba1 *m, cab_parameter_visit *visit, void *user)
{
    CAB_TRY(dense(&m->x_proj, visit, user));
    CAB_TRY(dense(&m->dt_proj, visit, user));
    VISIT(m->conv_w);
    VISIT(m->conv_b);
    VISIT(m->dt_bias);
    VISIT(m->A_log);
    VISIT(m->D);
    return CAB_OK;
}

static cab_status discrete(cab_discrete_mamba2 *m, cab_parameter_visit *visit, void *user)
{
    CAB_TRY(dense(&m->in_proj, visit, user));
    CAB_TRY(dense(&m->out_proj, visit, user));
    VISIT(m->conv_w);
    VISIT(m->conv_b);
    VISIT(m->D);
    VISIT(m->z_bias);
    return CAB_OK;
}

static cab_status vim(cab_vim_mixer *m, cab_parameter_visit *visit, void *user)
{
    CAB_TRY(dense(&m->in_proj, visit, user));
    CAB_TRY(dense(&m->out_proj, visit, user));
    CAB_TRY(mamba1(&m->forward, visit, user));
    return mamba1(&m->backward, visit, user);
}

cab_status cab_block_parameters(cab_block *b, cab_parameter_visit *visit, void *user)
{
    cab_norm *const norms[] = {&b->norm, &b->mlp_norm, &b->mixed_norm, &b->fed_norm};
    cab_dense *const mlp[] = {&b->mlp.gate_up, &b->mlp.gate, &b->mlp.up, &b->mlp.down};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        CAB_TRY(norm(norms[i], visit, user));
    for (size_t i = 0; i < sizeof mlp / sizeof *mlp; i++)
        CAB_TRY(dense(mlp[i], visit, user));
    CAB_TRY(attention(&b->attention, visit, user));
    CAB_TRY(mamba2(&b->mamba2, visit, user));
    CAB_TRY(dense(&b->mamba1.in_proj, visit, user));
    CAB_TRY(dense(&b->mamba1.out_proj, visit, user));
    CAB_TRY(mamba1(&b->mamba1.inner, visit, user));
    CAB_TRY(discrete(&b->discrete, visit, user));
    return vim(&b->vim, visit, user);
}

cab_status cab_network_ends(cab_network *n, cab_parameter_visit *visit, void *user)
{
    VISIT(n->embedding);
    CAB_TRY(dense(&n->patches, visit, user));
    for (int i = 0; i < CAB_SPECIAL_MAX; i++)
        VISIT(n->special[i]);
    VISIT(n->positions);
    for (int i = 0; i < CAB_REGISTERS_MAX; i++)
        VISIT(n->registers[i]);
    CAB_TRY(norm(&n->final_norm, visit, user));
    return dense(&n->head, visit, user);
}

cab_status cab_network_parameters(cab_network *n, cab_parameter_visit *visit, void *user)
{
    CAB_TRY(cab_network_ends(n, visit, user));
    for (int l = 0; l < n->n_layer; l++)
        CAB_TRY(cab_block_parameters(&n->blocks[l], visit, user));
    return CAB_OK;
}
