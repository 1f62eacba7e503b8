/* bridge_loss.c - a bridge of two linear layers and its alignment loss:
 *
 *   loss = mean (f(x W1^T + b1) W2^T + b2 - psi(target))^2
 *
 * recorded as four nodes or, where the backend has a kernel for it, as one, which reads x and the target once and writes the gradients:
 * neither the hidden layer nor the prediction is ever in memory. */
#include "ops/bridge_loss.h"

#include "ops/record.h"

static double bridge_flops(const cab_node *node)
{
    const double rows = (double)cab_rows(node->in[CAB_BRIDGE_X]);
    const double products =
        (double)cab_elements(node->in[CAB_BRIDGE_W1]) + (double)cab_elements(node->in[CAB_BRIDGE_W2]);
    return (node->backward ? 6.0 : 2.0) * rows * products;
}

const cab_op cab_op_bridge_loss = {
    .name = "bridge_loss", /* in: x W1 b1 W2 b2 target stats (NULL: no softmax) scale (B) (NULL: 1)   out: loss */
    .saves = CAB_SAVE_IN(CAB_BRIDGE_X) | CAB_SAVE_IN(CAB_BRIDGE_W1) | CAB_SAVE_IN(CAB_BRIDGE_B1) |
             CAB_SAVE_IN(CAB_BRIDGE_W2) | CAB_SAVE_IN(CAB_BRIDGE_B2) | CAB_SAVE_IN(CAB_BRIDGE_TARGET) |
             CAB_SAVE_IN(CAB_BRIDGE_STATS) | CAB_SAVE_IN(CAB_BRIDGE_SCALE),
    .backward_computes_outputs = true,
    .flops = bridge_flops,
};

/* Taken once for all terms with the same target: a teacher's layer serves several, of both directions. NULL: the map is no softmax. */
static cab_tensor *stats_of(cab_graph *g, cab_tensor *target, const cab_align_attributes *align)
{
    const bool over_tokens = align->map == CAB_MAP_SOFTMAX_TOKENS;
    if (!over_tokens && align->map != CAB_MAP_SOFTMAX_FEATURES)
        return NULL;
    cab_tensor *stats = cab_align_recorded(g, &cab_op_align_stats, target, align);
    if (stats != NULL)
        return stats;
    const int64_t n = over_tokens ? cab_columns(target) : cab_align_length(align, target);
    stats = cab_graph_activation(g, "align_stats", CAB_F32, 3, (int64_t[]){target->shape[0], n, 2});
    cab_graph_append(g, &cab_op_align_stats, 1, &target, 1, &stats, align, sizeof *align);
    return stats;
}

static cab_tensor *record_one(cab_graph *g, cab_tensor *x, const cab_bridge_layers *m, cab_tensor *target,
                              const cab_align_attributes *align, cab_tensor *scale)
{
    cab_tensor *in[CAB_BRIDGE_INPUTS] = {x,
                                         cab_graph_weight(g, m->w1, CAB_BF16),
                                         cab_graph_weight(g, m->b1, CAB_BF16),
                                         cab_graph_weight(g, m->w2, CAB_BF16),
                                         cab_graph_weight(g, m->b2, CAB_BF16),
                                         target,
                                         stats_of(g, target, align),
                                         scale};
    const cab_bridge_attributes attributes = {.align = *align, .activation = m->activation};
    cab_tensor *loss = cab_graph_activation(g, "bridge_loss", CAB_F32, 1, (int64_t[]){1});
    cab_graph_append(g, &cab_op_bridge_loss, CAB_BRIDGE_INPUTS, in, 1, &loss, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : loss;
}

/* Whether the backend has a kernel for the bridge as one node. What does not fit together, be it wrong, is left to the other nodes. */
static bool supported(const cab_graph *g, cab_tensor *x, const cab_bridge_layers *m, cab_tensor *target,
                      const cab_align_attributes *align)
{
    const cab_bridge_attributes attributes = {.align = *align, .activation = m->activation};
    const cab_node node = {.op = &cab_op_bridge_loss,
                           .n_in = CAB_BRIDGE_STATS,
                           .in = {x, m->w1, m->b1, m->w2, m->b2, target},
                           .attributes = &attributes,
                           .attributes_size = sizeof attributes};
    return m->w1 != NULL && m->w2 != NULL && cab_graph_supports(g, &node);
}

cab_tensor *cab_bridge_loss(cab_graph *g, cab_tensor *x, const cab_bridge_layers *m, cab_tensor *target,
                            const cab_alignment *how)
{
    if (cab_graph_failed(g) || x == NULL || target == NULL)
        return NULL;
    const cab_align_attributes align = {
        .map = how->map, .mapped = how->rows != NULL, .rows = how->rows != NULL ? *how->rows : (cab_row_map){0}};
    if (supported(g, x, m, target, &align))
        return record_one(g, x, m, target, &align, how->relative ? cab_inverse_variance(g, target, how) : NULL);
    cab_tensor *hidden = cab_activate(g, cab_linear(g, x, m->w1, m->b1, CAB_OUT_IN), m->activation);
    return cab_align_loss(g, cab_linear(g, hidden, m->w2, m->b2, CAB_OUT_IN), target, how);
}
