/* ssd_wgmma.cuh - what the kernels of the Mamba-2 recurrence for Hopper share: a state's step to the next chunk. */
#ifndef CAB_OPS_CUDA_SSD_WGMMA_CUH
#define CAB_OPS_CUDA_SSD_WGMMA_CUH

#include "ops/cuda/ssd_tiles.cuh"
#include "ops/cuda/wgmma.cuh"

/* state = whole state + left^T (scale right), by a team: h with x, delta exp(S[end] - S), B; dh with dy, exp(S), C. */
template <int NT>
__device__ __forceinline__ void advance_state(wide_sums<NT> &state, const char *left, const char *right, const float *scale,
                                              float whole, const place &p)
{
    tile_rows a;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        load_left_transposed(a[k], shared_address(left), p.lanes, p.warp, k);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 s = *(const float2 *)(scale + 16 * k + 8 * (i / 2) + 2 * p.q);
            a[k][i] = pack(s.x * low_half(a[k][i]), s.y * high_half(a[k][i]));
        }
    }
#pragma unroll
    for (int n = 0; n < 8 * NT; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            state[n][e] *= whole;
    begin_through(state, a, right, true);
    wgmma_wait<0>();
    keep(state);
}

#endif
