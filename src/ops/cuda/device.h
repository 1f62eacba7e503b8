/* device.h - what CUDA kernels may ask of their backend. C and C++. */
#ifndef CAB_OPS_CUDA_DEVICE_H
#define CAB_OPS_CUDA_DEVICE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "tensor/backend.h"

#include <cuda_runtime_api.h>

/* What a kernel may report without stopping: read when results are next downloaded. */
typedef struct cab_cuda_fault {
    int raised;      /* 0: none */
    int which;       /* enum cab_cuda_fault_kind */
    long long value; /* what was found */
    long long limit; /* what it was held against */
} cab_cuda_fault;

typedef enum cab_cuda_fault_kind {
    CAB_CUDA_FAULT_NONE,
    CAB_CUDA_FAULT_ID,       /* a token id outside the table of `limit` rows */
    CAB_CUDA_FAULT_POSITION, /* a position outside a table or cache of `limit` rows */
    CAB_CUDA_FAULT_STEP,     /* the optimizer's step is below `limit` */
    CAB_CUDA_FAULT_LABEL     /* a label outside a vocabulary of `limit` words */
} cab_cuda_fault_kind;

/* A library that kernels keep handles and plans of between runs (cuBLASLt, cuDNN); filled on first use, freed with the
 * backend. */
typedef enum cab_cuda_library {
    CAB_CUDA_MATRIX,
    CAB_CUDA_ATTENTION,
    CAB_CUDA_RANKS,
    CAB_CUDA_LIBRARIES
} cab_cuda_library;

typedef struct cab_cuda {
    int device;
    int major, minor; /* compute capability */
    int multiprocessors;
    size_t shared_limit;   /* bytes of shared memory a block may ask for */
    size_t l2;             /* bytes of the second-level cache */
    cudaStream_t stream;   /* every kernel of every graph runs here, in order */
    cab_cuda_fault *fault; /* device address; kernels that find hostile input raise it */
    /* Without cuBLASLt and cuDNN where there are kernels of ours, slower; CAB_CUDA_OWN=1 in the environment, for tests. */
    bool own;
    unsigned *ticket; /* device address of a zero; by it the blocks of a kernel find out which is last */
    struct {
        void *state;
        void (*free)(void *state);
    } library[CAB_CUDA_LIBRARIES];
} cab_cuda;

cab_cuda *cab_cuda_of(const cab_backend *backend);

/* CAB_OK, or CAB_EBACKEND with what the runtime says; `what` names the call or kernel. */
cab_status cab_cuda_check(cudaError_t error, const char *what);
/* After a launch: whether it was accepted. */
cab_status cab_cuda_launched(const char *kernel);
/* Lets a kernel have `bytes` of dynamic shared memory; call before every launch that needs more than 48 KiB. */
cab_status cab_cuda_shared(const void *kernel, size_t bytes, const char *name);

#ifdef __cplusplus
}
#endif
#endif
