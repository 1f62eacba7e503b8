/* next_token.cu - the next token of every sequence: the likeliest, or a draw, without sorting the vocabulary.
 *
 * Layout: a block of 1024 threads takes one sequence and walks over its logits in device memory. A histogram of 2048
 * ranges stands in shared memory.
 *
 * Arithmetic: top-k, top-p and the draw itself are one question. Add up something over the tokens in falling order of
 * their logits: at which token does the sum pass a target? For top-k the something is 1, for top-p and the draw it is
 * the probability. A token's key is `distance`, the number of floats between its logit and the largest. The histogram
 * cuts the keys into 2048 equal ranges and tells in which range the sum passes the target. That range is cut again, at
 * most three times, until it is one key. Tokens of equal logits follow by id.
 *
 * A probability is a fixed-point number of 39 fractional bits. Sums of such numbers do not depend on their order, so
 * integer atomics may fill the histogram. Top-k, top-p and min-p each leave the likeliest tokens, so the probability
 * that is left describes each of them.
 *
 * Bytes: the logits, from the second-level cache, once for the likeliest and up to 12 times for a draw. */
#include "ops/cuda/cuda.cuh"
#include "ops/cuda/philox.cuh"

extern "C" {
#include "base/random.h"
#include "ops/next_token.h"
}

enum { THREADS = 1024, BITS = 11, BINS = 1 << BITS, AHEAD = 8, FRACTION = 39 };

typedef unsigned long long mass;

struct next_shared {
    uint32_t low[BINS], high[BINS]; /* halves of a bin's mass */
    mass warps[THREADS / 32], before;
    int bin, token, counts[THREADS / 32];
};

/* One sequence's logits. */
template <typename T> struct row_of {
    const T *data;
    int n;
    const uint32_t *seen; /* NULL: no penalty */
    float penalty, largest, temperature;
    uint32_t top, range; /* the largest as an integer; the distance of the smallest */

    __device__ __forceinline__ float at(int id) const
    {
        const float x = to_float(data[id]);
        if (seen == NULL || (seen[id / 32] >> id % 32 & 1u) == 0)
            return x;
        return x > 0.0f ? x / penalty : x * penalty;
    }

    /* Calls f(id, logit) for this thread's part of the row, ids rising; loads go ahead of their use. */
    template <typename F> __device__ __forceinline__ void each(F f) const
    {
        for (int first = threadIdx.x; first < n; first += THREADS * AHEAD) {
            float x[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                x[i] = first + i * THREADS < n ? at(first + i * THREADS) : 0.0f;
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                if (first + i * THREADS < n)
                    f(first + i * THREADS, x[i]);
        }
    }
};

/* Floats as integers of the same order; zeros are equal, NaN is as -inf. */
static __device__ __forceinline__ uint32_t ordered(float x)
{
    const uint32_t bits = x == x ? __float_as_uint(x + 0.0f) : 0xff800000u;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ float from_ordered(uint32_t key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

template <typename T> static __device__ __forceinline__ mass mass_of(const row_of<T> &row, float x)
{
    const float p = expf((x - row.largest) / row.temperature);
    return p > 0.0f ? __float2ull_rn(p * (float)(1ull << FRACTION)) : 0;
}

/* ---- over the block --------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ mass warp_total(mass x)
{
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}

/* Every thread gets the sum. */
static __device__ mass block_total(mass x, next_shared &shared)
{
    x = warp_total(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        shared.warps[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_total(shared.warps[threadIdx.x % 32]);
}

/* The sum over the threads before this one. */
static __device__ mass block_before(mass x, next_shared &shared)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    mass sum = x, total = 0;
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        const mass below = __shfl_up_sync(0xffffffffu, sum, lanes);
        sum += lane >= lanes ? below : 0;
    }
    __syncthreads();
    if (lane == 31)
        shared.warps[warp] = sum;
    __syncthreads();
    total = warp_total(lane < warp ? shared.warps[lane] : 0);
    return total + sum - x;
}

/* The largest of x over the block; every thread gets it. */
static __device__ mass block_largest(mass x, next_shared &shared)
{
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        const mass other = __shfl_xor_sync(0xffffffffu, x, lanes);
        x = other > x ? other : x;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        shared.warps[threadIdx.x / 32] = x;
    __syncthreads();
    for (int i = 0; i < THREADS / 32; i++)
        x = shared.warps[i] > x ? shared.warps[i] : x;
    return x;
}

/* ---- where a cumulative sum passes ----------------------------------------------------------------------------------- */

/* A value of the logits, by its distance, and the sum over those above it. */
struct found {
    uint32_t distance;
    mass before;
};

static __device__ __forceinline__ void add_mass(next_shared &shared, uint32_t bin, mass x)
{
    const uint32_t low = (uint32_t)x, old = atomicAdd(&shared.low[bin], low);
    const uint32_t high = (uint32_t)(x >> 32) + (old + low < old);
    if (high > 0)
        atomicAdd(&shared.high[bin], high);
}

/* The bin in which the sum passes `target`: every thread holds two of them. `at` moves to it. */
static __device__ void choose_bin(next_shared &shared, mass target, int shift, found *at)
{
    const int bin = 2 * threadIdx.x;
    const mass one = (mass)shared.high[bin] << 32 | shared.low[bin];
    const mass two = (mass)shared.high[bin + 1] << 32 | shared.low[bin + 1];
    const mass before = at->before + block_before(one + two, shared);
    if (before <= target && target < before + one + two) {
        const bool first = target < before + one;
        shared.bin = first ? bin : bin + 1;
        shared.before = first ? before : before + one;
    }
    __syncthreads();
    at->distance += (uint32_t)shared.bin << shift;
    at->before = shared.before;
}

/* The first value at which the sum, of ones (COUNT) or of masses, over the logits in falling order is larger than
 * `target`; the largest logit if none is. */
template <bool COUNT, typename T> static __device__ found find(const row_of<T> &row, mass target, next_shared &shared)
{
    found at = {0, 0};
    int shift = 32 - BITS - __clz(row.range);
    for (shift = shift > 0 ? shift : 0;; shift = shift > BITS ? shift - BITS : 0) {
        __syncthreads();
        for (int i = threadIdx.x; i < BINS; i += THREADS)
            shared.low[i] = shared.high[i] = 0;
        if (threadIdx.x == 0) {
            shared.bin = 0;
            shared.before = at.before;
        }
        __syncthreads();
        row.each([&](int, float x) {
            const uint32_t distance = row.top - ordered(x), bin = (distance - at.distance) >> shift;
            if (distance >= at.distance && bin < BINS)
                add_mass(shared, bin, COUNT ? 1 : mass_of(row, x));
        });
        __syncthreads();
        choose_bin(shared, target, shift, &at);
        if (shift == 0)
            return at;
    }
}

/* The logits at one value all have the same mass. */
template <typename T> static __device__ __forceinline__ mass mass_at(const row_of<T> &row, const found &at)
{
    return mass_of(row, from_ordered(row.top - at.distance));
}

/* ---- a draw --------------------------------------------------------------------------------------------------------------- */

/* The mass that top-k leaves: all above the k-th logit, and as many of its equals as are needed. */
template <typename T> static __device__ mass total_of(const row_of<T> &row, uint32_t top_k, next_shared &shared)
{
    const bool all = top_k == 0 || top_k >= (uint32_t)row.n;
    found kth = {0, 0};
    mass sum = 0;
    if (!all)
        kth = find<true>(row, top_k - 1, shared);
    row.each([&](int, float x) {
        if (all || row.top - ordered(x) < kth.distance)
            sum += mass_of(row, x);
    });
    sum = block_total(sum, shared);
    return all ? sum : sum + (top_k - kth.before) * mass_at(row, kth);
}

/* Of these the fewest that hold a share of p, one at least. */
template <typename T>
static __device__ mass likely_of(const row_of<T> &row, mass total, float top_p, next_shared &shared)
{
    const mass needed = (mass)ceil((double)top_p * (double)total);
    if (top_p >= 1.0f)
        return total;
    const mass target = needed > 0 ? needed - 1 : 0;
    const found last = find<false>(row, target, shared);
    const mass each = mass_at(row, last);
    return each > 0 ? last.before + ((target - last.before) / each + 1) * each : total;
}

/* The mass of all that have a share of the largest's, which is 1. */
template <typename T> static __device__ mass large_of(const row_of<T> &row, float min_p, next_shared &shared)
{
    const mass least = (mass)((double)min_p * (double)(1ull << FRACTION));
    mass sum = 0;
    row.each([&](int, float x) {
        const mass m = mass_of(row, x);
        sum += m >= least ? m : 0;
    });
    return block_total(sum, shared);
}

/* The id of the n-th logit, counted from 0, at a distance; the tiles of a row go by in order. */
template <typename T> static __device__ int nth_of(const row_of<T> &row, uint32_t distance, mass n, next_shared &shared)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int first = 0; first < row.n; first += THREADS) {
        const int i = first + (int)threadIdx.x;
        const bool hit = i < row.n && row.top - ordered(row.at(i < row.n ? i : 0)) == distance;
        const unsigned hits = __ballot_sync(0xffffffffu, hit);
        if (lane == 0)
            shared.counts[warp] = __popc(hits);
        const mass here = (mass)__syncthreads_count(hit);
        if (n < here) {
            mass rank = (mass)__popc(hits & ((1u << lane) - 1u));
            for (int k = 0; k < warp; k++)
                rank += (mass)shared.counts[k];
            if (hit && rank == n)
                shared.token = i;
            break;
        }
        n -= here;
        __syncthreads();
    }
    __syncthreads();
    return shared.token;
}

struct next_arguments {
    const int32_t *prompts, *lengths, *samples;
    int32_t *tokens, *position;
    uint32_t *seen; /* NULL: no penalty */
    int64_t prompt_ld;
    cab_sampling sampling;
    unsigned *ticket;
};

template <typename T>
static __device__ int draw(row_of<T> &row, const next_arguments &a, int64_t index, next_shared &shared)
{
    mass best = 0;
    uint32_t least = 0xffffffffu;
    row.each([&](int id, float x) {
        const uint32_t key = ordered(x);
        const mass pair = (mass)key << 32 | (uint32_t)~id; /* of equals the first id */
        best = pair > best ? pair : best;
        least = key < least ? key : least;
    });
    best = block_largest(best, shared);
    const int likeliest = (int)~(uint32_t)best;
    if (a.sampling.temperature <= 0.0f)
        return likeliest;
    row.top = (uint32_t)(best >> 32);
    row.range = row.top - ~(uint32_t)block_largest(~least, shared);
    row.largest = from_ordered(row.top);
    row.temperature = a.sampling.temperature;
    mass total = likely_of(row, total_of(row, a.sampling.top_k, shared), a.sampling.top_p, shared);
    if (a.sampling.min_p > 0.0f) {
        const mass large = large_of(row, a.sampling.min_p, shared);
        total = large < total ? large : total;
    }
    const mass u = philox(a.sampling.seed, CAB_STREAM_SAMPLE, (uint32_t)a.samples[blockIdx.x], (uint64_t)index).at[0] >> 8;
    const mass target = __umul64hi(total, u << 40); /* total * u / 2^24 */
    const found at = find<false>(row, target, shared);
    const mass each = mass_at(row, at);
    return each > 0 && total > 0 ? nth_of(row, at.distance, (target - at.before) / each, shared) : likeliest;
}

/* Marks the token that was fed; the marks, NULL without a penalty. */
static __device__ const uint32_t *mark_fed(const next_arguments &a, int words)
{
    if (a.seen == NULL)
        return NULL;
    uint32_t *marks = a.seen + (int64_t)blockIdx.x * ((words + 31) / 32);
    const int32_t token = a.tokens[blockIdx.x];
    if (threadIdx.x == 0 && token >= 0 && token < words)
        marks[token / 32] |= 1u << token % 32;
    __syncthreads();
    return marks;
}

template <typename T>
static __global__ void __launch_bounds__(THREADS, 1)
    next_token(rows_of<const T> logits, int words, const next_arguments a)
{
    __shared__ next_shared shared;
    const int64_t b = blockIdx.x, next = (int64_t)*a.position + 1;
    const uint32_t *seen = mark_fed(a, words);
    int token;
    if (next < a.lengths[b]) {
        token = a.prompts[b * a.prompt_ld + next];
    } else {
        row_of<T> row = {logits.at(b, 0), words, seen, a.sampling.repeat_penalty};
        token = draw(row, a, next - a.lengths[b], shared);
    }
    if (threadIdx.x == 0)
        a.tokens[b] = token;
    if (arrives_last(a.ticket) && threadIdx.x == 0 && next <= INT32_MAX)
        *a.position = (int32_t)next;
}

extern "C" cab_status cab_next_token_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *logits = node->in[CAB_NEXT_LOGITS], *prompts = node->in[CAB_NEXT_PROMPTS];
    next_arguments a;
    a.prompts = (const int32_t *)prompts->data;
    a.prompt_ld = prompts->ld;
    a.lengths = (const int32_t *)node->in[CAB_NEXT_LENGTHS]->data;
    a.samples = (const int32_t *)node->in[CAB_NEXT_SAMPLES]->data;
    a.tokens = (int32_t *)node->in[CAB_NEXT_TOKENS]->data;
    a.position = (int32_t *)node->in[CAB_NEXT_POSITION]->data;
    a.seen = node->in[CAB_NEXT_SEEN] ? (uint32_t *)node->in[CAB_NEXT_SEEN]->data : NULL;
    a.sampling = *(const cab_sampling *)node->attributes;
    a.ticket = cab_cuda_of(backend)->ticket;
    BY_DTYPE(logits->dtype, (next_token<T><<<(unsigned)cab_rows(logits), THREADS, 0, stream_of(backend)>>>(
                                rows<const T>(logits), (int)cab_columns(logits), a)));
    return cab_cuda_launched("next_token");
}
