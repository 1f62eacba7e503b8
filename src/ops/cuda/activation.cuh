/* activation.cuh - every activation f(x) and its slope f'(x), for kernels that apply one to numbers they already hold.
 *
 * Layout: none of its own. A thread calls evaluate() on a number in a register; no memory is read or written.
 *
 * Arithmetic, in fp32, with sigmoid(x) = 1 / (1 + e^-x):
 *
 *   GELU (tanh form)   f = x sigmoid(2 a (x + b x^3))     a = sqrt(2 / pi), b = 0.044715
 *   GELU (erf form)    f = x Phi(x)                       Phi: the normal distribution's share below x
 *   SiLU               f = x sigmoid(x)
 *   ReLU, tanh         f = max(x, 0), tanh(x)
 *
 * Exponentials and reciprocals are the hardware's approximations (2 ulp). */
#ifndef CAB_OPS_CUDA_ACTIVATION_CUH
#define CAB_OPS_CUDA_ACTIVATION_CUH

#include "ops/cuda/cuda.cuh"

struct value_and_slope {
    float y, slope;
};

__device__ __forceinline__ float exp_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
    return y;
}

__device__ __forceinline__ float sigmoid(float x)
{
    return __fdividef(1.0f, 1.0f + exp_fast(-x));
}

/* The normal distribution's share beyond x >= 0, of which e is exp(-x^2 / 2): erfc by Abramowitz and Stegun 7.1.26, to 8e-8. erff() is
 * what GELU would wait for, not memory. */
__device__ __forceinline__ float normal_tail(float x, float e)
{
    const float k = __fdividef(1.0f, 1.0f + 0.231641882f * x);
    return k * (0.127414796f + k * (-0.142248368f + k * (0.710706870f + k * (-0.726576013f + k * 0.530702715f)))) * e;
}

/* f(x) and f'(x). */
template <cab_activation_kind KIND> __device__ __forceinline__ value_and_slope evaluate(float x)
{
    value_and_slope r;
    if constexpr (KIND == CAB_GELU_TANH) {
        const float a = 0.797884561f, b = 0.044715f, s = sigmoid(2.0f * a * (x + b * x * x * x));
        r.y = x * s;
        r.slope = s + x * s * (1.0f - s) * 2.0f * a * (1.0f + 3.0f * b * x * x);
    } else if constexpr (KIND == CAB_GELU_ERF) {
        const float e = exp_fast(-0.5f * x * x), tail = normal_tail(fabsf(x), e), cdf = x < 0.0f ? tail : 1.0f - tail;
        r.y = x * cdf;
        r.slope = cdf + x * 0.398942280f * e;
    } else if constexpr (KIND == CAB_SILU) {
        const float s = sigmoid(x);
        r.y = x * s;
        r.slope = s * (1.0f + x * (1.0f - s));
    } else if constexpr (KIND == CAB_RELU) {
        r.y = x < 0.0f ? 0.0f : x; /* false for NaN, which goes through */
        r.slope = x > 0.0f ? 1.0f : 0.0f;
    } else {
        r.y = tanhf(x);
        r.slope = 1.0f - r.y * r.y;
    }
    return r;
}

#endif
