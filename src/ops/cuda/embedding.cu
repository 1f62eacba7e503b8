/* embedding.cu - rows of a table by id, and the table's gradient without atomics; src/ops/embedding.c has the
 * formulas.
 *
 * Arithmetic:
 *
 *   forward    y[b, l] = table[ids[b, l]] + positions[first + l]
 *   backward   dtable[v] += sum of dy[b, l] over all (b, l) with ids[b, l] = v
 *              dpositions[first + l] += sum_b dy[b, l]
 *
 * Layout, forward: a thread moves a packet of neighbouring columns of one token. Of a table in blocks of few bits it expands them.
 *
 * Layout, backward: the tokens are sorted by id, so that the tokens of one id are neighbours. The sort is a stable
 * radix sort of 8 bits a pass (2 passes up to 65,536 ids). One warp ranks a chunk of CHUNK tokens by matching digits
 * and needs no atomics; the tokens of one id keep their order. Then a block sums a piece of PIECE = 32 sorted tokens.
 * An id whose tokens all lie in one piece is added to the table at once. Any other id leaves one partial sum per piece
 * in scratch, and a last kernel adds these in order. The sum of an id therefore has one order.
 *
 * Bytes: dy is read once; the rows of the table that occur are read and written once. */
#include "ops/cuda/blocks.cuh"
#include "ops/cuda/each.cuh"

extern "C" {
#include "ops/embedding.h"
}

enum { CHUNK = 512, DIGITS = 256, SCAN_THREADS = 1024, PIECE = 32, THREADS = 128, AHEAD = 8 };

/* ---- forward ---------------------------------------------------------------------------------------------------------- */

/* A table of plain numbers. */
struct plain_table {
    parameter_of values;
    int64_t width;

    plain_table(const cab_tensor *t) : values(parameter(t)), width(cab_columns(t))
    {
    }
    template <int N> __device__ __forceinline__ void load(int64_t row, int64_t column, float (&to)[N]) const
    {
        values.load(row * width + column, to);
    }
};

/* One in blocks, whose rows are packets of 8. */
template <cab_dtype Q> struct block_table {
    const uint8_t *data;
    int64_t row_bytes;

    block_table(const cab_tensor *t)
        : data((const uint8_t *)t->data), row_bytes(cab_columns(t) / block_of<Q>::ELEMENTS * block_of<Q>::BYTES)
    {
    }
    template <int N> __device__ __forceinline__ void load(int64_t row, int64_t column, float (&to)[N]) const
    {
        float packet[BLOCK_PACKET];
        load_packet<Q>(data + row * row_bytes, column / BLOCK_PACKET * BLOCK_PACKET, packet);
#pragma unroll
        for (int i = 0; i < N; i++)
            to[i] = packet[N == BLOCK_PACKET ? i : column % BLOCK_PACKET + i];
    }
};

template <typename T, typename TABLE> struct gather_rows {
    const int32_t *ids, *first, *starts; /* first and starts: NULL for 0 */
    TABLE table;
    parameter_of positions;
    int64_t n_id, n_position, length, width;
    rows_of<T> y;
    cab_cuda_fault *fault;

    __device__ __forceinline__ int64_t checked(int64_t at, int64_t limit, cab_cuda_fault_kind kind) const
    {
        if (at >= 0 && at < limit)
            return at;
        raise_fault(fault, kind, at, limit);
        return 0;
    }
    template <int N> __device__ __forceinline__ void at(int64_t row, int64_t column) const
    {
        float v[N];
        table.load(checked(ids[row], n_id, CAB_CUDA_FAULT_ID), column, v);
        if (positions.data) {
            float p[N];
            const int64_t l = (int64_t)((uint32_t)row % (uint32_t)length) + (first ? *first : 0) -
                              (starts ? starts[row] : 0);
            positions.load(checked(l, n_position, CAB_CUDA_FAULT_POSITION) * width + column, p);
#pragma unroll
            for (int i = 0; i < N; i++)
                v[i] += p[i];
        }
        store_floats(y.at(row, column), v);
    }
};

static const int32_t *first_of(const cab_node *node)
{
    const cab_tensor *first = node->in[CAB_EMBEDDING_FIRST];
    return first ? (const int32_t *)first->data : NULL;
}

/* packed: what of the table must begin at multiples of packets; NULL: nothing. */
template <typename T, typename TABLE>
static cab_status gather(const cab_node *node, const cab_tensor *packed, cab_backend *backend)
{
    const cab_tensor *ids = node->in[CAB_EMBEDDING_IDS], *table = node->in[CAB_EMBEDDING_TABLE];
    const cab_tensor *positions = node->in[CAB_EMBEDDING_POSITIONS], *y = node->out[0];
    gather_rows<T, TABLE> f = {NULL, NULL, NULL, TABLE(table)};
    f.ids = (const int32_t *)ids->data;
    f.first = first_of(node);
    f.starts = node->in[CAB_EMBEDDING_STARTS] ? (const int32_t *)node->in[CAB_EMBEDDING_STARTS]->data : NULL;
    f.positions = parameter(positions);
    f.n_id = cab_rows(table);
    f.n_position = positions ? cab_rows(positions) : 0;
    f.length = cab_columns(ids);
    f.width = cab_columns(y);
    f.y = rows<T>(y);
    f.fault = cab_cuda_of(backend)->fault;
    return each(f, extent_of(y, {packed, positions, y}), backend, "embedding");
}

template <typename T> static cab_status forward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *table = node->in[CAB_EMBEDDING_TABLE];
    cab_status status;
    if (!cab_dtype_is_blocks(table->dtype))
        return gather<T, plain_table>(node, table, backend);
    BY_BLOCKS(table->dtype, (status = gather<T, block_table<Q>>(node, NULL, backend)));
    return status;
}

extern "C" cab_status cab_embedding_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->out[0]->dtype, status = forward<T>(node, backend));
    return status;
}

/* ---- backward: tokens by id ------------------------------------------------------------------------------------------- */

/* Ids of the tokens in some order; order NULL: as they stand. */
struct sorted_tokens {
    int32_t *ids, *order;
};

/* What stands in the scratch of a backward node. */
struct layout {
    int64_t n, chunks, pieces, columns;
    sorted_tokens a, b;
    uint32_t *counts; /* (DIGITS, chunks) */
    float *partials; /* (pieces, 2, columns): of the id that came from the left, of the one that goes on to the right */
    size_t bytes;
};

static layout layout_of(const cab_node *node)
{
    layout s = {};
    char *at = (char *)node->scratch;
    s.n = cab_elements(node->in[CAB_EMBEDDING_IDS]);
    s.chunks = ceil_div(s.n, CHUNK);
    s.pieces = ceil_div(s.n, PIECE);
    s.columns = cab_columns(node->gin[CAB_EMBEDDING_TABLE]);
    const size_t indices = (size_t)ceil_div(s.n, 64) * 64 * sizeof(int32_t); /* keeps what follows aligned */
    const size_t counts = (size_t)(DIGITS * s.chunks) * sizeof(uint32_t);
    int32_t **const lists[] = {&s.a.ids, &s.a.order, &s.b.ids, &s.b.order};
    for (int i = 0; i < 4; i++)
        *lists[i] = (int32_t *)(at + (size_t)i * indices);
    s.counts = (uint32_t *)(at + 4 * indices);
    s.partials = (float *)(at + 4 * indices + counts);
    s.bytes = 4 * indices + counts + (size_t)(2 * s.pieces * s.columns) * sizeof(float);
    return s;
}

extern "C" size_t cab_embedding_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return node->gin[CAB_EMBEDDING_TABLE] ? layout_of(node).bytes : 0;
}

/* An id that the forward pass reported is treated as 0. */
__device__ __forceinline__ int32_t id_of(const sorted_tokens &t, int64_t i, int64_t n_id)
{
    const int32_t id = t.ids[i];
    return id >= 0 && id < n_id ? id : 0;
}

/* The lanes of `active` with the same digit; their number below this lane is the rank among them. */
__device__ __forceinline__ uint32_t same_digit(uint32_t active, uint32_t digit)
{
    return __match_any_sync(active, digit);
}

/* A warp per chunk: counts[digit][chunk]. */
static __global__ void __launch_bounds__(32)
    count_digits(sorted_tokens from, int64_t n, int64_t n_id, int shift, uint32_t *counts)
{
    __shared__ uint32_t count[DIGITS];
    const int64_t first = blockIdx.x * (int64_t)CHUNK, last = first + CHUNK < n ? first + CHUNK : n;
    for (int d = threadIdx.x; d < DIGITS; d += 32)
        count[d] = 0;
    __syncwarp();
    for (int64_t base = first; base < last; base += 32) {
        const int64_t i = base + threadIdx.x;
        const uint32_t active = __ballot_sync(0xffffffffu, i < last);
        if (i < last) {
            const uint32_t digit = (uint32_t)id_of(from, i, n_id) >> shift & (DIGITS - 1);
            const uint32_t same = same_digit(active, digit);
            if ((int)threadIdx.x == __ffs(same) - 1)
                count[digit] += __popc(same);
        }
        __syncwarp();
    }
    for (int d = threadIdx.x; d < DIGITS; d += 32)
        counts[d * (int64_t)gridDim.x + blockIdx.x] = count[d];
}

/* Exclusive sums over all counts, by one block. */
static __global__ void __launch_bounds__(SCAN_THREADS) scan_counts(uint32_t *counts, int64_t total)
{
    __shared__ uint32_t warps[SCAN_THREADS / 32];
    const int64_t each = ceil_div(total, SCAN_THREADS), first = threadIdx.x * each;
    const int64_t last = first + each < total ? first + each : total;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t sum = 0;
    for (int64_t i = first; i < last; i++)
        sum += counts[i];
    uint32_t up_to = sum; /* inclusive, over the threads */
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t below = __shfl_up_sync(0xffffffffu, up_to, step);
        up_to += lane >= step ? below : 0;
    }
    if (lane == 31)
        warps[warp] = up_to;
    __syncthreads();
    uint32_t before = up_to - sum;
    for (int w = 0; w < warp; w++)
        before += warps[w];
    for (int64_t i = first; i < last; i++) {
        const uint32_t count = counts[i];
        counts[i] = before;
        before += count;
    }
}

/* A warp per chunk puts its tokens where counts, summed by now, says. */
static __global__ void __launch_bounds__(32)
    place_tokens(sorted_tokens from, sorted_tokens to, int64_t n, int64_t n_id, int shift, const uint32_t *counts)
{
    __shared__ uint32_t next[DIGITS];
    const int64_t first = blockIdx.x * (int64_t)CHUNK, last = first + CHUNK < n ? first + CHUNK : n;
    for (int d = threadIdx.x; d < DIGITS; d += 32)
        next[d] = counts[d * (int64_t)gridDim.x + blockIdx.x];
    __syncwarp();
    for (int64_t base = first; base < last; base += 32) {
        const int64_t i = base + threadIdx.x;
        const uint32_t active = __ballot_sync(0xffffffffu, i < last);
        uint32_t same = 0, digit = 0;
        if (i < last) {
            const int32_t id = id_of(from, i, n_id);
            digit = (uint32_t)id >> shift & (DIGITS - 1);
            same = same_digit(active, digit);
            const uint32_t at = next[digit] + __popc(same & ((1u << threadIdx.x) - 1u));
            to.ids[at] = id;
            to.order[at] = from.order ? from.order[i] : (int32_t)i;
        }
        __syncwarp();
        if (same != 0 && (int)threadIdx.x == __ffs(same) - 1)
            next[digit] += __popc(same);
        __syncwarp();
    }
}

/* Returns which of the two lists holds the sorted tokens. */
static cab_status sort_tokens(const layout *s, int32_t *ids, int64_t n_id, cab_backend *backend, sorted_tokens *sorted)
{
    sorted_tokens from = {ids, NULL}, to = s->a;
    const cudaStream_t stream = stream_of(backend);
    for (int shift = 0; shift == 0 || (n_id - 1) >> shift > 0; shift += 8) {
        count_digits<<<(unsigned)s->chunks, 32, 0, stream>>>(from, s->n, n_id, shift, s->counts);
        scan_counts<<<1, SCAN_THREADS, 0, stream>>>(s->counts, DIGITS * s->chunks);
        place_tokens<<<(unsigned)s->chunks, 32, 0, stream>>>(from, to, s->n, n_id, shift, s->counts);
        CAB_TRY(cab_cuda_launched("embedding"));
        *sorted = to;
        from = to;
        to = to.ids == s->a.ids ? s->b : s->a;
    }
    return CAB_OK;
}

/* ---- backward: sums by id --------------------------------------------------------------------------------------------- */

template <typename T> struct token_sums {
    sorted_tokens tokens;
    int64_t n, columns;
    rows_of<const T> dy;
    float *dtable, *partials;
};

/* The run of one id that ends at sorted token t of the piece: to the table, or to the partial sums. */
template <int N, typename T>
__device__ __forceinline__ void end_run(const token_sums<T> &s, int32_t id, bool from_left, bool to_right,
                                        int64_t column, float (&sum)[N])
{
    if (from_left || to_right) {
        const int64_t slot = 2 * (int64_t)blockIdx.x + (from_left ? 0 : 1);
        store_floats(s.partials + slot * s.columns + column, sum);
    } else {
        put_floats(s.dtable + id * s.columns + column, true, sum);
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
}

template <int N, typename T> static __global__ void __launch_bounds__(THREADS) sum_pieces(const token_sums<T> s)
{
    __shared__ int32_t ids[PIECE + 2],
        order[PIECE]; /* ids[0]: the token before the piece, -1 for none; likewise behind */
    const int64_t first = blockIdx.x * (int64_t)PIECE, column = (blockIdx.y * (int64_t)THREADS + threadIdx.x) * N;
    const int count = (int)(s.n - first < PIECE ? s.n - first : PIECE);
    for (int t = threadIdx.x; t < PIECE + 2; t += THREADS) {
        const int64_t i = first + t - 1;
        ids[t] = i >= 0 && i < s.n ? s.tokens.ids[i] : -1;
        if (t < count)
            order[t] = s.tokens.order[first + t];
    }
    __syncthreads();
    if (column >= s.columns)
        return;
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0.0f;
    bool from_left = ids[0] == ids[1];
    for (int base = 0; base < count; base += AHEAD) {
        vec<T, N> row[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (base + k < count)
                row[k] = load_vec<T, N>(s.dy.at(order[base + k], column));
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int t = base + k;
            if (t >= count)
                break;
#pragma unroll
            for (int i = 0; i < N; i++)
                sum[i] += to_float(row[k].at[i]);
            const int32_t id = ids[t + 1];
            if (t + 1 < count && ids[t + 2] == id)
                continue;
            end_run(s, id, from_left, ids[t + 2] == id, column, sum);
            from_left = false;
        }
    }
}

/* The block of the piece in which an id of several pieces begins adds up its partial sums. */
template <int N, typename T> static __global__ void __launch_bounds__(THREADS) join_pieces(const token_sums<T> s)
{
    const int64_t first = blockIdx.x * (int64_t)PIECE, next = first + PIECE;
    const int64_t column = (blockIdx.y * (int64_t)THREADS + threadIdx.x) * N;
    if (next >= s.n || column >= s.columns)
        return;
    const int32_t id = s.tokens.ids[next];
    if (s.tokens.ids[next - 1] != id || (first > 0 && s.tokens.ids[first - 1] == id))
        return;
    float sum[N];
    load_floats(s.partials + (2 * (int64_t)blockIdx.x + 1) * s.columns + column, sum);
    bool more = true;
    for (int64_t piece = blockIdx.x + INT64_C(1); more; piece += AHEAD) {
        float part[AHEAD][N];
        bool ours[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            ours[k] = (piece + k) * PIECE < s.n && s.tokens.ids[(piece + k) * PIECE] == id;
            if (ours[k])
                load_floats(s.partials + 2 * (piece + k) * s.columns + column, part[k]);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            more = more && ours[k];
#pragma unroll
            for (int i = 0; i < N; i++)
                sum[i] += ours[k] ? part[k][i] : 0.0f;
        }
    }
    put_floats(s.dtable + id * s.columns + column, true, sum);
}

template <int N, typename T> static cab_status add_rows(const token_sums<T> &s, int64_t pieces, cab_backend *backend)
{
    const dim3 grid((unsigned)pieces, (unsigned)ceil_div(s.columns, THREADS * N));
    sum_pieces<N><<<grid, THREADS, 0, stream_of(backend)>>>(s);
    join_pieces<N><<<grid, THREADS, 0, stream_of(backend)>>>(s);
    return cab_cuda_launched("embedding");
}

template <typename T> static cab_status table_backward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *dy = node->gout[0], *dtable = node->gin[CAB_EMBEDDING_TABLE];
    const layout scratch = layout_of(node);
    token_sums<T> s = {};
    s.n = scratch.n;
    s.columns = scratch.columns;
    s.dy = rows<const T>(dy);
    s.dtable = (float *)dtable->data;
    s.partials = scratch.partials;
    CAB_TRY(sort_tokens(&scratch, (int32_t *)node->in[CAB_EMBEDDING_IDS]->data, cab_rows(dtable), backend, &s.tokens));
    if (fits_packets(dy, EACH_PACKET) && fits_packets(dtable, EACH_PACKET))
        return add_rows<EACH_PACKET>(s, scratch.pieces, backend);
    return add_rows<1>(s, scratch.pieces, backend);
}

template <typename T> struct position_sums {
    rows_of<const T> dy;
    float *dpositions;
    const int32_t *first;
    int64_t length, n_position, width;

    template <int N> __device__ __forceinline__ void visit(int64_t b, int64_t l, int64_t column, float (&sum)[N]) const
    {
        float d[N];
        load_floats(dy.at(b * length + l, column), d);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[i] += d[i];
    }
    template <int N> __device__ __forceinline__ void finish(int64_t l, int64_t column, const float (&sum)[N]) const
    {
        const int64_t position = l + (first ? *first : 0);
        if (position >= 0 && position < n_position)
            put_floats(dpositions + position * width + column, true, sum);
    }
};

template <typename T> static cab_status positions_backward(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *dy = node->gout[0], *dpositions = node->gin[CAB_EMBEDDING_POSITIONS];
    const int64_t length = cab_columns(node->in[CAB_EMBEDDING_IDS]), columns = cab_columns(dy);
    position_sums<T> f = {};
    f.dy = rows<const T>(dy);
    f.dpositions = (float *)dpositions->data;
    f.first = first_of(node);
    f.length = length;
    f.n_position = cab_rows(dpositions);
    f.width = columns;
    const bool packed = fits_packets(dy, EACH_PACKET) && fits_packets(dpositions, EACH_PACKET);
    return over_batch(f, cab_rows(dy) / length, length, columns, packed, backend, "embedding");
}

template <typename T> static cab_status backward(const cab_node *node, cab_backend *backend)
{
    if (node->gin[CAB_EMBEDDING_TABLE])
        CAB_TRY(table_backward<T>(node, backend));
    if (node->gin[CAB_EMBEDDING_POSITIONS])
        CAB_TRY(positions_backward<T>(node, backend));
    return CAB_OK;
}

extern "C" cab_status cab_embedding_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->gout[0]->dtype, status = backward<T>(node, backend));
    return status;
}
