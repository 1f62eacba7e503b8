/* mma.cuh - bf16 matrix products of a warp on tiles in shared memory.
 *
 * Arithmetic: C += A B by mma.sync m16n8k16, bf16 operands and fp32 sums, which every architecture from sm_80 on has.
 *
 * Layout in shared memory: a tile is 64 rows of 64 bf16, 128 bytes each. Its 16-byte pieces are permuted within the
 * row: piece c of row r stands at c ^ (r % 8). So the same piece of eight successive rows lies in eight different
 * groups of banks.
 *
 * Layout in registers (fragments), lane = 4 g + q: pairs of elements (row g or g + 8, columns 2 q and 2 q + 1). The
 * sums of two neighbouring blocks of 8 columns, packed to bf16, are the left operand of 16 columns. So a product can
 * be fed to the next one without leaving registers. */
#ifndef CAB_OPS_CUDA_MMA_CUH
#define CAB_OPS_CUDA_MMA_CUH

#include "ops/cuda/cuda.cuh"

enum { TILE_SIDE = 64, TILE_ROW_BYTES = 128, TILE_BYTES = TILE_SIDE * TILE_ROW_BYTES };

/* 16 rows of a 64 x 64 product, and of a left operand 64 deep. */
typedef float tile_sums[8][4];
typedef uint32_t tile_rows[4][4];

__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}

__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* The transpose of an 8 x 8 matrix of which a lane holds row g, columns 2 q and 2 q + 1. */
__device__ __forceinline__ uint32_t transposed(uint32_t a)
{
    uint32_t d;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(a));
    return d;
}

/* The reverse of load_matrices_transposed(). One instruction from sm_90 on. */
__device__ __forceinline__ void store_matrices_transposed(const uint32_t (&r)[4], uint32_t to)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
#else
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < 4; m++) {
        const uint32_t row = __shfl_sync(0xffffffffu, to, 8 * m + lane / 4);
        *(uint32_t *)__cvta_shared_to_generic(row + lane % 4 * 4) = transposed(r[m]);
    }
#endif
}

/* Copies 8 or 16 bytes behind the program's back, or writes zeros. */
__device__ __forceinline__ void copy_8(uint32_t to, const void *from, bool valid)
{
    const int bytes = valid ? 8 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_16(uint32_t to, const void *from, bool valid)
{
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copies_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

__device__ __forceinline__ void copies_wait(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* For all but the last LEFT groups. */
template <int LEFT> __device__ __forceinline__ void copies_wait_but(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* Asks for the line of global memory to be brought into the second-level cache. */
__device__ __forceinline__ void prefetch_line(const void *at)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

__device__ __forceinline__ uint32_t pack(float low, float high)
{
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return *(const uint32_t *)&two;
}

__device__ __forceinline__ float low_half(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

__device__ __forceinline__ float high_half(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

/* Byte of the pair of columns 8 block + 2 q of a row. */
__device__ __forceinline__ uint32_t tile_at(int row, int block, int q)
{
    return (uint32_t)(row * TILE_ROW_BYTES + ((block ^ (row & 7)) << 4) + q * 4);
}

/* Where a lane reads the four 8 x 8 matrices of 16 rows and 16 columns: rows first (0 1 over columns 2 3), or columns
 * first. */
struct tile_lanes {
    uint32_t rows_first, rows_piece, columns_first, columns_piece;
};

__device__ __forceinline__ tile_lanes tile_lanes_of(int lane)
{
    const uint32_t l = (uint32_t)lane, swap = l & 7;
    return {(l & 15) * TILE_ROW_BYTES, ((l >> 4) ^ swap) << 4, ((l & 7) + ((l >> 4) << 3)) * TILE_ROW_BYTES,
            (((l >> 3) & 1) ^ swap) << 4};
}

/* Left operand: rows 16 m .., columns 16 k ..; of the tile, and of its transpose. */
__device__ __forceinline__ void load_left(uint32_t (&a)[4], uint32_t tile, const tile_lanes &l, int m, int k)
{
    load_matrices(a, tile + m * 16 * TILE_ROW_BYTES + l.rows_first + ((uint32_t)(k * 32) ^ l.rows_piece));
}
__device__ __forceinline__ void load_left_transposed(uint32_t (&a)[4], uint32_t tile, const tile_lanes &l, int m, int k)
{
    load_matrices_transposed(a,
                             tile + k * 16 * TILE_ROW_BYTES + l.columns_first + ((uint32_t)(m * 32) ^ l.columns_piece));
}

__device__ __forceinline__ void load_rows(tile_rows &a, uint32_t tile, const tile_lanes &l, int m)
{
#pragma unroll
    for (int k = 0; k < 4; k++)
        load_left(a[k], tile, l, m, k);
}

/* sums += a times 16 rows of depth 16 k .. of the tile, as it stands, (depth, columns), or transposed, (columns, depth);
 * columns 16 n_first .. 16 n_end. */
template <bool TRANSPOSED>
__device__ __forceinline__ void multiply_step(tile_sums &sums, const uint32_t (&a)[4], uint32_t tile,
                                              const tile_lanes &l, int k, int n_first, int n_end)
{
#pragma unroll
    for (int n = 0; n < 4; n++)
        if (n >= n_first && n < n_end) {
            uint32_t b[4];
            if (TRANSPOSED)
                load_matrices(b, tile + n * 16 * TILE_ROW_BYTES + l.columns_first +
                                     ((uint32_t)(k * 32) ^ l.columns_piece));
            else
                load_matrices_transposed(b, tile + k * 16 * TILE_ROW_BYTES + l.rows_first +
                                                ((uint32_t)(n * 32) ^ l.rows_piece));
            mma(sums[2 * n], a, b[0], b[1]);
            mma(sums[2 * n + 1], a, b[2], b[3]);
        }
}

/* sums += a tile, depth 16 k_first .. 16 k_end */
__device__ __forceinline__ void multiply(tile_sums &sums, const tile_rows &a, uint32_t tile, const tile_lanes &l,
                                         int k_first, int k_end)
{
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (k >= k_first && k < k_end)
            multiply_step<false>(sums, a[k], tile, l, k, 0, 4);
}

/* sums += a tile^T, columns 16 n_first .. 16 n_end */
__device__ __forceinline__ void multiply_transposed(tile_sums &sums, const tile_rows &a, uint32_t tile,
                                                    const tile_lanes &l, int n_first, int n_end)
{
#pragma unroll
    for (int k = 0; k < 4; k++)
        multiply_step<true>(sums, a[k], tile, l, k, n_first, n_end);
}

__device__ __forceinline__ void clear(tile_sums &sums)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[n][i] = 0.0f;
}

/* Rows g and g + 8. */
__device__ __forceinline__ void scale_rows(tile_sums &sums, float upper, float lower)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        sums[n][0] *= upper;
        sums[n][1] *= upper;
        sums[n][2] *= lower;
        sums[n][3] *= lower;
    }
}

__device__ __forceinline__ void pack_rows(tile_rows &a, const tile_sums &sums)
{
#pragma unroll
    for (int n = 0; n < 8; n++) {
        a[n / 2][n % 2 * 2] = pack(sums[n][0], sums[n][1]);
        a[n / 2][n % 2 * 2 + 1] = pack(sums[n][2], sums[n][3]);
    }
}

/* The lane's part of <sums, a> in rows g and g + 8. */
__device__ __forceinline__ void row_products(const tile_sums &sums, const tile_rows &a, float &upper, float &lower)
{
    upper = lower = 0.0f;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const uint32_t u = a[n / 2][n % 2 * 2], d = a[n / 2][n % 2 * 2 + 1];
        upper += sums[n][0] * low_half(u) + sums[n][1] * high_half(u);
        lower += sums[n][2] * low_half(d) + sums[n][3] * high_half(d);
    }
}

/* Over the four lanes of a row. */
__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Lane q of a quad gives v[i] to lane i and receives that lane's v[q] as v[i]. */
__device__ __forceinline__ void quad_transpose(uint32_t (&v)[4], int q)
{
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!(i & bit)) {
                const bool upper = q & bit;
                const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? v[i] : v[i | bit], bit);
                if (upper)
                    v[i] = got;
                else
                    v[i | bit] = got;
            }
}

#endif
