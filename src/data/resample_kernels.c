/* resample_kernels.c - weighted sums of pixels.
 *
 * Across, a pixel's three channels fill three of the four lanes of a register, and each tap adds one pixel times its weight;
 * the fourth lane sums what nobody reads. Down, neighbouring bytes are independent, and the compiler does the rest. */
#include "data/resample_kernels.h"

#include <immintrin.h>
#include <string.h>

enum { CHANNELS = 3, TILE = 512, HALF = 1 << (CAB_WEIGHT_BITS - 1) };

static inline uint8_t clip(int32_t value)
{
    value >>= CAB_WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void across_plain(const cab_axis *a, const uint8_t *in, uint8_t *out, int width)
{
    for (int x = 0; x < width; x++, out += CHANNELS) {
        const uint8_t *p = in + (size_t)a->taps[x].first * CHANNELS;
        const int32_t *w = a->weights + (size_t)x * a->stride;
        int32_t red = HALF, green = HALF, blue = HALF;
        for (int k = 0; k < a->taps[x].count; k++, p += CHANNELS) {
            red += p[0] * w[k];
            green += p[1] * w[k];
            blue += p[2] * w[k];
        }
        out[0] = clip(red);
        out[1] = clip(green);
        out[2] = clip(blue);
    }
}

static inline __attribute__((always_inline)) void sum_rows(const uint8_t *in, size_t stride, const int32_t *weights,
                                                           int count, uint8_t *out, size_t size)
{
    int32_t sum[TILE];
    for (size_t begin = 0; begin < size; begin += TILE) {
        size_t n = size - begin < TILE ? size - begin : TILE;
        for (size_t x = 0; x < n; x++)
            sum[x] = HALF;
        for (int k = 0; k < count; k++) {
            const uint8_t *row = in + (size_t)k * stride + begin;
            const int32_t weight = weights[k];
            for (size_t x = 0; x < n; x++)
                sum[x] += row[x] * weight;
        }
        for (size_t x = 0; x < n; x++)
            out[begin + x] = clip(sum[x]);
    }
}

static void down_plain(const uint8_t *in, size_t stride, const int32_t *weights, int count, uint8_t *out, size_t size)
{
    sum_rows(in, stride, weights, count, out, size);
}

__attribute__((target("avx2"))) static void down_avx2(const uint8_t *in, size_t stride, const int32_t *weights,
                                                      int count, uint8_t *out, size_t size)
{
    sum_rows(in, stride, weights, count, out, size);
}

/* Four bytes as lanes, of which the fourth belongs to the next pixel: not for the last pixel of a row. */
__attribute__((target("avx2"))) static inline __m128i lanes(const uint8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm_cvtepu8_epi32(_mm_cvtsi32_si128(four));
}

__attribute__((target("avx2"))) static void across_avx2(const cab_axis *a, const uint8_t *in, uint8_t *out, int width)
{
    const __m128i zero = _mm_setzero_si128();
    for (int x = 0; x < width; x++, out += CHANNELS) {
        const uint8_t *p = in + (size_t)a->taps[x].first * CHANNELS;
        const int32_t *w = a->weights + (size_t)x * a->stride;
        const int last = a->taps[x].count - 1;
        __m128i even = _mm_set1_epi32(HALF), odd = zero; /* two chains of additions run side by side */
        int k = 0;
        for (; k + 1 < last; k += 2, p += 2 * CHANNELS) {
            even = _mm_add_epi32(even, _mm_mullo_epi32(lanes(p), _mm_set1_epi32(w[k])));
            odd = _mm_add_epi32(odd, _mm_mullo_epi32(lanes(p + CHANNELS), _mm_set1_epi32(w[k + 1])));
        }
        if (k < last) {
            even = _mm_add_epi32(even, _mm_mullo_epi32(lanes(p), _mm_set1_epi32(w[k])));
            p += CHANNELS;
        }
        odd = _mm_add_epi32(odd, _mm_mullo_epi32(_mm_setr_epi32(p[0], p[1], p[2], 0), _mm_set1_epi32(w[last])));
        __m128i sum = _mm_srai_epi32(_mm_add_epi32(even, odd), CAB_WEIGHT_BITS);
        /* saturation to 16 bits, then to 0 .. 255, is the clip */
        int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(_mm_packs_epi32(sum, zero), zero));
        memcpy(out, &bytes, CHANNELS);
    }
}

const cab_resample_kernels *cab_resample_plain(void)
{
    static const cab_resample_kernels plain = {across_plain, down_plain};
    return &plain;
}

const cab_resample_kernels *cab_resample_fastest(void)
{
    static const cab_resample_kernels avx2 = {across_avx2, down_avx2};
    return __builtin_cpu_supports("avx2") ? &avx2 : cab_resample_plain();
}
