/* elementwise.cu - activations, gates and sums on the GPU: one thread per element pair where rows are even, arithmetic in
 * fp32. */
#include "ops/cuda/cuda.cuh"

extern "C" {
#include "ops/elementwise.h"
}

enum { THREADS = 256 };

struct value_and_slope {
    float y, slope;
};

__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + __expf(-x));
}

/* f(x) and f'(x). */
template <cab_activation_kind KIND> __device__ __forceinline__ value_and_slope evaluate(float x)
{
    value_and_slope r;
    if (KIND == CAB_GELU_TANH) {
        const float a = 0.797884561f, b = 0.044715f, s = sigmoid(2.0f * a * (x + b * x * x * x));
        r.y = x * s;
        r.slope = s + x * s * (1.0f - s) * 2.0f * a * (1.0f + 3.0f * b * x * x);
    } else if (KIND == CAB_GELU_ERF) {
        const float cdf = 0.5f * (1.0f + erff(0.707106781f * x));
        r.y = x * cdf;
        r.slope = cdf + x * 0.398942280f * __expf(-0.5f * x * x);
    } else if (KIND == CAB_SILU) {
        const float s = sigmoid(x);
        r.y = x * s;
        r.slope = s * (1.0f + x * (1.0f - s));
    } else if (KIND == CAB_RELU) {
        r.y = x > 0.0f || isnan(x) ? x : 0.0f;
        r.slope = x > 0.0f ? 1.0f : 0.0f;
    } else {
        r.y = tanhf(x);
        r.slope = 1.0f - r.y * r.y;
    }
    return r;
}

/* One thread per element; consecutive threads, consecutive columns. */
template <typename T, cab_activation_kind KIND>
static __global__ void activate(rows_of<const T> x, rows_of<T> y, int64_t n_row, int64_t columns)
{
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n_row * columns;
         i += (int64_t)gridDim.x * THREADS) {
        const int64_t row = i / columns, column = i % columns;
        y.data[row * y.ld + column] = from_float<T>(evaluate<KIND>(to_float(x.data[row * x.ld + column])).y);
    }
}

template <typename T> static cab_status activate_forward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const int64_t n = cab_elements(x);
    const int blocks = (int)(ceil_div(n, THREADS) < 1 << 20 ? ceil_div(n, THREADS) : 1 << 20);
    switch (((const cab_activate_attributes *)node->attributes)->kind) {
    case CAB_GELU_TANH:
        activate<T, CAB_GELU_TANH>
            <<<blocks, THREADS, 0, stream_of(backend)>>>(rows<const T>(x), rows<T>(y), cab_rows(x), cab_columns(x));
        break;
    default:
        return cab_fail(CAB_EUNSUPPORTED, "activate: kind");
    }
    return cab_cuda_launched("activate");
}

extern "C" cab_status cab_activate_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = activate_forward<T>(node, backend));
    return status;
}
