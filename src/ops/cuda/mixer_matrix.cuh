/* mixer_matrix.cuh - what the kernels of a mixer's matrix share: tiles of 64 x 64 elements in shared memory and their products.
 *
 * Layout: a block of four warps has 64 rows, 16 to a warp. A product's 64 columns lie in a warp's registers as mma.cuh has them
 * (tile_sums): lane 4 g + q has rows g and g + 8 and of every 8 columns 2 q and 2 q + 1. Tiles of bf16 are those of mma.cuh, multiplied by
 * tensor cores; tiles of fp32 have rows of 68 numbers and are multiplied by each lane for its own elements, which is slow and exact.
 *
 * Arithmetic: tile_dots: sums += left right^T      tile_add: sums += w right, w in registers */
#ifndef CAB_OPS_CUDA_MIXER_MATRIX_CUH
#define CAB_OPS_CUDA_MIXER_MATRIX_CUH

#include "ops/cuda/mma.cuh"
#include "ops/cuda/soft_cap.cuh"

extern "C" {
#include "ops/mixer_matrix.h"
}

enum { MIXER_THREADS = 128, MIXER_WARPS = 4, FLOAT_ROW = 68 };

template <typename T> constexpr int MIXER_TILE_BYTES = TILE_BYTES;
template <> constexpr int MIXER_TILE_BYTES<float> = TILE_SIDE *FLOAT_ROW * 4;

/* A lane's place: rows 16 warp + g and + 8. */
struct mixer_place {
    int warp, lane, g, q, row;
    tile_lanes lanes;
};

__device__ __forceinline__ mixer_place mixer_here(void)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    return {warp, lane, lane / 4, lane % 4, 16 * warp + lane / 4, tile_lanes_of(lane)};
}

/* Which row of a tensor token l of sequence b is. */
struct token_rows {
    int64_t length; /* of a sequence in the tensor */
    bool mapped;
    int64_t class_at, skip;

    __device__ __forceinline__ int64_t row(int64_t b, int64_t l) const
    {
        const int64_t token = !mapped ? l : l == class_at ? 0 : 1 + skip + (l < class_at ? l : l - 1);
        return b * length + token;
    }
};

/* Tokens first .. first + 64 of sequence b, `width` columns (at most 64 count) from `column`, into a tile; zeros past `tokens` and past the
 * columns. wide: pieces of 16 bytes fit. */
static __device__ __forceinline__ void load_tokens(char *tile, rows_of<const bf16> from, const token_rows &where,
                                                   int64_t b, int64_t first, int64_t tokens, int64_t column, int width,
                                                   bool wide)
{
#pragma unroll
    for (int i = 0; i < TILE_SIDE * 8 / MIXER_THREADS; i++) {
        const int r = (int)(threadIdx.x + i * MIXER_THREADS) / 8, piece = threadIdx.x % 8;
        const int left = first + r < tokens ? width - piece * 8 : 0;
        uint4 packed = make_uint4(0, 0, 0, 0);
        if (left > 0) {
            const bf16 *at = from.data + where.row(b, first + r) * from.ld + column + piece * 8;
            if (wide && left >= 8) {
                packed = *(const uint4 *)at;
            } else {
                uint32_t pairs[4];
#pragma unroll
                for (int k = 0; k < 4; k++)
                    pairs[k] = pack(2 * k < left ? to_float(at[2 * k]) : 0.0f,
                                    2 * k + 1 < left ? to_float(at[2 * k + 1]) : 0.0f);
                packed = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
            }
        }
        *(uint4 *)(tile + tile_at(r, piece, 0)) = packed;
    }
}

static __device__ __forceinline__ void load_tokens(char *tile, rows_of<const float> from, const token_rows &where,
                                                   int64_t b, int64_t first, int64_t tokens, int64_t column, int width,
                                                   bool)
{
    for (int i = threadIdx.x; i < TILE_SIDE * TILE_SIDE; i += MIXER_THREADS) {
        const int r = i / TILE_SIDE, c = i % TILE_SIDE;
        const bool valid = first + r < tokens && c < width;
        ((float *)tile)[r * FLOAT_ROW + c] = valid ? from.data[where.row(b, first + r) * from.ld + column + c] : 0.0f;
    }
}

static __device__ __forceinline__ void tile_dots(tile_sums &sums, const char *left, const char *right,
                                                 const mixer_place &p, const bf16 *)
{
    tile_rows a;
    load_rows(a, shared_address(left), p.lanes, p.warp);
    multiply_transposed(sums, a, shared_address(right), p.lanes, 0, 4);
}

static __device__ __forceinline__ void tile_dots(tile_sums &sums, const char *left, const char *right,
                                                 const mixer_place &p, const float *)
{
    const float *rows = (const float *)left + p.row * FLOAT_ROW, *columns = (const float *)right + 2 * p.q * FLOAT_ROW;
#pragma unroll 1
    for (int k = 0; k < TILE_SIDE; k++) {
        const float upper = rows[k], lower = rows[8 * FLOAT_ROW + k];
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float a = columns[8 * n * FLOAT_ROW + k], b = columns[(8 * n + 1) * FLOAT_ROW + k];
            sums[n][0] += upper * a;
            sums[n][1] += upper * b;
            sums[n][2] += lower * a;
            sums[n][3] += lower * b;
        }
    }
}

/* What multiplies the right tiles: w as the left operand. fp32: by way of `space`, a tile. */
template <typename T> struct left_tile;

template <> struct left_tile<bf16> {
    tile_rows a;

    __device__ __forceinline__ left_tile(const tile_sums &w, char *, const mixer_place &)
    {
        pack_rows(a, w);
    }
    __device__ __forceinline__ void add(tile_sums &sums, const char *right, const mixer_place &p) const
    {
        multiply(sums, a, shared_address(right), p.lanes, 0, 4);
    }
};

template <> struct left_tile<float> {
    const float *rows;

    __device__ __forceinline__ left_tile(const tile_sums &w, char *space, const mixer_place &p)
    {
        float *to = (float *)space + p.row * FLOAT_ROW + 2 * p.q;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                to[i / 2 * 8 * FLOAT_ROW + 8 * n + i % 2] = w[n][i];
        rows = (const float *)space + p.row * FLOAT_ROW;
        __syncwarp();
    }
    __device__ __forceinline__ void add(tile_sums &sums, const char *right, const mixer_place &p) const
    {
        const float *columns = (const float *)right + 2 * p.q;
#pragma unroll 1
        for (int k = 0; k < TILE_SIDE; k++) {
            const float upper = rows[k], lower = rows[8 * FLOAT_ROW + k];
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const float a = columns[k * FLOAT_ROW + 8 * n], b = columns[k * FLOAT_ROW + 8 * n + 1];
                sums[n][0] += upper * a;
                sums[n][1] += upper * b;
                sums[n][2] += lower * a;
                sums[n][3] += lower * b;
            }
        }
    }
};

/* The attention that is compared with. */
template <typename T> struct attention_of {
    rows_of<const T> q, k;
    token_rows where;
    int64_t length; /* tokens that are compared */
    int P, n_head, share; /* share: heads of q to one of k */
    int window;
    float scale, cap;
    bool causal, wide;
    const int32_t *starts;

    /* The first token that row i sees. */
    __device__ __forceinline__ int64_t first_of(int64_t b, int64_t i) const
    {
        const int64_t first = window > 0 && i >= window ? i - window + 1 : 0;
        return starts != NULL && i < length ? max(first, (int64_t)starts[b * length + i]) : first;
    }
    /* What the softmax sees of a product. */
    __device__ __forceinline__ float score(float product) const
    {
        return cap > 0.0f ? soft_cap(product * scale, cap) : product * scale;
    }
};

template <typename T>
static inline attention_of<T> attention_in(const cab_tensor *q, const cab_tensor *k, const cab_tensor *starts,
                                           const cab_attention_rows_attributes *a)
{
    const cab_attention_shape *s = &a->shape;
    attention_of<T> of;
    of.q = rows<const T>(q);
    of.k = rows<const T>(k);
    of.where = {q->shape[1], a->align.mapped, a->align.rows.class_at, a->align.rows.skip};
    of.length = cab_align_length(&a->align, q);
    of.P = s->head_dim;
    of.n_head = s->n_head;
    of.share = s->n_head / s->n_kv_head;
    of.window = s->window;
    of.scale = s->scale;
    of.cap = s->cap;
    of.causal = s->causal;
    of.wide = s->head_dim % 8 == 0 && fits_packets(q, 8) && fits_packets(k, 8);
    of.starts = starts != NULL ? (const int32_t *)starts->data : NULL;
    return of;
}

#endif
