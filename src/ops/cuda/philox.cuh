/* philox.cuh - the random numbers of base/random.c on the GPU.
 *
 * Layout: a thread computes one step of the counter, four words. Arithmetic: Philox 4x32-10 in 32-bit integers, the same words as on the
 * processor. */
#ifndef CAB_OPS_CUDA_PHILOX_CUH
#define CAB_OPS_CUDA_PHILOX_CUH

#include <stdint.h>

struct philox_words {
    uint32_t at[4];
};

__device__ __forceinline__ philox_words philox(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = sub, c3 = stream;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const philox_words words = {{c0, c1, c2, c3}};
    return words;
}

#endif
