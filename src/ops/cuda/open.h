/* open.h - the GPU as ops/backends.c sees it. */
#ifndef CAB_OPS_CUDA_OPEN_H
#define CAB_OPS_CUDA_OPEN_H

#include "tensor/backend.h"

/* "cuda" or "cuda:N". CAB_EBACKEND where there is no such GPU. */
/* GPUs that this process sees. */
int cab_cuda_count(void);
cab_status cab_cuda_open(const char *name, cab_backend **backend);
/* Architectures, library versions, the GPUs found. */
void cab_cuda_describe(char *buffer, size_t size);

#endif
