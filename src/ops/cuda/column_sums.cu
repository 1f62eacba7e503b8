/* column_sums.cu - the sum over the rows of a matrix, column by column, in a fixed order.
 *
 * Layout: the rows are cut into parts, as many on every GPU, so that the order of the sum is that of the shape alone.
 * A block of 8 warps sums one part of 32 vectors of neighbouring columns: warp w takes rows w, w + 8, ... of the part,
 * a lane one vector (16 bytes where address and stride allow it, else one element). Shared memory joins the 8 warps.
 * The sums of a part go to scratch, (parts, columns) fp32.
 *
 * Arithmetic: out[c] = sum over rows r of x[r, c], in fp32: within a warp, over the warps of a block, and over the
 * parts by a second kernel (partials.cuh). The matrix is read once. */
#include "ops/cuda/column_sums.h"
#include "ops/cuda/partials.cuh"

enum { ACROSS = 32, DOWN = 8, THREADS = ACROSS * DOWN };
constexpr int64_t PART_ROWS = 64, MAX_PARTS = 256;

static int64_t parts_of(int64_t n_row)
{
    const int64_t parts = ceil_div(n_row, PART_ROWS);
    return parts < MAX_PARTS ? parts : MAX_PARTS;
}

extern "C" size_t cab_column_sums_scratch(int64_t n_row, int64_t columns)
{
    const int64_t parts = parts_of(n_row);
    return parts > 1 ? (size_t)(parts * columns) * sizeof(float) : 0;
}

/* VEC columns per thread. Part blockIdx.y goes to out + blockIdx.y * columns. */
template <typename T, int VEC>
static __global__ void __launch_bounds__(THREADS)
    sum_parts(rows_of<const T> x, int64_t n_row, int64_t columns, int64_t part_rows, float *out, bool add)
{
    __shared__ float sums[DOWN][ACROSS * VEC + 1];
    const int across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
    const int64_t first = blockIdx.x * (int64_t)(ACROSS * VEC), column = first + across * VEC;
    const int64_t begin = blockIdx.y * part_rows, end = begin + part_rows < n_row ? begin + part_rows : n_row;
    float sum[VEC] = {};
    if (column < columns)
#pragma unroll 4
        for (int64_t row = begin + down; row < end; row += DOWN) {
            vec<T, VEC> v = load_vec<T, VEC>(x.data + row * x.ld + column);
#pragma unroll
            for (int i = 0; i < VEC; i++)
                sum[i] += to_float(v.at[i]);
        }
#pragma unroll
    for (int i = 0; i < VEC; i++)
        sums[down][across * VEC + i] = sum[i];
    __syncthreads();
    for (int i = threadIdx.x; i < ACROSS * VEC && first + i < columns; i += THREADS) {
        float total = sums[0][i];
#pragma unroll
        for (int j = 1; j < DOWN; j++)
            total += sums[j][i];
        float *to = out + blockIdx.y * columns + first + i;
        *to = add ? *to + total : total;
    }
}

/* The parts' sums, for partials.cuh. */
struct column_totals {
    float *out;
    bool add;

    __device__ float *target(int64_t column) const
    {
        return out + column;
    }
};

template <typename T, int VEC>
static void launch(cab_backend *backend, rows_of<const T> x, int64_t n_row, int64_t columns, int64_t parts, float *out,
                   bool add)
{
    const dim3 grid((unsigned)ceil_div(columns, ACROSS * VEC), (unsigned)parts);
    const int64_t part_rows = ceil_div(n_row, parts);
    sum_parts<T, VEC><<<grid, THREADS, 0, stream_of(backend)>>>(x, n_row, columns, part_rows, out, add);
}

template <typename T>
static void sum(cab_backend *backend, rows_of<const T> x, int64_t n_row, int64_t columns, int64_t parts, float *out,
                bool add)
{
    /* Where rows begin at even addresses they also end there: the last vector may hold columns that are not ours. */
    if (fits_vec<T, WIDE<T>>(x.data, x.ld, 0))
        launch<T, WIDE<T>>(backend, x, n_row, columns, parts, out, add);
    else
        launch<T, 1>(backend, x, n_row, columns, parts, out, add);
}

extern "C" cab_status cab_column_sums_cuda(cab_backend *backend, cab_dtype dtype, const void *data, int64_t ld,
                                           int64_t n_row, int64_t columns, float *out, bool add, void *scratch)
{
    const int64_t parts = parts_of(n_row);
    float *to = parts > 1 ? (float *)scratch : out;
    if (dtype == CAB_BF16)
        sum<bf16>(backend, rows_of<const bf16>{(const bf16 *)data, ld}, n_row, columns, parts, to, parts == 1 && add);
    else
        sum<float>(backend, rows_of<const float>{(const float *)data, ld}, n_row, columns, parts, to,
                   parts == 1 && add);
    CAB_TRY(cab_cuda_launched("column sums"));
    return parts > 1 ? launch_partials(column_totals{out, add}, to, parts, columns, backend) : CAB_OK;
}
