/* embedding.h - what the embedding op tells its kernels: the places of its inputs. */
#ifndef CAB_OPS_EMBEDDING_H
#define CAB_OPS_EMBEDDING_H

#include "ops/ops.h"

extern const cab_op cab_op_embedding;

enum {
    CAB_EMBEDDING_IDS,
    CAB_EMBEDDING_TABLE,
    CAB_EMBEDDING_POSITIONS,
    CAB_EMBEDDING_FIRST,
    CAB_EMBEDDING_STARTS,
    CAB_EMBEDDING_INPUTS
};

#endif
