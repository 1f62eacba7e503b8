/* bridge_loss.c - a bridge of two linear layers and its alignment loss:
 *
 *   loss = mean (f(x W1^T + b1) W2^T + b2 - psi(target))^2
 *
 * recorded as four nodes or, where the GPU has a kernel of these sizes, as one, which reads x and the target once and writes the
 * gradients: neither the hidden layer nor the prediction is ever in memory. */
#include "ops/bridge_loss.h"

#include "ops/record.h"

#ifdef CAB_WITH_CUDA

static double bridge_flops(const cab_node *node)
{
    const double rows = (double)cab_rows(node->in[CAB_BRIDGE_X]);
    const double products =
        (double)cab_elements(node->in[CAB_BRIDGE_W1]) + (double)cab_elements(node->in[CAB_BRIDGE_W2]);
    return (node->backward ? 6.0 : 2.0) * rows * products;
}

static const cab_op op_bridge_loss = {
    .name = "bridge_loss", /* in: x W1 b1 W2 b2 target [stats]   out: loss */
    .saves = CAB_SAVE_IN(CAB_BRIDGE_X) | CAB_SAVE_IN(CAB_BRIDGE_W1) | CAB_SAVE_IN(CAB_BRIDGE_B1) |
             CAB_SAVE_IN(CAB_BRIDGE_W2) | CAB_SAVE_IN(CAB_BRIDGE_B2) | CAB_SAVE_IN(CAB_BRIDGE_TARGET) |
             CAB_SAVE_IN(CAB_BRIDGE_STATS),
    .backward_computes_outputs = true,
    .forward = {[CAB_CUDA] = cab_bridge_loss_forward_cuda},
    .backward = {[CAB_CUDA] = cab_bridge_loss_backward_cuda},
    .forward_scratch = {[CAB_CUDA] = cab_bridge_loss_scratch_cuda},
    .backward_scratch = {[CAB_CUDA] = cab_bridge_loss_scratch_cuda},
    .flops = bridge_flops,
};

static const cab_op op_align_stats = {
    .name = "align_stats", /* in: target   out: stats, of its softmax */
    .forward = {[CAB_CUDA] = cab_align_stats_forward_cuda},
};

enum { MOST_ROWS = 1 << 30 };

/* The sizes of the layers. */
static bool layers_fit(const cab_bridge_layers *m, int64_t out)
{
    return m->b1 != NULL && m->b2 != NULL && m->w1->shape[0] == CAB_BRIDGE_HIDDEN && m->w1->shape[1] == CAB_BRIDGE_IN &&
           m->w2->shape[0] == out && m->w2->shape[1] == CAB_BRIDGE_HIDDEN && out % CAB_BRIDGE_OUT_STEP == 0 &&
           out <= CAB_BRIDGE_OUT_MAX;
}

/* What does not fit, be it wrong, is left to the other nodes. */
static bool fits(const cab_graph *g, const cab_bridge_layers *m, const cab_tensor *x, const cab_tensor *target,
                 const cab_row_map *rows)
{
    if (cab_graph_backend(g)->id != CAB_CUDA || x->dtype != CAB_BF16 || target->dtype != CAB_BF16 || x->n_dim != 3 ||
        target->n_dim != 3 || cab_columns(x) != CAB_BRIDGE_IN)
        return false;
    if (rows != NULL && (rows->skip < 0 || rows->class_at < 0 || rows->class_at >= x->shape[1]))
        return false;
    return cab_rows(x) < MOST_ROWS && x->shape[0] == target->shape[0] &&
           x->shape[1] + (rows != NULL ? rows->skip : 0) == target->shape[1] && layers_fit(m, cab_columns(target)) &&
           cab_rows_begin_at(x, 2) && cab_rows_begin_at(target, 8) &&
           cab_bridge_loss_has_cuda(cab_graph_backend(g), cab_columns(target));
}

static bool same_softmax(const cab_align_attributes *a, const cab_align_attributes *b)
{
    return a->map == b->map && a->mapped == b->mapped && a->rows.class_at == b->rows.class_at &&
           a->rows.skip == b->rows.skip;
}

/* Taken once for all terms with the same target: a teacher's layer serves several, of both directions. NULL: the map is no softmax. */
static cab_tensor *stats_of(cab_graph *g, cab_tensor *target, const cab_align_attributes *align)
{
    const bool over_tokens = align->map == CAB_MAP_SOFTMAX_TOKENS;
    if (!over_tokens && align->map != CAB_MAP_SOFTMAX_FEATURES)
        return NULL;
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        if (node->op == &op_align_stats && node->in[0] == target && same_softmax(node->attributes, align))
            return node->out[0];
    }
    const int64_t L = target->shape[1] - align->rows.skip;
    cab_tensor *stats = cab_graph_activation(g, "align_stats", CAB_F32, 3,
                                             (int64_t[]){target->shape[0], over_tokens ? cab_columns(target) : L, 2});
    cab_graph_append(g, &op_align_stats, 1, &target, 1, &stats, align, sizeof *align);
    return stats;
}

static cab_tensor *record_one(cab_graph *g, cab_tensor *x, const cab_bridge_layers *m, cab_tensor *target,
                              const cab_align_attributes *align)
{
    cab_tensor *in[CAB_BRIDGE_INPUTS] = {x,
                                         cab_graph_weight(g, m->w1, CAB_BF16),
                                         cab_graph_weight(g, m->b1, CAB_BF16),
                                         cab_graph_weight(g, m->w2, CAB_BF16),
                                         cab_graph_weight(g, m->b2, CAB_BF16),
                                         target,
                                         stats_of(g, target, align)};
    const cab_bridge_attributes attributes = {.align = *align, .activation = m->activation};
    cab_tensor *loss = cab_graph_activation(g, "bridge_loss", CAB_F32, 1, (int64_t[]){1});
    cab_graph_append(g, &op_bridge_loss, CAB_BRIDGE_INPUTS, in, 1, &loss, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : loss;
}

#endif

cab_tensor *cab_bridge_loss(cab_graph *g, cab_tensor *x, const cab_bridge_layers *m, cab_tensor *target,
                            cab_feature_map map, const cab_row_map *rows)
{
    if (cab_graph_failed(g) || x == NULL || target == NULL)
        return NULL;
#ifdef CAB_WITH_CUDA
    const cab_align_attributes align = {
        .map = map, .mapped = rows != NULL, .rows = rows != NULL ? *rows : (cab_row_map){0}};
    if (fits(g, m, x, target, rows))
        return record_one(g, x, m, target, &align);
#endif
    cab_tensor *hidden = cab_activate(g, cab_linear(g, x, m->w1, m->b1, CAB_OUT_IN), m->activation);
    cab_tensor *pred = cab_linear(g, hidden, m->w2, m->b2, CAB_OUT_IN);
    return rows != NULL ? cab_align_loss_mapped(g, pred, target, map, rows) : cab_align_loss(g, pred, target, map);
}
