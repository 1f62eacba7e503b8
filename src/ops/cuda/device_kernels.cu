/* device_kernels.cu - the two kernels that the device itself needs: a probe, and bf16 copies of parameters.
 *
 * The probe is an empty kernel. If the runtime finds code for the probe, this build has code for this GPU.
 *
 * Layout: narrow() runs blocks of 256 threads over n fp32 numbers in device memory. Neighbouring threads take
 * neighbouring numbers; a thread then goes on a whole grid further.
 *
 * Arithmetic: to[i] = from[i] rounded to bf16, to nearest even. */
#include "ops/cuda/device_kernels.h"

#include <cuda_bf16.h>

static __global__ void probe(void)
{
}

extern "C" cudaError_t cab_cuda_probe(void)
{
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, (const void *)probe);
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    return error;
}

static __global__ void narrow(__nv_bfloat16 *to, const float *from, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
        to[i] = __float2bfloat16_rn(from[i]);
}

extern "C" cudaError_t cab_cuda_narrow(void *to, const void *from, size_t n, cudaStream_t stream)
{
    const size_t blocks = (n + 255) / 256, most = 1 << 16;
    if (n == 0)
        return cudaSuccess;
    narrow<<<(unsigned)(blocks < most ? blocks : most), 256, 0, stream>>>((__nv_bfloat16 *)to, (const float *)from, n);
    return cudaGetLastError();
}
