/* head_score_rows.cu - of rows of logits: the log-probability of a label, and the k likeliest words.
 *
 * Idea: a word's key is 64 bits, its logit as an integer of the same order above, its id turned round below, so that all keys of a row
 * differ and the larger is the likelier, of equals the smaller id. The k largest keys are those from some threshold on. A histogram of
 * the topmost 11 bits tells in which bin the k-th largest lies, one of the next 11 bits within that bin tells more, until a bin's words
 * are all wanted. The words from there on are gathered in any order, then sorted.
 *
 * Layout: one block per row, which walks over the logits in device memory: twice for the maximum and the sum, once for every histogram
 * (two or three, six at most), once to gather. Histogram and gathered keys stand in shared memory.
 *
 * Arithmetic: log p = s - max - log sum exp(s - max). Counts are integers, so their order does not matter. */
#include "ops/cuda/soft_cap.cuh"

#include "ops/cuda/head_score_rows.h"

extern "C" {
#include "ops/head_score.h"
}

enum { THREADS = 512, BITS = 11, BINS = 1 << BITS };

typedef unsigned long long key_of;

struct shared_of {
    unsigned counts[BINS];
    key_of keys[CAB_SCORE_MOST];
    float sums[THREADS / 32];
    unsigned warps[THREADS / 32];
    unsigned bin, above, inside, gathered;
};

/* Floats as integers of the same order; zeros are equal, NaN is as -inf. */
static __device__ __forceinline__ uint32_t ordered(float x)
{
    const uint32_t bits = x == x ? __float_as_uint(x + 0.0f) : 0xff800000u;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ float logit_at(const cab_score_rows &s, const float *row, int v)
{
    return s.cap > 0.0f ? soft_cap(row[v], s.cap) : row[v];
}

static __device__ __forceinline__ key_of key_at(const cab_score_rows &s, const float *row, int v)
{
    return (key_of)ordered(logit_at(s, row, v)) << 32 | (uint32_t)~v;
}

/* The largest of x over the block; every thread gets it. */
static __device__ float block_max(float x, shared_of &shared)
{
    x = warp_max(x);
    if (threadIdx.x % 32 == 0)
        shared.sums[threadIdx.x / 32] = x;
    __syncthreads();
    x = warp_max(threadIdx.x % 32 < THREADS / 32 ? shared.sums[threadIdx.x % 32] : -INFINITY);
    __syncthreads();
    return x;
}

/* The sum of x over the threads before this one. */
static __device__ unsigned block_before(unsigned x, shared_of &shared)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned sum = x;
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        const unsigned below = __shfl_up_sync(0xffffffffu, sum, lanes);
        sum += lane >= lanes ? below : 0;
    }
    __syncthreads();
    if (lane == 31)
        shared.warps[warp] = sum;
    __syncthreads();
    for (int i = 0; i < warp; i++)
        sum += shared.warps[i];
    return sum - x;
}

/* Counts the bins' words and finds the bin, from the largest down, in which the sum reaches `wanted`. */
static __device__ void find_bin(const cab_score_rows &s, const float *row, key_of prefix, int shift, int width,
                                unsigned wanted, shared_of &shared)
{
    constexpr int EACH = BINS / THREADS;
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += THREADS)
        shared.counts[i] = 0;
    __syncthreads();
    for (int v = threadIdx.x; v < s.V; v += THREADS) {
        const key_of key = key_at(s, row, v), high = shift + width < 64 ? key >> (shift + width) : 0;
        if (high == prefix)
            atomicAdd(&shared.counts[(unsigned)(key >> shift) & ((1u << width) - 1u)], 1u);
    }
    __syncthreads();
    unsigned mine = 0;
    for (int i = 0; i < EACH; i++)
        mine += shared.counts[BINS - 1 - (EACH * threadIdx.x + i)];
    unsigned above = block_before(mine, shared);
    for (int i = 0; i < EACH; i++) {
        const unsigned bin = BINS - 1 - (EACH * threadIdx.x + i), inside = shared.counts[bin];
        if (above < wanted && wanted <= above + inside) {
            shared.bin = bin;
            shared.above = above;
            shared.inside = inside;
        }
        above += inside;
    }
    __syncthreads();
}

/* The smallest of the k largest keys, but for bits that tell none of these from another word's. */
static __device__ key_of threshold_of(const cab_score_rows &s, const float *row, shared_of &shared)
{
    key_of prefix = 0;
    unsigned wanted = (unsigned)s.k;
    for (int shift = 64; shift > 0;) {
        const int width = shift < BITS ? shift : BITS;
        shift -= width;
        find_bin(s, row, prefix, shift, width, wanted, shared);
        prefix = prefix << width | shared.bin;
        wanted -= shared.above;
        if (shared.inside == wanted)
            return prefix << shift;
    }
    return prefix;
}

/* Sorts the first `size` keys, a power of two, falling. */
static __device__ void sort_keys(key_of *keys, int size)
{
    for (int run = 2; run <= size; run *= 2)
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < size; i += THREADS) {
                const int other = i ^ step;
                const bool falling = (i & run) == 0;
                if (other > i && (keys[i] < keys[other]) == falling) {
                    const key_of moved = keys[i];
                    keys[i] = keys[other];
                    keys[other] = moved;
                }
            }
        }
    __syncthreads();
}

/* The logarithm of the sum of all exponentials, the same bits in every thread. */
static __device__ float log_total(const cab_score_rows &s, const float *row, shared_of &shared)
{
    float largest = -INFINITY, sum = 0.0f;
    for (int v = threadIdx.x; v < s.V; v += THREADS)
        largest = fmaxf(largest, logit_at(s, row, v));
    largest = block_max(largest, shared);
    for (int v = threadIdx.x; v < s.V; v += THREADS)
        sum += expf(logit_at(s, row, v) - largest);
    return largest + logf(block_sum<THREADS>(sum, shared.sums));
}

static __global__ void __launch_bounds__(THREADS)
    score_row(const cab_score_rows s, int64_t first, cab_cuda_fault *fault)
{
    __shared__ shared_of shared;
    const float *row = s.logits + blockIdx.x * s.ld;
    const int64_t at = first + blockIdx.x;
    const int label = s.labels[at];
    const float total = log_total(s, row, shared);
    if (threadIdx.x == 0) {
        const bool fits = label >= -1 && label < s.V;
        if (!fits)
            raise_fault(fault, CAB_CUDA_FAULT_LABEL, label, s.V);
        s.label[at] = fits && label >= 0 ? logit_at(s, row, label) - total : 0.0f;
        shared.gathered = 0;
    }
    const key_of least = threshold_of(s, row, shared);
    int size = 1;
    while (size < s.k)
        size *= 2;
    for (int i = threadIdx.x; i < size; i += THREADS)
        shared.keys[i] = 0;
    __syncthreads();
    for (int v = threadIdx.x; v < s.V; v += THREADS) {
        const key_of key = key_at(s, row, v);
        if (key >= least)
            shared.keys[atomicAdd(&shared.gathered, 1u)] = key;
    }
    sort_keys(shared.keys, size);
    for (int i = threadIdx.x; i < s.k; i += THREADS) {
        const int v = (int)~(uint32_t)shared.keys[i];
        s.ids[at * s.k + i] = v;
        s.top[at * s.k + i] = logit_at(s, row, v) - total;
    }
}

extern "C" cab_status cab_score_rows_cuda(cab_backend *backend, const cab_score_rows *s, int64_t first, int64_t n)
{
    score_row<<<(unsigned)n, THREADS, 0, stream_of(backend)>>>(*s, first, cab_cuda_of(backend)->fault);
    return cab_cuda_launched("head_score");
}
