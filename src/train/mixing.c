/* mixing.c - rows of attention and of Mamba-2 are independent of one another. Mamba-1 has a decay per channel and state, so
 * its columns are followed through time instead, as the recurrence itself would an impulse at token j:
 *
 *   h[j] = delta_j B_j      h[i] = exp(delta_i A) h[i - 1]      M[i, j] = <C_i, h[i]>
 *
 * Channels are taken TILE at a time, their decays exp(delta A) computed once for all columns; COLUMNS columns go through the
 * tokens together, so that a decay read from memory serves them all. */
#include "train/mixing.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { TILE = 64, COLUMNS = 4 };

static double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

/* ---- attention ------------------------------------------------------------------------------------------------------- */

/* Adds head h's row i, times `weight`; `row` is scratch of L. */
static void add_attention_row(const float *q, const float *k, int64_t L, const cab_attention_shape *shape, int h,
                              int64_t i, double weight, double *row, float *out)
{
    const int P = shape->head_dim;
    const float *qi = q + (i * shape->n_head + h) * P;
    const int64_t last = shape->causal ? i : L - 1;
    const int64_t first = shape->window > 0 && i >= shape->window ? i - shape->window + 1 : 0;
    const int group = h / (shape->n_head / shape->n_kv_head);
    double most = -INFINITY, sum = 0;
    for (int64_t j = first; j <= last; j++) {
        const float *kj = k + (j * shape->n_kv_head + group) * P;
        double dot = 0;
        for (int p = 0; p < P; p++)
            dot += (double)qi[p] * (double)kj[p];
        row[j] = dot * (double)shape->scale;
        most = fmax(most, row[j]);
    }
    for (int64_t j = first; j <= last; j++) {
        row[j] = exp(row[j] - most);
        sum += row[j];
    }
    for (int64_t j = first; j <= last; j++)
        out[j] += (float)(weight * row[j] / sum);
}

cab_status cab_mixing_attention(const float *q, const float *k, int64_t L, const cab_attention_shape *shape, int first,
                                int count, float *M)
{
    double *rows = NULL;
    CAB_TRY(CAB_NEW(&rows, (size_t)(L * L), "a matrix of attention"));
#pragma omp parallel for schedule(dynamic, 8)
    for (int64_t i = 0; i < L; i++) {
        memset(M + i * L, 0, (size_t)L * sizeof *M);
        for (int h = first; h < first + count; h++)
            add_attention_row(q, k, L, shape, h, i, 1.0 / count, rows + i * L, M + i * L);
    }
    cab_free(rows);
    return CAB_OK;
}

/* ---- Mamba-2 --------------------------------------------------------------------------------------------------------- */

/* Where dt, dt_bias and A_log have a head of a direction: column is the head, or H + head in the second. */
static int ssd_column(const cab_mixing_ssd_inputs *in, int column)
{
    return in->shared_decay ? column % in->H : column;
}

static double ssd_delta(const cab_mixing_ssd_inputs *in, int64_t i, int column)
{
    const int64_t columns = in->both && !in->shared_decay ? 2 * in->H : in->H;
    const int at = ssd_column(in, column);
    return softplus((double)in->dt[i * columns + at] + (in->dt_bias != NULL ? (double)in->dt_bias[at] : 0));
}

/* decay: (directions, H, L). */
static void add_ssd_row(const cab_mixing_ssd_inputs *in, int h, int64_t i, const double *decay, double weight,
                        float *out)
{
    const int64_t width = (int64_t)in->G * in->N, at = (int64_t)(h / (in->H / in->G)) * in->N;
    const float *Ci = in->C + i * width + at;
    for (int64_t j = 0; j <= (in->both ? in->L - 1 : i); j++) {
        const float *Bj = in->B + j * width + at;
        const int column = j > i ? in->H + h : h;
        const double *sum = decay + column * in->L;
        double dot = 0;
        for (int n = 0; n < in->N; n++)
            dot += (double)Ci[n] * (double)Bj[n];
        const double step = in->A_log != NULL ? ssd_delta(in, j, column) : 1;
        out[j] += (float)(weight * dot * step * exp(sum[i] - sum[j]));
    }
}

/* The sum of log a up to each token, in the order of the direction. */
static void sum_decays(const cab_mixing_ssd_inputs *in, int column, double *sums)
{
    const double rate = in->A_log != NULL ? exp((double)in->A_log[ssd_column(in, column)]) : 1;
    double sum = 0;
    for (int64_t i = 0; i < in->L; i++) {
        const int64_t t = column >= in->H ? in->L - 1 - i : i;
        sums[t] = sum -= rate * ssd_delta(in, t, column);
    }
}

cab_status cab_mixing_ssd(const cab_mixing_ssd_inputs *in, int first, int count, float *M)
{
    const int columns = in->both ? 2 * in->H : in->H;
    double *decay = NULL;
    CAB_TRY(CAB_NEW(&decay, (size_t)(in->L * columns), "the decays of a layer"));
    for (int column = 0; column < columns; column++)
        sum_decays(in, column, decay + column * in->L);
#pragma omp parallel for schedule(dynamic, 8)
    for (int64_t i = 0; i < in->L; i++) {
        memset(M + i * in->L, 0, (size_t)in->L * sizeof *M);
        for (int h = first; h < first + count; h++)
            add_ssd_row(in, h, i, decay, 1.0 / count, M + i * in->L);
    }
    cab_free(decay);
    return CAB_OK;
}

/* ---- Mamba-1 --------------------------------------------------------------------------------------------------------- */

/* The token that is the t-th in time. */
static int64_t token_at(const cab_mixing_scan_inputs *in, int64_t t)
{
    return in->reverse ? in->L - 1 - t : t;
}

/* Of one tile, in order of time: delta (L, TILE), and decay (L, N, TILE) = exp(delta A). Channels past the last are zero. */
typedef struct channel_tile {
    int64_t first;
    int channels;
    float *delta, *decay;
} channel_tile;

static void fill_tile(const cab_mixing_scan_inputs *in, const channel_tile *tile)
{
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < in->L; t++) {
        float *delta = tile->delta + t * TILE, *decay = tile->decay + t * in->N * TILE;
        memset(delta, 0, TILE * sizeof *delta);
        memset(decay, 0, (size_t)in->N * TILE * sizeof *decay);
        for (int c = 0; c < tile->channels; c++) {
            const int64_t e = tile->first + c;
            const double step = softplus((double)in->dt[token_at(in, t) * in->E + e] + (double)in->dt_bias[e]);
            delta[c] = (float)step;
            for (int n = 0; n < in->N; n++)
                decay[n * TILE + c] = (float)exp(-step * exp((double)in->A_log[e * in->N + n]));
        }
    }
}

/* h *= decay; the sum of the new h. */
static float advance(float *restrict h, const float *restrict decay)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int c = 0; c < TILE; c++) {
        h[c] *= decay[c];
        sum += h[c];
    }
    return sum;
}

/* The state at the impulse's own token: delta B. Returns M there. */
static float strike(const cab_mixing_scan_inputs *in, const channel_tile *tile, int64_t j, float *h)
{
    const float *B = in->B + token_at(in, j) * in->N, *C = in->C + token_at(in, j) * in->N;
    float sum = 0, out = 0;
    for (int c = 0; c < TILE; c++)
        sum += tile->delta[j * TILE + c];
    for (int n = 0; n < in->N; n++) {
        for (int c = 0; c < TILE; c++)
            h[n * TILE + c] = tile->delta[j * TILE + c] * B[n];
        out += C[n] * B[n] * sum;
    }
    return out;
}

/* Adds the tile's part of columns j .. j + COLUMNS (in time) to M; h: (COLUMNS, N, TILE) of scratch. */
static void add_columns(const cab_mixing_scan_inputs *in, const channel_tile *tile, int64_t j, float weight, float *h,
                        float *M)
{
    const int64_t L = in->L, end = j + COLUMNS < L ? j + COLUMNS : L, state = (int64_t)in->N * TILE;
    for (int64_t i = j; i < L; i++) {
        const float *C = in->C + token_at(in, i) * in->N, *decay = tile->decay + i * state;
        float *row = M + token_at(in, i) * L;
        for (int64_t k = j; k < end && k <= i; k++) {
            float *hk = h + (k - j) * state, sum = 0;
            if (k == i)
                sum = strike(in, tile, k, hk);
            else
                for (int n = 0; n < in->N; n++)
                    sum += C[n] * advance(hk + n * TILE, decay + n * TILE);
            row[token_at(in, k)] += weight * sum;
        }
    }
}

static void add_tile(const cab_mixing_scan_inputs *in, const channel_tile *tile, float weight, float *states, float *M)
{
    const int64_t state = (int64_t)COLUMNS * in->N * TILE;
#pragma omp parallel for schedule(dynamic)
    for (int64_t j = 0; j < in->L; j += COLUMNS)
        add_columns(in, tile, j, weight, states + j / COLUMNS * state, M);
}

cab_status cab_mixing_scan(const cab_mixing_scan_inputs *in, int64_t first, int64_t count, float *M)
{
    const size_t L = (size_t)in->L, state = (size_t)in->N * TILE, groups = (L + COLUMNS - 1) / COLUMNS;
    channel_tile tile = {0};
    float *states = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&tile.delta, L * TILE, "the steps of a layer"));
    CAB_GOTO(CAB_NEW(&tile.decay, L * state, "the decays of a layer"));
    CAB_GOTO(CAB_NEW(&states, groups * COLUMNS * state, "the states of a layer"));
    memset(M, 0, L * L * sizeof *M);
    for (int64_t e = first; e < first + count; e += TILE) {
        const int64_t left = first + count - e;
        tile.first = e;
        tile.channels = left < TILE ? (int)left : TILE;
        fill_tile(in, &tile);
        add_tile(in, &tile, 1.0f / (float)count, states, M);
    }
done:
    cab_free(tile.delta);
    cab_free(tile.decay);
    cab_free(states);
    return status;
}
