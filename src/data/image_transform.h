/* image_transform.h - from a picture to what a model reads, as in evaluation: the shorter side scaled to
 * floor(size / crop) pixels, the middle size x size of that, (v / 255 - mean) / std per channel. This is what timm and
 * torchvision do, to the bit of each pixel. */
#ifndef CAB_DATA_IMAGE_TRANSFORM_H
#define CAB_DATA_IMAGE_TRANSFORM_H

#include "data/resample.h"

typedef struct cab_image_transform {
    int size;    /* pixels of a side that the model reads, S */
    double crop; /* share of the shorter side that is kept, above 0, at most 1 */
    cab_filter filter;
    float mean[3], std[3]; /* of pixels in 0..1; red, green, blue */
} cab_image_transform;

/* 224 pixels, crop 0.875, bicubic, the mean and standard deviation of ImageNet. */
cab_image_transform cab_image_transform_default(void);
/* What a model's directory states: "pretrained_cfg" in config.json (timm), then preprocessor_config.json (transformers)
 * where there is one. What neither states keeps its default. Values that make no sense are CAB_EFORMAT. */
cab_status cab_image_transform_load(const char *directory, cab_image_transform *transform);

/* Scratch memory of one thread: zero-initialise, free. */
typedef struct cab_image_scratch {
    cab_resampler resampler;
    cab_image image, spare;
} cab_image_scratch;
void cab_image_scratch_free(cab_image_scratch *scratch);

/* pixels: (3, S, S). The picture must not be one of the scratch's. */
cab_status cab_image_transform_apply(const cab_image_transform *transform, cab_image_scratch *scratch,
                                     const cab_image *image, float *pixels);
/* What the shorter side is scaled to: floor(size / crop). */
int cab_image_transform_edge(const cab_image_transform *transform);
/* The first two steps: the picture scaled, and the middle of it, S x S. `out` may be the scratch's image. */
cab_status cab_image_transform_crop(const cab_image_transform *transform, cab_image_scratch *scratch,
                                    const cab_image *image, cab_image *out);
/* The last step alone: an image of (height, width, 3) as pixels (3, height, width), (v / 255 - mean) / std. */
void cab_image_normalise(const cab_image_transform *transform, const cab_image *image, float *pixels);

#endif
