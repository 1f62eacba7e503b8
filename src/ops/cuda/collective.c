/* collective.c - gradients and parameters between the GPUs of several ranks.
 *
 * Gradients are summed in a stream of their own, beside the backward pass: an event lets it wait for the node that wrote
 * the last of a bucket, another lets whoever runs behind the last bucket wait for it. A captured list records both streams.
 * NCCL takes the same way through the same ranks in every run, so sums have the same bits. */
#include "ops/cuda/collective.h"

#include "base/memory.h"
#include "ops/collective.h"
#include "ops/cuda/device.h"
#include "tensor/reduce.h"

#include <stdio.h>
#ifdef CAB_WITH_NCCL
#include <nccl.h>

typedef struct ranks {
    ncclComm_t comm;
    cudaStream_t stream;
    cudaEvent_t ready, done; /* a bucket's gradients; the last bucket's sums */
} ranks;

static cab_status check(ncclResult_t result, const char *what)
{
    if (result == ncclSuccess || result == ncclInProgress)
        return CAB_OK;
    return cab_fail(CAB_EBACKEND, "%s: NCCL says \"%s\" (%s)", what, ncclGetErrorString(result),
                    ncclGetLastError(NULL));
}

static ranks *ranks_of(const cab_backend *backend)
{
    return cab_cuda_of(backend)->library[CAB_CUDA_RANKS].state;
}

/* What another rank still waits for is given up. */
static void leave(void *state)
{
    ranks *r = state;
    if (r->comm != NULL)
        (void)ncclCommAbort(r->comm);
    if (r->ready != NULL)
        (void)cudaEventDestroy(r->ready);
    if (r->done != NULL)
        (void)cudaEventDestroy(r->done);
    if (r->stream != NULL)
        (void)cudaStreamDestroy(r->stream);
    cab_free(r);
}

static cab_status meet(cab_communicator *c, ranks *r)
{
    ncclUniqueId id;
    if (cab_communicator_rank(c) == 0)
        CAB_TRY(check(ncclGetUniqueId(&id), "meeting the other ranks"));
    CAB_TRY(cab_communicator_share(c, &id, sizeof id));
    CAB_TRY(check(ncclCommInitRank(&r->comm, cab_communicator_size(c), id, cab_communicator_rank(c)),
                  "meeting the other ranks"));
    CAB_TRY(cab_cuda_check(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking), "ranks"));
    CAB_TRY(cab_cuda_check(cudaEventCreateWithFlags(&r->ready, cudaEventDisableTiming), "ranks"));
    return cab_cuda_check(cudaEventCreateWithFlags(&r->done, cudaEventDisableTiming), "ranks");
}

cab_status cab_cuda_join(cab_backend *backend, cab_communicator *communicator)
{
    cab_cuda *cuda = cab_cuda_of(backend);
    ranks *r = NULL;
    CAB_TRY(CAB_NEW(&r, 1, "ranks"));
    cuda->library[CAB_CUDA_RANKS].state = r;
    cuda->library[CAB_CUDA_RANKS].free = leave;
    CAB_TRY(meet(communicator, r));
    backend->communicator = communicator;
    return CAB_OK;
}

cab_status cab_cuda_ranks_check(const cab_backend *backend)
{
    ncclResult_t found = ncclSuccess;
    CAB_TRY(check(ncclCommGetAsyncError(ranks_of(backend)->comm, &found), "the other ranks"));
    return check(found, "the other ranks");
}

const char *cab_cuda_ranks_describe(char *buffer, size_t size)
{
    int version = 0;
    (void)ncclGetVersion(&version);
    snprintf(buffer, size, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return buffer;
}

cab_status cab_reduce_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_reduce_attributes *a = node->attributes;
    const cudaStream_t main = cab_cuda_of(backend)->stream;
    const ranks *r = ranks_of(backend);
    float *data = a->bucket.data;
    const size_t n = a->bucket.count, piece = n / (size_t)cab_communicator_size(backend->communicator);
    CAB_TRY(cab_cuda_check(cudaEventRecord(r->ready, main), "reduce"));
    CAB_TRY(cab_cuda_check(cudaStreamWaitEvent(r->stream, r->ready, 0), "reduce"));
    if (a->scatter)
        CAB_TRY(check(ncclReduceScatter(data, data + (size_t)cab_communicator_rank(backend->communicator) * piece,
                                        piece, ncclFloat, ncclSum, r->comm, r->stream),
                      "reduce"));
    else
        CAB_TRY(check(ncclAllReduce(data, data, n, ncclFloat, ncclSum, r->comm, r->stream), "reduce"));
    if (!a->last)
        return CAB_OK;
    CAB_TRY(cab_cuda_check(cudaEventRecord(r->done, r->stream), "reduce"));
    return cab_cuda_check(cudaStreamWaitEvent(main, r->done, 0), "reduce");
}

cab_status cab_gather_cuda(const cab_node *node, cab_backend *backend)
{
    return check(ncclAllGather(node->in[0]->data, node->out[0]->data, (size_t)cab_elements(node->in[0]), ncclFloat,
                               ranks_of(backend)->comm, cab_cuda_of(backend)->stream),
                 "gather");
}

static cab_status collect_bucket(const cab_backend *backend, const cab_bucket *bucket)
{
    const size_t piece = bucket->count / (size_t)cab_communicator_size(backend->communicator);
    const float *own = bucket->data + (size_t)cab_communicator_rank(backend->communicator) * piece;
    return check(
        ncclAllGather(own, bucket->data, piece, ncclFloat, ranks_of(backend)->comm, cab_cuda_of(backend)->stream),
        "collect");
}

cab_status cab_collect_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_collect_attributes *a = node->attributes;
    cab_status status = CAB_OK;
    CAB_TRY(check(ncclGroupStart(), "collect"));
    for (int s = 0; s < a->n; s++)
        for (size_t b = 0; status == CAB_OK && b < cab_params_buckets(a->stores[s]); b++) {
            const cab_bucket bucket = cab_params_bucket(a->stores[s], b);
            status = collect_bucket(backend, &bucket);
        }
    const cab_status ended = check(ncclGroupEnd(), "collect");
    return status != CAB_OK ? status : ended;
}
#else
cab_status cab_cuda_join(cab_backend *backend, cab_communicator *communicator)
{
    if (cab_communicator_size(communicator) > 1)
        return cab_fail(
            CAB_EUNSUPPORTED,
            "this is one of %d ranks, and this build has no NCCL for the GPUs of several; build where nccl.h and "
            "libnccl.so.2 are found",
            cab_communicator_size(communicator));
    backend->communicator = communicator;
    return CAB_OK;
}

cab_status cab_cuda_ranks_check(const cab_backend *backend)
{
    (void)backend;
    return CAB_OK;
}

const char *cab_cuda_ranks_describe(char *buffer, size_t size)
{
    snprintf(buffer, size, "no NCCL");
    return buffer;
}

/* One rank has all sums and pieces. */
cab_status cab_reduce_cuda(const cab_node *node, cab_backend *backend)
{
    (void)node;
    (void)backend;
    return CAB_OK;
}

cab_status cab_gather_cuda(const cab_node *node, cab_backend *backend)
{
    return backend->copy(backend, node->out[0]->data, node->in[0]->data, cab_tensor_bytes(node->in[0]));
}

cab_status cab_collect_cuda(const cab_node *node, cab_backend *backend)
{
    return cab_reduce_cuda(node, backend);
}
#endif
