/* embedding.h - what the embedding op tells its kernels: the places of its inputs. */
#ifndef CAB_OPS_EMBEDDING_H
#define CAB_OPS_EMBEDDING_H

#include "ops/ops.h"

enum { CAB_EMBEDDING_IDS, CAB_EMBEDDING_TABLE, CAB_EMBEDDING_POSITIONS, CAB_EMBEDDING_FIRST, CAB_EMBEDDING_INPUTS };

/* On the GPU, backward: the tokens sorted by id, and the sums of ids that several blocks share. */
size_t cab_embedding_scratch_cuda(const cab_node *node, const cab_backend *backend);

#endif
