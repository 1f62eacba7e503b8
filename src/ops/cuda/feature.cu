/* feature.cu - the alignment loss on the GPU, value and gradient in one launch; src/ops/feature.c has the formulas.
 *
 * Layout: without a softmax over features, a block takes one sequence and 8 vectors of 16 bytes of neighbouring
 * columns, 32 tokens at a time. A softmax over tokens needs the whole sequence in one block: two more passes over the
 * target's tile, which the caches hold, give each column's maximum and sum. A softmax over features gives each warp
 * one row.
 *
 * Arithmetic: loss = mean of (pred - psi(target))^2, dpred = seed 2 (pred - psi(target)) / (B L D). psi is one of x,
 * softmax, relu, exp. A thread sums squares in fp32; from there on sums are fp64, block by block, and the last block
 * to finish adds the blocks' sums in order (align.cuh).
 *
 * Bytes per element in bf16: 2 of pred, 2 of the target, 2 of the gradient (4 when it is added to). No copy of
 * psi(target) is made. */
#include "ops/cuda/align.cuh"
#include "ops/cuda/each.cuh"

constexpr int TILE_STEPS = 8; /* tokens per thread, where the tokens are independent */
constexpr int64_t MAX_ROW_BLOCKS = 2048;

/* What every kernel here is told. */
template <typename T> struct align : align_term {
    rows_of<const T> pred, target;
    rows_of<T> gradient; /* data NULL: none */
    bool add;
};

/* psi of N elements; maximum and inverse sum where the map has them. */
template <cab_feature_map MAP, int N>
__device__ __forceinline__ void apply(float (&x)[N], const float (&maximum)[N], const float (&inverse)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        if (MAP == CAB_MAP_RELU)
            x[i] = x[i] < 0.0f ? 0.0f : x[i];
        else if (MAP == CAB_MAP_EXP)
            x[i] = exp_fast(x[i]);
        else if (MAP != CAB_MAP_NONE)
            x[i] = exp_fast(x[i] - maximum[i]) * inverse[i];
}

/* Squares of N elements of a row, and their gradient; psi holds the mapped target. */
template <typename T, int N>
__device__ __forceinline__ float compare(const align<T> &a, float factor, int64_t row, int64_t column,
                                         const float (&psi)[N])
{
    float difference[N], sum = 0.0f;
    load_floats(a.pred.at(row, column), difference);
#pragma unroll
    for (int i = 0; i < N; i++) {
        difference[i] -= psi[i];
        sum += difference[i] * difference[i];
        difference[i] *= factor;
    }
    if (a.gradient.data != NULL)
        put_floats(a.gradient.at(row, column), a.add, difference);
    return sum;
}

/* ---- tiles of columns ------------------------------------------------------------------------------------------------ */

/* N columns per thread, ACROSS threads side by side, DOWN rows at a time. */
template <int N> struct tile {
    static constexpr int ACROSS = N > 1 ? 8 : 32, DOWN = ALIGN_THREADS / ACROSS, COLUMNS = ACROSS * N;
};

/* Maximum or sum over the threads that stand one above the other; every one of them gets it. */
template <int N, bool MAXIMUM>
__device__ __forceinline__ void down(float (&x)[N], float (*shared)[tile<N>::COLUMNS], int across, int level)
{
    __syncthreads(); /* shared may still be read */
#pragma unroll
    for (int i = 0; i < N; i++)
        shared[level][across * N + i] = x[i];
    __syncthreads();
    if (threadIdx.x < tile<N>::COLUMNS) {
        float total = shared[0][threadIdx.x];
        for (int j = 1; j < tile<N>::DOWN; j++)
            total = MAXIMUM ? fmaxf(total, shared[j][threadIdx.x]) : total + shared[j][threadIdx.x];
        shared[0][threadIdx.x] = total;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = shared[0][across * N + i];
}

/* Each column's maximum and inverse sum of exponentials over the tokens of sequence b. */
template <typename T, int N>
__device__ __forceinline__ void token_softmax(const align<T> &a, int64_t b, int64_t column, bool inside, int across,
                                              int level, float (&maximum)[N], float (&inverse)[N])
{
    __shared__ float shared[tile<N>::DOWN][tile<N>::COLUMNS];
    float x[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        maximum[i] = -INFINITY;
        inverse[i] = 0.0f;
    }
    if (inside)
#pragma unroll 4
        for (int64_t l = level; l < a.L; l += tile<N>::DOWN) {
            load_floats(a.target.at(a.target_row(b, l), column), x);
#pragma unroll
            for (int i = 0; i < N; i++)
                maximum[i] = fmaxf(maximum[i], x[i]);
        }
    down<N, true>(maximum, shared, across, level);
    if (inside)
#pragma unroll 4
        for (int64_t l = level; l < a.L; l += tile<N>::DOWN) {
            load_floats(a.target.at(a.target_row(b, l), column), x);
#pragma unroll
            for (int i = 0; i < N; i++)
                inverse[i] += exp_fast(x[i] - maximum[i]);
        }
    down<N, false>(inverse, shared, across, level);
#pragma unroll
    for (int i = 0; i < N; i++)
        inverse[i] = 1.0f / inverse[i];
}

/* blockIdx.x: sequence and part of its tokens; blockIdx.y: tile of columns. */
template <typename T, int N, cab_feature_map MAP>
static __global__ void __launch_bounds__(ALIGN_THREADS) align_tiles(align<T> a, int64_t parts, int64_t part_tokens)
{
    const int across = threadIdx.x % tile<N>::ACROSS, level = threadIdx.x / tile<N>::ACROSS;
    const int64_t b = blockIdx.x / parts, begin = blockIdx.x % parts * part_tokens;
    const int64_t end = begin + part_tokens < a.L ? begin + part_tokens : a.L;
    const int64_t column = blockIdx.y * (int64_t)tile<N>::COLUMNS + across * N;
    const float scale = a.scale_of(b), factor = a.factor() * scale;
    float maximum[N] = {}, inverse[N] = {}, squares = 0.0f;
    if (MAP == CAB_MAP_SOFTMAX_TOKENS)
        token_softmax(a, b, column, column < a.D, across, level, maximum, inverse);
    if (column < a.D)
#pragma unroll 4
        for (int64_t l = begin + level; l < end; l += tile<N>::DOWN) {
            float psi[N];
            load_floats(a.target.at(a.target_row(b, l), column), psi);
            apply<MAP>(psi, maximum, inverse);
            squares += compare(a, factor, b * a.L + l, column, psi);
        }
    a.finish(scale * squares);
}

/* Parts that the tokens of a sequence are cut into. */
static int64_t parts_of(int64_t L, int levels, cab_feature_map map)
{
    return map == CAB_MAP_SOFTMAX_TOKENS ? 1 : ceil_div(L, (int64_t)levels * TILE_STEPS);
}

template <typename T, int N, cab_feature_map MAP> static void launch_tiles(const align<T> &a, cudaStream_t stream)
{
    const int64_t parts = parts_of(a.L, tile<N>::DOWN, MAP);
    const dim3 grid((unsigned)(a.B * parts), (unsigned)ceil_div(a.D, tile<N>::COLUMNS));
    align_tiles<T, N, MAP><<<grid, ALIGN_THREADS, 0, stream>>>(a, parts, ceil_div(a.L, parts));
}

/* ---- rows: softmax over features ------------------------------------------------------------------------------------- */

/* The maximum of each of ROWS rows' D elements and the inverse sum of exponentials, by one warp, which waits for all of them at once. */
template <typename T, int N, int ROWS>
__device__ __forceinline__ void rows_softmax(const T *const (&target)[ROWS], int64_t D, int lane,
                                             float2 (&softmax)[ROWS])
{
    float top[ROWS], sum[ROWS] = {}, x[N];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        top[r] = -INFINITY;
    for (int64_t at = lane * N; at < D; at += 32 * N)
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            load_floats(target[r] + at, x);
#pragma unroll
            for (int i = 0; i < N; i++)
                top[r] = fmaxf(top[r], x[i]);
        }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        top[r] = warp_max(top[r]);
    for (int64_t at = lane * N; at < D; at += 32 * N)
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            load_floats(target[r] + at, x);
#pragma unroll
            for (int i = 0; i < N; i++)
                sum[r] += exp_fast(x[i] - top[r]);
        }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        softmax[r] = make_float2(top[r], 1.0f / warp_sum(sum[r]));
}

/* The target's row of the prediction's row `row`. */
template <typename T> __device__ __forceinline__ const T *target_of(const align<T> &a, int64_t row)
{
    int64_t b, l;
    split_index(row, a.L, a.B * a.L, &b, &l);
    return a.target.at(a.target_row(b, l), 0);
}

/* The sum of squares of a row by one warp, this lane's part of it. */
template <typename T, int N>
__device__ __forceinline__ float compare_row(const align<T> &a, float factor, int64_t row, int lane)
{
    const T *const target[1] = {target_of(a, row)};
    float2 softmax[1];
    rows_softmax<T, N>(target, a.D, lane, softmax);
    const float scale = a.scale_of(row / a.L);
    float squares = 0.0f, maximum[N], inverse[N], x[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        maximum[i] = softmax[0].x;
        inverse[i] = softmax[0].y;
    }
    for (int64_t at = lane * N; at < a.D; at += 32 * N) {
        load_floats(target[0] + at, x);
        apply<CAB_MAP_SOFTMAX_FEATURES>(x, maximum, inverse);
        squares += compare(a, factor * scale, row, at, x);
    }
    return scale * squares;
}

template <typename T, int N> static __global__ void __launch_bounds__(ALIGN_THREADS) align_features(align<T> a)
{
    const float factor = a.factor();
    const int lane = threadIdx.x % 32;
    float squares = 0.0f;
    for (int64_t row = blockIdx.x * (int64_t)ALIGN_WARPS + threadIdx.x / 32; row < a.B * a.L;
         row += gridDim.x * (int64_t)ALIGN_WARPS)
        squares += compare_row<T, N>(a, factor, row, lane);
    a.finish(squares);
}

static int64_t row_blocks(int64_t n_row)
{
    const int64_t blocks = ceil_div(n_row, ALIGN_WARPS);
    return blocks < MAX_ROW_BLOCKS ? blocks : MAX_ROW_BLOCKS;
}

/* ---- what a softmax over the target needs, for kernels that read it but once ------------------------------------------- */

static __global__ void __launch_bounds__(ALIGN_THREADS) token_stats(align<bf16> a, float2 *stats)
{
    constexpr int N = WIDE<bf16>;
    const int across = threadIdx.x % tile<N>::ACROSS, level = threadIdx.x / tile<N>::ACROSS;
    const int64_t b = blockIdx.x, column = blockIdx.y * (int64_t)tile<N>::COLUMNS + across * N;
    float maximum[N], inverse[N];
    token_softmax(a, b, column, column < a.D, across, level, maximum, inverse);
    for (int i = 0; level == 0 && column < a.D && i < N; i++)
        stats[b * a.D + column + i] = make_float2(maximum[i], inverse[i]);
}

enum { STATS_ROWS = 4 }; /* of a warp */

static __global__ void __launch_bounds__(ALIGN_THREADS) feature_stats(align<bf16> a, float2 *stats)
{
    constexpr int N = WIDE<bf16>;
    const int lane = threadIdx.x % 32;
    const int64_t first = (blockIdx.x * (int64_t)ALIGN_WARPS + threadIdx.x / 32) * STATS_ROWS, last = a.B * a.L - 1;
    const bf16 *target[STATS_ROWS];
    float2 softmax[STATS_ROWS];
    if (first > last)
        return;
#pragma unroll
    for (int r = 0; r < STATS_ROWS; r++)
        target[r] = target_of(a, first + r < last ? first + r : last);
    rows_softmax<bf16, N>(target, a.D, lane, softmax);
#pragma unroll
    for (int r = 0; r < STATS_ROWS; r++)
        if (lane == r && first + r <= last)
            stats[first + r] = softmax[r];
}

extern "C" cab_status cab_align_stats_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_align_attributes *attributes = (const cab_align_attributes *)node->attributes;
    float2 *stats = (float2 *)node->out[0]->data;
    align<bf16> a = {};
    a.describe_target(node->in[0], attributes);
    a.target = rows<const bf16>(node->in[0]);
    if (attributes->map == CAB_MAP_SOFTMAX_TOKENS) {
        const dim3 grid((unsigned)a.B, (unsigned)ceil_div(a.D, tile<WIDE<bf16>>::COLUMNS));
        token_stats<<<grid, ALIGN_THREADS, 0, stream_of(backend)>>>(a, stats);
    } else {
        feature_stats<<<(unsigned)ceil_div(a.B * a.L, ALIGN_WARPS * STATS_ROWS), ALIGN_THREADS, 0,
                        stream_of(backend)>>>(a, stats);
    }
    return cab_cuda_launched("align_stats");
}

/* ---- choice ---------------------------------------------------------------------------------------------------------- */

/* A block leaves one fp64. Whether addresses allow vectors is not known yet: room for either way. */
extern "C" size_t cab_align_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_tensor *pred = node->in[0];
    const cab_feature_map map = ((const cab_align_attributes *)node->attributes)->map;
    const int64_t L = pred->shape[1], D = cab_columns(pred);
    if (map == CAB_MAP_SOFTMAX_FEATURES)
        return (size_t)row_blocks(cab_rows(pred)) * sizeof(double);
    const int64_t narrow = parts_of(L, tile<1>::DOWN, map) * ceil_div(D, tile<1>::COLUMNS);
    const int64_t wide = parts_of(L, tile<4>::DOWN, map) * ceil_div(D, tile<4>::COLUMNS);
    return (size_t)(pred->shape[0] * (narrow > wide ? narrow : wide)) * sizeof(double);
}

template <typename T, int N> static cab_status launch(const align<T> &a, cab_feature_map map, cudaStream_t stream)
{
    switch (map) {
    case CAB_MAP_NONE:
        launch_tiles<T, N, CAB_MAP_NONE>(a, stream);
        break;
    case CAB_MAP_SOFTMAX_FEATURES:
        align_features<T, N><<<(unsigned)row_blocks(a.B * a.L), ALIGN_THREADS, 0, stream>>>(a);
        break;
    case CAB_MAP_SOFTMAX_TOKENS:
        launch_tiles<T, N, CAB_MAP_SOFTMAX_TOKENS>(a, stream);
        break;
    case CAB_MAP_RELU:
        launch_tiles<T, N, CAB_MAP_RELU>(a, stream);
        break;
    case CAB_MAP_EXP:
        launch_tiles<T, N, CAB_MAP_EXP>(a, stream);
        break;
    }
    return cab_cuda_launched("align_loss");
}

template <typename T> static cab_status run(const cab_node *node, cab_backend *backend)
{
    const cab_align_attributes *attributes = (const cab_align_attributes *)node->attributes;
    const cab_tensor *pred = node->in[0], *target = node->in[1], *gradient = node->backward ? node->gin[0] : NULL;
    align<T> a = {};
    a.pred = rows<const T>(pred);
    a.target = rows<const T>(target);
    a.gradient = rows<T>(gradient);
    a.add = node->accumulate & 1;
    a.describe(node, target, attributes, backend);
    a.scale = node->in[2] != NULL ? (const float *)node->in[2]->data : NULL;
    a.partial = (double *)node->scratch;
    const bool wide = fits_vec<T, WIDE<T>>(a.pred.data, a.pred.ld, a.D) &&
                      fits_vec<T, WIDE<T>>(a.target.data, a.target.ld, a.D) &&
                      fits_vec<T, WIDE<T>>(a.gradient.data, a.gradient.ld, a.D);
    return wide ? launch<T, WIDE<T>>(a, attributes->map, stream_of(backend))
                : launch<T, 1>(a, attributes->map, stream_of(backend));
}

extern "C" cab_status cab_align_loss_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = run<T>(node, backend));
    return status;
}

extern "C" cab_status cab_align_loss_backward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = run<T>(node, backend));
    return status;
}

/* ---- 1 / var(psi(target)) of every sequence ---------------------------------------------------------------------------- */

enum { VARIANCE_PARTS = 16 }; /* blocks of a sequence, at most */

/* Sums of psi - center and of its squares. */
template <typename T> struct moments_of : align<T> {
    double2 *sums; /* (B, parts) */
    int64_t parts;
    float center; /* the mean, where it is known */
};

template <int N> __device__ __forceinline__ void add_moments(const float (&psi)[N], float center, double2 &sum)
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        const double value = (double)psi[i] - (double)center;
        sum.x += value;
        sum.y += value * value;
    }
}

/* Leaves what a block has of a sequence; the block that arrives last adds the parts of every sequence in order. */
template <typename T> __device__ __forceinline__ void finish(const moments_of<T> &m, double2 mine)
{
    __shared__ double shared[ALIGN_WARPS];
    __shared__ bool last;
    mine.x = block_total(mine.x, shared);
    __syncthreads();
    mine.y = block_total(mine.y, shared);
    if (threadIdx.x == 0)
        m.sums[blockIdx.x] = mine;
    if (!arrives_last(m.ticket, last))
        return;
    for (int64_t b = threadIdx.x; b < m.B; b += ALIGN_THREADS) {
        double2 sum = make_double2(0.0, 0.0);
        for (int64_t part = 0; part < m.parts; part++) {
            const double2 other = __ldcg(m.sums + b * m.parts + part);
            sum.x += other.x;
            sum.y += other.y;
        }
        const double n = (double)m.L * (double)m.D, mean = sum.x / n, square = sum.y / n, variance = square - mean * mean;
        const double least = CAB_VARIANCE_ROUNDING * (square + (double)m.center * (double)m.center);
        m.out[b] = variance > least ? (float)(1.0 / variance) : 0.0f;
    }
}

/* A block takes every parts-th token of a sequence. */
template <typename T, int N, cab_feature_map MAP>
static __global__ void __launch_bounds__(ALIGN_THREADS) moments_of_tokens(moments_of<T> m)
{
    const int64_t b = blockIdx.x / m.parts;
    double2 mine = make_double2(0.0, 0.0);
    for (int64_t l = blockIdx.x % m.parts; l < m.L; l += m.parts)
        for (int64_t at = threadIdx.x * (int64_t)N; at < m.D; at += ALIGN_THREADS * N) {
            float psi[N];
            load_floats(m.target.at(m.target_row(b, l), at), psi);
            apply<MAP>(psi, psi, psi);
            add_moments(psi, m.center, mine);
        }
    finish(m, mine);
}

/* The same, a token to a warp. */
template <typename T, int N>
static __global__ void __launch_bounds__(ALIGN_THREADS) moments_under_softmax_of_features(moments_of<T> m)
{
    const int64_t b = blockIdx.x / m.parts, first = blockIdx.x % m.parts * ALIGN_WARPS + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    double2 mine = make_double2(0.0, 0.0);
    for (int64_t l = first; l < m.L; l += m.parts * ALIGN_WARPS) {
        const T *const target[1] = {m.target.at(m.target_row(b, l), 0)};
        float2 softmax[1];
        rows_softmax<T, N>(target, m.D, lane, softmax);
        float maximum[N], inverse[N], psi[N];
#pragma unroll
        for (int i = 0; i < N; i++) {
            maximum[i] = softmax[0].x;
            inverse[i] = softmax[0].y;
        }
        for (int64_t at = lane * N; at < m.D; at += 32 * N) {
            load_floats(target[0] + at, psi);
            apply<CAB_MAP_SOFTMAX_FEATURES>(psi, maximum, inverse);
            add_moments(psi, m.center, mine);
        }
    }
    finish(m, mine);
}

/* A block takes all tokens of a sequence in a tile of columns. */
template <typename T, int N>
static __global__ void __launch_bounds__(ALIGN_THREADS) moments_under_softmax_of_tokens(moments_of<T> m)
{
    const int across = threadIdx.x % tile<N>::ACROSS, level = threadIdx.x / tile<N>::ACROSS;
    const int64_t b = blockIdx.x / m.parts, column = blockIdx.x % m.parts * tile<N>::COLUMNS + across * N;
    float maximum[N], inverse[N], psi[N];
    double2 mine = make_double2(0.0, 0.0);
    token_softmax(m, b, column, column < m.D, across, level, maximum, inverse);
    if (column < m.D)
        for (int64_t l = level; l < m.L; l += tile<N>::DOWN) {
            load_floats(m.target.at(m.target_row(b, l), column), psi);
            apply<CAB_MAP_SOFTMAX_TOKENS>(psi, maximum, inverse);
            add_moments(psi, m.center, mine);
        }
    finish(m, mine);
}

static int64_t variance_parts(int64_t tokens)
{
    return tokens < VARIANCE_PARTS ? tokens : VARIANCE_PARTS;
}

/* Whether addresses allow vectors is not known yet: room for either way. */
extern "C" size_t cab_inverse_variance_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_tensor *target = node->in[0];
    const int64_t tiles = ceil_div(cab_columns(target), tile<1>::COLUMNS);
    return (size_t)(target->shape[0] * (tiles > VARIANCE_PARTS ? tiles : VARIANCE_PARTS)) * sizeof(double2);
}

template <typename T, int N>
static cab_status launch_moments(moments_of<T> m, cab_feature_map map, cudaStream_t stream)
{
    m.parts = map == CAB_MAP_SOFTMAX_TOKENS     ? ceil_div(m.D, tile<N>::COLUMNS)
              : map == CAB_MAP_SOFTMAX_FEATURES ? variance_parts(ceil_div(m.L, ALIGN_WARPS))
                                                : variance_parts(m.L);
    const unsigned blocks = (unsigned)(m.B * m.parts);
    switch (map) {
    case CAB_MAP_NONE:
        moments_of_tokens<T, N, CAB_MAP_NONE><<<blocks, ALIGN_THREADS, 0, stream>>>(m);
        break;
    case CAB_MAP_RELU:
        moments_of_tokens<T, N, CAB_MAP_RELU><<<blocks, ALIGN_THREADS, 0, stream>>>(m);
        break;
    case CAB_MAP_EXP:
        moments_of_tokens<T, N, CAB_MAP_EXP><<<blocks, ALIGN_THREADS, 0, stream>>>(m);
        break;
    case CAB_MAP_SOFTMAX_FEATURES:
        moments_under_softmax_of_features<T, N><<<blocks, ALIGN_THREADS, 0, stream>>>(m);
        break;
    case CAB_MAP_SOFTMAX_TOKENS:
        moments_under_softmax_of_tokens<T, N><<<blocks, ALIGN_THREADS, 0, stream>>>(m);
        break;
    }
    return cab_cuda_launched("inverse_variance");
}

template <typename T> static cab_status run_moments(const cab_node *node, cab_backend *backend)
{
    const cab_align_attributes *attributes = (const cab_align_attributes *)node->attributes;
    moments_of<T> m = {};
    m.describe(node, node->in[0], attributes, backend);
    m.target = rows<const T>(node->in[0]);
    m.sums = (double2 *)node->scratch;
    m.center = (float)cab_align_center(attributes, node->in[0]);
    return fits_vec<T, WIDE<T>>(m.target.data, m.target.ld, m.D)
               ? launch_moments<T, WIDE<T>>(m, attributes->map, stream_of(backend))
               : launch_moments<T, 1>(m, attributes->map, stream_of(backend));
}

extern "C" cab_status cab_inverse_variance_forward_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = run_moments<T>(node, backend));
    return status;
}
