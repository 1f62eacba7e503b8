/* attention_blocks.h - how attention is cut into blocks on the CPU: shared by the kernels and their scratch functions. */
#ifndef CAB_OPS_CPU_ATTENTION_BLOCKS_H
#define CAB_OPS_CPU_ATTENTION_BLOCKS_H

#include "ops/attention.h"
#include "ops/cpu/gemm.h"

enum { CAB_ATTENTION_ROWS = 64 }; /* queries of a block: enough for full speed of the products */

/* A block of queries of one head and the keys they can see, with the products it takes. Scores stand in rows of `keys`
 * columns. */
typedef struct cab_attention_block {
    int64_t first, rows;     /* queries first .. first + rows */
    int64_t first_key, keys; /* keys first_key .. first_key + keys */
    const cab_gemm *scores;  /* rows x keys = Q K^T, fp32 */
    const cab_gemm *values;  /* forward: rows x P = probabilities V */
    const cab_gemm *dp;      /* backward: rows x keys = dY V^T, fp32 */
    const cab_gemm *dq;      /* rows x P = dS K */
    const cab_gemm *dk;      /* keys x P += dS^T Q, fp32 */
    const cab_gemm *dv;      /* keys x P += probabilities^T dY, fp32 */
    size_t scratch;          /* the most any of them needs */
} cab_attention_block;

/* One thread's part of the scratch, as offsets in bytes from its beginning. */
typedef struct cab_attention_memory {
    size_t scores, dp; /* rows x L fp32 */
    size_t p, ds;      /* the same in the activations' dtype; F32: where scores and dp stand */
    size_t dk, dv;     /* L x P fp32, sums over a group's heads */
    size_t slope;      /* L fp32, of a row of capped scores; else not read */
    size_t gemm;       /* scratch of the products */
    size_t size;       /* of one thread's part */
    size_t table;      /* bytes of the block table before the first part */
} cab_attention_memory;

/* Queries' sequence length, of a forward or backward node. */
int64_t cab_attention_length(const cab_node *node);
int64_t cab_attention_blocks(const cab_node *node);
/* Fills *block for the index'th block of a forward or backward node. */
cab_status cab_attention_block_get(const cab_node *node, const cab_backend *backend, int64_t index,
                                   cab_attention_block *block);
cab_attention_memory cab_attention_memory_of(const cab_node *node, size_t gemm_scratch);

#endif
