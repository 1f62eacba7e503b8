/* cudnn_attention.h - attention as cuDNN graphs: what they are, and the plans a backend keeps of them. C and C++. */
#ifndef CAB_OPS_CUDA_CUDNN_ATTENTION_H
#define CAB_OPS_CUDA_CUDNN_ATTENTION_H

#ifdef __cplusplus
extern "C" {
#endif

#include "tensor/graph.h"

struct cab_cudnn_graph;

/* All that a plan depends on. ld: elements between tokens; those of the gradients are 0 in a forward shape. */
typedef struct cab_sdpa_shape {
    int64_t batch, length, n_head, n_kv_head, head_dim, window;
    struct {
        int64_t q, k, v, y, dy, dq, dk, dv;
    } ld;
    float scale;
    int causal, backward;
} cab_sdpa_shape;

/* Records the op's formula into an empty graph. */
void cab_sdpa_record(struct cab_cudnn_graph *g, const cab_sdpa_shape *shape);

/* The rows of kernels.h: cuDNN is for forward and backward nodes of attention in bf16, heads of a multiple of 8 up to 256, tensors on
 * 16-byte boundaries and, backward, all three gradients, written and not added to. A first question plans the graph, which takes a second
 * or so; the backend keeps the answer. */

#ifdef __cplusplus
}
#endif
#endif
