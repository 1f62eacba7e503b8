/* head_loss_rows.cu - cross-entropy and KL of rows of logits, and the gradient of the student's logits.
 *
 * Names: s, t are the logits of student and teacher; s' = s - max s, t' = t - max t; Z_s = sum exp(s'), in the KL with
 * exponents divided by T; p = softmax(s), p_T = softmax(s / T), q = softmax(t / T); y is the distribution of the
 * labels.
 *
 * Arithmetic per row, n_ce and n_kl being the rows that count:
 *
 *   CE = sum(y) log Z_s - sum_v y_v s'_v            KL = T^2 (sum_v q_v (t'_v - s'_v) / T - log Z_t + log Z_s)
 *   ds = seed_ce / n_ce (sum(y) p - y) + seed_kl T / n_kl (p_T - q), with a soft cap times 1 - (s / cap)^2
 *
 * Layout: one block per row. In the first pass every thread keeps a running maximum and sums, and scales the sums down
 * when the maximum grows; then the block agrees on one maximum and the sums in shared memory. The second pass writes
 * ds in the place of the student's logits. Between the passes both rows stay in shared memory if they fit (V = 50257
 * in bf16: 197 KiB), else the second pass reads them from the second-level cache.
 *
 * Per row with a teacher, in bf16: 4 V bytes read, 2 V written; 4 exponentials per word, 6 if T is not 1. Memory is
 * the limit, exponentials are close behind. */
#include "ops/cuda/soft_cap.cuh"
#include "ops/cuda/head_loss_rows.h"

extern "C" {
#include "ops/head_loss.h"
}

#include <cfloat>
#include <climits>

constexpr float LOG2E = 1.44269504f;
constexpr int MANY = 1024, FEW = 256, MANY_WORDS = 16384; /* threads per row, by the size of the vocabulary */

/* 2^x; 0 for what would be denormal. */
__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* ---- counting -------------------------------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(MANY) count_rows(cab_head_rows h, cab_cuda_fault *fault)
{
    __shared__ int labels[32], valid[32];
    int n_label = 0, n_valid = 0;
    for (int64_t row = threadIdx.x; row < h.rows; row += MANY) {
        const int label = h.labels[row];
        if (label < -1 || label >= h.V)
            raise_fault(fault, CAB_CUDA_FAULT_LABEL, label, h.V);
        n_label += label >= 0 && label < h.V;
        n_valid += h.valid == NULL || h.valid[row] != 0;
    }
    n_label = __reduce_add_sync(0xffffffffu, n_label);
    n_valid = __reduce_add_sync(0xffffffffu, n_valid);
    if (threadIdx.x % 32 == 0) {
        labels[threadIdx.x / 32] = n_label;
        valid[threadIdx.x / 32] = n_valid;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        n_label = __reduce_add_sync(0xffffffffu, labels[threadIdx.x]);
        n_valid = __reduce_add_sync(0xffffffffu, valid[threadIdx.x]);
    }
    if (threadIdx.x == 0) {
        h.count[0] = (float)n_label;
        h.count[1] = (float)n_valid;
    }
}

extern "C" cab_status cab_head_count_cuda(cab_backend *backend, const cab_head_rows *h)
{
    count_rows<<<1, MANY, 0, stream_of(backend)>>>(*h, cab_cuda_of(backend)->fault);
    return cab_cuda_launched("head_loss: counts");
}

/* ---- what a thread gathers from a row -------------------------------------------------------------------------------- */

/* One row: logits, what stays of them for the second pass, targets. */
template <typename T> struct row_of {
    T *s;
    const T *t;                 /* NULL: no teacher, or a row that takes no part in KL */
    T *kept_s, *kept_t;         /* shared memory; NULL: nothing is kept */
    const T *again_s, *again_t; /* where the second pass reads */
    const float *y;             /* NULL: the label alone */
    int label;
};

struct maximum {
    float value;
    int place; /* where the vector begins that holds it */
};

/* Sums of exponentials below the maxima; at the temperature those that end in T. */
struct statistics {
    maximum s, t;
    float s_sum, s_sum_T, t_sum_T;
    float difference;       /* of exp(t' / T) (t - s) */
    float target, target_s; /* of y, of y s */
};

/* Takes in N elements; by how much the maximum has grown, as a number <= 0. */
template <int N> __device__ __forceinline__ float raise(maximum *m, const float (&x)[N], int at)
{
    float top = x[0];
#pragma unroll
    for (int i = 1; i < N; i++)
        top = fmaxf(top, x[i]);
    if (!(top > m->value))
        return 0.0f;
    const float growth = m->value - top;
    m->value = top;
    m->place = at;
    return growth;
}

template <bool WARM, int N>
__device__ __forceinline__ void add_student(statistics *k, const float (&s)[N], int at, float sharp)
{
    const float growth = raise(&k->s, s, at);
    if (growth != 0.0f) {
        k->s_sum *= exp2_fast(growth * LOG2E);
        if (WARM)
            k->s_sum_T *= exp2_fast(growth * sharp);
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        k->s_sum += exp2_fast((s[i] - k->s.value) * LOG2E);
        if (WARM)
            k->s_sum_T += exp2_fast((s[i] - k->s.value) * sharp);
    }
}

template <int N>
__device__ __forceinline__ void add_teacher(statistics *k, const float (&s)[N], const float (&t)[N], int at,
                                            float sharp)
{
    const float growth = raise(&k->t, t, at);
    if (growth != 0.0f) {
        const float scale = exp2_fast(growth * sharp);
        k->t_sum_T *= scale;
        k->difference *= scale;
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float e = exp2_fast((t[i] - k->t.value) * sharp);
        k->t_sum_T += e;
        k->difference += e * (t[i] - s[i]);
    }
}

template <int N, typename T> __device__ __forceinline__ void take(const T *from, T *keep, int at, float (&x)[N])
{
    const vec<T, N> v = load_vec<T, N>(from + at);
    if (keep != NULL)
        *reinterpret_cast<vec<T, N> *>(keep + at) = v;
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = to_float(v.at[i]);
}

template <int N, bool TEACHER, bool WARM, typename T>
__device__ __forceinline__ void gather(const row_of<T> &row, int at, float sharp, statistics *k)
{
    float s[N], t[N];
    take(row.s, row.kept_s, at, s);
    if (TEACHER && row.t != NULL)
        take(row.t, row.kept_t, at, t);
    add_student<WARM>(k, s, at, sharp);
    if (TEACHER && row.t != NULL)
        add_teacher(k, s, t, at, sharp);
    if (row.y != NULL)
#pragma unroll
        for (int i = 0; i < N; i++) {
            k->target += row.y[at + i];
            k->target_s += row.y[at + i] * s[i];
        }
}

/* ---- what the block agrees on ---------------------------------------------------------------------------------------- */

enum { SUMS = 6 };

struct exchange {
    int value[2][32], place[2][32]; /* of student and teacher, per warp */
    float sums[SUMS][32];
    int largest[2]; /* the first place of the largest logit */
};

/* Order-preserving, both ways; not for NaN. */
__device__ __forceinline__ int ordered(int bits)
{
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

__device__ __forceinline__ void warp_maximum(int *value, int *place)
{
    const int top = __reduce_max_sync(0xffffffffu, *value);
    *place = __reduce_min_sync(0xffffffffu, *value == top ? *place : INT_MAX);
    *value = top;
}

/* The block's maxima and where they lie; before the next use of x a barrier is needed. */
template <int THREADS> __device__ __forceinline__ void agree_maxima(exchange *x, maximum *s, maximum *t)
{
    maximum *const both[2] = {s, t};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int value = ordered(__float_as_int(both[i]->value)), place = both[i]->place;
        warp_maximum(&value, &place);
        if (lane == 0) {
            x->value[i][warp] = value;
            x->place[i][warp] = place;
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int value = lane < THREADS / 32 ? x->value[i][lane] : INT_MIN;
        int place = lane < THREADS / 32 ? x->place[i][lane] : INT_MAX;
        warp_maximum(&value, &place);
        both[i]->value = __int_as_float(ordered(value));
        both[i]->place = place;
    }
}

/* The sums of the block, scaled to the block's maxima. */
template <int THREADS> __device__ __forceinline__ void agree_sums(exchange *x, float *const (&sums)[SUMS])
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < SUMS; i++) {
        const float sum = warp_sum(*sums[i]);
        if (lane == 0)
            x->sums[i][warp] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < SUMS; i++)
        *sums[i] = warp_sum(lane < THREADS / 32 ? x->sums[i][lane] : 0.0f);
}

/* The place of the largest logit, found by the thread that met it. */
template <typename T>
__device__ __forceinline__ void find_largest(exchange *x, int which, const maximum &mine, const maximum &all,
                                             const T *kept, int V)
{
    if (mine.place != all.place || mine.place >= V)
        return;
    int at = mine.place;
    while (at + 1 < V && to_float(kept[at]) != all.value)
        at++;
    x->largest[which] = at;
}

template <int THREADS, bool TEACHER, bool WARM, typename T>
__device__ __forceinline__ void agree(exchange *x, const row_of<T> &row, int V, float sharp, statistics *k)
{
    const maximum s = k->s, t = k->t;
    agree_maxima<THREADS>(x, &k->s, &k->t);
    if (TEACHER && row.t != NULL) {
        find_largest(x, 0, s, k->s, row.again_s, V);
        find_largest(x, 1, t, k->t, row.again_t, V);
    }
    const float fall_s = s.value - k->s.value, fall_t = exp2_fast((t.value - k->t.value) * sharp);
    k->s_sum *= exp2_fast(fall_s * LOG2E);
    k->s_sum_T *= exp2_fast(fall_s * sharp);
    k->t_sum_T *= fall_t;
    k->difference *= fall_t;
    float *const sums[SUMS] = {&k->s_sum, &k->s_sum_T, &k->t_sum_T, &k->difference, &k->target, &k->target_s};
    agree_sums<THREADS>(x, sums);
    if (!WARM)
        k->s_sum_T = k->s_sum;
}

/* ---- losses and gradients of a row ----------------------------------------------------------------------------------- */

/* d = a exp(s') + b exp(s' / T) - c exp(t' / T) - ce y, times the slope at a soft cap */
struct factors {
    float a, b, c, ce, cap;
};

__device__ __forceinline__ void write_losses(const cab_head_rows &h, const exchange &x, const statistics &k,
                                             int64_t row, float chosen, bool labelled, bool distilled)
{
    const float T = h.temperature;
    float kl = 0.0f;
    if (distilled)
        kl = T * T * ((k.difference / k.t_sum_T - k.t.value + k.s.value) / T - logf(k.t_sum_T) + logf(k.s_sum_T));
    h.results[row] = labelled ? k.target * logf(k.s_sum) - chosen : 0.0f;
    h.results[h.rows + row] = kl;
    h.results[2 * h.rows + row] = distilled && x.largest[0] == x.largest[1] ? 1.0f : 0.0f;
}

/* A seed's share of each of `count` rows. */
__device__ __forceinline__ float share(const float *seed, float count)
{
    return seed != NULL && count > 0.0f ? *seed / count : 0.0f;
}

template <bool WARM>
__device__ __forceinline__ factors factors_of(const cab_head_rows &h, const statistics &k, bool labelled,
                                              bool distilled)
{
    const float ce = labelled ? share(h.ce_seed, h.count[0]) : 0.0f;
    const float kl = distilled ? share(h.kl_seed, h.count[1]) * h.temperature : 0.0f;
    factors f = {ce * k.target / k.s_sum, 0.0f, 0.0f, ce, h.cap};
    if (kl != 0.0f) {
        f.b = kl / k.s_sum_T;
        f.c = kl / k.t_sum_T;
    }
    if (!WARM)
        f.a += f.b;
    return f;
}

/* The gradient of N logits. */
template <int N, bool TEACHER, bool WARM, typename T>
__device__ __forceinline__ void put(const row_of<T> &row, int at, float sharp, const statistics &k, const factors &f)
{
    float s[N], d[N];
    load_floats(row.again_s + at, s);
#pragma unroll
    for (int i = 0; i < N; i++)
        d[i] = f.a * exp2_fast((s[i] - k.s.value) * LOG2E);
    if (TEACHER && f.c != 0.0f) {
        float t[N];
        load_floats(row.again_t + at, t);
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (WARM)
                d[i] += f.b * exp2_fast((s[i] - k.s.value) * sharp);
            d[i] -= f.c * exp2_fast((t[i] - k.t.value) * sharp);
        }
    }
    if (row.y != NULL && f.ce != 0.0f) {
#pragma unroll
        for (int i = 0; i < N; i++)
            d[i] -= f.ce * row.y[at + i];
    } else if (row.label >= at && row.label < at + N) {
#pragma unroll
        for (int i = 0; i < N; i++)
            d[i] -= row.label == at + i ? f.ce : 0.0f;
    }
    if (f.cap > 0.0f)
#pragma unroll
        for (int i = 0; i < N; i++)
            d[i] *= soft_cap_slope(s[i], f.cap);
    store_floats(row.s + at, d);
}

template <typename T, bool TEACHER>
__device__ __forceinline__ row_of<T> open_row(const cab_head_rows &h, int64_t row, int64_t i, T *kept)
{
    row_of<T> r = {(T *)h.student + i * h.ld, NULL, kept, NULL, NULL, NULL, NULL, h.labels[row]};
    if (r.label < 0 || r.label >= h.V)
        r.label = -1;
    if (TEACHER && (h.valid == NULL || h.valid[row] != 0)) {
        r.t = (const T *)h.teacher + i * h.ld;
        r.kept_t = kept != NULL ? kept + h.ld : NULL;
    }
    if (h.targets != NULL && r.label >= 0)
        r.y = h.targets + row * h.V;
    r.again_s = kept != NULL ? r.kept_s : r.s;
    r.again_t = kept != NULL ? r.kept_t : r.t;
    return r;
}

/* Block i has row first + i. With `keep`, dynamic shared memory has room for the row, or both rows. */
template <typename T, int THREADS, bool TEACHER, bool WARM>
static __global__ void __launch_bounds__(THREADS) head_row(cab_head_rows h, int64_t first, bool keep)
{
    extern __shared__ uint4 kept[];
    __shared__ exchange x;
    constexpr int N = WIDE<T>;
    const int V = (int)h.V, even = V / N * N;
    const int64_t index = first + blockIdx.x;
    const float sharp = LOG2E / h.temperature;
    const row_of<T> row = open_row<T, TEACHER>(h, index, blockIdx.x, keep ? reinterpret_cast<T *>(kept) : NULL);
    const bool labelled = row.label >= 0, distilled = TEACHER && row.t != NULL;
    statistics k = {{-FLT_MAX, INT_MAX}, {-FLT_MAX, INT_MAX}, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (threadIdx.x == 0)
        x.largest[0] = x.largest[1] = -1;
    for (int at = threadIdx.x * N; at < even; at += THREADS * N)
        gather<N, TEACHER, WARM>(row, at, sharp, &k);
    if (even + (int)threadIdx.x < V)
        gather<1, TEACHER, WARM>(row, even + threadIdx.x, sharp, &k);
    agree<THREADS, TEACHER, WARM>(&x, row, V, sharp, &k);
    if (row.y == NULL)
        k.target = 1.0f;
    if (threadIdx.x == 0) {
        float chosen = 0.0f;
        if (labelled)
            chosen = row.y != NULL ? k.target_s - k.target * k.s.value : to_float(row.again_s[row.label]) - k.s.value;
        write_losses(h, x, k, index, chosen, labelled, distilled);
    }
    if (!h.gradient)
        return;
    __syncthreads(); /* the label's logit has been read */
    const factors f = factors_of<WARM>(h, k, labelled, distilled);
    for (int at = threadIdx.x * N; at < even; at += THREADS * N)
        put<N, TEACHER, WARM>(row, at, sharp, k, f);
    if (even + (int)threadIdx.x < V)
        put<1, TEACHER, WARM>(row, even + threadIdx.x, sharp, k, f);
    for (int at = V + threadIdx.x; at < h.ld; at += THREADS)
        row.s[at] = from_float<T>(0.0f);
}

template <typename T, int THREADS, bool TEACHER, bool WARM>
static cab_status launch(cab_backend *backend, const cab_head_rows *h, int64_t first, int64_t n)
{
    void (*const kernel)(cab_head_rows, int64_t, bool) = head_row<T, THREADS, TEACHER, WARM>;
    const size_t row = (size_t)h->ld * sizeof(T), both = TEACHER ? 2 * row : row;
    const bool keep = h->gradient && both + sizeof(exchange) + 1024 <= cab_cuda_of(backend)->shared_limit;
    if (keep)
        CAB_TRY(cab_cuda_shared((const void *)kernel, both, "head_loss"));
    kernel<<<(unsigned)n, THREADS, keep ? both : 0, stream_of(backend)>>>(*h, first, keep);
    return cab_cuda_launched("head_loss: rows");
}

template <typename T, int THREADS>
static cab_status by_teacher(cab_backend *backend, const cab_head_rows *h, int64_t first, int64_t n)
{
    if (h->teacher == NULL)
        return launch<T, THREADS, false, false>(backend, h, first, n);
    return h->temperature == 1.0f ? launch<T, THREADS, true, false>(backend, h, first, n)
                                  : launch<T, THREADS, true, true>(backend, h, first, n);
}

template <typename T> static cab_status by_words(cab_backend *backend, const cab_head_rows *h, int64_t first, int64_t n)
{
    return h->V >= MANY_WORDS ? by_teacher<T, MANY>(backend, h, first, n) : by_teacher<T, FEW>(backend, h, first, n);
}

extern "C" cab_status cab_head_rows_cuda(cab_backend *backend, const cab_head_rows *h, int64_t first, int64_t n)
{
    cab_status status;
    BY_DTYPE(h->dtype, status = by_words<T>(backend, h, first, n));
    return status;
}

/* ---- soft caps ------------------------------------------------------------------------------------------------------- */

template <typename T>
static __global__ void __launch_bounds__(FEW) cap_rows(T *logits, int64_t ld, int64_t V, float cap)
{
    T *row = logits + blockIdx.x * ld;
    for (int64_t at = threadIdx.x; at < V; at += FEW)
        row[at] = from_float<T>(soft_cap(to_float(row[at]), cap));
}

extern "C" cab_status cab_head_cap_cuda(cab_backend *backend, const cab_head_rows *h, void *logits, float cap,
                                        int64_t n)
{
    BY_DTYPE(h->dtype,
             (cap_rows<T><<<(unsigned)n, FEW, 0, stream_of(backend)>>>((T *)logits, h->ld, h->V, cap)));
    return cab_cuda_launched("head_loss: cap");
}

/* ---- a teacher that is its likeliest words ---------------------------------------------------------------------------- */

/* One block per row: the student's maximum and sum, what both leave beyond the words, then the teacher's logits. */
template <typename T>
static __global__ void __launch_bounds__(FEW)
    expand_words(const T *student, T *teacher, int64_t ld, int V, const int32_t *ids, const float *top, int k,
                 int64_t first, cab_cuda_fault *fault)
{
    __shared__ float shared[4][FEW / 32];
    const T *s = student + blockIdx.x * ld;
    T *t = teacher + blockIdx.x * ld;
    const int32_t *id = ids + (first + blockIdx.x) * k;
    const float *q = top + (first + blockIdx.x) * k;
    float largest = -FLT_MAX, z = 0.0f, within = 0.0f, held = 0.0f;
    for (int v = threadIdx.x; v < V; v += FEW)
        largest = fmaxf(largest, to_float(s[v]));
    largest = warp_max(largest);
    if (threadIdx.x % 32 == 0)
        shared[0][threadIdx.x / 32] = largest;
    __syncthreads();
    largest = warp_max(threadIdx.x % 32 < FEW / 32 ? shared[0][threadIdx.x % 32] : -FLT_MAX);
    for (int v = threadIdx.x; v < V; v += FEW)
        z += exp2_fast((to_float(s[v]) - largest) * LOG2E);
    for (int i = threadIdx.x; i < k; i += FEW) {
        if (id[i] < 0 || id[i] >= V) {
            raise_fault(fault, CAB_CUDA_FAULT_ID, id[i], V);
            continue;
        }
        within += exp2_fast((to_float(s[id[i]]) - largest) * LOG2E);
        held += exp2_fast(q[i] * LOG2E);
    }
    z = block_sum<FEW>(z, shared[1]);
    within = block_sum<FEW>(within, shared[2]);
    held = block_sum<FEW>(held, shared[3]);
    const float rest = fmaxf(1.0f - held, CAB_HEAD_REST), outside = fmaxf((z - within) / z, CAB_HEAD_REST);
    const float shift = logf(rest / outside) - largest - logf(z);
    for (int v = threadIdx.x; v < V; v += FEW)
        t[v] = from_float<T>(to_float(s[v]) + shift);
    __syncthreads();
    for (int i = threadIdx.x; i < k; i += FEW)
        if (id[i] >= 0 && id[i] < V)
            t[id[i]] = from_float<T>(q[i]);
}

extern "C" cab_status cab_head_words_cuda(cab_backend *backend, const cab_head_rows *h, void *teacher,
                                          const int32_t *ids, const float *top, int k, int64_t first, int64_t n)
{
    BY_DTYPE(h->dtype, (expand_words<T><<<(unsigned)n, FEW, 0, stream_of(backend)>>>(
                           (const T *)h->student, (T *)teacher, h->ld, (int)h->V, ids, top, k, first,
                           cab_cuda_of(backend)->fault)));
    return cab_cuda_launched("head_loss: words");
}

/* ---- means, biases --------------------------------------------------------------------------------------------------- */

/* Sums of `n` results by one block, in a fixed order; thread 0 gets them. */
__device__ __forceinline__ double block_total(const float *x, int64_t n, double *shared)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += MANY)
        sum += (double)x[i];
    for (int lanes = 16; lanes > 0; lanes /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 1; i < MANY / 32; i++)
            sum += shared[i];
    return sum;
}

/* One block each for the cross-entropy, KL and agreement. */
static __global__ void __launch_bounds__(MANY) report(cab_head_rows h, float *ce, float *kl, float *agreement)
{
    __shared__ double shared[MANY / 32];
    float *const to[3] = {ce, kl, agreement};
    const double total = block_total(h.results + blockIdx.x * h.rows, h.rows, shared);
    if (threadIdx.x == 0)
        *to[blockIdx.x] = (float)(total / fmax((double)h.count[blockIdx.x > 0], 1.0));
}

extern "C" cab_status cab_head_report_cuda(cab_backend *backend, const cab_head_rows *h, float *ce, float *kl,
                                           float *agreement)
{
    report<<<h->teacher != NULL ? 3 : 1, MANY, 0, stream_of(backend)>>>(*h, ce, kl, agreement);
    return cab_cuda_launched("head_loss: report");
}

template <typename FROM, typename TO> static __global__ void convert(const FROM *from, TO *to, int64_t n)
{
    const int64_t i = blockIdx.x * (int64_t)FEW + threadIdx.x;
    if (i < n)
        to[i] = from_float<TO>(to_float(from[i]));
}

extern "C" cab_status cab_head_convert_cuda(cab_backend *backend, const void *from, cab_dtype from_dtype, void *to,
                                            cab_dtype to_dtype, int64_t n)
{
    const unsigned blocks = (unsigned)ceil_div(n, FEW);
    if (from_dtype == CAB_F32 && to_dtype == CAB_BF16)
        convert<<<blocks, FEW, 0, stream_of(backend)>>>((const float *)from, (bf16 *)to, n);
    else if (from_dtype == CAB_BF16 && to_dtype == CAB_F32)
        convert<<<blocks, FEW, 0, stream_of(backend)>>>((const bf16 *)from, (float *)to, n);
    else
        return cab_fail(CAB_EUNSUPPORTED, "head_loss: a bias of %s for logits of %s", cab_dtype_name(from_dtype),
                        cab_dtype_name(to_dtype));
    return cab_cuda_launched("head_loss: bias");
}
