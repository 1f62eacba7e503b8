/* next_token.h - what the recorder of next_token tells its kernels: the places of its inputs. */
#ifndef CAB_OPS_NEXT_TOKEN_H
#define CAB_OPS_NEXT_TOKEN_H

#include "ops/ops.h"

extern const cab_op cab_op_next_token;

enum {
    CAB_NEXT_LOGITS,
    CAB_NEXT_PROMPTS,
    CAB_NEXT_LENGTHS,
    CAB_NEXT_SAMPLES,
    CAB_NEXT_TOKENS,
    CAB_NEXT_POSITION,
    CAB_NEXT_SEEN, /* NULL without a repeat penalty */
    CAB_NEXT_INPUTS
};

#endif
