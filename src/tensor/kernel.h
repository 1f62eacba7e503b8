/* kernel.h - what a backend computes with: a table of kernels, each bound to the op that it computes and to the nodes that it is for.
 *
 * A node takes the first row of its op and direction that fits it. The rows of an op stand in order, from the kernel that is for the
 * fewest nodes to the one that takes every node, the op's reference on this backend. Nothing outside a backend's folder names its
 * kernels: recorders append what the model means, and a backend that computes a list differently rewrites the list (rewrite.h). */
#ifndef CAB_TENSOR_KERNEL_H
#define CAB_TENSOR_KERNEL_H

#include "tensor/graph.h"

typedef enum cab_direction { CAB_FORWARD, CAB_BACKWARD } cab_direction;

/* Reads node->in and writes node->out; of a backward node reads in, out, gout and writes gin. No allocation, no waiting. */
typedef cab_status (*cab_kernel)(const cab_node *node, cab_backend *backend);
/* A number of bytes. */
typedef size_t (*cab_bytes)(const cab_node *node, const cab_backend *backend);
/* Whether the kernel is for this node: dtypes, sizes, strides, what the device can. Asked when the node is recorded, where tensors have
 * shapes and no memory yet. */
typedef bool (*cab_fits)(const cab_node *node, const cab_backend *backend);

typedef struct cab_kernel_row {
    const cab_op *op;
    cab_direction direction;
    cab_kernel run;
    cab_fits fits;     /* NULL: every node */
    cab_bytes scratch; /* of memory that the node has for itself while it runs, in node->scratch; NULL: none */
    /* Called on the host before every run of the list, also when a device replays it, in which the host's code of kernels does not
     * run: brings up to date what the kernel reads in device memory and only the host knows. May upload. NULL: nothing to do. */
    cab_kernel prepare;
    cab_bytes prepared; /* of memory of the node's own that lives as long as the graph, in node->prepared; NULL: none */
} cab_kernel_row;

struct cab_kernel_table {
    const cab_kernel_row *rows;
    size_t n_row;
    /* Called once per graph that is not eager, when nodes that nobody needs are gone and the others are in their order: changes the
     * list for this backend by the means of rewrite.h. NULL: lists run as they were recorded. */
    cab_status (*optimise)(cab_graph *g);
};

/* For tables: every node, and no bytes. */
bool cab_fits_all(const cab_node *node, const cab_backend *backend);
size_t cab_no_scratch(const cab_node *node, const cab_backend *backend);

/* The row that a node of this op, direction, inputs and attributes gets, or NULL: the backend has no kernel for it. */
const cab_kernel_row *cab_kernel_for(const cab_backend *backend, const cab_node *node);
/* Gives the node its row and the scratch that it asks for. CAB_EUNSUPPORTED, naming op and backend, where there is none. */
cab_status cab_node_choose_kernel(cab_node *node, const cab_backend *backend);
/* Runs a forward node outside any list, whose tensors have memory: for what is computed once. */
cab_status cab_node_run_alone(cab_node *node, cab_backend *backend);

#endif
