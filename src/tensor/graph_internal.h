/* graph_internal.h - the graph's memory, shared by graph.c (record), backward.c, plan.c and run.c only. */
#ifndef CAB_TENSOR_GRAPH_INTERNAL_H
#define CAB_TENSOR_GRAPH_INTERNAL_H

#include "tensor/graph.h"

enum { CAB_GRAPH_ERROR_MAX = 512 };

/* Where a tensor's memory lies: one per tensor id; only roots (no base) of kind CAB_ACTIVATION are placed. */
typedef struct cab_place {
    int first, last; /* node indices of the first write and the last use; first -1: never used */
    size_t offset, bytes;
    bool live;
} cab_place;

/* An input's next content, on the device already; or, on the processor, an input whose content the host has lent. */
typedef struct cab_ahead {
    cab_tensor *tensor;
    void *buffer; /* on the processor: the tensor's own memory */
    bool pending;
} cab_ahead;

struct cab_graph {
    cab_backend *backend;
    cab_status status; /* sticky */
    char error[CAB_GRAPH_ERROR_MAX];

    cab_tensor **tensors; /* all but parameters, by id */
    size_t n_tensors, tensors_capacity;
    cab_node **nodes;
    size_t n_nodes, nodes_capacity;

    int segment; /* being recorded, or -1 */
    int n_segments;

    /* backward.c, by tensor id */
    cab_tensor **gradients; /* of roots and reshapes: the gradient; NULL none yet */
    bool *written;          /* the gradient has its first contribution */
    bool *wanted;
    size_t gradients_capacity, written_capacity, wanted_capacity;

    /* plan.c and run.c */
    cab_place *places; /* n_tensors of them */
    size_t places_capacity;
    size_t *scratch_offsets;
    size_t arena_bytes;
    bool planned;
    void *arena;
    bool eager;
    bool timed;
    bool warm[2]; /* has run once, without and with reduction: kernels have set up what they keep */
    cab_ahead *ahead;
    size_t n_ahead, ahead_capacity;
    void *captured[2]; /* the list as the backend recorded it, without and with reduction; NULL: not (yet) */

    /* reduce.c */
    cab_params *const *reduced; /* gradients of these are added up over ranks; NULL: none are */
    int n_reduced;
    bool scatter, reducing;
    double *seconds;
};

extern const cab_op cab_op_split;   /* in x, out: its column parts */
extern const cab_op cab_op_reshape; /* in x, out: the same memory, another shape */

/* The tensor whose memory t is part of, and t's first element counted from there. */
const cab_tensor *cab_tensor_root(const cab_tensor *t, int64_t *offset);
/* Whether the host may copy it whole; else says why not. */
cab_status cab_tensor_check_host_access(const cab_tensor *t);
/* The part of the arena that holds all of the tensors, NULLs left out; false if there is none, or it is too long to be copied for them. */
bool cab_tensors_range(const cab_graph *g, int n, cab_tensor *const *tensors, const char **begin, size_t *bytes);
/* Whether t is the output of cab_reshape(): all of its base's memory under another shape. */
bool cab_tensor_is_reshape(const cab_graph *g, const cab_tensor *t);
/* A view with the shape of `like` on `base`, `offset` elements in. */
cab_tensor *cab_graph_view(cab_graph *g, cab_tensor *base, int n_dim, const int64_t *shape, int64_t ld, int64_t offset);
/* Appends a node and takes care of eager mode. The node's arrays must be complete. */
cab_node *cab_graph_push(cab_graph *g, const cab_node *node);
/* Calls visit for the memory root of every tensor that node `index` reads, or writes. */
typedef void (*cab_visitor)(cab_graph *g, const cab_tensor *root, int index, void *context);
void cab_visit_reads(cab_graph *g, int index, cab_visitor visit, void *context);
void cab_visit_writes(cab_graph *g, int index, cab_visitor visit, void *context);
/* Moves nodes that only the backward pass needs into it, where that takes no more memory. */
cab_status cab_graph_order(cab_graph *g);
/* Puts the nodes that add up gradients over ranks behind the last that writes to each bucket. */
cab_status cab_graph_insert_reductions(cab_graph *g);
/* Whether the node does not run this time. */
bool cab_graph_leaves_out(const cab_graph *g, const cab_node *node);
/* Whether the node changes something outside the arena, and so must run whether or not its outputs are used. */
bool cab_node_has_effect(const cab_node *node);
/* A fresh activation with the shape, dtype and ld of `like`, named "<prefix><name>". */
cab_tensor *cab_graph_like(cab_graph *g, const char *prefix, const cab_tensor *like);

#endif
