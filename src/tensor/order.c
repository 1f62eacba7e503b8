/* order.c - the list in the order that needs least memory: what only the backward pass reads is computed there.
 *
 * A forward node whose outputs nobody reads before the backward pass moves down to just before the first backward node that
 * does, if all it reads lives that long anyway. So the bridges of an alignment loss, recorded after both models, run layer by
 * layer beside their own backward nodes, and their hidden layers need memory for one layer instead of for all. Nothing is
 * computed twice and no value changes.
 *
 * Places are counted twice as finely as nodes: node i stands at 2 i, one that moves to before node t at 2 t - 1. Those that
 * move to the same place keep their order. */
#include "base/memory.h"
#include "tensor/graph_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct use {
    size_t root;
    int node;
} use;

typedef struct order {
    use *uses; /* by root */
    size_t n_uses, capacity;
    size_t *first; /* of a root's uses; n_tensors + 1 of them */
    int *place;    /* by node */
    int boundary;  /* place of the first backward node */
    bool failed;
} order;

static void note(cab_graph *g, const cab_tensor *root, int index, void *context)
{
    order *o = context;
    if (o->failed || CAB_GROW(&o->uses, &o->capacity, o->n_uses + 1, "a plan") != CAB_OK) {
        o->failed = true;
        return;
    }
    (void)g;
    o->uses[o->n_uses++] = (use){(size_t)root->id, index};
}

static int by_root(const void *a, const void *b)
{
    const use *x = a, *y = b;
    if (x->root != y->root)
        return x->root < y->root ? -1 : 1;
    return x->node - y->node;
}

static cab_status collect_uses(cab_graph *g, order *o)
{
    for (int i = 0; i < (int)g->n_nodes; i++) {
        if (g->nodes[i]->skip)
            continue;
        cab_visit_reads(g, i, note, o);
        cab_visit_writes(g, i, note, o);
    }
    if (o->failed)
        return CAB_ENOMEM;
    qsort(o->uses, o->n_uses, sizeof *o->uses, by_root);
    for (size_t i = 0, root = 0; root <= g->n_tensors; root++) {
        while (i < o->n_uses && o->uses[i].root < root)
            i++;
        o->first[root] = i;
    }
    return CAB_OK;
}

/* The first place at which another node uses what this node writes; INT_MAX for none. 0 where it may not move: an output is
 * part of something larger, or is read by the host. */
static int wanted_at(const cab_graph *g, const order *o, int index)
{
    const cab_node *node = g->nodes[index];
    int wanted = INT_MAX;
    for (int i = 0; i < node->n_out; i++) {
        const cab_tensor *t = node->out[i];
        if (t == NULL)
            continue;
        if (t->base != NULL || t->keep || t->kind != CAB_ACTIVATION)
            return 0;
        for (size_t u = o->first[t->id]; u < o->first[t->id + 1]; u++)
            if (o->uses[u].node != index && o->place[o->uses[u].node] < wanted)
                wanted = o->place[o->uses[u].node];
    }
    return wanted;
}

/* Whether everything the node reads is used by another at `place` or later, or is no activation. */
static bool inputs_live(const cab_graph *g, const order *o, int index, int place)
{
    const cab_node *node = g->nodes[index];
    for (int i = 0; i < node->n_in; i++) {
        int64_t offset;
        const cab_tensor *root = node->in[i] != NULL ? cab_tensor_root(node->in[i], &offset) : NULL;
        if (root == NULL || root->id < 0 || root->kind != CAB_ACTIVATION || root->keep)
            continue;
        bool lives = false;
        for (size_t u = o->first[root->id]; u < o->first[root->id + 1] && !lives; u++)
            lives = o->uses[u].node != index && o->place[o->uses[u].node] >= place;
        if (!lives)
            return false;
    }
    return true;
}

static void choose_places(const cab_graph *g, order *o)
{
    for (int i = (int)g->n_nodes - 1; i >= 0; i--) {
        const cab_node *node = g->nodes[i];
        if (2 * i >= o->boundary || node->skip || node->n_out == 0 || cab_node_has_effect(node))
            continue;
        int wanted = wanted_at(g, o, i);
        if (wanted == INT_MAX || wanted < o->boundary)
            continue;
        wanted -= wanted % 2 == 0; /* just before an unmoved node; beside a moved one, whose inputs it makes */
        if (inputs_live(g, o, i, wanted))
            o->place[i] = wanted;
    }
}

static cab_status arrange(cab_graph *g, const order *o)
{
    cab_node **nodes = NULL;
    size_t *next = NULL, n = 0, places = 2 * g->n_nodes;
    cab_status status;
    CAB_GOTO(CAB_NEW(&nodes, g->n_nodes, "a plan"));
    CAB_GOTO(CAB_NEW(&next, places + 1, "a plan"));
    for (size_t i = 0; i < g->n_nodes; i++) /* a counting sort: stable */
        next[o->place[i] + 1]++;
    for (size_t i = 0; i < places; i++)
        next[i + 1] += next[i];
    for (n = 0; n < g->n_nodes; n++)
        nodes[next[o->place[n]]++] = g->nodes[n];
    memcpy(g->nodes, nodes, g->n_nodes * sizeof(cab_node *));
done:
    cab_free(nodes);
    cab_free(next);
    return status;
}

cab_status cab_graph_order(cab_graph *g)
{
    order o = {.boundary = INT_MAX};
    cab_status status;
    CAB_GOTO(CAB_NEW(&o.first, g->n_tensors + 1, "a plan"));
    CAB_GOTO(CAB_NEW(&o.place, g->n_nodes, "a plan"));
    for (int i = (int)g->n_nodes - 1; i >= 0; i--) {
        o.place[i] = 2 * i;
        if (g->nodes[i]->backward)
            o.boundary = 2 * i;
    }
    if (o.boundary == INT_MAX)
        goto done;
    CAB_GOTO(collect_uses(g, &o));
    choose_places(g, &o);
    CAB_GOTO(arrange(g, &o));
done:
    cab_free(o.uses);
    cab_free(o.first);
    cab_free(o.place);
    return status;
}
