/* flash.cuh - attention of bf16 on tensor cores: what the forward and the backward kernels share.
 *
 * Layout: a block of four warps holds tiles of tokens of one head in shared memory. A row of a tile is the head's
 * features, padded with zeros to W, and then 16 bytes more. So a row is an odd number of 16-byte pieces, and the same
 * piece of eight successive rows lies in eight different groups of banks: they are read without conflict. The next
 * tiles are copied (cp.async) while a tile is worked on.
 *
 * Arithmetic: products of tiles by mma.sync (mma.cuh) with fp32 sums; flash.cu and flash_backward.cu have the
 * formulas. */
#ifndef CAB_OPS_CUDA_FLASH_CUH
#define CAB_OPS_CUDA_FLASH_CUH

#include "ops/cuda/mma.cuh"
#include "ops/cuda/soft_cap.cuh"

extern "C" {
#include "ops/attention.h"
#include "ops/cuda/flash.h"
}

enum { FLASH_HEAD_MAX = 128, FLASH_THREADS = 128, FLASH_TILE = 64 /* tokens of the tiles that are walked over */ };

/* What the kernels ask of the op. A sequence has less than 2^30 tokens. */
struct flash_problem {
    int length, window; /* window 0: none; less than the length */
    int n_head, group;  /* group: heads that share keys */
    int width, tiles;   /* tiles: blocks of a sequence and head */
    int blocks;         /* of a sequence and all heads */
    float scale, cap;   /* cap 0: none */
    bool causal, wide; /* wide: 16-byte accesses fit everywhere */
    const int32_t *starts; /* (B, L), the first token of each token's document; NULL: none */

    /* Keys begin .. end that query i sees. */
    __device__ __forceinline__ int begin_of(int i) const
    {
        const int begin = window > 0 && i >= window ? i - window + 1 : 0;
        return starts != NULL ? max(begin, starts[(int64_t)(blockIdx.x / (unsigned)blocks) * length + min(i, length - 1)])
                              : begin;
    }
    __device__ __forceinline__ int end_of(int i) const
    {
        return causal && i < length ? i + 1 : length;
    }
};

/* Kernels are compiled for scores with a soft cap and without. What the softmax sees is flash_unit() times flash_score() of a
 * product of query and key; flash_slope(): its derivative, but for the scale. */
template <bool CAPPED> __device__ __forceinline__ float flash_score(const flash_problem &p, float s)
{
    return CAPPED ? soft_cap(s * p.scale, p.cap) : s;
}
template <bool CAPPED> __device__ __forceinline__ float flash_unit(const flash_problem &p)
{
    return CAPPED ? 1.0f : p.scale;
}
template <bool CAPPED> __device__ __forceinline__ float flash_slope(const flash_problem &p, float score)
{
    return CAPPED ? soft_cap_slope(score, p.cap) : 1.0f;
}

/* Bytes from row to row of a tile of heads padded to W. */
template <int W> constexpr int FLASH_ROW = 2 * W + 16;
template <int W> constexpr int FLASH_BYTES = FLASH_TILE *FLASH_ROW<W>;

/* Where a lane reads the four 8 x 8 matrices of 16 rows and 16 columns: rows first (0 1 over columns 2 3), as the left
 * operand and, transposed, as the right one; or columns first, for the right operand as it stands. */
template <int W> struct flash_lanes {
    uint32_t rows_first, columns_first;

    __device__ __forceinline__ explicit flash_lanes(uint32_t lane)
        : rows_first((lane & 15) * FLASH_ROW<W> + (lane >> 4) * 16),
          columns_first(((lane & 7) + (lane >> 4) * 8) * FLASH_ROW<W> + (lane >> 3 & 1) * 16)
    {
    }
};

/* Byte of row 16 m, column 16 k of a tile. */
template <int W> __device__ __forceinline__ constexpr uint32_t flash_at(int m, int k)
{
    return (uint32_t)(16 * m * FLASH_ROW<W> + 32 * k);
}

/* 16 M rows of heads as left operands; M times 16 rows by 16 columns of a product, and by W columns. */
template <int W, int M> using flash_rows = uint32_t[M][W / 16][4];
template <int M> using flash_block = float[M][2][4];
template <int W, int M> using flash_sums = float[M][W / 8][4];

template <int W, int M>
static __device__ __forceinline__ void flash_read(flash_rows<W, M> &rows, uint32_t tile, const flash_lanes<W> &lanes)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int k = 0; k < W / 16; k++)
            load_matrices(rows[m][k], tile + lanes.rows_first + flash_at<W>(m, k));
}

/* s = rows times rows 16 n .. 16 n + 16 of the tile, transposed. */
template <int W, int M>
static __device__ __forceinline__ void flash_dots(flash_block<M> &s, const flash_rows<W, M> &rows, uint32_t tile,
                                                  const flash_lanes<W> &lanes, int n)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[m][0][i] = s[m][1][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < W / 16; k++) {
        uint32_t b[4];
        load_matrices(b, tile + lanes.columns_first + flash_at<W>(n, k));
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma(s[m][0], rows[m][k], b[0], b[1]);
            mma(s[m][1], rows[m][k], b[2], b[3]);
        }
    }
}

/* sums += s, rounded to bf16, times rows 16 k .. 16 k + 16 of the tile. */
template <int W, int M>
static __device__ __forceinline__ void flash_add(flash_sums<W, M> &sums, const flash_block<M> &s, uint32_t tile,
                                                 const flash_lanes<W> &lanes, int k)
{
    uint32_t a[M][4];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[m][i] = pack(s[m][i / 2][i % 2 * 2], s[m][i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < W / 16; n++) {
        uint32_t b[4];
        load_matrices_transposed(b, tile + lanes.rows_first + flash_at<W>(k, n));
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma(sums[m][2 * n], a[m], b[0], b[1]);
            mma(sums[m][2 * n + 1], a[m], b[2], b[3]);
        }
    }
}

template <int W, int M> static __device__ __forceinline__ void flash_clear(flash_sums<W, M> &sums)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < W / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sums[m][n][i] = 0.0f;
}

/* ROWS rows of a head, from token `first` of the sequence whose first is at `from`, to a tile; zeros past the sequence and
 * the head. Done after copies_wait() and __syncthreads(). */
template <int W, int ROWS>
static __device__ __forceinline__ void flash_load(char *tile, const bf16 *from, int64_t ld, const flash_problem &p,
                                                  int first)
{
    constexpr int PIECES = W / 8, N = ROWS * PIECES / FLASH_THREADS;
    static_assert(ROWS * PIECES % FLASH_THREADS == 0, "a piece for every thread");
    if (p.wide) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int at = (int)threadIdx.x + i * FLASH_THREADS, r = at / PIECES, c = at % PIECES * 8;
            const bool valid = first + r < p.length && c < p.width;
            copy_16(shared_address(tile + r * FLASH_ROW<W> + c * 2), valid ? from + (first + r) * ld + c : from, valid);
        }
        return;
    }
#pragma unroll 1
    for (int at = threadIdx.x; at < ROWS * PIECES; at += FLASH_THREADS) {
        const int r = at / PIECES, c = at % PIECES * 8;
        const int n = first + r < p.length ? p.width - c : 0;
        vec<bf16, 8> piece;
#pragma unroll
        for (int k = 0; k < 8; k++)
            piece.at[k] = k < n ? from[(first + r) * ld + c + k] : from_float<bf16>(0.0f);
        *(vec<bf16, 8> *)(tile + r * FLASH_ROW<W> + c * 2) = piece;
    }
}

/* A warp's 16 M rows of sums, as they stand in fragments, to as many rows of a tile in bf16. */
template <int W, int M>
static __device__ __forceinline__ void flash_put(char *tile, const flash_sums<W, M> &sums, int lane)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < W / 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *(uint32_t *)(tile + (16 * m + 8 * half + lane / 4) * FLASH_ROW<W> + n * 16 + lane % 4 * 4) =
                    pack(sums[m][n][2 * half], sums[m][n][2 * half + 1]);
}

/* A warp's ROWS rows of a tile to tokens first .. of the sequence whose first is at `to`. */
template <int W, int ROWS>
static __device__ __forceinline__ void flash_store(bf16 *to, int64_t ld, const char *tile, const flash_problem &p,
                                                   int first, int lane)
{
    constexpr int PIECES = W / 8;
#pragma unroll 4
    for (int at = lane; at < ROWS * PIECES; at += 32) {
        const int r = at / PIECES, c = at % PIECES * 8;
        if (first + r >= p.length || c >= p.width)
            continue;
        bf16 *out = to + (first + r) * ld + c;
        const vec<bf16, 8> piece = *(const vec<bf16, 8> *)(tile + r * FLASH_ROW<W> + c * 2);
        if (p.wide) {
            *(vec<bf16, 8> *)out = piece;
            continue;
        }
#pragma unroll
        for (int k = 0; k < 8; k++)
            if (c + k < p.width)
                out[k] = piece.at[k];
    }
}

enum { FLASH_BLOCKS = FLASH_TILE / 16 }; /* of 16 tokens in a tile that is walked over */

constexpr float FLASH_LOG2_E = 1.4426950408889634f;

/* 2^x, subnormal results as 0. */
__device__ __forceinline__ float flash_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Runs `call` with W the width that heads of `width_` are padded to. */
#define FLASH_BY_WIDTH(width_, call)                                                                                   \
    do {                                                                                                               \
        if ((width_) <= 16) {                                                                                          \
            constexpr int W = 16;                                                                                      \
            call;                                                                                                      \
        } else if ((width_) <= 32) {                                                                                   \
            constexpr int W = 32;                                                                                      \
            call;                                                                                                      \
        } else if ((width_) <= 64) {                                                                                   \
            constexpr int W = 64;                                                                                      \
            call;                                                                                                      \
        } else if ((width_) <= 80) {                                                                                   \
            constexpr int W = 80;                                                                                      \
            call;                                                                                                      \
        } else if ((width_) <= 96) {                                                                                   \
            constexpr int W = 96;                                                                                      \
            call;                                                                                                      \
        } else {                                                                                                       \
            constexpr int W = 128;                                                                                     \
            call;                                                                                                      \
        }                                                                                                              \
    } while (0)

/* The op cut into blocks of `rows` tokens of one of `heads` heads. */
static inline flash_problem flash_problem_of(const cab_node *node, int rows, int heads)
{
    const cab_attention_shape *s = (const cab_attention_shape *)node->attributes;
    flash_problem p;
    p.length = (int)node->in[0]->shape[1];
    p.window = s->window < p.length ? s->window : 0;
    p.n_head = s->n_head;
    p.group = s->n_head / s->n_kv_head;
    p.width = s->head_dim;
    p.tiles = (p.length + rows - 1) / rows;
    p.blocks = p.tiles * heads;
    p.scale = s->scale;
    p.cap = s->cap;
    p.causal = s->causal;
    p.starts = node->in[CAB_ATTENTION_STARTS] ? (const int32_t *)node->in[CAB_ATTENTION_STARTS]->data : NULL;
    p.wide = s->head_dim % 8 == 0 && fits_packets(node->out[0], 8) && fits_packets(node->gout[0], 8);
    for (int i = 0; i < 3; i++)
        p.wide = p.wide && fits_packets(node->in[i], 8) && fits_packets(node->gin[i], 8);
    return p;
}

#endif
