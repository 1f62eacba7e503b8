/* ssd.h - what the recorder of the Mamba-2 recurrence tells its kernels. */
#ifndef CAB_OPS_SSD_H
#define CAB_OPS_SSD_H

#include "tensor/graph.h"

extern const cab_op cab_op_ssd, cab_op_ssd_step;

enum { CAB_SSD_CHUNK = 64 }; /* tokens of one chunk */

enum {
    CAB_SSD_X,
    CAB_SSD_B,
    CAB_SSD_C,
    CAB_SSD_DT,
    CAB_SSD_D,
    CAB_SSD_DT_BIAS,
    CAB_SSD_A_LOG,
    CAB_SSD_STARTS,
    CAB_SSD_INPUTS,
    CAB_SSD_STATE = CAB_SSD_INPUTS /* of a step */
};

typedef struct cab_ssd_attributes {
    int n_head, n_group;
    bool both;    /* two directions; the kernels of one are given the node, then its reverse */
    bool shared;  /* of two: dt, dt_bias and A_log are those of both */
    bool reverse; /* of a node made by cab_ssd_reverse_of(): no token sees itself, and y is added to what is there */
} cab_ssd_attributes;

typedef struct cab_ssd_shape {
    int64_t B, L;
    int H, G, P, N;
    int chunks;
} cab_ssd_shape;

static inline cab_ssd_shape cab_ssd_shape_of(const cab_node *node)
{
    const cab_ssd_attributes *a = (const cab_ssd_attributes *)node->attributes;
    const cab_tensor *x = node->in[CAB_SSD_X], *Bm = node->in[CAB_SSD_B];
    return (cab_ssd_shape){.B = x->shape[0],
                           .L = x->shape[1],
                           .H = a->n_head,
                           .G = a->n_group,
                           .P = (int)(cab_columns(x) / a->n_head),
                           .N = (int)(cab_columns(Bm) / a->n_group),
                           .chunks = (int)((x->shape[1] + CAB_SSD_CHUNK - 1) / CAB_SSD_CHUNK)};
}

/* The second direction of a node of two: the same node with its tokens in the order of memory from the end, so that the kernels
 * of the first compute it. Rows lie -ld apart, and sequences come in reverse order as well, in all tensors alike. */
typedef struct cab_ssd_reverse {
    cab_node node;
    cab_ssd_attributes attributes;
    cab_tensor in[CAB_SSD_INPUTS], gin[CAB_SSD_INPUTS], out, gout;
} cab_ssd_reverse;

void cab_ssd_reverse_of(const cab_node *node, cab_ssd_reverse *reverse);

static inline const cab_ssd_attributes *cab_ssd_attributes_of(const cab_node *node)
{
    return (const cab_ssd_attributes *)node->attributes;
}

#endif
