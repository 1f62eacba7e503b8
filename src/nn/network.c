#include "nn/network.h"

static cab_tensor *record_input(cab_graph *g, const cab_network *n, const cab_context *context, cab_tensor *input)
{
    if (n->embedding != NULL) {
        cab_tensor *x = cab_embedding(g, input, n->embedding, n->positions,
                                      n->positions != NULL ? context->position : NULL, context->starts, context->dtype);
        return n->embedding_scale > 0 ? cab_scale(g, x, n->embedding_scale) : x;
    }
    cab_tensor *x = cab_dense_record(g, &n->patches, cab_patches(g, input, n->patch_size, context->dtype));
    x = cab_insert_tokens(g, x, n->n_special, n->special, n->special_at, n->positions);
    for (int i = 0; i < n->n_register; i++)
        x = cab_insert_tokens(g, x, 1, &n->registers[i], (int64_t[]){1 + i}, NULL);
    return x;
}

static cab_tensor *record_output(cab_graph *g, const cab_network *n, cab_context *context, cab_tensor *x)
{
    const cab_norm *norm = &n->final_norm;
    cab_tensor *residual = context->residual;
    if (n->read_count > 0 && n->pool_from == 0) {
        x = cab_select_tokens(g, x, n->read_at, n->read_count);
        residual = residual != NULL ? cab_select_tokens(g, residual, n->read_at, n->read_count) : NULL;
    }
    x = residual != NULL ? cab_add_rms_norm(g, x, residual, norm->w, norm->eps, &residual)
                         : cab_norm_record(g, norm, x);
    if (n->head_scale > 0)
        x = cab_scale(g, x, n->head_scale);
    if (n->pool_from > 0)
        x = cab_pool_tokens(g, x, n->pool_from);
    if (x == NULL || n->read_count < 2)
        return x;
    return cab_reshape(g, x, 3, (int64_t[]){x->shape[0], 1, n->read_count * cab_columns(x)});
}

static cab_tensor *record(cab_graph *g, const cab_network *n, cab_context *context, cab_tensor *input, int recompute)
{
    cab_tensor *x = record_input(g, n, context, input);
    for (context->layer = 0; context->layer < n->n_layer; context->layer++) {
        const bool segment = context->layer < recompute;
        if (segment)
            cab_graph_segment_begin(g);
        x = cab_block_record(g, context, &n->blocks[context->layer], x);
        if (segment)
            cab_graph_segment_end(g);
    }
    return record_output(g, n, context, x);
}

cab_tensor *cab_network_record(cab_graph *g, const cab_network *network, cab_dtype dtype, cab_tensor *input,
                               cab_tensor *starts, int recompute, const cab_taps *taps)
{
    cab_context context = {.dtype = dtype, .max_length = network->max_length, .taps = taps, .starts = starts};
    return record(g, network, &context, input, recompute);
}

cab_tensor *cab_network_record_input(cab_graph *g, const cab_network *network, cab_dtype dtype, cab_tensor *input)
{
    const cab_context context = {.dtype = dtype, .max_length = network->max_length};
    return record_input(g, network, &context, input);
}

cab_tensor *cab_network_record_layers(cab_graph *g, const cab_network *network, cab_dtype dtype, cab_tensor *x,
                                      int first, int count)
{
    cab_context context = {.dtype = dtype, .max_length = network->max_length};
    for (context.layer = first; context.layer < first + count; context.layer++)
        x = cab_block_record(g, &context, &network->blocks[context.layer], x);
    return x;
}

cab_tensor *cab_network_record_output(cab_graph *g, const cab_network *network, cab_tensor *x)
{
    cab_context context = {.max_length = network->max_length};
    return record_output(g, network, &context, x);
}

cab_tensor *cab_network_record_step(cab_graph *g, const cab_network *network, cab_dtype dtype, cab_tensor *ids,
                                    cab_tensor *position)
{
    cab_context context = {.dtype = dtype, .max_length = network->step_length, .position = position};
    return position == NULL ? NULL : record(g, network, &context, ids, 0);
}

bool cab_network_bounded(const cab_network *network)
{
    bool any = network->positions != NULL;
    for (int l = 0; l < network->n_layer; l++)
        any = any || cab_block_attends(&network->blocks[l]);
    return any;
}

cab_tensor *cab_network_cap(cab_graph *g, const cab_network *network, cab_tensor *logits)
{
    const float cap = network->logit_cap;
    return cap > 0 ? cab_scale(g, cab_activate(g, cab_scale(g, logits, 1 / cap), CAB_TANH), cap) : logits;
}

bool cab_network_steps(const cab_network *network)
{
    bool all = network->embedding != NULL;
    for (int l = 0; l < network->n_layer; l++)
        all = all && cab_block_steps(&network->blocks[l]);
    return all;
}

bool cab_network_bidirectional(const cab_network *network)
{
    bool all = true;
    for (int l = 0; l < network->n_layer; l++)
        all = all && network->blocks[l].vim.out_proj.w != NULL;
    return all;
}
