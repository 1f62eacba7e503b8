/* mixer_matrix.cu - the matrix of a mixer against that of attention.
 *
 * Layout: a block has 64 tokens of a sequence and the heads of a group. As rows, tokens i, it walks over tiles of tokens j and gathers dC,
 * the loss, and each head's sums over j; as columns, tokens j, over tiles of i for dB and the sums over i. So everything has one writer, and
 * every tile is made twice. In registers lie <C, B> of the tile, A of a head of attention, W, what multiplies B or C in the gradient, and
 * NT tiles of dC or dB. Factors of eight heads at a time are in shared memory. mixer_matrix.cuh has tiles and products.
 *
 * Before: running sums of log a within tiles and over them, <C_i, B_i>. After: gradients of log a and delta of the sums, dD, the loss.
 *
 * Arithmetic: that of src/ops/mixer_matrix.c, products in bf16 or fp32, all else in fp32. Off the diagonal exp(log a ...) is a factor of i
 * times a factor of j, both at most 1.
 *
 * Cost: per tile and group 2 x (N + N) products of 64 x 64, per head of attention 2 x P, per head some 20 operations an element. */
#include "ops/cuda/mixer_matrix.cuh"

enum { HEADS_AT_ONCE = 8 };

/* Of one direction; directions that have no C and B of their own have the first's. */
template <typename T> struct side {
    rows_of<const T> C, B;
    rows_of<T> dC, dB;
    rows_of<const float> log_a, step; /* step NULL: 1 */
    rows_of<float> dlog_a, dstep;
    const float *D;
    bool add_C, add_B, add_log_a, add_step;
    float *local;    /* (B, H, L): running sum of log a in the tile; of the first direction with the token, of the second without */
    double *before;  /* (B, H, tiles + 1): sums over the tiles before */
    float *dot;      /* (B, G, L): <C_i, B_i> */
    float *row_sums;    /* (B, H, L): sum over j of G M, the diagonal left out */
    float *column_sums; /* the same: sum over i of G M / delta */
};

template <typename T> struct mixer_call {
    side<T> sides[2];
    attention_of<T> attention;
    const float *lse, *weight, *seed; /* (B, H', L), (B, H'), seed NULL: zero */
    int64_t B, L;
    int H, G, N, heads, tiles;
    int share, width, of;
    bool both, own, wide;
    float scale;
    double part; /* 1 / (B pairs) */
    float *A_diagonal; /* (B, H', L) */
    float *G_diagonal; /* (B, H, L): s G */
    double *losses;    /* of every block of rows */

    __device__ __forceinline__ int64_t place(int64_t b, int head) const
    {
        return (b * H + head) * L;
    }
    __device__ __forceinline__ float step(int d, int64_t b, int64_t token, int head) const
    {
        return sides[d].step.data != NULL && token < L ? *sides[d].step.at(b * L + token, head) : 1.0f;
    }
};

/* Which tile, of which direction, by whom. */
struct visit {
    int64_t b;
    int group, d, set; /* set: whose C and B */
    int own, other;    /* tiles */
    bool diagonal;
};

/* Factors of some heads for the tokens of a tile: of i and of j; on the diagonal their running sums instead. */
struct mixer_factors {
    float i[HEADS_AT_ONCE][TILE_SIDE], j[HEADS_AT_ONCE][TILE_SIDE], step[HEADS_AT_ONCE][TILE_SIDE];
    float diagonal[HEADS_AT_ONCE][TILE_SIDE]; /* M of the diagonal */
    /* Of row i: its sum's logarithm; the first column of the tile in its document, and that attention sees. */
    float lse[TILE_SIDE];
    int document[TILE_SIDE], first[TILE_SIDE];
};

/* ---- before ------------------------------------------------------------------------------------------------------------- */

/* A warp has one head of one sequence and direction; each lane two tokens of a tile. */
template <typename T> static __global__ void __launch_bounds__(32) sum_decays(mixer_call<T> c)
{
    const int lane = threadIdx.x, head = (int)(blockIdx.x % (unsigned)c.H), d = blockIdx.y;
    const int64_t b = blockIdx.x / (unsigned)c.H;
    const side<T> &s = c.sides[d];
    float *local = s.local + c.place(b, head);
    double *before = s.before + (b * c.H + head) * (c.tiles + 1), total = 0.0;
    for (int tile = 0; tile < c.tiles; tile++) {
        float now[2], pair;
        for (int k = 0; k < 2; k++) {
            const int64_t token = (int64_t)tile * TILE_SIDE + 2 * lane + k;
            now[k] = token < c.L ? *s.log_a.at(b * c.L + token, head) : 0.0f;
        }
        pair = now[0] + now[1];
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const float left = __shfl_up_sync(0xffffffffu, pair, step);
            pair += lane >= step ? left : 0.0f;
        }
        const float earlier = __shfl_up_sync(0xffffffffu, pair, 1), start = lane > 0 ? earlier : 0.0f;
        for (int k = 0; k < 2; k++) {
            const int64_t token = (int64_t)tile * TILE_SIDE + 2 * lane + k;
            const float sum = k == 0 ? start : start + now[0];
            if (token < c.L)
                local[token] = d == 0 ? sum + now[k] : sum;
        }
        if (lane == 0)
            before[tile] = total;
        total += (double)__shfl_sync(0xffffffffu, pair, 31);
    }
    if (lane == 0)
        before[c.tiles] = total;
}

/* A warp has a token and a group. */
template <typename T> static __global__ void __launch_bounds__(MIXER_THREADS) multiply_diagonal(mixer_call<T> c)
{
    const int64_t at = blockIdx.x * (int64_t)MIXER_WARPS + threadIdx.x / 32, row = at / c.G, group = at % c.G;
    const side<T> &s = c.sides[blockIdx.y];
    if (row >= c.B * c.L)
        return;
    float sum = 0.0f;
    for (int n = threadIdx.x % 32; n < c.N; n += 32)
        sum += to_float(*s.C.at(row, group * c.N + n)) * to_float(*s.B.at(row, group * c.N + n));
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        s.dot[(row / c.L * c.G + group) * c.L + row % c.L] = sum;
}

/* A of the diagonal: a warp has a token and a head of attention. */
template <typename T> static __global__ void __launch_bounds__(MIXER_THREADS) attend_diagonal(mixer_call<T> c)
{
    const attention_of<T> &a = c.attention;
    const int64_t at = blockIdx.x * (int64_t)MIXER_WARPS + threadIdx.x / 32, token = at % c.L, bh = at / c.L;
    const int head = (int)(bh % a.n_head);
    if (bh >= c.B * a.n_head)
        return;
    const int64_t row = a.where.row(bh / a.n_head, token);
    float sum = 0.0f;
    for (int n = threadIdx.x % 32; n < a.P; n += 32)
        sum += to_float(*a.q.at(row, (int64_t)head * a.P + n)) * to_float(*a.k.at(row, (int64_t)(head / a.share) * a.P + n));
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        c.A_diagonal[at] = expf(a.score(sum) - c.lse[at]);
}

/* ---- tiles -------------------------------------------------------------------------------------------------------------- */

/* Factors of heads `first` .. first + n of the group, by all threads. */
template <typename T>
static __device__ void load_factors(mixer_factors &f, const mixer_call<T> &c, const visit &v, int bi, int bj, int first,
                                    int n)
{
    const side<T> &s = c.sides[v.d];
    for (int k = threadIdx.x; k < n * TILE_SIDE; k += MIXER_THREADS) {
        const int h = k / TILE_SIDE, at = k % TILE_SIDE, head = v.group * c.heads + first + h;
        const int64_t i = (int64_t)bi * TILE_SIDE + at, j = (int64_t)bj * TILE_SIDE + at;
        const float *local = s.local + c.place(v.b, head);
        const double *before = s.before + (v.b * c.H + head) * (c.tiles + 1);
        const float row = i < c.L ? local[i] : 0.0f, column = j < c.L ? local[j] : 0.0f;
        f.step[h][at] = c.step(v.d, v.b, j, head);
        if (v.diagonal) {
            f.i[h][at] = f.j[h][at] = row;
            float m = 0.0f;
            for (int d = 0; d < (c.both ? 2 : 1); d++) {
                m += c.sides[d].D != NULL ? c.sides[d].D[head] : 0.0f;
                if ((d == 0 || c.own) && i < c.L)
                    m += c.sides[d].dot[(v.b * c.G + v.group) * c.L + i] * c.step(d, v.b, i, head);
            }
            f.diagonal[h][at] = c.scale * m;
            continue;
        }
        const float between = (float)(v.d == 0 ? before[bi] - before[bj + 1] : before[bj] - before[bi + 1]);
        const float row_rest = (float)(before[bi + 1] - before[bi]) - row;
        const float column_rest = (float)(before[bj + 1] - before[bj]) - column;
        f.i[h][at] = expf(between + (v.d == 0 ? row : row_rest));
        f.j[h][at] = c.scale * expf(v.d == 0 ? column_rest : column);
    }
}

/* Sums that a lane keeps of its two rows of the block, of one head. */
struct lane_sums {
    float rows[2], squares;
};

/* What a head of the mixer adds to W, and to the sums of the block's tokens: over j of G M, or over i of G M / delta. factor: of E in G. */
template <bool COLUMNS, typename T>
static __device__ __forceinline__ void compare_head(tile_sums &w, lane_sums &sums, const tile_sums &dots,
                                                    const tile_sums &A, const mixer_factors &f, int h,
                                                    const mixer_call<T> &c, const visit &v, int bi, int bj,
                                                    float factor, const mixer_place &p)
{
    const int rows_left = (int)min((int64_t)TILE_SIDE, c.L - (int64_t)bi * TILE_SIDE);
    const int columns_left = (int)min((int64_t)TILE_SIDE, c.L - (int64_t)bj * TILE_SIDE);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int own = p.row + e / 2 * 8, other = 8 * n + 2 * p.q + e % 2;
            const int i = COLUMNS ? other : own, j = COLUMNS ? own : other;
            if (i >= rows_left || j >= columns_left)
                continue;
            if (v.diagonal && i == j) { /* with the first direction; W of the second has its part too */
                const float error = f.diagonal[h][i] - A[n][e], g = error * factor;
                if (v.d == 0 || c.own)
                    w[n][e] += g * c.scale * f.step[h][j];
                if (v.d == 0)
                    sums.squares += error * error;
                continue;
            }
            const bool sees = v.diagonal ? (v.d == 0 ? j < i : j > i) : true;
            if (!sees || j < f.document[i])
                continue;
            const float decay = v.diagonal ? c.scale * expf(v.d == 0 ? f.i[h][i] - f.j[h][j] : f.j[h][j] - f.i[h][i])
                                           : f.i[h][i] * f.j[h][j];
            const float step = f.step[h][j], m = dots[n][e] * decay * step, error = m - A[n][e], g = error * factor;
            w[n][e] += g * decay * step;
            sums.rows[e / 2] += COLUMNS ? g * dots[n][e] * decay : g * m;
            sums.squares += error * error;
        }
}

/* What row i of the tile sees. */
template <typename T>
static __device__ void load_sight(mixer_factors &f, const mixer_call<T> &c, const visit &v, int bi, int bj, int head)
{
    const attention_of<T> &a = c.attention;
    const int at = threadIdx.x;
    const int64_t i = (int64_t)bi * TILE_SIDE + at, first_column = (int64_t)bj * TILE_SIDE;
    if (at >= TILE_SIDE)
        return;
    const int64_t document = a.starts != NULL && i < c.L ? a.starts[v.b * c.L + i] : 0;
    f.document[at] = (int)min(max(document - first_column, (int64_t)0), (int64_t)TILE_SIDE);
    f.first[at] = (int)min(max(a.first_of(v.b, i) - first_column, (int64_t)0), (int64_t)TILE_SIDE);
    f.lse[at] = i < c.L ? c.lse[(v.b * a.n_head + head) * c.L + i] : 0.0f;
}

/* A of a head of attention. tiles: two that may be overwritten. */
template <bool COLUMNS, typename T>
static __device__ __forceinline__ void attend(tile_sums &A, mixer_factors &f, char *left, char *right,
                                              const mixer_call<T> &c, const visit &v, int bi, int bj, int head,
                                              const mixer_place &p)
{
    const attention_of<T> &a = c.attention;
    const int64_t rows = (int64_t)bi * TILE_SIDE, columns = (int64_t)bj * TILE_SIDE;
    char *q = COLUMNS ? right : left, *k = COLUMNS ? left : right;
    clear(A);
    for (int at = 0; at < a.P; at += TILE_SIDE) {
        __syncthreads();
        load_tokens(q, a.q, a.where, v.b, rows, c.L, (int64_t)head * a.P + at, a.P - at, a.wide);
        load_tokens(k, a.k, a.where, v.b, columns, c.L, (int64_t)(head / a.share) * a.P + at, a.P - at, a.wide);
        if (at == 0)
            load_sight(f, c, v, bi, bj, head);
        __syncthreads();
        tile_dots(A, left, right, p, (const T *)NULL);
    }
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int own = p.row + e / 2 * 8, other = 8 * n + 2 * p.q + e % 2;
            const int i = COLUMNS ? other : own, j = COLUMNS ? own : other;
            const bool sees = j >= f.first[i] && (!a.causal || columns + j <= rows + i);
            A[n][e] = sees ? expf(a.score(A[n][e]) - f.lse[i]) : 0.0f;
        }
}

/* Heads first .. end of the group that are compared with a head of attention. */
template <typename T>
static __device__ __forceinline__ void heads_of(const mixer_call<T> &c, int group, int other, int *first, int *end)
{
    const int64_t from = (int64_t)other * c.of / c.width * c.share - (int64_t)group * c.heads;
    const int64_t to = (((int64_t)other + 1) * c.of + c.width - 1) / c.width * c.share - (int64_t)group * c.heads;
    *first = (int)max(from, (int64_t)0);
    *end = (int)min(to, (int64_t)c.heads);
}

/* All heads of the group against a head of attention, in a tile. */
template <bool COLUMNS, typename T>
static __device__ __forceinline__ double compare_heads(tile_sums &w, const tile_sums &dots, const tile_sums &A,
                                                       mixer_factors &f, const mixer_call<T> &c, const visit &v, int bi,
                                                       int bj, int other, int first, int end, const mixer_place &p)
{
    const float weight = c.weight[v.b * c.attention.n_head + other];
    const float factor = (float)(2.0 * c.part * (c.seed != NULL ? (double)*c.seed : 0.0)) * weight;
    float *to = COLUMNS ? c.sides[v.d].column_sums : c.sides[v.d].row_sums;
    float squares = 0.0f;
    for (int from = first; from < end; from += HEADS_AT_ONCE) {
        const int n = min((int)HEADS_AT_ONCE, end - from);
        __syncthreads();
        load_factors(f, c, v, bi, bj, from, n);
        __syncthreads();
        for (int h = 0; h < n; h++) {
            lane_sums sums = {{0.0f, 0.0f}, 0.0f};
            compare_head<COLUMNS>(w, sums, dots, A, f, h, c, v, bi, bj, factor, p);
            squares += sums.squares;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int64_t token = (int64_t)v.own * TILE_SIDE + p.row + 8 * half;
                const float sum = quad_sum(sums.rows[half]);
                if (p.q == 0 && token < c.L)
                    to[c.place(v.b, v.group * c.heads + from + h) + token] += sum;
            }
        }
    }
    return (double)squares * (double)weight;
}

/* Shared memory: the left tile, one for keys, NT right ones, the factors. */
template <typename T, int NT> struct mixer_space {
    char left[MIXER_TILE_BYTES<T>], key[MIXER_TILE_BYTES<T>], right[NT][MIXER_TILE_BYTES<T>];
    mixer_factors factors;
};

/* A tile of a direction: adds to the block's dC or dB, and returns the loss. */
template <bool COLUMNS, int NT, typename T>
static __device__ __forceinline__ double visit_tile(tile_sums (&gradient)[NT], mixer_space<T, NT> &space,
                                                    const mixer_call<T> &c, const visit &v, const mixer_place &p)
{
    const side<T> &s = c.sides[v.set];
    const int bi = COLUMNS ? v.other : v.own, bj = COLUMNS ? v.own : v.other;
    const token_rows plain = {c.L, false, 0, 0};
    tile_sums dots, A, w;
    double loss = 0.0;
    clear(dots);
    clear(w);
#pragma unroll
    for (int t = 0; t < NT; t++) {
        const int64_t column = (int64_t)v.group * c.N + t * TILE_SIDE;
        const int width = c.N - t * TILE_SIDE;
        __syncthreads();
        load_tokens(space.left, COLUMNS ? s.B : s.C, plain, v.b, (int64_t)v.own * TILE_SIDE, c.L, column, width, c.wide);
        load_tokens(space.right[t], COLUMNS ? s.C : s.B, plain, v.b, (int64_t)v.other * TILE_SIDE, c.L, column, width,
                    c.wide);
        __syncthreads();
        tile_dots(dots, space.left, space.right[t], p, (const T *)NULL);
    }
    for (int other = 0; other < c.attention.n_head; other++) {
        int first, end;
        heads_of(c, v.group, other, &first, &end);
        if (first >= end)
            continue;
        attend<COLUMNS>(A, space.factors, space.left, space.key, c, v, bi, bj, other, p);
        loss += compare_heads<COLUMNS>(w, dots, A, space.factors, c, v, bi, bj, other, first, end, p);
    }
    __syncthreads();
    const left_tile<T> left(w, space.left, p);
#pragma unroll
    for (int t = 0; t < NT; t++)
        left.add(gradient[t], space.right[t], p);
    return loss;
}

/* The block's rows of dC or dB, which are cleared. */
template <int NT, typename T>
static __device__ __forceinline__ void put_gradient(rows_of<T> to, bool add, tile_sums (&gradient)[NT],
                                                    const mixer_call<T> &c, const visit &v, const mixer_place &p)
{
#pragma unroll
    for (int t = 0; t < NT; t++) {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int64_t token = (int64_t)v.own * TILE_SIDE + p.row + e / 2 * 8;
                const int column = t * TILE_SIDE + 8 * n + 2 * p.q + e % 2;
                if (to.data == NULL || token >= c.L || column >= c.N)
                    continue;
                T *at = to.at(v.b * c.L + token, (int64_t)v.group * c.N + column);
                *at = from_float<T>(gradient[t][n][e] + (add ? to_float(*at) : 0.0f));
            }
        clear(gradient[t]);
    }
}

/* Over the block, in one order; thread 0 gets it. */
static __device__ __forceinline__ double sum_block(double sum, double (&shared)[MIXER_WARPS])
{
    for (int lanes = 16; lanes > 0; lanes /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = sum;
    __syncthreads();
    for (int i = 1; i < MIXER_WARPS && threadIdx.x == 0; i++)
        sum += shared[i];
    return sum;
}

template <bool COLUMNS, int NT, typename T>
static __global__ void __launch_bounds__(MIXER_THREADS) walk_tiles(mixer_call<T> c)
{
    extern __shared__ __align__(128) char memory[];
    mixer_space<T, NT> &space = *(mixer_space<T, NT> *)memory;
    const mixer_place p = mixer_here();
    visit v = {(int64_t)(blockIdx.x / (unsigned)c.G), (int)(blockIdx.x % (unsigned)c.G), 0, 0, (int)blockIdx.y, 0, false};
    tile_sums gradient[NT];
    double loss = 0.0;
#pragma unroll
    for (int t = 0; t < NT; t++)
        clear(gradient[t]);
    for (v.d = 0; v.d < (c.both ? 2 : 1); v.d++) {
        const bool before = (v.d == 0) != COLUMNS; /* the other tiles are those before this one, or those behind */
        const int first = before ? 0 : v.own, end = before ? v.own + 1 : c.tiles;
        v.set = c.own ? v.d : 0;
        for (v.other = first; v.other < end; v.other++) {
            v.diagonal = v.other == v.own;
            loss += visit_tile<COLUMNS, NT>(gradient, space, c, v, p);
        }
        if (c.own || !c.both || v.d == 1) {
            const side<T> &s = c.sides[v.set];
            put_gradient<NT>(COLUMNS ? s.dB : s.dC, COLUMNS ? s.add_B : s.add_C, gradient, c, v, p);
        }
    }
    if constexpr (!COLUMNS) {
        __shared__ double losses[MIXER_WARPS];
        const double total = sum_block(loss, losses);
        if (threadIdx.x == 0)
            c.losses[blockIdx.y * (int64_t)gridDim.x + blockIdx.x] = total;
    }
}

/* ---- after -------------------------------------------------------------------------------------------------------------- */

/* Head of attention `other` is compared with a head of the mixer. */
template <typename T> static __device__ __forceinline__ bool pairs(const mixer_call<T> &c, int head, int other)
{
    int first, end;
    heads_of(c, head / c.heads, other, &first, &end);
    return head % c.heads >= first && head % c.heads < end;
}

/* s G of the diagonal: a thread has a token and a head. */
template <typename T> static __global__ void __launch_bounds__(MIXER_THREADS) weigh_diagonal(mixer_call<T> c)
{
    const int64_t at = blockIdx.x * (int64_t)MIXER_THREADS + threadIdx.x, token = at % c.L, bh = at / c.L;
    const int head = (int)(bh % c.H);
    const int64_t b = bh / c.H;
    if (b >= c.B)
        return;
    float m = 0.0f, sum = 0.0f;
    for (int d = 0; d < (c.both ? 2 : 1); d++) {
        m += c.sides[d].D != NULL ? c.sides[d].D[head] : 0.0f;
        if (d == 0 || c.own)
            m += c.sides[d].dot[(b * c.G + head / c.heads) * c.L + token] * c.step(d, b, token, head);
    }
    for (int other = 0; other < c.attention.n_head; other++)
        if (pairs(c, head, other)) {
            const int64_t of = b * c.attention.n_head + other;
            sum += (c.scale * m - c.A_diagonal[of * c.L + token]) * c.weight[of];
        }
    c.G_diagonal[at] = (float)(2.0 * c.part * (c.seed != NULL ? (double)*c.seed : 0.0)) * c.scale * sum;
}

static __device__ __forceinline__ void put_float(rows_of<float> to, int64_t row, int64_t column, bool add, float value)
{
    if (to.data != NULL)
        *to.at(row, column) = value + (add ? *to.at(row, column) : 0.0f);
}

/* Gradients of log a and delta: a warp has a head of a sequence and goes through its tokens, of the first direction from the last, of the
 * second from the first. */
template <typename T> static __global__ void __launch_bounds__(32) finish_decays(mixer_call<T> c)
{
    const int lane = threadIdx.x, head = (int)(blockIdx.x % (unsigned)c.H);
    const int64_t b = blockIdx.x / (unsigned)c.H, at = c.place(b, head);
    for (int d = 0; d < (c.both ? 2 : 1); d++) {
        const side<T> &s = c.sides[d];
        double total = 0.0;
        for (int64_t first = 0; first < c.L; first += 32) {
            const int64_t left = first + lane, token = d == 0 ? c.L - 1 - left : left;
            const bool valid = left < c.L;
            const float columns = valid ? s.column_sums[at + token] : 0.0f;
            float net = valid ? s.row_sums[at + token] - c.step(d, b, token, head) * columns : 0.0f;
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const float earlier = __shfl_up_sync(0xffffffffu, net, step);
                net += lane >= step ? earlier : 0.0f;
            }
            if (valid) {
                const bool diagonal = d == 0 || c.own;
                const float dot = diagonal ? s.dot[(b * c.G + head / c.heads) * c.L + token] : 0.0f;
                put_float(s.dlog_a, b * c.L + token, head, s.add_log_a, (float)(total + (double)net));
                put_float(s.dstep, b * c.L + token, head, s.add_step,
                          columns + (diagonal ? c.G_diagonal[at + token] * dot : 0.0f));
            }
            total += (double)__shfl_sync(0xffffffffu, net, 31);
        }
        __syncwarp();
    }
}

/* A block has a head: its dD, of both directions. */
template <typename T>
static __global__ void __launch_bounds__(MIXER_THREADS) finish_D(mixer_call<T> c, float *first, float *second)
{
    __shared__ float shared[MIXER_WARPS];
    float sum = 0.0f;
    for (int64_t k = threadIdx.x; k < c.B * c.L; k += MIXER_THREADS)
        sum += c.G_diagonal[c.place(k / c.L, (int)blockIdx.x) + k % c.L];
    sum = block_sum<MIXER_THREADS>(sum, shared);
    if (threadIdx.x == 0 && first != NULL)
        first[blockIdx.x] += sum;
    if (threadIdx.x == 0 && second != NULL)
        second[blockIdx.x] += sum;
}

static __global__ void __launch_bounds__(MIXER_THREADS) finish_loss(const double *losses, int64_t n, double part, float *out)
{
    __shared__ double shared[MIXER_WARPS];
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += MIXER_THREADS)
        sum += losses[i];
    sum = sum_block(sum, shared);
    if (threadIdx.x == 0)
        *out = (float)(part * sum);
}

/* ---- on the host -------------------------------------------------------------------------------------------------------- */

/* Scratch as offsets in bytes; the sums over rows and columns, which start at zero, come first and together. */
struct workspace {
    size_t row_sums[2], column_sums[2], zeros; /* bytes that start at zero */
    size_t local[2], before[2], dot[2], A_diagonal, G_diagonal, losses, total;
};

static size_t take(size_t *total, size_t bytes)
{
    const size_t at = *total;
    *total += (bytes + 255) / 256 * 256;
    return at;
}

static workspace workspace_of(const cab_node *node)
{
    const cab_mixer_matrix_attributes *a = (const cab_mixer_matrix_attributes *)node->attributes;
    const cab_mixer_matrix_sizes s = cab_mixer_matrix_sizes_of(node);
    const size_t tokens = (size_t)(s.B * s.L), heads = tokens * (size_t)s.H;
    workspace w = {};
    for (int d = 0; d < cab_mixer_directions(a); d++) {
        w.row_sums[d] = take(&w.total, heads * sizeof(float));
        w.column_sums[d] = take(&w.total, heads * sizeof(float));
    }
    w.zeros = w.total;
    for (int d = 0; d < cab_mixer_directions(a); d++) {
        w.local[d] = take(&w.total, heads * sizeof(float));
        w.before[d] = take(&w.total, (size_t)(s.B * s.H) * (size_t)(s.tiles + 1) * sizeof(double));
        w.dot[d] = take(&w.total, tokens * (size_t)s.G * sizeof(float));
    }
    w.A_diagonal = take(&w.total, tokens * (size_t)a->rows.shape.n_head * sizeof(float));
    w.G_diagonal = take(&w.total, heads * sizeof(float));
    w.losses = take(&w.total, (size_t)(s.B * s.G) * (size_t)s.tiles * sizeof(double));
    return w;
}

extern "C" size_t cab_mixer_matrix_scratch_cuda(const cab_node *node, const cab_backend *)
{
    return workspace_of(node).total;
}

template <typename T> static rows_of<T> columns_from(const cab_tensor *t, int64_t column)
{
    rows_of<T> r = rows<T>(t);
    r.data = r.data != NULL ? r.data + column : NULL;
    return r;
}

template <typename T> static void describe_side(const cab_node *node, const workspace &w, int d, side<T> *s)
{
    const cab_mixer_matrix_attributes *a = (const cab_mixer_matrix_attributes *)node->attributes;
    const int64_t column = cab_mixer_column(a, d);
    const int C = cab_mixer_input(a, d, CAB_MIXER_C), B = cab_mixer_input(a, d, CAB_MIXER_B);
    const int log_a = cab_mixer_input(a, d, CAB_MIXER_LOG_A), step = cab_mixer_input(a, d, CAB_MIXER_STEP);
    const cab_tensor *D = node->in[cab_mixer_input(a, d, CAB_MIXER_D)];
    const bool again = d == 1 && !a->own && a->second == 0; /* adds to what the first direction has written */
    char *scratch = (char *)node->scratch;
    s->C = rows<const T>(node->in[C]);
    s->B = rows<const T>(node->in[B]);
    s->dC = rows<T>(node->gin[C]);
    s->dB = rows<T>(node->gin[B]);
    s->log_a = columns_from<const float>(node->in[log_a], column);
    s->step = columns_from<const float>(node->in[step], column);
    s->dlog_a = columns_from<float>(node->gin[log_a], column);
    s->dstep = columns_from<float>(node->gin[step], column);
    s->D = D != NULL ? (const float *)D->data : NULL;
    s->add_C = node->accumulate >> C & 1;
    s->add_B = node->accumulate >> B & 1;
    s->add_log_a = again || (node->accumulate >> log_a & 1);
    s->add_step = again || (node->accumulate >> step & 1);
    s->local = (float *)(scratch + w.local[d]);
    s->before = (double *)(scratch + w.before[d]);
    s->dot = (float *)(scratch + w.dot[d]);
    s->row_sums = (float *)(scratch + w.row_sums[d]);
    s->column_sums = (float *)(scratch + w.column_sums[d]);
}

template <typename T> static mixer_call<T> call_of(const cab_node *node, const workspace &w)
{
    const cab_mixer_matrix_attributes *a = (const cab_mixer_matrix_attributes *)node->attributes;
    const cab_mixer_matrix_sizes s = cab_mixer_matrix_sizes_of(node);
    char *scratch = (char *)node->scratch;
    mixer_call<T> c = {};
    for (int d = 0; d < cab_mixer_directions(a); d++)
        describe_side(node, w, d, &c.sides[d]);
    c.attention = attention_in<T>(node->in[CAB_MIXER_Q], node->in[CAB_MIXER_K], node->in[CAB_MIXER_STARTS], &a->rows);
    c.lse = (const float *)node->in[CAB_MIXER_LSE]->data;
    c.weight = (const float *)node->in[CAB_MIXER_WEIGHT]->data;
    c.seed = node->backward && node->gout[0] != NULL ? (const float *)node->gout[0]->data : NULL;
    c.B = s.B;
    c.L = s.L;
    c.H = s.H;
    c.G = s.G;
    c.N = s.N;
    c.heads = s.heads;
    c.tiles = s.tiles;
    c.share = a->share;
    c.width = a->width;
    c.of = a->of;
    c.both = a->both;
    c.own = a->own;
    c.scale = a->scale;
    c.part = 1.0 / ((double)s.B * a->n_pair);
    c.A_diagonal = (float *)(scratch + w.A_diagonal);
    c.G_diagonal = (float *)(scratch + w.G_diagonal);
    c.losses = (double *)(scratch + w.losses);
    c.wide = s.N % 8 == 0;
    for (int i = 0; i < 2 * CAB_MIXER_DIRECTION; i += CAB_MIXER_DIRECTION)
        c.wide = c.wide && fits_packets(node->in[i + CAB_MIXER_C], 8) && fits_packets(node->in[i + CAB_MIXER_B], 8);
    return c;
}

template <bool COLUMNS, int NT, typename T> static cab_status walk(const mixer_call<T> &c, cab_backend *backend)
{
    const size_t bytes = sizeof(mixer_space<T, NT>);
    const dim3 grid((unsigned)(c.B * c.G), (unsigned)c.tiles);
    CAB_TRY(cab_cuda_shared((const void *)walk_tiles<COLUMNS, NT, T>, bytes, "mixer_matrix_loss"));
    walk_tiles<COLUMNS, NT, T><<<grid, MIXER_THREADS, bytes, stream_of(backend)>>>(c);
    return cab_cuda_launched("mixer_matrix_loss");
}

template <int NT, typename T> static cab_status walk_both(const mixer_call<T> &c, bool gradient, cab_backend *backend)
{
    CAB_TRY((walk<false, NT>(c, backend)));
    return gradient ? walk<true, NT>(c, backend) : CAB_OK;
}

template <typename T> static cab_status prepare(const mixer_call<T> &c, const workspace &w, void *scratch, cab_backend *backend)
{
    const dim3 decays((unsigned)(c.B * c.H), c.both ? 2 : 1);
    const dim3 dots((unsigned)ceil_div(c.B * c.L * c.G, MIXER_WARPS), c.own ? 2 : 1);
    const unsigned tokens = (unsigned)ceil_div(c.B * c.L * c.attention.n_head, MIXER_WARPS);
    CAB_TRY(cab_cuda_check(cudaMemsetAsync(scratch, 0, w.zeros, stream_of(backend)), "mixer_matrix_loss"));
    sum_decays<T><<<decays, 32, 0, stream_of(backend)>>>(c);
    CAB_TRY(cab_cuda_launched("mixer_matrix_loss"));
    multiply_diagonal<T><<<dots, MIXER_THREADS, 0, stream_of(backend)>>>(c);
    CAB_TRY(cab_cuda_launched("mixer_matrix_loss"));
    attend_diagonal<T><<<tokens, MIXER_THREADS, 0, stream_of(backend)>>>(c);
    return cab_cuda_launched("mixer_matrix_loss");
}

template <typename T> static cab_status finish(const cab_node *node, const mixer_call<T> &c, cab_backend *backend)
{
    const cab_tensor *first = node->gin[CAB_MIXER_D], *second = node->gin[CAB_MIXER_DIRECTION + CAB_MIXER_D];
    weigh_diagonal<T><<<(unsigned)ceil_div(c.B * c.H * c.L, MIXER_THREADS), MIXER_THREADS, 0, stream_of(backend)>>>(c);
    CAB_TRY(cab_cuda_launched("mixer_matrix_loss"));
    finish_decays<T><<<(unsigned)(c.B * c.H), 32, 0, stream_of(backend)>>>(c);
    CAB_TRY(cab_cuda_launched("mixer_matrix_loss"));
    finish_D<T><<<(unsigned)c.H, MIXER_THREADS, 0, stream_of(backend)>>>(
        c, first != NULL ? (float *)first->data : NULL, second != NULL ? (float *)second->data : NULL);
    return cab_cuda_launched("mixer_matrix_loss");
}

template <typename T> static cab_status run(const cab_node *node, cab_backend *backend)
{
    const workspace w = workspace_of(node);
    const mixer_call<T> c = call_of<T>(node, w);
    CAB_TRY(prepare(c, w, node->scratch, backend));
    CAB_TRY(c.N <= 64    ? walk_both<1>(c, node->backward, backend)
            : c.N <= 128 ? walk_both<2>(c, node->backward, backend)
                         : walk_both<4>(c, node->backward, backend));
    if (node->backward)
        CAB_TRY(finish(node, c, backend));
    finish_loss<<<1, MIXER_THREADS, 0, stream_of(backend)>>>(c.losses, c.B * c.G * c.tiles, c.part,
                                                           (float *)node->out[0]->data);
    return cab_cuda_launched("mixer_matrix_loss");
}

extern "C" cab_status cab_mixer_matrix_loss_cuda(const cab_node *node, cab_backend *backend)
{
    cab_status status = CAB_OK;
    BY_DTYPE(node->in[CAB_MIXER_C]->dtype, status = run<T>(node, backend));
    return status;
}
