/* block_gemm.h - products with a matrix that stays in blocks of few bits (tensor/blocks.h): B^T is stored, (n, k), its rows whole blocks.
 *
 * Many rows of A: B is expanded tile by tile into scratch, in A's dtype, and each tile is multiplied as any other matrix. A few:
 * block_few.c multiplies them straight from the blocks. */
#ifndef CAB_OPS_CPU_BLOCK_GEMM_H
#define CAB_OPS_CPU_BLOCK_GEMM_H

#include "ops/cpu/gemm.h"

/* Rows of A up to which B is read once and goes nowhere. */
enum { CAB_BLOCK_FEW = 4 };

size_t cab_block_gemm_scratch(const cab_backend *backend, const cab_gemm_shape *shape);
/* Rows of B in a tile. */
int64_t cab_block_gemm_tile(const cab_gemm_shape *shape);
/* The product of A with `columns` rows of B that have been expanded. */
cab_gemm_shape cab_block_gemm_part(const cab_gemm_shape *shape, int64_t columns);

typedef cab_status cab_block_gemm(const cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b,
                                  void *c, const void *bias, void *scratch);
cab_block_gemm cab_block_gemm_v1, cab_block_gemm_v3, cab_block_gemm_v4;

/* Of at most CAB_BLOCK_FEW rows; scratch as of the whole product. */
typedef void cab_block_few(const cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b,
                           void *c, const void *bias, void *scratch);
cab_block_few cab_block_few_v1, cab_block_few_v3, cab_block_few_v4;

#endif
