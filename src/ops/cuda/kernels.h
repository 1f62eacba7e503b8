/* kernels.h - the table of the GPU's kernels. The rows of an op stand in order: a node takes the first that fits it, and the last takes
 * all. optimise.c rewrites lists for these kernels, and has the ops that only such lists have. */
#ifndef CAB_OPS_CUDA_KERNELS_H
#define CAB_OPS_CUDA_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "tensor/kernel.h"

/* ROW(op, direction, kernel, fits, scratch) */
#define CAB_CUDA_KERNELS(ROW)                                                                                          \
    ROW(linear, FORWARD, cab_linear_forward_cuda, cab_fits_all, cab_linear_forward_scratch_cuda)                       \
    ROW(linear, BACKWARD, cab_linear_backward_cuda, cab_fits_all, cab_linear_backward_scratch_cuda)                    \
    ROW(linear_gelu, FORWARD, cab_linear_gelu_forward_cuda, cab_fits_all, cab_linear_forward_scratch_cuda)             \
    ROW(quantise, FORWARD, cab_quantise_forward_cuda, cab_multiplies_fp8_cuda, cab_quantise_scratch_cuda)              \
    ROW(linear_fp8, FORWARD, cab_linear_fp8_forward_cuda, cab_linear_fp8_fits_cuda, cab_no_scratch)                    \
    ROW(embedding, FORWARD, cab_embedding_forward_cuda, cab_fits_all, cab_no_scratch)                                  \
    ROW(embedding, BACKWARD, cab_embedding_backward_cuda, cab_fits_all, cab_embedding_scratch_cuda)                    \
    ROW(pixels, FORWARD, cab_pixels_forward_cuda, cab_fits_all, cab_no_scratch)                                        \
    ROW(patches, FORWARD, cab_patches_forward_cuda, cab_fits_all, cab_no_scratch)                                      \
    ROW(insert_tokens, FORWARD, cab_insert_tokens_forward_cuda, cab_fits_all, cab_no_scratch)                          \
    ROW(insert_tokens, BACKWARD, cab_insert_tokens_backward_cuda, cab_fits_all, cab_no_scratch)                        \
    ROW(select_tokens, FORWARD, cab_select_tokens_forward_cuda, cab_fits_all, cab_no_scratch)                          \
    ROW(select_tokens, BACKWARD, cab_select_tokens_backward_cuda, cab_fits_all, cab_no_scratch)                        \
    ROW(order_tokens, FORWARD, cab_order_tokens_forward_cuda, cab_fits_all, cab_no_scratch)                            \
    ROW(pool_tokens, FORWARD, cab_pool_tokens_forward_cuda, cab_fits_all, cab_no_scratch)                              \
    ROW(pool_tokens, BACKWARD, cab_pool_tokens_backward_cuda, cab_fits_all, cab_no_scratch)                            \
    ROW(layer_norm, FORWARD, cab_layer_norm_forward_cuda, cab_fits_all, cab_no_scratch)                                \
    ROW(layer_norm, BACKWARD, cab_layer_norm_backward_cuda, cab_fits_all, cab_norm_scratch_cuda)                       \
    ROW(rms_norm, FORWARD, cab_rms_norm_forward_cuda, cab_fits_all, cab_no_scratch)                                    \
    ROW(rms_norm, BACKWARD, cab_rms_norm_backward_cuda, cab_fits_all, cab_norm_scratch_cuda)                           \
    ROW(add_rms_norm, FORWARD, cab_add_rms_norm_forward_cuda, cab_fits_all, cab_no_scratch)                            \
    ROW(add_rms_norm, BACKWARD, cab_add_rms_norm_backward_cuda, cab_fits_all, cab_norm_scratch_cuda)                   \
    ROW(layer_norm_of_sum, FORWARD, cab_layer_norm_of_sum_forward_cuda, cab_fits_all, cab_no_scratch)                  \
    ROW(rms_norm_of_sum, FORWARD, cab_rms_norm_of_sum_forward_cuda, cab_fits_all, cab_no_scratch)                      \
    ROW(activate, FORWARD, cab_activate_forward_cuda, cab_fits_all, cab_no_scratch)                                    \
    ROW(activate, BACKWARD, cab_activate_backward_cuda, cab_fits_all, cab_no_scratch)                                  \
    ROW(glu, FORWARD, cab_glu_forward_cuda, cab_fits_all, cab_no_scratch)                                              \
    ROW(glu, BACKWARD, cab_glu_backward_cuda, cab_fits_all, cab_no_scratch)                                            \
    ROW(add, FORWARD, cab_add_forward_cuda, cab_fits_all, cab_no_scratch)                                              \
    ROW(add, BACKWARD, cab_add_backward_cuda, cab_fits_all, cab_no_scratch)                                            \
    ROW(gate, FORWARD, cab_gate_forward_cuda, cab_fits_all, cab_no_scratch)                                            \
    ROW(gate, BACKWARD, cab_gate_backward_cuda, cab_fits_all, cab_gate_scratch_cuda)                                   \
    ROW(rotary, FORWARD, cab_rotary_forward_cuda, cab_fits_all, cab_no_scratch)                                        \
    ROW(rotary, BACKWARD, cab_rotary_backward_cuda, cab_fits_all, cab_no_scratch)                                      \
    ROW(attention, FORWARD, cab_sdpa_run, cab_sdpa_fits, cab_sdpa_scratch)                                             \
    ROW(attention, FORWARD, cab_flash_forward, cab_flash_fits, cab_no_scratch)                                         \
    ROW(attention, FORWARD, cab_attention_forward_cuda, cab_fits_all, cab_no_scratch)                                  \
    ROW(attention, BACKWARD, cab_sdpa_run, cab_sdpa_fits, cab_sdpa_scratch)                                            \
    ROW(attention, BACKWARD, cab_flash_attention_backward, cab_flash_fits, cab_attention_scratch_cuda)                 \
    ROW(attention, BACKWARD, cab_attention_backward_cuda, cab_fits_all, cab_attention_scratch_cuda)                    \
    ROW(attention_step, FORWARD, cab_attention_step_forward_cuda, cab_fits_all, cab_attention_step_scratch_cuda)       \
    ROW(conv1d, FORWARD, cab_conv1d_forward_cuda, cab_fits_all, cab_no_scratch)                                        \
    ROW(conv1d, BACKWARD, cab_conv1d_backward_cuda, cab_fits_all, cab_conv1d_backward_scratch_cuda)                    \
    ROW(conv1d_step, FORWARD, cab_conv1d_step_forward_cuda, cab_fits_all, cab_no_scratch)                              \
    ROW(conv2d, FORWARD, cab_conv2d_forward_cuda, cab_fits_all, cab_no_scratch)                                        \
    ROW(conv2d, BACKWARD, cab_conv2d_backward_cuda, cab_fits_all, cab_conv2d_backward_scratch_cuda)                    \
    ROW(ssd, FORWARD, cab_ssd_forward_cuda, cab_fits_all, cab_ssd_forward_scratch_cuda)                                \
    ROW(ssd, BACKWARD, cab_ssd_backward_cuda, cab_fits_all, cab_ssd_backward_scratch_cuda)                             \
    ROW(ssd_step, FORWARD, cab_ssd_step_forward_cuda, cab_fits_all, cab_no_scratch)                                    \
    ROW(scan, FORWARD, cab_scan_forward_cuda, cab_fits_all, cab_scan_forward_scratch_cuda)                             \
    ROW(scan, BACKWARD, cab_scan_backward_cuda, cab_fits_all, cab_scan_backward_scratch_cuda)                          \
    ROW(scan_step, FORWARD, cab_scan_step_forward_cuda, cab_fits_all, cab_no_scratch)                                  \
    ROW(scan_of_product, FORWARD, cab_scan_forward_cuda, cab_fits_all, cab_scan_forward_scratch_cuda)                  \
    ROW(scan_of_product, BACKWARD, cab_scan_backward_cuda, cab_fits_all, cab_scan_backward_scratch_cuda)               \
    ROW(align_loss, FORWARD, cab_align_loss_forward_cuda, cab_fits_all, cab_align_scratch_cuda)                        \
    ROW(align_loss, BACKWARD, cab_align_loss_backward_cuda, cab_fits_all, cab_align_scratch_cuda)                      \
    ROW(inverse_variance, FORWARD, cab_inverse_variance_forward_cuda, cab_fits_all, cab_inverse_variance_scratch_cuda) \
    ROW(align_stats, FORWARD, cab_align_stats_forward_cuda, cab_fits_all, cab_no_scratch)                              \
    ROW(mixer_decay, FORWARD, cab_mixer_decay_forward_cuda, cab_fits_all, cab_no_scratch)                              \
    ROW(mixer_decay, BACKWARD, cab_mixer_decay_backward_cuda, cab_fits_all, cab_mixer_decay_scratch_cuda)              \
    ROW(attention_rows, FORWARD, cab_attention_rows_forward_cuda, cab_fits_all, cab_attention_rows_scratch_cuda)       \
    ROW(mixer_matrix_loss, FORWARD, cab_mixer_matrix_loss_cuda, cab_fits_all, cab_mixer_matrix_scratch_cuda)           \
    ROW(mixer_matrix_loss, BACKWARD, cab_mixer_matrix_loss_cuda, cab_fits_all, cab_mixer_matrix_scratch_cuda)          \
    ROW(bridge_loss, FORWARD, cab_bridge_loss_cuda, cab_bridge_loss_fits_cuda, cab_bridge_loss_scratch_cuda)           \
    ROW(bridge_loss, BACKWARD, cab_bridge_loss_cuda, cab_bridge_loss_fits_cuda, cab_bridge_loss_scratch_cuda)          \
    ROW(head_loss, FORWARD, cab_head_loss_forward_cuda, cab_fits_all, cab_head_loss_scratch_cuda)                      \
    ROW(head_loss, BACKWARD, cab_head_loss_backward_cuda, cab_fits_all, cab_head_loss_scratch_cuda)                    \
    ROW(head_score, FORWARD, cab_head_score_forward_cuda, cab_fits_all, cab_head_score_scratch_cuda)                   \
    ROW(next_token, FORWARD, cab_next_token_forward_cuda, cab_fits_all, cab_no_scratch)

#define CAB_DECLARE_ROW(op, direction, kernel, fits, scratch)                                                          \
    cab_status kernel(const cab_node *node, cab_backend *backend);                                                     \
    bool fits(const cab_node *node, const cab_backend *backend);                                                       \
    size_t scratch(const cab_node *node, const cab_backend *backend);
CAB_CUDA_KERNELS(CAB_DECLARE_ROW)
#undef CAB_DECLARE_ROW

/* AdamW has a table of pointers besides, which the host writes before every run. */
cab_status cab_adamw_forward_cuda(const cab_node *node, cab_backend *backend);
cab_status cab_gradient_norm_forward_cuda(const cab_node *node, cab_backend *backend);
cab_status cab_adopt_forward_cuda(const cab_node *node, cab_backend *backend);
cab_status cab_adamw_prepare_cuda(const cab_node *node, cab_backend *backend);
size_t cab_adamw_prepared_cuda(const cab_node *node, const cab_backend *backend);
size_t cab_adamw_scratch_cuda(const cab_node *node, const cab_backend *backend);

extern const cab_kernel_table cab_cuda_kernels;

#ifdef __cplusplus
}
#endif
#endif
