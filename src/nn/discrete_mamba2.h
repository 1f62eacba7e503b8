/* discrete_mamba2.h - the discrete Mamba-2 mixer of Phi-Mamba (Bick et al. 2024, "Transformers to SSMs").
 *
 *   (xBC | z | a_log) = in_proj(u)             in_proj: D -> (E + 2 G N) + E + H, no bias
 *   (x, B, C) = conv(xBC)                      causal, depthwise, with bias, no activation
 *   y = ssd(x, B, C, a_log, D)                 h[t] = a[t] h[t-1] + x[t] B[t]^T,  a = sigmoid(-a_log)
 *   out = out_proj(y * silu(z + z_bias))       out_proj: E -> D, no bias
 *
 * E = expand * D with expand 1; H heads of width P = E / H; G groups share B and C. */
#ifndef CAB_NN_DISCRETE_MAMBA2_H
#define CAB_NN_DISCRETE_MAMBA2_H

#include "nn/context.h"
#include "nn/layers.h"

typedef struct cab_discrete_mamba2 {
    cab_dense in_proj, out_proj;
    cab_tensor *conv_w, *conv_b; /* (E + 2 G N, 1, K), (E + 2 G N) */
    cab_tensor *D;               /* (H) */
    cab_tensor *z_bias;          /* (E) */
    int d_inner, n_head, n_group, d_state, d_conv;
} cab_discrete_mamba2;

/* u (B, L, D) -> (B, L, D); of a context with a position one token, its state kept in the graph. Taps, all after the
 * convolution: query C and key B (B, L, G N), value x (B, L, E), decay a_log (B, L, H); views. */
cab_tensor *cab_discrete_mamba2_record(cab_graph *g, const cab_context *context, const cab_discrete_mamba2 *m,
                                       cab_tensor *u);

#endif
