/* block.h - one layer of a model as data, and the one function that records it, whatever the architecture.
 *
 *   serial      x = x + mixer(norm(x))     x = x + mlp(mlp_norm(x))
 *   parallel    x = x + mixer(norm(x)) + mlp(mlp_norm(x)), or both of norm(x)
 *   no MLP      x = x + mixer(norm(x))
 *
 * A norm that is absent leaves x as it is. What mixer and MLP give may be normed again before it is added.
 *
 * A mixer sets its taps where it makes them: query, key, value, and where it has them decay and those of its second
 * direction. The block sets `hidden`, its input. */
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
    cab_norm mlp_norm;             /* w NULL: none, or of a parallel block the other */
    cab_mlp mlp;                   /* down.w NULL: none */
    cab_norm mixed_norm, fed_norm; /* of what the mixer and the MLP give; w NULL: none */
    float branch_scale;            /* of what mixer and MLP give; 0: 1 */
    bool parallel;
    bool x_last;  /* parallel: the sum is (mixer + mlp) + x, which rounds otherwise than (x + mixer) + mlp */
    bool x_apart; /* no MLP: the sum is kept apart, in fp32, and the block hands on what it adds (cab_add_rms_norm) */
} cab_block;

/* x (B, L, D) -> (B, L, D): of a context with a position one token, else whole sequences. */
cab_tensor *cab_block_record(cab_graph *g, cab_context *context, const cab_block *block, cab_tensor *x);

/* Whether the mixer knows decoding steps. */
bool cab_block_steps(const cab_block *block);
/* Width of one of the taps query, key and value. */
int64_t cab_block_width(const cab_block *block, cab_tap tap);

#endif
