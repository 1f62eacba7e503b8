/* odd_product.h - matrix products of which a size may be no multiple of 8, as a vocabulary's. */
#ifndef CAB_OPS_CUDA_ODD_PRODUCT_H
#define CAB_OPS_CUDA_ODD_PRODUCT_H

#include "ops/cpu/gemm.h"

/* cab_cublaslt_run() of parts with sizes it is fast at. A result in bf16 whose k is cut is rounded twice. */
cab_status cab_odd_product_run(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b, void *c,
                               const void *bias);

#endif
