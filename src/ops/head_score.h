/* head_score.h - what the recorder of head_score tells its kernels. */
#ifndef CAB_OPS_HEAD_SCORE_H
#define CAB_OPS_HEAD_SCORE_H

#include "ops/head_loss.h"

extern const cab_op cab_op_head_score;

/* Hidden states, w and b stand where head_loss has them, so that its product of logits serves here too. */
enum { CAB_SCORE_LABELS = CAB_HEAD_B + 1, CAB_SCORE_INPUTS };
enum { CAB_SCORE_LABEL, CAB_SCORE_IDS, CAB_SCORE_TOP, CAB_SCORE_OUTPUTS };

enum { CAB_SCORE_MOST = 1024 }; /* words of a row that can be asked for */

typedef struct cab_score_attributes {
    float cap; /* of the logits; 0: none */
} cab_score_attributes;

#endif
