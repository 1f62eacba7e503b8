/* onednn.c - one primitive per product.
 *
 * oneDNN 2.x passes memory descriptors as structs and creates matmul through an operation descriptor; 3.x makes both
 * opaque. The few calls that differ stand together under "versions" below; the rest is common.
 *
 * Measured on AMD EPYC (Zen 5) with 2.6.3: matmul on plain strides reaches 85-95 % of what packed weights do, in bf16 and
 * in fp32, for odd leading dimensions too, so that weights need no packed copies. */
#include "ops/cpu/onednn.h"

#ifdef CAB_WITH_ONEDNN

#include "base/memory.h"
#include "ops/cpu/device.h"

#include <dnnl.h>
#include <omp.h>
#include <string.h>

/* The objects one thread runs with. oneDNN's memory objects hold the pointers of the current run. */
typedef struct slot {
    dnnl_stream_t stream;
    dnnl_memory_t a, b, c, bias, scratch;
} slot;

struct cab_onednn {
    cab_gemm_shape shape;
    int threads;
    size_t scratch;
    dnnl_engine_t engine;
    dnnl_primitive_t primitive;
    slot *slots; /* one per thread for serial products, else one */
};

static cab_status check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return CAB_OK;
    if (status == dnnl_out_of_memory)
        return cab_fail(CAB_ENOMEM, "oneDNN: %s: not enough memory", what);
    return cab_fail(CAB_EBACKEND, "oneDNN %d.%d: %s: status %d", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, what,
                    (int)status);
}

/* ---- versions ------------------------------------------------------------------------------------------------------ */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t memory_desc;
typedef const_dnnl_memory_desc_t const_memory_desc;

static dnnl_status_t describe(memory_desc *desc, int n, const dnnl_dims_t dims, dnnl_data_type_t type,
                              const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(desc, n, dims, type, strides);
}

static void forget(memory_desc *desc)
{
    if (*desc)
        dnnl_memory_desc_destroy(*desc);
}

static const_memory_desc view(const memory_desc *desc)
{
    return *desc;
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const memory_desc abc[3],
                                 const memory_desc *bias, const_dnnl_primitive_attr_t attributes)
{
    return dnnl_matmul_primitive_desc_create(out, engine, abc[0], abc[1], bias ? *bias : NULL, abc[2], attributes);
}
#else
typedef dnnl_memory_desc_t memory_desc;
typedef const dnnl_memory_desc_t *const_memory_desc;

static dnnl_status_t describe(memory_desc *desc, int n, const dnnl_dims_t dims, dnnl_data_type_t type,
                              const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(desc, n, dims, type, strides);
}

static void forget(memory_desc *desc)
{
    (void)desc;
}

static const_memory_desc view(const memory_desc *desc)
{
    return desc;
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f);
}

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const memory_desc abc[3],
                                 const memory_desc *bias, const_dnnl_primitive_attr_t attributes)
{
    dnnl_matmul_desc_t desc;
    dnnl_status_t status = dnnl_matmul_desc_init(&desc, &abc[0], &abc[1], bias, &abc[2]);
    return status == dnnl_success ? dnnl_primitive_desc_create(out, &desc, attributes, engine, NULL) : status;
}
#endif

/* ---- compiling one product -------------------------------------------------------------------------------------------- */

static dnnl_data_type_t type_of(cab_dtype dtype)
{
    return dtype == CAB_F32 ? dnnl_f32 : dnnl_bf16;
}

static bool batched(const cab_gemm_shape *s)
{
    return s->batch[0] * s->batch[1] > 1;
}

/* A^T B into fp32, the product of weight gradients. oneDNN has two matrix products: brgemm, which it prefers, and an older
 * one that packs both operands, which does this 20-30 % faster (Zen 5, bf16 and fp32, one and two threads). It takes over
 * when brgemm does not recognise the layout, so the product is described as a batch of one with batch strides of 1. */
static bool prefers_packing(const cab_gemm_shape *s)
{
    return !batched(s) && s->a.row == 1 && s->a.column > 1 && s->c.dtype == CAB_F32 && !s->bias;
}

static dnnl_status_t describe_side(memory_desc *desc, const cab_gemm_shape *s, const cab_side *side, int64_t rows,
                                   int64_t columns)
{
    dnnl_data_type_t type = type_of(side->dtype);
    if (batched(s))
        return describe(desc, 4, (dnnl_dims_t){s->batch[0], s->batch[1], rows, columns}, type,
                        (dnnl_dims_t){side->batch[0], side->batch[1], side->row, side->column});
    if (prefers_packing(s))
        return describe(desc, 4, (dnnl_dims_t){1, 1, rows, columns}, type,
                        (dnnl_dims_t){1, 1, side->row, side->column});
    return describe(desc, 2, (dnnl_dims_t){rows, columns}, type, (dnnl_dims_t){side->row, side->column});
}

static dnnl_status_t describe_bias(memory_desc *desc, const cab_gemm_shape *s)
{
    dnnl_data_type_t type = type_of(s->bias_dtype);
    if (!batched(s))
        return describe(desc, 2, (dnnl_dims_t){1, s->n}, type, (dnnl_dims_t){s->n, 1});
    return describe(desc, 4, (dnnl_dims_t){1, 1, 1, s->n}, type, (dnnl_dims_t){s->n, s->n, s->n, 1});
}

static cab_status make_attributes(const cab_gemm_shape *s, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t ops = NULL;
    CAB_TRY(check(dnnl_primitive_attr_create(out), "attributes"));
    CAB_TRY(check(dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user), "scratchpad mode"));
    if (!s->accumulate)
        return CAB_OK;
    CAB_TRY(check(dnnl_post_ops_create(&ops), "post-ops"));
    dnnl_status_t status = append_sum(ops);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(*out, ops);
    dnnl_post_ops_destroy(ops);
    return check(status, "sum post-op");
}

static int slot_count(const cab_onednn *product)
{
    return product->shape.serial ? product->threads : 1;
}

static cab_status make_slots(cab_onednn *product, const memory_desc desc[4], const_memory_desc scratch)
{
    dnnl_engine_t engine = product->engine;
    CAB_TRY(CAB_NEW(&product->slots, (size_t)slot_count(product), "products"));
    for (int i = 0; i < slot_count(product); i++) {
        slot *own = &product->slots[i];
        CAB_TRY(check(dnnl_stream_create(&own->stream, engine, dnnl_stream_default_flags), "stream"));
        CAB_TRY(check(dnnl_memory_create(&own->a, view(&desc[0]), engine, DNNL_MEMORY_NONE), "memory"));
        CAB_TRY(check(dnnl_memory_create(&own->b, view(&desc[1]), engine, DNNL_MEMORY_NONE), "memory"));
        CAB_TRY(check(dnnl_memory_create(&own->c, view(&desc[2]), engine, DNNL_MEMORY_NONE), "memory"));
        if (product->shape.bias)
            CAB_TRY(check(dnnl_memory_create(&own->bias, view(&desc[3]), engine, DNNL_MEMORY_NONE), "memory"));
        CAB_TRY(check(dnnl_memory_create(&own->scratch, scratch, engine, DNNL_MEMORY_NONE), "memory"));
    }
    return CAB_OK;
}

static cab_status compile(cab_onednn *product)
{
    const cab_gemm_shape *s = &product->shape;
    memory_desc desc[4];
    memset(desc, 0, sizeof desc);
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t pd = NULL;
    cab_status status;
    CAB_GOTO(check(dnnl_engine_create(&product->engine, dnnl_cpu, 0), "engine"));
    CAB_GOTO(check(describe_side(&desc[0], s, &s->a, s->m, s->k), "operand A"));
    CAB_GOTO(check(describe_side(&desc[1], s, &s->b, s->k, s->n), "operand B"));
    CAB_GOTO(check(describe_side(&desc[2], s, &s->c, s->m, s->n), "operand C"));
    if (s->bias)
        CAB_GOTO(check(describe_bias(&desc[3], s), "bias"));
    CAB_GOTO(make_attributes(s, &attributes));
    CAB_GOTO(check(matmul_desc(&pd, product->engine, desc, s->bias ? &desc[3] : NULL, attributes), "matmul"));
    CAB_GOTO(check(dnnl_primitive_create(&product->primitive, pd), "matmul"));
    const_memory_desc scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    product->scratch = (dnnl_memory_desc_get_size(scratch) + 63) / 64 * 64;
    CAB_GOTO(make_slots(product, desc, scratch));
done:
    for (int i = 0; i < 4; i++)
        forget(&desc[i]);
    if (pd != NULL)
        dnnl_primitive_desc_destroy(pd);
    if (attributes != NULL)
        dnnl_primitive_attr_destroy(attributes);
    return status;
}

bool cab_onednn_suits(const cab_backend *backend, const cab_gemm_shape *shape)
{
    if (shape->a.dtype == CAB_F32)
        return true;
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    return cab_cpu_isa(backend) == CAB_ISA_V4 && (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

bool cab_onednn_has_amx(void)
{
    return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_amx) == dnnl_cpu_isa_avx512_core_amx;
}

cab_status cab_onednn_new(const cab_gemm_shape *shape, int threads, cab_onednn **out)
{
    cab_onednn *product;
    CAB_TRY(CAB_NEW(&product, 1, "products"));
    product->shape = *shape;
    product->threads = threads;
    /* A primitive divides its work among the threads OpenMP would use when it is created. */
    int before = omp_get_max_threads();
    omp_set_num_threads(shape->serial ? 1 : threads);
    cab_status status = compile(product);
    omp_set_num_threads(before);
    if (status == CAB_OK)
        *out = product;
    else
        cab_onednn_free(product);
    return status;
}

void cab_onednn_free(cab_onednn *product)
{
    if (product == NULL)
        return;
    for (int i = 0; product->slots != NULL && i < slot_count(product); i++) {
        slot *own = &product->slots[i];
        dnnl_memory_t memory[] = {own->a, own->b, own->c, own->bias, own->scratch};
        for (size_t k = 0; k < sizeof memory / sizeof *memory; k++)
            if (memory[k] != NULL)
                dnnl_memory_destroy(memory[k]);
        if (own->stream != NULL)
            dnnl_stream_destroy(own->stream);
    }
    if (product->primitive != NULL)
        dnnl_primitive_destroy(product->primitive);
    if (product->engine != NULL)
        dnnl_engine_destroy(product->engine);
    cab_free(product->slots);
    cab_free(product);
}

size_t cab_onednn_scratch(const cab_onednn *product)
{
    return product->scratch;
}

cab_status cab_onednn_run(const cab_onednn *product, const void *a, const void *b, void *c, const void *bias,
                          void *scratch)
{
    if (!product->shape.serial && omp_get_max_threads() != product->threads)
        omp_set_num_threads(product->threads);
    const slot *own = &product->slots[product->shape.serial ? omp_get_thread_num() : 0];
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, own->a},
                                   {DNNL_ARG_WEIGHTS, own->b},
                                   {DNNL_ARG_DST, own->c},
                                   {DNNL_ARG_SCRATCHPAD, own->scratch},
                                   {DNNL_ARG_BIAS, own->bias}};
    void *handles[] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c, scratch, (void *)(uintptr_t)bias};
    int count = product->shape.bias ? 5 : 4;
    for (int i = 0; i < count; i++)
        CAB_TRY(check(dnnl_memory_set_data_handle(arguments[i].memory, handles[i]), "matmul"));
    return check(dnnl_primitive_execute(product->primitive, own->stream, count, arguments), "matmul");
}

#else

bool cab_onednn_suits(const cab_backend *backend, const cab_gemm_shape *shape)
{
    (void)backend;
    (void)shape;
    return false;
}

bool cab_onednn_has_amx(void)
{
    return false;
}

cab_status cab_onednn_new(const cab_gemm_shape *shape, int threads, cab_onednn **out)
{
    (void)shape;
    (void)threads;
    (void)out;
    return cab_fail(CAB_EUNSUPPORTED, "this build has no oneDNN");
}

void cab_onednn_free(cab_onednn *product)
{
    (void)product;
}

size_t cab_onednn_scratch(const cab_onednn *product)
{
    (void)product;
    return 0;
}

cab_status cab_onednn_run(const cab_onednn *product, const void *a, const void *b, void *c, const void *bias,
                          void *scratch)
{
    (void)product;
    (void)a;
    (void)b;
    (void)c;
    (void)bias;
    (void)scratch;
    return cab_fail(CAB_EUNSUPPORTED, "this build has no oneDNN");
}

#endif
