#include "models/outline.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

struct cab_outlined {
    cab_tensor tensor; /* first: networks point to it */
    cab_decay decay;
    int stored_dim; /* 0: it is stored under the shape it is computed with */
    int64_t stored_shape[CAB_MAX_DIMS];
    cab_tensor *made; /* NULL: not yet */
};

cab_status cab_outline_note(cab_outline *outline, const char *name, const cab_declaration *d, cab_tensor **out)
{
    cab_outlined *o = NULL;
    CAB_TRY(CAB_GROW(&outline->noted, &outline->capacity, outline->count + 1, "an outline"));
    CAB_TRY(CAB_NEW(&o, 1, "an outline"));
    outline->noted[outline->count++] = o;
    snprintf(o->tensor.name, sizeof o->tensor.name, "%s", name);
    o->tensor.dtype = d->dtype;
    o->tensor.n_dim = d->n_dim;
    memcpy(o->tensor.shape, d->shape, (size_t)d->n_dim * sizeof *d->shape);
    o->decay = d->decay;
    if (d->stored_shape != d->shape) {
        o->stored_dim = d->stored_dim;
        memcpy(o->stored_shape, d->stored_shape, (size_t)d->stored_dim * sizeof *d->stored_shape);
    }
    *out = &o->tensor;
    return CAB_OK;
}

cab_status cab_outline_build(const cab_arch *arch, const cab_config *config, cab_dtype dtype, cab_outline *outline,
                             cab_network *network)
{
    cab_builder noting = {.outline = outline, .dtype = dtype, .image_size = config->image_size};
    return arch->build(&noting, config, network);
}

typedef struct making {
    cab_builder *b;
    const cab_config *config;
    cab_network *network;
} making;

static cab_status make(void *user, cab_tensor **place)
{
    const making *m = user;
    cab_outlined *o = (cab_outlined *)(void *)*place;
    if (o == NULL)
        return CAB_OK;
    const bool stored = o->stored_dim > 0;
    const cab_declaration d = {.dtype = o->tensor.dtype,
                               .decay = o->decay,
                               .n_dim = o->tensor.n_dim,
                               .stored_dim = stored ? o->stored_dim : o->tensor.n_dim,
                               .shape = o->tensor.shape,
                               .stored_shape = stored ? o->stored_shape : o->tensor.shape};
    if (o->made == NULL && place == &m->network->positions && m->config->image_size > 0)
        CAB_TRY(cab_builder_positions(m->b, &o->made, m->config, o->tensor.name));
    else if (o->made == NULL)
        CAB_TRY(cab_builder_declare(m->b, &o->made, &d, o->tensor.name));
    if (o->tensor.tied)
        CAB_TRY(cab_builder_tie(m->b, o->made));
    *place = o->made;
    return CAB_OK;
}

cab_status cab_outline_make(cab_builder *b, const cab_config *config, cab_network *network)
{
    cab_config placed = *config; /* without the registers, which have no position */
    placed.n_special -= config->n_register;
    placed.max_length -= config->n_register;
    making m = {.b = b, .config = &placed, .network = network};
    return cab_network_parameters(network, make, &m);
}

void cab_outline_close(cab_outline *outline)
{
    for (size_t i = 0; i < outline->count; i++)
        cab_free(outline->noted[i]);
    cab_free(outline->noted);
    *outline = (cab_outline){0};
}
