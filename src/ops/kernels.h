/* kernels.h - every kernel that all backends have, by name; those of GPUs alone stand with their ops. A backend implements each as
 * <name>_<backend>: src/ops/cpu/<family>.c, src/ops/cuda/<family>.cu. Op tables name them through CAB_KERNELS(name). */
#ifndef CAB_OPS_KERNELS_H
#define CAB_OPS_KERNELS_H

#include "tensor/graph.h"

#define CAB_ALL_KERNELS(X)                                                                                             \
    X(cab_linear_forward)                                                                                              \
    X(cab_linear_backward)                                                                                             \
    X(cab_embedding_forward)                                                                                           \
    X(cab_embedding_backward)                                                                                          \
    X(cab_patches_forward)                                                                                             \
    X(cab_insert_tokens_forward)                                                                                       \
    X(cab_insert_tokens_backward)                                                                                      \
    X(cab_select_tokens_forward)                                                                                       \
    X(cab_select_tokens_backward)                                                                                      \
    X(cab_layer_norm_forward)                                                                                          \
    X(cab_layer_norm_backward)                                                                                         \
    X(cab_rms_norm_forward)                                                                                            \
    X(cab_rms_norm_backward)                                                                                           \
    X(cab_add_rms_norm_forward)                                                                                        \
    X(cab_add_rms_norm_backward)                                                                                       \
    X(cab_activate_forward)                                                                                            \
    X(cab_activate_backward)                                                                                           \
    X(cab_swiglu_forward)                                                                                              \
    X(cab_swiglu_backward)                                                                                             \
    X(cab_add_forward)                                                                                                 \
    X(cab_add_backward)                                                                                                \
    X(cab_gate_forward)                                                                                                \
    X(cab_gate_backward)                                                                                               \
    X(cab_rotary_forward)                                                                                              \
    X(cab_rotary_backward)                                                                                             \
    X(cab_attention_forward)                                                                                           \
    X(cab_attention_backward)                                                                                          \
    X(cab_attention_step_forward)                                                                                      \
    X(cab_conv1d_forward)                                                                                              \
    X(cab_conv1d_backward)                                                                                             \
    X(cab_conv1d_step_forward)                                                                                         \
    X(cab_ssd_forward)                                                                                                 \
    X(cab_ssd_backward)                                                                                                \
    X(cab_ssd_step_forward)                                                                                            \
    X(cab_scan_forward)                                                                                                \
    X(cab_scan_backward)                                                                                               \
    X(cab_align_loss_forward)                                                                                          \
    X(cab_align_loss_backward)                                                                                         \
    X(cab_head_loss_forward)                                                                                           \
    X(cab_head_loss_backward)                                                                                          \
    X(cab_adamw_forward)                                                                                               \
    X(cab_next_token_forward)

#define CAB_DECLARE_KERNEL(name) cab_status name##_cpu(const cab_node *node, cab_backend *backend);
CAB_ALL_KERNELS(CAB_DECLARE_KERNEL)
#undef CAB_DECLARE_KERNEL

/* CAB_KERNELS(name): a kernel on every backend of this build. CAB_ON_CUDA(function): a function that only the GPU has, as
 * a further initialiser. */
#ifdef CAB_WITH_CUDA
#define CAB_DECLARE_KERNEL(name) cab_status name##_cuda(const cab_node *node, cab_backend *backend);
CAB_ALL_KERNELS(CAB_DECLARE_KERNEL)
#undef CAB_DECLARE_KERNEL
#define CAB_KERNELS(name)                                                                                              \
    {                                                                                                                  \
        [CAB_CPU] = name##_cpu, [CAB_CUDA] = name##_cuda                                                               \
    }
#define CAB_ON_CUDA(function) , [CAB_CUDA] = function
#else
#define CAB_KERNELS(name)                                                                                              \
    {                                                                                                                  \
        [CAB_CPU] = name##_cpu                                                                                         \
    }
#define CAB_ON_CUDA(function)
#endif

#endif
