/* expand.h - blocks of few bits (tensor/blocks.h) to fp32, the same numbers as cab_blocks_expand() gives, in loops that the compiler
 * vectorises. Compiled with each kernel that includes it. */
#ifndef CAB_OPS_CPU_EXPAND_H
#define CAB_OPS_CPU_EXPAND_H

#include "ops/cpu/vec.h"
#include "tensor/blocks.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

enum { CAB_EXPAND_SMALL = 32, CAB_EXPAND_SUPER = 256 };

/* A finite fp16. */
static inline float cab_expand_half(const uint8_t *bytes)
{
    uint16_t bits;
    memcpy(&bits, bytes, sizeof bits);
#if defined(__F16C__)
    return _cvtsh_ss(bits);
#else
    /* Exponent and mantissa at their places in fp32, whose exponents count from 112 lower: 2^112. */
    const float magnitude = cab_bits_float((uint32_t)(bits & 0x7fffu) << 13) * 5.192296858534828e33f;
    return bits & 0x8000u ? -magnitude : magnitude;
#endif
}

/* Four bits: elements 0 to 15 in the lower halves of the bytes, 16 to 31 in the upper ones. x = d (q - zero) + m */
static inline void cab_expand_four(const uint8_t *restrict q, float d, int zero, float m, float *restrict to)
{
    for (int i = 0; i < CAB_EXPAND_SMALL / 2; i++)
        to[i] = d * (float)((q[i] & 15) - zero) + m;
    for (int i = 0; i < CAB_EXPAND_SMALL / 2; i++)
        to[i + CAB_EXPAND_SMALL / 2] = d * (float)((q[i] >> 4) - zero) + m;
}

/* Bit i of `fifth` is the fifth bit of element i. */
static inline void cab_expand_five(const uint8_t *restrict fifth, const uint8_t *restrict q, float d, int zero, float m,
                                   float *restrict to)
{
    uint32_t high;
    memcpy(&high, fifth, sizeof high);
    for (int i = 0; i < CAB_EXPAND_SMALL / 2; i++)
        to[i] = d * (float)(((q[i] & 15) | (int)(high >> i & 1) << 4) - zero) + m;
    for (int i = 0; i < CAB_EXPAND_SMALL / 2; i++)
        to[i + CAB_EXPAND_SMALL / 2] =
            d * (float)((q[i] >> 4 | (int)(high >> (i + CAB_EXPAND_SMALL / 2) & 1) << 4) - zero) + m;
}

static inline void cab_expand_q8_0(const uint8_t *restrict b, float *restrict to)
{
    const float d = cab_expand_half(b);
    for (int i = 0; i < CAB_EXPAND_SMALL; i++)
        to[i] = d * (float)(int8_t)b[2 + i];
}

/* Scale and offset of the j-th 32 elements, 6 bits each: those of the last four are split over two bytes. */
static inline void cab_expand_six_bits(const uint8_t *s, int j, int *scale, int *offset)
{
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    *offset = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
}

/* high: bit j of its byte i is the fifth bit of element i of the j-th 32; NULL: there are four. */
static inline void cab_expand_k(const uint8_t *b, const uint8_t *restrict high, const uint8_t *q, float *to)
{
    const float d = cab_expand_half(b), m = cab_expand_half(b + 2);
    for (int j = 0; j < CAB_EXPAND_SUPER / CAB_EXPAND_SMALL; j++) {
        const uint8_t *restrict from = q + j / 2 * CAB_EXPAND_SMALL;
        float *restrict out = to + j * CAB_EXPAND_SMALL;
        const int shift = j % 2 * 4;
        int scale, offset;
        cab_expand_six_bits(b + 4, j, &scale, &offset);
        const float ds = d * (float)scale, mo = m * (float)offset;
        if (high == NULL)
            for (int i = 0; i < CAB_EXPAND_SMALL; i++)
                out[i] = ds * (float)(from[i] >> shift & 15) - mo;
        else
            for (int i = 0; i < CAB_EXPAND_SMALL; i++)
                out[i] = ds * (float)((from[i] >> shift & 15) | (high[i] >> j & 1) << 4) - mo;
    }
}

/* Lower four bits, upper two, 16 scales, d: blocks.c says where each element's are. */
static inline void cab_expand_q6_k(const uint8_t *b, float *to)
{
    const int8_t *scales = (const int8_t *)(b + 192);
    const float d = cab_expand_half(b + 208);
    for (int j = 0; j < CAB_EXPAND_SUPER / 16; j++) {
        const int half = j / 8, k = j / 2 % 4, first = j % 2 * 16;
        const uint8_t *restrict low = b + half * 64 + k % 2 * CAB_EXPAND_SMALL + first;
        const uint8_t *restrict up = b + 128 + half * CAB_EXPAND_SMALL + first;
        float *restrict out = to + j * 16;
        const float ds = d * (float)scales[j];
        for (int i = 0; i < 16; i++)
            out[i] = ds * (float)(((low[i] >> (k / 2 * 4) & 15) | (up[i] >> (2 * k) & 3) << 4) - 32);
    }
}

/* n elements, a multiple of the type's block. */
static inline void cab_expand(cab_dtype dtype, const void *from, float *to, int64_t n)
{
    const int64_t block = cab_dtype_block(dtype);
    const size_t bytes = cab_dtype_bytes(dtype, block);
    const uint8_t *b = from;
    for (int64_t i = 0; i < n; i += block, b += bytes) {
        float *out = to + i;
        switch (dtype) {
        case CAB_Q8_0:
            cab_expand_q8_0(b, out);
            break;
        case CAB_Q4_0:
            cab_expand_four(b + 2, cab_expand_half(b), 8, 0, out);
            break;
        case CAB_Q4_1:
            cab_expand_four(b + 4, cab_expand_half(b), 0, cab_expand_half(b + 2), out);
            break;
        case CAB_Q5_0:
            cab_expand_five(b + 2, b + 6, cab_expand_half(b), 16, 0, out);
            break;
        case CAB_Q5_1:
            cab_expand_five(b + 4, b + 8, cab_expand_half(b), 0, cab_expand_half(b + 2), out);
            break;
        case CAB_Q4_K:
            cab_expand_k(b, NULL, b + 16, out);
            break;
        case CAB_Q5_K:
            cab_expand_k(b, b + 16, b + 48, out);
            break;
        default: /* CAB_Q6_K */
            cab_expand_q6_k(b, out);
            break;
        }
    }
}

#endif
