/* cuda_probe.cu - an empty kernel: the runtime says whether it has code for the device. */
#include "device/cuda_probe.h"

static __global__ void probe(void) {}

extern "C" cudaError_t cab_cuda_probe(void)
{
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, (const void *)probe);
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    return error;
}
