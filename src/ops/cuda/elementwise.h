/* elementwise.h - activations for other kernels to ask for. */
#ifndef CAB_OPS_CUDA_ELEMENTWISE_H
#define CAB_OPS_CUDA_ELEMENTWISE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "ops/ops.h"

/* y = f(x), x and y alike; y may be x. */
cab_status cab_activate_cuda(cab_backend *backend, cab_activation_kind kind, const cab_tensor *x, const cab_tensor *y);

#ifdef __cplusplus
}
#endif
#endif
