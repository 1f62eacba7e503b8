/* kernels.h - the table of the CPU's kernels: which op, which direction, by which function, with how much scratch.
 *
 * A function stands here without its suffix: its file is compiled once per instruction set, and kernels.c makes three rows of each line,
 * from AVX-512 to the baseline, of which a node gets the first that the processor has. */
#ifndef CAB_OPS_CPU_KERNELS_H
#define CAB_OPS_CPU_KERNELS_H

#include "tensor/kernel.h"

/* ROW(op, direction, kernel, scratch) */
#define CAB_CPU_KERNELS(ROW)                                                                                           \
    ROW(linear, FORWARD, cab_linear_forward, cab_linear_forward_scratch)                                               \
    ROW(linear, BACKWARD, cab_linear_backward, cab_linear_backward_scratch)                                            \
    ROW(embedding, FORWARD, cab_embedding_forward, cab_no_scratch)                                                     \
    ROW(embedding, BACKWARD, cab_embedding_backward, cab_no_scratch)                                                   \
    ROW(pixels, FORWARD, cab_pixels_forward, cab_pixels_scratch)                                                       \
    ROW(patches, FORWARD, cab_patches_forward, cab_no_scratch)                                                         \
    ROW(insert_tokens, FORWARD, cab_insert_tokens_forward, cab_no_scratch)                                             \
    ROW(insert_tokens, BACKWARD, cab_insert_tokens_backward, cab_no_scratch)                                           \
    ROW(select_tokens, FORWARD, cab_select_tokens_forward, cab_no_scratch)                                             \
    ROW(select_tokens, BACKWARD, cab_select_tokens_backward, cab_no_scratch)                                           \
    ROW(order_tokens, FORWARD, cab_order_tokens_forward, cab_no_scratch)                                               \
    ROW(pool_tokens, FORWARD, cab_pool_tokens_forward, cab_no_scratch)                                                 \
    ROW(pool_tokens, BACKWARD, cab_pool_tokens_backward, cab_no_scratch)                                               \
    ROW(layer_norm, FORWARD, cab_layer_norm_forward, cab_norm_forward_scratch)                                         \
    ROW(layer_norm, BACKWARD, cab_layer_norm_backward, cab_norm_backward_scratch)                                      \
    ROW(rms_norm, FORWARD, cab_rms_norm_forward, cab_norm_forward_scratch)                                             \
    ROW(rms_norm, BACKWARD, cab_rms_norm_backward, cab_norm_backward_scratch)                                          \
    ROW(add_rms_norm, FORWARD, cab_add_rms_norm_forward, cab_norm_forward_scratch)                                     \
    ROW(add_rms_norm, BACKWARD, cab_add_rms_norm_backward, cab_add_norm_backward_scratch)                              \
    ROW(activate, FORWARD, cab_activate_forward, cab_no_scratch)                                                       \
    ROW(activate, BACKWARD, cab_activate_backward, cab_no_scratch)                                                     \
    ROW(glu, FORWARD, cab_glu_forward, cab_no_scratch)                                                                 \
    ROW(glu, BACKWARD, cab_glu_backward, cab_no_scratch)                                                               \
    ROW(add, FORWARD, cab_add_forward, cab_no_scratch)                                                                 \
    ROW(add, BACKWARD, cab_add_backward, cab_no_scratch)                                                               \
    ROW(gate, FORWARD, cab_gate_forward, cab_no_scratch)                                                               \
    ROW(gate, BACKWARD, cab_gate_backward, cab_gate_backward_scratch)                                                  \
    ROW(rotary, FORWARD, cab_rotary_forward, cab_rotary_scratch)                                                       \
    ROW(rotary, BACKWARD, cab_rotary_backward, cab_rotary_scratch)                                                     \
    ROW(attention, FORWARD, cab_attention_forward, cab_attention_scratch)                                              \
    ROW(attention, BACKWARD, cab_attention_backward, cab_attention_scratch)                                            \
    ROW(attention_step, FORWARD, cab_attention_step_forward, cab_attention_step_scratch)                               \
    ROW(conv1d, FORWARD, cab_conv1d_forward, cab_conv1d_forward_scratch)                                               \
    ROW(conv1d, BACKWARD, cab_conv1d_backward, cab_conv1d_backward_scratch)                                            \
    ROW(conv1d_step, FORWARD, cab_conv1d_step_forward, cab_no_scratch)                                                 \
    ROW(conv2d, FORWARD, cab_conv2d_forward, cab_conv2d_forward_scratch)                                               \
    ROW(conv2d, BACKWARD, cab_conv2d_backward, cab_conv2d_backward_scratch)                                            \
    ROW(ssd, FORWARD, cab_ssd_forward, cab_ssd_forward_scratch)                                                        \
    ROW(ssd, BACKWARD, cab_ssd_backward, cab_ssd_backward_scratch)                                                     \
    ROW(ssd_step, FORWARD, cab_ssd_step_forward, cab_no_scratch)                                                       \
    ROW(scan, FORWARD, cab_scan_forward, cab_scan_forward_scratch)                                                     \
    ROW(scan, BACKWARD, cab_scan_backward, cab_scan_backward_scratch)                                                  \
    ROW(scan_step, FORWARD, cab_scan_step_forward, cab_no_scratch)                                                     \
    ROW(align_loss, FORWARD, cab_align_loss_forward, cab_align_loss_scratch)                                           \
    ROW(align_loss, BACKWARD, cab_align_loss_backward, cab_align_loss_scratch)                                         \
    ROW(inverse_variance, FORWARD, cab_inverse_variance_forward, cab_inverse_variance_scratch)                         \
    ROW(mixer_decay, FORWARD, cab_mixer_decay_forward, cab_no_scratch)                                                 \
    ROW(mixer_decay, BACKWARD, cab_mixer_decay_backward, cab_mixer_decay_backward_scratch)                             \
    ROW(attention_rows, FORWARD, cab_attention_rows_forward, cab_attention_rows_scratch)                               \
    ROW(mixer_matrix_loss, FORWARD, cab_mixer_matrix_loss_forward, cab_mixer_matrix_loss_scratch)                      \
    ROW(mixer_matrix_loss, BACKWARD, cab_mixer_matrix_loss_backward, cab_mixer_matrix_loss_scratch)                    \
    ROW(head_loss, FORWARD, cab_head_loss_forward, cab_head_loss_scratch)                                              \
    ROW(head_loss, BACKWARD, cab_head_loss_backward, cab_head_loss_scratch)                                            \
    ROW(head_score, FORWARD, cab_head_score_forward, cab_head_score_scratch)                                           \
    ROW(adamw, FORWARD, cab_adamw_forward, cab_adamw_scratch)                                                          \
    ROW(gradient_norm, FORWARD, cab_gradient_norm_forward, cab_adamw_scratch)                                          \
    ROW(adopt, FORWARD, cab_adopt_forward, cab_adamw_scratch)                                                          \
    ROW(next_token, FORWARD, cab_next_token_forward, cab_next_token_scratch)

/* Between ranks (collective.c), once for all instruction sets. */
cab_status cab_cpu_reduce(const cab_node *node, cab_backend *backend);
cab_status cab_cpu_gather(const cab_node *node, cab_backend *backend);
cab_status cab_cpu_collect(const cab_node *node, cab_backend *backend);

/* Scratch of the kernels, in bytes: attention_blocks.c has that of attention, scratch.c that of the others. */
#define CAB_DECLARE_SCRATCH(op, direction, kernel, scratch)                                                            \
    size_t scratch(const cab_node *node, const cab_backend *backend);
CAB_CPU_KERNELS(CAB_DECLARE_SCRATCH)
#undef CAB_DECLARE_SCRATCH

extern const cab_kernel_table cab_cpu_kernels;

#endif
