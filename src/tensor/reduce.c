/* reduce.c - where in a list gradients are added up over ranks: a bucket behind the last node that writes to it. The
 * list has its final order by then. */
#include "tensor/reduce.h"

#include "base/memory.h"
#include "tensor/graph_internal.h"

#include <string.h>

const cab_op cab_op_reduce = {.name = "reduce", .effect = true};

void cab_graph_reduce(cab_graph *g, cab_params *const *stores, int n, bool scatter)
{
    if (g->backend->communicator == NULL)
        return;
    g->reduced = stores;
    g->n_reduced = n;
    g->scatter = scatter;
}

void cab_graph_set_reducing(cab_graph *g, bool on)
{
    g->reducing = on && g->reduced != NULL;
}

bool cab_graph_leaves_out(const cab_graph *g, const cab_node *node)
{
    return node->op == &cab_op_reduce && !g->reducing;
}

static bool writes_to(const cab_node *node, const cab_bucket *bucket)
{
    const char *begin = (const char *)bucket->data, *end = (const char *)(bucket->data + bucket->count);
    for (int i = 0; !node->skip && i < node->n_in; i++) {
        const cab_tensor *t = node->gin[i];
        if (t != NULL && t->kind == CAB_PARAMETER && (const char *)t->data < end &&
            (const char *)t->data + cab_tensor_bytes(t) > begin)
            return true;
    }
    return false;
}

/* The last of n nodes that writes to the bucket; -1: none does. */
static int last_writer(const cab_graph *g, size_t n, const cab_bucket *bucket)
{
    int last = -1;
    for (int i = 0; i < (int)n; i++)
        if (writes_to(g->nodes[i], bucket))
            last = i;
    return last;
}

/* A node to be put behind another; nodes keep the order of their making among those of one place. */
typedef struct insertion {
    int after;
    cab_node *node;
} insertion;

static cab_status make_nodes(cab_graph *g, insertion *list, size_t *count)
{
    const size_t n = g->n_nodes;
    for (int s = 0; s < g->n_reduced; s++) {
        for (size_t b = 0; b < cab_params_buckets(g->reduced[s]); b++) {
            const cab_reduce_attributes attributes = {
                .bucket = cab_params_bucket(g->reduced[s], b), .store = (size_t)s, .index = b, .scatter = g->scatter};
            const int after = last_writer(g, n, &attributes.bucket);
            if (after < 0)
                continue;
            cab_node *node = cab_graph_push(g, &(cab_node){.op = &cab_op_reduce,
                                                           .segment = -1,
                                                           .attributes = &attributes,
                                                           .attributes_size = sizeof attributes});
            if (node == NULL)
                return cab_fail(g->status, "%s", g->error);
            list[(*count)++] = (insertion){after, node};
        }
    }
    return CAB_OK;
}

/* The list of n nodes with the others among them. */
static void merge(cab_graph *g, size_t n, const insertion *list, size_t count, cab_node **merged)
{
    cab_node *last = NULL;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        merged[at++] = g->nodes[i];
        for (size_t k = 0; k < count; k++)
            if (list[k].after == (int)i)
                merged[at++] = last = list[k].node;
    }
    memcpy(g->nodes, merged, at * sizeof *merged);
    if (last != NULL)
        ((cab_reduce_attributes *)last->attributes)->last = true; /* the graph's own copy */
}

/* Buckets hold what this list trains, so that every rank has an equal part of it. */
static cab_status choose_gradients(const cab_graph *g, cab_params *params)
{
    bool *chosen = NULL;
    CAB_TRY(CAB_NEW(&chosen, cab_params_count(params), "a plan"));
    for (size_t i = 0; i < cab_params_count(params); i++)
        chosen[i] = cab_graph_trains(g, cab_params_at(params, i));
    cab_params_choose_gradients(params, chosen);
    cab_free(chosen);
    return CAB_OK;
}

cab_status cab_graph_insert_reductions(cab_graph *g)
{
    const size_t n = g->n_nodes;
    insertion *list = NULL;
    cab_node **merged = NULL;
    size_t most = 0, count = 0;
    cab_status status;
    for (int s = 0; s < g->n_reduced; s++)
        CAB_TRY(choose_gradients(g, g->reduced[s]));
    for (int s = 0; s < g->n_reduced; s++)
        most += cab_params_buckets(g->reduced[s]);
    if (most == 0)
        return CAB_OK;
    CAB_GOTO(CAB_NEW(&list, most, "a plan"));
    CAB_GOTO(CAB_NEW(&merged, n + most, "a plan"));
    CAB_GOTO(make_nodes(g, list, &count));
    merge(g, n, list, count, merged);
done:
    cab_free(list);
    cab_free(merged);
    return status;
}
