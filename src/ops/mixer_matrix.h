/* mixer_matrix.h - what the recorders of a mixer's matrix and its loss tell their kernels. */
#ifndef CAB_OPS_MIXER_MATRIX_H
#define CAB_OPS_MIXER_MATRIX_H

#include "ops/feature.h"

extern const cab_op cab_op_mixer_decay, cab_op_attention_rows, cab_op_mixer_matrix_loss;

/* ---- mixer_decay ----------------------------------------------------------------------------------------------------- */

enum { CAB_DECAY_DT, CAB_DECAY_BIAS, CAB_DECAY_A_LOG, CAB_DECAY_INPUTS };

/* Elements of A_log that stand for one head: 1, or N where it is tied. */
static inline int64_t cab_mixer_tied(const cab_tensor *A_log)
{
    return A_log->n_dim == 2 ? A_log->shape[1] : 1;
}

/* ---- attention_rows -------------------------------------------------------------------------------------------------- */

enum { CAB_ROWS_Q, CAB_ROWS_K, CAB_ROWS_STARTS, CAB_ROWS_INPUTS };

typedef struct cab_attention_rows_attributes {
    cab_attention_shape shape;
    cab_align_attributes align; /* which of the attention's tokens are compared with the student's */
} cab_attention_rows_attributes;

/* Whether a token of the attention is compared with one of the student's. */
static inline bool cab_rows_compared(const cab_align_attributes *align, int64_t token)
{
    return !align->mapped || token == 0 || token > align->rows.skip;
}

/* ---- mixer_matrix_loss ----------------------------------------------------------------------------------------------- */

/* Tokens of a tile; the largest N. */
enum { CAB_MIXER_TILE = 64, CAB_MIXER_STATE_MOST = 256 };

enum {
    CAB_MIXER_C,
    CAB_MIXER_B,
    CAB_MIXER_LOG_A,
    CAB_MIXER_STEP,
    CAB_MIXER_D,
    CAB_MIXER_DIRECTION, /* inputs of a direction; the second's follow */
    CAB_MIXER_Q = 2 * CAB_MIXER_DIRECTION,
    CAB_MIXER_K,
    CAB_MIXER_LSE,
    CAB_MIXER_WEIGHT,
    CAB_MIXER_STARTS,
    CAB_MIXER_INPUTS
};

typedef struct cab_mixer_matrix_attributes {
    int n_head, n_group, share;
    int width, of;  /* a share of heads stands for width / of heads of attention */
    int n_pair;     /* of heads that are compared */
    int second;     /* column of log_a and step where the second direction begins, where it has none of its own */
    bool both, own; /* two directions; the second with C, B, log_a and step of its own, and the diagonal too */
    float scale;
    cab_attention_rows_attributes rows;
} cab_mixer_matrix_attributes;

static inline int cab_mixer_directions(const cab_mixer_matrix_attributes *a)
{
    return a->both ? 2 : 1;
}

/* Heads first .. end of attention that a head of the mixer is compared with: those whose columns it stands for. */
static inline void cab_mixer_heads(const cab_mixer_matrix_attributes *a, int head, int *first, int *end)
{
    const int64_t share = head / a->share, most = a->rows.shape.n_head;
    const int64_t from = share * a->width / a->of, to = ((share + 1) * a->width + a->of - 1) / a->of;
    *first = (int)(from < most ? from : most);
    *end = (int)(to < most ? to : most);
}

/* An input of a direction: the second's own, or the first's. */
static inline int cab_mixer_input(const cab_mixer_matrix_attributes *a, int direction, int input)
{
    return direction == 1 && (a->own || input == CAB_MIXER_D) ? CAB_MIXER_DIRECTION + input : input;
}

/* The first column of log_a and step of a direction. */
static inline int64_t cab_mixer_column(const cab_mixer_matrix_attributes *a, int direction)
{
    return direction == 1 && !a->own ? a->second : 0;
}

typedef struct cab_mixer_matrix_sizes {
    int64_t B, L;
    int H, G, N, P; /* P: features of a head of attention */
    int heads;      /* of a group */
    int tiles;
} cab_mixer_matrix_sizes;

static inline cab_mixer_matrix_sizes cab_mixer_matrix_sizes_of(const cab_node *node)
{
    const cab_mixer_matrix_attributes *a = (const cab_mixer_matrix_attributes *)node->attributes;
    const cab_tensor *C = node->in[CAB_MIXER_C];
    return (cab_mixer_matrix_sizes){.B = C->shape[0],
                                    .L = C->shape[1],
                                    .H = a->n_head,
                                    .G = a->n_group,
                                    .N = (int)(cab_columns(C) / a->n_group),
                                    .P = a->rows.shape.head_dim,
                                    .heads = a->n_head / a->n_group,
                                    .tiles = (int)((C->shape[1] + CAB_MIXER_TILE - 1) / CAB_MIXER_TILE)};
}

#endif
