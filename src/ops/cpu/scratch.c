/* scratch.c - how much memory the CPU's kernels work in, in bytes. */
#include "ops/conv1d.h"
#include "ops/conv2d.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/head_score_workspace.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/matrix.h"
#include "ops/cpu/mixer_matrix_workspace.h"
#include "ops/cpu/scan_workspace.h"
#include "ops/cpu/ssd_workspace.h"
#include "ops/cpu/vec.h"
#include "ops/feature.h"
#include "ops/head_loss_workspace.h"
#include "ops/matrix.h"
#include "ops/next_token.h"
#include "ops/norm.h"
#include "ops/optimizer.h"
#include "ops/pixels.h"

size_t cab_linear_forward_scratch(const cab_node *node, const cab_backend *backend)
{
    cab_gemm_shape y = cab_linear_y(node);
    return cab_gemm_scratch_of(backend, &y);
}

size_t cab_linear_backward_scratch(const cab_node *node, const cab_backend *backend)
{
    cab_gemm_shape shapes[3];
    int64_t rows = cab_rows(node->in[0]);
    int n = 0;
    size_t most = 0;
    if (node->gin[0])
        shapes[n++] = cab_linear_dx(node);
    if (node->gin[1] && rows >= CAB_LINEAR_CHUNK)
        shapes[n++] = cab_linear_dw(node, CAB_LINEAR_CHUNK);
    if (node->gin[1] && rows % CAB_LINEAR_CHUNK > 0)
        shapes[n++] = cab_linear_dw(node, rows % CAB_LINEAR_CHUNK);
    for (int i = 0; i < n; i++) {
        size_t bytes = cab_gemm_scratch_of(backend, &shapes[i]);
        most = bytes > most ? bytes : most;
    }
    return most;
}

size_t cab_norm_forward_scratch(const cab_node *node, const cab_backend *backend)
{
    return (size_t)cab_columns(node->in[0]) * CAB_NORM_ROWS * (size_t)backend->threads * sizeof(float);
}

size_t cab_norm_backward_scratch(const cab_node *node, const cab_backend *backend)
{
    return cab_norm_forward_scratch(node, backend) + (size_t)cab_columns(node->in[0]) * 2 * CAB_BLOCKS * sizeof(float);
}

size_t cab_add_norm_backward_scratch(const cab_node *node, const cab_backend *backend)
{
    const size_t rows = CAB_NORM_ROWS * (size_t)backend->threads + CAB_BLOCKS;
    return (size_t)cab_columns(node->out[1]) * rows * sizeof(float);
}

/* Per thread a line of a partner's picture. */
size_t cab_pixels_scratch(const cab_node *node, const cab_backend *backend)
{
    if (node->in[CAB_PIXELS_BLEND] == NULL)
        return 0;
    return (size_t)(node->out[0]->shape[1] * cab_columns(node->out[0])) * (size_t)backend->threads * sizeof(float);
}

/* The partial sums of z_bias's gradient. */
size_t cab_gate_backward_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return node->gin[2] ? (size_t)cab_columns(node->in[0]) * CAB_BLOCKS * sizeof(float) : 0;
}

/* The filters, transposed to (K, E) so that channels are dense, and the bias. */
static size_t filter_bytes(const cab_node *node)
{
    return (size_t)(cab_elements(node->in[1]) + cab_rows(node->in[1])) * sizeof(float);
}

size_t cab_conv1d_forward_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return filter_bytes(node);
}

/* Besides, one partial gradient of filters and bias per task's tokens, summed in order at the end. */
size_t cab_conv1d_backward_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const int64_t *shape = node->in[0]->shape;
    const int64_t partials = shape[0] * ((shape[1] + CAB_CONV1D_TOKENS - 1) / CAB_CONV1D_TOKENS);
    return filter_bytes(node) * (size_t)(1 + partials);
}

size_t cab_conv2d_forward_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_conv2d_shape s = cab_conv2d_shape_of(node);
    return (size_t)(s.E * (s.side * s.side + 1)) * sizeof(float);
}

/* Besides, one partial gradient of filters and bias per image, and per thread the gradients of u of a block of channels of an image. */
size_t cab_conv2d_backward_scratch(const cab_node *node, const cab_backend *backend)
{
    const cab_conv2d_shape s = cab_conv2d_shape_of(node);
    const size_t grids = (size_t)(s.height * s.width * CAB_CONV2D_BLOCK) * (size_t)backend->threads * sizeof(float);
    return cab_conv2d_forward_scratch(node, backend) * (size_t)(1 + s.images) + grids;
}

size_t cab_ssd_forward_scratch(const cab_node *node, const cab_backend *backend)
{
    return cab_ssd_workspace_bytes(node, false, backend->threads);
}

size_t cab_ssd_backward_scratch(const cab_node *node, const cab_backend *backend)
{
    return cab_ssd_workspace_bytes(node, true, backend->threads);
}

size_t cab_scan_forward_scratch(const cab_node *node, const cab_backend *backend)
{
    const cab_scan_shape shape = cab_scan_shape_of(node);
    return cab_scan_workspace_bytes(&shape, false, backend->threads);
}

size_t cab_scan_backward_scratch(const cab_node *node, const cab_backend *backend)
{
    const cab_scan_shape shape = cab_scan_shape_of(node);
    return cab_scan_workspace_bytes(&shape, true, backend->threads);
}

/* One partial sum per block of rows; per sequence and column a maximum and the inverse of a sum. */
/* Partial sums, and what a softmax over tokens needs of every column. */
static size_t align_scratch(const cab_node *node, const cab_tensor *target, int64_t partials)
{
    const cab_align_attributes *attributes = node->attributes;
    size_t bytes = (size_t)partials * sizeof(double);
    if (attributes->map == CAB_MAP_SOFTMAX_TOKENS)
        bytes += 2 * (size_t)(target->shape[0] * cab_columns(target)) * sizeof(float);
    return bytes;
}

size_t cab_align_loss_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return align_scratch(node, node->in[1], cab_align_blocks(cab_rows(node->in[0])));
}

size_t cab_inverse_variance_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const int64_t blocks = cab_align_blocks(cab_align_length(node->attributes, node->in[0]));
    return align_scratch(node, node->in[0], 2 * node->in[0]->shape[0] * blocks);
}

/* Partial sums of dt_bias's gradient and of A_log's. */
size_t cab_mixer_decay_backward_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    return 2 * (size_t)cab_columns(node->in[CAB_DECAY_DT]) * CAB_BLOCKS * sizeof(float);
}

size_t cab_attention_rows_scratch(const cab_node *node, const cab_backend *backend)
{
    return cab_rows_workspace_bytes(node, backend->threads);
}

size_t cab_mixer_matrix_loss_scratch(const cab_node *node, const cab_backend *backend)
{
    return cab_mixer_workspace_bytes(node, backend->threads);
}

size_t cab_head_loss_scratch(const cab_node *node, const cab_backend *backend)
{
    const cab_head_workspace w = cab_head_workspace_of(node);
    const int64_t last = w.rows % w.chunk != 0 ? w.rows % w.chunk : w.chunk;
    size_t most = 0;
    for (int product = 0; product < CAB_HEAD_PRODUCTS; product++)
        for (int i = 0; i < 4 && cab_head_needs(node, product); i++) {
            cab_gemm_shape shape = cab_head_shape(node, product, i & 1 ? last : w.chunk, w.ld, i & 2);
            size_t bytes = cab_gemm_scratch_of(backend, &shape);
            most = bytes > most ? bytes : most;
        }
    return w.gemm + most;
}

size_t cab_head_score_scratch(const cab_node *node, const cab_backend *backend)
{
    const cab_score_workspace w = cab_score_workspace_of(node, backend->threads);
    const int64_t last = w.rows % w.chunk != 0 ? w.rows % w.chunk : w.chunk;
    size_t most = 0;
    for (int i = 0; i < 2; i++) {
        const cab_gemm_shape shape = cab_head_shape(node, CAB_HEAD_LOGITS, i ? last : w.chunk, w.ld, true);
        const size_t bytes = cab_gemm_scratch_of(backend, &shape);
        most = bytes > most ? bytes : most;
    }
    return w.gemm + most;
}

/* Per thread: logits with their ids, to be sorted. */
size_t cab_next_token_scratch(const cab_node *node, const cab_backend *backend)
{
    const size_t words = (size_t)cab_columns(node->in[CAB_NEXT_LOGITS]);
    return words * (sizeof(float) + sizeof(int32_t)) * (size_t)backend->threads;
}

size_t cab_adamw_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_adamw_attributes *attributes = node->attributes;
    return attributes->blocks * sizeof(cab_adamw_block);
}
