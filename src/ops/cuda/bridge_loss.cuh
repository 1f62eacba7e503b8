/* bridge_loss.cuh - what the two kernels of a bridge and its loss share: bridge_loss.cu for every GPU,
 * bridge_loss_wgmma.cu for Hopper.
 *
 * Layout: tokens go by tiles. A team is four warps; warp `group` of a team has 16 rows of a 64-row tile. Lane 4 g + q
 * holds rows g and g + 8 of these, columns 2 q and 2 q + 1 of each 8 (the fragments of mma.cuh). W1 and the biases
 * stand in shared memory. `parts`, scratch in device memory, has a row per block: that block's dW2, dW1, db2, db1, at
 * the places that `part` names.
 *
 * Arithmetic: prediction = f(x W1^T + b1) W2^T + b2, with x (tokens, IN), W1 (HIDDEN, IN), W2 (outputs, HIDDEN); the
 * loss and dp = factor (prediction - psi(target)) are those of align.cuh. */
#ifndef CAB_OPS_CUDA_BRIDGE_LOSS_CUH
#define CAB_OPS_CUDA_BRIDGE_LOSS_CUH

#include "ops/cuda/activation.cuh"
#include "ops/cuda/align.cuh"
#include "ops/cuda/mma.cuh"

extern "C" {
#include "ops/bridge_loss.h"
}

/* The sizes that the kernels are for: inputs, the hidden layer, most outputs, most rows. */
enum { IN = 16, HIDDEN = 128, OUT_MAX = 768, ROWS_MAX = 1 << 30 };
constexpr int HALVES = HIDDEN / TILE_SIDE, STEPS = HIDDEN / 16, IN_ROW_BYTES = IN * 2;
constexpr uint32_t ONES = 0x3f803f80; /* two bf16 */

struct bridge {
    align_term term;
    rows_of<const bf16> x, target;
    rows_of<bf16> dx; /* data NULL: not wanted */
    bool add;
    const bf16 *w1, *b1, *w2, *b2;
    cab_feature_map map;
    cab_activation_kind activation;
    const float2 *stats;
    float *parts; /* a row per block; NULL: no gradients at all */
    int n_row;
    int first; /* output */
    bool last; /* launch */
};

/* Columns of a block's part. */
template <int OUTS> struct part {
    static constexpr int64_t W2 = 0, W1 = W2 + OUTS * TILE_SIDE * HIDDEN, B2 = W1 + HIDDEN * IN,
                             B1 = B2 + OUTS * TILE_SIDE, COLUMNS = B1 + HIDDEN;
};

/* The kernel for Hopper: tokens of a tile, a block's shared memory, and `outs` times 64 outputs on `blocks` blocks. */
constexpr int BRIDGE_WGMMA_TOKENS = 3 * TILE_SIDE;
size_t bridge_wgmma_bytes(int outs);
cab_status bridge_wgmma_launch(const bridge &b, int outs, int64_t blocks, cab_backend *backend);

/* Where a thread stands: lane = 4 g + q, in rows 16 group + g and + 8 of a tile, in the team `team` of four warps. */
struct place {
    int lane, g, q, group, team, warp;
    tile_lanes lanes;
};

__device__ __forceinline__ place here()
{
    place p;
    p.lane = threadIdx.x % 32;
    p.warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0); /* so that the compiler knows it to be one number */
    p.g = p.lane / 4;
    p.q = p.lane % 4;
    p.group = p.warp % 4;
    p.team = p.warp / 4;
    p.lanes = tile_lanes_of(p.lane);
    return p;
}

/* The target's row of a token, or -1 past the end. */
__device__ __forceinline__ int64_t target_row_of(const bridge &b, int row)
{
    const int L = (int)b.term.L, sequence = row / L;
    return row < b.n_row ? b.term.target_row(sequence, row - sequence * L) : -1;
}

/* The thread's two tokens of a tile: of row i the number, or -1 past the end, and that of the target's row. */
struct tokens {
    int row[2], sequence[2];
    int64_t target[2];
    float scale[2]; /* of their sequences */
};

__device__ __forceinline__ tokens tokens_of(const bridge &b, int first, const place &p)
{
    tokens t;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = first + 16 * p.group + p.g + 8 * i;
        const bool inside = row < b.n_row;
        t.row[i] = inside ? row : -1;
        t.sequence[i] = inside ? row / (int)b.term.L : 0;
        t.target[i] = target_row_of(b, row);
        t.scale[i] = b.term.scale_of(t.sequence[i]);
    }
    return t;
}

__device__ __forceinline__ uint32_t load_pair(const bf16 *from)
{
    return *(const uint32_t *)from;
}

/* Columns 2 q and 2 q + 8 of both tokens. */
__device__ __forceinline__ void load_inputs(const bridge &b, const place &p, const tokens &t, uint32_t (&x)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        x[i] = t.row[i % 2] >= 0 ? load_pair(b.x.at(t.row[i % 2], 2 * p.q + i / 2 * 8)) : 0;
}

/* The same into rows of shared memory. */
__device__ __forceinline__ void keep_inputs(char *to, const place &p, const uint32_t (&x)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        *(uint32_t *)(to + (16 * p.group + p.g + i % 2 * 8) * IN_ROW_BYTES + p.q * 4 + i / 2 * 16) = x[i];
}

/* Begins to copy W1 to shared memory, and copies the biases. */
template <int OUTS, int THREADS>
__device__ __forceinline__ void load_input_layer(const bridge &b, char *w1, bf16 *b1, bf16 *b2)
{
    for (int i = threadIdx.x; i < HIDDEN * IN / 8; i += THREADS)
        copy_16(shared_address(w1) + i * 16, b.w1 + i * 8, true);
    copies_commit();
    for (int i = threadIdx.x; i < HIDDEN; i += THREADS)
        b1[i] = b.b1[i];
    for (int i = threadIdx.x; i < OUTS * TILE_SIDE; i += THREADS)
        b2[i] = b.b2[b.first + i];
}

/* Begins to copy W2 as 64 x 64 tiles [out][half]. */
template <int OUTS, int THREADS>
__device__ __forceinline__ void load_output_layer(const bridge &b, char (&w2)[OUTS][HALVES][TILE_BYTES])
{
#pragma unroll 1
    for (int i = threadIdx.x; i < OUTS * TILE_SIDE * HIDDEN / 8; i += THREADS) {
        const int row = i / (HIDDEN / 8), piece = i % (HIDDEN / 8), half = piece / 8;
        copy_16(shared_address(w2[row / TILE_SIDE][half]) + tile_at(row % TILE_SIDE, piece % 8, 0),
                b.w2 + (int64_t)(b.first + row) * HIDDEN + piece * 8, true);
    }
    copies_commit();
}

/* The biases of columns `column` and the next, as sums of both rows begin. */
__device__ __forceinline__ void begin_sums(float (&sums)[4], const bf16 *bias, int column)
{
    const uint32_t two = load_pair(bias + column);
    sums[0] = sums[2] = low_half(two);
    sums[1] = sums[3] = high_half(two);
}

/* x W1^T + b1 of 16 tokens and the 8 hidden columns `column` .. */
__device__ __forceinline__ void hidden_sums(float (&sums)[4], const place &p, const uint32_t (&x)[4], const char *w1,
                                            const bf16 *b1, int column)
{
    const char *w = w1 + (column + p.g) * IN_ROW_BYTES + p.q * 4;
    begin_sums(sums, b1, column + 2 * p.q);
    mma(sums, x, *(const uint32_t *)w, *(const uint32_t *)(w + 16));
}

template <cab_activation_kind KIND>
__device__ __forceinline__ void activate_pairs(const float (&sums)[4], uint32_t (&h)[2], uint32_t (&slope)[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const value_and_slope low = evaluate<KIND>(sums[2 * i]), high = evaluate<KIND>(sums[2 * i + 1]);
        h[i] = pack(low.y, high.y);
        slope[i] = pack(low.slope, high.slope);
    }
}

/* Maximum and inverse sum of the softmax at token i, in columns `column` and the next. */
template <cab_feature_map MAP>
__device__ __forceinline__ float4 stats_of(const bridge &b, const tokens &t, int i, int column)
{
    if (MAP == CAB_MAP_SOFTMAX_TOKENS)
        return __ldg((const float4 *)(b.stats + t.sequence[i] * b.term.D + b.first + column));
    const float2 s = __ldg(b.stats + (t.row[i] < 0 ? 0 : t.row[i]));
    return make_float4(s.x, s.y, s.x, s.y);
}

/* psi of an element. */
template <cab_feature_map MAP> __device__ __forceinline__ float mapped(float x, float maximum, float inverse)
{
    if (MAP == CAB_MAP_NONE)
        return x;
    if (MAP == CAB_MAP_RELU)
        return x < 0.0f ? 0.0f : x;
    if (MAP == CAB_MAP_EXP)
        return exp_fast(x);
    return exp_fast(x - maximum) * inverse;
}

/* e of token i in columns `column` and the next, out of their predictions: dp = factor e, and the squares. */
template <cab_feature_map MAP>
__device__ __forceinline__ float error_pair(const bridge &b, const tokens &t, int i, int column,
                                            const float *prediction, uint32_t target, float factor, uint32_t &dp)
{
    float4 s = {};
    if (MAP == CAB_MAP_SOFTMAX_TOKENS || MAP == CAB_MAP_SOFTMAX_FEATURES)
        s = stats_of<MAP>(b, t, i, column);
    const float low = prediction[0] - mapped<MAP>(low_half(target), s.x, s.y);
    const float high = prediction[1] - mapped<MAP>(high_half(target), s.z, s.w);
    const float scaled = factor * t.scale[i];
    dp = t.row[i] >= 0 ? pack(low * scaled, high * scaled) : 0;
    return low * low + high * high;
}

/* The squares of both tokens, of those that there are, with their scale. */
__device__ __forceinline__ float squares_of(const tokens &t, const float (&squares)[2])
{
    return (t.row[0] >= 0 ? t.scale[0] * squares[0] : 0.0f) + (t.row[1] >= 0 ? t.scale[1] * squares[1] : 0.0f);
}

/* Four 8 x 8 matrices of a matrix with rows of 16: rows 16 k .. of its 8-column block `block`, and the next 16 rows. */
__device__ __forceinline__ uint32_t in_rows(const char *matrix, const place &p, int k, int block)
{
    return shared_address(matrix) + (16 * k + p.lane) * IN_ROW_BYTES + block * 16;
}

/* dW1 and db1 of hidden rows 16 group .. of a tile of dh f', out of its 64 tokens. */
__device__ __forceinline__ void gradients_of_input_layer(float (&w1)[2][4], float (&b1)[4], const char *dh,
                                                         const char *x, const place &p)
{
#pragma unroll 1
    for (int k = 0; k < 4; k += 2) {
        uint32_t left[2][4], right[2][4];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            load_left_transposed(left[j], shared_address(dh), p.lanes, p.group, k + j);
            load_matrices_transposed(right[j], in_rows(x, p, k, j));
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            mma(w1[j], left[0], right[j][0], right[j][1]);
            mma(w1[j], left[1], right[j][2], right[j][3]);
            mma(b1, left[j], ONES, ONES);
        }
    }
}

/* dx of 16 tokens, BLOCKS times 8 columns from the block `first` on. */
template <int BLOCKS>
__device__ __forceinline__ void input_gradient(const bridge &b, const char (&dh)[HALVES][TILE_BYTES], const char *w1,
                                               const place &p, const tokens &t, int first)
{
    float sums[BLOCKS][4] = {};
#pragma unroll 1
    for (int k = 0; k < STEPS; k += 2) {
        uint32_t a[2][4];
        load_left(a[0], shared_address(dh[k / 4]), p.lanes, p.group, k % 4);
        load_left(a[1], shared_address(dh[k / 4]), p.lanes, p.group, k % 4 + 1);
#pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            uint32_t w[4];
            load_matrices_transposed(w, in_rows(w1, p, k, first + j));
            mma(sums[j], a[0], w[0], w[1]);
            mma(sums[j], a[1], w[2], w[3]);
        }
    }
#pragma unroll
    for (int i = 0; i < 2 * BLOCKS; i++)
        if (t.row[i % 2] >= 0) {
            const float two[2] = {sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]};
            put_floats(b.dx.at(t.row[i % 2], 8 * (first + i / 2) + 2 * p.q), b.add, two);
        }
}

/* Sums of dW2 of 16 outputs from `out` on and hidden columns from `hidden` on as columns of a block's part. */
template <int BLOCKS>
__device__ __forceinline__ void leave_w2(float *part_w2, const place &p, int out, int hidden,
                                         const float (&sums)[BLOCKS][4])
{
#pragma unroll
    for (int n = 0; n < BLOCKS; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            *(float2 *)(part_w2 + (int64_t)(out + p.g + 8 * i) * HIDDEN + hidden + 8 * n + 2 * p.q) =
                make_float2(sums[n][2 * i], sums[n][2 * i + 1]);
}

/* The same of the input layer's hidden rows 16 warp .. */
__device__ __forceinline__ void leave_w1(float *part_w1, float *part_b1, const place &p, const float (&w1)[2][4],
                                         const float (&b1)[4])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int hidden = 16 * p.warp + p.g + 8 * i;
#pragma unroll
        for (int j = 0; j < 2; j++)
            *(float2 *)(part_w1 + hidden * IN + 8 * j + 2 * p.q) = make_float2(w1[j][2 * i], w1[j][2 * i + 1]);
        if (p.q == 0)
            part_b1[hidden] = b1[2 * i];
    }
}

#endif
