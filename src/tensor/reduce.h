/* reduce.h - what the graph asks of a backend that adds up gradients over ranks. */
#ifndef CAB_TENSOR_REDUCE_H
#define CAB_TENSOR_REDUCE_H

#include "tensor/graph.h"

/* No inputs and outputs. Adds up a bucket over the ranks of backend->communicator, in place. A backend may do this beside
 * the nodes that follow; when the `last` node of a list has run, all buckets of the list are summed for whoever runs
 * next. */
extern const cab_op cab_op_reduce;

typedef struct cab_reduce_attributes {
    cab_bucket bucket;
    size_t store, index; /* which one it is: of cab_graph_reduce()'s stores, and in it */
    bool scatter;        /* this rank's piece alone gets its sums */
    bool last;
} cab_reduce_attributes;

#endif
