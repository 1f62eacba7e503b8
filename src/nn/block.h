/* block.h - one layer of a model as data, and the one function that records a layer, whatever the architecture.
 *
 *   serial      x = x + mix(norm(x))     x = x + mlp(mlp_norm(x))
 *   parallel    x = x + mix(norm(x)) + mlp(mlp_norm(x)), or both of norm(x)
 *   no MLP      x = x + mix(norm(x))
 *
 * mix(u) is the sum of the layer's mixers: attention, a state-space mixer, or both side by side on the same u. A norm that is
 * absent leaves x as it is. The outputs of mixers and MLP may each have a norm of their own before they are added.
 *
 * A mixer sets its taps where it computes them: query, key, value; C, B, x; decay, and the taps of a second direction, if it
 * has them. The block sets the tap `hidden`, its input, and `mixer_in` and `mixer_out`. */
#ifndef CAB_NN_BLOCK_H
#define CAB_NN_BLOCK_H

#include "nn/attention.h"
#include "nn/discrete_mamba2.h"
#include "nn/mamba2.h"
#include "nn/vim.h"

typedef struct cab_block {
    cab_norm norm; /* before the mixers */
    /* A mixer is absent where its last projection (out, out_proj) has no weights. */
    cab_attention_mixer attention;
    cab_mamba2 mamba2;
    cab_mamba1_mixer mamba1;
    cab_discrete_mamba2 discrete;
    cab_vim_mixer vim;
    cab_norm mlp_norm;             /* before the MLP; w NULL: none, in a parallel block the mixers' */
    cab_mlp mlp;                   /* down.w NULL: none */
    cab_norm mixed_norm, fed_norm; /* of the outputs of the mixers and of the MLP; w NULL: none */
    float branch_scale;            /* factor on the outputs of mixers and MLP; 0: none */
    bool parallel;                 /* mixers and MLP both read x */
    bool x_last;  /* parallel: the sum is (mixed + mlp) + x, which rounds otherwise than (x + mixed) + mlp */
    bool x_apart; /* no MLP: the residual sum is in fp32 and apart; x is what is added to it (cab_add_rms_norm) */
} cab_block;

/* Records a layer: x (B, L, D) -> (B, L, D), in x's dtype. The context says whether these are whole sequences or, if it
 * has a position, one decoding step (L = 1). NULL once the graph has failed. */
cab_tensor *cab_block_record(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *x);
/* Its mixers alone, u (B, L, D) -> (B, L, D): what stands between the norm before them and the norm of their sum. */
cab_tensor *cab_block_mix_record(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *u);

/* Whether attention is among its mixers. */
static inline bool cab_block_attends(const cab_block *block)
{
    return block->attention.out.w != NULL;
}

/* Whether its mixers can record a decoding step. */
bool cab_block_steps(const cab_block *block);
/* Columns of one of the taps query, key and value, or C, B and x; 0: it has none. */
int64_t cab_block_width(const cab_block *block, cab_tap tap);

#endif
