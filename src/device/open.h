/* open.h - how each device opens; device.c picks by name. */
#ifndef CAB_DEVICE_OPEN_H
#define CAB_DEVICE_OPEN_H

#include "tensor/backend.h"

cab_status cab_cpu_open(cab_backend **backend);
/* "cuda" or "cuda:N"; only in builds with CAB_WITH_CUDA. */
cab_status cab_cuda_open(const char *name, cab_backend **backend);
/* Likewise: architectures, library versions, the GPUs found. */
void cab_cuda_describe(char *buffer, size_t size);

#endif
