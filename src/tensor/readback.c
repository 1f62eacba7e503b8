/* readback.c - a ring of slots in host memory. A slot holds the range of the arena that has all results, where that is short; else the
 * results one after another. */
#include "tensor/readback.h"

#include "base/memory.h"
#include "tensor/graph_internal.h"

#include <string.h>

struct cab_readback {
    cab_graph *graph;
    int n;
    cab_tensor *const *tensors;
    size_t *offsets;   /* of each in a slot */
    const char *range; /* what one copy reads; NULL: each is copied for itself */
    size_t bytes;      /* of a slot */
    char *slots;       /* CAB_READBACKS of them; NULL before the first */
    uint64_t marks[CAB_READBACKS];
    int oldest, waiting;
};

cab_status cab_readback_new(cab_graph *g, int n, cab_tensor *const *tensors, cab_readback **readback)
{
    cab_readback *r = NULL;
    CAB_TRY(CAB_NEW(&r, 1, "results"));
    *r = (cab_readback){.graph = g, .n = n, .tensors = tensors};
    cab_status status = CAB_NEW(&r->offsets, (size_t)n + 1, "results");
    if (status != CAB_OK)
        cab_free(r);
    else
        *readback = r;
    return status;
}

void cab_readback_free(cab_readback *r)
{
    if (r == NULL)
        return;
    if (r->waiting > 0 && r->graph->backend->wait != NULL)
        (void)r->graph->backend->wait(r->graph->backend); /* copies may be on their way to the slots */
    cab_host_release(r->graph->backend, r->slots);
    cab_free(r->offsets);
    cab_free(r);
}

/* Once tensors have their memory, which stays. */
static cab_status lay_out(cab_readback *r)
{
    if (!cab_tensors_range(r->graph, r->n, r->tensors, &r->range, &r->bytes)) {
        r->range = NULL;
        r->bytes = 0;
    }
    for (int i = 0; i < r->n; i++) {
        const cab_tensor *t = r->tensors[i];
        if (t == NULL)
            continue;
        CAB_TRY(cab_tensor_check_host_access(t));
        r->offsets[i] = r->range != NULL ? (size_t)((const char *)t->data - r->range) : r->bytes;
        r->bytes += r->range != NULL ? 0 : (cab_tensor_bytes(t) + 63) / 64 * 64;
    }
    return cab_host_allocate(r->graph->backend, CAB_READBACKS * r->bytes, "results", (void **)&r->slots);
}

static cab_status copy(cab_backend *b, void *to, const void *from, size_t bytes, uint64_t *mark)
{
    if (b->download_behind != NULL)
        return b->download_behind(b, to, from, bytes, mark);
    return b->download(b, to, from, bytes);
}

cab_status cab_readback_ask(cab_readback *r)
{
    const int next = (r->oldest + r->waiting) % CAB_READBACKS;
    cab_backend *b = r->graph->backend;
    if (r->waiting == CAB_READBACKS)
        return cab_fail(CAB_EARG, "results of %d runs wait to be taken already", CAB_READBACKS);
    if (r->slots == NULL)
        CAB_TRY(lay_out(r));
    char *slot = r->slots + (size_t)next * r->bytes;
    if (r->range != NULL)
        CAB_TRY(copy(b, slot, r->range, r->bytes, &r->marks[next]));
    for (int i = 0; r->range == NULL && i < r->n; i++)
        if (r->tensors[i] != NULL)
            CAB_TRY(
                copy(b, slot + r->offsets[i], r->tensors[i]->data, cab_tensor_bytes(r->tensors[i]), &r->marks[next]));
    r->waiting++;
    return CAB_OK;
}

int cab_readback_waiting(const cab_readback *r)
{
    return r->waiting;
}

cab_status cab_readback_take(cab_readback *r, size_t stride, void *to)
{
    cab_backend *b = r->graph->backend;
    const char *slot = r->slots + (size_t)r->oldest * r->bytes;
    if (r->waiting == 0)
        return cab_fail(CAB_EARG, "no run's results wait to be taken");
    if (b->download_behind != NULL)
        CAB_TRY(b->reach(b, r->marks[r->oldest]));
    for (int i = 0; i < r->n; i++)
        if (r->tensors[i] != NULL)
            memcpy((char *)to + (size_t)i * stride, slot + r->offsets[i], cab_tensor_bytes(r->tensors[i]));
    r->oldest = (r->oldest + 1) % CAB_READBACKS;
    r->waiting--;
    return CAB_OK;
}
