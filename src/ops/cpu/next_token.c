/* next_token.c - arg max, or a draw from the sorted candidates. Threads share out the sequences. */
#include "ops/next_token.h"

#include "base/random.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Probabilities of the sorted candidates that top-k, top-p and min-p leave; returns how many. */
static int64_t keep_likely(candidate *c, int64_t n, const cab_sampling *s, double *total)
{
    double sum = 0, kept = 0;
    const int64_t limit = s->top_k > 0 && s->top_k < n ? s->top_k : n;
    const double largest = c[0].logit;
    for (int64_t i = 0; i < limit; i++) {
        c[i].logit = (float)exp((c[i].logit - largest) / s->temperature);
        sum += c[i].logit;
    }
    int64_t count = 0;
    while (count < limit && (count == 0 || (kept < s->top_p * sum && c[count].logit >= s->min_p)))
        kept += c[count++].logit;
    *total = kept;
    return count;
}

static int32_t draw(candidate *c, int64_t n, const cab_sampling *s, uint32_t sample, uint64_t index)
{
    double total = 0;
    qsort(c, (size_t)n, sizeof *c, by_logit);
    const int64_t count = keep_likely(c, n, s, &total);
    cab_random random = {.seed = s->seed, .stream = CAB_STREAM_SAMPLE, .sub = sample, .index = index};
    double target = (double)cab_random_uniform(&random) * total;
    int64_t i = 0;
    while (i + 1 < count && target >= c[i].logit)
        target -= c[i++].logit;
    return c[i].id;
}

/* Marks the token that was fed to sequence b; the marks, NULL without a penalty. */
static const uint32_t *mark_fed(const cab_node *node, int64_t b, int64_t words)
{
    const cab_tensor *seen = node->in[CAB_NEXT_SEEN];
    if (seen == NULL)
        return NULL;
    uint32_t *marks = (uint32_t *)seen->data + b * cab_columns(seen);
    const int32_t token = ((const int32_t *)node->in[CAB_NEXT_TOKENS]->data)[b];
    if (token >= 0 && token < words)
        marks[token / 32] |= 1u << token % 32;
    return marks;
}

static float penalised(float logit, float penalty)
{
    return logit > 0 ? logit / penalty : logit * penalty;
}

/* The logits of sequence b with their ids; returns where the largest is. */
static int64_t gather(const cab_tensor *logits, int64_t b, const uint32_t *marks, float penalty, candidate *c)
{
    const int64_t n = cab_columns(logits);
    int64_t best = 0;
    for (int64_t first = 0; first < n; first += CAB_PIECE) {
        float piece[CAB_PIECE];
        const int64_t width = n - first < CAB_PIECE ? n - first : CAB_PIECE;
        const float *row = cab_row_in(logits, b, first, width, piece);
        for (int64_t i = 0; i < width; i++) {
            const int64_t id = first + i;
            const bool fed = marks != NULL && (marks[id / 32] >> id % 32 & 1) != 0;
            c[id] = (candidate){fed ? penalised(row[i], penalty) : row[i], (int32_t)id};
            best = c[id].logit > c[best].logit ? id : best;
        }
    }
    return best;
}

cab_status CAB_ISA(cab_next_token_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_sampling *sampling = node->attributes;
    const cab_tensor *logits = node->in[CAB_NEXT_LOGITS], *prompts = node->in[CAB_NEXT_PROMPTS];
    const int32_t *lengths = node->in[CAB_NEXT_LENGTHS]->data, *samples = node->in[CAB_NEXT_SAMPLES]->data;
    int32_t *tokens = node->in[CAB_NEXT_TOKENS]->data, *position = node->in[CAB_NEXT_POSITION]->data;
    const int64_t B = cab_rows(logits), V = cab_columns(logits), next = (int64_t)*position + 1;
#pragma omp parallel for num_threads(cab_threads_for(backend, B *V)) schedule(static)
    for (int64_t b = 0; b < B; b++) {
        candidate *c = (candidate *)node->scratch + (int64_t)omp_get_thread_num() * V;
        const uint32_t *marks = mark_fed(node, b, V);
        if (next < lengths[b]) {
            tokens[b] = ((const int32_t *)prompts->data)[b * prompts->ld + next];
            continue;
        }
        const int64_t best = gather(logits, b, marks, sampling->repeat_penalty, c);
        tokens[b] = sampling->temperature > 0
                        ? draw(c, V, sampling, (uint32_t)samples[b], (uint64_t)(next - lengths[b]))
                        : (int32_t)best;
    }
    *position += *position < INT32_MAX;
    return CAB_OK;
}
