/* head_score.c - log-probabilities and the likeliest words of single rows on the GPU; src/ops/head_score.c has the formulas.
 *
 * Layout: rows go by chunks. Of a chunk, cuBLASLt computes the logits in fp32, and a block per row takes from them what is wanted
 * (head_score_rows.cu). Scratch, with V' = V rounded up to 64:
 *
 *   [ logits (R, V') fp32 ] [ the bias in fp32, where it is not ] [ rows of a head in blocks of few bits, expanded ]
 *
 * Arithmetic: logits = hidden w^T + b in fp32, whatever the activations are. */
#include "ops/head_score.h"

#include "ops/cuda/block_gemm.h"
#include "ops/cuda/head_loss_rows.h"
#include "ops/cuda/head_score_rows.h"
#include "ops/cuda/kernels.h"
#include "ops/head_loss_workspace.h"

enum { ROW_STEP = 128, LD_STEP = 64, SECTION = 256 };
static const int64_t LOGITS = INT64_C(256) << 20;

typedef struct workspace {
    int64_t rows, V, ld, chunk;
    size_t bias, expanded, bytes; /* from the start; the logits stand first */
} workspace;

static size_t round_up(size_t bytes)
{
    return (bytes + SECTION - 1) / SECTION * SECTION;
}

static workspace workspace_of(const cab_node *node)
{
    const cab_tensor *bias = node->in[CAB_HEAD_B];
    workspace w = {.rows = cab_rows(node->in[CAB_HEAD_HIDDEN]), .V = node->in[CAB_HEAD_W]->shape[0]};
    w.ld = (w.V + LD_STEP - 1) / LD_STEP * LD_STEP;
    const int64_t fits = LOGITS / (w.ld * (int64_t)sizeof(float)) / ROW_STEP * ROW_STEP;
    w.chunk = fits < ROW_STEP ? ROW_STEP : fits;
    w.chunk = w.chunk < w.rows ? w.chunk : w.rows;
    w.bias = round_up((size_t)(w.chunk * w.ld) * sizeof(float));
    w.expanded = w.bias + (bias != NULL && bias->dtype != CAB_F32 ? round_up((size_t)w.V * sizeof(float)) : 0);
    const cab_gemm_shape shape = cab_head_shape(node, CAB_HEAD_LOGITS, w.chunk, w.ld, true);
    w.bytes = w.expanded + cab_block_gemm_scratch_cuda(&shape);
    return w;
}

size_t cab_head_score_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return workspace_of(node).bytes;
}

cab_status cab_head_score_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const workspace w = workspace_of(node);
    const cab_score_attributes *attributes = node->attributes;
    const cab_tensor *hidden = node->in[CAB_HEAD_HIDDEN], *b = node->in[CAB_HEAD_B];
    const cab_score_rows rows = {.V = w.V,
                                 .ld = w.ld,
                                 .k = (int)cab_columns(node->out[CAB_SCORE_IDS]),
                                 .cap = attributes->cap,
                                 .logits = node->scratch,
                                 .labels = node->in[CAB_SCORE_LABELS]->data,
                                 .label = node->out[CAB_SCORE_LABEL]->data,
                                 .top = node->out[CAB_SCORE_TOP]->data,
                                 .ids = node->out[CAB_SCORE_IDS]->data};
    const void *bias = b != NULL ? b->data : NULL;
    if (b != NULL && b->dtype != CAB_F32) {
        bias = (char *)node->scratch + w.bias;
        CAB_TRY(cab_head_convert_cuda(backend, b->data, b->dtype, (char *)node->scratch + w.bias, CAB_F32, w.V));
    }
    for (int64_t first = 0; first < w.rows; first += w.chunk) {
        const int64_t n = w.rows - first < w.chunk ? w.rows - first : w.chunk;
        cab_gemm_shape shape = cab_head_shape(node, CAB_HEAD_LOGITS, n, w.ld, true);
        shape.bias_dtype = CAB_F32;
        const char *from = (const char *)hidden->data + first * hidden->ld * (int64_t)cab_dtype_size(hidden->dtype);
        CAB_TRY(cab_gemm_cuda(backend, &shape, from, node->in[CAB_HEAD_W]->data, node->scratch, bias,
                              (char *)node->scratch + w.expanded));
        CAB_TRY(cab_score_rows_cuda(backend, &rows, first, n));
    }
    return CAB_OK;
}
