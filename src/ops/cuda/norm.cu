/* norm.cu - the norms on the GPU; src/ops/norm.c has the formulas.
 *
 * A row is read once and stays in registers: a warp per row up to 768 columns, a block of 128 threads up to 4096, eight
 * neighbouring columns per thread and piece, so that every access is of 16 bytes. Other widths, and rows that are not
 * aligned, take a block per row that reads it once per pass (the second time from cache).
 *
 * Backward: the groups of threads stay and walk the rows; each thread sums dw and db of its columns in registers, blocks
 * leave their sums in scratch, (blocks, 2, D), and a second kernel adds those up in order.
 *
 * Bytes per row of D, T the size of an element: forward 2 D T, backward 3 D T (sum and RMS: + 8 D, + 12 D). Six to ten
 * operations per element: memory sets the pace. */
#include "ops/cuda/cuda.cuh"

extern "C" {
#include "ops/norm.h"
}

enum { WIDTH = 8, GENERAL_THREADS = 256, PART_ROWS = 32 };

enum norm_kind { LAYER, RMS, SUM_RMS };

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
    parameter_of w, b;
    int64_t n_row;
    int n;
    float eps;
};

template <int LANES, int PIECES, norm_kind KIND>
__device__ __forceinline__ statistics measure(const float (&row)[PIECES][WIDTH], int n, float eps, int lane,
                                              float *shared)
{
    float sum = 0.0f, square = 0.0f;
    if (KIND == LAYER) {
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
    enum { THREADS = LANES == 32 ? 256 : LANES, ROWS = THREADS / LANES };
};

template <typename T, int LANES, int PIECES, norm_kind KIND>
static __global__ void __launch_bounds__(block_of<LANES>::THREADS) norm_forward(norm_call<T> c)
{
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
        if (KIND == LAYER)
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

template <typename T, norm_kind KIND> static __global__ void norm_forward_general(norm_call<T> c)
{
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
    norm_forward<T, LANES, PIECES, KIND><<<(unsigned)ceil_div(c.n_row, per_block), threads, 0, s>>>(c);
}

template <typename T, norm_kind KIND>
static cab_status forward(const cab_node *node, const norm_call<T> &c, cab_backend *backend)
{
    const cudaStream_t s = stream_of(backend);
    bool fast = c.n <= BLOCK_COLUMNS;
    for (int i = 0; i < node->n_in; i++)
        fast = fast && fits_packets(node->in[i], WIDTH);
    for (int i = 0; i < node->n_out; i++)
        fast = fast && fits_packets(node->out[i], WIDTH);
    if (c.n_row == 0)
        return CAB_OK;
    if (!fast)
        norm_forward_general<T, KIND><<<(unsigned)c.n_row, GENERAL_THREADS, 0, s>>>(c);
    else if (c.n <= 32 * WIDTH)
        launch_forward<T, KIND, 32, 1>(c, s);
    else if (c.n <= WARP_COLUMNS)
        launch_forward<T, KIND, 32, 3>(c, s);
    else if (c.n <= BLOCK_LANES * WIDTH)
        launch_forward<T, KIND, BLOCK_LANES, 1>(c, s);
    else if (c.n <= 2 * BLOCK_LANES * WIDTH)
        launch_forward<T, KIND, BLOCK_LANES, 2>(c, s);
    else
        launch_forward<T, KIND, BLOCK_LANES, 4>(c, s);
    return cab_cuda_launched(node->op->name);
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
    c.n = (int)cab_columns(x);
    c.eps = ((const cab_norm_attributes *)node->attributes)->eps;
    return forward<T, KIND>(node, c, backend);
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
    float *partial; /* (blocks, 2, n) */
    int64_t n_row;
    int n;
    float eps;
    bool add_x, add_residual;
};

/* dx of a row whose x^ stands in x and whose g = dy w in g; to g. */
template <int LANES, int PIECES, norm_kind KIND>
__device__ __forceinline__ void row_gradient(const float (&x)[PIECES][WIDTH], float (&g)[PIECES][WIDTH], float r, int n,
                                             float *shared)
{
    float sum = 0.0f, product = 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++)
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            sum += g[p][i];
            product += g[p][i] * x[p][i];
        }
    sum = KIND == LAYER ? row_sum<LANES>(sum, shared) / (float)n : 0.0f;
    product = row_sum<LANES>(product, shared) / (float)n;
#pragma unroll
    for (int p = 0; p < PIECES; p++)
#pragma unroll
        for (int i = 0; i < WIDTH; i++)
            g[p][i] = r * (g[p][i] - sum - x[p][i] * product);
}

/* Through the norm: g becomes dx, dw and db receive the row's part. */
template <typename T, typename X, int LANES, int PIECES, norm_kind KIND>
__device__ __forceinline__ void norm_row(const norm_gradient<T, X> &c, int64_t at, int lane, float (&g)[PIECES][WIDTH],
                                         float (&dw)[PIECES][WIDTH], float (&db)[PIECES][WIDTH], float *shared)
{
    float x[PIECES][WIDTH] = {};
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int column = (p * LANES + lane) * WIDTH;
        if (column < c.n) {
            load_floats(c.x.data + at * c.x.ld + column, x[p]);
            load_floats(c.dy.data + at * c.dy.ld + column, g[p]);
        }
    }
    const statistics s = measure<LANES, PIECES, KIND>(x, c.n, c.eps, lane, shared);
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int column = (p * LANES + lane) * WIDTH;
        float w[WIDTH] = {};
        if (column < c.n)
            c.w.load(column, w);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            x[p][i] = (x[p][i] - s.mean) * s.r;
            dw[p][i] += g[p][i] * x[p][i];
            if (KIND == LAYER)
                db[p][i] += g[p][i];
            g[p][i] *= w[i];
        }
    }
    row_gradient<LANES, PIECES, KIND>(x, g, s.r, c.n, shared);
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

template <typename T, typename X, int LANES, int PIECES, norm_kind KIND>
static __global__ void __launch_bounds__(block_of<LANES>::THREADS, LANES == 32 ? 2 : 3)
    norm_backward(norm_gradient<T, X> c)
{
    __shared__ float shared[LANES * PIECES * WIDTH];
    const int lane = threadIdx.x % LANES;
    float dw[PIECES][WIDTH] = {}, db[PIECES][WIDTH] = {};
    for (int64_t at = blockIdx.x * (int64_t)block_of<LANES>::ROWS + threadIdx.x / LANES; at < c.n_row;
         at += gridDim.x * (int64_t)block_of<LANES>::ROWS) {
        float g[PIECES][WIDTH] = {};
        if (c.dy.data)
            norm_row<T, X, LANES, PIECES, KIND>(c, at, lane, g, dw, db, shared);
        write_row<T, X, LANES, PIECES, KIND>(c, at, lane, g);
    }
    __syncthreads();
    float *part = c.partial + blockIdx.x * 2 * (int64_t)c.n;
    write_part<LANES, PIECES>(part, c.n, lane, dw, shared);
    if (KIND == LAYER)
        write_part<LANES, PIECES>(part + c.n, c.n, lane, db, shared);
}

template <typename T, typename X, norm_kind KIND> static __global__ void norm_backward_general(norm_gradient<T, X> c)
{
    __shared__ float shared[GENERAL_THREADS / 32];
    float *dw = c.partial + blockIdx.x * 2 * (int64_t)c.n, *db = dw + c.n;
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

/* to[column] += the blocks' sums: a block takes 32 columns, row r of its threads the parts r, r + 32, ... */
static __global__ void __launch_bounds__(32 * PART_ROWS) sum_parts(const float *partial, int parts, int n, float *to)
{
    __shared__ float sums[PART_ROWS][33];
    const int column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f;
    for (int part = threadIdx.y; column < n && part < parts; part += PART_ROWS)
        sum += partial[part * 2 * (int64_t)n + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    /* transposed: a warp now holds one column's sums, in its lanes */
    sum = warp_sum(sums[threadIdx.x][threadIdx.y]);
    const int summed = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && summed < n)
        to[summed] += sum;
}

static unsigned backward_blocks(int64_t n_row, int64_t n, int multiprocessors)
{
    const int64_t per_block = n <= WARP_COLUMNS ? block_of<32>::ROWS : 1;
    const int64_t most = (int64_t)multiprocessors * (n <= WARP_COLUMNS ? 2 : 4);
    const int64_t wanted = ceil_div(n_row, per_block);
    return (unsigned)(wanted < most ? wanted : most);
}

extern "C" size_t cab_norm_cuda_scratch(const cab_node *node, const cab_backend *backend)
{
    const cab_tensor *x = node->gout[0] ? node->gout[0] : node->gout[1];
    const int64_t n = cab_columns(x);
    return backward_blocks(cab_rows(x), n, cab_cuda_of(backend)->multiprocessors) * 2 * (size_t)n * sizeof(float);
}

template <typename T, typename X, norm_kind KIND, int LANES, int PIECES>
static void launch_backward(const norm_gradient<T, X> &c, unsigned blocks, cudaStream_t s)
{
    norm_backward<T, X, LANES, PIECES, KIND><<<blocks, block_of<LANES>::THREADS, 0, s>>>(c);
}

template <typename T, typename X, norm_kind KIND>
static void choose_backward(const norm_gradient<T, X> &c, bool fast, unsigned blocks, cudaStream_t s)
{
    if (!fast)
        norm_backward_general<T, X, KIND><<<blocks, GENERAL_THREADS, 0, s>>>(c);
    else if (c.n <= 32 * WIDTH)
        launch_backward<T, X, KIND, 32, 1>(c, blocks, s);
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
    c.n = (int)cab_columns(x);
    c.eps = ((const cab_norm_attributes *)node->attributes)->eps;
    c.add_x = node->accumulate & 1u;
    c.add_residual = node->accumulate & 2u;
    bool fast = c.n <= BLOCK_COLUMNS && fits_packets(x, WIDTH) && fits_packets(node->in[weight], WIDTH);
    for (int i = 0; i < (KIND == SUM_RMS ? 2 : 1); i++)
        fast = fast && fits_packets(node->gout[i], WIDTH) && fits_packets(node->gin[i], WIDTH);
    const unsigned blocks = backward_blocks(c.n_row, c.n, cab_cuda_of(backend)->multiprocessors);
    if (blocks == 0)
        return CAB_OK;
    choose_backward<T, X, KIND>(c, fast, blocks, stream_of(backend));
    for (int i = weight; i < node->n_in; i++)
        if (node->gin[i])
            sum_parts<<<(unsigned)ceil_div(c.n, 32), dim3(32, PART_ROWS), 0, stream_of(backend)>>>(
                c.partial + (i - weight) * (int64_t)c.n, (int)blocks, c.n, (float *)node->gin[i]->data);
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
