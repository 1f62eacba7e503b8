#include "nn/block.h"

static cab_tensor *record_mixer(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *u)
{
    switch (block->kind) {
    case CAB_MIXER_ATTENTION:
        return cab_attention_mixer_record(g, context, &block->attention, u);
    case CAB_MIXER_MAMBA2:
        return cab_mamba2_record(g, context, &block->mamba2, u);
    case CAB_MIXER_VIM:
        return cab_vim_record(g, context, &block->vim, u);
    }
    return NULL;
}

static cab_tensor *record_parallel(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *x)
{
    cab_tensor *u = cab_norm_record(g, &block->norm, x);
    cab_tensor *mixed = record_mixer(g, context, block, u), *mlp = cab_mlp_record(g, &block->mlp, u);
    return block->x_last ? cab_add(g, 3, (cab_tensor *[]){mixed, mlp, x})
                         : cab_add(g, 3, (cab_tensor *[]){x, mixed, mlp});
}

cab_tensor *cab_block_record(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *x)
{
    if (block->x_apart) {
        cab_tensor *u = cab_add_rms_norm(g, x, context->residual, block->norm.w, block->norm.eps, &context->residual);
        cab_context_tap(context, CAB_TAP_HIDDEN, context->residual);
        return record_mixer(g, context, block, u);
    }
    cab_context_tap(context, CAB_TAP_HIDDEN, x);
    if (block->mlp_norm.w == NULL && block->mlp.up.w != NULL)
        return record_parallel(g, context, block, x);
    x = cab_add(g, 2, (cab_tensor *[]){x, record_mixer(g, context, block, cab_norm_record(g, &block->norm, x))});
    if (block->mlp.up.w == NULL)
        return x;
    return cab_add(g, 2, (cab_tensor *[]){x, cab_mlp_record(g, &block->mlp, cab_norm_record(g, &block->mlp_norm, x))});
}

bool cab_block_steps(const cab_block *block)
{
    return block->kind != CAB_MIXER_VIM;
}

int64_t cab_block_width(const cab_block *block, cab_tap tap)
{
    const cab_attention_shape *shape = &block->attention.shape;
    const cab_mamba2 *m = &block->mamba2;
    const cab_vim_mixer *v = &block->vim;
    switch (block->kind) {
    case CAB_MIXER_ATTENTION:
        return (int64_t)shape->head_dim * (tap == CAB_TAP_QUERY ? shape->n_head : shape->n_kv_head);
    case CAB_MIXER_MAMBA2:
        return tap == CAB_TAP_VALUE ? m->d_inner : (int64_t)m->n_group * m->d_state;
    case CAB_MIXER_VIM:
        return tap == CAB_TAP_VALUE ? v->d_inner : v->forward.d_state;
    }
    return 0;
}
