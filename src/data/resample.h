/* resample.h - pictures at another size, as Pillow's resize() computes them. */
#ifndef CAB_DATA_RESAMPLE_H
#define CAB_DATA_RESAMPLE_H

#include "data/image.h"

typedef enum cab_filter { CAB_FILTER_NEAREST, CAB_FILTER_BILINEAR, CAB_FILTER_BICUBIC } cab_filter;

/* A rectangle of pixels. */
typedef struct cab_box {
    int x, y, width, height;
} cab_box;

/* Scratch memory of one thread. Zero-initialise, free. */
typedef struct cab_resampler {
    int32_t *weights;
    size_t weights_capacity;
    struct cab_span {
        int first, count;
    } * taps;
    size_t taps_capacity;
    uint8_t *rows; /* resampled across, not yet down */
    size_t rows_capacity;
} cab_resampler;

void cab_resampler_free(cab_resampler *resampler);

/* The part `box` of the picture, scaled to width x height, and of the result the part `window` (NULL: all of it), in
 * `out`, which must be another image. Pixels outside of the box have no influence. Bilinear and bicubic widen with the
 * reduction (antialiasing). Equal to crop(box).resize((width, height), filter).crop(window) of Pillow 13,
 * bit for bit; earlier versions took the two directions in another order where an image loses more rows than twice the
 * columns. */
cab_status cab_resample(cab_resampler *resampler, const cab_image *image, cab_box box, cab_filter filter, int width,
                        int height, const cab_box *window, cab_image *out);

#endif
