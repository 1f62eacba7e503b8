/* odd_product.c - a size that is no multiple of 8 makes cuBLASLt choose kernels for unaligned matrices, whatever the leading
 * dimensions are: GPT-2's 50,257 words at an eighth of the speed of 50,256. So such a size is cut: the multiple of 8, and
 * a thin rest. */
#include "ops/cuda/odd_product.h"

#include "ops/cuda/cublaslt.h"

enum { STEP = 8, WORTH = 512 /* smaller sizes are left as they are */ };

/* How much of a size the first part takes. */
static int64_t even_part(int64_t size)
{
    return size < WORTH ? size : size - size % STEP;
}

static const void *at(const void *data, cab_dtype dtype, int64_t elements)
{
    return (const char *)data + elements * (int64_t)cab_dtype_size(dtype);
}

static cab_status along_k(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b, void *c,
                          const void *bias)
{
    cab_gemm_shape part = *shape;
    part.k = even_part(shape->k);
    CAB_TRY(cab_cublaslt_run(backend, &part, a, b, c, bias));
    if (part.k == shape->k)
        return CAB_OK;
    a = at(a, shape->a.dtype, part.k * shape->a.column);
    b = at(b, shape->b.dtype, part.k * shape->b.row);
    part.k = shape->k - part.k;
    part.accumulate = true;
    part.bias = false;
    return cab_cublaslt_run(backend, &part, a, b, c, NULL);
}

static cab_status along_n(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b, void *c,
                          const void *bias)
{
    cab_gemm_shape part = *shape;
    part.n = even_part(shape->n);
    CAB_TRY(along_k(backend, &part, a, b, c, bias));
    if (part.n == shape->n)
        return CAB_OK;
    b = at(b, shape->b.dtype, part.n * shape->b.column);
    bias = shape->bias ? at(bias, shape->bias_dtype, part.n) : NULL;
    c = (char *)c + part.n * (int64_t)cab_dtype_size(shape->c.dtype);
    part.n = shape->n - part.n;
    return along_k(backend, &part, a, b, c, bias);
}

cab_status cab_odd_product_run(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b, void *c,
                               const void *bias)
{
    cab_gemm_shape part = *shape;
    part.m = even_part(shape->m);
    CAB_TRY(along_n(backend, &part, a, b, c, bias));
    if (part.m == shape->m)
        return CAB_OK;
    a = at(a, shape->a.dtype, part.m * shape->a.row);
    c = (char *)c + part.m * shape->c.row * (int64_t)cab_dtype_size(shape->c.dtype);
    part.m = shape->m - part.m;
    return along_n(backend, &part, a, b, c, bias);
}
