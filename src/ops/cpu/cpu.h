/* cpu.h - the CPU kernels, compiled three times (baseline x86-64, AVX2, AVX-512) and picked once at run time.
 *
 * Every kernel is listed below. A kernel file defines  cab_status CAB_ISA(cab_linear_forward)(const cab_node *n,
 * cab_backend *b); CAB_ISA appends _v1, _v3 or _v4. dispatch.c defines cab_linear_forward_cpu() for op tables, which
 * calls the best one the processor has (CAB_CPU_ISA=v1|v3|v4 in the environment lowers the choice, for tests). */
#ifndef CAB_OPS_CPU_CPU_H
#define CAB_OPS_CPU_CPU_H

#include "tensor/graph.h"

#define CAB_CPU_KERNELS(X)                                                                                             \
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
    X(cab_adamw_forward)

#define CAB_DECLARE_KERNEL(name) cab_status name##_cpu(const cab_node *node, cab_backend *backend);
CAB_CPU_KERNELS(CAB_DECLARE_KERNEL)
#undef CAB_DECLARE_KERNEL

#ifdef CAB_ISA_SUFFIX
#define CAB_ISA_PASTE2(name, suffix) name##_##suffix
#define CAB_ISA_PASTE(name, suffix) CAB_ISA_PASTE2(name, suffix)
#define CAB_ISA(name) CAB_ISA_PASTE(name, CAB_ISA_SUFFIX)
#define CAB_DECLARE_KERNEL(name) cab_status CAB_ISA(name)(const cab_node *node, cab_backend *backend);
CAB_CPU_KERNELS(CAB_DECLARE_KERNEL)
#undef CAB_DECLARE_KERNEL
#endif

#endif
