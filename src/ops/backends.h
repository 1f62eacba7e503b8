/* backends.h - what a list can run on: the processor, and whatever else this build has kernels for. */
#ifndef CAB_OPS_BACKENDS_H
#define CAB_OPS_BACKENDS_H

#include "tensor/backend.h"

/* `name` is "cpu", or one of the others that backends.c lists, alone or with a number as in "cuda:1". CAB_EBACKEND says why one cannot be
 * had. */
cab_status cab_backend_open(const char *name, cab_backend **backend);
/* The same for one of several ranks: "cuda" is then the GPU of this rank's number on its host, or the only one that it
 * sees; a number is refused. The backend has joined the communicator. NULL: cab_backend_open(). */
cab_status cab_backend_open_for(const char *name, cab_communicator *communicator, cab_backend **backend);
/* NULL is accepted. */
void cab_backend_close(cab_backend *backend);
/* What this build can run on besides the processor, and what this machine has of it: one line. Returns `buffer`. */
const char *cab_accelerators(char *buffer, size_t size);

#endif
