/* bridge_loss.h - what the recorder of a bridge's loss tells its kernel. */
#ifndef CAB_OPS_BRIDGE_LOSS_H
#define CAB_OPS_BRIDGE_LOSS_H

#include "ops/feature.h"

enum {
    CAB_BRIDGE_X,
    CAB_BRIDGE_W1,
    CAB_BRIDGE_B1,
    CAB_BRIDGE_W2,
    CAB_BRIDGE_B2,
    CAB_BRIDGE_TARGET,
    CAB_BRIDGE_STATS,
    CAB_BRIDGE_INPUTS
};

/* The sizes that the GPU's kernel is for. */
enum { CAB_BRIDGE_IN = 16, CAB_BRIDGE_HIDDEN = 128, CAB_BRIDGE_OUT_STEP = 64, CAB_BRIDGE_OUT_MAX = 768 };

typedef struct cab_bridge_attributes {
    cab_align_attributes align;
    cab_activation_kind activation;
} cab_bridge_attributes;

#ifdef CAB_WITH_CUDA
cab_status cab_bridge_loss_forward_cuda(const cab_node *node, cab_backend *backend);
cab_status cab_bridge_loss_backward_cuda(const cab_node *node, cab_backend *backend);
/* Whether a block of this GPU has the shared memory for `out` outputs. */
bool cab_bridge_loss_has_cuda(const cab_backend *backend, int64_t out);
size_t cab_bridge_loss_scratch_cuda(const cab_node *node, const cab_backend *backend);
#endif

#endif
