/* blocks.cuh - blocks of few bits (tensor/blocks.h) in registers: 8 neighbouring elements at a time, the same numbers as
 * cab_blocks_expand() gives.
 *
 * Arithmetic: x = d u, or x = d u + m, u an integer; each operation is rounded by itself, as on the host.
 *
 * Layout: 8 elements that begin at a multiple of 8 have their bits in 8 neighbouring bytes, those of 5 and 6 bits the upper ones elsewhere.
 * All blocks and what they hold begin at multiples of 2 bytes. */
#ifndef CAB_OPS_CUDA_BLOCKS_CUH
#define CAB_OPS_CUDA_BLOCKS_CUH

#include "ops/cuda/cuda.cuh"

#include <cuda_fp16.h>

enum { BLOCK_PACKET = 8 };

/* Elements and bytes of a block. */
template <cab_dtype Q> struct block_of;
template <int ELEMENTS_, int BYTES_> struct block_sizes {
    static constexpr int ELEMENTS = ELEMENTS_, BYTES = BYTES_;
};
template <> struct block_of<CAB_Q8_0> : block_sizes<32, 34> {};
template <> struct block_of<CAB_Q4_0> : block_sizes<32, 18> {};
template <> struct block_of<CAB_Q4_1> : block_sizes<32, 20> {};
template <> struct block_of<CAB_Q5_0> : block_sizes<32, 22> {};
template <> struct block_of<CAB_Q5_1> : block_sizes<32, 24> {};
template <> struct block_of<CAB_Q4_K> : block_sizes<256, 144> {};
template <> struct block_of<CAB_Q5_K> : block_sizes<256, 176> {};
template <> struct block_of<CAB_Q6_K> : block_sizes<256, 210> {};

/* Runs `call` with Q the type of the blocks. */
#define BY_BLOCKS(dtype_, call)                                                                                        \
    switch (dtype_) {                                                                                                  \
        BLOCKS_CASE(CAB_Q8_0, call)                                                                                    \
        BLOCKS_CASE(CAB_Q4_0, call)                                                                                    \
        BLOCKS_CASE(CAB_Q4_1, call)                                                                                    \
        BLOCKS_CASE(CAB_Q5_0, call)                                                                                    \
        BLOCKS_CASE(CAB_Q5_1, call)                                                                                    \
        BLOCKS_CASE(CAB_Q4_K, call)                                                                                    \
        BLOCKS_CASE(CAB_Q5_K, call)                                                                                    \
    default:                                                                                                           \
        BLOCKS_CASE(CAB_Q6_K, call)                                                                                    \
    }
#define BLOCKS_CASE(type, call)                                                                                        \
    case type: {                                                                                                       \
        constexpr cab_dtype Q = type;                                                                                  \
        call;                                                                                                          \
        break;                                                                                                         \
    }

__device__ __forceinline__ float half_at(const uint8_t *at)
{
    return __half2float(*reinterpret_cast<const __half *>(at));
}

/* Four bytes at a multiple of ALIGNED, 2 or 4. */
template <int ALIGNED> __device__ __forceinline__ uint32_t word_at(const uint8_t *at)
{
    if (ALIGNED == 4)
        return *reinterpret_cast<const uint32_t *>(at);
    const uint16_t *halves = reinterpret_cast<const uint16_t *>(at);
    return halves[0] | (uint32_t)halves[1] << 16;
}

/* Byte i of 8. */
__device__ __forceinline__ int byte_of(const uint32_t (&words)[2], int i)
{
    return words[i / 4] >> 8 * (i % 4) & 255;
}

/* 8 elements: x = d u + m. */
struct packet_bits {
    float d, m;
    int u[BLOCK_PACKET];
};

/* u = `bits` bits of each of 8 bytes, from bit `shift` on. */
template <int ALIGNED> __device__ __forceinline__ void take_bits(packet_bits &p, const uint8_t *from, int shift, int mask)
{
    const uint32_t words[2] = {word_at<ALIGNED>(from), word_at<ALIGNED>(from + 4)};
#pragma unroll
    for (int i = 0; i < BLOCK_PACKET; i++)
        p.u[i] = byte_of(words, i) >> shift & mask;
}

/* Scale and offset of the j-th 32 elements, 6 bits each: those of the last four are split over two bytes. */
__device__ __forceinline__ void take_six_bits(packet_bits &p, const uint8_t *b, int j)
{
    const uint8_t *s = b + 4;
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    const int offset = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    p.d = __fmul_rn(half_at(b), (float)scale);
    p.m = -__fmul_rn(half_at(b + 2), (float)offset);
}

/* The elements e ... e + 7 of block b. */
template <cab_dtype Q> __device__ __forceinline__ packet_bits take_packet(const uint8_t *b, int e)
{
    packet_bits p;
    p.m = 0.0f;
    if (Q == CAB_Q8_0) {
        take_bits<2>(p, b + 2 + e, 0, 255);
#pragma unroll
        for (int i = 0; i < BLOCK_PACKET; i++)
            p.u[i] = (int8_t)p.u[i];
    } else if (Q == CAB_Q4_0 || Q == CAB_Q4_1) {
        take_bits<(Q == CAB_Q4_1 ? 4 : 2)>(p, b + (Q == CAB_Q4_1 ? 4 : 2) + e % 16, e / 16 * 4, 15);
    } else if (Q == CAB_Q5_0 || Q == CAB_Q5_1) { /* bit i of the word is the fifth bit of element i */
        constexpr int AT = Q == CAB_Q5_1 ? 4 : 2;
        const uint32_t fifth = word_at<AT>(b + AT) >> e;
        take_bits<AT>(p, b + AT + 4 + e % 16, e / 16 * 4, 15);
#pragma unroll
        for (int i = 0; i < BLOCK_PACKET; i++)
            p.u[i] |= (int)(fifth >> i & 1) << 4;
    } else if (Q == CAB_Q4_K || Q == CAB_Q5_K) { /* bit j of byte i is the fifth bit of element i of the j-th 32 */
        const int j = e / 32;
        packet_bits fifth;
        take_bits<4>(p, b + (Q == CAB_Q5_K ? 48 : 16) + j / 2 * 32 + e % 32, j % 2 * 4, 15);
        if (Q == CAB_Q5_K)
            take_bits<4>(fifth, b + 16 + e % 32, j, 1);
#pragma unroll
        for (int i = 0; i < BLOCK_PACKET && Q == CAB_Q5_K; i++)
            p.u[i] |= fifth.u[i] << 4;
    } else {
        const int part = e / 128, k = e % 128 / 32;
        packet_bits upper;
        take_bits<2>(p, b + part * 64 + k % 2 * 32 + e % 32, k / 2 * 4, 15);
        take_bits<2>(upper, b + 128 + part * 32 + e % 32, 2 * k, 3);
#pragma unroll
        for (int i = 0; i < BLOCK_PACKET; i++)
            p.u[i] |= upper.u[i] << 4;
    }
    if (Q == CAB_Q4_K || Q == CAB_Q5_K)
        take_six_bits(p, b, e / 32);
    else if (Q == CAB_Q6_K)
        p.d = __fmul_rn(half_at(b + 208), (float)(int8_t)b[192 + e / 16]);
    else
        p.d = half_at(b);
    if (Q == CAB_Q4_1 || Q == CAB_Q5_1)
        p.m = half_at(b + 2);
    return p;
}

/* The elements column ... column + 7 of a row, whose blocks begin at `row`; column is a multiple of 8. */
template <cab_dtype Q> __device__ __forceinline__ void load_packet(const uint8_t *row, int64_t column, float (&to)[8])
{
    constexpr bool OFFSET = Q == CAB_Q4_1 || Q == CAB_Q5_1 || Q == CAB_Q4_K || Q == CAB_Q5_K;
    constexpr int ZERO = Q == CAB_Q4_0 ? 8 : Q == CAB_Q5_0 ? 16 : Q == CAB_Q6_K ? 32 : 0;
    const packet_bits p = take_packet<Q>(row + column / block_of<Q>::ELEMENTS * block_of<Q>::BYTES,
                                         (int)(column % block_of<Q>::ELEMENTS));
#pragma unroll
    for (int i = 0; i < BLOCK_PACKET; i++) {
        const float product = __fmul_rn(p.d, (float)(p.u[i] - ZERO));
        to[i] = OFFSET ? __fadd_rn(product, p.m) : product;
    }
}

#endif
