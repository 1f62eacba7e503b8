/* ssd.cuh - what the forms of the Mamba-2 recurrence on the GPU share: ssd.cu (any size, fp32) and ssd_tiles.cu and
 * ssd_groups.cu (bf16, N up to 256, tensor cores), of which Hopper has its own where heads share B and C: ssd_walk_wgmma.cu
 * (forward) and ssd_groups_wgmma.cu (backward). src/ops/ssd.c has the formulas.
 *
 * Layout: a chunk is Q tokens of one head of one sequence. One warp computes the steps and decays of a chunk, two tokens
 * to a lane, and leaves them in shared memory (ssd_decays). On the way back one warp turns differences into ddt in the
 * same places.
 *
 * Arithmetic, in fp32: delta = softplus(dt + dt_bias), log2 a = -log2(e) delta exp(A_log), S = running sum of it, exp(S),
 * exp(S[end] - S); and
 *
 *   dlog a[t] = end + sum of the differences from t on, zero at the first token of a document
 *   ddelta = <du, x> - exp(A_log) dlog a     ddt = sigmoid(dt + dt_bias) ddelta     (discrete: without <du, x> and A_log)
 *
 * u = delta x is never rounded to bf16: delta scales rows or columns of products in fp32, or what is rounded anyway. */
#ifndef CAB_OPS_CUDA_SSD_CUH
#define CAB_OPS_CUDA_SSD_CUH

#include "ops/cuda/cuda.cuh"

extern "C" {
#include "ops/ssd.h"
}

enum { Q = CAB_SSD_CHUNK };

template <typename T> struct ssd_call {
    rows_of<const T> x, B, C, dt, dy;
    rows_of<T> y, dx, dB, dC, ddt;  /* NULL: not wanted */
    float *dB_parts, *dC_parts; /* (B L, G, parts, N), where heads of a group are summed in parts; else NULL */
    float *dD, *dA_log, *ddt_bias;  /* partial sums, (rows, H) */
    const float *D, *dt_bias, *A_log; /* dt_bias NULL: zero; A_log NULL: discrete */
    const int32_t *starts;          /* (sequences, L), or NULL */
    int64_t L, sequences;
    int H, heads, P, N, chunks; /* heads: of a group */
    int pieces;                 /* of a head, 64 columns of P each; ssd_groups.cu */
    int n_first;                /* the call is about the states from here on; others have been before it if `more` */
    bool more;
    bool add_x, add_B, add_C, add_dt;
    bool aligned; /* every row and every head begins at 16 bytes */
    int own;      /* 1; 0: no token sees itself (the second direction of two) */
};

/* Of the tokens of a chunk. Between documents exponentials are zero: exp(S) of tokens whose document began in the chunk,
 * exp(S[end] - S) of those whose document has ended. */
struct alignas(16) ssd_decays {
    float s[Q];                    /* S, the sum of log2 a from the chunk's start */
    float from_start[Q], to_end[Q]; /* exp(S), exp(S[end] - S) */
    float delta[Q], into[Q];       /* what x is multiplied with, 1 if discrete; the same times to_end */
    float slope[Q];                /* sigmoid(dt + dt_bias) */
    int first[Q];                  /* the document's first token, counted from the chunk's; -1: it began earlier */
    float rate;                    /* exp(A_log), 1 if discrete */
};

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* What the decays of tokens 2 lane and 2 lane + 1 of a chunk come from, as it stands in memory: to compute with it is to wait. */
template <typename T> struct ssd_raw {
    T dt[2];
    float bias;
    int begins[2];      /* of each token's document, in its sequence */
    int start, n_row; /* of the chunk */
};

/* Of the chunk that begins at token `start` of its sequence, in row `row`, and has `n_row` tokens. */
template <typename T>
__device__ __forceinline__ ssd_raw<T> ssd_read_decays(const ssd_call<T> &c, int64_t row, int start, int n_row, int head,
                                                      int lane)
{
    ssd_raw<T> raw = {};
    raw.bias = c.dt_bias ? c.dt_bias[head] : 0.0f;
    raw.start = start;
    raw.n_row = n_row;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int t = 2 * lane + i;
        if (t < n_row)
            raw.dt[i] = c.dt.data[(row + t) * c.dt.ld + head];
        /* Without starts, a sequence is a document. The discrete recurrence leaves to token 0 what rounding gives it. */
        raw.begins[i] = c.starts ? c.starts[row + (t < n_row ? t : n_row - 1)] : c.A_log ? 0 : -1;
    }
    return raw;
}

__device__ __forceinline__ float softplus(float x)
{
    return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
}

template <typename T> __device__ __forceinline__ float ssd_rate(const ssd_call<T> &c, int head)
{
    return c.A_log ? expf(c.A_log[head]) : 1.0f;
}

/* By one warp, from what ssd_read_decays() gave its lanes. Past the chunk's rows what makes a = 1, and the document of the last. */
template <typename T>
__device__ __forceinline__ void ssd_make_decays(ssd_decays *d, const ssd_raw<T> &raw, float rate, bool discrete, int lane)
{
    float dt[2];
    int begun[2]; /* counted from the chunk's first token; -1: before it */
#pragma unroll
    for (int i = 0; i < 2; i++) {
        dt[i] = 2 * lane + i < raw.n_row ? to_float(raw.dt[i]) + raw.bias : -INFINITY;
        begun[i] = raw.begins[i] < raw.start ? -1 : raw.begins[i] - raw.start;
    }
    const float2 delta = make_float2(softplus(dt[0]), softplus(dt[1]));
    const float first = -1.44269504f * rate * delta.x, both = first - 1.44269504f * rate * delta.y;
    float sum = both; /* up to and with this lane */
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        const float before = __shfl_up_sync(0xffffffffu, sum, lanes);
        if (lane >= lanes)
            sum += before;
    }
    const float up_to = __shfl_up_sync(0xffffffffu, sum, 1);
    const float start = lane > 0 ? up_to : 0.0f, end = __shfl_sync(0xffffffffu, sum, 31);
    const int last = __shfl_sync(0xffffffffu, begun[1], 31);
    const float2 s = make_float2(start + first, sum);
    const float2 to_end = make_float2(2 * lane >= last ? exp2_fast(end - s.x) : 0.0f,
                                      2 * lane + 1 >= last ? exp2_fast(end - s.y) : 0.0f);
    const float2 factor = discrete ? make_float2(1.0f, 1.0f) : delta;
    ((float2 *)d->s)[lane] = s;
    ((float2 *)d->from_start)[lane] = make_float2(begun[0] < 0 ? exp2_fast(s.x) : 0.0f, //
                                                  begun[1] < 0 ? exp2_fast(s.y) : 0.0f);
    ((float2 *)d->to_end)[lane] = to_end;
    ((float2 *)d->delta)[lane] = factor;
    ((float2 *)d->into)[lane] = make_float2(factor.x * to_end.x, factor.y * to_end.y);
    ((float2 *)d->slope)[lane] = make_float2(1.0f / (1.0f + expf(-dt[0])), 1.0f / (1.0f + expf(-dt[1])));
    ((int2 *)d->first)[lane] = make_int2(begun[0], begun[1]);
    if (lane == 0)
        d->rate = rate;
}

/* What a chunk adds to dA_log and ddt_bias; every lane of the warp has it. */
struct ssd_step_sums {
    float dA_log, ddt_bias;
};

/* ddt of a chunk by one warp. Of tokens 2 lane and 2 lane + 1: C . dC - B . dB in `difference`, <du, x> in `through_u`,
 * not read if discrete. */
template <typename T>
__device__ __forceinline__ ssd_step_sums ssd_write_decays(const ssd_call<T> &c, int64_t first, int n_row, int head,
                                                          float2 difference, float2 through_u, float end,
                                                          const ssd_decays *d, int lane)
{
    float sum = difference.x + difference.y; /* from this lane on */
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        const float behind = __shfl_down_sync(0xffffffffu, sum, lanes);
        if (lane + lanes < 32)
            sum += behind;
    }
    const float from_next = __shfl_down_sync(0xffffffffu, sum, 1);
    const float dlog[2] = {end + sum, end + difference.y + (lane < 31 ? from_next : 0.0f)};
    const float through[2] = {through_u.x, through_u.y};
    ssd_step_sums sums = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = 2 * lane + i;
        if (row >= n_row)
            continue;
        const float decay = d->first[row] == row ? 0.0f : d->rate * dlog[i];
        const float value = d->slope[row] * ((c.A_log ? through[i] : 0.0f) - decay);
        sums.ddt_bias += value;
        sums.dA_log -= d->delta[row] * decay;
        if (!c.ddt.data)
            continue;
        T *to = c.ddt.data + (first + row) * c.ddt.ld + head;
        *to = from_float<T>(c.add_dt ? to_float(*to) + value : value);
    }
    return {warp_sum(sums.dA_log), warp_sum(sums.ddt_bias)};
}

/* Whether anything is wanted that comes from the steps. */
template <typename T> __device__ __forceinline__ bool ssd_wants_steps(const ssd_call<T> &c)
{
    return c.ddt.data || c.dA_log || c.ddt_bias;
}

/* ssd_tiles.cu: P up to 64, N up to 128. states: (B H chunks) tiles. Backward, no two heads share B and C. */
cab_status ssd_tiles_forward(const ssd_call<bf16> &c, cab_backend *backend);
cab_status ssd_tiles_backward(const ssd_call<bf16> &c, void *states, cab_backend *backend);

/* ssd_walk_wgmma.cu: the same sizes. */
size_t ssd_walk_wgmma_bytes(void); /* of shared memory */
cab_status ssd_walk_wgmma_forward(const ssd_call<bf16> &c, cab_backend *backend);

/* ssd_groups.cu: any P, N up to 256. */
typedef struct ssd_group_scratch {
    void *states, *dstates; /* (B, H pieces, chunks, tiles of N) tiles each; forward, dstates is NULL */
    int slices;             /* of a group's heads; dB_parts and dC_parts of the call are NULL if there is one */
} ssd_group_scratch;
/* Tiles of the states of a call, beside one another in N. */
int ssd_group_tiles(int N, bool backward);
/* chunks: of all groups and sequences; heads: of a group. */
int ssd_group_slices(int64_t chunks, int heads, int multiprocessors);
cab_status ssd_groups_forward(const ssd_call<bf16> &c, const ssd_group_scratch &scratch, cab_backend *backend);
cab_status ssd_groups_backward(const ssd_call<bf16> &c, const ssd_group_scratch &scratch, cab_backend *backend);

#endif
