/* block_few.c - products of a few rows with a matrix in blocks, as a decoding step has them: B is read once, straight from its blocks.
 *
 * Rows of A are rounded to 16 bits, 32 elements at a time, x = s q with s = max |x| / 32767. 32 elements of B are d u + m with u of 4 to 8
 * bits, so
 *
 *   sum over 32 of A B = s d sum(q u) + s m sum(q)
 *
 * whose first sum is of integers, exact, and whose second does not depend on B. Of 8 bits q would cost 0.2 to 0.5 % of a model's perplexity,
 * and leave as many bytes of B to read. Processors without AVX2 expand B to fp32 where it is multiplied. */
#include "ops/cpu/block_gemm.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/expand.h"

enum { SMALL = CAB_EXPAND_SMALL, SUPER = CAB_EXPAND_SUPER };

/* Elements that are expanded at a time: a multiple of every block, in the first-level cache. */
enum { PIECE = 512 };

/* Rows of A as they are multiplied, row behind row. */
typedef struct left {
    float *wide;   /* m x k */
    float *scales; /* m x k / 32 */
    float *sums;   /* m x k / 32: s sum(q) */
    int16_t *q;    /* m x k */
} left;

static left left_of(const cab_gemm_shape *s, void *scratch)
{
    const int64_t n = s->m * s->k, blocks = n / SMALL;
    left l = {.wide = scratch};
    l.scales = l.wide + n;
    l.sums = l.scales + blocks;
    l.q = (int16_t *)(l.sums + blocks);
    return l;
}

/* ---- expanded ------------------------------------------------------------------------------------------------------ */

/* out[i] = the products of a row of B with each of m rows of A. */
static void multiply_wide(const cab_gemm_shape *s, const uint8_t *row, const left *l, float *out)
{
    float buffer[PIECE];
    for (int64_t i = 0; i < s->m; i++)
        out[i] = 0;
    for (int64_t k = 0; k < s->k; k += PIECE) {
        const int64_t n = s->k - k < PIECE ? s->k - k : PIECE;
        cab_expand(s->b.dtype, row + cab_dtype_bytes(s->b.dtype, k), buffer, n);
        for (int64_t i = 0; i < s->m; i++)
            out[i] += cab_dot(buffer, l->wide + i * s->k + k, n);
    }
}

/* ---- in 16 bits ---------------------------------------------------------------------------------------------------- */

#if defined(__AVX2__)

/* 16 elements of B times 16 of a row of A, in sums of two. |q u| <= 2^22. */
static inline __m256i products(__m128i u, const int16_t *q)
{
    return _mm256_madd_epi16(_mm256_cvtepi8_epi16(u), _mm256_loadu_si256((const __m256i *)q));
}

static inline float add_lanes(__m256 v)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

/* 16 bytes to 32 elements of four bits. */
static inline __m256i nibbles(const uint8_t *from)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)from);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), _mm256_set1_epi8(15));
}

/* 32 bits to 32 elements, 16 where the bit is set. */
static inline __m256i fifths(const uint8_t *from)
{
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    int32_t bits;
    memcpy(&bits, from, sizeof bits);
    const __m256i bytes = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(bytes, bit), _mm256_set1_epi8(16));
}

/* 32 elements of B: d u + m. Of Q6_K, the first and the last 16 have a scale more, an integer. */
typedef struct block {
    __m256i u;
    float d, m;
    int scales[2];
} block;

static inline __attribute__((always_inline)) block read_block(cab_dtype dtype, const uint8_t *b)
{
    const float d = cab_expand_half(b);
    switch (dtype) {
    case CAB_Q8_0:
        return (block){.u = _mm256_loadu_si256((const __m256i *)(b + 2)), .d = d};
    case CAB_Q4_0:
        return (block){.u = _mm256_sub_epi8(nibbles(b + 2), _mm256_set1_epi8(8)), .d = d};
    case CAB_Q4_1:
        return (block){.u = nibbles(b + 4), .d = d, .m = cab_expand_half(b + 2)};
    case CAB_Q5_0:
        return (block){.u = _mm256_sub_epi8(_mm256_or_si256(nibbles(b + 6), fifths(b + 2)), _mm256_set1_epi8(16)),
                       .d = d};
    default: /* CAB_Q5_1 */
        return (block){.u = _mm256_or_si256(nibbles(b + 8), fifths(b + 4)), .d = d, .m = cab_expand_half(b + 2)};
    }
}

/* The 32 elements j of a block of 256 of Q4_K or Q5_K. */
static inline __attribute__((always_inline)) block read_part(cab_dtype dtype, const uint8_t *b, int j)
{
    const bool five = dtype == CAB_Q5_K;
    const uint8_t *q = b + (five ? 48 : 16) + j / 2 * SMALL;
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)q);
    __m256i u = _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(j % 2 * 4)), _mm256_set1_epi8(15));
    int scale, offset;
    if (five) {
        const __m256i high = _mm256_loadu_si256((const __m256i *)(b + 16));
        const __m256i bit = _mm256_and_si256(_mm256_srl_epi16(high, _mm_cvtsi32_si128(j)), _mm256_set1_epi8(1));
        u = _mm256_or_si256(u, _mm256_slli_epi16(bit, 4));
    }
    cab_expand_six_bits(b + 4, j, &scale, &offset);
    return (block){.u = u, .d = cab_expand_half(b) * (float)scale, .m = -cab_expand_half(b + 2) * (float)offset};
}

/* The 32 elements j of a block of 256 of Q6_K: blocks.c says where each one's bits are. */
static inline __attribute__((always_inline)) block read_six(const uint8_t *b, int j)
{
    const int half = j / 4, k = j % 4;
    const __m256i low = _mm256_loadu_si256((const __m256i *)(b + half * 64 + k % 2 * SMALL));
    const __m256i up = _mm256_loadu_si256((const __m256i *)(b + 128 + half * SMALL));
    const __m256i four = _mm256_and_si256(_mm256_srl_epi16(low, _mm_cvtsi32_si128(k / 2 * 4)), _mm256_set1_epi8(15));
    const __m256i two = _mm256_and_si256(_mm256_srl_epi16(up, _mm_cvtsi32_si128(2 * k)), _mm256_set1_epi8(3));
    const __m256i u = _mm256_or_si256(four, _mm256_slli_epi16(two, 4));
    return (block){.u = _mm256_sub_epi8(u, _mm256_set1_epi8(32)),
                   .d = cab_expand_half(b + 208),
                   .scales = {(int8_t)b[192 + 2 * j], (int8_t)b[193 + 2 * j]}};
}

static inline __attribute__((always_inline)) block read_any(cab_dtype dtype, const uint8_t *row, int64_t i)
{
    const size_t bytes[CAB_DTYPES] = {[CAB_Q8_0] = 34, [CAB_Q4_0] = 18,  [CAB_Q4_1] = 20,  [CAB_Q5_0] = 22,
                                      [CAB_Q5_1] = 24, [CAB_Q4_K] = 144, [CAB_Q5_K] = 176, [CAB_Q6_K] = 210};
    if (dtype == CAB_Q6_K)
        return read_six(row + (size_t)(i / (SUPER / SMALL)) * bytes[dtype], (int)(i % (SUPER / SMALL)));
    if (dtype == CAB_Q4_K || dtype == CAB_Q5_K)
        return read_part(dtype, row + (size_t)(i / (SUPER / SMALL)) * bytes[dtype], (int)(i % (SUPER / SMALL)));
    return read_block(dtype, row + (size_t)i * bytes[dtype]);
}

static inline __attribute__((always_inline)) __m256i multiply_block(cab_dtype dtype, const block *b, const int16_t *q)
{
    __m256i first = products(_mm256_castsi256_si128(b->u), q);
    __m256i last = products(_mm256_extracti128_si256(b->u, 1), q + SMALL / 2);
    if (dtype == CAB_Q6_K) { /* 2^7 times 2^21 at most */
        first = _mm256_mullo_epi32(first, _mm256_set1_epi32(b->scales[0]));
        last = _mm256_mullo_epi32(last, _mm256_set1_epi32(b->scales[1]));
    }
    return _mm256_add_epi32(first, last);
}

/* Called with constants for dtype and m. Blocks alternate between two sums, so that one does not wait for the other. */
static inline __attribute__((always_inline)) void multiply_blocks(cab_dtype dtype, int m, int64_t k, const uint8_t *row,
                                                                  const left *l, float *out)
{
    const bool shifted = dtype == CAB_Q4_1 || dtype == CAB_Q5_1 || dtype == CAB_Q4_K || dtype == CAB_Q5_K;
    const int64_t blocks = k / SMALL;
    __m256 sum[2][CAB_BLOCK_FEW];
    float offset[CAB_BLOCK_FEW];
    for (int i = 0; i < m; i++) {
        sum[0][i] = sum[1][i] = _mm256_setzero_ps();
        offset[i] = 0;
    }
    for (int64_t first = 0; first < blocks; first += 2)
        for (int h = 0; h < 2 && first + h < blocks; h++) {
            const int64_t j = first + h;
            const block b = read_any(dtype, row, j);
            for (int i = 0; i < m; i++) {
                const int16_t *q = l->q + i * k + j * SMALL;
                const __m256 scale = _mm256_set1_ps(b.d * l->scales[i * blocks + j]);
                sum[h][i] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(multiply_block(dtype, &b, q)), sum[h][i]);
                if (shifted)
                    offset[i] += b.m * l->sums[i * blocks + j];
            }
        }
    for (int i = 0; i < m; i++)
        out[i] = add_lanes(_mm256_add_ps(sum[0][i], sum[1][i])) + offset[i];
}

#define BY_ROWS(type)                                                                                                  \
    static void multiply_##type(const cab_gemm_shape *s, const uint8_t *row, const left *l, float *out)                \
    {                                                                                                                  \
        if (s->m == 1)                                                                                                 \
            multiply_blocks(CAB_##type, 1, s->k, row, l, out);                                                         \
        else                                                                                                           \
            multiply_blocks(CAB_##type, (int)s->m, s->k, row, l, out);                                                 \
    }
BY_ROWS(Q8_0)
BY_ROWS(Q4_0)
BY_ROWS(Q4_1)
BY_ROWS(Q5_0)
BY_ROWS(Q5_1)
BY_ROWS(Q4_K)
BY_ROWS(Q5_K)
BY_ROWS(Q6_K)

#endif

typedef void multiply(const cab_gemm_shape *s, const uint8_t *row, const left *l, float *out);

static multiply *multiply_of(cab_dtype dtype)
{
#if defined(__AVX2__)
    static multiply *const by_type[CAB_DTYPES] = {
        [CAB_Q8_0] = multiply_Q8_0, [CAB_Q4_0] = multiply_Q4_0, [CAB_Q4_1] = multiply_Q4_1, [CAB_Q5_0] = multiply_Q5_0,
        [CAB_Q5_1] = multiply_Q5_1, [CAB_Q4_K] = multiply_Q4_K, [CAB_Q5_K] = multiply_Q5_K, [CAB_Q6_K] = multiply_Q6_K};
    if (by_type[dtype] != NULL)
        return by_type[dtype];
#else
    (void)dtype;
#endif
    return multiply_wide;
}

/* ---- both ---------------------------------------------------------------------------------------------------------- */

/* 32 numbers to 16 bits. */
static void round_block(const float *x, int16_t *q, float *scale, float *sum)
{
    float most = 0, shifted[SMALL];
    int total = 0;
    for (int i = 0; i < SMALL; i++)
        most = fabsf(x[i]) > most || x[i] != x[i] ? fabsf(x[i]) : most;
    const float inverse = most > 1e-30f ? 32767 / most : 0; /* of NaN 0, and the scale is NaN */
    for (int i = 0; i < SMALL; i++)
        shifted[i] = rintf(x[i] * inverse);
    for (int i = 0; i < SMALL; i++)
        q[i] = (int16_t)(shifted[i] == shifted[i] ? shifted[i] : 0.0f);
    for (int i = 0; i < SMALL; i++)
        total += q[i];
    *scale = most > 1e-30f || most != most ? most / 32767 : 0;
    *sum = *scale * (float)total;
}

static void prepare(const cab_gemm_shape *s, const void *a, const left *l, bool rounded)
{
    for (int64_t i = 0; i < s->m; i++) {
        float *wide = l->wide + i * s->k;
        if (s->a.dtype == CAB_F32)
            memcpy(wide, (const float *)a + i * s->a.row, (size_t)s->k * sizeof *wide);
        else
            cab_widen(wide, (const cab_bf16 *)a + i * s->a.row, s->k);
    }
    for (int64_t j = 0; rounded && j < s->m * s->k / SMALL; j++)
        round_block(l->wide + j * SMALL, l->q + j * SMALL, &l->scales[j], &l->sums[j]);
}

static void put(const cab_gemm_shape *s, void *c, const void *bias, int64_t column, const float *sums)
{
    float shift = 0;
    if (bias != NULL)
        shift = s->bias_dtype == CAB_F32 ? ((const float *)bias)[column]
                                         : cab_bf16_to_f32(((const cab_bf16 *)bias)[column]);
    for (int64_t i = 0; i < s->m; i++) {
        if (s->c.dtype == CAB_F32)
            ((float *)c)[i * s->c.row + column] = sums[i] + shift;
        else
            ((cab_bf16 *)c)[i * s->c.row + column] = cab_bf16_from_f32(sums[i] + shift);
    }
}

void CAB_ISA(cab_block_few)(const cab_backend *backend, const cab_gemm_shape *s, const void *a, const void *b, void *c,
                            const void *bias, void *scratch)
{
    const left l = left_of(s, scratch);
    const size_t row_bytes = cab_dtype_bytes(s->b.dtype, s->b.column);
    multiply *const run = multiply_of(s->b.dtype);
    prepare(s, a, &l, run != multiply_wide);
#pragma omp parallel for num_threads(cab_threads_for(backend, s->n * s->k)) schedule(static)
    for (int64_t column = 0; column < s->n; column++) {
        float sums[CAB_BLOCK_FEW];
        run(s, (const uint8_t *)b + (size_t)column * row_bytes, &l, sums);
        put(s, c, bias, column, sums);
    }
}
