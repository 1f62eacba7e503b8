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
 * with the kernel's scratch function asking cab_gemm_scratch() for the same shape. */
#ifndef CAB_OPS_CPU_GEMM_H
#define CAB_OPS_CPU_GEMM_H

#include "ops/product.h"
#include "tensor/backend.h"

typedef struct cab_gemm cab_gemm;

/* The product, compiled on first demand; it belongs to the backend. CAB_EBACKEND with oneDNN's status on failure. */
cab_status cab_gemm_get(const cab_backend *backend, const cab_gemm_shape *shape, const cab_gemm **out);
/* Bytes of scratch a run needs (per thread, if serial), a multiple of 64. */
size_t cab_gemm_scratch(const cab_gemm *gemm);
/* The same from a shape, for scratch functions; 0 when it cannot be had, which the run will report. */
size_t cab_gemm_scratch_of(const cab_backend *backend, const cab_gemm_shape *shape);
/* bias may be NULL when the shape has none; scratch 64-byte aligned. */
cab_status cab_gemm_run(const cab_gemm *gemm, const void *a, const void *b, void *c, const void *bias, void *scratch);

#endif
