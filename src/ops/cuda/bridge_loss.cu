/* bridge_loss.cu - a bridge (an MLP of one hidden layer), its alignment loss and all gradients in one pass over the
 * tokens. src/ops/bridge_loss.c has the formula. On Hopper, bridge_loss_wgmma.cu is launched instead.
 *
 * Layout: a block of 8 warps walks over tiles of 64 tokens. W2 stays in shared memory, the gradients of W1 and W2 in
 * registers. Warp w has rows 16 (w % 4) .. + 15 of the tile, and of the columns the half w / 4. A launch has at most
 * 192 outputs, because registers hold no more; a wider bridge takes several launches. Each launch computes its part of
 * dh, and everything that follows from dh is linear in dh, so the parts may be added.
 *
 * Arithmetic per tile, bf16 operands, fp32 sums; psi is the feature map of the target, f the activation:
 *
 *   h = f(x W1^T + b1)                                               h and f' into shared memory
 *   of each 64 outputs:  e = h W2^T + b2 - psi(target)               dp = factor e into shared memory
 *   of each 64 outputs:  dW2 += dp^T h   db2 += dp^T 1   dh += dp W2
 *   dh f'                                                            into shared memory
 *   dW1 += (dh f')^T x   db1 += (dh f')^T 1   dx = (dh f') W1
 *
 * At the end a block writes its part of the parameters' gradients to scratch, and partials.cuh adds the parts. Where
 * psi is a softmax, another node has computed the maxima and sums.
 *
 * A block has few tiles, so its instructions come from the second-level cache about as often as they run. Therefore
 * loops are rolled wherever registers allow it, and f' waits in shared memory.
 *
 * Bytes per token in bf16: 32 of x, 2 OUT of the target, 32 of dx. Operations per token: 6 (16 + OUT) 128. */
#include "ops/cuda/bridge_loss.cuh"
#include "ops/cuda/partials.cuh"

enum { THREADS = ALIGN_THREADS, TOKENS = TILE_SIDE };
constexpr int MOST = 3; /* times 64 outputs in a launch */

template <int OUTS> struct memory {
    char w2[OUTS][HALVES][TILE_BYTES]; /* (out, hidden) */
    char h[HALVES][TILE_BYTES], dh[HALVES][TILE_BYTES];
    char dp[OUTS][TILE_BYTES];
    uint32_t slope[16][THREADS]; /* f' of the thread's own pairs */
    char x[2][TOKENS * IN_ROW_BYTES];
    char w1[HIDDEN * IN_ROW_BYTES];
    bf16 b1[HIDDEN], b2[OUTS * TILE_SIDE];
};

/* The targets of 32 of the outputs 64 out ..: pairs of columns 8 j + 2 q of both tokens. */
__device__ __forceinline__ void load_targets(const bridge &b, const place &p, const tokens &t, int out,
                                             uint32_t (&target)[4][2])
{
    const int column = b.first + out * TILE_SIDE + p.team * 32 + 2 * p.q;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            target[j][i] = t.row[i] >= 0 ? load_pair(b.target.at(t.target[i], column + 8 * j)) : 0;
}

__device__ __forceinline__ void activate(cab_activation_kind kind, const float (&sums)[4], uint32_t (&h)[2],
                                         uint32_t (&slope)[2])
{
    switch (kind) {
    case CAB_GELU_TANH:
        activate_pairs<CAB_GELU_TANH>(sums, h, slope);
        break;
    case CAB_GELU_ERF:
        activate_pairs<CAB_GELU_ERF>(sums, h, slope);
        break;
    case CAB_SILU:
        activate_pairs<CAB_SILU>(sums, h, slope);
        break;
    case CAB_RELU:
        activate_pairs<CAB_RELU>(sums, h, slope);
        break;
    default:
        activate_pairs<CAB_TANH>(sums, h, slope);
        break;
    }
}

/* h = f(x W1^T + b1) and f', and x for dW1. */
template <int OUTS>
__device__ __forceinline__ void hidden_tile(const bridge &b, memory<OUTS> &m, const place &p, const uint32_t (&x)[4],
                                            int turn)
{
    if (p.team == 0)
        keep_inputs(m.x[turn], p, x);
#pragma unroll 2
    for (int n = 0; n < 8; n++) {
        float sums[4];
        uint32_t h[2], slope[2];
        hidden_sums(sums, p, x, m.w1, m.b1, p.team * TILE_SIDE + n * 8);
        activate(b.activation, sums, h, slope);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            *(uint32_t *)(m.h[p.team] + tile_at(16 * p.group + p.g + 8 * i, n, p.q)) = h[i];
            m.slope[2 * n + i][threadIdx.x] = slope[i];
        }
    }
}

/* e out of the predictions of 16 tokens and 32 outputs: their squares, and dp into shared memory. */
template <int OUTS, cab_feature_map MAP>
__device__ __forceinline__ float errors(const bridge &b, memory<OUTS> &m, const place &p, const tokens &t, int out,
                                        const float (&sums)[4][4], const uint32_t (&target)[4][2], float factor)
{
    float squares[2] = {};
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int column = out * TILE_SIDE + p.team * 32 + 8 * j + 2 * p.q;
            uint32_t dp;
            squares[i] += error_pair<MAP>(b, t, i, column, sums[j] + 2 * i, target[j][i], factor, dp);
            *(uint32_t *)(m.dp[out] + tile_at(16 * p.group + p.g + 8 * i, 4 * p.team + j, p.q)) = dp;
        }
    return squares_of(t, squares);
}

/* 16 tokens and 32 of the outputs 64 out .. */
template <int OUTS>
__device__ __forceinline__ float compare_tile(const bridge &b, memory<OUTS> &m, const place &p, const tokens &t,
                                              int out, const uint32_t (&target)[4][2], float factor)
{
    float sums[4][4];
#pragma unroll
    for (int j = 0; j < 4; j++)
        begin_sums(sums[j], m.b2, out * TILE_SIDE + p.team * 32 + 8 * j + 2 * p.q);
#pragma unroll 1
    for (int half = 0; half < HALVES; half++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t a[4];
            load_left(a, shared_address(m.h[half]), p.lanes, p.group, k);
#pragma unroll
            for (int n = 0; n < 2; n++) {
                uint32_t w[4];
                load_matrices(w, shared_address(m.w2[out][half]) + (2 * p.team + n) * 16 * TILE_ROW_BYTES +
                                     p.lanes.columns_first + ((uint32_t)(k * 32) ^ p.lanes.columns_piece));
                mma(sums[2 * n], a, w[0], w[1]);
                mma(sums[2 * n + 1], a, w[2], w[3]);
            }
        }
    switch (b.map) {
    case CAB_MAP_NONE:
        return errors<OUTS, CAB_MAP_NONE>(b, m, p, t, out, sums, target, factor);
    case CAB_MAP_RELU:
        return errors<OUTS, CAB_MAP_RELU>(b, m, p, t, out, sums, target, factor);
    case CAB_MAP_EXP:
        return errors<OUTS, CAB_MAP_EXP>(b, m, p, t, out, sums, target, factor);
    case CAB_MAP_SOFTMAX_TOKENS:
        return errors<OUTS, CAB_MAP_SOFTMAX_TOKENS>(b, m, p, t, out, sums, target, factor);
    default:
        return errors<OUTS, CAB_MAP_SOFTMAX_FEATURES>(b, m, p, t, out, sums, target, factor);
    }
}

/* All outputs of 16 tokens; `target` holds those of the first 64, and is left with others. */
template <int OUTS>
__device__ __forceinline__ float compare_tiles(const bridge &b, memory<OUTS> &m, const place &p, const tokens &t,
                                               uint32_t (&target)[4][2], float factor)
{
    float squares = 0.0f;
#pragma unroll 1
    for (int out = 0; out < OUTS; out++) {
        uint32_t next[4][2] = {};
        if (out + 1 < OUTS)
            load_targets(b, p, t, out + 1, next);
        squares += compare_tile(b, m, p, t, out, target, factor);
#pragma unroll
        for (int j = 0; j < 8; j++)
            target[j / 2][j % 2] = next[j / 2][j % 2];
    }
    return squares;
}

/* Sums of the parameters' gradients that a thread holds. */
template <int OUTS> struct held {
    tile_sums w2[OUTS];    /* outputs 16 group .. of 64, half of the hidden columns */
    float b2[OUTS][4];     /* the same outputs, in columns that are all alike */
    float w1[2][4], b1[4]; /* hidden rows 16 warp .. */
};

/* dW2, db2 and dh of 64 outputs. */
template <int OUTS>
__device__ __forceinline__ void gradients_of_outputs(memory<OUTS> &m, const place &p, int out, held<OUTS> &sums,
                                                     tile_sums &dh)
{
    const uint32_t dp = shared_address(m.dp[out]);
#pragma unroll 1
    for (int k = 0; k < 4; k++) {
        uint32_t a[4];
        load_left_transposed(a, dp, p.lanes, p.group, k);
        multiply_step<false>(sums.w2[out], a, shared_address(m.h[p.team]), p.lanes, k, 0, 4);
        mma(sums.b2[out], a, ONES, ONES);
        load_left(a, dp, p.lanes, p.group, k);
        multiply_step<false>(dh, a, shared_address(m.w2[out][p.team]), p.lanes, k, 0, 4);
    }
}

/* dh f', dW1, db1 and dx. */
template <int OUTS>
__device__ __forceinline__ void gradients_of_hidden(const bridge &b, memory<OUTS> &m, const place &p, const tokens &t,
                                                    int turn, const tile_sums &dh, held<OUTS> &sums)
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t slope = m.slope[2 * n + i][threadIdx.x];
            *(uint32_t *)(m.dh[p.team] + tile_at(16 * p.group + p.g + 8 * i, n, p.q)) =
                pack(dh[n][2 * i] * low_half(slope), dh[n][2 * i + 1] * high_half(slope));
        }
    __syncthreads();
    gradients_of_input_layer(sums.w1, sums.b1, m.dh[p.team], m.x[turn], p);
    if (b.dx.data != NULL)
        input_gradient<1>(b, m.dh, m.w1, p, t, p.team);
}

/* The thread's sums as columns of the block's part. */
template <int OUTS> __device__ __forceinline__ void leave(const bridge &b, const place &p, const held<OUTS> &sums)
{
    typedef part<OUTS> at;
    float *to = b.parts + blockIdx.x * at::COLUMNS;
#pragma unroll
    for (int out = 0; out < OUTS; out++) {
        const int row = out * TILE_SIDE + 16 * p.group;
        leave_w2(to + at::W2, p, row, p.team * TILE_SIDE, sums.w2[out]);
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (p.team == 0 && p.q == 0)
                to[at::B2 + row + p.g + 8 * i] = sums.b2[out][2 * i];
    }
    leave_w1(to + at::W1, to + at::B1, p, sums.w1, sums.b1);
}

/* Everything that only gradients need, of one tile. */
template <int OUTS>
__device__ __forceinline__ void gradients(const bridge &b, memory<OUTS> &m, const place &p, const tokens &t, int turn,
                                          held<OUTS> &sums)
{
    tile_sums dh;
    clear(dh);
#pragma unroll
    for (int out = 0; out < OUTS; out++)
        gradients_of_outputs(m, p, out, sums, dh);
    gradients_of_hidden(b, m, p, t, turn, dh, sums);
}

template <int OUTS> static __global__ void __launch_bounds__(THREADS) bridge_tiles(const __grid_constant__ bridge b)
{
    extern __shared__ uint4 dynamic[];
    memory<OUTS> &m = *(memory<OUTS> *)dynamic;
    const place p = here();
    const int stride = gridDim.x * TOKENS;
    int first = blockIdx.x * TOKENS;
    held<OUTS> sums = {};
    float squares = 0.0f;
    uint32_t x[4], target[4][2];
    load_output_layer<OUTS, THREADS>(b, m.w2);
    load_input_layer<OUTS, THREADS>(b, m.w1, m.b1, m.b2);
    tokens t = tokens_of(b, first, p);
    load_inputs(b, p, t, x);
    load_targets(b, p, t, 0, target);
    const float factor = b.term.factor();
    copies_wait();
    __syncthreads();
#pragma unroll 1
    for (int turn = 0; first < b.n_row; turn ^= 1) {
        hidden_tile(b, m, p, x, turn);
        __syncthreads();
        squares += compare_tiles(b, m, p, t, target, factor);
        __syncthreads();
        first += stride;
        const tokens next = tokens_of(b, first, p);
        load_inputs(b, p, next, x);
        load_targets(b, p, next, 0, target);
        if (b.parts != NULL)
            gradients(b, m, p, t, turn, sums);
        t = next;
    }
    if (b.parts != NULL)
        leave(b, p, sums);
    b.term.finish(squares, b.last);
}

/* ---- the host's side ------------------------------------------------------------------------------------------------- */

/* Of a block's part: where each column's sum goes. */
template <int OUTS> struct bridge_targets {
    float *w2, *w1, *b2, *b1; /* NULL: not wanted */
    bool add;

    __device__ float *target(int64_t column) const
    {
        typedef part<OUTS> at;
        float *const to[] = {w2, w1, b2, b1};
        const int64_t begin[] = {at::W2, at::W1, at::B2, at::B1};
        int i = 3;
        while (column < begin[i])
            i--;
        return to[i] != NULL ? to[i] + column - begin[i] : NULL;
    }
};

/* Scratch: [ a double per block ] [ parts ], each from a multiple of 256 bytes. */
struct scratch {
    size_t parts, bytes;
    int64_t blocks;
};

static size_t round_up(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static scratch scratch_of(const cab_node *node, const cab_backend *backend)
{
    const cab_tensor *x = node->in[CAB_BRIDGE_X], *target = node->in[CAB_BRIDGE_TARGET];
    const int64_t tiles = ceil_div(cab_rows(x), has_wgmma(backend, bridge_wgmma_bytes(MOST)) ? BRIDGE_WGMMA_TOKENS : TOKENS),
                  out = cab_columns(target);
    const int64_t most = out < MOST * TILE_SIDE ? out : MOST * TILE_SIDE, columns = (most + IN + 1) * HIDDEN + most;
    const int64_t at_once = cab_cuda_of(backend)->multiprocessors; /* a block has most of one's shared memory */
    scratch s;
    s.blocks = tiles < at_once ? tiles : at_once;
    s.parts = round_up((size_t)(s.blocks * ceil_div(out, most)) * sizeof(double));
    s.bytes = s.parts + (node->backward ? (size_t)(s.blocks * columns) * sizeof(float) : 0);
    return s;
}

extern "C" size_t cab_bridge_loss_scratch_cuda(const cab_node *node, const cab_backend *backend)
{
    return scratch_of(node, backend).bytes;
}

/* Whether a block of this GPU has the shared memory for `out` outputs. */
static bool has_memory(const cab_backend *backend, int64_t out)
{
    const size_t bytes[] = {sizeof(memory<1>), sizeof(memory<2>), sizeof(memory<3>)};
    const int64_t outs = out / TILE_SIDE < MOST ? out / TILE_SIDE : MOST;
    return bytes[outs - 1] <= cab_cuda_of(backend)->shared_limit;
}

static bool layers_fit(const cab_node *node, int64_t out)
{
    const cab_tensor *w1 = node->in[CAB_BRIDGE_W1], *w2 = node->in[CAB_BRIDGE_W2];
    return node->in[CAB_BRIDGE_B1] != NULL && node->in[CAB_BRIDGE_B2] != NULL && w1->shape[0] == HIDDEN &&
           w1->shape[1] == IN && w2->shape[0] == out && w2->shape[1] == HIDDEN && out % TILE_SIDE == 0 && out <= OUT_MAX;
}

/* Bridges of 16 inputs, 128 in the middle and a multiple of 64 outputs up to 768, in bf16. */
extern "C" bool cab_bridge_loss_fits_cuda(const cab_node *node, const cab_backend *backend)
{
    const cab_align_attributes *align = &((const cab_bridge_attributes *)node->attributes)->align;
    const cab_tensor *x = node->in[CAB_BRIDGE_X], *target = node->in[CAB_BRIDGE_TARGET];
    const int64_t skip = align->mapped ? align->rows.skip : 0, class_at = align->rows.class_at;
    if (x->dtype != CAB_BF16 || target->dtype != CAB_BF16 || x->n_dim != 3 || target->n_dim != 3 ||
        cab_columns(x) != IN || (align->mapped && (skip < 0 || class_at < 0 || class_at >= x->shape[1])))
        return false;
    return cab_rows(x) < ROWS_MAX && x->shape[0] == target->shape[0] && x->shape[1] + skip == target->shape[1] &&
           layers_fit(node, cab_columns(target)) && cab_rows_begin_at(x, 2) && cab_rows_begin_at(target, 8) &&
           has_memory(backend, cab_columns(target));
}

/* From element `first`. */
static float *gradient_of(const cab_node *node, int which, int64_t first)
{
    return node->gin[which] != NULL ? (float *)node->gin[which]->data + first : NULL;
}

template <int OUTS>
static cab_status launch(const cab_node *node, const bridge &b, int64_t blocks, cab_backend *backend)
{
    const bridge_targets<OUTS> targets = {
        gradient_of(node, CAB_BRIDGE_W2, b.first * HIDDEN), gradient_of(node, CAB_BRIDGE_W1, 0),
        gradient_of(node, CAB_BRIDGE_B2, b.first), gradient_of(node, CAB_BRIDGE_B1, 0), true};
    if (has_wgmma(backend, bridge_wgmma_bytes(MOST))) {
        CAB_TRY(bridge_wgmma_launch(b, OUTS, blocks, backend));
    } else {
        CAB_TRY(cab_cuda_shared((const void *)bridge_tiles<OUTS>, sizeof(memory<OUTS>), "bridge_loss"));
        bridge_tiles<OUTS><<<(unsigned)blocks, THREADS, sizeof(memory<OUTS>), stream_of(backend)>>>(b);
        CAB_TRY(cab_cuda_launched("bridge_loss"));
    }
    return b.parts != NULL ? launch_partials(targets, b.parts, blocks, part<OUTS>::COLUMNS, backend) : CAB_OK;
}

static const bf16 *weights_of(const cab_node *node, int which)
{
    return (const bf16 *)node->in[which]->data;
}

/* As few launches as the outputs take. dx is written by the first and added to by the others. */
static cab_status launch_all(const cab_node *node, bridge b, int64_t blocks, cab_backend *backend)
{
    const int outs = (int)(b.term.D / TILE_SIDE);
    for (int done = 0, now; done < outs; done += now) {
        now = outs - done < MOST ? outs - done : MOST;
        b.first = done * TILE_SIDE;
        b.last = done + now == outs;
        b.add |= done > 0;
        if (now == 1)
            CAB_TRY(launch<1>(node, b, blocks, backend));
        else if (now == 2)
            CAB_TRY(launch<2>(node, b, blocks, backend));
        else
            CAB_TRY(launch<3>(node, b, blocks, backend));
        b.term.earlier += blocks;
    }
    return CAB_OK;
}

extern "C" cab_status cab_bridge_loss_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_bridge_attributes *attributes = (const cab_bridge_attributes *)node->attributes;
    const cab_tensor *x = node->in[CAB_BRIDGE_X], *target = node->in[CAB_BRIDGE_TARGET];
    const cab_tensor *stats = node->in[CAB_BRIDGE_STATS], *scale = node->in[CAB_BRIDGE_SCALE];
    const scratch s = scratch_of(node, backend);
    char *memory = (char *)node->scratch;
    bridge b = {};
    b.term.describe(node, target, &attributes->align, backend);
    b.term.scale = scale != NULL ? (const float *)scale->data : NULL;
    b.term.partial = (double *)memory;
    b.x = rows<const bf16>(x);
    b.target = rows<const bf16>(target);
    b.dx = rows<bf16>(node->backward ? node->gin[CAB_BRIDGE_X] : NULL);
    b.add = node->accumulate >> CAB_BRIDGE_X & 1;
    b.w1 = weights_of(node, CAB_BRIDGE_W1);
    b.b1 = weights_of(node, CAB_BRIDGE_B1);
    b.w2 = weights_of(node, CAB_BRIDGE_W2);
    b.b2 = weights_of(node, CAB_BRIDGE_B2);
    b.map = attributes->align.map;
    b.activation = attributes->activation;
    b.stats = stats != NULL ? (const float2 *)stats->data : NULL;
    b.parts = node->backward ? (float *)(memory + s.parts) : NULL;
    b.n_row = (int)cab_rows(x);
    return launch_all(node, b, s.blocks, backend);
}
