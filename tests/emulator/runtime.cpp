/* runtime.cpp - the part of the CUDA runtime that src/ops/cuda/device.c calls: memory is the processor's, a stream does things at once,
 * a graph is a list of what to do. The device is like an H200 with few multiprocessors. */
#include "emulator.h"

#include <cstdlib>
#include <vector>

typedef std::vector<std::function<void()>> work_list;

enum { MULTIPROCESSORS = 6, ALIGNMENT = 256, VERSION = 13000 };
static const size_t MEMORY = (size_t)8 << 30, SHARED = 227 << 10, L2 = (size_t)50 << 20;

/* EMULATOR_MAJOR=8: as if the GPU were one before Hopper, for kernels that have another in their place there. */
static int major_capability()
{
    const char *major = getenv("EMULATOR_MAJOR");
    return major != nullptr ? atoi(major) : 9;
}

static work_list *captured; /* NULL: nothing is captured */

void emulator_do(std::function<void()> work)
{
    if (captured != nullptr)
        captured->push_back(std::move(work));
    else
        work();
}

/* Memory begins as NaN. */
static cudaError_t allocate(void **p, size_t bytes)
{
    const size_t all = (bytes / ALIGNMENT + 1) * ALIGNMENT;
    *p = aligned_alloc(ALIGNMENT, all);
    if (*p == nullptr)
        return cudaErrorMemoryAllocation;
    memset(*p, 0xff, all);
    return cudaSuccess;
}

extern "C" {

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    return allocate(p, bytes);
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    return allocate(p, bytes);
}
cudaError_t cudaFree(void *p)
{
    free(p);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned)
{
    *device = host;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *all)
{
    *available = *all = MEMORY;
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t)
{
    emulator_do([=] { memcpy(to, from, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t)
{
    emulator_do([=] { memset(to, value, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t height, cudaStream_t)
{
    emulator_do([=] {
        for (size_t row = 0; row < height; row++)
            memset((char *)to + row * pitch, value, width);
    });
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    memset(p, 0, sizeof *p);
    strcpy(p->name, "an emulated GPU");
    p->major = major_capability();
    p->multiProcessorCount = MULTIPROCESSORS;
    p->sharedMemPerBlockOptin = SHARED;
    p->totalGlobalMem = MEMORY;
    p->l2CacheSize = (int)L2;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int)
{
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
        *value = major_capability();
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = MULTIPROCESSORS;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)SHARED;
        break;
    case cudaDevAttrL2CacheSize:
        *value = (int)L2;
        break;
    default:
        *value = 0;
    }
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version)
{
    *version = VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = VERSION;
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *)
{
    memset(attributes, 0, sizeof *attributes);
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int)
{
    return cudaSuccess;
}
const char *cudaGetErrorString(cudaError_t)
{
    return "an emulated error";
}
cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = nullptr;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = nullptr;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t)
{
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t)
{
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode)
{
    captured = new work_list;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph)
{
    *graph = (cudaGraph_t)captured;
    captured = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long)
{
    *executable = (cudaGraphExec_t) new work_list(*(const work_list *)graph);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete (work_list *)graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    delete (work_list *)executable;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t)
{
    for (const std::function<void()> &work : *(const work_list *)executable)
        work();
    return cudaSuccess;
}
}
