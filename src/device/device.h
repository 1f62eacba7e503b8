/* device.h - backends: the CPU (cpu.c); CUDA when built in. */
#ifndef CAB_DEVICE_DEVICE_H
#define CAB_DEVICE_DEVICE_H

#include "tensor/backend.h"

/* `name` is "cpu" or "cuda" ("cuda:1"). CAB_EBACKEND says why one cannot be had. */
cab_status cab_backend_open(const char *name, cab_backend **backend);
void cab_backend_close(cab_backend *backend);
/* What this build can run on besides the processor, and what this machine has of it: one line. Returns `buffer`. */
const char *cab_accelerators(char *buffer, size_t size);

#endif
