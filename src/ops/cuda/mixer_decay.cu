/* mixer_decay.cu - decays and steps of a state-space mixer.
 *
 * Layout: forward, a thread has a token and a head. Backward, a block has 128 heads and a slice of the tokens, a thread a head; it
 * leaves the slice's sums in scratch, (slices, 2 H), which partials.cuh adds up.
 *
 * Arithmetic, in fp32, r = exp(A_log) or 1:
 *
 *   delta = softplus(dt + bias)     log a = -delta r
 *   ddt = (ddelta - r dlog a) sigmoid(dt + bias)     dbias: its sum     dA_log = sum dlog a log a; of a tied one every element a part
 *
 * Cost: reads dt twice, writes log a and delta. */
#include "ops/cuda/partials.cuh"
#include "ops/cuda/soft_cap.cuh"

extern "C" {
#include "ops/mixer_matrix.h"
}

enum { THREADS = 128, SLICE = 256 /* tokens */ };

/* What both directions read. */
template <typename T> struct decay_call {
    rows_of<const T> dt;
    const float *bias, *A_log; /* NULL: none */
    int64_t tied;              /* elements of A_log for one head */
    int64_t n_row, H;

    __device__ __forceinline__ float raw(int64_t row, int64_t head) const
    {
        return to_float(*dt.at(row, head)) + (bias != NULL ? bias[head] : 0.0f);
    }
    __device__ __forceinline__ float rate(int64_t head) const
    {
        return A_log != NULL ? expf(A_log[head * tied]) : 1.0f;
    }
};

__device__ __forceinline__ float softplus(float x)
{
    return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
}

template <typename T> static decay_call<T> call_of(const cab_node *node)
{
    const cab_tensor *bias = node->in[CAB_DECAY_BIAS], *A_log = node->in[CAB_DECAY_A_LOG], *dt = node->in[CAB_DECAY_DT];
    return {rows<const T>(dt),
            bias != NULL ? (const float *)bias->data : NULL,
            A_log != NULL ? (const float *)A_log->data : NULL,
            A_log != NULL ? cab_mixer_tied(A_log) : 1,
            cab_rows(dt),
            cab_columns(dt)};
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) decay_forward(decay_call<T> c, float *log_a, float *step)
{
    const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x, row = i / c.H, head = i % c.H;
    if (row >= c.n_row)
        return;
    const float delta = softplus(c.raw(row, head));
    log_a[i] = -delta * c.rate(head);
    if (step != NULL)
        step[i] = delta;
}

/* da, ds, ddt: NULL, or what flows back, and where it goes. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    decay_backward(decay_call<T> c, rows_of<const float> da, rows_of<const float> ds, rows_of<T> ddt, bool add,
                   float *partials)
{
    const int64_t head = blockIdx.x * (int64_t)THREADS + threadIdx.x, first = blockIdx.y * (int64_t)SLICE;
    if (head >= c.H)
        return;
    const float rate = c.rate(head);
    float bias = 0.0f, A_log = 0.0f;
    for (int64_t row = first; row < first + SLICE && row < c.n_row; row++) {
        const float raw = c.raw(row, head), decay = da.data != NULL ? *da.at(row, head) * rate : 0.0f;
        const float change = ((ds.data != NULL ? *ds.at(row, head) : 0.0f) - decay) * sigmoid(raw);
        bias += change;
        A_log -= decay * softplus(raw);
        if (ddt.data != NULL) {
            T *to = ddt.at(row, head);
            *to = from_float<T>(change + (add ? to_float(*to) : 0.0f));
        }
    }
    partials[blockIdx.y * 2 * c.H + head] = bias;
    partials[(blockIdx.y * 2 + 1) * c.H + head] = A_log;
}

/* Where sums go: dbias, and room for dA_log's. */
struct decay_sums {
    float *bias, *A_log;
    int64_t H;
    bool add;

    __device__ float *target(int64_t column) const
    {
        return column < H ? bias != NULL ? bias + column : NULL : A_log + column - H;
    }
};

static __global__ void decay_spread(float *dA_log, const float *sums, int64_t n, int64_t tied)
{
    const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    if (i < n * tied)
        dA_log[i] += sums[i / tied] / (float)tied;
}

static unsigned slices_of(const cab_node *node)
{
    return (unsigned)ceil_div(cab_rows(node->in[CAB_DECAY_DT]), SLICE);
}

/* The slices' sums, and zeros to which those of A_log are added. */
extern "C" size_t cab_mixer_decay_scratch_cuda(const cab_node *node, const cab_backend *)
{
    return (size_t)cab_columns(node->in[CAB_DECAY_DT]) * (2 * (size_t)slices_of(node) + 1) * sizeof(float);
}

extern "C" cab_status cab_mixer_decay_forward_cuda(const cab_node *node, cab_backend *backend)
{
    float *log_a = (float *)node->out[0]->data, *step = node->out[1] != NULL ? (float *)node->out[1]->data : NULL;
    const unsigned blocks = (unsigned)ceil_div(cab_elements(node->out[0]), THREADS);
    BY_DTYPE(node->in[CAB_DECAY_DT]->dtype,
             (decay_forward<T><<<blocks, THREADS, 0, stream_of(backend)>>>(call_of<T>(node), log_a, step)));
    return cab_cuda_launched("mixer_decay");
}

template <typename T> static cab_status backward(const cab_node *node, cab_backend *backend, float *partials)
{
    const decay_call<T> c = call_of<T>(node);
    const dim3 grid((unsigned)ceil_div(c.H, THREADS), slices_of(node));
    decay_backward<T><<<grid, THREADS, 0, stream_of(backend)>>>(
        c, rows<const float>(node->gout[0]), rows<const float>(node->gout[1]), rows<T>(node->gin[CAB_DECAY_DT]),
        node->accumulate & CAB_SAVE_IN(CAB_DECAY_DT), partials);
    return cab_cuda_launched("mixer_decay");
}

extern "C" cab_status cab_mixer_decay_backward_cuda(const cab_node *node, cab_backend *backend)
{
    const int64_t H = cab_columns(node->in[CAB_DECAY_DT]);
    const cab_tensor *bias = node->gin[CAB_DECAY_BIAS], *A_log = node->gin[CAB_DECAY_A_LOG];
    float *partials = (float *)node->scratch, *sums = partials + 2 * H * (int64_t)slices_of(node);
    cab_status status = CAB_OK;
    BY_DTYPE(node->in[CAB_DECAY_DT]->dtype, status = backward<T>(node, backend, partials));
    CAB_TRY(status);
    CAB_TRY(cab_cuda_check(cudaMemsetAsync(sums, 0, (size_t)H * sizeof(float), stream_of(backend)), "mixer_decay"));
    const decay_sums to = {bias != NULL ? (float *)bias->data : NULL, sums, H, true};
    CAB_TRY(launch_partials(to, partials, (int64_t)slices_of(node), 2 * H, backend));
    if (A_log == NULL)
        return CAB_OK;
    const int64_t tied = cab_mixer_tied(node->in[CAB_DECAY_A_LOG]);
    decay_spread<<<(unsigned)ceil_div(H * tied, THREADS), THREADS, 0, stream_of(backend)>>>((float *)A_log->data, sums, H,
                                                                                            tied);
    return cab_cuda_launched("mixer_decay");
}
