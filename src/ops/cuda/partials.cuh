/* partials.cuh - gradients of parameters out of partial sums that blocks have left in scratch.
 *
 * Layout: partials is (n_row, columns) fp32 in device memory, a row per block that wrote it. A block here takes 32
 * columns and 16 slices of rows, one thread each; slice s has rows s, s + 16, ... Shared memory joins the slices.
 *
 * Arithmetic: sum[c] = sum over rows of partials[row, c], in an order that depends on n_row alone. The functor says
 * where a sum goes:  __device__ float *target(int64_t column) const,  NULL for nowhere; with its member `add` the
 * sum is added to what stands there. */
#ifndef CAB_OPS_CUDA_PARTIALS_CUH
#define CAB_OPS_CUDA_PARTIALS_CUH

#include "ops/cuda/cuda.cuh"

enum { PARTIAL_COLUMNS = 32, PARTIAL_SLICES = 16 };

/* Slice s of a column's rows is s, s + PARTIAL_SLICES, ...; the slices' sums are added in order. */
template <typename F>
static __global__ void __launch_bounds__(PARTIAL_COLUMNS *PARTIAL_SLICES)
    add_partials(const F f, const float *partials, int64_t n_row, int64_t columns)
{
    __shared__ float sums[PARTIAL_SLICES][PARTIAL_COLUMNS];
    const int across = threadIdx.x % PARTIAL_COLUMNS, slice = threadIdx.x / PARTIAL_COLUMNS;
    const int64_t column = blockIdx.x * (int64_t)PARTIAL_COLUMNS + across;
    float *to = slice == 0 && column < columns ? f.target(column) : NULL;
    const float old = f.add && to != NULL ? *to : 0.0f; /* on its way while the rows are */
    float sum = 0.0f;
    if (column < columns)
#pragma unroll 8
        for (int64_t row = slice; row < n_row; row += PARTIAL_SLICES)
            sum += partials[row * columns + column];
    sums[slice][across] = sum;
    __syncthreads();
    if (to == NULL)
        return;
    for (int s = 1; s < PARTIAL_SLICES; s++)
        sum += sums[s][across];
    *to = f.add ? old + sum : sum;
}

/* Adds `n_row` rows of `columns` partial sums. */
template <typename F>
static cab_status launch_partials(const F &f, const float *partials, int64_t n_row, int64_t columns,
                                  cab_backend *backend)
{
    add_partials<<<(unsigned)ceil_div(columns, PARTIAL_COLUMNS), PARTIAL_COLUMNS * PARTIAL_SLICES, 0,
                   stream_of(backend)>>>(f, partials, n_row, columns);
    return cab_cuda_launched("partial sums");
}

/* Of filters, one per channel: columns are dw tap by tap, then dbias. w (E, taps) and bias (E) may be NULL. */
struct filter_targets {
    float *w, *bias;
    int64_t E;
    int taps;
    bool add;

    __device__ float *target(int64_t column) const
    {
        const int64_t tap = column / E, channel = column - tap * E;
        if (tap < taps)
            return w != NULL ? w + channel * taps + tap : NULL;
        return bias != NULL ? bias + channel : NULL;
    }
};

#endif
