/* attention_bf16.h - attention in bf16 with the bf16 instructions of AVX-512, and where it works. */
#ifndef CAB_OPS_CPU_ATTENTION_BF16_H
#define CAB_OPS_CPU_ATTENTION_BF16_H

#include "ops/attention.h"
#include "tensor/kernel.h"

/* Queries that are computed together; elements of a line of 64 bytes. */
enum { CAB_ATTENTION_TILE = 14, CAB_ATTENTION_LINE = 32 };

/* What stands where in the scratch, in bytes: K at its beginning, V, then for each thread Q of a tile, its probabilities and scores. */
typedef struct cab_attention_packing {
    int64_t length, padded; /* of a sequence, and up to a whole line */
    int64_t depth;          /* columns of a head, up to a whole line */
    int64_t score_ld;       /* floats from a row of scores to the next */
    size_t values, shared;  /* where V stands, and the threads' parts */
    size_t p, s, own;       /* within such a part, and its size */
} cab_attention_packing;

cab_attention_packing cab_attention_packing_of(const cab_node *node);

/* The node is of bf16 and the processor has the instructions, but none for matrices, which do better. */
bool cab_attention_bf16_fits(const cab_node *node, const cab_backend *backend);
size_t cab_attention_bf16_scratch(const cab_node *node, const cab_backend *backend);
cab_status cab_attention_bf16_forward(const cab_node *node, cab_backend *backend);

#endif
