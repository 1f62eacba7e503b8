/* flash.cu - attention of bf16 on tensor cores, forward, for nodes that cuDNN does not take.
 *
 * Layout: a block of four warps holds ROWS queries of one head, 16 M to a warp, in registers, and walks over tiles of
 * 64 keys in shared memory. Blocks of late queries, which see most keys, begin first. A warp skips tiles, and in a
 * tile blocks of 16 keys, that none of its queries sees; a tile that all of its queries see needs no mask.
 *
 * Arithmetic: of a row a warp keeps the largest score m so far, the sum of p, and y, all fp32; c = scale log2 e:
 *
 *   s = Q K^T        p = 2^(c (s - m))        y = y 2^(c (m_before - m)) + p V        lse = scale m + log sum p
 *
 * With a soft cap s is cap tanh(scale Q K^T / cap), and scale is 1 from there on.
 *
 * Scores stay in registers: the sums of two products of 8 keys are the left operand of the next product (mma.cuh). M =
 * 2 where registers allow it. Then every fragment of K and V that is read from shared memory serves two products; with
 * M = 1 shared memory (128 bytes a clock) would feed fewer operations than mma.sync can do.
 *
 * Operations per pair of query and key: 4 P and one exponential. Bytes: q, y and lse once; k and v once per block
 * that sees them, from the second-level cache. Operations are the limit. */
#include "ops/cuda/flash.cuh"

template <int W> struct shape {
    static constexpr int M = W <= 64 ? 2 : 1; /* times 16 queries of a warp */
    static constexpr int WARP_ROWS = 16 * M;
    static constexpr int ROWS = FLASH_THREADS / 32 * WARP_ROWS;
    /* Blocks on a multiprocessor that registers are to allow. */
    static constexpr int RESIDENT = W <= 64 || W > 96 ? 2 : 3;
    static constexpr size_t STAGE = 2 * FLASH_BYTES<W>; /* a tile of keys and one of values */
    static_assert(ROWS * FLASH_ROW<W> <= STAGE, "queries pass through a stage");
};

struct arguments {
    flash_problem p;
    rows_of<const bf16> q, k, v;
    rows_of<bf16> y;
    float *lse;
};

/* A warp's rows g and g + 8 of each 16: what has been summed of them. largest is of scores before they are scaled, -inf
 * where nothing has been seen; sum is the lane's part. */
template <int W> struct state {
    flash_sums<W, shape<W>::M> y;
    float largest[shape<W>::M][2], sum[shape<W>::M][2];
};

/* A tile of scores. */
template <int W> using scores = flash_block<shape<W>::M>[FLASH_BLOCKS];

template <int W> static __device__ __forceinline__ void cap(scores<W> &s, const flash_problem &p)
{
#pragma unroll
    for (int n = 0; n < FLASH_BLOCKS; n++)
#pragma unroll
        for (int m = 0; m < shape<W>::M; m++)
#pragma unroll
            for (int i = 0; i < 8; i++)
                s[n][m][i / 4][i % 4] = flash_score<true>(p, s[n][m][i / 4][i % 4]);
}

/* -inf for keys that their query does not see; row: the lane's first query, key: its first key. */
template <int W> static __device__ __forceinline__ void mask(scores<W> &s, const flash_problem &p, int row, int key)
{
#pragma unroll
    for (int m = 0; m < shape<W>::M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = row + 16 * m + 8 * half, begin = p.begin_of(i), end = p.end_of(i);
#pragma unroll
            for (int n = 0; n < 2 * FLASH_BLOCKS; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    const int j = key + 8 * n + c;
                    if (j < begin || j >= end)
                        s[n / 2][m][n % 2][2 * half + c] = -INFINITY;
                }
        }
}

__device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* Scores to probabilities relative to the largest so far, which sums and outputs follow. A NaN is no maximum, but makes its
 * row's sum NaN. */
template <int W> static __device__ __forceinline__ void online_softmax(state<W> &to, scores<W> &s, float c)
{
#pragma unroll
    for (int m = 0; m < shape<W>::M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = to.largest[m][half], part = 0.0f;
#pragma unroll
            for (int n = 0; n < 2 * FLASH_BLOCKS; n++)
                most = fmaxf(most, fmaxf(s[n / 2][m][n % 2][2 * half], s[n / 2][m][n % 2][2 * half + 1]));
            most = quad_max(most);
            const float base = most == -INFINITY ? 0.0f : most * c;
            const float shrink = flash_exp2(fmaf(to.largest[m][half], c, -base));
#pragma unroll
            for (int n = 0; n < 2 * FLASH_BLOCKS; n++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    float &x = s[n / 2][m][n % 2][i];
                    x = flash_exp2(fmaf(x, c, -base));
                    part += x;
                }
            to.sum[m][half] = to.sum[m][half] * shrink + part;
            to.largest[m][half] = most;
#pragma unroll
            for (int n = 0; n < W / 8; n++) {
                to.y[m][n][2 * half] *= shrink;
                to.y[m][n][2 * half + 1] *= shrink;
            }
        }
}

/* One tile of keys and values, from token `key` on, for the warp's queries from token `row` on. MASKED: they do not all see
 * all of it; n_block: so many blocks of 16 keys are seen at all. */
template <int W, bool CAPPED, bool MASKED>
static __device__ __forceinline__ void attend(state<W> &to, const flash_rows<W, shape<W>::M> &q, uint32_t stage,
                                              const flash_lanes<W> &lanes, const flash_problem &p, float c, int row,
                                              int key, int n_block)
{
    constexpr int M = shape<W>::M;
    const int lane = threadIdx.x % 32;
    scores<W> s;
#pragma unroll
    for (int n = 0; n < FLASH_BLOCKS; n++)
        if (!MASKED || n < n_block)
            flash_dots<W, M>(s[n], q, stage, lanes, n);
    if (CAPPED)
        cap<W>(s, p);
    if (MASKED)
        mask<W>(s, p, row + lane / 4, key + lane % 4 * 2);
    online_softmax<W>(to, s, c);
#pragma unroll
    for (int n = 0; n < FLASH_BLOCKS; n++)
        if (!MASKED || n < n_block)
            flash_add<W, M>(to.y, s[n], stage + FLASH_BYTES<W>, lanes, n);
}

/* Divides by the sums and writes the warp's rows, through its rows of shared memory. */
template <int W, bool CAPPED>
static __device__ __forceinline__ void finish(state<W> &of, const arguments &a, char *tile, bf16 *y, float *lse,
                                              int row, int lane)
{
    constexpr int WARP_ROWS = shape<W>::WARP_ROWS;
#pragma unroll
    for (int m = 0; m < shape<W>::M; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = row + 16 * m + 8 * half + lane / 4;
            const float sum = quad_sum(of.sum[m][half]), inverse = 1.0f / sum;
            if (lane % 4 == 0 && i < a.p.length)
                lse[i] = of.largest[m][half] * flash_unit<CAPPED>(a.p) + logf(sum);
#pragma unroll
            for (int n = 0; n < W / 8; n++) {
                of.y[m][n][2 * half] *= inverse;
                of.y[m][n][2 * half + 1] *= inverse;
            }
        }
    }
    flash_put<W, shape<W>::M>(tile, of.y, lane);
    __syncwarp();
    flash_store<W, WARP_ROWS>(y, a.y.ld, tile, a.p, row, lane);
}

/* The walk over keys begin .. end of the block, with queries first .. already on their way to stage 1 and the first tile to
 * stage 0. k and v: the head's columns in the sequence's first token. */
template <int W, bool CAPPED>
static __device__ __forceinline__ void walk(state<W> &to, const arguments &a, char *shared, const bf16 *k,
                                            const bf16 *v, int row, int begin, int end)
{
    constexpr int WARP_ROWS = shape<W>::WARP_ROWS;
    const flash_problem &p = a.p;
    const flash_lanes<W> lanes(threadIdx.x % 32);
    const float c = flash_unit<CAPPED>(p) * FLASH_LOG2_E;
    const int warp_begin = p.begin_of(row), warp_end = row < p.length ? p.end_of(row + WARP_ROWS - 1) : 0;
    const int all_begin = p.begin_of(row + WARP_ROWS - 1), all_end = p.end_of(row); /* keys that all rows see */
    const uint32_t stages = shared_address(shared);
    flash_rows<W, shape<W>::M> q;
    copies_wait();
    __syncthreads();
    flash_read<W, shape<W>::M>(q, stages + (uint32_t)shape<W>::STAGE + threadIdx.x / 32 * (WARP_ROWS * FLASH_ROW<W>),
                               lanes);
    uint32_t stage = 0;
    for (int key = begin; key < end; key += FLASH_TILE, stage ^= 1) {
        copies_wait();
        __syncthreads(); /* the tile is here, and the other stage free */
        if (key + FLASH_TILE < end) {
            char *next = shared + (stage ^ 1) * shape<W>::STAGE;
            flash_load<W, FLASH_TILE>(next, k, a.k.ld, p, key + FLASH_TILE);
            flash_load<W, FLASH_TILE>(next + FLASH_BYTES<W>, v, a.v.ld, p, key + FLASH_TILE);
            copies_commit();
        }
        if (key >= warp_end || key + FLASH_TILE <= warp_begin)
            continue;
        const uint32_t here = stages + stage * (uint32_t)shape<W>::STAGE;
        if (key >= all_begin && key + FLASH_TILE <= all_end)
            attend<W, CAPPED, false>(to, q, here, lanes, p, c, row, key, FLASH_BLOCKS);
        else
            attend<W, CAPPED, true>(to, q, here, lanes, p, c, row, key, (warp_end - key + 15) / 16);
    }
}

template <int W, bool CAPPED>
static __global__ void __launch_bounds__(FLASH_THREADS, shape<W>::RESIDENT) flash_forward(const arguments a)
{
    constexpr int ROWS = shape<W>::ROWS;
    extern __shared__ uint4 dynamic[];
    char *shared = (char *)dynamic;
    const flash_problem &p = a.p;
    const unsigned tiles = (unsigned)p.tiles, sequence = blockIdx.x / tiles;
    const int first = (int)(tiles - 1 - blockIdx.x % tiles) * ROWS, warp = threadIdx.x / 32;
    const int head = (int)(sequence % (unsigned)p.n_head), row = first + warp * shape<W>::WARP_ROWS;
    const int64_t token = (int64_t)(sequence / (unsigned)p.n_head) * p.length;
    const bf16 *k = a.k.at(token, head / p.group * p.width), *v = a.v.at(token, head / p.group * p.width);
    const int begin = p.begin_of(first) / FLASH_TILE * FLASH_TILE, end = p.end_of(first + ROWS - 1);
    state<W> sums;
    flash_clear<W, shape<W>::M>(sums.y);
#pragma unroll
    for (int m = 0; m < shape<W>::M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            sums.largest[m][half] = -INFINITY;
            sums.sum[m][half] = 0.0f;
        }
    flash_load<W, ROWS>(shared + shape<W>::STAGE, a.q.at(token, head * p.width), a.q.ld, p, first);
    flash_load<W, FLASH_TILE>(shared, k, a.k.ld, p, begin);
    flash_load<W, FLASH_TILE>(shared + FLASH_BYTES<W>, v, a.v.ld, p, begin);
    copies_commit();
    walk<W, CAPPED>(sums, a, shared, k, v, row, begin, end);
    __syncthreads(); /* the stages are free */
    finish<W, CAPPED>(sums, a, shared + warp * shape<W>::WARP_ROWS * FLASH_ROW<W>, a.y.at(token, head * p.width),
              a.lse + (int64_t)sequence * p.length, row, (int)threadIdx.x % 32);
}

/* ---- launches ------------------------------------------------------------------------------------------------------ */

template <int W, bool CAPPED> static cab_status run(const cab_node *node, cab_backend *backend)
{
    const size_t bytes = 2 * shape<W>::STAGE;
    arguments a;
    a.p = flash_problem_of(node, shape<W>::ROWS, ((const cab_attention_shape *)node->attributes)->n_head);
    a.q = rows<const bf16>(node->in[0]);
    a.k = rows<const bf16>(node->in[1]);
    a.v = rows<const bf16>(node->in[2]);
    a.y = rows<bf16>(node->out[0]);
    a.lse = (float *)node->out[1]->data;
    const unsigned blocks = (unsigned)(node->in[0]->shape[0] * a.p.n_head * a.p.tiles);
    CAB_TRY(cab_cuda_shared((const void *)flash_forward<W, CAPPED>, bytes, "attention"));
    flash_forward<W, CAPPED><<<blocks, FLASH_THREADS, bytes, stream_of(backend)>>>(a);
    return cab_cuda_launched("attention");
}

bool cab_flash_fits(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_attention_shape *s = (const cab_attention_shape *)node->attributes;
    return node->in[0]->dtype == CAB_BF16 && s->head_dim <= FLASH_HEAD_MAX && s->scale > 0.0f &&
           node->in[0]->shape[1] < 1 << 30;
}

cab_status cab_flash_forward(const cab_node *node, cab_backend *backend)
{
    const cab_attention_shape *s = (const cab_attention_shape *)node->attributes;
    cab_status status = CAB_OK;
    FLASH_BY_WIDTH(s->head_dim,
                   status = (s->cap > 0.0f ? run<W, true>(node, backend) : run<W, false>(node, backend)));
    return status;
}
