/* block_gemm.h - products with a matrix that stays in blocks of few bits (tensor/blocks.h): B^T is stored, (n, k), its rows whole blocks.
 *
 * Many rows of A: rows of B are expanded into scratch, in A's dtype, a tile of them at a time, and each tile is multiplied as any other
 * matrix. A few rows: B is multiplied straight from its blocks. */
#ifndef CAB_OPS_CUDA_BLOCK_GEMM_H
#define CAB_OPS_CUDA_BLOCK_GEMM_H

#ifdef __cplusplus
extern "C" {
#endif

#include "ops/product.h"
#include "tensor/backend.h"

/* Whether A has so few rows that B is read once and goes nowhere: 32 of bf16, 8 of fp32. */
bool cab_block_gemm_few_cuda(const cab_gemm_shape *shape);

/* Bytes of scratch of cab_gemm_cuda(); 0 where B is in no blocks. */
size_t cab_block_gemm_scratch_cuda(const cab_gemm_shape *shape);
/* cab_cublaslt_run(), also of B in blocks. CAB_EUNSUPPORTED: that B is not the matrix of a linear layer, forward. */
cab_status cab_gemm_cuda(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b, void *c,
                         const void *bias, void *scratch);

/* Rows of B in a tile. */
int64_t cab_block_gemm_tile_cuda(const cab_gemm_shape *shape);
/* Expands the tile that begins at row `first` into scratch: *part is A's product with it. */
cab_status cab_block_gemm_part_cuda(cab_backend *backend, const cab_gemm_shape *shape, const void *b, int64_t first,
                                    void *scratch, cab_gemm_shape *part);

#ifdef __cplusplus
}
#endif
#endif
