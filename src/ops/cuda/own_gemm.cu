/* own_gemm.cu - a matrix product of any strides and any alignment, for shapes that cuBLASLt has no algorithm for.
 *
 * Layout: a block of 256 threads computes a 64 x 64 tile of C, a thread 4 x 4 elements of it in registers. The block
 * walks over k by 16 and holds the 64 x 16 slices of A and B in shared memory as fp32.
 *
 * Arithmetic: C = A B + bias, or C += A B, in fp32, each sum in the order of k. */
#include "ops/cuda/cublaslt.h"
#include "ops/cuda/cuda.cuh"

enum { TILE = 64, DEPTH = 16, PART = 4, THREADS = TILE / PART * (TILE / PART) };

template <typename T> struct operand {
    const T *data;
    int64_t row, column;
};

/* Elements of the slice: `lines` of C's rows (or columns) by DEPTH of k; zero outside. */
template <typename T>
__device__ __forceinline__ void load(float (*slice)[TILE + 1], const T *data, int64_t line_stride, int64_t k_stride,
                                     int64_t first_line, int64_t lines, int64_t first_k, int64_t depth)
{
    for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
        /* Neighbouring threads take what is neighbouring in memory. */
        const int line = k_stride == 1 ? i / DEPTH : i % TILE, k = k_stride == 1 ? i % DEPTH : i / TILE;
        const int64_t at_line = first_line + line, at_k = first_k + k;
        slice[k][line] =
            at_line < lines && at_k < depth ? to_float(data[at_line * line_stride + at_k * k_stride]) : 0.0f;
    }
}

template <typename T, typename TC, typename TB>
static __global__ void __launch_bounds__(THREADS)
    multiply(operand<T> a, operand<T> b, rows_of<TC> c, const TB *bias, int64_t m, int64_t n, int64_t depth, bool add)
{
    __shared__ float left[DEPTH][TILE + 1], right[DEPTH][TILE + 1];
    const int64_t first_row = blockIdx.x * (int64_t)TILE, first_column = blockIdx.y * (int64_t)TILE;
    const int row = threadIdx.x / (TILE / PART), column = threadIdx.x % (TILE / PART);
    float sum[PART][PART] = {};
    for (int64_t k = 0; k < depth; k += DEPTH) {
        load(left, a.data, a.row, a.column, first_row, m, k, depth);
        load(right, b.data, b.column, b.row, first_column, n, k, depth);
        __syncthreads();
        for (int j = 0; j < DEPTH; j++)
#pragma unroll
            for (int r = 0; r < PART; r++)
#pragma unroll
                for (int s = 0; s < PART; s++)
                    sum[r][s] += left[j][row + r * (TILE / PART)] * right[j][column + s * (TILE / PART)];
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < PART; r++)
#pragma unroll
        for (int s = 0; s < PART; s++) {
            const int64_t at_row = first_row + row + r * (TILE / PART), at = first_column + column + s * (TILE / PART);
            if (at_row >= m || at >= n)
                continue;
            TC *to = c.data + at_row * c.ld + at;
            const float start = add ? to_float(*to) : bias != NULL ? to_float(bias[at]) : 0.0f;
            *to = from_float<TC>(start + sum[r][s]);
        }
}

template <typename T, typename TC, typename TB>
static cab_status launch(cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                         const void *bias)
{
    const operand<T> left = {(const T *)a, s->a.row, s->a.column}, right = {(const T *)b, s->b.row, s->b.column};
    const rows_of<TC> to = {(TC *)c, s->c.row};
    const dim3 grid((unsigned)ceil_div(s->m, TILE), (unsigned)ceil_div(s->n, TILE));
    multiply<T, TC, TB>
        <<<grid, THREADS, 0, stream_of(backend)>>>(left, right, to, (const TB *)bias, s->m, s->n, s->k, s->accumulate);
    return cab_cuda_launched("own product");
}

template <typename T, typename TC>
static cab_status by_bias(cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                          const void *bias)
{
    const void *row = s->bias ? bias : NULL;
    return s->bias && s->bias_dtype == CAB_BF16 ? launch<T, TC, bf16>(backend, s, a, b, c, row)
                                                : launch<T, TC, float>(backend, s, a, b, c, row);
}

extern "C" cab_status cab_own_gemm_cuda(cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b,
                                        void *c, const void *bias)
{
    if (s->a.dtype == CAB_F32)
        return by_bias<float, float>(backend, s, a, b, c, bias);
    return s->c.dtype == CAB_F32 ? by_bias<bf16, float>(backend, s, a, b, c, bias)
                                 : by_bias<bf16, bf16>(backend, s, a, b, c, bias);
}
