/* kernel.h - what a backend computes with: a table of kernels.
 *
 * A row of the table binds a kernel to an op and a direction, and says which nodes the kernel is for. A node gets the
 * first row of its op and direction that fits it. The rows of an op begin with the kernel for the fewest nodes and end
 * with the one that takes every node, the op's reference on this backend. Nothing outside a backend's folder names its
 * kernels. Recorders append what the model means; a backend that computes a list in another way rewrites it
 * (rewrite.h). */
#ifndef CAB_TENSOR_KERNEL_H
#define CAB_TENSOR_KERNEL_H

#include "tensor/graph.h"

typedef enum cab_direction { CAB_FORWARD, CAB_BACKWARD } cab_direction;

/* Computes a node. Forward: reads node->in, writes node->out. Backward: reads in, out and gout, writes gin. A kernel
 * allocates nothing and waits for nothing. */
typedef cab_status (*cab_kernel)(const cab_node *node, cab_backend *backend);
/* A number of bytes for this node. */
typedef size_t (*cab_bytes)(const cab_node *node, const cab_backend *backend);
/* Whether the kernel is for this node, judged by dtypes, sizes, strides and what the device can. Asked when the node is
 * recorded: its tensors have shapes, and no memory yet. */
typedef bool (*cab_fits)(const cab_node *node, const cab_backend *backend);

typedef struct cab_kernel_row {
    const cab_op *op;
    cab_direction direction;
    cab_kernel run;
    cab_fits fits;     /* NULL: every node */
    cab_bytes scratch; /* bytes of node->scratch, the node's own while it runs; NULL: none */
    /* Called on the host before every run of the list, also before a replay, in which the host's part of a kernel does
     * not run. Brings up to date what the kernel reads in device memory and only the host knows. May upload. NULL:
     * nothing. */
    cab_kernel prepare;
    cab_bytes prepared; /* bytes of node->prepared, the node's own as long as the graph lives; NULL: none */
} cab_kernel_row;

struct cab_kernel_table {
    const cab_kernel_row *rows;
    size_t n_row;
    /* Called for every node before it is recorded, in eager graphs too. It may replace an input of the node by another
     * tensor of the same values and shape, such as one of cab_graph_weight(). NULL: nodes are recorded as they come. */
    void (*adapt)(cab_graph *g, cab_node *node);
    /* Changes a list for this backend, by the means of rewrite.h. Called once per graph, by cab_graph_plan(), when dead
     * nodes are gone and the others are in their order; not in eager mode. NULL: lists run as they were recorded. */
    cab_status (*optimise)(cab_graph *g);
};

/* For tables: a cab_fits that takes every node, and a cab_bytes of 0. */
bool cab_fits_all(const cab_node *node, const cab_backend *backend);
size_t cab_no_scratch(const cab_node *node, const cab_backend *backend);

/* The row that the node gets by its op, direction, inputs and attributes. NULL: the backend has no kernel for it. */
const cab_kernel_row *cab_kernel_for(const cab_backend *backend, const cab_node *node);
/* Sets the node's kernel, and the bytes of scratch and prepared memory. CAB_EUNSUPPORTED, with the names of op and
 * backend, if there is no kernel. */
cab_status cab_node_choose_kernel(cab_node *node, const cab_backend *backend);
/* Runs a forward node that is in no list and whose tensors have memory: for what is computed once. */
cab_status cab_node_run_alone(cab_node *node, cab_backend *backend);

#endif
