/* resample.c - separable resampling in fixed point, one pass across and one down.
 *
 *   scale = in / out    center(i) = (i + 1/2) scale    s = max(scale, 1)
 *   out[i] = sum over j of in[j] w(i, j),    w(i, j) ~ f((j + 1/2 - center(i)) / s),    sum over j of w(i, j) = 1
 *   f: the triangle of support 1 (bilinear), or Keys' cubic with a = -1/2 of support 2 (bicubic)
 *
 * Weights have 22 fractional bits and each pass rounds to 8 bits: these are Pillow's numbers, so its results are ours. */
#include "data/resample.h"

#include "base/memory.h"
#include "data/resample_kernels.h"

#include <math.h>
#include <string.h>

enum { CHANNELS = 3 };

void cab_resampler_free(cab_resampler *r)
{
    cab_free(r->weights);
    cab_free(r->taps);
    cab_free(r->rows);
    *r = (cab_resampler){0};
}

/* ---- weights ---------------------------------------------------------------------------------------------------------- */

static double triangle(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

/* The weights of output pixels first .. first + count of a line of `in` pixels scaled to `out`. */
static void fill_axis(cab_axis *a, int in, int out, int first, int count, cab_filter filter)
{
    double (*f)(double) = filter == CAB_FILTER_BICUBIC ? cubic : triangle;
    const double scale = (double)in / out, reduced = scale < 1.0 ? 1.0 : scale;
    const double support = (filter == CAB_FILTER_BICUBIC ? 2.0 : 1.0) * reduced;
    for (int i = 0; i < count; i++) {
        double center = (first + i + 0.5) * scale, sum = 0.0;
        int begin = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        begin = begin < 0 ? 0 : begin;
        end = end > in ? in : end;
        for (int j = begin; j < end; j++)
            sum += f((j - center + 0.5) * (1.0 / reduced));
        for (int j = begin; j < end; j++) {
            double w = f((j - center + 0.5) * (1.0 / reduced)) / sum * (1 << CAB_WEIGHT_BITS);
            a->weights[(size_t)i * a->stride + (size_t)(j - begin)] = (int32_t)(w < 0.0 ? w - 0.5 : w + 0.5);
        }
        a->taps[i] = (struct cab_span){begin, end - begin};
    }
}

static size_t stride_of(int in, int out, cab_filter filter)
{
    double scale = (double)in / out, support = filter == CAB_FILTER_BICUBIC ? 2.0 : 1.0;
    return (size_t)ceil(scale < 1.0 ? support : support * scale) * 2 + 1;
}

/* ---- passes ----------------------------------------------------------------------------------------------------------- */

static const uint8_t *pixel_at(const cab_image *image, int x, int y)
{
    return image->pixels + ((size_t)y * (size_t)image->width + (size_t)x) * CHANNELS;
}

/* Adds up steps as Pillow does: where a step ends on a pixel's edge, its rounding decides which pixel that is. */
static void nearest(const cab_image *image, cab_box box, int width, int height, cab_box window,
                    struct cab_span *columns, uint8_t *out)
{
    const double step_x = (double)box.width / width, step_y = (double)box.height / height;
    double x = step_x * 0.5, y = step_y * 0.5;
    for (int i = 0; i < window.x + window.width; i++, x += step_x)
        if (i >= window.x)
            columns[i - window.x].first = x < box.width ? (int)x : box.width - 1;
    for (int i = 0; i < window.y + window.height; i++, y += step_y) {
        int line = y < box.height ? (int)y : box.height - 1;
        const uint8_t *row = pixel_at(image, box.x, box.y + line);
        for (int j = 0; i >= window.y && j < window.width; j++, out += CHANNELS)
            memcpy(out, row + (size_t)columns[j].first * CHANNELS, CHANNELS);
    }
}

/* The input pixels first .. first + count that the taps reach. */
static struct cab_span reach(const cab_axis *a, size_t count)
{
    int begin = a->taps[0].first, end = begin;
    for (size_t i = 0; i < count; i++) {
        int last = a->taps[i].first + a->taps[i].count;
        end = last > end ? last : end;
    }
    return (struct cab_span){begin, end - begin};
}

static cab_status across_first(cab_resampler *r, const cab_image *image, cab_box box, const cab_axis *x,
                               const cab_axis *y, cab_box window, uint8_t *out)
{
    const cab_resample_kernels *kernels = cab_resample_fastest();
    const size_t lines = (size_t)window.height, row = (size_t)window.width * CHANNELS;
    struct cab_span read = reach(y, lines);
    CAB_TRY(CAB_GROW(&r->rows, &r->rows_capacity, (size_t)read.count * row, "resampled rows"));
    for (int i = 0; i < read.count; i++)
        kernels->across(x, pixel_at(image, box.x, box.y + read.first + i), r->rows + (size_t)i * row, window.width);
    for (size_t i = 0; i < lines; i++)
        kernels->down(r->rows + (size_t)(y->taps[i].first - read.first) * row, row, y->weights + i * y->stride,
                      y->taps[i].count, out + i * row, row);
    return CAB_OK;
}

static cab_status down_first(cab_resampler *r, const cab_image *image, cab_box box, const cab_axis *x,
                             const cab_axis *y, cab_box window, uint8_t *out)
{
    const cab_resample_kernels *kernels = cab_resample_fastest();
    struct cab_span read = reach(x, (size_t)window.width);
    const size_t row = (size_t)read.count * CHANNELS, stride = (size_t)image->width * CHANNELS;
    CAB_TRY(CAB_GROW(&r->rows, &r->rows_capacity, row, "a resampled row"));
    for (int i = 0; i < window.width; i++)
        x->taps[i].first -= read.first;
    for (size_t i = 0; i < (size_t)window.height; i++) {
        kernels->down(pixel_at(image, box.x + read.first, box.y + y->taps[i].first), stride, y->weights + i * y->stride,
                      y->taps[i].count, r->rows, row);
        kernels->across(x, r->rows, out + i * (size_t)window.width * CHANNELS, window.width);
    }
    return CAB_OK;
}

/* The order matters to the last bits, and where the first pass clips. It is that of Pillow 13. */
static bool goes_down_first(cab_box box, int width, int height)
{
    return height < box.height && box.height - height > 2 * ((int64_t)box.width - width);
}

static cab_status smooth(cab_resampler *r, const cab_image *image, cab_box box, cab_filter filter, int width,
                         int height, cab_box window, uint8_t *out)
{
    cab_axis x = {.stride = stride_of(box.width, width, filter)}, y = {.stride = stride_of(box.height, height, filter)};
    size_t columns = (size_t)window.width, lines = (size_t)window.height, x_weights = columns * x.stride;
    CAB_TRY(CAB_GROW(&r->taps, &r->taps_capacity, columns + lines, "resampling taps"));
    CAB_TRY(CAB_GROW(&r->weights, &r->weights_capacity, x_weights + lines * y.stride, "resampling weights"));
    x.taps = r->taps;
    y.taps = r->taps + columns;
    x.weights = r->weights;
    y.weights = r->weights + x_weights;
    fill_axis(&x, box.width, width, window.x, window.width, filter);
    fill_axis(&y, box.height, height, window.y, window.height, filter);
    return (goes_down_first(box, width, height) ? down_first : across_first)(r, image, box, &x, &y, window, out);
}

static bool is_inside(cab_box box, int width, int height)
{
    return box.x >= 0 && box.y >= 0 && box.width > 0 && box.height > 0 && box.x <= width - box.width &&
           box.y <= height - box.height;
}

cab_status cab_resample(cab_resampler *r, const cab_image *image, cab_box box, cab_filter filter, int width, int height,
                        const cab_box *window, cab_image *out)
{
    cab_box part = window == NULL ? (cab_box){0, 0, width, height} : *window;
    if (!is_inside(box, image->width, image->height) || !is_inside(part, width, height))
        return cab_fail(
            CAB_ESHAPE,
            "resampling: %d x %d at (%d, %d) of an image of %d x %d pixels, to %d x %d at (%d, %d) of %d x %d",
            box.width, box.height, box.x, box.y, image->width, image->height, part.width, part.height, part.x, part.y,
            width, height);
    CAB_TRY(cab_image_reserve(out, part.width, part.height));
    if (filter == CAB_FILTER_NEAREST) {
        CAB_TRY(CAB_GROW(&r->taps, &r->taps_capacity, (size_t)part.width, "resampling taps"));
        nearest(image, box, width, height, part, r->taps, out->pixels);
        return CAB_OK;
    }
    return smooth(r, image, box, filter, width, height, part, out->pixels);
}
