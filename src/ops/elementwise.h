/* elementwise.h - what the elementwise recorders tell their kernels. */
#ifndef CAB_OPS_ELEMENTWISE_H
#define CAB_OPS_ELEMENTWISE_H

#include "ops/ops.h"

enum { CAB_ADD_MAX = 4 };

typedef struct cab_activate_attributes {
    cab_activation_kind kind;
} cab_activate_attributes;

typedef struct cab_add_attributes {
    float scale; /* of the sum */
} cab_add_attributes;

/* y = f(x) on the GPU, x and y alike; y may be x. */
cab_status cab_activate_cuda(cab_backend *backend, cab_activation_kind kind, const cab_tensor *x, const cab_tensor *y);
/* Whether next is a layer norm, and of a size that the GPU takes with the sum that it is of. */
bool cab_add_absorbs_cuda(const cab_node *node, const cab_node *next, cab_backend *backend);
/* On the GPU: the partial sums of z_bias's gradient. */
size_t cab_gate_scratch_cuda(const cab_node *node, const cab_backend *backend);

#endif
