/* bridge_loss.h - what the recorder of a bridge's loss tells its kernel. Weights and biases are bf16. */
#ifndef CAB_OPS_BRIDGE_LOSS_H
#define CAB_OPS_BRIDGE_LOSS_H

#include "ops/feature.h"

extern const cab_op cab_op_bridge_loss;

enum {
    CAB_BRIDGE_X,
    CAB_BRIDGE_W1,
    CAB_BRIDGE_B1,
    CAB_BRIDGE_W2,
    CAB_BRIDGE_B2,
    CAB_BRIDGE_TARGET,
    CAB_BRIDGE_STATS,
    CAB_BRIDGE_SCALE,
    CAB_BRIDGE_INPUTS
};

typedef struct cab_bridge_attributes {
    cab_align_attributes align;
    cab_activation_kind activation;
} cab_bridge_attributes;

#endif
