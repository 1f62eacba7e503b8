/* backend.h - what the graph asks of a device: memory, copies, and a table of kernels. Each backend's folder
 * (src/ops/cpu, src/ops/cuda) implements it, and src/ops/backends.c lists the backends. The graph knows nothing else of
 * devices.
 *
 * Functions return CAB_OK or a failure with its text: CAB_ENOMEM where memory is short, CAB_EBACKEND where the device
 * reports an error. Sizes are bytes unless a comment says otherwise. */
#ifndef CAB_TENSOR_BACKEND_H
#define CAB_TENSOR_BACKEND_H

#include "base/communicator.h"

#include <stdbool.h>

typedef struct cab_backend cab_backend;
typedef struct cab_kernel_table cab_kernel_table;
struct cab_backend {
    const char *name;
    const cab_kernel_table *kernels; /* what it computes with; kernel.h */
    bool host;   /* the processor itself: device memory is host memory, and a call returns when its work is done */
    int threads; /* OpenMP threads that kernels on the processor use */
    /* The ranks of this run, of which every one has such a backend; NULL: this process is alone. Set by join, which all
     * ranks call at the same time, once, before the first graph. */
    cab_communicator *communicator;
    cab_status (*join)(cab_backend *backend, cab_communicator *communicator);
    /* Zeroed device memory, 64-byte aligned (256 on a GPU); the caller hands it to release(). `what` names the memory
     * in the text of CAB_ENOMEM. */
    cab_status (*allocate)(cab_backend *backend, size_t bytes, const char *what, void **out);
    void (*release)(cab_backend *backend, void *block);
    /* Copies host to device, and device to host. The host's memory may be used again on return. Everything that is
     * asked for after an upload sees what it wrote. */
    cab_status (*upload)(cab_backend *backend, void *to, const void *from, size_t bytes);
    cab_status (*download)(cab_backend *backend, void *to, const void *from, size_t bytes);
    /* A download in two steps, while the device still works. download_behind copies to host_allocate()'s memory when all work asked for
     * so far has ended, and marks that point of the work; marks count up. reach waits on the host until the copy of that mark, and all
     * before it, has arrived. NULL on a backend whose calls return when their work is done. */
    cab_status (*download_behind)(cab_backend *backend, void *to, const void *from, size_t bytes, uint64_t *mark);
    cab_status (*reach)(cab_backend *backend, uint64_t mark);
    /* An upload in two steps, while the device still works. upload_ahead begins to copy from the host into `to`, device
     * memory that nothing but these two functions touches; the host's memory may be used again on return. take waits,
     * on the device, until that copy has arrived and all work asked for before has ended; then it copies within the
     * device, from there to the place of use. NULL on a backend whose calls return when their work is done. */
    cab_status (*upload_ahead)(cab_backend *backend, void *to, const void *from, size_t bytes);
    cab_status (*take)(cab_backend *backend, void *to, const void *from, size_t bytes);
    /* upload_lent does as upload_ahead does, but from host_allocate()'s memory, which it reads while it runs: nothing is copied on the
     * host. sent waits on the host until every upload ahead has read its memory. NULL where upload_ahead is. */
    cab_status (*upload_lent)(cab_backend *backend, void *to, const void *from, size_t bytes);
    cab_status (*sent)(cab_backend *backend);
    /* Host memory that the device can copy by itself, zeroed; host_release() frees it. NULL: any memory will do. */
    cab_status (*host_allocate)(cab_backend *backend, size_t bytes, const char *what, void **out);
    void (*host_release)(cab_backend *backend, void *block);
    /* Within the device: copy copies bytes; narrow rounds n fp32 numbers to bf16, to nearest even. */
    cab_status (*copy)(cab_backend *backend, void *to, const void *from, size_t bytes);
    cab_status (*narrow)(cab_backend *backend, void *to, const void *from, size_t n);
    /* Sets `rows` rows of `width` bytes to `byte`; a row begins `pitch` bytes behind the one before. */
    cab_status (*fill)(cab_backend *backend, void *to, int byte, size_t pitch, size_t width, size_t rows);
    /* Bytes that can still be allocated. */
    double (*available)(cab_backend *backend);
    /* For a device whose work runs later than it is asked for; NULL elsewhere. wait returns when all of it has run.
     * Between capture_begin and capture_end, kernels are recorded and do not run. replay then runs what was recorded,
     * as often as wanted; capture_free frees it. */
    cab_status (*wait)(cab_backend *backend);
    cab_status (*capture_begin)(cab_backend *backend);
    cab_status (*capture_end)(cab_backend *backend, void **captured);
    cab_status (*replay)(cab_backend *backend, void *captured);
    void (*capture_free)(cab_backend *backend, void *captured);
    /* Frees the backend and what it owns; all its memory must be released before. */
    void (*close)(cab_backend *backend);
    /* What kernels keep from call to call (caches of primitives, handles of libraries); freed with the backend. */
    void *library;
    /* The backend's own. */
    void *context;
};

/* Host memory for what a backend is to be lent; `backend` may be NULL. Zeroed, 64-byte aligned. */
cab_status cab_host_allocate(cab_backend *backend, size_t bytes, const char *what, void **out);
void cab_host_release(cab_backend *backend, void *block);

#endif
