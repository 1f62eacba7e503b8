/* image.h - pictures in memory and out of JPEG and PNG files. */
#ifndef CAB_DATA_IMAGE_H
#define CAB_DATA_IMAGE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 8-bit RGB, rows from the top, three bytes a pixel, nothing between rows. Zero-initialise, reserve, free. */
typedef struct cab_image {
    uint8_t *pixels; /* (height, width, 3) */
    int width, height;
    size_t capacity; /* bytes owned behind `pixels`; 0: none, or borrowed from elsewhere */
} cab_image;

/* Gives the image this size, keeping its memory where that is large enough. The pixels are not cleared. */
cab_status cab_image_reserve(cab_image *image, int width, int height);
void cab_image_free(cab_image *image);

/* Where a file larger than this is refused before a pixel of it is decoded: 134 megapixels, 400 MB. */
#define CAB_IMAGE_PIXELS_MAX (UINT64_C(1) << 27)

/* How files become pictures. All zero is the usual. */
typedef struct cab_decode_options {
    uint64_t max_pixels; /* 0: CAB_IMAGE_PIXELS_MAX */
    int min_side; /* JPEGs are decoded at 1/2, 1/4 or 1/8 where the shorter side stays at least this; 0: always at full size */
} cab_decode_options;

/* Decodes a JPEG or PNG file held in memory; its content decides which it is, not its name. Grayscale becomes equal
 * channels; CMYK and YCCK (Adobe's inverted convention) are converted; 16 bits lose the lower 8; palettes are looked up;
 * transparency is dropped; the EXIF orientation is applied. The pixels equal those of Pillow's convert("RGB").
 * Truncated, damaged and other files are CAB_EFORMAT; `name` stands in error texts. */
cab_status cab_image_decode(const void *data, size_t size, const char *name, const cab_decode_options *options,
                            cab_image *image);
/* The size that cab_image_decode() would give, from the header alone. */
cab_status cab_image_probe(const void *data, size_t size, const char *name, const cab_decode_options *options,
                           int *width, int *height);
/* Whether a file's name ends in .jpg, .jpeg or .png, in any case. */
bool cab_image_is_name(const char *name);

#endif
