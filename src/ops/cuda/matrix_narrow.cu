/* matrix_narrow.cu - linear layers of at most 64 inputs or outputs, such as 384 -> 44, 12 -> 384, 16 -> 128.
 *
 * Arithmetic: N is the narrow side, (rows, n_narrow), W the wide one, (rows, n_wide), w the weight. The three products
 * of such a layer are each one of
 *
 *   expand     W = N w                forward of few inputs, dx of few outputs
 *   contract   N = W w^T              forward of few outputs, dx of few inputs
 *   outer      dw = N^T W             dW of both; w is (n_narrow, n_wide) here, whatever the layout of the parameter
 *
 * They do about 16 operations per byte. So the wide side must be read or written once, in whole sectors.
 *
 * Layout, forward: every warp works by itself on 16 rows. The operands of mma.m16n8k16 come straight from memory to
 * registers, 8 or 16 bytes per lane. This works because the order of rows, columns and terms of a product is free:
 * lane 4 g + q takes those terms and columns that are neighbours in memory.
 *
 *   contract  terms: lane q of a row has 8 neighbours of each 32, two steps of mma; results: 4 neighbours of 16
 *   expand    terms: 4 neighbours of each 16; results: 8 neighbours of 32, 16 bytes
 *
 * w stands in shared memory in the order in which the lanes read it, 16 bytes each.
 *
 * Layout, backward: the wide side is read once for both of its products, through shared memory
 * (matrix_narrow_backward.cuh). Each block writes its part of dW to scratch, and a second kernel adds the parts in
 * order (partials.cuh). */
#include "ops/cuda/matrix_narrow.h"
#include "ops/cuda/matrix_narrow_backward.cuh"
#include "ops/cuda/partials.cuh"

extern "C" {
#include "ops/matrix.h"
}

/* Parts of the rows: one for each multiprocessor of an H100 or H200, three blocks of 64 columns, and as many
 * elsewhere, so that the sums do not depend on it. A block of the forward pass has 4 or 8 warps for
 * few inputs and, so that one weight serves many, 12 for few outputs. */
constexpr int64_t MULTIPROCESSORS = 132, COLUMN_BLOCKS = 3 * MULTIPROCESSORS, LEAST_ROWS = 64;
constexpr int MOST_WARPS = 12;
constexpr size_t MOST_SHARED = 96 << 10;

/* ---- products of 16 rows by a warp ------------------------------------------------------------------------------- */

/* to (wide) = from (narrow) w [+ bias] [+ to], rows first .. first + 15. `fresh`: the weight is on its way, which
 * the whole block waits for when it has begun to load. */
template <int BLOCKS>
__device__ __forceinline__ void expand(rows_of<const bf16> from, rows_of<bf16> to, const uint4 *w, const bf16 *bias,
                                       bool add, bool fresh, int64_t first, const sizes &s)
{
    enum { BATCH = 4 };
    const int lane = threadIdx.x % 32, q = lane % 4, groups = padded(s.n_wide) / 32;
    const int64_t upper = first + lane / 4, lower = upper + 8;
    const bool has_upper = upper < s.n_row, has_lower = lower < s.n_row;
    uint32_t a[BLOCKS][4];
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
        const int column = 16 * k + 4 * q;
        const uint2 u = load_8(from.at(upper, column), has_upper && column < s.n_narrow);
        const uint2 l = load_8(from.at(lower, column), has_lower && column < s.n_narrow);
        a[k][0] = u.x, a[k][1] = l.x, a[k][2] = u.y, a[k][3] = l.y;
    }
    if (fresh)
        weight_wait();
    for (int batch = 0; batch < groups; batch += BATCH) {
        uint4 old[BATCH][2];
#pragma unroll
        for (int t = 0; t < BATCH; t++) {
            const int column = 32 * (batch + t) + 8 * q;
            const bool inside = column < s.n_wide;
            old[t][0] = bias != NULL ? load_16(bias + column, inside)
                                     : load_16(to.at(upper, column), add && inside && has_upper);
            old[t][1] = bias != NULL ? old[t][0] : load_16(to.at(lower, column), add && inside && has_lower);
        }
#pragma unroll
        for (int t = 0; t < BATCH; t++) {
            const int column = 32 * (batch + t) + 8 * q;
            float sums[4][4];
            if (batch + t >= groups)
                break;
            begin_with(sums, old[t][0], old[t][1]);
            expand_group<BLOCKS>(sums, a, w + (batch + t) * BLOCKS * 2 * 32);
            store_rows(to.at(upper, column), to.at(lower, column), sums, has_upper && column < s.n_wide,
                       has_lower && column < s.n_wide);
        }
    }
}

/* Four neighbours of a row: + bias + what stands there. */
__device__ __forceinline__ void finish_four(bf16 *to, const bf16 *bias, bool add, const float (&even)[4],
                                            const float (&odd)[4], int at)
{
    float four[4] = {even[at], even[at + 1], odd[at], odd[at + 1]}, start[4];
    if (bias != NULL) {
        load_floats(bias, start);
#pragma unroll
        for (int i = 0; i < 4; i++)
            four[i] += start[i];
    }
    put_floats(to, add, four);
}

/* This lane's terms of rows `upper` and 8 on, of BATCH times 32 columns from `group` on. */
template <int BATCH> struct wide_rows {
    uint4 u[BATCH], l[BATCH];

    __device__ __forceinline__ void load(const rows_of<const bf16> &from, int64_t upper, int group, const sizes &s)
    {
#pragma unroll
        for (int t = 0; t < BATCH; t++) {
            const int column = 32 * (group + t) + threadIdx.x % 4 * 8;
            u[t] = load_16(from.at(upper, column), upper < s.n_row && column < s.n_wide);
            l[t] = load_16(from.at(upper + 8, column), upper + 8 < s.n_row && column < s.n_wide);
        }
    }
};

/* to (narrow) = from (wide) w^T [+ bias] [+ to], rows first .. first + 15 and so on in steps of `step`. Waits for the
 * weight when it has begun to load; the next columns or rows are on their way while some are multiplied. */
template <int BLOCKS>
__device__ __forceinline__ void contract(rows_of<const bf16> from, rows_of<bf16> to, const uint4 *w, const bf16 *bias,
                                         bool add, int64_t first, int64_t step, const sizes &s)
{
    constexpr int BATCH = 4;
    const int lane = threadIdx.x % 32, q = lane % 4, groups = padded(s.n_wide) / 32;
    wide_rows<BATCH> now, next;
    bool fresh = true;
    int64_t upper = first + lane / 4;
    now.load(from, upper, 0, s);
    do {
        float sums[2 * BLOCKS][4] = {};
        for (int batch = 0; batch < groups; batch += BATCH) {
            const bool last = batch + BATCH >= groups;
            next.load(from, last ? upper + step : upper, last ? 0 : batch + BATCH, s);
            if (fresh)
                weight_wait();
            fresh = false;
#pragma unroll
            for (int t = 0; t < BATCH; t++) {
                if (batch + t >= groups)
                    break;
                const uint4 u = now.u[t], l = now.l[t];
                const uint32_t near[4] = {u.x, l.x, u.y, l.y}, far[4] = {u.z, l.z, u.w, l.w};
#pragma unroll
                for (int j = 0; j < 2 * BLOCKS; j++) {
                    const uint4 b = w[((batch + t) * 2 * BLOCKS + j) * 32 + lane];
                    mma(sums[j], near, b.x, b.y);
                    mma(sums[j], far, b.z, b.w);
                }
            }
            now = next;
        }
#pragma unroll
        for (int k = 0; k < BLOCKS; k++) {
            const int column = 16 * k + 4 * q;
            const bf16 *start = bias != NULL ? bias + column : NULL;
            if (column < s.n_narrow && upper < s.n_row)
                finish_four(to.at(upper, column), start, add, sums[2 * k], sums[2 * k + 1], 0);
            if (column < s.n_narrow && upper + 8 < s.n_row)
                finish_four(to.at(upper + 8, column), start, add, sums[2 * k], sums[2 * k + 1], 2);
        }
        upper += step;
    } while (upper - lane / 4 < s.n_row);
}

/* Also dx alone, of a backward pass in which the weight is frozen. */
struct forward_work {
    rows_of<const bf16> x;
    rows_of<bf16> y;
    const bf16 *w, *bias;
    bool along_wide, add;
    sizes s;
};

template <int BLOCKS, bool EXPAND>
static __global__ void __launch_bounds__(MOST_WARPS * 32) narrow_forward(const forward_work f)
{
    extern __shared__ uint4 shared[];
    const int64_t warps = blockDim.x / 32, step = gridDim.x * warps * STEP;
    int64_t row = (blockIdx.x * warps + threadIdx.x / 32) * STEP;
    begin_weight<BLOCKS, EXPAND>((bf16 *)shared, f.w, f.along_wide, 0, f.along_wide ? f.s.n_wide : f.s.n_narrow, f.s);
    if (!EXPAND)
        contract<BLOCKS>(f.x, f.y, shared, f.bias, f.add, row, step, f.s);
    else
        for (bool fresh = true; fresh || row < f.s.n_row; fresh = false, row += step)
            expand<BLOCKS>(f.x, f.y, shared, f.bias, f.add, fresh, row, f.s);
}

/* ---- launching --------------------------------------------------------------------------------------------------- */

/* Where the parts' sums go: (n_narrow, n_wide), then the wide side's columns. */
struct gradients {
    float *dw, *db;
    int n_narrow, n_wide;
    bool along_wide, add;

    __device__ float *target(int64_t at) const
    {
        const int n = (int)(at / n_wide), c = (int)(at % n_wide);
        if (n == n_narrow)
            return db + c;
        return dw + (along_wide ? at : (int64_t)c * n_narrow + n);
    }
};

/* What is narrow about a layer, and whether it is. */
struct narrow_layer {
    bool few_inputs, along_wide;
    int n_narrow, n_wide, blocks;
};

static bool narrow_enough(int64_t n_narrow, int64_t n_wide)
{
    return n_narrow <= CAB_NARROW_MAX && n_narrow % 4 == 0 && n_wide % 8 == 0 && n_wide <= INT32_MAX / CAB_NARROW_MAX &&
           (size_t)ceil_div(n_narrow, 16) * (size_t)padded((int)n_wide) * 32 <= MOST_SHARED;
}

static bool layer_of(const cab_node *node, narrow_layer *layer)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *y = node->backward ? node->gout[0] : node->out[0];
    if (y == NULL || x->dtype != CAB_BF16 || w->dtype != CAB_BF16 || y->dtype != CAB_BF16)
        return false;
    const bool out_in = cab_linear_layout(node) == CAB_OUT_IN;
    const int64_t in = cab_columns(x), out = cab_columns(y);
    layer->few_inputs = narrow_enough(in, out);
    if (!layer->few_inputs && !narrow_enough(out, in))
        return false;
    layer->along_wide = out_in != layer->few_inputs;
    layer->n_narrow = (int)(layer->few_inputs ? in : out);
    layer->n_wide = (int)(layer->few_inputs ? out : in);
    layer->blocks = (layer->n_narrow + 15) / 16;
    return true;
}

static bool aligned(const cab_tensor *t, int64_t elements)
{
    return t == NULL || ((uintptr_t)t->data % (sizeof(bf16) * (size_t)elements) == 0 && t->ld % elements == 0);
}

extern "C" bool cab_narrow_fits(const cab_node *node)
{
    narrow_layer layer;
    const cab_tensor *b = node->backward ? NULL : node->in[2], *y = node->backward ? node->gout[0] : node->out[0];
    if (!layer_of(node, &layer) || (b != NULL && (b->dtype != CAB_BF16 || (uintptr_t)b->data % 16 != 0)))
        return false;
    const int64_t in = layer.few_inputs ? 4 : 8, out = layer.few_inputs ? 8 : 4;
    return aligned(node->in[0], in) && aligned(node->gin[0], in) && aligned(y, out) &&
           (uintptr_t)node->in[1]->data % 16 == 0;
}

/* Rows are shared out among so many blocks. */
static int64_t parts_of(int64_t n_row, int64_t most)
{
    const int64_t parts = ceil_div(n_row, LEAST_ROWS);
    return parts < most ? parts : most;
}

static int64_t column_parts(int64_t n_row, int n_wide)
{
    const int64_t most = COLUMN_BLOCKS / ceil_div(n_wide, COLUMN_WIDTH);
    return parts_of(n_row, most > 0 ? most : 1);
}

extern "C" size_t cab_narrow_scratch(const cab_node *node)
{
    narrow_layer layer;
    if (!layer_of(node, &layer) || node->gin[1] == NULL)
        return 0;
    const int64_t n_row = cab_rows(node->in[0]), whole = parts_of(n_row, MULTIPROCESSORS),
                  columns = column_parts(n_row, layer.n_wide);
    return (size_t)(whole > columns ? whole : columns) * (size_t)(layer.n_narrow + 1) * (size_t)layer.n_wide *
           sizeof(float);
}

static size_t packed_bytes(const narrow_layer &layer)
{
    return (size_t)layer.blocks * (size_t)padded(layer.n_wide) * 32;
}

template <int BLOCKS, bool EXPAND>
static cab_status launch_forward(const forward_work &f, const narrow_layer &layer, cab_backend *backend)
{
    const size_t bytes = packed_bytes(layer);
    const int blocks = EXPAND ? (bytes <= 48 << 10 ? 4 : 2) : 1; /* on a multiprocessor */
    const int threads = EXPAND ? 512 / blocks : MOST_WARPS * 32;
    const int64_t tiles = ceil_div(f.s.n_row, threads / 32 * STEP), slots = blocks * MULTIPROCESSORS;
    CAB_TRY(cab_cuda_shared((const void *)narrow_forward<BLOCKS, EXPAND>, bytes, "linear"));
    narrow_forward<BLOCKS, EXPAND>
        <<<(unsigned)ceil_div(tiles, ceil_div(tiles, slots)), threads, bytes, stream_of(backend)>>>(f);
    return cab_cuda_launched("linear");
}

template <int BLOCKS>
static cab_status forward_of(const forward_work &f, const narrow_layer &layer, bool expand, cab_backend *backend)
{
    return expand ? launch_forward<BLOCKS, true>(f, layer, backend) : launch_forward<BLOCKS, false>(f, layer, backend);
}

static cab_status forward(const forward_work &f, const narrow_layer &layer, bool expand, cab_backend *backend)
{
    switch (layer.blocks) {
    case 1:
        return forward_of<1>(f, layer, expand, backend);
    case 2:
        return forward_of<2>(f, layer, expand, backend);
    case 3:
        return forward_of<3>(f, layer, expand, backend);
    default:
        return forward_of<4>(f, layer, expand, backend);
    }
}

extern "C" cab_status cab_narrow_forward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *b = node->in[2], *y = node->out[0];
    narrow_layer layer;
    if (!layer_of(node, &layer) || cab_rows(x) == 0)
        return CAB_OK;
    const forward_work f = {rows<const bf16>(x),
                            rows<bf16>(y),
                            (const bf16 *)w->data,
                            b ? (const bf16 *)b->data : NULL,
                            layer.along_wide,
                            false,
                            {cab_rows(x), layer.n_narrow, layer.n_wide}};
    return forward(f, layer, layer.few_inputs, backend);
}

template <int BLOCKS> static cab_status launch_columns(const backward_work &b, int64_t parts, cab_backend *backend)
{
    const dim3 grid((unsigned)ceil_div(b.s.n_wide, COLUMN_WIDTH), (unsigned)parts);
    CAB_TRY(cab_cuda_shared((const void *)narrow_columns<BLOCKS>, COLUMN_BYTES<BLOCKS>, "linear, backward"));
    narrow_columns<BLOCKS><<<grid, COLUMN_WARPS * 32, COLUMN_BYTES<BLOCKS>, stream_of(backend)>>>(b);
    return cab_cuda_launched("linear, backward");
}

static cab_status columns(const backward_work &b, int blocks, int64_t parts, cab_backend *backend)
{
    switch (blocks) {
    case 1:
        return launch_columns<1>(b, parts, backend);
    case 2:
        return launch_columns<2>(b, parts, backend);
    case 3:
        return launch_columns<3>(b, parts, backend);
    default:
        return launch_columns<4>(b, parts, backend);
    }
}

/* The kernel for whole rows, where it is for this layer and its blocks find room. */
typedef void whole_kernel(backward_work);

template <int BLOCKS, int WIDE> static whole_kernel *kernel_for(int n_wide, size_t *bytes)
{
    *bytes = whole_rows<BLOCKS, WIDE>::bytes(n_wide);
    return narrow_rows<BLOCKS, WIDE>;
}

static whole_kernel *whole_kernel_of(const narrow_layer &layer, cab_backend *backend, size_t *bytes)
{
    const int wide = (layer.n_wide + 383) / 384;
    if (!layer.few_inputs || layer.blocks > 2 || wide > 2)
        return NULL;
    whole_kernel *kernel;
    if (layer.blocks == 1)
        kernel = wide == 1 ? kernel_for<1, 1>(layer.n_wide, bytes) : kernel_for<1, 2>(layer.n_wide, bytes);
    else
        kernel = wide == 1 ? kernel_for<2, 1>(layer.n_wide, bytes) : kernel_for<2, 2>(layer.n_wide, bytes);
    return *bytes <= cab_cuda_of(backend)->shared_limit ? kernel : NULL;
}

/* dx alone, as if it were the result of the other pass. */
static cab_status alone(const backward_work &b, const narrow_layer &layer, cab_backend *backend)
{
    const forward_work f = {layer.few_inputs ? b.wide : b.narrow, b.dx, b.w, NULL, b.along_wide, b.add_dx, b.s};
    return forward(f, layer, !layer.few_inputs, backend);
}

/* dx and the parts of dW, so many. */
static cab_status products(backward_work b, const narrow_layer &layer, int64_t *parts, cab_backend *backend)
{
    size_t bytes;
    whole_kernel *whole = b.dx.data != NULL ? whole_kernel_of(layer, backend, &bytes) : NULL;
    *parts = whole != NULL ? parts_of(b.s.n_row, MULTIPROCESSORS) : column_parts(b.s.n_row, b.s.n_wide);
    b.part_rows = ceil_div(ceil_div(b.s.n_row, *parts), STEP) * STEP;
    if (whole != NULL) {
        CAB_TRY(cab_cuda_shared((const void *)whole, bytes, "linear, backward"));
        whole<<<(unsigned)*parts, ROW_WARPS * 32, bytes, stream_of(backend)>>>(b);
        return cab_cuda_launched("linear, backward");
    }
    if (layer.few_inputs && b.dx.data != NULL) {
        CAB_TRY(alone(b, layer, backend));
        b.dx.data = NULL;
    }
    return columns(b, layer.blocks, *parts, backend);
}

extern "C" cab_status cab_narrow_backward(const cab_node *node, cab_backend *backend, bool *sums)
{
    const cab_tensor *x = node->in[0], *w = node->in[1], *dy = node->gout[0];
    const cab_tensor *dx = node->gin[0], *dw = node->gin[1], *db = node->gin[2];
    narrow_layer layer;
    int64_t parts;
    *sums = false;
    if (!layer_of(node, &layer) || cab_rows(x) == 0 || (dx == NULL && dw == NULL))
        return CAB_OK;
    *sums = layer.few_inputs && dw != NULL && db != NULL;
    const backward_work b = {rows<const bf16>(layer.few_inputs ? x : dy),
                             rows<const bf16>(layer.few_inputs ? dy : x),
                             rows<bf16>(dx),
                             (const bf16 *)w->data,
                             layer.along_wide,
                             (node->accumulate & 1u) != 0,
                             *sums,
                             (float *)node->scratch,
                             0,
                             {cab_rows(x), layer.n_narrow, layer.n_wide}};
    if (dw == NULL)
        return alone(b, layer, backend);
    CAB_TRY(products(b, layer, &parts, backend));
    const gradients to = {
        (float *)dw->data, *sums ? (float *)db->data : NULL, layer.n_narrow, layer.n_wide, layer.along_wide, true};
    return launch_partials(to, b.partials, parts, partial_columns(b), backend);
}
