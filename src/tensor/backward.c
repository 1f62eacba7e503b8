/* backward.c - the backward pass as more of the list.
 *
 * The forward list is walked in reverse. A node gets a backward node when something flows back into one of its outputs
 * and one of its inputs leads to a trainable parameter (or a wanted input). The first contribution to a gradient is
 * written with =, later ones with +=; gradients of parameters are always added to.
 *
 * Views. The gradient of a column part is the same columns of the whole's gradient; parts nobody wrote are zero-filled
 * when the walk reaches the split. The gradient of a reshaped tensor is the original's, reshaped.
 *
 * Recompute. When the walk first needs a node of a marked segment, the segment's forward nodes are appended once more
 * with fresh outputs, and its backward nodes read those instead. */
#include "base/memory.h"
#include "tensor/graph_internal.h"

#include <string.h>

const cab_op cab_op_split = {.name = "split"};
const cab_op cab_op_reshape = {.name = "reshape"};

/* State of one walk. */
typedef struct walk {
    cab_graph *g;
    bool *needs;        /* by id: a gradient is wanted */
    cab_tensor **fresh; /* by id: the recomputed twin */
    bool *recomputed;   /* by segment */
    size_t ids;         /* tensors that existed when the walk began */
    int n_forward;
} walk;

static const cab_tensor *master_of(const cab_tensor *t)
{
    return t->master != NULL ? t->master : t;
}

/* The tensor that keeps the "written" mark for t: reshapes share that of their original. */
static const cab_tensor *canonical(const cab_graph *g, const cab_tensor *t)
{
    while (cab_tensor_is_reshape(g, t))
        t = t->base;
    return t;
}

static bool needs_gradient(const walk *w, const cab_tensor *t)
{
    if (t == NULL)
        return false;
    return t->kind == CAB_PARAMETER ? master_of(t)->trainable : w->needs[t->id];
}

static cab_status grow_gradients(cab_graph *g)
{
    CAB_TRY(CAB_GROW(&g->gradients, &g->gradients_capacity, g->n_tensors, "gradients"));
    CAB_TRY(CAB_GROW(&g->written, &g->written_capacity, g->n_tensors, "gradients"));
    return CAB_GROW(&g->wanted, &g->wanted_capacity, g->n_tensors, "gradients");
}

void cab_graph_want_gradient(cab_graph *g, cab_tensor *t)
{
    if (cab_graph_failed(g) || t == NULL || t->kind == CAB_PARAMETER)
        return;
    if (grow_gradients(g) != CAB_OK)
        cab_graph_fail(g, CAB_ENOMEM, "%s", cab_error_text());
    else
        g->wanted[t->id] = true;
}

cab_tensor *cab_graph_gradient(const cab_graph *g, const cab_tensor *t)
{
    if (t->kind == CAB_PARAMETER)
        return master_of(t)->grad;
    if ((size_t)t->id >= g->gradients_capacity || !g->written[canonical(g, t)->id])
        return NULL;
    return g->gradients[t->id];
}

bool cab_graph_trains(const cab_graph *g, const cab_tensor *parameter)
{
    for (size_t i = 0; parameter->grad != NULL && i < g->n_nodes; i++)
        for (int k = 0; !g->nodes[i]->skip && k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->gin[k] == parameter->grad)
                return true;
    return false;
}

/* Where the gradient of t lives, made on demand. */
static cab_tensor *gradient_of(cab_graph *g, const cab_tensor *t)
{
    if (t->kind == CAB_PARAMETER)
        return master_of(t)->grad;
    if (g->gradients[t->id] != NULL)
        return g->gradients[t->id];
    cab_tensor *gradient = NULL;
    if (t->base == NULL) {
        gradient = cab_graph_like(g, "d ", t);
    } else {
        cab_tensor *whole = gradient_of(g, t->base);
        if (whole == NULL)
            return NULL;
        int64_t ld = cab_tensor_is_reshape(g, t) ? t->ld : whole->ld;
        gradient = cab_graph_view(g, whole, t->n_dim, t->shape, ld, t->offset);
    }
    if (g->wanted[t->id])
        cab_graph_keep(g, gradient);
    g->gradients[t->id] = gradient;
    return gradient;
}

static void mark_needs(walk *w)
{
    for (size_t i = 0; i < w->ids; i++)
        w->needs[i] = w->g->wanted[i];
    for (int i = 0; i < w->n_forward; i++) {
        const cab_node *node = w->g->nodes[i];
        bool any = false;
        for (int k = 0; k < node->n_in; k++)
            any |= needs_gradient(w, node->in[k]);
        for (int k = 0; any && k < node->n_out; k++)
            if (node->out[k] != NULL)
                w->needs[node->out[k]->id] = true;
    }
}

static cab_tensor *twin(const walk *w, cab_tensor *t)
{
    if (t == NULL || t->kind == CAB_PARAMETER || (size_t)t->id >= w->ids || w->fresh[t->id] == NULL)
        return t;
    return w->fresh[t->id];
}

static void recompute_node(walk *w, const cab_node *node)
{
    cab_node copy = *node;
    copy.segment = -1;
    copy.skip = false;
    for (int i = 0; i < node->n_in; i++)
        copy.in[i] = twin(w, node->in[i]);
    for (int i = 0; i < node->n_out; i++) {
        const cab_tensor *out = node->out[i];
        if (out == NULL)
            continue;
        copy.out[i] = out->base != NULL
                          ? cab_graph_view(w->g, twin(w, out->base), out->n_dim, out->shape, out->ld, out->offset)
                          : cab_graph_like(w->g, "again ", out);
        w->fresh[out->id] = copy.out[i];
        if (copy.out[i] == NULL)
            return;
    }
    cab_graph_push(w->g, &copy);
}

static void recompute_segment(walk *w, int segment)
{
    if (w->recomputed[segment])
        return;
    w->recomputed[segment] = true;
    for (int i = 0; i < w->n_forward && !cab_graph_failed(w->g); i++)
        if (w->g->nodes[i]->segment == segment && !w->g->nodes[i]->op->backward_computes_outputs)
            recompute_node(w, w->g->nodes[i]);
}

static void zero_unwritten_parts(walk *w, const cab_node *split)
{
    cab_graph *g = w->g;
    cab_node fill = {.op = &cab_op_split, .backward = true, .segment = -1};
    bool any = false;
    for (int i = 0; i < split->n_out; i++) {
        if (g->written[split->out[i]->id])
            any = true;
        else
            fill.gin[fill.n_in++] = gradient_of(g, split->out[i]);
    }
    if (!any || !needs_gradient(w, split->in[0]))
        return;
    if (fill.n_in > 0 && !cab_graph_failed(g))
        cab_graph_push(g, &fill);
    g->written[canonical(g, split->in[0])->id] = true;
}

/* Chooses = or += for the gradient of in[i] and names its place. */
static void direct_gradient(walk *w, cab_node *backward, const cab_node *node, int i)
{
    cab_graph *g = w->g;
    const cab_tensor *t = node->in[i];
    if (!needs_gradient(w, t))
        return;
    backward->gin[i] = gradient_of(g, t);
    if (t->kind == CAB_PARAMETER) {
        backward->accumulate |= UINT32_C(1) << i;
        return;
    }
    bool *written = &g->written[canonical(g, t)->id];
    if (*written)
        backward->accumulate |= UINT32_C(1) << i;
    *written = true;
}

/* The value of a fused loss exists only once its backward has run: nothing on the forward list may read it. */
static bool value_is_read(const walk *w, const cab_node *node)
{
    for (int i = 0; i < w->n_forward; i++)
        for (int k = 0; k < w->g->nodes[i]->n_in; k++)
            for (int o = 0; o < node->n_out; o++)
                if (node->out[o] != NULL && w->g->nodes[i]->in[k] == node->out[o])
                    return true;
    return false;
}

static void append_backward(walk *w, cab_node *node)
{
    cab_graph *g = w->g;
    bool flows = false, wanted = false;
    for (int i = 0; i < node->n_out; i++)
        flows |= node->out[i] != NULL && g->written[canonical(g, node->out[i])->id];
    for (int i = 0; i < node->n_in; i++)
        wanted |= needs_gradient(w, node->in[i]);
    if (!flows || !wanted)
        return;
    const cab_op *op = node->op;
    if (node->segment >= 0 && !op->backward_computes_outputs)
        recompute_segment(w, node->segment);
    cab_node backward = {.op = op,
                         .backward = true,
                         .n_in = node->n_in,
                         .n_out = node->n_out,
                         .segment = -1,
                         .attributes = node->attributes,
                         .attributes_size = node->attributes_size};
    for (int i = 0; i < node->n_in; i++) {
        if (op->saves & CAB_SAVE_IN(i))
            backward.in[i] = twin(w, node->in[i]);
        direct_gradient(w, &backward, node, i);
    }
    for (int i = 0; i < node->n_out; i++) {
        if (node->out[i] != NULL && g->written[canonical(g, node->out[i])->id])
            backward.gout[i] = gradient_of(g, node->out[i]);
        if (op->backward_computes_outputs)
            backward.out[i] = node->out[i];
        else if (op->saves & CAB_SAVE_OUT(i))
            backward.out[i] = twin(w, node->out[i]);
    }
    if (op->backward_computes_outputs && value_is_read(w, node))
        cab_graph_fail(g, CAB_ESHAPE, "%s is a fused loss: no other op may read its value", op->name);
    if (cab_graph_failed(g))
        return;
    node->skip = op->backward_computes_outputs;
    cab_graph_push(g, &backward);
}

/* A seed is memory of the host's: nothing may be added to it, and it must be all of the gradient. */
static bool check_seed(const walk *w, const cab_tensor *output, const cab_tensor *seed)
{
    cab_graph *g = w->g;
    if (cab_elements(seed) != cab_elements(output) || seed->dtype != output->dtype || seed->ld != cab_columns(seed))
        cab_graph_fail(g, CAB_ESHAPE, "the seed of \"%s\" differs from it in shape or type", output->name);
    else if (output->base != NULL || g->written[output->id])
        cab_graph_fail(g, CAB_ESHAPE, "\"%s\" is a view or has two seeds: its gradient would be incomplete",
                       output->name);
    for (int i = 0; i < w->n_forward; i++)
        for (int k = 0; k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->in[k] == output)
                cab_graph_fail(g, CAB_ESHAPE, "\"%s\" has a seed, so no other op may read it, but %s does",
                               output->name, g->nodes[i]->op->name);
    return !cab_graph_failed(g);
}

static void seed_gradients(const walk *w, int n, cab_tensor *const *outputs, cab_tensor *const *seeds)
{
    for (int i = 0; i < n; i++) {
        if (outputs[i] == NULL || seeds[i] == NULL)
            continue;
        if (!check_seed(w, outputs[i], seeds[i]))
            return;
        w->g->gradients[outputs[i]->id] = seeds[i];
        w->g->written[outputs[i]->id] = true;
    }
}

static cab_status walk_begin(walk *w, cab_graph *g)
{
    w->g = g;
    w->ids = g->n_tensors;
    w->n_forward = (int)g->n_nodes;
    CAB_TRY(grow_gradients(g));
    CAB_TRY(CAB_NEW(&w->needs, w->ids, "backward"));
    CAB_TRY(CAB_NEW(&w->fresh, w->ids, "backward"));
    return CAB_NEW(&w->recomputed, (size_t)g->n_segments, "backward");
}

void cab_graph_backward(cab_graph *g, int n, cab_tensor *const *outputs, cab_tensor *const *seeds)
{
    if (cab_graph_failed(g))
        return;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]->backward) {
            cab_graph_fail(g, CAB_EARG, "the graph has a backward pass already");
            return;
        }
    g->segment = -1;
    walk w = {0};
    if (walk_begin(&w, g) != CAB_OK)
        cab_graph_fail(g, CAB_ENOMEM, "%s", cab_error_text());
    else
        mark_needs(&w);
    if (!cab_graph_failed(g))
        seed_gradients(&w, n, outputs, seeds);
    for (int i = w.n_forward - 1; i >= 0 && !cab_graph_failed(g); i--) {
        cab_node *node = g->nodes[i];
        if (node->op == &cab_op_split)
            zero_unwritten_parts(&w, node);
        else if (node->op != &cab_op_reshape)
            append_backward(&w, node);
    }
    cab_free(w.needs);
    cab_free(w.fresh);
    cab_free(w.recomputed);
}
