/* norm.cu - layer norm and RMS norm on the GPU; src/ops/norm.c has the formulas.
 *
 * Layout: a row is read once and stays in registers. A warp takes a row of up to 768 columns, a block of 128 threads a
 * row of up to 4096; a thread has pieces of eight neighbouring columns, so that every access is of 16 bytes. Other
 * widths and rows that are not aligned take a block per row, which reads the row once per pass (the second time from
 * cache). Backward, the same groups of threads walk over the rows, and load the next row while they work on one. A
 * thread sums dw and db of its columns in registers; a block writes its sums to scratch, (blocks, 2, D); a second
 * kernel adds those in order.
 *
 * Arithmetic, in fp32, with x^ = (x - mean) r and g = dy w; RMS norm leaves out mean and mean(g):
 *
 *   y = x^ w + b     r = 1 / sqrt(mean((x - mean)^2) + eps)     dx = r (g - mean(g) - x^ mean(g x^))
 *   dw = sum over rows of dy x^     db = sum over rows of dy
 *
 * Groups of columns are rows of their own: blockIdx.y is the group (of_group()).
 *
 * A sum and the norm of the sum are one kernel: the row is added up in registers. In the backward pass each warp
 * measures its columns about their own mean, so that a group exchanges its sums once a row.
 *
 * Bytes per row, T being the size of an element: forward 2 D T, backward 3 D T (sum and RMS norm: 8 D and 12 D
 * more). Memory is the limit. */
#include "ops/cuda/cuda.cuh"

extern "C" {
#include "ops/cuda/optimise.h"
#include "ops/elementwise.h"
#include "ops/norm.h"
}

enum { WIDTH = 8, GENERAL_THREADS = 256, PART_ROWS = 32 };

/* SUM_RMS: of x and an fp32 residual. LAYER_OF_SUM, RMS_OF_SUM: of up to CAB_ADD_MAX terms, whose sum is rounded to T. */
enum norm_kind { LAYER, RMS, SUM_RMS, LAYER_OF_SUM, RMS_OF_SUM };
template <norm_kind KIND> constexpr bool CENTRED = KIND == LAYER || KIND == LAYER_OF_SUM;
template <norm_kind KIND> constexpr bool OF_SUM = KIND == LAYER_OF_SUM || KIND == RMS_OF_SUM;

__device__ __forceinline__ float element(parameter_of w, int64_t i)
{
    float value[1];
    w.load(i, value);
    return value[0];
}

/* Over the LANES threads of a row: a warp, or the whole block. */
template <int LANES> __device__ __forceinline__ float row_sum(float x, float *shared)
{
    if (LANES == 32)
        return warp_sum(x);
    x = block_sum<LANES>(x, shared);
    __syncthreads();
    return x;
}

struct statistics {
    float mean, r;
};

/* ---- forward ----------------------------------------------------------------------------------------------------------- */

template <typename T> struct norm_call {
    rows_of<const T> x;
    rows_of<const float> residual; /* sum and RMS; NULL: none */
    rows_of<T> y;
    rows_of<float> total; /* sum and RMS */
    rows_of<const T> terms[CAB_ADD_MAX]; /* of a norm's sum, behind x; NULL: no more */
    rows_of<T> sum;                      /* NULL: nobody reads it */
    parameter_of w, b;
    int64_t n_row;
    int n, groups; /* columns of a group; groups, 1 but of RMS */
    float eps;
};

__device__ __forceinline__ parameter_of from_column(parameter_of w, int64_t column)
{
    return {(const char *)w.data + column * (w.low ? sizeof(bf16) : sizeof(float)), w.low};
}

/* The columns of the block's group. */
template <norm_kind KIND, typename T> __device__ __forceinline__ norm_call<T> of_group(norm_call<T> c)
{
    const int64_t column = KIND == RMS ? blockIdx.y * (int64_t)c.n : 0;
    c.x.data += column;
    c.y.data += column;
    c.w = from_column(c.w, column);
    return c;
}

template <int LANES, int PIECES, norm_kind KIND>
__device__ __forceinline__ statistics measure(const float (&row)[PIECES][WIDTH], int n, float eps, int lane,
                                              float *shared)
{
    float sum = 0.0f, square = 0.0f;
    if (CENTRED<KIND>) {
#pragma unroll
        for (int p = 0; p < PIECES; p++)
#pragma unroll
            for (int i = 0; i < WIDTH; i++)
                sum += row[p][i];
        sum = row_sum<LANES>(sum, shared) / (float)n;
    }
#pragma unroll
    for (int p = 0; p < PIECES; p++)
        if ((p * LANES + lane) * WIDTH < n)
#pragma unroll
            for (int i = 0; i < WIDTH; i++)
                square += (row[p][i] - sum) * (row[p][i] - sum);
    square = row_sum<LANES>(square, shared);
    return {sum, 1.0f / sqrtf(square / (float)n + eps)};
}

template <int LANES> struct block_of {
    enum { THREADS = 128, ROWS = THREADS / LANES };
};

/* Adds the other terms of a norm's sum, in order, and rounds it to T. */
template <typename T>
__device__ __forceinline__ void add_terms(const norm_call<T> &c, int64_t at, int column, float (&sum)[WIDTH])
{
#pragma unroll
    for (int k = 0; k < CAB_ADD_MAX; k++) {
        if (c.terms[k].data == NULL)
            break;
        float term[WIDTH];
        load_floats(c.terms[k].at(at, column), term);
#pragma unroll
        for (int i = 0; i < WIDTH; i++)
            sum[i] += term[i];
    }
#pragma unroll
    for (int i = 0; i < WIDTH; i++)
        sum[i] = to_float(from_float<T>(sum[i]));
    if (c.sum.data != NULL)
        store_floats(c.sum.at(at, column), sum);
}

template <typename T, int LANES, int PIECES, norm_kind KIND>
static __global__ void __launch_bounds__(block_of<LANES>::THREADS) norm_forward(norm_call<T> all)
{
    const norm_call<T> c = of_group<KIND>(all);
    __shared__ float shared[LANES / 32];
    const int lane = threadIdx.x % LANES;
    const int64_t at = blockIdx.x * (int64_t)block_of<LANES>::ROWS + threadIdx.x / LANES;
    if (at >= c.n_row)
        return;
    float row[PIECES][WIDTH] = {};
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int column = (p * LANES + lane) * WIDTH;
        if (column >= c.n)
            continue;
        load_floats(c.x.data + at * c.x.ld + column, row[p]);
        if (OF_SUM<KIND>)
            add_terms(c, at, column, row[p]);
        if (KIND != SUM_RMS)
            continue;
        if (c.residual.data) {
            float residual[WIDTH];
            load_floats(c.residual.data + at * c.residual.ld + column, residual);
#pragma unroll
            for (int i = 0; i < WIDTH; i++)
                row[p][i] += residual[i];
        }
        store_floats(c.total.data + at * c.total.ld + column, row[p]);
    }
    const statistics s = measure<LANES, PIECES, KIND>(row, c.n, c.eps, lane, shared);
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int column = (p * LANES + lane) * WIDTH;
        if (column >= c.n)
            continue;
        float w[WIDTH], b[WIDTH] = {};
        c.w.load(column, w);
        if (CENTRED<KIND>)
            c.b.load(column, b);
#pragma unroll
        for (int i = 0; i < WIDTH; i++)
            row[p][i] = (row[p][i] - s.mean) * s.r * w[i] + b[i];
        store_floats(c.y.data + at * c.y.ld + column, row[p]);
    }
}

/* Of a row in memory, by a block. */
template <norm_kind KIND, typename X>
__device__ __forceinline__ statistics measure_row(const X *x, int n, float eps, float *shared)
{
    float sum = 0.0f, square = 0.0f;
    if (KIND == LAYER) {
        for (int i = threadIdx.x; i < n; i += GENERAL_THREADS)
            sum += to_float(x[i]);
        sum = row_sum<GENERAL_THREADS>(sum, shared) / (float)n;
    }
    for (int i = threadIdx.x; i < n; i += GENERAL_THREADS)
        square += (to_float(x[i]) - sum) * (to_float(x[i]) - sum);
    square = row_sum<GENERAL_THREADS>(square, shared);
    return {sum, 1.0f / sqrtf(square / (float)n + eps)};
}

template <typename T, norm_kind KIND> static __global__ void norm_forward_general(norm_call<T> all)
{
    const norm_call<T> c = of_group<KIND>(all);
    __shared__ float shared[GENERAL_THREADS / 32];
    const int64_t at = blockIdx.x;
    const T *x = c.x.data + at * c.x.ld;
    T *y = c.y.data + at * c.y.ld;
    if (KIND == SUM_RMS) { /* each thread reads again below only what it wrote here */
        float *total = c.total.data + at * c.total.ld;
        for (int i = threadIdx.x; i < c.n; i += GENERAL_THREADS)
            total[i] = to_float(x[i]) + (c.residual.data ? c.residual.data[at * c.residual.ld + i] : 0.0f);
        const statistics s = measure_row<KIND>(total, c.n, c.eps, shared);
        for (int i = threadIdx.x; i < c.n; i += GENERAL_THREADS)
            y[i] = from_float<T>(total[i] * s.r * element(c.w, i));
    } else {
        const statistics s = measure_row<KIND>(x, c.n, c.eps, shared);
        for (int i = threadIdx.x; i < c.n; i += GENERAL_THREADS)
            y[i] = from_float<T>((to_float(x[i]) - s.mean) * s.r * element(c.w, i) +
                                 (KIND == LAYER ? element(c.b, i) : 0.0f));
    }
}

enum { WARP_COLUMNS = 3 * 32 * WIDTH, BLOCK_LANES = 128, BLOCK_COLUMNS = 4 * BLOCK_LANES * WIDTH };

template <typename T, norm_kind KIND, int LANES, int PIECES>
static void launch_forward(const norm_call<T> &c, cudaStream_t s)
{
    const int threads = block_of<LANES>::THREADS, per_block = block_of<LANES>::ROWS;
    const dim3 blocks((unsigned)ceil_div(c.n_row, per_block), (unsigned)c.groups);
    norm_forward<T, LANES, PIECES, KIND><<<blocks, threads, 0, s>>>(c);
}

/* Rows that are read once. */
template <typename T, norm_kind KIND> static void forward_in_registers(const norm_call<T> &c, cudaStream_t s)
{
    if (c.n <= 32 * WIDTH)
        launch_forward<T, KIND, 32, 1>(c, s);
    else if (c.n <= 2 * 32 * WIDTH)
        launch_forward<T, KIND, 32, 2>(c, s);
    else if (c.n <= WARP_COLUMNS)
        launch_forward<T, KIND, 32, 3>(c, s);
    else if (c.n <= BLOCK_LANES * WIDTH)
        launch_forward<T, KIND, BLOCK_LANES, 1>(c, s);
    else if (c.n <= 2 * BLOCK_LANES * WIDTH)
        launch_forward<T, KIND, BLOCK_LANES, 2>(c, s);
    else
        launch_forward<T, KIND, BLOCK_LANES, 4>(c, s);
}

template <typename T, norm_kind KIND>
static cab_status forward(const cab_node *node, const norm_call<T> &c, cab_backend *backend)
{
    const cudaStream_t s = stream_of(backend);
    bool fast = c.n <= BLOCK_COLUMNS && c.n % WIDTH == 0;
    for (int i = 0; i < node->n_in; i++)
        fast = fast && fits_packets(node->in[i], WIDTH);
    for (int i = 0; i < node->n_out; i++)
        fast = fast && fits_packets(node->out[i], WIDTH);
    if (c.n_row == 0)
        return CAB_OK;
    if (fast)
        forward_in_registers<T, KIND>(c, s);
    else
        norm_forward_general<T, KIND><<<dim3((unsigned)c.n_row, (unsigned)c.groups), GENERAL_THREADS, 0, s>>>(c);
    return cab_cuda_launched(node->op->name);
}

static int groups_of(const cab_node *node)
{
    return ((const cab_norm_attributes *)node->attributes)->n_group;
}

template <typename T, norm_kind KIND> static cab_status start_forward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0];
    norm_call<T> c = {};
    c.x = rows<const T>(x);
    c.y = rows<T>(node->out[0]);
    c.w = parameter(node->in[KIND == SUM_RMS ? 2 : 1]);
    c.b = parameter(KIND == LAYER ? node->in[2] : NULL);
    if (KIND == SUM_RMS) {
        c.residual = rows<const float>(node->in[1]);
        c.total = rows<float>(node->out[1]);
    }
    c.n_row = cab_rows(x);
    c.groups = groups_of(node);
    c.n = (int)(cab_columns(x) / c.groups);
    c.eps = ((const cab_norm_attributes *)node->attributes)->eps;
    return forward<T, KIND>(node, c, backend);
}

extern "C" bool cab_norm_of_sum_fits_cuda(const cab_node *node, const cab_node *next, const cab_backend *backend)
{
    (void)backend;
    const int64_t columns = cab_columns(node->out[0]);
    bool fits = ((const cab_add_attributes *)node->attributes)->scale == 1.0f && columns % WIDTH == 0 &&
                columns <= BLOCK_COLUMNS && groups_of(next) == 1 && cab_rows_begin_at(node->out[0], WIDTH) &&
                cab_rows_begin_at(next->out[0], WIDTH);
    for (int i = 1; i < next->n_in; i++)
        fits = fits && fits_packets(next->in[i], WIDTH);
    for (int i = 0; i < node->n_in; i++)
        fits = fits && cab_rows_begin_at(node->in[i], WIDTH);
    return fits;
}

/* in: terms w b, or terms w   out: y sum */
template <typename T, norm_kind KIND> static cab_status norm_of_sum(const cab_node *node, cab_backend *backend)
{
    const int terms = node->n_in - (CENTRED<KIND> ? 2 : 1);
    norm_call<T> c = {};
    c.x = rows<const T>(node->in[0]);
    for (int i = 1; i < terms; i++)
        c.terms[i - 1] = rows<const T>(node->in[i]);
    c.y = rows<T>(node->out[0]);
    c.sum = rows<T>(node->out[1]);
    c.w = parameter(node->in[terms]);
    c.b = parameter(CENTRED<KIND> ? node->in[terms + 1] : NULL);
    c.n_row = cab_rows(node->in[0]);
    c.n = (int)cab_columns(node->in[0]);
    c.groups = 1;
    c.eps = ((const cab_norm_attributes *)node->attributes)->eps;
    if (c.n_row > 0)
        forward_in_registers<T, KIND>(c, stream_of(backend));
    return cab_cuda_launched(node->op->name);
}

extern "C" cab_status cab_layer_norm_of_sum_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = (norm_of_sum<T, LAYER_OF_SUM>(node, backend)));
    return status;
}

extern "C" cab_status cab_rms_norm_of_sum_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = (norm_of_sum<T, RMS_OF_SUM>(node, backend)));
    return status;
}

/* ---- backward ---------------------------------------------------------------------------------------------------------- */

/* What is normalised: x, or the saved fp32 sum. */
template <typename T, norm_kind KIND> struct normalised {
    typedef T type;
};
template <typename T> struct normalised<T, SUM_RMS> {
    typedef float type;
};

template <typename T, typename X> struct norm_gradient {
    rows_of<const X> x;
    rows_of<const T> dy; /* NULL: zero; so is dtotal */
    rows_of<const float> dtotal;
    rows_of<T> dx; /* NULL: not wanted; so is dresidual */
    rows_of<float> dresidual;
    parameter_of w;
    float *partial; /* (blocks, 2, groups n) */
    int64_t n_row;
    int n, groups; /* as of norm_call */
    float eps;
    bool add_x, add_residual;
};

template <norm_kind KIND, typename T, typename X>
__device__ __forceinline__ norm_gradient<T, X> of_group(norm_gradient<T, X> c)
{
    const int64_t column = KIND == RMS ? blockIdx.y * (int64_t)c.n : 0;
    c.x.data += column;
    if (c.dy.data)
        c.dy.data += column;
    if (c.dx.data)
        c.dx.data += column;
    c.w = from_column(c.w, column);
    c.partial += column;
    return c;
}

/* A row's x and dy as they stand in memory, on their way while the row before is worked on. */
template <typename T> struct packet {
    uint4 part[sizeof(T) * WIDTH / sizeof(uint4)];
};
template <typename T, typename X, int PIECES> struct incoming {
    packet<X> x[PIECES];
    packet<T> dy[PIECES];
};

template <typename T, typename X, int LANES, int PIECES>
__device__ __forceinline__ void request(incoming<T, X, PIECES> &row, const norm_gradient<T, X> &c, int64_t at, int lane)
{
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int column = (p * LANES + lane) * WIDTH;
        row.x[p] = {};
        row.dy[p] = {};
        if (column < c.n && at < c.n_row) {
            row.x[p] = *reinterpret_cast<const packet<X> *>(c.x.data + at * c.x.ld + column);
            row.dy[p] = *reinterpret_cast<const packet<T> *>(c.dy.data + at * c.dy.ld + column);
        }
    }
}

template <typename T> __device__ __forceinline__ void unpack(const packet<T> &from, float (&to)[WIDTH])
{
    const vec<T, WIDTH> v = *reinterpret_cast<const vec<T, WIDTH> *>(&from);
#pragma unroll
    for (int i = 0; i < WIDTH; i++)
        to[i] = to_float(v.at[i]);
}

/* Of the g = dy w and the columns x of a row, by one warp or several: the mean (of RMS 0), the sums of (x - mean)^2, of g
 * and of g (x - mean). */
struct row_sums {
    float mean, square, g, gx;
};

/* Columns of a row that a warp of its group holds. */
template <int LANES, int PIECES> __device__ __forceinline__ float columns_of(int warp, int n)
{
    int columns = 0;
#pragma unroll
    for (int p = 0; p < PIECES; p++)
        columns += min(max(n - (p * LANES + warp * 32) * WIDTH, 0), 32 * WIDTH);
    return (float)columns;
}

/* Every warp measures its columns about their own mean; the group's sums follow from the warps' without cancellation.
 * `shared` is not the one of the row before. */
template <int LANES, int PIECES, norm_kind KIND>
__device__ __forceinline__ row_sums sum_row(const float (&x)[PIECES][WIDTH], const float (&g)[PIECES][WIDTH], int n,
                                            int lane, row_sums *shared)
{
    const float columns = columns_of<LANES, PIECES>(lane / 32, n);
    row_sums s = {};
    if (KIND == LAYER) {
#pragma unroll
        for (int p = 0; p < PIECES; p++)
#pragma unroll
            for (int i = 0; i < WIDTH; i++)
                s.mean += x[p][i];
        s.mean = columns > 0.0f ? warp_sum(s.mean) / columns : 0.0f;
    }
#pragma unroll
    for (int p = 0; p < PIECES; p++)
        if ((p * LANES + lane) * WIDTH < n)
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                const float difference = x[p][i] - s.mean;
                s.square += difference * difference;
                s.g += g[p][i];
                s.gx += g[p][i] * difference;
            }
    s.square = warp_sum(s.square);
    s.gx = warp_sum(s.gx);
    s.g = KIND == LAYER ? warp_sum(s.g) : 0.0f;
    if (LANES == 32)
        return s;
    if (lane % 32 == 0)
        shared[lane / 32] = s;
    __syncthreads();
    row_sums all = {};
#pragma unroll
    for (int w = 0; w < LANES / 32; w++)
        all.mean += columns_of<LANES, PIECES>(w, n) * shared[w].mean / (float)n;
#pragma unroll
    for (int w = 0; w < LANES / 32; w++) {
        const row_sums part = shared[w];
        const float apart = part.mean - all.mean;
        all.square += part.square + columns_of<LANES, PIECES>(w, n) * apart * apart;
        all.g += part.g;
        all.gx += part.gx + part.g * apart;
    }
    return all;
}

/* Through the norm: g becomes dx, dw and db receive the row's part. */
template <typename T, typename X, int LANES, int PIECES, norm_kind KIND>
__device__ __forceinline__ void norm_row(const norm_gradient<T, X> &c, const incoming<T, X, PIECES> &row, int lane,
                                         float (&g)[PIECES][WIDTH], float (&dw)[PIECES][WIDTH],
                                         float (&db)[PIECES][WIDTH], row_sums *shared)
{
    float x[PIECES][WIDTH], dy[WIDTH];
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int column = (p * LANES + lane) * WIDTH;
        float w[WIDTH] = {};
        unpack(row.x[p], x[p]);
        unpack(row.dy[p], dy);
        if (column < c.n)
            c.w.load(column, w);
#pragma unroll
        for (int i = 0; i < WIDTH; i++)
            g[p][i] = dy[i] * w[i];
    }
    const row_sums s = sum_row<LANES, PIECES, KIND>(x, g, c.n, lane, shared);
    const float each = 1.0f / (float)c.n, r = 1.0f / sqrtf(s.square * each + c.eps), product = s.gx * r * each;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        unpack(row.dy[p], dy);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            const float normal = (x[p][i] - s.mean) * r;
            dw[p][i] += dy[i] * normal;
            if (KIND == LAYER)
                db[p][i] += dy[i];
            g[p][i] = r * (g[p][i] - s.g * each - normal * product);
        }
    }
}

template <typename T, typename X, int LANES, int PIECES, norm_kind KIND>
__device__ __forceinline__ void write_row(const norm_gradient<T, X> &c, int64_t at, int lane, float (&g)[PIECES][WIDTH])
{
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int column = (p * LANES + lane) * WIDTH;
        if (column >= c.n)
            continue;
        if (KIND == SUM_RMS && c.dtotal.data) {
            float behind[WIDTH];
            load_floats(c.dtotal.data + at * c.dtotal.ld + column, behind);
#pragma unroll
            for (int i = 0; i < WIDTH; i++)
                g[p][i] += behind[i];
        }
        if (c.dx.data)
            put_floats(c.dx.data + at * c.dx.ld + column, c.add_x, g[p]);
        if (KIND == SUM_RMS && c.dresidual.data)
            put_floats(c.dresidual.data + at * c.dresidual.ld + column, c.add_residual, g[p]);
    }
}

/* The block's sums, of its groups in order. */
template <int LANES, int PIECES>
__device__ __forceinline__ void write_part(float *to, int n, int lane, const float (&sums)[PIECES][WIDTH],
                                           float *shared)
{
    const int group = threadIdx.x / LANES;
    for (int turn = 0; turn < block_of<LANES>::ROWS; turn++) {
        if (group == turn)
#pragma unroll
            for (int p = 0; p < PIECES; p++)
#pragma unroll
                for (int i = 0; i < WIDTH; i++) {
                    float *at = shared + (p * WIDTH + i) * LANES + lane;
                    *at = turn == 0 ? sums[p][i] : *at + sums[p][i];
                }
        __syncthreads();
    }
    if (group == 0)
#pragma unroll
        for (int p = 0; p < PIECES; p++) {
            const int column = (p * LANES + lane) * WIDTH;
#pragma unroll
            for (int i = 0; i < WIDTH; i++)
                if (column < n)
                    to[column + i] = shared[(p * WIDTH + i) * LANES + lane];
        }
    __syncthreads();
}

/* Blocks that the registers of a multiprocessor have room for. */
constexpr int backward_occupancy(int lanes, int pieces)
{
    return pieces == 1 ? 6 : pieces == 2 ? 4 : lanes == 32 ? 3 : 2;
}

template <typename T, typename X, int LANES, int PIECES, norm_kind KIND>
static __global__ void __launch_bounds__(block_of<LANES>::THREADS, backward_occupancy(LANES, PIECES))
    norm_backward(norm_gradient<T, X> all)
{
    const norm_gradient<T, X> c = of_group<KIND>(all);
    __shared__ float shared[LANES * PIECES * WIDTH];
    __shared__ row_sums sums[2][LANES / 32];
    const int lane = threadIdx.x % LANES;
    const int64_t step = gridDim.x * (int64_t)block_of<LANES>::ROWS;
    float dw[PIECES][WIDTH] = {}, db[PIECES][WIDTH] = {};
    incoming<T, X, PIECES> next;
    int64_t at = blockIdx.x * (int64_t)block_of<LANES>::ROWS + threadIdx.x / LANES;
    if (c.dy.data)
        request<T, X, LANES, PIECES>(next, c, at, lane);
    for (int turn = 0; at < c.n_row; at += step, turn ^= 1) {
        float g[PIECES][WIDTH] = {};
        if (c.dy.data) {
            const incoming<T, X, PIECES> row = next;
            request<T, X, LANES, PIECES>(next, c, at + step, lane);
            norm_row<T, X, LANES, PIECES, KIND>(c, row, lane, g, dw, db, sums[turn]);
        }
        write_row<T, X, LANES, PIECES, KIND>(c, at, lane, g);
    }
    float *part = c.partial + blockIdx.x * 2 * (int64_t)c.groups * c.n;
    write_part<LANES, PIECES>(part, c.n, lane, dw, shared);
    if (KIND == LAYER)
        write_part<LANES, PIECES>(part + c.n, c.n, lane, db, shared);
}

template <typename T, typename X, norm_kind KIND> static __global__ void norm_backward_general(norm_gradient<T, X> all)
{
    __shared__ float shared[GENERAL_THREADS / 32];
    const norm_gradient<T, X> c = of_group<KIND>(all);
    float *dw = c.partial + blockIdx.x * 2 * (int64_t)c.groups * c.n, *db = dw + (int64_t)c.groups * c.n;
    for (int i = threadIdx.x; i < c.n; i += GENERAL_THREADS)
        dw[i] = db[i] = 0.0f; /* every thread sums its own columns */
    for (int64_t at = blockIdx.x; at < c.n_row; at += gridDim.x) {
        const X *x = c.x.data + at * c.x.ld;
        const T *dy = c.dy.data ? c.dy.data + at * c.dy.ld : NULL;
        const statistics s = measure_row<KIND>(x, c.n, c.eps, shared);
        float sum = 0.0f, product = 0.0f;
        for (int i = threadIdx.x; dy && i < c.n; i += GENERAL_THREADS) {
            const float normal = (to_float(x[i]) - s.mean) * s.r, g = to_float(dy[i]);
            dw[i] += g * normal;
            db[i] += g;
            sum += g * element(c.w, i);
            product += g * element(c.w, i) * normal;
        }
        sum = KIND == LAYER ? row_sum<GENERAL_THREADS>(sum, shared) / (float)c.n : 0.0f;
        product = row_sum<GENERAL_THREADS>(product, shared) / (float)c.n;
        for (int i = threadIdx.x; i < c.n; i += GENERAL_THREADS) {
            float g[1] = {KIND == SUM_RMS && c.dtotal.data ? c.dtotal.data[at * c.dtotal.ld + i] : 0.0f};
            if (dy)
                g[0] += s.r * (to_float(dy[i]) * element(c.w, i) - sum - (to_float(x[i]) - s.mean) * s.r * product);
            if (c.dx.data)
                put_floats(c.dx.data + at * c.dx.ld + i, c.add_x, g);
            if (KIND == SUM_RMS && c.dresidual.data)
                put_floats(c.dresidual.data + at * c.dresidual.ld + i, c.add_residual, g);
        }
    }
}

/* Targets of the blocks' sums, n columns of dw and then of db; NULL: not wanted. */
struct part_targets {
    float *dw, *db;
};

/* A block takes 32 columns, row r of its threads the parts r, r + 32, ... */
static __global__ void __launch_bounds__(32 * PART_ROWS)
    sum_parts(const float *partial, int parts, int n, part_targets to)
{
    __shared__ float sums[PART_ROWS][33];
    float *target = blockIdx.y == 0 ? to.dw : to.db;
    if (target == NULL)
        return;
    const int column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f;
    if (column < n)
#pragma unroll 4
        for (int part = threadIdx.y; part < parts; part += PART_ROWS)
            sum += partial[(2 * (int64_t)part + blockIdx.y) * n + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    /* transposed: a warp now holds one column's sums, in its lanes */
    sum = warp_sum(sums[threadIdx.x][threadIdx.y]);
    const int summed = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && summed < n)
        target[summed] += sum;
}

/* The shape that takes rows of n columns: lanes of a row, pieces of each. */
struct row_shape {
    int lanes, pieces;
};

static row_shape shape_of(int64_t n)
{
    const int lanes = n <= WARP_COLUMNS ? 32 : BLOCK_LANES;
    const int64_t pieces = ceil_div(n, lanes * WIDTH);
    return {lanes, lanes == 32 || pieces <= 2 ? (int)pieces : 4};
}

/* Blocks of a group. */
static unsigned backward_blocks(int64_t n_row, int64_t n, int groups, int multiprocessors)
{
    const row_shape shape = shape_of(n);
    const int64_t per_block = shape.lanes == 32 ? block_of<32>::ROWS : 1;
    const int64_t most = ceil_div((int64_t)multiprocessors * backward_occupancy(shape.lanes, shape.pieces), groups);
    const int64_t wanted = ceil_div(n_row, per_block);
    return (unsigned)(wanted < most ? wanted : most);
}

extern "C" size_t cab_norm_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    const cab_tensor *x = node->gout[0] ? node->gout[0] : node->gout[1];
    const int64_t n = cab_columns(x);
    const int groups = groups_of(node);
    return backward_blocks(cab_rows(x), n / groups, groups, cab_cuda_of(backend)->multiprocessors) * 2 * (size_t)n * sizeof(float);
}

template <typename T, typename X, norm_kind KIND, int LANES, int PIECES>
static void launch_backward(const norm_gradient<T, X> &c, unsigned blocks, cudaStream_t s)
{
    norm_backward<T, X, LANES, PIECES, KIND><<<dim3(blocks, (unsigned)c.groups), block_of<LANES>::THREADS, 0, s>>>(c);
}

template <typename T, typename X, norm_kind KIND>
static void choose_backward(const norm_gradient<T, X> &c, bool fast, unsigned blocks, cudaStream_t s)
{
    if (!fast)
        norm_backward_general<T, X, KIND><<<dim3(blocks, (unsigned)c.groups), GENERAL_THREADS, 0, s>>>(c);
    else if (c.n <= 32 * WIDTH)
        launch_backward<T, X, KIND, 32, 1>(c, blocks, s);
    else if (c.n <= 2 * 32 * WIDTH)
        launch_backward<T, X, KIND, 32, 2>(c, blocks, s);
    else if (c.n <= WARP_COLUMNS)
        launch_backward<T, X, KIND, 32, 3>(c, blocks, s);
    else if (c.n <= BLOCK_LANES * WIDTH)
        launch_backward<T, X, KIND, BLOCK_LANES, 1>(c, blocks, s);
    else if (c.n <= 2 * BLOCK_LANES * WIDTH)
        launch_backward<T, X, KIND, BLOCK_LANES, 2>(c, blocks, s);
    else
        launch_backward<T, X, KIND, BLOCK_LANES, 4>(c, blocks, s);
}

template <typename T, norm_kind KIND> static cab_status start_backward(const cab_node *node, cab_backend *backend)
{
    typedef typename normalised<T, KIND>::type X;
    const cab_tensor *x = KIND == SUM_RMS ? node->out[1] : node->in[0];
    const int weight = KIND == SUM_RMS ? 2 : 1;
    norm_gradient<T, X> c = {};
    c.x = rows<const X>(x);
    c.dy = rows<const T>(node->gout[0]);
    c.dx = rows<T>(node->gin[0]);
    if (KIND == SUM_RMS) {
        c.dtotal = rows<const float>(node->gout[1]);
        c.dresidual = rows<float>(node->gin[1]);
    }
    c.w = parameter(node->in[weight]);
    c.partial = (float *)node->scratch;
    c.n_row = cab_rows(x);
    c.groups = groups_of(node);
    c.n = (int)(cab_columns(x) / c.groups);
    c.eps = ((const cab_norm_attributes *)node->attributes)->eps;
    c.add_x = node->accumulate & 1u;
    c.add_residual = node->accumulate & 2u;
    bool fast = c.n <= BLOCK_COLUMNS && c.n % WIDTH == 0 && fits_packets(x, WIDTH) && fits_packets(node->in[weight], WIDTH);
    for (int i = 0; i < (KIND == SUM_RMS ? 2 : 1); i++)
        fast = fast && fits_packets(node->gout[i], WIDTH) && fits_packets(node->gin[i], WIDTH);
    const unsigned blocks = backward_blocks(c.n_row, c.n, c.groups, cab_cuda_of(backend)->multiprocessors);
    if (blocks == 0)
        return CAB_OK;
    choose_backward<T, X, KIND>(c, fast, blocks, stream_of(backend));
    const part_targets to = {rows<float>(node->gin[weight]).data,
                             KIND == LAYER ? rows<float>(node->gin[weight + 1]).data : NULL};
    const int columns = (int)cab_columns(x);
    if (to.dw != NULL || to.db != NULL)
        sum_parts<<<dim3((unsigned)ceil_div(columns, 32), KIND == LAYER ? 2 : 1), dim3(32, PART_ROWS), 0,
                    stream_of(backend)>>>(c.partial, (int)blocks, columns, to);
    return cab_cuda_launched(node->op->name);
}

/* ---- the table --------------------------------------------------------------------------------------------------------- */

extern "C" cab_status cab_layer_norm_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = (start_forward<T, LAYER>(node, backend)));
    return status;
}

extern "C" cab_status cab_layer_norm_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = (start_backward<T, LAYER>(node, backend)));
    return status;
}

extern "C" cab_status cab_rms_norm_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = (start_forward<T, RMS>(node, backend)));
    return status;
}

extern "C" cab_status cab_rms_norm_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = (start_backward<T, RMS>(node, backend)));
    return status;
}

extern "C" cab_status cab_add_rms_norm_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = (start_forward<T, SUM_RMS>(node, backend)));
    return status;
}

/* x itself is not kept; its type is that of what flows back. Only the sum may have a gradient: then nothing but fp32 is
 * read, and dx tells. */
extern "C" cab_status cab_add_rms_norm_backward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *of_x = node->gout[0] ? node->gout[0] : node->gin[0];
    cab_status status;
    BY_DTYPE(of_x ? of_x->dtype : CAB_F32, status = (start_backward<T, SUM_RMS>(node, backend)));
    return status;
}
