/* rotary.cu - rotary positions on the GPU, forward and backward.
 *
 * Layout: a block takes some tokens, one behind another, so many that each of its threads has a few packets of
 * neighbouring features. It computes the cosine and sine of every token's angles once, into shared memory, for all heads.
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

enum { THREADS = 128, PACKETS = 4 /* a thread's, about */, ANGLES = CAB_ROTARY_MAX };

template <typename T> struct rotary_arguments {
    rows_of<const T> x;
    rows_of<T> y;
    const float *frequency;
    const int32_t *first;
    int64_t length, n_row;
    int n_head, width, half, tokens; /* tokens: of a block */
    float scale;
    bool add, inverse;
};

/* cosine, sine: (tokens, half), those of the rows from `row` on. */
template <typename T>
__device__ __forceinline__ void angles(const rotary_arguments<T> &a, int64_t row, float *cosine, float *sine)
{
    const int64_t first = a.first ? *a.first : 0;
    for (int i = threadIdx.x; i < a.tokens * a.half; i += THREADS) {
        const int token = i / a.half;
        float s, c;
        sincosf((float)((row + token) % a.length + first) * a.frequency[i - token * a.half], &s, &c);
        cosine[i] = a.scale * c;
        sine[i] = a.scale * (a.inverse ? -s : s);
    }
}

/* Some tokens by a block, N features at a time. */
template <typename T, int N> static __global__ void __launch_bounds__(THREADS) rotate(const rotary_arguments<T> a)
{
    __shared__ float cosine[ANGLES], sine[ANGLES];
    const int64_t row = blockIdx.x * (int64_t)a.tokens;
    angles(a, row, cosine, sine);
    __syncthreads();
    const int pairs = a.half / N, packets = pairs + (a.width - 2 * a.half) / N, of_token = a.n_head * packets;
    const int total = (int)min((int64_t)a.tokens, a.n_row - row) * of_token;
    for (int i = threadIdx.x; i < total; i += THREADS) {
        const int token = i / of_token, rest = i - token * of_token, head = rest / packets;
        const int c = (rest - head * packets) * N, angle = token * a.half + c;
        const T *x = a.x.at(row + token, (int64_t)head * a.width);
        T *y = a.y.at(row + token, (int64_t)head * a.width);
        float left[N], right[N], out[N];
        if (c >= pairs * N) {
            load_floats<T, N>(x + a.half + c, left);
            put_floats<T, N>(y + a.half + c, a.add, left);
            continue;
        }
        load_floats<T, N>(x + c, left);
        load_floats<T, N>(x + a.half + c, right);
#pragma unroll
        for (int k = 0; k < N; k++)
            out[k] = left[k] * cosine[angle + k] - right[k] * sine[angle + k];
        put_floats<T, N>(y + c, a.add, out);
#pragma unroll
        for (int k = 0; k < N; k++)
            out[k] = right[k] * cosine[angle + k] + left[k] * sine[angle + k];
        put_floats<T, N>(y + a.half + c, a.add, out);
    }
}

/* Tokens of a block: what keeps its threads busy, and has room for its angles. */
static int tokens_of_block(int packets, int half)
{
    const int busy = ceil_div(THREADS * PACKETS, packets);
    return half > 0 && busy > ANGLES / half ? ANGLES / half : busy;
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
    a.n_row = cab_rows(x);
    a.tokens = tokens_of_block(a.n_head * ((a.width - a.half) / (wide ? N : 1)), a.half);
    const unsigned blocks = (unsigned)ceil_div(a.n_row, a.tokens);
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
