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
    int (*count)(void);                          /* how many there are; NULL: one that all ranks use */
    void (*describe)(char *buffer, size_t size); /* NULL: the processor */
} backends[] = {
    {.name = "cpu", .open = cab_cpu_open},
#ifdef CAB_WITH_CUDA
    {.name = "cuda", .numbered = true, .open = cab_cuda_open, .count = cab_cuda_count, .describe = cab_cuda_describe},
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

/* The name with the number of this rank's device, in out. */
static cab_status name_for(const char *name, const cab_communicator *communicator, char *out, size_t size)
{
    const size_t length = strcspn(name, ":");
    const int ranks = cab_communicator_size(communicator), local = cab_communicator_local_rank(communicator);
    snprintf(out, size, "%s", name);
    for (int i = 0; ranks > 1 && i < BACKENDS; i++) {
        if (strlen(backends[i].name) != length || strncmp(name, backends[i].name, length) != 0 || !backends[i].numbered)
            continue;
        const int count = backends[i].count();
        if (name[length] != '\0')
            return cab_fail(CAB_EARG, "device \"%s\" is one for %d ranks; device \"%.*s\" gives each its own", name,
                            ranks, (int)length, name);
        if (count > 1 && local >= count)
            return cab_fail(CAB_EBACKEND, "device \"%s\": %d ranks or more are on a machine with %d", name, local + 1,
                            count);
        snprintf(out, size, "%s:%d", name, count > 1 ? local : 0);
    }
    return CAB_OK;
}

cab_status cab_backend_open_for(const char *name, cab_communicator *communicator, cab_backend **backend)
{
    char own[64];
    if (communicator == NULL)
        return cab_backend_open(name, backend);
    CAB_TRY(name_for(name, communicator, own, sizeof own));
    CAB_TRY(cab_backend_open(own, backend));
    return (*backend)->join(*backend, communicator);
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
