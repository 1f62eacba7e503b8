/* image_transform.h - from a picture to what a model reads, as in evaluation: scaled, the middle S x S of that cut out, then
 * (v / divisor - mean) / std per channel. This is what timm, torchvision and transformers do, to the bit of each pixel. */
#ifndef CAB_DATA_IMAGE_TRANSFORM_H
#define CAB_DATA_IMAGE_TRANSFORM_H

#include "data/resample.h"

typedef enum cab_resize {
    CAB_RESIZE_EDGE, /* the shorter side to floor(size / crop) pixels, the other in proportion */
    CAB_RESIZE_BOTH, /* both sides to floor(size / crop), whatever their proportion */
    CAB_RESIZE_CROP, /* not scaled: the middle is cut out */
    CAB_RESIZE_NONE  /* neither: pictures must have the size */
} cab_resize;

typedef struct cab_image_transform {
    int size; /* pixels of a side that the model reads, S */
    cab_resize resize;
    double crop; /* share of the scaled side that is kept, above 0, at most 1 */
    cab_filter filter;
    float divisor;         /* of the stored values 0..255: 255, unless the model wants another range */
    float mean[3], std[3]; /* of the divided values; red, green, blue. 0 and 1: not normalised */
} cab_image_transform;

/* 224 pixels, the shorter side in proportion, crop 0.875, bicubic, the mean and standard deviation of ImageNet. */
cab_image_transform cab_image_transform_default(void);
/* What a model's directory states: config.json of timm ("pretrained_cfg", or flat as older versions wrote it), then
 * preprocessor_config.json (transformers) where there is one. What the latter leaves out has the default that transformers'
 * class of that name has. Where nothing says how, the assumption is told in a warning. Values that make no sense are CAB_EFORMAT,
 * steps that are not computed CAB_EUNSUPPORTED, by name. */
cab_status cab_image_transform_load(const char *directory, cab_image_transform *transform);
/* Writes preprocessor_config.json, which loads back to the same, and in transformers. */
cab_status cab_image_transform_save(const cab_image_transform *transform, const char *directory);

/* Whether both make the same pixels of every picture. */
bool cab_image_transform_equal(const cab_image_transform *a, const cab_image_transform *b);

/* Scratch memory of one thread: zero-initialise, free. */
typedef struct cab_image_scratch {
    cab_resampler resampler;
    cab_image image, spare;
} cab_image_scratch;
void cab_image_scratch_free(cab_image_scratch *scratch);

/* pixels: (3, S, S). The picture must not be one of the scratch's. */
cab_status cab_image_transform_apply(const cab_image_transform *transform, cab_image_scratch *scratch,
                                     const cab_image *image, float *pixels);
/* What a side is scaled to: floor(size / crop). */
int cab_image_transform_edge(const cab_image_transform *transform);
/* The first two steps: the picture scaled, and the middle of it, S x S. `out` may be the scratch's image. */
cab_status cab_image_transform_crop(const cab_image_transform *transform, cab_image_scratch *scratch,
                                    const cab_image *image, cab_image *out);
/* The last step alone: an image of (height, width, 3) as pixels (3, height, width), (v / divisor - mean) / std. */
void cab_image_normalise(const cab_image_transform *transform, const cab_image *image, float *pixels);

#endif
