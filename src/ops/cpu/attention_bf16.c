/* attention_bf16.c - attention in bf16 with the bf16 instructions of AVX-512. Compiled once, with these; cab_attention_bf16_fits() tells where
 * they are.
 *
 * K and V of the node are packed first, once for all queries and heads that read them. Then a thread takes 14 queries of one head at a time:
 *
 *   S (14, keys) = Q K^T, fp32      P = exp(scale (S - max S)), bf16      y = P V / sum P
 *
 * P is not divided before it is rounded: its numbers are 1 at most, and the sum is that of the numbers before rounding. vdpbf16ps adds two
 * products at a time, of a pair of elements of the inner dimension:
 *
 *   B   panels of 32 columns     (depth / 2, 32) pairs (B[k, j], B[k + 1, j])     K^T: 32 keys, V: 32 columns
 *   A   tiles of 14 rows         (depth / 32, 14) lines of 64 bytes               Q and P
 *
 * with zeros beyond the edges. 14 x 32 sums are 28 of the 32 registers: 16 loads for 28 instructions that multiply. */
#include "ops/cpu/attention_bf16.h"

#include "ops/cpu/vec.h"

#include <immintrin.h>
#include <omp.h>

enum { TILE = CAB_ATTENTION_TILE, LINE = CAB_ATTENTION_LINE, VECTOR = 16, PAIRS = LINE / 2 };

/* ---- packing ------------------------------------------------------------------------------------------------------- */

/* Elements k to k + 31 of a row of n; zeros beyond its end. */
static inline __m512i load_line(const cab_bf16 *from, int64_t k, int64_t n)
{
    if (k + LINE <= n)
        return _mm512_loadu_si512(from + k);
    return k < n ? _mm512_maskz_loadu_epi16((1u << (n - k)) - 1, from + k) : _mm512_setzero_si512();
}

/* 16 vectors of 16 pairs, transposed in place. */
static inline void transpose(__m512i r[VECTOR])
{
    __m512i t[VECTOR];
    for (int i = 0; i < VECTOR; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < VECTOR; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            t[i + 8 * j] = _mm512_shuffle_i32x4(r[i + 8 * j], r[i + 8 * j + 4], 0x88);
            t[i + 8 * j + 4] = _mm512_shuffle_i32x4(r[i + 8 * j], r[i + 8 * j + 4], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* `keys` rows of K of n elements, `step` apart: a panel of K^T. */
static void pack_keys(const cab_bf16 *from, int64_t step, int64_t keys, int64_t n, __m512i *to)
{
    for (int64_t k = 0; k < n; k += LINE)
        for (int half = 0; half < 2; half++) {
            __m512i r[VECTOR];
            for (int j = 0; j < VECTOR; j++) {
                const int64_t key = half * VECTOR + j;
                r[j] = key < keys ? load_line(from + key * step, k, n) : _mm512_setzero_si512();
            }
            transpose(r);
            for (int p = 0; p < PAIRS; p++)
                _mm512_store_si512(to + k + 2 * p + half, r[p]);
        }
}

/* LINE rows of V, of which `keys` are there, n columns: their part of a panel. */
static void pack_values(const cab_bf16 *from, int64_t step, int64_t keys, int64_t n, __m512i *to)
{
    const __m512i numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i pairs = _mm512_mullo_epi32(numbers, _mm512_set1_epi32(0x00010001));
    /* words 0, 32, 1, 33 ...: of one row, then of the other */
    const __m512i first = _mm512_add_epi32(pairs, _mm512_set1_epi32(0x00200000));
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(VECTOR * 0x00010001));
    for (int64_t k = 0; k < LINE; k += 2) {
        const __m512i x = k < keys ? load_line(from + k * step, 0, n) : _mm512_setzero_si512();
        const __m512i y = k + 1 < keys ? load_line(from + (k + 1) * step, 0, n) : _mm512_setzero_si512();
        _mm512_store_si512(to + k, _mm512_permutex2var_epi16(x, first, y));
        _mm512_store_si512(to + k + 1, _mm512_permutex2var_epi16(x, second, y));
    }
}

static void pack_queries(const cab_bf16 *from, int64_t step, int64_t rows, int64_t n, __m512i *to)
{
    for (int64_t k = 0; k < n; k += LINE)
        for (int64_t i = 0; i < TILE; i++)
            *to++ = i < rows ? load_line(from + i * step, k, n) : _mm512_setzero_si512();
}

/* sum[i][v] = the products of a tile of A and a panel of B, `depth` a multiple of LINE. */
static inline __attribute__((always_inline)) void multiply(int64_t depth, const __m512i *a, const __m512i *b,
                                                           __m512 sum[TILE][2])
{
    const char *left = (const char *)a;
#pragma GCC unroll 14
    for (int i = 0; i < TILE; i++)
        sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int64_t k = 0; k < depth; k += LINE) {
        for (int p = 0; p < PAIRS; p++) {
            const __m512bh first = (__m512bh)_mm512_load_si512(b), second = (__m512bh)_mm512_load_si512(b + 1);
            b += 2;
#pragma GCC unroll 14
            for (int i = 0; i < TILE; i++) {
                int32_t pair;
                memcpy(&pair, left + i * 64 + p * 4, sizeof pair);
                const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
                sum[i][0] = _mm512_dpbf16_ps(sum[i][0], x, first);
                sum[i][1] = _mm512_dpbf16_ps(sum[i][1], x, second);
            }
        }
        left += TILE * 64;
    }
}

/* ---- the softmax of a row ------------------------------------------------------------------------------------------ */

/* 2^x, x <= 0, within 2e-7 of itself; 0 below 2^-126. NaN goes through. */
static inline __m512 exp2_vector(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-150.0f), x); /* of two, the second one if either is NaN */
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.5403530e-4f); /* ln(2)^k / k! */
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* Which of the 16 keys from k are first <= key < end. */
static inline __mmask16 seen_of(int64_t k, int64_t first, int64_t end)
{
    const int64_t below = first - k, above = end - k;
    const uint32_t upto = above >= VECTOR ? 0xffffu : above > 0 ? (1u << above) - 1 : 0;
    const uint32_t before = below >= VECTOR ? 0xffffu : below > 0 ? (1u << below) - 1 : 0;
    return (__mmask16)(upto & ~before);
}

static void cap_scores(float *s, int64_t first, int64_t end, float inner, float cap)
{
#pragma omp simd
    for (int64_t j = first; j < end; j++)
        s[j] = cap * cab_tanh(inner * s[j]);
}

/* Scores of keys first <= j < end, which all are below `stop`, to lines of p, TILE apart; the rest becomes 0. Returns their sum. */
static float soften(const float *s, int64_t first, int64_t end, int64_t stop, float scale, float *largest, __m512i *p)
{
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t k = first / VECTOR * VECTOR; k < end; k += VECTOR)
        most = _mm512_mask_max_ps(most, seen_of(k, first, end), most, _mm512_load_ps(s + k));
    *largest = _mm512_reduce_max_ps(most);
    const __m512 factor = _mm512_set1_ps(scale * 1.44269504f), shift = _mm512_set1_ps(*largest);
    for (int64_t k = 0; k < stop; k += LINE, p += TILE) {
        __m512 half[2];
        for (int v = 0; v < 2; v++) {
            const __mmask16 seen = seen_of(k + v * VECTOR, first, end);
            const __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(s + k + v * VECTOR), shift), factor);
            half[v] = _mm512_maskz_mov_ps(seen, exp2_vector(x));
            sum = _mm512_add_ps(sum, half[v]);
        }
        *p = (__m512i)_mm512_cvtne2ps_pbh(half[1], half[0]);
    }
    return _mm512_reduce_add_ps(sum);
}

/* ---- a tile of queries --------------------------------------------------------------------------------------------- */

typedef struct worker {
    const cab_node *node;
    const cab_attention_shape *shape;
    const __m512i *keys, *values; /* packed, of all */
    cab_attention_packing packing;
    __m512i *q, *p; /* this thread's */
    float *s;
} worker;

/* Rows `row` to row + rows of one head, and the keys that they see, from a whole line to a whole line. */
typedef struct tile {
    int64_t b, head, kv, row, rows, begin, stop;
} tile;

static tile tile_of(const worker *w, int64_t index)
{
    const int64_t length = w->packing.length, tiles = (length + TILE - 1) / TILE;
    int64_t unused, end;
    tile t = {
        .b = index / tiles / w->shape->n_head, .head = index / tiles % w->shape->n_head, .row = index % tiles * TILE};
    t.kv = t.head / (w->shape->n_head / w->shape->n_kv_head);
    t.rows = length - t.row < TILE ? length - t.row : TILE;
    cab_attention_range(w->shape, length, t.row, &t.begin, &unused);
    cab_attention_range(w->shape, length, t.row + t.rows - 1, &unused, &end);
    t.begin -= t.begin % LINE;
    t.stop = (end + LINE - 1) / LINE * LINE;
    return t;
}

static void score(const worker *w, const tile *t)
{
    const int64_t depth = w->packing.depth;
    const __m512i *panel =
        w->keys + ((t->b * w->shape->n_kv_head + t->kv) * w->packing.padded + t->begin) / LINE * depth;
    for (int64_t k = t->begin; k < t->stop; k += LINE, panel += depth) {
        __m512 sum[TILE][2];
        float *to = w->s + k - t->begin;
        multiply(depth, w->q, panel, sum);
#pragma GCC unroll 14
        for (int i = 0; i < TILE; i++) {
            _mm512_store_ps(to + i * w->packing.score_ld, sum[i][0]);
            _mm512_store_ps(to + i * w->packing.score_ld + VECTOR, sum[i][1]);
        }
    }
}

/* Scores to probabilities, not yet divided by `total`. */
static void soften_rows(const worker *w, const tile *t, float total[TILE])
{
    const cab_attention_shape *shape = w->shape;
    const float scale = shape->cap > 0 ? 1.0f : shape->scale;
    float *lse = (float *)w->node->out[1]->data + (t->b * shape->n_head + t->head) * w->packing.length;
    for (int64_t i = 0; i < TILE; i++) {
        float *s = w->s + i * w->packing.score_ld, largest;
        int64_t first = 0, end = 0;
        total[i] = 1;
        if (i < t->rows) {
            cab_attention_range(shape, w->packing.length, t->row + i, &first, &end);
            first = cab_attention_first(w->node, t->b, t->row + i, first) - t->begin;
            end -= t->begin;
        }
        if (shape->cap > 0)
            cap_scores(s, first, end, shape->scale / shape->cap, shape->cap);
        const float sum = soften(s, first, end, t->stop - t->begin, scale, &largest, w->p + i);
        if (i < t->rows) {
            total[i] = sum;
            lse[t->row + i] = scale * largest + logf(sum);
        }
    }
}

static void mix(const worker *w, const tile *t, const float total[TILE])
{
    const cab_tensor *y = w->node->out[0];
    const int64_t width = w->shape->head_dim, panels = w->packing.depth / LINE;
    const __m512i *panel = w->values + (t->b * w->shape->n_kv_head + t->kv) * panels * w->packing.padded + t->begin;
    for (int64_t c = 0; c < width; c += LINE, panel += w->packing.padded) {
        const __mmask32 there = width - c >= LINE ? 0xffffffffu : (1u << (width - c)) - 1;
        __m512 sum[TILE][2];
        multiply(t->stop - t->begin, w->p, panel, sum);
#pragma GCC unroll 14
        for (int i = 0; i < TILE; i++) {
            const __m512 inverse = _mm512_set1_ps(1.0f / total[i]);
            const __m512i line =
                (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(sum[i][1], inverse), _mm512_mul_ps(sum[i][0], inverse));
            if (i < t->rows)
                _mm512_mask_storeu_epi16(cab_at(y, t->b * w->packing.length + t->row + i, t->head * width + c), there,
                                         line);
        }
    }
}

static void attend(const worker *w, int64_t index)
{
    const tile t = tile_of(w, index);
    const cab_tensor *q = w->node->in[0];
    float total[TILE];
    pack_queries(cab_at(q, t.b * w->packing.length + t.row, t.head * w->shape->head_dim), q->ld, t.rows,
                 w->shape->head_dim, w->q);
    score(w, &t);
    soften_rows(w, &t, total);
    mix(w, &t, total);
}

/* Keys from `key` of head kv of sequence b, a line of them. */
static void pack_line(const worker *w, int64_t b, int64_t kv, int64_t key, __m512i *keys, __m512i *values)
{
    const cab_tensor *k = w->node->in[1], *v = w->node->in[2];
    const int64_t width = w->shape->head_dim, depth = w->packing.depth, padded = w->packing.padded;
    const int64_t left = w->packing.length - key, rows = left < LINE ? left : LINE, row = b * w->packing.length + key;
    const int64_t group = b * w->shape->n_kv_head + kv;
    pack_keys(cab_at(k, row, kv * width), k->ld, rows, width, keys + (group * padded + key) / LINE * depth);
    for (int64_t c = 0; c < width; c += LINE)
        pack_values(cab_at(v, row, kv * width + c), v->ld, rows, width - c < LINE ? width - c : LINE,
                    values + (group * depth + c) / LINE * padded + key);
}

cab_status cab_attention_bf16_forward(const cab_node *node, cab_backend *backend)
{
    const cab_attention_packing packing = cab_attention_packing_of(node);
    const cab_attention_shape *shape = node->attributes;
    char *scratch = node->scratch;
    const int64_t lines = packing.padded / LINE, groups = node->in[0]->shape[0] * shape->n_kv_head,
                  tiles = node->in[0]->shape[0] * shape->n_head * ((packing.length + TILE - 1) / TILE);
#pragma omp parallel num_threads(cab_threads_for(backend, cab_elements(node->in[0]) * packing.length))
    {
        char *own = scratch + packing.shared + packing.own * (size_t)omp_get_thread_num();
        __m512i *keys = (__m512i *)(void *)scratch, *values = (__m512i *)(void *)(scratch + packing.values);
        const worker w = {.node = node,
                          .shape = shape,
                          .keys = keys,
                          .values = values,
                          .packing = packing,
                          .q = (__m512i *)(void *)own,
                          .p = (__m512i *)(void *)(own + packing.p),
                          .s = (float *)(void *)(own + packing.s)};
#pragma omp for schedule(static)
        for (int64_t i = 0; i < groups * lines; i++)
            pack_line(&w, i / lines / shape->n_kv_head, i / lines % shape->n_kv_head, i % lines * LINE, keys, values);
#pragma omp for schedule(dynamic, 4)
        for (int64_t i = 0; i < tiles; i++)
            attend(&w, tiles - 1 - i); /* those with many keys first, and none at the end to wait for */
    }
    return CAB_OK;
}
