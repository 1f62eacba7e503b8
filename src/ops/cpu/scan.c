/* scan.c - the selective scan on the CPU; src/ops/scan.c has the formulas, scan_workspace.h how the work is laid out.
 *
 * Vectors run over channels, so that B and C are spread from single floats and nothing is summed across a vector but dB and
 * dC, once per chunk. Decays are powers of two, exp(delta A) = 2^(delta A log2(e)), of arguments that are never positive. */
#include "ops/scan.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/scan_workspace.h"
#include "ops/cpu/vec.h"

#include <omp.h>

enum { GROUP = CAB_SCAN_GROUP, Q = CAB_SCAN_CHUNK, PACK = 4 };

#if defined(__AVX512F__)
enum { W = 16 };
#elif defined(__AVX2__)
enum { W = 8 };
#else
enum { W = 4 };
#endif
typedef float vec __attribute__((vector_size(W * sizeof(float))));
typedef float stored __attribute__((vector_size(W * sizeof(float)), may_alias));
typedef uint32_t bits __attribute__((vector_size(W * sizeof(float))));

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
    const bits low = (bits)(x < -126.0f);
    const vec least = (vec){0} - 126.0f;
    x = (vec)(((bits)x & ~low) | ((bits)least & low));
    const vec shifted = x + round, f = x - (shifted - round);
    vec p = 1.54531526e-4f * f + 1.33908634e-3f;
    p = p * f + 9.61808256e-3f;
    p = p * f + 5.55035711e-2f;
    p = p * f + 2.40226508e-1f;
    p = p * f + 6.93147188e-1f;
    p = p * f + 1.0f;
    return p * (vec)(((bits)shifted << 23) + (127u << 23));
}

/* One task on its way: a group of channels of a sequence, and the chunk it stands at. */
typedef struct walk {
    const cab_node *node;
    cab_scan_shape s;
    cab_scan_workspace w;
    float *at; /* the thread's part of the scratch */
    bool reverse, gated;
    bool add;           /* forward: to the other direction's y */
    float share;        /* of this direction in y */
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

/* B or C as (N, chunk). */
static void load_transposed(const walk *k, const cab_tensor *t, float *to)
{
    float buffer[CAB_SCAN_MAX_STATE];
    for (int i = 0; i < k->rows; i++) {
        const float *row = cab_row_in(t, row_of(k, i), 0, k->s.N, buffer);
        for (int n = 0; n < k->s.N; n++)
            to[n * Q + i] = row[n];
    }
}

/* `factor` times the chunk, written or added. */
static void store_chunk(const walk *k, const cab_tensor *t, const float *from, float factor, bool add)
{
    float buffer[GROUP];
    for (int i = 0; i < k->rows; i++, from += GROUP) {
        float *out = cab_row_sum(t, row_of(k, i), k->channel, k->n, add, buffer);
        cab_axpy(out, factor, from, k->n);
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
    load_transposed(k, node->in[CAB_SCAN_B], k->at + w->B);
    load_transposed(k, node->in[CAB_SCAN_C], k->at + w->C);
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

/* Where vector v of token t stands in an array of (chunk, GROUP). */
INLINE float *at_token(const walk *k, size_t array, int t, int c, int v)
{
    return k->at + array + t * GROUP + c + v * W;
}

/* State n of the chunk, PACK vectors of channels from `c`. outputs: C h is added to y. save: states and decays stay. */
INLINE void advance(const walk *k, int n, int c, bool outputs, bool save)
{
    const cab_scan_workspace *w = &k->w;
    const float *B = k->at + w->B + n * Q, *C = k->at + w->C + n * Q;
    float *state = k->at + w->h + n * GROUP + c;
    vec A[PACK], h[PACK];
    for (int v = 0; v < PACK; v++) {
        A[v] = load(k->at + w->A + n * GROUP + c + v * W);
        h[v] = load(state + v * W);
        if (save)
            store(at_token(k, w->hs, 0, c, v), h[v]);
    }
    for (int t = 0; t < k->rows; t++)
        for (int v = 0; v < PACK; v++) {
            const vec a = decay(load(at_token(k, w->delta, t, c, v)) * A[v]);
            h[v] = a * h[v] + load(at_token(k, w->x, t, c, v)) * B[t];
            if (outputs) {
                float *y = at_token(k, w->y, t, c, v);
                store(y, load(y) + h[v] * C[t]);
            }
            if (save) {
                store(at_token(k, w->decays, t, c, v), a);
                store(at_token(k, w->hs, t + 1, c, v), h[v]);
            }
        }
    for (int v = 0; v < PACK; v++)
        store(state + v * W, h[v]);
}

/* y = D u, to which the states add. */
static void begin_outputs(const walk *k)
{
    const float *u = k->at + k->w.u, *D = k->at + k->w.D;
    float *restrict y = k->at + k->w.y;
    for (int i = 0; i < k->rows * GROUP; i += GROUP)
#pragma omp simd
        for (int c = 0; c < GROUP; c++)
            y[i + c] = D[c] * u[i + c];
}

static void forward_chunk(const walk *k)
{
    const cab_scan_workspace *w = &k->w;
    float *restrict y = k->at + w->y;
    const float *z = k->at + w->z;
    load_inputs(k);
    begin_outputs(k);
    for (int c = 0; c < k->n; c += PACK * W)
        for (int n = 0; n < k->s.N; n++)
            advance(k, n, c, true, false);
    if (k->gated) {
        load_chunk(k, k->node->in[CAB_SCAN_Z], k->channel, k->n, k->at + w->z, GROUP);
#pragma omp simd
        for (int i = 0; i < k->rows * GROUP; i++)
            y[i] *= cab_silu(z[i]);
    }
    store_chunk(k, k->node->out[0], y, k->share, k->add);
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

static walk begin(const cab_node *node, bool reverse, bool backward)
{
    walk k = {.node = node,
              .s = cab_scan_shape_of(node),
              .reverse = reverse,
              .gated = node->in[CAB_SCAN_Z] != NULL,
              .share = cab_scan_share(node)};
    k.w = cab_scan_workspace_of(&k.s, backward);
    return k;
}

static void enter(walk *k)
{
    k->at = (float *)k->node->scratch + k->w.threads + k->w.total * (size_t)omp_get_thread_num();
}

static void forward_direction(const cab_node *node, bool reverse, bool add, const cab_backend *backend)
{
    walk shared = begin(node, reverse, false);
    shared.add = add;
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
}

cab_status CAB_ISA(cab_scan_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_scan_attributes *attributes = cab_scan_attributes_of(node);
    for (int d = 0; d < attributes->directions; d++) {
        const cab_node one = cab_scan_direction(node, d);
        forward_direction(&one, attributes->reverse[d], d > 0, backend);
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
        for (int c = 0; c < k->n; c += PACK * W)
            for (int n = 0; n < k->s.N; n++)
                advance(k, n, c, false, false);
    }
}

/* Back through state n of the chunk. dh is that of the chunk's last state and is moved to the chunk before; dy holds p; du
 * and ddelta receive <dh, B> and <da, A>. `add`: the sums for dB and dC hold those of the vectors before. */
INLINE void retreat(const walk *k, int n, int c, bool add)
{
    const cab_scan_workspace *w = &k->w;
    const float *B = k->at + w->B + n * Q, *C = k->at + w->C + n * Q;
    float *sum_b = k->at + w->sum_b + n * Q * W, *sum_c = k->at + w->sum_c + n * Q * W;
    float *dstate = k->at + w->dh + n * GROUP + c, *drate = k->at + w->dA + n * GROUP + c;
    vec A[PACK], dh[PACK], dA[PACK];
    for (int v = 0; v < PACK; v++) {
        A[v] = load(k->at + w->A + n * GROUP + c + v * W);
        dh[v] = load(dstate + v * W);
        dA[v] = load(drate + v * W);
    }
    for (int t = k->rows - 1; t >= 0; t--) {
        vec for_b = {0}, for_c = {0};
        for (int v = 0; v < PACK; v++) {
            float *through_x = at_token(k, w->du, t, c, v), *through_a = at_token(k, w->ddelta, t, c, v);
            const vec p = load(at_token(k, w->dy, t, c, v)), dnow = dh[v] + p * C[t];
            dh[v] = dnow * load(at_token(k, w->decays, t, c, v));
            const vec da = dh[v] * load(at_token(k, w->hs, t, c, v));
            for_b += dnow * load(at_token(k, w->x, t, c, v));
            for_c += p * load(at_token(k, w->hs, t + 1, c, v));
            store(through_x, load(through_x) + dnow * B[t]);
            store(through_a, load(through_a) + da * A[v]);
            dA[v] += da * load(at_token(k, w->delta, t, c, v));
        }
        store(sum_b + t * W, add ? load(sum_b + t * W) + for_b : for_b);
        store(sum_c + t * W, add ? load(sum_c + t * W) + for_c : for_c);
    }
    for (int v = 0; v < PACK; v++) {
        store(dstate + v * W, dh[v]);
        store(drate + v * W, dA[v]);
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

/* du, ddt in ddelta and dz from what the states left there, and what dD and the bias receive. */
static void row_gradients(const walk *k)
{
    const cab_scan_workspace *w = &k->w;
    float *restrict dz = k->at + w->dz;
    const float *y = k->at + w->y;
    if (k->gated)
#pragma omp simd
        for (int i = 0; i < k->rows * GROUP; i++)
            dz[i] *= y[i];
    float *restrict ddelta = k->at + w->ddelta, *restrict du = k->at + w->du;
    float *restrict dD = k->at + w->dD, *restrict dbias = k->at + w->dbias;
    const float *dt = k->at + w->dt, *delta = k->at + w->delta, *u = k->at + w->u, *p = k->at + w->dy;
    const float *D = k->at + w->D;
    for (int i = 0; i < k->rows * GROUP; i += GROUP)
#pragma omp simd
        for (int c = 0; c < GROUP; c++) {
            ddelta[i + c] = (u[i + c] * du[i + c] + 0.693147181f * ddelta[i + c]) * cab_sigmoid(dt[i + c]);
            du[i + c] = delta[i + c] * du[i + c] + D[c] * p[i + c];
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
            const float *lanes = sums + (n * Q + t) * W;
            float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (int c = 0; c < W; c++)
                sum += lanes[c];
            partial[row_of(k, t) * N + n] = sum;
        }
}

/* Forward again and back, state by state, so that what stands between stays in the first-level cache. */
static void backward_states(const walk *k)
{
    for (int c = 0; c < k->n; c += PACK * W)
        for (int n = 0; n < k->s.N; n++) {
            if (k->gated)
                advance(k, n, c, true, true);
            else
                advance(k, n, c, false, true);
            if (c > 0)
                retreat(k, n, c, true);
            else
                retreat(k, n, c, false);
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
    for (int i = 0; i < k->rows * GROUP; i++)
        k->at[w->dy + (size_t)i] *= k->share;
    if (k->gated) {
        load_chunk(k, node->in[CAB_SCAN_Z], k->channel, k->n, k->at + w->z, GROUP);
        gate_gradient(k);
    }
    begin_outputs(k);
    memcpy(k->at + w->h, start, (size_t)k->s.N * GROUP * sizeof(float));
    memset(k->at + w->du, 0, (size_t)k->rows * GROUP * sizeof(float));
    memset(k->at + w->ddelta, 0, (size_t)k->rows * GROUP * sizeof(float));
    backward_states(k);
    row_gradients(k);
    store_sums(k, k->at + w->sum_b, (float *)node->scratch + w->partial_b + group * rows);
    store_sums(k, k->at + w->sum_c, (float *)node->scratch + w->partial_c + group * rows);
    const struct {
        int input;
        size_t from;
    } gradients[] = {{CAB_SCAN_U, w->du}, {CAB_SCAN_DT, w->ddelta}, {CAB_SCAN_Z, w->dz}};
    for (size_t i = 0; i < sizeof gradients / sizeof *gradients; i++)
        if (node->gin[gradients[i].input] != NULL)
            store_chunk(k, node->gin[gradients[i].input], k->at + gradients[i].from, 1.0f,
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

/* Of a tied A_log: every element gets the Nth part of what its row's one number is due. */
static void tie_rows(const cab_tensor *parameter, const cab_tensor *gradient, int N)
{
    if (gradient == NULL || !parameter->tied)
        return;
    float *row = gradient->data;
    for (int64_t e = 0; e < gradient->shape[0]; e++, row += N) {
        float sum = 0.0f;
        for (int n = 0; n < N; n++)
            sum += row[n];
        for (int n = 0; n < N; n++)
            row[n] = sum / (float)N;
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

static void backward_direction(const cab_node *node, bool reverse, const cab_backend *backend)
{
    const walk shared = begin(node, reverse, true);
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
    tie_rows(node->in[CAB_SCAN_A_LOG], node->gin[CAB_SCAN_A_LOG], s->N);
    sum_sequences(s, node->gin[CAB_SCAN_D], scratch + w->partial_d, 1, add >> CAB_SCAN_D & 1u, threads);
    sum_sequences(s, node->gin[CAB_SCAN_DT_BIAS], scratch + w->partial_bias, 1, add >> CAB_SCAN_DT_BIAS & 1u, threads);
}

/* The second direction first, as if it were a node of its own recorded after the first. */
cab_status CAB_ISA(cab_scan_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_scan_attributes *attributes = cab_scan_attributes_of(node);
    for (int d = attributes->directions - 1; d >= 0; d--) {
        const cab_node one = cab_scan_direction(node, d);
        backward_direction(&one, attributes->reverse[d], backend);
    }
    return CAB_OK;
}
