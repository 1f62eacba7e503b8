/* random.h - counter-based random numbers (Philox 4x32-10, Salmon et al. 2011).
 *
 * A value is a pure function of (seed, stream, index): threads, resumption and order cannot change it. */
#ifndef CAB_BASE_RANDOM_H
#define CAB_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Names of streams, so that two uses of one seed never share numbers. */
typedef enum cab_stream {
    CAB_STREAM_INIT = 1, /* parameters; the low 32 bits of index count elements, `sub` the parameter */
    CAB_STREAM_SUBSET,   /* which documents a fraction keeps */
    CAB_STREAM_SHUFFLE,  /* order of documents and windows */
    CAB_STREAM_SAMPLE,   /* generation */
    CAB_STREAM_TEST,
    CAB_STREAM_AUGMENT, /* one image of one epoch: crop, flip, colours ... */
    CAB_STREAM_MIX,     /* one batch: mixup and cutmix */
    CAB_STREAM_TASK,    /* the sequences of recall; `sub` their size */
    CAB_STREAM_LOOPS    /* what comes again and again in a training sequence; `index` its number times 256 */
} cab_stream;

typedef struct cab_random {
    uint64_t seed;
    uint32_t stream;
    uint32_t sub; /* parameter, epoch, sample ...: whatever the stream counts */
    uint64_t index;
} cab_random;

/* Four independent 32-bit words for counter (index, sub, stream) under key seed. */
void cab_philox(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index, uint32_t out[4]);

/* Sequential views over the counter; each call advances index by one (cab_random_below: once more per rejected
 * draw, of probability below n / 2^64). */
uint32_t cab_random_u32(cab_random *random);
/* Uniform in [0, n), without bias. n > 0. */
uint64_t cab_random_below(cab_random *random, uint64_t n);
/* Uniform in [0, 1), 24 bits. */
float cab_random_uniform(cab_random *random);
/* Standard normal (Box-Muller). */
float cab_random_normal(cab_random *random);
/* `count` of them, four from each step of the counter: number i is one of step i / 4. */
void cab_random_normals(cab_random *random, float *out, size_t count);
/* The same numbers from draw i on: for loops whose turns need not follow one another. */
static inline cab_random cab_random_at(cab_random random, uint64_t i)
{
    random.index += i;
    return random;
}
/* A uniformly drawn permutation of 0..n-1 (Fisher-Yates). */
void cab_random_permutation(cab_random *random, uint64_t *order, uint64_t n);

#endif
