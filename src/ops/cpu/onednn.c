/* onednn.c - one primitive per product shape, kept in a hash table in the backend's library slot.
 *
 * oneDNN 2.x passes memory descriptors as structs and creates matmul through an operation descriptor; 3.x makes both
 * opaque. The few calls that differ stand together under "versions" below; the rest is common.
 *
 * Measured on 2 cores of an AMD EPYC (Zen 5) with 2.6.3: matmul on plain strides runs at 80-95 % of the best that packed
 * weights reach, for every orientation and for odd leading dimensions, in bf16 and in fp32, so that weights need no
 * packed copies. Where the processor has no bf16 products, operands are converted to fp32 in scratch: oneDNN would
 * emulate (slower) or refuse. */
#include "ops/cpu/onednn.h"

#include "base/file.h"
#include "base/memory.h"
#include "device/cpu.h"

#include <dnnl.h>
#include <omp.h>
#include <string.h>

/* What makes a product what it is, as numbers without padding: hashed and compared as bytes. */
enum { KEY_LENGTH = 24 };
typedef struct gemm_key {
    int64_t field[KEY_LENGTH];
} gemm_key;

/* The objects one thread runs with. oneDNN's memory objects hold the pointers of the current run. */
typedef struct gemm_slot {
    dnnl_stream_t stream;
    dnnl_memory_t a, b, c, bias, scratch;
} gemm_slot;

struct cab_gemm {
    gemm_key key;
    cab_gemm_shape shape;
    bool convert;                     /* bf16 operands go through fp32 copies; the primitive is fp32 */
    cab_gemm_shape direct;            /* what the primitive computes: shape, or its fp32 form on dense copies */
    size_t a_bytes, b_bytes, c_bytes; /* fp32 copies, multiples of 64 */
    size_t inner_scratch;
    int threads;
    dnnl_primitive_t primitive;
    gemm_slot *slots;
};

typedef struct gemm_library {
    dnnl_engine_t engine;
    cab_gemm **table; /* open addressing, a power of two, at most half full */
    size_t size, used;
} gemm_library;

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

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const memory_desc *a,
                                 const memory_desc *b, const memory_desc *bias, const memory_desc *c,
                                 const_dnnl_primitive_attr_t attributes)
{
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, bias ? *bias : NULL, *c, attributes);
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

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const memory_desc *a,
                                 const memory_desc *b, const memory_desc *bias, const memory_desc *c,
                                 const_dnnl_primitive_attr_t attributes)
{
    dnnl_matmul_desc_t desc;
    dnnl_status_t status = dnnl_matmul_desc_init(&desc, a, b, bias, c);
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

static dnnl_status_t describe_side(memory_desc *desc, const cab_gemm_shape *s, const cab_side *side, int64_t rows,
                                   int64_t columns)
{
    if (!batched(s))
        return describe(desc, 2, (dnnl_dims_t){rows, columns}, type_of(side->dtype),
                        (dnnl_dims_t){side->row, side->column});
    return describe(desc, 4, (dnnl_dims_t){s->batch[0], s->batch[1], rows, columns}, type_of(side->dtype),
                    (dnnl_dims_t){side->batch[0], side->batch[1], side->row, side->column});
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

static cab_status make_slots(cab_gemm *gemm, dnnl_engine_t engine, const memory_desc desc[4], const_memory_desc scratch)
{
    int count = gemm->shape.serial ? gemm->threads : 1;
    CAB_TRY(CAB_NEW(&gemm->slots, (size_t)count, "products"));
    for (int i = 0; i < count; i++) {
        gemm_slot *slot = &gemm->slots[i];
        CAB_TRY(check(dnnl_stream_create(&slot->stream, engine, dnnl_stream_default_flags), "stream"));
        CAB_TRY(check(dnnl_memory_create(&slot->a, view(&desc[0]), engine, DNNL_MEMORY_NONE), "memory"));
        CAB_TRY(check(dnnl_memory_create(&slot->b, view(&desc[1]), engine, DNNL_MEMORY_NONE), "memory"));
        CAB_TRY(check(dnnl_memory_create(&slot->c, view(&desc[2]), engine, DNNL_MEMORY_NONE), "memory"));
        if (gemm->shape.bias)
            CAB_TRY(check(dnnl_memory_create(&slot->bias, view(&desc[3]), engine, DNNL_MEMORY_NONE), "memory"));
        CAB_TRY(check(dnnl_memory_create(&slot->scratch, scratch, engine, DNNL_MEMORY_NONE), "memory"));
    }
    return CAB_OK;
}

static size_t round_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static cab_status compile(cab_gemm *gemm, dnnl_engine_t engine)
{
    const cab_gemm_shape *s = &gemm->direct;
    memory_desc desc[4];
    memset(desc, 0, sizeof desc);
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t pd = NULL;
    cab_status status;
    CAB_GOTO(check(describe_side(&desc[0], s, &s->a, s->m, s->k), "operand A"));
    CAB_GOTO(check(describe_side(&desc[1], s, &s->b, s->k, s->n), "operand B"));
    CAB_GOTO(check(describe_side(&desc[2], s, &s->c, s->m, s->n), "operand C"));
    if (s->bias)
        CAB_GOTO(check(describe_bias(&desc[3], s), "bias"));
    CAB_GOTO(make_attributes(s, &attributes));
    CAB_GOTO(
        check(matmul_desc(&pd, engine, &desc[0], &desc[1], s->bias ? &desc[3] : NULL, &desc[2], attributes), "matmul"));
    CAB_GOTO(check(dnnl_primitive_create(&gemm->primitive, pd), "matmul"));
    const_memory_desc scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    gemm->inner_scratch = round_up(dnnl_memory_desc_get_size(scratch));
    CAB_GOTO(make_slots(gemm, engine, desc, scratch));
done:
    for (int i = 0; i < 4; i++)
        forget(&desc[i]);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    if (attributes)
        dnnl_primitive_attr_destroy(attributes);
    return status;
}

static void gemm_free(cab_gemm *gemm)
{
    if (!gemm)
        return;
    int count = gemm->shape.serial ? gemm->threads : 1;
    for (int i = 0; gemm->slots && i < count; i++) {
        gemm_slot *slot = &gemm->slots[i];
        dnnl_memory_t memory[] = {slot->a, slot->b, slot->c, slot->bias, slot->scratch};
        for (size_t k = 0; k < sizeof memory / sizeof *memory; k++)
            if (memory[k])
                dnnl_memory_destroy(memory[k]);
        if (slot->stream)
            dnnl_stream_destroy(slot->stream);
    }
    if (gemm->primitive)
        dnnl_primitive_destroy(gemm->primitive);
    cab_free(gemm->slots);
    cab_free(gemm);
}

/* ---- fp32 copies where bf16 products are missing ------------------------------------------------------------------------ */

static bool has_bf16(const cab_backend *backend)
{
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    return cab_cpu_isa(backend) == CAB_ISA_V4 && (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

/* The side's dense fp32 copy: the same orientation, batches one after the other. */
static cab_side dense_copy(const cab_gemm_shape *s, const cab_side *side, int64_t rows, int64_t columns)
{
    cab_side copy = cab_side_dense(CAB_F32, side->column == 1 ? columns : rows, side->column != 1);
    copy.batch[1] = rows * columns;
    copy.batch[0] = rows * columns * s->batch[1];
    return copy;
}

static void plan_conversion(cab_gemm *gemm)
{
    const cab_gemm_shape *s = &gemm->shape;
    size_t count = (size_t)(s->batch[0] * s->batch[1]) * sizeof(float);
    gemm->direct.a = dense_copy(s, &s->a, s->m, s->k);
    gemm->direct.b = dense_copy(s, &s->b, s->k, s->n);
    gemm->a_bytes = round_up(count * (size_t)(s->m * s->k));
    gemm->b_bytes = round_up(count * (size_t)(s->k * s->n));
    if (s->c.dtype == CAB_F32)
        return;
    gemm->direct.c = dense_copy(s, &s->c, s->m, s->n);
    gemm->c_bytes = round_up(count * (size_t)(s->m * s->n));
}

/* Between a bf16 operand and its fp32 copy, line by line along the contiguous dimension. */
static void convert_side(const cab_gemm *gemm, const cab_side *side, const cab_side *copy, int64_t rows,
                         int64_t columns, cab_bf16 *low, float *full, bool widen)
{
    const cab_gemm_shape *s = &gemm->shape;
    bool by_rows = side->column == 1;
    int64_t lines = by_rows ? rows : columns, length = by_rows ? columns : rows;
    int64_t low_step = by_rows ? side->row : side->column, step = by_rows ? copy->row : copy->column;
    int64_t total = s->batch[0] * s->batch[1] * lines;
#pragma omp parallel for num_threads(s->serial ? 1 : gemm->threads) schedule(static)
    for (int64_t i = 0; i < total; i++) {
        int64_t line = i % lines, inner = i / lines % s->batch[1], outer = i / lines / s->batch[1];
        cab_bf16 *p = low + outer * side->batch[0] + inner * side->batch[1] + line * low_step;
        float *f = full + outer * copy->batch[0] + inner * copy->batch[1] + line * step;
        for (int64_t j = 0; j < length && widen; j++)
            f[j] = cab_bf16_to_f32(p[j]);
        for (int64_t j = 0; j < length && !widen; j++)
            p[j] = cab_bf16_from_f32(f[j]);
    }
}

/* ---- the table ------------------------------------------------------------------------------------------------------------ */

static void library_free(void *state)
{
    gemm_library *library = state;
    for (size_t i = 0; i < library->size; i++)
        gemm_free(library->table[i]);
    if (library->engine)
        dnnl_engine_destroy(library->engine);
    cab_free(library->table);
    cab_free(library);
}

static cab_status library_get(const cab_backend *backend, gemm_library **out)
{
    cab_library *place = backend->library;
    if (!place->state) {
        gemm_library *library;
        CAB_TRY(CAB_NEW(&library, 1, "products"));
        place->state = library;
        place->free = library_free;
    }
    *out = place->state;
    return (*out)->engine ? CAB_OK : check(dnnl_engine_create(&(*out)->engine, dnnl_cpu, 0), "engine");
}

static gemm_key make_key(const cab_gemm_shape *s, int threads)
{
    const cab_side *const sides[] = {&s->a, &s->b, &s->c};
    gemm_key key = {{s->m, s->n, s->k, s->batch[0], s->batch[1], s->accumulate, s->serial, threads,
                     s->bias ? 1 + (int64_t)s->bias_dtype : 0}};
    size_t n = 9;
    for (int i = 0; i < 3; i++) {
        key.field[n++] = sides[i]->dtype;
        key.field[n++] = sides[i]->row;
        key.field[n++] = sides[i]->column;
        key.field[n++] = sides[i]->batch[0];
        key.field[n++] = sides[i]->batch[1];
    }
    return key;
}

static cab_gemm **find(cab_gemm **table, size_t size, const gemm_key *key)
{
    size_t i = (size_t)cab_hash(CAB_HASH_START, key, sizeof *key) & (size - 1);
    while (table[i] && memcmp(&table[i]->key, key, sizeof *key) != 0)
        i = (i + 1) & (size - 1);
    return &table[i];
}

static cab_status make_room(gemm_library *library)
{
    if (library->size > 2 * library->used)
        return CAB_OK;
    size_t size = library->size ? 2 * library->size : 64;
    cab_gemm **table;
    CAB_TRY(CAB_NEW(&table, size, "products"));
    for (size_t i = 0; i < library->size; i++)
        if (library->table[i])
            *find(table, size, &library->table[i]->key) = library->table[i];
    cab_free(library->table);
    library->table = table;
    library->size = size;
    return CAB_OK;
}

static cab_gemm_shape normalise(const cab_gemm_shape *shape)
{
    cab_gemm_shape s = *shape;
    for (int i = 0; i < 2; i++)
        s.batch[i] = s.batch[i] ? s.batch[i] : 1;
    return s;
}

/* A primitive divides its work among the threads OpenMP would use when it is created. */
static cab_status compile_for(cab_gemm *gemm, dnnl_engine_t engine)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(gemm->shape.serial ? 1 : gemm->threads);
    cab_status status = compile(gemm, engine);
    omp_set_num_threads(before);
    return status;
}

cab_status cab_gemm_get(const cab_backend *backend, const cab_gemm_shape *shape, const cab_gemm **out)
{
    gemm_library *library;
    *out = NULL;
    CAB_TRY(library_get(backend, &library));
    CAB_TRY(make_room(library));
    cab_gemm_shape s = normalise(shape);
    gemm_key key = make_key(&s, backend->threads);
    cab_gemm **place = find(library->table, library->size, &key);
    if (!*place) {
        cab_gemm *gemm;
        CAB_TRY(CAB_NEW(&gemm, 1, "products"));
        gemm->key = key;
        gemm->shape = gemm->direct = s;
        gemm->threads = backend->threads;
        gemm->convert = s.a.dtype == CAB_BF16 && !has_bf16(backend);
        if (gemm->convert)
            plan_conversion(gemm);
        cab_status status = compile_for(gemm, library->engine);
        if (status != CAB_OK) {
            gemm_free(gemm);
            return status;
        }
        *place = gemm;
        library->used++;
    }
    *out = *place;
    return CAB_OK;
}

size_t cab_gemm_scratch(const cab_gemm *gemm)
{
    return gemm->a_bytes + gemm->b_bytes + gemm->c_bytes + gemm->inner_scratch;
}

size_t cab_gemm_scratch_of(const cab_backend *backend, const cab_gemm_shape *shape)
{
    const cab_gemm *gemm;
    return cab_gemm_get(backend, shape, &gemm) == CAB_OK ? cab_gemm_scratch(gemm) : 0;
}

/* ---- running --------------------------------------------------------------------------------------------------------------- */

static cab_status execute(const cab_gemm *gemm, const void *a, const void *b, void *c, const void *bias, void *scratch)
{
    const gemm_slot *slot = &gemm->slots[gemm->shape.serial ? omp_get_thread_num() : 0];
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, slot->a},
                                   {DNNL_ARG_WEIGHTS, slot->b},
                                   {DNNL_ARG_DST, slot->c},
                                   {DNNL_ARG_SCRATCHPAD, slot->scratch},
                                   {DNNL_ARG_BIAS, slot->bias}};
    void *handles[] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c, scratch, (void *)(uintptr_t)bias};
    int count = gemm->shape.bias ? 5 : 4;
    for (int i = 0; i < count; i++)
        CAB_TRY(check(dnnl_memory_set_data_handle(arguments[i].memory, handles[i]), "matmul"));
    return check(dnnl_primitive_execute(gemm->primitive, slot->stream, count, arguments), "matmul");
}

static cab_status run_converted(const cab_gemm *gemm, const void *a, const void *b, void *c, const void *bias,
                                void *scratch)
{
    const cab_gemm_shape *s = &gemm->shape, *d = &gemm->direct;
    char *next = scratch;
    float *a_copy = (float *)(void *)next, *b_copy = (float *)(void *)(next + gemm->a_bytes);
    next += gemm->a_bytes + gemm->b_bytes;
    float *c_copy = s->c.dtype == CAB_F32 ? c : (float *)(void *)next;
    next += gemm->c_bytes;
    convert_side(gemm, &s->a, &d->a, s->m, s->k, (cab_bf16 *)(uintptr_t)a, a_copy, true);
    convert_side(gemm, &s->b, &d->b, s->k, s->n, (cab_bf16 *)(uintptr_t)b, b_copy, true);
    if (s->c.dtype == CAB_BF16 && s->accumulate)
        convert_side(gemm, &s->c, &d->c, s->m, s->n, c, c_copy, true);
    CAB_TRY(execute(gemm, a_copy, b_copy, c_copy, bias, next));
    if (s->c.dtype == CAB_BF16)
        convert_side(gemm, &s->c, &d->c, s->m, s->n, c, c_copy, false);
    return CAB_OK;
}

cab_status cab_gemm_run(const cab_gemm *gemm, const void *a, const void *b, void *c, const void *bias, void *scratch)
{
    if (!gemm->shape.serial && omp_get_max_threads() != gemm->threads)
        omp_set_num_threads(gemm->threads);
    return gemm->convert ? run_converted(gemm, a, b, c, bias, scratch) : execute(gemm, a, b, c, bias, scratch);
}
