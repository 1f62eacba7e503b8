/* attention.h - the mixer of a Transformer layer.
 *
 *   q, k, v = projections of u      q, k normed, where they are      q, k turned by the rotary embedding      out = out(softmax(scale q k^T) v)
 *
 * One decoding step keeps keys and values of all earlier tokens in the graph. */
#ifndef CAB_NN_ATTENTION_H
#define CAB_NN_ATTENTION_H

#include "nn/context.h"
#include "nn/layers.h"

typedef struct cab_attention_mixer {
    cab_dense qkv;     /* outputs of Q, then K, then V, in one product; w NULL: three: */
    cab_dense q, k, v; /* D -> n_head * head_dim, n_kv_head * head_dim, the same */
    cab_norm q_norm,
        k_norm; /* before the rotation, of head_dim elements: each head's, of all: their heads' together; w NULL: none */
    cab_dense out; /* n_head * head_dim -> D */
    cab_rope rope;
    float query_scale; /* of q, where it is scaled before attention sees it and not its logits; 0: 1 */
    cab_attention_shape shape;
} cab_attention_mixer;

/* u (B, L, D) -> (B, L, D). Taps: query, key, value. */
cab_tensor *cab_attention_mixer_record(cab_graph *g, cab_context *context, const cab_attention_mixer *m, cab_tensor *u);

#endif
