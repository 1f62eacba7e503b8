/* image_transform.c - the evaluation transform, applied. */
#include "data/image_transform.h"

#include <math.h>
#include <string.h>

cab_image_transform cab_image_transform_default(void)
{
    return (cab_image_transform){.size = 224,
                                 .resize = CAB_RESIZE_EDGE,
                                 .crop = 0.875,
                                 .filter = CAB_FILTER_BICUBIC,
                                 .divisor = 255.0f,
                                 .mean = {0.485f, 0.456f, 0.406f},
                                 .std = {0.229f, 0.224f, 0.225f}};
}

bool cab_image_transform_equal(const cab_image_transform *a, const cab_image_transform *b)
{
    return a->size == b->size && a->resize == b->resize && a->crop == b->crop && a->filter == b->filter &&
           a->divisor == b->divisor && memcmp(a->mean, b->mean, sizeof a->mean) == 0 &&
           memcmp(a->std, b->std, sizeof a->std) == 0;
}

void cab_image_scratch_free(cab_image_scratch *s)
{
    cab_resampler_free(&s->resampler);
    cab_image_free(&s->image);
    cab_image_free(&s->spare);
}

void cab_image_normalise(const cab_image_transform *t, const cab_image *image, float *pixels)
{
    size_t count = (size_t)image->width * (size_t)image->height;
    float table[3][256];
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++)
            table[c][v] = ((float)v / t->divisor - t->mean[c]) / t->std[c];
    for (size_t i = 0; i < count; i++) {
        const uint8_t *pixel = image->pixels + 3 * i;
        pixels[i] = table[0][pixel[0]];
        pixels[count + i] = table[1][pixel[1]];
        pixels[2 * count + i] = table[2][pixel[2]];
    }
}

/* A share that was made of two whole numbers may lie a rounding error above theirs. */
int cab_image_transform_edge(const cab_image_transform *t)
{
    return (int)floor(t->size / t->crop + 1e-6);
}

/* The size to which a picture is scaled. */
static cab_status scaled_size(const cab_image_transform *t, const cab_image *image, int64_t *width, int64_t *height)
{
    const int64_t side = cab_image_transform_edge(t), w = image->width, h = image->height;
    const bool whole = t->resize == CAB_RESIZE_NONE, kept = whole || t->resize == CAB_RESIZE_CROP;
    *width = kept ? w : t->resize == CAB_RESIZE_BOTH || w <= h ? side : side * w / h;
    *height = kept ? h : t->resize == CAB_RESIZE_BOTH || h <= w ? side : side * h / w;
    if (*width > INT32_MAX || *height > INT32_MAX)
        return cab_fail(CAB_ESHAPE, "an image of %d x %d pixels is too narrow", image->width, image->height);
    if (kept && (*width < t->size || *height < t->size || (whole && (*width != t->size || *height != t->size))))
        return cab_fail(CAB_ESHAPE,
                        "an image of %d x %d pixels, expected %d x %d%s: the model's pictures are not scaled",
                        image->width, image->height, t->size, t->size, whole ? "" : " or more");
    return CAB_OK;
}

cab_status cab_image_transform_crop(const cab_image_transform *t, cab_image_scratch *scratch, const cab_image *image,
                                    cab_image *out)
{
    int64_t width, height;
    CAB_TRY(scaled_size(t, image, &width, &height));
    /* rint: half to even, as Python rounds */
    cab_box middle = {(int)rint((double)(width - t->size) / 2.0), (int)rint((double)(height - t->size) / 2.0), t->size,
                      t->size};
    return cab_resample(&scratch->resampler, image, (cab_box){0, 0, image->width, image->height}, t->filter, (int)width,
                        (int)height, &middle, out);
}

cab_status cab_image_transform_apply(const cab_image_transform *t, cab_image_scratch *scratch, const cab_image *image,
                                     float *pixels)
{
    CAB_TRY(cab_image_transform_crop(t, scratch, image, &scratch->image));
    cab_image_normalise(t, &scratch->image, pixels);
    return CAB_OK;
}
