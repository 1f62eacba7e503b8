/* resample_kernels.h - the two passes of resample.c over rows of pixels, plain and for newer processors. All give the same
 * bits: they add integers. */
#ifndef CAB_DATA_RESAMPLE_KERNELS_H
#define CAB_DATA_RESAMPLE_KERNELS_H

#include "data/resample.h"

/* Fractional bits of a weight. 8 bits of pixel, 22 of weight, one for a sum of weights up to 2 and one for the sign just fit
 * an int32_t. */
enum { CAB_WEIGHT_BITS = 22 };

/* One direction: output pixel i reads taps[i].count input pixels from taps[i].first on, weighted by
 * weights[i * stride ..]. */
typedef struct cab_axis {
    struct cab_span *taps;
    int32_t *weights;
    size_t stride;
} cab_axis;

typedef struct cab_resample_kernels {
    /* out[0 .. 3 width) from one row of RGB pixels. */
    void (*across)(const cab_axis *axis, const uint8_t *in, uint8_t *out, int width);
    /* out[0 .. size) from `count` rows, in + k * stride, weighted by weights[k]. */
    void (*down)(const uint8_t *in, size_t stride, const int32_t *weights, int count, uint8_t *out, size_t size);
} cab_resample_kernels;

const cab_resample_kernels *cab_resample_plain(void);
/* Those for this processor. */
const cab_resample_kernels *cab_resample_fastest(void);

#endif
