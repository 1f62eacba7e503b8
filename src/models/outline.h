/* outline.h - a network whose parameters are noted, not made: names and shapes, which may be changed before the parameters are made. So a
 * model can be another one, rewritten (in_place.h), without room for what is left out. */
#ifndef CAB_MODELS_OUTLINE_H
#define CAB_MODELS_OUTLINE_H

#include "models/builder.h"

typedef struct cab_outlined cab_outlined;

typedef struct cab_outline {
    cab_outlined **noted;
    size_t count, capacity;
} cab_outline;

/* Fills the network, whose blocks are zero, with what `arch` builds of these sizes. Its tensors are the outline's: name, dtype and shape
 * are true, there are no values. Their shapes may be changed. */
cab_status cab_outline_build(const cab_arch *arch, const cab_config *config, cab_dtype dtype, cab_outline *outline,
                             cab_network *network);
/* Makes, with `b`, the parameters that the network still points to, under their noted names, and points it to them. In a checkpoint their
 * values are those that are computed with: nothing is converted but the positions of images of another size. */
cab_status cab_outline_make(cab_builder *b, const cab_config *config, cab_network *network);
void cab_outline_close(cab_outline *outline);

/* For the builder: notes a parameter under its full name. */
cab_status cab_outline_note(cab_outline *outline, const char *name, const cab_declaration *declaration,
                            cab_tensor **out);

#endif
