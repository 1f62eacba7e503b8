/* fuse.c - a node that computes what the node after it would have computed of its result.
 *
 * Where x goes through `node` to t and through `next` to y, and node's op absorbs next on this backend, node computes y itself, and t
 * only if another node or the host reads it. So a GPU applies an activation while a product's tiles are still in registers,
 * and of a teacher's layer, which has no backward pass, only the activated half is ever in memory. */
#include "base/memory.h"
#include "tensor/graph_internal.h"

static void count_use(cab_graph *g, const cab_tensor *root, int index, void *context)
{
    int *uses = context;
    (void)g;
    (void)index;
    uses[root->id]++;
}

static bool absorbs(const cab_graph *g, const cab_node *node, const cab_node *next)
{
    const cab_absorb absorb = node->op->absorb[g->backend->id];
    return absorb != NULL && !node->skip && !next->skip && !node->backward && !next->backward && node->n_out == 1 &&
           next->n_in == 1 && next->n_out == 1 && next->in[0] == node->out[0] && node->out[0]->base == NULL &&
           absorb(node, next, g->backend);
}

cab_status cab_graph_fuse(cab_graph *g)
{
    int *uses = NULL;
    CAB_TRY(CAB_NEW(&uses, g->n_tensors, "a plan"));
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i]->skip) {
            cab_visit_reads(g, (int)i, count_use, uses);
            cab_visit_writes(g, (int)i, count_use, uses);
        }
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
    cab_free(uses);
    return CAB_OK;
}
