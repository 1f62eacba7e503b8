/* collective.c - small tensors and buckets of parameters between ranks. The sums of gradients are the graph's own
 * (tensor/reduce.h). A backend without ranks is a size of 1: a gather is a copy. */
#include "ops/collective.h"

#include "ops/record.h"

const cab_op cab_op_gather = {
    .name = "gather", /* in: x   out: y */
    .effect = true,   /* all ranks take part, or none */
};

const cab_op cab_op_collect = {
    .name = "collect",
    .effect = true,
};

cab_tensor *cab_gather(cab_graph *g, cab_tensor *x)
{
    if (cab_graph_failed(g) || x == NULL || !cab_expect_dtype(g, "gather", x, CAB_F32))
        return NULL;
    const int64_t ranks = cab_communicator_size(cab_graph_backend(g)->communicator);
    cab_tensor *y = cab_graph_activation(g, "gathered", CAB_F32, 1, (int64_t[]){ranks * cab_elements(x)});
    cab_graph_append(g, &cab_op_gather, 1, &x, 1, &y, NULL, 0);
    return cab_graph_failed(g) ? NULL : y;
}

void cab_collect(cab_graph *g, cab_params *const *stores, int n)
{
    const cab_collect_attributes attributes = {stores, n};
    if (!cab_graph_failed(g))
        cab_graph_append(g, &cab_op_collect, 0, NULL, 0, NULL, &attributes, sizeof attributes);
}
