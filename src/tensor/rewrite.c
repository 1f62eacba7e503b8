/* rewrite.c - nodes that compute what others would have; rewrite.h.
 *
 * Fused neighbours: x goes through `first` to t and through `second`, with parameters, to y. One node computes y, and t only if another
 * node or the host reads it. So a GPU applies an activation while a product's tiles are still in registers, and of a teacher's layer,
 * which has no backward pass, only the activated half is ever in memory.
 *
 * Recomputed in its readers: a tensor is never written where all who read it compute it again from what its writer reads, as that is
 * smaller: a scan on a GPU multiplies dt from its few columns while it waits for memory anyway.
 *
 * Saved for backward: what a forward kernel has at hand and a backward kernel would have to compute again. */
#include "tensor/rewrite.h"

#include "base/memory.h"
#include "tensor/graph_internal.h"

#include <string.h>

static void count_use(cab_graph *g, const cab_tensor *root, int index, void *context)
{
    int *uses = context;
    (void)g;
    (void)index;
    uses[root->id]++;
}

/* By tensor id, how many times running nodes read or write its memory. The caller frees it. */
static cab_status count_uses(cab_graph *g, int **uses)
{
    CAB_TRY(CAB_NEW(uses, g->n_tensors, "a plan"));
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i]->skip) {
            cab_visit_reads(g, (int)i, count_use, *uses);
            cab_visit_writes(g, (int)i, count_use, *uses);
        }
    return CAB_OK;
}

/* ---- fused neighbours ------------------------------------------------------------------------------------------ */

/* All but the first. */
static bool reads_parameters(const cab_node *node)
{
    for (int i = 1; i < node->n_in; i++)
        if (node->in[i] != NULL && node->in[i]->kind != CAB_PARAMETER)
            return false;
    return node->n_in > 0;
}

static bool neighbours(const cab_node *first, const cab_node *second)
{
    return !first->skip && !second->skip && !first->backward && !second->backward && first->n_out == 1 &&
           second->n_out == 1 && second->in[0] == first->out[0] && first->out[0]->base == NULL &&
           reads_parameters(second) && first->n_in + second->n_in - 1 <= CAB_MAX_IN + CAB_MORE_IN;
}

static const cab_fusion *find_fusion(const cab_graph *g, const cab_node *first, const cab_node *second,
                                     const cab_fusion *fusions, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fusions[i].first == first->op && fusions[i].second == second->op &&
            fusions[i].fits(first, second, g->backend))
            return &fusions[i];
    return NULL;
}

/* first becomes the node of both. read: whether others read what is between them. */
static cab_status fuse(cab_graph *g, cab_node *first, cab_node *second, const cab_fusion *fusion, bool read)
{
    cab_tensor *between = first->out[0];
    for (int i = 1; i < second->n_in; i++)
        first->in[first->n_in++] = second->in[i];
    first->n_out = 2;
    first->out[0] = second->out[0];
    first->out[1] = read ? between : NULL;
    if (fusion->attributes_of_second) {
        const void *attributes = first->attributes;
        const size_t size = first->attributes_size;
        first->attributes = second->attributes;
        first->attributes_size = second->attributes_size;
        second->attributes = attributes; /* each is freed once */
        second->attributes_size = size;
    }
    first->op = fusion->fused;
    second->skip = true;
    return cab_node_choose_kernel(first, g->backend);
}

cab_status cab_rewrite_fuse(cab_graph *g, const cab_fusion *fusions, size_t n)
{
    int *uses = NULL;
    cab_status status;
    CAB_GOTO(count_uses(g, &uses));
    for (size_t i = 0; i + 1 < g->n_nodes; i++) {
        cab_node *first = g->nodes[i], *second = g->nodes[i + 1];
        const cab_fusion *fusion = neighbours(first, second) ? find_fusion(g, first, second, fusions, n) : NULL;
        if (fusion == NULL)
            continue;
        const cab_tensor *between = first->out[0];
        CAB_GOTO(fuse(g, first, second, fusion, between->keep || uses[between->id] > 2));
    }
done:
    cab_free(uses);
    return status;
}

/* ---- recomputed in its readers --------------------------------------------------------------------------------- */

/* writers: by tensor id, the node whose only output it is, if it may be in no memory. */
static void find_writers(const cab_graph *g, cab_node **writers)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        cab_node *node = g->nodes[i];
        const cab_tensor *t = node->out[0];
        if (!node->skip && !node->backward && node->n_out == 1 && t->kind == CAB_ACTIVATION && t->base == NULL &&
            !t->keep)
            writers[t->id] = node;
    }
}

/* willing: by tensor id, how many read it and would rather compute it. */
static void count_willing(const cab_graph *g, cab_node *const *writers, cab_recomputes recomputes, int *willing)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const cab_node *node = g->nodes[i];
        for (int k = 0; !node->skip && k < node->n_in; k++) {
            const cab_tensor *t = node->in[k];
            if (t != NULL && t->id >= 0 && writers[t->id] != NULL && recomputes(node, k, writers[t->id], g->backend))
                willing[t->id]++;
        }
    }
}

static cab_status recompute_inputs(const cab_graph *g, cab_node *node, cab_node *const *writers,
                                   cab_recompute recompute)
{
    const int n_in = node->n_in;
    bool changed = false;
    for (int i = 0; i < n_in; i++) {
        const cab_tensor *t = node->in[i];
        if (t != NULL && t->id >= 0 && writers[t->id] != NULL && writers[t->id] != node) {
            recompute(node, i, writers[t->id]);
            changed = true;
        }
    }
    return changed ? cab_node_choose_kernel(node, g->backend) : CAB_OK;
}

cab_status cab_rewrite_recompute_in_readers(cab_graph *g, cab_recomputes recomputes, cab_recompute recompute)
{
    cab_node **writers = NULL;
    int *willing = NULL, *uses = NULL;
    cab_status status;
    CAB_GOTO(count_uses(g, &uses));
    CAB_GOTO(CAB_NEW(&writers, g->n_tensors, "a plan"));
    CAB_GOTO(CAB_NEW(&willing, g->n_tensors, "a plan"));
    find_writers(g, writers);
    count_willing(g, writers, recomputes, willing);
    for (size_t i = 0; i < g->n_tensors; i++)
        if (willing[i] > 0 && willing[i] + 1 == uses[i]) /* and the one that writes it */
            writers[i]->skip = true;
        else
            writers[i] = NULL;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i]->skip)
            CAB_GOTO(recompute_inputs(g, g->nodes[i], writers, recompute));
done:
    cab_free(uses);
    cab_free(writers);
    cab_free(willing);
    return status;
}

/* ---- saved for backward ---------------------------------------------------------------------------------------- */

/* The forward node whose values a backward node is of: the last before it with the same inputs that no other backward node has taken. Of a
 * recomputed segment that is the second one; of two nodes of the same inputs the last belongs to the first on the way back. */
static cab_node *take_forward(const cab_graph *g, size_t index, bool *taken)
{
    const cab_node *backward = g->nodes[index];
    for (size_t i = index; i-- > 0;) {
        cab_node *node = g->nodes[i];
        if (!taken[i] && !node->skip && !node->backward && node->op == backward->op && node->n_in == backward->n_in &&
            memcmp(node->in, backward->in, (size_t)node->n_in * sizeof *node->in) == 0) {
            taken[i] = true;
            return node;
        }
    }
    return NULL;
}

/* One more output of the forward node, which the backward node gets too. */
static cab_status save(cab_graph *g, cab_node *forward, cab_node *backward, size_t bytes)
{
    const int64_t count = (int64_t)(bytes / sizeof(float));
    cab_tensor *saved = cab_graph_activation(g, forward->op->name, CAB_F32, 1, &count);
    if (saved == NULL)
        return cab_fail(g->status, "%s", g->error);
    forward->out[forward->n_out++] = backward->out[backward->n_out++] = saved;
    CAB_TRY(cab_node_choose_kernel(forward, g->backend));
    return cab_node_choose_kernel(backward, g->backend);
}

cab_status cab_rewrite_save_for_backward(cab_graph *g, const cab_op *op, cab_bytes bytes)
{
    bool *taken = NULL;
    cab_status status = CAB_OK;
    CAB_TRY(CAB_NEW(&taken, g->n_nodes, "a plan"));
    for (size_t i = 0; i < g->n_nodes; i++) {
        cab_node *backward = g->nodes[i];
        cab_node *forward =
            !backward->skip && backward->backward && backward->op == op ? take_forward(g, i, taken) : NULL;
        const size_t size = forward != NULL ? bytes(forward, g->backend) : 0;
        if (size > 0)
            CAB_GOTO(save(g, forward, backward, size));
    }
done:
    cab_free(taken);
    return status;
}
