/* mamba1.h - the selective state-space layer of Mamba-1 (Gu & Dao 2023).
 *
 *   (x | z) = in_proj(u)                  in_proj: D -> 2 E
 *   x = silu(conv(x))                     depthwise, K taps
 *   (dt | B | C) = x_proj(x)              x_proj: E -> R + 2 N, no bias
 *   y = scan(x, dt_proj(dt), A_log, B, C, D) * silu(z)      dt_proj: R -> E; its bias is added within the scan
 *   out = out_proj(y)                     out_proj: E -> D
 */
#ifndef CAB_NN_MAMBA1_H
#define CAB_NN_MAMBA1_H

#include "nn/context.h"
#include "nn/layers.h"

/* What stands between the projections in and out. */
typedef struct cab_mamba1 {
    cab_tensor *conv_w, *conv_b; /* (E, 1, K), (E) or NULL */
    cab_dense x_proj;            /* (R + 2 N, E) */
    cab_dense dt_proj;           /* (E, R) without bias */
    cab_tensor *dt_bias;         /* (E) */
    cab_tensor *A_log, *D;       /* (E, N), (E) */
    int dt_rank, d_state;
} cab_mamba1;

/* x, convolved, and z, (B, L, E) -> what the scan reads, with which the layer ends. Taps: C and B (B, L, N), views, and x; decay
 * dt (B, L, E) without its bias; of the second direction under the names of it, without x. */
cab_scan_inputs cab_mamba1_record(cab_graph *g, const cab_context *context, const cab_mamba1 *m, cab_tensor *x,
                                  cab_tensor *z, bool back);

/* The whole mixer, from the first token to the last. */
typedef struct cab_mamba1_mixer {
    cab_dense in_proj, out_proj;
    cab_mamba1 inner;
    int d_inner;
} cab_mamba1_mixer;

/* u (B, L, D) -> (B, L, D); of a context with a position one token, its states kept in the graph. */
cab_tensor *cab_mamba1_mixer_record(cab_graph *g, const cab_context *context, const cab_mamba1_mixer *m, cab_tensor *u);

#endif
