/* collective.c - between ranks on processors: what the communicator does, as kernels. */
#include "ops/collective.h"

#include "ops/cpu/kernels.h"
#include "tensor/reduce.h"

cab_status cab_cpu_reduce(const cab_node *node, cab_backend *backend)
{
    const cab_reduce_attributes *a = node->attributes;
    CAB_TRY(cab_communicator_sum_scatter(backend->communicator, a->bucket.data, a->bucket.count));
    return a->scatter ? CAB_OK : cab_communicator_all_gather(backend->communicator, a->bucket.data, a->bucket.count);
}

cab_status cab_cpu_gather(const cab_node *node, cab_backend *backend)
{
    return cab_communicator_gather(backend->communicator, node->in[0]->data, cab_tensor_bytes(node->in[0]),
                                   node->out[0]->data);
}

cab_status cab_cpu_collect(const cab_node *node, cab_backend *backend)
{
    const cab_collect_attributes *a = node->attributes;
    for (int s = 0; s < a->n; s++)
        for (size_t b = 0; b < cab_params_buckets(a->stores[s]); b++) {
            const cab_bucket bucket = cab_params_bucket(a->stores[s], b);
            CAB_TRY(cab_communicator_all_gather(backend->communicator, bucket.data, bucket.count));
        }
    return CAB_OK;
}
