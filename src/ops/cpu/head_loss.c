/* head_loss.c - vocabulary losses on the CPU; src/ops/head_loss.c has the formulas.
 *
 * Chunk by chunk: both logits by oneDNN, then row by row the statistics (maximum, sums of exponentials), the losses and, in
 * place or in bf16, the gradient of the student's logits, from which oneDNN makes the others. Rows report into an array
 * that is summed in order, in fp64, at the end. With x' = x - max x, Z = sum exp(x' / T):
 *
 *   KL = sum_v q_v (t'_v - s'_v) / T - log Z_t + log Z_s */
#include "ops/head_loss.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/logits.h"
#include "ops/head_loss_workspace.h"

#include <inttypes.h>

/* What one row adds to the losses. */
typedef struct result {
    float ce, kl, same;
} result;

typedef struct pass {
    const cab_node *node;
    cab_backend *backend;
    cab_head_workspace w;
    char *scratch;
    float *student, *teacher; /* logits of the chunk; teacher NULL for none */
    void *dlogits;            /* in the activations' dtype; NULL in a forward pass */
    result *results;          /* of every row */
    const int32_t *labels, *valid;
    const float *targets; /* (rows, V), or NULL: the labels alone */
    int64_t n_label, n_valid;
    float sharpness;            /* 1 / T */
    const float *cap;           /* of student and teacher */
    float ce_weight, kl_weight; /* of (p - onehot) and (p_T - q_T) in the gradient of a row */
} pass;

static bool is_valid(const pass *p, int64_t row)
{
    return p->valid == NULL || p->valid[row] != 0;
}

/* The teacher's words must be words. */
static cab_status check_words(const pass *p)
{
    const cab_tensor *ids = p->node->in[CAB_HEAD_IDS];
    for (int64_t i = 0; ids != NULL && i < cab_elements(ids); i++) {
        const int32_t id = ((const int32_t *)ids->data)[i];
        if (id < 0 || id >= p->w.V)
            return cab_fail(CAB_EARG,
                            "head_loss: the teacher's word %" PRId64 " has id %" PRId32 ", expected 0 to %" PRId64, i,
                            id, p->w.V - 1);
    }
    return CAB_OK;
}

static cab_status count_rows(pass *p)
{
    for (int64_t row = 0; row < p->w.rows; row++) {
        if (p->labels[row] >= p->w.V || p->labels[row] < -1)
            return cab_fail(CAB_EARG, "head_loss: label %" PRId32 " in row %" PRId64 ", expected -1 to %" PRId64,
                            p->labels[row], row, p->w.V - 1);
        p->n_label += p->labels[row] >= 0;
        p->n_valid += is_valid(p, row);
    }
    return CAB_OK;
}

static cab_status begin(const cab_node *node, cab_backend *backend, pass *p)
{
    const cab_head_attributes *attributes = node->attributes;
    *p = (pass){.node = node,
                .backend = backend,
                .w = cab_head_workspace_of(node),
                .scratch = node->scratch,
                .student = node->scratch,
                .labels = node->in[CAB_HEAD_LABELS]->data,
                .sharpness = 1.0f,
                .cap = attributes->cap};
    p->results = (result *)(p->scratch + p->w.results);
    p->valid = node->in[CAB_HEAD_VALID] != NULL ? node->in[CAB_HEAD_VALID]->data : NULL;
    p->targets = node->in[CAB_HEAD_TARGETS] != NULL ? node->in[CAB_HEAD_TARGETS]->data : NULL;
    if (cab_head_taught(node)) {
        p->teacher = (float *)(p->scratch + p->w.teacher);
        p->sharpness = 1.0f / attributes->temperature;
    }
    CAB_TRY(count_rows(p));
    CAB_TRY(check_words(p));
    if (!node->backward)
        return CAB_OK;
    p->dlogits = node->in[CAB_HEAD_HIDDEN]->dtype == CAB_F32 ? p->scratch : p->scratch + p->w.dlogits;
    const cab_tensor *ce = node->gout[CAB_HEAD_CE], *kl = p->teacher != NULL ? node->gout[CAB_HEAD_KL] : NULL;
    if (ce != NULL && p->n_label > 0)
        p->ce_weight = *(const float *)ce->data / (float)p->n_label;
    if (kl != NULL && p->n_valid > 0)
        p->kl_weight = *(const float *)kl->data * attributes->temperature / (float)p->n_valid;
    return CAB_OK;
}

/* The first place of the largest element, given that element. */
static int64_t place_of(const float *row, int64_t V, float largest)
{
    enum { STRIDE = 64 };
    int64_t i = 0;
    for (; i + STRIDE <= V; i += STRIDE) {
        int found = 0;
#pragma omp simd reduction(| : found)
        for (int64_t j = 0; j < STRIDE; j++)
            found |= row[i + j] == largest;
        if (found)
            break;
    }
    while (i + 1 < V && row[i] != largest)
        i++;
    return i;
}

/* Sum of exponentials of the teacher's row, and of those times the difference of the logits. */
static float sum_difference(const float *t, float t_max, const float *s, float s_max, int64_t V, float sharpness,
                            float *sum)
{
    float z = 0.0f, difference = 0.0f;
#pragma omp simd reduction(+ : z, difference)
    for (int64_t i = 0; i < V; i++) {
        float e = cab_exp((t[i] - t_max) * sharpness);
        z += e;
        difference += e * ((t[i] - t_max) - (s[i] - s_max));
    }
    *sum = difference;
    return z;
}

/* Sum of a row of targets, and of those times the logits below their maximum. */
static float sum_targets(const float *y, const float *s, float s_max, int64_t V, float *sum)
{
    float total = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : total, product)
    for (int64_t i = 0; i < V; i++) {
        total += y[i];
        product += y[i] * (s[i] - s_max);
    }
    *sum = product;
    return total;
}

/* A row's maxima, the sum of its targets and the inverses of its sums: student at temperature 1 and T, teacher at T. */
typedef struct statistics {
    float s_max, t_max, target, s_inverse, s_inverse_T, t_inverse;
} statistics;

static statistics row_losses(const pass *p, const float *s, const float *t, int64_t row, result *out)
{
    const int64_t V = p->w.V;
    const int32_t label = p->labels[row];
    statistics k = {.s_max = cab_max(s, V), .target = 1.0f};
    const float z = cab_sum_exp(s, V, k.s_max, 1.0f);
    float chosen = label >= 0 ? s[label] - k.s_max : 0.0f;
    if (label >= 0 && p->targets != NULL)
        k.target = sum_targets(p->targets + row * V, s, k.s_max, V, &chosen);
    *out = (result){.ce = label >= 0 ? k.target * logf(z) - chosen : 0.0f};
    k.s_inverse = k.s_inverse_T = 1.0f / z;
    if (t == NULL || !is_valid(p, row))
        return k;
    float difference;
    k.t_max = cab_max(t, V);
    const float z_T = p->sharpness == 1.0f ? z : cab_sum_exp(s, V, k.s_max, p->sharpness);
    const float z_t = sum_difference(t, k.t_max, s, k.s_max, V, p->sharpness, &difference);
    k.s_inverse_T = 1.0f / z_T;
    k.t_inverse = 1.0f / z_t;
    const float kl = difference / z_t * p->sharpness - logf(z_t) + logf(z_T);
    out->kl = kl / (p->sharpness * p->sharpness);
    out->same = place_of(s, V, k.s_max) == place_of(t, V, k.t_max) ? 1.0f : 0.0f;
    return k;
}

/* n columns of the gradient of a row's logits, without what the label or the targets take off. d may be s. */
static void gradient_piece(const pass *p, const statistics *k, const float *s, const float *t, float ce, float kl,
                           int64_t n, float *d)
{
    const float sharpness = p->sharpness, s_max = k->s_max, t_max = k->t_max;
    const float a = ce * k->target * k->s_inverse, b = kl * k->s_inverse_T, c = kl * k->t_inverse;
    if (kl == 0.0f) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            d[i] = a * cab_exp(s[i] - s_max);
    } else if (sharpness == 1.0f) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            d[i] = (a + b) * cab_exp(s[i] - s_max) - c * cab_exp(t[i] - t_max);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            d[i] = a * cab_exp(s[i] - s_max) + b * cab_exp((s[i] - s_max) * sharpness) -
                   c * cab_exp((t[i] - t_max) * sharpness);
    }
}

/* The gradient of n capped logits s to that of what was capped. */
static void uncap(float *d, const float *s, int64_t n, float cap)
{
    const float inverse = 1.0f / cap;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        d[i] *= 1.0f - s[i] * inverse * (s[i] * inverse);
}

/* The gradient of row i of the chunk: in place over the student's logits, or into the bf16 matrix. */
static void row_gradient(const pass *p, const statistics *k, float *s, const float *t, int64_t row, int64_t i)
{
    const int32_t label = p->labels[row];
    const float ce = label >= 0 ? p->ce_weight : 0.0f, kl = t != NULL && is_valid(p, row) ? p->kl_weight : 0.0f;
    const bool in_place = p->dlogits == p->student, capped = p->cap[0] > 0.0f;
    for (int64_t at = 0; at < p->w.V; at += CAB_PIECE) {
        const int64_t n = p->w.V - at < CAB_PIECE ? p->w.V - at : CAB_PIECE;
        float buffer[CAB_PIECE], *d = in_place && !capped ? s + at : buffer;
        gradient_piece(p, k, s + at, t != NULL ? t + at : NULL, ce, kl, n, d);
        if (p->targets != NULL && ce != 0.0f)
            cab_axpy(d, -ce, p->targets + row * p->w.V + at, n);
        else if (label >= at && label < at + n)
            d[label - at] -= ce;
        if (capped)
            uncap(d, s + at, n, p->cap[0]);
        if (!in_place)
            cab_narrow((cab_bf16 *)p->dlogits + i * p->w.ld + at, buffer, n);
        else if (capped)
            memcpy(s + at, buffer, (size_t)n * sizeof *s);
    }
}

/* The teacher's logits of a row out of its likeliest words and the student's logits. Neither of what is left is taken as less than
 * CAB_HEAD_REST, which fp32 could not tell from 0. */
static void expand_words(const pass *p, const float *s, int64_t row, float *t)
{
    const cab_tensor *ids = p->node->in[CAB_HEAD_IDS], *top = p->node->in[CAB_HEAD_TOP];
    const int64_t V = p->w.V, k = cab_columns(ids);
    const int32_t *id = (const int32_t *)ids->data + row * k;
    const float *q = (const float *)top->data + row * k, largest = cab_max(s, V);
    const float z = cab_sum_exp(s, V, largest, 1.0f);
    float rest = 1.0f, outside = z;
    for (int64_t i = 0; i < k; i++) {
        rest -= expf(q[i]);
        outside -= expf(s[id[i]] - largest);
    }
    rest = rest > CAB_HEAD_REST ? rest : CAB_HEAD_REST;
    outside = outside / z > CAB_HEAD_REST ? outside / z : CAB_HEAD_REST;
    const float shift = logf(rest / outside) - largest - logf(z);
    for (int64_t v = 0; v < V; v++)
        t[v] = s[v] + shift;
    for (int64_t i = 0; i < k; i++)
        t[id[i]] = q[i];
}

static cab_status multiply(const pass *p, cab_head_product product, int64_t first, int64_t n, const void *a,
                           const void *b, void *c, const cab_tensor *bias)
{
    const cab_gemm_shape shape = cab_head_shape(p->node, product, n, p->w.ld, first == 0);
    const cab_gemm *gemm;
    CAB_TRY(cab_gemm_get(p->backend, &shape, &gemm));
    return cab_gemm_run(gemm, a, b, c, bias != NULL ? bias->data : NULL, p->scratch + p->w.gemm);
}

static cab_status logits(const pass *p, int64_t first, int64_t n)
{
    cab_tensor *const *in = p->node->in;
    CAB_TRY(multiply(p, CAB_HEAD_LOGITS, first, n, cab_at(in[CAB_HEAD_HIDDEN], first, 0), in[CAB_HEAD_W]->data,
                     p->student, in[CAB_HEAD_B]));
    if (in[CAB_HEAD_TEACHER_HIDDEN] == NULL)
        return CAB_OK;
    return multiply(p, CAB_HEAD_TEACHER_LOGITS, first, n, cab_at(in[CAB_HEAD_TEACHER_HIDDEN], first, 0),
                    in[CAB_HEAD_TEACHER_W]->data, p->teacher, in[CAB_HEAD_TEACHER_B]);
}

/* db += the columns' sums over the chunk's rows, in order. */
static void bias_gradient(const pass *p, int64_t first, int64_t n)
{
    const cab_tensor *db = p->node->gin[CAB_HEAD_B];
    const int64_t V = p->w.V;
    const bool add = first > 0 || (p->node->accumulate >> CAB_HEAD_B & 1);
    cab_tensor d = {.dtype = p->node->in[CAB_HEAD_HIDDEN]->dtype, .ld = p->w.ld, .data = p->dlogits};
#pragma omp parallel for num_threads(p->backend->threads) schedule(static)
    for (int64_t at = 0; at < V; at += CAB_PIECE) {
        const int64_t columns = V - at < CAB_PIECE ? V - at : CAB_PIECE;
        float sum[CAB_PIECE] = {0}, buffer[CAB_PIECE], *to = (float *)db->data + at;
        for (int64_t i = 0; i < n; i++)
            cab_axpy(sum, 1.0f, cab_row_in(&d, i, at, columns, buffer), columns);
        for (int64_t j = 0; j < columns; j++)
            to[j] = add ? to[j] + sum[j] : sum[j];
    }
}

static cab_status gradients(const pass *p, int64_t first, int64_t n)
{
    const cab_node *node = p->node;
    cab_tensor *const *in = node->in, *const *gin = node->gin;
    if (gin[CAB_HEAD_HIDDEN] != NULL)
        CAB_TRY(multiply(p, CAB_HEAD_DHIDDEN, first, n, p->dlogits, in[CAB_HEAD_W]->data,
                         cab_at(gin[CAB_HEAD_HIDDEN], first, 0), NULL));
    if (gin[CAB_HEAD_W] != NULL)
        CAB_TRY(multiply(p, CAB_HEAD_DW, first, n, p->dlogits, cab_at(in[CAB_HEAD_HIDDEN], first, 0),
                         gin[CAB_HEAD_W]->data, NULL));
    if (gin[CAB_HEAD_B] != NULL)
        bias_gradient(p, first, n);
    return CAB_OK;
}

static cab_status chunk(const pass *p, int64_t first, int64_t n)
{
    CAB_TRY(logits(p, first, n));
#pragma omp parallel for num_threads(p->backend->threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float *s = p->student + i * p->w.ld, *t = p->teacher != NULL ? p->teacher + i * p->w.ld : NULL;
        if (p->cap[0] > 0.0f)
            cab_cap_row(s, p->w.V, p->cap[0]);
        if (t != NULL && p->node->in[CAB_HEAD_IDS] != NULL)
            expand_words(p, s, first + i, t);
        else if (t != NULL && p->cap[1] > 0.0f)
            cab_cap_row(t, p->w.V, p->cap[1]);
        const statistics k = row_losses(p, s, t, first + i, &p->results[first + i]);
        if (p->dlogits != NULL)
            row_gradient(p, &k, s, t, first + i, i);
    }
    return p->dlogits != NULL ? gradients(p, first, n) : CAB_OK;
}

static void put(const cab_node *node, int output, double value)
{
    *(float *)node->out[output]->data = (float)value;
}

static void report(const pass *p)
{
    double ce = 0.0, kl = 0.0, same = 0.0;
    for (int64_t row = 0; row < p->w.rows; row++) {
        ce += (double)p->results[row].ce;
        kl += (double)p->results[row].kl;
        same += (double)p->results[row].same;
    }
    const double n_label = p->n_label > 0 ? (double)p->n_label : 1.0,
                 n_valid = p->n_valid > 0 ? (double)p->n_valid : 1.0;
    float *count = p->node->out[CAB_HEAD_COUNT]->data;
    count[0] = (float)p->n_label;
    count[1] = (float)p->n_valid;
    put(p->node, CAB_HEAD_CE, ce / n_label);
    if (p->teacher == NULL)
        return;
    put(p->node, CAB_HEAD_KL, kl / n_valid);
    put(p->node, CAB_HEAD_AGREEMENT, same / n_valid);
}

static cab_status run(const cab_node *node, cab_backend *backend)
{
    pass p;
    CAB_TRY(begin(node, backend, &p));
    for (int64_t first = 0; first < p.w.rows; first += p.w.chunk)
        CAB_TRY(chunk(&p, first, p.w.rows - first < p.w.chunk ? p.w.rows - first : p.w.chunk));
    report(&p);
    return CAB_OK;
}

cab_status CAB_ISA(cab_head_loss_forward)(const cab_node *node, cab_backend *backend)
{
    return run(node, backend);
}

cab_status CAB_ISA(cab_head_loss_backward)(const cab_node *node, cab_backend *backend)
{
    return run(node, backend);
}
