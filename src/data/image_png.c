/* image_png.c - PNG by libpng, whatever is stored brought to 8-bit RGB by its transformations.
 *
 * As with JPEG, errors arrive by longjmp(); all that the library allocated goes with its two structures. */
#include "base/memory.h"
#include "data/image_internal.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

typedef struct reader {
    png_structp png;
    png_infop info;
    size_t at; /* read so far */
    char reason[160];
    cab_decode_job *job;
} reader;

static void fail(png_structp png, png_const_charp reason)
{
    reader *r = png_get_error_ptr(png);
    snprintf(r->reason, sizeof r->reason, "%s", reason);
    longjmp(png_jmpbuf(png), 1);
}

static void say_nothing(png_structp png, png_const_charp reason)
{
    (void)png;
    (void)reason;
}

static void read_bytes(png_structp png, png_bytep out, size_t size)
{
    reader *r = png_get_io_ptr(png);
    if (size > r->job->size - r->at)
        png_error(png, "truncated: the file ends within the picture");
    memcpy(out, r->job->data + r->at, size);
    r->at += size;
}

static int exif(reader *r)
{
    png_bytep block = NULL;
    png_uint_32 size = 0;
    return png_get_eXIf_1(r->png, r->info, &size, &block) == 0 ? 1 : cab_exif_orientation(block, size);
}

static void ask_for_rgb(reader *r)
{
    png_set_strip_16(r->png);
    png_set_packing(r->png);
    png_set_palette_to_rgb(r->png);
    png_set_expand_gray_1_2_4_to_8(r->png);
    png_set_gray_to_rgb(r->png);
    png_set_strip_alpha(r->png);
}

static cab_status decode(reader *r)
{
    cab_decode_job *job = r->job;
    png_set_read_fn(r->png, r, read_bytes);
    png_read_info(r->png, r->info);
    png_uint_32 width = png_get_image_width(r->png, r->info), height = png_get_image_height(r->png, r->info);
    CAB_TRY(cab_decode_check_size(job, width, height));
    job->orientation = exif(r);
    job->width = (int)width;
    job->height = (int)height;
    if (job->image == NULL)
        return CAB_OK;
    CAB_TRY(cab_image_reserve(job->image, job->width, job->height));
    ask_for_rgb(r);
    int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    size_t stride = (size_t)width * 3;
    if (png_get_rowbytes(r->png, r->info) != stride)
        png_error(r->png, "an unknown kind of pixel");
    for (int pass = 0; pass < passes; pass++)
        for (png_uint_32 y = 0; y < height; y++)
            png_read_row(r->png, job->image->pixels + y * stride, NULL);
    return CAB_OK;
}

cab_status cab_png_decode(cab_decode_job *job)
{
    reader r = {.job = job};
    cab_status status = CAB_OK;
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, fail, say_nothing);
    if (r.png != NULL)
        r.info = png_create_info_struct(r.png);
    if (r.info == NULL)
        status = cab_fail(CAB_ENOMEM, "out of memory: reading %s", job->name);
    else if (setjmp(png_jmpbuf(r.png)) == 0)
        status = decode(&r);
    else
        status = cab_fail(CAB_EFORMAT, "%s: not a readable PNG: %s", job->name, r.reason);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    return status;
}
