// nccl.cpp - NCCL between one rank and nobody: what goes to all ranks is copied, in the stream, if it is elsewhere.
#include "nccl/nccl.h"

namespace {

ncclResult_t copy(const void *from, void *to, size_t count, cudaStream_t stream)
{
    if (from == to)
        return ncclSuccess;
    return cudaMemcpyAsync(to, from, count * sizeof(float), cudaMemcpyDeviceToDevice, stream) == cudaSuccess ? ncclSuccess
                                                                                                             : ncclInvalidUsage;
}

} // namespace

ncclResult_t ncclGetVersion(int *version)
{
    *version = 0;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    *id = ncclUniqueId();
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId, int)
{
    *comm = nullptr;
    return size == 1 ? ncclSuccess : ncclInvalidUsage;
}

ncclResult_t ncclCommAbort(ncclComm_t)
{
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t *result)
{
    *result = ncclSuccess;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t)
{
    return "invalid usage";
}

const char *ncclGetLastError(ncclComm_t)
{
    return "the emulated GPU is one";
}

ncclResult_t ncclGroupStart(void)
{
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t, ncclRedOp_t, ncclComm_t,
                           cudaStream_t stream)
{
    return copy(from, to, count, stream);
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t, ncclRedOp_t, ncclComm_t,
                               cudaStream_t stream)
{
    return copy(from, to, count, stream);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t, ncclComm_t, cudaStream_t stream)
{
    return copy(from, to, count, stream);
}
