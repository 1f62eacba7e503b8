/* ssd.c - the Mamba-2 recurrence in chunks on the CPU; src/ops/ssd.c has the formulas.
 *
 * A task is one group of heads of one sequence: it walks its chunks in order with everything in fp32 in the thread's
 * scratch (ssd_workspace.h); the matrix products are those of tile.h. The state is kept transposed, as (N, P).
 *
 * Backward, per head and chunk, with E = exp(S), W = exp(S[end] - S), R[i, j] = exp(S[i] - S[j]) (each zero between
 * documents) and dh the gradient of h_end from the chunks behind:
 *
 *   dM = dy u^T           dG = dM * R
 *   du = M^T dy + W (B dh^T)            dx = delta du + D dy     (discrete: du + D dy)
 *   dC = dG B   + E (dy h_start)
 *   dB = dG^T C + W (u dh)
 *   dS = C . dC - B . dB per token (every decay that scales y[i] also scales dC[i], and so on), plus <h_end, dh> at the end
 *   dlog a[t] = sum of dS from t to the end of the document
 *   ddelta = <du, x> - exp(A_log) dlog a     (discrete: - dlog a)
 *   ddt = sigmoid(dt + dt_bias) ddelta       ddt_bias = sum of ddt     dA_log = - exp(A_log) sum of delta dlog a
 *   dh (for the chunk before) = exp(S[end]) dh + sum_i E[i] dy[i] C[i]^T
 *
 * dB and dC of a group are summed over its heads in order; dD, dA_log and ddt_bias over tokens, then sequences.
 *
 * The second direction of a node of two is its reverse (ops/ssd.h), of which M and dG have no diagonal; it adds to y and to the
 * gradients of x, B and C. */
#include "ops/ssd.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/ssd_workspace.h"
#include "ops/cpu/vec.h"

#include <omp.h>

enum { Q = CAB_SSD_CHUNK };

/* One task on its way: a group of a sequence, and the chunk it stands at. */
typedef struct walk {
    const cab_node *node;
    cab_ssd_shape s;
    cab_ssd_workspace w;
    float *at;      /* the thread's part of the scratch */
    int64_t token;  /* row of the chunk's first token */
    int rows, next; /* tokens in the chunk and in the one behind */
    int heads;      /* in the group */
    bool reverse;   /* the second direction of two */
    /* Of the chunk's tokens: the first of the token's document, counted from the chunk's first; -1: it began earlier. */
    int first[Q];
} walk;

static inline cab_tile_a plain(const float *data, int ld)
{
    return (cab_tile_a){data, ld, 1};
}

static inline cab_tile_a transposed(const float *data, int ld)
{
    return (cab_tile_a){data, 1, ld};
}

/* Asks for rows that will be read or written soon. Heads are columns, so that consecutive rows of one lie far apart, where
 * the processor's own prefetching does not look. */
static void prefetch_rows(const cab_tensor *t, int64_t row, int rows, int64_t column, int n)
{
    const size_t bytes = (size_t)n * (t->dtype == CAB_F32 ? sizeof(float) : sizeof(cab_bf16));
    for (int i = 0; i < rows; i++)
        for (size_t at = 0; at < bytes; at += 64)
            cab_tile_prefetch((const char *)cab_at(t, row + i, column) + at);
}

static void load_rows(const cab_tensor *t, int64_t row, int rows, int64_t column, int n, float *to, int ld)
{
    for (int i = 0; i < rows; i++)
        if (t->dtype != CAB_F32)
            cab_widen(to + i * ld, cab_at(t, row + i, column), n);
        else
            memcpy(to + i * ld, cab_at(t, row + i, column), (size_t)n * sizeof(float));
}

/* Writes or adds rows, each plus scale times another (NULL: none). */
static void store_rows(const cab_tensor *t, int64_t row, int rows, int64_t column, int n, const float *from,
                       float scale, const float *other, int ld, bool add)
{
    for (int i = 0; i < rows; i++, from += ld, other = other != NULL ? other + ld : NULL)
        for (int at = 0; at < n; at += CAB_PIECE) {
            float sum[CAB_PIECE], buffer[CAB_PIECE];
            const int piece = n - at < CAB_PIECE ? n - at : CAB_PIECE;
            const float *out = from + at;
            if (other != NULL) {
#pragma omp simd
                for (int j = 0; j < piece; j++)
                    sum[j] = from[at + j] + scale * other[at + j];
                out = sum;
            }
            if (add) {
                const float *old = cab_row_in(t, row + i, column + at, piece, buffer);
#pragma omp simd
                for (int j = 0; j < piece; j++)
                    sum[j] = old[j] + out[j];
                out = sum;
            }
            if (t->dtype == CAB_F32)
                memcpy(cab_at(t, row + i, column + at), out, (size_t)piece * sizeof *out);
            else
                cab_row_done(t, row + i, column + at, piece, out);
        }
}

static void scale_rows(float *restrict to, const float *restrict scale, const float *restrict from, int rows, int ld)
{
    for (int i = 0; i < rows; i++)
#pragma omp simd
        for (int j = 0; j < ld; j++)
            to[i * ld + j] = scale[i] * from[i * ld + j];
}

static inline float element(const cab_tensor *t, int64_t row, int64_t column)
{
    const void *from = cab_at(t, row, column);
    return t->dtype == CAB_F32 ? *(const float *)from : cab_bf16_to_f32(*(const cab_bf16 *)from);
}

/* Zero where there is none: dt_bias that is not given, D of the second direction. */
static inline float parameter(const cab_node *node, int input, int head)
{
    if (node->in[input] == NULL)
        return 0.0f;
    return ((const float *)node->in[input]->data)[head];
}

/* exp(A_log) of a head; 1 where the recurrence is discrete. */
static inline float rate(const cab_node *node, int head)
{
    return node->in[CAB_SSD_A_LOG] != NULL ? cab_exp(parameter(node, CAB_SSD_A_LOG, head)) : 1.0f;
}

/* delta of a head, and what it is the softplus of. */
static void steps(const walk *k, int head)
{
    float *raw = k->at + k->w.raw, *delta = k->at + k->w.delta;
    const float bias = parameter(k->node, CAB_SSD_DT_BIAS, head);
    for (int i = 0; i < Q; i++)
        raw[i] = i < k->rows ? element(k->node->in[CAB_SSD_DT], k->token + i, head) + bias : 0.0f;
#pragma omp simd
    for (int i = 0; i < Q; i++)
        delta[i] = cab_softplus(raw[i]);
}

/* delta, S, exp(S) and exp(S[end] - S) of a head; returns exp(S[end]). What stands past the chunk's rows is finite and
 * unused. */
static float decays(const walk *k, int head)
{
    float *s = k->at + k->w.s, *from_start = k->at + k->w.from_start, *to_end = k->at + k->w.to_end;
    const float *delta = k->at + k->w.delta, per_step = rate(k->node, head);
    const int last = k->rows - 1;
    steps(k, head);
    for (int i = 0; i < Q; i++)
        s[i] = -delta[i] * per_step;
    for (int i = 1; i < Q; i++)
        s[i] += s[i - 1];
    const float end = s[last];
#pragma omp simd
    for (int i = 0; i < Q; i++) {
        from_start[i] = cab_exp(s[i]);
        to_end[i] = cab_exp(end - s[i]);
    }
    for (int i = 0; i < k->rows; i++) {
        from_start[i] = k->first[i] < 0 ? from_start[i] : 0.0f;
        to_end[i] = i >= k->first[last] ? to_end[i] : 0.0f;
    }
    return from_start[last];
}

/* x of a head, and u. */
static void load_x(const walk *k, int head)
{
    const cab_ssd_workspace *w = &k->w;
    load_rows(k->node->in[CAB_SSD_X], k->token, k->rows, (int64_t)head * k->s.P, k->s.P, k->at + w->x, w->ldp);
    if (w->u != w->x)
        scale_rows(k->at + w->u, k->at + w->delta, k->at + w->x, k->rows, w->ldp);
}

/* B and C of the group's chunk, and the lower triangle of C B^T. */
static void load_group(const walk *k, int group)
{
    const cab_ssd_workspace *w = &k->w;
    const int N = k->s.N, columns = cab_tile_pad(k->rows);
    float *B = k->at + w->B, *C = k->at + w->C;
    load_rows(k->node->in[1], k->token, k->rows, (int64_t)group * N, N, B, w->ldn);
    load_rows(k->node->in[2], k->token, k->rows, (int64_t)group * N, N, C, w->ldn);
    memset(B + k->rows * w->ldn, 0, (size_t)((columns - k->rows) * w->ldn) * sizeof(float));
    cab_tile_transpose(columns, N, B, w->ldn, k->at + w->Bt, Q);
    cab_tile_multiply(CAB_TILE_C_LOWER, k->rows, columns, N, plain(C, w->ldn), k->at + w->Bt, Q, k->at + w->product, Q,
                      0);
}

/* M, and the decays in it. The upper triangle becomes zero. Rows are computed in whole vectors, of
 * differences cut off at 0, so that what lies right of the diagonal is finite before it is dropped. */
static void mix(const walk *k)
{
    float *restrict decay = k->at + k->w.decay;
    const float *s = k->at + k->w.s, *product = k->at + k->w.product;
    float *restrict mixed = k->at + k->w.mixed;
    for (int i = 0; i < k->rows; i++) {
        const int n = cab_tile_pad(i + 1);
        for (int v = 0; v < n; v += CAB_TILE_LANES)
#pragma omp simd
            for (int j = v; j < v + CAB_TILE_LANES; j++) {
                const float difference = s[i] - s[j], r = cab_exp(difference > 0.0f ? 0.0f : difference);
                mixed[i * Q + j] = j <= i ? r * product[i * Q + j] : 0.0f;
                decay[i * Q + j] = r;
            }
        memset(mixed + i * Q + n, 0, (size_t)(Q - n) * sizeof(float));
        if (k->reverse)
            mixed[i * Q + i] = decay[i * Q + i] = 0.0f;
        if (k->first[i] > 0) {
            memset(mixed + i * Q, 0, (size_t)k->first[i] * sizeof(float));
            memset(decay + i * Q, 0, (size_t)k->first[i] * sizeof(float));
        }
    }
}

/* h_end from h_start (which it may replace) and the chunk's u and B. */
static void advance(const walk *k, float end, const float *start, float *state)
{
    const cab_ssd_workspace *w = &k->w;
    float *scaled = k->at + w->scaled_x;
    scale_rows(scaled, k->at + w->to_end, k->at + w->u, k->rows, w->ldp);
#pragma omp simd
    for (size_t i = 0; i < w->state; i++)
        state[i] = end * start[i];
    cab_tile_multiply(CAB_TILE_FULL, k->s.N, w->ldp, k->rows, transposed(k->at + w->B, w->ldn), scaled, w->ldp, state,
                      w->ldp, 1);
}

static void forward_head(const walk *k, int head, float *state, bool first, bool last)
{
    const cab_ssd_workspace *w = &k->w;
    const cab_node *node = k->node;
    const int P = k->s.P;
    float *x = k->at + w->x, *y = k->at + w->y, *C = k->at + w->scaled;
    const float end = decays(k, head);
    load_x(k, head);
    prefetch_rows(node->out[0], k->token, k->rows, (int64_t)head * P, P);
    if (!last)
        prefetch_rows(node->in[0], k->token + Q, k->next, (int64_t)head * P, P);
    mix(k);
    cab_tile_multiply(CAB_TILE_A_LOWER, k->rows, w->ldp, k->rows, plain(k->at + w->mixed, Q), k->at + w->u, w->ldp, y,
                      w->ldp, 0);
    if (!first) {
        scale_rows(C, k->at + w->from_start, k->at + w->C, k->rows, w->ldn);
        cab_tile_multiply(CAB_TILE_FULL, k->rows, w->ldp, k->s.N, plain(C, w->ldn), state, w->ldp, y, w->ldp, 1);
    }
    if (!last)
        advance(k, end, state, state);
    store_rows(node->out[0], k->token, k->rows, (int64_t)head * P, P, y, parameter(k->node, CAB_SSD_D, head), x, w->ldp,
               k->reverse);
}

static void move_to(walk *k, int64_t b, int chunk)
{
    int64_t first = (int64_t)chunk * Q;
    k->token = b * k->s.L + first;
    k->rows = k->s.L - first < Q ? (int)(k->s.L - first) : Q;
    k->next = k->s.L - first - Q < Q ? (int)(k->s.L - first - Q) : Q;
    const cab_tensor *starts = k->node->in[CAB_SSD_STARTS];
    /* Without starts, a sequence is a document from token 0 on. The discrete recurrence is as if it had begun earlier: the
     * decay of token 0 then has the gradient that rounding leaves, as in the published runs. */
    const int64_t whole = k->node->in[CAB_SSD_A_LOG] != NULL ? 0 : -1;
    for (int i = 0; i < k->rows; i++) {
        const int64_t start = (starts != NULL ? ((const int32_t *)starts->data)[k->token + i] : whole) - first;
        k->first[i] = start < 0 ? -1 : start < i ? (int)start : i;
    }
}

static void forward_group(walk *k, int64_t b, int group)
{
    float *states = k->at + k->w.states;
    memset(states, 0, (size_t)k->heads * k->w.state * sizeof(float));
    for (int c = 0; c < k->s.chunks; c++) {
        move_to(k, b, c);
        load_group(k, group);
        if (c + 1 < k->s.chunks)
            for (int i = 1; i <= 2; i++)
                prefetch_rows(k->node->in[i], k->token + Q, k->next, (int64_t)group * k->s.N, k->s.N);
        for (int r = 0; r < k->heads; r++)
            forward_head(k, group * k->heads + r, states + (size_t)r * k->w.state, c == 0, c == k->s.chunks - 1);
    }
}

static walk begin(const cab_node *node, bool backward)
{
    walk k = {.node = node, .s = cab_ssd_shape_of(node)};
    k.w = cab_ssd_workspace_of(&k.s, backward, node->in[CAB_SSD_A_LOG] == NULL);
    k.heads = k.s.H / k.s.G;
    k.reverse = cab_ssd_attributes_of(node)->reverse;
    return k;
}

/* Gives the thread its part of the scratch. The padding of rows must read as zero, and nothing writes it. */
static void enter(walk *k)
{
    k->at = (float *)k->node->scratch + k->w.sums + k->w.total * (size_t)omp_get_thread_num();
    memset(k->at, 0, k->w.total * sizeof(float));
}

static void forward_direction(const cab_node *node, const cab_backend *backend)
{
    const walk shared = begin(node, false);
    const int64_t tasks = shared.s.B * shared.s.G;
#pragma omp parallel num_threads(backend->threads)
    {
        walk k = shared;
        enter(&k);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; task++)
            forward_group(&k, task / k.s.G, (int)(task % k.s.G));
    }
}

cab_status CAB_ISA(cab_ssd_forward)(const cab_node *node, cab_backend *backend)
{
    cab_ssd_reverse reverse;
    forward_direction(node, backend);
    if (cab_ssd_attributes_of(node)->both) {
        cab_ssd_reverse_of(node, &reverse);
        forward_direction(&reverse.node, backend);
    }
    return CAB_OK;
}

/* The states at the start of every chunk but the first (which is zero): states[chunk][head]. */
static void recompute_states(walk *k, int64_t b, int group)
{
    const cab_ssd_workspace *w = &k->w;
    const size_t all = (size_t)k->heads * w->state;
    float *states = k->at + w->states;
    memset(states, 0, all * sizeof(float));
    for (int c = 0; c + 1 < k->s.chunks; c++) {
        move_to(k, b, c);
        load_rows(k->node->in[1], k->token, k->rows, (int64_t)group * k->s.N, k->s.N, k->at + w->B, w->ldn);
        prefetch_rows(k->node->in[1], k->token + Q, k->next, (int64_t)group * k->s.N, k->s.N);
        for (int r = 0; r < k->heads; r++) {
            int head = group * k->heads + r;
            const float end = decays(k, head);
            float *start = states + (size_t)r * w->state;
            load_x(k, head);
            prefetch_rows(k->node->in[0], k->token + Q, k->next, (int64_t)head * k->s.P, k->s.P);
            advance(k, end, start, start + all);
        }
        states += all;
    }
}

/* dG in dproduct, from dy and u. */
static void product_gradient(const walk *k)
{
    const cab_ssd_workspace *w = &k->w;
    const int columns = cab_tile_pad(k->rows);
    float *u = k->at + w->u, *ut = k->at + w->ut, *dproduct = k->at + w->dproduct;
    const float *decay = k->at + w->decay;
    memset(u + k->rows * w->ldp, 0, (size_t)((columns - k->rows) * w->ldp) * sizeof(float));
    cab_tile_transpose(columns, k->s.P, u, w->ldp, ut, Q);
    cab_tile_multiply(CAB_TILE_C_LOWER, k->rows, columns, k->s.P, plain(k->at + w->dy, w->ldp), ut, Q, dproduct, Q, 0);
    for (int i = 0; i < k->rows; i++) {
        const int n = cab_tile_pad(i + 1);
#pragma omp simd
        for (int j = 0; j < n; j++)
            dproduct[i * Q + j] = j <= i ? decay[i * Q + j] * dproduct[i * Q + j] : 0.0f;
        memset(dproduct + i * Q + n, 0, (size_t)(Q - n) * sizeof(float));
    }
}

/* du, in y. dstate NULL: nothing comes from behind. */
static void u_gradient(const walk *k, const float *dstate)
{
    const cab_ssd_workspace *w = &k->w;
    float *du = k->at + w->y, *B = k->at + w->scaled;
    cab_tile_multiply(CAB_TILE_A_UPPER, k->rows, w->ldp, k->rows, transposed(k->at + w->mixed, Q), k->at + w->dy,
                      w->ldp, du, w->ldp, 0);
    if (dstate == NULL)
        return;
    scale_rows(B, k->at + w->to_end, k->at + w->B, k->rows, w->ldn);
    cab_tile_multiply(CAB_TILE_FULL, k->rows, w->ldp, k->s.N, plain(B, w->ldn), dstate, w->ldp, du, w->ldp, 1);
}

/* to (+)= scaled state^T for dC (dy, h_start) and dB (u, dh). */
static void through_state(const walk *k, const float *scaled, const float *state, float *to)
{
    const cab_ssd_workspace *w = &k->w;
    float *statet = k->at + w->statet;
    cab_tile_transpose(k->s.N, k->s.P, state, w->ldp, statet, w->ldn);
    cab_tile_multiply(CAB_TILE_FULL, k->rows, w->ldn, k->s.P, plain(scaled, w->ldp), statet, w->ldn, to, w->ldn, 1);
}

/* Token i of row `token` receives gradient ddt of dt. */
static void put_step(const walk *k, int64_t token, int head, float gradient)
{
    const cab_tensor *out = k->node->gin[CAB_SSD_DT];
    void *to = cab_at(out, token, head);
    if (k->node->accumulate & CAB_SAVE_IN(CAB_SSD_DT))
        gradient += element(out, token, head);
    if (out->dtype == CAB_F32)
        *(float *)to = gradient;
    else
        *(cab_bf16 *)to = cab_bf16_from_f32(gradient);
}

/* ddt from du, dB, dC of this head, and what dA_log and ddt_bias receive; end is <h_end, dh>. */
static void decay_gradient(const walk *k, int head, float end, float *sums)
{
    const cab_ssd_workspace *w = &k->w;
    const size_t all = (size_t)(k->s.B * k->s.H);
    const float *raw = k->at + w->raw, *delta = k->at + w->delta, per_step = rate(k->node, head);
    float sum = end;
    for (int i = k->rows - 1; i >= 0; i--) {
        const float *B = k->at + w->B + i * w->ldn, *dB = k->at + w->dB_head + i * w->ldn;
        const float *C = k->at + w->C + i * w->ldn, *dC = k->at + w->dC_head + i * w->ldn;
        float difference = 0.0f, through_u = 0.0f;
#pragma omp simd reduction(+ : difference)
        for (int n = 0; n < w->ldn; n++)
            difference += C[n] * dC[n] - B[n] * dB[n];
        sum += difference;
        if (k->first[i] == i) /* nothing decays at the first token of a document, nor from it to another */
            sum = 0.0f;
        if (w->u != w->x)
            through_u = cab_dot(k->at + w->y + i * w->ldp, k->at + w->x + i * w->ldp, w->ldp);
        const float gradient = cab_sigmoid(raw[i]) * (through_u - per_step * sum);
        if (k->node->gin[CAB_SSD_DT] != NULL)
            put_step(k, k->token + i, head, gradient);
        sums[CAB_SSD_SUM_DT_BIAS * all] += gradient;
        sums[CAB_SSD_SUM_A_LOG * all] -= per_step * delta[i] * sum;
    }
}

/* Whether any gradient is wanted that comes from the decays. */
static bool wants_steps(const cab_node *node)
{
    return node->gin[CAB_SSD_DT] != NULL || node->gin[CAB_SSD_DT_BIAS] != NULL || node->gin[CAB_SSD_A_LOG] != NULL;
}

/* One head of one chunk. start, end: states, NULL where zero or unused; dstate is moved to the chunk before. sums:
 * those of the head. */
static void backward_head(const walk *k, int head, const float *start, const float *end, float *dstate, float *sums)
{
    const cab_ssd_workspace *w = &k->w;
    const cab_node *node = k->node;
    const int P = k->s.P, rows = k->rows;
    float *x = k->at + w->x, *dy = k->at + w->dy, *dB = k->at + w->dB_head, *dC = k->at + w->dC_head;
    const float whole = decays(k, head);
    load_x(k, head);
    load_rows(node->gout[0], k->token, rows, (int64_t)head * P, P, dy, w->ldp);
    if (start != NULL) {
        prefetch_rows(node->in[0], k->token - Q, Q, (int64_t)head * P, P);
        prefetch_rows(node->gout[0], k->token - Q, Q, (int64_t)head * P, P);
    }
    if (node->gin[0] != NULL)
        prefetch_rows(node->gin[0], k->token, rows, (int64_t)head * P, P);
    mix(k);
    product_gradient(k);
    u_gradient(k, end != NULL ? dstate : NULL);
    cab_tile_multiply(CAB_TILE_A_UPPER, rows, w->ldn, rows, transposed(k->at + w->dproduct, Q), k->at + w->C, w->ldn,
                      dB, w->ldn, 0);
    cab_tile_multiply(CAB_TILE_A_LOWER, rows, w->ldn, rows, plain(k->at + w->dproduct, Q), k->at + w->B, w->ldn, dC,
                      w->ldn, 0);
    if (end != NULL) {
        scale_rows(k->at + w->scaled_x, k->at + w->to_end, k->at + w->u, rows, w->ldp);
        through_state(k, k->at + w->scaled_x, dstate, dB);
    }
    if (start != NULL) {
        scale_rows(k->at + w->scaled_dy, k->at + w->from_start, dy, rows, w->ldp);
        through_state(k, k->at + w->scaled_dy, start, dC);
    }
    if (wants_steps(node))
        decay_gradient(k, head, end != NULL ? cab_dot(end, dstate, (int64_t)w->state) : 0.0f, sums);
    if (start != NULL) {
#pragma omp simd
        for (size_t i = 0; i < w->state; i++)
            dstate[i] *= whole;
        cab_tile_multiply(CAB_TILE_FULL, k->s.N, w->ldp, rows, transposed(k->at + w->C, w->ldn), k->at + w->scaled_dy,
                          w->ldp, dstate, w->ldp, 1);
    }
    if (w->u != w->x)
        scale_rows(k->at + w->scaled_x, k->at + w->delta, k->at + w->y, rows, w->ldp);
    if (node->gin[0] != NULL)
        store_rows(node->gin[0], k->token, rows, (int64_t)head * P, P, k->at + (w->u != w->x ? w->scaled_x : w->y),
                   parameter(node, CAB_SSD_D, head), dy, w->ldp, node->accumulate & 1);
    sums[CAB_SSD_SUM_D] += cab_dot(x, dy, (int64_t)rows * w->ldp);
}

static void sum_heads(float *restrict sum, const float *restrict head, int n, bool first)
{
    if (first)
        memcpy(sum, head, (size_t)n * sizeof *sum);
    else
        cab_axpy(sum, 1.0f, head, n);
}

static void backward_group(walk *k, int64_t b, int group)
{
    const cab_ssd_workspace *w = &k->w;
    const cab_node *node = k->node;
    const float *sums[3] = {NULL, k->at + (k->heads > 1 ? w->dB : w->dB_head),
                            k->at + (k->heads > 1 ? w->dC : w->dC_head)};
    float *states = k->at + w->states, *dstates = k->at + w->dstates;
    float *sums_of = (float *)node->scratch + b * k->s.H + (int64_t)group * k->heads;
    recompute_states(k, b, group);
    memset(dstates, 0, (size_t)k->heads * w->state * sizeof(float));
    for (int i = 0; i < CAB_SSD_SUMS; i++)
        memset(sums_of + i * k->s.B * k->s.H, 0, (size_t)k->heads * sizeof(float));
    for (int c = k->s.chunks - 1; c >= 0; c--) {
        move_to(k, b, c);
        load_group(k, group);
        for (int i = 1; i <= 2; i++) {
            if (c > 0)
                prefetch_rows(node->in[i], k->token - Q, Q, (int64_t)group * k->s.N, k->s.N);
            if (node->gin[i] != NULL)
                prefetch_rows(node->gin[i], k->token, k->rows, (int64_t)group * k->s.N, k->s.N);
        }
        for (int r = 0; r < k->heads; r++) {
            float *start = states + ((size_t)c * (size_t)k->heads + (size_t)r) * w->state;
            float *end = start + (size_t)k->heads * w->state;
            backward_head(k, group * k->heads + r, c > 0 ? start : NULL, c + 1 < k->s.chunks ? end : NULL,
                          dstates + (size_t)r * w->state, sums_of + r);
            if (k->heads > 1) {
                sum_heads(k->at + w->dB, k->at + w->dB_head, k->rows * w->ldn, r == 0);
                sum_heads(k->at + w->dC, k->at + w->dC_head, k->rows * w->ldn, r == 0);
            }
        }
        for (int i = 1; i <= 2; i++)
            if (node->gin[i] != NULL)
                store_rows(node->gin[i], k->token, k->rows, (int64_t)group * k->s.N, k->s.N, sums[i], 0.0f, NULL,
                           w->ldn, node->accumulate >> i & 1);
    }
}

/* The gradient of an input with an element per head. */
static void sum_sequences(const cab_node *node, const walk *k, int which, int input)
{
    if (node->gin[input] == NULL)
        return;
    const float *partial = (const float *)node->scratch + which * k->s.B * k->s.H;
    float *gradient = node->gin[input]->data;
    for (int h = 0; h < k->s.H; h++) {
        float sum = 0.0f;
        for (int64_t b = 0; b < k->s.B; b++)
            sum += partial[b * k->s.H + h];
        gradient[h] = node->accumulate & CAB_SAVE_IN(input) ? gradient[h] + sum : sum;
    }
}

static void backward_direction(const cab_node *node, const cab_backend *backend)
{
    const walk shared = begin(node, true);
    const int64_t tasks = shared.s.B * shared.s.G;
#pragma omp parallel num_threads(backend->threads)
    {
        walk k = shared;
        enter(&k);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; task++)
            backward_group(&k, task / k.s.G, (int)(task % k.s.G));
    }
    sum_sequences(node, &shared, CAB_SSD_SUM_D, CAB_SSD_D);
    sum_sequences(node, &shared, CAB_SSD_SUM_A_LOG, CAB_SSD_A_LOG);
    sum_sequences(node, &shared, CAB_SSD_SUM_DT_BIAS, CAB_SSD_DT_BIAS);
}

cab_status CAB_ISA(cab_ssd_backward)(const cab_node *node, cab_backend *backend)
{
    cab_ssd_reverse reverse;
    backward_direction(node, backend);
    if (cab_ssd_attributes_of(node)->both) {
        cab_ssd_reverse_of(node, &reverse);
        backward_direction(&reverse.node, backend);
    }
    return CAB_OK;
}

/* One head of one sequence: h = a h + u B^T, y = h C + D x. */
static void step_head(const cab_node *node, const cab_ssd_shape *s, int64_t b, int head)
{
    const int P = s->P, N = s->N;
    const int64_t group = head / (s->H / s->G);
    const float bias = parameter(node, CAB_SSD_DT_BIAS, head);
    const float delta = cab_softplus(element(node->in[CAB_SSD_DT], b, head) + bias);
    const float a = cab_exp(-delta * rate(node, head)), D = parameter(node, CAB_SSD_D, head);
    float *state = (float *)node->in[CAB_SSD_STATE]->data + (b * s->H + head) * P * N;
    for (int p = 0; p < P; p++, state += N) {
        const float x = element(node->in[0], b, (int64_t)head * P + p);
        const float u = node->in[CAB_SSD_A_LOG] != NULL ? delta * x : x;
        float y = D * x;
        for (int n = 0; n < N; n += CAB_PIECE) {
            float Bs[CAB_PIECE], Cs[CAB_PIECE];
            const int piece = N - n < CAB_PIECE ? N - n : CAB_PIECE;
            const float *B = cab_row_in(node->in[1], b, group * N + n, piece, Bs);
            const float *C = cab_row_in(node->in[2], b, group * N + n, piece, Cs);
#pragma omp simd
            for (int i = 0; i < piece; i++)
                state[n + i] = a * state[n + i] + u * B[i];
            y += cab_dot(state + n, C, piece);
        }
        void *to = cab_at(node->out[0], b, (int64_t)head * P + p);
        if (node->out[0]->dtype == CAB_F32)
            *(float *)to = y;
        else
            *(cab_bf16 *)to = cab_bf16_from_f32(y);
    }
}

cab_status CAB_ISA(cab_ssd_step_forward)(const cab_node *node, cab_backend *backend)
{
    enum { WORTH_THREADS = 1 << 16 }; /* floats of state */
    const cab_ssd_shape s = cab_ssd_shape_of(node);
    const int64_t tasks = s.B * s.H;
    const bool threads = tasks * s.P * s.N >= WORTH_THREADS;
#pragma omp parallel for num_threads(backend->threads) schedule(static) if (threads)
    for (int64_t task = 0; task < tasks; task++)
        step_head(node, &s, task / s.H, (int)(task % s.H));
    return CAB_OK;
}
