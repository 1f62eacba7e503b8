/* elementwise.c - activations, gates and sums on the CPU, in pieces of a row that stay in the first-level cache. */
#include "ops/elementwise.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

/* n columns of a row, at most CAB_PIECE. */
typedef struct piece {
    int64_t row, column, n;
} piece;

static inline int64_t pieces_of(int64_t columns)
{
    return (columns + CAB_PIECE - 1) / CAB_PIECE;
}

static inline piece piece_at(int64_t index, int64_t columns)
{
    int64_t per_row = pieces_of(columns);
    int64_t column = index % per_row * CAB_PIECE;
    return (piece){index / per_row, column, columns - column < CAB_PIECE ? columns - column : CAB_PIECE};
}

static inline const float *read(const cab_tensor *t, piece p, float *buffer)
{
    return cab_row_in(t, p.row, p.column, p.n, buffer);
}

static inline float *begin(const cab_tensor *t, piece p, float *buffer)
{
    return cab_row_out(t, p.row, p.column, buffer);
}

static inline float *begin_sum(const cab_node *node, int i, piece p, float *buffer)
{
    return cab_row_sum(node->gin[i], p.row, p.column, p.n, node->accumulate >> i & 1u, buffer);
}

static inline void end(const cab_tensor *t, piece p, const float *out)
{
    cab_row_done(t, p.row, p.column, p.n, out);
}

/* ---- activate -------------------------------------------------------------------------------------------------------- */

static const float gelu_a = 0.797884561f, gelu_b = 0.044715f; /* sqrt(2 / pi) and the cubic term */
static const float half_sqrt = 0.707106781f;                  /* 1 / sqrt(2) */
static const float normal_peak = 0.398942280f;                /* 1 / sqrt(2 pi) */

static inline float gelu_tanh(float x)
{
    return x * cab_sigmoid(2.0f * gelu_a * (x + gelu_b * x * x * x));
}

static inline float gelu_tanh_gradient(float x)
{
    float s = cab_sigmoid(2.0f * gelu_a * (x + gelu_b * x * x * x));
    return s + x * s * (1.0f - s) * 2.0f * gelu_a * (1.0f + 3.0f * gelu_b * x * x);
}

static inline float gelu_erf(float x)
{
    return 0.5f * x * (1.0f + cab_erf(half_sqrt * x));
}

static inline float gelu_erf_gradient(float x)
{
    return 0.5f * (1.0f + cab_erf(half_sqrt * x)) + x * normal_peak * cab_exp(-0.5f * x * x);
}

/* Both comparisons are false for NaN, which goes through. */
static inline float relu(float x)
{
    return x < 0.0f ? 0.0f : x;
}

static inline float relu_gradient(float x)
{
    return x > 0.0f ? 1.0f : 0.0f;
}

static inline float tanh_gradient(float x)
{
    float t = cab_tanh(x);
    return 1.0f - t * t;
}

#define MAP(function)                                                                                                  \
    do {                                                                                                               \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = function(x[i]);                                     \
    } while (0)
#define MAP_GRADIENT(function)                                                                                         \
    do {                                                                                                               \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) dx[i] += dy[i] * function(x[i]);                           \
    } while (0)

static void activate(cab_activation_kind kind, float *restrict y, const float *restrict x, int64_t n)
{
    switch (kind) {
    case CAB_GELU_TANH:
        MAP(gelu_tanh);
        break;
    case CAB_GELU_ERF:
        MAP(gelu_erf);
        break;
    case CAB_SILU:
        MAP(cab_silu);
        break;
    case CAB_RELU:
        MAP(relu);
        break;
    case CAB_TANH:
        MAP(cab_tanh);
        break;
    }
}

static void activate_gradient(cab_activation_kind kind, float *restrict dx, const float *restrict dy,
                              const float *restrict x, int64_t n)
{
    switch (kind) {
    case CAB_GELU_TANH:
        MAP_GRADIENT(gelu_tanh_gradient);
        break;
    case CAB_GELU_ERF:
        MAP_GRADIENT(gelu_erf_gradient);
        break;
    case CAB_SILU:
        MAP_GRADIENT(cab_silu_gradient);
        break;
    case CAB_RELU:
        MAP_GRADIENT(relu_gradient);
        break;
    case CAB_TANH:
        MAP_GRADIENT(tanh_gradient);
        break;
    }
}

static cab_activation_kind kind_of(const cab_node *node)
{
    return ((const cab_activate_attributes *)node->attributes)->kind;
}

cab_status CAB_ISA(cab_activate_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const cab_activation_kind kind = kind_of(node);
    int64_t columns = cab_columns(x), count = cab_rows(x) * pieces_of(columns);
#pragma omp parallel for num_threads(cab_threads_for(backend, columns *cab_rows(x))) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float a[CAB_PIECE], b[CAB_PIECE];
        piece p = piece_at(i, columns);
        float *out = begin(y, p, b);
        activate(kind, out, read(x, p, a), p.n);
        end(y, p, out);
    }
    return CAB_OK;
}

cab_status CAB_ISA(cab_activate_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *dy = node->gout[0], *dx = node->gin[0];
    const cab_activation_kind kind = kind_of(node);
    int64_t columns = cab_columns(x), count = cab_rows(x) * pieces_of(columns);
#pragma omp parallel for num_threads(cab_threads_for(backend, columns *cab_rows(x))) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float a[CAB_PIECE], b[CAB_PIECE], c[CAB_PIECE];
        piece p = piece_at(i, columns);
        float *out = begin_sum(node, 0, p, c);
        activate_gradient(kind, out, read(dy, p, b), read(x, p, a), p.n);
        end(dx, p, out);
    }
    return CAB_OK;
}

/* ---- glu and gate: value times f(gate), or times silu of (gate + bias) ------------------------------------------------- */

static inline void multiply_silu(float *restrict y, const float *restrict value, const float *restrict gate,
                                 const float *restrict bias, int64_t n)
{
    if (bias) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = value[i] * cab_silu(gate[i] + bias[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = value[i] * cab_silu(gate[i]);
    }
}

/* y = value f(gate) */
static inline void multiply_activated(cab_activation_kind kind, float *restrict y, const float *restrict value,
                                      const float *restrict gate, int64_t n)
{
    activate(kind, y, gate, n);
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] *= value[i];
}

/* y = value f(gate + bias), f SiLU where there is a bias over the columns; bias may be NULL */
static cab_status gated_forward(const cab_backend *backend, const cab_tensor *value, const cab_tensor *gate,
                                const cab_tensor *bias, cab_activation_kind kind, const cab_tensor *y)
{
    int64_t columns = cab_columns(y), count = cab_rows(y) * pieces_of(columns);
#pragma omp parallel for num_threads(cab_threads_for(backend, columns *cab_rows(y))) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float a[CAB_PIECE], b[CAB_PIECE], c[CAB_PIECE], d[CAB_PIECE];
        piece p = piece_at(i, columns);
        float *out = begin(y, p, d);
        const float *v = read(value, p, a), *z = read(gate, p, b);
        if (kind == CAB_SILU)
            multiply_silu(out, v, z, bias ? cab_row_in(bias, 0, p.column, p.n, c) : NULL, p.n);
        else
            multiply_activated(kind, out, v, z, p.n);
        end(y, p, out);
    }
    return CAB_OK;
}

/* In: value, gate + bias. Out: what dvalue and dgate receive. */
static inline void gated_gradients(cab_activation_kind kind, float *restrict dvalue, float *restrict dgate,
                                   const float *restrict dy, const float *restrict value, const float *restrict gate,
                                   int64_t n)
{
    if (kind != CAB_SILU) {
        multiply_activated(kind, dvalue, dy, gate, n);
        float dactivated[CAB_PIECE];
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            dactivated[i] = dy[i] * value[i];
            dgate[i] = 0.0f;
        }
        activate_gradient(kind, dgate, dactivated, gate, n);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float s = cab_sigmoid(gate[i]);
        dvalue[i] = dy[i] * gate[i] * s;
        dgate[i] = dy[i] * value[i] * (s + gate[i] * s * (1.0f - s));
    }
}

static inline void add_to(const cab_node *node, int i, piece p, float scale, const float *gradient)
{
    float buffer[CAB_PIECE];
    if (!node->gin[i])
        return;
    float *out = begin_sum(node, i, p, buffer);
    cab_axpy(out, scale, gradient, p.n);
    end(node->gin[i], p, out);
}

/* One piece; `partial` (columns) receives the sum of the gate's gradient unless NULL. */
static void gated_backward_piece(const cab_node *node, int value, int gate, const cab_tensor *bias,
                                 cab_activation_kind kind, piece p, float *partial)
{
    float a[CAB_PIECE], b[CAB_PIECE], c[CAB_PIECE], d[CAB_PIECE], dvalue[CAB_PIECE], dgate[CAB_PIECE];
    const float *z = read(node->in[gate], p, b);
    if (bias) {
        const float *shift = cab_row_in(bias, 0, p.column, p.n, d);
#pragma omp simd
        for (int64_t i = 0; i < p.n; i++)
            c[i] = z[i] + shift[i];
        z = c;
    }
    const float *v = read(node->in[value], p, a);
    float g[CAB_PIECE];
    gated_gradients(kind, dvalue, dgate, read(node->gout[0], p, g), v, z, p.n);
    add_to(node, value, p, 1.0f, dvalue);
    add_to(node, gate, p, 1.0f, dgate);
    if (partial)
        cab_axpy(partial + p.column, 1.0f, dgate, p.n);
}

static cab_status gated_backward(const cab_node *node, const cab_backend *backend, int value, int gate,
                                 const cab_tensor *bias, cab_activation_kind kind, const cab_tensor *dbias)
{
    int64_t columns = cab_columns(node->gout[0]), rows = cab_rows(node->gout[0]), per_row = pieces_of(columns);
    float *partials = node->scratch;
#pragma omp parallel for num_threads(cab_threads_for(backend, columns *rows)) schedule(static)
    for (int block = 0; block < CAB_BLOCKS; block++) {
        float *partial = dbias ? partials + block * columns : NULL;
        if (partial)
            memset(partial, 0, (size_t)columns * sizeof *partial);
        for (int64_t row = cab_block_first(rows, block); row < cab_block_first(rows, block + 1); row++)
            for (int64_t k = 0; k < per_row; k++)
                gated_backward_piece(node, value, gate, bias, kind, piece_at(row * per_row + k, columns), partial);
    }
    if (dbias)
        cab_block_sums(dbias->data, partials, columns, columns);
    return CAB_OK;
}

cab_status CAB_ISA(cab_glu_forward)(const cab_node *node, cab_backend *backend)
{
    return gated_forward(backend, node->in[1], node->in[0], NULL, kind_of(node), node->out[0]);
}

cab_status CAB_ISA(cab_glu_backward)(const cab_node *node, cab_backend *backend)
{
    return gated_backward(node, backend, 1, 0, NULL, kind_of(node), NULL);
}

cab_status CAB_ISA(cab_gate_forward)(const cab_node *node, cab_backend *backend)
{
    return gated_forward(backend, node->in[0], node->in[1], node->in[2], CAB_SILU, node->out[0]);
}

cab_status CAB_ISA(cab_gate_backward)(const cab_node *node, cab_backend *backend)
{
    return gated_backward(node, backend, 0, 1, node->in[2], CAB_SILU, node->gin[2]);
}

/* ---- add ------------------------------------------------------------------------------------------------------------------ */

cab_status CAB_ISA(cab_add_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *y = node->out[0];
    const float scale = ((const cab_add_attributes *)node->attributes)->scale;
    int64_t columns = cab_columns(y), count = cab_rows(y) * pieces_of(columns);
#pragma omp parallel for num_threads(cab_threads_for(backend, columns *cab_rows(y))) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float a[CAB_PIECE], sum[CAB_PIECE];
        piece p = piece_at(i, columns);
        float *out = begin(y, p, sum);
        memcpy(out, read(node->in[0], p, a), (size_t)p.n * sizeof *out);
        for (int k = 1; k < node->n_in; k++)
            cab_axpy(out, 1.0f, read(node->in[k], p, a), p.n);
        if (scale != 1.0f)
#pragma omp simd
            for (int64_t j = 0; j < p.n; j++)
                out[j] *= scale;
        end(y, p, out);
    }
    return CAB_OK;
}

cab_status CAB_ISA(cab_add_backward)(const cab_node *node, cab_backend *backend)
{
    const float scale = ((const cab_add_attributes *)node->attributes)->scale;
    int64_t columns = cab_columns(node->gout[0]), count = cab_rows(node->gout[0]) * pieces_of(columns);
#pragma omp parallel for num_threads(cab_threads_for(backend, columns *cab_rows(node->gout[0]))) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float buffer[CAB_PIECE];
        piece p = piece_at(i, columns);
        const float *dy = read(node->gout[0], p, buffer);
        for (int k = 0; k < node->n_in; k++)
            add_to(node, k, p, scale, dy);
    }
    return CAB_OK;
}
