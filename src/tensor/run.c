/* run.c - the arena, and the list node by node. */
#include "base/log.h"
#include "base/memory.h"
#include "tensor/graph_internal.h"
#include "tensor/kernel.h"

#include <inttypes.h>
#include <string.h>

double cab_node_flops(const cab_node *node)
{
    if (node->op->flops == NULL)
        return 0;
    return node->op->flops(node);
}

static double bytes_of(const cab_tensor *t)
{
    return t != NULL ? (double)cab_elements(t) * (double)cab_dtype_size(t->dtype) : 0;
}

double cab_node_bytes(const cab_node *node)
{
    double bytes = 0;
    const bool views = node->op == &cab_op_split || node->op == &cab_op_reshape;
    for (int i = 0; i < node->n_in; i++)
        bytes += (views ? 0 : bytes_of(node->in[i])) + bytes_of(node->gin[i]) * (node->accumulate >> i & 1 ? 2 : 1);
    for (int i = 0; i < node->n_out && !views; i++)
        bytes += bytes_of(node->out[i]) + bytes_of(node->gout[i]);
    return bytes;
}

bool cab_node_has_effect(const cab_node *node)
{
    bool effect = node->op->effect;
    for (int i = 0; i < node->n_in; i++) {
        effect |= node->in[i] != NULL && node->in[i]->kind == CAB_STATE;
        effect |= node->gin[i] != NULL && node->gin[i]->kind == CAB_PARAMETER;
    }
    return effect;
}

static void bind_tensors(cab_graph *g)
{
    for (size_t i = 0; i < g->n_tensors; i++) {
        cab_tensor *t = g->tensors[i];
        int64_t offset;
        const cab_tensor *root = cab_tensor_root(t, &offset);
        if (root->id >= 0 && root->kind == CAB_ACTIVATION) {
            char *memory = (char *)g->arena + g->places[root->id].offset;
            t->data = g->places[root->id].first < 0 ? NULL : memory + offset * (int64_t)cab_dtype_size(t->dtype);
        }
    }
    for (size_t i = 0; i < g->n_nodes; i++)
        g->nodes[i]->scratch = g->nodes[i]->scratch_bytes > 0 ? (char *)g->arena + g->scratch_offsets[i] : NULL;
}

static cab_status allocate_arena(cab_graph *g)
{
    double available = g->backend->available(g->backend);
    if ((double)g->arena_bytes > available) {
        char need[32], have[32];
        return cab_fail(
            CAB_ENOMEM,
            "the plan needs %s for activations and %s has %s left; use a smaller micro-batch or sequence, or recompute",
            cab_format_bytes((double)g->arena_bytes, need), g->backend->name, cab_format_bytes(available, have));
    }
    CAB_TRY(g->backend->allocate(g->backend, g->arena_bytes, "the arena", &g->arena));
    bind_tensors(g);
    return CAB_OK;
}

/* In debug builds every run starts on NaN: what a kernel forgets to write shows. All bits set is NaN in bf16 and fp32.
 */
static cab_status poison(cab_graph *g)
{
#ifdef NDEBUG
    (void)g;
    return CAB_OK;
#else
    return g->arena == NULL ? CAB_OK : g->backend->fill(g->backend, g->arena, 0xff, g->arena_bytes, g->arena_bytes, 1);
#endif
}

static cab_status run_timed(cab_graph *g, size_t index)
{
    const cab_node *node = g->nodes[index];
    double started = cab_seconds();
    CAB_TRY(node->kernel->run(node, g->backend));
    if (g->backend->wait != NULL)
        CAB_TRY(g->backend->wait(g->backend));
    g->seconds[index] += cab_seconds() - started;
    return CAB_OK;
}

static cab_status run_list(cab_graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const cab_node *node = g->nodes[i];
        if (!node->skip && !cab_graph_leaves_out(g, node))
            CAB_TRY(g->timed ? run_timed(g, i) : node->kernel->run(node, g->backend));
    }
    return CAB_OK;
}

cab_status cab_tensor_check_host_access(const cab_tensor *t)
{
    int64_t offset;
    const cab_tensor *root = cab_tensor_root(t, &offset);
    if (t->data == NULL || (root->kind == CAB_ACTIVATION && !root->keep))
        return cab_fail(CAB_EARG, "\"%s\" has no memory yet or was not kept", t->name);
    if (t->base != NULL && t->ld != cab_columns(t))
        return cab_fail(CAB_EARG, "\"%s\" is a view on columns and cannot be copied whole", t->name);
    return CAB_OK;
}

/* The entry of t, which is made on first use. */
static cab_status ahead_of(cab_graph *g, cab_tensor *t, cab_ahead **out)
{
    CAB_TRY(cab_tensor_check_host_access(t));
    for (size_t i = 0; i < g->n_ahead; i++)
        if (g->ahead[i].tensor == t) {
            *out = &g->ahead[i];
            return CAB_OK;
        }
    CAB_TRY(CAB_GROW(&g->ahead, &g->ahead_capacity, g->n_ahead + 1, "inputs"));
    cab_ahead *a = &g->ahead[g->n_ahead];
    *a = (cab_ahead){.tensor = t};
    if (g->backend->host) {
        a->buffer = t->data;
    } else {
        CAB_TRY(g->backend->allocate(g->backend, cab_tensor_bytes(t), t->name, &a->buffer));
        CAB_TRY(g->backend->wait(g->backend)); /* until it is zeroed, which is not beside what runs */
    }
    g->n_ahead++;
    *out = a;
    return CAB_OK;
}

cab_status cab_tensor_write_ahead(cab_graph *g, cab_tensor *t, const void *from)
{
    cab_ahead *a = NULL;
    if (g->backend->upload_ahead == NULL)
        return cab_tensor_write(g, t, from);
    CAB_TRY(ahead_of(g, t, &a));
    CAB_TRY(g->backend->upload_ahead(g->backend, a->buffer, from, cab_tensor_bytes(t)));
    a->pending = true;
    return CAB_OK;
}

cab_status cab_tensor_lend(cab_graph *g, cab_tensor *t, const void *from)
{
    cab_ahead *a = NULL;
    CAB_TRY(ahead_of(g, t, &a));
    if (g->backend->host) {
        t->data = (void *)from; /* kernels do not write inputs */
        return CAB_OK;
    }
    CAB_TRY(g->backend->upload_lent(g->backend, a->buffer, from, cab_tensor_bytes(t)));
    a->pending = true;
    return CAB_OK;
}

static cab_status take_ahead(cab_graph *g)
{
    for (size_t i = 0; i < g->n_ahead; i++) {
        cab_ahead *a = &g->ahead[i];
        if (a->pending)
            CAB_TRY(g->backend->take(g->backend, a->tensor->data, a->buffer, cab_tensor_bytes(a->tensor)));
        a->pending = false;
    }
    return CAB_OK;
}

static cab_status prepare(cab_graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const cab_node *node = g->nodes[i];
        if (!node->skip && node->kernel->prepare != NULL)
            CAB_TRY(node->kernel->prepare(node, g->backend));
    }
    return CAB_OK;
}

/* The first run is made node by node, so that kernels can set up what they keep; the second is recorded. */
static cab_status capture(cab_graph *g)
{
    void *captured = NULL;
    CAB_TRY(g->backend->capture_begin(g->backend));
    cab_status ran = run_list(g);
    cab_status ended = g->backend->capture_end(g->backend, &captured);
    if (ran == CAB_OK && ended == CAB_OK)
        g->captured[g->reducing] = captured;
    else if (captured != NULL)
        g->backend->capture_free(g->backend, captured);
    return ran != CAB_OK ? ran : ended;
}

cab_status cab_graph_run(cab_graph *g)
{
    if (g->status != CAB_OK)
        return cab_fail(g->status, "%s", g->error);
    if (!g->planned)
        CAB_TRY(cab_graph_plan(g, NULL));
    if (!g->eager && g->arena == NULL && g->arena_bytes > 0)
        CAB_TRY(allocate_arena(g));
    CAB_TRY(poison(g));
    CAB_TRY(take_ahead(g));
    CAB_TRY(prepare(g));
    if (g->backend->capture_begin == NULL || g->timed || g->eager || !g->warm[g->reducing]) {
        CAB_TRY(run_list(g));
        g->warm[g->reducing] = true;
        return CAB_OK;
    }
    if (g->captured[g->reducing] == NULL)
        CAB_TRY(capture(g));
    return g->backend->replay(g->backend, g->captured[g->reducing]);
}

cab_status cab_tensor_write(cab_graph *g, cab_tensor *t, const void *from)
{
    CAB_TRY(cab_tensor_check_host_access(t));
    return g->backend->upload(g->backend, t->data, from, cab_tensor_bytes(t));
}

cab_status cab_tensor_read(cab_graph *g, const cab_tensor *t, void *to)
{
    CAB_TRY(cab_tensor_check_host_access(t));
    return g->backend->download(g->backend, to, t->data, cab_tensor_bytes(t));
}

bool cab_tensors_range(const cab_graph *g, int n, cab_tensor *const *tensors, const char **begin, size_t *bytes)
{
    const size_t most = 1 << 16;
    const char *first = NULL, *last = NULL;
    for (int i = 0; i < n; i++) {
        if (tensors[i] == NULL)
            continue;
        int64_t offset;
        if (g->eager || cab_tensor_root(tensors[i], &offset)->kind != CAB_ACTIVATION)
            return false;
        const char *from = tensors[i]->data, *to = from + cab_tensor_bytes(tensors[i]);
        first = first == NULL || from < first ? from : first;
        last = last == NULL || to > last ? to : last;
    }
    *begin = first;
    *bytes = (size_t)(last - first);
    return first != NULL && *bytes <= most;
}

cab_status cab_scalar_write(cab_graph *g, cab_tensor *t, float value)
{
    return cab_tensor_write(g, t, &value);
}

cab_status cab_scalar_read(cab_graph *g, const cab_tensor *t, float *value)
{
    return cab_tensor_read(g, t, value);
}

void cab_graph_time(cab_graph *g, bool on)
{
    g->timed = on;
}

double cab_graph_node_seconds(const cab_graph *g, int index)
{
    return g->seconds != NULL ? g->seconds[index] : 0;
}
