/* image_adjust.c - point operations, blends and affine maps with Pillow's roundings.
 *
 *   blend:  out = a + factor (image - a), in float, cut to 0 .. 255, rounded down
 *   gray:   L = (19595 R + 38470 G + 7471 B) / 2^16, rounded
 *   affine: Catmull-Rom's cousin with a = -1 (bicubic) or linear interpolation, in double, rounded down; rows and columns
 *           outside repeat the edge */
#include "data/image_adjust.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

enum { CHANNELS = 3, LEVELS = 256 };

static size_t bytes_of(const cab_image *image)
{
    return (size_t)image->width * (size_t)image->height * CHANNELS;
}

/* ---- blends ----------------------------------------------------------------------------------------------------------- */

static inline uint8_t blend(int from, int to, float factor)
{
    float value = (float)from + factor * (float)(to - from);
    return value <= 0.0f ? 0 : value >= 255.0f ? 255 : (uint8_t)value;
}

static inline int gray(const uint8_t *pixel)
{
    return (pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16;
}

static void apply_table(cab_image *image, const uint8_t table[LEVELS])
{
    size_t bytes = bytes_of(image);
    for (size_t i = 0; i < bytes; i++)
        image->pixels[i] = table[image->pixels[i]];
}

static void blend_with_level(cab_image *image, int level, float factor)
{
    uint8_t table[LEVELS];
    for (int v = 0; v < LEVELS; v++)
        table[v] = blend(level, v, factor);
    apply_table(image, table);
}

void cab_adjust_brightness(cab_image *image, float factor)
{
    blend_with_level(image, 0, factor);
}

void cab_adjust_contrast(cab_image *image, float factor)
{
    size_t pixels = bytes_of(image) / CHANNELS;
    uint64_t sum = 0;
    for (size_t i = 0; i < pixels; i++)
        sum += (uint64_t)gray(image->pixels + i * CHANNELS);
    blend_with_level(image, (int)((double)sum / (double)pixels + 0.5), factor);
}

void cab_adjust_colour(cab_image *image, float factor)
{
    size_t bytes = bytes_of(image);
    for (size_t i = 0; i < bytes; i += CHANNELS) {
        uint8_t *pixel = image->pixels + i;
        int level = gray(pixel);
        for (int c = 0; c < CHANNELS; c++)
            pixel[c] = blend(level, pixel[c], factor);
    }
}

/* The kernel 1 1 1 / 1 5 1 / 1 1 1 over 13 on the inside; the border is left as it is. */
static void smooth(const cab_image *image, uint8_t *out)
{
    const float side = 1.0f / 13.0f, middle = 5.0f / 13.0f;
    const size_t stride = (size_t)image->width * CHANNELS;
    memcpy(out, image->pixels, bytes_of(image));
    for (int y = 1; y < image->height - 1; y++) {
        const uint8_t *row = image->pixels + (size_t)y * stride, *above = row - stride, *under = row + stride;
        uint8_t *to = out + (size_t)y * stride;
        for (size_t i = CHANNELS; i < stride - CHANNELS; i++) { /* in this order: sums of floats depend on it */
            float sum = 0.5f;
            sum += (float)under[i - CHANNELS] * side + (float)under[i] * side + (float)under[i + CHANNELS] * side;
            sum += (float)row[i - CHANNELS] * side + (float)row[i] * middle + (float)row[i + CHANNELS] * side;
            sum += (float)above[i - CHANNELS] * side + (float)above[i] * side + (float)above[i + CHANNELS] * side;
            to[i] = sum >= 255.0f ? 255 : (uint8_t)sum;
        }
    }
}

cab_status cab_adjust_sharpness(cab_image *image, float factor, cab_image *spare)
{
    size_t bytes = bytes_of(image);
    CAB_TRY(cab_image_reserve(spare, image->width, image->height));
    smooth(image, spare->pixels);
    for (size_t i = 0; i < bytes; i++)
        image->pixels[i] = blend(spare->pixels[i], image->pixels[i], factor);
    return CAB_OK;
}

/* ---- tables ----------------------------------------------------------------------------------------------------------- */

static void count_levels(const cab_image *image, int channel, uint64_t counts[LEVELS])
{
    size_t bytes = bytes_of(image);
    memset(counts, 0, LEVELS * sizeof *counts);
    for (size_t i = (size_t)channel; i < bytes; i += CHANNELS)
        counts[image->pixels[i]]++;
}

static void apply_to_channel(cab_image *image, int channel, const uint8_t table[LEVELS])
{
    size_t bytes = bytes_of(image);
    for (size_t i = (size_t)channel; i < bytes; i += CHANNELS)
        image->pixels[i] = table[image->pixels[i]];
}

void cab_adjust_autocontrast(cab_image *image)
{
    for (int c = 0; c < CHANNELS; c++) {
        uint64_t counts[LEVELS];
        uint8_t table[LEVELS];
        int low = 0, high = LEVELS - 1;
        count_levels(image, c, counts);
        while (counts[low] == 0)
            low++;
        while (counts[high] == 0)
            high--;
        if (high <= low)
            continue;
        double scale = 255.0 / (high - low), offset = -low * scale;
        for (int v = 0; v < LEVELS; v++) {
            int value = (int)(v * scale + offset);
            table[v] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
        }
        apply_to_channel(image, c, table);
    }
}

void cab_adjust_equalize(cab_image *image)
{
    uint64_t pixels = bytes_of(image) / CHANNELS;
    for (int c = 0; c < CHANNELS; c++) {
        uint64_t counts[LEVELS];
        uint8_t table[LEVELS];
        int high = LEVELS - 1;
        count_levels(image, c, counts);
        while (counts[high] == 0)
            high--;
        uint64_t step = (pixels - counts[high]) / 255;
        if (step == 0)
            continue;
        uint64_t sum = step / 2;
        for (int v = 0; v < LEVELS; v++) {
            table[v] = (uint8_t)(sum / step > 255 ? 255 : sum / step);
            sum += counts[v];
        }
        apply_to_channel(image, c, table);
    }
}

void cab_adjust_invert(cab_image *image)
{
    cab_adjust_solarize(image, 0);
}

void cab_adjust_posterize(cab_image *image, int bits)
{
    uint8_t table[LEVELS];
    for (int v = 0; v < LEVELS; v++)
        table[v] = (uint8_t)(v & ~((1 << (8 - bits)) - 1));
    apply_table(image, table);
}

void cab_adjust_solarize(cab_image *image, int threshold)
{
    uint8_t table[LEVELS];
    for (int v = 0; v < LEVELS; v++)
        table[v] = (uint8_t)(v < threshold ? v : 255 - v);
    apply_table(image, table);
}

void cab_adjust_solarize_add(cab_image *image, int threshold, int added)
{
    uint8_t table[LEVELS];
    for (int v = 0; v < LEVELS; v++)
        table[v] = (uint8_t)(v >= threshold ? v : v + added > 255 ? 255 : v + added);
    apply_table(image, table);
}

/* ---- geometry --------------------------------------------------------------------------------------------------------- */

void cab_adjust_mirror(cab_image *image)
{
    for (int y = 0; y < image->height; y++) {
        uint8_t *left = image->pixels + (size_t)y * (size_t)image->width * CHANNELS;
        uint8_t *right = left + (size_t)(image->width - 1) * CHANNELS;
        for (; left < right; left += CHANNELS, right -= CHANNELS)
            for (int c = 0; c < CHANNELS; c++) {
                uint8_t kept = left[c];
                left[c] = right[c];
                right[c] = kept;
            }
    }
}

static inline double cubic(double a, double b, double c, double d, double t)
{
    double p3 = 2 * (a - b) + c - d, p4 = -a + b - c + d;
    return b + t * ((-a + c) + t * (p3 + t * p4));
}

static inline int clamp(int value, int count)
{
    return value < 0 ? 0 : value < count ? value : count - 1;
}

static inline uint8_t cut(double value)
{
    return value <= 0.0 ? 0 : value >= 255.0 ? 255 : (uint8_t)value;
}

/* The point (x, y), inside of the picture, with pixel centres at halves. Along a direction in which it lies on a centre,
 * the middle neighbour alone counts. */
static void sample_cubic(const cab_image *image, double x, double y, uint8_t *out)
{
    const int w = image->width, h = image->height, left = (int)floor(x - 0.5), top = (int)floor(y - 0.5);
    const double dx = x - 0.5 - left, dy = y - 0.5 - top;
    const uint8_t *rows[4];
    size_t columns[4];
    for (int k = 0; k < 4; k++) {
        rows[k] = image->pixels + (size_t)clamp(top - 1 + k, h) * (size_t)w * CHANNELS;
        columns[k] = (size_t)clamp(left - 1 + k, w) * CHANNELS;
    }
    for (size_t c = 0; c < CHANNELS; c++) {
        double v[4];
        for (int k = dy == 0.0 ? 1 : 0; k < (dy == 0.0 ? 2 : 4); k++) {
            const uint8_t *r = rows[k] + c;
            v[k] = dx == 0.0 ? r[columns[1]] : cubic(r[columns[0]], r[columns[1]], r[columns[2]], r[columns[3]], dx);
        }
        out[c] = cut(dy == 0.0 ? v[1] : cubic(v[0], v[1], v[2], v[3], dy));
    }
}

/* A pixel's three channels in three lanes; the fourth has the byte behind, which cab_image_reserve() sees to. */
__attribute__((target("avx2"))) static inline __m256d lanes(const uint8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
}

/* cubic() in every lane, with its roundings. */
__attribute__((target("avx2"))) static inline __m256d cubic_lanes(const __m256d v[4], __m256d t)
{
    const __m256d a = v[0], b = v[1], c = v[2], d = v[3], first = _mm256_sub_pd(a, b);
    const __m256d p3 = _mm256_sub_pd(_mm256_add_pd(_mm256_add_pd(first, first), c), d);
    const __m256d p4 = _mm256_add_pd(_mm256_sub_pd(_mm256_sub_pd(b, a), c), d);
    const __m256d inner = _mm256_add_pd(p3, _mm256_mul_pd(t, p4));
    const __m256d outer = _mm256_add_pd(_mm256_sub_pd(c, a), _mm256_mul_pd(t, inner));
    return _mm256_add_pd(b, _mm256_mul_pd(t, outer));
}

/* Four neighbours in a row, or on a pixel's centre the second of them alone. */
__attribute__((target("avx2"))) static inline __m256d row_lanes(const uint8_t *row, const size_t columns[4], double dx)
{
    if (dx == 0.0)
        return lanes(row + columns[1]);
    const __m256d taps[4] = {lanes(row + columns[0]), lanes(row + columns[1]), lanes(row + columns[2]),
                             lanes(row + columns[3])};
    return cubic_lanes(taps, _mm256_set1_pd(dx));
}

/* sample_cubic(), the channels of a pixel at once. */
__attribute__((target("avx2"))) static void sample_cubic_avx2(const cab_image *image, double x, double y, uint8_t *out)
{
    const int w = image->width, h = image->height, left = (int)floor(x - 0.5), top = (int)floor(y - 0.5);
    const double dx = x - 0.5 - left, dy = y - 0.5 - top;
    const uint8_t *pixels = image->pixels;
    const size_t stride = (size_t)w * CHANNELS;
    const size_t columns[4] = {(size_t)clamp(left - 1, w) * CHANNELS, (size_t)clamp(left, w) * CHANNELS,
                               (size_t)clamp(left + 1, w) * CHANNELS, (size_t)clamp(left + 2, w) * CHANNELS};
    __m256d sum = row_lanes(pixels + (size_t)clamp(top, h) * stride, columns, dx);
    if (dy != 0.0) {
        const __m256d rows[4] = {row_lanes(pixels + (size_t)clamp(top - 1, h) * stride, columns, dx), sum,
                                 row_lanes(pixels + (size_t)clamp(top + 1, h) * stride, columns, dx),
                                 row_lanes(pixels + (size_t)clamp(top + 2, h) * stride, columns, dx)};
        sum = cubic_lanes(rows, _mm256_set1_pd(dy));
    }
    sum = _mm256_min_pd(_mm256_max_pd(sum, _mm256_setzero_pd()), _mm256_set1_pd(255.0));
    const __m128i whole = _mm256_cvttpd_epi32(sum), zero = _mm_setzero_si128();
    const int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(_mm_packs_epi32(whole, zero), zero));
    memcpy(out, &bytes, CHANNELS);
}

static void sample_linear(const cab_image *image, double x, double y, uint8_t *out)
{
    const int w = image->width, h = image->height, left = (int)floor(x - 0.5), top = (int)floor(y - 0.5);
    const double dx = x - 0.5 - left, dy = y - 0.5 - top;
    const uint8_t *upper = image->pixels + (size_t)clamp(top, h) * (size_t)w * CHANNELS;
    const uint8_t *lower = image->pixels + (size_t)clamp(top + 1, h) * (size_t)w * CHANNELS;
    const size_t l = (size_t)clamp(left, w) * CHANNELS, r = (size_t)clamp(left + 1, w) * CHANNELS;
    for (size_t c = 0; c < CHANNELS; c++) {
        double a = upper[l + c] + (upper[r + c] - upper[l + c]) * dx;
        double b = lower[l + c] + (lower[r + c] - lower[l + c]) * dx;
        out[c] = (uint8_t)(a + (b - a) * dy);
    }
}

static void sample_nearest(const cab_image *image, double x, double y, uint8_t *out)
{
    memcpy(out, image->pixels + ((size_t)y * (size_t)image->width + (size_t)x) * CHANNELS, CHANNELS);
}

cab_status cab_adjust_affine(cab_image *image, const double m[6], cab_filter filter, const uint8_t fill[3],
                             cab_image *spare)
{
    void (*const cubic_sample)(const cab_image *, double, double, uint8_t *) =
        __builtin_cpu_supports("avx2") ? sample_cubic_avx2 : sample_cubic;
    void (*sample)(const cab_image *, double, double, uint8_t *) = filter == CAB_FILTER_BICUBIC    ? cubic_sample
                                                                   : filter == CAB_FILTER_BILINEAR ? sample_linear
                                                                                                   : sample_nearest;
    CAB_TRY(cab_image_reserve(spare, image->width, image->height));
    uint8_t *out = spare->pixels;
    for (int row = 0; row < image->height; row++)
        for (int column = 0; column < image->width; column++, out += CHANNELS) {
            double x = m[0] * (column + 0.5) + m[1] * (row + 0.5) + m[2];
            double y = m[3] * (column + 0.5) + m[4] * (row + 0.5) + m[5];
            if (x >= 0.0 && y >= 0.0 && x < image->width && y < image->height)
                sample(image, x, y, out);
            else
                memcpy(out, fill, CHANNELS);
        }
    cab_image kept = *image;
    *image = *spare;
    *spare = kept;
    return CAB_OK;
}

/* Angles such as 30 degrees land on pixel edges. Which side it is, Pillow decides with an angle within 0 .. 360 degrees, and
 * 15 decimal digits of its sine and cosine. */
static double round_15(double value)
{
    return rint(value * 1e15) / 1e15;
}

cab_status cab_adjust_rotate(cab_image *image, double degrees, cab_filter filter, const uint8_t fill[3],
                             cab_image *spare)
{
    const double pi = 3.14159265358979323846, turned = degrees - 360.0 * floor(degrees / 360.0);
    const double angle = -(turned * (pi / 180.0));
    const double c = round_15(cos(angle)), s = round_15(sin(angle));
    const double x = image->width / 2.0, y = image->height / 2.0;
    const double m[6] = {c, s, c * -x + s * -y + x, -s, c, -s * -x + c * -y + y};
    return cab_adjust_affine(image, m, filter, fill, spare);
}
