/* scan_tied.cuh - the selective scan with one decay per channel, the same for all states, on tensor cores; bf16, at
 * most 16 states.
 *
 * Arithmetic: with r = -A of a channel, the recurrence of src/ops/scan.c is nothing but matrix products. In a chunk of
 * 16 tokens, let
 *
 *   c[t] = sum of r delta[s] over s <= t     m = c[15] / 2     up = exp(c - m)     down = exp(m - c)     f = exp(-m)
 *   X = up delta u     P = down dy silu(z)   (tokens, channels)     S[t, s] = <C[t], B[s]> where s <= t, else 0
 *
 * H, (states, channels), is the state before the chunk, and G the gradient of the state behind it. Then
 *
 *   y = down (S X + C f H)     H becomes f (f H + B^T X)     G becomes f (f G + C^T P)
 *   <dh, B> = up (S^T P + B f G)     dC = W B + P (f H)^T     dB = W^T C + X (f G)^T
 *   W[t, s] = <P[t], X[s]> where s <= t, else 0
 *
 * W is a sum over the channels of one warp. The gradient by log a[t] is g[t] = a[t] <dh[t], h[t-1]>. It follows from
 *
 *   <dh[t], h[t]> = g[t] + x[t] <dh[t], B[t]> = g[t+1] + p[t] <C[t], h[t]>
 *
 * by sums from the end of the chunk, where <dh, h> is <G, H>. The other gradients are
 *
 *   ddelta = u <dh, B> - r g     dA_log = -r sum_t delta g, of which every state's element gets the Nth part
 *
 * g is a difference, in which rounding cancels only if both sides were rounded alike. So g takes X, P and f H as the
 * operands of the products have them, H from that f H, and f G together with what its operand lost.
 *
 * A decay below 2^-11 is taken for 2^-11, an eighth of what rounding to bf16 may cost, so that up and down stay within
 * 2^88. Operands are rounded to bf16; states, sums and everything per token and channel are fp32.
 *
 * Layout: a warp has 16 channels. A block has 128 channels of one sequence, which share B and C of a chunk in shared
 * memory. Fragments (mma.cuh) have channels for rows and tokens for columns: lane 4 g + q holds channels g and g + 8
 * at tokens 2 q, 2 q + 1 and 8 further, so that a sum over tokens is a sum over four lanes. Rows of the 128 channels
 * are copied to shared memory at least one chunk ahead, and written to device memory one chunk late. A thread copies
 * and writes the same 16 bytes of a stage, so it needs no barrier between its own write and its next copy.
 *
 * The forward pass saves f H of every chunk, as the operand that it is, for the backward pass: 2 bytes per token and
 * channel. Where dt comes from a linear layer of up to 32 inputs, it is in no memory (optimise.c): it is computed from
 * x and the layer's W, one step for 16 inputs.
 *
 * Bytes per token and channel: forward 10, 8 where dt is a product; backward 16 or 14. Instructions: forward 66 and
 * 6 exponentials and reciprocals; backward 130 and 7. */
#ifndef CAB_OPS_CUDA_SCAN_TIED_CUH
#define CAB_OPS_CUDA_SCAN_TIED_CUH

#include "ops/cuda/mma.cuh"
#include "ops/cuda/scan.cuh"

extern "C" {
#include "ops/matrix.h"
}

namespace scan_tied
{

enum { TOKENS = 16, STATES = 16, WARP_CHANNELS = 16, BLOCK_WARPS = 8, BLOCK_THREADS = 32 * BLOCK_WARPS };
enum { CHANNELS = WARP_CHANNELS * BLOCK_WARPS, CHANNELS_BYTES = CHANNELS * 2 + 16 };
enum { ROW_BYTES = 48, TILE = TOKENS * ROW_BYTES, MOST_DEPTH = 2 }; /* of 16 columns; most tiles of dt's factors */
constexpr float MOST = 11.0f; /* log2 of the strongest decay */
constexpr float LOG2_LN_2 = -0.528766373f;

/* 1 / x and log2(x); 0 and -infinity for denormal numbers. */
__device__ __forceinline__ float reciprocal_fast(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float log2_fast(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / (1 + exp(-z)) */
__device__ __forceinline__ float sigmoid_of(float z)
{
    return reciprocal_fast(1.0f + exp2_fast(-LOG2_E * z));
}

/* log2(e) softplus(x ln 2). */
__device__ __forceinline__ float softplus2(float x)
{
    const float v = exp2_fast(-fabsf(x));
    return fmaxf(x, 0.0f) + (v < 1e-3f ? LOG2_E * v : log2_fast(1.0f + v));
}

/* Of a channel (row 0: g, row 1: g + 8) at tokens 2 q, 2 q + 1, 2 q + 8, 2 q + 9. */
typedef float numbers[2][4];
typedef uint32_t fragment[4];
typedef float sums_of[2][4]; /* of two blocks of 8 columns */

__device__ __forceinline__ void widen(const fragment &r, numbers &x)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[i % 2][i / 2 * 2] = low_half(r[i]);
        x[i % 2][i / 2 * 2 + 1] = high_half(r[i]);
    }
}

__device__ __forceinline__ void narrow(const numbers &x, fragment &r)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        r[i] = pack(x[i % 2][i / 2 * 2], x[i % 2][i / 2 * 2 + 1]);
}

/* The sums of a product of 16 rows and 16 columns as a left operand, and its numbers as those of channels and tokens. */
__device__ __forceinline__ void narrow_sums(const sums_of &s, fragment &r)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        r[i] = pack(s[i / 2][i % 2 * 2], s[i / 2][i % 2 * 2 + 1]);
}

__device__ __forceinline__ float number_of(const sums_of &s, int row, int token)
{
    return s[token / 2][2 * row + token % 2];
}

/* The transpose of a fragment as a fragment. */
__device__ __forceinline__ void transpose(const fragment &from, fragment &to)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        to[i] = transposed(from[i % 2 * 2 + i / 2]);
}

/* sums += left right, where the right operand's columns are the rows of `right`, or its rows. */
__device__ __forceinline__ void add_product_nt(sums_of &sums, const fragment &left, const fragment &right)
{
    mma(sums[0], left, right[0], right[2]);
    mma(sums[1], left, right[1], right[3]);
}
__device__ __forceinline__ void add_product_nn(sums_of &sums, const fragment &left, const fragment &right)
{
    mma(sums[0], left, right[0], right[1]);
    mma(sums[1], left, right[2], right[3]);
}

/* Which lane of its quad this one is, as masks: selections become branches of a warp. */
struct quad_place {
    unsigned odd, upper;

    __device__ explicit quad_place(int q) : odd(q & 1 ? ~0u : 0), upper(q & 2 ? ~0u : 0)
    {
    }

    /* Sums over the quad: of the lanes before this one, and of all. */
    __device__ __forceinline__ void scan(float x, float &before, float &all) const
    {
        const float one = __shfl_xor_sync(0xffffffffu, x, 1), pair = x + one;
        const float two = __shfl_xor_sync(0xffffffffu, pair, 2);
        before = __uint_as_float(__float_as_uint(one) & odd) + __uint_as_float(__float_as_uint(two) & upper);
        all = pair + two;
    }

    /* Sums over the tokens before each of the lane's two pairs, and over the chunk. */
    __device__ __forceinline__ void scan(const float (&x)[4], float (&before)[2], float &all) const
    {
        float second;
        scan(x[0] + x[1], before[0], all);
        scan(x[2] + x[3], before[1], second);
        before[1] += all;
        all += second;
    }
};

/* What decays make of a chunk. down: times ln 2, which delta and X are divided by. */
struct decays {
    numbers up, down;
    float through[2]; /* f */

    __device__ __forceinline__ void of(const numbers &delta, const float (&rate)[2], const quad_place &place)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float step[4], before[2], all;
#pragma unroll
            for (int j = 0; j < 4; j++)
                step[j] = fminf(rate[i] * delta[i][j], MOST);
            place.scan(step, before, all);
            const float middle = 0.5f * all;
            through[i] = exp2_fast(-middle);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float &c = before[j / 2];
                c += j % 2 == 0 ? step[j] - middle : step[j];
                up[i][j] = exp2_fast(c);
                down[i][j] = exp2_fast(LOG2_LN_2 - c);
            }
        }
    }
};

__device__ __forceinline__ void scale_channels(sums_of &states, const float (&by)[2])
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        states[i / 4][i % 4] *= by[i % 4 / 2];
}

/* s as an operand with zeros where its column is behind its row, or with AFTER before it. */
template <bool AFTER> __device__ __forceinline__ void narrow_causal(const sums_of &s, int g, int q, fragment &r)
{
    const bool even = AFTER ? 2 * q >= g : 2 * q <= g, odd = AFTER ? 2 * q + 1 >= g : 2 * q + 1 <= g;
    r[0] = pack(even ? s[0][0] : 0.0f, odd ? s[0][1] : 0.0f);
    r[1] = AFTER ? 0 : pack(s[0][2], s[0][3]);
    r[2] = AFTER ? pack(s[1][0], s[1][1]) : 0;
    r[3] = pack(even ? s[1][2] : 0.0f, odd ? s[1][3] : 0.0f);
}

/* A chunk in shared memory: (tokens, 16 columns) of B, C and, where dt is a product, of its left factor; and the block's channels of
 * tensors, (tokens, channels). */
enum { TILE_B, TILE_C, TILE_LEFT };

template <int TENSORS, int DEPTH> struct stage {
    char tiles[TILE_LEFT + DEPTH][TILE];
    char rows[TENSORS][TOKENS * CHANNELS_BYTES];
};

/* dt's right factor in shared memory: DEPTH tiles of (channels, 16 columns). */
template <int DEPTH> struct dt_factor {
    char tiles[DEPTH][CHANNELS * ROW_BYTES];
};
template <> struct dt_factor<0> {
};

/* What a thread copies and writes of a chunk: 16 bytes of a row of channels. */
struct piece {
    unsigned row, channel; /* of the tensor */
    bool there;
};

template <int TENSORS, int DEPTH> struct walker {
    const scan_pass<bf16> &k;
    stage<TENSORS, DEPTH> (&stages)[2];
    dt_factor<DEPTH> &factor;
    const int warp, lane, g, q, chunks;
    const quad_place place;
    uint32_t tile_at;             /* where the lane reads four matrices of 16 rows of ROW_BYTES */
    uint32_t columns_at;          /* the same of the warp's channels, transposed */
    int b, group, turn;           /* sequence, block of channels, buffer of the chunk */
    int first_row, step;          /* row of token 0; +1 or -1 */
    float rate[2], bias[2], D[2]; /* bias: times log2(e) */

    __device__ walker(const scan_pass<bf16> &pass, stage<TENSORS, DEPTH> (&memory)[2], dt_factor<DEPTH> &right)
        : k(pass), stages(memory), factor(right), warp(threadIdx.x / 32), lane(threadIdx.x % 32), g(lane / 4),
          q(lane % 4), chunks((pass.L + TOKENS - 1) / TOKENS), place(q), turn(0)
    {
        const uint32_t low = lane & 7, middle = lane >> 3 & 1, high = lane >> 4;
        tile_at = (low + 8 * middle) * ROW_BYTES + high * 16;
        columns_at = (low + 8 * high) * CHANNELS_BYTES + warp * WARP_CHANNELS * 2 + middle * 16;
    }

    __device__ __forceinline__ int channel(int i) const
    {
        return group * CHANNELS + warp * WARP_CHANNELS + g + 8 * i;
    }

    __device__ __forceinline__ void begin(int task)
    {
        b = task / k.groups;
        group = task - b * k.groups;
        step = k.reverse ? -1 : 1;
        first_row = b * k.L + (k.reverse ? k.L - 1 : 0);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int e = channel(i);
            const bool here = e < k.E;
            rate[i] = here ? expf(k.A_log[(int64_t)e * k.N]) : 0.0f;
            bias[i] = here && k.bias != NULL ? LOG2_E * k.bias[e] : 0.0f;
            D[i] = here ? k.D[e] : 0.0f;
        }
    }

    __device__ __forceinline__ void copy_factor()
    {
        if constexpr (DEPTH > 0) {
#pragma unroll
            for (int i = threadIdx.x; i < DEPTH * CHANNELS * 4; i += BLOCK_THREADS) {
                const int tile = i / (CHANNELS * 4), c = i / 4 % CHANNELS, r = i % 4 * 4;
                const int e = group * CHANNELS + c, from = tile * 16 + r;
                const bool there = e < k.E && from < k.rank;
                copy_8(shared_address(factor.tiles[tile]) + c * ROW_BYTES + r * 2,
                       k.dt_right.at(there ? e : 0, there ? from : 0), there);
            }
        }
    }

    __device__ __forceinline__ unsigned row(int t) const
    {
        return (unsigned)(first_row + step * min(t, k.L - 1));
    }

    __device__ __forceinline__ piece piece_of(int chunk) const
    {
        const int t = chunk * TOKENS + threadIdx.x / 16, e = group * CHANNELS + threadIdx.x % 16 * 8;
        const bool there = (t < k.L) & (e < k.E); /* no branches */
        return {row(t), there ? (unsigned)e : 0, there};
    }

    /* The thread's piece of a tensor in a stage. */
    __device__ __forceinline__ char *piece_at(int tensor, int side) const
    {
        return stages[side].rows[tensor] + threadIdx.x / 16 * CHANNELS_BYTES + threadIdx.x % 16 * 16;
    }

    __device__ __forceinline__ void copy_rows(const channels_of<const bf16> &from, int tensor, const piece &p, int side)
    {
        copy_16(shared_address(piece_at(tensor, side)), from.at(p.row, p.channel), p.there);
    }

    /* Writes, or adds, what put() left in a stage. What is added to is waited for here: where that is the rule it has been copied with
     * the rest. */
    __device__ __forceinline__ void write_rows(const channels_of<bf16> &to, int tensor, const piece &p, int side,
                                               bool add) const
    {
        if (to.data == NULL || !p.there)
            return;
        const char *const from = piece_at(tensor, side);
        if (add) {
            float eight[8];
            load_floats((const bf16 *)from, eight);
            put_floats(to.at(p.row, p.channel), true, eight);
        } else {
            *(uint4 *)to.at(p.row, p.channel) = *(const uint4 *)from;
        }
    }

    /* Of a tensor of few columns, 16 of them from `first` on, by 64 threads on a quarter of a row each. */
    __device__ __forceinline__ void copy_tile(const channels_of<const bf16> &from, int first, int columns, int chunk,
                                              char *to) const
    {
        const int which = threadIdx.x % 64, t = chunk * TOKENS + which / 4, n = first + which % 4 * 4;
        const bool there = (t < k.L) & (n < columns);
        copy_8(shared_address(to) + which / 4 * ROW_BYTES + which % 4 * 8, from.at(row(t), there ? n : 0), there);
    }

    /* B, C and dt's left factor; a quarter of the block for each tile. */
    __device__ __forceinline__ void copy_tiles(int chunk, int side)
    {
        char(*const to)[TILE] = stages[side].tiles;
        const int part = threadIdx.x / 64;
        if (part == 0)
            copy_tile(k.B, 0, k.N, chunk, to[TILE_B]);
        else if (part == 1)
            copy_tile(k.C, 0, k.N, chunk, to[TILE_C]);
        else if (part >= 2 && part < 2 + DEPTH)
            copy_tile(k.dt_left, (part - 2) * 16, k.rank, chunk, to[TILE_LEFT + part - 2]);
    }

    __device__ __forceinline__ void read(int tensor, numbers &x) const
    {
        fragment r;
        load_matrices_transposed(r, shared_address(stages[turn].rows[tensor]) + columns_at);
        widen(r, x);
    }

    /* Leaves numbers of the warp's channels in a place of which it has no more need. */
    __device__ __forceinline__ void put(int tensor, const numbers &x)
    {
        fragment r;
        narrow(x, r);
        __syncwarp();
        store_matrices_transposed(r, shared_address(stages[turn].rows[tensor]) + columns_at);
    }

    /* B or C of the chunk: as a fragment, and as a right operand that is tokens deep. */
    __device__ __forceinline__ void read_rows(int tile, fragment &r) const
    {
        load_matrices(r, shared_address(stages[turn].tiles[tile]) + tile_at);
    }
    __device__ __forceinline__ void read_columns(int tile, fragment &r) const
    {
        load_matrices_transposed(r, shared_address(stages[turn].tiles[tile]) + tile_at);
    }

    __device__ __forceinline__ void copy_dt(int tensor, const piece &p, int side)
    {
        if (DEPTH == 0 || k.rank == 0)
            copy_rows(k.dt, tensor, p, side);
    }

    /* dt without its bias, from place `tensor` or as a product. */
    __device__ __forceinline__ void read_dt(int tensor, numbers &dt) const
    {
        if constexpr (DEPTH > 0) {
            sums_of sums = {};
            if (k.rank == 0)
                return read(tensor, dt);
#pragma unroll
            for (int i = 0; i < DEPTH; i++) {
                fragment left, right;
                read_rows(TILE_LEFT + i, left);
                load_matrices(right, shared_address(factor.tiles[i]) + warp * WARP_CHANNELS * ROW_BYTES + tile_at);
                add_product_nt(sums, right, left);
            }
#pragma unroll
            for (int i = 0; i < 8; i++)
                dt[i / 4][i % 4] = number_of(sums, i / 4, i % 4);
        } else {
            read(tensor, dt);
        }
    }
};

__device__ __forceinline__ void add_numbers(numbers &to, const numbers &x)
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        to[i / 4][i % 4] += x[i / 4][i % 4];
}

/* Where a thread's part of f H of a chunk is saved, of block `place`. */
template <int TENSORS, int DEPTH>
__device__ __forceinline__ uint4 *saved_at(const walker<TENSORS, DEPTH> &w, int place, int chunk)
{
    return w.k.saved + ((int64_t)place * w.chunks + chunk) * BLOCK_THREADS + threadIdx.x;
}

template <typename T> __device__ __forceinline__ channels_of<const T> read_only(const channels_of<T> &c)
{
    return {c.data, c.pitch};
}

/* What the state needs of a chunk: u, delta / ln 2, decays and X / ln 2. u and dt stand in places `tensor` and the next. */
template <int TENSORS, int DEPTH>
__device__ __forceinline__ void read_inputs(const walker<TENSORS, DEPTH> &w, int tensor, numbers &u, numbers &delta,
                                            decays &d, fragment &X)
{
    numbers x;
    w.read(tensor, u);
    w.read_dt(tensor + 1, delta);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            delta[i][j] = softplus2(LOG2_E * delta[i][j] + w.bias[i]);
    d.of(delta, w.rate, w.place);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            x[i][j] = d.up[i][j] * delta[i][j] * u[i][j];
    narrow(x, X);
}

/* f H becomes H behind the chunk. */
template <int TENSORS, int DEPTH>
__device__ __forceinline__ void advance(const walker<TENSORS, DEPTH> &w, const decays &d, const fragment &X, sums_of &H)
{
    fragment B;
    w.read_columns(TILE_B, B);
    add_product_nn(H, X, B);
    scale_channels(H, d.through);
}

/* ---- the host's side ------------------------------------------------------------------------------------------------- */

/* Whether a node is for these kernels, but for the alignment of what they move 16 bytes at a time. */
static inline bool fits(const cab_node *node)
{
    bool fits = node->in[CAB_SCAN_U]->dtype == CAB_BF16 && cab_columns(node->in[CAB_SCAN_B]) <= STATES &&
                node->in[CAB_SCAN_Z] != NULL;
    for (int d = 0; d < cab_scan_attributes_of(node)->directions; d++) {
        const cab_node one = cab_scan_direction(node, d);
        const cab_tensor *const states[] = {one.in[CAB_SCAN_B], one.in[CAB_SCAN_C]};
        fits &= one.in[CAB_SCAN_A_LOG]->tied && scan_fits(states, 2, 4);
    }
    return fits;
}

/* Whether dt, of the linear layer `product`, can be computed from the layer's x and W. */
static inline bool multiplies(const cab_node *product)
{
    const cab_tensor *x = product->in[0], *w = product->in[1];
    const cab_tensor *const factors[] = {x, w};
    return product->in[2] == NULL && w->dtype == x->dtype &&
           cab_linear_layout(product) == CAB_OUT_IN && cab_columns(x) <= 16 * MOST_DEPTH && scan_fits(factors, 2, 4);
}

/* Tiles that the factors of dt take in either direction. */
static inline int depth_of(const scan_passes<bf16> &p)
{
    return ((p.of[0].rank > p.of[1].rank ? p.of[0].rank : p.of[1].rank) + 15) / 16;
}

} // namespace scan_tied

#endif
