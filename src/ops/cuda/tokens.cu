/* tokens.cu - patches, inserted and selected tokens on the GPU: rows that move; src/ops/tokens.c has the formulas.
 *
 * Layout: a thread moves a packet of neighbouring columns of one row (each.cuh). A packet of a patch stays within one
 * line of the patch. The gradients of positions and inserted tokens are sums over the batch: over_batch() gives the
 * same packet of all sequences to the 8 lanes of a block, which add in a fixed order.
 *
 * Arithmetic: y = x, or y = x + positions, in fp32 and rounded once. Every element is read and written once. Memory
 * is the limit. */
#include "ops/cuda/each.cuh"

extern "C" {
#include "ops/tokens.h"
}

static_assert(CAB_TOKENS_MAX == 2, "the two inserted tokens are told apart by name below");

/* Columns of y are (channel, row, column) of a patch; N > 1 only where a packet stays within a line of it. */
template <typename T> struct gather_patches {
    const float *image;
    rows_of<T> y;
    int channels, height, width, patch, across, tokens;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        const uint32_t b = (uint32_t)row / (uint32_t)tokens, token = (uint32_t)row % (uint32_t)tokens;
        const uint32_t i = token / (uint32_t)across, j = token % (uint32_t)across;
        const uint32_t line = (uint32_t)column / (uint32_t)patch, s = (uint32_t)column % (uint32_t)patch;
        const uint32_t c = line / (uint32_t)patch, r = line % (uint32_t)patch;
        const int64_t from = ((b * (int64_t)channels + c) * height + i * patch + r) * width + j * patch + s;
        float v[N];
        load_floats(image + from, v);
        store_floats(y.at(row, column), v);
    }
};

template <typename T> static cab_status patches(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *image = node->in[0], *y = node->out[0];
    gather_patches<T> f = {};
    f.image = (const float *)image->data;
    f.y = rows<T>(y);
    f.patch = ((const cab_patches_attributes *)node->attributes)->patch;
    f.channels = (int)image->shape[1];
    f.height = (int)image->shape[2];
    f.width = (int)image->shape[3];
    f.across = f.width / f.patch;
    f.tokens = (int)y->shape[1];
    extent e = extent_of(y, {image, y});
    if (f.patch % e.packet != 0)
        e.packet = 1;
    return each(f, e, backend, "patches");
}

extern "C" cab_status cab_patches_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->out[0]->dtype, status = patches<T>(node, backend));
    return status;
}

/* ---- insert_tokens ----------------------------------------------------------------------------------------------------- */

/* cab_insert_source() on the GPU: the inserted token that stands at row l, or -1 and in *from the row of x. */
__device__ __forceinline__ int insert_source(const cab_insert_attributes &a, int64_t l, int64_t *from)
{
    int before = 0, token = -1;
#pragma unroll
    for (int i = 0; i < CAB_TOKENS_MAX; i++)
        if (i < a.n) {
            before += a.at[i] < l;
            token = a.at[i] == l ? i : token;
        }
    *from = l - before;
    return token;
}

template <typename T> struct insert_rows {
    cab_insert_attributes a;
    rows_of<const T> x;
    rows_of<T> y;
    const float *token[2], *positions;
    int64_t length, columns;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        const int64_t b = (uint32_t)row / (uint32_t)length, l = (uint32_t)row % (uint32_t)length;
        int64_t from;
        const int inserted = insert_source(a, l, &from);
        float v[N];
        if (inserted >= 0)
            load_floats((inserted == 0 ? token[0] : token[1]) + column, v);
        else
            load_floats(x.at(b * (length - a.n) + from, column), v);
        if (positions) {
            float p[N];
            load_floats(positions + l * columns + column, p);
#pragma unroll
            for (int i = 0; i < N; i++)
                v[i] += p[i];
        }
        store_floats(y.at(row, column), v);
    }
};

/* Token i of a list of inputs or gradients; NULL where there is none. */
static const cab_tensor *token_of(const cab_node *node, cab_tensor *const *list, int i)
{
    return CAB_INSERT_TOKENS + i < node->n_in ? list[CAB_INSERT_TOKENS + i] : NULL;
}

/* Whether vectors of `columns` floats can be moved in packets; NULL can. */
static bool vector_fits(const cab_tensor *t, int64_t columns)
{
    return !t || ((uintptr_t)t->data % (EACH_PACKET * sizeof(float)) == 0 && columns % EACH_PACKET == 0);
}

static bool vectors_fit(const cab_node *node, cab_tensor *const *list, int64_t columns)
{
    bool fit = vector_fits(list[CAB_INSERT_POSITIONS], columns);
    for (int i = 0; i < CAB_TOKENS_MAX; i++)
        fit = fit && vector_fits(token_of(node, list, i), columns);
    return fit;
}

template <typename T> static cab_status insert_forward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[CAB_INSERT_X], *positions = node->in[CAB_INSERT_POSITIONS], *y = node->out[0];
    insert_rows<T> f = {};
    f.a = *(const cab_insert_attributes *)node->attributes;
    f.x = rows<const T>(x);
    f.y = rows<T>(y);
    for (int i = 0; i < f.a.n; i++)
        f.token[i] = (const float *)token_of(node, node->in, i)->data;
    f.positions = positions ? (const float *)positions->data : NULL;
    f.length = y->shape[1];
    f.columns = cab_columns(y);
    extent e = extent_of(y, {x, y});
    if (!vectors_fit(node, node->in, f.columns))
        e.packet = 1;
    return each(f, e, backend, "insert_tokens");
}

extern "C" cab_status cab_insert_tokens_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->out[0]->dtype, status = insert_forward<T>(node, backend));
    return status;
}

template <typename T> struct insert_gradients {
    cab_insert_attributes a;
    rows_of<const T> dy;
    rows_of<T> dx;                 /* no data: not wanted */
    float *dtoken[2], *dpositions; /* likewise */
    int64_t length, columns;
    bool accumulate;

    template <int N> __device__ __forceinline__ void visit(int64_t b, int64_t l, int64_t column, float (&sum)[N]) const
    {
        int64_t from;
        float d[N];
        load_floats(dy.at(b * length + l, column), d);
        if (insert_source(a, l, &from) < 0 && dx.data)
            put_floats(dx.at(b * (length - a.n) + from, column), accumulate, d);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] += d[i];
    }
    template <int N> __device__ __forceinline__ void finish(int64_t l, int64_t column, const float (&sum)[N]) const
    {
        int64_t from;
        const int inserted = insert_source(a, l, &from);
        if (dpositions)
            put_floats(dpositions + l * columns + column, true, sum);
        float *to = inserted == 0 ? dtoken[0] : dtoken[1];
        if (inserted >= 0 && to)
            put_floats(to + column, true, sum);
    }
};

template <typename T> static cab_status insert_backward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *dy = node->gout[0], *dx = node->gin[CAB_INSERT_X];
    const cab_tensor *dpositions = node->gin[CAB_INSERT_POSITIONS];
    insert_gradients<T> f = {};
    f.a = *(const cab_insert_attributes *)node->attributes;
    f.dy = rows<const T>(dy);
    f.dx = rows<T>(dx);
    for (int i = 0; i < f.a.n; i++) {
        const cab_tensor *dtoken = token_of(node, node->gin, i);
        f.dtoken[i] = dtoken ? (float *)dtoken->data : NULL;
    }
    f.dpositions = dpositions ? (float *)dpositions->data : NULL;
    f.length = dy->shape[1];
    f.columns = cab_columns(dy);
    f.accumulate = (node->accumulate >> CAB_INSERT_X & 1u) != 0;
    const bool packed =
        fits_packets(dy, EACH_PACKET) && fits_packets(dx, EACH_PACKET) && vectors_fit(node, node->gin, f.columns);
    return over_batch(f, dy->shape[0], f.length, f.columns, packed, backend, "insert_tokens");
}

extern "C" cab_status cab_insert_tokens_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->gout[0]->dtype, status = insert_backward<T>(node, backend));
    return status;
}

/* ---- select_tokens ----------------------------------------------------------------------------------------------------- */

template <typename T> struct select_rows {
    rows_of<const T> x;
    rows_of<T> y;
    int64_t first, n, length;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        const int64_t b = (uint32_t)row / (uint32_t)n, i = (uint32_t)row % (uint32_t)n;
        float v[N];
        load_floats(x.at(b * length + first + i, column), v);
        store_floats(y.at(row, column), v);
    }
};

template <typename T> struct unselect_rows {
    rows_of<const T> dy;
    rows_of<T> dx;
    int64_t first, n, length;
    bool accumulate;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        const int64_t b = (uint32_t)row / (uint32_t)length, i = (uint32_t)row % (uint32_t)length - first;
        float v[N];
#pragma unroll
        for (int k = 0; k < N; k++)
            v[k] = 0.0f;
        if (i >= 0 && i < n)
            load_floats(dy.at(b * n + i, column), v);
        else if (accumulate)
            return;
        put_floats(dx.at(row, column), accumulate, v);
    }
};

template <typename T> static cab_status select_any(const cab_node *node, cab_backend *backend)
{
    const int64_t first = ((const cab_select_attributes *)node->attributes)->first;
    const cab_tensor *x = node->in[0], *y = node->out[0], *dx = node->gin[0], *dy = node->gout[0];
    if (!node->backward) {
        const select_rows<T> f = {rows<const T>(x), rows<T>(y), first, y->shape[1], x->shape[1]};
        return each(f, extent_of(y, {x, y}), backend, "select_tokens");
    }
    const unselect_rows<T> f = {rows<const T>(dy), rows<T>(dx),  first,
                                dy->shape[1],      dx->shape[1], (node->accumulate & 1u) != 0};
    return each(f, extent_of(dx, {dx, dy}), backend, "select_tokens");
}

extern "C" cab_status cab_select_tokens_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->out[0]->dtype, status = select_any<T>(node, backend));
    return status;
}

extern "C" cab_status cab_select_tokens_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->gout[0]->dtype, status = select_any<T>(node, backend));
    return status;
}

/* ---- order_tokens ------------------------------------------------------------------------------------------------------ */

template <typename T> struct order_rows {
    rows_of<const T> x;
    rows_of<T> y;
    int64_t n, length, class_at, skip;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        const int64_t b = (uint32_t)row / (uint32_t)n, l = (uint32_t)row % (uint32_t)n;
        const int64_t from = l == class_at ? 0 : 1 + skip + (l < class_at ? l : l - 1);
        float v[N];
        load_floats(x.at(b * length + from, column), v);
        store_floats(y.at(row, column), v);
    }
};

template <typename T> static cab_status order_any(const cab_node *node, cab_backend *backend)
{
    const cab_row_map *map = &((const cab_order_attributes *)node->attributes)->rows;
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const order_rows<T> f = {rows<const T>(x), rows<T>(y), y->shape[1], x->shape[1], map->class_at, map->skip};
    return each(f, extent_of(y, {x, y}), backend, "order_tokens");
}

extern "C" cab_status cab_order_tokens_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->out[0]->dtype, status = order_any<T>(node, backend));
    return status;
}

/* ---- pool_tokens ------------------------------------------------------------------------------------------------------- */

/* Row 2 b + i of y, i = 0 the first token, i = 1 the mean: over_batch() sums over the tokens, not over the batch. */
template <typename T> struct pool_rows {
    rows_of<const T> x;
    rows_of<T> y;
    int64_t first, length;

    template <int N>
    __device__ __forceinline__ void visit(int64_t t, int64_t row, int64_t column, float (&sum)[N]) const
    {
        const bool mean = row % 2 != 0;
        float v[N];
        if (!mean && t > 0)
            return;
        load_floats(x.at(row / 2 * length + (mean ? first + t : 0), column), v);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] += v[i];
    }
    template <int N> __device__ __forceinline__ void finish(int64_t row, int64_t column, const float (&sum)[N]) const
    {
        const float n = row % 2 != 0 ? (float)(length - first) : 1.0f;
        float v[N];
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = sum[i] / n;
        store_floats(y.at(row, column), v);
    }
};

template <typename T> static cab_status pool_forward(const cab_node *node, cab_backend *backend)
{
    const int64_t first = ((const cab_pool_attributes *)node->attributes)->first;
    const cab_tensor *x = node->in[0], *y = node->out[0];
    const int64_t length = x->shape[1];
    const pool_rows<T> f = {rows<const T>(x), rows<T>(y), first, length};
    const bool packed = fits_packets(x, EACH_PACKET) && fits_packets(y, EACH_PACKET);
    return over_batch(f, length - first, 2 * x->shape[0], cab_columns(x), packed, backend, "pool_tokens");
}

extern "C" cab_status cab_pool_tokens_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->out[0]->dtype, status = pool_forward<T>(node, backend));
    return status;
}

template <typename T> struct unpool_rows {
    rows_of<const T> dy;
    rows_of<T> dx;
    int64_t first, length;
    bool accumulate;

    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        const int64_t b = (uint32_t)row / (uint32_t)length, l = (uint32_t)row % (uint32_t)length;
        const float share = l == 0 ? 1.0f : 1.0f / (float)(length - first);
        float v[N];
#pragma unroll
        for (int k = 0; k < N; k++)
            v[k] = 0.0f;
        if (l == 0 || l >= first)
            load_floats(dy.at(2 * b + (l > 0), column), v);
        else if (accumulate)
            return;
#pragma unroll
        for (int k = 0; k < N; k++)
            v[k] *= share;
        put_floats(dx.at(row, column), accumulate, v);
    }
};

template <typename T> static cab_status pool_backward(const cab_node *node, cab_backend *backend)
{
    const int64_t first = ((const cab_pool_attributes *)node->attributes)->first;
    const cab_tensor *dx = node->gin[0], *dy = node->gout[0];
    const unpool_rows<T> f = {rows<const T>(dy), rows<T>(dx), first, dx->shape[1], (node->accumulate & 1u) != 0};
    return each(f, extent_of(dx, {dx, dy}), backend, "pool_tokens");
}

extern "C" cab_status cab_pool_tokens_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->gout[0]->dtype, status = pool_backward<T>(node, backend));
    return status;
}
