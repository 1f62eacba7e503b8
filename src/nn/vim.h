/* vim.h - the bidirectional mixer of Vision Mamba (Zhu et al. 2024, "bimamba v2").
 *
 *   (x | z) = in_proj(u)                  in_proj: D -> 2 E, no bias
 *   y_f = forward(x, z)     y_b = backward(x, z), from the last token to the first, with parameters of its own
 *   out = out_proj((y_f + y_b) / 2)       out_proj: E -> D, no bias */
#ifndef CAB_NN_VIM_H
#define CAB_NN_VIM_H

#include "nn/mamba1.h"

typedef struct cab_vim_mixer {
    cab_dense in_proj, out_proj;
    cab_mamba1 forward, backward;
    int d_inner;
} cab_vim_mixer;

/* u (B, L, D) -> (B, L, D). Taps of both directions, rows in the order of the tokens; value is the forward direction's x. */
cab_tensor *cab_vim_record(cab_graph *g, const cab_context *context, const cab_vim_mixer *m, cab_tensor *u);

#endif
