/* mixer_decay.c - decays and steps of a state-space mixer, on the CPU; src/ops/mixer_matrix.c has the ops that read them.
 *
 *   delta = softplus(dt + bias)     log a = -delta r, r = exp(A_log) or 1
 *   ddt = (ddelta - r dlog a) sigmoid(dt + bias)     dbias: its sum     dA_log = sum dlog a log a
 *
 * Sums over rows keep one partial sum per block of rows (vec.h), so that threads do not change the bits. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"
#include "ops/mixer_matrix.h"

/* A head's: exp(A_log), of a tied one its first element; 1 where there is none. */
static float rate(const cab_node *node, int64_t head)
{
    const cab_tensor *A_log = node->in[CAB_DECAY_A_LOG];
    return A_log != NULL ? cab_exp(((const float *)A_log->data)[head * cab_mixer_tied(A_log)]) : 1.0f;
}

/* What softplus is of, for n heads of a row. */
static void raw_steps(const cab_node *node, int64_t row, int64_t head, int64_t n, float *raw)
{
    const cab_tensor *bias = node->in[CAB_DECAY_BIAS];
    float buffer[CAB_PIECE];
    const float *dt = cab_row_in(node->in[CAB_DECAY_DT], row, head, n, buffer);
    memcpy(raw, dt, (size_t)n * sizeof *raw);
    if (bias != NULL)
        cab_axpy(raw, 1.0f, (const float *)bias->data + head, n);
}

static void forward_row(const cab_node *node, int64_t row, int64_t head, int64_t n, const float *rates)
{
    float raw[CAB_PIECE], *log_a = cab_at(node->out[0], row, head);
    float *step = node->out[1] != NULL ? cab_at(node->out[1], row, head) : NULL;
    raw_steps(node, row, head, n, raw);
    for (int64_t i = 0; i < n; i++) {
        const float delta = cab_softplus(raw[i]);
        log_a[i] = -delta * rates[i];
        if (step != NULL)
            step[i] = delta;
    }
}

cab_status CAB_ISA(cab_mixer_decay_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *dt = node->in[CAB_DECAY_DT];
    const int64_t H = cab_columns(dt), rows = cab_rows(dt);
    for (int64_t head = 0; head < H; head += CAB_PIECE) {
        const int64_t n = H - head < CAB_PIECE ? H - head : CAB_PIECE;
        float rates[CAB_PIECE];
        for (int64_t i = 0; i < n; i++)
            rates[i] = rate(node, head + i);
#pragma omp parallel for num_threads(cab_threads_for(backend, rows *n)) schedule(static)
        for (int64_t row = 0; row < rows; row++)
            forward_row(node, row, head, n, rates);
    }
    return CAB_OK;
}

/* One row; what it adds to dbias and dA_log goes to sums[0] and sums[1]. */
static void backward_row(const cab_node *node, int64_t row, int64_t head, int64_t n, const float *rates,
                         float *const sums[2])
{
    const cab_tensor *dlog_a = node->gout[0], *dstep = node->gout[1], *ddt = node->gin[CAB_DECAY_DT];
    float raw[CAB_PIECE], buffer[CAB_PIECE], change[CAB_PIECE];
    raw_steps(node, row, head, n, raw);
    const float *da = dlog_a != NULL ? cab_at(dlog_a, row, head) : NULL;
    const float *ds = dstep != NULL ? cab_at(dstep, row, head) : NULL;
    for (int64_t i = 0; i < n; i++) {
        const float decay = da != NULL ? da[i] * rates[i] : 0.0f;
        change[i] = ((ds != NULL ? ds[i] : 0.0f) - decay) * cab_sigmoid(raw[i]);
        sums[0][i] += change[i];
        sums[1][i] -= decay * cab_softplus(raw[i]);
    }
    if (ddt == NULL)
        return;
    float *out = cab_row_sum(ddt, row, head, n, node->accumulate & CAB_SAVE_IN(CAB_DECAY_DT), buffer);
    cab_axpy(out, 1.0f, change, n);
    cab_row_done(ddt, row, head, n, out);
}

/* Adds the blocks' sums; to every element of a tied A_log its part. */
static void add_sums(const cab_node *node, const float *partials, int64_t H)
{
    const cab_tensor *dbias = node->gin[CAB_DECAY_BIAS], *dA_log = node->gin[CAB_DECAY_A_LOG];
    if (dbias != NULL)
        cab_block_sums(dbias->data, partials, 2 * H, H);
    if (dA_log == NULL)
        return;
    const int64_t N = cab_mixer_tied(node->in[CAB_DECAY_A_LOG]);
    for (int64_t h = 0; h < H; h++) {
        float sum = 0.0f;
        cab_block_sums(&sum, partials + H + h, 2 * H, 1);
        for (int64_t n = 0; n < N; n++)
            ((float *)dA_log->data)[h * N + n] += sum / (float)N;
    }
}

cab_status CAB_ISA(cab_mixer_decay_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *dt = node->in[CAB_DECAY_DT];
    const int64_t H = cab_columns(dt), rows = cab_rows(dt);
    float *partials = node->scratch;
    memset(partials, 0, (size_t)(2 * H * CAB_BLOCKS) * sizeof *partials);
#pragma omp parallel for num_threads(cab_threads_for(backend, rows *H)) schedule(static)
    for (int block = 0; block < CAB_BLOCKS; block++)
        for (int64_t head = 0; head < H; head += CAB_PIECE) {
            const int64_t n = H - head < CAB_PIECE ? H - head : CAB_PIECE;
            float *const own = partials + (int64_t)block * 2 * H + head, *const sums[2] = {own, own + H};
            float rates[CAB_PIECE];
            for (int64_t i = 0; i < n; i++)
                rates[i] = rate(node, head + i);
            for (int64_t row = cab_block_first(rows, block); row < cab_block_first(rows, block + 1); row++)
                backward_row(node, row, head, n, rates, sums);
        }
    add_sums(node, partials, H);
    return CAB_OK;
}
