/* elementwise.cu - activations, gates and sums on the GPU; src/ops/elementwise.c has the formulas.
 *
 * Layout: one thread treats 8 neighbouring columns of a row (each.cuh), so that an access moves 16 bytes of bf16; 4
 * neighbours in views that begin at multiples of 8 bytes. The gradient of the gate's bias is a sum over all rows: a
 * block adds up some rows in a fixed order, in shared memory, and writes its sums to scratch; a second kernel adds up
 * the blocks.
 *
 * Arithmetic, in fp32, on the device's exponentials and reciprocals (2 ulp), since exact ones would cost more time
 * than memory does:
 *
 *   activate   y = f(x)              dx = f'(x) dy
 *   glu        y = f(gate) up        dgate = f'(gate) up dy        dup = f(gate) dy
 *   gate       the same, with  silu(z + z_bias) y;  dz_bias = sum over rows of dz
 *   add        y = xs[0] + ... + xs[n - 1], in that order
 *
 * Bytes per element in bf16: activate 4, backward 6 (8 where it adds to a gradient); glu and gate 6, backward 10;
 * add 2 n + 2. Memory is the limit. */
#include "ops/cuda/activation.cuh"
#include "ops/cuda/each.cuh"

extern "C" {
#include "ops/cuda/elementwise.h"
#include "ops/elementwise.h"
}

/* ---- activate -------------------------------------------------------------------------------------------------------- */

template <typename T, cab_activation_kind KIND> struct activate_value {
    rows_of<const T> x;
    rows_of<T> y;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        float v[N];
        load_floats(x.at(row, column), v);
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = evaluate<KIND>(v[i]).y;
        store_floats(y.at(row, column), v);
    }
};

template <typename T, cab_activation_kind KIND> struct activate_gradient {
    rows_of<const T> x, dy;
    rows_of<T> dx;
    bool accumulate;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        float v[N], d[N];
        load_floats(x.at(row, column), v);
        load_floats(dy.at(row, column), d);
#pragma unroll
        for (int i = 0; i < N; i++)
            d[i] *= evaluate<KIND>(v[i]).slope;
        put_floats(dx.at(row, column), accumulate, d);
    }
};

/* Forward where dy is NULL. */
struct activation {
    const cab_tensor *x, *y, *dy, *dx;
    bool accumulate;
};

template <typename T, cab_activation_kind KIND>
static cab_status activate_kind(const activation &a, cab_backend *backend)
{
    if (a.dy == NULL) {
        const activate_value<T, KIND> f = {rows<const T>(a.x), rows<T>(a.y)};
        return each(f, flat_extent_of(a.x, {a.x, a.y}), backend, "activate");
    }
    const activate_gradient<T, KIND> f = {rows<const T>(a.x), rows<const T>(a.dy), rows<T>(a.dx), a.accumulate};
    return each(f, flat_extent_of(a.x, {a.x, a.dy, a.dx}), backend, "activate");
}

template <typename T>
static cab_status activate_any(const activation &a, cab_activation_kind kind, cab_backend *backend)
{
    switch (kind) {
    case CAB_GELU_TANH:
        return activate_kind<T, CAB_GELU_TANH>(a, backend);
    case CAB_GELU_ERF:
        return activate_kind<T, CAB_GELU_ERF>(a, backend);
    case CAB_SILU:
        return activate_kind<T, CAB_SILU>(a, backend);
    case CAB_RELU:
        return activate_kind<T, CAB_RELU>(a, backend);
    default:
        return activate_kind<T, CAB_TANH>(a, backend);
    }
}

static cab_activation_kind kind_of(const cab_node *node)
{
    return ((const cab_activate_attributes *)node->attributes)->kind;
}

extern "C" cab_status cab_activate_cuda(cab_backend *backend, cab_activation_kind kind, const cab_tensor *x,
                                        const cab_tensor *y)
{
    cab_status status;
    BY_DTYPE(x->dtype, status = activate_any<T>(activation{x, y, NULL, NULL, false}, kind, backend));
    return status;
}

extern "C" cab_status cab_activate_forward_cuda(const cab_node *node, cab_backend *backend)
{
    return cab_activate_cuda(backend, kind_of(node), node->in[0], node->out[0]);
}

extern "C" cab_status cab_activate_backward_cuda(const cab_node *node, cab_backend *backend)
{
    const activation a = {node->in[0], NULL, node->gout[0], node->gin[0], (node->accumulate & 1u) != 0};
    cab_status status;
    BY_DTYPE(a.x->dtype, status = activate_any<T>(a, kind_of(node), backend));
    return status;
}

/* ---- glu and gate: value times f(gate), or times silu of (gate + bias) ------------------------------------------------- */

template <typename T, cab_activation_kind KIND> struct gated_value {
    rows_of<const T> value, gate;
    parameter_of bias; /* over the columns; no data: none */
    rows_of<T> y;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        float v[N], z[N];
        load_floats(value.at(row, column), v);
        load_floats(gate.at(row, column), z);
        if (bias.data) {
            float shift[N];
            bias.load(column, shift);
#pragma unroll
            for (int i = 0; i < N; i++)
                z[i] += shift[i];
        }
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] *= evaluate<KIND>(z[i]).y;
        store_floats(y.at(row, column), v);
    }
};

template <typename T, cab_activation_kind KIND> struct gated_gradient {
    rows_of<const T> value, gate, dy;
    parameter_of bias;
    rows_of<T> dvalue, dgate; /* no data: not wanted */
    bool add_value, add_gate;

    /* d receives the gradient of the gate. */
    template <int N> __device__ __forceinline__ void gradients(int64_t row, int64_t column, float (&d)[N]) const
    {
        float v[N], z[N];
        load_floats(value.at(row, column), v);
        load_floats(gate.at(row, column), z);
        load_floats(dy.at(row, column), d);
        if (bias.data) {
            float shift[N];
            bias.load(column, shift);
#pragma unroll
            for (int i = 0; i < N; i++)
                z[i] += shift[i];
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            if constexpr (KIND == CAB_SILU) {
                const float s = sigmoid(z[i]), slope = d[i] * v[i] * (s + z[i] * s * (1.0f - s));
                v[i] = d[i] * z[i] * s;
                d[i] = slope;
            } else {
                const value_and_slope f = evaluate<KIND>(z[i]);
                const float slope = d[i] * v[i] * f.slope;
                v[i] = d[i] * f.y;
                d[i] = slope;
            }
        }
        if (dvalue.data)
            put_floats(dvalue.at(row, column), add_value, v);
        if (dgate.data)
            put_floats(dgate.at(row, column), add_gate, d);
    }
    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        float d[N];
        gradients(row, column, d);
    }
};

template <cab_activation_kind KIND, typename T>
static cab_status gated_forward(const cab_node *node, cab_backend *backend, int value, int gate, const cab_tensor *bias)
{
    const cab_tensor *v = node->in[value], *z = node->in[gate], *y = node->out[0];
    const gated_value<T, KIND> f = {rows<const T>(v), rows<const T>(z), parameter(bias), rows<T>(y)};
    const extent e = bias ? extent_of(y, {v, z, y}) : flat_extent_of(y, {v, z, y});
    return each(f, e, backend, "gate");
}

enum { LANES = 8, BIAS_BLOCKS = 256 }; /* row lanes of a block; at most so many partial sums per column */

/* Rows that one block sums: a function of the shape alone, so that sums have one order. */
static int64_t bias_rows(int64_t rows)
{
    const int64_t even = ceil_div(rows, BIAS_BLOCKS);
    return even < 64 ? 64 : even;
}

extern "C" size_t cab_gate_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const int64_t rows = cab_rows(node->in[0]), columns = cab_columns(node->in[0]);
    return node->gin[2] ? (size_t)(ceil_div(rows, bias_rows(rows)) * columns) * sizeof(float) : 0;
}

/* Block (x, y): packets 32 x ..., rows from y * rows_per_block. partials (blocks, columns). */
template <int N, typename T>
static __global__ void __launch_bounds__(32 * LANES)
    gate_with_bias(const gated_gradient<T, CAB_SILU> f, int64_t rows, int64_t columns, int64_t rows_per_block, float *partials)
{
    __shared__ float shared[LANES][32 * N];
    const int64_t column = (blockIdx.x * INT64_C(32) + threadIdx.x) * N, first = blockIdx.y * rows_per_block;
    const int64_t last = first + rows_per_block < rows ? first + rows_per_block : rows;
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
    for (int64_t row = first + threadIdx.y; row < last && column < columns; row += LANES) {
        float d[N];
        f.gradients(row, column, d);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] += d[i];
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        shared[threadIdx.y][i * 32 + threadIdx.x] = sum[i];
    __syncthreads();
    if (threadIdx.y > 0 || column >= columns)
        return;
#pragma unroll
    for (int i = 0; i < N; i++) {
        for (int lane = 1; lane < LANES; lane++)
            sum[i] += shared[lane][i * 32 + threadIdx.x];
        partials[blockIdx.y * columns + column + i] = sum[i];
    }
}

/* to[c] += sum over k < n of partials[k * columns + c] */
static __global__ void __launch_bounds__(32 * LANES)
    add_partials(float *to, const float *partials, int64_t n, int64_t columns)
{
    __shared__ float shared[LANES][32];
    const int64_t column = blockIdx.x * INT64_C(32) + threadIdx.x;
    float sum = 0.0f;
    for (int64_t k = threadIdx.y; k < n && column < columns; k += LANES)
        sum += partials[k * columns + column];
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || column >= columns)
        return;
    for (int lane = 1; lane < LANES; lane++)
        sum += shared[lane][threadIdx.x];
    to[column] += sum;
}

template <typename T>
static cab_status gate_bias_backward(const cab_node *node, cab_backend *backend, const gated_gradient<T, CAB_SILU> &f,
                                     const extent &e)
{
    const int64_t per_block = bias_rows(e.rows), blocks = ceil_div(e.rows, per_block);
    const dim3 threads(32, LANES), grid((unsigned)ceil_div(e.columns, 32 * e.packet), (unsigned)blocks);
    const cudaStream_t stream = stream_of(backend);
    float *partials = (float *)node->scratch;
    if (e.packet == EACH_PACKET)
        gate_with_bias<EACH_PACKET><<<grid, threads, 0, stream>>>(f, e.rows, e.columns, per_block, partials);
    else if (e.packet == EACH_HALF)
        gate_with_bias<EACH_HALF><<<grid, threads, 0, stream>>>(f, e.rows, e.columns, per_block, partials);
    else
        gate_with_bias<1><<<grid, threads, 0, stream>>>(f, e.rows, e.columns, per_block, partials);
    CAB_TRY(cab_cuda_launched("gate"));
    add_partials<<<(unsigned)ceil_div(e.columns, 32), threads, 0, stream>>>((float *)node->gin[2]->data, partials,
                                                                            blocks, e.columns);
    return cab_cuda_launched("gate");
}

template <cab_activation_kind KIND, typename T>
static cab_status gated_backward(const cab_node *node, cab_backend *backend, int value, int gate,
                                 const cab_tensor *bias)
{
    const cab_tensor *v = node->in[value], *z = node->in[gate], *dy = node->gout[0];
    const cab_tensor *dv = node->gin[value], *dz = node->gin[gate];
    const gated_gradient<T, KIND> f = {rows<const T>(v),
                                 rows<const T>(z),
                                 rows<const T>(dy),
                                 parameter(bias),
                                 rows<T>(dv),
                                 rows<T>(dz),
                                 (node->accumulate >> value & 1u) != 0,
                                 (node->accumulate >> gate & 1u) != 0};
    if constexpr (KIND == CAB_SILU)
        if (bias && node->gin[2])
            return gate_bias_backward(node, backend, f, extent_of(dy, {v, z, dy, dv, dz}));
    return each(f, bias ? extent_of(dy, {v, z, dy, dv, dz}) : flat_extent_of(dy, {v, z, dy, dv, dz}), backend, "gate");
}

template <cab_activation_kind KIND, typename T>
static cab_status glu_kind(const cab_node *node, cab_backend *backend, bool backward)
{
    return backward ? gated_backward<KIND, T>(node, backend, 1, 0, NULL)
                    : gated_forward<KIND, T>(node, backend, 1, 0, NULL);
}

template <typename T> static cab_status glu_any(const cab_node *node, cab_backend *backend, bool backward)
{
    switch (kind_of(node)) {
    case CAB_GELU_TANH:
        return glu_kind<CAB_GELU_TANH, T>(node, backend, backward);
    case CAB_GELU_ERF:
        return glu_kind<CAB_GELU_ERF, T>(node, backend, backward);
    case CAB_SILU:
        return glu_kind<CAB_SILU, T>(node, backend, backward);
    case CAB_RELU:
        return glu_kind<CAB_RELU, T>(node, backend, backward);
    default:
        return glu_kind<CAB_TANH, T>(node, backend, backward);
    }
}

extern "C" cab_status cab_glu_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = glu_any<T>(node, backend, false));
    return status;
}

extern "C" cab_status cab_glu_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = glu_any<T>(node, backend, true));
    return status;
}

extern "C" cab_status cab_gate_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = (gated_forward<CAB_SILU, T>(node, backend, 0, 1, node->in[2])));
    return status;
}

extern "C" cab_status cab_gate_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = (gated_backward<CAB_SILU, T>(node, backend, 0, 1, node->in[2])));
    return status;
}

/* ---- add ------------------------------------------------------------------------------------------------------------------ */

template <typename T> struct sum_value {
    rows_of<const T> x[CAB_ADD_MAX];
    rows_of<T> y;
    int n;
    float scale;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        float sum[N];
        load_floats(x[0].at(row, column), sum);
#pragma unroll
        for (int k = 1; k < CAB_ADD_MAX; k++) {
            if (k >= n)
                break;
            float term[N];
            load_floats(x[k].at(row, column), term);
#pragma unroll
            for (int i = 0; i < N; i++)
                sum[i] += term[i];
        }
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] *= scale;
        store_floats(y.at(row, column), sum);
    }
};

/* Two of the gradients may be the same tensor: they are written one after the other. */
template <typename T> struct sum_gradient {
    rows_of<const T> dy;
    rows_of<T> dx[CAB_ADD_MAX]; /* no data: not wanted */
    uint32_t accumulate;
    int n;
    float scale;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        float d[N];
        load_floats(dy.at(row, column), d);
#pragma unroll
        for (int i = 0; i < N; i++)
            d[i] *= scale;
#pragma unroll
        for (int k = 0; k < CAB_ADD_MAX; k++)
            if (k < n && dx[k].data)
                put_floats(dx[k].at(row, column), accumulate >> k & 1u, d);
    }
};

template <typename T> static cab_status sum_forward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *y = node->out[0], *x[CAB_ADD_MAX] = {NULL, NULL, NULL, NULL};
    sum_value<T> f = {};
    f.y = rows<T>(y);
    f.n = node->n_in;
    f.scale = ((const cab_add_attributes *)node->attributes)->scale;
    for (int k = 0; k < node->n_in; k++) {
        x[k] = node->in[k];
        f.x[k] = rows<const T>(x[k]);
    }
    return each(f, flat_extent_of(y, {y, x[0], x[1], x[2], x[3]}), backend, "add");
}

template <typename T> static cab_status sum_backward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *dy = node->gout[0], *dx[CAB_ADD_MAX] = {NULL, NULL, NULL, NULL};
    sum_gradient<T> f = {};
    f.dy = rows<const T>(dy);
    f.n = node->n_in;
    f.accumulate = node->accumulate;
    f.scale = ((const cab_add_attributes *)node->attributes)->scale;
    for (int k = 0; k < node->n_in; k++) {
        dx[k] = node->gin[k];
        f.dx[k] = rows<T>(dx[k]);
    }
    return each(f, flat_extent_of(dy, {dy, dx[0], dx[1], dx[2], dx[3]}), backend, "add");
}

extern "C" cab_status cab_add_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = sum_forward<T>(node, backend));
    return status;
}

extern "C" cab_status cab_add_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->gout[0]->dtype, status = sum_backward<T>(node, backend));
    return status;
}
