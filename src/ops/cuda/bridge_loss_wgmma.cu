/* bridge_loss_wgmma.cu - bridge_loss.cu for Hopper, whose tensor cores multiply 64 rows at a time out of shared
 * memory.
 *
 * Layout: a block of three teams of four warps walks over tiles of 192 tokens; W2 stays in shared memory. A team has
 * 64 of a tile's tokens. It also has 64 outputs of dW2, in registers from the first tile to the last. Teams wait for
 * one another only where dW2 and dW1 need all tokens of the tile.
 *
 * Arithmetic per tile, bf16 operands, fp32 sums:
 *
 *   the target is copied to where dp will be
 *   h = f(x W1^T + b1)                                           h, and f' to where dh will be
 *   of each 64 outputs:  e = h W2^T + b2 - psi(target)           dp = factor e replaces the target
 *   dh = dp W2, then  dW2 += dp^T h                              dW2's product runs until the tile ends
 *   db2 += dp^T 1   dh f'                                        replaces f'
 *   dW1 += (dh f')^T x   db1 += (dh f')^T 1   dx = (dh f') W1    by mma.sync, as h: these products are small
 *
 * e, dh and dW2 keep the tensor cores busy; the activations and the errors cost other units about as much. */
#include "ops/cuda/bridge_loss.cuh"
#include "ops/cuda/wgmma.cuh"

namespace bridge_wgmma
{
enum { TEAMS = 3, THREADS = TEAMS * WARPGROUP, TOKENS = BRIDGE_WGMMA_TOKENS };

/* Nearly all of the 227 KB that a block can have. */
template <int OUTS> struct memory {
    char w2[OUTS][HALVES][TILE_BYTES]; /* (out, hidden) */
    char h[TEAMS][HALVES][TILE_BYTES];
    char dh[TEAMS][HALVES][TILE_BYTES]; /* f' first */
    char dp[TEAMS][OUTS][TILE_BYTES];   /* the target first */
    char x[TEAMS][TILE_SIDE * IN_ROW_BYTES];
    char w1[HIDDEN * IN_ROW_BYTES];
    bf16 b1[HIDDEN], b2[OUTS * TILE_SIDE];
    align_end<THREADS> end;
};
static_assert(sizeof(memory<3>) <= 227 << 10, "more shared memory than a block can have");

/* Sums of the parameters' gradients that a thread holds. */
struct held {
    float w2[16][4];       /* outputs 16 group .. of 64, all hidden columns */
    float b2[4];           /* the same outputs, in columns that are all alike */
    float w1[2][4], b1[4]; /* hidden rows 16 warp .., of warps that there are any for */
};

/* Begins to copy the targets of the warp's 16 tokens, `first` being its team's: 8 lanes to 64 columns. */
template <int OUTS>
__device__ __forceinline__ void copy_targets(const bridge &b, memory<OUTS> &m, const place &p, int first)
{
    const int64_t row = target_row_of(b, first + 16 * p.group + p.lane % 16);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int token = 4 * i + p.lane / 8, piece = p.lane % 8;
        const int64_t from = __shfl_sync(0xffffffffu, row, token);
        const bf16 *target = b.target.at(from >= 0 ? from : 0, b.first + 8 * piece);
#pragma unroll
        for (int out = 0; out < OUTS; out++)
            copy_16(shared_address(m.dp[p.team][out]) + tile_at(16 * p.group + token, piece, 0),
                    target + out * TILE_SIDE, from >= 0);
    }
    copies_commit();
}

/* Has them brought into the second-level cache before: until a tile ends there is no place for the next one's. */
template <int OUTS> __device__ __forceinline__ void prefetch_targets(const bridge &b, const place &p, int first)
{
    const int64_t row = target_row_of(b, first + 16 * p.group + p.lane / 2);
    if (row < 0)
        return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int line = TILE_SIDE * (p.lane % 2 + 2 * i), last = OUTS * TILE_SIDE - 1;
        prefetch_line(b.target.at(row, b.first + (line < last ? line : last)));
    }
}

/* Byte of columns 8 n + 2 q of the thread's first token, in tiles of 64 columns after one another; the second lies 8
 * rows further. */
__device__ __forceinline__ uint32_t pair_at(const place &p, int n)
{
    const uint32_t first = (uint32_t)((16 * p.group + p.g) * TILE_ROW_BYTES + (p.g << 4) + p.q * 4);
    return (first ^ (uint32_t)(n % 8 << 4)) + (uint32_t)(n / 8 * TILE_BYTES);
}

/* h = f(x W1^T + b1) and f' of 16 tokens; two products at a time, as their latencies are long. */
template <cab_activation_kind KIND, int OUTS>
__device__ __forceinline__ void hidden_rows(memory<OUTS> &m, const place &p, const uint32_t (&x)[4])
{
#pragma unroll 1
    for (int n = 0; n < 8 * HALVES; n += 2) {
        float sums[2][4];
#pragma unroll
        for (int j = 0; j < 2; j++)
            hidden_sums(sums[j], p, x, m.w1, m.b1, (n + j) * 8);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            uint32_t h[2], slope[2];
            activate_pairs<KIND>(sums[j], h, slope);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const uint32_t at = pair_at(p, n + j) + (uint32_t)(i * EIGHT_ROWS);
                *(uint32_t *)(m.h[p.team][0] + at) = h[i];
                *(uint32_t *)(m.dh[p.team][0] + at) = slope[i];
            }
        }
    }
}

template <int OUTS>
__device__ __forceinline__ void hidden_tile(const bridge &b, memory<OUTS> &m, const place &p, const uint32_t (&x)[4])
{
    keep_inputs(m.x[p.team], p, x);
    switch (b.activation) {
    case CAB_GELU_TANH:
        hidden_rows<CAB_GELU_TANH>(m, p, x);
        break;
    case CAB_GELU_ERF:
        hidden_rows<CAB_GELU_ERF>(m, p, x);
        break;
    case CAB_SILU:
        hidden_rows<CAB_SILU>(m, p, x);
        break;
    case CAB_RELU:
        hidden_rows<CAB_RELU>(m, p, x);
        break;
    default:
        hidden_rows<CAB_TANH>(m, p, x);
        break;
    }
}

/* Begins h W2^T + b2 of the team's tokens and the outputs 64 out .. */
template <int OUTS>
__device__ __forceinline__ void begin_prediction(memory<OUTS> &m, const place &p, int out, tile_sums &sums)
{
    const uint64_t h = operand_at(shared_address(m.h[p.team]));
    const uint64_t w2 = operand_at(shared_address(m.w2[out]));
#pragma unroll
    for (int j = 0; j < 8; j++)
        begin_sums(sums[j], m.b2, out * TILE_SIDE + 8 * j + 2 * p.q);
    keep(sums);
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        const uint32_t bytes = k / 4 * TILE_BYTES + k % 4 * COLUMNS_16;
        wgmma<false, false>(sums, further(h, bytes), further(w2, bytes), true);
    }
    wgmma_commit();
}

/* e of 16 tokens and the outputs 64 out ..: their squares, and dp in the target's place. */
template <cab_feature_map MAP, int OUTS>
__device__ __forceinline__ float errors(const bridge &b, memory<OUTS> &m, const place &p, const tokens &t, int out,
                                        const tile_sums &sums, float factor)
{
    char *const tile = m.dp[p.team][out];
    float squares[2] = {};
    uint32_t target[8][2];
#pragma unroll
    for (int j = 0; j < 16; j++)
        target[j / 2][j % 2] = *(const uint32_t *)(tile + pair_at(p, j / 2) + j % 2 * EIGHT_ROWS);
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t dp;
            squares[i] +=
                error_pair<MAP>(b, t, i, out * TILE_SIDE + 8 * j + 2 * p.q, sums[j] + 2 * i, target[j][i], factor, dp);
            *(uint32_t *)(tile + pair_at(p, j) + i * EIGHT_ROWS) = dp;
        }
    return squares_of(t, squares);
}

/* All outputs of 16 tokens. */
template <cab_feature_map MAP, int OUTS>
__device__ __forceinline__ float compare(const bridge &b, memory<OUTS> &m, const place &p, const tokens &t,
                                         float factor)
{
    float squares = 0.0f;
#pragma unroll 1
    for (int out = 0; out < OUTS; out++) {
        tile_sums sums;
        begin_prediction(m, p, out, sums);
        wgmma_wait<0>();
        keep(sums);
        squares += errors<MAP>(b, m, p, t, out, sums, factor);
    }
    return squares;
}

template <int OUTS>
__device__ __forceinline__ float compare_tile(const bridge &b, memory<OUTS> &m, const place &p, const tokens &t,
                                              float factor)
{
    switch (b.map) {
    case CAB_MAP_NONE:
        return compare<CAB_MAP_NONE>(b, m, p, t, factor);
    case CAB_MAP_RELU:
        return compare<CAB_MAP_RELU>(b, m, p, t, factor);
    case CAB_MAP_EXP:
        return compare<CAB_MAP_EXP>(b, m, p, t, factor);
    case CAB_MAP_SOFTMAX_TOKENS:
        return compare<CAB_MAP_SOFTMAX_TOKENS>(b, m, p, t, factor);
    default:
        return compare<CAB_MAP_SOFTMAX_FEATURES>(b, m, p, t, factor);
    }
}

/* Begins dh = dp W2 of the team's tokens. */
template <int OUTS>
__device__ __forceinline__ void begin_hidden_gradient(memory<OUTS> &m, const place &p, float (&dh)[16][4])
{
    const uint64_t dp = operand_at(shared_address(m.dp[p.team]));
    const uint64_t w2 = operand_at(shared_address(m.w2), TILE_BYTES);
    keep(dh);
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < 4 * OUTS; k++)
        wgmma<false, true>(dh, further(dp, k / 4 * TILE_BYTES + k % 4 * COLUMNS_16),
                           further(w2, k / 4 * HALVES * TILE_BYTES + k % 4 * ROWS_16), k > 0);
    wgmma_commit();
}

/* Whether the team has outputs in dW2: with 64 or 128 of them not all have. */
template <int OUTS> __device__ __forceinline__ bool has_outputs(const place &p)
{
    return OUTS == TEAMS || p.team < OUTS;
}

/* Begins dW2 += dp^T h of the team's outputs, over all tokens. */
template <int OUTS> __device__ __forceinline__ void begin_output_layer(memory<OUTS> &m, const place &p, held &sums)
{
    const uint64_t dp = operand_at(shared_address(m.dp[0][p.team]));
    const uint64_t h = operand_at(shared_address(m.h), TILE_BYTES);
    keep(sums.w2);
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < 4 * TEAMS; k++)
        wgmma<true, true>(sums.w2, further(dp, k / 4 * OUTS * TILE_BYTES + k % 4 * ROWS_16),
                          further(h, k / 4 * HALVES * TILE_BYTES + k % 4 * ROWS_16), true);
    wgmma_commit();
}

/* db2 of the team's outputs. */
template <int OUTS> __device__ __forceinline__ void output_bias(memory<OUTS> &m, const place &p, held &sums)
{
#pragma unroll 1
    for (int team = 0; team < TEAMS; team++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t a[4];
            load_left_transposed(a, shared_address(m.dp[team][p.team]), p.lanes, p.group, k);
            mma(sums.b2, a, ONES, ONES);
        }
}

/* dh f' in the place of f'. */
template <int OUTS>
__device__ __forceinline__ void times_slope(memory<OUTS> &m, const place &p, const float (&dh)[16][4])
{
    char *const tile = m.dh[p.team][0];
#pragma unroll
    for (int n = 0; n < 16; n += 4) {
        uint32_t slope[4][2];
#pragma unroll
        for (int j = 0; j < 8; j++)
            slope[j / 2][j % 2] = *(const uint32_t *)(tile + pair_at(p, n + j / 2) + j % 2 * EIGHT_ROWS);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float *two = dh[n + j / 2] + j % 2 * 2;
            *(uint32_t *)(tile + pair_at(p, n + j / 2) + j % 2 * EIGHT_ROWS) =
                pack(two[0] * low_half(slope[j / 2][j % 2]), two[1] * high_half(slope[j / 2][j % 2]));
        }
    }
}

/* Everything that only gradients need, of one tile. */
template <int OUTS>
__device__ __forceinline__ void gradients(const bridge &b, memory<OUTS> &m, const place &p, const tokens &t, held &sums)
{
    float dh[16][4];
    publish();
    team_barrier(p.team);
    begin_hidden_gradient(m, p, dh);
    __syncthreads();
    if (has_outputs<OUTS>(p)) {
        begin_output_layer(m, p, sums);
        output_bias(m, p, sums);
    }
    if (has_outputs<OUTS>(p))
        wgmma_wait<1>();
    else
        wgmma_wait<0>();
    keep(dh);
    times_slope(m, p, dh);
    __syncthreads();
    if (p.team < HALVES)
        for (int team = 0; team < TEAMS; team++)
            gradients_of_input_layer(sums.w1, sums.b1, m.dh[team][p.team], m.x[team], p);
    if (b.dx.data != NULL)
        input_gradient<IN / 8>(b, m.dh[p.team], m.w1, p, t, 0);
    wgmma_wait<0>();
    keep(sums.w2);
}

/* The thread's sums as columns of the block's part. */
template <int OUTS> __device__ __forceinline__ void leave(const bridge &b, const place &p, const held &sums)
{
    typedef part<OUTS> at;
    float *to = b.parts + blockIdx.x * at::COLUMNS;
    if (has_outputs<OUTS>(p)) {
        const int row = p.team * TILE_SIDE + 16 * p.group;
        leave_w2(to + at::W2, p, row, 0, sums.w2);
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (p.q == 0)
                to[at::B2 + row + p.g + 8 * i] = sums.b2[2 * i];
    }
    if (p.team < HALVES)
        leave_w1(to + at::W1, to + at::B1, p, sums.w1, sums.b1);
}

template <int OUTS> static __global__ void __launch_bounds__(THREADS) bridge_tiles(const __grid_constant__ bridge b)
{
#if CAB_CUDA_WGMMA
    extern __shared__ __align__(1024) char dynamic[];
    memory<OUTS> &m = *(memory<OUTS> *)dynamic;
    const place p = here();
    const int stride = gridDim.x * TOKENS;
    int first = blockIdx.x * TOKENS + p.team * TILE_SIDE; /* the team's */
    held sums = {};
    float squares = 0.0f;
    uint32_t x[4];
    load_input_layer<OUTS, THREADS>(b, m.w1, m.b1, m.b2);
    load_inputs(b, p, tokens_of(b, first, p), x);
    const float factor = b.term.factor();
    copies_wait();
    __syncthreads();
    load_output_layer<OUTS, THREADS>(b, m.w2);
#pragma unroll 1
    for (int done = blockIdx.x * TOKENS; done < b.n_row; done += stride) {
        const tokens t = tokens_of(b, first, p);
        copy_targets(b, m, p, first);
        hidden_tile(b, m, p, x);
        copies_wait();
        publish();
        if (done == blockIdx.x * TOKENS)
            __syncthreads(); /* W2 is of all teams */
        else
            team_barrier(p.team);
        first += stride;
        prefetch_targets<OUTS>(b, p, first);
        squares += compare_tile(b, m, p, t, factor);
        load_inputs(b, p, tokens_of(b, first, p), x);
        if (b.parts != NULL)
            gradients(b, m, p, t, sums);
        __syncthreads();
    }
    if (b.parts != NULL)
        leave<OUTS>(b, p, sums);
    b.term.finish(squares, b.last, m.end);
#endif
}
} // namespace bridge_wgmma

/* ---- the host's side ------------------------------------------------------------------------------------------- */

using namespace bridge_wgmma;

size_t bridge_wgmma_bytes(int outs)
{
    const size_t bytes[] = {sizeof(memory<1>), sizeof(memory<2>), sizeof(memory<3>)};
    return bytes[outs - 1];
}

template <int OUTS> static cab_status launch(const bridge &b, int64_t blocks, cab_backend *backend)
{
    CAB_TRY(cab_cuda_shared((const void *)bridge_tiles<OUTS>, sizeof(memory<OUTS>), "bridge_loss"));
    bridge_tiles<OUTS><<<(unsigned)blocks, THREADS, sizeof(memory<OUTS>), stream_of(backend)>>>(b);
    return cab_cuda_launched("bridge_loss");
}

cab_status bridge_wgmma_launch(const bridge &b, int outs, int64_t blocks, cab_backend *backend)
{
    return outs == 1   ? launch<1>(b, blocks, backend)
           : outs == 2 ? launch<2>(b, blocks, backend)
                       : launch<3>(b, blocks, backend);
}
