/* scan_step.c - one token of the selective scan on the CPU, the recurrence itself; src/ops/scan.c has the formulas.
 *
 * A task is one sequence and a stretch of channels; a channel's N states lie side by side. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"
#include "ops/scan.h"

static inline float element(const cab_tensor *t, int64_t row, int64_t column)
{
    const void *from = cab_at(t, row, column);
    return t->dtype == CAB_F32 ? *(const float *)from : cab_bf16_to_f32(*(const cab_bf16 *)from);
}

/* h = exp(delta A) h + delta u B of one channel; returns <C, h>. */
static inline float advance(float *restrict h, const float *A_log, const float *B, const float *C, int N, float delta,
                            float u)
{
    float y = 0.0f;
#pragma omp simd reduction(+ : y)
    for (int n = 0; n < N; n++) {
        h[n] = cab_exp(-delta * cab_exp(A_log[n])) * h[n] + delta * u * B[n];
        y += C[n] * h[n];
    }
    return y;
}

static void step_channels(const cab_node *node, int64_t b, int64_t first, int64_t end)
{
    const int N = (int)cab_columns(node->in[CAB_SCAN_B]);
    const int64_t E = cab_columns(node->in[CAB_SCAN_U]);
    float buffers[2][CAB_SCAN_MAX_STATE];
    const float *B = cab_row_in(node->in[CAB_SCAN_B], b, 0, N, buffers[0]);
    const float *C = cab_row_in(node->in[CAB_SCAN_C], b, 0, N, buffers[1]);
    const float *A_log = node->in[CAB_SCAN_A_LOG]->data, *D = node->in[CAB_SCAN_D]->data;
    const float *bias = node->in[CAB_SCAN_DT_BIAS] ? node->in[CAB_SCAN_DT_BIAS]->data : NULL;
    float *state = node->in[CAB_SCAN_STATE]->data;
    for (int64_t e = first; e < end; e++) {
        const float u = element(node->in[CAB_SCAN_U], b, e);
        const float delta = cab_softplus(element(node->in[CAB_SCAN_DT], b, e) + (bias ? bias[e] : 0.0f));
        float y = D[e] * u + advance(state + (b * E + e) * N, A_log + e * N, B, C, N, delta, u);
        if (node->in[CAB_SCAN_Z])
            y *= cab_silu(element(node->in[CAB_SCAN_Z], b, e));
        void *to = cab_at(node->out[0], b, e);
        if (node->out[0]->dtype == CAB_F32)
            *(float *)to = y;
        else
            *(cab_bf16 *)to = cab_bf16_from_f32(y);
    }
}

cab_status CAB_ISA(cab_scan_step_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *u = node->in[CAB_SCAN_U];
    const int64_t E = cab_columns(u), groups = (E + CAB_SCAN_GROUP - 1) / CAB_SCAN_GROUP;
    const int threads = cab_threads_for(backend, u->shape[0] * E * cab_columns(node->in[CAB_SCAN_B]));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t task = 0; task < u->shape[0] * groups; task++) {
        const int64_t first = task % groups * CAB_SCAN_GROUP;
        step_channels(node, task / groups, first, first + CAB_SCAN_GROUP < E ? first + CAB_SCAN_GROUP : E);
    }
    return CAB_OK;
}
