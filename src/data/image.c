/* image.c - one interface over the two decoders, and the EXIF orientation.
 *
 * An orientation says where row 0 and column 0 of the stored picture lie in the upright one:
 *
 *   1 top left    2 top right    3 bottom right    4 bottom left
 *   5 left top    6 right top    7 right bottom    8 left bottom      (5 to 8: rows and columns are exchanged) */
#include "data/image.h"

#include "base/memory.h"
#include "data/image_internal.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>

enum { CHANNELS = 3, ORIENTATION_TAG = 274, TIFF_SHORT = 3, TIFF_ENTRY = 12, SIDE_MAX = 1 << 27 };

cab_status cab_image_reserve(cab_image *image, int width, int height)
{
    size_t bytes = 0;
    if (width < 1 || height < 1 || width > SIDE_MAX || height > SIDE_MAX)
        return cab_fail(CAB_ESHAPE, "an image cannot be %d x %d pixels", width, height);
    if (__builtin_mul_overflow((size_t)width * (size_t)height, CHANNELS, &bytes))
        return cab_fail(CAB_ENOMEM, "out of memory: an image of %d x %d pixels", width, height);
    if (image->capacity < bytes) { /* nothing in it is worth copying to the new place */
        if (image->capacity > 0)
            cab_free(image->pixels);
        *image = (cab_image){0};
        CAB_TRY(CAB_NEW(&image->pixels, bytes + 1, "an image")); /* the last pixel may be read as four bytes */
        image->capacity = bytes;
    }
    image->width = width;
    image->height = height;
    return CAB_OK;
}

void cab_image_free(cab_image *image)
{
    if (image->capacity > 0)
        cab_free(image->pixels);
    *image = (cab_image){0};
}

bool cab_image_is_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL &&
           (strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0 || strcasecmp(dot, ".png") == 0);
}

cab_status cab_decode_check_size(const cab_decode_job *job, uint64_t width, uint64_t height)
{
    if (width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX || width * height > job->max_pixels)
        return cab_fail(CAB_EFORMAT, "%s: %" PRIu64 " x %" PRIu64 " pixels; expected 1 to %" PRIu64, job->name, width,
                        height, job->max_pixels);
    return CAB_OK;
}

/* ---- orientation ------------------------------------------------------------------------------------------------------ */

static uint32_t tiff_read(const uint8_t *bytes, int count, bool big)
{
    uint32_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 8 | bytes[big ? i : count - 1 - i];
    return value;
}

/* TIFF: "II" or "MM", 42, offset of a directory; there a count and entries of tag, type, count, value. */
int cab_exif_orientation(const uint8_t *tiff, size_t size)
{
    if (size < 8 || (memcmp(tiff, "II", 2) != 0 && memcmp(tiff, "MM", 2) != 0))
        return 1;
    bool big = tiff[0] == 'M';
    size_t at = tiff_read(tiff + 4, 4, big);
    if (tiff_read(tiff + 2, 2, big) != 42 || at > size - 2)
        return 1;
    uint32_t entries = tiff_read(tiff + at, 2, big);
    at += 2;
    for (uint32_t i = 0; i < entries && size - at >= TIFF_ENTRY; i++, at += TIFF_ENTRY)
        if (tiff_read(tiff + at, 2, big) == ORIENTATION_TAG && tiff_read(tiff + at + 2, 2, big) == TIFF_SHORT) {
            uint32_t value = tiff_read(tiff + at + 8, 2, big);
            return value >= 1 && value <= 8 ? (int)value : 1;
        }
    return 1;
}

static bool is_transposed(int orientation)
{
    return orientation >= 5;
}

/* Turns the picture upright. */
static cab_status orient(cab_image *image, int orientation)
{
    if (orientation == 1)
        return CAB_OK;
    const ptrdiff_t w = image->width, h = image->height;
    const bool transposed = is_transposed(orientation);
    const bool right = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    const bool bottom = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
    cab_image turned = {0};
    CAB_TRY(cab_image_reserve(&turned, transposed ? image->height : image->width,
                              transposed ? image->width : image->height));
    /* steps in the stored picture for one step right and one step down in the upright one */
    ptrdiff_t across = (transposed ? w : 1) * CHANNELS, down = (transposed ? 1 : w) * CHANNELS;
    ptrdiff_t across_last = transposed ? h - 1 : w - 1, down_last = transposed ? w - 1 : h - 1;
    const uint8_t *corner = image->pixels + (right ? across * across_last : 0) + (bottom ? down * down_last : 0);
    across = right ? -across : across;
    down = bottom ? -down : down;
    uint8_t *out = turned.pixels;
    for (ptrdiff_t y = 0; y < turned.height; y++) {
        const uint8_t *in = corner + y * down;
        for (ptrdiff_t x = 0; x < turned.width; x++, in += across, out += CHANNELS)
            memcpy(out, in, CHANNELS);
    }
    cab_image_free(image);
    *image = turned;
    return CAB_OK;
}

/* ---- decoding --------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *magic;
    size_t offset, size;
    const char *kind;
} signatures[] = {
    {"GIF8", 0, 4, "a GIF"},      {"BM", 0, 2, "a BMP"},
    {"WEBP", 8, 4, "a WebP"},     {"II*\0", 0, 4, "a TIFF"},
    {"MM\0*", 0, 4, "a TIFF"},    {"ftypavif", 4, 8, "an AVIF"},
    {"ftypheic", 4, 8, "a HEIC"}, {"\0\0\0\x0CjP  ", 0, 8, "a JPEG 2000"},
    {"%PDF", 0, 4, "a PDF"},      {"<", 0, 1, "a markup (HTML, SVG)"},
};

static bool has_magic(const cab_decode_job *job, const char *magic, size_t offset, size_t size)
{
    return job->size >= offset + size && memcmp(job->data + offset, magic, size) == 0;
}

static cab_status refuse(const cab_decode_job *job)
{
    if (job->size == 0)
        return cab_fail(CAB_EFORMAT, "%s: is empty; expected a JPEG or PNG image", job->name);
    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++)
        if (has_magic(job, signatures[i].magic, signatures[i].offset, signatures[i].size))
            return cab_fail(CAB_EFORMAT, "%s: is %s file; expected a JPEG or PNG image", job->name, signatures[i].kind);
    return cab_fail(CAB_EFORMAT, "%s: is neither a JPEG nor a PNG image", job->name);
}

static cab_status run(cab_decode_job *job, const cab_decode_options *options)
{
    job->max_pixels = options->max_pixels == 0 ? CAB_IMAGE_PIXELS_MAX : options->max_pixels;
    job->min_side = options->min_side;
    job->orientation = 1;
    if (has_magic(job, "\xFF\xD8\xFF", 0, 3))
        return cab_jpeg_decode(job);
    if (has_magic(job, "\x89PNG\r\n\x1A\n", 0, 8))
        return cab_png_decode(job);
    return refuse(job);
}

cab_status cab_image_decode(const void *data, size_t size, const char *name, const cab_decode_options *options,
                            cab_image *image)
{
    cab_decode_job job = {.data = data, .size = size, .name = name, .image = image};
    CAB_TRY(run(&job, options));
    return orient(image, job.orientation);
}

cab_status cab_image_probe(const void *data, size_t size, const char *name, const cab_decode_options *options,
                           int *width, int *height)
{
    cab_decode_job job = {.data = data, .size = size, .name = name};
    CAB_TRY(run(&job, options));
    *width = is_transposed(job.orientation) ? job.height : job.width;
    *height = is_transposed(job.orientation) ? job.width : job.height;
    return CAB_OK;
}
