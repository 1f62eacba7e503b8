/* conv2d.c - the convolution over a grid of patches on the CPU; src/ops/conv2d.c has the formula.
 *
 * A task is an image and a block of channels, narrow enough that K rows of the grid stay in the caches. With p = dL/du,
 *
 *   dx[r, c] = sum_ij w[i, j] p[r - i + h, c - j + h]     dw[i, j] = sum_rc p[r, c] x[r + i - h, c + j - h]     dbias = sum_rc p[r, c]
 *
 * Backward, a task computes p of its whole grid into memory of its thread, with the sums, and then dx. The sums of all images are
 * added in order. */
#include "ops/conv2d.h"

#include "ops/cpu/convolution.h"
#include "ops/cpu/cpu.h"

#include <omp.h>

enum { BLOCK = CAB_CONV2D_BLOCK, TAPS_MAX = CAB_CONV2D_MAX_SIDE * CAB_CONV2D_MAX_SIDE };

/* Filters (K * K, E) and bias (E) in the node's scratch, and what lies behind them. */
typedef struct filter {
    float *w, *bias, *rest;
} filter;

/* What a task works on: channels `begin` .. begin + n of an image. */
typedef struct task {
    const cab_node *node;
    cab_conv2d_shape s;
    const float *w, *bias; /* of the block; rows of w are E apart */
    int64_t image, begin, n;
} task;

static filter filter_load(const cab_node *node, const cab_conv2d_shape *s)
{
    const cab_tensor *w = node->in[CAB_CONV2D_W], *bias = node->in[CAB_CONV2D_BIAS];
    const int taps = s->side * s->side;
    filter f = {.w = node->scratch};
    f.bias = cab_filters_by_taps(w, bias, s->E, taps, f.w);
    f.rest = f.bias + s->E;
    return f;
}

/* What stands outside the grid. */
static const union zero {
    float f32[BLOCK];
    cab_bf16 bf16[BLOCK];
} zero;

/* The row of token t of the task's image. */
INLINE int64_t row_of(const task *k, int64_t t)
{
    return k->image * (k->s.first + k->s.height * k->s.width) + t;
}

/* The patch at (r, c) of the grid; -1: it is outside. */
INLINE int64_t patch_at(const cab_conv2d_shape *s, int64_t r, int64_t c)
{
    return r < 0 || r >= s->height || c < 0 || c >= s->width ? -1 : r * s->width + c;
}

/* The K * K rows of x that the patch at (r, c) sees. */
static void window(const task *k, int64_t r, int64_t c, const void **x)
{
    const int side = k->s.side, half = side / 2;
    for (int i = 0; i < side * side; i++) {
        const int64_t patch = patch_at(&k->s, r + i / side - half, c + i % side - half);
        x[i] = patch < 0 ? (const void *)&zero
                         : cab_at(k->node->in[CAB_CONV2D_X], row_of(k, k->s.first + patch), k->begin);
    }
}

/* The K * K rows of p (patches, BLOCK) that the patch at (r, c) has a part in. */
static void readers(const task *k, int64_t r, int64_t c, const float *p, const float **found)
{
    const int side = k->s.side, half = side / 2;
    for (int i = 0; i < side * side; i++) {
        const int64_t patch = patch_at(&k->s, r - i / side + half, c - i % side + half);
        found[i] = patch < 0 ? zero.f32 : p + patch * BLOCK;
    }
}

/* ---- forward ------------------------------------------------------------------------------------------------------- */

INLINE void forward_patch(const task *k, const void *const *x, void *y, int taps, bool low)
{
    const float *w = k->w, *bias = k->bias;
    const int64_t E = k->s.E, n = k->n;
#pragma omp simd
    for (int64_t e = 0; e < n; e++) {
        float u = bias[e];
        for (int i = 0; i < taps; i++)
            u += w[i * E + e] * get(x[i], e, low);
        put(y, e, cab_silu(u), low);
    }
}

INLINE void forward_image(const task *k, int taps, bool low)
{
    const cab_tensor *from = k->node->in[CAB_CONV2D_X], *to = k->node->out[0];
    const void *x[TAPS_MAX];
    for (int64_t t = 0; t < k->s.first; t++) {
        const void *own = cab_at(from, row_of(k, t), k->begin);
        void *y = cab_at(to, row_of(k, t), k->begin);
        for (int64_t e = 0; e < k->n; e++)
            put(y, e, cab_silu(get(own, e, low)), low);
    }
    for (int64_t i = 0; i < k->s.height * k->s.width; i++) {
        window(k, i / k->s.width, i % k->s.width, x);
        forward_patch(k, x, cab_at(to, row_of(k, k->s.first + i), k->begin), taps, low);
    }
}

static void forward_task(const task *k)
{
    const bool low = k->node->in[CAB_CONV2D_X]->dtype != CAB_F32;
    const int taps = k->s.side * k->s.side;
    if (low && taps == 9)
        forward_image(k, 9, true);
    else if (low)
        forward_image(k, taps, true);
    else if (taps == 9)
        forward_image(k, 9, false);
    else
        forward_image(k, taps, false);
}

/* ---- backward ------------------------------------------------------------------------------------------------------ */

/* p of a patch, and what it adds to dw (K * K, BLOCK) and dbias. */
INLINE void gradient_patch(const task *k, const void *const *x, const void *dy, float *restrict p, float *restrict dw,
                           float *restrict dbias, int taps, bool low)
{
    const float *w = k->w, *bias = k->bias;
    const int64_t E = k->s.E, n = k->n;
#pragma omp simd
    for (int64_t e = 0; e < n; e++) {
        float u = bias[e];
        for (int i = 0; i < taps; i++)
            u += w[i * E + e] * get(x[i], e, low);
        p[e] = get(dy, e, low) * cab_silu_gradient(u);
        for (int i = 0; i < taps; i++)
            dw[i * BLOCK + e] += p[e] * get(x[i], e, low);
        dbias[e] += p[e];
    }
}

INLINE void store_dx(const task *k, const float *const *p, void *dx, bool add, int taps, bool low)
{
    const float *w = k->w;
    const int64_t E = k->s.E, n = k->n;
#pragma omp simd
    for (int64_t e = 0; e < n; e++) {
        float sum = add ? get(dx, e, low) : 0.0f;
        for (int i = 0; i < taps; i++)
            sum += w[i * E + e] * p[i][e];
        put(dx, e, sum, low);
    }
}

/* dx of the tokens before the grid. */
INLINE void backward_first(const task *k, bool add, bool low)
{
    const cab_tensor *from = k->node->in[CAB_CONV2D_X], *back = k->node->gout[0], *to = k->node->gin[CAB_CONV2D_X];
    for (int64_t t = 0; to != NULL && t < k->s.first; t++) {
        const void *x = cab_at(from, row_of(k, t), k->begin), *dy = cab_at(back, row_of(k, t), k->begin);
        void *dx = cab_at(to, row_of(k, t), k->begin);
        for (int64_t e = 0; e < k->n; e++)
            put(dx, e, (add ? get(dx, e, low) : 0.0f) + get(dy, e, low) * cab_silu_gradient(get(x, e, low)), low);
    }
}

/* own: p of the grid. partial: dw (K * K, E) and dbias (E) of the image. */
INLINE void backward_image(const task *k, float *own, float *partial, int taps, bool low)
{
    const cab_node *node = k->node;
    const bool add = node->accumulate & 1;
    const int64_t patches = k->s.height * k->s.width;
    float dw[TAPS_MAX * BLOCK], dbias[BLOCK] = {0};
    const void *x[TAPS_MAX];
    const float *p[TAPS_MAX];
    memset(dw, 0, (size_t)taps * BLOCK * sizeof *dw);
    backward_first(k, add, low);
    for (int64_t i = 0; i < patches; i++) {
        window(k, i / k->s.width, i % k->s.width, x);
        gradient_patch(k, x, cab_at(node->gout[0], row_of(k, k->s.first + i), k->begin), own + i * BLOCK, dw, dbias,
                       taps, low);
    }
    for (int64_t i = 0; node->gin[CAB_CONV2D_X] != NULL && i < patches; i++) {
        readers(k, i / k->s.width, i % k->s.width, own, p);
        store_dx(k, p, cab_at(node->gin[CAB_CONV2D_X], row_of(k, k->s.first + i), k->begin), add, taps, low);
    }
    for (int i = 0; i < taps; i++)
        memcpy(partial + i * k->s.E + k->begin, dw + i * BLOCK, (size_t)k->n * sizeof *dw);
    memcpy(partial + taps * k->s.E + k->begin, dbias, (size_t)k->n * sizeof *dbias);
}

static void backward_task(const task *k, float *own, float *partial)
{
    const bool low = k->node->in[CAB_CONV2D_X]->dtype != CAB_F32;
    const int taps = k->s.side * k->s.side;
    if (low && taps == 9)
        backward_image(k, own, partial, 9, true);
    else if (low)
        backward_image(k, own, partial, taps, true);
    else if (taps == 9)
        backward_image(k, own, partial, 9, false);
    else
        backward_image(k, own, partial, taps, false);
}

/* Adds the partial gradients, in order, to the parameters'. */
static void sum_partials(const cab_node *node, const cab_conv2d_shape *s, const float *partials, int threads)
{
    float *dw = node->gin[CAB_CONV2D_W] != NULL ? node->gin[CAB_CONV2D_W]->data : NULL;
    float *dbias = node->gin[CAB_CONV2D_BIAS] != NULL ? node->gin[CAB_CONV2D_BIAS]->data : NULL;
    const int64_t E = s->E, taps = (int64_t)s->side * s->side, size = E * (taps + 1);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t e = 0; e < E; e++) {
        for (int64_t k = 0; k <= taps; k++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < s->images; i++)
                sum += partials[i * size + k * E + e];
            if (k < taps && dw != NULL)
                dw[e * taps + k] += sum;
            if (k == taps && dbias != NULL)
                dbias[e] += sum;
        }
    }
}

/* ---- tasks --------------------------------------------------------------------------------------------------------- */

/* Backward, behind the filters lie the partial sums of every image, then a grid of every thread. */
static cab_status each_task(const cab_node *node, cab_backend *backend)
{
    const cab_conv2d_shape s = cab_conv2d_shape_of(node);
    const filter f = filter_load(node, &s);
    const int64_t blocks = (s.E + BLOCK - 1) / BLOCK, size = s.E * (s.side * s.side + 1);
    const int64_t grid = s.height * s.width * BLOCK;
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t i = 0; i < s.images * blocks; i++) {
        task k = {.node = node, .s = s, .image = i / blocks, .begin = i % blocks * BLOCK};
        k.n = s.E - k.begin < BLOCK ? s.E - k.begin : BLOCK;
        k.w = f.w + k.begin;
        k.bias = f.bias + k.begin;
        if (node->backward)
            backward_task(&k, f.rest + s.images * size + omp_get_thread_num() * grid, f.rest + k.image * size);
        else
            forward_task(&k);
    }
    if (node->backward)
        sum_partials(node, &s, f.rest, backend->threads);
    return CAB_OK;
}

cab_status CAB_ISA(cab_conv2d_forward)(const cab_node *node, cab_backend *backend)
{
    return each_task(node, backend);
}

cab_status CAB_ISA(cab_conv2d_backward)(const cab_node *node, cab_backend *backend)
{
    return each_task(node, backend);
}
