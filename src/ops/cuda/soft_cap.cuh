/* soft_cap.cuh - the soft cap of logits, cap tanh(x / cap), and its slope 1 - (y / cap)^2, for kernels that apply it to numbers
 * they already hold. tanh x = 2 sigmoid(2 x) - 1 by the hardware's exponential: 2e-7 of the cap. */
#ifndef CAB_OPS_CUDA_SOFT_CAP_CUH
#define CAB_OPS_CUDA_SOFT_CAP_CUH

#include "ops/cuda/activation.cuh"

__device__ __forceinline__ float soft_cap(float x, float cap)
{
    return cap * (2.0f * sigmoid(2.0f * x / cap) - 1.0f);
}

/* y: what soft_cap() gave. */
__device__ __forceinline__ float soft_cap_slope(float y, float cap)
{
    return 1.0f - y / cap * (y / cap);
}

#endif
