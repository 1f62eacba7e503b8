/* mamba2.h - the discrete Mamba-2 mixer of Phi-Mamba (Bick et al. 2024, "Transformers to SSMs").
 *
 *   (xBC | z | a_log) = in_proj(u)             in_proj: D -> (E + 2 G N) + E + H, no bias
 *   (x, B, C) = conv(xBC)                      causal, depthwise, with bias, no activation
 *   y = ssd(x, B, C, a_log, D)                 h[t] = a[t] h[t-1] + x[t] B[t]^T,  a = sigmoid(-a_log)
 *   out = out_proj(y * silu(z + z_bias))       out_proj: E -> D, no bias
 *
 * E = expand * D with expand 1; H heads of width P = E / H; G groups share B and C. */
#ifndef CAB_NN_MAMBA2_H
#define CAB_NN_MAMBA2_H

#include "nn/layers.h"

typedef struct cab_mamba2 {
    cab_dense in_proj, out_proj;
    cab_tensor *conv_w, *conv_b; /* (E + 2 G N, 1, K), (E + 2 G N) */
    cab_tensor *D;               /* (H) */
    cab_tensor *z_bias;          /* (E) */
    int d_inner, n_head, n_group, d_state, d_conv;
} cab_mamba2;

/* What the bridge reads: B plays the part of K, C of Q, x of V. All after the convolution. */
typedef struct cab_mamba2_taps {
    cab_tensor *x, *B, *C; /* (B, L, E), (B, L, G N), (B, L, G N): views */
    cab_tensor *a_log;     /* (B, L, H), a view: the decay is sigmoid(-a_log) */
} cab_mamba2_taps;

/* u (B, L, D) -> (B, L, D). */
cab_tensor *cab_mamba2_record(cab_graph *g, const cab_mamba2 *m, cab_tensor *u, cab_mamba2_taps *taps);
/* One token, u (B, 1, D): the same function, its state kept in the graph. */
cab_tensor *cab_mamba2_record_step(cab_graph *g, const cab_mamba2 *m, cab_tensor *u);

#endif
