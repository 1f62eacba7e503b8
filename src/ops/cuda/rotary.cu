/* rotary.cu - rotary positions on the GPU, forward and backward.
 *
 * Layout: a block takes one token of one sequence. It computes the cosine and sine of the token's angles once, into
 * shared memory, for all heads; then its threads walk over the heads in packets of neighbouring features.
 *
 * Arithmetic, in fp32, for the halves (x1, x2) of the first features of every head; the features behind them are
 * copied:
 *
 *   (y1, y2) = scale (x1 cos a - x2 sin a, x2 cos a + x1 sin a)     a = (first + l) inv_freq[i]
 *
 * The gradient is the same with -a. Every element is read once and written once. Memory is the limit. */
#include "ops/cuda/cuda.cuh"

extern "C" {
#include "ops/attention.h"
}

enum { THREADS = 128 };

template <typename T> struct rotary_arguments {
    rows_of<const T> x;
    rows_of<T> y;
    const float *frequency;
    const int32_t *first;
    int64_t length;
    int n_head, width, half;
    float scale;
    bool add, inverse;
};

/* One token of one sequence by a block: its angles once, then all heads, N features at a time. */
template <typename T, int N> static __global__ void __launch_bounds__(THREADS) rotate(const rotary_arguments<T> a)
{
    __shared__ float cosine[CAB_ROTARY_MAX / 2], sine[CAB_ROTARY_MAX / 2];
    const int64_t row = blockIdx.x, position = row % a.length + (a.first ? *a.first : 0);
    for (int i = threadIdx.x; i < a.half; i += THREADS) {
        float s, c;
        sincosf((float)position * a.frequency[i], &s, &c);
        cosine[i] = a.scale * c;
        sine[i] = a.scale * (a.inverse ? -s : s);
    }
    __syncthreads();
    const int pairs = a.half / N, packets = pairs + (a.width - 2 * a.half) / N;
    for (int i = threadIdx.x; i < a.n_head * packets; i += THREADS) {
        const int head = i / packets, packet = i - head * packets, c = packet * N;
        const T *x = a.x.at(row, (int64_t)head * a.width);
        T *y = a.y.at(row, (int64_t)head * a.width);
        float left[N], right[N], out[N];
        if (packet >= pairs) {
            load_floats<T, N>(x + a.half + c, left);
            put_floats<T, N>(y + a.half + c, a.add, left);
            continue;
        }
        load_floats<T, N>(x + c, left);
        load_floats<T, N>(x + a.half + c, right);
#pragma unroll
        for (int k = 0; k < N; k++)
            out[k] = left[k] * cosine[c + k] - right[k] * sine[c + k];
        put_floats<T, N>(y + c, a.add, out);
#pragma unroll
        for (int k = 0; k < N; k++)
            out[k] = right[k] * cosine[c + k] + left[k] * sine[c + k];
        put_floats<T, N>(y + a.half + c, a.add, out);
    }
}

template <typename T>
static cab_status rotary(const cab_node *node, cab_backend *backend, const cab_tensor *x, const cab_tensor *y,
                         bool inverse)
{
    constexpr int N = WIDE<T>;
    rotary_arguments<T> a;
    a.x = rows<const T>(x);
    a.y = rows<T>(y);
    a.frequency = (const float *)node->in[1]->data;
    a.first = node->in[2] ? (const int32_t *)node->in[2]->data : NULL;
    a.length = x->shape[1];
    const cab_rotary_attributes *attributes = (const cab_rotary_attributes *)node->attributes;
    a.n_head = attributes->n_head;
    a.scale = attributes->scale;
    a.width = (int)(cab_columns(x) / a.n_head);
    a.half = (int)cab_elements(node->in[1]);
    a.add = inverse && (node->accumulate & 1u);
    a.inverse = inverse;
    const bool wide = a.half % N == 0 && a.width % N == 0 && fits_packets(x, N) && fits_packets(y, N);
    const unsigned blocks = (unsigned)cab_rows(x);
    if (wide)
        rotate<T, N><<<blocks, THREADS, 0, stream_of(backend)>>>(a);
    else
        rotate<T, 1><<<blocks, THREADS, 0, stream_of(backend)>>>(a);
    return cab_cuda_launched("rotary");
}

extern "C" cab_status cab_rotary_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = rotary<T>(node, backend, node->in[0], node->out[0], false));
    return status;
}

extern "C" cab_status cab_rotary_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->gout[0]->dtype, status = rotary<T>(node, backend, node->gout[0], node->gin[0], true));
    return status;
}
