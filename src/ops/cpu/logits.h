/* logits.h - what the kernels of a head do to rows of logits. */
#ifndef CAB_OPS_CPU_LOGITS_H
#define CAB_OPS_CPU_LOGITS_H

#include "ops/cpu/vec.h"

/* Logits to capped ones, cap tanh(s / cap), in place. */
static inline void cab_cap_row(float *s, int64_t V, float cap)
{
    const float inverse = 1.0f / cap;
#pragma omp simd
    for (int64_t i = 0; i < V; i++)
        s[i] = cap * cab_tanh(s[i] * inverse);
}

/* sum_v exp((s_v - largest) sharpness) */
static inline float cab_sum_exp(const float *s, int64_t V, float largest, float sharpness)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < V; i++)
        sum += cab_exp((s[i] - largest) * sharpness);
    return sum;
}

#endif
