/* flash_backward.cu - attention of bf16 on tensor cores, backward. Every sum has one writer and a fixed order.
 *
 * Arithmetic, with c = scale log2 e; lse is saved by the forward pass, and mean = <dy, y> per query is given:
 *
 *   p = 2^(c s - lse log2 e)        ds = p (dy V^T - mean)
 *
 * With a soft cap s is cap tanh(scale Q K^T / cap), c = log2 e, and ds is multiplied by 1 - (s / cap)^2.
 *
 * Layout, two kernels:
 *
 *   dq       a block of four warps holds queries and their dy in registers and walks over tiles of 64 keys:
 *            dq = scale ds K
 *   dk, dv   a block holds 64 keys and their values and walks over tiles of 64 queries, of every head of the group;
 *            scores are transposed:  dv = p^T dy,  dk = scale ds^T Q
 *
 * Scores are computed and used 16 columns at a time, so that they take few registers. Both kernels compute them.
 * That makes 14 P operations for a pair of query and key, where 10 P would do if atomics added up dq. */
#include "ops/cuda/flash.cuh"

struct gradients {
    flash_problem p;
    rows_of<const bf16> q, k, v, dy;
    rows_of<bf16> dq, dk, dv;
    const float *lse, *mean; /* (B, H, L) */
    bool add_q, add_k, add_v;
};

template <int W> constexpr size_t STAGE = 2 * FLASH_BYTES<W>; /* two tiles */

/* A warp's rows of a gradient, factor times the sums, added or written; from `row` on in the sequence whose first row is at
 * `to`, through the warp's rows of shared memory. */
template <int W, int M>
static __device__ __forceinline__ void write_gradient(rows_of<bf16> to, int64_t token, int column,
                                                      flash_sums<W, M> &sums, float factor, bool add, char *tile,
                                                      const flash_problem &p, int row)
{
    const int lane = threadIdx.x % 32;
    bf16 *first = to.at(token, column);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < W / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int r = row + 16 * m + 8 * (i / 2) + lane / 4, c = 8 * n + lane % 4 * 2 + i % 2;
                sums[m][n][i] *= factor;
                if (add && r < p.length && c < p.width)
                    sums[m][n][i] += to_float(first[r * to.ld + c]);
            }
    __syncwarp();
    flash_put<W, M>(tile, sums, lane);
    __syncwarp();
    flash_store<W, 16 * M>(first, to.ld, tile, p, row, lane);
}

/* ---- dq ------------------------------------------------------------------------------------------------------------ */

template <int W> struct dq_shape {
    static constexpr int M = W <= 32 ? 2 : 1; /* times 16 queries of a warp */
    static constexpr int WARP_ROWS = 16 * M;
    static constexpr int ROWS = FLASH_THREADS / 32 * WARP_ROWS;
    static_assert(ROWS * FLASH_ROW<W> <= STAGE<W>, "queries and dy pass through the stages");
};

/* What a warp holds of its queries; of lse (times log2 e) and mean those of the lane's rows. */
template <int W> struct query_rows {
    flash_rows<W, dq_shape<W>::M> q, dy;
    float lse[dq_shape<W>::M][2], mean[dq_shape<W>::M][2];
};

/* dq (less the scale) of one tile of keys from token `key` on, for queries from token `row` on; the first n_block blocks of
 * 16 keys. MASKED: not all queries see all keys. */
template <int W, bool CAPPED, bool MASKED>
static __device__ __forceinline__ void add_keys(flash_sums<W, dq_shape<W>::M> &dq, const query_rows<W> &of,
                                                uint32_t stage, const flash_lanes<W> &lanes, const flash_problem &p,
                                                int row, int key, int n_block)
{
    constexpr int M = dq_shape<W>::M;
    const float c = flash_unit<CAPPED>(p) * FLASH_LOG2_E;
    row += threadIdx.x % 32 / 4;
    key += threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < FLASH_BLOCKS; n++) {
        if (MASKED && n >= n_block)
            continue;
        flash_block<M> s, ds;
        flash_dots<W, M>(s, of.q, stage, lanes, n);
        flash_dots<W, M>(ds, of.dy, stage + FLASH_BYTES<W>, lanes, n);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int half = i % 4 / 2, at = row + 16 * m + 8 * half, j = key + 16 * n + 8 * (i / 4) + i % 2;
                const float score = flash_score<CAPPED>(p, s[m][i / 4][i % 4]);
                const float weight = flash_exp2(fmaf(score, c, -of.lse[m][half]));
                const float x = weight * (ds[m][i / 4][i % 4] - of.mean[m][half]) * flash_slope<CAPPED>(p, score);
                ds[m][i / 4][i % 4] = !MASKED || (j >= p.begin_of(at) && j < p.end_of(at)) ? x : 0.0f;
            }
        flash_add<W, M>(dq, ds, stage, lanes, n);
    }
}

/* The walk over keys begin .. end. k and v: the head's columns in the sequence's first token. */
template <int W, bool CAPPED>
static __device__ __forceinline__ void walk_keys(flash_sums<W, dq_shape<W>::M> &dq, const query_rows<W> &of,
                                                 const gradients &a, char *shared, const bf16 *k, const bf16 *v,
                                                 const flash_lanes<W> &lanes, int row, int begin, int end)
{
    constexpr int WARP_ROWS = dq_shape<W>::WARP_ROWS;
    const flash_problem &p = a.p;
    const int warp_begin = p.begin_of(row), warp_end = row < p.length ? p.end_of(row + WARP_ROWS - 1) : 0;
    const int all_begin = p.begin_of(row + WARP_ROWS - 1), all_end = p.end_of(row);
    uint32_t stage = 0;
    flash_load<W, FLASH_TILE>(shared, k, a.k.ld, p, begin);
    flash_load<W, FLASH_TILE>(shared + FLASH_BYTES<W>, v, a.v.ld, p, begin);
    copies_commit();
    for (int key = begin; key < end; key += FLASH_TILE, stage ^= 1) {
        copies_wait();
        __syncthreads(); /* the tile is here, and the other stage free */
        if (key + FLASH_TILE < end) {
            char *next = shared + (stage ^ 1) * STAGE<W>;
            flash_load<W, FLASH_TILE>(next, k, a.k.ld, p, key + FLASH_TILE);
            flash_load<W, FLASH_TILE>(next + FLASH_BYTES<W>, v, a.v.ld, p, key + FLASH_TILE);
            copies_commit();
        }
        if (key >= warp_end || key + FLASH_TILE <= warp_begin)
            continue;
        const uint32_t here = shared_address(shared) + stage * (uint32_t)STAGE<W>;
        if (key >= all_begin && key + FLASH_TILE <= all_end)
            add_keys<W, CAPPED, false>(dq, of, here, lanes, p, row, key, FLASH_BLOCKS);
        else
            add_keys<W, CAPPED, true>(dq, of, here, lanes, p, row, key, (warp_end - key + 15) / 16);
    }
}

template <int W, bool CAPPED>
static __global__ void __launch_bounds__(FLASH_THREADS, W <= 64 ? 3 : 2) flash_dq(const gradients a)
{
    constexpr int M = dq_shape<W>::M, ROWS = dq_shape<W>::ROWS, WARP_ROWS = dq_shape<W>::WARP_ROWS;
    extern __shared__ uint4 dynamic[];
    char *shared = (char *)dynamic;
    const flash_problem &p = a.p;
    const flash_lanes<W> lanes(threadIdx.x % 32);
    const unsigned tiles = (unsigned)p.tiles, sequence = blockIdx.x / tiles;
    const int first = (int)(tiles - 1 - blockIdx.x % tiles) * ROWS, row = first + (int)threadIdx.x / 32 * WARP_ROWS;
    const int head = (int)(sequence % (unsigned)p.n_head), column = head * p.width, from = head / p.group * p.width;
    const int64_t token = (int64_t)(sequence / (unsigned)p.n_head) * p.length;
    const uint32_t warp_rows = threadIdx.x / 32 * (WARP_ROWS * FLASH_ROW<W>);
    query_rows<W> of;
    flash_sums<W, M> dq;
    flash_load<W, ROWS>(shared, a.q.at(token, column), a.q.ld, p, first);
    flash_load<W, ROWS>(shared + STAGE<W>, a.dy.at(token, column), a.dy.ld, p, first);
    copies_commit();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = row + 16 * m + 8 * half + (int)threadIdx.x % 32 / 4;
            const int64_t at = (int64_t)sequence * p.length + i;
            of.lse[m][half] = i < p.length ? a.lse[at] * FLASH_LOG2_E : 0.0f;
            of.mean[m][half] = i < p.length ? a.mean[at] : 0.0f;
        }
    flash_clear<W, M>(dq);
    copies_wait();
    __syncthreads();
    flash_read<W, M>(of.q, shared_address(shared) + warp_rows, lanes);
    flash_read<W, M>(of.dy, shared_address(shared) + (uint32_t)STAGE<W> + warp_rows, lanes);
    __syncthreads(); /* the stages are free */
    walk_keys<W, CAPPED>(dq, of, a, shared, a.k.at(token, from), a.v.at(token, from), lanes, row,
                 p.begin_of(first) / FLASH_TILE * FLASH_TILE, p.end_of(first + ROWS - 1));
    __syncthreads();
    write_gradient<W, M>(a.dq, token, column, dq, p.scale, a.add_q, shared + warp_rows, p, row);
}

/* ---- dk and dv ----------------------------------------------------------------------------------------------------- */

/* Tiles of queries and dy, then lse and mean of their rows. */
template <int W> constexpr size_t QUERY_STAGE = STAGE<W> + 2 * FLASH_TILE * sizeof(float);

template <int W> struct key_rows {
    flash_rows<W, 1> k, v;
};

__device__ __forceinline__ void copy_4(uint32_t to, const void *from, bool valid)
{
    const int bytes = valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

/* The head's queries from token `query` of the sequence that begins at `token`, to a stage. */
template <int W>
static __device__ __forceinline__ void load_queries(char *stage, const gradients &a, int64_t token, int head, int query)
{
    const flash_problem &p = a.p;
    const int64_t row = token * p.n_head + (int64_t)head * p.length; /* in (B, H, L) */
    const int i = threadIdx.x % FLASH_TILE;
    const bool valid = query + i < p.length;
    const float *from = ((int)threadIdx.x < FLASH_TILE ? a.lse : a.mean) + row + (valid ? query + i : 0);
    static_assert(FLASH_THREADS == 2 * FLASH_TILE, "a number for every thread");
    flash_load<W, FLASH_TILE>(stage, a.q.at(token, head * p.width), a.q.ld, p, query);
    flash_load<W, FLASH_TILE>(stage + FLASH_BYTES<W>, a.dy.at(token, head * p.width), a.dy.ld, p, query);
    copy_4(shared_address(stage + STAGE<W> + threadIdx.x * sizeof(float)), from, valid);
    copies_commit();
}

/* dk (less the scale) and dv of one tile of queries from token `query` on, for keys from token `key` on. MASKED: not all
 * queries see all keys, and only those in begin .. end any. */
template <int W, bool CAPPED, bool MASKED>
static __device__ __forceinline__ void add_queries(flash_sums<W, 1> &dk, flash_sums<W, 1> &dv, const key_rows<W> &of,
                                                   const char *stage, const flash_lanes<W> &lanes,
                                                   const flash_problem &p, int key, int query, int begin, int end)
{
    const float c = flash_unit<CAPPED>(p) * FLASH_LOG2_E;
    const uint32_t queries = shared_address(stage);
    const float *lse = (const float *)(stage + STAGE<W>), *mean = lse + FLASH_TILE;
    key += threadIdx.x % 32 / 4;
#pragma unroll
    for (int n = 0; n < FLASH_BLOCKS; n++) {
        if (MASKED && (query + 16 * n >= end || query + 16 * n + 16 <= begin))
            continue;
        flash_block<1> s, ds;
        flash_dots<W, 1>(s, of.k, queries, lanes, n);
        flash_dots<W, 1>(ds, of.v, queries + FLASH_BYTES<W>, lanes, n);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int column = 16 * n + 8 * (i / 4) + threadIdx.x % 4 * 2 + i % 2;
            const int at = query + column, j = key + i % 4 / 2 * 8;
            const bool seen = !MASKED || (at < p.length && j >= p.begin_of(at) && j < p.end_of(at));
            const float score = flash_score<CAPPED>(p, s[0][i / 4][i % 4]);
            const float weight = flash_exp2(fmaf(score, c, -FLASH_LOG2_E * lse[column]));
            const float x = weight * (ds[0][i / 4][i % 4] - mean[column]) * flash_slope<CAPPED>(p, score);
            s[0][i / 4][i % 4] = seen ? weight : 0.0f;
            ds[0][i / 4][i % 4] = seen ? x : 0.0f;
        }
        flash_add<W, 1>(dv, s, queries + FLASH_BYTES<W>, lanes, n);
        flash_add<W, 1>(dk, ds, queries, lanes, n);
    }
}

/* The walk over the queries that see keys first .. first + 64, of all heads of the group. */
template <int W, bool CAPPED>
static __device__ __forceinline__ void walk_queries(flash_sums<W, 1> &dk, flash_sums<W, 1> &dv, const key_rows<W> &of,
                                                    const gradients &a, char *shared, const flash_lanes<W> &lanes,
                                                    int64_t token, int group, int first)
{
    const flash_problem &p = a.p;
    const int key = first + (int)threadIdx.x / 32 * 16, last = min(key + 15, p.length - 1);
    const int begin = p.causal ? first : 0, reach = p.window > 0 ? p.window : p.length;
    const int end = min(p.length, first + FLASH_TILE - 1 + reach);
    const int warp_begin = p.causal ? key : 0, warp_end = key < p.length ? min(p.length, last + reach) : 0;
    const int all_begin = p.causal ? last : 0, all_end = p.window > 0 ? min(p.length, key + reach) : p.length;
    const int tiles = (end - begin + FLASH_TILE - 1) / FLASH_TILE, all = tiles * p.group;
    uint32_t stage = 0;
    load_queries<W>(shared, a, token, group * p.group, begin);
    for (int i = 0; i < all; i++, stage ^= 1) {
        const int query = begin + i % tiles * FLASH_TILE;
        copies_wait();
        __syncthreads(); /* the tile is here, and the other stage free */
        if (i + 1 < all)
            load_queries<W>(shared + (stage ^ 1) * QUERY_STAGE<W>, a, token, group * p.group + (i + 1) / tiles,
                            begin + (i + 1) % tiles * FLASH_TILE);
        if (query >= warp_end || query + FLASH_TILE <= warp_begin)
            continue;
        const char *here = shared + stage * QUERY_STAGE<W>;
        if (query >= all_begin && query + FLASH_TILE <= all_end && p.starts == NULL)
            add_queries<W, CAPPED, false>(dk, dv, of, here, lanes, p, key, query, warp_begin, warp_end);
        else
            add_queries<W, CAPPED, true>(dk, dv, of, here, lanes, p, key, query, warp_begin, warp_end);
    }
}

template <int W, bool CAPPED>
static __global__ void __launch_bounds__(FLASH_THREADS, W <= 64 ? 3 : 2) flash_dk_dv(const gradients a)
{
    extern __shared__ uint4 dynamic[];
    char *shared = (char *)dynamic;
    const flash_problem &p = a.p;
    const flash_lanes<W> lanes(threadIdx.x % 32);
    const unsigned tiles = (unsigned)p.tiles, sequence = blockIdx.x / tiles, n_group = (unsigned)(p.n_head / p.group);
    const int first = (int)(blockIdx.x % tiles) * FLASH_TILE, group = (int)(sequence % n_group);
    const int row = first + (int)threadIdx.x / 32 * 16, column = group * p.width;
    const int64_t token = (int64_t)(sequence / n_group) * p.length;
    const uint32_t warp_rows = threadIdx.x / 32 * (16 * FLASH_ROW<W>);
    key_rows<W> of;
    flash_sums<W, 1> dk, dv;
    flash_load<W, FLASH_TILE>(shared, a.k.at(token, column), a.k.ld, p, first);
    flash_load<W, FLASH_TILE>(shared + FLASH_BYTES<W>, a.v.at(token, column), a.v.ld, p, first);
    copies_commit();
    flash_clear<W, 1>(dk);
    flash_clear<W, 1>(dv);
    copies_wait();
    __syncthreads();
    flash_read<W, 1>(of.k, shared_address(shared) + warp_rows, lanes);
    flash_read<W, 1>(of.v, shared_address(shared) + (uint32_t)FLASH_BYTES<W> + warp_rows, lanes);
    __syncthreads(); /* the stages are free */
    walk_queries<W, CAPPED>(dk, dv, of, a, shared, lanes, token, group, first);
    __syncthreads();
    if (a.dk.data)
        write_gradient<W, 1>(a.dk, token, column, dk, p.scale, a.add_k, shared + warp_rows, p, row);
    if (a.dv.data)
        write_gradient<W, 1>(a.dv, token, column, dv, 1.0f, a.add_v, shared + warp_rows, p, row);
}

/* ---- launches ------------------------------------------------------------------------------------------------------ */

template <int W, bool CAPPED> static cab_status run(gradients a, const cab_node *node, cab_backend *backend)
{
    const cab_attention_shape *s = (const cab_attention_shape *)node->attributes;
    const int64_t batch = node->in[0]->shape[0];
    if (a.dq.data) {
        const size_t bytes = 2 * STAGE<W>;
        a.p = flash_problem_of(node, dq_shape<W>::ROWS, s->n_head);
        const unsigned blocks = (unsigned)(batch * a.p.n_head * a.p.tiles);
        CAB_TRY(cab_cuda_shared((const void *)flash_dq<W, CAPPED>, bytes, "attention: dq"));
        flash_dq<W, CAPPED><<<blocks, FLASH_THREADS, bytes, stream_of(backend)>>>(a);
        CAB_TRY(cab_cuda_launched("attention: dq"));
    }
    if (!a.dk.data && !a.dv.data)
        return CAB_OK;
    const size_t bytes = 2 * QUERY_STAGE<W>;
    a.p = flash_problem_of(node, FLASH_TILE, s->n_kv_head);
    const unsigned blocks = (unsigned)(batch * (a.p.n_head / a.p.group) * a.p.tiles);
    CAB_TRY(cab_cuda_shared((const void *)flash_dk_dv<W, CAPPED>, bytes, "attention: dk, dv"));
    flash_dk_dv<W, CAPPED><<<blocks, FLASH_THREADS, bytes, stream_of(backend)>>>(a);
    return cab_cuda_launched("attention: dk, dv");
}

cab_status cab_flash_backward(const cab_node *node, cab_backend *backend, const float *mean)
{
    const cab_attention_shape *s = (const cab_attention_shape *)node->attributes;
    cab_status status = CAB_OK;
    gradients a;
    a.q = rows<const bf16>(node->in[0]);
    a.k = rows<const bf16>(node->in[1]);
    a.v = rows<const bf16>(node->in[2]);
    a.dy = rows<const bf16>(node->gout[0]);
    a.dq = rows<bf16>(node->gin[0]);
    a.dk = rows<bf16>(node->gin[1]);
    a.dv = rows<bf16>(node->gin[2]);
    a.lse = (const float *)node->out[1]->data;
    a.mean = mean;
    a.add_q = node->accumulate & 1u;
    a.add_k = node->accumulate >> 1 & 1u;
    a.add_v = node->accumulate >> 2 & 1u;
    FLASH_BY_WIDTH(s->head_dim,
                   status = (s->cap > 0.0f ? run<W, true>(a, node, backend) : run<W, false>(a, node, backend)));
    return status;
}
