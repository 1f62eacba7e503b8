/* optimizer.c - AdamW on the CPU; src/ops/optimizer.c has the formula.
 *
 * The list is cut into blocks of CAB_ADAMW_BLOCK elements, whatever the number of threads. One pass over the gradients sums
 * their squares in fp64, per block and then over blocks in order; a second reads and writes everything else once. */
#include "ops/optimizer.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

/* The update's numbers, the same for every block. */
typedef struct update {
    float scale; /* of the gradient, from clipping */
    float lr, beta1, beta2, eps, ema;
    float correct1, correct2; /* 1 / (1 - beta^step) */
} update;

static void cut(const cab_adamw_attributes *a, cab_adamw_block *blocks)
{
    for (size_t i = 0; i < a->n; i++) {
        const size_t begin = (size_t)a->list[i].first, end = begin + (size_t)cab_optimized_count(&a->list[i]);
        for (size_t first = begin; first < end; first += CAB_ADAMW_BLOCK) {
            size_t count = end - first < CAB_ADAMW_BLOCK ? end - first : CAB_ADAMW_BLOCK;
            *blocks++ = (cab_adamw_block){.entry = i, .first = first, .count = count};
        }
    }
}

static double squares(const float *g, size_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)g[i] * (double)g[i];
    return sum;
}

static void apply(const update *u, const cab_optimized *o, size_t n, float *restrict p, float *restrict g,
                  float *restrict m, float *restrict v)
{
    const update c = *u;
    const float lr = o->rate * c.lr, decay = o->decay;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        const float gradient = c.scale * g[i];
        m[i] = c.beta1 * m[i] + (1.0f - c.beta1) * gradient;
        v[i] = c.beta2 * v[i] + (1.0f - c.beta2) * gradient * gradient;
        p[i] -= lr * (m[i] * c.correct1 / (sqrtf(v[i] * c.correct2) + c.eps) + decay * p[i]);
        g[i] = 0.0f;
    }
}

static void average(float ema, size_t n, const float *restrict p, float *restrict mean)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        mean[i] = ema * mean[i] + (1.0f - ema) * p[i];
}

/* A piece at a time, so that what one loop wrote is still in the cache for the next. */
static void update_block(const cab_adamw_attributes *a, const cab_adamw_block *block, const update *u)
{
    const cab_optimized *o = &a->list[block->entry];
    float *p = o->parameter->data, *g = o->parameter->grad->data, *m = o->m - o->first, *v = o->v - o->first;
    cab_bf16 *low = o->parameter->low != NULL ? o->parameter->low->data : NULL;
    for (size_t i = block->first, end = block->first + block->count; i < end; i += CAB_PIECE) {
        const size_t n = end - i < CAB_PIECE ? end - i : CAB_PIECE;
        apply(u, o, n, p + i, g + i, m + i, v + i);
        if (a->options.publish) {
            memcpy(g + i, p + i, n * sizeof *g);
            continue;
        }
        if (o->average != NULL)
            average(u->ema, n, p + i, o->average + i);
        if (low != NULL)
            cab_narrow(low + i, p + i, (int64_t)n);
    }
}

/* The part of adopt() that is a block. */
static void adopt_block(const cab_adamw_attributes *a, const cab_adamw_block *block, bool updated)
{
    const cab_optimized *o = &a->list[block->entry];
    float *p = (float *)o->parameter->data + block->first, *g = (float *)o->parameter->grad->data + block->first;
    memcpy(p, g, block->count * sizeof *p);
    memset(g, 0, block->count * sizeof *g);
    if (o->average != NULL && updated)
        average(a->options.ema_decay, block->count, p, o->average + block->first);
    if (o->parameter->low != NULL)
        cab_narrow((cab_bf16 *)o->parameter->low->data + block->first, p, (int64_t)block->count);
}

static double gradient_norm(const cab_adamw_attributes *a, cab_adamw_block *blocks, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size_t i = 0; i < a->blocks; i++) {
        const float *g = a->list[blocks[i].entry].parameter->grad->data;
        blocks[i].squares = squares(g + blocks[i].first, blocks[i].count);
    }
    double sum = 0.0;
    for (size_t i = 0; i < a->blocks; i++)
        sum += blocks[i].squares;
    return sqrt(sum);
}

/* Parameters stay; published they are all the same. */
static void clear_gradients(const cab_adamw_attributes *a)
{
    for (size_t i = 0; i < a->n; i++) {
        const cab_optimized *o = &a->list[i];
        float *g = (float *)o->parameter->grad->data + o->first;
        const size_t bytes = (size_t)cab_optimized_count(o) * sizeof *g;
        if (a->options.publish)
            memcpy(g, (const float *)o->parameter->data + o->first, bytes);
        else
            memset(g, 0, bytes);
    }
}

/* Of all ranks' parts, in their order. */
static double whole_norm(const cab_tensor *norms)
{
    const float *part = norms->data;
    double sum = 0.0;
    for (int64_t r = 0; r < cab_elements(norms); r++)
        sum += (double)part[r] * (double)part[r];
    return sqrt(sum);
}

/* What is kept of a parameter beside it follows its version. */
static void raise_versions(const cab_adamw_attributes *a)
{
    for (size_t i = 0; i < a->n; i++) {
        cab_tensor *p = a->list[i].parameter;
        p->version++;
        if (p->low != NULL)
            p->low->version++;
    }
}

cab_status CAB_ISA(cab_gradient_norm_forward)(const cab_node *node, cab_backend *backend)
{
    cut(node->attributes, node->scratch);
    *(float *)node->out[0]->data = (float)gradient_norm(node->attributes, node->scratch, backend->threads);
    return CAB_OK;
}

cab_status CAB_ISA(cab_adopt_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_adamw_attributes *a = node->attributes;
    const cab_adamw_block *blocks = node->scratch;
    const bool updated = isfinite(*(const float *)node->in[0]->data);
    cut(a, node->scratch);
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (size_t i = 0; i < a->blocks; i++)
        adopt_block(a, &blocks[i], updated);
    raise_versions(a);
    return CAB_OK;
}

cab_status CAB_ISA(cab_adamw_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_adamw_attributes *a = node->attributes;
    const cab_adamw_options *o = &a->options;
    const int32_t step = *(const int32_t *)node->in[1]->data;
    cab_adamw_block *blocks = node->scratch;
    if (step < 1)
        return cab_fail(CAB_EARG, "adamw: step is %d, expected 1 for the first update", (int)step);
    cut(a, blocks);
    const cab_tensor *norms = node->in[CAB_ADAMW_NORMS];
    const double norm = norms != NULL ? whole_norm(norms) : gradient_norm(a, blocks, backend->threads);
    *(float *)node->out[0]->data = (float)norm;
    if (!isfinite((float)norm)) {
        clear_gradients(a);
        return CAB_OK;
    }
    const update u = {.scale = o->clip > 0.0f && norm > (double)o->clip ? (float)((double)o->clip / norm) : 1.0f,
                      .lr = *(const float *)node->in[0]->data,
                      .beta1 = o->beta1,
                      .beta2 = o->beta2,
                      .eps = o->eps,
                      .ema = o->ema_decay,
                      .correct1 = (float)(1.0 / (1.0 - pow((double)o->beta1, step))),
                      .correct2 = (float)(1.0 / (1.0 - pow((double)o->beta2, step)))};
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (size_t i = 0; i < a->blocks; i++)
        update_block(a, &blocks[i], &u);
    raise_versions(a);
    return CAB_OK;
}
