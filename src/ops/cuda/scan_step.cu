/* scan_step.cu - one token of the selective scan on the GPU, the recurrence itself; src/ops/scan.c has the formulas.
 *
 * Layout: LANES lanes take a channel, each every LANES-th of its N states, so that a warp's accesses to the state fill
 * whole sectors. <C, h> is summed over the lanes. Bytes: the state is read and written once, A_log is read: memory is the
 * limit. */
#include "ops/cuda/cuda.cuh"

extern "C" {
#include "ops/scan.h"
}

enum { LANES = 8, THREADS = 128, CHANNELS = THREADS / LANES };

template <typename T> struct scan_step_call {
    rows_of<const T> u, dt, B, C, z; /* z NULL: no gate */
    rows_of<T> y;
    const float *A_log, *D, *dt_bias; /* dt_bias NULL: zero */
    float *state;                     /* (sequences, E, N) */
    int64_t sequences, E;
    int N;
};

template <typename T> static __global__ void __launch_bounds__(THREADS) scan_step(scan_step_call<T> c)
{
    const int64_t i = blockIdx.x * (int64_t)CHANNELS + threadIdx.x / LANES, b = i / c.E, e = i - b * c.E;
    const int lane = threadIdx.x % LANES;
    const bool there = b < c.sequences; /* all lanes take part in the sum */
    float y = 0.0f, u = 0.0f;
    if (there) {
        const float dt = to_float(*c.dt.at(b, e)) + (c.dt_bias ? c.dt_bias[e] : 0.0f);
        const float delta = fmaxf(dt, 0.0f) + log1pf(expf(-fabsf(dt)));
        float *h = c.state + i * c.N;
        u = to_float(*c.u.at(b, e));
        for (int n = lane; n < c.N; n += LANES) {
            const float a = expf(-delta * expf(c.A_log[e * c.N + n]));
            h[n] = a * h[n] + delta * u * to_float(*c.B.at(b, n));
            y += to_float(*c.C.at(b, n)) * h[n];
        }
    }
#pragma unroll
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2)
        y += __shfl_xor_sync(0xffffffffu, y, lanes);
    if (!there || lane > 0)
        return;
    y += c.D[e] * u;
    if (c.z.data) {
        const float z = to_float(*c.z.at(b, e));
        y *= z / (1.0f + expf(-z));
    }
    *c.y.at(b, e) = from_float<T>(y);
}

template <typename T> static cab_status step(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *u = node->in[CAB_SCAN_U];
    scan_step_call<T> c = {};
    c.u = rows<const T>(u);
    c.dt = rows<const T>(node->in[CAB_SCAN_DT]);
    c.B = rows<const T>(node->in[CAB_SCAN_B]);
    c.C = rows<const T>(node->in[CAB_SCAN_C]);
    c.z = rows<const T>(node->in[CAB_SCAN_Z]);
    c.y = rows<T>(node->out[0]);
    c.A_log = rows<const float>(node->in[CAB_SCAN_A_LOG]).data;
    c.D = rows<const float>(node->in[CAB_SCAN_D]).data;
    c.dt_bias = rows<const float>(node->in[CAB_SCAN_DT_BIAS]).data;
    c.state = rows<float>(node->in[CAB_SCAN_STATE]).data;
    c.sequences = u->shape[0];
    c.E = cab_columns(u);
    c.N = (int)cab_columns(node->in[CAB_SCAN_B]);
    if (c.sequences * c.E == 0)
        return CAB_OK;
    scan_step<<<(unsigned)ceil_div(c.sequences * c.E, CHANNELS), THREADS, 0, stream_of(backend)>>>(c);
    return cab_cuda_launched("scan_step");
}

extern "C" cab_status cab_scan_step_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[CAB_SCAN_U]->dtype, status = step<T>(node, backend));
    return status;
}
