#include "tensor/backend.h"

#include "base/memory.h"

cab_status cab_host_allocate(cab_backend *backend, size_t bytes, const char *what, void **out)
{
    if (backend != NULL && backend->host_allocate != NULL)
        return backend->host_allocate(backend, bytes, what, out);
    return cab_alloc(out, bytes, 1, what);
}

void cab_host_release(cab_backend *backend, void *block)
{
    if (backend != NULL && backend->host_release != NULL)
        backend->host_release(backend, block);
    else
        cab_free(block);
}
