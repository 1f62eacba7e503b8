/* head_loss_workspace.h - the matrix products of the vocabulary losses and the scratch they share.
 *
 * Of R = cab_head_chunk() rows, with V' = V rounded up to 16:
 *
 *   [ student's logits (R, V') fp32 ] [ teacher's logits (R, V') fp32 ] [ dlogits (R, V') bf16 ] [ results, 3 floats per row
 *   of all ] [ oneDNN's own ]
 *
 * The teacher's part is there if there is a teacher; dlogits only in the backward pass of bf16 (in fp32 they replace the
 * student's logits). So at most 10 bytes per element of a chunk: 80 MiB for V = 8192, where (B, L, V) in fp32 may be
 * gigabytes. */
#ifndef CAB_OPS_CPU_HEAD_LOSS_WORKSPACE_H
#define CAB_OPS_CPU_HEAD_LOSS_WORKSPACE_H

#include "ops/head_loss.h"
#include "ops/product.h"

typedef enum cab_head_product {
    CAB_HEAD_LOGITS,
    CAB_HEAD_TEACHER_LOGITS,
    CAB_HEAD_DHIDDEN,
    CAB_HEAD_DW,
    CAB_HEAD_PRODUCTS
} cab_head_product;

typedef struct cab_head_workspace {
    int64_t rows, V, ld, chunk;
    size_t teacher, dlogits, results, gemm; /* bytes from the start; the student's logits stand first */
} cab_head_workspace;

/* Whether the node computes that product at all. */
static inline bool cab_head_needs(const cab_node *node, cab_head_product product)
{
    switch (product) {
    case CAB_HEAD_TEACHER_LOGITS:
        return node->in[CAB_HEAD_TEACHER_HIDDEN] != NULL;
    case CAB_HEAD_DHIDDEN:
        return node->gin[CAB_HEAD_HIDDEN] != NULL;
    case CAB_HEAD_DW:
        return node->gin[CAB_HEAD_W] != NULL;
    default:
        return true;
    }
}

/* The product for `rows` rows. dW is added from the second chunk on. */
static inline cab_gemm_shape cab_head_shape(const cab_node *node, cab_head_product product, int64_t rows, int64_t ld,
                                            bool first)
{
    const bool teacher = product == CAB_HEAD_TEACHER_LOGITS;
    const cab_tensor *hidden = node->in[teacher ? CAB_HEAD_TEACHER_HIDDEN : CAB_HEAD_HIDDEN];
    const cab_tensor *w = node->in[teacher ? CAB_HEAD_TEACHER_W : CAB_HEAD_W];
    const cab_tensor *b = node->in[teacher ? CAB_HEAD_TEACHER_B : CAB_HEAD_B];
    const int64_t V = w->shape[0], D = w->shape[1];
    const cab_dtype dtype = hidden->dtype;
    switch (product) {
    case CAB_HEAD_DHIDDEN:
        return (cab_gemm_shape){.m = rows,
                                .n = D,
                                .k = V,
                                .a = cab_side_dense(dtype, ld, false),
                                .b = cab_side_of(w, false),
                                .c = cab_side_of(node->gin[CAB_HEAD_HIDDEN], false),
                                .accumulate = node->accumulate >> CAB_HEAD_HIDDEN & 1};
    case CAB_HEAD_DW:
        return (cab_gemm_shape){.m = V,
                                .n = D,
                                .k = rows,
                                .a = cab_side_dense(dtype, ld, true),
                                .b = cab_side_of(hidden, false),
                                .c = cab_side_of(node->gin[CAB_HEAD_W], false),
                                .accumulate = !first || (node->accumulate >> CAB_HEAD_W & 1)};
    default:
        return (cab_gemm_shape){.m = rows,
                                .n = V,
                                .k = D,
                                .a = cab_side_of(hidden, false),
                                .b = cab_side_of(w, true),
                                .c = cab_side_dense(CAB_F32, ld, false),
                                .bias = b != NULL,
                                .bias_dtype = b != NULL ? b->dtype : CAB_F32};
    }
}

static inline cab_head_workspace cab_head_workspace_of(const cab_node *node)
{
    const cab_tensor *hidden = node->in[CAB_HEAD_HIDDEN];
    cab_head_workspace w = {.rows = cab_rows(hidden), .V = node->in[CAB_HEAD_W]->shape[0]};
    w.ld = (w.V + 15) / 16 * 16;
    w.chunk = cab_head_chunk(w.V, w.rows);
    const size_t elements = (size_t)(w.chunk * w.ld);
    w.teacher = elements * sizeof(float);
    w.dlogits = w.teacher * (cab_head_taught(node) ? 2 : 1);
    const bool low = node->backward && hidden->dtype == CAB_BF16;
    w.results = w.dlogits + (low ? (elements * sizeof(cab_bf16) + 63) / 64 * 64 : 0);
    w.gemm = w.results + ((size_t)w.rows * 3 * sizeof(float) + 63) / 64 * 64;
    return w;
}

#endif
