/* device.c - a backend by its name. */
#include "device/device.h"

#include "device/open.h"

#include <stdio.h>
#include <string.h>

cab_status cab_backend_open(const char *name, cab_backend **backend)
{
    *backend = NULL;
    if (strcmp(name, "cpu") == 0)
        return cab_cpu_open(backend);
    if (strcmp(name, "cuda") == 0 || strncmp(name, "cuda:", 5) == 0)
#ifdef CAB_WITH_CUDA
        return cab_cuda_open(name, backend);
#else
        return cab_fail(CAB_EBACKEND, "device \"%s\": this build has no CUDA", name);
#endif
    return cab_fail(CAB_EARG, "device \"%s\": expected cpu, cuda or cuda:N", name);
}

const char *cab_accelerators(char *buffer, size_t size)
{
#ifdef CAB_WITH_CUDA
    cab_cuda_describe(buffer, size);
#else
    snprintf(buffer, size, "none in this build");
#endif
    return buffer;
}

void cab_backend_close(cab_backend *backend)
{
    if (backend)
        backend->close(backend);
}
