/* fuse.c - a node that computes what the node after it would have computed of its result.
 *
 * Where x goes through `node` to t and through `next`, with parameters, to y, and node's op absorbs next on this backend, node computes
 * y itself, and t only if another node or the host reads it. So a GPU applies an activation while a product's tiles are still in
 * registers, and of a teacher's layer, which has no backward pass, only the activated half is ever in memory; and a norm does not read
 * again the sum that it is of. */
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
