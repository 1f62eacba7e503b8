/* gemm.h - matrix products: oneDNN where it is built in and good at them, else our own.
 *
 * A product is described once; cab_gemm_get() finds it among those the backend already has or compiles it (milliseconds).
 * Running it needs no memory but the scratch (for some shapes oneDNN takes some of its own for packing) and gives the same bits
 * each time for the same number of threads. Typical use in a kernel:
 *
 *   cab_gemm_shape s = {.m = rows, .n = out, .k = in, .a = cab_side_of(x, false), .b = cab_side_of(w, true), ...};
 *   const cab_gemm *gemm;
 *   CAB_TRY(cab_gemm_get(backend, &s, &gemm));
 *   CAB_TRY(cab_gemm_run(gemm, x->data, w->data, y->data, NULL, node->scratch));
 *
 * with the op's scratch function asking cab_gemm_scratch() for the same shape. */
#ifndef CAB_OPS_CPU_GEMM_H
#define CAB_OPS_CPU_GEMM_H

#include "tensor/backend.h"
#include "tensor/tensor.h"

/* Element (i, r, c) of an operand is data[i[0] * batch[0] + i[1] * batch[1] + r * row + c * column]. One of row and column
 * is 1. F32 or BF16. */
typedef struct cab_side {
    cab_dtype dtype;
    int64_t row, column;
    int64_t batch[2];
} cab_side;

/* C (m x n) = A (m x k) B (k x n), [+ bias], [+ C], for batch[0] * batch[1] independent triples (0 counts as 1). A and B
 * have the same dtype; sums are fp32. */
typedef struct cab_gemm_shape {
    int64_t m, n, k;
    int64_t batch[2];
    cab_side a, b, c; /* c.column is 1; c.dtype is F32 or that of a and b */
    bool accumulate;  /* C += , rounded once */
    bool bias;        /* a row of n is added; not together with accumulate */
    cab_dtype bias_dtype;
    bool serial; /* to be run by single threads within the caller's parallel region of at most backend->threads */
} cab_gemm_shape;

typedef struct cab_gemm cab_gemm;

/* The product, compiled on first demand; it belongs to the backend. CAB_EBACKEND with oneDNN's status on failure. */
cab_status cab_gemm_get(const cab_backend *backend, const cab_gemm_shape *shape, const cab_gemm **out);
/* Bytes of scratch a run needs (per thread, if serial), a multiple of 64. */
size_t cab_gemm_scratch(const cab_gemm *gemm);
/* The same from a shape, for scratch functions; 0 when it cannot be had, which the run will report. */
size_t cab_gemm_scratch_of(const cab_backend *backend, const cab_gemm_shape *shape);
/* bias may be NULL when the shape has none; scratch 64-byte aligned. */
cab_status cab_gemm_run(const cab_gemm *gemm, const void *a, const void *b, void *c, const void *bias, void *scratch);

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
