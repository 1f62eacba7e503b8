/* ssd.cu - the Mamba-2 recurrence on the GPU, in fp32, for any P and N. src/ops/ssd.c has the formulas, src/ops/cpu/ssd.c
 * those of the backward pass. ssd_tiles.cu and ssd_groups.cu take bf16 with N up to 256, on tensor cores, or ssd_walk_wgmma.cu and
 * ssd_groups_wgmma.cu on those of Hopper.
 *
 * Arithmetic, in chunks of Q tokens; S[i] is the sum of log a from the chunk's start to token i:
 *
 *   M[i, j] = <C[i], B[j]> exp(S[i] - S[j]) delta[j] for j <= i of the same document, else 0
 *   y[i] = sum_j M[i, j] x[j] + exp(S[i]) h_start C[i] + D x[i]
 *   h_end = exp(S[Q]) h_start + sum_j exp(S[Q] - S[j]) delta[j] x[j] B[j]^T
 *
 * with delta = 1 where the recurrence is discrete. Layout: a block of 256 threads computes a 64 x 64 tile, a thread 4 x 4
 * elements of it. Three kernels:
 *
 *   states      a block per tile of (P, N) of a head walks over the head's chunks: h at the start, dh at the end
 *   output      a block per chunk of a head: M in shared memory, then y tile by tile
 *   gradients   a block per chunk of a head: M (without delta) and dG in shared memory, then dx, dC, dB tile by tile, then
 *               ddt
 *
 * Where heads share B and C (G < H), dB and dC of every head go to scratch and are added in the order of the heads; on
 * tensor cores ssd_groups.cu adds them up itself. dD,
 * dA_log and ddt_bias are summed over chunks and sequences in the same way. A decoding step has a warp per four rows of the
 * state; h is read and written once.
 *
 * Two directions are two calls of whichever form it is: the second is given the node in reverse (src/ops/ssd.h), with D zero; its y
 * is then added to the first's.
 *
 *   forward scratch   [ h: (B H chunks) x (P, N) fp32 ]   of ssd_groups.cu bf16 tiles, of ssd_tiles.cu none
 *                     [ y and D of the second direction ]
 *   backward scratch  [ h, of the tensor cores bf16 tiles ] [ dh ] [ partials of dD, dA_log, ddt_bias ] [ parts of dB ]
 *                     [ parts of dC ] [ D of the second direction ] */
#include "ops/cuda/ssd.cuh"

enum { SIDE = 64, SLICE = 32, LD = SIDE + 4, THREADS = 256, STEP_ROWS = 4 };

/* ---- 64 x 64 tiles ----------------------------------------------------------------------------------------------------- */

struct place {
    int row, column; /* of the thread's 4 x 4 */
};

__device__ __forceinline__ place here(void)
{
    return {(int)threadIdx.x / 16 * 4, (int)threadIdx.x % 16 * 4};
}

struct sums {
    float v[4][4];
};

/* A matrix in memory; reads as zero outside. */
template <typename T> struct matrix {
    const T *data;
    int64_t ld;
    int n_row, columns;
};

template <typename T> __device__ __forceinline__ float element(const matrix<T> &m, int row, int column)
{
    return row < m.n_row && column < m.columns ? to_float(m.data[row * m.ld + column]) : 0.0f;
}

/* to[k][c] = m[row + k][column + c], row k times scale[row + k] (NULL: 1); SLICE rows of SIDE. */
template <typename T>
__device__ __forceinline__ void load_rows(float *to, const matrix<T> &m, int row, int column, const float *scale)
{
    for (int i = threadIdx.x; i < SLICE * SIDE; i += THREADS) {
        const int k = i / SIDE, c = i % SIDE;
        to[k * LD + c] = element(m, row + k, column + c) * (scale ? scale[row + k] : 1.0f);
    }
}

/* to[k][r] = m[row + r][column + k], row r times scale[row + r]; SLICE columns of SIDE rows. */
template <typename T>
__device__ __forceinline__ void load_columns(float *to, const matrix<T> &m, int row, int column, const float *scale)
{
    for (int i = threadIdx.x; i < SLICE * SIDE; i += THREADS) {
        const int k = i % SLICE, r = i / SLICE;
        to[k * LD + r] = element(m, row + r, column + k) * (scale ? scale[row + r] : 1.0f);
    }
}

/* acc += a^T b of slices (SLICE, SIDE); ROWS: a is (SIDE, SLICE). */
template <bool ROWS> __device__ __forceinline__ void multiply(sums &acc, const float *a, const float *b, place at)
{
#pragma unroll 8
    for (int k = 0; k < SLICE; k++) {
        const float4 right = *(const float4 *)(b + k * LD + at.column);
        float left[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            left[i] = ROWS ? a[(at.row + i) * LD + k] : a[k * LD + at.row + i];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            acc.v[i][0] += left[i] * right.x;
            acc.v[i][1] += left[i] * right.y;
            acc.v[i][2] += left[i] * right.z;
            acc.v[i][3] += left[i] * right.w;
        }
    }
}

/* acc += (rows of a) (rows of b)^T over `depth` columns, rows of a scaled; or b as it stands, `depth` rows of it from
 * column `b_at` on. */
template <typename A, typename B>
__device__ __forceinline__ void multiply_rows(sums &acc, const matrix<A> &a, const float *scale, const matrix<B> &b,
                                              int b_row, int depth, float *slices, place at)
{
    for (int k = 0; k < depth; k += SLICE) {
        __syncthreads();
        load_columns(slices, a, 0, k, scale);
        load_columns(slices + SLICE * LD, b, b_row, k, NULL);
        __syncthreads();
        multiply<false>(acc, slices, slices + SLICE * LD, at);
    }
}

template <typename A, typename B>
__device__ __forceinline__ void multiply_through(sums &acc, const matrix<A> &a, const float *scale, const matrix<B> &b,
                                                 int b_column, int depth, float *slices, place at)
{
    for (int k = 0; k < depth; k += SLICE) {
        __syncthreads();
        load_columns(slices, a, 0, k, scale);
        load_rows(slices + SLICE * LD, b, k, b_column, NULL);
        __syncthreads();
        multiply<false>(acc, slices, slices + SLICE * LD, at);
    }
}

/* acc += square b, the square (Q, Q) in shared memory and read as it stands (ROWS) or transposed. */
template <bool ROWS, typename B>
__device__ __forceinline__ void multiply_square(sums &acc, const float *square, const matrix<B> &b, int b_column,
                                                float *slice, place at)
{
    for (int k = 0; k < Q; k += SLICE) {
        __syncthreads();
        load_rows(slice, b, k, b_column, NULL);
        __syncthreads();
        multiply<ROWS>(acc, square + (ROWS ? k : k * LD), slice, at);
    }
}

/* One chunk of a head. */
template <typename T> struct chunk_of {
    int64_t row, index; /* of its first token; among all heads' chunks */
    int head, group, chunk;
    int n_row;
    matrix<T> x, B, C, dy;
};

template <typename T>
__device__ __forceinline__ matrix<T> part(rows_of<const T> of, int64_t row, int n_row, int64_t column, int columns)
{
    return {of.data + row * of.ld + column, of.ld, n_row, columns};
}

template <typename T> __device__ __forceinline__ chunk_of<T> chunk_at(const ssd_call<T> &c, int64_t index)
{
    chunk_of<T> k;
    const int64_t head = index / c.chunks;
    k.index = index;
    k.chunk = (int)(index % c.chunks);
    k.head = (int)(head % c.H);
    k.group = k.head / c.heads;
    k.row = head / c.H * c.L + (int64_t)k.chunk * Q;
    const int64_t left = c.L - (int64_t)k.chunk * Q;
    k.n_row = left < Q ? (int)left : Q;
    k.x = part(c.x, k.row, k.n_row, (int64_t)k.head * c.P, c.P);
    k.B = part(c.B, k.row, k.n_row, (int64_t)k.group * c.N, c.N);
    k.C = part(c.C, k.row, k.n_row, (int64_t)k.group * c.N, c.N);
    k.dy = part(c.dy, k.row, k.n_row, (int64_t)k.head * c.P, c.P);
    return k;
}

/* By the whole block; the decays may be read on return. */
template <typename T>
__device__ __forceinline__ void load_decays(ssd_decays *d, const ssd_call<T> &c, const chunk_of<T> &k)
{
    __syncthreads();
    if (threadIdx.x < 32)
        ssd_make_decays(d, ssd_read_decays(c, k.row, k.chunk * Q, k.n_row, k.head, threadIdx.x), ssd_rate(c, k.head),
                        !c.A_log, threadIdx.x);
    __syncthreads();
}

__device__ __forceinline__ matrix<float> state_of(const float *states, int64_t index, int P, int N)
{
    return {states + index * P * N, N, P, N};
}

/* exp(S[row] - S[column]), zero where the token `row` sees nothing of the token `column`. */
__device__ __forceinline__ float decay_between(const ssd_decays &d, int own, int row, int column)
{
    return column < row + own && column >= d.first[row] ? exp2_fast(d.s[row] - d.s[column]) : 0.0f;
}

/* ---- states ------------------------------------------------------------------------------------------------------------ */

/* h at the start of every chunk; BACKWARD: dh at the end of every chunk. */
template <typename T, bool BACKWARD>
static __global__ void __launch_bounds__(THREADS) walk(ssd_call<T> c, float *states)
{
    __shared__ __align__(16) float slices[2 * SLICE * LD];
    __shared__ __align__(16) ssd_decays d;
    const int across = (c.N + SIDE - 1) / SIDE, tiles = (c.P + SIDE - 1) / SIDE * across;
    const int tile = (int)(blockIdx.x % (unsigned)tiles), p = tile / across * SIDE, n = tile % across * SIDE;
    const int64_t head = blockIdx.x / (unsigned)tiles;
    const place at = here();
    sums acc = {};
    for (int step = 0; step < c.chunks; step++) {
        const chunk_of<T> k = chunk_at(c, head * c.chunks + (BACKWARD ? c.chunks - 1 - step : step));
        float *to = states + k.index * c.P * c.N;
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++)
                if (p + at.row + i < c.P && n + at.column + j < c.N)
                    to[(int64_t)(p + at.row + i) * c.N + n + at.column + j] = acc.v[i][j];
        if (step + 1 == c.chunks)
            return;
        load_decays(&d, c, k);
        const float whole = d.from_start[Q - 1];
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++)
                acc.v[i][j] *= whole;
        for (int t = 0; t < Q; t += SLICE) {
            __syncthreads();
            load_rows(slices, BACKWARD ? k.dy : k.x, t, p, BACKWARD ? d.from_start : d.into);
            load_rows(slices + SLICE * LD, BACKWARD ? k.C : k.B, t, n, NULL);
            __syncthreads();
            multiply<false>(acc, slices, slices + SLICE * LD, at);
        }
    }
}

/* ---- output ------------------------------------------------------------------------------------------------------------ */

template <typename T> __device__ __forceinline__ void put(T *to, float value, bool add)
{
    *to = from_float<T>(add ? to_float(*to) + value : value);
}

template <typename T> static __global__ void __launch_bounds__(THREADS) output(ssd_call<T> c, const float *states)
{
    __shared__ __align__(16) float mixed[Q * LD], slices[2 * SLICE * LD];
    __shared__ __align__(16) ssd_decays d;
    const place at = here();
    const chunk_of<T> k = chunk_at(c, blockIdx.x);
    const matrix<float> h = state_of(states, k.index, c.P, c.N);
    load_decays(&d, c, k);
    sums acc = {};
    multiply_rows(acc, k.C, NULL, k.B, 0, c.N, slices, at);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            const int row = at.row + i, column = at.column + j;
            mixed[row * LD + column] = decay_between(d, c.own, row, column) * acc.v[i][j] * d.delta[column];
        }
    for (int p = 0; p < c.P; p += SIDE) {
        acc = {};
        multiply_square<true>(acc, mixed, k.x, p, slices, at);
        if (k.chunk > 0)
            multiply_rows(acc, k.C, d.from_start, h, p, c.N, slices, at);
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                const int row = at.row + i, column = p + at.column + j;
                if (row < k.n_row && column < c.P)
                    c.y.data[(k.row + row) * c.y.ld + (int64_t)k.head * c.P + column] =
                        from_float<T>(acc.v[i][j] + c.D[k.head] * element(k.x, row, column));
            }
    }
}

/* ---- gradients --------------------------------------------------------------------------------------------------------- */

/* Shared memory of a chunk's gradients; the squares as (i, j). */
struct gradient_tiles {
    float mixed[Q * LD], dG[Q * LD], slices[2 * SLICE * LD];
    ssd_decays d;
    float difference[Q], through_u[Q], parts[THREADS / 32];
};

/* M without delta, and dG. */
template <typename T>
__device__ __forceinline__ void make_squares(gradient_tiles &shared, const ssd_call<T> &c, const chunk_of<T> &k,
                                             place at)
{
    sums product = {}, dproduct = {};
    multiply_rows(product, k.C, NULL, k.B, 0, c.N, shared.slices, at);
    multiply_rows(dproduct, k.dy, NULL, k.x, 0, c.P, shared.slices, at);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            const int row = at.row + i, column = at.column + j;
            const float decay = decay_between(shared.d, c.own, row, column);
            shared.mixed[row * LD + column] = decay * product.v[i][j];
            shared.dG[row * LD + column] = decay * dproduct.v[i][j] * shared.d.delta[column];
        }
}

/* <acc, m> per row of the thread, m from column `column` on. */
template <typename T>
__device__ __forceinline__ void row_products(float (&row)[4], const sums &acc, const matrix<T> &m, int column, place at)
{
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            row[i] += acc.v[i][j] * element(m, at.row + i, column + at.column + j);
}

/* dx; <du, x> per row of the thread. */
template <typename T>
__device__ __forceinline__ void x_gradient(gradient_tiles &shared, const ssd_call<T> &c, const chunk_of<T> &k,
                                           const matrix<float> &dh, float (&through_u)[4], place at)
{
    for (int p = 0; p < c.P; p += SIDE) {
        sums acc = {};
        if (k.chunk + 1 < c.chunks)
            multiply_rows(acc, k.B, shared.d.to_end, dh, p, c.N, shared.slices, at);
        multiply_square<false>(acc, shared.mixed, k.dy, p, shared.slices, at);
        row_products(through_u, acc, k.x, p, at);
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                const int row = at.row + i, column = p + at.column + j;
                if (c.dx.data && row < k.n_row && column < c.P)
                    put(c.dx.data + (k.row + row) * c.dx.ld + (int64_t)k.head * c.P + column,
                        shared.d.delta[row] * acc.v[i][j] + c.D[k.head] * element(k.dy, row, column), c.add_x);
            }
    }
}

template <typename T>
__device__ __forceinline__ void store_group(rows_of<T> to, float *parts, const ssd_call<T> &c, const chunk_of<T> &k,
                                            const sums &acc, int n, bool add, place at)
{
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            const int row = at.row + i, column = n + at.column + j;
            if (row >= k.n_row || column >= c.N)
                continue;
            if (parts)
                parts[(k.row + row) * c.H * c.N + (int64_t)k.head * c.N + column] = acc.v[i][j];
            else if (to.data)
                put(to.data + (k.row + row) * to.ld + (int64_t)k.group * c.N + column, acc.v[i][j], add);
        }
}

/* dC and dB; C . dC - B . dB per row of the thread. Returns this thread's part of the sum of B . dB through the state. */
template <typename T>
__device__ __forceinline__ float group_gradients(gradient_tiles &shared, const ssd_call<T> &c, const chunk_of<T> &k,
                                                 const matrix<float> &h, const matrix<float> &dh,
                                                 float (&difference)[4], place at)
{
    float through[4] = {}, from_B[4] = {};
    for (int n = 0; n < c.N; n += SIDE) {
        sums acc = {};
        if (k.chunk > 0)
            multiply_through(acc, k.dy, shared.d.from_start, h, n, c.P, shared.slices, at);
        multiply_square<true>(acc, shared.dG, k.B, n, shared.slices, at);
        row_products(difference, acc, k.C, n, at);
        store_group(c.dC, c.dC_parts, c, k, acc, n, c.add_C, at);
        acc = {};
        if (k.chunk + 1 < c.chunks) {
            multiply_through(acc, k.x, shared.d.into, dh, n, c.P, shared.slices, at);
            row_products(through, acc, k.B, n, at);
        }
        multiply_square<false>(acc, shared.dG, k.C, n, shared.slices, at);
        row_products(from_B, acc, k.B, n, at);
        store_group(c.dB, c.dB_parts, c, k, acc, n, c.add_B, at);
    }
    for (int i = 0; i < 4; i++)
        difference[i] -= from_B[i];
    return through[0] + through[1] + through[2] + through[3];
}

/* The sum over the sixteen threads of a row to `to`. */
__device__ __forceinline__ void sum_rows(float (&row)[4], float *to, place at)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int lanes = 8; lanes > 0; lanes /= 2)
            row[i] += __shfl_xor_sync(0xffffffffu, row[i], lanes);
        if (threadIdx.x % 16 == 0)
            to[at.row + i] = row[i];
    }
}

/* Where the chunk's sums stand among the partial ones. */
template <typename T> __device__ __forceinline__ int64_t partial_at(const ssd_call<T> &c, const chunk_of<T> &k)
{
    return ((int64_t)(k.index / c.chunks / c.H) * c.chunks + k.chunk) * c.H + k.head;
}

/* ddt from the threads' parts; end: of <h_end, dh>. */
template <typename T>
__device__ __forceinline__ void decay_gradient(gradient_tiles &shared, const ssd_call<T> &c, const chunk_of<T> &k,
                                               float (&difference)[4], float (&through_u)[4], float end, place at)
{
    const int lane = threadIdx.x;
    end = block_sum<THREADS>(end, shared.parts);
    sum_rows(difference, shared.difference, at);
    sum_rows(through_u, shared.through_u, at);
    __syncthreads();
    if (lane >= 32)
        return;
    const ssd_step_sums sums =
        ssd_write_decays(c, k.row, k.n_row, k.head, ((const float2 *)shared.difference)[lane],
                         ((const float2 *)shared.through_u)[lane], end, &shared.d, lane);
    if (lane == 0 && c.dA_log)
        c.dA_log[partial_at(c, k)] = sums.dA_log;
    if (lane == 0 && c.ddt_bias)
        c.ddt_bias[partial_at(c, k)] = sums.ddt_bias;
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) gradients(ssd_call<T> c, const float *states, const float *dstates)
{
    extern __shared__ __align__(16) char memory[];
    gradient_tiles &shared = *(gradient_tiles *)memory;
    const place at = here();
    const chunk_of<T> k = chunk_at(c, blockIdx.x);
    const matrix<float> h = state_of(states, k.index, c.P, c.N), dh = state_of(dstates, k.index, c.P, c.N);
    load_decays(&shared.d, c, k);
    make_squares(shared, c, k, at);
    float difference[4] = {}, through_u[4] = {};
    if (c.dx.data || (c.A_log && ssd_wants_steps(c)))
        x_gradient(shared, c, k, dh, through_u, at);
    float end = group_gradients(shared, c, k, h, dh, difference, at);
    if (k.chunk > 0 && k.chunk + 1 < c.chunks)
        for (int64_t i = threadIdx.x; i < (int64_t)c.P * c.N; i += THREADS)
            end += shared.d.from_start[Q - 1] * h.data[i] * dh.data[i];
    if (ssd_wants_steps(c))
        decay_gradient(shared, c, k, difference, through_u, end, at);
    float product = 0.0f;
    for (int i = threadIdx.x; i < k.n_row * c.P; i += THREADS)
        product += element(k.x, i / c.P, i % c.P) * element(k.dy, i / c.P, i % c.P);
    __syncthreads();
    product = block_sum<THREADS>(product, shared.parts);
    if (threadIdx.x == 0)
        c.dD[partial_at(c, k)] = product;
}

/* ---- sums over heads and sequences ------------------------------------------------------------------------------------- */

/* to: (rows, G N); from: (rows, G, parts, N) */
template <typename T>
static __global__ void sum_parts(rows_of<T> to, const float *from, int64_t n_row, int G, int parts, int N, bool add)
{
    const int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x, columns = (int64_t)G * N;
    if (i >= n_row * columns)
        return;
    const int64_t row = i / columns, column = i % columns, group = column / N;
    const float *at = from + (row * G + group) * parts * N + column % N;
    float sum = 0.0f;
    for (int part = 0; part < parts; part++)
        sum += at[(int64_t)part * N];
    put(to.data + row * to.ld + column, sum, add);
}

/* dD, dA_log or ddt_bias of a head per block, from (rows, H). */
static __global__ void __launch_bounds__(THREADS) sum_rows_of(const float *from, int64_t n_row, int H, float *to, bool add)
{
    __shared__ float shared[THREADS / 32];
    float sum = 0.0f;
    for (int64_t row = threadIdx.x; row < n_row; row += THREADS)
        sum += from[row * H + blockIdx.x];
    sum = block_sum<THREADS>(sum, shared);
    if (threadIdx.x == 0)
        to[blockIdx.x] = add ? to[blockIdx.x] + sum : sum;
}

/* ---- two directions ---------------------------------------------------------------------------------------------------- */

/* to += from, N columns a thread; from: rows of `columns` elements */
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS) add_to(rows_of<T> to, const T *from, int64_t n_row, int64_t columns)
{
    const int64_t i = (blockIdx.x * (int64_t)THREADS + threadIdx.x) * N;
    float x[N];
    if (i >= n_row * columns)
        return;
    load_floats(from + i, x);
    put_floats(to.at(i / columns, i % columns), true, x);
}

template <typename T> static cab_status add_second(rows_of<T> to, const T *from, int64_t n_row, int64_t columns, cudaStream_t stream)
{
    constexpr int N = WIDE<T>;
    if (fits_vec<T, N>(to.data, to.ld, columns))
        add_to<T, N><<<(unsigned)ceil_div(n_row * columns / N, THREADS), THREADS, 0, stream>>>(to, from, n_row, columns);
    else
        add_to<T, 1><<<(unsigned)ceil_div(n_row * columns, THREADS), THREADS, 0, stream>>>(to, from, n_row, columns);
    return cab_cuda_launched("ssd of two directions");
}

/* ---- one token --------------------------------------------------------------------------------------------------------- */

/* A head of a sequence per block: h = a h + u B^T, y = h C + D x. state: (B, H, P N) */
template <typename T> static __global__ void __launch_bounds__(THREADS) step(ssd_call<T> c, float *states)
{
    const int64_t b = blockIdx.x / (unsigned)c.H;
    const int head = (int)(blockIdx.x % (unsigned)c.H), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float delta = softplus(to_float(c.dt.data[b * c.dt.ld + head]) + (c.dt_bias ? c.dt_bias[head] : 0.0f));
    const float a = exp2_fast(-1.44269504f * ssd_rate(c, head) * delta), D = c.D[head], scale = c.A_log ? delta : 1.0f;
    const T *x = c.x.data + b * c.x.ld + (int64_t)head * c.P;
    const int64_t group = (int64_t)(head / c.heads) * c.N;
    const T *B = c.B.data + b * c.B.ld + group, *C = c.C.data + b * c.C.ld + group;
    float *state = states + (int64_t)blockIdx.x * c.P * c.N;
    for (int p = warp * STEP_ROWS; p < c.P; p += THREADS / 32 * STEP_ROWS) {
        float y[STEP_ROWS] = {}, input[STEP_ROWS];
#pragma unroll
        for (int i = 0; i < STEP_ROWS; i++)
            input[i] = p + i < c.P ? to_float(x[p + i]) : 0.0f;
        for (int n = lane; n < c.N; n += 32) {
            const float right = to_float(B[n]), out = to_float(C[n]);
            float h[STEP_ROWS];
#pragma unroll
            for (int i = 0; i < STEP_ROWS; i++)
                h[i] = p + i < c.P ? state[(int64_t)(p + i) * c.N + n] : 0.0f;
#pragma unroll
            for (int i = 0; i < STEP_ROWS; i++) {
                h[i] = a * h[i] + scale * input[i] * right;
                y[i] += h[i] * out;
                if (p + i < c.P)
                    state[(int64_t)(p + i) * c.N + n] = h[i];
            }
        }
#pragma unroll
        for (int i = 0; i < STEP_ROWS; i++) {
            y[i] = warp_sum(y[i]) + D * input[i];
            if (lane == 0 && p + i < c.P)
                c.y.data[b * c.y.ld + (int64_t)head * c.P + p + i] = from_float<T>(y[i]);
        }
    }
}

/* ---- launches ---------------------------------------------------------------------------------------------------------- */

static bool on_tensor_cores(const cab_node *node, const cab_ssd_shape *s)
{
    return node->in[0]->dtype == CAB_BF16 && s->N <= 4 * SIDE;
}

/* Which of the two forms for tensor cores. Forward, that of chunks in their order is the faster where it fits: 0.195 ms beside 0.208 on an
 * H200 (B 8, L 2048, H 32, P 64, N 128, G 1). */
static bool by_groups(const cab_ssd_shape *s, bool backward)
{
    return (backward && s->H > s->G) || s->P > SIDE || s->N > 2 * SIDE;
}

static int pieces_of(const cab_ssd_shape *s)
{
    return (s->P + SIDE - 1) / SIDE;
}

/* Offsets in bytes. */
struct workspace {
    size_t states, dstates, dD, dA_log, ddt_bias, dB_parts, dC_parts, y, zeros, total;
    int64_t sum_rows; /* of the partial sums dD, dA_log, ddt_bias */
    int parts;        /* of a group's dB and dC; 1: there is nothing to add up */
};

static size_t take(size_t *total, size_t bytes)
{
    const size_t at = *total;
    *total += (bytes + 255) / 256 * 256;
    return at;
}

/* A multiprocessor has room for two blocks of the forward pass, and for one of the backward pass. */
static int slices_of(const cab_ssd_shape *s, bool backward, const cab_backend *backend)
{
    const int multiprocessors = cab_cuda_of((cab_backend *)backend)->multiprocessors;
    return ssd_group_slices(s->B * s->chunks * s->G, s->H / s->G, backward ? multiprocessors : 2 * multiprocessors);
}

/* Bytes of the states at one end of all chunks. */
static size_t state_bytes(const cab_node *node, const cab_ssd_shape *s, bool backward)
{
    const size_t chunks = (size_t)(s->B * s->H) * (size_t)s->chunks, tile = SIDE * SIDE * sizeof(bf16);
    if (!on_tensor_cores(node, s))
        return chunks * (size_t)s->P * (size_t)s->N * sizeof(float);
    if (by_groups(s, backward))
        return chunks * (size_t)pieces_of(s) * (size_t)ssd_group_tiles(s->N, backward) * tile;
    return backward ? chunks * (s->N <= SIDE ? 1 : 2) * tile : 0;
}

static workspace workspace_of(const cab_node *node, bool backward, const cab_backend *backend)
{
    const cab_ssd_shape s = cab_ssd_shape_of(node);
    const bool tiles = on_tensor_cores(node, &s), walk = tiles && !by_groups(&s, backward);
    workspace w = {};
    w.states = take(&w.total, state_bytes(node, &s, backward));
    w.parts = tiles ? slices_of(&s, backward, backend) : s.H / s.G;
    if (cab_ssd_attributes_of(node)->both) {
        const size_t y = (size_t)(s.B * s.L) * (size_t)(s.H * s.P) * cab_dtype_size(node->in[0]->dtype);
        w.y = take(&w.total, backward ? 0 : y);
        w.zeros = take(&w.total, (size_t)s.H * sizeof(float));
    }
    if (!backward)
        return w;
    w.sum_rows = walk ? s.B : s.B * s.chunks;
    w.dstates = take(&w.total, walk ? 0 : state_bytes(node, &s, true));
    const size_t partials = (size_t)w.sum_rows * (size_t)s.H * sizeof(float);
    const size_t columns = (size_t)s.G * (size_t)w.parts * (size_t)s.N;
    const size_t parts = w.parts > 1 ? (size_t)(s.B * s.L) * columns * sizeof(float) : 0;
    w.dD = take(&w.total, partials);
    w.dA_log = take(&w.total, node->gin[CAB_SSD_A_LOG] ? partials : 0);
    w.ddt_bias = take(&w.total, node->gin[CAB_SSD_DT_BIAS] ? partials : 0);
    w.dB_parts = take(&w.total, parts);
    w.dC_parts = take(&w.total, parts);
    return w;
}

extern "C" size_t cab_ssd_forward_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    return workspace_of(node, false, backend).total;
}

extern "C" size_t cab_ssd_backward_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    return workspace_of(node, true, backend).total;
}

static bool aligned(const cab_tensor *t)
{
    return !t || ((uintptr_t)t->data % 16 == 0 && t->ld % 8 == 0);
}

static const float *floats_of(const cab_tensor *t)
{
    return t ? (const float *)t->data : NULL;
}

template <typename T> static ssd_call<T> call_of(const cab_node *node, const cab_ssd_shape *s)
{
    ssd_call<T> c = {};
    c.x = rows<const T>(node->in[0]);
    c.B = rows<const T>(node->in[1]);
    c.C = rows<const T>(node->in[2]);
    c.dt = rows<const T>(node->in[CAB_SSD_DT]);
    c.D = floats_of(node->in[CAB_SSD_D]);
    c.dt_bias = floats_of(node->in[CAB_SSD_DT_BIAS]);
    c.A_log = floats_of(node->in[CAB_SSD_A_LOG]);
    c.starts = node->in[CAB_SSD_STARTS] ? (const int32_t *)node->in[CAB_SSD_STARTS]->data : NULL;
    c.L = s->L;
    c.sequences = s->B;
    c.H = s->H;
    c.heads = s->H / s->G;
    c.P = s->P;
    c.N = s->N;
    c.chunks = s->chunks;
    c.pieces = pieces_of(s);
    c.own = cab_ssd_attributes_of(node)->reverse ? 0 : 1;
    c.aligned = s->P % 8 == 0 && s->N % 8 == 0;
    for (int i = 0; i < 3; i++)
        c.aligned = c.aligned && aligned(node->in[i]) && aligned(node->gin[i]);
    c.aligned = c.aligned && aligned(node->out[0]) && aligned(node->gout[0]);
    return c;
}

template <typename T> static void take_gradients(ssd_call<T> *call, const cab_node *node, const workspace &w)
{
    ssd_call<T> &c = *call;
    char *scratch = (char *)node->scratch;
    c.dy = rows<const T>(node->gout[0]);
    c.dx = rows<T>(node->gin[0]);
    c.dB = rows<T>(node->gin[1]);
    c.dC = rows<T>(node->gin[2]);
    c.ddt = rows<T>(node->gin[CAB_SSD_DT]);
    c.add_x = node->accumulate & 1u;
    c.add_B = node->accumulate & 2u;
    c.add_C = node->accumulate & 4u;
    c.add_dt = node->accumulate & 8u;
    c.dD = (float *)(scratch + w.dD);
    c.dA_log = node->gin[CAB_SSD_A_LOG] ? (float *)(scratch + w.dA_log) : NULL;
    c.ddt_bias = node->gin[CAB_SSD_DT_BIAS] ? (float *)(scratch + w.ddt_bias) : NULL;
    if (w.parts > 1) {
        c.dB_parts = (float *)(scratch + w.dB_parts);
        c.dC_parts = (float *)(scratch + w.dC_parts);
    }
}

template <typename T, bool BACKWARD>
static cab_status launch_walk(const ssd_call<T> &c, float *states, cab_backend *backend)
{
    const int64_t tiles = ceil_div(c.P, SIDE) * ceil_div(c.N, SIDE);
    walk<T, BACKWARD><<<(unsigned)(c.sequences * c.H * tiles), THREADS, 0, stream_of(backend)>>>(c, states);
    return cab_cuda_launched("ssd states");
}

template <typename T> static cab_status general_forward(const ssd_call<T> &c, void *scratch, cab_backend *backend)
{
    float *states = (float *)scratch;
    CAB_TRY((launch_walk<T, false>(c, states, backend)));
    output<<<(unsigned)(c.sequences * c.H * c.chunks), THREADS, 0, stream_of(backend)>>>(c, states);
    return cab_cuda_launched("ssd");
}

template <typename T>
static cab_status general_backward(const ssd_call<T> &c, float *states, float *dstates, cab_backend *backend)
{
    CAB_TRY((launch_walk<T, false>(c, states, backend)));
    CAB_TRY((launch_walk<T, true>(c, dstates, backend)));
    CAB_TRY(cab_cuda_shared((const void *)gradients<T>, sizeof(gradient_tiles), "ssd backward"));
    gradients<<<(unsigned)(c.sequences * c.H * c.chunks), THREADS, sizeof(gradient_tiles), stream_of(backend)>>>(
        c, states, dstates);
    return cab_cuda_launched("ssd backward");
}

/* What is left after the gradients of every head. */
template <typename T>
static cab_status finish(const cab_node *node, const ssd_call<T> &c, const workspace &w, cab_backend *backend)
{
    const int64_t n_row = c.sequences * c.L, n = n_row * (c.H / c.heads) * c.N;
    const unsigned blocks = (unsigned)ceil_div(n, THREADS);
    if (c.dB_parts && c.dB.data)
        sum_parts<<<blocks, THREADS, 0, stream_of(backend)>>>(c.dB, c.dB_parts, n_row, c.H / c.heads, w.parts, c.N,
                                                              c.add_B);
    if (c.dC_parts && c.dC.data)
        sum_parts<<<blocks, THREADS, 0, stream_of(backend)>>>(c.dC, c.dC_parts, n_row, c.H / c.heads, w.parts, c.N,
                                                              c.add_C);
    const float *const partials[3] = {c.dD, c.dA_log, c.ddt_bias};
    const int inputs[3] = {CAB_SSD_D, CAB_SSD_A_LOG, CAB_SSD_DT_BIAS};
    for (int i = 0; i < 3; i++)
        if (node->gin[inputs[i]])
            sum_rows_of<<<(unsigned)c.H, THREADS, 0, stream_of(backend)>>>(partials[i], w.sum_rows, c.H,
                                                                         (float *)node->gin[inputs[i]]->data,
                                                                         node->accumulate >> inputs[i] & 1u);
    return cab_cuda_launched("ssd backward");
}

static bool empty(const cab_ssd_shape *s)
{
    return s->B * s->L * s->P * s->N == 0;
}

/* The call of a direction; of the second, D is zeros. */
template <typename T>
static cab_status begin(const cab_node *node, const cab_ssd_shape *s, const workspace &w, ssd_call<T> *c, cab_backend *backend)
{
    *c = call_of<T>(node, s);
    if (!cab_ssd_attributes_of(node)->reverse)
        return CAB_OK;
    c->D = (float *)((char *)node->scratch + w.zeros);
    return cab_cuda_check(cudaMemsetAsync((void *)c->D, 0, (size_t)s->H * sizeof(float), stream_of(backend)), "ssd");
}

/* y of one direction. */
template <typename T>
static cab_status forward(const cab_node *node, const cab_ssd_shape *s, const workspace &w, rows_of<T> y, cab_backend *backend)
{
    ssd_call<T> c;
    CAB_TRY(begin(node, s, w, &c, backend));
    c.y = y;
    if constexpr (sizeof(T) == sizeof(bf16)) {
        if (on_tensor_cores(node, s)) {
            if (by_groups(s, false))
                return ssd_groups_forward(c, {node->scratch, NULL, slices_of(s, false, backend)}, backend);
            return s->H > s->G && c.aligned && has_wgmma(backend, ssd_walk_wgmma_bytes()) ? ssd_walk_wgmma_forward(c, backend)
                                                                                          : ssd_tiles_forward(c, backend);
        }
    }
    return general_forward(c, node->scratch, backend);
}

template <typename T> static cab_status directions(const cab_node *node, const cab_ssd_shape *s, cab_backend *backend)
{
    const workspace w = workspace_of(node, false, backend);
    const rows_of<T> y = rows<T>(node->out[0]);
    const int64_t n_row = s->B * s->L, columns = (int64_t)s->H * s->P;
    T *second = (T *)((char *)node->scratch + w.y);
    cab_ssd_reverse reverse;
    CAB_TRY(forward(node, s, w, y, backend));
    if (!cab_ssd_attributes_of(node)->both)
        return CAB_OK;
    cab_ssd_reverse_of(node, &reverse);
    CAB_TRY(forward(&reverse.node, s, w, rows_of<T>{second + (n_row - 1) * columns, -columns}, backend));
    return add_second(y, (const T *)second, n_row, columns, stream_of(backend));
}

extern "C" cab_status cab_ssd_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_ssd_shape s = cab_ssd_shape_of(node);
    if (empty(&s))
        return CAB_OK;
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = directions<T>(node, &s, backend));
    return status;
}

template <typename T> static cab_status backward(const cab_node *node, const cab_ssd_shape *s, cab_backend *backend)
{
    const workspace w = workspace_of(node, true, backend);
    ssd_call<T> c;
    CAB_TRY(begin(node, s, w, &c, backend));
    take_gradients(&c, node, w);
    char *scratch = (char *)node->scratch;
    if constexpr (sizeof(T) == sizeof(bf16)) {
        if (on_tensor_cores(node, s)) {
            const ssd_group_scratch groups = {scratch + w.states, scratch + w.dstates, w.parts};
            CAB_TRY(by_groups(s, true) ? ssd_groups_backward(c, groups, backend)
                                : ssd_tiles_backward(c, scratch + w.states, backend));
            return finish(node, c, w, backend);
        }
    }
    CAB_TRY(general_backward(c, (float *)(scratch + w.states), (float *)(scratch + w.dstates), backend));
    return finish(node, c, w, backend);
}

extern "C" cab_status cab_ssd_backward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_ssd_shape s = cab_ssd_shape_of(node);
    if (empty(&s))
        return CAB_OK;
    cab_ssd_reverse reverse;
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = backward<T>(node, &s, backend));
    if (status != CAB_OK || !cab_ssd_attributes_of(node)->both)
        return status;
    cab_ssd_reverse_of(node, &reverse);
    BY_DTYPE(node->in[0]->dtype, status = backward<T>(&reverse.node, &s, backend));
    return status;
}

template <typename T> static cab_status step_forward(const cab_node *node, const cab_ssd_shape *s, cab_backend *backend)
{
    ssd_call<T> c = call_of<T>(node, s);
    c.y = rows<T>(node->out[0]);
    step<<<(unsigned)(s->B * s->H), THREADS, 0, stream_of(backend)>>>(c, (float *)node->in[CAB_SSD_STATE]->data);
    return cab_cuda_launched("ssd step");
}

extern "C" cab_status cab_ssd_step_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_ssd_shape s = cab_ssd_shape_of(node);
    if (empty(&s))
        return CAB_OK;
    cab_status status;
    BY_DTYPE(node->in[0]->dtype, status = step_forward<T>(node, &s, backend));
    return status;
}
