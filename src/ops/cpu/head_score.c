/* head_score.c - log-probabilities and the likeliest words of single rows on the CPU; src/ops/head_score.c has the formulas.
 *
 * Chunk by chunk: logits by the matrix product, then threads share out the rows. The k largest of a row stand in a heap whose root is
 * the smallest of them; most words are turned away by one comparison with it. Scratch, with R = cab_head_chunk() rows and V' = V
 * rounded up to 16:
 *
 *   [ logits (R, V') fp32 ] [ a heap of k for every thread ] [ the product's own ] */
#include "ops/head_score.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/head_score_workspace.h"
#include "ops/cpu/logits.h"

#include <inttypes.h>
#include <omp.h>

typedef struct pass {
    const cab_node *node;
    cab_backend *backend;
    cab_score_workspace w;
    float *logits; /* of the chunk */
    float cap;
} pass;

/* Whether a is the likelier of both. */
static bool before(const cab_word *a, const cab_word *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

/* The root moves down to where the heap is one again. */
static void sink(cab_word *heap, int64_t k)
{
    const cab_word moved = heap[0];
    int64_t at = 0;
    for (int64_t child = 1; child < k; child = 2 * at + 1) {
        if (child + 1 < k && before(&heap[child], &heap[child + 1]))
            child++;
        if (before(&heap[child], &moved))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void rise(cab_word *heap, int64_t at)
{
    const cab_word moved = heap[at];
    for (; at > 0 && before(&heap[(at - 1) / 2], &moved); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = moved;
}

/* The k largest of the row, the largest first. */
static void select_top(const float *s, int64_t V, cab_word *heap, int64_t k)
{
    for (int64_t v = 0; v < k; v++) {
        heap[v] = (cab_word){s[v], (int32_t)v};
        rise(heap, v);
    }
    for (int64_t v = k; v < V; v++)
        if (s[v] > heap[0].logit) {
            heap[0] = (cab_word){s[v], (int32_t)v};
            sink(heap, k);
        }
    for (int64_t left = k; left > 1; left--) {
        const cab_word smallest = heap[0];
        heap[0] = heap[left - 1];
        sink(heap, left - 1);
        heap[left - 1] = smallest;
    }
}

static void score_row(const pass *p, float *s, int64_t row, cab_word *heap)
{
    cab_tensor *const *out = p->node->out;
    const int64_t V = p->w.V, k = p->w.k;
    const int32_t label = ((const int32_t *)p->node->in[CAB_SCORE_LABELS]->data)[row];
    if (p->cap > 0.0f)
        cab_cap_row(s, V, p->cap);
    const float largest = cab_max(s, V), total = largest + logf(cab_sum_exp(s, V, largest, 1.0f));
    ((float *)out[CAB_SCORE_LABEL]->data)[row] = label >= 0 ? s[label] - total : 0.0f;
    select_top(s, V, heap, k);
    for (int64_t i = 0; i < k; i++) {
        ((int32_t *)out[CAB_SCORE_IDS]->data)[row * k + i] = heap[i].id;
        ((float *)out[CAB_SCORE_TOP]->data)[row * k + i] = heap[i].logit - total;
    }
}

static cab_status chunk(const pass *p, int64_t first, int64_t n)
{
    cab_tensor *const *in = p->node->in;
    const cab_gemm_shape shape = cab_head_shape(p->node, CAB_HEAD_LOGITS, n, p->w.ld, true);
    const cab_gemm *gemm;
    char *scratch = p->node->scratch;
    CAB_TRY(cab_gemm_get(p->backend, &shape, &gemm));
    CAB_TRY(cab_gemm_run(gemm, cab_at(in[CAB_HEAD_HIDDEN], first, 0), in[CAB_HEAD_W]->data, p->logits,
                         in[CAB_HEAD_B] != NULL ? in[CAB_HEAD_B]->data : NULL, scratch + p->w.gemm));
#pragma omp parallel for num_threads(p->backend->threads) schedule(static)
    for (int64_t i = 0; i < n; i++)
        score_row(p, p->logits + i * p->w.ld, first + i,
                  (cab_word *)(scratch + p->w.heaps) + (int64_t)omp_get_thread_num() * p->w.k);
    return CAB_OK;
}

cab_status CAB_ISA(cab_head_score_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_score_attributes *attributes = node->attributes;
    const pass p = {.node = node,
                    .backend = backend,
                    .w = cab_score_workspace_of(node, backend->threads),
                    .logits = node->scratch,
                    .cap = attributes->cap};
    const int32_t *labels = node->in[CAB_SCORE_LABELS]->data;
    for (int64_t row = 0; row < p.w.rows; row++)
        if (labels[row] >= p.w.V || labels[row] < -1)
            return cab_fail(CAB_EARG, "head_score: label %" PRId32 " in row %" PRId64 ", expected -1 to %" PRId64,
                            labels[row], row, p.w.V - 1);
    for (int64_t first = 0; first < p.w.rows; first += p.w.chunk)
        CAB_TRY(chunk(&p, first, p.w.rows - first < p.w.chunk ? p.w.rows - first : p.w.chunk));
    return CAB_OK;
}
