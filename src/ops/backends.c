/* backends.c - the list of backends. A backend is a folder beside this file, with its device, its kernels and their table; this is all
 * that the rest of the house knows of it. */
#include "ops/backends.h"

#include "ops/cpu/device.h"
#ifdef CAB_WITH_CUDA
#include "ops/cuda/open.h"
#endif

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    bool numbered; /* "name:1" is one, too */
    cab_status (*open)(const char *name, cab_backend **backend);
    void (*describe)(char *buffer, size_t size); /* NULL: the processor */
} backends[] = {
    {.name = "cpu", .open = cab_cpu_open},
#ifdef CAB_WITH_CUDA
    {.name = "cuda", .numbered = true, .open = cab_cuda_open, .describe = cab_cuda_describe},
#endif
};
enum { BACKENDS = sizeof backends / sizeof *backends };

cab_status cab_backend_open(const char *name, cab_backend **backend)
{
    const size_t length = strcspn(name, ":");
    *backend = NULL;
    for (int i = 0; i < BACKENDS; i++)
        if (strlen(backends[i].name) == length && strncmp(name, backends[i].name, length) == 0 &&
            (name[length] == '\0' || backends[i].numbered))
            return backends[i].open(name, backend);
    if (strncmp(name, "cuda", length) == 0 && length == 4)
        return cab_fail(CAB_EBACKEND, "device \"%s\": this build has no CUDA", name);
    return cab_fail(CAB_EARG, "device \"%s\": expected cpu, cuda or cuda:N", name);
}

const char *cab_accelerators(char *buffer, size_t size)
{
    size_t used = 0;
    snprintf(buffer, size, "none in this build");
    for (int i = 0; i < BACKENDS; i++) {
        if (backends[i].describe == NULL)
            continue;
        if (used > 0 && used + 2 < size)
            used += (size_t)snprintf(buffer + used, size - used, "; ");
        backends[i].describe(buffer + used, size - used);
        used = strlen(buffer);
    }
    return buffer;
}

void cab_backend_close(cab_backend *backend)
{
    if (backend)
        backend->close(backend);
}
