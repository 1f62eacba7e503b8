#include "distill/keep.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KL_WINDOWS = 8 }; /* at most, for the ranking by KL */

/* ---- measuring -------------------------------------------------------------------------------------------------------- */

/* The teacher without some columns of one layer's output projection, beside itself. What the layers before that layer make of the windows is
 * kept from layer to layer, what the teacher's head reads from the beginning: only the layers from there on are computed again. */
typedef struct ranking {
    const cab_model *teacher;
    const cab_windows *windows; /* of them the first `count` */
    int64_t count;
    int32_t *labels;    /* none */
    cab_params *params; /* the projection with columns of zeros */
    cab_tensor *out;
    float *all, *without; /* its values, whole and with the columns left out */
    void *x,
        *read; /* (count, length, D) in the model's dtype: what the layer reads; what the head reads of the whole teacher */
    cab_graph *graph; /* of one layer and those behind it */
    cab_tensor *kl;
} ranking;

static cab_status ranking_open(const cab_model *teacher, const cab_windows *windows, ranking *r)
{
    const cab_tensor *w = teacher->network.blocks[0].attention.out.w;
    const int64_t count = windows->count < KL_WINDOWS ? windows->count : KL_WINDOWS;
    const size_t n = (size_t)cab_elements(w), tokens = (size_t)(count * windows->length);
    const size_t row = (size_t)teacher->config.d_model * cab_dtype_size(cab_model_dtype(teacher));
    *r = (ranking){.teacher = teacher, .windows = windows, .count = count};
    CAB_TRY(cab_params_new(teacher->backend, &r->params));
    CAB_TRY(cab_params_add(r->params, "an output projection", w->dtype, 2, w->shape, CAB_NO_DECAY, &r->out));
    CAB_TRY(CAB_NEW(&r->all, n, "an output projection"));
    CAB_TRY(CAB_NEW(&r->without, n, "an output projection"));
    CAB_TRY(CAB_NEW(&r->labels, tokens, "labels"));
    CAB_TRY(cab_alloc(&r->x, tokens, row, "activations"));
    CAB_TRY(cab_alloc(&r->read, tokens, row, "activations"));
    for (size_t i = 0; i < tokens; i++)
        r->labels[i] = -1;
    return CAB_OK;
}

static void ranking_close(ranking *r)
{
    cab_graph_free(r->graph);
    cab_params_free(r->params);
    cab_free(r->all);
    cab_free(r->without);
    cab_free(r->labels);
    cab_free(r->x);
    cab_free(r->read);
}

/* An input of the windows' activations. */
static cab_tensor *activations(const ranking *r, cab_graph *g, const char *name)
{
    const int64_t shape[3] = {r->count, r->windows->length, r->teacher->config.d_model};
    return cab_graph_input(g, name, cab_model_dtype(r->teacher), 3, shape);
}

/* Runs a graph for one tensor. */
static cab_status run_for(cab_graph *g, cab_tensor *input, const void *values, cab_tensor *wanted, void *out)
{
    cab_graph_keep(g, wanted);
    CAB_TRY(cab_graph_plan(g, NULL));
    CAB_TRY(cab_tensor_write(g, input, values));
    CAB_TRY(cab_graph_run(g));
    return cab_tensor_read(g, wanted, out);
}

/* r->x: what the first layer reads. */
static cab_status read_input(ranking *r)
{
    const cab_model *t = r->teacher;
    cab_graph *g = NULL;
    CAB_TRY(cab_graph_new(t->backend, &g));
    cab_tensor *input = cab_model_input(g, t, r->count, r->windows->length);
    cab_tensor *x = cab_network_record_input(g, &t->network, cab_model_dtype(t), input);
    const cab_status status = run_for(g, input, r->windows->ids, x, r->x);
    cab_graph_free(g);
    return status;
}

/* `out`: of r->x before layer `first`, what it is `count` layers on; at the end of the teacher, what the head reads. */
static cab_status advance(ranking *r, int first, int count, void *out)
{
    const cab_model *t = r->teacher;
    cab_graph *g = NULL;
    CAB_TRY(cab_graph_new(t->backend, &g));
    cab_tensor *input = activations(r, g, "x");
    cab_tensor *x = cab_network_record_layers(g, &t->network, cab_model_dtype(t), input, first, count);
    if (out == r->read)
        x = cab_network_record_output(g, &t->network, x);
    const cab_status status = run_for(g, input, r->x, x, out);
    cab_graph_free(g);
    return status;
}

/* The teacher from layer l on, with r->out in the place of its projection. */
static cab_status record_layer(ranking *r, int l)
{
    const cab_model *t = r->teacher;
    const int64_t shape[2] = {r->count, r->windows->length};
    const size_t n = (size_t)t->network.n_layer;
    cab_network other = t->network;
    cab_head_side sides[2] = {cab_model_head(t), cab_model_head(t)};
    cab_graph_free(r->graph);
    r->graph = NULL;
    CAB_TRY(cab_graph_new(t->backend, &r->graph));
    CAB_TRY(CAB_NEW(&other.blocks, n, "a model's layers"));
    memcpy(other.blocks, t->network.blocks, n * sizeof *other.blocks);
    other.blocks[l].attention.out.w = r->out;
    cab_tensor *x = activations(r, r->graph, "x"), *read = activations(r, r->graph, "read");
    cab_tensor *labels = cab_graph_input(r->graph, "labels", CAB_I32, 2, shape);
    sides[0].hidden = cab_network_record_output(
        r->graph, &other, cab_network_record_layers(r->graph, &other, cab_model_dtype(t), x, l, (int)n - l));
    sides[1].hidden = read;
    r->kl = cab_head_loss(r->graph, &sides[0], &sides[1], labels, NULL, 1).kl;
    cab_graph_keep(r->graph, r->kl);
    cab_free(other.blocks);
    CAB_TRY(cab_graph_plan(r->graph, NULL));
    CAB_TRY(cab_tensor_write(r->graph, x, r->x));
    CAB_TRY(cab_tensor_write(r->graph, read, r->read));
    CAB_TRY(cab_tensor_write(r->graph, labels, r->labels));
    return cab_params_read(t->params, t->network.blocks[l].attention.out.w, r->all);
}

/* KL without inputs first .. first + n of the projection. */
static cab_status measure(ranking *r, const cab_dense *out, int64_t first, int64_t n, float *cost)
{
    const int64_t rows = r->out->shape[0], columns = r->out->shape[1];
    memcpy(r->without, r->all, (size_t)(rows * columns) * sizeof *r->all);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            const int64_t input = out->layout == CAB_IN_OUT ? i : j;
            if (input >= first && input < first + n)
                r->without[i * columns + j] = 0;
        }
    CAB_TRY(cab_params_write(r->params, r->out, r->without));
    CAB_TRY(cab_graph_run(r->graph));
    return cab_scalar_read(r->graph, r->kl, cost);
}

static cab_status rank(const cab_model *teacher, const cab_windows *windows, cab_kept *k)
{
    const int units = k->layers ? 1 : k->n_head, width = teacher->config.head_dim;
    cab_progress progress;
    ranking r;
    cab_status status;
    cab_progress_begin(&progress, k->layers ? "ranking layers" : "ranking heads", "layers", 0, (uint64_t)k->n_layer);
    CAB_GOTO(ranking_open(teacher, windows, &r));
    CAB_GOTO(read_input(&r));
    CAB_GOTO(advance(&r, 0, k->n_layer, r.read));
    for (int l = 0; l < k->n_layer; l++) {
        CAB_GOTO(record_layer(&r, l));
        for (int h = 0; h < units; h++)
            CAB_GOTO(measure(&r, &teacher->network.blocks[l].attention.out, (int64_t)h * width,
                             (int64_t)(k->layers ? k->n_head : 1) * width, &k->cost[l * units + h]));
        CAB_GOTO(advance(&r, l, 1, r.x));
        cab_progress_update(&progress, (uint64_t)l + 1, "");
    }
    status = CAB_OK;
done:
    cab_progress_end(&progress);
    ranking_close(&r);
    return status;
}

/* ---- choosing --------------------------------------------------------------------------------------------------------- */

/* The `count` dearest of n, in rising order; all of them where there are no costs. */
static void choose_dearest(const float *cost, int n, int count, int *units)
{
    int chosen = 0;
    for (int i = 0; i < n; i++) {
        int dearer = 0;
        for (int j = 0; j < n && cost != NULL; j++)
            dearer += cost[j] > cost[i] || (cost[j] == cost[i] && j < i);
        if (dearer < count)
            units[chosen++] = i;
    }
}

static cab_status take_list(const cab_recipe *recipe, cab_kept *k)
{
    const int most = k->layers ? k->n_layer : k->n_head, rows = k->layers ? 1 : k->n_layer;
    for (int i = 0; i < k->count; i++) {
        const int64_t unit = recipe->student.keep_list.items[i];
        if (unit < 0 || unit >= most || (i > 0 && unit <= recipe->student.keep_list.items[i - 1]))
            return cab_fail(CAB_EARG, "student.keep_list[%d] is %lld, expected rising numbers below %d", i,
                            (long long)unit, most);
        for (int row = 0; row < rows; row++)
            k->units[row * k->count + i] = (int)unit;
    }
    return CAB_OK;
}

int cab_kept_layers(const cab_model *teacher, const cab_recipe *recipe, bool layers)
{
    return layers && recipe->student.n_layer > 0 ? (int)recipe->student.n_layer : teacher->config.n_layer;
}

cab_status cab_kept_choose(const cab_model *teacher, const cab_recipe *recipe, bool layers, const cab_windows *windows,
                           cab_kept *k)
{
    const cab_config *t = &teacher->config;
    const int n_layer = cab_kept_layers(teacher, recipe, layers);
    const int listed = (int)recipe->student.keep_list.count, most = layers ? n_layer : t->n_head;
    const int rows = layers ? 1 : n_layer;
    if (n_layer > t->n_layer)
        return cab_fail(CAB_ESHAPE, "student.n_layer is %d, the teacher has %d layers", n_layer, t->n_layer);
    *k = (cab_kept){.layers = layers,
                    .n_layer = n_layer,
                    .n_head = t->n_head,
                    .count = (int)recipe->student.keep,
                    .by = (int)recipe->student.keep_by};
    if (listed > 0 && k->count == 0)
        k->count = listed;
    if (listed > 0 && k->count != listed)
        return cab_fail(CAB_EARG, "student.keep is %d, student.keep_list has %d entries", k->count, listed);
    if (k->count > most)
        return cab_fail(CAB_ESHAPE,
                        layers ? "student.keep is %d, there are %d layers"
                               : "student.keep is %d, the teacher has %d heads in a layer",
                        k->count, most);
    if (k->count == 0)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&k->units, (size_t)(rows * k->count), "kept attention"));
    if (listed > 0)
        return take_list(recipe, k);
    if (k->count < most) {
        CAB_TRY(CAB_NEW(&k->cost, (size_t)(rows * most), "costs"));
        k->open = k->by == CAB_KEEP_BY_ERROR;
        if (!k->open)
            CAB_TRY(rank(teacher, windows, k));
    }
    cab_kept_decide(k);
    return CAB_OK;
}

void cab_kept_decide(cab_kept *k)
{
    const int rows = k->layers ? 1 : k->n_layer, most = k->layers ? k->n_layer : k->n_head;
    for (int row = 0; row < rows; row++)
        choose_dearest(k->cost != NULL ? k->cost + row * most : NULL, most, k->count, k->units + row * k->count);
}

void cab_kept_close(cab_kept *k)
{
    cab_free(k->units);
    cab_free(k->cost);
    *k = (cab_kept){0};
}

bool cab_kept_has(const cab_kept *k, int layer, int head)
{
    const int *units = k->layers ? k->units : k->units + (size_t)layer * (size_t)k->count;
    bool has = false;
    for (int i = 0; i < k->count; i++)
        has = has || units[i] == (k->layers ? layer : head);
    return has;
}

int cab_kept_kv_heads(const cab_kept *k, int share)
{
    for (int l = 0; l < k->n_layer; l++)
        for (int i = 1; i < k->count; i++)
            if (cab_kept_head(k, l, i) / share != cab_kept_head(k, l, 0) / share)
                return k->count;
    return 1;
}

/* ---- words ------------------------------------------------------------------------------------------------------------ */

void cab_kept_print(const cab_kept *k)
{
    const int units = k->layers ? 1 : k->n_head;
    for (int l = 0; k->cost != NULL && l < k->n_layer; l++) {
        char line[256];
        size_t used = (size_t)snprintf(line, sizeof line, "cost     layer %-3d", l);
        for (int h = 0; h < units && used < sizeof line; h++)
            used += (size_t)snprintf(line + used, sizeof line - used, " %.3f%s", (double)k->cost[l * units + h],
                                     cab_kept_has(k, l, h) ? "*" : "");
        cab_log_info("%s", line);
    }
    if (k->cost != NULL)
        cab_log_info("         %s that %s; * stays attention",
                     k->by == CAB_KEEP_BY_KL ? "KL per token without"
                                             : "share of the variance that mixers explain less without",
                     k->layers ? "layer" : "head");
}
