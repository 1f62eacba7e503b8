/* image_jpeg.c - JPEG by libjpeg-turbo.
 *
 * The library reports errors by calling back and must not be returned to: every call that may fail stands between
 * setjmp() and jpeg_destroy_decompress(). What the file makes it allocate hangs on the decompressor and goes with it.
 *
 * CMYK files follow Adobe: 255 means no ink, so that with c, m, y, k as stored  R = k - (255 - c) k / 255,  rounded as
 * Pillow does. */
#include "base/memory.h"
#include "data/image_internal.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

/* jpeglib.h needs stdio.h before it, and jerror.h needs jpeglib.h. */
/* clang-format off */
#include <jpeglib.h>
#include <jerror.h>
/* clang-format on */

enum { SCANS_MAX = 200, EXIF_HEADER = 6, REDUCTION_MAX = 8 };

typedef struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    char reason[JMSG_LENGTH_MAX];
    cab_decode_job *job;
} reader;

static void fail(j_common_ptr jpeg)
{
    reader *r = jpeg->client_data;
    if (r->reason[0] == '\0')
        jpeg->err->format_message(jpeg, r->reason);
    longjmp(r->failed, 1);
}

/* Warnings are about defects that every decoder passes over, but an early end would leave a part of the picture gray. */
static void warn(j_common_ptr jpeg, int level)
{
    reader *r = jpeg->client_data;
    if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) {
        snprintf(r->reason, sizeof r->reason, "truncated: the file ends within the picture");
        fail(jpeg);
    }
}

static void say_nothing(j_common_ptr jpeg)
{
    (void)jpeg;
}

/* A progressive file of a few kilobytes can ask for thousands of passes over all of its pixels. */
static void count_scans(j_common_ptr jpeg)
{
    reader *r = jpeg->client_data;
    if (r->jpeg.input_scan_number > SCANS_MAX) {
        snprintf(r->reason, sizeof r->reason, "more than %d scans", (int)SCANS_MAX);
        fail(jpeg);
    }
}

static int exif(const struct jpeg_decompress_struct *jpeg)
{
    for (jpeg_saved_marker_ptr m = jpeg->marker_list; m != NULL; m = m->next)
        if (m->data_length > EXIF_HEADER && memcmp(m->data, "Exif\0", EXIF_HEADER) == 0)
            return cab_exif_orientation(m->data + EXIF_HEADER, m->data_length - EXIF_HEADER);
    return 1;
}

/* The strongest of 1/8, 1/4, 1/2 that leaves the shorter side at min_side pixels or more. */
static unsigned reduction(const cab_decode_job *job, unsigned width, unsigned height)
{
    unsigned side = width < height ? width : height, denominator = REDUCTION_MAX;
    if (job->min_side <= 0)
        return 1;
    while (denominator > 1 && (side + denominator - 1) / denominator < (unsigned)job->min_side)
        denominator /= 2;
    return denominator;
}

/* row[0..width) from inverted CMYK; x / 255 rounded to nearest by shifts. */
static void convert_cmyk(const uint8_t *in, uint8_t *out, int width)
{
    for (int x = 0; x < width; x++, in += 4, out += 3)
        for (int c = 0; c < 3; c++) {
            int k = in[3], product = (255 - in[c]) * k + 128;
            int ink = ((product >> 8) + product) >> 8;
            out[c] = (uint8_t)(k > ink ? k - ink : 0);
        }
}

static cab_status decode(reader *r)
{
    struct jpeg_decompress_struct *jpeg = &r->jpeg;
    cab_decode_job *job = r->job;
    jpeg_create_decompress(jpeg); /* clears all but the error manager and client_data */
    r->progress.progress_monitor = count_scans;
    jpeg->progress = &r->progress;
    jpeg_mem_src(jpeg, job->data, job->size);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(jpeg, TRUE);
    CAB_TRY(cab_decode_check_size(job, jpeg->image_width, jpeg->image_height));
    job->orientation = exif(jpeg);
    jpeg->out_color_space = jpeg->num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg->scale_num = 1;
    jpeg->scale_denom = reduction(job, jpeg->image_width, jpeg->image_height);
    jpeg_calc_output_dimensions(jpeg);
    job->width = (int)jpeg->output_width;
    job->height = (int)jpeg->output_height;
    if (job->image == NULL)
        return CAB_OK;
    CAB_TRY(cab_image_reserve(job->image, job->width, job->height));
    jpeg_start_decompress(jpeg);
    JSAMPARRAY cmyk = NULL;
    if (jpeg->out_color_space == JCS_CMYK)
        cmyk = jpeg->mem->alloc_sarray((j_common_ptr)jpeg, JPOOL_IMAGE, jpeg->output_width * 4, 1);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = job->image->pixels + (size_t)jpeg->output_scanline * (size_t)job->width * 3;
        jpeg_read_scanlines(jpeg, cmyk == NULL ? &row : cmyk, 1);
        if (cmyk != NULL)
            convert_cmyk(cmyk[0], row, job->width);
    }
    return CAB_OK; /* what follows the last row is nobody's loss */
}

cab_status cab_jpeg_decode(cab_decode_job *job)
{
    reader r = {.job = job};
    cab_status status = CAB_OK;
    r.jpeg.err = jpeg_std_error(&r.errors);
    r.errors.error_exit = fail;
    r.errors.emit_message = warn;
    r.errors.output_message = say_nothing;
    r.jpeg.client_data = &r;
    if (setjmp(r.failed) == 0)
        status = decode(&r);
    else
        status = cab_fail(CAB_EFORMAT, "%s: not a readable JPEG: %s", job->name, r.reason);
    jpeg_destroy_decompress(&r.jpeg);
    return status;
}
