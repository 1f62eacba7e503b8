/* rewrite.h - what a backend's optimise() may do to a list: let one node compute what several nodes would have
 * computed.
 *
 * By then the list has its backward pass and its order, and no tensor has a place in memory yet. The backend chooses
 * the nodes and the ops that replace them, and guarantees that values stay what they were. The graph works out which
 * tensors are still needed, and when. The functions return CAB_OK or the failure of the graph. */
#ifndef CAB_TENSOR_REWRITE_H
#define CAB_TENSOR_REWRITE_H

#include "tensor/kernel.h"

/* Two forward nodes that become one. The only output of `first` is the first input of `second`, whose other inputs are
 * parameters. The node of op `fused` has the inputs of `first`, then the other inputs of `second`. Its out[0] is the
 * output of `second`; its out[1] is the output of `first`, or NULL where no other node reads that. Its attributes are
 * those of `first`, or with attributes_of_second those of `second`. fits says whether two nodes may be fused. */
typedef struct cab_fusion {
    const cab_op *first, *second, *fused;
    bool (*fits)(const cab_node *first, const cab_node *second, const cab_backend *backend);
    bool attributes_of_second;
} cab_fusion;
/* Applies n fusions to the whole list. */
cab_status cab_rewrite_fuse(cab_graph *g, const cab_fusion *fusions, size_t n);

/* Whether `reader` should compute its in[i] itself, from the inputs of `writer`, the node that writes in[i], instead of
 * reading it. */
typedef bool (*cab_recomputes)(const cab_node *reader, int i, const cab_node *writer, const cab_backend *backend);
/* Changes op and inputs of such a reader: from then on it reads the inputs of `writer`. */
typedef void (*cab_recompute)(cab_node *reader, int i, const cab_node *writer);
/* Looks for tensors that every reader should compute itself, and changes these readers. Such a tensor gets no memory,
 * and its writer does not run. */
cab_status cab_rewrite_recompute_in_readers(cab_graph *g, cab_recomputes recomputes, cab_recompute recompute);

/* Gives every forward node of `op` one more output of bytes(node) bytes, which its backward node reads; no output where
 * that is 0. `op` must save all its inputs (cab_op.saves), because a backward node is matched by them with the last
 * forward node before it that no other has been matched with. */
cab_status cab_rewrite_save_for_backward(cab_graph *g, const cab_op *op, cab_bytes bytes);

#endif
