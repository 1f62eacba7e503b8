/* device.c - the CPU as a backend: plain memory, copies, and what the processor can do. */
#include "ops/cpu/device.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "ops/cpu/kernels.h"
#include "tensor/dtype.h"

#include <stdlib.h>
#include <string.h>

typedef struct cpu_context {
    cab_isa isa;
    cab_library library;
} cpu_context;

static cab_status cpu_allocate(cab_backend *backend, size_t bytes, const char *what, void **out)
{
    (void)backend;
    return cab_alloc(out, bytes, 1, what);
}

static void cpu_release(cab_backend *backend, void *block)
{
    (void)backend;
    cab_free(block);
}

/* All directions: host memory is device memory. */
static cab_status cpu_copy(cab_backend *backend, void *to, const void *from, size_t bytes)
{
    (void)backend;
    if (bytes)
        memcpy(to, from, bytes);
    return CAB_OK;
}

static cab_status cpu_narrow(cab_backend *backend, void *to, const void *from, size_t n)
{
    (void)backend;
    cab_convert(to, CAB_BF16, from, CAB_F32, n);
    return CAB_OK;
}

static cab_status cpu_fill(cab_backend *backend, void *to, int byte, size_t pitch, size_t width, size_t rows)
{
    (void)backend;
    if (pitch == width) {
        width *= rows;
        rows = width > 0;
    }
    for (size_t row = 0; row < rows; row++)
        memset((char *)to + row * pitch, byte, width);
    return CAB_OK;
}

static double cpu_available(cab_backend *backend)
{
    (void)backend;
    return cab_available_memory();
}

static cab_status cpu_join(cab_backend *backend, cab_communicator *communicator)
{
    backend->communicator = communicator;
    return CAB_OK;
}

static cab_isa detect(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return CAB_ISA_V4;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        return CAB_ISA_V3;
#endif
    return CAB_ISA_V1;
}

static cab_status choose(cab_isa *isa)
{
    static const char *const names[CAB_ISAS] = {"v1", "v3", "v4"};
    *isa = detect();
    const char *wanted = getenv("CAB_CPU_ISA");
    if (!wanted || !*wanted)
        return CAB_OK;
    for (cab_isa i = CAB_ISA_V1; i < CAB_ISAS; i++) {
        if (strcmp(wanted, names[i]) != 0)
            continue;
        if (i > *isa)
            return cab_fail(CAB_EBACKEND, "CAB_CPU_ISA=%s: this processor has %s at most", wanted, names[*isa]);
        *isa = i;
        return CAB_OK;
    }
    return cab_fail(CAB_EARG, "CAB_CPU_ISA=%s: expected v1, v3 or v4", wanted);
}

cab_isa cab_cpu_isa(const cab_backend *backend)
{
    return ((const cpu_context *)backend->context)->isa;
}

static void cpu_close(cab_backend *backend)
{
    cab_library *library = backend->library;
    if (library->free)
        library->free(library->state);
    cab_free(backend->context);
    cab_free(backend);
}

cab_status cab_cpu_open(const char *name, cab_backend **out)
{
    (void)name;
    cab_backend *backend = NULL;
    cpu_context *context = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&backend, 1, "backend"));
    CAB_GOTO(CAB_NEW(&context, 1, "backend"));
    CAB_GOTO(choose(&context->isa));
    *backend = (cab_backend){.name = "cpu",
                             .kernels = &cab_cpu_kernels,
                             .host = true,
                             .threads = cab_thread_count(),
                             .join = cpu_join,
                             .allocate = cpu_allocate,
                             .release = cpu_release,
                             .upload = cpu_copy,
                             .download = cpu_copy,
                             .copy = cpu_copy,
                             .narrow = cpu_narrow,
                             .fill = cpu_fill,
                             .available = cpu_available,
                             .close = cpu_close,
                             .library = &context->library,
                             .context = context};
    *out = backend;
    return CAB_OK;
done:
    cab_free(context);
    cab_free(backend);
    return status;
}
