/* matrix_limit.h - the processor's matrix rate as the library reaches it on a large square product: the limit that
 * benchmarks are measured against. */
#ifndef CAB_BENCH_MATRIX_LIMIT_H
#define CAB_BENCH_MATRIX_LIMIT_H

#include "ops/ops.h"

/* FLOP/s, the best of several runs of a 2048 x 2048 x 2048 product in `dtype`. */
cab_status cab_matrix_limit(cab_backend *backend, cab_dtype dtype, double *flops_per_second);

#endif
