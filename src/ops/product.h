/* product.h - a matrix product as every backend has it described. */
#ifndef CAB_OPS_PRODUCT_H
#define CAB_OPS_PRODUCT_H

#include "tensor/tensor.h"

/* An operand: element (i, r, c) of an operand is data[i[0] * batch[0] + i[1] * batch[1] + r * row + c * column]. One of row and column
 * is 1. F32 or BF16; B may be a frozen matrix in blocks (tensor/blocks.h), its row 1. */
typedef struct cab_side {
    cab_dtype dtype;
    int64_t row, column;
    int64_t batch[2];
} cab_side;

/* C (m x n) = A (m x k) B (k x n), [+ bias], [+ C], for batch[0] * batch[1] independent triples (0 counts as 1). A and B
 * have the same dtype, unless B is in blocks; sums are fp32. */
typedef struct cab_gemm_shape {
    int64_t m, n, k;
    int64_t batch[2];
    cab_side a, b, c; /* c.column is 1; c.dtype is F32 or that of a and b */
    bool accumulate;  /* C += , rounded once */
    bool bias;        /* a row of n is added; not together with accumulate */
    cab_dtype bias_dtype;
    bool serial; /* to be run by single threads within the caller's parallel region of at most backend->threads */
} cab_gemm_shape;

/* Of a shape whose B is in blocks. CAB_EUNSUPPORTED: not the forward product of a linear layer. */
cab_status cab_product_check_blocks(const cab_gemm_shape *shape);

/* A tensor's (rows, columns) as an operand, or its transpose. */
static inline cab_side cab_side_of(const cab_tensor *t, bool transposed)
{
    return (cab_side){
        .dtype = t->dtype, .row = transposed ? 1 : t->ld, .column = transposed ? t->ld : 1, .batch = {0, 0}};
}

/* A dense F32 or BF16 matrix, `ld` elements from row to row. */
static inline cab_side cab_side_dense(cab_dtype dtype, int64_t ld, bool transposed)
{
    return (cab_side){.dtype = dtype, .row = transposed ? 1 : ld, .column = transposed ? ld : 1, .batch = {0, 0}};
}

#endif
