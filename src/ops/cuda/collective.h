/* collective.h - one GPU among those of several ranks, by NCCL. */
#ifndef CAB_OPS_CUDA_COLLECTIVE_H
#define CAB_OPS_CUDA_COLLECTIVE_H

#include "tensor/kernel.h"

/* backend->join. CAB_EUNSUPPORTED for more than one rank in a build without NCCL. */
cab_status cab_cuda_join(cab_backend *backend, cab_communicator *communicator);
/* Whether NCCL has met an error since. */
cab_status cab_cuda_ranks_check(const cab_backend *backend);
/* "NCCL 2.27.3", or that there is none; returns `buffer`. */
const char *cab_cuda_ranks_describe(char *buffer, size_t size);

cab_status cab_reduce_cuda(const cab_node *node, cab_backend *backend);
cab_status cab_gather_cuda(const cab_node *node, cab_backend *backend);
cab_status cab_collect_cuda(const cab_node *node, cab_backend *backend);

#endif
