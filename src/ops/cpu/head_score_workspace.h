/* head_score_workspace.h - the scratch of head_score, as its source has it. */
#ifndef CAB_OPS_CPU_HEAD_SCORE_WORKSPACE_H
#define CAB_OPS_CPU_HEAD_SCORE_WORKSPACE_H

#include "ops/head_loss_workspace.h"
#include "ops/head_score.h"

typedef struct cab_word {
    float logit;
    int32_t id;
} cab_word;

typedef struct cab_score_workspace {
    int64_t rows, V, ld, chunk, k;
    size_t heaps, gemm; /* bytes from the start; the logits stand first */
} cab_score_workspace;

static inline cab_score_workspace cab_score_workspace_of(const cab_node *node, int threads)
{
    cab_score_workspace w = {.rows = cab_rows(node->in[CAB_HEAD_HIDDEN]),
                             .V = node->in[CAB_HEAD_W]->shape[0],
                             .k = cab_columns(node->out[CAB_SCORE_IDS])};
    w.ld = (w.V + 15) / 16 * 16;
    w.chunk = cab_head_chunk(w.V, w.rows);
    w.heaps = (size_t)(w.chunk * w.ld) * sizeof(float);
    w.gemm = w.heaps + ((size_t)(threads * w.k) * sizeof(cab_word) + 63) / 64 * 64;
    return w;
}

#endif
