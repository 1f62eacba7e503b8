/* cudnn_attention.c - attention by cuDNN, bf16 (B, L, H, P) with any stride between tokens.
 *
 * Forward, as its engines know it:
 *
 *   s = scale q k^T      s = -inf where j is not seen by i
 *   m = max_j s      e = exp(s - m)      z = sum_j e      lse = m + log z      y = (e / z) v
 *
 * Backward, in the form that holds ds in the workspace, B*H*L*L bf16, and so has one writer of every sum; the form without
 * adds up dq with atomics, which gives other bits every run:
 *
 *   D = sum_p dy y      p = exp(scale q k^T - lse)      dv = p^T dy
 *   ds = scale p (dy v^T - D)      dk = ds^T q      dq = ds k
 *
 * Engines recognise these graphs by their shape: order and types of the operations are not free. Grouped heads: k and v
 * are broadcast over their group, dk and dv summed over it at the end. */
#include "ops/cuda/cudnn_attention.h"

#include "base/log.h"
#include "base/memory.h"
#include "ops/attention.h"
#include "ops/cuda/cudnn.h"
#include "ops/cuda/device.h"
#include "ops/cuda/kernels.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Names of the memory that runs are given. */
enum { Q = 1, K, V, Y, LSE, DY, DQ, DK, DV, ROW_SUM };

/* The largest workspace of a backward node: one that is larger would crowd out the batch, and our own kernel, which needs
 * none, runs in its place. */
static const size_t WORKSPACE_MAX = (size_t)2 << 30;

enum { HEAD_MAX = 256, HOPPER = 9 };

typedef struct sizes {
    int64_t heads[4], scores[4], rows[4]; /* (B, H, L, P), (B, H, L, L), (B, H, L, 1) */
    int64_t keys[4];                      /* (B, G, L, P) */
} sizes;

static sizes sizes_of(const cab_sdpa_shape *s)
{
    return (sizes){.heads = {s->batch, s->n_head, s->length, s->head_dim},
                   .scores = {s->batch, s->n_head, s->length, s->length},
                   .rows = {s->batch, s->n_head, s->length, 1},
                   .keys = {s->batch, s->n_kv_head, s->length, s->head_dim}};
}

/* Heads of a (B, L, heads * P) tensor as (B, heads, L, P), or transposed as (B, heads, P, L). */
static cab_cudnn_tensor *heads(cab_cudnn_graph *g, int64_t id, const cab_sdpa_shape *s, const int64_t *dims, int64_t ld,
                               bool transposed)
{
    const int64_t turned[] = {dims[0], dims[1], dims[3], dims[2]};
    const int64_t straight_strides[] = {s->length * ld, s->head_dim, ld, 1};
    const int64_t turned_strides[] = {s->length * ld, s->head_dim, 1, ld};
    return cab_cudnn_memory(g, id, CUDNN_DATA_BFLOAT16, transposed ? turned : dims,
                            transposed ? turned_strides : straight_strides);
}

static cab_cudnn_tensor *floats(cab_cudnn_graph *g, const int64_t *dims)
{
    return cab_cudnn_virtual(g, CUDNN_DATA_FLOAT, dims, NULL);
}

/* mode(x, b) under x's dimensions, in fp32. */
static cab_cudnn_tensor *apply(cab_cudnn_graph *g, cudnnPointwiseMode_t mode, cab_cudnn_tensor *x, cab_cudnn_tensor *b,
                               const int64_t *dims)
{
    cab_cudnn_tensor *y = floats(g, dims);
    cab_cudnn_pointwise(g, mode, x, b, NULL, y);
    return y;
}

static cab_cudnn_tensor *index_along(cab_cudnn_graph *g, int axis, cab_cudnn_tensor *x, const int64_t *dims)
{
    cab_cudnn_tensor *y = cab_cudnn_virtual(g, CUDNN_DATA_INT32, dims, NULL);
    cab_cudnn_index(g, axis, x, y);
    return y;
}

/* x where a >= b (or a > b), else -inf. */
static cab_cudnn_tensor *keep_where(cab_cudnn_graph *g, cudnnPointwiseMode_t mode, cab_cudnn_tensor *a,
                                    cab_cudnn_tensor *b, cab_cudnn_tensor *x, const int64_t *dims)
{
    cab_cudnn_tensor *seen = cab_cudnn_virtual(g, CUDNN_DATA_BOOLEAN, dims, NULL), *y = floats(g, dims);
    cab_cudnn_pointwise(g, mode, a, b, NULL, seen);
    cab_cudnn_pointwise(g, CUDNN_POINTWISE_BINARY_SELECT, x, cab_cudnn_constant(g, -INFINITY), seen, y);
    return y;
}

/* Causal: row >= column. Window: column + window > row. */
static cab_cudnn_tensor *mask(cab_cudnn_graph *g, const cab_sdpa_shape *s, cab_cudnn_tensor *x, const int64_t *dims)
{
    if (s->causal) {
        cab_cudnn_tensor *row = index_along(g, 2, x, dims), *column = index_along(g, 3, x, dims);
        x = keep_where(g, CUDNN_POINTWISE_CMP_GE, row, column, x, dims);
    }
    if (s->window > 0 && s->window < s->length) {
        cab_cudnn_tensor *row = index_along(g, 2, x, dims), *column = index_along(g, 3, x, dims);
        cab_cudnn_tensor *reach = apply(g, CUDNN_POINTWISE_ADD, column, cab_cudnn_constant(g, (float)s->window), dims);
        x = keep_where(g, CUDNN_POINTWISE_CMP_GT, reach, row, x, dims);
    }
    return x;
}

static void record_forward(cab_cudnn_graph *g, const cab_sdpa_shape *s)
{
    const sizes n = sizes_of(s);
    cab_cudnn_tensor *q = heads(g, Q, s, n.heads, s->ld.q, false), *k = heads(g, K, s, n.keys, s->ld.k, true);
    cab_cudnn_tensor *v = heads(g, V, s, n.keys, s->ld.v, false), *y = heads(g, Y, s, n.heads, s->ld.y, false);
    cab_cudnn_tensor *lse = cab_cudnn_memory(g, LSE, CUDNN_DATA_FLOAT, n.rows, NULL);
    cab_cudnn_tensor *scores = floats(g, n.scores), *largest = floats(g, n.rows), *sum = floats(g, n.rows);
    cab_cudnn_tensor *p = cab_cudnn_virtual(g, CUDNN_DATA_BFLOAT16, n.scores, NULL);
    cab_cudnn_matmul(g, q, k, scores);
    scores = apply(g, CUDNN_POINTWISE_MUL, scores, cab_cudnn_constant(g, s->scale), n.scores);
    scores = mask(g, s, scores, n.scores);
    cab_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_MAX, scores, largest);
    cab_cudnn_tensor *e = apply(g, CUDNN_POINTWISE_SUB, scores, largest, n.scores);
    e = apply(g, CUDNN_POINTWISE_EXP, e, NULL, n.scores);
    cab_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_ADD, e, sum);
    cab_cudnn_tensor *log_sum = apply(g, CUDNN_POINTWISE_LOG, sum, NULL, n.rows);
    cab_cudnn_pointwise(g, CUDNN_POINTWISE_ADD, largest, log_sum, NULL, lse);
    cab_cudnn_pointwise(g, CUDNN_POINTWISE_DIV, e, sum, NULL, p);
    cab_cudnn_matmul(g, p, v, y);
}

/* to = a^T b, for a (B, H, L, L) and b (B, H, L, P); summed over the heads of a group where they share one of `to`. */
static void turned_product(cab_cudnn_graph *g, const cab_sdpa_shape *s, cab_cudnn_tensor *a, cab_cudnn_tensor *b,
                           cab_cudnn_tensor *to)
{
    const sizes n = sizes_of(s);
    const int64_t area = s->length * s->length;
    cab_cudnn_tensor *turned =
        cab_cudnn_virtual(g, CUDNN_DATA_BFLOAT16, n.scores, (int64_t[]){s->n_head * area, area, 1, s->length});
    cab_cudnn_reshape(g, a, turned);
    if (s->n_head == s->n_kv_head) {
        cab_cudnn_matmul(g, turned, b, to);
        return;
    }
    cab_cudnn_tensor *per_head = cab_cudnn_virtual(g, CUDNN_DATA_BFLOAT16, n.heads, NULL);
    cab_cudnn_matmul(g, turned, b, per_head);
    cab_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_ADD, per_head, to);
}

/* D, which the engines keep in memory. */
static cab_cudnn_tensor *row_sums(cab_cudnn_graph *g, const cab_sdpa_shape *s, cab_cudnn_tensor *dy)
{
    const sizes n = sizes_of(s);
    const int64_t width = s->n_head * s->head_dim;
    cab_cudnn_tensor *y = heads(g, Y, s, n.heads, s->ld.y, false), *sum = floats(g, n.rows);
    cab_cudnn_tensor *product = cab_cudnn_virtual(g, CUDNN_DATA_FLOAT, n.heads,
                                                  (int64_t[]){s->length * width, s->length * s->head_dim, width, 1});
    cab_cudnn_tensor *kept = cab_cudnn_memory(g, ROW_SUM, CUDNN_DATA_FLOAT, n.rows, NULL);
    cab_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, dy, y, NULL, product);
    cab_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_ADD, product, sum);
    cab_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, sum, cab_cudnn_constant(g, 1.0f), NULL, kept);
    return kept;
}

static void record_backward(cab_cudnn_graph *g, const cab_sdpa_shape *s)
{
    const sizes n = sizes_of(s);
    cab_cudnn_tensor *q = heads(g, Q, s, n.heads, s->ld.q, false), *k = heads(g, K, s, n.keys, s->ld.k, true);
    cab_cudnn_tensor *v = heads(g, V, s, n.keys, s->ld.v, true), *dy = heads(g, DY, s, n.heads, s->ld.dy, false);
    cab_cudnn_tensor *lse = cab_cudnn_memory(g, LSE, CUDNN_DATA_FLOAT, n.rows, NULL);
    cab_cudnn_tensor *scale = cab_cudnn_constant(g, s->scale);
    cab_cudnn_tensor *sums = row_sums(g, s, dy), *p = floats(g, n.scores), *ds = floats(g, n.scores);
    cab_cudnn_matmul(g, q, k, p);
    p = apply(g, CUDNN_POINTWISE_MUL, p, scale, n.scores);
    p = apply(g, CUDNN_POINTWISE_SUB, p, lse, n.scores);
    p = mask(g, s, p, n.scores);
    p = apply(g, CUDNN_POINTWISE_EXP, p, NULL, n.scores);
    turned_product(g, s, p, dy, heads(g, DV, s, n.keys, s->ld.dv, false));
    cab_cudnn_matmul(g, dy, v, ds);
    ds = apply(g, CUDNN_POINTWISE_SUB, ds, sums, n.scores);
    ds = apply(g, CUDNN_POINTWISE_MUL, ds, p, n.scores);
    ds = apply(g, CUDNN_POINTWISE_MUL, ds, scale, n.scores);
    turned_product(g, s, ds, q, heads(g, DK, s, n.keys, s->ld.dk, false));
    cab_cudnn_tensor *straight =
        cab_cudnn_virtual(g, CUDNN_DATA_BFLOAT16, n.keys, (int64_t[]){s->length * s->ld.k, s->head_dim, s->ld.k, 1});
    cab_cudnn_reshape(g, k, straight);
    cab_cudnn_matmul(g, ds, straight, heads(g, DQ, s, n.heads, s->ld.dq, false));
}

void cab_sdpa_record(cab_cudnn_graph *g, const cab_sdpa_shape *s)
{
    if (s->backward)
        record_backward(g, s);
    else
        record_forward(g, s);
}

/* ---- the plans a backend keeps --------------------------------------------------------------------------------------- */

typedef struct entry {
    cab_sdpa_shape shape;
    cab_cudnn_graph *graph; /* NULL: refused */
} entry;

typedef struct library {
    cudnnHandle_t handle; /* NULL: this cuDNN cannot be used */
    entry *entries;
    size_t n, capacity;
} library;

static void library_free(void *state)
{
    library *l = state;
    for (size_t i = 0; i < l->n; i++)
        cab_cudnn_graph_free(l->entries[i].graph);
    if (l->handle != NULL)
        (void)cudnnDestroy(l->handle);
    cab_free(l->entries);
    cab_free(l);
}

static cab_status open_handle(library *l, const cab_cuda *cuda)
{
    if (cuda->own)
        return cab_fail(CAB_EUNSUPPORTED, "CAB_CUDA_OWN=1");
    if (cudnnGetVersion() < CAB_CUDNN_OLDEST)
        return cab_fail(CAB_EUNSUPPORTED, "cuDNN %zu, expected %d or later", cudnnGetVersion(), (int)CAB_CUDNN_OLDEST);
    CAB_TRY(cab_cudnn_check(cudnnCreate(&l->handle), "cudnnCreate"));
    return cab_cudnn_check(cudnnSetStream(l->handle, cuda->stream), "cudnnSetStream");
}

/* NULL when memory is short. */
static library *library_of(const cab_backend *backend)
{
    cab_cuda *cuda = cab_cuda_of(backend);
    library *l = cuda->library[CAB_CUDA_ATTENTION].state;
    if (l != NULL || CAB_NEW(&l, 1, "cuDNN") != CAB_OK)
        return l;
    cuda->library[CAB_CUDA_ATTENTION].state = l;
    cuda->library[CAB_CUDA_ATTENTION].free = library_free;
    if (open_handle(l, cuda) == CAB_OK)
        return l;
    cab_log_warn("attention runs without cuDNN, slower: %s", cab_error_text());
    if (l->handle != NULL)
        (void)cudnnDestroy(l->handle);
    l->handle = NULL;
    return l;
}

static bool same(const cab_sdpa_shape *a, const cab_sdpa_shape *b)
{
    return a->batch == b->batch && a->length == b->length && a->n_head == b->n_head && a->n_kv_head == b->n_kv_head &&
           a->head_dim == b->head_dim && a->window == b->window && a->scale == b->scale && a->causal == b->causal &&
           a->backward == b->backward && memcmp(&a->ld, &b->ld, sizeof a->ld) == 0;
}

static cab_cudnn_graph *plan(const library *l, const cab_sdpa_shape *shape)
{
    cab_cudnn_graph *graph = NULL;
    cab_status status;
    CAB_GOTO(cab_cudnn_graph_new(&graph));
    cab_sdpa_record(graph, shape);
    CAB_GOTO(cab_cudnn_graph_plan(graph, l->handle));
    if (!shape->backward || cab_cudnn_graph_workspace(graph) <= WORKSPACE_MAX)
        return graph;
done:
    if (status != CAB_OK)
        cab_log_warn("attention of %" PRId64 " tokens, %" PRId64 " heads of %" PRId64
                     ", runs without cuDNN, slower: %s",
                     shape->length, shape->n_head, shape->head_dim, cab_error_text());
    cab_cudnn_graph_free(graph);
    return NULL;
}

/* The plan of a shape, NULL when it is refused. */
static cab_cudnn_graph *find(const cab_backend *backend, const cab_sdpa_shape *shape)
{
    library *l = library_of(backend);
    if (l == NULL || l->handle == NULL)
        return NULL;
    for (size_t i = 0; i < l->n; i++)
        if (same(&l->entries[i].shape, shape))
            return l->entries[i].graph;
    if (CAB_GROW(&l->entries, &l->capacity, l->n + 1, "cuDNN plans") != CAB_OK)
        return NULL;
    l->entries[l->n] = (entry){.shape = *shape, .graph = plan(l, shape)};
    return l->entries[l->n++].graph;
}

/* ---- nodes ----------------------------------------------------------------------------------------------------------- */

static cab_sdpa_shape shape_of(const cab_node *node)
{
    const cab_attention_shape *a = node->attributes;
    const cab_tensor *q = node->in[0];
    cab_sdpa_shape s = {.batch = q->shape[0],
                        .length = q->shape[1],
                        .n_head = a->n_head,
                        .n_kv_head = a->n_kv_head,
                        .head_dim = a->head_dim,
                        .window = a->window,
                        .ld = {.q = q->ld, .k = node->in[1]->ld, .v = node->in[2]->ld, .y = node->out[0]->ld},
                        .scale = a->scale,
                        .causal = a->causal,
                        .backward = node->backward};
    if (node->backward) {
        s.ld.dy = node->gout[0]->ld;
        s.ld.dq = node->gin[0]->ld;
        s.ld.dk = node->gin[1]->ld;
        s.ld.dv = node->gin[2]->ld;
    }
    return s;
}

/* Arenas and inputs begin on larger boundaries than cuDNN asks for, so that a view's place in its tensor decides. */
static bool aligned(const cab_tensor *t)
{
    return t->dtype == CAB_BF16 && cab_rows_begin_at(t, CAB_CUDNN_ALIGNMENT / (int64_t)sizeof(cab_bf16));
}

static bool aligned_node(const cab_node *node)
{
    bool fits = aligned(node->out[0]);
    for (int i = 0; i < 3; i++)
        fits = fits && aligned(node->in[i]) && (!node->backward || aligned(node->gin[i]));
    return fits && (!node->backward || aligned(node->gout[0]));
}

/* Engines for the form of the backward pass with one writer per sum are known on Hopper. */
static bool takes_backward(const cab_node *node, const cab_backend *backend)
{
    return node->gout[0] != NULL && node->gin[0] != NULL && node->gin[1] != NULL && node->gin[2] != NULL &&
           (node->accumulate & 7u) == 0 && cab_cuda_of(backend)->major == HOPPER;
}

static cab_cudnn_graph *graph_of(const cab_node *node, const cab_backend *backend)
{
    const cab_attention_shape *a = node->attributes;
    if (a->cap > 0 || node->in[CAB_ATTENTION_STARTS] != NULL || node->in[0]->dtype != CAB_BF16 ||
        node->in[0]->shape[1] < 2 || a->head_dim % 8 != 0 || a->head_dim > HEAD_MAX ||
        (node->backward && !takes_backward(node, backend)) || !aligned_node(node))
        return NULL;
    const cab_sdpa_shape shape = shape_of(node);
    return find(backend, &shape);
}

bool cab_sdpa_fits(const cab_node *node, const cab_backend *backend)
{
    return graph_of(node, backend) != NULL;
}

/* Bytes of D before cuDNN's own workspace. */
static size_t row_sum_bytes(const cab_node *node)
{
    return node->backward ? ((size_t)cab_elements(node->out[1]) * sizeof(float) + 255) / 256 * 256 : 0;
}

size_t cab_sdpa_scratch(const cab_node *node, const cab_backend *backend)
{
    const cab_cudnn_graph *g = graph_of(node, backend);
    return g != NULL ? row_sum_bytes(node) + cab_cudnn_graph_workspace(g) : 0;
}

cab_status cab_sdpa_run(const cab_node *node, cab_backend *backend)
{
    static const int64_t ids[] = {Q, K, V, Y, LSE, DY, DQ, DK, DV, ROW_SUM};
    const cab_cudnn_graph *g = graph_of(node, backend);
    void *data[] = {node->in[0]->data,
                    node->in[1]->data,
                    node->in[2]->data,
                    node->out[0]->data,
                    node->out[1]->data,
                    NULL,
                    NULL,
                    NULL,
                    NULL,
                    node->scratch};
    if (g == NULL)
        return cab_fail(CAB_EBACKEND, "attention: no cuDNN plan for this node");
    if (!node->backward)
        return cab_cudnn_graph_run(g, library_of(backend)->handle, 5, ids, data, node->scratch);
    data[5] = node->gout[0]->data;
    for (int i = 0; i < 3; i++)
        data[6 + i] = node->gin[i]->data;
    return cab_cudnn_graph_run(g, library_of(backend)->handle, 10, ids, data,
                               (char *)node->scratch + row_sum_bytes(node));
}
