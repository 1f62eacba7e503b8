/* cublaslt.c - matrix products by cuBLASLt: chooses an algorithm per shape, remembers it, runs it.
 *
 * Layout: our matrices are row-major, cuBLASLt's are column-major. Our C = A B is its C^T = B^T A^T, so B is handed
 * over first. An operand whose rows are dense goes as it is, a transposed one with the transpose flag. A bias per
 * column of ours is its bias per row.
 *
 * Arithmetic: C = A B + bias, or C += A B, operands bf16, fp32 or e4m3, sums fp32. Where cuBLASLt splits a sum, it
 * must add the parts in fp32 and in a fixed order; schemes that round partial sums to bf16 are not allowed. */
#include "ops/cuda/cublaslt.h"

#include "base/file.h"
#include "base/memory.h"
#include "ops/cuda/device.h"
#include "ops/product_parts.h"

#include <cublasLt.h>
#include <string.h>

enum { WORKSPACE = 64 << 20, KEY_LENGTH = 20, MAX_ALIGNMENT = 256 };

/* What an algorithm depends on, as numbers without padding: hashed and compared as bytes. */
typedef struct product_key {
    int64_t field[KEY_LENGTH];
} product_key;

typedef struct product {
    product_key key;
    bool own; /* cuBLASLt has no algorithm for it, or is not to be asked */
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t first, second, result; /* B, A and C as cuBLASLt sees them */
    cublasLtMatmulAlgo_t algorithm;
} product;

typedef struct table {
    cublasLtHandle_t handle;
    bool own; /* every product but those of 8 bits */
    void *workspace;
    product **place; /* open addressing, a power of two, at most half full */
    size_t size, used;
} table;

/* Where a product's matrices stand; the scales of 8-bit operands; whether C goes through GELU, and what it was before, if that is
 * wanted. */
typedef struct places {
    const void *a, *b, *c, *bias;
    const float *a_scale, *b_scale;
    bool gelu;
    void *before;
    int64_t before_ld;
} places;

/* One operand, column-major. */
typedef struct layout {
    bool transposed;
    int64_t rows, columns, ld;
} layout;

static cab_status check(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return CAB_OK;
    return cab_fail(CAB_EBACKEND, "%s: cuBLASLt says \"%s\"", what, cublasLtGetStatusString(status));
}

static void table_free(void *state)
{
    table *t = state;
    for (size_t i = 0; i < t->size; i++)
        cab_free(t->place[i]);
    cab_free(t->place);
    (void)cudaFree(t->workspace);
    if (t->handle != NULL)
        (void)cublasLtDestroy(t->handle);
    cab_free(t);
}

static cab_status table_get(const cab_backend *backend, table **out)
{
    cab_cuda *cuda = cab_cuda_of(backend);
    if (cuda->library[CAB_CUDA_MATRIX].state == NULL) {
        table *t;
        CAB_TRY(CAB_NEW(&t, 1, "products"));
        t->own = cuda->own;
        cuda->library[CAB_CUDA_MATRIX].state = t;
        cuda->library[CAB_CUDA_MATRIX].free = table_free;
    }
    *out = cuda->library[CAB_CUDA_MATRIX].state;
    if ((*out)->handle == NULL)
        CAB_TRY(check(cublasLtCreate(&(*out)->handle), "opening cuBLASLt"));
    return (*out)->workspace != NULL
               ? CAB_OK
               : backend->allocate((cab_backend *)backend, WORKSPACE, "cuBLASLt's workspace", &(*out)->workspace);
}

/* Bytes that an address is a multiple of. */
static int64_t alignment_of(const void *address)
{
    uintptr_t value = (uintptr_t)address | MAX_ALIGNMENT;
    return (int64_t)(value & (~value + 1));
}

/* A matrix of rows x columns as we see it. A single line may be closer to the next than it is long: it has no next. */
static layout layout_of(const cab_side *side, int64_t rows, int64_t columns)
{
    const bool transposed = side->column != 1;
    const int64_t length = transposed ? rows : columns, ld = transposed ? side->column : side->row;
    return (layout){.transposed = transposed,
                    .rows = length,
                    .columns = transposed ? columns : rows,
                    .ld = ld > length ? ld : length};
}

static product_key make_key(const cab_gemm_shape *s, const places *at)
{
    const layout first = layout_of(&s->b, s->k, s->n), second = layout_of(&s->a, s->m, s->k);
    return (product_key){{s->m, s->n, s->k, s->a.dtype, s->c.dtype, s->accumulate,
                          s->bias ? 1 + (int64_t)s->bias_dtype : 0, first.transposed, first.ld, second.transposed,
                          second.ld, s->c.row, alignment_of(at->a), alignment_of(at->b), alignment_of(at->c),
                          s->bias ? alignment_of(at->bias) : 0, at->gelu, at->before_ld,
                          at->before ? alignment_of(at->before) : 0}};
}

static cudaDataType_t type_of(cab_dtype dtype)
{
    return dtype == CAB_U8 ? CUDA_R_8F_E4M3 : dtype == CAB_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static cab_status set(product *p, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t size)
{
    return check(cublasLtMatmulDescSetAttribute(&p->operation, attribute, value, size), "product");
}

/* What changes from run to run of a shape; the heuristics look at it too. */
static cab_status set_places(product *p, const cab_gemm_shape *s, const places *at)
{
    if (s->bias)
        CAB_TRY(set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &at->bias, sizeof at->bias));
    if (at->before)
        CAB_TRY(set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &at->before, sizeof at->before));
    if (s->a.dtype != CAB_U8)
        return CAB_OK;
    CAB_TRY(set(p, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &at->b_scale, sizeof at->b_scale));
    return set(p, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &at->a_scale, sizeof at->a_scale);
}

static cab_status set_epilogue(product *p, const cab_gemm_shape *s, const places *at)
{
    static const cublasLtEpilogue_t gelu[2][2] = {{CUBLASLT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU_BIAS},
                                                  {CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_AUX_BIAS}};
    const cublasLtEpilogue_t epilogue = at->gelu ? gelu[at->before != NULL][s->bias] : CUBLASLT_EPILOGUE_BIAS;
    if (!at->gelu && !s->bias)
        return CAB_OK;
    CAB_TRY(set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (at->before)
        CAB_TRY(set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &at->before_ld, sizeof at->before_ld));
    return CAB_OK;
}

static cab_status describe(const cab_gemm_shape *s, const places *at, product *p)
{
    const layout first = layout_of(&s->b, s->k, s->n), second = layout_of(&s->a, s->m, s->k);
    const cudaDataType_t input = type_of(s->a.dtype), output = type_of(s->c.dtype);
    const cublasOperation_t operations[] = {first.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                                            second.transposed ? CUBLAS_OP_T : CUBLAS_OP_N};
    CAB_TRY(check(cublasLtMatmulDescInit(&p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product"));
    CAB_TRY(set(p, CUBLASLT_MATMUL_DESC_TRANSA, &operations[0], sizeof operations[0]));
    CAB_TRY(set(p, CUBLASLT_MATMUL_DESC_TRANSB, &operations[1], sizeof operations[1]));
    CAB_TRY(set_epilogue(p, s, at));
    CAB_TRY(set_places(p, s, at));
    CAB_TRY(check(cublasLtMatrixLayoutInit(&p->first, input, (uint64_t)first.rows, (uint64_t)first.columns, first.ld),
                  "product"));
    CAB_TRY(
        check(cublasLtMatrixLayoutInit(&p->second, input, (uint64_t)second.rows, (uint64_t)second.columns, second.ld),
              "product"));
    return check(
        cublasLtMatrixLayoutInit(&p->result, output, (uint64_t)s->n, (uint64_t)s->m, s->c.row > s->n ? s->c.row : s->n),
        "product");
}

static cab_status prefer(const cab_gemm_shape *s, const places *at, cublasLtMatmulPreference_t preference)
{
    const uint64_t workspace = WORKSPACE;
    const uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | (s->c.dtype == CAB_F32 ? CUBLASLT_REDUCTION_SCHEME_INPLACE : 0);
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t bytes;
    } alignments[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)alignment_of(at->b)},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)alignment_of(at->a)},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)alignment_of(at->c)},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)alignment_of(at->c)}};
    CAB_TRY(check(cublasLtMatmulPreferenceInit(preference), "product"));
    CAB_TRY(check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                       sizeof workspace),
                  "product"));
    CAB_TRY(check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                                                       sizeof schemes),
                  "product"));
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++)
        CAB_TRY(check(cublasLtMatmulPreferenceSetAttribute(preference, alignments[i].attribute, &alignments[i].bytes,
                                                           sizeof alignments[i].bytes),
                      "product"));
    return CAB_OK;
}

/* Fills in the algorithm, or sets p->own. */
static cab_status choose(const table *t, const cab_gemm_shape *s, const places *at, product *p)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    p->own = (t->own && s->a.dtype != CAB_U8) || (s->bias && s->bias_dtype != s->c.dtype);
    if (p->own)
        return CAB_OK;
    CAB_TRY(describe(s, at, p));
    CAB_TRY(prefer(s, at, &preference));
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        t->handle, &p->operation, &p->first, &p->second, &p->result, &p->result, &preference, 1, &found, &count);
    p->own = status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE ||
             (status == CUBLAS_STATUS_SUCCESS && (count == 0 || found.state != CUBLAS_STATUS_SUCCESS));
    if (p->own)
        return CAB_OK;
    CAB_TRY(check(status, "choosing an algorithm for a product"));
    p->algorithm = found.algo;
    return CAB_OK;
}

static product **find(product **place, size_t size, const product_key *key)
{
    size_t i = (size_t)cab_hash(CAB_HASH_START, key, sizeof *key) & (size - 1);
    while (place[i] != NULL && memcmp(&place[i]->key, key, sizeof *key) != 0)
        i = (i + 1) & (size - 1);
    return &place[i];
}

static cab_status make_room(table *t)
{
    if (t->size > 2 * t->used)
        return CAB_OK;
    const size_t size = t->size > 0 ? 2 * t->size : 64;
    product **place;
    CAB_TRY(CAB_NEW(&place, size, "products"));
    for (size_t i = 0; i < t->size; i++)
        if (t->place[i] != NULL)
            *find(place, size, &t->place[i]->key) = t->place[i];
    cab_free(t->place);
    t->place = place;
    t->size = size;
    return CAB_OK;
}

static cab_status product_get(table *t, const cab_gemm_shape *s, const places *at, product **out)
{
    const product_key key = make_key(s, at);
    product *p;
    CAB_TRY(make_room(t));
    product **place = find(t->place, t->size, &key);
    if (*place == NULL) {
        CAB_TRY(CAB_NEW(&p, 1, "products"));
        p->key = key;
        cab_status status = choose(t, s, at, p);
        if (status != CAB_OK) {
            cab_free(p);
            return status;
        }
        *place = p;
        t->used++;
    }
    *out = *place;
    return CAB_OK;
}

static cab_status multiply(const table *t, product *p, cab_backend *backend, const cab_gemm_shape *s, const places *at,
                           void *c)
{
    const float one = 1.0f, beta = s->accumulate ? 1.0f : 0.0f;
    CAB_TRY(set_places(p, s, at));
    return check(cublasLtMatmul(t->handle, &p->operation, &one, at->b, &p->first, at->a, &p->second, &beta, c,
                                &p->result, c, &p->result, &p->algorithm, t->workspace, WORKSPACE,
                                cab_cuda_of(backend)->stream),
                 "product");
}

static const void *further(const void *data, cab_dtype dtype, int64_t elements)
{
    return (const char *)data + elements * (int64_t)cab_dtype_size(dtype);
}

static cab_status run_part(cab_backend *backend, table *t, const cab_product_part *part, const places *whole, void *c)
{
    const cab_gemm_shape *s = &part->shape;
    void *to = (char *)c + part->c * (int64_t)cab_dtype_size(s->c.dtype);
    const places at = {.a = further(whole->a, s->a.dtype, part->a),
                       .b = further(whole->b, s->b.dtype, part->b),
                       .c = to,
                       .bias = s->bias ? further(whole->bias, s->bias_dtype, part->bias) : NULL};
    product *p;
    CAB_TRY(product_get(t, s, &at, &p));
    return p->own ? cab_own_gemm_cuda(backend, s, at.a, at.b, to, at.bias) : multiply(t, p, backend, s, &at, to);
}

cab_status cab_cublaslt_run(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b, void *c,
                            const void *bias)
{
    const places whole = {.a = a, .b = b, .c = c, .bias = bias};
    cab_product_part parts[CAB_PRODUCT_PARTS];
    table *t;
    if (shape->m == 0 || shape->n == 0)
        return CAB_OK;
    CAB_TRY(table_get(backend, &t));
    const int n = cab_product_cut(shape, parts);
    for (int i = 0; i < n; i++)
        CAB_TRY(run_part(backend, t, &parts[i], &whole, c));
    return CAB_OK;
}

cab_status cab_cublaslt_gelu_run(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const void *b,
                                 void *c, const void *bias, void *before, int64_t before_ld, bool *has)
{
    const places at = {
        .a = a, .b = b, .c = c, .bias = bias, .gelu = true, .before = before, .before_ld = before ? before_ld : 0};
    table *t;
    product *p;
    CAB_TRY(table_get(backend, &t));
    CAB_TRY(product_get(t, shape, &at, &p));
    *has = !p->own;
    return p->own ? CAB_OK : multiply(t, p, backend, shape, &at, c);
}

cab_status cab_cublaslt_fp8_has(const cab_backend *backend, const cab_gemm_shape *shape, bool *out)
{
    const void *any = (const void *)(uintptr_t)MAX_ALIGNMENT;
    const places at = {.a = any, .b = any, .c = any, .bias = any, .a_scale = any, .b_scale = any};
    table *t;
    product *p;
    CAB_TRY(table_get(backend, &t));
    CAB_TRY(product_get(t, shape, &at, &p));
    *out = !p->own;
    return CAB_OK;
}

cab_status cab_cublaslt_fp8_run(cab_backend *backend, const cab_gemm_shape *shape, const void *a, const float *a_scale,
                                const void *b, const float *b_scale, void *c, const void *bias)
{
    const places at = {.a = a, .b = b, .c = c, .bias = bias, .a_scale = a_scale, .b_scale = b_scale};
    table *t;
    product *p;
    if (shape->m == 0 || shape->n == 0)
        return CAB_OK;
    CAB_TRY(table_get(backend, &t));
    CAB_TRY(product_get(t, shape, &at, &p));
    if (p->own)
        return cab_fail(CAB_EBACKEND, "cuBLASLt has no 8-bit product of %lld x %lld x %lld", (long long)shape->m,
                        (long long)shape->n, (long long)shape->k);
    return multiply(t, p, backend, shape, &at, c);
}
