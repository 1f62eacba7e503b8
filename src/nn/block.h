/* block.h - one layer of a model as data, and the one function that records a layer, whatever the architecture.
 *
 *   serial      x = x + mixer(norm(x))     x = x + mlp(mlp_norm(x))
 *   parallel    x = x + mixer(norm(x)) + mlp(mlp_norm(x)), or both of norm(x)
 *   no MLP      x = x + mixer(norm(x))
 *
 * A norm that is absent leaves x as it is. The outputs of mixer and MLP may each have a norm of their own before they
 * are added.
 *
 * A mixer sets its taps where it computes them: query, key, value; decay, and the taps of a second direction, if it has
 * them. The block sets the tap `hidden`, its input. */
#ifndef CAB_NN_BLOCK_H
#define CAB_NN_BLOCK_H

#include "nn/attention.h"
#include "nn/mamba2.h"
#include "nn/vim.h"

typedef enum cab_mixer_kind { CAB_MIXER_ATTENTION, CAB_MIXER_MAMBA2, CAB_MIXER_VIM } cab_mixer_kind;

typedef struct cab_block {
    cab_norm norm; /* before the mixer */
    cab_mixer_kind kind;
    union {
        cab_attention_mixer attention;
        cab_mamba2 mamba2;
        cab_vim_mixer vim;
    };
    cab_norm mlp_norm;             /* before the MLP; w NULL: none, in a parallel block the mixer's */
    cab_mlp mlp;                   /* down.w NULL: none */
    cab_norm mixed_norm, fed_norm; /* of the outputs of the mixer and of the MLP; w NULL: none */
    float branch_scale;            /* factor on the outputs of mixer and MLP; 0: none */
    bool parallel;                 /* mixer and MLP both read x */
    bool x_last;  /* parallel: the sum is (mixer + mlp) + x, which rounds otherwise than (x + mixer) + mlp */
    bool x_apart; /* no MLP: the residual sum is in fp32 and apart; x is what is added to it (cab_add_rms_norm) */
} cab_block;

/* Records a layer: x (B, L, D) -> (B, L, D), in x's dtype. The context says whether these are whole sequences or, if it
 * has a position, one decoding step (L = 1). NULL once the graph has failed. */
cab_tensor *cab_block_record(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *x);

/* Whether the mixer can record a decoding step. */
bool cab_block_steps(const cab_block *block);
/* Columns of one of the taps query, key and value. */
int64_t cab_block_width(const cab_block *block, cab_tap tap);

#endif
