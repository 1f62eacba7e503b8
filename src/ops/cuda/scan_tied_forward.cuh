/* scan_tied_forward.cuh - the forward pass of scan_tied.cuh, which has formulas and fragments.
 *
 * Layout: a block walks over the chunks of one sequence from the first to the last. A warp carries H of its 16
 * channels in registers. y takes the place of u in shared memory, and is written to device memory one chunk late.
 *
 * Arithmetic, per chunk: f H (saved, where a backward pass follows), y = down (S X + C f H) + D u, times silu(z); H
 * becomes f (f H + B^T X). The second direction adds to the y of the first. */
#ifndef CAB_OPS_CUDA_SCAN_TIED_FORWARD_CUH
#define CAB_OPS_CUDA_SCAN_TIED_FORWARD_CUH

#include "ops/cuda/scan_tied.cuh"

namespace scan_tied
{

/* y is left in place of u. The last is y of the direction before. */
enum { FORWARD_U, FORWARD_DT, FORWARD_Z, FORWARD_Y, FORWARD_TENSORS };

template <int DEPTH> struct forward_memory {
    stage<FORWARD_TENSORS, DEPTH> stages[2];
    dt_factor<DEPTH> factor;
};

/* add: to what the first direction wrote. */
template <int DEPTH>
__device__ __forceinline__ void forward_chunk(walker<FORWARD_TENSORS, DEPTH> &w, int chunk, bool add, sums_of &H)
{
    sums_of S = {}, Y = {};
    numbers u, z, delta, y;
    fragment X, B, C, before, left;
    decays d;
    read_inputs(w, FORWARD_U, u, delta, d, X);
    scale_channels(H, d.through);
    narrow_sums(H, before);
    if (w.k.saved != NULL)
        *saved_at(w, blockIdx.x, chunk) = make_uint4(before[0], before[1], before[2], before[3]);
    advance(w, d, X, H);
    w.read_rows(TILE_B, B);
    w.read_rows(TILE_C, C);
    add_product_nt(S, C, B);
    narrow_causal<false>(S, w.g, w.q, left);
    add_product_nt(Y, before, C);
    add_product_nt(Y, X, left);
    w.read(FORWARD_Z, z);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            y[i][j] = d.down[i][j] * number_of(Y, i, j) + w.D[i] * u[i][j];
            y[i][j] *= w.k.share * z[i][j] * sigmoid_of(z[i][j]);
        }
    if (add) {
        w.read(FORWARD_Y, z);
        add_numbers(y, z);
    }
    w.put(FORWARD_U, y);
}

template <int DEPTH>
__device__ __forceinline__ void load_forward(walker<FORWARD_TENSORS, DEPTH> &w, int chunk, bool add, int side)
{
    const piece p = w.piece_of(chunk);
    if (add)
        w.copy_rows(read_only(w.k.y), FORWARD_Y, p, side);
    w.copy_rows(w.k.u, FORWARD_U, p, side);
    w.copy_dt(FORWARD_DT, p, side);
    w.copy_rows(w.k.z, FORWARD_Z, p, side);
    w.copy_tiles(chunk, side);
}

/* All chunks in direction D, which is a constant so that what the pass says are operands. A thread writes the piece of the last chunk
 * before it copies the next one's there. */
template <int DEPTH, int D>
__device__ __forceinline__ void go_forward(const scan_passes<bf16> &passes, forward_memory<DEPTH> &shared)
{
    walker<FORWARD_TENSORS, DEPTH> w(passes.of[D], shared.stages, shared.factor);
    sums_of H = {};
    w.begin(blockIdx.x);
    w.copy_factor();
    load_forward(w, 0, D > 0, 0);
    for (int chunk = 0; chunk < w.chunks; chunk++, w.turn ^= 1) {
        wait_copies();
        __syncthreads();
        if (chunk > 0)
            w.write_rows(w.k.y, FORWARD_U, w.piece_of(chunk - 1), w.turn ^ 1, false);
        if (chunk + 1 < w.chunks)
            load_forward(w, chunk + 1, D > 0, w.turn ^ 1);
        forward_chunk(w, chunk, D > 0, H);
    }
    __syncthreads();
    w.write_rows(w.k.y, FORWARD_U, w.piece_of(w.chunks - 1), w.turn ^ 1, false);
}

template <int DEPTH>
static __global__ void __launch_bounds__(BLOCK_THREADS, 3)
    scan_forward(const __grid_constant__ scan_passes<bf16> passes)
{
    extern __shared__ float4 memory[];
    forward_memory<DEPTH> &shared = *reinterpret_cast<forward_memory<DEPTH> *>(memory);
    go_forward<DEPTH, 0>(passes, shared);
    if (passes.directions == 1)
        return;
    __syncthreads(); /* y has been written, which the other direction reads */
    go_forward<DEPTH, 1>(passes, shared);
}

} // namespace scan_tied

#endif
