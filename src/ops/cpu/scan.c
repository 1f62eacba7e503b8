/* scan.c - the selective scan on the CPU; src/ops/scan.c has the formulas, src/ops/scan.h how the work is laid out.
 *
 * Vectors run over channels, so that B and C are spread from single floats and nothing is summed across a vector but dB and
 * dC, once per chunk. Decays are powers of two, exp(delta A) = 2^(delta A log2(e)), of arguments that are never positive. */
#include "ops/scan.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

#include <omp.h>

enum { GROUP = CAB_SCAN_GROUP, Q = CAB_SCAN_CHUNK, LANES = CAB_SCAN_LANES };

#if defined(__AVX512F__)
enum { W = 16 };
#elif defined(__AVX2__)
enum { W = 8 };
#else
enum { W = 4 };
#endif
typedef float vec __attribute__((vector_size(W * sizeof(float))));
typedef float stored __attribute__((vector_size(W * sizeof(float)), may_alias));
typedef int32_t bits __attribute__((vector_size(W * sizeof(float))));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *from)
{
    return *(const stored *)from;
}

INLINE void store(float *to, vec value)
{
    *(stored *)to = value;
}

/* 2^x for x <= 0: 2^n times a polynomial on |x - n| <= 1/2, exactly 1 at 0 and within 1.5 ulp; below 2^-126 it stays
 * there. NaN stays NaN. */
INLINE vec decay(vec x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23 */
    const bits low = x < -126.0f;
    const vec least = (vec){0} - 126.0f;
    x = (vec)(((bits)x & ~low) | ((bits)least & low));
    const vec shifted = x + round, f = x - (shifted - round);
    vec p = 1.54531526e-4f * f + 1.33908634e-3f;
    p = p * f + 9.61808256e-3f;
    p = p * f + 5.55035711e-2f;
    p = p * f + 2.40226508e-1f;
    p = p * f + 6.93147188e-1f;
    p = p * f + 1.0f;
    return p * (vec)(((bits)shifted << 23) + (127 << 23));
}

/* One task on its way: a group of channels of a sequence, and the chunk it stands at. */
typedef struct walk {
    const cab_node *node;
    cab_scan_shape s;
    cab_scan_workspace w;
    float *at; /* the thread's part of the scratch */
    bool reverse, gated;
    int64_t b, channel; /* sequence, first channel */
    int n;              /* channels of the group that exist */
    int64_t first;      /* token of the chunk, counted in the scan's direction */
    int rows;
} walk;

/* Row of the chunk's token t. */
INLINE int64_t row_of(const walk *k, int t)
{
    const int64_t token = k->first + t;
    return k->b * k->s.L + (k->reverse ? k->s.L - 1 - token : token);
}

/* `columns` columns of the chunk's tokens as fp32; rows are `ld` apart in `to`, what is past `columns` becomes zero. */
static void load_chunk(const walk *k, const cab_tensor *t, int64_t column, int columns, float *to, int ld)
{
    for (int i = 0; i < k->rows; i++, to += ld) {
        const void *from = cab_at(t, row_of(k, i), column);
        if (t->dtype == CAB_F32)
            memcpy(to, from, (size_t)columns * sizeof *to);
        else
            cab_widen(to, from, columns);
        memset(to + columns, 0, (size_t)(ld - columns) * sizeof *to);
    }
}

static void store_chunk(const walk *k, const cab_tensor *t, const float *from, bool add)
{
    float buffer[GROUP];
    for (int i = 0; i < k->rows; i++, from += GROUP) {
        float *out = cab_row_sum(t, row_of(k, i), k->channel, k->n, add, buffer);
        cab_axpy(out, 1.0f, from, k->n);
        cab_row_done(t, row_of(k, i), k->channel, k->n, out);
    }
}

/* A vector of a parameter over the group's channels. */
static void load_parameter(const walk *k, int input, float *to)
{
    memset(to, 0, GROUP * sizeof *to);
    if (k->node->in[input] != NULL)
        memcpy(to, (const float *)k->node->in[input]->data + k->channel, (size_t)k->n * sizeof *to);
}

static void move_to(walk *k, int chunk)
{
    k->first = (int64_t)chunk * Q;
    k->rows = k->s.L - k->first < Q ? (int)(k->s.L - k->first) : Q;
}

/* Everything of the chunk that the recurrence reads: B, C, u, delta and x = delta u. dt keeps dt + dt_bias. */
static void load_inputs(const walk *k)
{
    const cab_scan_workspace *w = &k->w;
    const cab_node *node = k->node;
    float *restrict u = k->at + w->u, *restrict dt = k->at + w->dt;
    float *restrict delta = k->at + w->delta, *restrict x = k->at + w->x;
    float bias[GROUP];
    load_chunk(k, node->in[CAB_SCAN_B], 0, k->s.N, k->at + w->B, k->s.N);
    load_chunk(k, node->in[CAB_SCAN_C], 0, k->s.N, k->at + w->C, k->s.N);
    load_chunk(k, node->in[CAB_SCAN_U], k->channel, k->n, u, GROUP);
    load_chunk(k, node->in[CAB_SCAN_DT], k->channel, k->n, dt, GROUP);
    load_parameter(k, CAB_SCAN_DT_BIAS, bias);
    for (int i = 0; i < k->rows * GROUP; i += GROUP)
#pragma omp simd
        for (int c = 0; c < GROUP; c++) {
            dt[i + c] += bias[c];
            delta[i + c] = cab_softplus(dt[i + c]);
            x[i + c] = delta[i + c] * u[i + c];
        }
}

/* The chunk's recurrence of one vector of channels from `c`; y receives <C, h> + D u unless NULL. */
INLINE void forward_vector(const walk *k, int c, bool outputs)
{
    const cab_scan_workspace *w = &k->w;
    const int N = k->s.N;
    const float *A = k->at + w->A + c, *B = k->at + w->B, *C = k->at + w->C;
    float *h = k->at + w->h + c;
    const vec D = load(k->at + w->D + c);
    for (int t = 0; t < k->rows; t++, B += N, C += N) {
        const vec delta = load(k->at + w->delta + t * GROUP + c), x = load(k->at + w->x + t * GROUP + c);
        vec y = D * load(k->at + w->u + t * GROUP + c);
        for (int n = 0; n < N; n++) {
            const vec state = decay(delta * load(A + n * GROUP)) * load(h + n * GROUP) + x * B[n];
            store(h + n * GROUP, state);
            if (outputs)
                y += state * C[n];
        }
        if (outputs)
            store(k->at + w->y + t * GROUP + c, y);
    }
}

static void forward_chunk(const walk *k)
{
    const cab_scan_workspace *w = &k->w;
    float *restrict y = k->at + w->y;
    const float *z = k->at + w->z;
    load_inputs(k);
    for (int c = 0; c < k->n; c += W)
        forward_vector(k, c, true);
    if (k->gated) {
        load_chunk(k, k->node->in[CAB_SCAN_Z], k->channel, k->n, k->at + w->z, GROUP);
#pragma omp simd
        for (int i = 0; i < k->rows * GROUP; i++)
            y[i] *= cab_silu(z[i]);
    }
    store_chunk(k, k->node->out[0], y, false);
}

/* A log2(e) of the group's channels, and D. */
static void load_group(const walk *k)
{
    const cab_scan_workspace *w = &k->w;
    const float *A_log = (const float *)k->node->in[CAB_SCAN_A_LOG]->data + k->channel * k->s.N;
    float *A = k->at + w->A;
    memset(A, 0, (size_t)k->s.N * GROUP * sizeof *A);
    for (int c = 0; c < k->n; c++)
        for (int n = 0; n < k->s.N; n++)
            A[n * GROUP + c] = -1.44269504f * cab_exp(A_log[c * k->s.N + n]);
    load_parameter(k, CAB_SCAN_D, k->at + w->D);
}

static void begin_task(walk *k, int64_t task)
{
    k->b = task / k->s.groups;
    k->channel = task % k->s.groups * GROUP;
    k->n = k->s.E - k->channel < GROUP ? (int)(k->s.E - k->channel) : GROUP;
    load_group(k);
    memset(k->at + k->w.h, 0, (size_t)k->s.N * GROUP * sizeof(float));
}

static walk begin(const cab_node *node, bool backward)
{
    const cab_scan_attributes *attributes = node->attributes;
    walk k = {.node = node,
              .s = cab_scan_shape_of(node),
              .reverse = attributes->reverse,
              .gated = node->in[CAB_SCAN_Z] != NULL};
    k.w = cab_scan_workspace_of(&k.s, backward);
    return k;
}

static void enter(walk *k)
{
    k->at = (float *)k->node->scratch + k->w.threads + k->w.total * (size_t)omp_get_thread_num();
}

cab_status CAB_ISA(cab_scan_forward)(const cab_node *node, cab_backend *backend)
{
    const walk shared = begin(node, false);
    const int64_t tasks = shared.s.B * shared.s.groups;
#pragma omp parallel num_threads(backend->threads)
    {
        walk k = shared;
        enter(&k);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; task++) {
            begin_task(&k, task);
            for (int chunk = 0; chunk < k.s.chunks; chunk++) {
                move_to(&k, chunk);
                forward_chunk(&k);
            }
        }
    }
    return CAB_OK;
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* The state at the start of every chunk. */
static void recompute_states(walk *k)
{
    const cab_scan_workspace *w = &k->w;
    const size_t state = (size_t)k->s.N * GROUP;
    for (int chunk = 0; chunk < k->s.chunks; chunk++) {
        memcpy(k->at + w->states + (size_t)chunk * state, k->at + w->h, state * sizeof(float));
        if (chunk + 1 == k->s.chunks)
            break;
        move_to(k, chunk);
        load_inputs(k);
        for (int c = 0; c < k->n; c += W)
            forward_vector(k, c, false);
    }
}

/* The chunk's states and decays of one vector, from the state at its start; y as well if gated, for z's gradient. */
INLINE void replay_vector(const walk *k, const float *start, int c)
{
    const cab_scan_workspace *w = &k->w;
    const int N = k->s.N;
    const float *A = k->at + w->A + c, *B = k->at + w->B, *C = k->at + w->C;
    const vec D = load(k->at + w->D + c);
    for (int t = 0; t < k->rows; t++, B += N, C += N) {
        float *hs = k->at + w->hs + t * N * W, *decays = k->at + w->decays + t * N * W;
        const float *before = t > 0 ? hs - N * W : start + c;
        const int stride = t > 0 ? W : GROUP;
        const vec delta = load(k->at + w->delta + t * GROUP + c), x = load(k->at + w->x + t * GROUP + c);
        vec y = D * load(k->at + w->u + t * GROUP + c);
        for (int n = 0; n < N; n++) {
            const vec a = decay(delta * load(A + n * GROUP)), h = a * load(before + n * stride) + x * B[n];
            store(decays + n * W, a);
            store(hs + n * W, h);
            if (k->gated)
                y += h * C[n];
        }
        store(k->at + w->y + t * GROUP + c, y);
    }
}

/* The chunk's gradients of one vector; dh is that of the chunk's last state and is moved to the chunk before. dy holds p.
 * `add`: the sums for dB and dC hold those of the vectors before. */
INLINE void backward_vector(const walk *k, const float *start, int c, bool add)
{
    const cab_scan_workspace *w = &k->w;
    const int N = k->s.N;
    const float *A = k->at + w->A + c;
    float *dh = k->at + w->dh + c, *dA = k->at + w->dA + c;
    const vec D = load(k->at + w->D + c);
    for (int t = k->rows - 1; t >= 0; t--) {
        const float *B = k->at + w->B + t * N, *C = k->at + w->C + t * N;
        const float *hs = k->at + w->hs + t * N * W, *decays = k->at + w->decays + t * N * W;
        const float *before = t > 0 ? hs - N * W : start + c;
        float *sum_b = k->at + w->sum_b + t * N * W, *sum_c = k->at + w->sum_c + t * N * W;
        const int stride = t > 0 ? W : GROUP;
        const vec delta = load(k->at + w->delta + t * GROUP + c), x = load(k->at + w->x + t * GROUP + c);
        const vec p = load(k->at + w->dy + t * GROUP + c);
        vec through_x = {0}, through_a = {0};
        for (int n = 0; n < N; n++) {
            const vec dstate = load(dh + n * GROUP) + p * C[n], back = dstate * load(decays + n * W);
            const vec da = back * load(before + n * stride), for_b = dstate * x, for_c = p * load(hs + n * W);
            store(sum_b + n * W, add ? load(sum_b + n * W) + for_b : for_b);
            store(sum_c + n * W, add ? load(sum_c + n * W) + for_c : for_c);
            through_x += dstate * B[n];
            through_a += da * load(A + n * GROUP);
            store(dA + n * GROUP, load(dA + n * GROUP) + da * delta);
            store(dh + n * GROUP, back);
        }
        const vec u = load(k->at + w->u + t * GROUP + c);
        store(k->at + w->du + t * GROUP + c, delta * through_x + D * p);
        store(k->at + w->ddelta + t * GROUP + c, u * through_x + 0.693147181f * through_a);
    }
}

/* dy becomes p, dz what y is to be multiplied with. */
static void gate_gradient(const walk *k)
{
    const cab_scan_workspace *w = &k->w;
    float *restrict dy = k->at + w->dy, *restrict dz = k->at + w->dz;
    const float *z = k->at + w->z;
#pragma omp simd
    for (int i = 0; i < k->rows * GROUP; i++) {
        const float s = cab_sigmoid(z[i]);
        dz[i] = dy[i] * (s + z[i] * s * (1.0f - s));
        dy[i] *= z[i] * s;
    }
}

/* ddt in ddelta, dz, and what dD and the bias receive. */
static void row_gradients(const walk *k)
{
    const cab_scan_workspace *w = &k->w;
    float *restrict dz = k->at + w->dz;
    const float *y = k->at + w->y;
    if (k->gated)
#pragma omp simd
        for (int i = 0; i < k->rows * GROUP; i++)
            dz[i] *= y[i];
    float *restrict ddelta = k->at + w->ddelta, *restrict dD = k->at + w->dD, *restrict dbias = k->at + w->dbias;
    const float *dt = k->at + w->dt, *u = k->at + w->u, *p = k->at + w->dy;
    for (int i = 0; i < k->rows * GROUP; i += GROUP)
#pragma omp simd
        for (int c = 0; c < GROUP; c++) {
            ddelta[i + c] *= cab_sigmoid(dt[i + c]);
            dbias[c] += ddelta[i + c];
            dD[c] += p[i + c] * u[i + c];
        }
}

/* Sums across the vector: the chunk's rows of this group's partial dB or dC. */
static void store_sums(const walk *k, const float *sums, float *partial)
{
    const int N = k->s.N;
    for (int t = 0; t < k->rows; t++)
        for (int n = 0; n < N; n++) {
            float sum = 0.0f;
            for (int c = 0; c < W; c++)
                sum += sums[(t * N + n) * W + c];
            partial[row_of(k, t) * N + n] = sum;
        }
}

static void backward_chunk(walk *k, int chunk)
{
    const cab_scan_workspace *w = &k->w;
    const cab_node *node = k->node;
    const float *start = k->at + w->states + (size_t)chunk * (size_t)k->s.N * GROUP;
    const size_t rows = (size_t)(k->s.B * k->s.L) * (size_t)k->s.N, group = (size_t)(k->channel / GROUP);
    move_to(k, chunk);
    load_inputs(k);
    load_chunk(k, node->gout[0], k->channel, k->n, k->at + w->dy, GROUP);
    if (k->gated) {
        load_chunk(k, node->in[CAB_SCAN_Z], k->channel, k->n, k->at + w->z, GROUP);
        gate_gradient(k);
    }
    for (int c = 0; c < k->n; c += W) {
        replay_vector(k, start, c);
        backward_vector(k, start, c, c > 0);
    }
    row_gradients(k);
    store_sums(k, k->at + w->sum_b, (float *)node->scratch + w->partial_b + group * rows);
    store_sums(k, k->at + w->sum_c, (float *)node->scratch + w->partial_c + group * rows);
    const struct {
        int input;
        size_t from;
    } gradients[] = {{CAB_SCAN_U, w->du}, {CAB_SCAN_DT, w->ddelta}, {CAB_SCAN_Z, w->dz}};
    for (size_t i = 0; i < sizeof gradients / sizeof *gradients; i++)
        if (node->gin[gradients[i].input] != NULL)
            store_chunk(k, node->gin[gradients[i].input], k->at + gradients[i].from,
                        node->accumulate >> gradients[i].input & 1u);
}

/* One group of one sequence, its part of the partial sums included. */
static void backward_task(walk *k, int64_t task)
{
    const cab_scan_workspace *w = &k->w;
    const size_t state = (size_t)k->s.N * GROUP;
    float *scratch = k->node->scratch;
    begin_task(k, task);
    recompute_states(k);
    memset(k->at + w->dh, 0, state * sizeof(float));
    memset(k->at + w->dA, 0, state * sizeof(float));
    memset(k->at + w->dD, 0, GROUP * sizeof(float));
    memset(k->at + w->dbias, 0, GROUP * sizeof(float));
    for (int chunk = k->s.chunks - 1; chunk >= 0; chunk--)
        backward_chunk(k, chunk);
    /* dA_log = A dA, and A stands in the workspace times log2(e) */
    for (size_t i = 0; i < state; i++)
        scratch[w->partial_a + (size_t)task * state + i] = 0.693147181f * k->at[w->A + i] * k->at[w->dA + i];
    memcpy(scratch + w->partial_d + task * GROUP, k->at + w->dD, GROUP * sizeof(float));
    memcpy(scratch + w->partial_bias + task * GROUP, k->at + w->dbias, GROUP * sizeof(float));
}

/* dA_log, dD and dbias: over sequences. A task's (states, GROUP) partials; `states` is 1 for vectors. */
static void sum_sequences(const cab_scan_shape *s, const cab_tensor *gradient, const float *partials, int states,
                          bool add, int threads)
{
    if (gradient == NULL)
        return;
    float *out = gradient->data;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t e = 0; e < s->E; e++)
        for (int n = 0; n < states; n++) {
            float sum = 0.0f;
            for (int64_t b = 0; b < s->B; b++)
                sum += partials[((b * s->groups + e / GROUP) * states + n) * GROUP + e % GROUP];
            out[e * states + n] = add ? out[e * states + n] + sum : sum;
        }
}

/* dB or dC: over groups. */
static void sum_groups(const cab_scan_shape *s, const cab_tensor *gradient, const float *partials, bool add,
                       int threads)
{
    if (gradient == NULL)
        return;
    const int64_t rows = s->B * s->L;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        float buffer[CAB_SCAN_MAX_STATE];
        float *out = cab_row_sum(gradient, row, 0, s->N, add, buffer);
        for (int group = 0; group < s->groups; group++)
            cab_axpy(out, 1.0f, partials + (group * rows + row) * s->N, s->N);
        cab_row_done(gradient, row, 0, s->N, out);
    }
}

cab_status CAB_ISA(cab_scan_backward)(const cab_node *node, cab_backend *backend)
{
    const walk shared = begin(node, true);
    const cab_scan_shape *s = &shared.s;
    const cab_scan_workspace *w = &shared.w;
    const float *scratch = node->scratch;
    const uint32_t add = node->accumulate;
    const int64_t tasks = s->B * s->groups;
#pragma omp parallel num_threads(backend->threads)
    {
        walk k = shared;
        enter(&k);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; task++)
            backward_task(&k, task);
    }
    const int threads = backend->threads;
    sum_groups(s, node->gin[CAB_SCAN_B], scratch + w->partial_b, add >> CAB_SCAN_B & 1u, threads);
    sum_groups(s, node->gin[CAB_SCAN_C], scratch + w->partial_c, add >> CAB_SCAN_C & 1u, threads);
    sum_sequences(s, node->gin[CAB_SCAN_A_LOG], scratch + w->partial_a, s->N, add >> CAB_SCAN_A_LOG & 1u, threads);
    sum_sequences(s, node->gin[CAB_SCAN_D], scratch + w->partial_d, 1, add >> CAB_SCAN_D & 1u, threads);
    sum_sequences(s, node->gin[CAB_SCAN_DT_BIAS], scratch + w->partial_bias, 1, add >> CAB_SCAN_DT_BIAS & 1u, threads);
    return CAB_OK;
}
