/* scan_tied_forward.cuh - the way forward of scan_tied.cuh, which has the formulas. */
#ifndef CAB_OPS_CUDA_SCAN_TIED_FORWARD_CUH
#define CAB_OPS_CUDA_SCAN_TIED_FORWARD_CUH

#include "ops/cuda/scan_tied.cuh"

namespace scan_tied
{

/* The last is y of the direction before. */
enum { FORWARD_Y = SCAN_Z + 1, FORWARD_TENSORS };

/* add: to what the first direction wrote. */
__device__ __forceinline__ void forward_chunk(walker<FORWARD_TENSORS> &w, int chunk, bool add, sums_of &H)
{
    const scan_pass<bf16> &k = w.k;
    sums_of S = {}, Y = {};
    numbers u, z, delta, y;
    fragment X, B, C, before, left;
    decays d;
    read_inputs(w, SCAN_U, u, delta, d, X);
    scale_channels(H, d.through);
    narrow_sums(H, before);
    advance(w, w.stages[w.turn].B, d, X, H);
    w.read_rows(w.stages[w.turn].B, B);
    w.read_rows(w.stages[w.turn].C, C);
    add_product_nt(S, C, B);
    narrow_causal<false>(S, w.g, w.q, left);
    add_product_nt(Y, before, C);
    add_product_nt(Y, X, left);
    w.read(SCAN_Z, z);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            y[i][j] = d.down[i][j] * number_of(Y, i, j) + w.D[i] * u[i][j];
            y[i][j] *= k.share * z[i][j] * sigmoid_of(z[i][j]);
        }
    if (add) {
        w.read(FORWARD_Y, z);
        add_numbers(y, z);
    }
    w.write(k.y, SCAN_U, chunk, y, false);
}

__device__ __forceinline__ void load_forward(walker<FORWARD_TENSORS> &w, int chunk, bool add, int side)
{
    if (add)
        w.copy_rows(read_only(w.k.y), FORWARD_Y, chunk, side);
    w.copy_rows(w.k.u, SCAN_U, chunk, side);
    w.copy_rows(w.k.dt, SCAN_DT, chunk, side);
    w.copy_rows(w.k.z, SCAN_Z, chunk, side);
    w.copy_both_states(chunk, side);
}

static __global__ void __launch_bounds__(BLOCK_THREADS, 3)
    scan_forward(const __grid_constant__ scan_passes<bf16> passes)
{
    extern __shared__ float4 memory[];
    for (int d = 0; d < passes.directions; d++) {
        walker<FORWARD_TENSORS> w(passes.of[d], *reinterpret_cast<stage<FORWARD_TENSORS>(*)[2]>(memory));
        sums_of H = {};
        w.begin(blockIdx.x);
        __syncthreads(); /* what was before has been read, and written */
        load_forward(w, 0, d > 0, 0);
        for (int chunk = 0; chunk < w.chunks; chunk++, w.turn ^= 1) {
            wait_copies();
            __syncthreads();
            if (chunk + 1 < w.chunks)
                load_forward(w, chunk + 1, d > 0, w.turn ^ 1);
            forward_chunk(w, chunk, d > 0, H);
        }
    }
}

} // namespace scan_tied

#endif
