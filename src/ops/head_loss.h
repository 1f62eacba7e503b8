/* head_loss.h - what the recorder of the vocabulary losses tells its kernels. */
#ifndef CAB_OPS_HEAD_LOSS_H
#define CAB_OPS_HEAD_LOSS_H

#include "tensor/graph.h"

#include <stdbool.h>

extern const cab_op cab_op_head_loss;

/* Inputs and outputs of the node. The teacher's three, the valid mask, the targets and both biases may be NULL; without a
 * teacher there are two outputs. */
enum {
    CAB_HEAD_HIDDEN,
    CAB_HEAD_W,
    CAB_HEAD_B,
    CAB_HEAD_TEACHER_HIDDEN,
    CAB_HEAD_TEACHER_W,
    CAB_HEAD_TEACHER_B,
    CAB_HEAD_LABELS,
    CAB_HEAD_VALID,
    CAB_HEAD_TARGETS, /* (rows, V) F32 */
    CAB_HEAD_IDS,     /* (rows, k) I32: in the teacher's place its likeliest words, */
    CAB_HEAD_TOP,     /* (rows, k) F32: and their log p */
    CAB_HEAD_INPUTS
};

/* Whether there is a teacher in either form. */
static inline bool cab_head_taught(const cab_node *node)
{
    return node->in[CAB_HEAD_TEACHER_HIDDEN] != NULL || node->in[CAB_HEAD_IDS] != NULL;
}
enum { CAB_HEAD_CE, CAB_HEAD_COUNT, CAB_HEAD_KL, CAB_HEAD_AGREEMENT, CAB_HEAD_OUTPUTS };

#define CAB_HEAD_REST 1e-6f /* the least probability that words beyond the teacher's likeliest have */

typedef struct cab_head_attributes {
    float temperature;
    float cap[2]; /* of the student's logits and the teacher's; 0: none */
} cab_head_attributes;

/* Rows whose logits exist at a time: 32 MiB of fp32 logits, but not so few that the matrix products suffer. */
static inline int64_t cab_head_chunk(int64_t V, int64_t rows)
{
    int64_t chunk = (INT64_C(1) << 23) / V / 16 * 16;
    chunk = chunk < 64 ? 64 : chunk > 512 ? 512 : chunk;
    return chunk < rows ? chunk : rows;
}

#endif
