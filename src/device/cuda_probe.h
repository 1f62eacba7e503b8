/* cuda_probe.h - whether this build's kernels run on the current device. */
#ifndef CAB_DEVICE_CUDA_PROBE_H
#define CAB_DEVICE_CUDA_PROBE_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C"
#endif
    cudaError_t
    cab_cuda_probe(void);

#endif
