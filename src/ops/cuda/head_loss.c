/* head_loss.c - vocabulary losses on the GPU; src/ops/head_loss.c has the formulas.
 *
 * Layout: rows (tokens) go by chunks of R. Of a chunk, cuBLASLt computes the logits of both models into scratch. One
 * kernel over the rows (head_loss_rows.cu) computes the losses, and puts the gradient of the student's logits in the
 * place of these logits. cuBLASLt then computes dhidden and dW. Scratch, with V' = V rounded up to 64:
 *
 *   [ student's logits (R, V') ] [ teacher's logits (R, V') ] [ both biases as the logits' dtype ]
 *   [ results, 3 floats per row of all ] [ parts of the bias's gradient ] [ rows of a head in blocks of few bits, expanded ]
 *
 * R is as large as LOGITS allows, for two reasons: every chunk reads and writes the whole fp32 dW once more, and
 * dhidden, a narrow product, fills the GPU only with many rows.
 *
 * Arithmetic: logits = hidden w^T + b; dhidden = dlogits w; dW += dlogits^T hidden; db += sum over rows of dlogits.
 * Training in bf16 rounds logits to bf16, like every other activation; statistics are fp32. Without a gradient, as
 * in evaluation, logits are fp32. */
#include "ops/head_loss.h"

#include "ops/cuda/block_gemm.h"
#include "ops/cuda/column_sums.h"
#include "ops/cuda/head_loss_rows.h"
#include "ops/cuda/kernels.h"
#include "ops/head_loss_workspace.h"

enum { ROW_STEP = 128, LD_STEP = 64, SECTION = 256 };
static const int64_t LOGITS = INT64_C(512) << 20;

typedef struct workspace {
    cab_dtype dtype; /* of the logits */
    int64_t rows, V, ld, chunk;
    size_t teacher, bias[2], results, sums, expanded, bytes; /* from the start; the student's logits stand first */
} workspace;

typedef struct pass {
    const cab_node *node;
    cab_backend *backend;
    workspace w;
    cab_head_rows h;
    float teacher_cap;
    const void *bias[2]; /* student's, teacher's */
} pass;

static size_t round_up(size_t bytes)
{
    return (bytes + SECTION - 1) / SECTION * SECTION;
}

static int64_t chunk_of(int64_t rows, int64_t bytes_per_row)
{
    const int64_t fits = LOGITS / bytes_per_row / ROW_STEP * ROW_STEP, most = fits > ROW_STEP ? fits : ROW_STEP;
    const int64_t chunks = (rows + most - 1) / most;
    if (chunks <= 1)
        return rows;
    return ((rows + chunks - 1) / chunks + ROW_STEP - 1) / ROW_STEP * ROW_STEP;
}

/* Bytes of expanded rows of either head. */
static size_t expanded_of(const cab_node *node, const workspace *w)
{
    size_t most = 0;
    for (int p = CAB_HEAD_LOGITS; p <= CAB_HEAD_TEACHER_LOGITS; p++) {
        if (!cab_head_needs(node, (cab_head_product)p))
            continue;
        const cab_gemm_shape shape = cab_head_shape(node, (cab_head_product)p, w->chunk, w->ld, true);
        const size_t bytes = cab_block_gemm_scratch_cuda(&shape);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static workspace workspace_of(const cab_node *node)
{
    const cab_tensor *hidden = node->in[CAB_HEAD_HIDDEN];
    const cab_tensor *const biases[2] = {node->in[CAB_HEAD_B], node->in[CAB_HEAD_TEACHER_B]};
    const bool teacher = cab_head_taught(node);
    workspace w = {.dtype = node->backward ? hidden->dtype : CAB_F32,
                   .rows = cab_rows(hidden),
                   .V = node->in[CAB_HEAD_W]->shape[0]};
    const size_t size = cab_dtype_size(w.dtype);
    w.ld = (w.V + LD_STEP - 1) / LD_STEP * LD_STEP;
    w.chunk = chunk_of(w.rows, w.ld * (int64_t)size * (teacher ? 2 : 1));
    const size_t logits = round_up((size_t)(w.chunk * w.ld) * size);
    size_t end = logits;
    w.teacher = end;
    end += teacher ? logits : 0;
    for (int i = 0; i < 2; i++) {
        w.bias[i] = end;
        end += biases[i] != NULL && biases[i]->dtype != w.dtype ? round_up((size_t)w.V * size) : 0;
    }
    w.results = end;
    w.sums = w.results + round_up((size_t)w.rows * 3 * sizeof(float));
    w.expanded = w.sums + round_up(node->gin[CAB_HEAD_B] != NULL ? cab_column_sums_scratch(w.chunk, w.V) : 0);
    w.bytes = w.expanded + expanded_of(node, &w);
    return w;
}

size_t cab_head_loss_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return workspace_of(node).bytes;
}

static const void *data_of(const cab_tensor *t)
{
    return t != NULL ? t->data : NULL;
}

/* A bias in the dtype of the logits: as it is, or copied. */
static cab_status place_bias(pass *p, int which, const cab_tensor *bias)
{
    p->bias[which] = data_of(bias);
    if (bias == NULL || bias->dtype == p->w.dtype)
        return CAB_OK;
    void *to = (char *)p->node->scratch + p->w.bias[which];
    p->bias[which] = to;
    return cab_head_convert_cuda(p->backend, bias->data, bias->dtype, to, p->w.dtype, p->w.V);
}

static cab_status begin(const cab_node *node, cab_backend *backend, pass *p)
{
    cab_tensor *const *in = node->in;
    const cab_head_attributes *attributes = node->attributes;
    const bool teacher = cab_head_taught(node);
    char *scratch = node->scratch;
    *p = (pass){.node = node, .backend = backend, .w = workspace_of(node), .teacher_cap = attributes->cap[1]};
    p->h = (cab_head_rows){.rows = p->w.rows,
                           .V = p->w.V,
                           .labels = data_of(in[CAB_HEAD_LABELS]),
                           .valid = data_of(in[CAB_HEAD_VALID]),
                           .targets = data_of(in[CAB_HEAD_TARGETS]),
                           .temperature = teacher ? attributes->temperature : 1.0f,
                           .cap = attributes->cap[0],
                           .gradient = node->backward,
                           .count = node->out[CAB_HEAD_COUNT]->data,
                           .results = (float *)(void *)(scratch + p->w.results),
                           .dtype = p->w.dtype,
                           .ld = p->w.ld,
                           .student = scratch,
                           .teacher = teacher ? scratch + p->w.teacher : NULL};
    if (node->backward) {
        p->h.ce_seed = data_of(node->gout[CAB_HEAD_CE]);
        p->h.kl_seed = teacher ? data_of(node->gout[CAB_HEAD_KL]) : NULL;
    }
    CAB_TRY(place_bias(p, 0, in[CAB_HEAD_B]));
    CAB_TRY(place_bias(p, 1, in[CAB_HEAD_TEACHER_B]));
    return cab_head_count_cuda(backend, &p->h);
}

static cab_status multiply(const pass *p, cab_head_product product, int64_t first, int64_t n, const void *a,
                           const void *b, void *c, const void *bias)
{
    cab_gemm_shape shape = cab_head_shape(p->node, product, n, p->w.ld, first == 0);
    if (product == CAB_HEAD_LOGITS || product == CAB_HEAD_TEACHER_LOGITS)
        shape.c.dtype = shape.bias_dtype = p->w.dtype;
    return cab_gemm_cuda(p->backend, &shape, a, b, c, bias, (char *)p->node->scratch + p->w.expanded);
}

static void *row_of(const cab_tensor *t, int64_t row)
{
    return (char *)t->data + row * t->ld * (int64_t)cab_dtype_size(t->dtype);
}

static cab_status gradients(const pass *p, int64_t first, int64_t n)
{
    cab_tensor *const *in = p->node->in, *const *gin = p->node->gin;
    if (gin[CAB_HEAD_HIDDEN] != NULL)
        CAB_TRY(multiply(p, CAB_HEAD_DHIDDEN, first, n, p->h.student, in[CAB_HEAD_W]->data,
                         row_of(gin[CAB_HEAD_HIDDEN], first), NULL));
    if (gin[CAB_HEAD_W] != NULL)
        CAB_TRY(multiply(p, CAB_HEAD_DW, first, n, p->h.student, row_of(in[CAB_HEAD_HIDDEN], first),
                         gin[CAB_HEAD_W]->data, NULL));
    if (gin[CAB_HEAD_B] == NULL)
        return CAB_OK;
    return cab_column_sums_cuda(p->backend, p->w.dtype, p->h.student, p->w.ld, n, p->w.V, gin[CAB_HEAD_B]->data,
                                first > 0 || (p->node->accumulate >> CAB_HEAD_B & 1),
                                (char *)p->node->scratch + p->w.sums);
}

static cab_status chunk(const pass *p, int64_t first, int64_t n)
{
    cab_tensor *const *in = p->node->in;
    CAB_TRY(multiply(p, CAB_HEAD_LOGITS, first, n, row_of(in[CAB_HEAD_HIDDEN], first), in[CAB_HEAD_W]->data,
                     p->h.student, p->bias[0]));
    if (in[CAB_HEAD_TEACHER_HIDDEN] != NULL)
        CAB_TRY(multiply(p, CAB_HEAD_TEACHER_LOGITS, first, n, row_of(in[CAB_HEAD_TEACHER_HIDDEN], first),
                         in[CAB_HEAD_TEACHER_W]->data, (char *)p->node->scratch + p->w.teacher, p->bias[1]));
    if (p->h.cap > 0.0f)
        CAB_TRY(cab_head_cap_cuda(p->backend, &p->h, p->h.student, p->h.cap, n));
    if (in[CAB_HEAD_IDS] != NULL)
        CAB_TRY(cab_head_words_cuda(p->backend, &p->h, (char *)p->node->scratch + p->w.teacher, in[CAB_HEAD_IDS]->data,
                                    in[CAB_HEAD_TOP]->data, (int)cab_columns(in[CAB_HEAD_IDS]), first, n));
    if (in[CAB_HEAD_TEACHER_HIDDEN] != NULL && p->teacher_cap > 0.0f)
        CAB_TRY(cab_head_cap_cuda(p->backend, &p->h, (char *)p->node->scratch + p->w.teacher, p->teacher_cap, n));
    CAB_TRY(cab_head_rows_cuda(p->backend, &p->h, first, n));
    return p->h.gradient ? gradients(p, first, n) : CAB_OK;
}

static float *output(const cab_node *node, int which)
{
    return which < node->n_out ? node->out[which]->data : NULL;
}

static cab_status run(const cab_node *node, cab_backend *backend)
{
    pass p;
    CAB_TRY(begin(node, backend, &p));
    for (int64_t first = 0; first < p.w.rows; first += p.w.chunk)
        CAB_TRY(chunk(&p, first, p.w.rows - first < p.w.chunk ? p.w.rows - first : p.w.chunk));
    return cab_head_report_cuda(backend, &p.h, output(node, CAB_HEAD_CE), output(node, CAB_HEAD_KL),
                                output(node, CAB_HEAD_AGREEMENT));
}

cab_status cab_head_loss_forward_cuda(const cab_node *node, cab_backend *backend)
{
    return run(node, backend);
}

cab_status cab_head_loss_backward_cuda(const cab_node *node, cab_backend *backend)
{
    return run(node, backend);
}
