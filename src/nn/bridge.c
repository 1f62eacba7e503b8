#include "nn/bridge.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/thread.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct mlp {
    cab_dense layers[CAB_BRIDGE_MAX_LAYERS];
} mlp;

enum { DIRECTIONS = 2 };

struct cab_bridge {
    cab_bridge_options options;
    int n_layer;
    int *layer_map;
    mlp *phi[DIRECTIONS][2]; /* of B, of C, by layer */
};

static cab_status draw_uniform(cab_params *params, cab_tensor *t, double bound, uint64_t seed)
{
    float *values = NULL;
    size_t n = (size_t)cab_elements(t);
    CAB_TRY(CAB_NEW(&values, n, t->name));
    const cab_random random = {
        .seed = seed, .stream = CAB_STREAM_INIT, .sub = (uint32_t)cab_hash(CAB_HASH_START, t->name, strlen(t->name))};
#pragma omp parallel for num_threads(cab_thread_count()) schedule(static)
    for (size_t i = 0; i < n; i++) {
        cab_random own = cab_random_at(random, i);
        values[i] = (float)((2.0 * cab_random_uniform(&own) - 1.0) * bound);
    }
    cab_status status = cab_params_write(params, t, values);
    cab_free(values);
    return status;
}

static cab_status add_dense(cab_params *params, const char *name, int64_t n_in, int64_t n_out, uint64_t seed,
                            cab_dense *dense)
{
    char full[CAB_NAME_MAX];
    double bound = 1.0 / sqrt((double)n_in);
    dense->layout = CAB_OUT_IN;
    snprintf(full, sizeof full, "%s.weight", name);
    CAB_TRY(cab_params_add(params, full, CAB_F32, 2, (int64_t[]){n_out, n_in}, CAB_DECAY, &dense->w));
    snprintf(full, sizeof full, "%s.bias", name);
    CAB_TRY(cab_params_add(params, full, CAB_F32, 1, (int64_t[]){n_out}, CAB_NO_DECAY, &dense->b));
    CAB_TRY(draw_uniform(params, dense->w, bound, seed));
    return draw_uniform(params, dense->b, bound, seed);
}

static int directions(const cab_bridge *bridge)
{
    return bridge->options.bidirectional ? 2 : 1;
}

static cab_status add_mlp(cab_params *params, const cab_bridge_options *o, const char *which, int layer, int64_t n_in,
                          int64_t n_out, uint64_t seed, mlp *out)
{
    for (int i = 0; i < o->n_layer; i++) {
        char name[CAB_NAME_MAX - 16];
        snprintf(name, sizeof name, "bridge.%s.%d.%d", which, layer, 2 * i); /* odd numbers are the activations */
        CAB_TRY(add_dense(params, name, i == 0 ? n_in : o->hidden, i + 1 == o->n_layer ? n_out : o->hidden, seed,
                          &out->layers[i]));
    }
    return CAB_OK;
}

static cab_status add_layer(cab_params *params, cab_bridge *bridge, int l, const cab_bridge_widths *w, uint64_t seed)
{
    static const char *const names[DIRECTIONS][2] = {{"B", "C"}, {"B_b", "C_b"}};
    const int64_t in[2] = {w->B, w->C}, out[2] = {w->K, w->Q};
    for (int d = 0; d < directions(bridge); d++)
        for (int i = 0; i < 2; i++)
            CAB_TRY(add_mlp(params, &bridge->options, names[d][i], l, in[i], out[i], seed, &bridge->phi[d][i][l]));
    return CAB_OK;
}

cab_status cab_bridge_new(cab_params *params, const cab_bridge_options *options, const int *layer_map, int n_layer,
                          const cab_bridge_widths *widths, uint64_t seed, cab_bridge **out)
{
    cab_bridge *bridge = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&bridge, 1, "a bridge"));
    bridge->options = *options;
    bridge->n_layer = n_layer;
    CAB_GOTO(CAB_NEW(&bridge->layer_map, (size_t)n_layer, "a bridge"));
    for (int d = 0; d < directions(bridge); d++)
        for (int i = 0; i < 2; i++)
            CAB_GOTO(CAB_NEW(&bridge->phi[d][i], (size_t)n_layer, "a bridge"));
    memcpy(bridge->layer_map, layer_map, (size_t)n_layer * sizeof *layer_map);
    for (int l = 0; l < n_layer; l++)
        if (layer_map[l] >= 0)
            CAB_GOTO(add_layer(params, bridge, l, &widths[l], seed));
    status = cab_params_set_trainable(params, "bridge.*", true, NULL);
done:
    if (status == CAB_OK)
        *out = bridge;
    else
        cab_bridge_free(bridge);
    return status;
}

void cab_bridge_free(cab_bridge *bridge)
{
    if (bridge == NULL)
        return;
    cab_free(bridge->layer_map);
    for (int d = 0; d < DIRECTIONS; d++)
        for (int i = 0; i < 2; i++)
            cab_free(bridge->phi[d][i]);
    cab_free(bridge);
}

static cab_tensor *record_mlp(cab_graph *g, const cab_bridge *bridge, const mlp *m, cab_tensor *x)
{
    for (int i = 0; i < bridge->options.n_layer; i++) {
        if (i > 0)
            x = cab_activate(g, x, bridge->options.activation);
        x = cab_dense_record(g, &m->layers[i], x);
    }
    return x;
}

int cab_bridge_aligned(const cab_bridge *bridge)
{
    int aligned = 0;
    for (int l = 0; l < bridge->n_layer; l++)
        aligned += bridge->layer_map[l] >= 0;
    return aligned;
}

int cab_bridge_terms(const cab_bridge *bridge)
{
    return 2 * directions(bridge) * cab_bridge_aligned(bridge);
}

static cab_tensor *record_term(cab_graph *g, const cab_bridge *bridge, const mlp *m, cab_tensor *x, cab_tensor *target,
                               const cab_alignment *how)
{
    if (bridge->options.n_layer == 2) {
        const cab_bridge_layers layers = {.w1 = m->layers[0].w,
                                          .b1 = m->layers[0].b,
                                          .w2 = m->layers[1].w,
                                          .b2 = m->layers[1].b,
                                          .activation = bridge->options.activation};
        return cab_bridge_loss(g, x, &layers, target, how);
    }
    return cab_align_loss(g, record_mlp(g, bridge, m, x), target, how);
}

/* rows NULL: the teacher's rows stand as the student's. */
static void record_terms(cab_graph *g, const cab_bridge *bridge, const cab_bridge_images *sides,
                         const cab_row_map *rows, cab_tensor **terms)
{
    const cab_bridge_options *o = &bridge->options;
    const cab_feature_map maps[2] = {o->softmax ? CAB_MAP_SOFTMAX_TOKENS : o->map,
                                     o->softmax ? CAB_MAP_SOFTMAX_FEATURES : o->map};
    cab_tensor *const *const from[DIRECTIONS][2] = {{sides->B, sides->C}, {sides->B_back, sides->C_back}};
    cab_tensor *const *const targets[2] = {sides->K, sides->Q};
    int n = 0;
    for (int l = 0; l < bridge->n_layer; l++)
        for (int d = 0; d < directions(bridge) && bridge->layer_map[l] >= 0; d++)
            for (int i = 0; i < 2; i++) {
                cab_tensor *target = targets[i][bridge->layer_map[l]];
                const cab_alignment how = {.map = maps[i], .rows = rows, .relative = o->relative};
                terms[n++] = record_term(g, bridge, &bridge->phi[d][i][l], from[d][i][l], target, &how);
            }
}

void cab_bridge_record(cab_graph *g, const cab_bridge *bridge, cab_tensor *const *B, cab_tensor *const *C,
                       cab_tensor *const *K, cab_tensor *const *Q, cab_tensor **terms)
{
    const cab_bridge_images sides = {.B = B, .C = C, .K = K, .Q = Q};
    record_terms(g, bridge, &sides, NULL, terms);
}

void cab_bridge_record_images(cab_graph *g, const cab_bridge *bridge, const cab_bridge_images *images,
                              cab_tensor **terms)
{
    record_terms(g, bridge, images, &images->rows, terms);
}
