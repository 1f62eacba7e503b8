/* blocks.c - block types are expanded here; the layouts are those of ggml's reference (MIT licence), as facts. */
#include "tensor/blocks.h"

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

static const struct {
    int64_t elements;
    size_t bytes;
    void (*expand)(const uint8_t *block, float *to);
} blocks[CAB_DTYPES] = {
    [CAB_Q8_0] = {SMALL, 34, expand_q8_0},  [CAB_Q4_0] = {SMALL, 18, expand_q4_0},
    [CAB_Q4_1] = {SMALL, 20, expand_q4_1},  [CAB_Q5_0] = {SMALL, 22, expand_q5_0},
    [CAB_Q5_1] = {SMALL, 24, expand_q5_1},  [CAB_Q4_K] = {SUPER, 144, expand_q4_k},
    [CAB_Q5_K] = {SUPER, 176, expand_q5_k}, [CAB_Q6_K] = {SUPER, 210, expand_q6_k},
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
