/* mixer_matrix.c - the matrix of a mixer against that of attention, on the CPU; src/ops/mixer_matrix.c has the formulas.
 *
 * A task is a sequence and a group of the mixer's heads. It walks over tiles of 64 x 64: <C, B> once for the group, A once for every
 * head of attention, M and the gradient's factors row by row for every head. dC and dB of a tile are two products; sums over rows and
 * columns are kept for every head, and become the gradients of log a and delta at the end. Arithmetic is fp32, the loss is summed in fp64. */
#include "ops/mixer_matrix.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/mixer_matrix_workspace.h"
#include "ops/cpu/vec.h"

#include <omp.h>

enum { T = CAB_MIXER_TILE };

/* ---- tiles of rows ------------------------------------------------------------------------------------------------------- */

/* n columns of a token as fp32, padded to ld with zeros. */
static void load_row(const cab_tensor *t, int64_t row, int64_t column, int n, float *to, int ld)
{
    if (t->dtype == CAB_F32)
        memcpy(to, cab_at(t, row, column), (size_t)n * sizeof *to);
    else
        cab_widen(to, cab_at(t, row, column), n);
    memset(to + n, 0, (size_t)(ld - n) * sizeof *to);
}

/* T tokens from `first` on, of a sequence of `length` that begins at row `from`; zeros past its end. align: which tokens these are, or
 * NULL. */
static void load_tile(const cab_tensor *t, int64_t from, int64_t first, int64_t length, int64_t column, int n,
                      const cab_align_attributes *align, float *to, int ld)
{
    for (int64_t i = 0; i < T; i++, to += ld) {
        const int64_t token = first + i;
        if (token < length)
            load_row(t, from + (align != NULL ? cab_align_token(align, token) : token), column, n, to, ld);
        else
            memset(to, 0, (size_t)ld * sizeof *to);
    }
}

/* scores[i, j] of T rows and T columns, as the softmax sees them. */
static void score_tile(const cab_attention_shape *s, const float *q, const float *kt, int ldp, float *scores, int ld)
{
    cab_tile_multiply(CAB_TILE_FULL, T, T, s->head_dim, (cab_tile_a){q, ldp, 1}, kt, T, scores, ld, 0);
    for (int i = 0; i < T; i++)
        for (int j = 0; j < T; j++) {
            const float score = s->scale * scores[i * ld + j];
            scores[i * ld + j] = s->cap > 0 ? s->cap * cab_tanh(score / s->cap) : score;
        }
}

/* Keys first .. end that row i of attention sees. */
static void visible(const cab_attention_shape *s, const cab_tensor *starts, int64_t b, int64_t length, int64_t i,
                    int64_t *first, int64_t *end)
{
    *first = s->window > 0 && i >= s->window ? i - s->window + 1 : 0;
    *end = s->causal ? i + 1 : length;
    const int64_t start = starts != NULL ? ((const int32_t *)starts->data)[b * starts->ld + i] : 0;
    *first = start > *first ? start : *first;
}

/* ---- attention's rows ------------------------------------------------------------------------------------------------------ */

/* Row i of scores: the logarithm of the sum of its exponentials, and the sum of the squares of the probabilities that are compared. */
static void finish_row(const float *scores, int64_t first, int64_t end, const cab_align_attributes *align, float *lse,
                       float *square)
{
    const float most = cab_max(scores + first, end - first);
    double sum = 0.0, squares = 0.0;
    for (int64_t j = first; j < end; j++) {
        const double p = (double)cab_exp(scores[j] - most);
        sum += p;
        squares += cab_rows_compared(align, j) ? p * p : 0.0;
    }
    *lse = most + (float)log(sum);
    *square = (float)(squares / (sum * sum));
}

/* Rows first .. of attention's head; those that are compared are written. The student's rows are in the order of cab_align_token(). */
static void rows_strip(const cab_node *node, const cab_rows_workspace *w, float *own, int64_t b, int head,
                       int64_t first)
{
    const cab_attention_rows_attributes *a = node->attributes;
    const cab_attention_shape *s = &a->shape;
    const cab_tensor *q = node->in[CAB_ROWS_Q], *k = node->in[CAB_ROWS_K];
    const int64_t length = q->shape[1], L = node->out[0]->shape[2], P = s->head_dim;
    const int64_t kv = head / (s->n_head / s->n_kv_head);
    float *lse = (float *)node->out[0]->data + (b * s->n_head + head) * L;
    float *squares = (float *)node->scratch + (b * s->n_head + head) * L;
    const int64_t end_of_keys = s->causal && first + T < length ? first + T : length;
    load_tile(q, b * length, first, L, head * P, (int)P, &a->align, own + w->q, w->ldp);
    for (int64_t j = 0; j < end_of_keys; j += T) {
        load_tile(k, b * length, j, length, kv * P, (int)P, NULL, own + w->k, w->ldp);
        cab_tile_transpose(T, (int)P, own + w->k, w->ldp, own + w->kt, T);
        score_tile(s, own + w->q, own + w->kt, w->ldp, own + w->scores + j, (int)w->length);
    }
    for (int64_t i = first; i < first + T && i < L; i++) {
        int64_t from, end;
        visible(s, node->in[CAB_ROWS_STARTS], b, length, i, &from, &end);
        finish_row(own + w->scores + (i - first) * w->length, from, end, &a->align, &lse[i], &squares[i]);
    }
}

cab_status CAB_ISA(cab_attention_rows_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_rows_workspace w = cab_rows_workspace_of(node);
    const int64_t B = node->out[0]->shape[0], H = node->out[0]->shape[1], L = node->out[0]->shape[2];
    const int64_t strips = (L + T - 1) / T;
    float *const threads = (float *)((char *)node->scratch + w.squares), *weight = node->out[1]->data;
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t task = 0; task < B * H * strips; task++)
        rows_strip(node, &w, threads + w.total * (size_t)omp_get_thread_num(), task / strips / H,
                   (int)(task / strips % H), task % strips * T);
    for (int64_t at = 0; at < B * H; at++) {
        const float *squares = (const float *)node->scratch + at * L;
        double sum = 0.0;
        for (int64_t i = 0; i < L; i++)
            sum += (double)squares[i];
        weight[at] = (float)(1.0 / sum);
    }
    return CAB_OK;
}

/* ---- the loss -------------------------------------------------------------------------------------------------------------- */

typedef struct task {
    const cab_node *node;
    const cab_mixer_matrix_attributes *a;
    cab_mixer_matrix_sizes s;
    cab_mixer_workspace w;
    float *own; /* this thread's scratch */
    int64_t b;
    int group;
    bool gradient;
    float factor; /* of E times its weight in G */
    double loss;
} task;

/* A tile: rows from bi T on, columns from bj T on. */
typedef struct tile {
    int bi, bj, m, n;
    bool runs[2]; /* directions with a part in it */
} tile;

static int set_of(const task *k, int direction)
{
    return k->a->own ? direction : 0;
}

static const cab_tensor *input(const task *k, int direction, int which)
{
    return k->node->in[cab_mixer_input(k->a, direction, which)];
}

/* Of head h of the group: its place in an array (heads, length), and its column of log a and step. */
static size_t place(const task *k, int h)
{
    return (size_t)h * k->w.length;
}

static int64_t column(const task *k, int direction, int h)
{
    return cab_mixer_column(k->a, direction) + (int64_t)k->group * k->s.heads + h;
}

static float step_at(const task *k, int direction, int h, int64_t token)
{
    const cab_tensor *step = input(k, direction, CAB_MIXER_STEP);
    return step != NULL ? *(const float *)cab_at(step, k->b * k->s.L + token, column(k, direction, h)) : 1.0f;
}

/* Sums of log a over the tiles before each. */
static double *before_of(const task *k, int d, int h)
{
    return (double *)(void *)(k->own + k->w.before[d]) + (size_t)h * (size_t)(k->s.tiles + 1);
}

/* The first direction's running sums of log a contain the token, the second's do not. */
static void sum_decays(const task *k, int d, int h)
{
    const cab_tensor *log_a = input(k, d, CAB_MIXER_LOG_A);
    float *local = k->own + k->w.local[d] + place(k, h);
    double *before = before_of(k, d, h), total = 0.0;
    for (int t = 0; t < k->s.tiles; t++) {
        float sum = 0.0f;
        before[t] = total;
        for (int64_t i = (int64_t)t * T; i < (int64_t)(t + 1) * T && i < k->s.L; i++) {
            const float now = *(const float *)cab_at(log_a, k->b * k->s.L + i, column(k, d, h));
            local[i] = d == 0 ? sum + now : sum;
            sum += now;
        }
        total += (double)sum;
    }
    before[k->s.tiles] = total;
}

/* Of a tile that is not on the diagonal: exp of the decays from each row to its edge, times that of the tiles between; and from each
 * column to its edge, times the scale. */
static void edge_factors(const task *k, const tile *t, int d, int h, float *rows, float *columns)
{
    const float *local = k->own + k->w.local[d] + place(k, h);
    const double *before = before_of(k, d, h);
    const float *row = local + (size_t)t->bi * T, *col = local + (size_t)t->bj * T;
    const float total_row = (float)(before[t->bi + 1] - before[t->bi]);
    const float total_col = (float)(before[t->bj + 1] - before[t->bj]);
    const float between = (float)(d == 0 ? before[t->bi] - before[t->bj + 1] : before[t->bj] - before[t->bi + 1]);
    for (int i = 0; i < t->m; i++)
        rows[i] = cab_exp(between + (d == 0 ? row[i] : total_row - row[i]));
    for (int j = 0; j < t->n; j++)
        columns[j] = k->a->scale * cab_exp(d == 0 ? total_col - col[j] : col[j]);
}

/* Elements first .. end of a row of the tile: M = product f step. Returns the sum of squares; adds G M to *sum. */
typedef struct strict {
    const float *product, *A, *f, *step;
    float *w, *columns; /* NULL: no gradient */
    float factor;
} strict;

static float strict_row(const strict *r, int first, int end, float *sum)
{
    float squares = 0.0f, total = 0.0f;
    if (r->w == NULL) {
#pragma omp simd reduction(+ : squares)
        for (int j = first; j < end; j++) {
            const float fs = r->f[j] * r->step[j], e = r->product[j] * fs - r->A[j];
            squares += e * e;
        }
        return squares;
    }
#pragma omp simd reduction(+ : squares, total)
    for (int j = first; j < end; j++) {
        const float fs = r->f[j] * r->step[j], m = r->product[j] * fs, e = m - r->A[j], g = e * r->factor;
        squares += e * e;
        total += g * m;
        r->w[j] += g * fs;
        r->columns[j] += g * r->product[j] * r->f[j];
    }
    *sum += total;
    return squares;
}

/* Element (i, i) of a tile on the diagonal, of all directions. */
static double diagonal_element(task *k, const tile *t, int h, int i, float factor)
{
    const int64_t token = (int64_t)t->bi * T + i;
    const size_t at = place(k, h) + (size_t)token;
    const int head = k->group * k->s.heads + h;
    float m = 0.0f;
    for (int d = 0; d < cab_mixer_directions(k->a); d++) {
        const cab_tensor *D = input(k, d, CAB_MIXER_D);
        if (D != NULL)
            m += k->a->scale * ((const float *)D->data)[head];
        if (d == 0 || k->a->own)
            m += k->a->scale * k->own[k->w.product[set_of(k, d)] + (size_t)(i * T + i)] * step_at(k, d, h, token);
    }
    const float e = m - k->own[k->w.A + (size_t)(i * T + i)], g = e * factor;
    if (!k->gradient)
        return (double)(e * e);
    for (int d = 0; d < (k->a->own ? 2 : 1); d++) {
        const size_t in_tile = (size_t)(i * T + i);
        k->own[k->w.diagonal[d] + at] += g * k->a->scale * k->own[k->w.product[d] + in_tile];
        k->own[k->w.w[d] + in_tile] += g * k->a->scale * step_at(k, d, h, token);
    }
    k->own[k->w.dD + at] += g * k->a->scale;
    return (double)(e * e);
}

/* The first column of a row that is in the document of its token. */
static int document_column(const task *k, const tile *t, int i)
{
    const cab_tensor *starts = k->node->in[CAB_MIXER_STARTS];
    if (starts == NULL)
        return 0;
    const int64_t first =
        ((const int32_t *)starts->data)[k->b * starts->ld + (int64_t)t->bi * T + i] - (int64_t)t->bj * T;
    return first < 0 ? 0 : first > t->n ? t->n : (int)first;
}

/* A head's part of the tile, of one direction but for the diagonal, which comes with the first. */
static void head_direction(task *k, const tile *t, int d, int h, float weight)
{
    const float factor = weight * k->factor;
    float rows[T], columns[T], f[T], step[T];
    const int set = set_of(k, d);
    const bool on_diagonal = t->bi == t->bj;
    const float *local = k->own + k->w.local[d] + place(k, h) + (size_t)t->bi * T;
    for (int j = 0; j < t->n; j++)
        step[j] = step_at(k, d, h, (int64_t)t->bj * T + j);
    if (!on_diagonal)
        edge_factors(k, t, d, h, rows, columns);
    for (int i = 0; i < t->m; i++) {
        const int document = document_column(k, t, i);
        const int from = on_diagonal && d == 1 ? i + 1 : document, end = on_diagonal && d == 0 ? i : t->n;
        for (int j = from; j < end; j++)
            f[j] = on_diagonal ? k->a->scale * cab_exp(d == 0 ? local[i] - local[j] : local[j] - local[i])
                               : rows[i] * columns[j];
        const strict r = {.product = k->own + k->w.product[set] + (size_t)i * T,
                          .A = k->own + k->w.A + (size_t)i * T,
                          .f = f,
                          .step = step,
                          .w = k->gradient ? k->own + k->w.w[set] + (size_t)i * T : NULL,
                          .columns = k->own + k->w.columns[d] + place(k, h) + (size_t)t->bj * T,
                          .factor = factor};
        double loss = (double)strict_row(&r, from, end, k->own + k->w.rows[d] + place(k, h) + (size_t)t->bi * T + i);
        if (on_diagonal && d == 0)
            loss += diagonal_element(k, t, h, i, factor);
        k->loss += loss * (double)weight;
    }
}

/* A of attention's head; zero where a row does not see a column. */
static void attend(task *k, const tile *t, int head)
{
    const cab_attention_shape *s = &k->a->rows.shape;
    const cab_tensor *q = k->node->in[CAB_MIXER_Q], *key = k->node->in[CAB_MIXER_K];
    const cab_align_attributes *align = &k->a->rows.align;
    const int64_t kv = head / (s->n_head / s->n_kv_head), P = s->head_dim, from = k->b * q->shape[1];
    const float *lse = (const float *)k->node->in[CAB_MIXER_LSE]->data + (k->b * s->n_head + head) * k->s.L;
    float *A = k->own + k->w.A, *kt = k->own + k->w.kt, *rows = k->own + k->w.q;
    load_tile(key, from, (int64_t)t->bj * T, k->s.L, kv * P, (int)P, align, rows, k->w.ldp);
    cab_tile_transpose(T, (int)P, rows, k->w.ldp, kt, T);
    load_tile(q, from, (int64_t)t->bi * T, k->s.L, head * P, (int)P, align, rows, k->w.ldp);
    score_tile(s, rows, kt, k->w.ldp, A, T);
    for (int i = 0; i < t->m; i++, A += T) {
        int64_t first, end;
        visible(s, k->node->in[CAB_MIXER_STARTS], k->b, k->s.L, (int64_t)t->bi * T + i, &first, &end);
        first -= (int64_t)t->bj * T;
        end -= (int64_t)t->bj * T;
        for (int64_t j = 0; j < t->n; j++)
            A[j] = j >= first && j < end ? cab_exp(A[j] - lse[(int64_t)t->bi * T + i]) : 0.0f;
    }
}

/* <C, B> of a set, and B for the product after. */
static void multiply_states(task *k, const tile *t, int set)
{
    const int ld = k->w.ldn, N = k->s.N;
    float *C = k->own + k->w.C[set], *B = k->own + k->w.B[set], *Bt = k->own + k->w.Bt[set];
    const int64_t from = k->b * k->s.L, column = (int64_t)k->group * N;
    load_tile(input(k, set, CAB_MIXER_C), from, (int64_t)t->bi * T, k->s.L, column, N, NULL, C, ld);
    load_tile(input(k, set, CAB_MIXER_B), from, (int64_t)t->bj * T, k->s.L, column, N, NULL, B, ld);
    cab_tile_transpose(T, N, B, ld, Bt, T);
    cab_tile_multiply(CAB_TILE_FULL, T, T, N, (cab_tile_a){C, ld, 1}, Bt, T, k->own + k->w.product[set], T, 0);
    memset(k->own + k->w.w[set], 0, sizeof(float) * T * T);
}

/* dC += w B, dB += w^T C */
static void add_products(task *k, const tile *t, int set)
{
    const int ld = k->w.ldn;
    const float *w = k->own + k->w.w[set];
    cab_tile_multiply(CAB_TILE_FULL, T, ld, T, (cab_tile_a){w, T, 1}, k->own + k->w.B[set], ld,
                      k->own + k->w.dC[set] + (size_t)t->bi * T * (size_t)ld, ld, 1);
    cab_tile_multiply(CAB_TILE_FULL, T, ld, T, (cab_tile_a){w, 1, T}, k->own + k->w.C[set], ld,
                      k->own + k->w.dB[set] + (size_t)t->bj * T * (size_t)ld, ld, 1);
}

static void visit_tile(task *k, const tile *t)
{
    const cab_attention_shape *s = &k->a->rows.shape;
    const float *weight = (const float *)k->node->in[CAB_MIXER_WEIGHT]->data + k->b * s->n_head;
    const int first_head = k->group * k->s.heads;
    const bool used[2] = {t->runs[0] || (t->runs[1] && !k->a->own), t->runs[1] && k->a->own};
    for (int set = 0; set < 2; set++)
        if (used[set])
            multiply_states(k, t, set);
    for (int other = 0; other < s->n_head; other++) {
        bool attended = false;
        for (int h = 0; h < k->s.heads; h++) {
            int first, end;
            cab_mixer_heads(k->a, first_head + h, &first, &end);
            if (other < first || other >= end)
                continue;
            if (!attended)
                attend(k, t, other);
            attended = true;
            for (int d = 0; d < 2; d++)
                if (t->runs[d])
                    head_direction(k, t, d, h, weight[other]);
        }
    }
    for (int set = 0; set < 2; set++)
        if (used[set] && k->gradient)
            add_products(k, t, set);
}

static void visit_tiles(task *k)
{
    for (int bj = 0; bj < k->s.tiles; bj++)
        for (int bi = k->a->both ? 0 : bj; bi < k->s.tiles; bi++) {
            const int64_t m = k->s.L - (int64_t)bi * T, n = k->s.L - (int64_t)bj * T;
            const tile t = {.bi = bi,
                            .bj = bj,
                            .m = m < T ? (int)m : T,
                            .n = n < T ? (int)n : T,
                            .runs = {bi >= bj, k->a->both && bi <= bj}};
            visit_tile(k, &t);
        }
}

/* ---- gradients --------------------------------------------------------------------------------------------------------------- */

static void store_rows(const task *k, int set, int which, const float *from)
{
    const int slot = set * CAB_MIXER_DIRECTION + which;
    const cab_tensor *gradient = k->node->gin[slot];
    const int64_t column = (int64_t)k->group * k->s.N;
    if (gradient == NULL)
        return;
    for (int64_t i = 0; i < k->s.L; i++, from += k->w.ldn) {
        float buffer[CAB_MIXER_STATE_MOST];
        float *out = cab_row_sum(gradient, k->b * k->s.L + i, column, k->s.N, k->node->accumulate >> slot & 1, buffer);
        cab_axpy(out, 1.0f, from, k->s.N);
        cab_row_done(gradient, k->b * k->s.L + i, column, k->s.N, out);
    }
}

static void put(const task *k, int slot, int64_t token, int64_t column, double value, bool add)
{
    const cab_tensor *gradient = k->node->gin[slot];
    if (gradient == NULL)
        return;
    float *to = cab_at(gradient, k->b * k->s.L + token, column);
    *to = (add || (k->node->accumulate >> slot & 1) ? *to : 0.0f) + (float)value;
}

/* Gradients of log a and delta of a head: running sums from the end, of the second direction from the start. The second may add to the
 * first's, where they have one decay. */
static void store_decays(const task *k, int d, int h)
{
    const size_t at = place(k, h);
    const float *rows = k->own + k->w.rows[d] + at, *columns = k->own + k->w.columns[d] + at;
    const float *diagonal = k->own + k->w.diagonal[d] + at;
    const int log_a = cab_mixer_input(k->a, d, CAB_MIXER_LOG_A), step = cab_mixer_input(k->a, d, CAB_MIXER_STEP);
    const bool add = d == 1 && !k->a->own && k->a->second == 0;
    double sum = 0.0;
    for (int64_t i = 0; i < k->s.L; i++) {
        const int64_t token = d == 0 ? k->s.L - 1 - i : i;
        const float delta = step_at(k, d, h, token);
        sum += (double)rows[token] - (double)delta * (double)columns[token];
        put(k, log_a, token, column(k, d, h), sum, add);
        put(k, step, token, column(k, d, h), (double)columns[token] + (double)diagonal[token], add);
    }
}

static void store_gradients(const task *k, float *dD)
{
    for (int set = 0; set < (k->a->own ? 2 : 1); set++) {
        store_rows(k, set, CAB_MIXER_C, k->own + k->w.dC[set]);
        store_rows(k, set, CAB_MIXER_B, k->own + k->w.dB[set]);
    }
    for (int h = 0; h < k->s.heads; h++) {
        double sum = 0.0;
        for (int d = 0; d < cab_mixer_directions(k->a); d++)
            store_decays(k, d, h);
        for (int64_t i = 0; i < k->s.L; i++)
            sum += (double)k->own[k->w.dD + place(k, h) + (size_t)i];
        dD[h] = (float)sum;
    }
}

static double run_task(const cab_node *node, float *own, int64_t b, int group, float factor, bool gradient, float *dD)
{
    task k = {.node = node,
              .a = node->attributes,
              .s = cab_mixer_matrix_sizes_of(node),
              .w = cab_mixer_workspace_of(node),
              .own = own,
              .b = b,
              .group = group,
              .gradient = gradient,
              .factor = factor};
    memset(own, 0, k.w.total * sizeof *own);
    for (int d = 0; d < cab_mixer_directions(k.a); d++)
        for (int h = 0; h < k.s.heads; h++)
            sum_decays(&k, d, h);
    visit_tiles(&k);
    if (gradient)
        store_gradients(&k, dD);
    return k.loss;
}

/* The mean, and with `gradient` the gradient times the seed. */
static void run(const cab_node *node, const cab_backend *backend, float seed, bool gradient)
{
    const cab_mixer_matrix_attributes *a = node->attributes;
    const cab_mixer_matrix_sizes s = cab_mixer_matrix_sizes_of(node);
    const cab_mixer_workspace w = cab_mixer_workspace_of(node);
    const double share = 1.0 / ((double)s.B * a->n_pair);
    double *losses = node->scratch, total = 0.0;
    float *dD = (float *)(void *)((char *)node->scratch + w.losses), *threads = dD + w.sums;
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t i = 0; i < s.B * s.G; i++)
        losses[i] = run_task(node, threads + w.total * (size_t)omp_get_thread_num(), i / s.G, (int)(i % s.G),
                             (float)(2.0 * share * (double)seed), gradient, dD + i * s.heads);
    for (int64_t i = 0; i < s.B * s.G; i++)
        total += losses[i];
    *(float *)node->out[0]->data = (float)(share * total);
    for (int d = 0; d < 2 && gradient; d++) {
        const cab_tensor *out = node->gin[d * CAB_MIXER_DIRECTION + CAB_MIXER_D];
        for (int64_t b = 0; out != NULL && b < s.B; b++)
            cab_axpy(out->data, 1.0f, dD + b * s.H, s.H);
    }
}

cab_status CAB_ISA(cab_mixer_matrix_loss_forward)(const cab_node *node, cab_backend *backend)
{
    run(node, backend, 0.0f, false);
    return CAB_OK;
}

cab_status CAB_ISA(cab_mixer_matrix_loss_backward)(const cab_node *node, cab_backend *backend)
{
    run(node, backend, node->gout[0] != NULL ? *(const float *)node->gout[0]->data : 0.0f, true);
    return CAB_OK;
}
