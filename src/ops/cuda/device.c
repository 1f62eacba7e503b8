/* device.c - one NVIDIA GPU as a backend: plain device memory, one stream, pinned staging for copies, captured graphs.
 *
 * Uploads go through a ring of pinned buffers: the caller's memory is free on return, the copy itself runs in the stream,
 * behind whatever the GPU still computes. A buffer takes uploads until it is full, so that the small ones of several steps wait for none
 * before them. Uploads ahead have a ring and a stream of their own, so that they run beside it, and what is lent needs no ring;
 * two events keep one from overwriting what has not been taken, and the other from taking what has not arrived. A download
 * waits for the stream, one behind the work for its event alone; that is also when a fault that a kernel raised is found. */
#include "ops/cuda/device.h"

#include "base/log.h"
#include "base/memory.h"
#include "ops/cuda/collective.h"
#include "ops/cuda/device_kernels.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/open.h"

#include <cublasLt.h>
#include <cudnn_backend.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4, SLOT_BYTES = 4 << 20, ALIGNED = 256, MARKS = 64 };

/* Pinned buffers on their way to the device, in one stream. */
typedef struct ring {
    cudaStream_t stream;
    char *staging;             /* SLOTS * SLOT_BYTES */
    cudaEvent_t copied[SLOTS]; /* the last copy from each */
    int slot;
    size_t used; /* bytes of this slot */
} ring;

typedef struct context {
    cab_cuda cuda; /* first: cab_cuda_of() relies on it */
    char name[16];
    cab_cuda_fault *fault; /* host address of cuda.fault */
    ring uploads;          /* in the stream that computes */
    ring ahead;
    cudaEvent_t sent, taken;    /* the last upload ahead, and the last one that was moved on */
    cudaEvent_t reached[MARKS]; /* the last so many marks, each at its number modulo MARKS */
    uint64_t marks;
} context;

cab_cuda *cab_cuda_of(const cab_backend *backend)
{
    return backend->context;
}

cab_status cab_cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return CAB_OK;
    return cab_fail(error == cudaErrorMemoryAllocation ? CAB_ENOMEM : CAB_EBACKEND, "%s: CUDA says \"%s\"", what,
                    cudaGetErrorString(error));
}

cab_status cab_cuda_launched(const char *kernel)
{
    return cab_cuda_check(cudaGetLastError(), kernel);
}

cab_status cab_cuda_shared(const void *kernel, size_t bytes, const char *name)
{
    return cab_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), name);
}

static double cuda_available(cab_backend *backend)
{
    size_t left = 0, total = 0;
    (void)backend;
    return cudaMemGetInfo(&left, &total) == cudaSuccess ? (double)left : 0;
}

static cab_status cuda_allocate(cab_backend *backend, size_t bytes, const char *what, void **out)
{
    const context *c = backend->context;
    *out = NULL;
    cudaError_t error = cudaMalloc(out, bytes > 0 ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
        char need[CAB_FORMAT_MAX], have[CAB_FORMAT_MAX];
        (void)cudaGetLastError(); /* it would be found by the next check */
        return cab_fail(CAB_ENOMEM, "%s needs %s on %s, which has %s left; use a smaller batch, recompute or bf16",
                        what, cab_format_bytes((double)bytes, need), backend->name,
                        cab_format_bytes(cuda_available(backend), have));
    }
    CAB_TRY(cab_cuda_check(error, what));
    return cab_cuda_check(cudaMemsetAsync(*out, 0, bytes, c->cuda.stream), what);
}

static void cuda_release(cab_backend *backend, void *block)
{
    (void)backend;
    (void)cudaFree(block); /* waits for the GPU */
}

/* Pinned memory for one copy of at most SLOT_BYTES: what is left of the slot, or the next slot once its copies have run. */
static cab_status reserve(ring *r, size_t bytes, char **pinned)
{
    if (bytes > SLOT_BYTES - r->used) {
        r->slot = (r->slot + 1) % SLOTS;
        r->used = 0;
        CAB_TRY(cab_cuda_check(cudaEventSynchronize(r->copied[r->slot]), "upload"));
    }
    *pinned = r->staging + (size_t)r->slot * SLOT_BYTES + r->used;
    r->used += (bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
    return CAB_OK;
}

static cab_status send(ring *r, void *to, const void *from, size_t bytes)
{
    for (size_t done = 0; done < bytes; done += SLOT_BYTES) {
        const size_t part = bytes - done < SLOT_BYTES ? bytes - done : SLOT_BYTES;
        char *pinned = NULL;
        CAB_TRY(reserve(r, part, &pinned));
        memcpy(pinned, (const char *)from + done, part);
        CAB_TRY(cab_cuda_check(cudaMemcpyAsync((char *)to + done, pinned, part, cudaMemcpyHostToDevice, r->stream),
                               "upload"));
        CAB_TRY(cab_cuda_check(cudaEventRecord(r->copied[r->slot], r->stream), "upload"));
    }
    return CAB_OK;
}

static cab_status cuda_upload(cab_backend *backend, void *to, const void *from, size_t bytes)
{
    context *c = backend->context;
    return send(&c->uploads, to, from, bytes);
}

static cab_status cuda_upload_ahead(cab_backend *backend, void *to, const void *from, size_t bytes)
{
    context *c = backend->context;
    CAB_TRY(cab_cuda_check(cudaStreamWaitEvent(c->ahead.stream, c->taken, 0), "upload"));
    CAB_TRY(send(&c->ahead, to, from, bytes));
    return cab_cuda_check(cudaEventRecord(c->sent, c->ahead.stream), "upload");
}

static cab_status cuda_upload_lent(cab_backend *backend, void *to, const void *from, size_t bytes)
{
    context *c = backend->context;
    cudaStream_t stream = c->ahead.stream;
    CAB_TRY(cab_cuda_check(cudaStreamWaitEvent(stream, c->taken, 0), "upload"));
    CAB_TRY(cab_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "upload"));
    return cab_cuda_check(cudaEventRecord(c->sent, stream), "upload");
}

static cab_status cuda_sent(cab_backend *backend)
{
    const context *c = backend->context;
    return cab_cuda_check(cudaEventSynchronize(c->sent), "upload");
}

static cab_status cuda_host_allocate(cab_backend *backend, size_t bytes, const char *what, void **out)
{
    *out = NULL;
    cudaError_t error = cudaHostAlloc(out, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
        char need[CAB_FORMAT_MAX];
        (void)cudaGetLastError(); /* it would be found by the next check */
        return cab_fail(CAB_ENOMEM, "%s need %s of memory that %s can copy by itself", what,
                        cab_format_bytes((double)bytes, need), backend->name);
    }
    CAB_TRY(cab_cuda_check(error, what));
    memset(*out, 0, bytes);
    return CAB_OK;
}

static void cuda_host_release(cab_backend *backend, void *block)
{
    context *c = backend->context;
    (void)cudaStreamSynchronize(c->ahead.stream); /* it may still be read */
    (void)cudaFreeHost(block);
}

static cab_status cuda_take(cab_backend *backend, void *to, const void *from, size_t bytes)
{
    context *c = backend->context;
    CAB_TRY(cab_cuda_check(cudaStreamWaitEvent(c->cuda.stream, c->sent, 0), "upload"));
    CAB_TRY(cab_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, c->cuda.stream), "upload"));
    return cab_cuda_check(cudaEventRecord(c->taken, c->cuda.stream), "upload");
}

static cab_status check_fault(context *c)
{
    const cab_cuda_fault fault = *(volatile cab_cuda_fault *)c->fault;
    if (!fault.raised)
        return CAB_OK;
    memset(c->fault, 0, sizeof *c->fault);
    switch (fault.which) {
    case CAB_CUDA_FAULT_ID:
        return cab_fail(CAB_EARG, "embedding: a token has id %lld, expected 0 to %lld", fault.value, fault.limit - 1);
    case CAB_CUDA_FAULT_POSITION:
        return cab_fail(CAB_EARG, "position %lld, expected 0 to %lld", fault.value, fault.limit - 1);
    case CAB_CUDA_FAULT_STEP:
        return cab_fail(CAB_EARG, "adamw: step is %lld, expected %lld for the first update", fault.value, fault.limit);
    case CAB_CUDA_FAULT_LABEL:
        return cab_fail(CAB_EARG, "head_loss: label %lld, expected -1 to %lld", fault.value, fault.limit - 1);
    default:
        return cab_fail(CAB_EBACKEND, "a kernel raised fault %d (%lld, %lld)", fault.which, fault.value, fault.limit);
    }
}

/* Of several ranks the others' GPUs may be waited for, and one of them may never come. mark NULL: for all work. */
static cab_status wait_for_ranks(cab_backend *backend, cudaEvent_t mark)
{
    const context *c = backend->context;
    const double begun = cab_seconds(), limit = cab_communicator_patience(backend->communicator);
    for (;;) {
        const cudaError_t state = mark != NULL ? cudaEventQuery(mark) : cudaStreamQuery(c->cuda.stream);
        if (state != cudaErrorNotReady)
            return cab_cuda_check(state, "waiting for the GPU");
        CAB_TRY(cab_cuda_ranks_check(backend));
        if (limit > 0 && cab_seconds() - begun > limit)
            return cab_fail(CAB_EBACKEND,
                            "%s has not ended its work for %.0f s (train.timeout); it may wait for another rank's",
                            backend->name, limit);
        sched_yield();
    }
}

static cab_status cuda_wait(cab_backend *backend)
{
    context *c = backend->context;
    if (cab_communicator_size(backend->communicator) > 1)
        CAB_TRY(wait_for_ranks(backend, NULL));
    else
        CAB_TRY(cab_cuda_check(cudaStreamSynchronize(c->cuda.stream), "waiting for the GPU"));
    return check_fault(c);
}

static cab_status cuda_download(cab_backend *backend, void *to, const void *from, size_t bytes)
{
    context *c = backend->context;
    CAB_TRY(cab_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, c->cuda.stream), "download"));
    return cuda_wait(backend);
}

static cab_status cuda_download_behind(cab_backend *backend, void *to, const void *from, size_t bytes, uint64_t *mark)
{
    context *c = backend->context;
    CAB_TRY(cab_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, c->cuda.stream), "download"));
    *mark = c->marks++;
    return cab_cuda_check(cudaEventRecord(c->reached[*mark % MARKS], c->cuda.stream), "download");
}

/* Of a mark that is older than the last MARKS, for the one that has its place. */
static cab_status cuda_reach(cab_backend *backend, uint64_t mark)
{
    context *c = backend->context;
    cudaEvent_t event = c->reached[mark % MARKS];
    if (cab_communicator_size(backend->communicator) > 1)
        CAB_TRY(wait_for_ranks(backend, event));
    else
        CAB_TRY(cab_cuda_check(cudaEventSynchronize(event), "waiting for the GPU"));
    return check_fault(c);
}

static cab_status cuda_copy(cab_backend *backend, void *to, const void *from, size_t bytes)
{
    const context *c = backend->context;
    return cab_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, c->cuda.stream), "copy");
}

static cab_status cuda_narrow(cab_backend *backend, void *to, const void *from, size_t n)
{
    const context *c = backend->context;
    return cab_cuda_check(cab_cuda_narrow(to, from, n, c->cuda.stream), "bf16 copies");
}

static cab_status cuda_fill(cab_backend *backend, void *to, int byte, size_t pitch, size_t width, size_t rows)
{
    const context *c = backend->context;
    if (width == 0 || rows == 0)
        return CAB_OK;
    if (rows == 1 || pitch == width)
        return cab_cuda_check(cudaMemsetAsync(to, byte, width * rows, c->cuda.stream), "fill");
    return cab_cuda_check(cudaMemset2DAsync(to, pitch, byte, width, rows, c->cuda.stream), "fill");
}

static cab_status cuda_capture_begin(cab_backend *backend)
{
    const context *c = backend->context;
    return cab_cuda_check(cudaStreamBeginCapture(c->cuda.stream, cudaStreamCaptureModeThreadLocal), "capture");
}

static cab_status cuda_capture_end(cab_backend *backend, void **captured)
{
    const context *c = backend->context;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t executable = NULL;
    CAB_TRY(cab_cuda_check(cudaStreamEndCapture(c->cuda.stream, &graph), "capture"));
    cab_status status = cab_cuda_check(cudaGraphInstantiate(&executable, graph, 0), "capture");
    (void)cudaGraphDestroy(graph);
    *captured = executable;
    return status;
}

static cab_status cuda_replay(cab_backend *backend, void *captured)
{
    const context *c = backend->context;
    return cab_cuda_check(cudaGraphLaunch(captured, c->cuda.stream), "replay");
}

static void cuda_capture_free(cab_backend *backend, void *captured)
{
    (void)backend;
    if (captured != NULL)
        (void)cudaGraphExecDestroy(captured);
}

/* "cuda" or "cuda:N" */
static cab_status choose_device(const char *name, int *device)
{
    int count = 0;
    *device = 0;
    if (name[4] == ':') {
        char *end = NULL;
        long wanted = strtol(name + 5, &end, 10);
        if (end == name + 5 || *end != '\0' || wanted < 0 || wanted > 4095)
            return cab_fail(CAB_EARG, "device \"%s\": expected cpu, cuda or cuda:N", name);
        *device = (int)wanted;
    }
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorInsufficientDriver) {
        int driver = 0, runtime = 0;
        (void)cudaDriverGetVersion(&driver);
        (void)cudaRuntimeGetVersion(&runtime);
        if (driver == 0)
            return cab_fail(CAB_EBACKEND, "device \"%s\": no NVIDIA driver was found", name);
        return cab_fail(CAB_EBACKEND, "device \"%s\": the driver speaks CUDA %d.%d, this build needs %d.%d", name,
                        driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
        return cab_fail(CAB_EBACKEND, "device \"%s\": this machine has no NVIDIA GPU", name);
    CAB_TRY(cab_cuda_check(error, name));
    if (*device >= count)
        return cab_fail(CAB_EBACKEND, "device \"%s\": this machine has %d GPU%s, numbered from 0", name, count,
                        count == 1 ? "" : "s");
    return CAB_OK;
}

static cab_status read_properties(cab_cuda *cuda, const char *name)
{
    const struct {
        enum cudaDeviceAttr attribute;
        int *to;
    } wanted[] = {{cudaDevAttrComputeCapabilityMajor, &cuda->major},
                  {cudaDevAttrComputeCapabilityMinor, &cuda->minor},
                  {cudaDevAttrMultiProcessorCount, &cuda->multiprocessors}};
    int shared = 0, l2 = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        CAB_TRY(cab_cuda_check(cudaDeviceGetAttribute(wanted[i].to, wanted[i].attribute, cuda->device), name));
    CAB_TRY(
        cab_cuda_check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda->device), name));
    CAB_TRY(cab_cuda_check(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, cuda->device), name));
    cuda->shared_limit = (size_t)shared;
    cuda->l2 = (size_t)l2;
    cudaError_t error = cab_cuda_probe();
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction)
        return cab_fail(CAB_EBACKEND, "device \"%s\": its compute capability is %d.%d, this build has kernels for %s",
                        name, cuda->major, cuda->minor, CAB_CUDA_ARCHITECTURES);
    return cab_cuda_check(error, name);
}

static cab_status open_ring(const char *name, ring *r)
{
    CAB_TRY(
        cab_cuda_check(cudaHostAlloc((void **)&r->staging, (size_t)SLOTS * SLOT_BYTES, cudaHostAllocDefault), name));
    for (int i = 0; i < SLOTS; i++)
        CAB_TRY(cab_cuda_check(cudaEventCreateWithFlags(&r->copied[i], cudaEventDisableTiming), name));
    return CAB_OK;
}

static void close_ring(ring *r)
{
    for (int i = 0; i < SLOTS; i++)
        if (r->copied[i] != NULL)
            (void)cudaEventDestroy(r->copied[i]);
    (void)cudaFreeHost(r->staging);
}

static cab_status open_context(const char *name, context *c)
{
    CAB_TRY(choose_device(name, &c->cuda.device));
    snprintf(c->name, sizeof c->name, "%s", name);
    CAB_TRY(cab_cuda_check(cudaSetDevice(c->cuda.device), name));
    CAB_TRY(read_properties(&c->cuda, name));
    const char *own = getenv("CAB_CUDA_OWN");
    c->cuda.own = own != NULL && strcmp(own, "1") == 0;
    CAB_TRY(cab_cuda_check(cudaStreamCreateWithFlags(&c->cuda.stream, cudaStreamNonBlocking), name));
    c->uploads.stream = c->cuda.stream;
    CAB_TRY(cab_cuda_check(cudaStreamCreateWithFlags(&c->ahead.stream, cudaStreamNonBlocking), name));
    CAB_TRY(open_ring(name, &c->uploads));
    CAB_TRY(open_ring(name, &c->ahead));
    CAB_TRY(cab_cuda_check(cudaEventCreateWithFlags(&c->sent, cudaEventDisableTiming), name));
    CAB_TRY(cab_cuda_check(cudaEventCreateWithFlags(&c->taken, cudaEventDisableTiming), name));
    for (int i = 0; i < MARKS; i++)
        CAB_TRY(cab_cuda_check(cudaEventCreateWithFlags(&c->reached[i], cudaEventDisableTiming), name));
    CAB_TRY(cab_cuda_check(cudaHostAlloc((void **)&c->fault, sizeof *c->fault, cudaHostAllocMapped), name));
    memset(c->fault, 0, sizeof *c->fault);
    CAB_TRY(cab_cuda_check(cudaHostGetDevicePointer((void **)&c->cuda.fault, c->fault, 0), name));
    CAB_TRY(cab_cuda_check(cudaMalloc((void **)&c->cuda.ticket, sizeof *c->cuda.ticket), name));
    CAB_TRY(cab_cuda_check(cudaMemsetAsync(c->cuda.ticket, 0, sizeof *c->cuda.ticket, c->cuda.stream), name));
    return CAB_OK;
}

static void close_context(context *c)
{
    if (c->cuda.stream != NULL)
        (void)cudaStreamSynchronize(c->cuda.stream);
    if (c->ahead.stream != NULL)
        (void)cudaStreamSynchronize(c->ahead.stream);
    for (int i = 0; i < CAB_CUDA_LIBRARIES; i++)
        if (c->cuda.library[i].free != NULL)
            c->cuda.library[i].free(c->cuda.library[i].state);
    if (c->sent != NULL)
        (void)cudaEventDestroy(c->sent);
    if (c->taken != NULL)
        (void)cudaEventDestroy(c->taken);
    for (int i = 0; i < MARKS; i++)
        if (c->reached[i] != NULL)
            (void)cudaEventDestroy(c->reached[i]);
    (void)cudaFreeHost(c->fault);
    (void)cudaFree(c->cuda.ticket);
    close_ring(&c->uploads);
    close_ring(&c->ahead);
    if (c->ahead.stream != NULL)
        (void)cudaStreamDestroy(c->ahead.stream);
    if (c->cuda.stream != NULL)
        (void)cudaStreamDestroy(c->cuda.stream);
    cab_free(c);
}

static void cuda_close(cab_backend *backend)
{
    close_context(backend->context);
    cab_free(backend);
}

cab_status cab_cuda_open(const char *name, cab_backend **out)
{
    cab_backend *backend = NULL;
    context *c = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&backend, 1, "backend"));
    CAB_GOTO(CAB_NEW(&c, 1, "backend"));
    CAB_GOTO(open_context(name, c));
    *backend = (cab_backend){.name = c->name,
                             .kernels = &cab_cuda_kernels,
                             .threads = 1,
                             .allocate = cuda_allocate,
                             .release = cuda_release,
                             .upload = cuda_upload,
                             .download = cuda_download,
                             .download_behind = cuda_download_behind,
                             .reach = cuda_reach,
                             .upload_ahead = cuda_upload_ahead,
                             .upload_lent = cuda_upload_lent,
                             .sent = cuda_sent,
                             .take = cuda_take,
                             .host_allocate = cuda_host_allocate,
                             .host_release = cuda_host_release,
                             .copy = cuda_copy,
                             .narrow = cuda_narrow,
                             .fill = cuda_fill,
                             .available = cuda_available,
                             .join = cab_cuda_join,
                             .wait = cuda_wait,
                             .capture_begin = cuda_capture_begin,
                             .capture_end = cuda_capture_end,
                             .replay = cuda_replay,
                             .capture_free = cuda_capture_free,
                             .close = cuda_close,
                             .context = c};
    *out = backend;
    return CAB_OK;
done:
    if (c != NULL)
        close_context(c);
    cab_free(backend);
    return status;
}

int cab_cuda_count(void)
{
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

void cab_cuda_describe(char *buffer, size_t size)
{
    int runtime = 0, count = 0;
    const size_t cudnn = cudnnGetVersion(), blas = cublasLtGetVersion();
    struct cudaDeviceProp properties;
    char nccl[32];
    (void)cudaRuntimeGetVersion(&runtime);
    int used =
        snprintf(buffer, size, "CUDA %d.%d for %s, cuBLASLt %zu.%zu.%zu, cuDNN %zu.%zu.%zu, %s; ", runtime / 1000,
                 runtime % 1000 / 10, CAB_CUDA_ARCHITECTURES, blas / 10000, blas / 100 % 100, blas % 100, cudnn / 10000,
                 cudnn / 100 % 100, cudnn % 100, cab_cuda_ranks_describe(nccl, sizeof nccl));
    if (used < 0 || (size_t)used >= size)
        return;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0 ||
        cudaGetDeviceProperties(&properties, 0) != cudaSuccess)
        snprintf(buffer + used, size - (size_t)used, "no GPU here");
    else
        snprintf(buffer + used, size - (size_t)used, "%d x %s, %.0f GiB", count, properties.name,
                 (double)properties.totalGlobalMem / (1 << 30));
}
