/* heat.c - magnitude over its 98th percentile, bent a little so that small values show, to a colour and an opacity. */
#include "report/heat.h"

#include "base/base64.h"
#include "base/memory.h"

#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

static const double full_share = 0.98, bend = 0.75;

typedef struct colour {
    double at, red, green, blue, alpha;
} colour;

/* Points of the "inferno" map, opaque enough at the lower end to dim what lies below. */
static const colour overlay[] = {{0.00, 20, 11, 53, 0.62},
                                 {0.25, 101, 21, 110, 0.62},
                                 {0.50, 188, 55, 84, 0.66},
                                 {0.75, 241, 115, 29, 0.72},
                                 {1.00, 252, 241, 130, 0.80}};
static const colour plain[] = {{0.00, 224, 102, 43, 0.00}, {1.00, 224, 102, 43, 1.00}};

static int compare_floats(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The magnitude that gets full colour. */
static cab_status find_full(const float *values, size_t n, double *full)
{
    float *sorted;
    CAB_TRY(CAB_NEW(&sorted, n, "a drawing"));
    for (size_t i = 0; i < n; i++)
        sorted[i] = fabsf(values[i]);
    qsort(sorted, n, sizeof *sorted, compare_floats);
    *full = (double)sorted[(size_t)(full_share * (double)(n - 1))];
    if (!(*full > 0))
        *full = (double)sorted[n - 1];
    cab_free(sorted);
    return CAB_OK;
}

static png_byte between(double from, double to, double share)
{
    return (png_byte)lround(from + (to - from) * share);
}

static void paint(const colour *map, double value, png_byte pixel[4])
{
    while (value > map[1].at)
        map++;
    const double share = (value - map[0].at) / (map[1].at - map[0].at);
    pixel[0] = between(map[0].red, map[1].red, share);
    pixel[1] = between(map[0].green, map[1].green, share);
    pixel[2] = between(map[0].blue, map[1].blue, share);
    pixel[3] = between(255 * map[0].alpha, 255 * map[1].alpha, share);
}

static cab_status compress(const png_byte *pixels, int64_t rows, int64_t columns, char **base64)
{
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)columns,
                       .height = (png_uint_32)rows,
                       .format = PNG_FORMAT_RGBA};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    void *data = NULL;
    cab_status status;
    CAB_TRY(cab_alloc(&data, 1, size, "a drawing"));
    if (png_image_write_to_memory(&image, data, &size, 0, pixels, 0, NULL))
        status = cab_base64_encode(data, size, base64);
    else
        status = cab_fail(CAB_ENOMEM, "a drawing cannot be compressed: %s", image.message);
    png_image_free(&image);
    cab_free(data);
    return status;
}

cab_status cab_heat_png(const float *values, int64_t rows, int64_t columns, cab_heat_palette palette, double *full,
                        char **base64)
{
    const size_t n = (size_t)rows * (size_t)columns;
    png_byte *pixels = NULL;
    cab_status status;
    *full = 0;
    CAB_GOTO(CAB_NEW(&pixels, 4 * n, "a drawing"));
    CAB_GOTO(find_full(values, n, full));
    for (size_t i = 0; i < n; i++) {
        const double value = *full > 0 ? fmin(fabs((double)values[i]) / *full, 1) : 0;
        paint(palette == CAB_HEAT_OVERLAY ? overlay : plain, pow(value, bend), pixels + 4 * i);
    }
    status = compress(pixels, rows, columns, base64);
done:
    cab_free(pixels);
    return status;
}
