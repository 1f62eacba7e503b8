/* plan.c - dead nodes go, others move to where they need least memory (order.c). Lifetimes on a list are intervals: the
 * largest is placed first, at the lowest offset that is free for as long as it lives. Scratch of a node is an interval of
 * length one. */
#include "base/memory.h"
#include "tensor/graph_internal.h"
#include "tensor/kernel.h"

#include <stdlib.h>

enum { PLACE_ALIGNMENT = 256 };

typedef struct block {
    int first, last;
    size_t bytes, offset;
    size_t owner; /* tensor id, or node index for scratch */
    bool is_scratch;
    bool result; /* kept and small: stands at the front, beside the others, so that one copy reads them all */
} block;

static void visit_one(cab_graph *g, const cab_tensor *t, int index, cab_visitor visit, void *context)
{
    int64_t offset;
    if (t == NULL)
        return;
    const cab_tensor *root = cab_tensor_root(t, &offset);
    if (root->id >= 0)
        visit(g, root, index, context);
}

void cab_visit_reads(cab_graph *g, int index, cab_visitor visit, void *context)
{
    const cab_node *node = g->nodes[index];
    for (int i = 0; i < node->n_in; i++)
        visit_one(g, node->in[i], index, visit, context);
    for (int i = 0; i < node->n_out; i++) {
        visit_one(g, node->gout[i], index, visit, context);
        if (node->backward && !node->op->backward_computes_outputs)
            visit_one(g, node->out[i], index, visit, context);
    }
}

void cab_visit_writes(cab_graph *g, int index, cab_visitor visit, void *context)
{
    const cab_node *node = g->nodes[index];
    for (int i = 0; i < node->n_in; i++)
        visit_one(g, node->gin[i], index, visit, context);
    for (int i = 0; i < node->n_out; i++)
        if (!node->backward || node->op->backward_computes_outputs)
            visit_one(g, node->out[i], index, visit, context);
}

static void mark_live(cab_graph *g, const cab_tensor *root, int index, void *context)
{
    (void)index;
    (void)context;
    g->places[root->id].live = true;
}

static void touch(cab_graph *g, const cab_tensor *root, int index, void *context)
{
    (void)context;
    cab_place *place = &g->places[root->id];
    if (place->first < 0 || index < place->first)
        place->first = index;
    if (index > place->last)
        place->last = index;
}

static bool writes_live(const cab_graph *g, const cab_node *node)
{
    int64_t offset;
    for (int i = 0; i < node->n_in; i++) {
        const cab_tensor *root = node->gin[i] != NULL ? cab_tensor_root(node->gin[i], &offset) : NULL;
        if (root != NULL && root->id >= 0 && (root->keep || g->places[root->id].live))
            return true;
    }
    for (int i = 0; i < node->n_out; i++) {
        const cab_tensor *root = node->out[i] != NULL ? cab_tensor_root(node->out[i], &offset) : NULL;
        bool written = !node->backward || node->op->backward_computes_outputs;
        if (written && root != NULL && root->id >= 0 && (root->keep || node->out[i]->keep || g->places[root->id].live))
            return true;
    }
    return false;
}

static void drop_dead(cab_graph *g, cab_plan *plan)
{
    for (int i = (int)g->n_nodes - 1; i >= 0; i--) {
        cab_node *node = g->nodes[i];
        if (node->skip) {
            plan->dropped++;
            continue;
        }
        if (!cab_node_has_effect(node) && !writes_live(g, node)) {
            node->skip = true;
            plan->dropped++;
            continue;
        }
        cab_visit_reads(g, i, mark_live, NULL);
    }
}

static void measure_lifetimes(cab_graph *g)
{
    for (size_t i = 0; i < g->n_tensors; i++)
        g->places[i].first = g->places[i].last = -1;
    for (int i = 0; i < (int)g->n_nodes; i++) {
        if (g->nodes[i]->skip)
            continue;
        cab_visit_reads(g, i, touch, NULL);
        cab_visit_writes(g, i, touch, NULL);
    }
    for (size_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->keep && g->places[i].first >= 0)
            g->places[i].last = (int)g->n_nodes;
}

static size_t round_up(size_t bytes)
{
    return (bytes + PLACE_ALIGNMENT - 1) / PLACE_ALIGNMENT * PLACE_ALIGNMENT;
}

static size_t collect_blocks(const cab_graph *g, block *blocks)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const cab_tensor *t = g->tensors[i];
        if (t->kind != CAB_ACTIVATION || t->base != NULL || g->places[i].first < 0)
            continue;
        const bool result = t->keep && cab_tensor_bytes(t) <= PLACE_ALIGNMENT;
        blocks[n++] = (block){.first = result ? 0 : g->places[i].first,
                              .last = g->places[i].last,
                              .bytes = round_up(cab_tensor_bytes(t)),
                              .owner = i,
                              .result = result};
    }
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i]->skip && g->nodes[i]->scratch_bytes > 0)
            blocks[n++] = (block){.first = (int)i,
                                  .last = (int)i,
                                  .bytes = round_up(g->nodes[i]->scratch_bytes),
                                  .owner = i,
                                  .is_scratch = true};
    return n;
}

/* Results, then largest first; ties in list order, so that plans are reproducible. */
static int by_size(const void *a, const void *b)
{
    const block *x = a, *y = b;
    if (x->result != y->result)
        return x->result ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->owner < y->owner ? -1 : 1;
}

static int by_offset(const void *a, const void *b)
{
    const block *const *x = a, *const *y = b;
    return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

/* The lowest gap between the placed blocks that live at the same time. `meeting` has room for all placed blocks. */
static size_t lowest_offset(const block *b, const block *placed, size_t n_placed, const block **meeting)
{
    size_t n = 0;
    for (size_t i = 0; i < n_placed; i++)
        if (placed[i].first <= b->last && b->first <= placed[i].last)
            meeting[n++] = &placed[i];
    qsort(meeting, n, sizeof *meeting, by_offset);
    size_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        if (meeting[i]->offset >= offset && meeting[i]->offset - offset >= b->bytes)
            return offset;
        if (meeting[i]->offset + meeting[i]->bytes > offset)
            offset = meeting[i]->offset + meeting[i]->bytes;
    }
    return offset;
}

static cab_status place_blocks(cab_graph *g, cab_plan *plan)
{
    block *blocks = NULL;
    const block **meeting = NULL;
    cab_status status;
    size_t n = 0;
    CAB_GOTO(CAB_NEW(&blocks, g->n_tensors + g->n_nodes, "a plan"));
    CAB_GOTO(CAB_NEW(&meeting, g->n_tensors + g->n_nodes, "a plan"));
    n = collect_blocks(g, blocks);
    qsort(blocks, n, sizeof *blocks, by_size);
    for (size_t i = 0; i < n; i++) {
        block *b = &blocks[i];
        b->offset = lowest_offset(b, blocks, i, meeting);
        plan->arena_unshared += b->bytes;
        if (b->offset + b->bytes > plan->arena)
            plan->arena = b->offset + b->bytes;
        if (b->is_scratch)
            g->scratch_offsets[b->owner] = b->offset;
        else
            g->places[b->owner].offset = b->offset;
    }
done:
    cab_free(blocks);
    cab_free(meeting);
    return status;
}

static void count(const cab_graph *g, cab_plan *plan)
{
    for (size_t i = 0; i < g->n_tensors; i++) {
        const cab_tensor *t = g->tensors[i];
        plan->tensors += g->places[i].first >= 0;
        if (t->base == NULL && t->kind != CAB_ACTIVATION)
            plan->inputs += cab_tensor_bytes(t);
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        plan->nodes += !g->nodes[i]->skip;
        plan->inputs += g->nodes[i]->prepared_bytes;
        plan->flops += g->nodes[i]->skip ? 0 : cab_node_flops(g->nodes[i]);
    }
}

/* The list as it will run. A backend may have added tensors. */
static cab_status arrange(cab_graph *g)
{
    CAB_TRY(cab_graph_order(g));
    if (g->backend->kernels != NULL && g->backend->kernels->optimise != NULL)
        CAB_TRY(g->backend->kernels->optimise(g));
    return CAB_GROW(&g->places, &g->places_capacity, g->n_tensors, "a plan");
}

cab_status cab_graph_plan(cab_graph *g, cab_plan *plan)
{
    cab_plan own = {0};
    if (g->status != CAB_OK)
        return cab_fail(g->status, "%s", g->error);
    if (g->planned)
        return cab_fail(CAB_EARG, "the graph has been planned before");
    CAB_TRY(CAB_GROW(&g->places, &g->places_capacity, g->n_tensors, "a plan"));
    drop_dead(g, &own);
    if (!g->eager)
        CAB_TRY(arrange(g));
    CAB_TRY(cab_graph_insert_reductions(g));
    CAB_TRY(CAB_NEW(&g->scratch_offsets, g->n_nodes, "a plan"));
    CAB_TRY(CAB_NEW(&g->seconds, g->n_nodes, "a plan"));
    measure_lifetimes(g);
    if (!g->eager)
        CAB_TRY(place_blocks(g, &own));
    count(g, &own);
    g->arena_bytes = own.arena;
    g->planned = true;
    if (plan != NULL)
        *plan = own;
    return CAB_OK;
}
