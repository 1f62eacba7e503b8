/* matrix.h - how the linear layer is cut on the CPU: shared by its kernel and its scratch function. */
#ifndef CAB_OPS_CPU_MATRIX_H
#define CAB_OPS_CPU_MATRIX_H

/* Rows whose part of dW is added at a time: x and dy of so many stay in the second-level cache while a product of narrow
 * matrices goes over them again and again. */
enum { CAB_LINEAR_CHUNK = 2048 };

#endif
