/* onednn.h - one matrix product as a oneDNN primitive. gemm.c keeps them; nobody else calls this. */
#ifndef CAB_OPS_CPU_ONEDNN_H
#define CAB_OPS_CPU_ONEDNN_H

#include "ops/cpu/gemm.h"

typedef struct cab_onednn cab_onednn;

/* False where another way is better: bf16 on a processor without bf16 products, which oneDNN would emulate or refuse; and
 * in builds without oneDNN. */
bool cab_onednn_suits(const cab_backend *backend, const cab_gemm_shape *shape);
/* Whether oneDNN has the processor's matrix instructions for bf16, which no vectors come near. */
bool cab_onednn_has_amx(void);
/* Compiles the product for `threads` threads. shape's batches are at least 1. Freed by cab_onednn_free(), NULL accepted. */
cab_status cab_onednn_new(const cab_gemm_shape *shape, int threads, cab_onednn **out);
void cab_onednn_free(cab_onednn *product);
size_t cab_onednn_scratch(const cab_onednn *product);
cab_status cab_onednn_run(const cab_onednn *product, const void *a, const void *b, void *c, const void *bias,
                          void *scratch);

#endif
