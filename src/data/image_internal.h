/* image_internal.h - what the decoders share. */
#ifndef CAB_DATA_IMAGE_INTERNAL_H
#define CAB_DATA_IMAGE_INTERNAL_H

#include "data/image.h"

/* A file under way. `image` NULL: the header is enough. */
typedef struct cab_decode_job {
    const uint8_t *data;
    size_t size;
    const char *name;
    uint64_t max_pixels;
    int min_side;
    cab_image *image;
    int width, height; /* as stored, before the orientation is applied */
    int orientation;   /* EXIF tag 274, 1 to 8 */
} cab_decode_job;

cab_status cab_jpeg_decode(cab_decode_job *job);
cab_status cab_png_decode(cab_decode_job *job);

/* Refuses sizes beyond max_pixels. */
cab_status cab_decode_check_size(const cab_decode_job *job, uint64_t width, uint64_t height);
/* The orientation that a TIFF structure (the body of an EXIF block) states; 1 when it states none that makes sense. */
int cab_exif_orientation(const uint8_t *tiff, size_t size);

#endif
