/* graph.c - recording: tensors and nodes are appended; nothing runs (except in eager mode, node by node). */
#include "base/memory.h"
#include "tensor/graph_internal.h"
#include "tensor/kernel.h"
#include "tensor/params.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cab_status cab_graph_new(cab_backend *backend, cab_graph **graph)
{
    CAB_TRY(CAB_NEW(graph, 1, "a graph"));
    (*graph)->backend = backend;
    (*graph)->segment = -1;
    const char *eager = getenv("CAB_EAGER");
    (*graph)->eager = eager != NULL && strcmp(eager, "1") == 0;
    return CAB_OK;
}

static bool owns_memory(const cab_graph *g, const cab_tensor *t)
{
    return t->base == NULL && (t->kind != CAB_ACTIVATION || g->eager);
}

void cab_graph_free(cab_graph *g)
{
    if (g == NULL)
        return;
    for (int i = 0; i < 2; i++)
        if (g->captured[i] != NULL)
            g->backend->capture_free(g->backend, g->captured[i]);
    for (size_t i = 0; i < g->n_ahead; i++) {
        if (g->backend->host) /* what was lent is not the graph's */
            g->ahead[i].tensor->data = NULL;
        g->backend->release(g->backend, g->ahead[i].buffer);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        if (owns_memory(g, g->tensors[i]))
            g->backend->release(g->backend, g->tensors[i]->data);
        cab_free(g->tensors[i]);
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->eager)
            g->backend->release(g->backend, g->nodes[i]->scratch);
        g->backend->release(g->backend, g->nodes[i]->prepared);
        cab_free((void *)g->nodes[i]->attributes);
        cab_free(g->nodes[i]);
    }
    g->backend->release(g->backend, g->arena);
    cab_free(g->ahead);
    cab_free(g->tensors);
    cab_free(g->nodes);
    cab_free(g->gradients);
    cab_free(g->written);
    cab_free(g->wanted);
    cab_free(g->places);
    cab_free(g->scratch_offsets);
    cab_free(g->seconds);
    cab_free(g);
}

cab_backend *cab_graph_backend(const cab_graph *g)
{
    return g->backend;
}

bool cab_graph_supports(const cab_graph *g, const cab_node *node)
{
    return cab_kernel_for(g->backend, node) != NULL;
}

void *cab_graph_fail(cab_graph *g, cab_status status, const char *format, ...)
{
    if (g->status != CAB_OK)
        return NULL;
    va_list args;
    va_start(args, format);
    vsnprintf(g->error, sizeof g->error, format, args);
    va_end(args);
    g->status = status;
    return NULL;
}

bool cab_graph_failed(const cab_graph *g)
{
    return g->status != CAB_OK;
}

/* Carries a failure of a called function over into the graph. */
static void *carry(cab_graph *g, cab_status status)
{
    return cab_graph_fail(g, status, "%s", cab_error_text());
}

static cab_tensor *new_tensor(cab_graph *g, const char *name, cab_tensor_kind kind, cab_dtype dtype, int n_dim,
                              const int64_t *shape)
{
    if (cab_graph_failed(g))
        return NULL;
    if (n_dim < 1 || n_dim > CAB_MAX_DIMS)
        return cab_graph_fail(g, CAB_ESHAPE, "%s: %d dimensions, expected 1 to %d", name, n_dim, CAB_MAX_DIMS);
    int64_t elements = 1;
    for (int i = 0; i < n_dim; i++)
        if (shape[i] < 1 || __builtin_mul_overflow(elements, shape[i], &elements) || elements > INT64_MAX / 16)
            return cab_graph_fail(g, CAB_ESHAPE, "%s: dimension %d is %" PRId64 ", too small or too large", name, i,
                                  shape[i]);
    cab_tensor *t = NULL;
    cab_status status = CAB_GROW(&g->tensors, &g->tensors_capacity, g->n_tensors + 1, "a graph");
    if (status == CAB_OK)
        status = CAB_NEW(&t, 1, "a graph");
    if (status != CAB_OK)
        return carry(g, status);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->kind = kind;
    t->dtype = dtype;
    t->n_dim = n_dim;
    memcpy(t->shape, shape, (size_t)n_dim * sizeof *shape);
    t->ld = shape[n_dim - 1];
    t->producer = -1;
    t->id = (int)g->n_tensors;
    g->tensors[g->n_tensors++] = t;
    return t;
}

static cab_tensor *with_memory(cab_graph *g, cab_tensor *t)
{
    if (t == NULL)
        return NULL;
    cab_status status = g->backend->allocate(g->backend, cab_tensor_bytes(t), t->name, &t->data);
    return status == CAB_OK ? t : carry(g, status);
}

cab_tensor *cab_graph_input(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape)
{
    return with_memory(g, new_tensor(g, name, CAB_INPUT, dtype, n_dim, shape));
}

cab_tensor *cab_graph_scalar(cab_graph *g, const char *name, float value)
{
    cab_tensor *t = cab_graph_input(g, name, CAB_F32, 1, (int64_t[]){1});
    if (t == NULL)
        return NULL;
    cab_status status = cab_scalar_write(g, t, value);
    return status == CAB_OK ? t : carry(g, status);
}

cab_tensor *cab_graph_state(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape)
{
    return with_memory(g, new_tensor(g, name, CAB_STATE, dtype, n_dim, shape));
}

cab_tensor *cab_graph_activation(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape)
{
    return cab_graph_padded(g, name, dtype, n_dim, shape, 1);
}

cab_tensor *cab_graph_padded(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape,
                             int64_t multiple)
{
    cab_tensor *t = new_tensor(g, name, CAB_ACTIVATION, dtype, n_dim, shape);
    if (t != NULL)
        t->ld = (t->ld + multiple - 1) / multiple * multiple;
    return g->eager ? with_memory(g, t) : t;
}

cab_tensor *cab_graph_like(cab_graph *g, const char *prefix, const cab_tensor *like)
{
    char name[CAB_NAME_MAX + 32];
    snprintf(name, sizeof name, "%s%s", prefix, like->name);
    return cab_graph_padded(g, name, like->dtype, like->n_dim, like->shape, like->ld);
}

cab_tensor *cab_graph_view(cab_graph *g, cab_tensor *base, int n_dim, const int64_t *shape, int64_t ld, int64_t offset)
{
    cab_tensor *t = new_tensor(g, base->name, base->kind, base->dtype, n_dim, shape);
    if (t == NULL)
        return NULL;
    t->ld = ld;
    t->base = base;
    t->offset = offset;
    if (base->data != NULL)
        t->data = (char *)base->data + offset * (int64_t)cab_dtype_size(base->dtype);
    return t;
}

const cab_tensor *cab_tensor_root(const cab_tensor *t, int64_t *offset)
{
    *offset = 0;
    while (t->base != NULL) {
        *offset += t->offset;
        t = t->base;
    }
    return t;
}

static cab_status copy_attributes(cab_node *node, const cab_node *template)
{
    node->attributes = NULL;
    if (template->attributes_size == 0)
        return CAB_OK;
    void *copy = NULL;
    CAB_TRY(cab_alloc(&copy, 1, template->attributes_size, "a node"));
    memcpy(copy, template->attributes, template->attributes_size);
    node->attributes = copy;
    return CAB_OK;
}

static cab_status run_eagerly(cab_graph *g, cab_node *node)
{
    if (node->scratch_bytes > 0)
        CAB_TRY(g->backend->allocate(g->backend, node->scratch_bytes, node->op->name, &node->scratch));
    return cab_node_has_effect(node) ? CAB_OK : node->kernel->run(node, g->backend);
}

/* Chooses the kernel, and makes the memory that it prepares. */
static cab_status give_kernel(cab_graph *g, cab_node *node)
{
    CAB_TRY(cab_node_choose_kernel(node, g->backend));
    node->prepared_bytes = node->kernel->prepared != NULL ? node->kernel->prepared(node, g->backend) : 0;
    return node->prepared_bytes > 0
               ? g->backend->allocate(g->backend, node->prepared_bytes, node->op->name, &node->prepared)
               : CAB_OK;
}

cab_node *cab_graph_push(cab_graph *g, const cab_node *template)
{
    cab_node *node = NULL;
    cab_status status = CAB_GROW(&g->nodes, &g->nodes_capacity, g->n_nodes + 1, "a graph");
    if (status == CAB_OK)
        status = CAB_NEW(&node, 1, "a node");
    if (status != CAB_OK)
        return carry(g, status);
    *node = *template;
    g->nodes[g->n_nodes] = node;
    status = copy_attributes(node, template);
    if (status != CAB_OK) {
        cab_free(node);
        return carry(g, status);
    }
    for (int i = 0; i < node->n_out; i++)
        if (node->out[i] != NULL && node->out[i]->producer < 0 && !node->backward)
            node->out[i]->producer = (int)g->n_nodes;
    g->n_nodes++;
    status = give_kernel(g, node);
    if (status == CAB_OK && g->eager)
        status = run_eagerly(g, node);
    return status == CAB_OK ? node : carry(g, status);
}

bool cab_tensor_is_reshape(const cab_graph *g, const cab_tensor *t)
{
    return t->base != NULL && t->producer >= 0 && g->nodes[t->producer]->op == &cab_op_reshape;
}

/* Whether t, or a tensor that it reshapes, has been split: reading it would need a gradient beside its parts'. */
static bool has_been_split(const cab_graph *g, const cab_tensor *t)
{
    while (!t->split && cab_tensor_is_reshape(g, t))
        t = t->base;
    return t->split;
}

static void mark_split(cab_graph *g, cab_tensor *t)
{
    for (; cab_tensor_is_reshape(g, t); t = t->base)
        t->split = true;
    t->split = true;
}

void cab_graph_append(cab_graph *g, const cab_op *op, int n_in, cab_tensor *const *in, int n_out,
                      cab_tensor *const *out, const void *attributes, size_t attributes_size)
{
    if (cab_graph_failed(g))
        return;
    if (n_in > CAB_MAX_IN || n_out > CAB_MAX_OUT) {
        cab_graph_fail(g, CAB_ESHAPE, "%s: %d inputs and %d outputs, at most %d and %d are possible", op->name, n_in,
                       n_out, CAB_MAX_IN, CAB_MAX_OUT);
        return;
    }
    cab_node node = {.op = op,
                     .n_in = n_in,
                     .n_out = n_out,
                     .segment = g->segment,
                     .attributes = attributes,
                     .attributes_size = attributes_size};
    for (int i = 0; i < n_in; i++) {
        node.in[i] = in[i];
        if (in[i] != NULL && has_been_split(g, in[i])) {
            cab_graph_fail(g, CAB_ESHAPE, "%s: \"%s\" has been split; use its parts", op->name, in[i]->name);
            return;
        }
    }
    for (int i = 0; i < n_out; i++)
        node.out[i] = out[i];
    if (g->backend->kernels != NULL && g->backend->kernels->adapt != NULL)
        g->backend->kernels->adapt(g, &node);
    cab_graph_push(g, &node);
}

cab_tensor *cab_graph_weight(cab_graph *g, cab_tensor *parameter, cab_dtype dtype)
{
    if (cab_graph_failed(g) || parameter == NULL)
        return NULL;
    if (parameter->dtype == dtype || cab_dtype_is_blocks(parameter->dtype))
        return parameter;
    if (parameter->kind != CAB_PARAMETER || parameter->dtype != CAB_F32 || dtype != CAB_BF16)
        return cab_graph_fail(g, CAB_ESHAPE, "\"%s\" is %s where %s is needed", parameter->name,
                              cab_dtype_name(parameter->dtype), cab_dtype_name(dtype));
    cab_tensor *low = NULL;
    cab_status status = cab_params_low(parameter->owner, parameter, &low);
    return status == CAB_OK ? low : carry(g, status);
}

/* A view of a parameter would have no place for its gradient. */
static bool is_not_parameter(cab_graph *g, const char *op, const cab_tensor *x)
{
    if (x->kind != CAB_PARAMETER)
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "%s: \"%s\" is a parameter, expected an activation", op, x->name);
    return false;
}

void cab_split(cab_graph *g, cab_tensor *x, int n, const int64_t *sizes, cab_tensor **parts)
{
    memset(parts, 0, (size_t)n * sizeof *parts);
    if (cab_graph_failed(g) || x == NULL || !is_not_parameter(g, "split", x))
        return;
    int64_t offset = 0;
    int64_t shape[CAB_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    for (int i = 0; i < n && i < CAB_MAX_OUT; i++) {
        shape[x->n_dim - 1] = sizes[i];
        parts[i] = cab_graph_view(g, x, x->n_dim, shape, x->ld, offset);
        offset += sizes[i];
    }
    if (offset != cab_columns(x) || n > CAB_MAX_OUT) {
        cab_graph_fail(g, CAB_ESHAPE, "split: %d parts of \"%s\" sum to %" PRId64 " columns, expected %" PRId64, n,
                       x->name, offset, cab_columns(x));
        return;
    }
    cab_graph_append(g, &cab_op_split, 1, &x, n, parts, NULL, 0);
    mark_split(g, x);
}

cab_tensor *cab_reshape(cab_graph *g, cab_tensor *x, int n_dim, const int64_t *shape)
{
    if (cab_graph_failed(g) || x == NULL || !is_not_parameter(g, "reshape", x))
        return NULL;
    if (x->ld != cab_columns(x))
        return cab_graph_fail(g, CAB_ESHAPE,
                              "reshape: rows of \"%s\" are %" PRId64 " elements apart, expected %" PRId64, x->name,
                              x->ld, cab_columns(x));
    cab_tensor *t = cab_graph_view(g, x, n_dim, shape, shape[n_dim - 1], 0);
    if (t != NULL && cab_elements(t) != cab_elements(x))
        return cab_graph_fail(g, CAB_ESHAPE, "reshape: \"%s\" has %" PRId64 " elements, expected %" PRId64, x->name,
                              cab_elements(x), cab_elements(t));
    if (t != NULL)
        cab_graph_append(g, &cab_op_reshape, 1, &x, 1, &t, NULL, 0);
    return t;
}

void cab_graph_keep(cab_graph *g, cab_tensor *t)
{
    (void)g;
    for (; t != NULL; t = t->base)
        t->keep = true;
}

void cab_graph_segment_begin(cab_graph *g)
{
    if (g->segment >= 0)
        cab_graph_fail(g, CAB_EARG, "recompute segments do not nest");
    else
        g->segment = g->n_segments++;
}

void cab_graph_segment_end(cab_graph *g)
{
    g->segment = -1;
}

int cab_graph_nodes(const cab_graph *g)
{
    return (int)g->n_nodes;
}

const cab_node *cab_graph_node(const cab_graph *g, int index)
{
    return g->nodes[index];
}
