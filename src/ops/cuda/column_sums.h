/* column_sums.h - sums over the rows of a matrix: the gradient of a bias. */
#ifndef CAB_OPS_CUDA_COLUMN_SUMS_H
#define CAB_OPS_CUDA_COLUMN_SUMS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "tensor/backend.h"
#include "tensor/tensor.h"

/* Bytes of scratch that cab_column_sums_cuda() needs; 0 where one pass does. */
size_t cab_column_sums_scratch(int64_t rows, int64_t columns);
/* out[column] = or += the sum of data[row * ld + column] over the rows, in fp32 and in a fixed order. data is F32 or BF16,
 * out F32. */
cab_status cab_column_sums_cuda(cab_backend *backend, cab_dtype dtype, const void *data, int64_t ld, int64_t rows,
                                int64_t columns, float *out, bool add, void *scratch);

#ifdef __cplusplus
}
#endif
#endif
