/* matrix_limit.h - the matrix rate of a device as its library reaches it on a large square product: the limit that
 * benchmarks are measured against. */
#ifndef CAB_TRAIN_MATRIX_LIMIT_H
#define CAB_TRAIN_MATRIX_LIMIT_H

#include "ops/ops.h"

/* FLOP/s, the best of several runs of a product of 2048^3 (CPU) or 8192^3 (GPU) in `dtype`, of random numbers. */
cab_status cab_matrix_limit(cab_backend *backend, cab_dtype dtype, double *flops_per_second);

#endif
