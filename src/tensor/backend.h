/* backend.h - what the graph asks of a device. src/device implements it; the graph knows nothing else of devices. */
#ifndef CAB_TENSOR_BACKEND_H
#define CAB_TENSOR_BACKEND_H

#include "base/error.h"

#include <stdbool.h>

typedef struct cab_backend cab_backend;
typedef struct cab_kernel_table cab_kernel_table;
struct cab_backend {
    const char *name;
    const cab_kernel_table *kernels; /* what it computes with; kernel.h */
    bool host;   /* the processor itself: its memory is the host's, and runs end before they return */
    int threads; /* of the processor, OpenMP threads that kernels use */
    /* Zeroed device memory, 64-byte aligned (256 on a GPU). `what` names it in the error. */
    cab_status (*allocate)(cab_backend *backend, size_t bytes, const char *what, void **out);
    void (*release)(cab_backend *backend, void *block);
    /* Host <-> device. The host's memory may be used again on return; what an upload wrote is seen by everything asked for
     * after it. */
    cab_status (*upload)(cab_backend *backend, void *to, const void *from, size_t bytes);
    cab_status (*download)(cab_backend *backend, void *to, const void *from, size_t bytes);
    /* An upload beside what runs, in two steps. upload_ahead begins to copy into `to`, device memory that only these two touch; the
     * host's memory may be used again on return. take waits for it, on the device, and moves it on to where it is used, behind
     * what was asked for before. NULL where runs end before they return: nothing could be beside them. */
    cab_status (*upload_ahead)(cab_backend *backend, void *to, const void *from, size_t bytes);
    cab_status (*take)(cab_backend *backend, void *to, const void *from, size_t bytes);
    /* Within the device. narrow rounds n fp32 to bf16, to nearest even. */
    cab_status (*copy)(cab_backend *backend, void *to, const void *from, size_t bytes);
    cab_status (*narrow)(cab_backend *backend, void *to, const void *from, size_t n);
    /* Sets `rows` runs of `width` bytes, `pitch` bytes apart. */
    cab_status (*fill)(cab_backend *backend, void *to, int byte, size_t pitch, size_t width, size_t rows);
    /* Bytes that can still be allocated. */
    double (*available)(cab_backend *backend);
    /* What runs later than it is asked for; NULL where nothing does. wait: until all of it has run. A list of nodes can
     * be recorded between capture_begin and capture_end, which run nothing, and replayed from then on. */
    cab_status (*wait)(cab_backend *backend);
    cab_status (*capture_begin)(cab_backend *backend);
    cab_status (*capture_end)(cab_backend *backend, void **captured);
    cab_status (*replay)(cab_backend *backend, void *captured);
    void (*capture_free)(cab_backend *backend, void *captured);
    void (*close)(cab_backend *backend);
    /* Kernels' own lasting things (primitive caches, library handles); freed with the backend. */
    void *library;
    void *context;
};

#endif
