/* device_kernels.h - the device layer's own kernels. */
#ifndef CAB_OPS_CUDA_DEVICE_KERNELS_H
#define CAB_OPS_CUDA_DEVICE_KERNELS_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether this build's kernels run on the current device. */
cudaError_t cab_cuda_probe(void);
/* Rounds n fp32 to bf16, to nearest even. */
cudaError_t cab_cuda_narrow(void *to, const void *from, size_t n, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
