/* kernel.c - which kernel a node gets. */
#include "tensor/kernel.h"

#include "tensor/graph_internal.h"

static cab_status nothing(const cab_node *node, cab_backend *backend)
{
    (void)node;
    (void)backend;
    return CAB_OK;
}

/* A gradient that nobody writes: zero. */
static cab_status zero_parts(const cab_node *node, cab_backend *backend)
{
    for (int i = 0; i < node->n_in; i++) {
        const cab_tensor *t = node->gin[i];
        size_t size = cab_dtype_size(t->dtype);
        CAB_TRY(backend->fill(backend, t->data, 0, (size_t)t->ld * size, (size_t)cab_columns(t) * size,
                              (size_t)cab_rows(t)));
    }
    return CAB_OK;
}

/* Views are the graph's own, and the same on every backend. */
static const cab_kernel_row views[] = {{.op = &cab_op_split, .direction = CAB_FORWARD, .run = nothing},
                                       {.op = &cab_op_split, .direction = CAB_BACKWARD, .run = zero_parts},
                                       {.op = &cab_op_reshape, .direction = CAB_FORWARD, .run = nothing}};
static const cab_kernel_table own = {.rows = views, .n_row = sizeof views / sizeof *views};

bool cab_fits_all(const cab_node *node, const cab_backend *backend)
{
    (void)node;
    (void)backend;
    return true;
}

size_t cab_no_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)node;
    (void)backend;
    return 0;
}

static const cab_kernel_row *find(const cab_kernel_table *table, const cab_backend *backend, const cab_node *node)
{
    const cab_direction direction = node->backward ? CAB_BACKWARD : CAB_FORWARD;
    for (size_t i = 0; i < table->n_row; i++) {
        const cab_kernel_row *row = &table->rows[i];
        if (row->op == node->op && row->direction == direction && (row->fits == NULL || row->fits(node, backend)))
            return row;
    }
    return NULL;
}

const cab_kernel_row *cab_kernel_for(const cab_backend *backend, const cab_node *node)
{
    const cab_kernel_row *row = backend->kernels != NULL ? find(backend->kernels, backend, node) : NULL;
    return row != NULL ? row : find(&own, backend, node);
}

cab_status cab_node_choose_kernel(cab_node *node, const cab_backend *backend)
{
    node->kernel = cab_kernel_for(backend, node);
    if (node->kernel == NULL)
        return node->backward
                   ? cab_fail(CAB_EUNSUPPORTED, "%s has no backward pass on %s", node->op->name, backend->name)
                   : cab_fail(CAB_EUNSUPPORTED, "%s is not available on %s", node->op->name, backend->name);
    node->scratch_bytes = node->kernel->scratch != NULL ? node->kernel->scratch(node, backend) : 0;
    return CAB_OK;
}

cab_status cab_node_run_alone(cab_node *node, cab_backend *backend)
{
    CAB_TRY(cab_node_choose_kernel(node, backend));
    if (node->scratch_bytes > 0)
        CAB_TRY(backend->allocate(backend, node->scratch_bytes, node->op->name, &node->scratch));
    const cab_status status = node->kernel->run(node, backend);
    if (node->scratch_bytes > 0)
        backend->release(backend, node->scratch);
    return status;
}
