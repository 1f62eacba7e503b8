/* mamba2.h - the mixer of Mamba-2 as it was published (Dao & Gu 2024, "Transformers are SSMs").
 *
 *   (z | xBC | dt) = in_proj(u)                      in_proj: D -> E + (E + 2 G N) + H
 *   (x, B, C) = silu(conv(xBC))                      causal, depthwise, K taps
 *   y = ssd(x, B, C, dt)                             delta = softplus(dt + dt_bias),  a = exp(-delta exp(A_log)),
 *                                                    h[t] = a[t] h[t-1] + delta[t] x[t] B[t]^T,  y = h C + D x
 *   out = out_proj(y * silu(z))                      out_proj: E -> D
 *
 * or with an RMS norm over each of the G groups of E / G: out_proj(norm(y * silu(z))), or out_proj(norm(y) * silu(z)).
 *
 * H heads of width P = E / H; head h reads B and C of group h / (H / G).
 *
 * Of both directions at once, for images (`both`): in_proj gives two dt to a head, D -> E + (E + 2 G N) + 2 H, for the tokens before and
 * behind (with shared_decay one for both), and y is multiplied by token_scale / L, so that it is a mean over as many tokens as there are.
 * The convolution, if there is one, is over the grid of patches (cab_conv2d()). */
#ifndef CAB_NN_MAMBA2_H
#define CAB_NN_MAMBA2_H

#include "nn/context.h"
#include "nn/layers.h"

typedef struct cab_mamba2 {
    cab_dense in_proj, out_proj;
    cab_tensor *conv_w,
        *conv_b; /* (E + 2 G N, 1, K), of both directions (E + 2 G N, 1, K, K), or NULL: none; (E + 2 G N) or NULL */
    int grid_first, grid_width; /* of both directions: tokens before the grid of patches, patches of one of its rows */
    cab_tensor *dt_bias, *A_log,
        *D;            /* (H); of both directions dt_bias and A_log (2 H), first those of the tokens before */
    cab_norm norm;     /* (E); w NULL: none */
    bool norm_first;   /* the gate reads what the norm gives */
    bool both;         /* every token sees those behind it too */
    bool shared_decay; /* by the same dt, dt_bias and A_log, of H heads */
    float token_scale; /* of both directions: y is multiplied by it over the tokens of a sequence; 0: it is not */
    float input_scale; /* of u, before all else; 0: 1 */
    int d_inner, n_head, n_group, d_state;
} cab_mamba2;

/* u (B, L, D) -> (B, L, D); of a context with a position one token, its states kept in the graph. Taps, all after the
 * convolution: C and B (B, L, G N), x (B, L, E); decay dt (B, L, H), without its bias; views. */
cab_tensor *cab_mamba2_record(cab_graph *g, const cab_context *context, const cab_mamba2 *m, cab_tensor *u);

#endif
