/* fuse.c - a node that computes what the node after it, or one before it, would have computed.
 *
 * Where x goes through `node` to t and through `next`, with parameters, to y, and node's op absorbs next on this backend, node computes
 * y itself, and t only if another node or the host reads it. So a GPU applies an activation while a product's tiles are still in
 * registers, and of a teacher's layer, which has no backward pass, only the activated half is ever in memory; and a norm does not read
 * again the sum that it is of.
 *
 * Where all that read a tensor would rather compute it again from what its node reads, as that is smaller, it is never written: a scan on a
 * GPU multiplies dt from its few columns while it waits for memory anyway. */
#include "base/memory.h"
#include "tensor/graph_internal.h"

static void count_use(cab_graph *g, const cab_tensor *root, int index, void *context)
{
    int *uses = context;
    (void)g;
    (void)index;
    uses[root->id]++;
}

/* All but the first. */
static bool reads_parameters(const cab_node *node)
{
    for (int i = 1; i < node->n_in; i++)
        if (node->in[i] != NULL && node->in[i]->kind != CAB_PARAMETER)
            return false;
    return node->n_in > 0;
}

static bool absorbs(const cab_graph *g, const cab_node *node, const cab_node *next)
{
    const cab_absorb absorb = node->op->absorb[g->backend->id];
    return absorb != NULL && !node->skip && !next->skip && !node->backward && !next->backward && node->n_out == 1 &&
           reads_parameters(next) && next->n_out == 1 && next->in[0] == node->out[0] && node->out[0]->base == NULL &&
           absorb(node, next, g->backend);
}

static void absorb_next(cab_graph *g, const int *uses)
{
    for (size_t i = 0; i + 1 < g->n_nodes; i++) {
        cab_node *node = g->nodes[i], *next = g->nodes[i + 1];
        if (!absorbs(g, node, next))
            continue;
        cab_tensor *t = node->out[0];
        const bool read = t->keep || uses[t->id] > 2; /* by others than these two */
        node->absorbed = next;
        node->n_out = 2;
        node->out[0] = next->out[0];
        node->out[1] = read ? t : NULL;
        next->skip = true;
    }
}

/* makers: by tensor id, the node whose only output it is, if it may be no memory's. */
static void find_makers(const cab_graph *g, cab_node **makers)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        cab_node *node = g->nodes[i];
        const cab_tensor *t = node->out[0];
        if (!node->skip && !node->backward && node->n_out == 1 && t->kind == CAB_ACTIVATION && t->base == NULL &&
            !t->keep)
            makers[t->id] = node;
    }
}

/* willing: by tensor id, how many read it and would rather compute it. */
static void count_willing(const cab_graph *g, cab_node *const *makers, int *willing)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const cab_node *node = g->nodes[i];
        const cab_remake remake = node->op->remake[g->backend->id];
        for (int k = 0; remake != NULL && !node->skip && k < node->n_in; k++) {
            const cab_tensor *t = node->in[k];
            if (t != NULL && t->id >= 0 && makers[t->id] != NULL && remake(node, k, makers[t->id], g->backend))
                willing[t->id]++;
        }
    }
}

static cab_status remake_inputs(cab_graph *g, const int *uses)
{
    cab_node **makers = NULL;
    int *willing = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&makers, g->n_tensors, "a plan"));
    CAB_GOTO(CAB_NEW(&willing, g->n_tensors, "a plan"));
    find_makers(g, makers);
    count_willing(g, makers, willing);
    for (size_t i = 0; i < g->n_tensors; i++)
        if (willing[i] > 0 && willing[i] + 1 == uses[i]) { /* and the one that writes it */
            g->tensors[i]->remade = makers[i];
            makers[i]->skip = true;
        }
done:
    cab_free(makers);
    cab_free(willing);
    return status;
}

/* What forward kernels leave for backward ones that are not there. */
static void drop_unread(cab_graph *g, const int *uses)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        cab_node *node = g->nodes[i];
        const int last = node->n_out - 1;
        if (!node->skip && !node->backward && node->op->leaves[g->backend->id] != NULL && last > 0 &&
            node->out[last] != NULL && uses[node->out[last]->id] == 1)
            node->out[last] = NULL;
    }
}

cab_status cab_graph_fuse(cab_graph *g)
{
    int *uses = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&uses, g->n_tensors, "a plan"));
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i]->skip) {
            cab_visit_reads(g, (int)i, count_use, uses);
            cab_visit_writes(g, (int)i, count_use, uses);
        }
    drop_unread(g, uses);
    CAB_GOTO(remake_inputs(g, uses));
    absorb_next(g, uses);
done:
    cab_free(uses);
    return status;
}
