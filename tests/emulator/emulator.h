/* emulator.h - CUDA C on one processor thread, to test kernels where there is no GPU: included before everything else in sources
 * that rewrite.py made of .cu files.
 *
 * A block's threads are fibers (fibers.cpp). They run one after another until each has come to a barrier, or to an instruction of its
 * warp; EMULATOR_SEED=n runs them in an order that changes all the time, so that a barrier that is missing shows; races.cpp looks at every access to shared memory besides. Shared memory
 * is static, with addresses of 32 bits as instructions want them; what a launch asks for begins as NaN. Numbers are IEEE's where
 * the GPU approximates. */
#ifndef EMULATOR_H
#define EMULATOR_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <functional>
#include <tuple>

/* ---- the language ---------------------------------------------------------------------------------------------------- */

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

typedef struct emulator_place {
    uint3 thread, block;
    dim3 threads, blocks;
} emulator_place;
extern emulator_place emulator_here;
#define threadIdx (emulator_here.thread)
#define blockIdx (emulator_here.block)
#define blockDim (emulator_here.threads)
#define gridDim (emulator_here.blocks)

/* kernel<<<blocks, threads, shared, stream>>>(arguments): `body` is called once per thread. While a graph is captured, it is kept. */
void emulator_launch(dim3 blocks, dim3 threads, size_t shared, cudaStream_t stream, std::function<void()> body);
/* What any work on a stream becomes: done at once, or kept in the graph. */
void emulator_do(std::function<void()> work);
void *emulator_dynamic_shared();

/* ---- races (races.cpp) ----------------------------------------------------------------------------------------------- */

/* Who runs: the thread's number in its block, the barriers of the program so far, 0 while no block runs, and the times that its warp has
 * come together for __syncwarp(), and those of its team, four neighbouring warps, for a barrier of theirs. */
typedef struct emulator_time {
    uint32_t barrier, sync;
    int thread;
    uint32_t team;
} emulator_time;
extern emulator_time emulator_now;
/* What instructions do, for the thread that runs; `code`: where in the program. */
void emulator_reads(const void *p, size_t bytes, const void *code);
void emulator_writes(const void *p, size_t bytes, const void *code);
/* Copies behind the program's back, groups of them, and waiting for all or all but the last groups; a block of so many threads begins. */
void emulator_copies(const void *p, size_t bytes, const void *code);
void emulator_copies_commit();
void emulator_copies_wait();
void emulator_copies_wait_but(size_t groups);
void emulator_copies_begin(size_t threads);
/* What a product of four warps reads: written to before a fence.proxy.async of the thread that wrote it. */
void emulator_reads_asynchronously(const void *p, size_t bytes, const void *code);
void emulator_proxy_fence();
#define EMULATOR_UNWATCHED __attribute__((noinline, no_sanitize("thread")))

using std::isfinite;
using std::isinf;
using std::isnan;

/* ---- block and warp -------------------------------------------------------------------------------------------------- */

enum { EMULATOR_LANES = 32, EMULATOR_TEAM = 128, EMULATOR_BYTES = 32 /* that a lane can give */ };
typedef const char emulator_gifts[EMULATOR_LANES][EMULATOR_BYTES];

/* Waits for the block; the number of threads that came with a true `predicate`. */
int emulator_barrier(bool predicate);
/* Waits for a team: four neighbouring warps, all of them, by a barrier of that number. */
void emulator_team_barrier(int number, int threads);
/* Waits for the lanes of `mask`; what each gave. The same instruction (`kind`) must bring them together. */
emulator_gifts &emulator_exchange(uint32_t mask, const void *gift, size_t bytes, int kind);

static inline int emulator_lane()
{
    return (int)((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % EMULATOR_LANES);
}

template <typename T> static inline T emulator_gift(emulator_gifts &gifts, int lane)
{
    T value;
    memcpy(&value, gifts[lane], sizeof value);
    return value;
}

enum {
    EMULATOR_SYNC,
    EMULATOR_XOR,
    EMULATOR_ANY,
    EMULATOR_UP,
    EMULATOR_DOWN,
    EMULATOR_REDUCE,
    EMULATOR_BALLOT,
    EMULATOR_MATCH,
    EMULATOR_LOAD,
    EMULATOR_MMA,
    EMULATOR_TRANSPOSE,
    EMULATOR_WGMMA
};

static inline void __syncthreads()
{
    emulator_barrier(false);
}
static inline int __syncthreads_count(int predicate)
{
    return emulator_barrier(predicate != 0);
}
static inline void __syncwarp(uint32_t mask = 0xffffffffu)
{
    emulator_exchange(mask, "", 1, EMULATOR_SYNC);
}
template <typename T> static inline T __shfl_xor_sync(uint32_t mask, T value, int lanes)
{
    emulator_gifts &gifts = emulator_exchange(mask, &value, sizeof value, EMULATOR_XOR);
    return emulator_gift<T>(gifts, emulator_lane() ^ lanes);
}
template <typename T> static inline T __shfl_sync(uint32_t mask, T value, int lane, int width = EMULATOR_LANES)
{
    emulator_gifts &gifts = emulator_exchange(mask, &value, sizeof value, EMULATOR_ANY);
    return emulator_gift<T>(gifts, emulator_lane() / width * width + lane % width);
}
template <typename T> static inline T __shfl_up_sync(uint32_t mask, T value, int lanes, int width = EMULATOR_LANES)
{
    emulator_gifts &gifts = emulator_exchange(mask, &value, sizeof value, EMULATOR_UP);
    return emulator_lane() % width < lanes ? value : emulator_gift<T>(gifts, emulator_lane() - lanes);
}
template <typename T> static inline T __shfl_down_sync(uint32_t mask, T value, int lanes, int width = EMULATOR_LANES)
{
    emulator_gifts &gifts = emulator_exchange(mask, &value, sizeof value, EMULATOR_DOWN);
    return emulator_lane() % width + lanes >= width ? value : emulator_gift<T>(gifts, emulator_lane() + lanes);
}
template <typename T, typename F> static inline T emulator_reduce(uint32_t mask, T value, F combine)
{
    emulator_gifts &gifts = emulator_exchange(mask, &value, sizeof value, EMULATOR_REDUCE);
    bool first = true;
    for (int lane = 0; lane < EMULATOR_LANES; lane++)
        if (mask >> lane & 1) {
            value = first ? emulator_gift<T>(gifts, lane) : combine(value, emulator_gift<T>(gifts, lane));
            first = false;
        }
    return value;
}
template <typename T> static inline T __reduce_add_sync(uint32_t mask, T value)
{
    return emulator_reduce(mask, value, [](T a, T b) { return (T)(a + b); });
}
template <typename T> static inline T __reduce_min_sync(uint32_t mask, T value)
{
    return emulator_reduce(mask, value, [](T a, T b) { return a < b ? a : b; });
}
template <typename T> static inline T __reduce_max_sync(uint32_t mask, T value)
{
    return emulator_reduce(mask, value, [](T a, T b) { return a > b ? a : b; });
}
static inline uint32_t __ballot_sync(uint32_t mask, int predicate)
{
    const bool mine = predicate != 0;
    emulator_gifts &gifts = emulator_exchange(mask, &mine, sizeof mine, EMULATOR_BALLOT);
    uint32_t lanes = 0;
    for (int lane = 0; lane < EMULATOR_LANES; lane++)
        lanes |= (uint32_t)((mask >> lane & 1) && emulator_gift<bool>(gifts, lane)) << lane;
    return lanes;
}
template <typename T> static inline uint32_t __match_any_sync(uint32_t mask, T value)
{
    emulator_gifts &gifts = emulator_exchange(mask, &value, sizeof value, EMULATOR_MATCH);
    uint32_t lanes = 0;
    for (int lane = 0; lane < EMULATOR_LANES; lane++)
        lanes |= (uint32_t)((mask >> lane & 1) && emulator_gift<T>(gifts, lane) == value) << lane;
    return lanes;
}

/* ---- instructions of a thread ---------------------------------------------------------------------------------------- */

static inline uint32_t emulator_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float emulator_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
/* A value that later arithmetic cannot be joined with in one rounding. */
static inline float emulator_rounded(float x)
{
    asm("" : "+x"(x));
    return x;
}
#define __float_as_uint emulator_bits
#define __uint_as_float emulator_float
#define __float_as_int(x) ((int)emulator_bits(x))
#define __int_as_float(x) emulator_float((uint32_t)(x))
#define __fdividef(a, b) ((a) / (b))
#define __expf expf
#define __fadd_rn(a, b) emulator_rounded((a) + (b))
#define __fmul_rn(a, b) emulator_rounded((a) * (b))
#define __fdiv_rn(a, b) emulator_rounded((a) / (b))
#define __logf logf
#define rsqrtf(x) (1.0f / sqrtf(x))
#define __popc(x) __builtin_popcount(x)
#define __ffs(x) __builtin_ffs(x)
#define __clz(x) ((x) != 0 ? __builtin_clz((unsigned)(x)) : 32)
#define __umulhi(a, b) ((uint32_t)((uint64_t)(a) * (b) >> 32))
#define __umul64hi(a, b) ((unsigned long long)((unsigned __int128)(a) * (b) >> 64))
#define __float2ull_rn(x) ((unsigned long long)nearbyintf(x))
#define __threadfence() ((void)0)
#define __ldcg(p) (*(p))
#define __stwb(p, value) (*(p) = (value))
#define __ldg(p) (*(p))

static inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector)
{
    const uint64_t both = (uint64_t)b << 32 | a;
    uint32_t bytes = 0;
    for (int i = 0; i < 4; i++)
        bytes |= (uint32_t)(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return bytes;
}
template <typename T> static inline T min(T a, T b)
{
    return a < b ? a : b;
}
template <typename T> static inline T max(T a, T b)
{
    return a > b ? a : b;
}
template <typename T> static inline EMULATOR_UNWATCHED T atomicAdd(T *to, T value)
{
    const T old = *to;
    *to += value;
    return old;
}
static inline EMULATOR_UNWATCHED uint32_t atomicInc(uint32_t *to, uint32_t limit)
{
    const uint32_t old = *to;
    *to = old >= limit ? 0 : old + 1;
    return old;
}
static inline EMULATOR_UNWATCHED int atomicCAS(int *to, int expected, int value)
{
    const int old = *to;
    if (old == expected)
        *to = value;
    return old;
}

/* ---- what rewrite.py puts in the place of assembly ------------------------------------------------------------------- */

/* An address in shared memory; aborts on any other. */
uint32_t emulator_shared_address(const void *p);
#define __cvta_generic_to_shared emulator_shared_address
#define __cvta_shared_to_generic(address) ((void *)(uintptr_t)(address))
/* `bytes` of them, and zeros up to `all`; both places begin at multiples of `all`. */
void emulator_copy(uint32_t to, const void *from, int all, int bytes);
uint32_t emulator_transpose(uint32_t mine);
void emulator_load_matrices(uint32_t (&r)[4], uint32_t from, bool transposed);
void emulator_mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void emulator_mma_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]);
/* d (64, n) = a b, or += with `add`, of four warps; a (64, 16) and b (16, n) by their descriptors. Done when it is waited for. */
void emulator_wgmma_bf16(float *d, int n, uint64_t a, uint64_t b, bool add, bool a_transposed, bool b_transposed);
/* The same with a warp's 16 rows of a in its registers, as they are now. */
void emulator_wgmma_bf16_left(float *d, int n, const uint32_t (&a)[4], uint64_t b, bool add, bool b_transposed);
void emulator_wgmma_fence();
void emulator_wgmma_commit();
void emulator_wgmma_wait(int groups);
/* Fresh threads: none has begun a product. */
void emulator_wgmma_reset(size_t threads);

#endif
