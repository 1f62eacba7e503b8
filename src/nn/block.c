#include "nn/block.h"

static cab_tensor *norm(cab_graph *g, const cab_norm *n, cab_tensor *x)
{
    return n->w != NULL ? cab_norm_record(g, n, x) : x;
}

static cab_tensor *mix(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *u)
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
    cab_tensor *u = norm(g, &block->norm, x), *mixed = mix(g, context, block, u);
    cab_tensor *mlp = cab_mlp_record(g, &block->mlp, block->mlp_norm.w != NULL ? norm(g, &block->mlp_norm, x) : u);
    return block->x_last ? cab_add(g, 3, (cab_tensor *[]){mixed, mlp, x})
                         : cab_add(g, 3, (cab_tensor *[]){x, mixed, mlp});
}

static cab_tensor *add_branch(cab_graph *g, const cab_block *block, cab_tensor *x, cab_tensor *branch)
{
    branch = block->branch_scale > 0 ? cab_scale(g, branch, block->branch_scale) : branch;
    return cab_add(g, 2, (cab_tensor *[]){x, branch});
}

cab_tensor *cab_block_record(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *x)
{
    if (block->x_apart) {
        cab_tensor *u = cab_add_rms_norm(g, x, context->residual, block->norm.w, block->norm.eps, &context->residual);
        cab_context_tap(context, CAB_TAP_HIDDEN, context->residual);
        return mix(g, context, block, u);
    }
    cab_context_tap(context, CAB_TAP_HIDDEN, x);
    if (block->parallel)
        return record_parallel(g, context, block, x);
    cab_tensor *mixed = mix(g, context, block, norm(g, &block->norm, x));
    x = add_branch(g, block, x, norm(g, &block->mixed_norm, mixed));
    if (block->mlp.down.w == NULL)
        return x;
    cab_tensor *fed = cab_mlp_record(g, &block->mlp, norm(g, &block->mlp_norm, x));
    return add_branch(g, block, x, norm(g, &block->fed_norm, fed));
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
