/* wgmma.cuh - bf16 matrix products of four warps on tiles in shared memory: wgmma.mma_async m64nNk16 with fp32 sums,
 * which only Hopper has.
 *
 * Operands are tiles of mma.cuh that begin at multiples of 1024 bytes: their permuted pieces are what the PTX manual
 * calls 128-byte swizzle. A left operand (64 x 16) and a right one (16 x N) are read as they stand where k runs along
 * the tile's rows, "K-major", and transposed, "MN-major", where k counts its rows. Sums lie as those of mma.sync: warp
 * w of the four has rows 16 w + g and 8 further.
 *
 * A product runs on its own from wgmma() until wgmma_wait(): till then its sums must not be touched nor its operands
 * written. It sees what threads have written to shared memory once each of them has passed publish() and then a
 * barrier. */
#ifndef CAB_OPS_CUDA_WGMMA_CUH
#define CAB_OPS_CUDA_WGMMA_CUH

#include "ops/cuda/mma.cuh"

/* Kernels compiled for another architecture than sm_90a are empty, and are not launched. */
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CAB_CUDA_WGMMA 1
#else
#define CAB_CUDA_WGMMA 0
#endif

enum { WARPGROUP = 128, EIGHT_ROWS = 8 * TILE_ROW_BYTES };

/* A matrix at a place in shared memory: eight rows of a tile after eight others and, of a transposed one, its columns
 * from 64 on in tiles `next` bytes further. */
__device__ __forceinline__ uint64_t operand_at(uint32_t address, uint32_t next = 16)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(next >> 4) << 16 | (uint64_t)(EIGHT_ROWS >> 4) << 32 |
           (uint64_t)1 << 62;
}

/* The same matrix some bytes further: 32 for the next 16 columns, 16 rows for the next 16 rows. */
__device__ __forceinline__ uint64_t further(uint64_t operand, uint32_t bytes)
{
    return operand + (bytes >> 4);
}

/* Before the first of several products whose sums, or registers of them, were touched. */
__device__ __forceinline__ void wgmma_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* Makes a group of all products since the last one. */
__device__ __forceinline__ void wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits for all but the last `LEFT` groups. */
template <int LEFT> __device__ __forceinline__ void wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* Keeps the compiler from moving what is done with sums to the other side of a wait, which it does not know to change
 * them. */
template <int N> __device__ __forceinline__ void keep(float (&sums)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            asm volatile("" : "+f"(sums[n][i])::"memory");
}

/* Lets products see what this thread has written to shared memory. */
__device__ __forceinline__ void publish(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Waits for the other warps of team `team`, four neighbouring ones. */
__device__ __forceinline__ void team_barrier(int team)
{
    asm volatile("bar.sync %0, 128;" ::"r"(team + 1) : "memory");
}

/* d = a b, or with `add` d += a b. */
template <bool LEFT_TRANSPOSED, bool RIGHT_TRANSPOSED>
__device__ __forceinline__ void wgmma(float (&d)[8][4], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; "
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, p, 1, 1, %35, %36; }"
                 : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
                   "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
                   "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
                   "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
                   "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
                   "+f"(d[7][2]), "+f"(d[7][3])
                 : "l"(a), "l"(b), "r"((int)add), "n"((int)LEFT_TRANSPOSED), "n"((int)RIGHT_TRANSPOSED)
                 : "memory");
}

template <bool LEFT_TRANSPOSED, bool RIGHT_TRANSPOSED>
__device__ __forceinline__ void wgmma(float (&d)[16][4], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, p, 1, 1, %67, %68; }"
                 : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
                   "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
                   "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
                   "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
                   "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
                   "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]),
                   "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),
                   "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]),
                   "+f"(d[12][0]), "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]), "+f"(d[13][0]), "+f"(d[13][1]),
                   "+f"(d[13][2]), "+f"(d[13][3]), "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]),
                   "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]), "+f"(d[15][3])
                 : "l"(a), "l"(b), "r"((int)add), "n"((int)LEFT_TRANSPOSED), "n"((int)RIGHT_TRANSPOSED)
                 : "memory");
}

/* The same with the left operand's rows, 16 a warp, in registers, as of mma(). They must not be written before
 * wgmma_wait() either. */
template <bool RIGHT_TRANSPOSED>
__device__ __forceinline__ void wgmma(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b, bool add)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0; "
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, %38; }"
                 : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
                   "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
                   "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
                   "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
                   "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
                   "+f"(d[7][2]), "+f"(d[7][3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add), "n"((int)RIGHT_TRANSPOSED)
                 : "memory");
}

template <bool RIGHT_TRANSPOSED>
__device__ __forceinline__ void wgmma(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b, bool add)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, p, 1, 1, %70; }"
                 : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
                   "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
                   "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
                   "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
                   "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
                   "+f"(d[7][2]), "+f"(d[7][3]), "+f"(d[8][0]), "+f"(d[8][1]), "+f"(d[8][2]), "+f"(d[8][3]),
                   "+f"(d[9][0]), "+f"(d[9][1]), "+f"(d[9][2]), "+f"(d[9][3]), "+f"(d[10][0]), "+f"(d[10][1]),
                   "+f"(d[10][2]), "+f"(d[10][3]), "+f"(d[11][0]), "+f"(d[11][1]), "+f"(d[11][2]), "+f"(d[11][3]),
                   "+f"(d[12][0]), "+f"(d[12][1]), "+f"(d[12][2]), "+f"(d[12][3]), "+f"(d[13][0]), "+f"(d[13][1]),
                   "+f"(d[13][2]), "+f"(d[13][3]), "+f"(d[14][0]), "+f"(d[14][1]), "+f"(d[14][2]), "+f"(d[14][3]),
                   "+f"(d[15][0]), "+f"(d[15][1]), "+f"(d[15][2]), "+f"(d[15][3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add), "n"((int)RIGHT_TRANSPOSED)
                 : "memory");
}

/* Bytes from 16 columns of a tile to the next, and from 16 rows. */
enum { COLUMNS_16 = 32, ROWS_16 = 16 * TILE_ROW_BYTES };

/* 16 rows of sums over NT tiles beside one another. */
template <int NT> using wide_sums = float[8 * NT][4];

template <int N> __device__ __forceinline__ void clear_sums(float (&sums)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sums[n][e] = 0.0f;
}

/* Begins sums = left right^T: rows of NT tiles of 64 columns each. */
template <int NT> __device__ __forceinline__ void begin_rows(tile_sums &sums, const char *left, const char *right)
{
    const uint64_t a = operand_at(shared_address(left)), b = operand_at(shared_address(right));
    keep(sums);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < 4 * NT; step++) {
        const uint32_t bytes = step / 4 * TILE_BYTES + step % 4 * COLUMNS_16;
        wgmma<false, false>(sums, further(a, bytes), further(b, bytes), step > 0);
    }
    wgmma_commit();
}

/* Begins sums = a right, or += with `add`, right as it stands: 64 rows of NT tiles beside one another. */
template <int N> __device__ __forceinline__ void begin_through(float (&sums)[N][4], const tile_rows &a, const char *right, bool add)
{
    const uint64_t b = operand_at(shared_address(right), TILE_BYTES);
    keep(sums);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma<true>(sums, a[step], further(b, step * ROWS_16), add || step > 0);
    wgmma_commit();
}

#endif
