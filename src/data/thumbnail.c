/* thumbnail.c - crop, reduce, compress by libjpeg-turbo, which reports errors by calling back and must not be returned to. */
#include "data/thumbnail.h"

#include "base/base64.h"
#include "base/memory.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

/* jpeglib.h needs stdio.h before it. */
#include <jpeglib.h>

enum { QUALITY = 85 };

typedef struct writer {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
    char reason[JMSG_LENGTH_MAX];
    unsigned char *data; /* malloc()ed by the library */
    unsigned long size;
} writer;

static void fail(j_common_ptr jpeg)
{
    writer *w = jpeg->client_data;
    jpeg->err->format_message(jpeg, w->reason);
    longjmp(w->failed, 1);
}

static cab_status compress(writer *w, const cab_image *image)
{
    w->jpeg.err = jpeg_std_error(&w->errors);
    w->errors.error_exit = fail;
    w->jpeg.client_data = w;
    if (setjmp(w->failed) != 0) {
        jpeg_destroy_compress(&w->jpeg);
        return cab_fail(CAB_ENOMEM, "a thumbnail cannot be compressed: %s", w->reason);
    }
    jpeg_create_compress(&w->jpeg);
    jpeg_mem_dest(&w->jpeg, &w->data, &w->size);
    w->jpeg.image_width = (JDIMENSION)image->width;
    w->jpeg.image_height = (JDIMENSION)image->height;
    w->jpeg.input_components = 3;
    w->jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&w->jpeg);
    jpeg_set_quality(&w->jpeg, QUALITY, TRUE);
    jpeg_start_compress(&w->jpeg, TRUE);
    while (w->jpeg.next_scanline < w->jpeg.image_height) {
        JSAMPROW row = image->pixels + (size_t)w->jpeg.next_scanline * (size_t)image->width * 3;
        jpeg_write_scanlines(&w->jpeg, &row, 1);
    }
    jpeg_finish_compress(&w->jpeg);
    jpeg_destroy_compress(&w->jpeg);
    return CAB_OK;
}

cab_status cab_thumbnail(const cab_image *image, const cab_image_transform *transform, cab_image_scratch *scratch,
                         int side, char **base64)
{
    cab_image seen = {0}, small = {0};
    writer *w = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&w, 1, "a thumbnail"));
    CAB_GOTO(cab_image_transform_crop(transform, scratch, image, &seen));
    side = side < seen.width ? side : seen.width;
    CAB_GOTO(cab_resample(&scratch->resampler, &seen, (cab_box){0, 0, seen.width, seen.height}, CAB_FILTER_BICUBIC,
                          side, side, NULL, &small));
    CAB_GOTO(compress(w, &small));
    status = cab_base64_encode(w->data, w->size, base64);
done:
    if (w != NULL)
        free(w->data);
    cab_free(w);
    cab_image_free(&seen);
    cab_image_free(&small);
    return status;
}
