/* cublaslt.cpp - cuBLASLt's products by three loops, with the epilogues that src/ops/cuda/cublaslt.c asks for; it has an algorithm for
 * everything. cuDNN is there and too old. */
#include "emulator.h"

#include <cstdio>
#include <cstdlib>
#include <cublasLt.h>
#include <cudnn.h>
#include <vector>

namespace
{
struct matrix { /* column-major */
    cudaDataType_t type;
    int64_t rows, columns, ld;
};

struct product {
    int transposed_a, transposed_b, epilogue;
    const void *bias;
    void *before; /* GELU */
    int64_t before_ld;
    const float *scale_a, *scale_b;
};
} // namespace

static void fail(const char *what)
{
    fprintf(stderr, "emulator: cuBLASLt: %s\n", what);
    abort();
}

/* e4m3 without infinities. */
static float from_e4m3(uint8_t bits)
{
    const int exponent = bits >> 3 & 15, fraction = bits & 7;
    const float size =
        exponent > 0 ? ldexpf(1.0f + (float)fraction / 8, exponent - 7) : ldexpf((float)fraction / 8, -6);
    return bits & 128 ? -size : size;
}

static float get(const void *data, cudaDataType_t type, int64_t i)
{
    if (type == CUDA_R_32F)
        return ((const float *)data)[i];
    return type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16 *)data)[i])
                               : from_e4m3(((const uint8_t *)data)[i]);
}

static void put(void *data, cudaDataType_t type, int64_t i, float x)
{
    if (type == CUDA_R_32F)
        ((float *)data)[i] = x;
    else
        ((__nv_bfloat16 *)data)[i] = __float2bfloat16_rn(x);
}

/* As fp32, transposed if asked, without padding. */
static std::vector<float> dense(const void *data, const matrix &m, bool transposed)
{
    std::vector<float> to((size_t)(m.rows * m.columns));
    for (int64_t c = 0; c < m.columns; c++)
        for (int64_t r = 0; r < m.rows; r++)
            to[(size_t)(transposed ? r * m.columns + c : c * m.rows + r)] = get(data, m.type, c * m.ld + r);
    return to;
}

static float gelu(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.797884561f * (x + 0.044715f * x * x * x)));
}

static bool has_bias(const product &p)
{
    return p.epilogue == CUBLASLT_EPILOGUE_BIAS || p.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS ||
           p.epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
}

static bool keeps(const product &p)
{
    return p.epilogue == CUBLASLT_EPILOGUE_GELU_AUX || p.epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
}

static bool has_gelu(const product &p)
{
    return keeps(p) || p.epilogue == CUBLASLT_EPILOGUE_GELU || p.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
}

static void check(const product &p, const matrix &a, const matrix &b, const matrix &d)
{
    if ((p.transposed_a ? a.columns : a.rows) != d.rows || (p.transposed_b ? b.rows : b.columns) != d.columns ||
        (p.transposed_a ? a.rows : a.columns) != (p.transposed_b ? b.columns : b.rows))
        fail("sizes that do not fit");
    if (has_bias(p) && p.bias == nullptr)
        fail("no bias");
    if (keeps(p) &&
        (p.before == nullptr || (uintptr_t)p.before % 16 != 0 || p.before_ld < d.rows || p.before_ld % 8 != 0))
        fail("no place for what GELU is of");
}

static void multiply(const product &p, const matrix &a, const void *A, const matrix &b, const void *B, const matrix &d,
                     void *D, float beta)
{
    const std::vector<float> left = dense(A, a, p.transposed_a), right = dense(B, b, p.transposed_b);
    const int64_t m = d.rows, k = p.transposed_a ? a.rows : a.columns;
    const float scale = a.type == CUDA_R_8F_E4M3 ? *p.scale_a * *p.scale_b : 1.0f;
    std::vector<float> sums((size_t)m);
    for (int64_t c = 0; c < d.columns; c++) {
        sums.assign((size_t)m, 0.0f);
        for (int64_t i = 0; i < k; i++)
            for (int64_t r = 0; r < m; r++)
                sums[(size_t)r] += left[(size_t)(i * m + r)] * right[(size_t)(c * k + i)];
        for (int64_t r = 0; r < m; r++) {
            float x = scale * sums[(size_t)r] + (beta != 0.0f ? beta * get(D, d.type, c * d.ld + r) : 0.0f);
            x += has_bias(p) ? get(p.bias, d.type, r) : 0.0f;
            if (keeps(p))
                put(p.before, d.type, c * p.before_ld + r, x);
            put(D, d.type, c * d.ld + r, has_gelu(p) ? gelu(x) : x);
        }
    }
}

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = (cublasLtHandle_t)1;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t)
{
    return CUBLAS_STATUS_SUCCESS;
}
const char *cublasLtGetStatusString(cublasStatus_t)
{
    return "emulated";
}
size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}
cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t description, size_t, cublasComputeType_t,
                                               cudaDataType_t)
{
    *(product *)description = {};
    ((product *)description)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t, cudaDataType type,
                                                 uint64_t rows, uint64_t columns, int64_t ld)
{
    if (ld < (int64_t)rows)
        fail("columns that overlap");
    *(matrix *)layout = {type, (int64_t)rows, (int64_t)columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t, size_t)
{
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                                    const void *, size_t)
{
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute, const void *value, size_t size)
{
    product &p = *(product *)description;
    const struct {
        cublasLtMatmulDescAttributes_t attribute;
        void *field;
        size_t size;
    } known[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &p.transposed_a, sizeof p.transposed_a},
                 {CUBLASLT_MATMUL_DESC_TRANSB, &p.transposed_b, sizeof p.transposed_b},
                 {CUBLASLT_MATMUL_DESC_EPILOGUE, &p.epilogue, sizeof p.epilogue},
                 {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias},
                 {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &p.before, sizeof p.before},
                 {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &p.before_ld, sizeof p.before_ld},
                 {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p.scale_a, sizeof p.scale_a},
                 {CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p.scale_b, sizeof p.scale_b}};
    for (const auto &k : known)
        if (k.attribute == attribute && k.size == size) {
            memcpy(k.field, value, size);
            return CUBLAS_STATUS_SUCCESS;
        }
    fail("an attribute that is not emulated");
    return CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t *results,
                                              int *count)
{
    results[0] = {};
    results[0].state = CUBLAS_STATUS_SUCCESS;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void *, const void *A,
                              cublasLtMatrixLayout_t a_layout, const void *B, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *, cublasLtMatrixLayout_t, void *D,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *, void *, size_t,
                              cudaStream_t)
{
    const product p = *(const product *)description;
    const matrix a = *(const matrix *)a_layout, b = *(const matrix *)b_layout, d = *(const matrix *)d_layout;
    const float add = *(const float *)beta;
    check(p, a, b, d);
    emulator_do([=] { multiply(p, a, A, b, B, d, D, add); });
    return CUBLAS_STATUS_SUCCESS;
}

size_t cudnnGetVersion(void)
{
    return 90000;
}
const char *cudnnGetErrorString(cudnnStatus_t)
{
    return "not emulated";
}
void cudnnGetLastErrorString(char *text, size_t size)
{
    if (size > 0)
        *text = '\0';
}
cudnnStatus_t cudnnCreate(cudnnHandle_t *)
{
    return CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t)
{
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t)
{
    return CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t, cudnnBackendDescriptor_t *)
{
    return CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t)
{
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t)
{
    return CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t,
                                       cudnnBackendAttributeType_t, int64_t, const void *)
{
    return CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const, cudnnBackendAttributeName_t,
                                       cudnnBackendAttributeType_t, int64_t, int64_t *, void *)
{
    return CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t, cudnnBackendDescriptor_t, cudnnBackendDescriptor_t)
{
    return CUDNN_STATUS_NOT_SUPPORTED;
}
}
