/* matrix_narrow.cuh - what both passes of narrow layers (matrix_narrow.cu) are made of.
 *
 * Layout: the weight stands in shared memory in the order in which lanes read it; place() says where element (n, c)
 * is. Rows come from device memory to registers.
 *
 * Arithmetic: `expand`, W = N w, of 16 rows by one warp, with mma.sync (mma.cuh); bf16 operands, fp32 sums. */
#ifndef CAB_OPS_CUDA_MATRIX_NARROW_CUH
#define CAB_OPS_CUDA_MATRIX_NARROW_CUH

#include "ops/cuda/mma.cuh"

enum { STEP = 16 /* rows of a product by a warp */ };

struct sizes {
    int64_t n_row;
    int n_narrow, n_wide;
};

__device__ __forceinline__ uint2 load_8(const bf16 *from, bool valid)
{
    return valid ? *(const uint2 *)from : make_uint2(0, 0);
}
__device__ __forceinline__ uint4 load_16(const bf16 *from, bool valid)
{
    return valid ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
}

/* The same half of two neighbouring rows, side by side. */
__device__ __forceinline__ uint32_t low_halves(uint32_t row, uint32_t next)
{
    return __byte_perm(row, next, 0x5410);
}
__device__ __forceinline__ uint32_t high_halves(uint32_t row, uint32_t next)
{
    return __byte_perm(row, next, 0x7632);
}

/* ---- the weight in shared memory --------------------------------------------------------------------------------- */

/* Where element (n, c) of w stands. BLOCKS: 16s of n_narrow. expand: [32 columns][block][pair][lane][2][4]. contract:
 * [32 columns][8 rows][lane][8]. */
template <int BLOCKS, bool EXPAND> __device__ __forceinline__ int place(int n, int c)
{
    if (EXPAND) {
        const int g = c % 32 / 8 * 2 + c % 2, part = c % 8 / 2, q = n % 16 / 4;
        return ((((c / 32 * BLOCKS + n / 16) * 2 + part / 2) * 32 + g * 4 + q) * 2 + part % 2) * 4 + n % 4;
    }
    const int g = n % 16 / 4 * 2 + n % 2, q = c % 32 / 8;
    return ((c / 32 * 2 * BLOCKS + n / 16 * 2 + n % 4 / 2) * 32 + g * 4 + q) * 8 + c % 8;
}

__host__ __device__ __forceinline__ int padded(int n_wide)
{
    return (n_wide + 31) / 32 * 32;
}

/* Zeros beyond the sides. From a parameter (n_wide, n_narrow) for expand, (n_narrow, n_wide) for contract: what lies
 * side by side there does so here, and is copied behind the program's back. */
template <int BLOCKS, bool EXPAND>
__device__ __forceinline__ void copy_weight(bf16 *to, const bf16 *w, int ld, const sizes &s)
{
    const int wide = padded(s.n_wide);
    if (EXPAND)
        for (int i = threadIdx.x; i < wide * 4 * BLOCKS; i += blockDim.x) {
            const int c = i / (4 * BLOCKS), n = i % (4 * BLOCKS) * 4;
            const bool inside = n < s.n_narrow && c < s.n_wide;
            copy_8(shared_address(to + place<BLOCKS, true>(n, c)), inside ? w + c * ld + n : w, inside);
        }
    else
        for (int n = threadIdx.x / 32; n < 16 * BLOCKS; n += blockDim.x / 32)
            for (int c = threadIdx.x % 32 * 8; c < wide; c += 32 * 8) {
                const bool inside = n < s.n_narrow && c < s.n_wide;
                copy_16(shared_address(to + place<BLOCKS, false>(n, c)), inside ? w + n * ld + c : w, inside);
            }
}

/* From a parameter that lies the other way, by pieces of 4 x 4. */
template <int BLOCKS, bool EXPAND>
__device__ __forceinline__ void transpose_weight(bf16 *to, const bf16 *w, int ld, const sizes &s)
{
    const int lines = EXPAND ? s.n_narrow : s.n_wide, across = EXPAND ? s.n_wide : s.n_narrow;
#pragma unroll 3
    for (int i = threadIdx.x; i < padded(s.n_wide) * BLOCKS; i += blockDim.x) {
        const int n = i % (4 * BLOCKS) * 4, c = i / (4 * BLOCKS) * 4, line = EXPAND ? n : c, first = EXPAND ? c : n;
        uint2 in[4], out[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            in[j] = load_8(w + (line + j) * ld + first, line + j < lines && first < across);
        out[0] = make_uint2(low_halves(in[0].x, in[1].x), low_halves(in[2].x, in[3].x));
        out[1] = make_uint2(high_halves(in[0].x, in[1].x), high_halves(in[2].x, in[3].x));
        out[2] = make_uint2(low_halves(in[0].y, in[1].y), low_halves(in[2].y, in[3].y));
        out[3] = make_uint2(high_halves(in[0].y, in[1].y), high_halves(in[2].y, in[3].y));
#pragma unroll
        for (int j = 0; j < 4; j++)
            *(uint2 *)(to + (EXPAND ? place<BLOCKS, true>(n, c + j) : place<BLOCKS, false>(n + j, c))) = out[j];
    }
}

/* along_wide: the parameter is (n_narrow, n_wide), else (n_wide, n_narrow); `first` of its wide side is column 0.
 * Complete once the thread's copies are, and after a barrier. */
template <int BLOCKS, bool EXPAND>
__device__ __forceinline__ void begin_weight(bf16 *to, const bf16 *w, bool along_wide, int first, int ld,
                                             const sizes &s)
{
    w += along_wide ? first : (int64_t)first * ld;
    if (EXPAND != along_wide)
        copy_weight<BLOCKS, EXPAND>(to, w, ld, s);
    else
        transpose_weight<BLOCKS, EXPAND>(to, w, ld, s);
}

/* __syncwarp(): without it nvcc 13.0 moves loads of the rows, which need not wait, behind the wait. */
__device__ __forceinline__ void weight_wait()
{
    __syncwarp();
    copies_wait();
    __syncthreads();
}

/* ---- the products of 16 rows by a warp --------------------------------------------------------------------------- */

/* Two neighbours in row g and two in row g + 8, of four 8-column blocks: what stands there, or the bias. */
__device__ __forceinline__ void begin_with(float (&sums)[4][4], const uint4 &upper, const uint4 &lower)
{
    const uint32_t u[4] = {upper.x, upper.y, upper.z, upper.w}, l[4] = {lower.x, lower.y, lower.z, lower.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sums[i][0] = low_half(u[i]);
        sums[i][1] = high_half(u[i]);
        sums[i][2] = low_half(l[i]);
        sums[i][3] = high_half(l[i]);
    }
}

/* __stwb(): nvcc 13.0 stores some of these words one by one if it may. */
__device__ __forceinline__ void store_rows(bf16 *upper, bf16 *lower, const float (&s)[4][4], bool has_upper,
                                           bool has_lower)
{
    if (has_upper)
        __stwb((uint4 *)upper, make_uint4(pack(s[0][0], s[0][1]), pack(s[1][0], s[1][1]), pack(s[2][0], s[2][1]),
                                          pack(s[3][0], s[3][1])));
    if (has_lower)
        __stwb((uint4 *)lower, make_uint4(pack(s[0][2], s[0][3]), pack(s[1][2], s[1][3]), pack(s[2][2], s[2][3]),
                                          pack(s[3][2], s[3][3])));
}

/* sums += 16 rows of the narrow side times 32 columns of w. */
template <int BLOCKS>
__device__ __forceinline__ void expand_group(float (&sums)[4][4], const uint32_t (&a)[BLOCKS][4], const uint4 *w)
{
#pragma unroll
    for (int k = 0; k < BLOCKS; k++)
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
            const uint4 b = w[(k * 2 + pair) * 32 + threadIdx.x % 32];
            mma(sums[2 * pair], a[k], b.x, b.y);
            mma(sums[2 * pair + 1], a[k], b.z, b.w);
        }
}

#endif
