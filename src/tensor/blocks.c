/* blocks.c - block types are expanded and made here; the layouts are those of ggml's reference (MIT licence), as facts. */
#include "tensor/blocks.h"

#include <math.h>

enum { SMALL = 32, SUPER = 256, MINIMA = 12 };

static float half(const uint8_t *bytes)
{
    uint16_t value;
    float result;
    memcpy(&value, bytes, sizeof value);
    cab_convert(&result, CAB_F32, &value, CAB_F16, 1);
    return result;
}

/* Elements 0 to 15 stand in the lower halves of the bytes, 16 to 31 in the upper ones. */
static void expand_q4_0(const uint8_t *b, float *to)
{
    const float d = half(b);
    for (int i = 0; i < SMALL / 2; i++) {
        to[i] = d * (float)((b[2 + i] & 15) - 8);
        to[i + SMALL / 2] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

static void expand_q4_1(const uint8_t *b, float *to)
{
    const float d = half(b), m = half(b + 2);
    for (int i = 0; i < SMALL / 2; i++) {
        to[i] = d * (float)(b[4 + i] & 15) + m;
        to[i + SMALL / 2] = d * (float)(b[4 + i] >> 4) + m;
    }
}

/* Bit i of `high` is the fifth bit of element i. */
static void expand_five(const uint8_t *fifth, const uint8_t *q, float d, float m, int zero, float *to)
{
    uint32_t high;
    memcpy(&high, fifth, sizeof high);
    for (int i = 0; i < SMALL / 2; i++) {
        const int low = (q[i] & 15) | (int)(high >> i & 1) << 4;
        const int up = q[i] >> 4 | (int)(high >> (i + SMALL / 2) & 1) << 4;
        to[i] = d * (float)(low - zero) + m;
        to[i + SMALL / 2] = d * (float)(up - zero) + m;
    }
}

static void expand_q5_0(const uint8_t *b, float *to)
{
    expand_five(b + 2, b + 6, half(b), 0, 16, to);
}

static void expand_q5_1(const uint8_t *b, float *to)
{
    expand_five(b + 4, b + 8, half(b), half(b + 2), 0, to);
}

static void expand_q8_0(const uint8_t *b, float *to)
{
    const float d = half(b);
    for (int i = 0; i < SMALL; i++)
        to[i] = d * (float)(int8_t)b[2 + i];
}

/* Scale and offset of the j-th 32 elements, 6 bits each: those of the last four are split over two bytes. */
static void six_bits(const uint8_t *s, int j, int *scale, int *offset)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *offset = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *offset = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

/* high: bit j of its byte i is the fifth bit of element i of the j-th 32; NULL: there are four. */
static void expand_k(const uint8_t *b, const uint8_t *high, const uint8_t *q, float *to)
{
    const float d = half(b), m = half(b + 2);
    for (int j = 0; j < SUPER / SMALL; j++, to += SMALL) {
        int scale, offset;
        six_bits(b + 4, j, &scale, &offset);
        const float ds = d * (float)scale, mo = m * (float)offset;
        for (int i = 0; i < SMALL; i++) {
            int value = q[j / 2 * SMALL + i] >> (j % 2 * 4) & 15;
            if (high != NULL)
                value |= (high[i] >> j & 1) << 4;
            to[i] = ds * (float)value - mo;
        }
    }
}

static void expand_q4_k(const uint8_t *b, float *to)
{
    expand_k(b, NULL, b + 4 + MINIMA, to);
}

static void expand_q5_k(const uint8_t *b, float *to)
{
    expand_k(b, b + 4 + MINIMA, b + 4 + MINIMA + SUPER / 8, to);
}

/* 128 bytes of lower four bits, 64 of upper two, 16 scales, d. In each half of a block, element 32 k + i has its lower bits in byte
 * 32 (k % 2) + i, half k / 2 of it, and its upper ones in byte i, at bit 2 k. */
static void expand_q6_k(const uint8_t *b, float *to)
{
    const uint8_t *low = b, *up = b + SUPER / 2;
    const int8_t *scales = (const int8_t *)(b + SUPER / 2 + SUPER / 4);
    const float d = half(b + SUPER / 2 + SUPER / 4 + SUPER / 16);
    for (int e = 0; e < SUPER; e++) {
        const int part = e / (SUPER / 2), k = e % (SUPER / 2) / SMALL, i = e % SMALL;
        const int four = low[part * 64 + k % 2 * SMALL + i] >> (k / 2 * 4) & 15;
        const int two = up[part * SMALL + i] >> (2 * k) & 3;
        to[e] = d * (float)scales[e / 16] * (float)((four | two << 4) - 32);
    }
}

/* The element of the largest magnitude, with its sign. */
static float extreme(const float *x)
{
    float most = x[0];
    for (int i = 1; i < SMALL; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    return most;
}

/* Stores d as fp16. *inverse is 1 / d before that rounding, as in ggml's reference; 0 where d is nothing in fp16, and the block with it.
 * false: d is beyond fp16. */
static bool put_scale(float d, uint8_t *b, float *inverse)
{
    cab_convert(b, CAB_F16, &d, CAB_F32, 1);
    *inverse = half(b) == 0 ? 0 : 1 / d;
    return isfinite(half(b));
}

static bool pack_q8_0(const float *x, uint8_t *b)
{
    float inverse;
    if (!put_scale(fabsf(extreme(x)) / 127, b, &inverse))
        return false;
    for (int i = 0; i < SMALL; i++)
        b[2 + i] = (uint8_t)(int8_t)roundf(x[i] * inverse);
    return true;
}

/* The element of the largest magnitude becomes -8, exactly. */
static int four_bits(float x, float inverse)
{
    const int q = (int)(x * inverse + 8.5f);
    return q > 15 ? 15 : q;
}

static bool pack_q4_0(const float *x, uint8_t *b)
{
    float inverse;
    if (!put_scale(extreme(x) / -8, b, &inverse))
        return false;
    for (int i = 0; i < SMALL / 2; i++)
        b[2 + i] = (uint8_t)(four_bits(x[i], inverse) | four_bits(x[i + SMALL / 2], inverse) << 4);
    return true;
}

static const struct {
    int64_t elements;
    size_t bytes;
    void (*expand)(const uint8_t *block, float *to);
    bool (*pack)(const float *from, uint8_t *block); /* NULL: read, never written */
} blocks[CAB_DTYPES] = {
    [CAB_Q8_0] = {SMALL, 34, expand_q8_0, pack_q8_0}, [CAB_Q4_0] = {SMALL, 18, expand_q4_0, pack_q4_0},
    [CAB_Q4_1] = {SMALL, 20, expand_q4_1, NULL},      [CAB_Q5_0] = {SMALL, 22, expand_q5_0, NULL},
    [CAB_Q5_1] = {SMALL, 24, expand_q5_1, NULL},      [CAB_Q4_K] = {SUPER, 144, expand_q4_k, NULL},
    [CAB_Q5_K] = {SUPER, 176, expand_q5_k, NULL},     [CAB_Q6_K] = {SUPER, 210, expand_q6_k, NULL},
};

bool cab_dtype_is_blocks(cab_dtype dtype)
{
    return blocks[dtype].elements > 0;
}

int64_t cab_dtype_block(cab_dtype dtype)
{
    return cab_dtype_is_blocks(dtype) ? blocks[dtype].elements : 1;
}

size_t cab_dtype_bytes(cab_dtype dtype, int64_t n)
{
    return cab_dtype_is_blocks(dtype) ? (size_t)(n / blocks[dtype].elements) * blocks[dtype].bytes
                                      : (size_t)n * cab_dtype_size(dtype);
}

void cab_blocks_expand(cab_dtype dtype, const void *from, float *to, int64_t n)
{
    const uint8_t *block = from;
    for (int64_t i = 0; i < n; i += blocks[dtype].elements, block += blocks[dtype].bytes)
        blocks[dtype].expand(block, to + i);
}

static int64_t find_infinite(const uint16_t *values, int64_t n, uint16_t exponent)
{
    for (int64_t i = 0; i < n; i++)
        if ((values[i] & exponent) == exponent)
            return i;
    return -1;
}

int64_t cab_blocks_pack(cab_dtype dtype, const float *from, void *to, int64_t n)
{
    uint8_t *block = to;
    if (!cab_dtype_is_blocks(dtype)) {
        cab_convert(to, dtype, from, CAB_F32, (size_t)n);
        return dtype == CAB_F32 ? -1 : find_infinite(to, n, dtype == CAB_F16 ? 0x7c00u : 0x7f80u);
    }
    for (int64_t i = 0; i < n; i += blocks[dtype].elements, block += blocks[dtype].bytes)
        if (!blocks[dtype].pack(from + i, block))
            return i;
    return -1;
}
