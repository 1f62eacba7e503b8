/* context.h - how a model is being recorded: over whole sequences or one decoding step, and which tensors somebody wants to
 * see ("taps"). One struct goes through all layers of one recording. */
#ifndef CAB_NN_CONTEXT_H
#define CAB_NN_CONTEXT_H

#include "ops/ops.h"

/* Recorded per layer, on demand: NULL pointers are not filled in. Each array has n_layer entries. */
typedef struct cab_taps {
    /* (B, L, heads * width), as the mixer sees them (after rotation, convolution): of attention; of a layer without it the C, B
     * and x of its state-space mixer. */
    cab_tensor **query, **key, **value;
    cab_tensor **C, **B, **x; /* of every state-space mixer, beside attention or alone: (B, L, G N) twice, (B, L, E) */
    cab_tensor **hidden;      /* (B, L, D): the input of each layer */
    cab_tensor **mixer_in;    /* (B, L, D): what the layer's mixers read, behind the norm */
    cab_tensor **mixer_out;   /* (B, L, D): the sum of what they give, before its own norm or scale */
    cab_tensor **query_back, **key_back; /* of the second direction, rows in the order of the tokens */
    cab_tensor **decay,
        **decay_back; /* state-space mixers: what the decay comes from, a_log or dt (B, L, H), dt (B, L, E) */
} cab_taps;

typedef enum cab_tap {
    CAB_TAP_QUERY,
    CAB_TAP_KEY,
    CAB_TAP_VALUE,
    CAB_TAP_C,
    CAB_TAP_B,
    CAB_TAP_X,
    CAB_TAP_HIDDEN,
    CAB_TAP_MIXER_IN,
    CAB_TAP_MIXER_OUT,
    CAB_TAP_QUERY_BACK,
    CAB_TAP_KEY_BACK,
    CAB_TAP_DECAY,
    CAB_TAP_DECAY_BACK,
    CAB_TAPS
} cab_tap;

/* Rotary position embedding: dim features of every head turn, feature pair i by f[i] = theta^(-2 i / dim) a token, or by what
 * lets a model read further than it was trained on at first:
 *
 *   linear    f / factor
 *   llama3    f / factor for wavelengths beyond original / low, f for those below original / high, a mean of both between
 *   yarn      f / factor for pairs that turn less than `low` times in `original` tokens, f for those that turn more than `high`
 *             times, a mean of both between, all rounded to whole pairs
 *   longrope  f / factors[0][i] in sequences of at most `original` tokens, f / factors[1][i] in longer ones
 *
 * With yarn and longrope what is turned is multiplied by `scale`. */
typedef enum cab_rope_kind {
    CAB_ROPE_DEFAULT,
    CAB_ROPE_LINEAR,
    CAB_ROPE_LLAMA3,
    CAB_ROPE_YARN,
    CAB_ROPE_LONGROPE
} cab_rope_kind;

typedef struct cab_rope {
    double theta;
    int dim; /* 0: none */
    cab_rope_kind kind;
    double factor, low, high, scale;
    int original;            /* tokens that it was trained on at first */
    const float *factors[2]; /* longrope: dim / 2 of each, the configuration's */
} cab_rope;

enum { CAB_ROPES_MAX = 4 }; /* different ones within a model */

typedef struct cab_context {
    cab_dtype dtype;      /* of activations */
    cab_tensor *position; /* one decoding step: an I32 scalar, where the token stands. NULL: whole sequences */
    cab_tensor *starts;   /* whole sequences: (B, L) I32, the first token of each token's document; NULL: one each */
    int64_t max_length;   /* tokens that a cache of keys and values holds */
    const cab_taps *taps; /* NULL: none are wanted */
    int layer;            /* being recorded */
    bool attends;         /* attention is a mixer of that layer */
    cab_tensor *residual; /* models whose residual stream is fp32 beside the activations: its sum so far */
    struct {
        cab_rope rope;
        bool longer;
        cab_tensor *frequencies;
    } ropes[CAB_ROPES_MAX]; /* recorded so far, n_rope of them */
    int n_rope;
} cab_context;

/* Notes t as the tap of the layer that is being recorded, if it is wanted. */
void cab_context_tap(const cab_context *context, cab_tap tap, cab_tensor *t);
/* The same of a state-space mixer's C, B and x, which are query, key and value too where the layer has no attention. */
void cab_context_tap_state(const cab_context *context, cab_tensor *C, cab_tensor *B, cab_tensor *x);

/* x (B, L, n_head * width) turned by `rope`, at the positions of the context. One decoding step of longrope is one of a sequence of
 * at most `original` tokens: cab_network's step_length. */
cab_tensor *cab_context_rotate(cab_graph *g, cab_context *context, cab_tensor *x, const cab_rope *rope, int n_head);

#endif
