/* ssd.cuh - what the two forms of the discrete Mamba-2 recurrence on the GPU share: ssd.cu (any size, fp32) and
 * ssd_tiles.cu (bf16, P up to 64, N up to 128, tensor cores). src/ops/ssd.c has the formulas.
 *
 * Layout: a chunk is Q tokens of one head of one sequence. One warp computes the decays of a chunk, two tokens to a
 * lane, and leaves them in shared memory (ssd_decays). On the way back one warp turns differences into da_log in the
 * same places.
 *
 * Arithmetic, in fp32: log2 a = -log2(e) softplus(a_log), S = running sum of it, exp(S), exp(S[end] - S); and
 * da_log[t] = -sigmoid(a_log[t]) (end + sum of the differences from t on). */
#ifndef CAB_OPS_CUDA_SSD_CUH
#define CAB_OPS_CUDA_SSD_CUH

#include "ops/cuda/cuda.cuh"

extern "C" {
#include "ops/ssd.h"
}

enum { Q = CAB_SSD_CHUNK };

template <typename T> struct ssd_call {
    rows_of<const T> x, B, C, a_log, dy;
    rows_of<T> y, dx, dB, dC, da; /* NULL: not wanted */
    float *dB_heads, *dC_heads;   /* (B L, H N), where heads share a group; else NULL */
    float *dD;                    /* partial sums, (rows, H) */
    const float *D;
    int64_t L, sequences;
    int H, heads, P, N, chunks; /* heads: of a group */
    bool add_x, add_B, add_C, add_a;
    bool aligned; /* every row and every head begins at 16 bytes */
};

/* Of the tokens of a chunk: S (sum of log2 a from its start), exp(S), exp(S[end] - S), -sigmoid(a_log). */
struct ssd_decays {
    float s[Q], from_start[Q], to_end[Q], slope[Q];
};

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* a_log of tokens 2 lane and 2 lane + 1 of the chunk that begins at row `first` and has `n_row` tokens; past them what
 * makes a = 1. */
template <typename T>
__device__ __forceinline__ float2 ssd_read_decays(rows_of<const T> a_log, int64_t first, int n_row, int head, int lane)
{
    float2 a = make_float2(-INFINITY, -INFINITY);
    if (2 * lane < n_row)
        a.x = to_float(a_log.data[(first + 2 * lane) * a_log.ld + head]);
    if (2 * lane + 1 < n_row)
        a.y = to_float(a_log.data[(first + 2 * lane + 1) * a_log.ld + head]);
    return a;
}

__device__ __forceinline__ float log2_decay(float a_log)
{
    return -1.44269504f * (fmaxf(a_log, 0.0f) + log1pf(expf(-fabsf(a_log))));
}

/* By one warp, from what ssd_read_decays() gave its lanes. */
__device__ __forceinline__ void ssd_make_decays(ssd_decays *d, float2 a_log, int lane)
{
    const float first = log2_decay(a_log.x), both = first + log2_decay(a_log.y);
    float sum = both; /* up to and with this lane */
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        const float before = __shfl_up_sync(0xffffffffu, sum, lanes);
        if (lane >= lanes)
            sum += before;
    }
    const float up_to = __shfl_up_sync(0xffffffffu, sum, 1);
    const float start = lane > 0 ? up_to : 0.0f, end = __shfl_sync(0xffffffffu, sum, 31);
    const float2 s = make_float2(start + first, sum);
    ((float2 *)d->s)[lane] = s;
    ((float2 *)d->from_start)[lane] = make_float2(exp2_fast(s.x), exp2_fast(s.y));
    ((float2 *)d->to_end)[lane] = make_float2(exp2_fast(end - s.x), exp2_fast(end - s.y));
    ((float2 *)d->slope)[lane] = make_float2(-1.0f / (1.0f + expf(-a_log.x)), -1.0f / (1.0f + expf(-a_log.y)));
}

/* da_log of a chunk by one warp: slope times (end + sum of the differences from the token on). */
template <typename T>
__device__ __forceinline__ void ssd_write_decays(rows_of<T> da, int64_t first, int n_row, int head, bool add,
                                                 float2 difference, float end, const ssd_decays *d, int lane)
{
    float sum = difference.x + difference.y; /* from this lane on */
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        const float behind = __shfl_down_sync(0xffffffffu, sum, lanes);
        if (lane + lanes < 32)
            sum += behind;
    }
    const float from_next = __shfl_down_sync(0xffffffffu, sum, 1);
    const float gradient[2] = {end + sum, end + difference.y + (lane < 31 ? from_next : 0.0f)};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = 2 * lane + i;
        if (row >= n_row)
            continue;
        T *to = da.data + (first + row) * da.ld + head;
        const float value = d->slope[row] * gradient[i];
        *to = from_float<T>(add ? to_float(*to) + value : value);
    }
}

/* ssd_tiles.cu. states: (B H chunks) tiles. */
cab_status ssd_tiles_forward(const ssd_call<bf16> &c, cab_backend *backend);
cab_status ssd_tiles_backward(const ssd_call<bf16> &c, void *states, cab_backend *backend);

#endif
