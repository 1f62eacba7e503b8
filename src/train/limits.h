/* limits.h - the matrix rate of a device as its library reaches it on a large square product: the limit that
 * benchmarks are measured against. */
#ifndef CAB_TRAIN_LIMITS_H
#define CAB_TRAIN_LIMITS_H

#include "ops/ops.h"

/* FLOP/s of the device's library: the best of several products of 2048^3 (CPU) or 8192^3 (GPU) in `dtype`, of random numbers. */
cab_status cab_matrix_limit(cab_backend *backend, cab_dtype dtype, double *flops_per_second);
/* Bytes read plus bytes written per second by the best of several copies of 256 MiB (CPU, all threads) or 1 GiB (GPU). */
cab_status cab_copy_limit(cab_backend *backend, double *bytes_per_second);

#endif
