#include "ops/product.h"

cab_status cab_product_check_blocks(const cab_gemm_shape *s)
{
    if (s->b.row != 1 || s->a.column != 1 || s->batch[0] > 1 || s->batch[1] > 1 || s->serial || s->accumulate)
        return cab_fail(CAB_EUNSUPPORTED,
                        "a matrix in %s is multiplied from the right by a linear layer, forward; nothing flows back "
                        "through it",
                        cab_dtype_name(s->b.dtype));
    return CAB_OK;
}
