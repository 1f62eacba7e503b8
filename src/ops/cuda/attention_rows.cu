/* attention_rows.cu - of each row of an attention matrix the logarithm of its sum, and of the matrix 1 / ||A||^2.
 *
 * Layout: a block has 64 rows of one head and walks over the keys in tiles of 64; mixer_matrix.cuh has the products. The four lanes of
 * a row keep its maximum and sums and join them at the end. The rows' squares go to scratch; a block per head adds them.
 *
 * Arithmetic: with m the row's maximum, l = sum exp(s - m) and l2 = sum exp(2 (s - m)) over what is compared,
 *
 *   lse = m + log l     ||A||^2 = sum over rows of l2 / l^2
 *
 * Cost: one product of attention's; no matrix is written. */
#include "ops/cuda/mixer_matrix.cuh"

/* A row's sums so far, relative to its maximum. */
struct row_sums {
    float most, sum, squares;

    __device__ __forceinline__ void grow(float larger)
    {
        const float most_now = fmaxf(most, larger);
        if (most_now == -INFINITY)
            return;
        const float shrink = expf(most - most_now);
        sum *= shrink;
        squares *= shrink * shrink;
        most = most_now;
    }
    __device__ __forceinline__ void add(float score, bool compared)
    {
        const float p = expf(score - most);
        sum += p;
        squares += compared ? p * p : 0.0f;
    }
    /* With what another lane has of the row. */
    __device__ __forceinline__ void join(int lanes)
    {
        grow(__shfl_xor_sync(0xffffffffu, most, lanes));
        sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
        squares += __shfl_xor_sync(0xffffffffu, squares, lanes);
    }
};

/* Scores of the warp's rows against 64 keys from `first` on join the rows' sums. */
template <typename T>
static __device__ __forceinline__ void take_scores(row_sums (&rows)[2], const tile_sums &s, const attention_of<T> &a,
                                                   int64_t b, int64_t i, int64_t first, const mixer_place &p)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t row = i + p.row + 8 * half, from = a.first_of(b, row);
        const int64_t end = a.causal ? row + 1 : a.where.length;
        float most = -INFINITY;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const int64_t j = first + 8 * n + 2 * p.q + k;
                if (j >= from && j < end && j < a.where.length)
                    most = fmaxf(most, a.score(s[n][2 * half + k]));
            }
        rows[half].grow(most);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const int64_t j = first + 8 * n + 2 * p.q + k;
                if (j >= from && j < end && j < a.where.length)
                    rows[half].add(a.score(s[n][2 * half + k]), !a.where.mapped || j == 0 || j > a.where.skip);
            }
    }
}

template <typename T>
static __global__ void __launch_bounds__(MIXER_THREADS) attention_rows(attention_of<T> a, float *lse, float *squares)
{
    __shared__ __align__(128) char q[MIXER_TILE_BYTES<T>], k[MIXER_TILE_BYTES<T>];
    const mixer_place p = mixer_here();
    const int64_t b = blockIdx.x / (unsigned)a.n_head, first = blockIdx.y * (int64_t)TILE_SIDE;
    const int head = (int)(blockIdx.x % (unsigned)a.n_head);
    const int64_t length = a.where.length, end = a.causal ? min(first + TILE_SIDE, length) : length;
    const token_rows plain = {length, false, 0, 0};
    row_sums sums[2] = {{-INFINITY, 0.0f, 0.0f}, {-INFINITY, 0.0f, 0.0f}};
    for (int64_t j = 0; j < end; j += TILE_SIDE) {
        tile_sums s;
        clear(s);
        for (int c = 0; c < a.P; c += TILE_SIDE) {
            __syncthreads();
            load_tokens(q, a.q, a.where, b, first, a.length, (int64_t)head * a.P + c, a.P - c, a.wide);
            load_tokens(k, a.k, plain, b, j, length, (int64_t)(head / a.share) * a.P + c, a.P - c, a.wide);
            __syncthreads();
            tile_dots(s, q, k, p, (const T *)NULL);
        }
        take_scores(sums, s, a, b, first, j, p);
    }
    for (int half = 0; half < 2; half++) {
        const int64_t row = first + p.row + 8 * half;
        sums[half].join(1);
        sums[half].join(2);
        if (p.q == 0 && row < a.length) {
            const int64_t at = blockIdx.x * a.length + row;
            lse[at] = sums[half].most + logf(sums[half].sum);
            squares[at] = sums[half].squares / (sums[half].sum * sums[half].sum);
        }
    }
}

static __global__ void __launch_bounds__(MIXER_THREADS) invert_squares(const float *squares, int64_t length, float *weight)
{
    __shared__ float shared[MIXER_WARPS];
    float sum = 0.0f;
    for (int64_t i = threadIdx.x; i < length; i += MIXER_THREADS)
        sum += squares[blockIdx.x * length + i];
    sum = block_sum<MIXER_THREADS>(sum, shared);
    if (threadIdx.x == 0)
        weight[blockIdx.x] = 1.0f / sum;
}

extern "C" size_t cab_attention_rows_scratch_cuda(const cab_node *node, const cab_backend *)
{
    return (size_t)cab_elements(node->out[0]) * sizeof(float);
}

extern "C" cab_status cab_attention_rows_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_attention_rows_attributes *attributes = (const cab_attention_rows_attributes *)node->attributes;
    const cab_tensor *q = node->in[CAB_ROWS_Q], *lse = node->out[0];
    const unsigned heads = (unsigned)(lse->shape[0] * lse->shape[1]);
    const dim3 grid(heads, (unsigned)ceil_div(lse->shape[2], TILE_SIDE));
    float *squares = (float *)node->scratch;
    BY_DTYPE(q->dtype, (attention_rows<T><<<grid, MIXER_THREADS, 0, stream_of(backend)>>>(
                           attention_in<T>(q, node->in[CAB_ROWS_K], node->in[CAB_ROWS_STARTS], attributes),
                           (float *)lse->data, squares)));
    CAB_TRY(cab_cuda_launched("attention_rows"));
    invert_squares<<<heads, MIXER_THREADS, 0, stream_of(backend)>>>(squares, lse->shape[2], (float *)node->out[1]->data);
    return cab_cuda_launched("attention_rows");
}
