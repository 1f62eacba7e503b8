/* toy.h - a backend of plain memory and a handful of small fp32 ops, enough to try the graph without the real ones.
 *
 * Every op is linear in each input, so that gradients of graphs made of them can be had exactly by replaying the graph.
 *
 *   mul       y = a * b                                   toy_mul(g, a, b)
 *   mix       y = a + 2 b + 3 c ...                       toy_mix(g, n, xs)
 *   weigh     y[r, c] = x[r, c] * w[c]                    toy_weigh(g, x, w)       w a parameter
 *   stretch   y[r, j] = (1 + j / C) * x[r, j % C]         toy_stretch(g, x, columns)
 *   running   y[r, c] = sum over r' <= r of x[r', c]      toy_running(g, x)        keeps the sum in scratch
 *   halves    y = x / 2, z = 2 x                          toy_halves(g, x, out)
 *   total     y = sum of x                                toy_total(g, x)
 *   loss      y = sum of (x - t)^2, values and gradient in one pass                toy_loss(g, x, t)
 *   count     h += 1, y = h + x                           toy_count(g, h, x)       h a state */
#ifndef TOY_H
#define TOY_H

#include "temp.h"
#include "tensor/kernel.h"
#include "tensor/params.h"

#include <math.h>

/* ---- the backend ----------------------------------------------------------------------------------------------------- */

typedef struct toy_heap {
    cab_backend backend;
    int blocks;       /* allocated and not released */
    double available; /* what the backend says it has */
    int downloads;
} toy_heap;

static inline toy_heap *toy_heap_of(cab_backend *backend)
{
    return (toy_heap *)backend;
}

static inline cab_status toy_allocate(cab_backend *backend, size_t bytes, const char *what, void **out)
{
    *out = calloc(bytes > 0 ? bytes : 1, 1);
    if (*out == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: %s", what);
    toy_heap_of(backend)->blocks++;
    return CAB_OK;
}

static inline void toy_release(cab_backend *backend, void *block)
{
    toy_heap_of(backend)->blocks -= block != NULL;
    free(block);
}

static inline cab_status toy_copy(cab_backend *backend, void *to, const void *from, size_t bytes)
{
    (void)backend;
    memcpy(to, from, bytes);
    return CAB_OK;
}

static inline cab_status toy_download(cab_backend *backend, void *to, const void *from, size_t bytes)
{
    toy_heap_of(backend)->downloads++;
    return toy_copy(backend, to, from, bytes);
}

static inline cab_status toy_narrow(cab_backend *backend, void *to, const void *from, size_t n)
{
    (void)backend;
    cab_convert(to, CAB_BF16, from, CAB_F32, n);
    return CAB_OK;
}

static inline cab_status toy_fill(cab_backend *backend, void *to, int byte, size_t pitch, size_t width, size_t rows)
{
    (void)backend;
    for (size_t r = 0; r < rows; r++)
        memset((char *)to + r * pitch, byte, width);
    return CAB_OK;
}

static inline double toy_available(cab_backend *backend)
{
    return toy_heap_of(backend)->available;
}

/* ---- kernels --------------------------------------------------------------------------------------------------------- */

static inline float *toy_row(const cab_tensor *t, int64_t r)
{
    return (float *)t->data + r * t->ld;
}

/* gin[i][r, c] = or += value */
static inline void toy_give(const cab_node *node, int i, int64_t r, int64_t c, float value)
{
    float *to = toy_row(node->gin[i], r) + c;
    bool add = node->accumulate >> i & 1u;
    *to = (add ? *to : 0.0f) + value;
}

static inline cab_status toy_mul_forward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->out[0]); c++)
            toy_row(node->out[0], r)[c] = toy_row(node->in[0], r)[c] * toy_row(node->in[1], r)[c];
    return CAB_OK;
}

static inline cab_status toy_mul_backward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int i = 0; i < 2; i++)
        for (int64_t r = 0; node->gin[i] != NULL && r < cab_rows(node->gout[0]); r++)
            for (int64_t c = 0; c < cab_columns(node->gout[0]); c++)
                toy_give(node, i, r, c, toy_row(node->gout[0], r)[c] * toy_row(node->in[1 - i], r)[c]);
    return CAB_OK;
}

static inline cab_status toy_mix_forward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->out[0]); c++) {
            float sum = 0;
            for (int i = 0; i < node->n_in; i++)
                sum += (float)(i + 1) * toy_row(node->in[i], r)[c];
            toy_row(node->out[0], r)[c] = sum;
        }
    return CAB_OK;
}

static inline cab_status toy_mix_backward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int i = 0; i < node->n_in; i++)
        for (int64_t r = 0; node->gin[i] != NULL && r < cab_rows(node->gout[0]); r++)
            for (int64_t c = 0; c < cab_columns(node->gout[0]); c++)
                toy_give(node, i, r, c, (float)(i + 1) * toy_row(node->gout[0], r)[c]);
    return CAB_OK;
}

static inline cab_status toy_weigh_forward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    const float *w = node->in[1]->data;
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->out[0]); c++)
            toy_row(node->out[0], r)[c] = toy_row(node->in[0], r)[c] * w[c];
    return CAB_OK;
}

static inline cab_status toy_weigh_backward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    const float *w = node->in[1]->data;
    for (int64_t r = 0; r < cab_rows(node->gout[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->gout[0]); c++) {
            float dy = toy_row(node->gout[0], r)[c];
            if (node->gin[0] != NULL)
                toy_give(node, 0, r, c, dy * w[c]);
            if (node->gin[1] != NULL)
                ((float *)node->gin[1]->data)[c] += dy * toy_row(node->in[0], r)[c];
        }
    return CAB_OK;
}

static inline cab_status toy_stretch_forward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    const int64_t columns = cab_columns(node->in[0]);
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t j = 0; j < cab_columns(node->out[0]); j++)
            toy_row(node->out[0], r)[j] = (float)(1 + j / columns) * toy_row(node->in[0], r)[j % columns];
    return CAB_OK;
}

static inline cab_status toy_stretch_backward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    const int64_t columns = cab_columns(node->gin[0]);
    for (int64_t r = 0; r < cab_rows(node->gout[0]); r++)
        for (int64_t c = 0; c < columns; c++) {
            float sum = 0;
            for (int64_t j = c; j < cab_columns(node->gout[0]); j += columns)
                sum += (float)(1 + j / columns) * toy_row(node->gout[0], r)[j];
            toy_give(node, 0, r, c, sum);
        }
    return CAB_OK;
}

static inline size_t toy_running_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_tensor *t = node->backward ? node->gout[0] : node->out[0];
    return (size_t)cab_columns(t) * sizeof(float);
}

static inline cab_status toy_running_forward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    float *sum = node->scratch;
    for (int64_t c = 0; c < cab_columns(node->out[0]); c++)
        sum[c] = 0;
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->out[0]); c++) {
            sum[c] += toy_row(node->in[0], r)[c];
            toy_row(node->out[0], r)[c] = sum[c];
        }
    return CAB_OK;
}

static inline cab_status toy_running_backward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    float *sum = node->scratch;
    for (int64_t c = 0; c < cab_columns(node->gout[0]); c++)
        sum[c] = 0;
    for (int64_t r = cab_rows(node->gout[0]) - 1; r >= 0; r--)
        for (int64_t c = 0; c < cab_columns(node->gout[0]); c++) {
            sum[c] += toy_row(node->gout[0], r)[c];
            toy_give(node, 0, r, c, sum[c]);
        }
    return CAB_OK;
}

static inline cab_status toy_halves_forward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->in[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->in[0]); c++) {
            toy_row(node->out[0], r)[c] = 0.5f * toy_row(node->in[0], r)[c];
            toy_row(node->out[1], r)[c] = 2.0f * toy_row(node->in[0], r)[c];
        }
    return CAB_OK;
}

static inline cab_status toy_halves_backward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->gin[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->gin[0]); c++)
            toy_give(node, 0, r, c,
                     (node->gout[0] != NULL ? 0.5f * toy_row(node->gout[0], r)[c] : 0.0f) +
                         (node->gout[1] != NULL ? 2.0f * toy_row(node->gout[1], r)[c] : 0.0f));
    return CAB_OK;
}

static inline cab_status toy_total_forward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    float sum = 0;
    for (int64_t r = 0; r < cab_rows(node->in[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->in[0]); c++)
            sum += toy_row(node->in[0], r)[c];
    *(float *)node->out[0]->data = sum;
    return CAB_OK;
}

static inline cab_status toy_total_backward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    for (int64_t r = 0; r < cab_rows(node->gin[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->gin[0]); c++)
            toy_give(node, 0, r, c, *(const float *)node->gout[0]->data);
    return CAB_OK;
}

static inline cab_status toy_loss_forward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    float sum = 0;
    for (int64_t r = 0; r < cab_rows(node->in[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->in[0]); c++) {
            float d = toy_row(node->in[0], r)[c] - toy_row(node->in[1], r)[c];
            sum += d * d;
        }
    *(float *)node->out[0]->data = sum;
    return CAB_OK;
}

static inline cab_status toy_loss_backward(const cab_node *node, cab_backend *backend)
{
    for (int64_t r = 0; node->gin[0] != NULL && r < cab_rows(node->in[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->in[0]); c++)
            toy_give(node, 0, r, c,
                     2.0f * *(const float *)node->gout[0]->data *
                         (toy_row(node->in[0], r)[c] - toy_row(node->in[1], r)[c]));
    return toy_loss_forward(node, backend);
}

static inline cab_status toy_count_forward(const cab_node *node, cab_backend *backend)
{
    (void)backend;
    float *h = node->in[0]->data;
    *h += 1;
    for (int64_t r = 0; r < cab_rows(node->out[0]); r++)
        for (int64_t c = 0; c < cab_columns(node->out[0]); c++)
            toy_row(node->out[0], r)[c] = toy_row(node->in[1], r)[c] + *h;
    return CAB_OK;
}

/* ---- ops and recorders ----------------------------------------------------------------------------------------------- */

static const cab_op toy_op_mul = {.name = "mul", .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1)};
static const cab_op toy_op_mix = {.name = "mix"};
static const cab_op toy_op_weigh = {.name = "weigh", .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1)};
static const cab_op toy_op_stretch = {.name = "stretch"};
static const cab_op toy_op_running = {.name = "running"};
static const cab_op toy_op_halves = {.name = "halves"};
static const cab_op toy_op_total = {.name = "total"};
static const cab_op toy_op_loss = {
    .name = "loss", .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1), .backward_computes_outputs = true};
static const cab_op toy_op_count = {.name = "count"};

/* The rows of the table of kernels; a test with ops of its own puts theirs behind them, and opens with that table. */
#define TOY_KERNELS                                                                                                    \
    {.op = &toy_op_mul, .direction = CAB_FORWARD, .run = toy_mul_forward},                                             \
        {.op = &toy_op_mul, .direction = CAB_BACKWARD, .run = toy_mul_backward},                                       \
        {.op = &toy_op_mix, .direction = CAB_FORWARD, .run = toy_mix_forward},                                         \
        {.op = &toy_op_mix, .direction = CAB_BACKWARD, .run = toy_mix_backward},                                       \
        {.op = &toy_op_weigh, .direction = CAB_FORWARD, .run = toy_weigh_forward},                                     \
        {.op = &toy_op_weigh, .direction = CAB_BACKWARD, .run = toy_weigh_backward},                                   \
        {.op = &toy_op_stretch, .direction = CAB_FORWARD, .run = toy_stretch_forward},                                 \
        {.op = &toy_op_stretch, .direction = CAB_BACKWARD, .run = toy_stretch_backward},                               \
        {.op = &toy_op_running, .direction = CAB_FORWARD, .run = toy_running_forward, .scratch = toy_running_scratch}, \
        {.op = &toy_op_running,                                                                                        \
         .direction = CAB_BACKWARD,                                                                                    \
         .run = toy_running_backward,                                                                                  \
         .scratch = toy_running_scratch},                                                                              \
        {.op = &toy_op_halves, .direction = CAB_FORWARD, .run = toy_halves_forward},                                   \
        {.op = &toy_op_halves, .direction = CAB_BACKWARD, .run = toy_halves_backward},                                 \
        {.op = &toy_op_total, .direction = CAB_FORWARD, .run = toy_total_forward},                                     \
        {.op = &toy_op_total, .direction = CAB_BACKWARD, .run = toy_total_backward},                                   \
        {.op = &toy_op_loss, .direction = CAB_FORWARD, .run = toy_loss_forward},                                       \
        {.op = &toy_op_loss, .direction = CAB_BACKWARD, .run = toy_loss_backward},                                     \
    {                                                                                                                  \
        .op = &toy_op_count, .direction = CAB_FORWARD, .run = toy_count_forward                                        \
    }

static const cab_kernel_row toy_rows[] = {TOY_KERNELS};
static const cab_kernel_table toy_kernels = {.rows = toy_rows, .n_row = sizeof toy_rows / sizeof *toy_rows};

static inline toy_heap toy_open_with(const cab_kernel_table *kernels)
{
    return (toy_heap){.backend = {.name = "toy",
                                  .kernels = kernels,
                                  .host = true,
                                  .threads = 1,
                                  .allocate = toy_allocate,
                                  .release = toy_release,
                                  .upload = toy_copy,
                                  .download = toy_download,
                                  .copy = toy_copy,
                                  .narrow = toy_narrow,
                                  .fill = toy_fill,
                                  .available = toy_available},
                      .available = 1e12};
}

static inline toy_heap toy_open(void)
{
    return toy_open_with(&toy_kernels);
}

static inline cab_tensor *toy_record(cab_graph *g, const cab_op *op, int n_in, cab_tensor *const *in, int64_t rows,
                                     int64_t columns)
{
    cab_tensor *y = cab_graph_activation(g, op->name, CAB_F32, 2, (int64_t[]){rows, columns});
    cab_graph_append(g, op, n_in, in, 1, &y, NULL, 0);
    return cab_graph_failed(g) ? NULL : y;
}

static inline cab_tensor *toy_mix(cab_graph *g, int n, cab_tensor *const *xs)
{
    for (int i = 0; i < n; i++) {
        if (cab_graph_failed(g) || xs[i] == NULL)
            return NULL;
        if (cab_rows(xs[i]) != cab_rows(xs[0]) || cab_columns(xs[i]) != cab_columns(xs[0])) {
            char a[96], b[96];
            return cab_graph_fail(g, CAB_ESHAPE, "mix: %s and %s, expected the same", cab_shape_text(xs[0], a),
                                  cab_shape_text(xs[i], b));
        }
    }
    return toy_record(g, &toy_op_mix, n, xs, cab_rows(xs[0]), cab_columns(xs[0]));
}

static inline cab_tensor *toy_mul(cab_graph *g, cab_tensor *a, cab_tensor *b)
{
    return a == NULL || b == NULL ? NULL
                                  : toy_record(g, &toy_op_mul, 2, (cab_tensor *[]){a, b}, cab_rows(a), cab_columns(a));
}

static inline cab_tensor *toy_weigh(cab_graph *g, cab_tensor *x, cab_tensor *w)
{
    return x == NULL ? NULL : toy_record(g, &toy_op_weigh, 2, (cab_tensor *[]){x, w}, cab_rows(x), cab_columns(x));
}

static inline cab_tensor *toy_stretch(cab_graph *g, cab_tensor *x, int64_t columns)
{
    return x == NULL ? NULL : toy_record(g, &toy_op_stretch, 1, &x, cab_rows(x), columns);
}

static inline cab_tensor *toy_running(cab_graph *g, cab_tensor *x)
{
    return x == NULL ? NULL : toy_record(g, &toy_op_running, 1, &x, cab_rows(x), cab_columns(x));
}

static inline cab_tensor *toy_total(cab_graph *g, cab_tensor *x)
{
    return x == NULL ? NULL : toy_record(g, &toy_op_total, 1, &x, 1, 1);
}

static inline cab_tensor *toy_loss(cab_graph *g, cab_tensor *x, cab_tensor *target)
{
    return x == NULL ? NULL : toy_record(g, &toy_op_loss, 2, (cab_tensor *[]){x, target}, 1, 1);
}

static inline cab_tensor *toy_count(cab_graph *g, cab_tensor *h, cab_tensor *x)
{
    return x == NULL ? NULL : toy_record(g, &toy_op_count, 2, (cab_tensor *[]){h, x}, cab_rows(x), cab_columns(x));
}

static inline void toy_halves(cab_graph *g, cab_tensor *x, cab_tensor *out[2])
{
    for (int i = 0; i < 2; i++)
        out[i] = cab_graph_activation(g, "half", CAB_F32, 2, (int64_t[]){cab_rows(x), cab_columns(x)});
    cab_graph_append(g, &toy_op_halves, 1, &x, 2, out, NULL, 0);
}

/* ---- fixtures -------------------------------------------------------------------------------------------------------- */

/* An input of rows x columns holding first, first + step, first + 2 step ... */
static inline cab_tensor *toy_input(cab_graph *g, int64_t rows, int64_t columns, float first, float step)
{
    cab_tensor *t = cab_graph_input(g, "input", CAB_F32, 2, (int64_t[]){rows, columns});
    assert_non_null(t);
    for (int64_t i = 0; i < rows * columns; i++)
        ((float *)t->data)[i] = first + (float)i * step;
    return t;
}

static inline cab_tensor *toy_parameter(cab_params *params, const char *name, int64_t n, const float *values)
{
    cab_tensor *t = NULL;
    assert_ok(cab_params_add(params, name, CAB_F32, 1, &n, CAB_DECAY, &t));
    assert_ok(cab_params_write(params, t, values));
    return t;
}

/* The whole tensor, in a buffer the caller frees. */
static inline float *toy_read(cab_graph *g, const cab_tensor *t)
{
    float *values = calloc((size_t)cab_elements(t), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_tensor_read(g, t, values));
    return values;
}

/* The tensor holds exactly these numbers. */
static inline void toy_expect(cab_graph *g, const cab_tensor *t, const float *expected)
{
    assert_non_null(t);
    float *values = toy_read(g, t);
    for (int64_t i = 0; i < cab_elements(t); i++)
        if (values[i] != expected[i])
            fail_msg("\"%s\"[%d] is %g, expected %g", t->name, (int)i, (double)values[i], (double)expected[i]);
    free(values);
}

/* Appends the backward pass of a sum of scalars, each with weight 1. */
static inline void toy_backward(cab_graph *g, int n, cab_tensor *const *outputs)
{
    cab_tensor *seeds[8];
    for (int i = 0; i < n; i++)
        seeds[i] = cab_graph_scalar(g, "seed", 1);
    cab_graph_backward(g, n, outputs, seeds);
}

/* Nodes of the list that run, forward or backward, with that op. */
static inline int toy_count_nodes(const cab_graph *g, const cab_op *op, bool backward)
{
    int n = 0;
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        n += node->op == op && node->backward == backward && !node->skip;
    }
    return n;
}

#endif
