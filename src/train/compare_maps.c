/* compare_maps.c - drawings of both matrices for a few samples. */
#include "base/memory.h"
#include "train/compare_internal.h"

#include <string.h>

enum { MAP_LAYERS = 6 }; /* of the student, that are drawn */

cab_status cab_compare_drawer_open(cab_compare_drawer *d, int64_t tokens)
{
    CAB_TRY(cab_probe_new(d->pair->teacher, tokens, &d->teacher));
    CAB_TRY(cab_probe_new(d->pair->student, tokens, &d->student));
    const size_t T = (size_t)cab_probe_tokens(d->student);
    return CAB_NEW(&d->matrix, T * T, "a matrix of tokens by tokens");
}

static void close_drawer(cab_compare_drawer *d)
{
    cab_probe_free(d->teacher);
    cab_probe_free(d->student);
    cab_free(d->matrix);
}

/* The part of a layer's matrix that is drawn. */
static cab_status cut_out(cab_compare_drawer *d, cab_probe *probe, int layer, const cab_heat_map *map, float **values)
{
    const size_t n = (size_t)(map->rows * map->columns);
    CAB_TRY(CAB_NEW(values, n, "a drawing"));
    CAB_TRY(cab_probe_matrix(probe, layer, d->matrix));
    memcpy(*values, d->matrix + d->pair->kind->first, n * sizeof **values);
    return CAB_OK;
}

cab_status cab_compare_draw_layers(cab_compare_drawer *d, const void *input, cab_heat_map *map)
{
    const cab_compare_pair *p = d->pair;
    const int S = p->student->config.n_layer, n = S < MAP_LAYERS ? S : MAP_LAYERS;
    CAB_TRY(CAB_NEW(&map->layers, (size_t)n, "a drawing"));
    map->n_layer = n;
    CAB_TRY(cab_probe_run(d->teacher, input));
    CAB_TRY(cab_probe_run(d->student, input));
    for (int i = 0; i < n; i++) {
        cab_heat_layer *layer = &map->layers[i];
        layer->layer = (i + 1) * S / n - 1;
        layer->teacher_layer = p->teacher_layer[layer->layer];
        CAB_TRY(cut_out(d, d->teacher, layer->teacher_layer, map, &layer->teacher));
        CAB_TRY(cut_out(d, d->student, layer->layer, map, &layer->student));
    }
    return CAB_OK;
}

cab_status cab_compare_draw(cab_compare_pair *p, int64_t samples, cab_comparison *out)
{
    cab_compare_drawer d = {.pair = p, .out = out};
    cab_status status = p->kind->draw(&d, samples);
    close_drawer(&d);
    return status;
}
