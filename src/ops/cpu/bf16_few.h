/* bf16_few.h - products of a few rows with a bf16 matrix. */
#ifndef CAB_OPS_CPU_BF16_FEW_H
#define CAB_OPS_CPU_BF16_FEW_H

#include "ops/cpu/gemm.h"

/* Rows of A up to which reading B is all that counts. */
enum { CAB_BF16_FEW = 4 };

/* Whether the shape is one of these: one product of bf16 with at most CAB_BF16_FEW rows, that adds to nothing. */
bool cab_bf16_few_suits(const cab_gemm_shape *shape);
size_t cab_bf16_few_scratch(const cab_gemm_shape *shape);

typedef void cab_bf16_few(const cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b,
                          void *c, const void *bias, void *scratch);
cab_bf16_few cab_bf16_few_v1, cab_bf16_few_v3, cab_bf16_few_v4;

#endif
