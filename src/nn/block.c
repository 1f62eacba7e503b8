#include "nn/block.h"

static cab_tensor *norm(cab_graph *g, const cab_norm *n, cab_tensor *x)
{
    return n->w != NULL ? cab_norm_record(g, n, x) : x;
}

cab_tensor *cab_block_mix_record(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *u)
{
    cab_tensor *outs[4];
    int n = 0;
    context->attends = cab_block_attends(block);
    cab_context_tap(context, CAB_TAP_MIXER_IN, u);
    if (context->attends)
        outs[n++] = cab_attention_mixer_record(g, context, &block->attention, u);
    if (block->mamba2.out_proj.w != NULL)
        outs[n++] = cab_mamba2_record(g, context, &block->mamba2, u);
    if (block->mamba1.out_proj.w != NULL)
        outs[n++] = cab_mamba1_mixer_record(g, context, &block->mamba1, u);
    if (block->discrete.out_proj.w != NULL)
        outs[n++] = cab_discrete_mamba2_record(g, context, &block->discrete, u);
    if (block->vim.out_proj.w != NULL)
        outs[n++] = cab_vim_record(g, context, &block->vim, u);
    cab_tensor *mixed = n == 0 ? NULL : n == 1 ? outs[0] : cab_add(g, n, outs);
    cab_context_tap(context, CAB_TAP_MIXER_OUT, mixed);
    return mixed;
}

static cab_tensor *record_parallel(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *x)
{
    cab_tensor *u = norm(g, &block->norm, x), *mixed = cab_block_mix_record(g, context, block, u);
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
        return cab_block_mix_record(g, context, block, u);
    }
    cab_context_tap(context, CAB_TAP_HIDDEN, x);
    if (block->parallel)
        return record_parallel(g, context, block, x);
    cab_tensor *mixed = cab_block_mix_record(g, context, block, norm(g, &block->norm, x));
    x = add_branch(g, block, x, norm(g, &block->mixed_norm, mixed));
    if (block->mlp.down.w == NULL)
        return x;
    cab_tensor *fed = cab_mlp_record(g, &block->mlp, norm(g, &block->mlp_norm, x));
    return add_branch(g, block, x, norm(g, &block->fed_norm, fed));
}

bool cab_block_steps(const cab_block *block)
{
    return block->vim.out_proj.w == NULL && !(block->mamba2.out_proj.w != NULL && block->mamba2.both);
}

/* Widths of B (and of C), and of x. */
static void state_widths(const cab_block *block, int64_t *B, int64_t *x)
{
    *B = *x = 0;
    if (block->mamba2.out_proj.w != NULL) {
        *B = (int64_t)block->mamba2.n_group * block->mamba2.d_state;
        *x = block->mamba2.d_inner;
    } else if (block->mamba1.out_proj.w != NULL) {
        *B = block->mamba1.inner.d_state;
        *x = block->mamba1.d_inner;
    } else if (block->discrete.out_proj.w != NULL) {
        *B = (int64_t)block->discrete.n_group * block->discrete.d_state;
        *x = block->discrete.d_inner;
    } else if (block->vim.out_proj.w != NULL) {
        *B = block->vim.forward.d_state;
        *x = block->vim.d_inner;
    }
}

int64_t cab_block_width(const cab_block *block, cab_tap tap)
{
    const cab_attention_shape *shape = &block->attention.shape;
    const bool state = tap == CAB_TAP_C || tap == CAB_TAP_B || tap == CAB_TAP_X;
    if (cab_block_attends(block) && !state)
        return (int64_t)shape->head_dim * (tap == CAB_TAP_QUERY ? shape->n_head : shape->n_kv_head);
    int64_t B, x;
    state_widths(block, &B, &x);
    return tap == CAB_TAP_VALUE || tap == CAB_TAP_X ? x : B;
}
