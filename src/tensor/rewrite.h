/* rewrite.h - what the optimise() of a backend may do to a list: let one node compute what several would have, and keep in memory what
 * that asks for and no more. The list has its backward pass and its order by then, and no tensor has a place yet. The backend says which
 * nodes and into which ops of its own; that values stay what they were is its promise, whose memory is needed when is the graph's. */
#ifndef CAB_TENSOR_REWRITE_H
#define CAB_TENSOR_REWRITE_H

#include "tensor/kernel.h"

/* Two neighbours that become one node. `second` has first's only output as its first input, and parameters as its others; both are
 * forward nodes. The node of op `fused` has the inputs of the first, then those of the second but its first; out[0] is that of the
 * second, out[1] that of the first, or NULL where nobody else reads it; attributes are the first's, or the second's. */
typedef struct cab_fusion {
    const cab_op *first, *second, *fused;
    bool (*fits)(const cab_node *first, const cab_node *second, const cab_backend *backend);
    bool attributes_of_second;
} cab_fusion;
cab_status cab_rewrite_fuse(cab_graph *g, const cab_fusion *fusions, size_t n);

/* Whether a node would rather compute in[i] itself, from what `writer` reads, than read it. */
typedef bool (*cab_recomputes)(const cab_node *reader, int i, const cab_node *writer, const cab_backend *backend);
/* Changes op and inputs of such a reader, which reads what `writer` reads from then on. */
typedef void (*cab_recompute)(cab_node *reader, int i, const cab_node *writer);
/* A tensor that all its readers would rather compute is in no memory, and its writer does not run. */
cab_status cab_rewrite_recompute_in_readers(cab_graph *g, cab_recomputes recomputes, cab_recompute recompute);

/* Forward nodes of `op` get one more output for their backward nodes to read, of bytes(forward node), or none where that is 0. An op
 * that has this done to it saves all its inputs: by these a backward node is matched with the last forward node before it. */
cab_status cab_rewrite_save_for_backward(cab_graph *g, const cab_op *op, cab_bytes bytes);

/* Calls visit for every node that runs; it may change the node's inputs for others of the same shapes, cab_graph_weight() and the like. */
typedef cab_status (*cab_node_visitor)(cab_graph *g, cab_node *node);
cab_status cab_rewrite_each(cab_graph *g, cab_node_visitor visit);

#endif
