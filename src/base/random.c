/* random.c - Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 *
 *   counter = (index low, index high, sub, stream)    key = (seed low, seed high)
 *   ten rounds of   (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0))
 *   with the key bumped by (W0, W1) between rounds. */
#include "base/random.h"

#include <math.h>
#include <string.h>

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u /* golden ratio */
#define PHILOX_W1 0xBB67AE85u /* sqrt(3) - 1 */

enum { PHILOX_ROUNDS = 10 };

void cab_philox(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index, uint32_t out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = sub, c3 = stream;
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * c0;
        uint64_t p1 = (uint64_t)PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void next(cab_random *random, uint32_t out[4])
{
    cab_philox(random->seed, random->stream, random->sub, random->index, out);
    random->index++;
}

uint32_t cab_random_u32(cab_random *random)
{
    uint32_t words[4];
    next(random, words);
    return words[0];
}

/* The 2^64 mod n smallest values are refused: what remains is a whole number of copies of 0..n-1. */
uint64_t cab_random_below(cab_random *random, uint64_t n)
{
    uint64_t refused = (0 - n) % n;
    for (;;) {
        uint32_t words[4];
        next(random, words);
        uint64_t value = (uint64_t)words[1] << 32 | words[0];
        if (value >= refused)
            return value % n;
    }
}

float cab_random_uniform(cab_random *random)
{
    return (float)(cab_random_u32(random) >> 8) * 0x1p-24f;
}

/* sqrt(-2 ln u) cos(2 pi v) with u in (0, 1]; 32 bits of u reach 6.6 standard deviations. */
float cab_random_normal(cab_random *random)
{
    const double two_pi = 6.283185307179586;
    uint32_t words[4];
    next(random, words);
    double u = ((double)words[0] + 1.0) * 0x1p-32;
    double v = (double)words[1] * 0x1p-32;
    return (float)(sqrt(-2.0 * log(u)) * cos(two_pi * v));
}

void cab_random_normals(cab_random *random, float *out, size_t count)
{
    const double two_pi = 6.283185307179586;
    for (size_t i = 0; i < count; i += 4) {
        uint32_t words[4];
        float values[4];
        next(random, words);
        for (int k = 0; k < 4; k += 2) {
            double radius = sqrt(-2.0 * log(((double)words[k] + 1.0) * 0x1p-32));
            double angle = two_pi * ((double)words[k + 1] * 0x1p-32);
            values[k] = (float)(radius * cos(angle));
            values[k + 1] = (float)(radius * sin(angle));
        }
        memcpy(out + i, values, (count - i < 4 ? count - i : 4) * sizeof *values);
    }
}

void cab_random_permutation(cab_random *random, uint64_t *order, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        order[i] = i;
    for (uint64_t left = n; left > 1; left--) {
        uint64_t pick = cab_random_below(random, left);
        uint64_t last = order[left - 1];
        order[left - 1] = order[pick];
        order[pick] = last;
    }
}
