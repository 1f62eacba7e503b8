/* cudnn.c - graphs of cuDNN's backend interface. cudnn_attention.c describes attention with them.
 *
 * Layout: everything that cuDNN knows is a descriptor on the host. A graph owns every descriptor that it makes, in the
 * order in which it made them, and frees them last to first. Tensors are known by ids: those of memory get an address
 * in every run, virtual ones get none, and constants get their number.
 *
 * Arithmetic: none here; the operations of a graph are its user's. */
#include "ops/cuda/cudnn.h"

#include "base/memory.h"

#include <string.h>

enum { DESCRIPTORS = 256, OPERATIONS = 48, CONSTANTS = 8, CONFIGURATIONS = 16, ARGUMENTS = 24 };

/* Ids of values that no run is given: virtual tensors, then constants. */
enum { FIRST_VIRTUAL = 1000, FIRST_CONSTANT = 2000 };

struct cab_cudnn_tensor {
    cudnnBackendDescriptor_t descriptor;
};

struct cab_cudnn_graph {
    cab_status status; /* the first failure; its text is cuDNN's last */
    cudnnBackendDescriptor_t owned[DESCRIPTORS];
    struct cab_cudnn_tensor tensors[DESCRIPTORS];
    cudnnBackendDescriptor_t operations[OPERATIONS];
    float constants[CONSTANTS];
    int n_owned, n_tensors, n_operations, n_constants;
    cudnnBackendDescriptor_t plan;
    int64_t workspace;
};

cab_status cab_cudnn_check(cudnnStatus_t status, const char *what)
{
    char text[512] = "";
    if (status == CUDNN_STATUS_SUCCESS)
        return CAB_OK;
    cudnnGetLastErrorString(text, sizeof text);
    return cab_fail(CAB_EBACKEND, "cuDNN: %s: %s%s%s", what, cudnnGetErrorString(status), *text ? ": " : "", text);
}

cab_status cab_cudnn_graph_new(cab_cudnn_graph **graph)
{
    return CAB_NEW(graph, 1, "a cuDNN graph");
}

void cab_cudnn_graph_free(cab_cudnn_graph *g)
{
    if (g == NULL)
        return;
    for (int i = g->n_owned - 1; i >= 0; i--)
        (void)cudnnBackendDestroyDescriptor(g->owned[i]);
    cab_free(g);
}

/* ---- descriptors -------------------------------------------------------------------------------------------------- */

/* NULL once the graph has failed; every function below accepts it. */
static cudnnBackendDescriptor_t make(cab_cudnn_graph *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t made = NULL;
    if (g->status == CAB_OK && g->n_owned == DESCRIPTORS)
        g->status = cab_fail(CAB_EBACKEND, "cuDNN: a graph of more than %d descriptors", (int)DESCRIPTORS);
    if (g->status == CAB_OK)
        g->status = cab_cudnn_check(cudnnBackendCreateDescriptor(type, &made), "a descriptor");
    if (g->status != CAB_OK)
        return NULL;
    return g->owned[g->n_owned++] = made;
}

static void set(cab_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (g->status == CAB_OK)
        g->status = cab_cudnn_check(cudnnBackendSetAttribute(d, name, type, count, values), "an attribute");
}

static void set_descriptor(cab_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                           cudnnBackendDescriptor_t value)
{
    set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_type(cab_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                     cudnnDataType_t value)
{
    set(g, d, name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

static void set_tensor(cab_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                       cab_cudnn_tensor *value)
{
    if (value != NULL)
        set_descriptor(g, d, name, value->descriptor);
}

static void finish(cab_cudnn_graph *g, cudnnBackendDescriptor_t d, const char *what)
{
    if (g->status == CAB_OK)
        g->status = cab_cudnn_check(cudnnBackendFinalize(d), what);
}

static void add_operation(cab_cudnn_graph *g, cudnnBackendDescriptor_t d, const char *what)
{
    finish(g, d, what);
    if (g->status == CAB_OK && g->n_operations == OPERATIONS)
        g->status = cab_fail(CAB_EBACKEND, "cuDNN: a graph of more than %d operations", (int)OPERATIONS);
    if (g->status == CAB_OK)
        g->operations[g->n_operations++] = d;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

static cab_cudnn_tensor *add_tensor(cab_cudnn_graph *g, int64_t id, cudnnDataType_t type, const int64_t *dims,
                                    const int64_t *strides, bool is_virtual, bool by_value)
{
    const int64_t alignment = CAB_CUDNN_ALIGNMENT;
    int64_t dense[CAB_CUDNN_DIMS];
    dense[CAB_CUDNN_DIMS - 1] = 1;
    for (int i = CAB_CUDNN_DIMS - 2; i >= 0; i--)
        dense[i] = dense[i + 1] * dims[i + 1];
    cudnnBackendDescriptor_t d = make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set_type(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, CAB_CUDNN_DIMS, dims);
    set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, CAB_CUDNN_DIMS, strides != NULL ? strides : dense);
    set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    finish(g, d, "a tensor");
    if (g->status != CAB_OK)
        return NULL;
    struct cab_cudnn_tensor *t = &g->tensors[g->n_tensors++];
    t->descriptor = d;
    return t;
}

cab_cudnn_tensor *cab_cudnn_memory(cab_cudnn_graph *g, int64_t id, cudnnDataType_t type, const int64_t *dims,
                                   const int64_t *strides)
{
    return add_tensor(g, id, type, dims, strides, false, false);
}

cab_cudnn_tensor *cab_cudnn_virtual(cab_cudnn_graph *g, cudnnDataType_t type, const int64_t *dims,
                                    const int64_t *strides)
{
    return add_tensor(g, FIRST_VIRTUAL + g->n_tensors, type, dims, strides, true, false);
}

cab_cudnn_tensor *cab_cudnn_constant(cab_cudnn_graph *g, float value)
{
    static const int64_t one[CAB_CUDNN_DIMS] = {1, 1, 1, 1};
    if (g->status == CAB_OK && g->n_constants == CONSTANTS)
        g->status = cab_fail(CAB_EBACKEND, "cuDNN: a graph of more than %d constants", (int)CONSTANTS);
    if (g->status != CAB_OK)
        return NULL;
    g->constants[g->n_constants] = value;
    return add_tensor(g, FIRST_CONSTANT + g->n_constants++, CUDNN_DATA_FLOAT, one, one, false, true);
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

/* A finished function and, unfinished, the operation that applies it to x. */
static cudnnBackendDescriptor_t begin_pointwise(cab_cudnn_graph *g, cudnnPointwiseMode_t mode, cudnnDataType_t type,
                                                const int64_t *axis, cab_cudnn_tensor *x, cab_cudnn_tensor *y)
{
    cudnnBackendDescriptor_t function = make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(g, function, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(g, function, CUDNN_ATTR_POINTWISE_MATH_PREC, type);
    if (axis != NULL)
        set(g, function, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, axis);
    finish(g, function, "a pointwise function");
    cudnnBackendDescriptor_t d = make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, function);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    return d;
}

void cab_cudnn_pointwise(cab_cudnn_graph *g, cudnnPointwiseMode_t mode, cab_cudnn_tensor *x, cab_cudnn_tensor *b,
                         cab_cudnn_tensor *select, cab_cudnn_tensor *y)
{
    const bool compares = mode == CUDNN_POINTWISE_CMP_GE || mode == CUDNN_POINTWISE_CMP_GT;
    cudnnBackendDescriptor_t d = begin_pointwise(g, mode, compares ? CUDNN_DATA_BOOLEAN : CUDNN_DATA_FLOAT, NULL, x, y);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, select);
    add_operation(g, d, "a pointwise operation");
}

void cab_cudnn_index(cab_cudnn_graph *g, int axis, cab_cudnn_tensor *x, cab_cudnn_tensor *y)
{
    add_operation(g, begin_pointwise(g, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, &(int64_t){axis}, x, y),
                  "an index");
}

void cab_cudnn_matmul(cab_cudnn_graph *g, cab_cudnn_tensor *a, cab_cudnn_tensor *b, cab_cudnn_tensor *c)
{
    cudnnBackendDescriptor_t function = make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set_type(g, function, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    finish(g, function, "a product's type");
    cudnnBackendDescriptor_t d = make(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_MATMUL_DESC, function);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    add_operation(g, d, "a product");
}

void cab_cudnn_reduce(cab_cudnn_graph *g, cudnnReduceTensorOp_t mode, cab_cudnn_tensor *x, cab_cudnn_tensor *y)
{
    cudnnBackendDescriptor_t function = make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set(g, function, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
    set_type(g, function, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    finish(g, function, "a reduction's type");
    cudnnBackendDescriptor_t d = make(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_descriptor(g, d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, function);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    add_operation(g, d, "a reduction");
}

void cab_cudnn_reshape(cab_cudnn_graph *g, cab_cudnn_tensor *x, cab_cudnn_tensor *y)
{
    cudnnBackendDescriptor_t d = make(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_tensor(g, d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    add_operation(g, d, "a reshape");
}

/* ---- plan and run ------------------------------------------------------------------------------------------------- */

/* The heuristics' choices, best first. */
static int configurations(cab_cudnn_graph *g, cudnnBackendDescriptor_t operations, cudnnBackendDescriptor_t *found)
{
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    int64_t n = 0;
    cudnnBackendDescriptor_t heuristics = make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_descriptor(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations);
    set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    finish(g, heuristics, "the choice of an engine");
    for (int i = 0; i < CONFIGURATIONS; i++)
        found[i] = make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (g->status == CAB_OK)
        g->status = cab_cudnn_check(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGURATIONS, &n, found),
                                    "the choice of an engine");
    return g->status != CAB_OK ? 0 : (int)(n < CONFIGURATIONS ? n : CONFIGURATIONS);
}

/* Engines turn down what they cannot run only here: the first that does not is taken. */
static cab_status try_configuration(cab_cudnn_graph *g, cudnnHandle_t handle, cudnnBackendDescriptor_t configuration)
{
    int64_t n = 0;
    cudnnBackendDescriptor_t plan = make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    set_descriptor(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
    CAB_TRY(g->status);
    CAB_TRY(cab_cudnn_check(cudnnBackendFinalize(plan), "a plan"));
    g->plan = plan;
    return cab_cudnn_check(cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                                    &n, &g->workspace),
                           "the workspace of a plan");
}

cab_status cab_cudnn_graph_plan(cab_cudnn_graph *g, cudnnHandle_t handle)
{
    cudnnBackendDescriptor_t found[CONFIGURATIONS];
    cudnnBackendDescriptor_t operations = make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(g, operations, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->n_operations, g->operations);
    set(g, operations, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    finish(g, operations, "an operation graph");
    int n = configurations(g, operations, found);
    for (int i = 0; i < n; i++)
        if (try_configuration(g, handle, found[i]) == CAB_OK)
            return CAB_OK;
    if (n == 0 && g->status == CAB_OK)
        return cab_fail(CAB_EUNSUPPORTED, "cuDNN: no engine");
    return CAB_EUNSUPPORTED; /* the text is that of the last failure */
}

size_t cab_cudnn_graph_workspace(const cab_cudnn_graph *g)
{
    return (size_t)g->workspace;
}

static cab_status fill_pack(const cab_cudnn_graph *g, cudnnBackendDescriptor_t pack, int n, const int64_t *ids,
                            void *const *data, void *workspace)
{
    int64_t all[ARGUMENTS + CONSTANTS];
    const void *addresses[ARGUMENTS + CONSTANTS];
    memcpy(all, ids, (size_t)n * sizeof *all);
    memcpy(addresses, data, (size_t)n * sizeof *addresses);
    for (int i = 0; i < g->n_constants; i++) {
        all[n + i] = FIRST_CONSTANT + i;
        addresses[n + i] = &g->constants[i];
    }
    const struct {
        cudnnBackendAttributeName_t name;
        cudnnBackendAttributeType_t type;
        int64_t count;
        const void *values;
    } attributes[] = {
        {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n + g->n_constants, all},
        {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n + g->n_constants, addresses},
        {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace},
    };
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        CAB_TRY(cab_cudnn_check(cudnnBackendSetAttribute(pack, attributes[i].name, attributes[i].type,
                                                         attributes[i].count, attributes[i].values),
                                "an argument"));
    return cab_cudnn_check(cudnnBackendFinalize(pack), "the arguments");
}

cab_status cab_cudnn_graph_run(const cab_cudnn_graph *g, cudnnHandle_t handle, int n, const int64_t *ids,
                               void *const *data, void *workspace)
{
    cab_status status;
    cudnnBackendDescriptor_t pack = NULL;
    if (n > ARGUMENTS)
        return cab_fail(CAB_EBACKEND, "cuDNN: %d arguments, at most %d", n, (int)ARGUMENTS);
    CAB_GOTO(cab_cudnn_check(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack), "a run"));
    CAB_GOTO(fill_pack(g, pack, n, ids, data, workspace));
    CAB_GOTO(cab_cudnn_check(cudnnBackendExecute(handle, g->plan, pack), "a run"));
done:
    if (pack != NULL)
        (void)cudnnBackendDestroyDescriptor(pack);
    return status;
}
