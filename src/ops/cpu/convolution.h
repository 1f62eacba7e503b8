/* convolution.h - what the convolutions along a sequence and over a grid share: filters by taps, and channels of either dtype. */
#ifndef CAB_OPS_CPU_CONVOLUTION_H
#define CAB_OPS_CPU_CONVOLUTION_H

#include "ops/cpu/vec.h"
#include "tensor/tensor.h"

#include <string.h>

/* Inlined into callers that give constants, so that the loops over channels know the dtype and the number of taps. */
#define INLINE static inline __attribute__((always_inline))

/* Filters w (E, taps) as `to` (taps, E), and the bias behind them, 0 where there is none. Returns where the bias is. */
static inline float *cab_filters_by_taps(const cab_tensor *w, const cab_tensor *bias, int64_t E, int taps, float *to)
{
    const float *from = w->data;
    float *behind = to + E * taps;
    for (int64_t e = 0; e < E; e++)
        for (int k = 0; k < taps; k++)
            to[k * E + e] = from[e * taps + k];
    if (bias != NULL)
        memcpy(behind, bias->data, (size_t)E * sizeof(float));
    else
        memset(behind, 0, (size_t)E * sizeof(float));
    return behind;
}

/* Channel e of a row; low: of bf16. */
INLINE float get(const void *row, int64_t e, bool low)
{
    return low ? cab_bf16_to_f32(((const cab_bf16 *)row)[e]) : ((const float *)row)[e];
}

INLINE void put(void *row, int64_t e, float value, bool low)
{
    if (low)
        ((cab_bf16 *)row)[e] = cab_bf16_from_f32(value);
    else
        ((float *)row)[e] = value;
}

#endif
