/* optimizer.cu - AdamW on the GPU over all parameters in three launches; src/ops/optimizer.c has the formula.
 *
 * Layout: a block takes CAB_ADAMW_BLOCK neighbouring elements of one parameter. It finds the parameter by bisection in
 * a table in device memory. The host writes the table before every run, because a parameter may have got a bf16 copy
 * since the last one.
 *
 * Arithmetic:
 *
 *   1. sum g^2 in fp64: a partial sum per block, in scratch.
 *   2. One block adds the partial sums in order and derives what all elements share: the factor of clipping, the rate,
 *      the corrections 1 - beta1^step and 1 - beta2^step. The host need not know the norm before the update.
 *   3. m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, p -= rate lr (m^ / (sqrt(v^) + eps) + decay p), the
 *      average and the bf16 copy where there are any, g = 0: everything read and written once, 16 bytes an access.
 *
 * Of ranks that have a part of all parameters each (src/ops/optimizer.c), the norms of all parts are gathered between 1 and 2,
 * and another kernel adopts what every rank has published: 14 to 22 bytes an element.
 *
 * Bytes per element: 36 for 1 and 3 together, 38 with a bf16 copy, 8 more with an average. Memory is the limit. */
#include "ops/cuda/cuda.cuh"

extern "C" {
#include "ops/optimizer.h"
}

enum { THREADS = 256, SUM_THREADS = 1024, WIDTH = 4, UPLOAD = 64 };

/* What happens to the elements of this step. */
enum action { LEAVE, CLEAR, UPDATE };

struct numbers {
    int what;
    float scale, lr, correct1, correct2;
};

struct hyper {
    float beta1, beta2, eps, clip, ema;
    bool publish;
};

static hyper hyper_of(const cab_adamw_attributes *a)
{
    const cab_adamw_options *o = &a->options;
    const hyper h = {o->beta1, o->beta2, o->eps, o->clip, o->ema_decay, o->publish};
    return h;
}

extern "C" size_t cab_adamw_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_adamw_attributes *a = (const cab_adamw_attributes *)node->attributes;
    return a->blocks * sizeof(double) + sizeof(numbers);
}

extern "C" size_t cab_adamw_prepared_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return ((const cab_adamw_attributes *)node->attributes)->n * sizeof(cab_adamw_entry);
}

extern "C" cab_status cab_adamw_prepare_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_adamw_attributes *a = (const cab_adamw_attributes *)node->attributes;
    cab_adamw_entry *to = (cab_adamw_entry *)node->prepared;
    int64_t blocks = 0;
    for (size_t first = 0; first < a->n; first += UPLOAD) {
        cab_adamw_entry entries[UPLOAD];
        const size_t left = a->n - first, n = left < (size_t)UPLOAD ? left : (size_t)UPLOAD;
        for (size_t i = 0; i < n; i++) {
            const cab_optimized *o = &a->list[first + i];
            cab_tensor *p = o->parameter;
            const int64_t count = cab_optimized_count(o), first = o->first;
            const bool beside = !a->options.publish; /* averages and copies */
            float *average = beside && o->average ? o->average + first : NULL;
            void *low = beside && p->low ? (bf16 *)p->low->data + first : NULL;
            const cab_adamw_entry entry = {(float *)p->data + first, (float *)p->grad->data + first,
                                           o->m, o->v, average, low, blocks, count, o->decay, o->rate};
            entries[i] = entry;
            blocks += ceil_div(count, CAB_ADAMW_BLOCK);
            p->version++;
            if (p->low)
                p->low->version++;
        }
        CAB_TRY(backend->upload(backend, to + first, entries, n * sizeof *entries));
    }
    return CAB_OK;
}

/* The entry that block `block` belongs to: the last one that begins at or before it. */
__device__ __forceinline__ cab_adamw_entry find_entry(const cab_adamw_entry *table, int n, int64_t block)
{
    int low = 0, high = n;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (table[middle].first_block <= block)
            low = middle;
        else
            high = middle;
    }
    return table[low];
}

template <int BLOCK_THREADS> __device__ __forceinline__ double block_sum_double(double x, double *shared)
{
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, lanes);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < BLOCK_THREADS / 32 ? shared[threadIdx.x % 32] : 0.0;
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}

static __global__ void __launch_bounds__(THREADS) sum_squares(const cab_adamw_entry *table, int n, double *partials)
{
    __shared__ double shared[THREADS / 32];
    const cab_adamw_entry e = find_entry(table, n, blockIdx.x);
    const int64_t first = (blockIdx.x - e.first_block) * CAB_ADAMW_BLOCK, left = e.count - first;
    const int count = (int)(left < CAB_ADAMW_BLOCK ? left : CAB_ADAMW_BLOCK), packets = count / WIDTH;
    const float *g = e.g + first;
    double sum = 0.0;
#pragma unroll 4
    for (int i = threadIdx.x; i < packets; i += THREADS) {
        float x[WIDTH];
        load_floats(g + i * WIDTH, x);
#pragma unroll
        for (int k = 0; k < WIDTH; k++)
            sum += (double)x[k] * (double)x[k];
    }
    for (int i = packets * WIDTH + threadIdx.x; i < count; i += THREADS)
        sum += (double)g[i] * (double)g[i];
    sum = block_sum_double<THREADS>(sum, shared);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = sum;
}

/* The sum of n partial sums, or of the squares of the norms of `ranks` parts; in thread 0. */
__device__ __forceinline__ double add_up(const double *partials, int64_t n, const float *norms, int ranks, double *shared)
{
    double sum = 0.0;
    if (norms) {
        for (int r = 0; r < ranks && threadIdx.x == 0; r++)
            sum += (double)norms[r] * (double)norms[r];
        return sum;
    }
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < n; i += SUM_THREADS)
        sum += partials[i];
    return block_sum_double<SUM_THREADS>(sum, shared);
}

static __global__ void __launch_bounds__(SUM_THREADS) norm_of(const double *partials, int64_t n, float *norm)
{
    __shared__ double shared[SUM_THREADS / 32];
    const double sum = add_up(partials, n, NULL, 0, shared);
    if (threadIdx.x == 0)
        *norm = (float)sqrt(sum);
}

static __global__ void __launch_bounds__(SUM_THREADS)
    conclude(const double *partials, int64_t n, const float *norms, int ranks, hyper h, const float *lr, const int32_t *step, float *norm_out,
             numbers *out, cab_cuda_fault *fault)
{
    __shared__ double shared[SUM_THREADS / 32];
    const double sum = add_up(partials, n, norms, ranks, shared);
    if (threadIdx.x > 0)
        return;
    const double norm = sqrt(sum);
    const int t = *step;
    numbers c;
    c.what = t < 1 ? LEAVE : isfinite((float)norm) ? UPDATE : CLEAR;
    c.scale = h.clip > 0.0f && norm > (double)h.clip ? (float)((double)h.clip / norm) : 1.0f;
    c.lr = *lr;
    c.correct1 = (float)(1.0 / (1.0 - pow((double)h.beta1, (double)t)));
    c.correct2 = (float)(1.0 / (1.0 - pow((double)h.beta2, (double)t)));
    *norm_out = (float)norm;
    *out = c;
    if (t < 1)
        raise_fault(fault, CAB_CUDA_FAULT_STEP, t, 1);
}

template <int N>
__device__ __forceinline__ void update_packet(const cab_adamw_entry &e, const numbers &c, const hyper &h, int64_t at)
{
    float p[N], g[N], m[N], v[N], average[N], left[N];
    load_floats(e.p + at, p);
    load_floats(e.g + at, g);
    load_floats(e.m + at, m);
    load_floats(e.v + at, v);
    if (e.average)
        load_floats(e.average + at, average);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float gradient = c.scale * g[i];
        m[i] = h.beta1 * m[i] + (1.0f - h.beta1) * gradient;
        v[i] = h.beta2 * v[i] + (1.0f - h.beta2) * gradient * gradient;
        p[i] -= e.rate * c.lr * (m[i] * c.correct1 / (sqrtf(v[i] * c.correct2) + h.eps) + e.decay * p[i]);
        if (e.average)
            average[i] = h.ema * average[i] + (1.0f - h.ema) * p[i];
        left[i] = h.publish ? p[i] : 0.0f;
    }
    store_floats(e.p + at, p);
    store_floats(e.g + at, left);
    store_floats(e.m + at, m);
    store_floats(e.v + at, v);
    if (e.average)
        store_floats(e.average + at, average);
    if (e.low)
        store_floats((bf16 *)e.low + at, p);
}

static __global__ void __launch_bounds__(THREADS)
    update(const cab_adamw_entry *table, int n, const numbers *given, hyper h)
{
    const numbers c = *given;
    if (c.what == LEAVE)
        return;
    const cab_adamw_entry e = find_entry(table, n, blockIdx.x);
    const int64_t first = (blockIdx.x - e.first_block) * CAB_ADAMW_BLOCK, left = e.count - first;
    const int count = (int)(left < CAB_ADAMW_BLOCK ? left : CAB_ADAMW_BLOCK), packets = count / WIDTH;
    if (c.what == CLEAR) {
        for (int i = threadIdx.x; i < count; i += THREADS)
            e.g[first + i] = h.publish ? e.p[first + i] : 0.0f;
        return;
    }
    for (int i = threadIdx.x; i < packets; i += THREADS)
        update_packet<WIDTH>(e, c, h, first + i * WIDTH);
    for (int i = packets * WIDTH + threadIdx.x; i < count; i += THREADS)
        update_packet<1>(e, c, h, first + i);
}

extern "C" cab_status cab_adamw_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_adamw_attributes *a = (const cab_adamw_attributes *)node->attributes;
    const hyper h = hyper_of(a);
    const cab_tensor *norms = node->in[CAB_ADAMW_NORMS];
    const cab_adamw_entry *table = (const cab_adamw_entry *)node->prepared;
    double *partials = (double *)node->scratch;
    numbers *shared = (numbers *)(partials + a->blocks);
    const unsigned blocks = (unsigned)a->blocks;
    const cudaStream_t stream = stream_of(backend);
    if (!norms)
        sum_squares<<<blocks, THREADS, 0, stream>>>(table, (int)a->n, partials);
    conclude<<<1, SUM_THREADS, 0, stream>>>(partials, blocks, norms ? (const float *)norms->data : NULL,
                                            norms ? (int)cab_elements(norms) : 0, h, (const float *)node->in[0]->data,
                                            (const int32_t *)node->in[1]->data, (float *)node->out[0]->data, shared,
                                            cab_cuda_of(backend)->fault);
    if (blocks > 0)
        update<<<blocks, THREADS, 0, stream>>>(table, (int)a->n, shared, h);
    return cab_cuda_launched("adamw");
}

extern "C" cab_status cab_gradient_norm_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_adamw_attributes *a = (const cab_adamw_attributes *)node->attributes;
    double *partials = (double *)node->scratch;
    const unsigned blocks = (unsigned)a->blocks;
    const cudaStream_t stream = stream_of(backend);
    if (blocks > 0)
        sum_squares<<<blocks, THREADS, 0, stream>>>((const cab_adamw_entry *)node->prepared, (int)a->n, partials);
    norm_of<<<1, SUM_THREADS, 0, stream>>>(partials, blocks, (float *)node->out[0]->data);
    return cab_cuda_launched("gradient_norm");
}

template <int N>
__device__ __forceinline__ void adopt_packet(const cab_adamw_entry &e, float ema, bool updated, int64_t at)
{
    float p[N], average[N];
    const float zero[N] = {};
    load_floats(e.g + at, p);
    store_floats(e.p + at, p);
    store_floats(e.g + at, zero);
    if (e.low)
        store_floats((bf16 *)e.low + at, p);
    if (!e.average || !updated)
        return;
    load_floats(e.average + at, average);
#pragma unroll
    for (int i = 0; i < N; i++)
        average[i] = ema * average[i] + (1.0f - ema) * p[i];
    store_floats(e.average + at, average);
}

/* p = g, average = ema average + (1 - ema) p, bf16 copy = p, g = 0. */
static __global__ void __launch_bounds__(THREADS) adopt(const cab_adamw_entry *table, int n, const float *norm, float ema)
{
    const bool updated = isfinite(*norm);
    const cab_adamw_entry e = find_entry(table, n, blockIdx.x);
    const int64_t first = (blockIdx.x - e.first_block) * CAB_ADAMW_BLOCK, left = e.count - first;
    const int count = (int)(left < CAB_ADAMW_BLOCK ? left : CAB_ADAMW_BLOCK), packets = count / WIDTH;
    for (int i = threadIdx.x; i < packets; i += THREADS)
        adopt_packet<WIDTH>(e, ema, updated, first + i * WIDTH);
    for (int i = packets * WIDTH + threadIdx.x; i < count; i += THREADS)
        adopt_packet<1>(e, ema, updated, first + i);
}

extern "C" cab_status cab_adopt_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_adamw_attributes *a = (const cab_adamw_attributes *)node->attributes;
    adopt<<<(unsigned)a->blocks, THREADS, 0, stream_of(backend)>>>((const cab_adamw_entry *)node->prepared, (int)a->n,
                                                                   (const float *)node->in[0]->data, a->options.ema_decay);
    return cab_cuda_launched("adopt");
}
